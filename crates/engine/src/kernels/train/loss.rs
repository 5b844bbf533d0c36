//! The loss over the vocabulary, and its gradient in place of the logits.

use super::super::isa::{Isa, compiled_for};
use super::super::math::{LANES, add_up, exp};
use super::super::pool::{SharedSlice, ThreadPool};

pub(super) fn cross_entropy(
    isa: Isa,
    pool: &ThreadPool,
    logits: &mut [f32],
    targets: &[u32],
    scale: f32,
) -> f64 {
    if targets.is_empty() {
        return 0.0;
    }
    let vocab = logits.len() / targets.len();
    assert_eq!(logits.len(), vocab * targets.len(), "a row of logits for each target");
    let mut losses = vec![0.0_f64; targets.len()];
    let shared = SharedSlice::new(&mut losses);
    pool.run_chunks(logits, vocab, &|row, logits| {
        // SAFETY: each row has a loss of its own.
        let loss = unsafe { shared.slice(row, 1) };
        let target = targets[row] as usize;
        compiled_for!(isa, one_row(logits: &mut [f32], loss: &mut [f64], target: usize, scale: f32));
    });
    losses.iter().sum::<f64>() * f64::from(scale)
}

#[inline(always)]
fn one_row(logits: &mut [f32], loss: &mut [f64], target: usize, scale: f32) {
    let highest = highest(logits);
    let wanted = logits[target];
    let sum = exps(logits, highest);
    loss[0] = f64::from(sum).ln() - (f64::from(wanted) - f64::from(highest));
    let factor = scale / sum;
    logits.iter_mut().for_each(|x| *x *= factor);
    logits[target] -= scale;
}

/// The largest of some numbers.
#[inline(always)]
pub(super) fn highest(numbers: &[f32]) -> f32 {
    let (chunks, rest) = numbers.as_chunks::<LANES>();
    let mut most = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            most[lane] = if chunk[lane] > most[lane] { chunk[lane] } else { most[lane] };
        }
    }
    most.iter().chain(rest).fold(f32::NEG_INFINITY, |most, x| if *x > most { *x } else { most })
}

/// Each number becomes e to the power of what it lies above `base`; their sum.
#[inline(always)]
pub(super) fn exps(numbers: &mut [f32], base: f32) -> f32 {
    let (chunks, rest) = numbers.as_chunks_mut::<LANES>();
    let mut sums = [0.0; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            chunk[lane] = exp(chunk[lane] - base);
            sums[lane] += chunk[lane];
        }
    }
    for (x, sum) in rest.iter_mut().zip(&mut sums) {
        *x = exp(*x - base);
        *sum += *x;
    }
    add_up(sums)
}
