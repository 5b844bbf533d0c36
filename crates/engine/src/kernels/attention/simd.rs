//! Attention over vector registers.
//!
//! The query heads that share a key head are the rows of a tile, so that each key and each value is read
//! once for all of them. A score is a dot product as in a matrix product; an output element adds its
//! weighted values in rising position. Neither depends on how many heads share the tile.

#![allow(clippy::needless_range_loop, reason = "indices run over lanes of several arrays at once")]

use super::super::lanes::{Avx2, Avx512, Fused, Load, Rows, Tiles};
use super::{Heads, softmax};

/// Keys whose scores are computed together, and registers of a value that are.
const TILE_COLUMNS: usize = 4;

/// [`heads`] compiled for AVX2.
///
/// # Safety
/// AVX2 and FMA must be available.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn heads_avx2(of: &Heads<'_>, out: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe { heads::<Avx2>(of, out) }
}

/// [`heads`] compiled for AVX-512.
///
/// # Safety
/// AVX-512 F, BW, DQ and VL must be available.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn heads_avx512(of: &Heads<'_>, out: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe { heads::<Avx512>(of, out) }
}

/// # Safety
/// As for [`Load`].
#[inline(always)]
unsafe fn heads<V: Load<f32>>(of: &Heads<'_>, out: &mut [f32]) {
    let dim = of.head_dim;
    let positions = of.keys.len() / dim;
    let group = out.len() / dim;
    let mut scores = vec![0.0; group * positions];
    let mut head = 0;
    while head < group {
        let rows = V::TILE_ROWS.min(group - head);
        let q = Rows { start: of.q[head * dim..].as_ptr(), stride: dim };
        let scores = &mut scores[head * positions..][..rows * positions];
        let out = &mut out[head * dim..][..rows * dim];
        // SAFETY: `q`, `scores` and `out` hold `rows` rows; the caller's promise.
        unsafe {
            match rows {
                1 => tile::<V, 1>(of, q, scores, out),
                2 => tile::<V, 2>(of, q, scores, out),
                3 => tile::<V, 3>(of, q, scores, out),
                4 => tile::<V, 4>(of, q, scores, out),
                5 => tile::<V, 5>(of, q, scores, out),
                _ => tile::<V, 6>(of, q, scores, out),
            }
        }
        head += rows;
    }
}

/// `T` heads: `q` and `out` are `[T, head_dim]`, `scores` is `[T, positions]`.
#[inline(always)]
unsafe fn tile<V: Load<f32>, const T: usize>(
    of: &Heads<'_>,
    q: Rows<f32>,
    scores: &mut [f32],
    out: &mut [f32],
) {
    let (dim, positions) = (of.head_dim, of.keys.len() / of.head_dim);
    let keys = Rows { start: of.keys.as_ptr(), stride: dim };
    let mut at = 0;
    // SAFETY: positions below `positions` have keys; the caller's promise.
    unsafe {
        while at + TILE_COLUMNS <= positions {
            let sums = Fused::<V>::tile::<T, TILE_COLUMNS>(q, keys.skip(at), dim);
            for t in 0..T {
                let four = &mut scores[t * positions + at..][..TILE_COLUMNS];
                four.copy_from_slice(&V::sum4(sums[t]));
            }
            at += TILE_COLUMNS;
        }
        while at < positions {
            let sums = Fused::<V>::tile::<T, 1>(q, keys.skip(at), dim);
            for t in 0..T {
                let zero = V::zero();
                scores[t * positions + at] = V::sum4([sums[t][0], zero, zero, zero])[0];
            }
            at += 1;
        }
    }
    for scores in scores.chunks_exact_mut(positions) {
        for score in scores.iter_mut() {
            *score *= of.scale;
        }
        softmax(scores);
    }
    // SAFETY: the caller's promise.
    unsafe { weigh::<V, T>(of, scores, out) }
}

/// `out[t] = Σ scores[t, position] · values[position]`.
#[inline(always)]
unsafe fn weigh<V: Load<f32>, const T: usize>(of: &Heads<'_>, scores: &[f32], out: &mut [f32]) {
    let dim = of.head_dim;
    let mut at = 0;
    // SAFETY: elements from `at` on, as many as are left below `dim`; the caller's promise.
    unsafe {
        while at + TILE_COLUMNS * V::WIDTH <= dim {
            weigh_columns::<V, T, TILE_COLUMNS>(of, scores, out, at, V::WIDTH);
            at += TILE_COLUMNS * V::WIDTH;
        }
        while at < dim {
            let count = V::WIDTH.min(dim - at);
            weigh_columns::<V, T, 1>(of, scores, out, at, count);
            at += count;
        }
    }
}

/// The elements from `at` on of each output: `N` registers, `count` numbers of each.
#[inline(always)]
unsafe fn weigh_columns<V: Load<f32>, const T: usize, const N: usize>(
    of: &Heads<'_>,
    scores: &[f32],
    out: &mut [f32],
    at: usize,
    count: usize,
) {
    let (dim, positions) = (of.head_dim, of.values.len() / of.head_dim);
    let values = Rows { start: of.values.as_ptr(), stride: dim };
    // SAFETY: `count` numbers are read where fewer than a register's are left; the caller's promise.
    unsafe {
        let mut sums = [[V::zero(); N]; T];
        for position in 0..positions {
            let mut value = [V::zero(); N];
            for n in 0..N {
                let from = values.at(position, at + n * V::WIDTH);
                value[n] =
                    if count == V::WIDTH { V::load(from) } else { V::load_partial(from, count) };
            }
            for t in 0..T {
                let weight = V::splat(*scores.get_unchecked(t * positions + position));
                for n in 0..N {
                    sums[t][n] = sums[t][n].fused(weight, value[n]);
                }
            }
        }
        for t in 0..T {
            for n in 0..N {
                let mut numbers = [0.0; WIDTH_MAX];
                sums[t][n].store(numbers.as_mut_ptr());
                let out = &mut out[t * dim + at + n * V::WIDTH..][..count];
                out.copy_from_slice(&numbers[..count]);
            }
        }
    }
}

/// Numbers in the longest register.
const WIDTH_MAX: usize = 16;
