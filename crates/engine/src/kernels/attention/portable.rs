//! The loops of attention in plain Rust: what the others mean.

use super::block::{Body, Tile};
use super::page::{Line, PAGE_POSITIONS, Stores};

pub(super) struct Portable;

impl<E: Stores> Body<E> for Portable {
    const TILE_QUERIES: usize = 4;

    unsafe fn scores(tile: &Tile<'_>, keys: &[E], scores: &mut [Line<f32>]) {
        let mut wide = [0.0; PAGE_POSITIONS];
        for scores in &mut scores[..tile.queries] {
            scores.0.fill(0.0);
        }
        for (d, keys) in keys.chunks_exact(PAGE_POSITIONS).enumerate() {
            E::widen(&mut wide, keys);
            for (t, scores) in scores[..tile.queries].iter_mut().enumerate() {
                let q = tile.q[t * tile.value_width + d];
                for (score, key) in scores.0.iter_mut().zip(&wide) {
                    *score += q * key;
                }
            }
        }
    }

    unsafe fn weigh(tile: &Tile<'_>, weights: &[Line<f32>], values: &[E], sums: &mut [f32]) {
        let mut wide = vec![0.0; tile.value_width];
        for (p, values) in values.chunks_exact(tile.value_width).enumerate() {
            E::widen(&mut wide, values);
            for (t, sums) in sums.chunks_exact_mut(tile.stride).enumerate() {
                let (start, end) = tile.visible[t];
                if p < start || p >= end {
                    continue;
                }
                for (sum, value) in sums.iter_mut().zip(&wide) {
                    *sum += weights[t].0[p] * value;
                }
            }
        }
    }
}
