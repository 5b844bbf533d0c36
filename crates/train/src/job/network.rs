//! How members train a job together: the section `[network]`, and the plan that it means.

use super::{JobError, NetworkFile, value, whole};
use crate::{Centre, Compressor, Cut, Feedback, Outer, Rule, round::Late};

/// Values of a block that a sparse update may send.
const TOP_MAX: u32 = 2048;
/// Parts of a model: as many as layers at most, as the job checks.
const FRAGMENTS_MAX: u16 = 1024;
/// Steps of a round.
const STEPS_PER_ROUND_MAX: u32 = 1 << 20;
/// A day: whoever is silent for longer than that is not waited for.
const SECONDS_MAX: f64 = 86_400.0;

/// How members train a job together.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkPlan {
    /// Nobody trains with fewer members.
    pub members_min: u16,
    /// Steps of a member in a round, at most.
    pub steps_per_round: u32,
    /// How long a round is trained at the longest.
    pub window_ms: u64,
    /// How long after that updates are waited for.
    pub grace_ms: u64,
    /// What becomes of updates that come too late.
    pub late: Late,
    /// How updates are written.
    pub compressor: Compressor,
    /// What is left of what compression left out, a round later.
    pub feedback: f32,
    /// Parts of the model, of which each round exchanges one.
    pub fragments: u16,
    /// Whether members train on while a round's updates are exchanged.
    pub overlap: bool,
    /// The step that all take together; `None`: what suits the number of rounds.
    outer: Option<Outer>,
    /// How updates become one.
    pub rule: Rule,
}

impl NetworkPlan {
    /// Reads the section; `None` if it is not there.
    pub(super) fn of(file: Option<NetworkFile>) -> Result<Option<Self>, JobError> {
        let Some(file) = file else { return Ok(None) };
        let compressor = compressor(&file)?;
        let feedback = if matches!(compressor, Compressor::Sparse { .. }) {
            Feedback::DECAY
        } else {
            // Only roundings wait.
            1.0
        };
        let fragments = small("network.fragments", file.fragments, 1, FRAGMENTS_MAX)?;
        Ok(Some(Self {
            members_min: small("network.members_min", file.members_min, 1, 256)?,
            steps_per_round: whole(
                "network.steps_per_round",
                file.steps_per_round,
                50,
                STEPS_PER_ROUND_MAX,
            )?,
            window_ms: milliseconds("network.window_seconds", file.window_seconds, 600.0)?,
            grace_ms: milliseconds("network.grace_seconds", file.grace_seconds, 60.0)?,
            late: match file.late.as_deref() {
                Some("carried") if fragments > 1 => {
                    // The next update is of another fragment.
                    return Err(named(
                        "network.late",
                        "carried",
                        "dropped where there are fragments",
                    ));
                }
                None if fragments > 1 => Late::Dropped,
                None | Some("carried") => Late::Carried,
                Some("dropped") => Late::Dropped,
                Some(found) => return Err(named("network.late", found, "carried or dropped")),
            },
            compressor,
            feedback,
            fragments,
            overlap: file.overlap.unwrap_or(false),
            outer: outer(&file)?,
            rule: rule(&file)?,
        }))
    }

    /// How often a member holds numbers for all weights beside what its trainer needs: those shared, and those after the next step; what
    /// compression left out, and what is sent; the updates of all members as they are merged; its own weights.
    pub fn copies(&self) -> u64 {
        let own = u64::from(self.fragments > 1) + u64::from(self.overlap);
        let momentum = if self.outer.is_some_and(|outer| outer.momentum > 0.0) { 2 } else { 0 };
        4 + momentum + own + u64::from(self.members_min.max(2))
    }

    /// Rounds of a job of so many steps.
    pub fn rounds(&self, steps: u64) -> u64 {
        steps.div_ceil(self.steps_per_round.into())
    }

    /// The step that all take together after each of so many rounds.
    pub fn outer(&self, rounds: u64) -> Outer {
        self.outer.unwrap_or(Outer::for_rounds(rounds))
    }
}

fn named(field: &str, found: &str, expected: &str) -> JobError {
    value(field, format!("{found:?}"), expected)
}

fn small(field: &str, given: Option<u32>, usual: u32, max: u16) -> Result<u16, JobError> {
    let found = whole(field, given, usual, max.into())?;
    Ok(u16::try_from(found).unwrap_or(max))
}

fn milliseconds(field: &str, given: Option<f64>, usual: f64) -> Result<u64, JobError> {
    match given.unwrap_or(usual) {
        found if (1.0..=SECONDS_MAX).contains(&found) => Ok((found * 1e3) as u64),
        found => Err(value(field, found, format!("1 to {SECONDS_MAX}"))),
    }
}

fn compressor(file: &NetworkFile) -> Result<Compressor, JobError> {
    let kind = file.compressor.as_deref().unwrap_or("sparse");
    if let Some(top) = file.top.filter(|_| kind != "sparse") {
        return Err(value("network.top", top, "nothing unless compressor is sparse"));
    }
    Ok(match kind {
        "sparse" => {
            let top = small("network.top", file.top, 64, TOP_MAX as u16)?;
            Compressor::Sparse { cut: Cut::Flat, top }
        }
        "dense4" => Compressor::Dense4,
        "bf16" => Compressor::Plain16,
        "f32" => Compressor::Plain32,
        found => {
            return Err(named("network.compressor", found, "sparse, dense4, bf16 or f32"));
        }
    })
}

fn outer(file: &NetworkFile) -> Result<Option<Outer>, JobError> {
    if file.outer_rate.is_none() && file.outer_momentum.is_none() {
        return Ok(None);
    }
    let rate = file.outer_rate.unwrap_or(Outer::AVERAGE.rate);
    let momentum = file.outer_momentum.unwrap_or(Outer::AVERAGE.momentum);
    if !(rate > 0.0 && rate <= 10.0) {
        return Err(value("network.outer_rate", rate, "above 0, at most 10"));
    }
    if !(0.0..1.0).contains(&momentum) {
        return Err(value("network.outer_momentum", momentum, "at least 0, below 1"));
    }
    Ok(Some(Outer { rate, momentum }))
}

fn rule(file: &NetworkFile) -> Result<Rule, JobError> {
    let liars = match file.liars {
        None | Some(0) => 0,
        given => small("network.liars", given, 0, 127)?,
    };
    let centre = match file.merge.as_deref() {
        None | Some("mean") => Centre::Mean,
        Some("trimmed") => Centre::Trimmed { per_mille: 250 },
        Some("median") => Centre::Median,
        Some("krum") => Centre::Krum { liars, kept: u16::MAX },
        Some("geometric") => Centre::GeometricMedian,
        Some(found) => {
            let expected = "mean, trimmed, median, krum or geometric";
            return Err(named("network.merge", found, expected));
        }
    };
    if liars > 0 && !matches!(centre, Centre::Krum { .. }) {
        return Err(value("network.liars", liars, "nothing unless merge is krum"));
    }
    Ok(Rule { clip: file.clip.unwrap_or(true), centre })
}
