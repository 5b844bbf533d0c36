//! Rotary position embedding.

use super::isa::{Isa, compiled_for};
use super::pool::ThreadPool;

/// Below this many elements a second thread costs more than it saves.
const INLINE_MAX: usize = 32_768;

pub(super) fn rope(
    isa: Isa,
    pool: &ThreadPool,
    x: &mut [f32],
    head_dim: usize,
    heads: usize,
    cos: &[f32],
    sin: &[f32],
) {
    let row = heads * head_dim;
    assert!(row > 0 && x.len().is_multiple_of(row), "{} is not rows of {row}", x.len());
    let rows = x.len() / row;
    if rows == 0 {
        return;
    }
    let half = cos.len() / rows;
    assert!(
        half > 0 && 2 * half <= head_dim && cos.len() == rows * half && sin.len() == cos.len(),
        "{} and {} angles of {rows} positions with heads of {head_dim}",
        cos.len(),
        sin.len()
    );
    let rows_per_job = if x.len() <= INLINE_MAX { rows.max(1) } else { 1 };
    pool.run_chunks(x, rows_per_job * row, &|job, x| {
        let angles = job * rows_per_job * half..;
        let (cos, sin) = (&cos[angles.clone()], &sin[angles]);
        compiled_for!(
            isa,
            rotate(
                x: &mut [f32], head_dim: usize, heads: usize, half: usize, cos: &[f32], sin: &[f32]
            )
        );
    });
}

#[inline(always)]
fn rotate(x: &mut [f32], head_dim: usize, heads: usize, half: usize, cos: &[f32], sin: &[f32]) {
    let angles = cos.chunks_exact(half).zip(sin.chunks_exact(half));
    for (row, (cos, sin)) in x.chunks_exact_mut(heads * head_dim).zip(angles) {
        for head in row.chunks_exact_mut(head_dim) {
            let (first, second) = head[..2 * half].split_at_mut(half);
            let pairs = first.iter_mut().zip(second).zip(cos.iter().zip(sin));
            for ((first, second), (cos, sin)) in pairs {
                let (a, b) = (*first, *second);
                *first = a * cos - b * sin;
                *second = b * cos + a * sin;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{bits, each_kernels, numbers};

    #[test]
    fn a_quarter_turn_swaps_the_halves() {
        each_kernels(|kernels| {
            let mut x = [1.0, 2.0, 3.0, 4.0];
            kernels.rope(&mut x, 4, 1, &[0.0, 0.0], &[1.0, 1.0]);
            assert_eq!(x, [-3.0, -4.0, 1.0, 2.0]);
        });
    }

    #[test]
    fn elements_beyond_the_angles_stay() {
        each_kernels(|kernels| {
            let mut x = [1.0, 2.0, 3.0, 4.0];
            kernels.rope(&mut x, 4, 1, &[0.0], &[1.0]);
            assert_eq!(x, [-2.0, 1.0, 3.0, 4.0]);
        });
    }

    #[test]
    fn every_instruction_set_and_batch_gives_the_same_bits() {
        for (rows, heads, head_dim) in [(1, 1, 2), (3, 3, 6), (70, 5, 128)] {
            let x = numbers(1, rows * heads * head_dim);
            let (cos, sin) = (numbers(2, rows * head_dim / 2), numbers(3, rows * head_dim / 2));
            let mut seen = None;
            each_kernels(|kernels| {
                let mut out = x.clone();
                kernels.rope(&mut out, head_dim, heads, &cos, &sin);
                let last = x.len() - heads * head_dim;
                let mut row = x[last..].to_vec();
                let angles = (rows - 1) * head_dim / 2;
                kernels.rope(&mut row, head_dim, heads, &cos[angles..], &sin[angles..]);
                assert_eq!(bits(&row), bits(&out[last..]));
                assert_eq!(seen.get_or_insert_with(|| bits(&out)), &bits(&out));
            });
        }
    }
}
