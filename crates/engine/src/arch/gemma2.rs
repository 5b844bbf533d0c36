//! Gemma 2 (Gemma team 2024): norms around each part, their weights stored less one, capped scores and
//! logits, windows in every other layer.

use super::{
    Activation, Architecture, LayerPart, Location, Part, Placement,
    read::{self, Defaults, llama_like, llama_name, set_windows, sliding_layers},
};
use crate::config::{ConfigError, Fields};
use talka_base::Precision;

/// What absent fields mean in `configuration_gemma2.py`.
const DEFAULTS: Defaults = Defaults {
    context: 8192,
    kv_heads: Some(4),
    head_dim: Some(256),
    tied: true,
    ..Defaults::LLAMA
};
const WINDOW_DEFAULT: u32 = 4096;
const SCORE_CAP_DEFAULT: f64 = 50.0;
const LOGIT_CAP_DEFAULT: f64 = 30.0;

pub(super) fn read(fields: Fields<'_>, precision: Precision) -> Result<Architecture, ConfigError> {
    let mut architecture = read_common(fields, precision, DEFAULTS)?;
    architecture.attention.softcap = cap(fields, "attn_logit_softcapping", SCORE_CAP_DEFAULT)?;
    architecture.logits_softcap = cap(fields, "final_logit_softcapping", LOGIT_CAP_DEFAULT)?;
    let layers = architecture.shape.layers;
    let sliding = sliding_layers(fields, layers, |layer| layer.is_multiple_of(2))?;
    let window = fields.window()?.unwrap_or(WINDOW_DEFAULT);
    set_windows(&mut architecture.layers, &sliding, window);
    Ok(architecture)
}

/// A cap; null is none, and an absent field is the default.
fn cap(fields: Fields<'_>, name: &str, default: f64) -> Result<Option<f32>, ConfigError> {
    if fields.is_null(name) {
        return Ok(None);
    }
    Ok(Some(fields.positive(name)?.unwrap_or(default) as f32))
}

/// What Gemma 2 and 3 share.
pub(super) fn read_common(
    fields: Fields<'_>,
    precision: Precision,
    defaults: Defaults,
) -> Result<Architecture, ConfigError> {
    // Embedding models; their rows see what follows them.
    fields.only("use_bidirectional_attention", false.into())?;
    let mut architecture = llama_like(fields, precision, defaults)?;
    let name = match fields.value("hidden_activation") {
        Some(_) => "hidden_activation",
        None => "hidden_act",
    };
    architecture.feed_forward.activation = read::activation(fields, name, Activation::GeluTanh)?;
    let divisor = fields.positive("query_pre_attn_scalar")?.unwrap_or(256.0);
    architecture.attention.scale = divisor.sqrt().recip() as f32;
    let bias = fields.bool("attention_bias")?.unwrap_or(false);
    architecture.attention.bias = bias;
    architecture.attention.output_bias = bias;
    architecture.placement = Placement::Around;
    architecture.norm.offset = 1.0;
    architecture.input.scale = (architecture.shape.hidden as f32).sqrt();
    architecture.locate = |_, part| Location::whole(name_of(part));
    Ok(architecture)
}

/// A llama's names, but for the norm before the feed-forward, whose name norms of outputs have taken.
fn name_of(part: Part) -> String {
    match part {
        Part::Layer(layer, LayerPart::FfnNorm) => {
            format!("model.layers.{layer}.pre_feedforward_layernorm.weight")
        }
        other => llama_name(other),
    }
}
