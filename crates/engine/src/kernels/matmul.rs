//! `x · wᵀ`, where nearly all time goes.

#[cfg(target_arch = "x86_64")]
mod avx512bf16;
mod portable;
#[cfg(target_arch = "x86_64")]
mod simd;

use std::ops::Range;

use super::isa::Isa;
#[cfg(target_arch = "x86_64")]
use super::lanes::{Load256, Load512};
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
        #[cfg(target_arch = "x86_64")]
        Elements::Bf16(w) if isa == Isa::Avx512Bf16 => {
            avx512bf16::run(pool, Product { write, out, x, w, t, n, k });
        }
        Elements::F32(w) => of_type(isa, pool, Product { write, out, x, w, t, n, k }),
        Elements::F16(w) => of_type(isa, pool, Product { write, out, x, w, t, n, k }),
        Elements::Bf16(w) => of_type(isa, pool, Product { write, out, x, w, t, n, k }),
    }
}

impl<E> Product<'_, E> {
    /// Writes `sums` to the output from element `at` on.
    ///
    /// # Safety
    /// Nobody else may touch these elements meanwhile.
    #[inline(always)]
    unsafe fn write(&self, at: usize, sums: &[f32]) {
        // SAFETY: the caller's promise.
        let out = unsafe { self.out.slice(at, sums.len()) };
        for (out, sum) in out.iter_mut().zip(sums) {
            match self.write {
                Write::Set => *out = *sum,
                Write::Add => *out += sum,
            }
        }
    }
}

/// What an element needs for every body.
#[cfg(target_arch = "x86_64")]
trait Supported: Load256 + Load512 {}
#[cfg(target_arch = "x86_64")]
impl<E: Load256 + Load512> Supported for E {}
#[cfg(not(target_arch = "x86_64"))]
use Element as Supported;

/// How many rows of weights a job takes.
///
/// There are several jobs per thread, so that one that is held up costs little; whole groups of
/// [`ROW_GROUP`] keep tiles full; and unless they are read only once (`t` is 1), a job's weights,
/// widened, fit half of a second-level cache of 1 MiB.
fn rows_per_job(pool: &ThreadPool, t: usize, n: usize, k: usize) -> usize {
    const PANEL_BYTES: usize = 512 * 1024;
    const JOBS_PER_THREAD: usize = 4;
    let fitting = if t == 1 { n } else { PANEL_BYTES / (k * size_of::<f32>()) };
    let shared = n.div_ceil(pool.threads() * JOBS_PER_THREAD);
    fitting.min(shared).clamp(1, 64).next_multiple_of(ROW_GROUP)
}

/// Rows of weights that the widest loop takes at once.
const ROW_GROUP: usize = 8;

fn of_type<E: Supported>(isa: Isa, pool: &ThreadPool, product: Product<'_, E>) {
    spread(pool, &product, &|range| {
        // SAFETY: `spread` gives disjoint ranges; `Kernels::new` made sure of the instruction set.
        unsafe { columns(isa, &product, range) };
    });
}

/// Cuts the columns of the output into ranges, one job each.
fn spread<E>(pool: &ThreadPool, product: &Product<'_, E>, job: &(dyn Fn(Range<usize>) + Sync)) {
    let &Product { t, n, k, .. } = product;
    let small = t * n * k <= INLINE_MAX;
    let rows = if small { n.max(1) } else { rows_per_job(pool, t, n, k) };
    pool.run(n.div_ceil(rows), &|index| job(index * rows..n.min((index + 1) * rows)));
}

/// # Safety
/// The processor must have `isa`, and nobody else may touch these columns of the output meanwhile.
#[cfg(target_arch = "x86_64")]
unsafe fn columns<E: Supported>(isa: Isa, product: &Product<'_, E>, range: Range<usize>) {
    // SAFETY: the caller's promises.
    unsafe {
        match isa {
            Isa::Portable => portable::columns(product, range),
            Isa::Avx2 => simd::columns_avx2(product, range),
            Isa::Avx512 | Isa::Avx512Bf16 => simd::columns_avx512(product, range),
        }
    }
}

/// # Safety
/// Nobody else may touch these columns of the output meanwhile.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn columns<E: Supported>(_: Isa, product: &Product<'_, E>, range: Range<usize>) {
    // SAFETY: the caller's promise.
    unsafe { portable::columns(product, range) }
}

#[cfg(test)]
mod tests;
