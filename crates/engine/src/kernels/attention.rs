//! Attention of new positions over paged key-value caches.
//!
//! One job is the query heads of a few neighbouring positions that share a key head: each key and each
//! value is fetched once for all of them. It walks its pages in rising order and keeps, for each query,
//! the largest score so far, the sum of the weights and the weighted values ("online softmax", as in
//! FlashAttention). After every [`SEGMENT_PAGES`] pages, counted from the sequence's start, it begins
//! anew; the partial results are joined in rising order. So the work on one long sequence can be shared
//! out by segments, and the order of operations of a query depends on its position alone: not on its
//! company, on how the prompt was cut, or on who computed which segment.

mod block;
mod page;
mod portable;
#[cfg(target_arch = "x86_64")]
mod simd;
#[cfg(test)]
mod tests;

use super::isa::Isa;
use super::pool::{SharedSlice, ThreadPool};
use block::Block;
use page::Line;
use std::cell::RefCell;
use std::ops::Range;

pub use page::{CacheElement, PAGE_POSITIONS, Page, PageShape};

/// Pages in a segment: the piece of a long sequence that is one job when there is little else to do.
///
/// 1,024 positions: a quarter of a megabyte of keys and values a head, some 20 µs to read, enough to be
/// worth handing to a thread.
const SEGMENT_PAGES: usize = 16;

/// Queries that a job takes through its pages together, so that each page is widened once for all.
/// Their weighted values and one head of a page fill the first-level cache.
const BLOCK_QUERIES: usize = 64;

/// Multiply-adds below which a second thread costs more than it saves.
const INLINE_MAX: usize = 100_000;

/// How scores become weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionRule {
    /// Each score is multiplied by this before the softmax.
    pub scale: f32,
    /// How many positions a query sees, its own included; all if absent. Without `causal` as many on
    /// either side.
    pub window: Option<usize>,
    /// A scaled score `s` becomes `cap · tanh(s / cap)` (Gemma 2).
    pub softcap: Option<f32>,
    /// A query does not see later positions. Encoders see all.
    pub causal: bool,
}

impl AttentionRule {
    /// The positions that a query at `position` sees, in a sequence of `end`.
    pub(crate) fn visible(&self, position: usize, end: usize) -> Range<usize> {
        let window = self.window.unwrap_or(usize::MAX);
        let first = (position + 1).saturating_sub(window);
        let reach = if self.causal { position + 1 } else { position.saturating_add(window) };
        first..reach.min(end)
    }
}

/// One sequence of a call: where its keys and values are, and how many new positions it has.
#[derive(Debug, Clone)]
pub struct AttentionSequence<'a> {
    /// Page `i` holds positions `i · PAGE_POSITIONS` on. Absent ones are beyond every window.
    pub pages: Vec<Option<&'a Page>>,
    /// The position of its first row.
    pub start: usize,
    /// How many rows it has.
    pub rows: usize,
}

/// One call: `q` and `out` are `[T, heads, head_dim]`.
pub(super) struct Call<'a> {
    pub q: &'a [f32],
    pub heads: usize,
    pub shape: PageShape,
    pub sequences: &'a [AttentionSequence<'a>],
    pub rule: &'a AttentionRule,
}

pub(super) fn attention(isa: Isa, pool: &ThreadPool, out: &mut [f32], call: &Call<'_>) {
    check(out, call);
    let blocks = blocks(call);
    let jobs = blocks.len();
    let out = SharedSlice::new(out);
    let is_split =
        jobs < 2 * pool.threads() && blocks.iter().any(|block| block.segments().len() > 1);
    if is_split {
        return split(isa, pool, out, &blocks);
    }
    let whole = |job: usize| {
        let block: &Block<'_> = &blocks[job];
        with_scratch(block.scratch_lines() + block.partial_lines(), |lines| {
            let (partials, scratch) = lines.split_at_mut(block.partial_lines());
            for (index, segment) in block.segments().enumerate() {
                run_segment(isa, block, segment, scratch, partials, index > 0);
            }
            // SAFETY: blocks are disjoint and each is one job.
            unsafe { block.write(partials, out) };
        });
    };
    let work: usize = blocks.iter().map(Block::multiply_adds).sum();
    if work <= INLINE_MAX { (0..jobs).for_each(whole) } else { pool.run(jobs, &whole) }
}

/// Few blocks over many pages: each segment is a job, and the partial results are joined after.
fn split(isa: Isa, pool: &ThreadPool, out: SharedSlice, blocks: &[Block<'_>]) {
    let mut jobs = Vec::new();
    let mut lines = 0;
    for block in blocks {
        for segment in block.segments() {
            jobs.push((block, segment, lines));
            lines += block.partial_lines();
        }
    }
    let mut partials = vec![Line([0.0; PAGE_POSITIONS]); lines];
    let shared = SharedSlice::new(page::numbers_mut(&mut partials));
    pool.run(jobs.len(), &|job| {
        let (block, segment, from) = &jobs[job];
        with_scratch(block.scratch_lines() + block.partial_lines(), |lines| {
            let (partials, scratch) = lines.split_at_mut(block.partial_lines());
            run_segment(isa, block, *segment, scratch, partials, false);
            let partials = page::numbers(partials);
            // SAFETY: each job has its own lines.
            let to = unsafe { shared.slice(from * PAGE_POSITIONS, partials.len()) };
            to.copy_from_slice(partials);
        });
    });
    let mut rest = partials.as_mut_slice();
    for block in blocks {
        let count = block.segments().len();
        let (mine, others) = rest.split_at_mut(count * block.partial_lines());
        rest = others;
        let (joined, later) = mine.split_at_mut(block.partial_lines());
        for partial in later.chunks_exact(block.partial_lines()) {
            block.join(joined, partial);
        }
        // SAFETY: blocks are disjoint.
        unsafe { block.write(joined, out) };
    }
}

fn check(out: &[f32], call: &Call<'_>) {
    let PageShape { kv_heads, head_dim, .. } = call.shape;
    let heads = call.heads;
    assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads), "{heads} heads share {kv_heads}");
    assert_eq!(out.len(), call.q.len(), "one output per query");
    let rows: usize = call.sequences.iter().map(|sequence| sequence.rows).sum();
    assert_eq!(call.q.len(), rows * heads * head_dim, "the queries of {rows} rows");
}

/// The jobs of a call, the longest of each sequence first.
fn blocks<'a>(call: &'a Call<'a>) -> Vec<Block<'a>> {
    let rows_per_block = (BLOCK_QUERIES / (call.heads / call.shape.kv_heads)).max(1);
    let mut blocks = Vec::new();
    let mut first_row = 0;
    for sequence in call.sequences {
        for from in (0..sequence.rows).step_by(rows_per_block).rev() {
            let rows = from..sequence.rows.min(from + rows_per_block);
            for kv_head in 0..call.shape.kv_heads {
                blocks.push(Block::new(call, sequence, first_row, rows.clone(), kv_head));
            }
        }
        first_row += sequence.rows;
    }
    blocks
}

thread_local! {
    static SCRATCH: RefCell<Vec<Line<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Memory that each thread keeps: fresh memory would be faulted in every time.
fn with_scratch(lines: usize, work: impl FnOnce(&mut [Line<f32>])) {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.len() < lines {
            scratch.resize(lines, Line([0.0; PAGE_POSITIONS]));
        }
        work(&mut scratch[..lines]);
    });
}

/// Computes one segment of `block` into `partials`, or joins it to what is there.
fn run_segment(
    isa: Isa,
    block: &Block<'_>,
    segment: usize,
    scratch: &mut [Line<f32>],
    partials: &mut [Line<f32>],
    joins: bool,
) {
    #[cfg(target_arch = "x86_64")]
    match isa {
        Isa::Portable => block.run::<portable::Portable>(segment, scratch, partials, joins),
        // SAFETY: `Kernels::new` made sure of the instruction set.
        Isa::Avx2 => unsafe { simd::run_avx2(block, segment, scratch, partials, joins) },
        // SAFETY: as above.
        _ => unsafe { simd::run_avx512(block, segment, scratch, partials, joins) },
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = isa;
        block.run::<portable::Portable>(segment, scratch, partials, joins);
    }
}
