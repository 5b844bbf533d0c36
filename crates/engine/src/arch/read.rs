//! What most families share: the fields of a llama, and its names of tensors.

use super::{
    Activation, Architecture, Attention, FeedForward, Input, LayerPart, LayerRule, Location, Norm,
    NormKind, Part, Placement,
};
use crate::{
    config::{ConfigError, Fields},
    rope::Rope,
};
use talka_base::{ModelShape, Precision};

/// What absent fields mean; families differ.
#[derive(Debug, Clone, Copy)]
pub(super) struct Defaults {
    pub norm_epsilon: f64,
    pub context: u32,
    /// Heads of keys and values; as many as of queries if absent.
    pub kv_heads: Option<u32>,
    /// Width of a head; hidden width over heads if absent.
    pub head_dim: Option<u32>,
    pub tied: bool,
    pub rope_theta: f64,
}

impl Defaults {
    pub const LLAMA: Self = Self {
        norm_epsilon: 1e-6,
        context: 2048,
        kv_heads: None,
        head_dim: None,
        tied: false,
        rope_theta: 10_000.0,
    };
}

/// A decoder with norms before its parts, rotated heads and a gated feed-forward.
pub(super) fn llama_like(
    fields: Fields<'_>,
    precision: Precision,
    defaults: Defaults,
) -> Result<Architecture, ConfigError> {
    let mut shape = shape(fields, precision, defaults)?;
    let epsilon = fields.positive("rms_norm_eps")?.unwrap_or(defaults.norm_epsilon);
    let rope = Rope::read(fields, shape.head_dim, shape.context, defaults.rope_theta)?;
    shape.context = shape.context.min(rope.context_max().unwrap_or(u32::MAX));
    Ok(Architecture {
        family: "",
        shape,
        norm: Norm { kind: NormKind::RootMeanSquare, epsilon: epsilon as f32, offset: 0.0 },
        placement: Placement::Before,
        attention: Attention {
            scale: (shape.head_dim as f32).sqrt().recip(),
            divide_by_layer: false,
            softcap: None,
            qk_norm: None,
            bias: false,
            output_bias: false,
        },
        ropes: vec![rope],
        layers: vec![LayerRule { window: None, rope: 0, experts: false }; shape.layers as usize],
        feed_forward: FeedForward {
            activation: activation(fields, "hidden_act", Activation::Silu)?,
            gated: true,
            bias: false,
            width: shape.ffn,
            experts: None,
        },
        input: Input::PLAIN,
        final_norm: true,
        logits_softcap: None,
        decoder: true,
        tied: fields.bool("tie_word_embeddings")?.unwrap_or(defaults.tied),
        eos_ids: fields.ids("eos_token_id")?,
        locate: |_, part| Location::whole(llama_name(part)),
        published: None,
        weights: None,
        prefixes: &[""],
    })
}

fn shape(
    fields: Fields<'_>,
    precision: Precision,
    defaults: Defaults,
) -> Result<ModelShape, ConfigError> {
    let hidden = fields.require_u32("hidden_size")?;
    let heads = fields.require_u32("num_attention_heads")?;
    let head_dim = match fields.u32("head_dim")?.or(defaults.head_dim) {
        Some(head_dim) => head_dim,
        None => head_dim(fields, "num_attention_heads", hidden, heads)?,
    };
    const KV_HEADS: &str = "num_key_value_heads";
    let kv_heads = match fields.u32(KV_HEADS)? {
        None if !fields.is_null(KV_HEADS) => defaults.kv_heads,
        given => given,
    };
    let shape = ModelShape {
        layers: fields.require_u32("num_hidden_layers")?,
        hidden,
        heads,
        kv_heads: kv_heads.unwrap_or(heads),
        head_dim,
        ffn: fields.require_u32("intermediate_size")?,
        vocab: fields.require_u32("vocab_size")?,
        context: fields.u32("max_position_embeddings")?.unwrap_or(defaults.context),
        precision,
    };
    shape.validate()?;
    Ok(shape)
}

/// The width of a head where the file does not tell: an equal share of the hidden width.
pub(super) fn head_dim(
    fields: Fields<'_>,
    name: &str,
    hidden: u32,
    heads: u32,
) -> Result<u32, ConfigError> {
    if heads > 0 && hidden.is_multiple_of(heads) {
        return Ok(hidden / heads);
    }
    let expected = format!("a divisor of the hidden width {hidden}, as head_dim is absent");
    Err(fields.wrong(name, heads, expected))
}

/// The activation that field `name` names.
pub(super) fn activation(
    fields: Fields<'_>,
    name: &str,
    default: Activation,
) -> Result<Activation, ConfigError> {
    match fields.str(name)? {
        None => Ok(default),
        Some("silu" | "swish") => Ok(Activation::Silu),
        Some("gelu") => Ok(Activation::Gelu),
        Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast") => Ok(Activation::GeluTanh),
        Some(other) => {
            let expected = "one of silu, gelu, gelu_new, gelu_pytorch_tanh";
            Err(fields.wrong(name, format_args!("{other:?}"), expected))
        }
    }
}

/// The layers whose type (`layer_types`) is a sliding window; by `rule` where the file lists none.
pub(super) fn sliding_layers(
    fields: Fields<'_>,
    layers: u32,
    rule: impl Fn(u32) -> bool,
) -> Result<Vec<bool>, ConfigError> {
    const NAME: &str = "layer_types";
    let Some(types) = fields.strings(NAME)? else { return Ok((0..layers).map(rule).collect()) };
    if types.len() != layers as usize {
        return Err(fields.wrong(NAME, format!("{} entries", types.len()), format!("{layers}")));
    }
    let is_sliding = |kind: &&str| match *kind {
        "full_attention" => Ok(false),
        "sliding_attention" => Ok(true),
        other => {
            let expected = "full_attention or sliding_attention";
            Err(fields.wrong(NAME, format_args!("{other:?}"), expected))
        }
    };
    types.iter().map(is_sliding).collect()
}

/// Gives the layers marked in `sliding` a window of `positions`.
pub(super) fn set_windows(layers: &mut [LayerRule], sliding: &[bool], positions: u32) {
    for (layer, sliding) in layers.iter_mut().zip(sliding) {
        layer.window = sliding.then_some(positions as usize);
    }
}

/// What llama and most after it call a tensor.
pub(super) fn llama_name(part: Part) -> String {
    match part {
        Part::Embedding => "model.embed_tokens.weight".into(),
        Part::FinalNorm => "model.norm.weight".into(),
        Part::FinalNormBias => "model.norm.bias".into(),
        Part::Head => "lm_head.weight".into(),
        Part::Layer(layer, part) => format!("model.layers.{layer}.{}", llama_layer_name(part)),
        Part::Positions | Part::Types | Part::InputNorm | Part::InputNormBias => {
            unreachable!("no llama has {part:?}")
        }
    }
}

fn llama_layer_name(part: LayerPart) -> String {
    use LayerPart as P;
    let name = match part {
        P::AttentionNorm => "input_layernorm.weight",
        P::AttentionNormBias => "input_layernorm.bias",
        P::Query => "self_attn.q_proj.weight",
        P::QueryBias => "self_attn.q_proj.bias",
        P::QueryNorm => "self_attn.q_norm.weight",
        P::Key => "self_attn.k_proj.weight",
        P::KeyBias => "self_attn.k_proj.bias",
        P::KeyNorm => "self_attn.k_norm.weight",
        P::Value => "self_attn.v_proj.weight",
        P::ValueBias => "self_attn.v_proj.bias",
        P::AttentionOutput => "self_attn.o_proj.weight",
        P::AttentionOutputBias => "self_attn.o_proj.bias",
        P::FfnNorm => "post_attention_layernorm.weight",
        P::FfnNormBias => "post_attention_layernorm.bias",
        P::Gate => "mlp.gate_proj.weight",
        P::GateBias => "mlp.gate_proj.bias",
        P::Up => "mlp.up_proj.weight",
        P::UpBias => "mlp.up_proj.bias",
        P::Down => "mlp.down_proj.weight",
        P::DownBias => "mlp.down_proj.bias",
        P::AttentionOutputNorm => "post_attention_layernorm.weight",
        P::FfnOutputNorm => "post_feedforward_layernorm.weight",
        P::Router => "mlp.gate.weight",
        P::ExpertGate(e) => return format!("mlp.experts.{e}.gate_proj.weight"),
        P::ExpertUp(e) => return format!("mlp.experts.{e}.up_proj.weight"),
        P::ExpertDown(e) => return format!("mlp.experts.{e}.down_proj.weight"),
    };
    name.into()
}
