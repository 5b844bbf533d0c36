//! The gate of a gated feed-forward layer.

use super::isa::{Isa, compiled_for};
use super::math::exp;
use super::pool::ThreadPool;

/// Elements per chunk handed to a thread: a few microseconds of work.
const CHUNK: usize = 8_192;

pub(super) fn silu_mul(isa: Isa, pool: &ThreadPool, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "each gate has its value");
    pool.run_chunks(gate, CHUNK, &|chunk, gate| {
        let up = &up[chunk * CHUNK..][..gate.len()];
        compiled_for!(isa, chunk_silu_mul(gate: &mut [f32], up: &[f32]));
    });
}

#[inline(always)]
fn chunk_silu_mul(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        let v = *gate;
        *gate = v / (1.0 + exp(-v)) * up;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{bits, each_kernels, numbers};

    #[test]
    fn a_gate_is_what_its_formula_says() {
        each_kernels(|kernels| {
            let mut gate = [0.0, 1.0, -1.0, -200.0, 100.0];
            kernels.silu_mul(&mut gate, &[3.0, 1.0, 2.0, 1.0, 1.0]);
            let expected = [0.0, 0.731_058_6, -0.537_882_8, 0.0, 100.0];
            for (found, expected) in gate.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{found} {expected}");
            }
        });
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        for length in [1, 17, 8_192, 30_001] {
            let (gate, up) = (numbers(1, length), numbers(2, length));
            let mut seen = None;
            each_kernels(|kernels| {
                let mut out = gate.clone();
                kernels.silu_mul(&mut out, &up);
                assert_eq!(seen.get_or_insert_with(|| bits(&out)), &bits(&out));
            });
        }
    }
}
