//! One job of attention: some queries that share a key head, over the pages they see.

#![allow(clippy::needless_range_loop, reason = "indices run over lanes of several arrays at once")]

use super::super::math::{LANES, add_up, exp, tanh};
use super::super::pool::SharedSlice;
use super::page::{AnyHead, Head, Line, PAGE_POSITIONS, Stores, numbers, numbers_mut};
use super::{AttentionRule, AttentionSequence, Call, SEGMENT_PAGES};
use half::{bf16, f16};
use std::ops::Range;

/// The two loops that are written for each instruction set, over keys and values stored as `E`.
///
/// # Safety
/// Only where the instruction set is available.
pub(super) trait Body<E> {
    /// Most queries of a [`Tile`], at most [`TILE_QUERIES_MAX`].
    const TILE_QUERIES: usize;

    /// `scores[t][p] = Σ_d q[t, d] · keys[d, p]`, d rising.
    unsafe fn scores(tile: &Tile<'_>, keys: &[E], scores: &mut [Line<f32>]);

    /// `sums[t, d] += Σ_p weights[t][p] · values[p, d]`, p rising through `tile.visible[t]`. No other
    /// value is touched: it could be infinite.
    unsafe fn weigh(tile: &Tile<'_>, weights: &[Line<f32>], values: &[E], sums: &mut [f32]);
}

/// Most queries that any [`Body`] treats at once.
pub(super) const TILE_QUERIES_MAX: usize = 6;

/// Some queries at one page.
pub(super) struct Tile<'a> {
    /// How many.
    pub queries: usize,
    /// `[queries, value_width]`, of which `head_dim` count.
    pub q: &'a [f32],
    pub head_dim: usize,
    pub value_width: usize,
    /// Numbers from one query's sums to the next's.
    pub stride: usize,
    /// The positions in the page that each sees; none after the first `queries`.
    pub visible: [(usize, usize); TILE_QUERIES_MAX],
}

/// The query heads of rows `rows` of a sequence that share key head `kv_head`.
///
/// A partial result of a query is `value_width` weighted sums, the largest score, the sum of the
/// weights, and room up to the next cache line.
pub(super) struct Block<'a> {
    call: &'a Call<'a>,
    sequence: &'a AttentionSequence<'a>,
    /// The sequence's first row in the call.
    first_row: usize,
    rows: Range<usize>,
    kv_head: usize,
}

impl<'a> Block<'a> {
    pub fn new(
        call: &'a Call<'a>,
        sequence: &'a AttentionSequence<'a>,
        first_row: usize,
        rows: Range<usize>,
        kv_head: usize,
    ) -> Self {
        Self { call, sequence, first_row, rows, kv_head }
    }

    fn group(&self) -> usize {
        self.call.heads / self.call.shape.kv_heads
    }

    fn queries(&self) -> usize {
        self.rows.len() * self.group()
    }

    /// Where query `query` lies in `q` and `out`.
    fn place(&self, query: usize) -> usize {
        let (row, head) = (query / self.group(), query % self.group());
        let row = self.first_row + self.rows.start + row;
        (row * self.call.heads + self.kv_head * self.group() + head) * self.call.shape.head_dim
    }

    /// What query `query` sees of its sequence.
    fn visible(&self, query: usize) -> Range<usize> {
        let position = self.sequence.start + self.rows.start + query / self.group();
        self.call.rule.visible(position, self.sequence.start + self.sequence.rows)
    }

    /// The pages that at least one query sees.
    fn pages(&self) -> Range<usize> {
        let last = self.visible(self.queries() - 1);
        self.visible(0).start / PAGE_POSITIONS..last.end.div_ceil(PAGE_POSITIONS)
    }

    /// The segments that at least one query sees.
    pub fn segments(&self) -> Range<usize> {
        let pages = self.pages();
        pages.start / SEGMENT_PAGES..pages.end.div_ceil(SEGMENT_PAGES)
    }

    pub fn multiply_adds(&self) -> usize {
        let numbers = self.queries() * self.call.shape.head_dim;
        2 * numbers * self.pages().len() * PAGE_POSITIONS
    }

    /// Numbers of one partial result.
    fn stride(&self) -> usize {
        self.call.shape.value_width() + LANES
    }

    /// Lines of the partial results of all queries.
    pub fn partial_lines(&self) -> usize {
        (self.queries() * self.stride()).div_ceil(PAGE_POSITIONS)
    }

    /// Lines that [`Self::run`] needs beside them.
    pub fn scratch_lines(&self) -> usize {
        let (dim, width) = (self.call.shape.head_dim, self.call.shape.value_width());
        let q = (self.queries() * width).div_ceil(PAGE_POSITIONS);
        q + dim + width + TILE_QUERIES_MAX + self.partial_lines()
    }

    /// Computes one segment into `partials`, or joins it to what is there.
    #[inline(always)]
    pub fn run<B: Body<f32> + Body<f16> + Body<bf16>>(
        &self,
        segment: usize,
        scratch: &mut [Line<f32>],
        partials: &mut [Line<f32>],
        joins: bool,
    ) {
        let (fresh, scratch) = scratch.split_at_mut(self.partial_lines());
        let target = if joins { &mut *fresh } else { &mut *partials };
        self.begin(target);
        let width = self.call.shape.value_width();
        let (q, scratch) = scratch.split_at_mut((self.queries() * width).div_ceil(PAGE_POSITIONS));
        self.gather(numbers_mut(q));
        let pages = self.pages();
        let from = pages.start.max(segment * SEGMENT_PAGES);
        for page in from..pages.end.min((segment + 1) * SEGMENT_PAGES) {
            self.page::<B>(page, numbers(q), scratch, numbers_mut(target));
        }
        if joins {
            self.join(partials, fresh);
        }
    }

    /// Partial results of nothing.
    fn begin(&self, partials: &mut [Line<f32>]) {
        let width = self.call.shape.value_width();
        for partial in numbers_mut(partials).chunks_exact_mut(self.stride()).take(self.queries()) {
            partial.fill(0.0);
            partial[width] = f32::NEG_INFINITY;
        }
    }

    /// `to` `[queries, value_width]` = the queries.
    fn gather(&self, to: &mut [f32]) {
        let (dim, width) = (self.call.shape.head_dim, self.call.shape.value_width());
        for (query, to) in to.chunks_exact_mut(width).take(self.queries()).enumerate() {
            to[..dim].copy_from_slice(&self.call.q[self.place(query)..][..dim]);
        }
    }

    #[inline(always)]
    fn page<B: Body<f32> + Body<f16> + Body<bf16>>(
        &self,
        page: usize,
        q: &[f32],
        scratch: &mut [Line<f32>],
        partials: &mut [f32],
    ) {
        let from = self.sequence.pages[page].expect("visible pages are there");
        assert_eq!(from.shape(), self.call.shape, "all pages of a call have one shape");
        let (scores, wide) = scratch.split_at_mut(TILE_QUERIES_MAX);
        let many = self.queries() > <B as Body<f32>>::TILE_QUERIES;
        match from.head(self.kv_head) {
            AnyHead::F32(head) => self.tiles::<B, f32>(page, q, &head, scores, partials),
            // Widened once for all tiles, where there is more than one; the numbers are the same.
            AnyHead::F16(head) if many => {
                self.tiles::<B, f32>(page, q, &widened(&head, wide), scores, partials);
            }
            AnyHead::Bf16(head) if many => {
                self.tiles::<B, f32>(page, q, &widened(&head, wide), scores, partials);
            }
            AnyHead::F16(head) => self.tiles::<B, f16>(page, q, &head, scores, partials),
            AnyHead::Bf16(head) => self.tiles::<B, bf16>(page, q, &head, scores, partials),
        }
    }

    /// Adds to `partials` what all queries find in one page.
    #[inline(always)]
    fn tiles<B: Body<E>, E>(
        &self,
        page: usize,
        q: &[f32],
        head: &Head<'_, E>,
        scores: &mut [Line<f32>],
        partials: &mut [f32],
    ) {
        let (width, stride) = (self.call.shape.value_width(), self.stride());
        for from in (0..self.queries()).step_by(B::TILE_QUERIES) {
            let queries = B::TILE_QUERIES.min(self.queries() - from);
            let mut visible = [(0, 0); TILE_QUERIES_MAX];
            for t in 0..queries {
                visible[t] = within(self.visible(from + t), page);
            }
            if visible.iter().all(|(start, end)| start == end) {
                continue;
            }
            let q = &q[from * width..][..queries * width];
            let head_dim = self.call.shape.head_dim;
            let tile = Tile { queries, q, head_dim, value_width: width, stride, visible };
            // SAFETY: the caller runs compiled for the body's instruction set.
            unsafe { B::scores(&tile, head.keys, scores) };
            let partials = &mut partials[from * stride..][..queries * stride];
            for (t, partial) in partials.chunks_exact_mut(stride).enumerate() {
                if visible[t].0 < visible[t].1 {
                    weights(&mut scores[t].0, visible[t], self.call.rule, partial, width);
                }
            }
            // SAFETY: as above.
            unsafe { B::weigh(&tile, scores, head.values, partials) };
        }
    }

    /// Joins the partial results `later` of a later segment to those of earlier ones.
    pub fn join(&self, earlier: &mut [Line<f32>], later: &[Line<f32>]) {
        let (width, stride) = (self.call.shape.value_width(), self.stride());
        let earlier = numbers_mut(earlier).chunks_exact_mut(stride).take(self.queries());
        for (earlier, later) in earlier.zip(numbers(later).chunks_exact(stride)) {
            let [max, sum] = [earlier[width], earlier[width + 1]];
            let [later_max, later_sum] = [later[width], later[width + 1]];
            // A segment that the query does not see has weights of 0 and changes nothing.
            if later_sum == 0.0 {
                continue;
            }
            if sum == 0.0 {
                earlier.copy_from_slice(later);
                continue;
            }
            let largest = max.max(later_max);
            let [factor, later_factor] = [exp(max - largest), exp(later_max - largest)];
            for (number, later) in earlier[..width].iter_mut().zip(later) {
                *number = *number * factor + later * later_factor;
            }
            earlier[width] = largest;
            earlier[width + 1] = sum * factor + later_sum * later_factor;
        }
    }

    /// Writes the outputs of all queries.
    ///
    /// # Safety
    /// No one else may write or read this block's part of `out`.
    pub unsafe fn write(&self, partials: &[Line<f32>], out: SharedSlice) {
        let (dim, width) = (self.call.shape.head_dim, self.call.shape.value_width());
        let partials = numbers(partials).chunks_exact(self.stride());
        for (query, partial) in partials.take(self.queries()).enumerate() {
            // SAFETY: the caller's promise; queries are disjoint.
            let out = unsafe { out.slice(self.place(query), dim) };
            let factor = 1.0 / partial[width + 1];
            for (out, number) in out.iter_mut().zip(partial) {
                *out = number * factor;
            }
        }
    }
}

/// `visible` within a page, counted from its first position.
fn within(visible: Range<usize>, page: usize) -> (usize, usize) {
    let first = page * PAGE_POSITIONS;
    let [start, end] =
        [visible.start, visible.end].map(|p| p.saturating_sub(first).min(PAGE_POSITIONS));
    (start, end)
}

/// The head's numbers in f32, kept in `lines`.
fn widened<'a, E: Stores>(head: &Head<'_, E>, lines: &'a mut [Line<f32>]) -> Head<'a, f32> {
    let (keys, rest) = numbers_mut(lines).split_at_mut(head.keys.len());
    let values = &mut rest[..head.values.len()];
    E::widen(keys, head.keys);
    E::widen(values, head.values);
    Head { keys, values }
}

/// Turns the scores of one query at one page into weights, and makes its partial result fit them: all
/// are relative to the largest score so far.
#[inline(always)]
fn weights(
    scores: &mut [f32; PAGE_POSITIONS],
    visible: (usize, usize),
    rule: &AttentionRule,
    partial: &mut [f32],
    width: usize,
) {
    for score in scores.iter_mut() {
        *score *= rule.scale;
    }
    if let Some(cap) = rule.softcap {
        for score in scores.iter_mut() {
            *score = cap * tanh(*score / cap);
        }
    }
    if visible != (0, PAGE_POSITIONS) {
        for (at, score) in scores.iter_mut().enumerate() {
            let seen = at >= visible.0 && at < visible.1;
            *score = if seen { *score } else { f32::NEG_INFINITY };
        }
    }
    let (chunks, _) = scores.as_chunks_mut::<LANES>();
    let mut largest = [partial[width]; LANES];
    for chunk in chunks.iter() {
        for lane in 0..LANES {
            largest[lane] = if chunk[lane] > largest[lane] { chunk[lane] } else { largest[lane] };
        }
    }
    let largest = largest.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            chunk[lane] = exp(chunk[lane] - largest);
            sums[lane] += chunk[lane];
        }
    }
    let factor = exp(partial[width] - largest);
    for number in &mut partial[..width] {
        *number *= factor;
    }
    partial[width] = largest;
    partial[width + 1] = partial[width + 1] * factor + add_up(sums);
}
