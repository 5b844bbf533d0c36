//! Gemma 3 (Gemma team 2025), the language model: as Gemma 2 without caps, with norms of the heads of
//! queries and keys, and windows in five of six layers, which turn heads faster than the others.

use super::{
    Architecture, QkNorm, gemma2,
    read::{Defaults, set_windows, sliding_layers},
};
use crate::{
    config::{ConfigError, Fields},
    rope::Rope,
};
use talka_base::Precision;

/// What absent fields mean in `configuration_gemma3.py`.
const DEFAULTS: Defaults = Defaults {
    context: 131_072,
    kv_heads: Some(4),
    head_dim: Some(256),
    tied: true,
    rope_theta: 1e6,
    ..Defaults::LLAMA
};
const WINDOW_DEFAULT: u32 = 4096;
const PATTERN_DEFAULT: u32 = 6;
const LOCAL_THETA_DEFAULT: f64 = 10_000.0;

pub(super) fn read(fields: Fields<'_>, precision: Precision) -> Result<Architecture, ConfigError> {
    // Models that also see images keep the language model's settings apart.
    let nested = fields.object("text_config", "text_config.")?;
    let fields = nested.unwrap_or(fields);
    let mut architecture = gemma2::read_common(fields, precision, DEFAULTS)?;
    architecture.attention.qk_norm = Some(QkNorm::Heads);
    // No published model has caps, but a file may.
    architecture.attention.softcap = fields.positive("attn_logit_softcapping")?.map(|x| x as f32);
    architecture.logits_softcap = fields.positive("final_logit_softcapping")?.map(|x| x as f32);
    if nested.is_some() {
        architecture.prefixes = &["language_model.", "model.language_model.", ""];
    }
    let pattern = match fields.u32("sliding_window_pattern")? {
        Some(pattern) => pattern,
        None => fields.u32("_sliding_window_pattern")?.unwrap_or(PATTERN_DEFAULT),
    };
    let layers = architecture.shape.layers;
    let sliding =
        sliding_layers(fields, layers, |layer| !(layer + 1).is_multiple_of(pattern.max(1)))?;
    set_windows(&mut architecture.layers, &sliding, fields.window()?.unwrap_or(WINDOW_DEFAULT));
    for (rule, sliding) in architecture.layers.iter_mut().zip(sliding) {
        rule.rope = usize::from(sliding);
    }
    architecture.ropes = ropes(fields, &architecture)?;
    Ok(architecture)
}

/// The rotations of layers that see everything, and of those that see a window.
fn ropes(fields: Fields<'_>, architecture: &Architecture) -> Result<Vec<Rope>, ConfigError> {
    let (head_dim, context) = (architecture.shape.head_dim, architecture.shape.context);
    if let Some(both) = fields.object("rope_parameters", "rope_parameters.")?
        && let Some(full) = both.object("full_attention", "rope_parameters.full_attention.")?
    {
        let place = "rope_parameters.sliding_attention.";
        let sliding = both.object("sliding_attention", place)?.unwrap_or(full);
        return Ok(vec![
            Rope::read_inner(full, head_dim, context, DEFAULTS.rope_theta)?,
            Rope::read_inner(sliding, head_dim, context, LOCAL_THETA_DEFAULT)?,
        ]);
    }
    let local = fields.positive("rope_local_base_freq")?.unwrap_or(LOCAL_THETA_DEFAULT);
    let full = Rope::read(fields, head_dim, context, DEFAULTS.rope_theta)?;
    Ok(vec![full, Rope::plain(head_dim, local)])
}
