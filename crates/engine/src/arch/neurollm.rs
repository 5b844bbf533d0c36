//! NeuroLLM, the community's own model: root-mean-square norms, rotated heads, grouped queries, SwiGLU; a
//! llama's names of tensors.
//!
//! The four sizes are those of NeuroShard's growth plan: each is what a network of so many nodes can
//! train.

use super::{
    Architecture,
    read::{Defaults, llama_like},
};
use crate::config::{ConfigError, Fields};
use talka_base::{ModelShape, Precision};

/// What all sizes share.
const VOCAB: u32 = 32_000;
const CONTEXT: u32 = 2048;

/// The sizes, by name.
pub const PRESETS: [(&str, ModelShape); 4] = [
    ("bootstrap", preset(768, 12, 12, 4, 2048)),
    ("early", preset(2048, 24, 16, 4, 5632)),
    ("growth", preset(4096, 32, 32, 8, 11_008)),
    ("mature", preset(8192, 80, 64, 8, 28_672)),
];

const fn preset(hidden: u32, layers: u32, heads: u32, kv_heads: u32, ffn: u32) -> ModelShape {
    ModelShape {
        layers,
        hidden,
        heads,
        kv_heads,
        head_dim: hidden / heads,
        ffn,
        vocab: VOCAB,
        context: CONTEXT,
        precision: Precision::F32,
    }
}

pub(super) fn read(fields: Fields<'_>, precision: Precision) -> Result<Architecture, ConfigError> {
    llama_like(fields, precision, Defaults { norm_epsilon: 1e-5, ..Defaults::LLAMA })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_a_shape() {
        for (name, shape) in PRESETS {
            assert!(shape.validate().is_ok(), "{name}");
            assert_eq!(shape.heads * shape.head_dim, shape.hidden, "{name}");
            assert!(shape.heads.is_multiple_of(shape.kv_heads), "{name}");
        }
    }
}
