//! `x · wᵀ`, where nearly all time goes.
//!
//! Decides which body multiplies which weights (`Body`) and how panels are dealt out to threads.
//!
//! - Floats are multiplied by [`dense`]: for each output one chain of fused multiply-adds over rising
//!   inputs, so that every instruction set gives the same bits.
//! - bf16 on a processor with matrix units goes through [`amx`], which rounds in another order.
//! - Quantised weights go through [`quantised`]: integers, and floats in one order everywhere.

#[cfg(target_arch = "x86_64")]
mod amx;
mod dense;
mod quantised;
#[cfg(test)]
mod tests;

use super::isa::Isa;
use super::matrix::{Matrix, PANEL_ROWS, Store};
use super::pool::{SharedSlice, ThreadPool};
use std::ops::Range;

/// What becomes of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Write {
    Set,
    Add,
}

/// Multiply-adds below which a second thread costs more than it saves: about 5 µs of one core.
const INLINE_MAX: usize = 100_000;

/// Panels read side by side when memory is what a product waits for. Each is a run through memory
/// that hardware prefetchers follow; one alone gets two thirds of the bandwidth.
const STREAMS: usize = 4;

/// Panels read side by side: far apart, so that each is a run through memory of its own. Beyond the end
/// the last panel is read again, and not written.
#[derive(Clone, Copy)]
#[cfg(target_arch = "x86_64")]
struct Group {
    /// The first.
    at: usize,
    /// How far it is to the next.
    run: usize,
    end: usize,
}

#[cfg(target_arch = "x86_64")]
impl Group {
    #[inline(always)]
    fn has(self, p: usize) -> bool {
        self.at + p * self.run < self.end
    }

    #[inline(always)]
    fn panel(self, p: usize) -> usize {
        (self.at + p * self.run).min(self.end - 1)
    }
}

/// How far a dot product of floats may lie from the exact one, given `magnitude = Σ |x[k] · w[k]|` over
/// `k < cols`: half a unit in the last place per addition, and for [`Isa::Amx`] what is lost of an
/// activation that is cut into two bf16 numbers.
pub fn dot_tolerance(isa: Isa, cols: usize, magnitude: f32) -> f32 {
    let sums = (cols as f32 + 8.0) * f32::EPSILON;
    let split = if isa == Isa::Amx { 2.0_f32.powi(-16) } else { 0.0 };
    (sums + split) * magnitude
}

/// The operands of a product but the weights, their shapes checked: `out` `[t, n]`, `x` `[t, k]`.
#[derive(Clone, Copy)]
struct Product<'a> {
    write: Write,
    out: SharedSlice,
    x: &'a [f32],
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
    w: &Matrix,
) {
    let (n, k) = (w.rows(), w.cols());
    assert!(x.len().is_multiple_of(k), "{} is not rows of {k}", x.len());
    let t = x.len() / k;
    assert_eq!(out.len(), t * n, "an output of {t} x {n}");
    if t == 0 {
        return;
    }
    let product = Product { write, out: SharedSlice::new(out), x, t, n, k };
    match &w.store {
        Store::F32(panels) => dense::run(isa, pool, product, panels),
        Store::F16(panels) => dense::run(isa, pool, product, panels),
        #[cfg(target_arch = "x86_64")]
        Store::Bf16(panels) if isa == Isa::Amx => amx::run(pool, product, panels),
        Store::Bf16(panels) => dense::run(isa, pool, product, panels),
        Store::Blocks(blocks) => quantised::run(isa, pool, product, blocks),
    }
}

impl Product<'_> {
    /// Writes `sums`, the products of row `row` with panel `panel`, to the output.
    ///
    /// # Safety
    /// Nobody else may touch these elements meanwhile.
    #[inline(always)]
    unsafe fn write(&self, row: usize, panel: usize, sums: &[f32; PANEL_ROWS]) {
        let column = panel * PANEL_ROWS;
        let width = PANEL_ROWS.min(self.n - column);
        // SAFETY: the caller's promise.
        let out = unsafe { self.out.slice(row * self.n + column, width) };
        // Whole panels by themselves: as many numbers as a register has need no loop.
        match (self.write, out.first_chunk_mut::<PANEL_ROWS>()) {
            (Write::Set, Some(out)) => *out = *sums,
            (Write::Set, None) => out.copy_from_slice(&sums[..width]),
            (Write::Add, Some(out)) => (0..PANEL_ROWS).for_each(|n| out[n] += sums[n]),
            (Write::Add, None) => (0..width).for_each(|n| out[n] += sums[n]),
        }
    }

    /// Starts to bring nearer what [`Product::write`] will write: rows lie far apart, and a processor does
    /// not foresee them.
    #[inline(always)]
    #[cfg(target_arch = "x86_64")]
    fn fetch(&self, row: usize, panel: usize) {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        let address = self.out.address(row * self.n + panel * PANEL_ROWS);
        // SAFETY: a prefetch changes nothing, and there need not be anything to fetch.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(address.cast()) };
    }

    /// Cuts `panels` panels of `panel_bytes` into ranges, one job each.
    ///
    /// There are several jobs per thread, so that one that is held up costs little; whole groups of
    /// [`STREAMS`] keep memory busy; and a job's weights fit half of a second-level cache of 1 MiB, for
    /// they are read once per tile of rows.
    fn spread(
        &self,
        pool: &ThreadPool,
        panels: usize,
        panel_bytes: usize,
        job: &(dyn Fn(Range<usize>) + Sync),
    ) {
        const JOB_BYTES: usize = 512 * 1024;
        const JOBS_PER_THREAD: usize = 4;
        let per_job = if self.t * self.n * self.k <= INLINE_MAX {
            panels
        } else {
            let shared = panels.div_ceil(pool.threads() * JOBS_PER_THREAD);
            (JOB_BYTES / panel_bytes).min(shared).max(1).next_multiple_of(STREAMS)
        };
        pool.run(panels.div_ceil(per_job), &|index| {
            job(index * per_job..panels.min((index + 1) * per_job));
        });
    }
}
