//! The loops of attention over vector registers.
//!
//! A score is built in one lane, an output number in another: neither depends on how many queries
//! share the tile, and no sum runs across lanes.

#![allow(clippy::needless_range_loop, reason = "indices run over lanes of several arrays at once")]

use super::super::lanes::{Avx2, Avx512, Lanes, Load};
use super::block::{Block, Body, Tile};
use super::page::{Line, PAGE_POSITIONS, numbers_mut};
use std::marker::PhantomData;

/// Registers of keys or of values that a tile takes at once.
const COLUMNS: usize = 4;

/// [`Block::run`] compiled for AVX2.
///
/// # Safety
/// AVX2, FMA and F16C must be available.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run_avx2(
    block: &Block<'_>,
    segment: usize,
    scratch: &mut [Line<f32>],
    partials: &mut [Line<f32>],
    joins: bool,
) {
    block.run::<Simd<Avx2>>(segment, scratch, partials, joins);
}

/// [`Block::run`] compiled for AVX-512.
///
/// # Safety
/// AVX-512 F, BW, DQ and VL must be available.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn run_avx512(
    block: &Block<'_>,
    segment: usize,
    scratch: &mut [Line<f32>],
    partials: &mut [Line<f32>],
    joins: bool,
) {
    block.run::<Simd<Avx512>>(segment, scratch, partials, joins);
}

/// The loops over registers `V`.
struct Simd<V>(PhantomData<V>);

/// Calls `$body::<V, E, T>` with `T` queries.
macro_rules! for_queries {
    ($queries:expr, $body:ident($($argument:expr),*)) => {
        match $queries {
            1 => $body::<V, E, 1>($($argument),*),
            2 => $body::<V, E, 2>($($argument),*),
            3 => $body::<V, E, 3>($($argument),*),
            4 => $body::<V, E, 4>($($argument),*),
            5 => $body::<V, E, 5>($($argument),*),
            _ => $body::<V, E, 6>($($argument),*),
        }
    };
}

impl<V: Load<E> + Load<f32>, E> Body<E> for Simd<V> {
    const TILE_QUERIES: usize = <V as Lanes>::TILE_ROWS;

    #[inline(always)]
    unsafe fn scores(tile: &Tile<'_>, keys: &[E], scores: &mut [Line<f32>]) {
        assert!(keys.len() == tile.head_dim * PAGE_POSITIONS && tile.queries <= scores.len());
        assert!(tile.q.len() == tile.queries * tile.value_width);
        // SAFETY: the lengths just checked; the caller's promise.
        unsafe { for_queries!(tile.queries, scores_of(tile, keys, scores)) }
    }

    #[inline(always)]
    unsafe fn weigh(tile: &Tile<'_>, weights: &[Line<f32>], values: &[E], sums: &mut [f32]) {
        assert!(values.len() == tile.value_width * PAGE_POSITIONS);
        assert!(sums.len() == tile.queries * tile.stride && tile.queries <= weights.len());
        assert!(tile.visible.iter().all(|(_, end)| *end <= PAGE_POSITIONS));
        // SAFETY: the lengths just checked; the caller's promise.
        unsafe { for_queries!(tile.queries, weighed(tile, weights, values, sums)) }
    }
}

#[inline(always)]
unsafe fn scores_of<V: Load<E>, E, const T: usize>(
    tile: &Tile<'_>,
    keys: &[E],
    scores: &mut [Line<f32>],
) {
    let out = numbers_mut(scores);
    let q = tile.q.as_ptr();
    let mut column = 0;
    while column < PAGE_POSITIONS {
        // SAFETY: `T` queries and scores, `head_dim` rows of keys: checked by the caller.
        unsafe {
            let mut sums = [[V::zero(); COLUMNS]; T];
            for d in 0..tile.head_dim {
                let from = keys.as_ptr().add(d * PAGE_POSITIONS + column);
                let mut key = [V::zero(); COLUMNS];
                for n in 0..COLUMNS {
                    key[n] = V::load(from.add(n * V::WIDTH));
                }
                for t in 0..T {
                    let number = V::splat(*q.add(t * tile.value_width + d));
                    for n in 0..COLUMNS {
                        sums[t][n] = sums[t][n].fused(number, key[n]);
                    }
                }
            }
            for t in 0..T {
                for n in 0..COLUMNS {
                    let to = out.as_mut_ptr().add(t * PAGE_POSITIONS + column + n * V::WIDTH);
                    sums[t][n].store(to);
                }
            }
        }
        column += COLUMNS * V::WIDTH;
    }
}

#[inline(always)]
unsafe fn weighed<V: Load<E> + Load<f32>, E, const T: usize>(
    tile: &Tile<'_>,
    weights: &[Line<f32>],
    values: &[E],
    sums: &mut [f32],
) {
    let mut at = 0;
    // SAFETY: `value_width` is a whole number of registers; the caller's promise.
    unsafe {
        while at + COLUMNS * V::WIDTH <= tile.value_width {
            weigh_columns::<V, E, T, COLUMNS>(tile, weights, values, sums, at);
            at += COLUMNS * V::WIDTH;
        }
        while at < tile.value_width {
            weigh_columns::<V, E, T, 1>(tile, weights, values, sums, at);
            at += V::WIDTH;
        }
    }
}

/// `N` registers of each sum from number `at` on.
#[inline(always)]
unsafe fn weigh_columns<V: Load<E> + Load<f32>, E, const T: usize, const N: usize>(
    tile: &Tile<'_>,
    weights: &[Line<f32>],
    values: &[E],
    sums: &mut [f32],
    at: usize,
) {
    let seen = &tile.visible[..T];
    let first = seen.iter().map(|s| s.0).min().unwrap_or(0);
    let last = seen.iter().map(|s| s.1).max().unwrap_or(0);
    // What all see lies between; at either end each query looks for itself.
    let all_from = seen.iter().map(|s| s.0).max().unwrap_or(0).min(last);
    let all_to = seen.iter().map(|s| s.1).min().unwrap_or(0).max(all_from);
    // SAFETY: positions are within the page, numbers within `value_width`; the caller's promise.
    unsafe {
        let mut registers = [[V::zero(); N]; T];
        for t in 0..T {
            for n in 0..N {
                let from = sums.as_ptr().add(t * tile.stride + at + n * V::WIDTH);
                registers[t][n] = <V as Load<f32>>::load(from);
            }
        }
        for (range, all) in
            [(first..all_from, false), (all_from..all_to, true), (all_to..last, false)]
        {
            for p in range {
                let from = values.as_ptr().add(p * tile.value_width + at);
                let mut value = [V::zero(); N];
                for n in 0..N {
                    value[n] = <V as Load<E>>::load(from.add(n * V::WIDTH));
                }
                for t in 0..T {
                    if all || (p >= seen[t].0 && p < seen[t].1) {
                        let weight = V::splat(*weights.get_unchecked(t).0.get_unchecked(p));
                        for n in 0..N {
                            registers[t][n] = registers[t][n].fused(weight, value[n]);
                        }
                    }
                }
            }
        }
        for t in 0..T {
            for n in 0..N {
                let to = sums.as_mut_ptr().add(t * tile.stride + at + n * V::WIDTH);
                registers[t][n].store(to);
            }
        }
    }
}
