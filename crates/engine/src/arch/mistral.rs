//! Mistral: a llama whose queries see a sliding window (Jiang et al. 2023), unless the file says that it
//! is none.

use super::{
    Architecture,
    read::{Defaults, llama_like, set_windows, sliding_layers},
};
use crate::config::{ConfigError, Fields};
use talka_base::Precision;

/// What absent fields mean in `configuration_mistral.py`.
pub(super) const DEFAULTS: Defaults =
    Defaults { context: 131_072, kv_heads: Some(8), ..Defaults::LLAMA };
const WINDOW_DEFAULT: u32 = 4096;

pub(super) fn read(fields: Fields<'_>, precision: Precision) -> Result<Architecture, ConfigError> {
    let mut architecture = llama_like(fields, precision, DEFAULTS)?;
    let absent = (!fields.is_null("sliding_window")).then_some(WINDOW_DEFAULT);
    if let Some(window) = fields.window()?.or(absent) {
        let sliding = sliding_layers(fields, architecture.shape.layers, |_| true)?;
        set_windows(&mut architecture.layers, &sliding, window);
    }
    Ok(architecture)
}
