//! Units as types: credits, floating-point operations and time never mix.

use serde::{Deserialize, Serialize};
use std::{fmt, iter::Sum, ops::AddAssign};

/// Micro-GFT per GFT. One GFT pays for 10^9 floating-point operations at precision factor 1.
pub const MICRO_PER_GFT: u64 = 1_000_000;

/// Credits in µGFT, never negative. Integers only: every node must reach the same balance.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Credits(pub u64);

impl Credits {
    /// No credits.
    pub const ZERO: Self = Self(0);

    /// Whole GFT.
    pub const fn from_gft(gft: u64) -> Self {
        Self(gft * MICRO_PER_GFT)
    }

    /// The sum, or `None` past 2^64 µGFT.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference, or `None` if it would be negative.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }
}

impl Sum for Credits {
    /// Saturates at 2^64 - 1 µGFT, which no ledger holds.
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        Self(iter.fold(0, |sum, x| sum.saturating_add(x.0)))
    }
}

impl fmt::Display for Credits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06} GFT", self.0 / MICRO_PER_GFT, self.0 % MICRO_PER_GFT)
    }
}

/// A signed change in µGFT: one posting of a ledger entry, or the balance of a system account.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Amount(pub i64);

impl Amount {
    /// `credits` as an increase, or `None` past 2^63 µGFT.
    pub fn plus(credits: Credits) -> Option<Self> {
        i64::try_from(credits.0).ok().map(Self)
    }

    /// `credits` as a decrease, or `None` past 2^63 µGFT.
    pub fn minus(credits: Credits) -> Option<Self> {
        Self::plus(credits).map(|a| Self(-a.0))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "+" };
        write!(f, "{sign}{}", Credits(self.0.unsigned_abs()))
    }
}

/// Floating-point operations; a multiply-add counts as two.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Flops(pub u64);

impl AddAssign for Flops {
    fn add_assign(&mut self, other: Self) {
        self.0 = self.0.saturating_add(other.0);
    }
}

impl Sum for Flops {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self(0), |mut sum, x| {
            sum += x;
            sum
        })
    }
}

/// A point in time in milliseconds since 1970-01-01 UTC, read by the shell and passed down.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Tick(pub u64);

impl Tick {
    /// This many milliseconds later; never wraps.
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`, zero if `earlier` is later.
    pub const fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credits_and_amounts_are_shown_with_all_six_digits() {
        assert_eq!(Credits(17_556_250).to_string(), "17.556250 GFT");
        assert_eq!(Amount(-1).to_string(), "-0.000001 GFT");
        assert_eq!(Amount(2_000_000).to_string(), "+2.000000 GFT");
    }

    #[test]
    fn amounts_refuse_what_does_not_fit() {
        assert_eq!(Amount::minus(Credits(5)), Some(Amount(-5)));
        assert_eq!(Amount::plus(Credits(u64::MAX)), None);
    }
}
