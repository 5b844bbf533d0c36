//! Weights of a stage: matrices packed for the kernels, vectors widened to f32.
//!
//! Decides which tensors are acceptable: present, in a type the kernels read, of the shape that the
//! configuration says; and brings the part that is wanted into the order `[N, K]`, wherever the file keeps
//! it ([`Location`]).

use crate::{
    arch::{Architecture, LayerPart, Location, Part},
    error::ModelError,
    formats::{StoredKind, Tensor, TensorTable},
    kernels::{Kernels, Matrix, ThreadPool},
    quant::{self, Encoding},
};
use std::{
    borrow::Cow,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// A matrix `[N, K]`, ready to multiply with. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Weight(Arc<Matrix>);

impl Weight {
    /// Packs the matrix of `part`, as it is stored or in the encoding that the architecture wants.
    ///
    /// # Errors
    /// Names the tensor that is missing, mis-shaped, of a type no kernel reads, or not finite.
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
        found.check_finite(&bytes, kernels.pool())?;
        let pool = kernels.pool();
        let matrix = match wanted(architecture, part, found.encoding, cols) {
            None => Matrix::pack(pool, found.encoding, [rows, cols], &bytes),
            Some(wanted) => {
                let bytes = requantised(pool, found.encoding, wanted, cols, &bytes);
                Matrix::pack(pool, wanted, [rows, cols], &bytes)
            }
        };
        drop(bytes);
        found.tensor.release();
        let name = found.location.name;
        Ok(Self(Arc::new(matrix.map_err(|source| ModelError::Matrix { name, source })?)))
    }

    /// The kernels' view of it.
    pub fn matrix(&self) -> &Matrix {
        &self.0
    }
}

/// The encoding to bring a matrix of `cols` inputs to, if not the one it is stored in. What is small or
/// chooses experts stays as it is, and so does what is stored in fewer bits already.
fn wanted(
    architecture: &Architecture,
    part: Part,
    stored: Encoding,
    cols: usize,
) -> Option<Encoding> {
    let mut wanted = architecture.weights?;
    if matches!(part, Part::Positions | Part::Types | Part::Layer(_, LayerPart::Router)) {
        return None;
    }
    if wanted.bytes_of(cols).is_none() || part == Part::Embedding {
        wanted = Encoding::Q8_0;
    }
    let bits = |encoding: Encoding| encoding.block_bytes() * 256 / encoding.block_numbers();
    (wanted.bytes_of(cols).is_some() && bits(wanted) < bits(stored)).then_some(wanted)
}

/// The rows of `bytes` in another encoding, on all threads.
fn requantised(
    pool: &ThreadPool,
    stored: Encoding,
    wanted: Encoding,
    cols: usize,
    bytes: &[u8],
) -> Vec<u8> {
    let row_bytes = stored.bytes_of(cols).expect("the bytes were checked against the shape");
    let rows: Vec<&[u8]> = bytes.chunks_exact(row_bytes).collect();
    let parts: Vec<OnceLock<Vec<u8>>> = rows.iter().map(|_| OnceLock::new()).collect();
    pool.run(rows.len(), &|row| {
        let mut numbers = vec![0.0; cols];
        quant::widen(stored, rows[row], &mut numbers);
        parts[row].get_or_init(|| quant::quantise(wanted, &numbers));
    });
    parts.into_iter().filter_map(OnceLock::into_inner).flatten().collect()
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
    if vector.iter().all(|x| x.is_finite()) {
        return Ok(vector);
    }
    Err(ModelError::NotFinite { name: found.location.name })
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

/// The name of the tensor that holds `part`, if it is as it must be.
pub(crate) fn name(table: &TensorTable, architecture: &Architecture, part: Part) -> Option<String> {
    Found::find(table, architecture, part).ok().map(|found| found.location.name)
}

/// What a part takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measure {
    /// As a stage holds them.
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
    let numbers = found.expected.iter().map(|n| *n as u64).product();
    let cols = found.expected[found.expected.len() - 1];
    let wanted = (found.expected.len() > 1)
        .then(|| wanted(architecture, part, found.encoding, cols))
        .flatten();
    let encoding = wanted.unwrap_or(found.encoding);
    let bytes = encoding.bytes_of(cols).unwrap_or(0) as u64 * (numbers / cols as u64);
    Some(Measure { bytes, numbers, encoding })
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
        let names = architecture.spellings(&location.name);
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

    /// # Errors
    /// [`ModelError::NotFinite`] names the tensor if a number in it is infinite or none.
    fn check_finite(&self, bytes: &[u8], pool: &ThreadPool) -> Result<(), ModelError> {
        /// Whole blocks of every encoding, and enough work for a job.
        const BLOCKS: usize = 1 << 14;
        let parts: Vec<&[u8]> = bytes.chunks(BLOCKS * self.encoding.block_bytes()).collect();
        let finite = AtomicBool::new(true);
        pool.run(parts.len(), &|part| {
            if !quant::is_finite(self.encoding, parts[part]) {
                finite.store(false, Ordering::Relaxed);
            }
        });
        if finite.into_inner() {
            return Ok(());
        }
        Err(ModelError::NotFinite { name: self.location.name.clone() })
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
        let bytes = self.tensor.bytes()?;
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
