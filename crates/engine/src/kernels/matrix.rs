//! A borrowed weight matrix in the type it is stored in.

use half::{bf16, f16};

/// Elements in their stored type, usually borrowed from a mapped file.
#[derive(Debug, Clone, Copy)]
pub enum Elements<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// IEEE half precision.
    F16(&'a [f16]),
    /// The upper half of an f32.
    Bf16(&'a [bf16]),
}

impl Elements<'_> {
    /// How many elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(elements) => elements.len(),
            Self::F16(elements) => elements.len(),
            Self::Bf16(elements) => elements.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies the elements from `from` on into `out`, widened exactly.
    ///
    /// # Panics
    /// If there are fewer than `out.len()` elements from `from` on.
    pub fn widen_into(&self, from: usize, out: &mut [f32]) {
        fn widen<E: Element>(elements: &[E], out: &mut [f32]) {
            for (out, element) in out.iter_mut().zip(elements) {
                *out = element.widen();
            }
        }
        let range = from..from + out.len();
        match self {
            Self::F32(elements) => out.copy_from_slice(&elements[range]),
            Self::F16(elements) => widen(&elements[range], out),
            Self::Bf16(elements) => widen(&elements[range], out),
        }
    }
}

/// A type that weights are stored in.
pub(super) trait Element: Copy + Send + Sync + 'static {
    /// The same number as an f32.
    fn widen(self) -> f32;
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl Element for f16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

impl Element for bf16 {
    // Unlike `bf16::to_f32` this leaves a signalling NaN as it is, and so has no branch.
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// Weights `[rows, cols]` = `[N, K]`, row-major: one row per output feature.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    /// `N`, the output features.
    pub rows: usize,
    /// `K`, the input features; fastest in memory.
    pub cols: usize,
    /// `rows · cols` elements.
    pub elements: Elements<'a>,
}

/// The elements do not fill the shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a matrix of {rows} x {cols} was given {found} elements")]
pub struct MatrixError {
    /// `N` as asked for.
    pub rows: usize,
    /// `K` as asked for.
    pub cols: usize,
    /// How many elements there were.
    pub found: usize,
}

impl<'a> Matrix<'a> {
    /// `elements` seen as `[rows, cols]`.
    ///
    /// # Errors
    /// [`MatrixError`] unless there are exactly `rows · cols` elements.
    pub fn new(rows: usize, cols: usize, elements: Elements<'a>) -> Result<Self, MatrixError> {
        let found = elements.len();
        if rows.checked_mul(cols) != Some(found) {
            return Err(MatrixError { rows, cols, found });
        }
        Ok(Self { rows, cols, elements })
    }

    /// Copies row `row` into `out` `[cols]` as f32: the look-up of an embedding.
    ///
    /// # Panics
    /// If `row` is not below `rows` or `out` is not `[cols]`.
    pub fn row_into(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows, "row {row} of a matrix of {} rows", self.rows);
        assert_eq!(out.len(), self.cols, "a row has as many elements as the matrix has columns");
        self.elements.widen_into(row * self.cols, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_needs_exactly_its_elements() {
        let found = Matrix::new(2, 3, Elements::F32(&[0.0; 5])).expect_err("one too few");
        assert_eq!(found, MatrixError { rows: 2, cols: 3, found: 5 });
        assert!(Matrix::new(usize::MAX, 3, Elements::F32(&[0.0; 5])).is_err());
        assert!(Matrix::new(2, 3, Elements::F32(&[0.0; 6])).is_ok());
    }

    #[test]
    fn rows_widen_exactly_from_every_type() {
        let numbers = [0.5_f32, -2.0, 3.0, -0.25];
        let halves = numbers.map(f16::from_f32);
        let brains = numbers.map(bf16::from_f32);
        for elements in [Elements::F32(&numbers), Elements::F16(&halves), Elements::Bf16(&brains)] {
            let matrix = Matrix::new(2, 2, elements).expect("four elements");
            let mut row = [0.0; 2];
            matrix.row_into(1, &mut row);
            assert_eq!(row, [3.0, -0.25]);
        }
    }

    #[test]
    fn every_bf16_number_widens_as_half_does() {
        for bits in 0..=u16::MAX {
            let number = bf16::from_bits(bits);
            if !number.is_nan() {
                assert_eq!(number.widen().to_bits(), number.to_f32().to_bits());
            }
        }
    }
}
