//! Products with floats: `out[t, n]` is one chain of fused multiply-adds over rising `k`, from zero.
//!
//! A register holds one number of each row of a panel, so no sum runs across lanes and the width of
//! registers does not show in the result.

use super::super::isa::Isa;
#[cfg(target_arch = "x86_64")]
use super::super::lanes::{Avx2, Avx512, Load256, Load512, Pairs};
use super::super::matrix::{Element, PANEL_ROWS, Panels};
#[cfg(target_arch = "x86_64")]
use super::super::memory::Scratch;
use super::super::pool::{SharedSlice, ThreadPool};
use super::Product;
#[cfg(target_arch = "x86_64")]
use super::{Group, STREAMS};
#[cfg(target_arch = "x86_64")]
use std::cell::Cell;
use std::ops::Range;

#[cfg(target_arch = "x86_64")]
thread_local! {
    /// Rows of activations, side by side.
    static INTERLEAVED: Cell<Scratch> = const { Cell::new(Scratch::new()) };
}

/// What an element needs for every body.
#[cfg(target_arch = "x86_64")]
pub(super) trait Supported: Element + Layout + Load256 + Load512 {}
#[cfg(target_arch = "x86_64")]
impl<E: Element + Layout + Load256 + Load512> Supported for E {}
#[cfg(not(target_arch = "x86_64"))]
pub(super) trait Supported: Element + Layout {}
#[cfg(not(target_arch = "x86_64"))]
impl<E: Element + Layout> Supported for E {}

/// Where the number of row `n` for input `k` lies in a panel.
pub(super) trait Layout {
    fn place(k: usize, n: usize) -> usize;
}

impl Layout for f32 {
    #[inline(always)]
    fn place(k: usize, n: usize) -> usize {
        k * PANEL_ROWS + n
    }
}

impl Layout for half::f16 {
    #[inline(always)]
    fn place(k: usize, n: usize) -> usize {
        k * PANEL_ROWS + n
    }
}

impl Layout for half::bf16 {
    #[inline(always)]
    fn place(k: usize, n: usize) -> usize {
        (k / 2 * PANEL_ROWS + n) * 2 + k % 2
    }
}

pub(super) fn run<E: Supported>(
    isa: Isa,
    pool: &ThreadPool,
    product: Product<'_>,
    panels: &Panels<E>,
) {
    let bytes = size_of_val(panels.panel(0));
    #[cfg(target_arch = "x86_64")]
    let mut scratch = INTERLEAVED.take();
    #[cfg(target_arch = "x86_64")]
    let product = Product { x: interleave(isa, pool, &product, &mut scratch), ..product };
    product.spread(pool, panels.count, bytes, &|range| {
        // SAFETY: `spread` gives disjoint ranges; `Kernels::new` made sure of the instruction set.
        unsafe {
            match isa {
                Isa::Portable => portable(&product, panels, range),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => avx2(&product, panels, range),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 | Isa::Avx512Vnni | Isa::Amx => avx512(&product, panels, range),
                #[cfg(not(target_arch = "x86_64"))]
                _ => portable(&product, panels, range),
            }
        }
    });
    #[cfg(target_arch = "x86_64")]
    INTERLEAVED.set(scratch);
}

/// What a product means.
///
/// # Safety
/// Nobody else may touch these columns of the output meanwhile.
unsafe fn portable<E: Supported>(product: &Product<'_>, panels: &Panels<E>, range: Range<usize>) {
    for index in range {
        let panel = panels.panel(index);
        for (row, x) in product.x.chunks_exact(product.k).enumerate() {
            let mut sums = [0.0_f32; PANEL_ROWS];
            for (k, x) in x.iter().enumerate() {
                for (n, sum) in sums.iter_mut().enumerate() {
                    *sum = x.mul_add(panel[E::place(k, n)].widen(), *sum);
                }
            }
            // SAFETY: the caller's promise.
            unsafe { product.write(row, index, &sums) };
        }
    }
}

/// The next tile of rows where `rest` remain: its rows, at most [`TILE_AVX2`] or [`TILE_AVX512`].
#[cfg(target_arch = "x86_64")]
fn tile(isa: Isa, rest: usize) -> usize {
    match isa {
        Isa::Avx2 if rest >= TILE_AVX2 => TILE_AVX2,
        _ if rest >= TILE_AVX512 => TILE_AVX512,
        // The sizes that have a loop of their own.
        _ if rest >= 6 => 6,
        _ if rest >= 4 => 4,
        _ => rest.min(2),
    }
}

/// Of 16 registers, 12 hold sums; two make a panel's row.
#[cfg(target_arch = "x86_64")]
const TILE_AVX2: usize = 6;

/// Of 32 registers, 24 hold sums.
#[cfg(target_arch = "x86_64")]
const TILE_AVX512: usize = 12;

/// The activations with each tile of `T` rows as `[k, T]`, one after the other: one pointer finds all
/// rows of a tile, where as many would not fit the registers.
#[cfg(target_arch = "x86_64")]
fn interleave<'a>(
    isa: Isa,
    pool: &ThreadPool,
    product: &Product<'a>,
    scratch: &'a mut Scratch,
) -> &'a [f32] {
    let (x, t, k) = (product.x, product.t, product.k);
    if t == 1 || isa == Isa::Portable {
        return x;
    }
    let out = scratch.take(t * k);
    let shared = SharedSlice::new(out);
    let largest = tile(isa, usize::MAX);
    // Tiles after the last whole one share its job.
    pool.run((t / largest).max(1), &|job| {
        let mut row = job * largest;
        let end = if job + 1 >= t / largest { t } else { row + largest };
        while row < end {
            let rows = tile(isa, end - row);
            // SAFETY: tiles are disjoint and each is visited once.
            let out = unsafe { shared.slice(row * k, rows * k) };
            for (at, out) in out.chunks_exact_mut(rows).enumerate() {
                for (n, out) in out.iter_mut().enumerate() {
                    *out = x[(row + n) * k + at];
                }
            }
            row += rows;
        }
    });
    out
}

/// # Safety
/// AVX2, FMA and F16C must be available; otherwise as [`portable`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<E: Supported>(product: &Product<'_>, panels: &Panels<E>, range: Range<usize>) {
    let mut row = 0;
    while row < product.t {
        let tile = tile(Isa::Avx2, product.t - row);
        // SAFETY: the caller's promises.
        unsafe {
            match tile {
                1 => rows::<Avx2, E, 2, 1, STREAMS>(product, panels, range.clone(), row),
                2 => rows::<Avx2, E, 2, 2, 2>(product, panels, range.clone(), row),
                4 => rows::<Avx2, E, 2, 4, 1>(product, panels, range.clone(), row),
                _ => rows::<Avx2, E, 2, TILE_AVX2, 1>(product, panels, range.clone(), row),
            }
        }
        row += tile;
    }
}

/// # Safety
/// AVX-512 F, BW, DQ and VL must be available; otherwise as [`portable`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn avx512<E: Supported>(product: &Product<'_>, panels: &Panels<E>, range: Range<usize>) {
    let mut row = 0;
    while row < product.t {
        let tile = tile(Isa::Avx512, product.t - row);
        // SAFETY: the caller's promises.
        unsafe {
            match tile {
                1 => rows::<Avx512, E, 1, 1, STREAMS>(product, panels, range.clone(), row),
                2 => rows::<Avx512, E, 1, 2, STREAMS>(product, panels, range.clone(), row),
                4 => rows::<Avx512, E, 1, 4, STREAMS>(product, panels, range.clone(), row),
                6 => rows::<Avx512, E, 1, 6, STREAMS>(product, panels, range.clone(), row),
                _ => rows::<Avx512, E, 1, TILE_AVX512, 2>(product, panels, range.clone(), row),
            }
        }
        row += tile;
    }
}

/// `T` rows of `x` from `row` on with the panels of `range`, `P` of them side by side, each `H` registers
/// wide. The panels of a group are far apart, so that each is a run through memory of its own.
///
/// # Safety
/// As for [`Pairs`]; nobody else may touch these elements of the output meanwhile.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn rows<V, E, const H: usize, const T: usize, const P: usize>(
    product: &Product<'_>,
    panels: &Panels<E>,
    range: Range<usize>,
    row: usize,
) where
    V: Pairs<E>,
    E: Supported,
{
    let run = range.len().div_ceil(P);
    let x = &product.x[row * product.k..][..T * product.k];
    for at in range.start..range.start + run {
        // SAFETY: the rows and panels named are there; the caller's promises.
        unsafe {
            group_of::<V, E, H, T, P>(product, panels, Group { at, run, end: range.end }, x, row)
        };
    }
}

/// # Safety
/// As for [`rows`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "indices run over lanes of several arrays at once")]
unsafe fn group_of<V, E, const H: usize, const T: usize, const P: usize>(
    product: &Product<'_>,
    panels: &Panels<E>,
    group: Group,
    x: &[f32],
    row: usize,
) where
    V: Pairs<E>,
    E: Supported,
{
    // SAFETY: the caller's promises; a panel holds `k` inputs, padded to pairs.
    unsafe {
        let mut sums = [[[V::zero(); H]; P]; T];
        let mut starts = [std::ptr::null::<E>(); P];
        for p in 0..P {
            starts[p] = panels.panel(group.panel(p)).as_ptr();
        }
        for pair in 0..product.k / 2 {
            let mut weights = [[[V::zero(); 2]; H]; P];
            for p in 0..P {
                for h in 0..H {
                    weights[p][h] = V::pair(starts[p].add(pair * 2 * PANEL_ROWS), h);
                }
            }
            for i in 0..2 {
                for t in 0..T {
                    let x = V::splat(*x.get_unchecked((2 * pair + i) * T + t));
                    for p in 0..P {
                        for h in 0..H {
                            sums[t][p][h] = sums[t][p][h].fused(x, weights[p][h][i]);
                        }
                    }
                }
            }
        }
        if product.k % 2 == 1 {
            let last = product.k - 1;
            for p in 0..P {
                for h in 0..H {
                    let [first, _] = V::pair(starts[p].add(last * PANEL_ROWS), h);
                    for t in 0..T {
                        sums[t][p][h] =
                            sums[t][p][h].fused(V::splat(*x.get_unchecked(last * T + t)), first);
                    }
                }
            }
        }
        for p in 0..P {
            if !group.has(p) {
                break;
            }
            for t in 0..T {
                let mut out = [0.0; PANEL_ROWS];
                for h in 0..H {
                    sums[t][p][h].store(out[h * V::WIDTH..].as_mut_ptr());
                }
                product.write(row + t, group.panel(p), &out);
            }
        }
    }
}
