//! What training needs beyond running a model: products of any two matrices, and the way back through norms, gates,
//! attention and the loss.
//!
//! Between operations numbers are f32 or bf16, as the caller keeps them ([`Number`]); sums are f32. What the factors of
//! products are rounded to is the caller's choice too ([`Factors`]): bf16 factors run on matrix units or as pairs where a
//! processor can. Results do not depend on the number of threads. Each operation has one portable body, which every instruction
//! set compiles; such products differ from it by the order of their sums.

#![allow(clippy::needless_range_loop, reason = "indices run over lanes of several arrays at once")]

mod attention;
mod elementwise;
mod loss;
mod norm;
mod pack;
mod product;
#[cfg(test)]
mod tests;
mod update;

use super::{Isa, Kernels};
pub use attention::{AttentionShape, AttentionTape};
use half::bf16;
use pack::{Form, Side, pack};
pub use pack::{Packed, View};
use product::{Out, run};
pub use update::AdamStep;

/// A number as it is kept between operations: f32 or bf16.
pub trait Number: Copy + Send + Sync + Default + sealed::Sealed + 'static {
    /// Exactly.
    fn wide(self) -> f32;
    /// The nearest one, of two the even one.
    fn narrow(number: f32) -> Self;
    /// The bits of the nearest bf16 numbers, as many as there are.
    #[doc(hidden)]
    fn bits<const L: usize>(numbers: &[Self], out: &mut [u16; L]);
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::bf16 {}
}

/// What the factors of a product are rounded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Factors {
    /// Nothing.
    F32,
    /// bf16.
    Bf16,
}

impl Kernels {
    fn form(&self, factors: Factors) -> Form {
        match (factors, self.isa) {
            (Factors::Bf16, isa) if isa == Isa::Amx || isa.has_pairs() => Form::Tiles,
            _ => Form::Wide,
        }
    }

    /// Packs the left factor of a product, `[M, K]`.
    pub fn pack_left<N: Number>(&self, out: &mut Packed, view: View<'_, N>, factors: Factors) {
        let form = self.form(factors);
        pack(self.isa, Some(&self.pool), out, view, Side::Left, form, factors == Factors::Bf16);
    }

    /// Packs the right factor of a product, `[K, N]`.
    pub fn pack_right<N: Number>(&self, out: &mut Packed, view: View<'_, N>, factors: Factors) {
        let form = self.form(factors);
        pack(self.isa, Some(&self.pool), out, view, Side::Right, form, factors == Factors::Bf16);
    }

    /// `out[m, n] = Σ_k left[m, k] · right[k, n]`, or added to it. Both were packed for `factors`.
    ///
    /// # Panics
    /// If the factors do not go together, or `out` is not `[M, N]`.
    pub fn product<N: Number>(
        &self,
        out: &mut [N],
        left: &Packed,
        right: &Packed,
        factors: Factors,
        adds: bool,
    ) {
        assert_eq!(out.len(), left.outer * right.outer, "room for the product");
        assert_eq!(left.inner, right.inner, "the factors go together");
        let out = Out { adds, ..Out::new(out, right.outer) };
        // SAFETY: the results are the caller's alone.
        unsafe { run(self.isa, Some(&self.pool), self.form(factors), out, left, right) };
    }

    /// As [`Kernels::rms_norm`], into any numbers; `scales` `[T]` receives what each row was multiplied with.
    ///
    /// # Panics
    /// If the shapes disagree.
    pub fn rms_norm_forward<N: Number>(
        &self,
        out: &mut [N],
        scales: &mut [f32],
        x: &[f32],
        weight: &[f32],
        epsilon: f32,
    ) {
        norm::forward(self.isa, &self.pool, out, scales, x, weight, epsilon);
    }

    /// The way back: from the gradient of the norm's result to that of `x`, which is added to `to_x` `[T, D]`, and to that
    /// of the weights, which is put into `to_weight` `[D]`.
    ///
    /// # Panics
    /// If the shapes disagree.
    pub fn rms_norm_backward(
        &self,
        to_x: &mut [f32],
        to_weight: &mut [f32],
        gradient: &[f32],
        x: &[f32],
        scales: &[f32],
        weight: &[f32],
    ) {
        let pass = norm::Backward { gradient, x, scales, weight };
        norm::backward(self.isa, &self.pool, to_x, to_weight, &pass);
    }

    /// `out = silu(gate) · up`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn swiglu_forward<N: Number>(&self, out: &mut [N], gate: &[N], up: &[N]) {
        elementwise::swiglu(self.isa, &self.pool, out, gate, up);
    }

    /// The way back, in place: `gate` and `up` become their gradients.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn swiglu_backward<N: Number>(&self, gate: &mut [N], up: &mut [N], gradient: &[N]) {
        elementwise::swiglu_back(self.isa, &self.pool, gate, up, gradient);
    }

    /// Rotates each head of `x` `[T, heads, head_dim]` in place, as [`Kernels::rope`] does; `cos` and `sin` are
    /// `[positions, head_dim / 2]` and begin anew every `positions` rows. `back` turns the other way.
    ///
    /// # Panics
    /// If the shapes disagree.
    pub fn rotate<N: Number>(
        &self,
        x: &mut [N],
        heads: usize,
        head_dim: usize,
        [cos, sin]: [&[f32]; 2],
        back: bool,
    ) {
        let angles = elementwise::Angles { cos, sin, heads, head_dim, back };
        elementwise::rotate(self.isa, &self.pool, x, angles);
    }

    /// Causal attention of rotated heads over whole rows: `out` `[B, T, heads, d]` of `q`, alike, and `k` and `v`
    /// `[B, T, kv_heads, d]`. `tape` keeps what the way back needs.
    ///
    /// # Panics
    /// If the shapes disagree.
    pub fn attention_forward<N: Number>(
        &self,
        out: &mut [N],
        tape: &mut AttentionTape,
        [q, k, v]: [&[N]; 3],
        shape: AttentionShape,
        factors: Factors,
    ) {
        attention::forward(self, self.form(factors), out, tape, [q, k, v], shape, factors);
    }

    /// The way back: the gradients of `q`, `k` and `v` from that of the result, `gradient`.
    ///
    /// # Panics
    /// If the shapes disagree.
    pub fn attention_backward<N: Number>(
        &self,
        to: [&mut [N]; 3],
        gradient: &[N],
        tape: &AttentionTape,
        from: [&[N]; 3],
        shape: AttentionShape,
        factors: Factors,
    ) {
        attention::backward(self, self.form(factors), to, gradient, tape, from, shape, factors);
    }

    /// Turns logits `[T, V]` in place into their gradient of `scale · Σ -log softmax(logits)[target]`; returns that sum.
    ///
    /// # Panics
    /// If the shapes disagree or a target is not below `V`.
    pub fn cross_entropy(&self, logits: &mut [f32], targets: &[u32], scale: f32) -> f64 {
        loss::cross_entropy(self.isa, &self.pool, logits, targets, scale)
    }

    /// `Σ x²`, the same bits with any number of threads.
    pub fn sum_of_squares(&self, x: &[f32]) -> f64 {
        update::sum_of_squares(self.isa, &self.pool, x)
    }

    /// One step of AdamW, in place.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn adamw(
        &self,
        weights: &mut [f32],
        moments: [&mut [f32]; 2],
        gradient: &[f32],
        step: AdamStep,
    ) {
        update::adamw(self.isa, &self.pool, weights, moments, gradient, step);
    }

    /// Numbers as others, each the nearest.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn narrow(&self, out: &mut [bf16], x: &[f32]) {
        elementwise::narrow(self.isa, &self.pool, out, x);
    }
}
