//! Root-mean-square norms, forth and back.

use super::super::isa::{Isa, compiled_for};
use super::super::math::dot;
use super::super::pool::{SharedSlice, ThreadPool};
use super::Number;

/// Rows of one job: with the gradient of the weights, one partial sum each.
const ROWS: usize = 64;

pub(super) fn forward<N: Number>(
    isa: Isa,
    pool: &ThreadPool,
    out: &mut [N],
    scales: &mut [f32],
    x: &[f32],
    weight: &[f32],
    epsilon: f32,
) {
    let width = weight.len();
    assert!(out.len() == x.len() && x.len() == scales.len() * width, "rows of {width}");
    let shared = SharedSlice::new(scales);
    pool.run_chunks(out, ROWS * width, &|job, out| {
        let x = &x[job * ROWS * width..][..out.len()];
        // SAFETY: jobs have different rows.
        let scales = unsafe { shared.slice(job * ROWS, out.len() / width) };
        compiled_for!(isa, rows<N: Number>(out: &mut [N], scales: &mut [f32], x: &[f32], weight: &[f32], epsilon: f32));
    });
}

#[inline(always)]
fn rows<N: Number>(out: &mut [N], scales: &mut [f32], x: &[f32], weight: &[f32], epsilon: f32) {
    let width = weight.len();
    let lines = out.chunks_exact_mut(width).zip(x.chunks_exact(width));
    for ((out, x), scale) in lines.zip(scales) {
        *scale = 1.0 / (dot(x, x) / width as f32 + epsilon).sqrt();
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = N::narrow(x * *scale * weight);
        }
    }
}

/// What the way back needs.
#[derive(Clone, Copy)]
pub(super) struct Backward<'a> {
    pub gradient: &'a [f32],
    pub x: &'a [f32],
    pub scales: &'a [f32],
    pub weight: &'a [f32],
}

pub(super) fn backward(
    isa: Isa,
    pool: &ThreadPool,
    to_x: &mut [f32],
    to_weight: &mut [f32],
    pass: &Backward<'_>,
) {
    let width = pass.weight.len();
    assert!(to_x.len() == pass.x.len() && to_x.len() == pass.gradient.len(), "rows of {width}");
    assert!(to_weight.len() == width && to_x.len() == pass.scales.len() * width, "rows of {width}");
    let jobs = pass.scales.len().div_ceil(ROWS);
    let mut sums = vec![0.0; jobs * width];
    let shared = SharedSlice::new(&mut sums);
    pool.run_chunks(to_x, ROWS * width, &|job, to_x| {
        // SAFETY: each job has a partial sum of its own.
        let sums = unsafe { shared.slice(job * width, width) };
        let (from, length) = (job * ROWS, to_x.len());
        let part = Backward {
            gradient: &pass.gradient[from * width..][..length],
            x: &pass.x[from * width..][..length],
            scales: &pass.scales[from..][..length / width],
            weight: pass.weight,
        };
        compiled_for!(isa, rows_back(to_x: &mut [f32], sums: &mut [f32], part: Backward<'_>));
    });
    to_weight.fill(0.0);
    for sums in sums.chunks_exact(width) {
        to_weight.iter_mut().zip(sums).for_each(|(to, sum)| *to += sum);
    }
}

/// With `n = x · s`, `s` the scale: `Δw += g n`, `Δx += s (g w − n · mean(g w n))`.
#[inline(always)]
fn rows_back(to_x: &mut [f32], sums: &mut [f32], part: Backward<'_>) {
    let width = part.weight.len();
    let weight = part.weight;
    let mut pulled = vec![0.0; width];
    let lines = part.gradient.chunks_exact(width).zip(part.x.chunks_exact(width));
    for ((to_x, (gradient, x)), scale) in to_x.chunks_exact_mut(width).zip(lines).zip(part.scales) {
        for at in 0..width {
            sums[at] += gradient[at] * x[at] * scale;
            pulled[at] = gradient[at] * weight[at];
        }
        let common = dot(&pulled, x) * scale * scale / width as f32;
        for ((to, pulled), x) in to_x.iter_mut().zip(&pulled).zip(x) {
            *to += scale * (pulled - x * common);
        }
    }
}
