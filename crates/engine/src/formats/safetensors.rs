//! The table of tensors of a model stored as safetensors, in one file or in shards.

use super::{FileBytes, ModelSource};
use crate::{error::ModelError, quant::Encoding};
use safetensors::{Dtype, SafeTensors};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};
use talka_base::{ModelId, Precision};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The index of the largest published checkpoints (some 90,000 tensors) is below 10 MB.
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// How much of each end of a tensor its model's id covers. A fine-tune changes nearly every
/// number, so a page at each end tells it apart, and no file is read whole to be named.
const SAMPLE_BYTES: usize = 4096;

/// Every tensor of a model, by name.
#[derive(Debug)]
pub(crate) struct TensorTable {
    tensors: BTreeMap<String, Tensor>,
}

/// Where one tensor lies and what its bytes are.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub dtype: Dtype,
    /// Slowest dimension first.
    pub shape: Vec<usize>,
    file: Arc<FileBytes>,
    /// Within `file`; checked against its length when the header was read.
    range: Range<usize>,
}

impl Tensor {
    /// Its numbers, little-endian.
    pub fn bytes(&self) -> &[u8] {
        &self.file[self.range.clone()]
    }
}

impl TensorTable {
    /// Reads the headers of a model's files.
    pub fn open(source: &ModelSource) -> Result<Self, ModelError> {
        let mut tensors = BTreeMap::new();
        match source.read(INDEX, INDEX_BYTES_MAX)? {
            None => {
                let file = source.map(SINGLE)?.ok_or_else(|| source.lacks(SINGLE))?;
                read_header(SINGLE, file, &mut tensors)?;
            }
            Some(index) => {
                let places = read_index(&index)?;
                for shard in places.values().collect::<BTreeSet<_>>() {
                    let file = source.map(shard)?.ok_or_else(|| source.lacks(shard))?;
                    read_header(shard, file, &mut tensors)?;
                }
                if let Some((name, shard)) = places.iter().find(|(n, _)| !tensors.contains_key(*n))
                {
                    let (name, shard) = (name.clone(), shard.clone());
                    return Err(ModelError::NotInShard { name, shard });
                }
            }
        }
        Ok(Self { tensors })
    }

    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// The type most of the bytes are stored in, of those a stage can hold.
    pub fn precision(&self) -> Precision {
        let mut bytes = BTreeMap::<Precision, usize>::new();
        for tensor in self.tensors.values() {
            if let Some(precision) = precision(tensor.dtype) {
                *bytes.entry(precision).or_default() += tensor.range.len();
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
            part(tensor.dtype.to_string().as_bytes());
            let shape: Vec<u8> =
                tensor.shape.iter().flat_map(|n| (*n as u64).to_le_bytes()).collect();
            part(&shape);
            let bytes = tensor.bytes();
            let sample = bytes.len().min(SAMPLE_BYTES);
            part(&bytes[..sample]);
            part(&bytes[bytes.len() - sample..]);
        }
        ModelId(*hasher.finalize().as_bytes())
    }
}

/// How a tensor's bytes are meant, `None` if no kernel reads them.
pub(crate) fn encoding(dtype: Dtype) -> Option<Encoding> {
    match dtype {
        Dtype::F32 => Some(Encoding::F32),
        Dtype::F16 => Some(Encoding::F16),
        Dtype::BF16 => Some(Encoding::Bf16),
        _ => None,
    }
}

/// The precision of a stage that holds such weights, `None` if none can.
fn precision(dtype: Dtype) -> Option<Precision> {
    match dtype {
        Dtype::F32 => Some(Precision::F32),
        Dtype::F16 => Some(Precision::F16),
        Dtype::BF16 => Some(Precision::Bf16),
        _ => None,
    }
}

fn read_header(
    name: &str,
    file: FileBytes,
    tensors: &mut BTreeMap<String, Tensor>,
) -> Result<(), ModelError> {
    // The crate checks that the header fits the file and that the tensors tile the rest of it.
    let (header_bytes, metadata) = SafeTensors::read_metadata(&file)
        .map_err(|source| ModelError::Header { file: name.into(), source })?;
    let file = Arc::new(file);
    let data_start = size_of::<u64>() + header_bytes;
    for (tensor_name, info) in metadata.tensors() {
        let (start, end) = info.data_offsets;
        let tensor = Tensor {
            dtype: info.dtype,
            shape: info.shape.clone(),
            file: Arc::clone(&file),
            range: data_start + start..data_start + end,
        };
        if tensors.insert(tensor_name.clone(), tensor).is_some() {
            return Err(ModelError::TwiceStored { name: tensor_name });
        }
    }
    Ok(())
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Tensor name to shard.
fn read_index(bytes: &[u8]) -> Result<BTreeMap<String, String>, ModelError> {
    let index: Index = serde_json::from_slice(bytes)
        .map_err(|source| ModelError::Json { file: INDEX.into(), source })?;
    for shard in index.weight_map.values() {
        // A plain name: nothing that could lead out of the folder, on any platform.
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !shard.ends_with(".safetensors") || !shard.chars().all(plain) {
            return Err(ModelError::ShardName { found: shard.chars().take(100).collect() });
        }
    }
    Ok(index.weight_map)
}
