//! Qwen 3 with experts in some or all layers.

use super::{
    Architecture, Experts, qwen3,
    read::{Defaults, set_windows},
};
use crate::config::{ConfigError, Fields};
use talka_base::Precision;

/// What absent fields mean in `configuration_qwen3_moe.py`.
const DEFAULTS: Defaults = Defaults { context: 32_768, kv_heads: Some(4), ..Defaults::LLAMA };
const EXPERTS_DEFAULT: u32 = 128;
const USED_DEFAULT: u32 = 8;
const WIDTH_DEFAULT: u32 = 768;

pub(super) fn read(fields: Fields<'_>, precision: Precision) -> Result<Architecture, ConfigError> {
    let mut architecture = qwen3::read_dense(fields, precision, DEFAULTS)?;
    if fields.bool("use_sliding_window")?.unwrap_or(false)
        && let Some(window) = fields.window()?
    {
        let all = vec![true; architecture.layers.len()];
        set_windows(&mut architecture.layers, &all, window);
    }
    let count = match fields.u32("num_experts")? {
        Some(count) => count,
        None => fields.u32("num_local_experts")?.unwrap_or(EXPERTS_DEFAULT),
    };
    architecture.set_experts(Experts {
        count,
        used: fields.u32("num_experts_per_tok")?.unwrap_or(USED_DEFAULT),
        width: fields.u32("moe_intermediate_size")?.unwrap_or(WIDTH_DEFAULT),
        normalise: fields.bool("norm_topk_prob")?.unwrap_or(false),
    });
    let step = fields.u32("decoder_sparse_step")?.unwrap_or(1).max(1);
    let dense = fields.ids("mlp_only_layers")?;
    for (layer, rule) in (0..).zip(&mut architecture.layers) {
        rule.experts = !dense.contains(&layer) && (layer + 1) % step == 0;
    }
    Ok(architecture)
}
