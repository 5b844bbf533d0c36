//! Weights of a stage: matrices packed for the kernels, norms widened to f32.
//!
//! Decides which tensors are acceptable: present, in a type the kernels read, of the shape that the
//! configuration says.

use crate::{
    arch::{Architecture, Part},
    error::ModelError,
    formats::{Tensor, TensorTable, encoding},
    kernels::{Kernels, Matrix},
    quant::{self, Encoding},
};
use std::sync::Arc;

/// A matrix `[rows, cols]`, ready to multiply with. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Weight(Arc<Matrix>);

impl Weight {
    /// # Errors
    /// Names the tensor that is missing, mis-shaped or of a type no kernel reads.
    pub fn load(
        table: &TensorTable,
        architecture: &Architecture,
        part: Part,
        kernels: &Kernels,
    ) -> Result<Self, ModelError> {
        let (tensor, encoding) = find(table, architecture, part)?;
        let &[rows, cols] = tensor.shape.as_slice() else {
            unreachable!("{part:?} is a matrix and its shape was checked")
        };
        let matrix = Matrix::pack(kernels.pool(), encoding, [rows, cols], tensor.bytes());
        let name = (architecture.tensor_name)(part);
        Ok(Self(Arc::new(matrix.map_err(|source| ModelError::Matrix { name, source })?)))
    }

    /// The kernels' view of it.
    pub fn matrix(&self) -> &Matrix {
        &self.0
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
    let (tensor, encoding) = find(table, architecture, part)?;
    let mut norm = vec![0.0; tensor.shape.iter().product()];
    quant::widen(encoding, tensor.bytes(), &mut norm);
    Ok(norm)
}

/// The tensor for `part`, with shape and type as they must be.
fn find<'a>(
    table: &'a TensorTable,
    architecture: &Architecture,
    part: Part,
) -> Result<(&'a Tensor, Encoding), ModelError> {
    let name = (architecture.tensor_name)(part);
    let expected = architecture.dimensions(part);
    let Some(tensor) = table.get(&name) else {
        return Err(ModelError::MissingTensor { name, expected });
    };
    if tensor.shape != expected {
        return Err(ModelError::TensorShape { name, found: tensor.shape.clone(), expected });
    }
    match encoding(tensor.dtype) {
        Some(encoding) => Ok((tensor, encoding)),
        None => Err(ModelError::TensorType { name, found: tensor.dtype.to_string() }),
    }
}
