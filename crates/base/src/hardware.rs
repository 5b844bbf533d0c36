//! What a machine is and how it did in the benchmark: the facts from which a node's standing follows.
//!
//! Holds no rule. The ledger turns scores into a multiplier, `plan` into tiers for people.

use crate::{codec::Encoded, encode, fixed::Factor, id::HardwareId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The longest text of a [`Hardware`], in characters, and the most GPUs that it names.
const TEXT_CHARS_MAX: usize = 128;
const GPUS_MAX: usize = 16;

/// What kind of device does a node's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// A phone, a tablet or a small board.
    Mobile,
    /// A computer that works on its processors alone.
    Cpu,
    /// A GPU that shares its memory with the processors.
    IntegratedGpu,
    /// A GPU or another accelerator with memory of its own.
    DiscreteGpu,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mobile => "mobile",
            Self::Cpu => "CPU",
            Self::IntegratedGpu => "integrated GPU",
            Self::DiscreteGpu => "GPU",
        })
    }
}

/// What the parts of the benchmark gave, each from nothing to [`Factor::ONE`]; `None` was not measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scores {
    /// Products of matrices.
    pub matmul: Option<Factor>,
    /// Reading of memory.
    pub memory: Option<Factor>,
    /// The time that one batch takes.
    pub latency: Option<Factor>,
}

impl Scores {
    /// The first score above one, which no benchmark gives.
    pub fn beyond_one(&self) -> Option<Factor> {
        [self.matmul, self.memory, self.latency].into_iter().flatten().find(|s| *s > Factor::ONE)
    }
}

/// What a machine is made of, as its system names the parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    cpu: String,
    cores: u32,
    gpus: Vec<String>,
    platform: String,
    machine: String,
}

impl Hardware {
    /// `platform` is the operating system, `machine` the instruction set. GPUs are named in any order; what is
    /// longer than names of parts are is cut.
    pub fn new(cpu: &str, cores: u32, gpus: &[String], platform: &str, machine: &str) -> Self {
        let cut = |text: &str| text.trim().chars().take(TEXT_CHARS_MAX).collect::<String>();
        let mut gpus: Vec<_> = gpus.iter().map(|gpu| cut(gpu)).collect();
        gpus.sort();
        gpus.truncate(GPUS_MAX);
        let [cpu, platform, machine] = [cpu, platform, machine].map(cut);
        Self { cpu, cores, gpus, platform, machine }
    }

    /// The fingerprint: equal for equal parts.
    ///
    /// It tells a changed machine, and not one machine from another: two computers of one make have the same, so
    /// unlike the system it comes from, nobody is refused or merged for it.
    pub fn id(&self) -> HardwareId {
        HardwareId(blake3::hash(&encode(self)).into())
    }

    /// The processor's name.
    pub fn cpu(&self) -> &str {
        &self.cpu
    }

    /// Its logical cores.
    pub const fn cores(&self) -> u32 {
        self.cores
    }

    /// The names of its GPUs.
    pub fn gpus(&self) -> &[String] {
        &self.gpus
    }
}

impl Encoded for Hardware {
    const NAME: &'static str = "hardware";
    /// Four bytes for a character at most.
    const SIZE_MAX: usize = (3 + GPUS_MAX) * (4 * TEXT_CHARS_MAX + 4) + 16;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tower(gpus: &[&str]) -> Hardware {
        let gpus: Vec<_> = gpus.iter().map(ToString::to_string).collect();
        Hardware::new(" Ryzen 7 ", 16, &gpus, "linux", "x86_64")
    }

    #[test]
    fn the_fingerprint_follows_the_parts_and_not_their_order() {
        assert_eq!(tower(&["A", "B"]).id(), tower(&["B", "A "]).id());
        assert_ne!(tower(&["A"]).id(), tower(&["A", "B"]).id());
        assert_ne!(tower(&["A"]).id(), tower(&[]).id());
        assert_eq!(tower(&[]).cpu(), "Ryzen 7");
        assert_eq!(
            tower(&[]).id().to_string(),
            "cb42ff6974d1d5fb14a5eff6f1ab987774f63ab228cb0a1e99ffaf1d0171843f"
        );
    }

    #[test]
    fn names_of_any_length_fit() {
        let long = "\u{1F5A5}".repeat(1_000);
        let gpus = vec![long.clone(); 100];
        let hardware = Hardware::new(&long, u32::MAX, &gpus, &long, &long);
        assert_eq!((hardware.gpus().len(), hardware.cpu().chars().count()), (16, 128));
        hardware.id();
    }

    #[test]
    fn a_score_above_one_is_found() {
        let scores = |score| Scores { memory: Some(Factor(score)), ..Scores::default() };
        assert_eq!(scores(10_000).beyond_one(), None);
        assert_eq!(scores(10_001).beyond_one(), Some(Factor(10_001)));
    }
}
