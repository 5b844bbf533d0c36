//! Safetensors, in one file or in shards.

use super::{FileBytes, ModelSource, StoredKind, Tensor, TensorTable};
use crate::{error::ModelError, quant::Encoding};
use safetensors::{Dtype, SafeTensorError, SafeTensors, tensor::Metadata};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub(super) const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The index of the largest published checkpoints (some 90,000 tensors) is below 10 MB.
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// The `safetensors` crate, and the program that made the format, take no longer one.
pub(super) const HEADER_BYTES_MAX: u64 = 100_000_000;

/// Reads the headers of a model's files.
pub(super) fn open(source: &ModelSource) -> Result<TensorTable, ModelError> {
    let mut table = TensorTable::default();
    match index(source)? {
        None => {
            let file = source.map(SINGLE)?.ok_or_else(|| source.lacks(SINGLE))?;
            read_header(SINGLE, file, &mut table)?;
        }
        Some(places) => {
            for shard in places.values().collect::<BTreeSet<_>>() {
                let file = source.map(shard)?.ok_or_else(|| source.lacks(shard))?;
                read_header(shard, file, &mut table)?;
            }
            if let Some((name, shard)) = places.iter().find(|(name, _)| table.get(name).is_none()) {
                let (name, shard) = (name.clone(), shard.clone());
                return Err(ModelError::NotInShard { name, shard });
            }
        }
    }
    Ok(table)
}

/// Which tensor lies in which shard; `None` for a model in one file.
pub(super) fn index(source: &ModelSource) -> Result<Option<BTreeMap<String, String>>, ModelError> {
    source.read(INDEX, INDEX_BYTES_MAX)?.map(|bytes| read_index(&bytes)).transpose()
}

/// What a header says of a file of `file_bytes`, with nothing after it, and where its tensors begin.
pub(super) fn header(
    name: &str,
    header: &[u8],
    file_bytes: u64,
) -> Result<(usize, Metadata), ModelError> {
    let wrong = |source| ModelError::Header { file: name.into(), source };
    let json = header.get(size_of::<u64>()..).unwrap_or_default();
    // The crate checks that tensors follow each other without a gap, and their lengths from their shapes.
    let metadata: Metadata = serde_json::from_slice(json)
        .map_err(|error| wrong(SafeTensorError::InvalidHeaderDeserialization(error)))?;
    if header.len().checked_add(metadata.data_len()).map(|end| end as u64) != Some(file_bytes) {
        return Err(wrong(SafeTensorError::MetadataIncompleteBuffer));
    }
    Ok((header.len(), metadata))
}

pub(super) fn kind(dtype: Dtype) -> StoredKind {
    match dtype {
        Dtype::F32 => StoredKind::Known(Encoding::F32),
        Dtype::F16 => StoredKind::Known(Encoding::F16),
        Dtype::BF16 => StoredKind::Known(Encoding::Bf16),
        other => StoredKind::Other(other.to_string()),
    }
}

fn read_header(name: &str, file: FileBytes, table: &mut TensorTable) -> Result<(), ModelError> {
    // The crate checks that the header fits the file and that the tensors tile the rest of it.
    let (header_bytes, metadata) = SafeTensors::read_metadata(&file)
        .map_err(|source| ModelError::Header { file: name.into(), source })?;
    let file = Arc::new(file);
    let data_start = size_of::<u64>() + header_bytes;
    for (tensor_name, info) in metadata.tensors() {
        let (start, end) = info.data_offsets;
        let tensor = Tensor {
            kind: kind(info.dtype),
            shape: info.shape.clone(),
            file: Arc::clone(&file),
            range: data_start + start..data_start + end,
        };
        table.insert(tensor_name, tensor)?;
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
