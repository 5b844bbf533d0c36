//! `x · wᵀ`, where nearly all time goes.

mod portable;

use super::isa::Isa;
use super::matrix::{Element, Elements, Matrix};
use super::pool::{SharedSlice, ThreadPool};

/// What becomes of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Write {
    Set,
    Add,
}

/// Multiply-adds below which a second thread costs more than it saves: about 5 µs of one core.
const INLINE_MAX: usize = 100_000;

/// How far a dot product may lie from the exact one, given `magnitude = Σ |x[k] · w[k]|` over `k < cols`.
///
/// For f32 sums: half a unit in the last place per addition, in the longest chain of partial sums.
/// For [`Isa::Avx512Bf16`] the two halves of an activation lose at most 2⁻¹⁷ of it.
pub fn dot_tolerance(isa: Isa, cols: usize, magnitude: f32) -> f32 {
    let additions = cols.div_ceil(8) as f32 + 8.0;
    let sums = additions * f32::EPSILON;
    let split = if isa == Isa::Avx512Bf16 { 2.0_f32.powi(-16) + sums } else { 0.0 };
    (sums + split) * magnitude
}

/// One product, its shapes checked: `out` `[t, n]`, `x` `[t, k]`, `w` `[n, k]`.
#[derive(Clone, Copy)]
struct Product<'a, E> {
    write: Write,
    out: SharedSlice,
    x: &'a [f32],
    w: &'a [E],
    t: usize,
    n: usize,
    k: usize,
}

pub(super) fn run(
    isa: Isa,
    pool: &ThreadPool,
    write: Write,
    out: &mut [f32],
    x: &[f32],
    w: &Matrix<'_>,
) {
    let (n, k) = (w.rows, w.cols);
    assert_eq!(Some(w.elements.len()), n.checked_mul(k), "a matrix fills its shape");
    assert!(k > 0 && x.len().is_multiple_of(k), "{} is not rows of {k}", x.len());
    let t = x.len() / k;
    assert_eq!(out.len(), t * n, "an output of {t} x {n}");
    let out = SharedSlice::new(out);
    match w.elements {
        Elements::F32(w) => of_type(isa, pool, Product { write, out, x, w, t, n, k }),
        Elements::F16(w) => of_type(isa, pool, Product { write, out, x, w, t, n, k }),
        Elements::Bf16(w) => of_type(isa, pool, Product { write, out, x, w, t, n, k }),
    }
}

fn of_type<E: Element>(isa: Isa, pool: &ThreadPool, product: Product<'_, E>) {
    let _ = isa;
    let jobs =
        if product.t * product.n * product.k <= INLINE_MAX { 1 } else { product.n.div_ceil(64) };
    let rows = product.n.div_ceil(jobs.max(1));
    pool.run(jobs, &|job| {
        let range = job * rows..product.n.min((job + 1) * rows);
        // SAFETY: jobs have different columns of the output.
        unsafe { portable::columns(&product, range) };
    });
}

#[cfg(test)]
mod tests;
