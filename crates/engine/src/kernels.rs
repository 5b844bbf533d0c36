//! The arithmetic of a transformer on a CPU, and the only module that may say `unsafe`.
//!
//! Decides how an operation runs on this machine: which instruction set ([`Isa`]), how the work is
//! cut over the [`ThreadPool`], which loop order suits one token or a long prompt. Never decides
//! what a model computes, never allocates a tensor, never reads a configuration.
//!
//! Weights are packed once ([`Matrix`]) and stay in the encoding they have: floats are widened exactly.
//! Activations are f32 between operations. Inside a product with quantised weights they are rounded to
//! bytes, and inside one on bf16 matrix units to two bf16 halves.
//!
//! # What is promised about bits
//!
//! *For one [`Isa`], the bits of an output row depend on that row's inputs alone*: not on how many
//! rows share the call, on the number of threads or on what else the machine does. Each output is one chain of
//! multiply-adds over rising inputs, in every loop order. So a prompt may be cut anywhere, and requests batched in
//! any company, without changing an answer.
//!
//! Matrix products agree to the bit between instruction sets, but for bf16 weights on matrix units
//! ([`Isa::Amx`], within [`dot_tolerance`]). Norms, rotations and gates have a single body compiled for
//! each instruction set and agree to the bit everywhere. Attention differs by rounding.

mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
mod blocks;
mod isa;
#[cfg(target_arch = "x86_64")]
mod lanes;
pub mod mapped;
mod math;
mod matmul;
mod matrix;
mod memory;
mod norm;
mod pool;
mod rope;
mod train;

use std::sync::Arc;

pub(crate) use activation::Activation;
pub use attention::{
    AttentionRule, AttentionSequence, CacheElement, PAGE_POSITIONS, Page, PageShape,
};
pub use isa::Isa;
pub use mapped::MappedFile;
pub use matmul::dot_tolerance;
pub use matrix::{Matrix, MatrixError};
pub use pool::ThreadPool;
pub use train::{AdamStep, AttentionShape, AttentionTape, Factors, Number, Packed, View};

use matmul::Write;

/// The operations, bound to an instruction set and a pool of threads. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Kernels {
    isa: Isa,
    pool: Arc<ThreadPool>,
}

impl Kernels {
    /// Kernels for `isa`.
    ///
    /// # Panics
    /// If this processor lacks `isa`; choose from [`Isa::available`].
    pub fn new(isa: Isa, pool: Arc<ThreadPool>) -> Self {
        assert!(isa.is_available(), "this processor lacks {isa:?}");
        Self { isa, pool }
    }

    /// Kernels for the best instruction set of this processor.
    pub fn detect(pool: Arc<ThreadPool>) -> Self {
        Self::new(Isa::detect(), pool)
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The threads in use.
    pub fn pool(&self) -> &Arc<ThreadPool> {
        &self.pool
    }

    /// `out[t, n] = Σ_k x[t, k] · w[n, k]`: `out` is `[T, N]`, `x` is `[T, K]`, `w` is `[N, K]`.
    ///
    /// # Panics
    /// If `x` is not a whole number of rows of `K`, or `out` is not `[T, N]`.
    pub fn matmul(&self, out: &mut [f32], x: &[f32], w: &Matrix) {
        matmul::run(self.isa, &self.pool, Write::Set, out, x, w);
    }

    /// `out[t, n] += Σ_k x[t, k] · w[n, k]`, shapes as in [`Kernels::matmul`]: a product that ends in a
    /// residual connection.
    ///
    /// # Panics
    /// As [`Kernels::matmul`].
    pub fn matmul_add(&self, out: &mut [f32], x: &[f32], w: &Matrix) {
        matmul::run(self.isa, &self.pool, Write::Add, out, x, w);
    }

    /// Root-mean-square norm of each row: `out[t, d] = x[t, d] / √(mean(x[t]²) + epsilon) · weight[d]`.
    /// `out` and `x` are `[T, D]`, `weight` is `[D]`.
    ///
    /// # Panics
    /// If the shapes disagree.
    pub fn rms_norm(&self, out: &mut [f32], x: &[f32], weight: &[f32], epsilon: f32) {
        norm::rms_norm(self.isa, &self.pool, out, x, weight, epsilon);
    }

    /// Rotates each head of `x` `[T, heads, head_dim]` in place by its position's angles.
    ///
    /// `cos` and `sin` are `[T, rotated / 2]`. The pairs are `(i, i + rotated / 2)`, the "rotate half"
    /// layout of Hugging Face checkpoints (not the interleaved one of the original paper). Elements from
    /// `rotated` on stay.
    ///
    /// # Panics
    /// If the shapes disagree or there are more angles than pairs.
    pub fn rope(&self, x: &mut [f32], head_dim: usize, heads: usize, cos: &[f32], sin: &[f32]) {
        rope::rope(self.isa, &self.pool, x, head_dim, heads, cos, sin);
    }

    /// [`Kernels::rms_norm`] of each row of `x` in place: of whole rows, or of heads where `weight` is as
    /// long as one.
    ///
    /// # Panics
    /// If `x` is not rows of as many numbers as `weight` has.
    pub fn rms_norm_in_place(&self, x: &mut [f32], weight: &[f32], epsilon: f32) {
        norm::rms_norm_in_place(self.isa, &self.pool, x, weight, epsilon);
    }

    /// Layer norm of each row (Ba et al. 2016): `out[t, d] = (x[t, d] − mean) / √(variance + epsilon) ·
    /// weight[d] + bias[d]`. Shapes as in [`Kernels::rms_norm`].
    ///
    /// # Panics
    /// If the shapes disagree.
    pub fn layer_norm(
        &self,
        out: &mut [f32],
        x: &[f32],
        weight: &[f32],
        bias: &[f32],
        epsilon: f32,
    ) {
        norm::layer_norm(self.isa, &self.pool, out, x, weight, bias, epsilon);
    }

    /// `x[t, d] += row[d]`.
    ///
    /// # Panics
    /// If `x` is not rows of as many numbers as `row` has.
    pub fn add_rows(&self, x: &mut [f32], row: &[f32]) {
        activation::add_rows(self.isa, &self.pool, x, row);
    }

    /// `x[i] += y[i]`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add(&self, x: &mut [f32], y: &[f32]) {
        activation::add(self.isa, &self.pool, x, y);
    }

    /// `x[i] = activation(x[i])`.
    pub(crate) fn activate(&self, activation: Activation, x: &mut [f32]) {
        activation::activate(self.isa, &self.pool, activation, x);
    }

    /// `gate[i] = activation(gate[i]) · up[i]`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub(crate) fn activate_mul(&self, activation: Activation, gate: &mut [f32], up: &[f32]) {
        activation::activate_mul(self.isa, &self.pool, activation, gate, up);
    }

    /// `x[i] = cap · tanh(x[i] / cap)`.
    pub fn softcap(&self, x: &mut [f32], cap: f32) {
        activation::softcap(self.isa, &self.pool, x, cap);
    }

    /// Attention of the new positions of some sequences, each over its own.
    ///
    /// `q` and `out` are `[T, heads, head_dim]`, the rows of the sequences one after the other; their
    /// pages, of `shape`, already hold the keys and values of these rows. `rule` says what each row sees
    /// and how scores are made. With fewer key heads than query heads, query head `h` reads key head
    /// `h / (heads / kv_heads)`.
    ///
    /// # Panics
    /// If the shapes disagree or a page that a row sees is absent.
    pub fn attention(
        &self,
        out: &mut [f32],
        q: &[f32],
        heads: usize,
        shape: PageShape,
        sequences: &[AttentionSequence<'_>],
        rule: &AttentionRule,
    ) {
        let call = attention::Call { q, heads, shape, sequences, rule };
        attention::attention(self.isa, &self.pool, out, &call);
    }
}

/// What the tests of every operation share.
#[cfg(test)]
mod testing {
    use talka_base::rng::Rng;

    use super::{Isa, Kernels, ThreadPool};

    /// Calls `check` with every instruction set of this machine, on one thread and on three.
    pub(super) fn each_kernels(mut check: impl FnMut(&Kernels)) {
        for threads in [1, 3] {
            let pool = ThreadPool::new(threads);
            for isa in Isa::available() {
                check(&Kernels::new(isa, pool.clone()));
            }
        }
    }

    /// `length` numbers in -1..1 that depend on `seed` alone.
    pub(super) fn numbers(seed: u64, length: usize) -> Vec<f32> {
        let mut rng = Rng::new(seed);
        (0..length).map(|_| (rng.next_u64() >> 40) as f32 / (1_u64 << 23) as f32 - 1.0).collect()
    }

    /// For comparing to the bit.
    pub(super) fn bits(numbers: &[f32]) -> Vec<u32> {
        numbers.iter().map(|number| number.to_bits()).collect()
    }
}
