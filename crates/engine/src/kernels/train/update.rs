//! The update of weights in place.

use super::super::isa::{Isa, compiled_for};
use super::super::math::dot;
use super::super::pool::{SharedSlice, ThreadPool};
use super::elementwise::ranges;

/// One step of AdamW for some weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamStep {
    /// How much of the mean gradient goes.
    pub keep1: f32,
    /// How much of the mean squared gradient stays.
    pub beta2: f32,
    /// How much of the squared gradient is added.
    pub keep2: f32,
    /// Added to the root.
    pub epsilon: f32,
    /// The learning rate over what the first moment lacks.
    pub size: f32,
    /// The root of what the second moment lacks.
    pub root_correction: f32,
    /// What is left of each weight before the step.
    pub stay: f32,
    /// What gradients are multiplied with first.
    pub scale: f32,
}

pub(super) fn adamw(
    isa: Isa,
    pool: &ThreadPool,
    weights: &mut [f32],
    [first, second]: [&mut [f32]; 2],
    gradient: &[f32],
    step: AdamStep,
) {
    let length = weights.len();
    assert!([first.len(), second.len(), gradient.len()] == [length; 3], "one for each weight");
    let shared = [weights, first, second].map(SharedSlice::new);
    ranges(pool, length, &|range| {
        // SAFETY: ranges are disjoint.
        let [weights, first, second] =
            shared.map(|slice| unsafe { slice.slice(range.start, range.len()) });
        let gradient = &gradient[range];
        compiled_for!(
            isa,
            step_all(
                weights: &mut [f32],
                first: &mut [f32],
                second: &mut [f32],
                gradient: &[f32],
                step: AdamStep,
            )
        );
    });
}

#[inline(always)]
fn step_all(
    weights: &mut [f32],
    first: &mut [f32],
    second: &mut [f32],
    gradient: &[f32],
    step: AdamStep,
) {
    let moments = first.iter_mut().zip(second);
    for ((weight, gradient), (first, second)) in weights.iter_mut().zip(gradient).zip(moments) {
        let gradient = gradient * step.scale;
        *first += step.keep1 * (gradient - *first);
        *second = *second * step.beta2 + step.keep2 * gradient * gradient;
        let root = second.sqrt() / step.root_correction + step.epsilon;
        *weight = *weight * step.stay - step.size * *first / root;
    }
}

pub(super) fn sum_of_squares(isa: Isa, pool: &ThreadPool, x: &[f32]) -> f64 {
    /// Numbers whose squares are added in f32.
    const RUN: usize = 4096;
    let mut sums = vec![0.0_f32; x.len().div_ceil(RUN)];
    pool.run_chunks(&mut sums, 16, &|job, sums| {
        let runs = x[job * 16 * RUN..].chunks(RUN);
        for (sum, run) in sums.iter_mut().zip(runs) {
            let sum = std::slice::from_mut(sum);
            compiled_for!(isa, square_sum(sum: &mut [f32], run: &[f32]));
        }
    });
    sums.into_iter().map(f64::from).sum()
}

#[inline(always)]
fn square_sum(sum: &mut [f32], run: &[f32]) {
    sum[0] = dot(run, run);
}
