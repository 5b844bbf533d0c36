//! GPT-2 (Radford et al. 2019): embedded positions, layer norms, biases, one matrix for queries, keys and
//! values, and a feed-forward without a gate. Matrices are stored inputs first.

use super::{
    Activation, Architecture, Attention, FeedForward, Input, LayerPart, LayerRule, Location, Norm,
    NormKind, Part, Placement, read,
};
use crate::config::{ConfigError, Fields};
use talka_base::{ModelShape, Precision};

/// What absent fields mean in `configuration_gpt2.py`.
const NORM_EPSILON_DEFAULT: f64 = 1e-5;
const EOS_DEFAULT: u32 = 50_256;

pub(super) fn read(fields: Fields<'_>, precision: Precision) -> Result<Architecture, ConfigError> {
    fields.only("add_cross_attention", false.into())?;
    let hidden = fields.u32("n_embd")?.unwrap_or(768);
    let heads = fields.u32("n_head")?.unwrap_or(12);
    let head_dim = read::head_dim(fields, "n_head", hidden, heads)?;
    let width = fields.u32("n_inner")?.unwrap_or(hidden.saturating_mul(4));
    let shape = ModelShape {
        layers: fields.u32("n_layer")?.unwrap_or(12),
        hidden,
        heads,
        kv_heads: heads,
        head_dim,
        ffn: ungated_width(width),
        vocab: fields.u32("vocab_size")?.unwrap_or(50_257),
        context: fields.u32("n_positions")?.unwrap_or(1024),
        precision,
    };
    shape.validate()?;
    let epsilon = fields.positive("layer_norm_epsilon")?.unwrap_or(NORM_EPSILON_DEFAULT);
    let eos_ids = fields.ids("eos_token_id")?;
    let scaled = fields.bool("scale_attn_weights")?.unwrap_or(true);
    Ok(Architecture {
        family: "",
        shape,
        norm: Norm { kind: NormKind::Layer, epsilon: epsilon as f32, offset: 0.0 },
        placement: Placement::Before,
        attention: Attention {
            scale: if scaled { (head_dim as f32).sqrt().recip() } else { 1.0 },
            divide_by_layer: fields.bool("scale_attn_by_inverse_layer_idx")?.unwrap_or(false),
            softcap: None,
            qk_norm: None,
            bias: true,
            output_bias: true,
        },
        ropes: Vec::new(),
        layers: vec![LayerRule { window: None, rope: 0, experts: false }; shape.layers as usize],
        feed_forward: FeedForward {
            activation: read::activation(fields, "activation_function", Activation::GeluTanh)?,
            gated: false,
            bias: true,
            width,
            experts: None,
        },
        input: Input { positions: true, ..Input::PLAIN },
        final_norm: true,
        logits_softcap: None,
        decoder: true,
        tied: fields.bool("tie_word_embeddings")?.unwrap_or(true),
        eos_ids: if eos_ids.is_empty() { vec![EOS_DEFAULT] } else { eos_ids },
        locate,
        published: None,
        weights: None,
        prefixes: &["transformer.", ""],
    })
}

/// The inner width of the gated layer that has as many weights, for [`ModelShape`]: three matrices of
/// that width are two of this one.
pub(super) fn ungated_width(width: u32) -> u32 {
    (u64::from(width) * 2 / 3).max(1) as u32
}

fn locate(architecture: &Architecture, part: Part) -> Location {
    use LayerPart as P;
    let hidden = architecture.shape.hidden as usize;
    let third = |n: usize| Some((n * hidden..(n + 1) * hidden, 3 * hidden));
    let (name, rows) = match part {
        Part::Embedding => ("wte.weight".into(), None),
        Part::Positions => ("wpe.weight".into(), None),
        Part::FinalNorm => ("ln_f.weight".into(), None),
        Part::FinalNormBias => ("ln_f.bias".into(), None),
        Part::Head => ("lm_head.weight".into(), None),
        Part::Layer(layer, part) => {
            let (name, rows) = match part {
                P::AttentionNorm => ("ln_1.weight", None),
                P::AttentionNormBias => ("ln_1.bias", None),
                P::Query => ("attn.c_attn.weight", third(0)),
                P::Key => ("attn.c_attn.weight", third(1)),
                P::Value => ("attn.c_attn.weight", third(2)),
                P::QueryBias => ("attn.c_attn.bias", third(0)),
                P::KeyBias => ("attn.c_attn.bias", third(1)),
                P::ValueBias => ("attn.c_attn.bias", third(2)),
                P::AttentionOutput => ("attn.c_proj.weight", None),
                P::AttentionOutputBias => ("attn.c_proj.bias", None),
                P::FfnNorm => ("ln_2.weight", None),
                P::FfnNormBias => ("ln_2.bias", None),
                P::Up => ("mlp.c_fc.weight", None),
                P::UpBias => ("mlp.c_fc.bias", None),
                P::Down => ("mlp.c_proj.weight", None),
                P::DownBias => ("mlp.c_proj.bias", None),
                other => unreachable!("no GPT-2 has {other:?}"),
            };
            (format!("h.{layer}.{name}"), rows)
        }
        other => unreachable!("no GPT-2 has {other:?}"),
    };
    let transposed = matches!(
        part,
        Part::Layer(_, P::Query | P::Key | P::Value | P::AttentionOutput | P::Up | P::Down)
    );
    Location { rows, transposed, ..Location::whole(name) }
}
