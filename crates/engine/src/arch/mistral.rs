//! Mistral: a llama whose queries see a sliding window (Jiang et al. 2023), where the file names one.

use super::{
    Architecture,
    read::{Defaults, llama_like, set_windows, sliding_layers},
};
use crate::config::{ConfigError, Fields};
use talka_base::Precision;

pub(super) const DEFAULTS: Defaults = Defaults { context: 131_072, ..Defaults::LLAMA };

pub(super) fn read(fields: Fields<'_>, precision: Precision) -> Result<Architecture, ConfigError> {
    let mut architecture = llama_like(fields, precision, DEFAULTS)?;
    if let Some(window) = fields.window()? {
        let sliding = sliding_layers(fields, architecture.shape.layers, |_| true)?;
        set_windows(&mut architecture.layers, &sliding, window);
    }
    Ok(architecture)
}
