//! What a NeuroLLM looks like, and how one is trained.
//!
//! Decides which numbers make a model and which make sense for training. Both forms are read from job files and
//! kept in checkpoints, so unknown fields are refused. Never allocates a weight.

use serde::{Deserialize, Serialize};
use talka_base::{ModelShape, Precision as BasePrecision, model::ShapeError};

/// A decoder of llama's family: RMSNorm before attention and feed-forward, rotated heads ("rotate half"), grouped
/// queries, SwiGLU, no biases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Width of the hidden state; `heads` times an even number.
    pub hidden: u32,
    /// Transformer blocks.
    pub layers: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads; divides `heads`.
    pub kv_heads: u32,
    /// Width of the gated feed-forward.
    pub ffn: u32,
    /// Tokens that exist.
    pub vocab: u32,
    /// Positions of a sequence.
    pub context: u32,
    /// Whether the embedding is the output matrix too.
    #[serde(default)]
    pub tied: bool,
    /// Added to the mean square in every norm.
    #[serde(default = "norm_epsilon")]
    pub norm_epsilon: f64,
    /// Base of the angles of rotation.
    #[serde(default = "rope_theta")]
    pub rope_theta: f64,
}

fn norm_epsilon() -> f64 {
    1e-5
}

fn rope_theta() -> f64 {
    10_000.0
}

/// What is wrong with a configuration.
#[derive(Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in the messages")]
pub enum ConfigError {
    /// A dimension no model has.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A field whose value makes no sense beside the others.
    #[error("{field} is {found}, expected {expected}")]
    Field { field: &'static str, found: String, expected: String },
    /// Not one of ours.
    #[error("no model size is named {found:?}; there are bootstrap, early, growth and mature")]
    Preset { found: String },
}

fn wrong(
    field: &'static str,
    found: impl ToString,
    expected: impl Into<String>,
) -> Result<(), ConfigError> {
    Err(ConfigError::Field { field, found: found.to_string(), expected: expected.into() })
}

impl ModelConfig {
    /// One of NeuroShard's four sizes: `bootstrap`, `early`, `growth` or `mature`.
    ///
    /// # Errors
    /// No size has this name.
    pub fn preset(name: &str) -> Result<Self, ConfigError> {
        let (_, shape) = talka_engine::NEUROLLM_PRESETS
            .into_iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| ConfigError::Preset { found: name.to_owned() })?;
        Ok(Self {
            hidden: shape.hidden,
            layers: shape.layers,
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            ffn: shape.ffn,
            vocab: shape.vocab,
            context: shape.context,
            tied: false,
            norm_epsilon: norm_epsilon(),
            rope_theta: rope_theta(),
        })
    }

    /// Numbers of one head.
    pub fn head_dim(&self) -> u32 {
        self.hidden / self.heads
    }

    /// The same in the words that all crates share.
    pub fn shape(&self) -> ModelShape {
        ModelShape {
            layers: self.layers,
            hidden: self.hidden,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim(),
            ffn: self.ffn,
            vocab: self.vocab,
            context: self.context,
            precision: BasePrecision::F32,
        }
    }

    /// # Errors
    /// A dimension is zero or beyond what any model has, or does not divide as it must.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.heads == 0 {
            wrong("heads", 0, "at least 1")?;
        }
        self.shape().validate()?;
        if !self.hidden.is_multiple_of(2 * self.heads) {
            wrong("hidden", self.hidden, format!("a multiple of 2 x {} heads", self.heads))?;
        }
        if self.kv_heads > self.heads || !self.heads.is_multiple_of(self.kv_heads) {
            wrong("kv_heads", self.kv_heads, format!("a divisor of {} heads", self.heads))?;
        }
        if !(self.norm_epsilon > 0.0 && self.norm_epsilon < 1.0) {
            wrong("norm_epsilon", self.norm_epsilon, "a number between 0 and 1")?;
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 1.0) {
            wrong("rope_theta", self.rope_theta, "a number above 1")?;
        }
        Ok(())
    }
}

/// How numbers are held while a step is computed. The weights that last are f32 in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Everything in f32.
    #[default]
    F32,
    /// Factors of products and what is kept for the way back in bf16, sums in f32.
    Bf16,
}

/// Which update turns gradients into new weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum OptimiserConfig {
    /// AdamW (Loshchilov, Hutter 2019) for all weights.
    AdamW(AdamW),
    /// Muon (Jordan et al. 2024) for the matrices of the blocks, AdamW for the rest.
    Muon(Muon),
}

/// Settings of AdamW. The default is what DiLoCo's inner steps use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamW {
    /// The highest learning rate of the schedule.
    pub learning_rate: f64,
    /// How much of the mean gradient stays.
    pub beta1: f64,
    /// How much of the mean squared gradient stays.
    pub beta2: f64,
    /// Added to the root of the mean square.
    pub epsilon: f64,
    /// Share of a weight that goes per step and unit of learning rate.
    pub weight_decay: f64,
    /// Whether the weights of norms decay too.
    pub decay_norms: bool,
}

impl Default for AdamW {
    fn default() -> Self {
        Self {
            learning_rate: 1e-4,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.1,
            decay_norms: false,
        }
    }
}

/// Settings of Muon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Muon {
    /// How much of the sum of gradients stays (Nesterov's form).
    pub momentum: f64,
    /// For embedding, head and norms. Its learning rate and decay serve the matrices too: their steps are scaled to
    /// the size of AdamW's (Liu et al. 2025, "Muon is scalable for LLM training").
    pub adamw: AdamW,
}

impl Default for Muon {
    fn default() -> Self {
        Self { momentum: 0.95, adamw: AdamW::default() }
    }
}

impl OptimiserConfig {
    /// The settings that all optimisers have.
    pub fn adamw(&self) -> &AdamW {
        match self {
            Self::AdamW(adamw) => adamw,
            Self::Muon(muon) => &muon.adamw,
        }
    }
}

impl Default for OptimiserConfig {
    fn default() -> Self {
        Self::AdamW(AdamW::default())
    }
}

/// How the learning rate runs over the steps: a factor of the highest one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum Schedule {
    /// Always the highest.
    Constant {
        /// Steps over which it rises from zero.
        warmup: u64,
    },
    /// Half a cosine from the first step to `steps`, times the warm-up.
    Cosine {
        /// Steps over which it rises from zero.
        warmup: u64,
        /// Where it ends; stays there afterwards.
        steps: u64,
        /// The factor at the end.
        last: f64,
    },
    /// Level after the warm-up, straight down over the last `decay` steps: also called WSD, warm-up, stable, decay.
    Trapezoid {
        /// Steps over which it rises from zero.
        warmup: u64,
        /// Where it ends; stays there afterwards.
        steps: u64,
        /// Steps over which it falls.
        decay: u64,
        /// The factor at the end.
        last: f64,
    },
}

impl Default for Schedule {
    fn default() -> Self {
        Self::Constant { warmup: 0 }
    }
}

impl Schedule {
    /// The factor of the learning rate at `step`, the first being 0.
    pub fn factor(self, step: u64) -> f64 {
        let rise = |warmup: u64| {
            if step < warmup { (step + 1) as f64 / warmup as f64 } else { 1.0 }
        };
        match self {
            Self::Constant { warmup } => rise(warmup),
            Self::Cosine { warmup, steps, last } => {
                let part = if step < steps { step as f64 / steps as f64 } else { 1.0 };
                let fall = 0.5 * (1.0 + (std::f64::consts::PI * part).cos());
                rise(warmup) * (last + (1.0 - last) * fall)
            }
            Self::Trapezoid { warmup, steps, decay, last } => {
                let left = steps.saturating_sub(step);
                let level = if left >= decay { 1.0 } else { left as f64 / decay as f64 };
                rise(warmup) * (last + (1.0 - last) * level)
            }
        }
    }
}

/// All that one machine needs to train a model, but for data and first weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The model.
    pub model: ModelConfig,
    /// The update.
    #[serde(default)]
    pub optimiser: OptimiserConfig,
    /// The learning rate over the steps.
    #[serde(default)]
    pub schedule: Schedule,
    /// The greatest norm of all gradients together; what is longer is shortened to it. `None`: as it is.
    #[serde(default = "clip")]
    pub clip: Option<f64>,
    /// Rows of a batch that go through the model at once; the gradients of all are added before the one update.
    /// `None`: all of them. Fewer need less memory and change nothing but rounding.
    #[serde(default)]
    pub rows_at_once: Option<usize>,
    /// Keep only what enters each block, and compute its inside again on the way back: less memory, a third more work.
    #[serde(default)]
    pub recompute: bool,
    /// Of what each block adds to the hidden state, the part that is left out by chance in training, the rest being raised in
    /// proportion: the less a model can learn by heart. From 0 to below 1.
    #[serde(default)]
    pub dropout: f64,
    /// How numbers are held during a step.
    #[serde(default)]
    pub precision: Precision,
}

fn clip() -> Option<f64> {
    Some(1.0)
}

impl TrainConfig {
    /// This model with all else as DiLoCo's inner steps have it, at a constant rate.
    pub fn new(model: ModelConfig) -> Self {
        Self {
            model,
            optimiser: OptimiserConfig::default(),
            schedule: Schedule::default(),
            clip: clip(),
            rows_at_once: None,
            recompute: false,
            dropout: 0.0,
            precision: Precision::F32,
        }
    }

    /// # Errors
    /// The field that makes no sense, and what was expected.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.model.validate()?;
        let adamw = self.optimiser.adamw();
        let fractions = [("beta1", adamw.beta1), ("beta2", adamw.beta2), ("dropout", self.dropout)];
        let momentum = match &self.optimiser {
            OptimiserConfig::Muon(muon) => Some(("momentum", muon.momentum)),
            OptimiserConfig::AdamW(_) => None,
        };
        for (field, found) in fractions.into_iter().chain(momentum) {
            if !(0.0..1.0).contains(&found) {
                wrong(field, found, "at least 0 and below 1")?;
            }
        }
        let positive = [
            ("learning_rate", Some(adamw.learning_rate)),
            ("epsilon", Some(adamw.epsilon)),
            ("clip", self.clip),
        ];
        for (field, found) in positive {
            if let Some(found) = found.filter(|found| !(found.is_finite() && *found > 0.0)) {
                wrong(field, found, "a number above 0")?;
            }
        }
        if !(0.0..1.0).contains(&(adamw.weight_decay * adamw.learning_rate)) {
            wrong("weight_decay", adamw.weight_decay, "at least 0, below 1 / learning_rate")?;
        }
        if self.rows_at_once == Some(0) {
            wrong("rows_at_once", 0, "at least 1")?;
        }
        self.schedule.validate()
    }
}

impl Schedule {
    fn validate(self) -> Result<(), ConfigError> {
        let (steps, last) = match self {
            Self::Constant { .. } => return Ok(()),
            Self::Cosine { steps, last, .. } | Self::Trapezoid { steps, last, .. } => (steps, last),
        };
        if steps == 0 {
            wrong("steps", 0, "at least 1")?;
        }
        if !(0.0..=1.0).contains(&last) {
            wrong("last", last, "a factor from 0 to 1")?;
        }
        match self {
            Self::Trapezoid { decay, .. } if decay > steps => {
                wrong("decay", decay, format!("at most {steps} steps"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_valid() {
        for name in ["bootstrap", "early", "growth", "mature"] {
            let model = ModelConfig::preset(name).expect("known");
            assert_eq!(TrainConfig::new(model).validate(), Ok(()), "{name}");
        }
        assert!(ModelConfig::preset("huge").is_err());
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let good = TrainConfig::new(ModelConfig::preset("bootstrap").expect("known"));
        let check = |change: &dyn Fn(&mut TrainConfig), field: &str| {
            let mut config = good.clone();
            change(&mut config);
            let message = config.validate().expect_err(field).to_string();
            assert!(message.contains(field), "{message}");
        };
        check(&|c| c.model.heads = 0, "heads");
        check(&|c| c.model.heads = 7, "hidden");
        check(&|c| c.model.kv_heads = 5, "kv_heads");
        check(&|c| c.model.vocab = 0, "vocab");
        check(&|c| c.model.norm_epsilon = f64::NAN, "norm_epsilon");
        check(&|c| c.model.rope_theta = 0.0, "rope_theta");
        check(&|c| c.clip = Some(0.0), "clip");
        check(&|c| c.rows_at_once = Some(0), "rows_at_once");
        check(&|c| c.schedule = Schedule::Cosine { warmup: 0, steps: 0, last: 0.1 }, "steps");
        check(
            &|c| c.schedule = Schedule::Trapezoid { warmup: 0, steps: 5, decay: 6, last: 0.0 },
            "decay",
        );
        check(
            &|c| {
                c.optimiser =
                    OptimiserConfig::AdamW(AdamW { learning_rate: -1.0, ..AdamW::default() });
            },
            "learning_rate",
        );
        check(
            &|c| {
                c.optimiser = OptimiserConfig::Muon(Muon { momentum: 1.0, ..Muon::default() });
            },
            "momentum",
        );
    }

    #[test]
    fn schedules_rise_and_fall() {
        let cosine = Schedule::Cosine { warmup: 10, steps: 100, last: 0.1 };
        assert!((cosine.factor(0) - 0.1).abs() < 1e-12);
        assert!((cosine.factor(50) - 0.55).abs() < 1e-12);
        assert!(
            (cosine.factor(100) - 0.1).abs() < 1e-12 && cosine.factor(1000) == cosine.factor(100)
        );
        let trapezoid = Schedule::Trapezoid { warmup: 4, steps: 100, decay: 20, last: 0.0 };
        let seen = [0, 3, 50, 80, 90, 100, 200].map(|step| trapezoid.factor(step));
        assert_eq!(seen, [0.25, 1.0, 1.0, 1.0, 0.5, 0.0, 0.0]);
        assert_eq!(Schedule::Constant { warmup: 0 }.factor(0), 1.0);
    }
}
