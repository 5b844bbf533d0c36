//! NeuroLLM as a computation: from tokens and weights to the mean loss, on burn's tensors and its autodiff.
//!
//! The one definition for every device. Decides the order of operations. Written with [`Ops`], burn's own; on the CPU parts
//! of it run as single operations of our kernels ([`Fused`]). Weights come as tensors in the order of
//! [`crate::parameters`], each `[out, in]`, those of norms `[1, in]`.

use crate::config::{ModelConfig, Precision};
use crate::fused::Fused;
use crate::ops::{Heads, Ops};
use crate::parameters::TENSORS_PER_BLOCK;
use burn_tensor::{Int, Tensor, TensorData};
use half::bf16;
use talka_engine::kernels::Kernels;

/// The computation of one model on one device.
#[derive(Debug)]
pub(crate) struct Model {
    config: ModelConfig,
    ops: Ops,
    path: Path,
}

/// What runs the parts of the model.
#[derive(Debug)]
pub(crate) enum Path {
    /// burn's operations, in the width of the weights.
    Ops,
    /// Our kernels in f32.
    Wide(Fused<f32>),
    /// Our kernels with bf16 factors.
    Narrow(Fused<bf16>),
}

impl Model {
    /// `config` must be valid.
    pub fn new(config: ModelConfig, ops: Ops) -> Self {
        Self { config, ops, path: Path::Ops }
    }

    /// The same with our kernels; the weights are f32.
    pub fn fused(config: ModelConfig, ops: Ops, precision: Precision, kernels: Kernels) -> Self {
        let heads = heads(&config);
        let path = match precision {
            Precision::F32 => Path::Wide(Fused::new(&config, heads, kernels)),
            Precision::Bf16 => Path::Narrow(Fused::new(&config, heads, kernels)),
        };
        Self { config, ops, path }
    }

    /// The same model in burn's operations.
    pub fn plain(&self) -> Self {
        Self::new(self.config.clone(), self.ops.clone())
    }

    pub fn ops(&self) -> &Ops {
        &self.ops
    }

    /// Whether matrices are wanted in bf16.
    pub fn is_narrow(&self) -> bool {
        matches!(self.path, Path::Narrow(_))
    }

    /// `[B, T]` tokens, row by row, as `[B, T, D]` rows of `embedding` `[V, D]`.
    pub fn embed(&self, embedding: Tensor<2>, tokens: &[u32], rows: usize) -> Tensor<3> {
        match &self.path {
            Path::Ops => {}
            Path::Wide(fused) => return fused.embed(embedding, tokens, rows),
            Path::Narrow(fused) => return fused.embed(embedding, tokens, rows),
        }
        let [_, width] = embedding.dims();
        let length = tokens.len() / rows;
        embedding.select(0, self.indices(tokens)).reshape([rows, length, width])
    }

    /// One block: `x` `[B, T, D]` to the same.
    pub fn block(&self, x: Tensor<3>, weights: &[Tensor<2>]) -> Tensor<3> {
        match &self.path {
            Path::Ops => {}
            Path::Wide(fused) => return fused.block(x, weights),
            Path::Narrow(fused) => return fused.block(x, weights),
        }
        let [query, key, value, output, gate, up, down, before_attention, before_ffn] =
            std::array::from_fn::<_, TENSORS_PER_BLOCK, _>(|at| weights[at].clone());
        let ops = &self.ops;
        let normed = ops.rms_norm(x.clone(), before_attention, self.config.norm_epsilon);
        let [q, k, v] = ops.linears(normed, [query, key, value]);
        let attended = ops.attention(q, k, v, heads(&self.config));
        let x = ops.linear_add(x, attended, output);
        let normed = ops.rms_norm(x.clone(), before_ffn, self.config.norm_epsilon);
        let [g, u] = ops.linears(normed, [gate, up]);
        ops.linear_add(x, ops.swiglu(g, u), down)
    }

    /// The sum of the losses of all positions, times `scale`, as `[1]`: `-log p(target)` of the logits that `head` makes
    /// of the normed `x` `[B, T, D]`.
    pub fn loss(
        &self,
        x: Tensor<3>,
        norm: Tensor<2>,
        head: Tensor<2>,
        targets: &[u32],
        scale: f64,
    ) -> Tensor<1> {
        match &self.path {
            Path::Ops => {}
            Path::Wide(fused) => return fused.loss(x, norm, head, targets, scale),
            Path::Narrow(fused) => return fused.loss(x, norm, head, targets, scale),
        }
        let normed = self.ops.rms_norm(x, norm, self.config.norm_epsilon);
        self.ops.head_loss(normed, head, self.indices(targets), scale)
    }

    /// The logits `[B, T, V]` of `x` `[B, T, D]`, in burn's operations.
    pub fn logits(&self, x: Tensor<3>, norm: Tensor<2>, head: Tensor<2>) -> Tensor<3> {
        let normed = self.ops.rms_norm(x, norm, self.config.norm_epsilon);
        let [logits] = self.ops.linears(normed, [head]);
        logits
    }

    fn indices(&self, tokens: &[u32]) -> Tensor<1, Int> {
        let numbers: Vec<i64> = tokens.iter().map(|token| i64::from(*token)).collect();
        let count = numbers.len();
        Tensor::from_data(TensorData::new(numbers, [count]), self.ops.device())
    }
}

fn heads(config: &ModelConfig) -> Heads {
    Heads {
        query: config.heads as usize,
        kv: config.kv_heads as usize,
        dim: config.head_dim() as usize,
        theta: config.rope_theta,
    }
}
