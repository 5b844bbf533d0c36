//! The rules of money that a founder chooses once: the grant, the prices, how long a reservation
//! may stay open. Part of the founding entry, so that every replay uses the same ones.

use serde::{Deserialize, Serialize};
use talka_base::{Credits, Precision};

/// The one version of [`Policy`]'s meaning that this program knows.
pub const POLICY_VERSION: u16 = 1;

/// What a new member is granted: in bf16 about a hundred million tokens of a model of 1 M
/// parameters, eighty thousand of one of 1.24 B. Enough to try a network, little enough to have to work.
pub const GRANT_DEFAULT: Credits = Credits::from_gft(100_000);

/// How long a request may hold its reservation before anyone's credits are freed again.
///
/// A full 4,096-token answer at 5 tokens/s takes 14 minutes.
pub const RESERVATION_MS_MAX_DEFAULT: u64 = 15 * 60 * 1000;

/// The founding policy of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Always [`POLICY_VERSION`]: another version would mean other rules.
    pub version: u16,
    /// Credits minted for each new member, once.
    pub grant: Credits,
    /// A reservation older than this may be released by the sequencer, in milliseconds.
    pub reservation_ms_max: u64,
    /// How much a FLOP costs at each precision.
    pub precision_per_mille: PrecisionFactors,
}

/// Thousandths of the price at full precision, per precision. Zero makes a network where work is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrecisionFactors {
    /// For [`Precision::F32`].
    pub full: u32,
    /// For [`Precision::F16`].
    pub half: u32,
    /// For [`Precision::Bf16`].
    pub brain: u32,
    /// For [`Precision::Int8`].
    pub byte: u32,
}

impl PrecisionFactors {
    /// The factor of `precision`, in thousandths.
    pub const fn of(&self, precision: Precision) -> u32 {
        match precision {
            Precision::F32 => self.full,
            Precision::F16 => self.half,
            Precision::Bf16 => self.brain,
            Precision::Int8 => self.byte,
        }
    }
}

impl Default for PrecisionFactors {
    fn default() -> Self {
        Self { full: 1000, half: 500, brain: 500, byte: 250 }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            version: POLICY_VERSION,
            grant: GRANT_DEFAULT,
            reservation_ms_max: RESERVATION_MS_MAX_DEFAULT,
            precision_per_mille: PrecisionFactors::default(),
        }
    }
}
