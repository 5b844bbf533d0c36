//! Matrix products of bf16 weights with the bf16 dot products of AVX-512.
//!
//! The instruction multiplies bf16 with bf16, so each activation is split into the nearest bf16 number and
//! the nearest to what that leaves: two instructions for 32 weights, and no activation is off by
//! more than 2⁻¹⁷ of itself. Numbers below the normal range count as zero.

#![allow(clippy::needless_range_loop, reason = "indices run over lanes of several arrays at once")]

use std::arch::x86_64::*;
use std::mem::transmute;
use std::ops::Range;

use half::bf16;

use super::super::lanes::{Avx512, Lanes, Rows, Tiles};
use super::simd::products;
use super::{Product, ThreadPool, spread};

/// Weights that one instruction takes.
const STEP: usize = 32;

/// The two halves of [`STEP`] activations.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Split {
    high: [bf16; STEP],
    low: [bf16; STEP],
}

impl Split {
    /// At most [`STEP`] numbers, then zeros.
    fn new(x: &[f32]) -> Self {
        let mut split = Self { high: [bf16::ZERO; STEP], low: [bf16::ZERO; STEP] };
        for (index, &x) in x.iter().enumerate() {
            let high = bf16::from_f32(x);
            split.high[index] = high;
            // An infinity is its own upper half; the difference would be NaN.
            if high.is_finite() {
                split.low[index] = bf16::from_f32(x - high.to_f32());
            }
        }
        split
    }
}

/// Computes the whole product. The processor must have AVX-512 with BF16.
pub(super) fn run(pool: &ThreadPool, product: Product<'_, bf16>) {
    let k = product.k;
    let split: Vec<Split> =
        product.x.chunks_exact(k).flat_map(|row| row.chunks(STEP).map(Split::new)).collect();
    spread(pool, &product, &|range| {
        // SAFETY: `spread` gives disjoint ranges, and this is called only where `Kernels::new` found
        // the instruction set.
        unsafe { columns(&product, &split, range) };
    });
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn columns(product: &Product<'_, bf16>, split: &[Split], range: Range<usize>) {
    let k = product.k;
    let x = Rows { start: split.as_ptr(), stride: k.div_ceil(STEP) };
    let w = Rows { start: product.w[range.start * k..range.end * k].as_ptr(), stride: k };
    // SAFETY: `w` holds the rows of `range`, `x` those of the activations; the caller's promises.
    unsafe { products::<SplitProducts, Split, bf16>(product, x, w, range) }
}

struct SplitProducts;

impl Tiles<Split, bf16> for SplitProducts {
    type Sums = Avx512;

    #[inline(always)]
    unsafe fn tile<const T: usize, const N: usize>(
        x: Rows<Split>,
        w: Rows<bf16>,
        k: usize,
    ) -> [[Avx512; N]; T] {
        // SAFETY: the caller has the instruction set and `k` elements in each row; masked lanes are
        // not read.
        unsafe {
            let mut sums = [[Avx512::zero(); N]; T];
            let mut at = 0;
            while at < k {
                let left = k - at;
                let mask = if left < STEP { (1 << left) - 1 } else { !0 };
                let mut weights = [_mm512_setzero_si512(); N];
                for n in 0..N {
                    weights[n] = _mm512_maskz_loadu_epi16(mask, w.at(n, at).cast());
                }
                for t in 0..T {
                    let split = x.at(t, at / STEP);
                    let high = _mm512_load_si512((&raw const (*split).high).cast());
                    let low = _mm512_load_si512((&raw const (*split).low).cast());
                    for n in 0..N {
                        sums[t][n] = dot(dot(sums[t][n], high, weights[n]), low, weights[n]);
                    }
                }
                at += STEP;
            }
            sums
        }
    }
}

/// `sum` plus the products of 32 pairs, two in each lane.
#[inline(always)]
unsafe fn dot(sum: Avx512, a: __m512i, b: __m512i) -> Avx512 {
    // SAFETY: the caller has the instruction set; both types are 32 numbers of 16 bits.
    unsafe {
        let (a, b) = (transmute::<__m512i, __m512bh>(a), transmute::<__m512i, __m512bh>(b));
        Avx512(_mm512_dpbf16_ps(sum.0, a, b))
    }
}
