//! The meaning of a matrix product, in plain Rust.

use std::ops::Range;

use super::{Element, Product};

/// Partial sums of a dot product; fits the registers of machines without a body of their own.
const LANES: usize = 8;

/// Computes the columns `range` of the output, that is, uses the rows `range` of the weights.
///
/// # Safety
/// Nobody else may touch these columns meanwhile.
pub(super) unsafe fn columns<E: Element>(product: &Product<'_, E>, range: Range<usize>) {
    let k = product.k;
    for n in range {
        let w = &product.w[n * k..][..k];
        for (t, x) in product.x.chunks_exact(k).enumerate() {
            // SAFETY: column `n` is ours, by the caller's promise.
            unsafe { product.write(t * product.n + n, &[dot(x, w)]) };
        }
    }
}

/// `Σ x[i] · w[i]`.
#[inline(always)]
fn dot<E: Element>(x: &[f32], w: &[E]) -> f32 {
    let mut sums = [0.0; LANES];
    let (x_chunks, x_tail) = x.as_chunks::<LANES>();
    let (w_chunks, w_tail) = w.as_chunks::<LANES>();
    for (x, w) in x_chunks.iter().zip(w_chunks) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * w[lane].widen();
        }
    }
    for (sum, (x, w)) in sums.iter_mut().zip(x_tail.iter().zip(w_tail)) {
        *sum += x * w.widen();
    }
    sums.iter().sum()
}
