//! Llama and the many models published in its layout (Llama 1 to 3, TinyLlama, SmolLM, Yi, ...).
//!
//! Follows transformers' `models/llama/configuration_llama.py` for names and defaults.

use super::{
    Architecture,
    read::{Defaults, llama_like},
};
use crate::config::{ConfigError, Fields};
use talka_base::Precision;

pub(super) fn read(fields: Fields<'_>, precision: Precision) -> Result<Architecture, ConfigError> {
    let mut architecture = llama_like(fields, precision, Defaults::LLAMA)?;
    let bias = fields.bool("attention_bias")?.unwrap_or(false);
    architecture.attention.bias = bias;
    architecture.attention.output_bias = bias;
    architecture.feed_forward.bias = fields.bool("mlp_bias")?.unwrap_or(false);
    Ok(architecture)
}

#[cfg(test)]
mod tests {
    use super::super::{LayerPart, Part};
    use super::*;
    use talka_base::{LayerSpan, ModelShape};

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
        assert_eq!((arch.norm.epsilon, arch.tied, arch.eos_ids), (1e-6, false, vec![]));
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        let check = |rest, expected| assert_eq!(read(rest).expect_err(rest), expected);
        check(
            r#", "hidden_act": "relu""#,
            "config.json has hidden_act = \"relu\", \
             expected one of silu, gelu, gelu_new, gelu_pytorch_tanh",
        );
        check(
            r#", "num_key_value_heads": 3"#,
            "config.json has num_key_value_heads = 3, \
             expected a divisor of num_attention_heads = 4",
        );
        check(r#", "head_dim": 15"#, "config.json has head_dim = 15, expected an even number");
        let unknown = read(r#", "model_type": "rwkv""#).expect_err("no such family");
        assert!(unknown.starts_with(
            "config.json has model_type \"rwkv\", supported are: llama, mistral, mixtral,"
        ));
    }

    #[test]
    fn a_tied_head_is_needed_at_both_ends_and_counted_once() {
        let span = |a, b| LayerSpan::new(a, b).expect("span");
        let parts = |tied: &str, a, b| read(tied).expect("complete").parts(span(a, b));
        let layer = 9;
        let tied = r#", "tie_word_embeddings": true"#;
        assert_eq!(parts(tied, 0, 3).len(), 3 * layer + 2);
        assert_eq!(parts("", 0, 3).len(), 3 * layer + 3);
        assert_eq!(parts(tied, 2, 3)[layer..], [Part::Embedding, Part::FinalNorm]);
        assert_eq!(parts("", 2, 3)[layer..], [Part::FinalNorm, Part::Head]);
        assert_eq!(parts(tied, 1, 2).len(), layer);
        assert!(parts("", 1, 2).contains(&Part::Layer(1, LayerPart::Gate)));
    }
}
