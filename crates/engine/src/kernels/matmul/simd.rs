//! The loops of a matrix product over vector registers, whatever their width.
//!
//! Every sum follows the same path: one register of partial sums, lane `j` holding the products with
//! `k % WIDTH == j` added in rising `k` by fused multiply-adds, then [`Lanes::sum4`]. The loops below
//! only choose which sums are computed side by side, so they all give the same bits.
//!
//! - One row of `x` (a decoding step) reads each weight once, straight from where it is stored: memory is the
//!   limit, and eight rows of weights at a time share each load of `x`.
//! - More rows (a prompt, a batch) widen a panel of weights to f32 once and use it for all of them. The
//!   panel stays in the second-level cache, a tile of [`Lanes::TILE_ROWS`] × [`TILE_COLUMNS`] sums in registers.

use std::cell::RefCell;
use std::ops::Range;

use super::{Element, Product};

/// Columns of a tile of sums, that is, rows of weights used together when `T > 1`.
pub(super) const TILE_COLUMNS: usize = 4;

/// Rows of weights read together when `T` is 1.
pub(super) const STREAMS: usize = 8;

/// One vector register of f32.
///
/// # Safety
/// All functions, these and those of [`Load`]: only where the instruction set that the type stands
/// for is available, and for any pointer, the elements named must be readable or writable.
pub(super) trait Lanes: Copy {
    /// Numbers in a register.
    const WIDTH: usize;
    /// Rows of a tile of sums, at most 6: the largest tile that leaves registers for its operands.
    const TILE_ROWS: usize;
    /// All zero.
    unsafe fn zero() -> Self;
    /// Writes `WIDTH` numbers.
    unsafe fn store(self, to: *mut f32);
    /// `self + a · b`, rounded once.
    unsafe fn fused(self, a: Self, b: Self) -> Self;
    /// The sum over the lanes of each; the result of one does not depend on the others.
    unsafe fn sum4(of: [Self; 4]) -> [f32; 4];
}

/// Reading numbers stored as `E`. Safety as for [`Lanes`].
pub(super) trait Load<E>: Lanes {
    /// `WIDTH` numbers.
    unsafe fn load(from: *const E) -> Self;
    /// `count < WIDTH` numbers, then zeros.
    unsafe fn load_partial(from: *const E, count: usize) -> Self;
}

/// Computes the columns `range` of the output.
///
/// # Safety
/// As for [`Lanes`]; and nobody else may touch these columns meanwhile.
#[inline(always)]
pub(super) unsafe fn columns<V, E>(product: &Product<'_, E>, range: Range<usize>)
where
    V: Load<f32> + Load<E>,
    E: Element,
{
    let &Product { k, w, .. } = product;
    let rows = &w[range.start * k..range.end * k];
    // SAFETY: the caller's promises are passed on; panels hold the rows of `range`.
    unsafe {
        if product.t == 1 {
            return streams::<V, E>(product, rows, range.start);
        }
        PANEL.with_borrow_mut(|buffer| {
            panel_product::<V>(product, &widen::<V, E>(buffer, rows, k, range));
        });
    }
}

/// One row of `x` with all rows of `w`, whose first gives output `first`.
#[inline(always)]
unsafe fn streams<V, E>(product: &Product<'_, E>, w: &[E], first: usize)
where
    V: Load<f32> + Load<E>,
    E: Element,
{
    let &Product { x, k, .. } = product;
    let rows = w.len() / k;
    let mut row = 0;
    // SAFETY: rows up to `row + STREAMS` and `row + 1` lie in `w`; promises of the caller.
    unsafe {
        while row + STREAMS <= rows {
            let [sums] = tile::<V, E, 1, STREAMS>(x.as_ptr(), w.as_ptr().add(row * k), k, k);
            let [a, b, c, d, e, f, g, h] = sums;
            product.write(first + row, &V::sum4([a, b, c, d]));
            product.write(first + row + 4, &V::sum4([e, f, g, h]));
            row += STREAMS;
        }
        while row < rows {
            let [[sum]] = tile::<V, E, 1, 1>(x.as_ptr(), w.as_ptr().add(row * k), k, k);
            let zero = V::zero();
            product.write(first + row, &V::sum4([sum, zero, zero, zero])[..1]);
            row += 1;
        }
    }
}

/// All rows of `x` with a panel of widened weights.
#[inline(always)]
unsafe fn panel_product<V: Load<f32>>(product: &Product<'_, impl Element>, panel: &Panel) {
    let mut row = 0;
    while row < product.t {
        let rows = V::TILE_ROWS.min(product.t - row);
        // SAFETY: the rows `row..row + rows` are rows of `x`; promises of the caller.
        unsafe {
            match rows {
                1 => tile_row::<V, 1>(product, row, panel),
                2 => tile_row::<V, 2>(product, row, panel),
                3 => tile_row::<V, 3>(product, row, panel),
                4 => tile_row::<V, 4>(product, row, panel),
                5 => tile_row::<V, 5>(product, row, panel),
                _ => tile_row::<V, 6>(product, row, panel),
            }
        }
        row += rows;
    }
}

/// The `T` rows of `x` from `row` on with all rows of a panel.
#[inline(always)]
unsafe fn tile_row<V: Load<f32>, const T: usize>(
    product: &Product<'_, impl Element>,
    row: usize,
    panel: &Panel,
) {
    let &Product { x, k, n, .. } = product;
    let &Panel { start, stride, ref range } = panel;
    let mut column = range.start;
    // SAFETY: `column` stays in `range`, whose rows the panel holds; promises of the caller.
    unsafe {
        let x = x.as_ptr().add(row * k);
        while column < range.end {
            let w = start.add((column - range.start) * stride);
            if column + TILE_COLUMNS <= range.end {
                let sums = tile::<V, f32, T, TILE_COLUMNS>(x, w, k, stride);
                for (t, sums) in sums.into_iter().enumerate() {
                    product.write((row + t) * n + column, &V::sum4(sums));
                }
                column += TILE_COLUMNS;
            } else {
                let sums = tile::<V, f32, T, 1>(x, w, k, stride);
                for (t, [sum]) in sums.into_iter().enumerate() {
                    let zero = V::zero();
                    let sums = V::sum4([sum, zero, zero, zero]);
                    product.write((row + t) * n + column, &sums[..1]);
                }
                column += 1;
            }
        }
    }
}

/// The partial sums of `T` rows of `x` (each `k` long and `k` apart) with `N` rows of `w` (each
/// `stride` apart).
#[inline(always)]
unsafe fn tile<V, E, const T: usize, const N: usize>(
    x: *const f32,
    w: *const E,
    k: usize,
    stride: usize,
) -> [[V; N]; T]
where
    V: Load<f32> + Load<E>,
{
    let whole = k - k % V::WIDTH;
    // SAFETY: all elements below `k` of each row exist, by the caller's promise.
    unsafe {
        let mut sums = [[V::zero(); N]; T];
        let mut at = 0;
        while at < whole {
            let mut rows = [V::zero(); T];
            for t in 0..T {
                rows[t] = V::load(x.add(t * k + at));
            }
            for n in 0..N {
                let weight: V = V::load(w.add(n * stride + at));
                for t in 0..T {
                    sums[t][n] = sums[t][n].fused(rows[t], weight);
                }
            }
            at += V::WIDTH;
        }
        if at < k {
            for t in 0..T {
                let x: V = V::load_partial(x.add(t * k + at), k - at);
                for n in 0..N {
                    let weight = V::load_partial(w.add(n * stride + at), k - at);
                    sums[t][n] = sums[t][n].fused(x, weight);
                }
            }
        }
        sums
    }
}

/// Widened rows of weights.
struct Panel {
    start: *const f32,
    stride: usize,
    range: Range<usize>,
}

/// Sixteen numbers on a cache line of their own.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// Numbers in a cache line, and in the longest register.
const LINE: usize = 16;

thread_local! {
    /// Where each thread widens its panels; kept, because a fresh one would be faulted in each time.
    static PANEL: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// Widens `rows` (each `k` long) into `buffer`; each row starts on a cache line.
#[inline(always)]
unsafe fn widen<V, E>(buffer: &mut Vec<Line>, rows: &[E], k: usize, range: Range<usize>) -> Panel
where
    V: Load<E>,
    E: Element,
{
    let lines = k.div_ceil(LINE);
    let stride = lines * LINE;
    if buffer.len() < lines * range.len() {
        buffer.resize(lines * range.len(), Line([0.0; LINE]));
    }
    let start = buffer.as_mut_ptr().cast::<f32>();
    let whole = k - k % V::WIDTH;
    for (index, row) in rows.chunks_exact(k).enumerate() {
        // SAFETY: the buffer has `stride >= k` numbers for each row; promises of the caller.
        unsafe {
            let to = start.add(index * stride);
            let mut at = 0;
            while at < whole {
                V::load(row.as_ptr().add(at)).store(to.add(at));
                at += V::WIDTH;
            }
            for (at, element) in row.iter().enumerate().skip(whole) {
                to.add(at).write(element.widen());
            }
        }
    }
    Panel { start, stride, range }
}
