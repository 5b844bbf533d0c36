//! BERT (Devlin et al. 2018) and MiniLM: encoders that see a text in both directions. Words, positions and
//! the first type are embedded and normed; norms follow each sum.

use super::{
    Activation, Architecture, Attention, FeedForward, Input, LayerPart, LayerRule, Location, Norm,
    NormKind, Part, Placement, gpt2::ungated_width, read,
};
use crate::config::{ConfigError, Fields};
use talka_base::{ModelShape, Precision};

/// What absent fields mean in `configuration_bert.py`.
const NORM_EPSILON_DEFAULT: f64 = 1e-12;
const TYPES_DEFAULT: u32 = 2;

pub(super) fn read(fields: Fields<'_>, precision: Precision) -> Result<Architecture, ConfigError> {
    fields.only("position_embedding_type", "absolute".into())?;
    fields.only("is_decoder", false.into())?;
    let hidden = fields.u32("hidden_size")?.unwrap_or(768);
    let heads = fields.u32("num_attention_heads")?.unwrap_or(12);
    let head_dim = read::head_dim(fields, "num_attention_heads", hidden, heads)?;
    let width = fields.u32("intermediate_size")?.unwrap_or(3072);
    let shape = ModelShape {
        layers: fields.u32("num_hidden_layers")?.unwrap_or(12),
        hidden,
        heads,
        kv_heads: heads,
        head_dim,
        ffn: ungated_width(width),
        vocab: fields.u32("vocab_size")?.unwrap_or(30_522),
        context: fields.u32("max_position_embeddings")?.unwrap_or(512),
        precision,
    };
    shape.validate()?;
    let epsilon = fields.positive("layer_norm_eps")?.unwrap_or(NORM_EPSILON_DEFAULT);
    Ok(Architecture {
        family: "",
        shape,
        norm: Norm { kind: NormKind::Layer, epsilon: epsilon as f32, offset: 0.0 },
        placement: Placement::Residual,
        attention: Attention {
            scale: (head_dim as f32).sqrt().recip(),
            divide_by_layer: false,
            softcap: None,
            qk_norm: None,
            bias: true,
            output_bias: true,
        },
        ropes: Vec::new(),
        layers: vec![LayerRule { window: None, rope: 0, experts: false }; shape.layers as usize],
        feed_forward: FeedForward {
            activation: read::activation(fields, "hidden_act", Activation::Gelu)?,
            gated: false,
            bias: true,
            width,
            experts: None,
        },
        input: Input {
            scale: 1.0,
            positions: true,
            types: Some(fields.u32("type_vocab_size")?.unwrap_or(TYPES_DEFAULT)),
            norm: true,
        },
        final_norm: false,
        logits_softcap: None,
        decoder: false,
        tied: false,
        eos_ids: Vec::new(),
        locate: |_, part| Location::whole(name(part)),
        published: None,
        weights: None,
        prefixes: &["bert.", ""],
    })
}

fn name(part: Part) -> String {
    use LayerPart as P;
    match part {
        Part::Embedding => "embeddings.word_embeddings.weight".into(),
        Part::Positions => "embeddings.position_embeddings.weight".into(),
        Part::Types => "embeddings.token_type_embeddings.weight".into(),
        Part::InputNorm => "embeddings.LayerNorm.weight".into(),
        Part::InputNormBias => "embeddings.LayerNorm.bias".into(),
        Part::Layer(layer, part) => {
            let name = match part {
                P::Query => "attention.self.query.weight",
                P::QueryBias => "attention.self.query.bias",
                P::Key => "attention.self.key.weight",
                P::KeyBias => "attention.self.key.bias",
                P::Value => "attention.self.value.weight",
                P::ValueBias => "attention.self.value.bias",
                P::AttentionOutput => "attention.output.dense.weight",
                P::AttentionOutputBias => "attention.output.dense.bias",
                P::AttentionNorm => "attention.output.LayerNorm.weight",
                P::AttentionNormBias => "attention.output.LayerNorm.bias",
                P::Up => "intermediate.dense.weight",
                P::UpBias => "intermediate.dense.bias",
                P::Down => "output.dense.weight",
                P::DownBias => "output.dense.bias",
                P::FfnNorm => "output.LayerNorm.weight",
                P::FfnNormBias => "output.LayerNorm.bias",
                other => unreachable!("no BERT has {other:?}"),
            };
            format!("encoder.layer.{layer}.{name}")
        }
        other => unreachable!("no BERT has {other:?}"),
    }
}
