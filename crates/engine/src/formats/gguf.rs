//! The GGUF container, versions 2 and 3: metadata and a table of tensors.
//!
//! Follows `docs/gguf.md` of the ggml project. Decides only whether a file is sound: every count is
//! bounded by the bytes that are there, keys and tensors are unique, and tensors lie within the file, on
//! their borders, and over each other nowhere. What the metadata means is [`super::gguf_model`]'s.

use super::{FileBytes, StoredKind, Tensor, TensorTable};
use crate::{error::ModelError, quant::Encoding};
use std::{collections::BTreeMap, ops::Range, sync::Arc};

/// What can be wrong with a GGUF file.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in the messages")]
pub enum GgufError {
    /// The first four bytes.
    #[error("is no GGUF file: it starts with {found:?}, expected \"GGUF\"")]
    Magic { found: String },
    /// Another version than is read here.
    #[error("is GGUF version {found}, expected 2 or 3; convert it again with a current llama.cpp")]
    Version { found: u32 },
    /// Numbers in the other order.
    #[error(
        "is a big-endian GGUF file, expected little-endian; convert it again without that option"
    )]
    BigEndian,
    /// The end came before what it announces.
    #[error(
        "is truncated: {what} needs {wanted} bytes at {at}, {left} are left; download it again"
    )]
    Truncated { what: &'static str, wanted: u64, at: usize, left: usize },
    /// More before the tensors than any model has.
    #[error("has a header of more than {max} {what}")]
    HeaderTooLarge { what: &'static str, max: u64 },
    /// A text that is none.
    #[error("has {what} that is no UTF-8 at byte {at}")]
    Text { what: &'static str, at: usize },
    /// A type number of metadata.
    #[error("has metadata {key:?} of type {found}, expected 0 to 12")]
    ValueType { key: String, found: u32 },
    /// An array in an array.
    #[error("has metadata {key:?} with arrays in an array, expected plain values")]
    Nested { key: String },
    /// Two of one name.
    #[error("has metadata {key:?} twice")]
    KeyTwice { key: String },
    /// Not a power of two, or absurd.
    #[error("has general.alignment {found}, expected a power of two up to 65536")]
    Alignment { found: u64 },
    /// More dimensions than exist.
    #[error("has tensor {name} with {found} dimensions, expected 1 to 4")]
    Dimensions { name: String, found: u32 },
    /// A dimension of nothing, or a product beyond any memory.
    #[error(
        "has tensor {name} of shape {shape:?}, expected positive dimensions and whole blocks of {kind}"
    )]
    Shape { name: String, shape: Vec<u64>, kind: String },
    /// It starts where none may.
    #[error("has tensor {name} at offset {found}, expected a multiple of {alignment}")]
    Misaligned { name: String, found: u64, alignment: u64 },
    /// It ends beyond the file.
    #[error("has tensor {name} up to byte {end}, the file ends at {length}; download it again")]
    Beyond { name: String, end: u64, length: usize },
    /// Two share bytes.
    #[error("has tensors {first} and {second} in the same place")]
    Overlap { first: String, second: String },
    /// Not the first of its parts.
    #[error("is part {found} of {count}, expected {expected}: name the first part")]
    Part { found: u64, count: u64, expected: String },
    /// Another part, or one of another model, under this name.
    #[error(
        "says it is part {found} (counted from 0) of {count}, its name says {expected}: the parts are \
         mixed up; download them again"
    )]
    OtherPart { found: u64, count: u64, expected: String },
    /// Parts with fewer or more tensors than the first announces.
    #[error("announces {expected} tensors, its parts hold {found}; download them again")]
    TensorCount { expected: u64, found: u64 },
    /// Metadata that a model needs.
    #[error("lacks metadata {key:?}, expected {expected}")]
    Missing { key: String, expected: &'static str },
    /// Metadata of another kind than it must be.
    #[error("has metadata {key:?} = {found}, expected {expected}")]
    Wrong { key: String, found: String, expected: &'static str },
    /// Cut otherwise, a text would become tokens that the model does not mean by it.
    #[error("cuts text as {found:?} (tokenizer.ggml.pre), supported are: {supported}")]
    PreTokenizer { found: String, supported: String },
}

/// A value of metadata.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Array(Vec<Value>),
}

/// The largest published header (262,144 tokens, as many merges) takes 16 MB.
const HEADER_BYTES_MAX: u64 = 256 << 20;
/// Values of all arrays: each takes up to 32 bytes of memory, whatever it takes in the file.
const VALUES_MAX: u64 = 1 << 23;

/// What one file holds.
#[derive(Debug)]
pub(super) struct Gguf {
    pub metadata: BTreeMap<String, Value>,
    pub tensors: Vec<(String, Tensor)>,
}

/// Fewest bytes that a key with its value, or a tensor's entry, takes: so many there can be at most.
const ENTRY_BYTES_MIN: u64 = 12;

impl Gguf {
    /// Reads the header of `bytes`.
    pub fn read(bytes: FileBytes) -> Result<Self, GgufError> {
        let file = Arc::new(bytes);
        let mut cursor = Cursor { bytes: &file, at: 0, values_left: VALUES_MAX };
        let magic = cursor.take(4, "the magic number")?;
        if magic != b"GGUF" {
            let found = String::from_utf8_lossy(magic).into_owned();
            return Err(GgufError::Magic { found });
        }
        match cursor.u32("the version")? {
            2 | 3 => {}
            found if found.swap_bytes() <= 3 => return Err(GgufError::BigEndian),
            found => return Err(GgufError::Version { found }),
        }
        let tensors = cursor.count("tensors")?;
        let keys = cursor.count("metadata")?;
        let mut metadata = BTreeMap::new();
        for _ in 0..keys {
            let key = cursor.text("a key")?;
            let kind = cursor.u32("a type")?;
            let value = cursor.value(&key, kind)?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(GgufError::KeyTwice { key });
            }
        }
        let infos: Vec<_> = (0..tensors).map(|_| cursor.tensor()).collect::<Result<_, _>>()?;
        let alignment = alignment(&metadata)?;
        let start = (cursor.at as u64).next_multiple_of(alignment);
        let tensors = place(&file, infos, start, alignment)?;
        Ok(Self { metadata, tensors })
    }

    /// Adds its tensors to `table`.
    pub fn move_into(self, table: &mut TensorTable) -> Result<(), ModelError> {
        self.tensors.into_iter().try_for_each(|(name, tensor)| table.insert(name, tensor))
    }
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Result<u64, GgufError> {
    const DEFAULT: u64 = 32;
    match metadata.get("general.alignment") {
        None => Ok(DEFAULT),
        Some(Value::Unsigned(n)) if n.is_power_of_two() && *n <= 1 << 16 => Ok(*n),
        Some(Value::Unsigned(found)) => Err(GgufError::Alignment { found: *found }),
        Some(_) => Err(GgufError::Alignment { found: 0 }),
    }
}

/// An entry of the table of tensors.
struct Info {
    name: String,
    /// Slowest dimension first.
    shape: Vec<u64>,
    kind: StoredKind,
    offset: u64,
}

/// Where each tensor lies in `file`, whose data begins at `start`.
fn place(
    file: &Arc<FileBytes>,
    infos: Vec<Info>,
    start: u64,
    alignment: u64,
) -> Result<Vec<(String, Tensor)>, GgufError> {
    let mut tensors = Vec::with_capacity(infos.len());
    for Info { name, shape, kind, offset } in infos {
        if !offset.is_multiple_of(alignment) {
            return Err(GgufError::Misaligned { name, found: offset, alignment });
        }
        let length = match kind {
            StoredKind::Known(encoding) => bytes_of(encoding, &shape),
            // Its size is not known, and nobody will read it.
            StoredKind::Other(_) => Some(0),
        };
        let Some(length) = length else {
            let kind = kind.to_string();
            return Err(GgufError::Shape { name, shape, kind });
        };
        let begin = start.saturating_add(offset);
        let end = begin.saturating_add(length);
        if end > file.len() as u64 {
            return Err(GgufError::Beyond { name, end, length: file.len() });
        }
        let shape = shape.iter().map(|n| *n as usize).collect();
        let range = begin as usize..end as usize;
        tensors.push((name, Tensor { kind, shape, file: Arc::clone(file), range }));
    }
    check_overlap(&tensors)?;
    Ok(tensors)
}

fn bytes_of(encoding: Encoding, shape: &[u64]) -> Option<u64> {
    let numbers = shape.iter().try_fold(1_u64, |product, n| product.checked_mul(*n))?;
    let row = usize::try_from(*shape.last()?).ok()?;
    let row_bytes = encoding.bytes_of(row)?;
    if numbers == 0 {
        return None;
    }
    (numbers / row as u64).checked_mul(row_bytes as u64)
}

fn check_overlap(tensors: &[(String, Tensor)]) -> Result<(), GgufError> {
    let mut places: Vec<(&Range<usize>, &str)> = tensors
        .iter()
        .filter(|(_, tensor)| !tensor.range.is_empty())
        .map(|(name, tensor)| (&tensor.range, name.as_str()))
        .collect();
    places.sort_by_key(|(range, _)| range.start);
    match places.windows(2).find(|pair| pair[0].0.end > pair[1].0.start) {
        None => Ok(()),
        Some(pair) => Err(GgufError::Overlap { first: pair[0].1.into(), second: pair[1].1.into() }),
    }
}

/// Reads from front to back and never beyond the end.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    values_left: u64,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: u64, what: &'static str) -> Result<&'a [u8], GgufError> {
        let left = self.bytes.len() - self.at;
        if length > left as u64 {
            return Err(GgufError::Truncated { what, wanted: length, at: self.at, left });
        }
        if self.at as u64 + length > HEADER_BYTES_MAX {
            return Err(GgufError::HeaderTooLarge { what: "bytes", max: HEADER_BYTES_MAX });
        }
        let taken = &self.bytes[self.at..self.at + length as usize];
        self.at += length as usize;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], GgufError> {
        let taken = self.take(N as u64, what)?;
        Ok(taken.try_into().expect("as many bytes as were asked for"))
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A number of entries that the rest of the file can hold.
    fn count(&mut self, what: &'static str) -> Result<u64, GgufError> {
        let count = self.u64(what)?;
        let left = self.bytes.len() - self.at;
        let wanted = count.saturating_mul(ENTRY_BYTES_MIN);
        if wanted > left as u64 {
            return Err(GgufError::Truncated { what, wanted, at: self.at, left });
        }
        Ok(count)
    }

    fn text(&mut self, what: &'static str) -> Result<String, GgufError> {
        let length = self.u64(what)?;
        let at = self.at;
        let bytes = self.take(length, what)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| GgufError::Text { what, at })
    }

    fn value(&mut self, key: &str, kind: u32) -> Result<Value, GgufError> {
        const ARRAY: u32 = 9;
        if kind != ARRAY {
            return self.plain(key, kind);
        }
        let kind = self.u32("the type of an array")?;
        if kind == ARRAY {
            return Err(GgufError::Nested { key: key.into() });
        }
        let count = self.u64("the length of an array")?;
        let left = self.bytes.len() - self.at;
        // Every value takes a byte at least: never more are kept than the file could hold.
        if count > left as u64 {
            let what = "an array";
            return Err(GgufError::Truncated { what, wanted: count, at: self.at, left });
        }
        self.values_left = self
            .values_left
            .checked_sub(count)
            .ok_or(GgufError::HeaderTooLarge { what: "values", max: VALUES_MAX })?;
        (0..count).map(|_| self.plain(key, kind)).collect::<Result<_, _>>().map(Value::Array)
    }

    fn plain(&mut self, key: &str, kind: u32) -> Result<Value, GgufError> {
        const WHAT: &str = "a value";
        Ok(match kind {
            0 => Value::Unsigned(u8::from_le_bytes(self.array(WHAT)?).into()),
            1 => Value::Signed(i8::from_le_bytes(self.array(WHAT)?).into()),
            2 => Value::Unsigned(u16::from_le_bytes(self.array(WHAT)?).into()),
            3 => Value::Signed(i16::from_le_bytes(self.array(WHAT)?).into()),
            4 => Value::Unsigned(self.u32(WHAT)?.into()),
            5 => Value::Signed(i32::from_le_bytes(self.array(WHAT)?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array(WHAT)?).into()),
            7 => Value::Bool(self.array::<1>(WHAT)? != [0]),
            8 => Value::Text(self.text(WHAT)?),
            10 => Value::Unsigned(self.u64(WHAT)?),
            11 => Value::Signed(i64::from_le_bytes(self.array(WHAT)?)),
            12 => Value::Float(f64::from_le_bytes(self.array(WHAT)?)),
            found => return Err(GgufError::ValueType { key: key.into(), found }),
        })
    }

    fn tensor(&mut self) -> Result<Info, GgufError> {
        let name = self.text("a tensor's name")?;
        let dimensions = self.u32("a number of dimensions")?;
        if !(1..=4).contains(&dimensions) {
            return Err(GgufError::Dimensions { name, found: dimensions });
        }
        let mut shape: Vec<u64> =
            (0..dimensions).map(|_| self.u64("a dimension")).collect::<Result<_, _>>()?;
        shape.reverse();
        let kind = kind(self.u32("a tensor's type")?);
        let offset = self.u64("a tensor's offset")?;
        Ok(Info { name, shape, kind, offset })
    }
}

/// The encoding of a `ggml_type`.
fn kind(number: u32) -> StoredKind {
    StoredKind::Known(match number {
        0 => Encoding::F32,
        1 => Encoding::F16,
        2 => Encoding::Q4_0,
        3 => Encoding::Q4_1,
        6 => Encoding::Q5_0,
        7 => Encoding::Q5_1,
        8 => Encoding::Q8_0,
        10 => Encoding::Q2_K,
        11 => Encoding::Q3_K,
        12 => Encoding::Q4_K,
        13 => Encoding::Q5_K,
        14 => Encoding::Q6_K,
        30 => Encoding::Bf16,
        other => return StoredKind::Other(other_name(other)),
    })
}

/// What ggml calls a type that no kernel here reads.
fn other_name(number: u32) -> String {
    const NAMES: [(u32, &str); 17] = [
        (9, "Q8_1"),
        (15, "Q8_K"),
        (16, "IQ2_XXS"),
        (17, "IQ2_XS"),
        (18, "IQ3_XXS"),
        (19, "IQ1_S"),
        (20, "IQ4_NL"),
        (21, "IQ3_S"),
        (22, "IQ2_S"),
        (23, "IQ4_XS"),
        (24, "I8"),
        (25, "I16"),
        (26, "I32"),
        (28, "F64"),
        (34, "TQ1_0"),
        (35, "TQ2_0"),
        (39, "MXFP4"),
    ];
    let found = NAMES.iter().find(|(known, _)| *known == number);
    found.map_or_else(|| format!("ggml type {number}"), |(_, name)| (*name).to_owned())
}
