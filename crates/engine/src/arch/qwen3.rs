//! Qwen 3: a llama whose heads of queries and keys each have a norm.

use super::{
    Architecture, QkNorm, qwen2,
    read::{Defaults, llama_like},
};
use crate::config::{ConfigError, Fields};
use talka_base::Precision;

/// What absent fields mean in `configuration_qwen3.py`.
const DEFAULTS: Defaults = Defaults { context: 32_768, head_dim: Some(128), ..Defaults::LLAMA };

pub(super) fn read(fields: Fields<'_>, precision: Precision) -> Result<Architecture, ConfigError> {
    let mut architecture = read_dense(fields, precision, DEFAULTS)?;
    qwen2::read_windows(&mut architecture, fields)?;
    Ok(architecture)
}

/// What Qwen 3 has with and without experts.
pub(super) fn read_dense(
    fields: Fields<'_>,
    precision: Precision,
    defaults: Defaults,
) -> Result<Architecture, ConfigError> {
    let mut architecture = llama_like(fields, precision, defaults)?;
    architecture.attention.qk_norm = Some(QkNorm::Heads);
    let bias = fields.bool("attention_bias")?.unwrap_or(false);
    architecture.attention.bias = bias;
    architecture.attention.output_bias = bias;
    Ok(architecture)
}
