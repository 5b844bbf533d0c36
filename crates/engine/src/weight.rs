//! Weights of a stage: matrices left where they are stored, norms widened to f32.
//!
//! Decides which tensors are acceptable: present, in a type the kernels read, of the shape that the
//! configuration says. A matrix is copied only if its bytes are misaligned for its type (an odd
//! header, or bytes embedded in the program).

use crate::{
    arch::{Architecture, Part},
    error::ModelError,
    formats::{Tensor, TensorTable, precision},
    kernels::{Elements, Matrix, mapped},
};
use half::{bf16, f16};
use std::sync::Arc;
use talka_base::Precision;

/// A matrix `[rows, cols]`, ready to multiply with. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Weight {
    rows: usize,
    cols: usize,
    store: Store,
}

#[derive(Debug, Clone)]
enum Store {
    /// Aligned where it lies.
    InPlace(Tensor, Precision),
    F32(Arc<[f32]>),
    F16(Arc<[f16]>),
    Bf16(Arc<[bf16]>),
}

impl Store {
    fn elements(&self) -> Elements<'_> {
        match self {
            Self::InPlace(tensor, precision) => {
                view(tensor.bytes(), *precision).expect("alignment was checked when it was loaded")
            }
            Self::F32(elements) => Elements::F32(elements),
            Self::F16(elements) => Elements::F16(elements),
            Self::Bf16(elements) => Elements::Bf16(elements),
        }
    }
}

impl Weight {
    /// # Errors
    /// Names the tensor that is missing, mis-shaped or of a type no kernel reads.
    pub fn load(
        table: &TensorTable,
        architecture: &Architecture,
        part: Part,
    ) -> Result<Self, ModelError> {
        let (tensor, precision) = find(table, architecture, part)?;
        let &[rows, cols] = tensor.shape.as_slice() else {
            unreachable!("{part:?} is a matrix and its shape was checked")
        };
        let store = match view(tensor.bytes(), precision) {
            Some(_) => Store::InPlace(tensor.clone(), precision),
            None => copy(tensor.bytes(), precision),
        };
        Ok(Self { rows, cols, store })
    }

    /// The kernels' view of it.
    pub fn matrix(&self) -> Matrix<'_> {
        Matrix::new(self.rows, self.cols, self.store.elements())
            .expect("the shape was checked against the bytes when it was loaded")
    }
}

/// The weights of a norm, `[D]`, widened.
///
/// # Errors
/// As [`Weight::load`].
pub(crate) fn load_norm(
    table: &TensorTable,
    architecture: &Architecture,
    part: Part,
) -> Result<Vec<f32>, ModelError> {
    let (tensor, precision) = find(table, architecture, part)?;
    let copied;
    let elements = match view(tensor.bytes(), precision) {
        Some(elements) => elements,
        None => {
            copied = copy(tensor.bytes(), precision);
            copied.elements()
        }
    };
    let mut norm = vec![0.0; elements.len()];
    elements.widen_into(0, &mut norm);
    Ok(norm)
}

/// The tensor for `part`, with shape and type as they must be.
fn find<'a>(
    table: &'a TensorTable,
    architecture: &Architecture,
    part: Part,
) -> Result<(&'a Tensor, Precision), ModelError> {
    let name = (architecture.tensor_name)(part);
    let expected = architecture.dimensions(part);
    let Some(tensor) = table.get(&name) else {
        return Err(ModelError::MissingTensor { name, expected });
    };
    if tensor.shape != expected {
        return Err(ModelError::TensorShape { name, found: tensor.shape.clone(), expected });
    }
    match precision(tensor.dtype) {
        Some(precision) => Ok((tensor, precision)),
        None => Err(ModelError::TensorType { name, found: tensor.dtype.to_string() }),
    }
}

fn view(bytes: &[u8], precision: Precision) -> Option<Elements<'_>> {
    match precision {
        Precision::F32 => mapped::view_f32(bytes).map(Elements::F32),
        Precision::F16 => mapped::view_f16(bytes).map(Elements::F16),
        Precision::Bf16 => mapped::view_bf16(bytes).map(Elements::Bf16),
        Precision::Int8 => unreachable!("no tensor of these formats is read as int8"),
    }
}

fn copy(bytes: &[u8], precision: Precision) -> Store {
    fn each<const N: usize, T>(bytes: &[u8], read: fn([u8; N]) -> T) -> Arc<[T]> {
        bytes.as_chunks::<N>().0.iter().map(|b| read(*b)).collect()
    }
    match precision {
        Precision::F32 => Store::F32(each(bytes, f32::from_le_bytes)),
        Precision::F16 => Store::F16(each(bytes, f16::from_le_bytes)),
        Precision::Bf16 => Store::Bf16(each(bytes, bf16::from_le_bytes)),
        Precision::Int8 => unreachable!("no tensor of these formats is read as int8"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misaligned_numbers_are_copied_and_keep_their_values() {
        let numbers = [1.5_f32, -0.25, 1024.0];
        let mut row = [0.0; 3];
        let mut check = |bytes: Vec<u8>, precision| {
            copy(&bytes, precision).elements().widen_into(0, &mut row);
            assert_eq!(row, numbers, "{precision:?}");
        };
        check(numbers.iter().flat_map(|x| x.to_le_bytes()).collect(), Precision::F32);
        check(
            numbers.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
            Precision::F16,
        );
        check(
            numbers.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
            Precision::Bf16,
        );
    }
}
