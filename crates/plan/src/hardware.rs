//! What a machine is good for, as people ask: its tier, how fast it takes a layer, and what published tables say of its
//! GPU.
//!
//! Nothing is placed or paid by this: `placement` goes by measured times, and the ledger by its own classes. The FEI
//! network's tiers name GPUs, and its table rates some of one tier unlike; so here a tier follows from the multiplier that
//! was measured and the memory, and the table is shown beside it.

mod gpus;
mod score;

pub use gpus::{GPUS, Gpu, Rating, gpu};
pub use score::{Rates, Scale, scores};

use std::fmt;
use talka_base::Factor;

const GIB: u64 = 1 << 30;

/// The FEI network's six tiers of work, the most demanding first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Pretraining of foundation models, or several large models at once.
    One,
    /// Training of medium models, fine-tuning of large ones.
    Two,
    /// Training of small models, specialised fine-tuning.
    Three,
    /// Training of the smallest models, parameter-efficient fine-tuning.
    Four,
    /// Low-rank adapters, embeddings, small models.
    Five,
    /// Help with quantised training, quantised inference.
    Six,
}

/// The least multiplier and the least memory of each tier, so that the GPUs which the FEI network names for it are in it.
const TIERS: [(Tier, u32, u64); 5] = [
    (Tier::One, 50_000, 40),
    (Tier::Two, 30_000, 24),
    (Tier::Three, 20_000, 10),
    (Tier::Four, 12_500, 8),
    (Tier::Five, 7_500, 8),
];

impl Tier {
    /// The tier of a machine with this multiplier and so much memory for models, in bytes.
    pub fn of(multiplier: Factor, memory_bytes: u64) -> Self {
        let fits = |&&(_, least, gib): &&(Self, u32, u64)| {
            multiplier.0 >= least && memory_bytes >= gib * GIB
        };
        TIERS.iter().find(fits).map_or(Self::Six, |(tier, ..)| *tier)
    }

    /// From 1 to 6.
    pub const fn number(self) -> u8 {
        self as u8 + 1
    }

    /// What it is for.
    pub const fn work(self) -> &'static str {
        match self {
            Self::One => "pretraining, several large models",
            Self::Two => "training of medium models, fine-tuning of large ones",
            Self::Three => "training of small models, specialised fine-tuning",
            Self::Four => "training of the smallest models, parameter-efficient fine-tuning",
            Self::Five => "adapters, embeddings, small models",
            Self::Six => "quantised models",
        }
    }
}

/// NeuroShard's tiers of speed, by the time that one token takes through one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Speed {
    /// Below 10 ms: fifty layers and more.
    One,
    /// Below 50 ms: 15 to 30 layers.
    Two,
    /// Below 200 ms: 5 to 15 layers.
    Three,
    /// Up to a second: 3 to 8 layers.
    Four,
    /// Above: one or two layers, for work that nobody waits for.
    Five,
}

impl Speed {
    /// The tier of a machine that takes so many microseconds for a layer.
    pub const fn of(layer_us: u64) -> Self {
        match layer_us {
            0..10_000 => Self::One,
            10_000..50_000 => Self::Two,
            50_000..200_000 => Self::Three,
            200_000..=1_000_000 => Self::Four,
            _ => Self::Five,
        }
    }

    /// From 1 to 5.
    pub const fn number(self) -> u8 {
        self as u8 + 1
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.number(), self.work())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_needs_speed_and_memory() {
        for (what, multiplier, gib, expected) in [
            ("H100", 80_000, 80, Tier::One),
            ("4090", 30_000, 24, Tier::Two),
            ("a fast card of little memory", 80_000, 24, Tier::Two),
            ("3080, which the published minimum of 12 GB left out", 20_000, 10, Tier::Three),
            ("4070", 15_000, 12, Tier::Four),
            ("3060", 10_000, 12, Tier::Five),
            ("1660", 6_000, 6, Tier::Six),
            ("a computer with much memory", 4_000, 512, Tier::Six),
        ] {
            assert_eq!(Tier::of(Factor(multiplier), gib * GIB), expected, "{what}");
        }
        assert_eq!((Tier::One.number(), Tier::Six.number()), (1, 6));
    }

    #[test]
    fn speed_follows_the_time_of_a_layer() {
        for (us, expected) in [
            (0, 1),
            (9_999, 1),
            (10_000, 2),
            (50_000, 3),
            (200_000, 4),
            (1_000_000, 4),
            (1_000_001, 5),
        ] {
            assert_eq!(Speed::of(us).number(), expected, "{us}");
        }
    }
}
