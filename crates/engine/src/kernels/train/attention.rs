//! Causal attention over whole rows, forth and back, without ever holding all scores.
//!
//! A job is one key head of one row with the query heads that read it; queries go in blocks, and scores are computed
//! again on the way back from the sum of exponentials that the tape keeps (Dao et al. 2022, FlashAttention). Keys that
//! no query of a block sees are left out.

use super::super::Kernels;
use super::super::isa::{Isa, compiled_for};
use super::super::math::dot;
use super::super::pool::SharedSlice;
use super::loss::{exps, highest};
use super::pack::{Form, Packed, Side, View, pack};
use super::product::{Out, run};
use super::{Factors, Number};
use std::cell::Cell;

/// Queries of a block.
const BLOCK: usize = 128;

/// The heads and rows of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Rows.
    pub rows: usize,
    /// Positions of a row.
    pub length: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Numbers of a head.
    pub head_dim: usize,
}

impl AttentionShape {
    fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    fn check(&self, lengths: [usize; 3]) {
        let positions = self.rows * self.length;
        let [query, kv] = [positions * self.query_width(), positions * self.kv_width()];
        assert_eq!(lengths, [query, kv, kv], "queries, keys and values of {self:?}");
        assert!(self.heads.is_multiple_of(self.kv_heads), "{self:?}");
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
}

/// What the way back needs of the way forth.
#[derive(Debug, Clone, Default)]
pub struct AttentionTape {
    /// `[rows, heads, length, 2]`: the highest score of a query, and one over the sum of exponentials above it.
    levels: Vec<[f32; 2]>,
}

/// What a thread works with.
#[derive(Default)]
struct Desk {
    /// `[queries, keys]`.
    scores: Vec<f32>,
    /// Of the same shape, on the way back.
    pulled: Vec<f32>,
    /// Gradients of keys and values, `[length, head_dim]` each.
    sums: [Vec<f32>; 2],
    left: Packed,
    right: Packed,
    keys: Packed,
    keys_down: Packed,
    values: Packed,
}

thread_local! {
    static DESK: Cell<Desk> = Cell::new(Desk::default());
}

/// What the jobs of one call share.
struct Call<'a, N> {
    isa: Isa,
    form: Form,
    rounds: bool,
    shape: AttentionShape,
    q: &'a [N],
    k: &'a [N],
    v: &'a [N],
}

impl<'a, N: Number> Call<'a, N> {
    fn new(
        kernels: &Kernels,
        form: Form,
        [q, k, v]: [&'a [N]; 3],
        shape: AttentionShape,
        factors: Factors,
    ) -> Self {
        shape.check([q.len(), k.len(), v.len()]);
        Self { isa: kernels.isa, form, rounds: factors == Factors::Bf16, shape, q, k, v }
    }

    fn pack<M: Number>(&self, out: &mut Packed, view: View<'_, M>, side: Side) {
        pack(self.isa, None, out, view, side, self.form, self.rounds);
    }

    /// # Safety
    /// Nobody else may touch the results' places meanwhile.
    unsafe fn product<M: Number>(&self, out: Out<M>, left: &Packed, right: &Packed) {
        // SAFETY: the caller's promise.
        unsafe { run(self.isa, None, self.form, out, left, right) };
    }

    /// `[count, head_dim]` from position `from` of a row on.
    fn head<'b, M: Number>(
        &self,
        numbers: &'b [M],
        heads: usize,
        (row, head): (usize, usize),
        from: usize,
        count: usize,
    ) -> View<'b, M> {
        let (width, dim) = (heads * self.shape.head_dim, self.shape.head_dim);
        let start = (row * self.shape.length + from) * width + head * dim;
        View::part(&numbers[start..], count, dim, width)
    }

    /// The places of a query head's results from position `from` of a row on.
    fn lines<M>(&self, out: SharedSlice<M>, (row, head): (usize, usize), from: usize) -> Out<M> {
        let (stride, dim) = (self.shape.query_width(), self.shape.head_dim);
        let start = (row * self.shape.length + from) * stride + head * dim;
        Out { numbers: out, start, stride, adds: false, scale: 1.0 }
    }

    /// Blocks of queries: where each begins and ends.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> + use<N> {
        let length = self.shape.length;
        (0..length).step_by(BLOCK).map(move |from| (from, length.min(from + BLOCK)))
    }

    /// The scores `[to - from, to]` of a block, scaled, in `desk.scores`; keys are packed as the right factor.
    fn scores(&self, desk: &mut Desk, place: (usize, usize), from: usize, to: usize) {
        let q = self.head(self.q, self.shape.heads, place, from, to - from);
        self.pack(&mut desk.left, q, Side::Left);
        desk.keys.outer = to;
        let room = fresh(&mut desk.scores, (to - from) * to);
        let out = Out { scale: self.shape.scale(), ..Out::new(room, to) };
        // SAFETY: the desk is this thread's.
        unsafe { self.product(out, &desk.left, &desk.keys) };
    }
}

/// Room for `length` numbers.
fn fresh(numbers: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if numbers.len() < length {
        numbers.resize(length, 0.0);
    }
    &mut numbers[..length]
}

pub(super) fn forward<N: Number>(
    kernels: &Kernels,
    form: Form,
    out: &mut [N],
    tape: &mut AttentionTape,
    from: [&[N]; 3],
    shape: AttentionShape,
    factors: Factors,
) {
    let call = Call::new(kernels, form, from, shape, factors);
    assert_eq!(out.len(), call.q.len(), "a result for each query");
    tape.levels.resize(shape.rows * shape.heads * shape.length, [0.0; 2]);
    let (out, levels) = (SharedSlice::new(out), SharedSlice::new(&mut tape.levels));
    kernels.pool.run(shape.rows * shape.kv_heads, &|job| {
        let (row, kv_head) = (job / shape.kv_heads, job % shape.kv_heads);
        let mut desk = DESK.take();
        let keys = call.head(call.k, shape.kv_heads, (row, kv_head), 0, shape.length);
        call.pack(&mut desk.keys, keys.t(), Side::Right);
        let values = call.head(call.v, shape.kv_heads, (row, kv_head), 0, shape.length);
        call.pack(&mut desk.values, values, Side::Right);
        let group = shape.heads / shape.kv_heads;
        for head in kv_head * group..(kv_head + 1) * group {
            for (from, to) in call.blocks() {
                call.scores(&mut desk, (row, head), from, to);
                let start = (row * shape.heads + head) * shape.length + from;
                // SAFETY: each head of a row belongs to one job.
                let levels = unsafe { levels.slice(start, to - from) };
                let scores = &mut desk.scores[..(to - from) * to];
                compiled_for!(call.isa, softmax(scores: &mut [f32], levels: &mut [[f32; 2]], from: usize));
                call.pack(&mut desk.left, View::new(scores, to - from, to), Side::Left);
                // SAFETY: each head of a row belongs to one job.
                unsafe {
                    let out = call.lines(out, (row, head), from);
                    call.product(out, &desk.left, &desk.values);
                }
            }
        }
        DESK.set(desk);
    });
}

/// Rows of scores become weights that sum to 1; what a query does not see becomes 0.
#[inline(always)]
fn softmax(scores: &mut [f32], levels: &mut [[f32; 2]], from: usize) {
    let keys = scores.len() / levels.len();
    for (query, (scores, level)) in scores.chunks_exact_mut(keys).zip(levels).enumerate() {
        let (seen, unseen) = scores.split_at_mut(from + query + 1);
        let base = highest(seen);
        let factor = 1.0 / exps(seen, base);
        seen.iter_mut().for_each(|x| *x *= factor);
        unseen.fill(0.0);
        *level = [base, factor];
    }
}

/// The same again from what the tape kept.
#[inline(always)]
fn softmax_again(scores: &mut [f32], levels: &[[f32; 2]], from: usize) {
    let keys = scores.len() / levels.len();
    for (query, (scores, [base, factor])) in scores.chunks_exact_mut(keys).zip(levels).enumerate() {
        let (seen, unseen) = scores.split_at_mut(from + query + 1);
        exps(seen, *base);
        seen.iter_mut().for_each(|x| *x *= factor);
        unseen.fill(0.0);
    }
}

/// The gradients of weights become those of scaled scores: `p (g − Σ p g) · scale`.
#[inline(always)]
fn softmax_back(pulled: &mut [f32], weights: &[f32], rows: usize, scale: f32) {
    let keys = weights.len() / rows;
    for (pulled, weights) in pulled.chunks_exact_mut(keys).zip(weights.chunks_exact(keys)) {
        let common = dot(pulled, weights);
        for (pulled, weight) in pulled.iter_mut().zip(weights) {
            *pulled = weight * (*pulled - common) * scale;
        }
    }
}

#[allow(clippy::too_many_arguments, reason = "three tensors in, three out, and how")]
pub(super) fn backward<N: Number>(
    kernels: &Kernels,
    form: Form,
    to: [&mut [N]; 3],
    gradient: &[N],
    tape: &AttentionTape,
    from: [&[N]; 3],
    shape: AttentionShape,
    factors: Factors,
) {
    let call = Call::new(kernels, form, from, shape, factors);
    shape.check([to[0].len(), to[1].len(), to[2].len()]);
    assert_eq!(gradient.len(), call.q.len(), "a gradient for each result");
    let to = to.map(SharedSlice::new);
    let back = Back { call, gradient, tape, to };
    kernels.pool.run(shape.rows * shape.kv_heads, &|job| {
        let mut desk = DESK.take();
        back.key_head(&mut desk, job / shape.kv_heads, job % shape.kv_heads);
        DESK.set(desk);
    });
}

/// The way back of one call.
struct Back<'a, N> {
    call: Call<'a, N>,
    gradient: &'a [N],
    tape: &'a AttentionTape,
    /// Of queries, keys and values.
    to: [SharedSlice<N>; 3],
}

impl<N: Number> Back<'_, N> {
    fn key_head(&self, desk: &mut Desk, row: usize, kv_head: usize) {
        let (call, shape) = (&self.call, self.call.shape);
        let keys = call.head(call.k, shape.kv_heads, (row, kv_head), 0, shape.length);
        call.pack(&mut desk.keys, keys.t(), Side::Right);
        call.pack(&mut desk.keys_down, keys, Side::Right);
        let values = call.head(call.v, shape.kv_heads, (row, kv_head), 0, shape.length);
        call.pack(&mut desk.values, values.t(), Side::Right);
        for sums in &mut desk.sums {
            sums.clear();
            sums.resize(shape.length * shape.head_dim, 0.0);
        }
        let group = shape.heads / shape.kv_heads;
        for head in kv_head * group..(kv_head + 1) * group {
            for (from, to) in call.blocks() {
                self.block(desk, (row, head), from, to);
            }
        }
        let width = shape.kv_width();
        let start = row * shape.length * width + kv_head * shape.head_dim;
        for (sums, to) in desk.sums.iter().zip(&self.to[1..]) {
            for (at, sums) in sums.chunks_exact(shape.head_dim).enumerate() {
                // SAFETY: each key head of a row belongs to one job.
                let to = unsafe { to.slice(start + at * width, shape.head_dim) };
                to.iter_mut().zip(sums).for_each(|(to, sum)| *to = N::narrow(*sum));
            }
        }
    }

    fn block(&self, desk: &mut Desk, place: (usize, usize), from: usize, to: usize) {
        let (call, shape) = (&self.call, self.call.shape);
        let (dim, rows) = (shape.head_dim, to - from);
        call.scores(desk, place, from, to);
        let start = (place.0 * shape.heads + place.1) * shape.length + from;
        let levels = &self.tape.levels[start..start + rows];
        let scores = &mut desk.scores[..rows * to];
        compiled_for!(call.isa, softmax_again(scores: &mut [f32], levels: &[[f32; 2]], from: usize));

        let gradient = call.head(self.gradient, shape.heads, place, from, rows);
        call.pack(&mut desk.left, View::new(scores, rows, to).t(), Side::Left);
        call.pack(&mut desk.right, gradient, Side::Right);
        let into = Out { adds: true, ..Out::new(&mut desk.sums[1], dim) };
        // SAFETY: the desk is this thread's.
        unsafe { call.product(into, &desk.left, &desk.right) };

        call.pack(&mut desk.left, gradient, Side::Left);
        desk.values.outer = to;
        let out = Out::new(fresh(&mut desk.pulled, rows * to), to);
        // SAFETY: the desk is this thread's.
        unsafe { call.product(out, &desk.left, &desk.values) };
        let (pulled, weights) = (&mut desk.pulled[..rows * to], &desk.scores[..rows * to]);
        let scale = shape.scale();
        compiled_for!(
            call.isa,
            softmax_back(pulled: &mut [f32], weights: &[f32], rows: usize, scale: f32)
        );

        let pulled = View::new(&desk.pulled, rows, to);
        call.pack(&mut desk.left, pulled, Side::Left);
        // SAFETY: each head of a row belongs to one job.
        unsafe { call.product(call.lines(self.to[0], place, from), &desk.left, &desk.keys_down) };

        call.pack(&mut desk.left, pulled.t(), Side::Left);
        let q = call.head(call.q, shape.heads, place, from, rows);
        call.pack(&mut desk.right, q, Side::Right);
        let into = Out { adds: true, ..Out::new(&mut desk.sums[0], dim) };
        // SAFETY: the desk is this thread's.
        unsafe { call.product(into, &desk.left, &desk.right) };
    }
}
