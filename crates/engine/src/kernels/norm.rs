//! Root-mean-square norm.

use super::isa::{Isa, compiled_for};
use super::math::dot;
use super::pool::ThreadPool;

/// Below this many elements a second thread costs more than it saves.
const INLINE_MAX: usize = 32_768;

pub(super) fn rms_norm(
    isa: Isa,
    pool: &ThreadPool,
    out: &mut [f32],
    x: &[f32],
    weight: &[f32],
    epsilon: f32,
) {
    let width = weight.len();
    assert_eq!(out.len(), x.len(), "a norm keeps the shape");
    assert!(width > 0 && x.len().is_multiple_of(width), "{} is not rows of {width}", x.len());
    let rows_per_job = if x.len() <= INLINE_MAX { x.len() / width } else { 1 };
    pool.run_chunks(out, rows_per_job.max(1) * width, &|job, out| {
        let start = job * rows_per_job * width;
        let x = &x[start..start + out.len()];
        compiled_for!(isa, rows(out: &mut [f32], x: &[f32], weight: &[f32], epsilon: f32));
    });
}

#[inline(always)]
fn rows(out: &mut [f32], x: &[f32], weight: &[f32], epsilon: f32) {
    let width = weight.len();
    for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
        let mean_square = dot(x, x) / width as f32;
        let factor = 1.0 / (mean_square + epsilon).sqrt();
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * factor * weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{bits, each_kernels, numbers};

    #[test]
    fn a_norm_is_what_its_formula_says() {
        let (x, weight) = ([3.0, -4.0], [1.0, 2.0]);
        each_kernels(|kernels| {
            let mut out = [0.0; 2];
            kernels.rms_norm(&mut out, &x, &weight, 0.0);
            let root = 12.5_f32.sqrt();
            assert!((out[0] - 3.0 / root).abs() < 1e-6 && (out[1] + 8.0 / root).abs() < 1e-6);
        });
    }

    #[test]
    fn every_instruction_set_and_batch_gives_the_same_bits() {
        for (rows, width) in [(1, 1), (3, 7), (2, 64), (40, 1_001)] {
            let x = numbers(1, rows * width);
            let weight = numbers(2, width);
            let mut seen = None;
            each_kernels(|kernels| {
                let mut out = vec![0.0; x.len()];
                kernels.rms_norm(&mut out, &x, &weight, 1e-5);
                let mut row = vec![0.0; width];
                kernels.rms_norm(&mut row, &x[..width], &weight, 1e-5);
                assert_eq!(bits(&row), bits(&out[..width]));
                assert_eq!(seen.get_or_insert_with(|| bits(&out)), &bits(&out));
            });
        }
    }
}
