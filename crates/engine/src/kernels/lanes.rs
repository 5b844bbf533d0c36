//! Vector registers of f32, whatever their width.
//!
//! What the loops of matrix products and attention are written in. Everything here is
//! `#[inline(always)]` and comes to life inside a function with `#[target_feature]`: called from
//! elsewhere, closures included, each operation would be a call through memory.

mod avx2;
mod avx512;

pub(super) use avx2::{Avx2, Load256};
pub(super) use avx512::{Avx512, Load512};

/// One vector register of f32.
///
/// # Safety
/// All functions, these and those of [`Load`]: only where the instruction set that the
/// type stands for is available; and for any pointer, the elements named must be there.
pub(super) trait Lanes: Copy {
    /// Numbers in a register.
    const WIDTH: usize;
    /// Rows of a tile of four registers each, at most 6: the largest that leaves registers for its
    /// operands.
    const TILE_ROWS: usize;
    /// All zero.
    unsafe fn zero() -> Self;
    /// All `number`.
    unsafe fn splat(number: f32) -> Self;
    /// Writes `WIDTH` numbers.
    unsafe fn store(self, to: *mut f32);
    /// `self + a · b`, rounded once.
    unsafe fn fused(self, a: Self, b: Self) -> Self;
}

/// Reading numbers stored as `E`. Safety as for [`Lanes`].
pub(super) trait Load<E>: Lanes {
    /// `WIDTH` numbers.
    unsafe fn load(from: *const E) -> Self;
}

/// Reading a panel of weights: for each pair of inputs, sixteen rows' numbers of both. Safety as for
/// [`Lanes`].
pub(super) trait Pairs<E>: Lanes {
    /// The `WIDTH` rows from `WIDTH · part` on: their numbers of the first input of the pair at
    /// `pair`, and of the second.
    unsafe fn pair(pair: *const E, part: usize) -> [Self; 2];
}
