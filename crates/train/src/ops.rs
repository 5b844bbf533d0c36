//! The operations that a block is made of, and what runs them.
//!
//! Here each is written in burn's own operations, which run on every device and in every width and define what is
//! meant. Angles are f32 in every width, as in transformers; norms and softmax, which transformers always rounds to f32, are as
//! wide as the rest.

use burn_tensor::activation::{log_softmax, silu, softmax};
use burn_tensor::{DType, Device, Int, Tensor, TensorData};

/// The heads of an attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Heads {
    /// Of queries.
    pub query: usize,
    /// Of keys and values; divides `query`.
    pub kv: usize,
    /// Numbers of one.
    pub dim: usize,
    /// Base of the angles.
    pub theta: f64,
}

/// Runs operations on one device in one width.
#[derive(Debug, Clone)]
pub(crate) struct Ops {
    device: Device,
    dtype: DType,
}

impl Ops {
    /// On burn's CPU back end.
    pub fn cpu(dtype: DType) -> Self {
        Self { device: Device::flex().autodiff(), dtype }
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// `x / √(mean(x²) + epsilon) · weight` over the last axis of `x` `[B, T, D]`; `weight` is `[1, D]`.
    pub fn rms_norm(&self, x: Tensor<3>, weight: Tensor<2>, epsilon: f64) -> Tensor<3> {
        let mean = x.clone().square().mean_dim(2);
        let scale = (mean + epsilon).sqrt().recip();
        x * scale * weight.unsqueeze()
    }

    /// `x · wᵀ` for each `w` `[N, K]`; `x` is `[B, T, K]`, the results `[B, T, N]`.
    pub fn linears<const N: usize>(&self, x: Tensor<3>, weights: [Tensor<2>; N]) -> [Tensor<3>; N] {
        let [rows, length, width] = x.dims();
        let flat = x.reshape([rows * length, width]);
        weights.map(|weight| {
            let [outputs, _] = weight.dims();
            flat.clone().matmul(weight.transpose()).reshape([rows, length, outputs])
        })
    }

    /// `residual + x · wᵀ`.
    pub fn linear_add(&self, residual: Tensor<3>, x: Tensor<3>, weight: Tensor<2>) -> Tensor<3> {
        let [product] = self.linears(x, [weight]);
        residual + product
    }

    /// `silu(gate) · up`.
    pub fn swiglu(&self, gate: Tensor<3>, up: Tensor<3>) -> Tensor<3> {
        silu(gate) * up
    }

    /// Causal attention of rotated heads. `q` is `[B, T, H · d]`, `k` and `v` are `[B, T, G · d]`; query head `h` reads
    /// head `h / (H / G)`.
    pub fn attention(&self, q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, heads: Heads) -> Tensor<3> {
        let [rows, length, width] = q.dims();
        let group = heads.query / heads.kv;
        let angles = self.angles(length, heads);
        // [B, G, H / G · T, d]: the queries that read one head lie together.
        let q = self.rotate(split(q, heads.query, heads.dim), &angles).reshape([
            rows,
            heads.kv,
            group * length,
            heads.dim,
        ]);
        let k = self.rotate(split(k, heads.kv, heads.dim), &angles);
        let v = split(v, heads.kv, heads.dim);
        let scores = q.matmul(k.swap_dims(2, 3)) * (1.0 / (heads.dim as f64).sqrt());
        let weights = softmax(scores + self.mask(group, length), 3);
        let out = weights.matmul(v).reshape([rows, heads.query, length, heads.dim]);
        out.swap_dims(1, 2).reshape([rows, length, width])
    }

    /// `scale · Σ -log softmax(x · headᵀ)[target]` as `[1]`.
    pub fn head_loss(
        &self,
        x: Tensor<3>,
        head: Tensor<2>,
        targets: Tensor<1, Int>,
        scale: f64,
    ) -> Tensor<1> {
        let [rows, length, width] = x.dims();
        let logits = x.reshape([rows * length, width]).matmul(head.transpose());
        let targets = targets.reshape([rows * length, 1]);
        (log_softmax(logits, 1).gather(1, targets).sum() * -scale).reshape([1])
    }

    /// Cosines and sines `[1, 1, T, d / 2]`. Angles are f32 in every width, as in transformers.
    fn angles(&self, length: usize, heads: Heads) -> [Tensor<4>; 2] {
        let half = heads.dim / 2;
        let mut angles = Vec::with_capacity(length * half);
        for position in 0..length {
            angles.extend((0..half).map(|at| angle(position, at, heads)));
        }
        [f64::cos, f64::sin].map(|function| {
            let numbers = angles.iter().map(|angle| function(f64::from(*angle)) as f32).collect();
            self.constant(numbers, [1, 1, length, half])
        })
    }

    /// Pairs `(i, i + d / 2)` of `x` `[B, heads, T, d]` by the angles of their position.
    fn rotate(&self, x: Tensor<4>, [cos, sin]: &[Tensor<4>; 2]) -> Tensor<4> {
        let [rows, heads, length, dim] = x.dims();
        let part = |start| x.clone().slice([0..rows, 0..heads, 0..length, start..start + dim / 2]);
        let (first, second) = (part(0), part(dim / 2));
        let turned = first.clone() * cos.clone() - second.clone() * sin.clone();
        Tensor::cat(vec![turned, second * cos.clone() + first * sin.clone()], 3)
    }

    /// `[1, 1, group · T, T]`: 0 where a query sees a key, else -∞.
    fn mask(&self, group: usize, length: usize) -> Tensor<4> {
        let mut mask = vec![0.0; length * length];
        for (query, row) in mask.chunks_exact_mut(length).enumerate() {
            row[query + 1..].fill(f32::NEG_INFINITY);
        }
        self.constant(mask.repeat(group), [1, 1, group * length, length])
    }

    fn constant(&self, numbers: Vec<f32>, shape: [usize; 4]) -> Tensor<4> {
        Tensor::from_data(TensorData::new(numbers, shape), (&self.device, self.dtype))
    }
}

/// `[B, T, heads · d]` as `[B, heads, T, d]`.
fn split(x: Tensor<3>, heads: usize, dim: usize) -> Tensor<4> {
    let [rows, length, _] = x.dims();
    x.reshape([rows, length, heads, dim]).swap_dims(1, 2)
}

/// The angle of pair `at` at `position`.
pub(crate) fn angle(position: usize, at: usize, heads: Heads) -> f32 {
    let exponent = (2 * at) as f32 / heads.dim as f32;
    let frequency = 1.0 / heads.theta.powf(f64::from(exponent)) as f32;
    position as f32 * frequency
}
