//! The loops of a matrix product over vector registers, whatever their width.
//!
//! Every sum follows the same path: one register of partial sums, lane `j` holding the products with
//! `k % WIDTH == j` added in rising `k` by fused multiply-adds, then [`Lanes::sum4`]. The loops below
//! only choose which sums are computed side by side, so they all give the same bits.
//!
//! - One row of `x` (a decoding step) reads each weight once, straight from where it is stored: memory is the
//!   limit, and eight rows of weights at a time share each load of `x`.
//! - More rows (a prompt, a batch) widen a panel of weights to f32 once and use it for all of them. The
//!   panel stays in the second-level cache, a tile of `TILE_ROWS` × [`TILE_COLUMNS`] sums in registers.

#![allow(clippy::needless_range_loop, reason = "indices run over lanes of several arrays at once")]

use std::cell::Cell;
use std::ops::Range;

use super::super::lanes::{Avx2, Avx512, Fused, Lanes, Load, Load256, Load512, Rows, Tiles};
use super::{Element, Product};

/// Columns of a tile of sums, that is, rows of weights used together when `T > 1`.
const TILE_COLUMNS: usize = 4;

/// Rows of weights read together when `T` is 1.
const STREAMS: usize = 8;

/// [`columns`] compiled for AVX2.
///
/// # Safety
/// As for [`columns`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn columns_avx2<E: Load256>(product: &Product<'_, E>, range: Range<usize>) {
    // SAFETY: the caller's promises.
    unsafe { columns::<Avx2, E>(product, range) }
}

/// [`columns`] compiled for AVX-512.
///
/// # Safety
/// As for [`columns`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn columns_avx512<E: Load512>(product: &Product<'_, E>, range: Range<usize>) {
    // SAFETY: the caller's promises.
    unsafe { columns::<Avx512, E>(product, range) }
}

/// Computes the columns `range` of the output with fused multiply-adds.
///
/// # Safety
/// As for [`Lanes`]; and nobody else may touch these columns meanwhile.
#[inline(always)]
unsafe fn columns<V, E>(product: &Product<'_, E>, range: Range<usize>)
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
                1 if product.t == 1 => streams::<M, X, W>(out, x, w),
                1 => tile_row::<M, X, W, 1>(out, x, w),
                2 => tile_row::<M, X, W, 2>(out, x, w),
                3 => tile_row::<M, X, W, 3>(out, x, w),
                4 => tile_row::<M, X, W, 4>(out, x, w),
                5 => tile_row::<M, X, W, 5>(out, x, w),
                _ => tile_row::<M, X, W, 6>(out, x, w),
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

/// One row of `x` with all of `w`, as [`STREAMS`] runs of neighbouring rows side by side.
///
/// A run goes through memory in order, page after page, and is far from the others: that is what
/// hardware prefetchers follow. Neighbouring rows side by side would share pages where rows are short.
#[inline(always)]
unsafe fn streams<M, X, W>(out: Output<'_, '_, impl Element>, x: Rows<X>, w: Rows<W>)
where
    M: Tiles<X, W>,
{
    let Output { product, columns, .. } = out;
    let run = columns.len() / STREAMS;
    // SAFETY: `row + stream · run` stays below the number of rows of `w`; the caller's promises.
    unsafe {
        for row in 0..run {
            let apart = Rows { stride: w.stride * run, ..w.skip(row) };
            let [sums] = M::tile::<1, STREAMS>(x, apart, product.k);
            let [a, b, c, d, e, f, g, h] = sums;
            for (half, four) in [[a, b, c, d], [e, f, g, h]].into_iter().enumerate() {
                for (stream, sum) in M::Sums::sum4(four).into_iter().enumerate() {
                    let column = columns.start + row + (4 * half + stream) * run;
                    product.write(column, &[sum]);
                }
            }
        }
        let rest = columns.start + run * STREAMS..columns.end;
        let w = w.skip(run * STREAMS);
        tile_row::<M, X, W, 1>(Output { product, row: 0, columns: rest }, x, w);
    }
}

/// `T` rows of `x` with all of `w`, [`TILE_COLUMNS`] at a time.
#[inline(always)]
unsafe fn tile_row<M, X, W, const T: usize>(
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
        while column + TILE_COLUMNS <= columns.end {
            let sums = M::tile::<T, TILE_COLUMNS>(x, w.skip(column - columns.start), product.k);
            for t in 0..T {
                write(product, (row + t) * product.n + column, sums[t]);
            }
            column += TILE_COLUMNS;
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

/// Adds up the lanes of `sums`, at most four, and writes them to the output from element `at` on.
#[inline(always)]
unsafe fn write<V: Lanes, const N: usize>(
    product: &Product<'_, impl Element>,
    at: usize,
    sums: [V; N],
) {
    // SAFETY: the caller's promises.
    unsafe {
        let mut four = [V::zero(); 4];
        four[..N].copy_from_slice(&sums);
        product.write(at, &V::sum4(four)[..N]);
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
