//! Norms of rows.

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

pub(super) fn rms_norm_in_place(
    isa: Isa,
    pool: &ThreadPool,
    x: &mut [f32],
    weight: &[f32],
    epsilon: f32,
) {
    let width = weight.len();
    assert!(width > 0 && x.len().is_multiple_of(width), "{} is not rows of {width}", x.len());
    let rows_per_job = (INLINE_MAX / width).max(1);
    pool.run_chunks(x, rows_per_job * width, &|_, x| {
        compiled_for!(isa, rows_in_place(x: &mut [f32], weight: &[f32], epsilon: f32));
    });
}

pub(super) fn layer_norm(
    isa: Isa,
    pool: &ThreadPool,
    out: &mut [f32],
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    epsilon: f32,
) {
    let width = weight.len();
    assert_eq!(out.len(), x.len(), "a norm keeps the shape");
    assert_eq!(bias.len(), width, "each weight has its bias");
    assert!(width > 0 && x.len().is_multiple_of(width), "{} is not rows of {width}", x.len());
    let rows_per_job = if x.len() <= INLINE_MAX { x.len() / width } else { 1 };
    pool.run_chunks(out, rows_per_job.max(1) * width, &|job, out| {
        let start = job * rows_per_job * width;
        let x = &x[start..start + out.len()];
        compiled_for!(
            isa,
            layer_rows(out: &mut [f32], x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32)
        );
    });
}

#[inline(always)]
fn rows(out: &mut [f32], x: &[f32], weight: &[f32], epsilon: f32) {
    let width = weight.len();
    for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
        let factor = root_mean_square(x, epsilon);
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * factor * weight;
        }
    }
}

#[inline(always)]
fn rows_in_place(x: &mut [f32], weight: &[f32], epsilon: f32) {
    for x in x.chunks_exact_mut(weight.len()) {
        let factor = root_mean_square(x, epsilon);
        for (x, weight) in x.iter_mut().zip(weight) {
            *x = *x * factor * weight;
        }
    }
}

/// What brings `x` to a root mean square of one.
#[inline(always)]
fn root_mean_square(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + epsilon).sqrt()
}

#[inline(always)]
fn layer_rows(out: &mut [f32], x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32) {
    let width = weight.len();
    for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
        let mean = x.iter().sum::<f32>() / width as f32;
        for (out, x) in out.iter_mut().zip(x) {
            *out = x - mean;
        }
        let factor = root_mean_square(out, epsilon);
        for ((out, weight), bias) in out.iter_mut().zip(weight).zip(bias) {
            *out = *out * factor * weight + bias;
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
    fn a_layer_norm_is_what_its_formula_says() {
        each_kernels(|kernels| {
            let mut out = [0.0; 2];
            kernels.layer_norm(&mut out, &[1.0, 5.0], &[1.0, 2.0], &[0.5, -1.0], 0.0);
            assert_eq!(out, [-0.5, 1.0]);
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
                let mut in_place = x.clone();
                kernels.rms_norm_in_place(&mut in_place, &weight, 1e-5);
                assert_eq!(bits(&in_place), bits(&out));
                let mut layer = vec![0.0; x.len()];
                kernels.layer_norm(&mut layer, &x, &weight, &weight, 1e-5);
                out.extend(layer);
                let mut row = vec![0.0; width];
                kernels.rms_norm(&mut row, &x[..width], &weight, 1e-5);
                assert_eq!(bits(&row), bits(&out[..width]));
                assert_eq!(seen.get_or_insert_with(|| bits(&out)), &bits(&out));
            });
        }
    }
}
