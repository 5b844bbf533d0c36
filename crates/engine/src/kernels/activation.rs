//! Operations on each number by itself: activations, gates, sums, caps.

use super::isa::{Isa, compiled_for};
use super::math::{exp, tanh};
use super::pool::ThreadPool;

/// The curve between the two linear maps of a feed-forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    Silu,
    /// With the normal distribution itself.
    Gelu,
    /// With its approximation by a hyperbolic tangent.
    GeluTanh,
}

/// Elements per chunk handed to a thread: a few microseconds of work.
const CHUNK: usize = 8_192;

pub(super) fn activate(isa: Isa, pool: &ThreadPool, activation: Activation, x: &mut [f32]) {
    pool.run_chunks(x, CHUNK, &|_, x| match activation {
        Activation::Silu => compiled_for!(isa, each_silu(x: &mut [f32])),
        Activation::Gelu => compiled_for!(isa, each_gelu(x: &mut [f32])),
        Activation::GeluTanh => compiled_for!(isa, each_gelu_tanh(x: &mut [f32])),
    });
}

pub(super) fn activate_mul(
    isa: Isa,
    pool: &ThreadPool,
    activation: Activation,
    gate: &mut [f32],
    up: &[f32],
) {
    assert_eq!(gate.len(), up.len(), "each gate has its value");
    pool.run_chunks(gate, CHUNK, &|chunk, gate| {
        let up = &up[chunk * CHUNK..][..gate.len()];
        match activation {
            Activation::Silu => compiled_for!(isa, gate_silu(gate: &mut [f32], up: &[f32])),
            Activation::Gelu => compiled_for!(isa, gate_gelu(gate: &mut [f32], up: &[f32])),
            Activation::GeluTanh => {
                compiled_for!(isa, gate_gelu_tanh(gate: &mut [f32], up: &[f32]));
            }
        }
    });
}

pub(super) fn add(isa: Isa, pool: &ThreadPool, x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len(), "each number has its addend");
    pool.run_chunks(x, CHUNK, &|chunk, x| {
        let y = &y[chunk * CHUNK..][..x.len()];
        compiled_for!(isa, each_add(x: &mut [f32], y: &[f32]));
    });
}

pub(super) fn add_rows(isa: Isa, pool: &ThreadPool, x: &mut [f32], row: &[f32]) {
    let width = row.len();
    assert!(width > 0 && x.len().is_multiple_of(width), "{} is not rows of {width}", x.len());
    let rows = (CHUNK / width).max(1);
    pool.run_chunks(x, rows * width, &|_, x| {
        for x in x.chunks_exact_mut(width) {
            compiled_for!(isa, each_add(x: &mut [f32], row: &[f32]));
        }
    });
}

pub(super) fn softcap(isa: Isa, pool: &ThreadPool, x: &mut [f32], cap: f32) {
    pool.run_chunks(x, CHUNK, &|_, x| compiled_for!(isa, each_softcap(x: &mut [f32], cap: f32)));
}

#[inline(always)]
fn each_add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

#[inline(always)]
fn each_softcap(x: &mut [f32], cap: f32) {
    for x in x {
        *x = cap * tanh(*x / cap);
    }
}

/// The loops over one function: by itself, and as a gate.
macro_rules! each {
    ($function:ident, $alone:ident, $gate:ident) => {
        #[inline(always)]
        fn $alone(x: &mut [f32]) {
            for x in x {
                *x = $function(*x);
            }
        }

        #[inline(always)]
        fn $gate(gate: &mut [f32], up: &[f32]) {
            for (gate, up) in gate.iter_mut().zip(up) {
                *gate = $function(*gate) * up;
            }
        }
    };
}
each!(silu, each_silu, gate_silu);
each!(gelu, each_gelu, gate_gelu);
each!(gelu_tanh, each_gelu_tanh, gate_gelu_tanh);

/// `x / (1 + e⁻ˣ)`
#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// `x` times the share of the normal distribution below it (Hendrycks and Gimpel 2016).
#[inline(always)]
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// The same with the authors' approximation of the distribution.
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    /// √(2 / π)
    const FACTOR: f32 = 0.797_884_6;
    0.5 * x * (1.0 + tanh(FACTOR * (x + 0.044_715 * x * x * x)))
}

/// The error function within 3 · 10⁻⁷ (Abramowitz and Stegun 1964, 7.1.26).
#[inline(always)]
fn erf(x: f32) -> f32 {
    let size = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * size);
    let mut series = 1.061_405_4;
    series = series * t - 1.453_152;
    series = series * t + 1.421_413_8;
    series = series * t - 0.284_496_74;
    series = series * t + 0.254_829_6;
    (1.0 - series * t * exp(-size * size)).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{bits, each_kernels, numbers};
    use super::*;

    const ALL: [Activation; 3] = [Activation::Silu, Activation::Gelu, Activation::GeluTanh];

    #[test]
    fn activations_are_what_their_formulas_say() {
        // At -200, -1, 0, 1 and 100.
        let expected = |activation| match activation {
            Activation::Silu => [0.0, -0.268_941_4, 0.0, 0.731_058_6, 100.0],
            Activation::Gelu => [0.0, -0.158_655_3, 0.0, 0.841_344_7, 100.0],
            Activation::GeluTanh => [0.0, -0.158_808, 0.0, 0.841_192, 100.0],
        };
        each_kernels(|kernels| {
            for activation in ALL {
                let mut alone = [-200.0, -1.0, 0.0, 1.0, 100.0];
                let mut gate = alone;
                kernels.activate(activation, &mut alone);
                kernels.activate_mul(activation, &mut gate, &[2.0; 5]);
                let found = alone.iter().zip(gate).zip(expected(activation));
                for ((alone, gate), expected) in found {
                    assert!((alone - expected).abs() < 1e-6, "{activation:?}: {alone} {expected}");
                    assert_eq!(gate, 2.0 * alone);
                }
            }
        });
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        for length in [1, 17, 8_192, 30_001] {
            let (x, y) = (numbers(1, length), numbers(2, length));
            for activation in ALL {
                let mut seen = None;
                each_kernels(|kernels| {
                    let mut out = x.clone();
                    kernels.activate_mul(activation, &mut out, &y);
                    kernels.softcap(&mut out, 0.5);
                    kernels.add(&mut out, &x);
                    assert_eq!(seen.get_or_insert_with(|| bits(&out)), &bits(&out));
                });
            }
        }
    }

    #[test]
    fn a_row_is_added_to_every_row() {
        each_kernels(|kernels| {
            let mut x = [1.0, 2.0, 3.0, 4.0];
            kernels.add_rows(&mut x, &[10.0, 20.0]);
            assert_eq!(x, [11.0, 22.0, 13.0, 24.0]);
        });
    }
}
