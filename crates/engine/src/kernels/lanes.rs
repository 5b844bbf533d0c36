//! Vector registers of f32, whatever their width, and tiles of dot products held in them.
//!
//! What the loops of matrix products and attention are written in. Everything here is
//! `#[inline(always)]` and comes to life inside a function with `#[target_feature]`: called from
//! elsewhere, closures included, each operation would be a call through memory.

#![allow(clippy::needless_range_loop, reason = "indices run over lanes of several arrays at once")]

mod avx2;
mod avx512;

pub(super) use avx2::{Avx2, Load256};
pub(super) use avx512::{Avx512, Load512};

use std::marker::PhantomData;

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
    /// All `number`.
    unsafe fn splat(number: f32) -> Self;
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

/// Reading a panel of weights: for each pair of inputs, sixteen rows' numbers of both. Safety as for
/// [`Lanes`].
pub(super) trait Pairs<E>: Lanes {
    /// The `WIDTH` rows from `WIDTH · part` on: their numbers of the first input of the pair at
    /// `pair`, and of the second.
    unsafe fn pair(pair: *const E, part: usize) -> [Self; 2];
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
    pub(super) fn skip(self, count: usize) -> Self {
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
