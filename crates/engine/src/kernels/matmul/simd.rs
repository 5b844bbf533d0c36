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

#![allow(clippy::needless_range_loop, reason = "indices run over lanes of several arrays at once")]

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;

use super::{Element, Product};

/// Columns of a tile of sums, that is, rows of weights used together when `T > 1`.
pub(super) const TILE_COLUMNS: usize = 4;

/// Rows of weights read together when `T` is 1.
pub(super) const STREAMS: usize = 8;

/// One vector register of f32.
///
/// # Safety
/// All functions, these and those of [`Load`] and [`Tiles`]: only where the instruction set that the
/// type stands for is available; and for any pointer, the elements named must be there.
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

/// A way to multiply rows of `x`, kept as `X`, with rows of weights, kept as `W`.
pub(super) trait Tiles<X, W> {
    /// What the partial sums are kept in.
    type Sums: Lanes;

    /// The partial sums of `T` rows of `x` with `N` rows of `w`, `k` numbers each.
    ///
    /// # Safety
    /// As for [`Lanes`].
    unsafe fn tile<const T: usize, const N: usize>(
        x: Rows<X>,
        w: Rows<W>,
        k: usize,
    ) -> [[Self::Sums; N]; T];
}

/// Rows of numbers: where the first starts, and how far it is to the next.
pub(super) struct Rows<E> {
    pub(super) start: *const E,
    pub(super) stride: usize,
}

impl<E> Clone for Rows<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Rows<E> {}

impl<E> Rows<E> {
    /// The same rows without the first `count`.
    #[inline(always)]
    fn skip(self, count: usize) -> Self {
        Self { start: self.start.wrapping_add(count * self.stride), ..self }
    }

    /// Element `at` of row `row`.
    #[inline(always)]
    pub(super) fn at(self, row: usize, at: usize) -> *const E {
        self.start.wrapping_add(row * self.stride + at)
    }
}

/// f32 activations and fused multiply-adds.
pub(super) struct Fused<V>(PhantomData<V>);

impl<V, W> Tiles<f32, W> for Fused<V>
where
    V: Load<f32> + Load<W>,
{
    type Sums = V;

    #[inline(always)]
    unsafe fn tile<const T: usize, const N: usize>(
        x: Rows<f32>,
        w: Rows<W>,
        k: usize,
    ) -> [[V; N]; T] {
        let whole = k - k % V::WIDTH;
        // SAFETY: elements below `k` of each row are read, which exist by the caller's promise.
        unsafe {
            let mut sums = [[V::zero(); N]; T];
            let mut at = 0;
            while at < whole {
                let mut rows = [V::zero(); T];
                for t in 0..T {
                    rows[t] = V::load(x.at(t, at));
                }
                for n in 0..N {
                    let weight: V = V::load(w.at(n, at));
                    for t in 0..T {
                        sums[t][n] = sums[t][n].fused(rows[t], weight);
                    }
                }
                at += V::WIDTH;
            }
            if at < k {
                for n in 0..N {
                    let weight: V = V::load_partial(w.at(n, at), k - at);
                    for t in 0..T {
                        let row = V::load_partial(x.at(t, at), k - at);
                        sums[t][n] = sums[t][n].fused(row, weight);
                    }
                }
            }
            sums
        }
    }
}

/// Computes the columns `range` of the output with fused multiply-adds.
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
    let x = Rows { start: product.x.as_ptr(), stride: k };
    let w = &w[range.start * k..range.end * k];
    // SAFETY: the caller's promises are passed on; `w` holds the rows of `range`.
    unsafe {
        if product.t <= V::TILE_ROWS {
            let stored = Rows { start: w.as_ptr(), stride: k };
            return products::<Fused<V>, f32, E>(product, x, stored, range);
        }
        // Taken out and put back, not borrowed in a closure: a closure would be compiled without
        // the instruction set of the function around it.
        let mut buffer = PANEL.take();
        let widened = widen::<V, E>(&mut buffer, w, k);
        products::<Fused<V>, f32, f32>(product, x, widened, range);
        PANEL.set(buffer);
    }
}

/// All rows of `x` with the weights `w`, which are the rows `range`.
///
/// # Safety
/// As for [`columns`].
#[inline(always)]
pub(super) unsafe fn products<M, X, W>(
    product: &Product<'_, impl Element>,
    x: Rows<X>,
    w: Rows<W>,
    range: Range<usize>,
) where
    M: Tiles<X, W>,
{
    let mut row = 0;
    while row < product.t {
        let rows = M::Sums::TILE_ROWS.min(product.t - row);
        let out = Output { product, row, columns: range.clone() };
        // SAFETY: rows from `row` on are rows of `x`; the caller's promises.
        unsafe {
            let x = x.skip(row);
            match rows {
                1 if product.t == 1 => tile_row::<M, X, W, 1, STREAMS>(out, x, w),
                1 => tile_row::<M, X, W, 1, TILE_COLUMNS>(out, x, w),
                2 => tile_row::<M, X, W, 2, TILE_COLUMNS>(out, x, w),
                3 => tile_row::<M, X, W, 3, TILE_COLUMNS>(out, x, w),
                4 => tile_row::<M, X, W, 4, TILE_COLUMNS>(out, x, w),
                5 => tile_row::<M, X, W, 5, TILE_COLUMNS>(out, x, w),
                _ => tile_row::<M, X, W, 6, TILE_COLUMNS>(out, x, w),
            }
        }
        row += rows;
    }
}

/// Where the sums of a tile go.
struct Output<'a, 'b, E> {
    product: &'a Product<'b, E>,
    row: usize,
    columns: Range<usize>,
}

/// `T` rows of `x` with all of `w`, `N` at a time.
#[inline(always)]
unsafe fn tile_row<M, X, W, const T: usize, const N: usize>(
    out: Output<'_, '_, impl Element>,
    x: Rows<X>,
    w: Rows<W>,
) where
    M: Tiles<X, W>,
{
    let Output { product, row, columns } = out;
    let mut column = columns.start;
    // SAFETY: `column` stays in `columns`, whose rows are `w`; the caller's promises.
    unsafe {
        while column + N <= columns.end {
            let sums = M::tile::<T, N>(x, w.skip(column - columns.start), product.k);
            for t in 0..T {
                write(product, (row + t) * product.n + column, sums[t]);
            }
            column += N;
        }
        while column < columns.end {
            let sums = M::tile::<T, 1>(x, w.skip(column - columns.start), product.k);
            for t in 0..T {
                write(product, (row + t) * product.n + column, sums[t]);
            }
            column += 1;
        }
    }
}

/// Adds up the lanes of `sums` and writes them to the output from element `at` on.
#[inline(always)]
unsafe fn write<V: Lanes, const N: usize>(
    product: &Product<'_, impl Element>,
    at: usize,
    sums: [V; N],
) {
    for n in (0..N).step_by(4) {
        let count = 4.min(N - n);
        // SAFETY: the caller's promises.
        unsafe {
            let mut four = [V::zero(); 4];
            four[..count].copy_from_slice(&sums[n..n + count]);
            product.write(at + n, &V::sum4(four)[..count]);
        }
    }
}

/// Sixteen numbers on a cache line of their own.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// Numbers in a cache line, and in the longest register.
const LINE: usize = 16;

thread_local! {
    /// Where each thread widens its panels; kept, because a fresh one would be faulted in each time.
    static PANEL: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Widens `rows` (each `k` long) into `buffer`; each row starts on a cache line.
#[inline(always)]
unsafe fn widen<V, E>(buffer: &mut Vec<Line>, rows: &[E], k: usize) -> Rows<f32>
where
    V: Load<E>,
    E: Element,
{
    let lines = k.div_ceil(LINE);
    let stride = lines * LINE;
    if buffer.len() < lines * rows.len() / k {
        buffer.resize(lines * rows.len() / k, Line([0.0; LINE]));
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
    Rows { start, stride }
}
