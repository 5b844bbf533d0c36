//! Safetensors, in one file or in shards.

use super::{FileBytes, ModelSource, StoredKind, Tensor, TensorTable};
use crate::{error::ModelError, quant::Encoding};
use safetensors::{Dtype, SafeTensors};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The index of the largest published checkpoints (some 90,000 tensors) is below 10 MB.
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// Reads the headers of a model's files.
pub(super) fn open(source: &ModelSource) -> Result<TensorTable, ModelError> {
    let mut table = TensorTable::default();
    match source.read(INDEX, INDEX_BYTES_MAX)? {
        None => {
            let file = source.map(SINGLE)?.ok_or_else(|| source.lacks(SINGLE))?;
            read_header(SINGLE, file, &mut table)?;
        }
        Some(index) => {
            let places = read_index(&index)?;
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

fn kind(dtype: Dtype) -> StoredKind {
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
