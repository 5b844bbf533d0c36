//! Phi 3: a llama whose queries, keys and values are one matrix, and gate and up another.

use super::{
    Architecture, LayerPart, Location, Part,
    read::{Defaults, llama_like, llama_name, set_windows},
};
use crate::config::{ConfigError, Fields};
use talka_base::Precision;

/// What absent fields mean in `configuration_phi3.py`.
const DEFAULTS: Defaults = Defaults { norm_epsilon: 1e-5, context: 4096, ..Defaults::LLAMA };

pub(super) fn read(fields: Fields<'_>, precision: Precision) -> Result<Architecture, ConfigError> {
    let mut architecture = llama_like(fields, precision, DEFAULTS)?;
    if let Some(window) = fields.window()? {
        let all = vec![true; architecture.layers.len()];
        set_windows(&mut architecture.layers, &all, window);
    }
    architecture.locate = locate;
    Ok(architecture)
}

fn locate(architecture: &Architecture, part: Part) -> Location {
    let shape = &architecture.shape;
    let [query, key, ffn] = [
        shape.heads * shape.head_dim,
        shape.kv_heads * shape.head_dim,
        architecture.feed_forward.width,
    ]
    .map(|n| n as usize);
    let Part::Layer(layer, layer_part) = part else { return Location::whole(llama_name(part)) };
    let qkv = |start, rows| ("self_attn.qkv_proj", start..start + rows, query + 2 * key);
    let (name, rows, total) = match layer_part {
        LayerPart::Query => qkv(0, query),
        LayerPart::Key => qkv(query, key),
        LayerPart::Value => qkv(query + key, key),
        LayerPart::Gate => ("mlp.gate_up_proj", 0..ffn, 2 * ffn),
        LayerPart::Up => ("mlp.gate_up_proj", ffn..2 * ffn, 2 * ffn),
        _ => return Location::whole(llama_name(part)),
    };
    let name = format!("model.layers.{layer}.{name}.weight");
    Location { rows: Some((rows, total)), ..Location::whole(name) }
}
