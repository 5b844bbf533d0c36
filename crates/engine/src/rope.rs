//! Rotary position embeddings: how fast each pair of a head's elements turns, and the tables of
//! cosines and sines for a run of positions.
//!
//! Decides what `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before)
//! mean. The formulas are those of transformers' `modeling_rope_utils.py`: `default`, `linear`,
//! `llama3` (wavelength bands), `yarn` (Peng et al. 2023, with its attention factor) and `longrope` (Ding
//! et al. 2024).
//!
//! Unlike transformers, `longrope` keeps to the factors for short texts, and so to the context the
//! model was first trained for: beyond it transformers turns *all* positions by other factors, those
//! already in the cache too, and a row's bits would depend on what follows it.
//!
//! Frequencies and angles are rounded to f32 exactly where transformers rounds them: a checkpoint
//! was trained with those angles, and at position 100,000 better ones differ visibly.

use crate::config::{ConfigError, Fields};
use std::f64::consts::TAU;

/// How one model turns queries and keys.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rope {
    /// Radians per position of each pair of elements: `[rotated / 2]`.
    frequencies: Vec<f32>,
    /// Both tables are multiplied by this (yarn, longrope; 1 otherwise).
    attention_factor: f32,
    /// Positions for which these frequencies hold (longrope); all if absent.
    context_max: Option<u32>,
}

const SUPPORTED: &str = "one of default, linear, llama3, yarn, longrope";

impl Rope {
    /// Reads either form of the configuration. `context` is `max_position_embeddings`, `theta` the base
    /// where the file names none.
    pub fn read(
        top: Fields<'_>,
        head_dim: u32,
        context: u32,
        theta: f64,
    ) -> Result<Self, ConfigError> {
        let theta = top.positive("rope_theta")?.unwrap_or(theta);
        let head_dim = rotated(top, head_dim)?;
        let fields = match top.object("rope_parameters", "rope_parameters.")? {
            Some(fields) => Some(fields),
            None => top.object("rope_scaling", "rope_scaling.")?,
        };
        let Some(fields) = fields else { return Ok(Self::plain(head_dim, theta)) };
        // Phi 3 keeps this one outside.
        let original = top.positive("original_max_position_embeddings")?;
        Self::read_object(fields, head_dim, context, theta, original)
    }

    /// Frequencies that are not scaled.
    pub fn plain(head_dim: u32, theta: f64) -> Self {
        Plain { theta, pairs: head_dim / 2, context: 0, original: None }.scaled(1.0, |f| f)
    }

    /// Reads the object that `rope_parameters` or `rope_scaling` holds.
    pub fn read_inner(
        inner: Fields<'_>,
        head_dim: u32,
        context: u32,
        theta: f64,
    ) -> Result<Self, ConfigError> {
        Self::read_object(inner, head_dim, context, theta, None)
    }

    fn read_object(
        inner: Fields<'_>,
        head_dim: u32,
        context: u32,
        theta: f64,
        original: Option<f64>,
    ) -> Result<Self, ConfigError> {
        let theta = inner.positive("rope_theta")?.unwrap_or(theta);
        let plain = Plain { theta, pairs: rotated(inner, head_dim)? / 2, context, original };
        // `type` is what transformers before 4.45 wrote.
        let kind = inner.str("rope_type")?.or(inner.str("type")?).unwrap_or("default");
        match kind {
            "default" => Ok(plain.scaled(1.0, |frequency| frequency)),
            "linear" => linear(inner, plain),
            "llama3" => llama3(inner, plain),
            "yarn" => yarn(inner, plain),
            // What the first Phi 3 called it.
            "longrope" | "su" => longrope(inner, plain),
            other => Err(inner.wrong("rope_type", format_args!("{other:?}"), SUPPORTED)),
        }
    }

    /// Divides the frequency of each pair: how GGUF files store llama3's bands.
    pub fn slow(&mut self, factors: &[f32]) {
        for (frequency, factor) in self.frequencies.iter_mut().zip(factors) {
            *frequency /= factor;
        }
    }

    /// Positions for which these frequencies hold; all if absent.
    pub fn context_max(&self) -> Option<u32> {
        self.context_max
    }

    /// Fills `cos` and `sin`, `[T, rotated / 2]`, for `positions` `[T]`.
    pub fn tables(
        &self,
        positions: impl Iterator<Item = u32>,
        cos: &mut Vec<f32>,
        sin: &mut Vec<f32>,
    ) {
        cos.clear();
        sin.clear();
        for position in positions {
            for frequency in &self.frequencies {
                let angle = f64::from(position as f32 * frequency);
                cos.push(angle.cos() as f32 * self.attention_factor);
                sin.push(angle.sin() as f32 * self.attention_factor);
            }
        }
    }
}

/// How many elements of a head are turned: the first ones, by `partial_rotary_factor`.
fn rotated(fields: Fields<'_>, head_dim: u32) -> Result<u32, ConfigError> {
    const NAME: &str = "partial_rotary_factor";
    let Some(factor) = fields.positive(NAME)? else { return Ok(head_dim) };
    let rotated = (f64::from(head_dim) * factor) as u32;
    if factor > 1.0 || rotated == 0 || !rotated.is_multiple_of(2) {
        let expected = format!("an even share of the {head_dim} elements of a head");
        return Err(fields.wrong(NAME, factor, expected));
    }
    Ok(rotated)
}

/// Unscaled rotary embeddings.
#[derive(Clone, Copy)]
struct Plain {
    theta: f64,
    pairs: u32,
    context: u32,
    /// The context before it was extended, where the configuration keeps it apart.
    original: Option<f64>,
}

impl Plain {
    fn frequency(self, pair: u32) -> f64 {
        self.theta.powf(-f64::from(pair) / f64::from(self.pairs))
    }

    fn scaled(self, attention_factor: f64, scale: impl Fn(f64) -> f64) -> Rope {
        let frequencies =
            (0..self.pairs).map(|pair| scale(f64::from(self.frequency(pair) as f32)) as f32);
        let attention_factor = attention_factor as f32;
        Rope { frequencies: frequencies.collect(), attention_factor, context_max: None }
    }
}

fn linear(fields: Fields<'_>, plain: Plain) -> Result<Rope, ConfigError> {
    let factor = fields.require_positive("factor")?;
    Ok(plain.scaled(1.0, |frequency| frequency / factor))
}

/// Keeps fast pairs, slows slow ones by `factor`, and blends between.
fn llama3(fields: Fields<'_>, plain: Plain) -> Result<Rope, ConfigError> {
    let factor = fields.require_positive("factor")?;
    let low = fields.require_positive("low_freq_factor")?;
    let high = fields.require_positive("high_freq_factor")?;
    if high <= low {
        return Err(fields.wrong("high_freq_factor", high, format!("above {low}")));
    }
    let original = fields.require_positive("original_max_position_embeddings")?;
    Ok(plain.scaled(1.0, |frequency| {
        let turns = original * frequency / TAU; // over the original context
        if turns < low {
            frequency / factor
        } else if turns > high {
            frequency
        } else {
            let smooth = (turns - low) / (high - low);
            (1.0 - smooth) * frequency / factor + smooth * frequency
        }
    }))
}

/// Slows pairs that make few turns over the original context, by pair number rather than by
/// frequency, and sharpens attention by a factor that grows with the extension.
fn yarn(fields: Fields<'_>, plain: Plain) -> Result<Rope, ConfigError> {
    let original = match fields.positive("original_max_position_embeddings")? {
        Some(original) => original,
        None => f64::from(plain.context),
    };
    let factor = match fields.positive("factor")? {
        Some(factor) => factor,
        None => f64::from(plain.context) / original,
    };
    let (low, high) = yarn_ramp(fields, plain, original)?;
    let frequencies = (0..plain.pairs).map(|pair| {
        let frequency = plain.frequency(pair);
        let slowed = ((f64::from(pair) - low) / (high - low)).clamp(0.0, 1.0);
        (frequency / factor * slowed + frequency * (1.0 - slowed)) as f32
    });
    let attention_factor = yarn_attention_factor(fields, factor)? as f32;
    Ok(Rope { frequencies: frequencies.collect(), attention_factor, context_max: None })
}

/// Each pair is slowed by a factor of its own, found by search.
fn longrope(fields: Fields<'_>, plain: Plain) -> Result<Rope, ConfigError> {
    const FACTORS: &str = "short_factor";
    const ORIGINAL: &str = "original_max_position_embeddings";
    let original = match fields.positive(ORIGINAL)?.or(plain.original) {
        Some(original) => original,
        None => return Err(fields.missing(ORIGINAL, "the context before it was extended")),
    };
    let factors = fields.numbers(FACTORS)?.unwrap_or_default();
    if factors.len() != plain.pairs as usize || !factors.iter().all(|factor| *factor > 0.0) {
        let expected = format!("{} numbers above 0, one per pair", plain.pairs);
        return Err(fields.wrong(FACTORS, format!("{} numbers", factors.len()), expected));
    }
    let factor = match fields.positive("factor")? {
        Some(factor) => factor,
        None => f64::from(plain.context) / original,
    };
    let attention_factor = match fields.positive("attention_factor")? {
        Some(given) => given,
        None if factor <= 1.0 => 1.0,
        None => (1.0 + factor.ln() / original.ln()).sqrt(),
    };
    let frequencies = (0..plain.pairs).zip(&factors).map(|(pair, factor)| {
        // Rounded after each step, as upstream.
        let power = (1.0 / plain.frequency(pair)) as f32;
        1.0 / (*factor as f32 * power)
    });
    Ok(Rope {
        frequencies: frequencies.collect(),
        attention_factor: attention_factor as f32,
        context_max: Some(original.min(f64::from(u32::MAX)) as u32),
    })
}

/// The pairs between which the slowing sets in.
fn yarn_ramp(fields: Fields<'_>, plain: Plain, original: f64) -> Result<(f64, f64), ConfigError> {
    let beta_fast = fields.positive("beta_fast")?.unwrap_or(32.0);
    let beta_slow = fields.positive("beta_slow")?.unwrap_or(1.0);
    let head_dim = f64::from(2 * plain.pairs);
    // The (fractional) pair that makes this many turns over the original context.
    let pair = |turns: f64| head_dim * (original / (turns * TAU)).ln() / (2.0 * plain.theta.ln());
    let (mut low, mut high) = (pair(beta_fast), pair(beta_slow));
    if fields.bool("truncate")?.unwrap_or(true) {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(head_dim - 1.0));
    // The same guard against a division by zero as upstream.
    if low == high {
        high += 0.001;
    }
    Ok((low, high))
}

fn yarn_attention_factor(fields: Fields<'_>, factor: f64) -> Result<f64, ConfigError> {
    if let Some(given) = fields.positive("attention_factor")? {
        return Ok(given);
    }
    let scale = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
    let nonzero = |x: Option<f64>| x.filter(|x| *x != 0.0);
    match (nonzero(fields.f64("mscale")?), nonzero(fields.f64("mscale_all_dim")?)) {
        (Some(one), Some(all)) => Ok(scale(one) / scale(all)),
        _ => Ok(scale(1.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Rope, ConfigError> {
        let map = serde_json::from_str(text).expect("an object");
        Rope::read(Fields::top(&map), 16, 256, 10_000.0)
    }

    #[test]
    fn old_and_new_forms_mean_the_same() {
        let pairs = [
            (r#"{}"#, r#"{"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}}"#),
            (r#"{"rope_theta": 5e5}"#, r#"{"rope_parameters": {"rope_theta": 5e5}}"#),
            (
                r#"{"rope_theta": 1e5, "rope_scaling": {"type": "linear", "factor": 4.0}}"#,
                r#"{"rope_parameters": {"rope_type": "linear", "rope_theta": 1e5, "factor": 4.0}}"#,
            ),
            (
                r#"{"rope_scaling": {"rope_type": "yarn", "original_max_position_embeddings": 64}}"#,
                r#"{"rope_parameters": {"rope_type": "yarn", "factor": 4.0,
                    "original_max_position_embeddings": 64}}"#,
            ),
        ];
        for (old, new) in pairs {
            assert_eq!(read(old).expect(old), read(new).expect(new));
        }
    }

    #[test]
    fn yarn_with_one_mscale_for_all_leaves_attention_as_it_is() {
        let yarn = |rest: &str| {
            let text = format!(
                r#"{{"rope_scaling": {{"type": "yarn", "factor": 4.0,
                    "original_max_position_embeddings": 64 {rest}}}}}"#
            );
            read(&text).expect("yarn").attention_factor
        };
        assert_eq!(yarn(""), (0.1 * 4_f64.ln() + 1.0) as f32);
        assert_eq!(yarn(r#", "mscale": 0.7, "mscale_all_dim": 0.7"#), 1.0);
        assert_eq!(yarn(r#", "attention_factor": 1.5"#), 1.5);
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let error = read(r#"{"rope_scaling": {"type": "dynamic"}}"#).expect_err("dynamic");
        assert_eq!(
            error.to_string(),
            "config.json has rope_scaling.rope_type = \"dynamic\", \
             expected one of default, linear, llama3, yarn, longrope"
        );
        for factor in ["0.0", "1.5", "0.2"] {
            let text = format!(r#"{{"partial_rotary_factor": {factor}}}"#);
            assert!(read(&text).is_err(), "{factor} of 16 elements");
        }
        assert!(read(r#"{"partial_rotary_factor": 1}"#).is_ok());
        assert!(read(r#"{"rope_scaling": {"type": "linear"}}"#).is_err());
    }
    #[test]
    fn a_part_of_a_head_is_turned_where_the_file_says_so() {
        let half = read(r#"{"rope_parameters": {"partial_rotary_factor": 0.5}}"#).expect("half");
        assert_eq!(half, Rope::plain(8, 10_000.0));
        assert_eq!(read(r#"{"partial_rotary_factor": 0.5}"#).expect("half"), half);
    }

    #[test]
    fn longrope_holds_for_the_first_context_alone() {
        let longrope = |factors: &str| {
            read(&format!(
                r#"{{"original_max_position_embeddings": 64, "rope_scaling":
                    {{"type": "longrope", "short_factor": {factors}, "long_factor": []}}}}"#
            ))
        };
        let rope = longrope("[1, 1, 1, 1, 2, 2, 2, 2]").expect("eight pairs");
        assert_eq!(rope.context_max(), Some(64));
        assert_eq!(rope.attention_factor, (1.0 + 4_f64.ln() / 64_f64.ln()).sqrt() as f32);
        let plain = Rope::plain(16, 10_000.0).frequencies;
        assert!((rope.frequencies[7] * 2.0 - plain[7]).abs() < 1e-9);
        assert!(longrope("[1, 1]").is_err());
        assert!(longrope("[0, 1, 1, 1, 1, 1, 1, 1]").is_err());
        assert!(longrope("null").is_err());
    }
}
