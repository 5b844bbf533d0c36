//! OLMo 2 (OLMo team 2024): norms of what attention and feed-forward return, none of what they take, and
//! norms of all queries and all keys of a position.

use super::{
    Architecture, Placement, QkNorm,
    read::{Defaults, llama_like},
};
use crate::config::{ConfigError, Fields};
use talka_base::Precision;

/// What absent fields mean in `configuration_olmo2.py`.
const DEFAULTS: Defaults = Defaults { norm_epsilon: 1e-5, ..Defaults::LLAMA };

pub(super) fn read(fields: Fields<'_>, precision: Precision) -> Result<Architecture, ConfigError> {
    let mut architecture = llama_like(fields, precision, DEFAULTS)?;
    architecture.placement = Placement::After;
    architecture.attention.qk_norm = Some(QkNorm::Row);
    let bias = fields.bool("attention_bias")?.unwrap_or(false);
    architecture.attention.bias = bias;
    architecture.attention.output_bias = bias;
    Ok(architecture)
}
