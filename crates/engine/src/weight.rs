//! Weights of a stage: matrices packed for the kernels, vectors widened to f32.
//!
//! Decides which tensors are acceptable: present, in a type the kernels read, of the shape that the
//! configuration says; and brings the part that is wanted into the order `[N, K]`, wherever the file keeps
//! it ([`Location`]).

use crate::{
    arch::{Architecture, Location, Part},
    error::ModelError,
    formats::{StoredKind, Tensor, TensorTable},
    kernels::{Kernels, Matrix},
    quant::{self, Encoding},
};
use std::{borrow::Cow, sync::Arc};

/// A matrix `[N, K]`, ready to multiply with. Cheap to clone.
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
        let found = Found::find(table, architecture, part)?;
        let &[rows, cols] = found.expected.as_slice() else {
            unreachable!("{part:?} is a matrix and its shape was checked")
        };
        let bytes = found.bytes()?;
        let matrix = Matrix::pack(kernels.pool(), found.encoding, [rows, cols], &bytes);
        let name = found.location.name;
        Ok(Self(Arc::new(matrix.map_err(|source| ModelError::Matrix { name, source })?)))
    }

    /// The kernels' view of it.
    pub fn matrix(&self) -> &Matrix {
        &self.0
    }
}

/// A vector of weights, widened.
///
/// # Errors
/// As [`Weight::load`].
pub(crate) fn load_vector(
    table: &TensorTable,
    architecture: &Architecture,
    part: Part,
) -> Result<Vec<f32>, ModelError> {
    let found = Found::find(table, architecture, part)?;
    let mut vector = vec![0.0; found.expected.iter().product()];
    quant::widen(found.encoding, &found.bytes()?, &mut vector);
    Ok(vector)
}

/// Whether the tensor of `part` is there as it must be.
///
/// # Errors
/// As [`Weight::load`].
pub(crate) fn check(
    table: &TensorTable,
    architecture: &Architecture,
    part: Part,
) -> Result<(), ModelError> {
    Found::find(table, architecture, part).map(drop)
}

/// What a part takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measure {
    /// As it is stored.
    pub bytes: u64,
    pub numbers: u64,
    pub encoding: Encoding,
}

/// Measures a part; `None` if its tensor is missing or wrong.
pub(crate) fn measure(
    table: &TensorTable,
    architecture: &Architecture,
    part: Part,
) -> Option<Measure> {
    let found = Found::find(table, architecture, part).ok()?;
    Some(Measure {
        bytes: found.length() as u64,
        numbers: found.expected.iter().map(|n| *n as u64).product(),
        encoding: found.encoding,
    })
}

/// The tensor of a part, with shape and type as they must be.
struct Found<'a> {
    tensor: &'a Tensor,
    encoding: Encoding,
    location: Location,
    /// The dimensions of the part.
    expected: Vec<usize>,
}

impl<'a> Found<'a> {
    fn find(
        table: &'a TensorTable,
        architecture: &Architecture,
        part: Part,
    ) -> Result<Self, ModelError> {
        let mut location = (architecture.locate)(architecture, part);
        let expected = architecture.dimensions(part);
        let names = architecture.prefixes.iter().map(|prefix| format!("{prefix}{}", location.name));
        let found = names.into_iter().find_map(|name| Some((table.get(&name)?, name)));
        let stored = stored_shape(&location, &expected);
        let Some((tensor, name)) = found else {
            let name = format!("{}{}", architecture.prefixes[0], location.name);
            return Err(ModelError::MissingTensor { name, expected: stored });
        };
        location.name = name;
        if tensor.shape != stored {
            let (name, found) = (location.name, tensor.shape.clone());
            return Err(ModelError::TensorShape { name, found, expected: stored });
        }
        let unread = || ModelError::TensorType {
            name: location.name.clone(),
            found: tensor.kind.to_string(),
        };
        let StoredKind::Known(encoding) = tensor.kind else { return Err(unread()) };
        // Blocks lie along a row: rows can be taken apart, columns cannot.
        if location.transposed && encoding.is_quantised() {
            return Err(unread());
        }
        Ok(Self { tensor, encoding, location, expected })
    }

    /// Bytes of the part.
    fn length(&self) -> usize {
        let rows: usize = self.expected[..self.expected.len() - 1].iter().product();
        self.row_bytes() * rows
    }

    /// Bytes of a row of the part.
    fn row_bytes(&self) -> usize {
        let cols = self.expected[self.expected.len() - 1];
        self.encoding.bytes_of(cols).expect("the bytes were checked against the stored shape")
    }

    /// The bytes of the part, row by row.
    fn bytes(&self) -> Result<Cow<'a, [u8]>, ModelError> {
        let Location { rows, transposed, interleaved_heads, expert, .. } = &self.location;
        let bytes = self.tensor.bytes();
        let row_bytes = self.row_bytes();
        if *transposed {
            return Ok(Cow::Owned(self.transposed(bytes)));
        }
        let length = self.length();
        let bytes = match (rows, expert) {
            (Some((rows, _)), _) => {
                // A vector is one row of which some columns are wanted.
                let unit = if self.expected.len() == 1 {
                    self.encoding.block_bytes() / self.encoding.block_numbers()
                } else {
                    row_bytes
                };
                &bytes[rows.start * unit..rows.end * unit]
            }
            (None, Some((index, _))) => &bytes[index * length..(index + 1) * length],
            (None, None) => bytes,
        };
        match interleaved_heads {
            Some(heads) => Ok(Cow::Owned(uninterleaved(bytes, row_bytes, *heads))),
            None => Ok(Cow::Borrowed(bytes)),
        }
    }

    /// The wanted columns of `[K, N]` floats as rows.
    fn transposed(&self, bytes: &[u8]) -> Vec<u8> {
        let (n, k) = (self.expected[0], self.expected[1]);
        let (columns, total) = self.location.rows.clone().unwrap_or((0..n, n));
        let size = self.encoding.block_bytes();
        let mut out = Vec::with_capacity(n * k * size);
        for column in columns {
            for row in 0..k {
                out.extend_from_slice(&bytes[(row * total + column) * size..][..size]);
            }
        }
        out
    }
}

/// The dimensions of the tensor that holds a part of dimensions `expected`.
fn stored_shape(location: &Location, expected: &[usize]) -> Vec<usize> {
    let mut stored = expected.to_vec();
    if let Some((_, total)) = &location.rows {
        stored[0] = *total;
    }
    if location.transposed {
        stored.reverse();
    }
    if let Some((_, count)) = location.expert {
        stored.insert(0, count);
    }
    stored
}

/// The rows of each head in two halves instead of pairs: rotations here turn element `i` with element
/// `i + half`.
fn uninterleaved(bytes: &[u8], row_bytes: usize, heads: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for head in bytes.chunks_exact(bytes.len() / heads) {
        for first in [0, 1] {
            for row in head.chunks_exact(row_bytes).skip(first).step_by(2) {
                out.extend_from_slice(row);
            }
        }
    }
    out
}
