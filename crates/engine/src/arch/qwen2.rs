//! Qwen 2 and 2.5: a llama with biases on queries, keys and values, and windows in its later layers
//! where the file asks for them.

use super::{
    Architecture,
    read::{Defaults, llama_like, set_windows, sliding_layers},
};
use crate::config::{ConfigError, Fields};
use talka_base::Precision;

/// What absent fields mean in `configuration_qwen2.py`.
const DEFAULTS: Defaults = Defaults { context: 32_768, ..Defaults::LLAMA };
const WINDOW_DEFAULT: u32 = 4096;
const MAX_WINDOW_LAYERS_DEFAULT: u32 = 28;

pub(super) fn read(fields: Fields<'_>, precision: Precision) -> Result<Architecture, ConfigError> {
    let mut architecture = llama_like(fields, precision, DEFAULTS)?;
    architecture.attention.bias = true;
    read_windows(&mut architecture, fields)?;
    Ok(architecture)
}

/// Windows as all of Qwen's configurations put them.
pub(super) fn read_windows(
    architecture: &mut Architecture,
    fields: Fields<'_>,
) -> Result<(), ConfigError> {
    if fields.bool("use_sliding_window")?.unwrap_or(false) {
        let first = fields.u32("max_window_layers")?.unwrap_or(MAX_WINDOW_LAYERS_DEFAULT);
        let layers = architecture.shape.layers;
        let sliding = sliding_layers(fields, layers, |layer| layer >= first)?;
        let window = fields.window()?.unwrap_or(WINDOW_DEFAULT);
        set_windows(&mut architecture.layers, &sliding, window);
    }
    Ok(())
}
