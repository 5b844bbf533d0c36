//! Products with floats: `out[t, n]` is one chain of fused multiply-adds over rising `k`, from zero.
//!
//! A register holds one number of each row of a panel, so no sum runs across lanes and the width of
//! registers does not show in the result.

use super::super::isa::Isa;
#[cfg(target_arch = "x86_64")]
use super::super::lanes::{Avx2, Avx512, Load256, Load512, Pairs, Rows};
use super::super::matrix::{Element, PANEL_ROWS, Panels};
use super::super::pool::ThreadPool;
use super::Product;
#[cfg(target_arch = "x86_64")]
use super::STREAMS;
use std::ops::Range;

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

/// # Safety
/// AVX2, FMA and F16C must be available; otherwise as [`portable`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<E: Supported>(product: &Product<'_>, panels: &Panels<E>, range: Range<usize>) {
    // Two registers make a panel's row: of 16 registers, 12 hold sums.
    // SAFETY: the caller's promises.
    unsafe {
        match product.t {
            1 => rows::<Avx2, E, 2, 1, STREAMS>(product, panels, range, 0),
            2 => rows::<Avx2, E, 2, 2, 2>(product, panels, range, 0),
            t => {
                let whole = t - t % 6;
                let mut row = 0;
                while row < whole {
                    rows::<Avx2, E, 2, 6, 1>(product, panels, range.clone(), row);
                    row += 6;
                }
                match t - whole {
                    0 => {}
                    1 => rows::<Avx2, E, 2, 1, 1>(product, panels, range, whole),
                    2 => rows::<Avx2, E, 2, 2, 1>(product, panels, range, whole),
                    3 => rows::<Avx2, E, 2, 3, 1>(product, panels, range, whole),
                    4 => rows::<Avx2, E, 2, 4, 1>(product, panels, range, whole),
                    _ => rows::<Avx2, E, 2, 5, 1>(product, panels, range, whole),
                }
            }
        }
    }
}

/// # Safety
/// AVX-512 F, BW, DQ and VL must be available; otherwise as [`portable`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn avx512<E: Supported>(product: &Product<'_>, panels: &Panels<E>, range: Range<usize>) {
    // Of 32 registers, 24 hold sums.
    // SAFETY: the caller's promises.
    unsafe {
        let whole = product.t - product.t % 12;
        let mut row = 0;
        while row < whole {
            rows::<Avx512, E, 1, 12, 2>(product, panels, range.clone(), row);
            row += 12;
        }
        if product.t - row > 6 {
            rows::<Avx512, E, 1, 6, STREAMS>(product, panels, range.clone(), row);
            row += 6;
        }
        match product.t - row {
            0 => {}
            1 => rows::<Avx512, E, 1, 1, STREAMS>(product, panels, range, row),
            2 => rows::<Avx512, E, 1, 2, STREAMS>(product, panels, range, row),
            3 => rows::<Avx512, E, 1, 3, STREAMS>(product, panels, range, row),
            4 => rows::<Avx512, E, 1, 4, STREAMS>(product, panels, range, row),
            5 => rows::<Avx512, E, 1, 5, STREAMS>(product, panels, range, row),
            _ => rows::<Avx512, E, 1, 6, STREAMS>(product, panels, range, row),
        }
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
    let x = Rows { start: product.x[row * product.k..].as_ptr(), stride: product.k };
    let run = range.len() / P;
    // SAFETY: the rows and panels named are there; the caller's promises.
    unsafe {
        for at in range.start..range.start + run {
            let mut group = [at; P];
            for p in 0..P {
                group[p] += p * run;
            }
            group_of::<V, E, H, T, P>(product, panels, group, x, row);
        }
        for at in range.start + run * P..range.end {
            group_of::<V, E, H, T, 1>(product, panels, [at], x, row);
        }
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
    group: [usize; P],
    x: Rows<f32>,
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
            starts[p] = panels.panel(group[p]).as_ptr();
        }
        for pair in 0..product.k / 2 {
            for p in 0..P {
                for h in 0..H {
                    let [first, second] = V::pair(starts[p].add(pair * 2 * PANEL_ROWS), h);
                    for t in 0..T {
                        let even = V::splat(*x.at(t, 2 * pair));
                        sums[t][p][h] = sums[t][p][h].fused(even, first);
                    }
                    for t in 0..T {
                        let odd = V::splat(*x.at(t, 2 * pair + 1));
                        sums[t][p][h] = sums[t][p][h].fused(odd, second);
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
                        sums[t][p][h] = sums[t][p][h].fused(V::splat(*x.at(t, last)), first);
                    }
                }
            }
        }
        for t in 0..T {
            for p in 0..P {
                let mut out = [0.0; PANEL_ROWS];
                for h in 0..H {
                    sums[t][p][h].store(out[h * V::WIDTH..].as_mut_ptr());
                }
                product.write(row + t, group[p], &out);
            }
        }
    }
}
