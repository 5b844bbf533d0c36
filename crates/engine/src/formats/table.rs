//! The table of a model's tensors, whatever the format of its files.

use super::FileBytes;
use crate::{error::ModelError, quant::Encoding};
use std::{collections::BTreeMap, fmt, ops::Range, sync::Arc};
use talka_base::{ModelId, Precision};

/// How much of each end of a tensor its model's id covers. A fine-tune changes nearly every
/// number, so a page at each end tells it apart, and no file is read whole to be named.
pub(super) const SAMPLE_BYTES: usize = 4096;

/// Every tensor of a model, by name.
#[derive(Debug, Default)]
pub(crate) struct TensorTable {
    tensors: BTreeMap<String, Tensor>,
}

/// Where one tensor lies and what its bytes are.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub kind: StoredKind,
    /// Slowest dimension first.
    pub shape: Vec<usize>,
    pub(super) file: Arc<FileBytes>,
    /// Within `file`; checked against its length when the header was read.
    pub(super) range: Range<usize>,
}

/// What a tensor's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoredKind {
    Known(Encoding),
    /// By its name in the file: no kernel reads it.
    Other(String),
}

impl fmt::Display for StoredKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(encoding) => encoding.fmt(f),
            Self::Other(name) => f.write_str(name),
        }
    }
}

impl Tensor {
    /// Its numbers, little-endian.
    ///
    /// # Errors
    /// [`ModelError::NotFetched`] if it is not on this computer.
    pub fn bytes(&self) -> Result<&[u8], ModelError> {
        match &*self.file {
            FileBytes::Apart(tensor) => tensor.bytes(),
            file @ (FileBytes::Mapped(_) | FileBytes::Embedded(_)) => Ok(&file[self.range.clone()]),
        }
    }

    /// What the model's id covers of it: both ends.
    pub fn samples(&self) -> (&[u8], &[u8]) {
        match &*self.file {
            FileBytes::Apart(tensor) => tensor.samples(),
            file @ (FileBytes::Mapped(_) | FileBytes::Embedded(_)) => {
                let bytes = &file[self.range.clone()];
                let sample = bytes.len().min(SAMPLE_BYTES);
                (&bytes[..sample], &bytes[bytes.len() - sample..])
            }
        }
    }

    /// Gives back the memory of its bytes, which were packed.
    pub fn release(&self) {
        let file = match &*self.file {
            FileBytes::Mapped(file) => Some(file),
            FileBytes::Apart(tensor) => tensor.mapped(),
            FileBytes::Embedded(_) => None,
        };
        if let Some(file) = file {
            file.release(self.range.clone());
        }
    }
}

impl TensorTable {
    /// # Errors
    /// [`ModelError::TwiceStored`] if there is one of that name.
    pub(super) fn insert(&mut self, name: String, tensor: Tensor) -> Result<(), ModelError> {
        match self.tensors.insert(name.clone(), tensor) {
            None => Ok(()),
            Some(_) => Err(ModelError::TwiceStored { name }),
        }
    }

    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The precision most of the bytes are stored in, of those a stage can hold.
    pub fn precision(&self) -> Precision {
        let mut bytes = BTreeMap::<Precision, usize>::new();
        for tensor in self.tensors.values() {
            if let StoredKind::Known(encoding) = tensor.kind {
                *bytes.entry(encoding.precision()).or_default() += tensor.range.len();
            }
        }
        let most = bytes.into_iter().max_by_key(|(_, bytes)| *bytes);
        most.map_or(Precision::F32, |(precision, _)| precision)
    }

    /// The model's identity: its configuration, its tokenizer and a sample of every tensor, in the
    /// order of their names, so that neither the folder's name nor the cut into shards matters.
    pub fn id(&self, config: &[u8], tokenizer: &[u8]) -> ModelId {
        let mut hasher = blake3::Hasher::new_derive_key("talka model id, version 1");
        // Each part is preceded by its length, so that no two models spell the same bytes.
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(config);
        part(tokenizer);
        for (name, tensor) in &self.tensors {
            part(name.as_bytes());
            part(tensor.kind.to_string().as_bytes());
            let shape: Vec<u8> =
                tensor.shape.iter().flat_map(|n| (*n as u64).to_le_bytes()).collect();
            part(&shape);
            let (head, tail) = tensor.samples();
            part(head);
            part(tail);
        }
        ModelId(*hasher.finalize().as_bytes())
    }
}
