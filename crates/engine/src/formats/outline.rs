//! A model told in few words, so that another computer can fetch the tensors it needs and no others.
//!
//! An [`Outline`] holds a model's small files as they are, and of each tensor its shape, the samples that
//! the model's id covers and the hash of every piece. Whoever has it knows the model's id, size and
//! tokenizer without a single weight. A [`PartialModel`] is an outline with a folder in which each tensor
//! that was fetched is a file of its own; [`Model::open`](crate::Model::open) takes it like any other.
//!
//! An outline comes from a stranger: it is bounded before it is parsed, its files are kept in memory and
//! never written under the names it gives, and a tensor's file is named by its number.

use super::{FileBytes, ModelSource, StoredKind, Tensor, TensorTable, table::SAMPLE_BYTES};
use crate::{error::ModelError, kernels::MappedFile, quant::Encoding};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, SeqAccess, Visitor},
};
use std::{
    fmt, fs, io,
    marker::PhantomData,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::UNIX_EPOCH,
};
use talka_base::{CodecError, Encoded, decode, try_encode};

/// Bytes of every piece of a tensor but the last.
///
/// A piece is the unit of asking, checking and beginning again: on a line of 10 Mbit/s it takes a fifth of a
/// second, so nothing waits long behind one, and the hashes are an eight-thousandth of the weights.
pub const PIECE_BYTES: usize = 256 << 10;

/// The largest outline, in bytes: the hashes and samples of 30,000 tensors.
pub const OUTLINE_BYTES_MAX: usize = 256 << 20;

/// More tensors than any model has whose outline would fit.
pub(super) const TENSORS_MAX: usize = 1 << 15;
pub(super) const DIMENSIONS_MAX: usize = 8;

/// Everything beside the weights that [`Model::open`](crate::Model::open) may ask for.
const FILES: [&str; 8] = [
    "config.json",
    "tokenizer.json",
    "generation_config.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
];
const FILE_BYTES_MAX: u64 = 128 << 20;

/// What a model is, without its weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outline {
    /// Names and bytes of the small files.
    #[serde(deserialize_with = "at_most::<_, _, { FILES.len() }>")]
    files: Vec<(String, Vec<u8>)>,
    /// By name, in its order.
    #[serde(deserialize_with = "at_most::<_, _, TENSORS_MAX>")]
    tensors: Vec<TensorOutline>,
}

/// What one tensor is, without its numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorOutline {
    name: String,
    /// As [`StoredKind`] is written.
    kind: String,
    /// Slowest dimension first.
    #[serde(deserialize_with = "at_most::<_, _, DIMENSIONS_MAX>")]
    shape: Vec<u64>,
    bytes: u64,
    /// What the model's id covers of it.
    head: Vec<u8>,
    tail: Vec<u8>,
    /// BLAKE3 of each piece of [`PIECE_BYTES`]; none of them if nobody read all of it.
    pieces: Vec<[u8; 32]>,
}

impl Encoded for Outline {
    const NAME: &'static str = "model outline";
    const SIZE_MAX: usize = OUTLINE_BYTES_MAX;
}

/// Why there is no outline.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in the messages")]
pub enum OutlineError {
    /// The model itself cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The bytes are no outline, or one that is too large.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Tensors of a GGUF file depend on its header.
    #[error("{name} is a GGUF file; only models of safetensors files are given to other nodes")]
    Gguf { name: String },
    /// More tensors than an outline lists.
    #[error("{found} tensors, expected at most {TENSORS_MAX}")]
    Tensors { found: usize },
    /// What is said of a tensor contradicts itself.
    #[error("the outline of tensor {name:?} is wrong: {what}")]
    Tensor { name: String, what: &'static str },
    /// Parts of it were fetched from where nobody tells hashes.
    #[error("{name} came in parts from a place that tells no hashes, so there are none to pass on")]
    Unhashed { name: String },
    /// Where tensors are said to lie contradicts what they are.
    #[error("the record of where its tensors lie is damaged")]
    Places,
}

impl Outline {
    /// The outline of the model at `source`. Reads all of its weights once.
    ///
    /// # Errors
    /// [`OutlineError`] for a model that cannot be read, a GGUF file, or a [`Surveyed`](super::Surveyed) model.
    pub fn of(source: &ModelSource) -> Result<Self, OutlineError> {
        match source {
            ModelSource::Gguf(_) => return Err(OutlineError::Gguf { name: source.name() }),
            ModelSource::Partial(partial) if partial.outline.is_hashed() => {
                return Ok(partial.outline.clone());
            }
            ModelSource::Partial(_) => return Err(OutlineError::Unhashed { name: source.name() }),
            ModelSource::Folder(_) | ModelSource::Bundled(_) => {}
        }
        let files = small_files(source)?;
        let table = source.tensors()?;
        let found = table.iter().count();
        if found > TENSORS_MAX {
            return Err(OutlineError::Tensors { found });
        }
        let outline = |(name, tensor): (&str, &Tensor)| TensorOutline::of(name, tensor);
        Ok(Self { files, tensors: table.iter().map(outline).collect::<Result<_, _>>()? })
    }

    /// What changes when a file of the model at `source` does, by lengths and times of change: whoever kept an
    /// outline need not read all weights again. `None` where making it takes no time.
    ///
    /// # Errors
    /// Whatever the operating system reports.
    pub fn stamp(source: &ModelSource) -> io::Result<Option<[u8; 32]>> {
        let ModelSource::Folder(folder) = source else { return Ok(None) };
        let weights =
            fs::read_dir(folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> =
            weights.filter(|name| name.ends_with(".safetensors")).collect();
        names.extend(FILES.map(String::from));
        names.sort_unstable();
        let mut hasher = blake3::Hasher::new_derive_key("talka model files, version 1");
        for name in names {
            let Ok(file) = fs::metadata(folder.join(&name)) else { continue };
            let changed = file.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
            hasher.update(&file.len().to_le_bytes()).update(&changed.as_nanos().to_le_bytes());
        }
        Ok(Some(hasher.finalize().into()))
    }

    /// Without hashes, of tensors in the order of their names.
    pub(super) fn unhashed(files: Vec<(String, Vec<u8>)>, tensors: Vec<TensorOutline>) -> Self {
        Self { files, tensors }
    }

    /// Whether it tells the hash of every piece.
    fn is_hashed(&self) -> bool {
        self.tensors.iter().all(|tensor| tensor.pieces.len() == tensor.piece_count())
    }

    /// The bytes to send and keep.
    ///
    /// # Errors
    /// [`OutlineError::Codec`] beyond [`OUTLINE_BYTES_MAX`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, OutlineError> {
        Ok(try_encode(self)?)
    }

    /// Reads what [`Self::to_bytes`] wrote, maybe elsewhere.
    ///
    /// # Errors
    /// [`OutlineError::Codec`] or [`OutlineError::Tensor`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, OutlineError> {
        let outline: Self = decode(bytes)?;
        outline.check()?;
        let lacking = outline.tensors.iter().find(|t| t.pieces.len() != t.piece_count());
        match lacking {
            Some(tensor) => Err(tensor.wrong("expected one hash for each piece")),
            None => Ok(outline),
        }
    }

    /// Everything but the number of hashes.
    pub(super) fn check(&self) -> Result<(), OutlineError> {
        self.tensors.iter().try_for_each(TensorOutline::check)?;
        match self.tensors.array_windows().find(|[a, b]| a.name >= b.name) {
            Some([_, late]) => Err(late.wrong("expected each name once, in order")),
            None => Ok(()),
        }
    }

    /// All tensors, in the order of their numbers.
    pub fn tensors(&self) -> &[TensorOutline] {
        &self.tensors
    }

    /// The number of the tensor called `name`.
    pub fn number(&self, name: &str) -> Option<usize> {
        self.tensors.binary_search_by(|tensor| tensor.name.as_str().cmp(name)).ok()
    }

    fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.iter().find(|(file, _)| file == name).map(|(_, bytes)| bytes.as_slice())
    }
}

impl TensorOutline {
    /// Without hashes: `head` and `tail` are its first and last bytes, at most [`SAMPLE_BYTES`].
    pub(super) fn unhashed(
        name: String,
        kind: &StoredKind,
        shape: &[usize],
        bytes: u64,
        [head, tail]: [Vec<u8>; 2],
    ) -> Self {
        let shape = shape.iter().map(|n| *n as u64).collect();
        Self { name, kind: kind.to_string(), shape, bytes, head, tail, pieces: Vec::new() }
    }

    fn of(name: &str, tensor: &Tensor) -> Result<Self, ModelError> {
        let bytes = tensor.bytes()?;
        let (head, tail) = tensor.samples();
        let outline = Self {
            name: name.into(),
            kind: tensor.kind.to_string(),
            shape: tensor.shape.iter().map(|n| *n as u64).collect(),
            bytes: bytes.len() as u64,
            head: head.into(),
            tail: tail.into(),
            pieces: bytes.chunks(PIECE_BYTES).map(|piece| blake3::hash(piece).into()).collect(),
        };
        tensor.release();
        Ok(outline)
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long it is.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// BLAKE3 of each of its pieces; none if they are not known.
    pub fn pieces(&self) -> &[[u8; 32]] {
        &self.pieces
    }

    /// How many pieces it has.
    pub fn piece_count(&self) -> usize {
        (self.bytes as usize).div_ceil(PIECE_BYTES)
    }

    /// Where a piece, counted from 0, lies in it; `None` if there is no such piece.
    pub fn piece_range(&self, piece: usize) -> Option<Range<u64>> {
        let start = (piece as u64).checked_mul(PIECE_BYTES as u64)?;
        (start < self.bytes).then(|| start..self.bytes.min(start + PIECE_BYTES as u64))
    }

    /// Whether `bytes` may be that piece: of its length, of its hash if that is known, else with the samples
    /// that the model's id covers where it has any.
    pub fn accepts(&self, piece: usize, bytes: &[u8]) -> bool {
        let Some(range) = self.piece_range(piece) else { return false };
        if bytes.len() as u64 != range.end - range.start {
            return false;
        }
        if let Some(hash) = self.pieces.get(piece) {
            return blake3::hash(bytes) == *hash;
        }
        let agrees = |at: u64, sample: &[u8]| {
            let start = range.start.max(at);
            let end = range.end.min(at + sample.len() as u64);
            let within = |from: u64| (start - from) as usize..(end - from) as usize;
            start >= end || sample[within(at)] == bytes[within(range.start)]
        };
        agrees(0, &self.head) && agrees(self.bytes - self.tail.len() as u64, &self.tail)
    }

    fn kind(&self) -> StoredKind {
        match self.kind.as_str() {
            "F32" => StoredKind::Known(Encoding::F32),
            "F16" => StoredKind::Known(Encoding::F16),
            "BF16" => StoredKind::Known(Encoding::Bf16),
            other => StoredKind::Other(other.into()),
        }
    }

    fn wrong(&self, what: &'static str) -> OutlineError {
        OutlineError::Tensor { name: self.name.chars().take(100).collect(), what }
    }

    fn check(&self) -> Result<(), OutlineError> {
        let numbers = self
            .shape
            .iter()
            .try_fold(1_usize, |product, n| product.checked_mul(usize::try_from(*n).ok()?));
        let numbers = numbers.ok_or_else(|| self.wrong("its shape is beyond any tensor"))?;
        let length = usize::try_from(self.bytes).map_err(|_| self.wrong("it is too long"))?;
        if let StoredKind::Known(encoding) = self.kind()
            && encoding.bytes_of(numbers) != Some(length)
        {
            return Err(self.wrong("its length does not follow from its shape"));
        }
        let sample = length.min(SAMPLE_BYTES);
        if self.head.len() != sample || self.tail.len() != sample {
            return Err(self.wrong("expected a sample of each end"));
        }
        Ok(())
    }
}

/// Those of its files beside the weights that the model at `source` has, with their names.
pub(super) fn small_files(source: &ModelSource) -> Result<Vec<(String, Vec<u8>)>, ModelError> {
    let found = FILES.into_iter().filter_map(|name| {
        let bytes = source.read(name, FILE_BYTES_MAX).transpose()?;
        Some(bytes.map(|bytes| (name.to_owned(), bytes)))
    });
    found.collect()
}

/// A model of which some tensors are here.
///
/// Tensor files come while it is used; each appears under its name only when it is whole and its hashes
/// are right, and is never written again.
#[derive(Debug)]
pub struct PartialModel {
    name: String,
    folder: PathBuf,
    outline: Outline,
}

impl PartialModel {
    /// The model called `name` whose tensors are files in `folder`.
    pub fn new(name: String, folder: PathBuf, outline: Outline) -> Self {
        Self { name, folder, outline }
    }

    /// What it is.
    pub fn outline(&self) -> &Outline {
        &self.outline
    }

    /// Where the tensor of that number is once it is whole.
    pub fn tensor_path(&self, number: usize) -> PathBuf {
        self.folder.join(format!("{number}.tensor"))
    }

    /// Where the files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// One of its small files.
    pub(super) fn file(&self, name: &str) -> Option<Vec<u8>> {
        self.outline.file(name).map(<[u8]>::to_vec)
    }

    /// All tensors, those that are not here too.
    pub(super) fn table(self: &Arc<Self>) -> Result<TensorTable, ModelError> {
        let mut table = TensorTable::default();
        for (number, tensor) in self.outline.tensors.iter().enumerate() {
            let file = Apart { model: Arc::clone(self), number, map: OnceLock::new() };
            // Both were checked when the outline was read.
            let shape = tensor.shape.iter().map(|n| *n as usize).collect();
            let range = 0..tensor.bytes as usize;
            let file = Arc::new(FileBytes::Apart(file));
            table
                .insert(tensor.name.clone(), Tensor { kind: tensor.kind(), shape, file, range })?;
        }
        Ok(table)
    }
}

/// One tensor of a [`PartialModel`], mapped when it is first used.
#[derive(Debug)]
pub(crate) struct Apart {
    model: Arc<PartialModel>,
    number: usize,
    map: OnceLock<MappedFile>,
}

impl Apart {
    fn outline(&self) -> &TensorOutline {
        &self.model.outline.tensors[self.number]
    }

    /// What the model's id covers of it: both ends.
    pub fn samples(&self) -> (&[u8], &[u8]) {
        let outline = self.outline();
        (&outline.head, &outline.tail)
    }

    /// # Errors
    /// [`ModelError::NotFetched`] until its file is there.
    pub fn bytes(&self) -> Result<&[u8], ModelError> {
        let outline = self.outline();
        if outline.bytes == 0 {
            return Ok(&[]);
        }
        if let Some(mapped) = self.map.get() {
            return Ok(mapped);
        }
        let missing = || ModelError::NotFetched { name: outline.name.clone() };
        let mapped =
            MappedFile::open(&self.model.tensor_path(self.number)).map_err(|_| missing())?;
        if mapped.len() as u64 != outline.bytes {
            return Err(missing());
        }
        Ok(self.map.get_or_init(|| mapped))
    }

    /// The mapping, if it was used.
    pub fn mapped(&self) -> Option<&MappedFile> {
        self.map.get()
    }
}

/// A list of at most `MAX`: what an element takes in memory may be many times what it takes on the wire.
pub(super) fn at_most<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Bounded<T, const MAX: usize>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Bounded<T, MAX> {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX} elements")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(element) = elements.next_element()? {
                if list.len() == MAX {
                    return Err(A::Error::invalid_length(MAX + 1, &self));
                }
                list.push(element);
            }
            Ok(list)
        }
    }
    deserializer.deserialize_seq(Bounded::<T, MAX>(PhantomData))
}
