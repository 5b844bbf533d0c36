//! Where a model's files come from, and the table of its tensors.
//!
//! Decides what counts as a model in the Hugging Face layout: `config.json`, `tokenizer.json`, and
//! `model.safetensors` or the shards that `model.safetensors.index.json` names; or a GGUF file, which
//! holds all of that; or an [`Outline`] and the tensors that were fetched. Reads headers only; the
//! weights stay in mapped files until a stage packs them.
//!
//! Everything here may come from a stranger: sizes are bounded before they are read, names may not
//! leave the folder, and a header that lies about its file is refused.

mod gguf;
mod gguf_cuts;
mod gguf_model;
mod gguf_tokenizer;
mod outline;
mod safetensors;
mod survey;
mod table;

use crate::{error::ModelError, kernels::MappedFile};
use std::{
    fs::File,
    io::{self, Read as _},
    ops::Deref,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use gguf::GgufError;
pub(crate) use gguf_model::{GgufModel, open as open_gguf};
pub use outline::{
    OUTLINE_BYTES_MAX, Outline, OutlineError, PIECE_BYTES, PartialModel, TensorOutline,
};
pub use survey::{HEADER_START_BYTES, Place, Sample, Survey, Surveyed, header_bytes, weight_files};
pub(crate) use table::{StoredKind, Tensor, TensorTable};

/// A model whose files are part of the program. No disk is touched.
#[derive(Debug, Clone, Copy)]
pub struct BundledModel {
    /// What it is called.
    pub name: &'static str,
    /// File names, as in a folder, and their bytes.
    pub files: &'static [(&'static str, &'static [u8])],
}

/// Where to find a model.
#[derive(Debug, Clone)]
pub enum ModelSource {
    /// A folder in the Hugging Face layout.
    Folder(PathBuf),
    /// A GGUF file, or the first of its parts.
    Gguf(PathBuf),
    /// Files within the program.
    Bundled(&'static BundledModel),
    /// An outline and such tensors as were fetched from elsewhere.
    Partial(Arc<PartialModel>),
}

/// The bytes of one file of weights.
#[derive(Debug)]
pub(crate) enum FileBytes {
    Mapped(MappedFile),
    Embedded(&'static [u8]),
    /// One tensor, which may not be there yet.
    Apart(outline::Apart),
}

impl Deref for FileBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(file) => file,
            Self::Embedded(bytes) => bytes,
            Self::Apart(tensor) => tensor.mapped().map_or(&[], |file| file),
        }
    }
}

impl ModelSource {
    /// The folder's name, or the bundled model's.
    pub fn name(&self) -> String {
        match self {
            Self::Bundled(model) => model.name.into(),
            Self::Partial(model) => model.name().into(),
            Self::Gguf(path) => {
                let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
                let stem = stem.unwrap_or_else(|| "model".into());
                // What the first of several parts adds.
                match stem.split_once("-00001-of-") {
                    Some((name, _)) => name.into(),
                    None => stem,
                }
            }
            Self::Folder(path) => {
                // `..` and `.` have no name of their own.
                let full = path.canonicalize();
                let name = full.as_deref().unwrap_or(path).file_name();
                name.map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned())
            }
        }
    }

    /// The bytes of a small file, `None` if the model has no such file.
    pub(crate) fn read(&self, file: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, ModelError> {
        match self {
            Self::Bundled(model) => Ok(model.find(file).map(<[u8]>::to_vec)),
            // It is one file with everything in it.
            Self::Gguf(_) => Ok(None),
            Self::Partial(model) => Ok(model.file(file)),
            Self::Folder(folder) => read_bounded(&folder.join(file), file, bytes_max),
        }
    }

    /// As [`Self::read`], for a file no model lacks.
    pub(crate) fn require(&self, file: &str, bytes_max: u64) -> Result<Vec<u8>, ModelError> {
        self.read(file, bytes_max)?.ok_or_else(|| self.lacks(file))
    }

    /// A file of weights, mapped; `None` if the model has no such file.
    pub(crate) fn map(&self, file: &str) -> Result<Option<FileBytes>, ModelError> {
        match self {
            Self::Bundled(model) => Ok(model.find(file).map(FileBytes::Embedded)),
            Self::Gguf(_) | Self::Partial(_) => Ok(None),
            Self::Folder(folder) => map(&folder.join(file), file),
        }
    }

    /// The table of its tensors, from their headers.
    pub(crate) fn tensors(&self) -> Result<TensorTable, ModelError> {
        match self {
            Self::Partial(model) => model.table(),
            Self::Folder(_) | Self::Bundled(_) | Self::Gguf(_) => safetensors::open(self),
        }
    }

    pub(crate) fn lacks(&self, file: &str) -> ModelError {
        let place = match self {
            Self::Folder(path) | Self::Gguf(path) => path.display().to_string(),
            Self::Bundled(model) => format!("the bundled model {}", model.name),
            Self::Partial(model) => format!("the outline of {}", model.name()),
        };
        ModelError::MissingFile { file: file.into(), place }
    }
}

impl BundledModel {
    fn find(&self, file: &str) -> Option<&'static [u8]> {
        self.files.iter().find(|(name, _)| *name == file).map(|(_, bytes)| *bytes)
    }
}

/// A file mapped, `None` if there is none.
fn map(path: &Path, file: &str) -> Result<Option<FileBytes>, ModelError> {
    found(MappedFile::open(path))
        .map(|file| file.map(FileBytes::Mapped))
        .map_err(|source| ModelError::Read { file: file.into(), source })
}

fn read_bounded(path: &Path, file: &str, max: u64) -> Result<Option<Vec<u8>>, ModelError> {
    let fail = |source| ModelError::Read { file: file.into(), source };
    let Some(opened) = found(File::open(path)).map_err(fail)? else { return Ok(None) };
    let mut bytes = Vec::new();
    opened.take(max + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > max {
        return Err(ModelError::FileTooLarge { file: file.into(), max });
    }
    Ok(Some(bytes))
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
