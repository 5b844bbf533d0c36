//! Llama and the many models published in its layout (Llama 1 to 3, TinyLlama, SmolLM, Yi, ...).
//!
//! Follows transformers' `models/llama/configuration_llama.py` for names and defaults. Biases
//! (`attention_bias`, `mlp_bias`) and other activations than SiLU are refused by name.

use super::{Architecture, LayerPart, Part};
use crate::{
    config::{ConfigError, Fields},
    rope::Rope,
};
use talka_base::{ModelShape, Precision};

/// What `rms_norm_eps` is when absent.
const NORM_EPSILON_DEFAULT: f64 = 1e-6;
/// What `max_position_embeddings` is when absent.
const CONTEXT_DEFAULT: u32 = 2048;

pub(super) fn read(fields: Fields<'_>, precision: Precision) -> Result<Architecture, ConfigError> {
    fields.only("hidden_act", "silu".into())?;
    fields.only("attention_bias", false.into())?;
    fields.only("mlp_bias", false.into())?;
    let shape = read_shape(fields, precision)?;
    Ok(Architecture {
        shape,
        norm_epsilon: fields.positive("rms_norm_eps")?.unwrap_or(NORM_EPSILON_DEFAULT) as f32,
        rope: Rope::read(fields, shape.head_dim, shape.context)?,
        tied: fields.bool("tie_word_embeddings")?.unwrap_or(false),
        eos_ids: fields.ids("eos_token_id")?,
        tensor_name,
    })
}

fn read_shape(fields: Fields<'_>, precision: Precision) -> Result<ModelShape, ConfigError> {
    let hidden = fields.require_u32("hidden_size")?;
    let heads = fields.require_u32("num_attention_heads")?;
    let head_dim = match fields.u32("head_dim")? {
        Some(head_dim) => head_dim,
        None if heads > 0 && hidden % heads == 0 => hidden / heads,
        None => {
            let expected = format!("a divisor of hidden_size = {hidden}, as head_dim is absent");
            return Err(fields.wrong("num_attention_heads", heads, expected));
        }
    };
    let shape = ModelShape {
        layers: fields.require_u32("num_hidden_layers")?,
        hidden,
        heads,
        kv_heads: fields.u32("num_key_value_heads")?.unwrap_or(heads),
        head_dim,
        ffn: fields.require_u32("intermediate_size")?,
        vocab: fields.require_u32("vocab_size")?,
        context: fields.u32("max_position_embeddings")?.unwrap_or(CONTEXT_DEFAULT),
        precision,
    };
    shape.validate()?;
    Ok(shape)
}

fn tensor_name(part: Part) -> String {
    match part {
        Part::Embedding => "model.embed_tokens.weight".into(),
        Part::FinalNorm => "model.norm.weight".into(),
        Part::Head => "lm_head.weight".into(),
        Part::Layer(layer, part) => {
            let name = match part {
                LayerPart::AttentionNorm => "input_layernorm",
                LayerPart::Query => "self_attn.q_proj",
                LayerPart::Key => "self_attn.k_proj",
                LayerPart::Value => "self_attn.v_proj",
                LayerPart::AttentionOutput => "self_attn.o_proj",
                LayerPart::FfnNorm => "post_attention_layernorm",
                LayerPart::Gate => "mlp.gate_proj",
                LayerPart::Up => "mlp.up_proj",
                LayerPart::Down => "mlp.down_proj",
            };
            format!("model.layers.{layer}.{name}.weight")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use talka_base::LayerSpan;

    const SMALL: &str = r#"{"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4,
        "num_hidden_layers": 3, "intermediate_size": 160, "vocab_size": 320"#;

    fn read(rest: &str) -> Result<Architecture, String> {
        let map = serde_json::from_str(&format!("{SMALL}{rest}}}")).expect("JSON");
        Architecture::read(&map, Precision::F16).map_err(|e| e.to_string())
    }

    #[test]
    fn absent_fields_take_the_defaults_of_transformers() {
        let arch = read("").expect("complete");
        let ModelShape { kv_heads, head_dim, context, .. } = arch.shape;
        assert_eq!((kv_heads, head_dim, context), (4, 16, 2048));
        assert_eq!((arch.norm_epsilon, arch.tied, arch.eos_ids), (1e-6, false, vec![]));
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        let check = |rest, expected| assert_eq!(read(rest).expect_err(rest), expected);
        check(
            r#", "attention_bias": true"#,
            "config.json has attention_bias = true, expected false: nothing else is supported yet",
        );
        check(
            r#", "hidden_act": "gelu""#,
            "config.json has hidden_act = \"gelu\", \
             expected \"silu\": nothing else is supported yet",
        );
        check(
            r#", "num_key_value_heads": 3"#,
            "config.json has num_key_value_heads = 3, \
             expected a divisor of num_attention_heads = 4",
        );
        check(r#", "head_dim": 15"#, "config.json has head_dim = 15, expected an even number");
        check(
            r#", "model_type": "bert""#,
            "config.json has model_type \"bert\", supported are: llama",
        );
    }

    #[test]
    fn a_tied_head_is_needed_at_both_ends_and_counted_once() {
        let span = |a, b| LayerSpan::new(a, b).expect("span");
        let parts = |tied: &str, a, b| read(tied).expect("complete").parts(span(a, b));
        let layer = LayerPart::ALL.len();
        let tied = r#", "tie_word_embeddings": true"#;
        assert_eq!(parts(tied, 0, 3).len(), 3 * layer + 2);
        assert_eq!(parts("", 0, 3).len(), 3 * layer + 3);
        assert_eq!(parts(tied, 2, 3)[layer..], [Part::Embedding, Part::FinalNorm]);
        assert_eq!(parts("", 2, 3)[layer..], [Part::FinalNorm, Part::Head]);
        assert_eq!(parts(tied, 1, 2).len(), layer);
    }
}
