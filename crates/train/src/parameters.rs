//! Where each tensor lies in the one row of numbers that a model's weights are.
//!
//! The order is fixed, since members exchange weights by it: the embedding; for each block query, key, value, output,
//! gate, up, down, the norm before attention, the norm before the feed-forward; the last norm; the head, unless it is
//! the embedding. Each tensor is row by row, `[out, in]`. It is the order of `named_parameters` in transformers' llama.

use crate::config::ModelConfig;
use crate::layout::Layout;
use std::ops::Range;
use talka_base::rng::Rng;

/// Standard deviation of a new matrix, as transformers has it for llama.
const DEVIATION: f64 = 0.02;

/// What a tensor is for, as far as training treats it differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Rows of the vocabulary: embedding or head.
    Vocabulary,
    /// A matrix of a block.
    Matrix,
    /// The weights of a norm.
    Norm,
}

/// One tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in llama's files.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Outputs; 1 for the weights of a norm.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Where its numbers lie.
    pub range: Range<usize>,
}

/// All tensors of a model, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    tensors: Vec<Parameter>,
}

/// Tensors of one block.
pub const TENSORS_PER_BLOCK: usize = 9;

impl Parameters {
    /// The tensors of `model`, which is valid.
    pub fn new(model: &ModelConfig) -> Self {
        let [hidden, ffn, vocab] = [model.hidden, model.ffn, model.vocab].map(|n| n as usize);
        let kv = (model.kv_heads * model.head_dim()) as usize;
        let mut parameters = Self { tensors: Vec::new() };
        parameters.push("model.embed_tokens", Role::Vocabulary, vocab, hidden);
        for block in 0..model.layers {
            let matrices = [
                ("self_attn.q_proj", hidden, hidden),
                ("self_attn.k_proj", kv, hidden),
                ("self_attn.v_proj", kv, hidden),
                ("self_attn.o_proj", hidden, hidden),
                ("mlp.gate_proj", ffn, hidden),
                ("mlp.up_proj", ffn, hidden),
                ("mlp.down_proj", hidden, ffn),
            ];
            for (name, rows, cols) in matrices {
                parameters.push(&format!("model.layers.{block}.{name}"), Role::Matrix, rows, cols);
            }
            for name in ["input_layernorm", "post_attention_layernorm"] {
                parameters.push(&format!("model.layers.{block}.{name}"), Role::Norm, 1, hidden);
            }
        }
        parameters.push("model.norm", Role::Norm, 1, hidden);
        if !model.tied {
            parameters.push("lm_head", Role::Vocabulary, vocab, hidden);
        }
        parameters
    }

    fn push(&mut self, name: &str, role: Role, rows: usize, cols: usize) {
        let start = self.len();
        let range = start..start + rows * cols;
        self.tensors.push(Parameter { name: format!("{name}.weight"), role, rows, cols, range });
    }

    /// The tensors, in order.
    pub fn tensors(&self) -> &[Parameter] {
        &self.tensors
    }

    /// Numbers of all tensors.
    pub fn len(&self) -> usize {
        self.tensors.last().map_or(0, |tensor| tensor.range.end)
    }

    /// Whether there are none, which no valid model has.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The layer of each tensor; nothing of those outside all layers.
    pub fn layers(&self) -> Vec<Option<usize>> {
        let last = 1 + (self.tensors.len() - 1) / TENSORS_PER_BLOCK * TENSORS_PER_BLOCK;
        let layer = |n: usize| (1..last).contains(&n).then(|| (n - 1) / TENSORS_PER_BLOCK);
        (0..self.tensors.len()).map(layer).collect()
    }

    /// The same without names, for what exchanges and merges weights.
    pub fn layout(&self) -> Layout {
        Layout::new(self.tensors.iter().map(|tensor| (tensor.rows, tensor.cols)))
    }

    /// New weights: ones for norms, else numbers of mean 0 and standard deviation 0.02. The same seed gives the same
    /// bits on every machine: each number is made of the sum of sixteen uniform integers, by no function of a library.
    pub fn initial_weights(&self, seed: u64) -> Vec<f32> {
        let mut rng = Rng::new(seed);
        let mut weights = Vec::with_capacity(self.len());
        for tensor in &self.tensors {
            if tensor.role == Role::Norm {
                weights.resize(tensor.range.end, 1.0);
            } else {
                weights.extend(
                    tensor.range.clone().map(|_| (near_normal(&mut rng) * DEVIATION) as f32),
                );
            }
        }
        weights
    }
}

/// A number of mean 0 and variance 1, almost normal (Irwin-Hall: at most 6.9 away from 0).
fn near_normal(rng: &mut Rng) -> f64 {
    const DRAWS: u32 = 16;
    /// Highest draw, and the standard deviation of the sum: √(16 · (2³² − 1) / 12).
    const HIGHEST: u32 = u16::MAX as u32;
    const SUM_DEVIATION: f64 = 75_674.454_474_412_97;
    let mut sum = 0;
    for _ in 0..DRAWS / 4 {
        let bits = rng.next_u64();
        sum += (0..4).map(|part| (bits >> (16 * part)) as u32 & HIGHEST).sum::<u32>();
    }
    (f64::from(sum) - f64::from(DRAWS * HIGHEST) / 2.0) / SUM_DEVIATION
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny(tied: bool) -> ModelConfig {
        ModelConfig {
            hidden: 32,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            ffn: 64,
            vocab: 100,
            context: 16,
            tied,
            norm_epsilon: 1e-5,
            rope_theta: 1e4,
        }
    }

    #[test]
    fn tensors_follow_one_another() {
        for tied in [false, true] {
            let parameters = Parameters::new(&tiny(tied));
            let mut end = 0;
            for tensor in parameters.tensors() {
                assert_eq!(tensor.range, end..end + tensor.rows * tensor.cols, "{}", tensor.name);
                end = tensor.range.end;
            }
            assert_eq!(parameters.len(), end);
            let last = parameters.tensors().last().expect("some");
            assert_eq!(last.name == "lm_head.weight", !tied);
            assert_eq!(parameters.tensors().len(), 2 + 2 * TENSORS_PER_BLOCK + usize::from(!tied));
        }
    }

    #[test]
    fn new_weights_are_normal_and_depend_on_the_seed_alone() {
        let parameters = Parameters::new(&tiny(false));
        let weights = parameters.initial_weights(7);
        assert_eq!(weights, parameters.initial_weights(7));
        assert_ne!(weights, parameters.initial_weights(8));
        let matrices: Vec<f64> =
            parameters.tensors()[0].range.clone().map(|i| f64::from(weights[i])).collect();
        let count = matrices.len() as f64;
        let mean = matrices.iter().sum::<f64>() / count;
        let deviation = (matrices.iter().map(|w| w * w).sum::<f64>() / count).sqrt();
        assert!(mean.abs() < 2e-3 && (deviation - DEVIATION).abs() < 1e-3, "{mean} {deviation}");
        let norm =
            parameters.tensors().iter().find(|tensor| tensor.role == Role::Norm).expect("some");
        assert!(weights[norm.range.clone()].iter().all(|w| *w == 1.0));
    }
}
