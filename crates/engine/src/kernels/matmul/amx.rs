//! Products with bf16 weights on matrix units.
//!
//! A row of activations becomes two rows of bf16: the numbers rounded, and what that lost rounded. Both
//! are multiplied by the weights, which are exact, and their sums added at the end. A tile's rows do not
//! touch each other, and a sum that leaves its tile comes back as it was: a row's bits depend neither on
//! its company nor on how the work is cut.

use super::super::amx::{self, Config, FETCH_BYTES, Sums, TILE, TILE_BYTES};
use super::super::isa::{Isa, compiled_for};
use super::super::matrix::{PANEL_ROWS, Panels, TILE_COLS};
use super::super::memory::Scratch;
use super::super::pool::{SharedSlice, ThreadPool};
use super::{Product, STREAMS};
use half::bf16;
use std::cell::Cell;
use std::ops::Range;

/// Rows of activations whose halves fill a tile.
const ROWS: usize = TILE / 2;

/// bf16 numbers of one tile of activations.
const TILE_NUMBERS: usize = TILE * TILE_COLS;

/// Rows of activations, and tiles across their inputs, that are multiplied with all weights before the
/// next: their halves take 1 MiB, half of a second-level cache. Measured: tiles that come from there
/// feed the matrix unit, tiles from beyond take five times as long.
const SLAB_ROWS: usize = 128;
const SLAB_STEPS: usize = 64;

thread_local! {
    /// Where activations are cut in two.
    static HALVES: Cell<Scratch> = const { Cell::new(Scratch::new()) };
    /// Where sums wait for the next slab of inputs.
    static SUMS: Cell<Vec<[Sums<f32>; 4]>> = const { Cell::new(Vec::new()) };
}

pub(super) fn run(pool: &ThreadPool, product: Product<'_>, panels: &Panels<bf16>) {
    let steps = product.k.div_ceil(TILE_COLS);
    let mut scratch = HALVES.take();
    for start in (0..product.t).step_by(SLAB_ROWS) {
        let rows = SLAB_ROWS.min(product.t - start);
        // The wide program takes blocks in pairs.
        let blocks = match rows.div_ceil(ROWS) {
            1 => 1,
            blocks => blocks.next_multiple_of(2),
        };
        let halves = scratch.take(blocks * steps * TILE_NUMBERS);
        split(pool, &product.x[start * product.k..][..rows * product.k], product.k, steps, halves);
        let work = Work { product, panels, halves, steps, blocks, start, rows };
        if blocks == 1 { work.narrow(pool) } else { work.wide(pool) }
    }
    HALVES.set(scratch);
}

/// Cuts the activations in two, in the order of tiles: `[blocks, steps, 16, 32]`, row `2t` of a block the
/// rounded numbers of its row `t`, the next what they lost.
fn split(pool: &ThreadPool, x: &[f32], k: usize, steps: usize, halves: &mut [u16]) {
    let length = steps * TILE_NUMBERS;
    let blocks = halves.len() / length;
    let halves = SharedSlice::new(halves);
    let cut = |block: usize| {
        // SAFETY: blocks are disjoint and each is visited once.
        let out = unsafe { halves.slice(block * length, length) };
        let start = (block * ROWS * k).min(x.len());
        let x = &x[start..x.len().min(start + ROWS * k)];
        compiled_for!(Isa::Amx, split_block(x: &[f32], k: usize, out: &mut [u16]));
    };
    if x.len() < super::INLINE_MAX {
        (0..blocks).for_each(cut);
    } else {
        pool.run(blocks, &cut);
    }
}

#[inline(always)]
fn split_block(x: &[f32], k: usize, out: &mut [u16]) {
    let rows = x.len() / k;
    for (step, tile) in out.chunks_exact_mut(TILE_NUMBERS).enumerate() {
        let from = step * TILE_COLS;
        let width = TILE_COLS.min(k - from);
        for (row, pair) in tile.chunks_exact_mut(2 * TILE_COLS).enumerate() {
            if row >= rows {
                pair.fill(0);
                continue;
            }
            let (high, low) = pair.split_at_mut(TILE_COLS);
            let x = &x[row * k + from..][..width];
            for ((high, low), &x) in high.iter_mut().zip(low.iter_mut()).zip(x) {
                *high = round(x);
                *low = round(x - f32::from_bits(u32::from(*high) << 16));
            }
            high[width..].fill(0);
            low[width..].fill(0);
        }
    }
}

/// The bits of the bf16 number nearest to `x`, of two the even one.
#[inline(always)]
fn round(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    // What is no number must not round to one.
    let bits = if x.is_nan() { bits >> 16 | 0x40 } else { rounded };
    bits as u16
}

/// A slab of rows with all panels.
struct Work<'a> {
    product: Product<'a>,
    panels: &'a Panels<bf16>,
    /// As [`split`] writes them.
    halves: &'a [u16],
    /// Tiles in a row of activations.
    steps: usize,
    /// Tiles in a column of activations.
    blocks: usize,
    /// The first row.
    start: usize,
    /// How many rows.
    rows: usize,
}

impl Work<'_> {
    fn block(&self, index: usize, step: usize) -> *const u8 {
        self.halves[(index * self.steps + step) * TILE_NUMBERS..].as_ptr().cast()
    }

    fn panel(&self, index: usize, step: usize) -> *const u8 {
        self.panels.panel(index)[step * TILE_NUMBERS..].as_ptr().cast()
    }

    fn panel_bytes(&self) -> usize {
        size_of_val(self.panels.panel(0))
    }

    /// Few rows: memory is what this waits for, so several panels are read side by side.
    fn narrow(&self, pool: &ThreadPool) {
        self.product.spread(pool, self.panels.count, self.panel_bytes(), &|range| {
            let run = range.len().div_ceil(STREAMS);
            // SAFETY: `Kernels::new` made sure of the instructions, the tiles named are there, and
            // `spread` gives disjoint ranges of columns.
            unsafe {
                let _config = Config::new(2 * self.rows, TILE_BYTES / TILE);
                let mut sums = [Sums::default(); STREAMS];
                for at in range.start..range.start + run {
                    let mut group = [at; STREAMS];
                    for (stream, panel) in group.iter_mut().enumerate() {
                        *panel = (at + stream * run).min(range.end - 1);
                    }
                    let panels = group.map(|panel| self.panel(panel, 0));
                    amx::bf16_1x4(self.block(0, 0), 64, panels, self.steps, &mut sums);
                    for (stream, sums) in sums.iter().enumerate() {
                        // Beyond the end the last panel was taken again.
                        if at + stream * run < range.end {
                            self.write(0, group[stream], sums);
                        }
                    }
                }
            }
        });
    }

    /// Many rows: tiles are what this waits for, so each is used twice, and slabs stay near.
    fn wide(&self, pool: &ThreadPool) {
        let (pairs, panel_pairs) = (self.blocks / 2, self.panels.count.div_ceil(2));
        let mut sums = SUMS.take();
        if self.steps > SLAB_STEPS {
            sums.resize(pairs * panel_pairs, [Sums::default(); 4]);
        }
        let shared = SharedSlice::new(&mut sums);
        for step in (0..self.steps).step_by(SLAB_STEPS) {
            let steps = step..self.steps.min(step + SLAB_STEPS);
            self.product.spread(pool, panel_pairs, 2 * self.panel_bytes(), &|range| {
                // SAFETY: as in `narrow`; each pair of panels has sums of its own.
                unsafe {
                    let _config = Config::new(TILE, TILE_BYTES / TILE);
                    for pair in range {
                        let waiting =
                            (self.steps > SLAB_STEPS).then(|| shared.slice(pair * pairs, pairs));
                        self.panel_pair(pair * 2, steps.clone(), waiting);
                    }
                }
            });
        }
        SUMS.set(sums);
    }

    /// Panels `at` and the next with all blocks, over the inputs of `steps`. Sums start from and end in
    /// `waiting`, if these are not all inputs. Fetches the two panels after them.
    ///
    /// # Safety
    /// AVX-512 must be available and a [`Config`] of full tiles alive; nobody else may touch these columns of
    /// the output.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn panel_pair(
        &self,
        at: usize,
        steps: Range<usize>,
        mut waiting: Option<&mut [[Sums<f32>; 4]]>,
    ) {
        let pair = [at, (at + 1).min(self.panels.count - 1)];
        let panels = pair.map(|panel| self.panel(panel, steps.start));
        let mut here = [Sums::default(); 4];
        for block in (0..self.blocks).step_by(2) {
            let sums = match &mut waiting {
                None => &mut here,
                Some(waiting) => &mut waiting[block / 2],
            };
            let is_last = steps.end == self.steps;
            if is_last {
                self.fetch_places(block, pair);
            }
            let a = [self.block(block, steps.start), self.block(block + 1, steps.start)];
            let next = self.share(at + 2, &steps, block);
            // SAFETY: the tiles named are there; the caller's promises.
            unsafe { amx::bf16_2x2(a, panels, steps.len(), next, steps.start == 0, sums) };
            if is_last {
                for (index, sums) in sums.iter().enumerate() {
                    if at + index % 2 < self.panels.count {
                        // SAFETY: the caller's promise.
                        unsafe { self.write(block + index / 2, at + index % 2, sums) };
                    }
                }
            }
        }
    }

    /// Starts to bring nearer where the sums of two blocks will go.
    #[inline(always)]
    fn fetch_places(&self, block: usize, panels: [usize; 2]) {
        let rows = block * ROWS..((block + 2) * ROWS).min(self.rows);
        for row in rows {
            panels.iter().for_each(|panel| self.product.fetch(self.start + row, *panel));
        }
    }

    /// Where the share of the tiles of panels `at` and the next begins that is fetched while two blocks are
    /// multiplied: with a full slab of rows, all shares make both panels.
    #[inline(always)]
    fn share(&self, at: usize, steps: &Range<usize>, block: usize) -> *const u8 {
        let offset = block / 2 * steps.len() * FETCH_BYTES;
        let bytes = steps.len() * TILE_BYTES;
        let panel = (at + offset / bytes).min(self.panels.count - 1);
        self.panel(panel, steps.start).wrapping_add(offset % bytes)
    }

    /// Writes the sums of one block of activations with one panel.
    ///
    /// # Safety
    /// Nobody else may touch these elements of the output meanwhile.
    #[inline(always)]
    unsafe fn write(&self, block: usize, panel: usize, sums: &Sums<f32>) {
        let first = block * ROWS;
        let rows = self.rows.saturating_sub(first).min(ROWS);
        for (row, [high, low]) in sums.0.as_chunks::<2>().0.iter().enumerate().take(rows) {
            let mut out = [0.0; PANEL_ROWS];
            for (out, (high, low)) in out.iter_mut().zip(high.iter().zip(low)) {
                *out = high + low;
            }
            // SAFETY: the caller's promise.
            unsafe { self.product.write(self.start + first + row, panel, &out) };
        }
    }
}
