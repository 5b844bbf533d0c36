//! What a model is whose weights are elsewhere and can be read in parts, such as on a hub.
//!
//! Decides which parts tell it: the headers of its safetensors files, and both ends of each tensor, which is
//! all that a model's id covers. A [`Survey`] says what to read; [`Surveyed`] is what comes of it, an
//! [`Outline`] without hashes and the place of every tensor. Reads nothing itself.

use super::{
    ModelSource, Outline, OutlineError, StoredKind,
    outline::{
        DIMENSIONS_MAX, OUTLINE_BYTES_MAX, TENSORS_MAX, TensorOutline, at_most, small_files,
    },
    safetensors::{self, SINGLE},
    table::SAMPLE_BYTES,
};
use crate::error::ModelError;
use ::safetensors::SafeTensorError;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, ops::Range, path::Path};
use talka_base::{Encoded, decode, try_encode};

/// More than any model is cut into.
const FILES_MAX: usize = 1_000;

/// The first bytes of a file, which tell how long its header is.
pub const HEADER_START_BYTES: u64 = 8;

/// How many bytes of a file its header takes, [`HEADER_START_BYTES`] included; `start` are its first bytes.
///
/// # Errors
/// [`ModelError::Header`] if no header is so long, or the file called `file` is shorter.
pub fn header_bytes(file: &str, file_bytes: u64, start: &[u8]) -> Result<u64, ModelError> {
    let wrong = |source| ModelError::Header { file: file.into(), source };
    let start = start.first_chunk().ok_or_else(|| wrong(SafeTensorError::HeaderTooSmall))?;
    let length = u64::from_le_bytes(*start);
    if length > safetensors::HEADER_BYTES_MAX {
        return Err(wrong(SafeTensorError::HeaderTooLarge));
    }
    match length + HEADER_START_BYTES {
        whole if whole <= file_bytes => Ok(whole),
        _ => Err(wrong(SafeTensorError::InvalidHeaderLength)),
    }
}

/// The names of the files of weights that the model in `folder` has, by its index if it has one. They need
/// not be there.
///
/// # Errors
/// [`ModelError`] if the index is wrong.
pub fn weight_files(folder: &Path) -> Result<Vec<String>, ModelError> {
    let places = safetensors::index(&ModelSource::Folder(folder.into()))?;
    let Some(places) = places else { return Ok(vec![SINGLE.into()]) };
    let mut files: Vec<String> = places.into_values().collect();
    files.sort_unstable();
    files.dedup();
    Ok(files)
}

/// Where a tensor lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Which of [`Surveyed::files`].
    pub file: u32,
    /// Its first byte there.
    pub start: u64,
}

/// A part of a file that has to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Which file, counted from 0.
    pub file: u32,
    /// Which of its bytes; never none, at most 8 KiB.
    pub range: Range<u64>,
}

/// A model whose headers were read.
#[derive(Debug)]
pub struct Survey {
    files: Vec<String>,
    tensors: BTreeMap<String, Found>,
}

#[derive(Debug)]
struct Found {
    kind: StoredKind,
    shape: Vec<usize>,
    place: Place,
    bytes: u64,
}

impl Found {
    /// Both ends, as one part where they meet.
    fn samples(&self) -> Vec<Sample> {
        let Place { file, start } = self.place;
        let (sample, end) = (SAMPLE_BYTES as u64, start + self.bytes);
        let part = |range| Sample { file, range };
        match self.bytes {
            0 => Vec::new(),
            bytes if bytes <= 2 * sample => vec![part(start..end)],
            _ => vec![part(start..start + sample), part(end - sample..end)],
        }
    }
}

impl Survey {
    /// `headers` are the names, lengths and [`header_bytes`] of all files.
    ///
    /// # Errors
    /// [`OutlineError`] if a header is none, does not describe its file, or says what another one says.
    pub fn new(headers: &[(String, u64, Vec<u8>)]) -> Result<Self, OutlineError> {
        let mut survey = Self { files: Vec::new(), tensors: BTreeMap::new() };
        for ((name, bytes, header), file) in headers.iter().zip(0..) {
            let (data_start, metadata) = safetensors::header(name, header, *bytes)?;
            for (tensor, info) in metadata.tensors() {
                let (start, end) = info.data_offsets;
                if info.shape.len() > DIMENSIONS_MAX {
                    let what = "it has more dimensions than any tensor";
                    return Err(OutlineError::Tensor { name: tensor, what });
                }
                let found = Found {
                    kind: safetensors::kind(info.dtype),
                    shape: info.shape.clone(),
                    place: Place { file, start: (data_start + start) as u64 },
                    bytes: (end - start) as u64,
                };
                if survey.tensors.insert(tensor.clone(), found).is_some() {
                    return Err(ModelError::TwiceStored { name: tensor }.into());
                }
            }
            survey.files.push(name.clone());
        }
        let found = survey.tensors.len();
        if found > TENSORS_MAX { Err(OutlineError::Tensors { found }) } else { Ok(survey) }
    }

    /// What has to be read beside the headers.
    pub fn samples(&self) -> Vec<Sample> {
        self.tensors.values().flat_map(Found::samples).collect()
    }

    /// The model, once `samples` hold the bytes of [`Self::samples`] in their order, and its small files lie in
    /// `folder`.
    ///
    /// # Errors
    /// [`OutlineError::Places`] for samples that are others, or a small file cannot be read.
    pub fn finish(self, folder: &Path, samples: Vec<Vec<u8>>) -> Result<Surveyed, OutlineError> {
        let mut samples = samples.into_iter();
        let (mut tensors, mut places) = (Vec::new(), Vec::new());
        for (name, found) in self.tensors {
            let mut ends = Vec::new();
            for expected in found.samples() {
                let bytes = samples.next().filter(|bytes| is_length(bytes, &expected.range));
                ends.push(bytes.ok_or(OutlineError::Places)?);
            }
            let first = ends.first().map_or(&[][..], Vec::as_slice);
            let last = ends.last().map_or(&[][..], Vec::as_slice);
            let sample = SAMPLE_BYTES.min(found.bytes as usize);
            let ends = [first[..sample].to_vec(), last[last.len() - sample..].to_vec()];
            let Found { kind, shape, place, bytes } = found;
            tensors.push(TensorOutline::unhashed(name, &kind, &shape, bytes, ends));
            places.push(place);
        }
        let files = small_files(&ModelSource::Folder(folder.into()))?;
        let outline = Outline::unhashed(files, tensors);
        outline.check()?;
        Ok(Surveyed { outline, files: self.files, places })
    }
}

fn is_length(bytes: &[u8], range: &Range<u64>) -> bool {
    bytes.len() as u64 == range.end - range.start
}

/// A model whose weights are elsewhere: what it is, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surveyed {
    outline: Outline,
    #[serde(deserialize_with = "at_most::<_, _, FILES_MAX>")]
    files: Vec<String>,
    /// Of the tensors, in their order.
    #[serde(deserialize_with = "at_most::<_, _, TENSORS_MAX>")]
    places: Vec<Place>,
}

impl Encoded for Surveyed {
    const NAME: &'static str = "model survey";
    const SIZE_MAX: usize = OUTLINE_BYTES_MAX;
}

impl Surveyed {
    /// The bytes to keep.
    ///
    /// # Errors
    /// [`OutlineError::Codec`] beyond [`OUTLINE_BYTES_MAX`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, OutlineError> {
        Ok(try_encode(self)?)
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`OutlineError`] if the bytes were damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, OutlineError> {
        let surveyed: Self = decode(bytes)?;
        surveyed.outline.check()?;
        let tensors = surveyed.outline.tensors();
        let is_sound = |(tensor, place): (&TensorOutline, &Place)| {
            (place.file as usize) < surveyed.files.len()
                && place.start.checked_add(tensor.bytes()).is_some()
        };
        let are_all = tensors.len() == surveyed.places.len();
        if are_all && tensors.iter().zip(&surveyed.places).all(is_sound) {
            Ok(surveyed)
        } else {
            Err(OutlineError::Places)
        }
    }

    /// What it is, without hashes.
    pub fn outline(&self) -> &Outline {
        &self.outline
    }

    /// Names of the files in which tensors lie.
    pub fn files(&self) -> &[String] {
        &self.files
    }

    /// Where the tensor of that number lies.
    pub fn place(&self, tensor: usize) -> Option<Place> {
        self.places.get(tensor).copied()
    }
}
