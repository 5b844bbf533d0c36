//! Products with bf16 weights on matrix units.
//!
//! A row of activations becomes two rows of bf16: the numbers rounded, and what that lost rounded. Both
//! are multiplied by the weights, which are exact, and their sums added at the end. A tile's rows do not
//! touch each other, so a row's bits do not depend on its company.

use super::super::amx::{self, Config, Sums, TILE, TILE_BYTES};
use super::super::isa::{Isa, compiled_for};
use super::super::matrix::{PANEL_ROWS, Panels, TILE_COLS};
use super::super::pool::{SharedSlice, ThreadPool};
use super::{Product, STREAMS};
use half::bf16;
use std::cell::Cell;
use std::ops::Range;

/// Rows of activations whose halves fill a tile.
const ROWS: usize = TILE / 2;

/// bf16 bits of one tile of activations.
const TILE_NUMBERS: usize = TILE * TILE_COLS;

thread_local! {
    /// Where activations are cut in two; kept, because a fresh one would be faulted in each time.
    static HALVES: Cell<Vec<u16>> = const { Cell::new(Vec::new()) };
}

pub(super) fn run(pool: &ThreadPool, product: Product<'_>, panels: &Panels<bf16>) {
    let steps = product.k.div_ceil(TILE_COLS);
    // The wide program takes blocks in pairs.
    let blocks = match product.t.div_ceil(ROWS) {
        1 => 1,
        blocks => blocks.next_multiple_of(2),
    };
    let mut halves = HALVES.take();
    if halves.len() < blocks * steps * TILE_NUMBERS {
        halves.resize(blocks * steps * TILE_NUMBERS, 0);
    }
    let used = &mut halves[..blocks * steps * TILE_NUMBERS];
    split(pool, &product, steps, used);
    let work = Work { product, panels, halves: used, steps, blocks };
    let panel_bytes = size_of_val(panels.panel(0));
    product.spread(pool, panels.count, panel_bytes, &|range| {
        // SAFETY: `spread` gives disjoint ranges; `Kernels::new` made sure of the instruction set.
        unsafe { if blocks == 1 { work.narrow(range) } else { work.wide(range) } }
    });
    HALVES.set(halves);
}

/// Cuts the activations in two, in the order of tiles: `[blocks, steps, 16, 32]`, row `2t` of a block the
/// rounded numbers of its row `t`, the next what they lost.
fn split(pool: &ThreadPool, product: &Product<'_>, steps: usize, halves: &mut [u16]) {
    let length = steps * TILE_NUMBERS;
    let blocks = halves.len() / length;
    let halves = SharedSlice::new(halves);
    let (x, k) = (product.x, product.k);
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

struct Work<'a> {
    product: Product<'a>,
    panels: &'a Panels<bf16>,
    /// As [`split`] writes them.
    halves: &'a [u16],
    /// Tiles in a row of activations.
    steps: usize,
    /// Tiles in a column of activations.
    blocks: usize,
}

impl Work<'_> {
    fn block(&self, index: usize) -> *const u8 {
        self.halves[index * self.steps * TILE_NUMBERS..].as_ptr().cast()
    }

    fn panel(&self, index: usize) -> *const u8 {
        self.panels.panel(index).as_ptr().cast()
    }

    /// Few rows: memory is what this waits for, so several panels are read side by side.
    ///
    /// # Safety
    /// The processor must have matrix units; nobody else may touch these columns of the output.
    unsafe fn narrow(&self, range: Range<usize>) {
        let rows = 2 * self.product.t;
        let run = range.len().div_ceil(STREAMS);
        // SAFETY: the tiles named are there; the caller's promises.
        unsafe {
            let _config = Config::new(rows, TILE_BYTES / TILE);
            let mut sums = [[[0.0; TILE]; TILE]; STREAMS];
            for at in range.start..range.start + run {
                let mut group = [at; STREAMS];
                for (stream, panel) in group.iter_mut().enumerate() {
                    *panel = (at + stream * run).min(range.end - 1);
                }
                let panels = group.map(|panel| self.panel(panel));
                amx::bf16_1x4(self.block(0), 64, panels, self.steps, &mut sums);
                for (stream, sums) in sums.iter().enumerate() {
                    // Beyond the end the last panel was taken again.
                    if at + stream * run < range.end {
                        self.write(0, group[stream], sums);
                    }
                }
            }
        }
    }

    /// Many rows: tiles are what this waits for, so each is used twice.
    ///
    /// # Safety
    /// As for [`Self::narrow`].
    unsafe fn wide(&self, range: Range<usize>) {
        // SAFETY: the tiles named are there; the caller's promises.
        unsafe {
            let _config = Config::new(TILE, TILE_BYTES / TILE);
            let mut sums = [[[0.0; TILE]; TILE]; 4];
            for block in (0..self.blocks).step_by(2) {
                for at in range.clone().step_by(2) {
                    let next = (at + 1).min(range.end - 1);
                    let a = [self.block(block), self.block(block + 1)];
                    amx::bf16_2x2(a, [self.panel(at), self.panel(next)], self.steps, &mut sums);
                    for (index, sums) in sums.iter().enumerate() {
                        let (block, panel) = (block + index / 2, at + index % 2);
                        if panel < range.end {
                            self.write(block, panel, sums);
                        }
                    }
                }
            }
        }
    }

    /// Writes the sums of one block of activations with one panel.
    ///
    /// # Safety
    /// Nobody else may touch these elements of the output meanwhile.
    unsafe fn write(&self, block: usize, panel: usize, sums: &Sums<f32>) {
        let first = block * ROWS;
        let rows = self.product.t.saturating_sub(first).min(ROWS);
        for (row, [high, low]) in sums.as_chunks::<2>().0.iter().enumerate().take(rows) {
            let mut out = [0.0; PANEL_ROWS];
            for (out, (high, low)) in out.iter_mut().zip(high.iter().zip(low)) {
                *out = high + low;
            }
            // SAFETY: the caller's promise.
            unsafe { self.product.write(first + row, panel, &out) };
        }
    }
}
