//! Mixtral (Jiang et al. 2024): a Mistral with experts in every layer.

use super::{
    Architecture, Experts, LayerPart, Location, Part, mistral,
    read::{Defaults, llama_name},
};
use crate::config::{ConfigError, Fields};
use talka_base::Precision;

/// What absent fields mean in `configuration_mixtral.py`.
const DEFAULTS: Defaults = Defaults { norm_epsilon: 1e-5, rope_theta: 1e6, ..mistral::DEFAULTS };
const EXPERTS_DEFAULT: u32 = 8;
const USED_DEFAULT: u32 = 2;

pub(super) fn read(fields: Fields<'_>, precision: Precision) -> Result<Architecture, ConfigError> {
    let mut architecture = super::read::llama_like(fields, precision, DEFAULTS)?;
    if let Some(window) = fields.window()? {
        let all = vec![true; architecture.layers.len()];
        super::read::set_windows(&mut architecture.layers, &all, window);
    }
    let width = architecture.feed_forward.width;
    architecture.set_experts(Experts {
        count: fields.u32("num_local_experts")?.unwrap_or(EXPERTS_DEFAULT),
        used: fields.u32("num_experts_per_tok")?.unwrap_or(USED_DEFAULT),
        width,
        normalise: true,
    });
    architecture.locate = |_, part| Location::whole(name(part));
    Ok(architecture)
}

fn name(part: Part) -> String {
    let Part::Layer(layer, layer_part) = part else { return llama_name(part) };
    let name = match layer_part {
        LayerPart::Router => "gate".to_owned(),
        LayerPart::ExpertGate(e) => format!("experts.{e}.w1"),
        LayerPart::ExpertDown(e) => format!("experts.{e}.w2"),
        LayerPart::ExpertUp(e) => format!("experts.{e}.w3"),
        _ => return llama_name(part),
    };
    format!("model.layers.{layer}.block_sparse_moe.{name}.weight")
}
