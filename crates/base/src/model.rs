//! What the economy and placement know of a model: its shape, and from it the one FLOP formula.

use crate::{LayerSpan, units::Flops};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// How a stage holds its weights. Decides the price's precision factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// IEEE 16-bit floats.
    F16,
    /// Brain floats: f32 with a 7-bit mantissa.
    Bf16,
    /// 8-bit integers with block scales.
    Int8,
}

/// The dimensions of a decoder-only transformer with gated feed-forward layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelShape {
    /// Number of layers.
    pub layers: u32,
    /// Width D of the hidden state.
    pub hidden: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads.
    pub kv_heads: u32,
    /// Width of one head.
    pub head_dim: u32,
    /// Inner width of the feed-forward layer.
    pub ffn: u32,
    /// Vocabulary size V.
    pub vocab: u32,
    /// Most positions a sequence may have.
    pub context: u32,
    /// How the weights are held.
    pub precision: Precision,
}

/// What a shape may be at most in each dimension: far above any published model, low enough that
/// no sum of ours overflows.
const DIMENSION_MAX: u32 = 1 << 24;
const LAYERS_MAX: u32 = 1 << 12;

/// A shape no model has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("model shape has {field} {found}, expected {expected}")]
pub struct ShapeError {
    /// The field at fault.
    pub field: &'static str,
    /// Its value.
    pub found: u32,
    /// What would have been accepted.
    pub expected: String,
}

impl ModelShape {
    /// # Errors
    /// [`ShapeError`] names the first dimension that is zero or beyond any real model.
    pub fn validate(&self) -> Result<(), ShapeError> {
        let fields = [
            ("layers", self.layers, LAYERS_MAX),
            ("hidden", self.hidden, DIMENSION_MAX),
            ("heads", self.heads, DIMENSION_MAX),
            ("kv_heads", self.kv_heads, DIMENSION_MAX),
            ("head_dim", self.head_dim, DIMENSION_MAX),
            ("ffn", self.ffn, DIMENSION_MAX),
            ("vocab", self.vocab, DIMENSION_MAX),
            ("context", self.context, DIMENSION_MAX),
        ];
        for (field, found, max) in fields {
            if found == 0 || found > max {
                return Err(ShapeError { field, found, expected: format!("1 to {max}") });
            }
        }
        Ok(())
    }

    /// All layers.
    ///
    /// # Panics
    /// If the shape was never validated and has no layers.
    pub fn span(&self) -> LayerSpan {
        LayerSpan::new(0, self.layers).expect("a validated shape has layers")
    }

    /// Weights of the matrices of one layer (norm weights are left out: they are vectors).
    /// Saturates: dimensions that are each allowed may multiply to more than any model has.
    pub fn layer_parameters(&self) -> u64 {
        let [hidden, heads, kv, dim, ffn] =
            [self.hidden, self.heads, self.kv_heads, self.head_dim, self.ffn].map(u128::from);
        let attention = 2 * hidden * heads * dim + 2 * hidden * kv * dim;
        u64::try_from(attention + 3 * hidden * ffn).unwrap_or(u64::MAX)
    }

    /// Weights of the matrix that turns a hidden state into logits.
    pub fn head_parameters(&self) -> u64 {
        u64::from(self.hidden) * u64::from(self.vocab)
    }

    /// Work of running `span` over the sequence positions `positions`, with logits for the last
    /// `logits` of them (only where the span ends the model).
    ///
    /// Two operations per weight and token, and for attention `4 × heads × head_dim` per pair of a
    /// position and one it sees (itself and all before). One formula for price, receipts and
    /// placement.
    pub fn flops(&self, span: LayerSpan, positions: Range<u32>, logits: u32) -> Flops {
        let (start, end) = (u128::from(positions.start), u128::from(positions.end));
        let tokens = end.saturating_sub(start);
        // Sum of (p + 1) for p in start..end.
        let pairs = tokens * (start + end + 1) / 2;
        let matmul = 2 * u128::from(self.layer_parameters()) * tokens;
        let attention = 4 * u128::from(self.heads) * u128::from(self.head_dim) * pairs;
        let head = if span.end() == self.layers {
            2 * u128::from(self.head_parameters()) * u128::from(logits)
        } else {
            0
        };
        let total = (matmul + attention) * u128::from(span.len()) + head;
        Flops(u64::try_from(total).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bard() -> ModelShape {
        ModelShape {
            layers: 6,
            hidden: 192,
            heads: 6,
            kv_heads: 3,
            head_dim: 32,
            ffn: 512,
            vocab: 1024,
            context: 256,
            precision: Precision::Bf16,
        }
    }

    #[test]
    fn first_token_costs_two_operations_per_weight_and_one_attention_pair() {
        let shape = bard();
        assert_eq!(shape.layer_parameters(), 192 * 192 * 3 + 192 * 512 * 3);
        let expected = 6 * (2 * shape.layer_parameters() + 4 * 192) + 2 * 192 * 1024;
        assert_eq!(shape.flops(shape.span(), 0..1, 1), Flops(expected));
    }

    #[test]
    fn work_is_the_same_however_it_is_cut() {
        let shape = bard();
        let whole = shape.flops(shape.span(), 0..100, 1);
        let by_layers: Flops = [(0, 2), (2, 3), (3, 6)]
            .map(|(a, b)| shape.flops(LayerSpan::new(a, b).expect("span"), 0..100, 1))
            .into_iter()
            .sum();
        let by_positions: Flops = [(0..40, 0), (40..99, 0), (99..100, 1)]
            .map(|(positions, logits)| shape.flops(shape.span(), positions, logits))
            .into_iter()
            .sum();
        assert_eq!((whole, whole), (by_layers, by_positions));
    }

    #[test]
    fn no_valid_shape_overflows() {
        let d = DIMENSION_MAX;
        let huge = ModelShape {
            layers: LAYERS_MAX,
            hidden: d,
            heads: d,
            kv_heads: d,
            head_dim: d,
            ffn: d,
            vocab: d,
            context: d,
            precision: Precision::F32,
        };
        assert!(huge.validate().is_ok());
        assert_eq!(huge.flops(huge.span(), 0..d, d), Flops(u64::MAX));
        let error = ModelShape { heads: 0, ..huge }.validate().expect_err("no heads");
        assert_eq!(error.to_string(), "model shape has heads 0, expected 1 to 16777216");
    }
}
