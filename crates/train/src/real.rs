//! The two widths in which a model is trained: f32 for use, f64 to compare with other programs digit by digit.

use burn_tensor::{DType, Element};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Sub};

/// f32 or f64.
pub trait Real:
    Element
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + AddAssign
    + MulAssign
    + Sum
    + sealed::Sealed
{
    /// Its name in burn.
    const DTYPE: DType;
    /// The nearest number.
    fn from_f64(number: f64) -> Self;
    /// Exactly.
    fn to_f64(self) -> f64;
    /// The nearest root.
    fn root(self) -> Self;
    /// These numbers, if they are f32.
    fn as_f32(numbers: &[Self]) -> Option<&[f32]>;
    /// These numbers, if they are f32.
    fn as_f32_mut(numbers: &mut [Self]) -> Option<&mut [f32]>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

impl Real for f32 {
    const DTYPE: DType = DType::F32;

    fn from_f64(number: f64) -> Self {
        number as Self
    }

    fn to_f64(self) -> f64 {
        f64::from(self)
    }

    fn root(self) -> Self {
        self.sqrt()
    }

    fn as_f32(numbers: &[Self]) -> Option<&[f32]> {
        Some(numbers)
    }

    fn as_f32_mut(numbers: &mut [Self]) -> Option<&mut [f32]> {
        Some(numbers)
    }
}

impl Real for f64 {
    const DTYPE: DType = DType::F64;

    fn from_f64(number: f64) -> Self {
        number
    }

    fn to_f64(self) -> f64 {
        self
    }

    fn root(self) -> Self {
        self.sqrt()
    }

    fn as_f32(_: &[Self]) -> Option<&[f32]> {
        None
    }

    fn as_f32_mut(_: &mut [Self]) -> Option<&mut [f32]> {
        None
    }
}
