//! Fractions without floats: a factor in ten-thousandths and a logarithm in millionths.
//!
//! Multipliers, reliability, fees and quarantines are part of what every node must agree on, and floating point may
//! differ in the last bit from one machine to the next. Four decimals are what the published systems keep of a
//! multiplier, six what they keep of a logarithm.

use serde::{Deserialize, Serialize};
use std::{fmt, num::NonZeroU64};

/// A factor in ten-thousandths: `Factor(13_250)` is 1.325.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Factor(pub u32);

impl Factor {
    /// Ten-thousandths in one.
    pub const SCALE: u32 = 10_000;
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// One: changes nothing.
    pub const ONE: Self = Self(Self::SCALE);

    /// This part of `whole`, rounded down; saturates at 2^64 - 1.
    ///
    /// Down, because what is shared or paid by a factor comes out of something that is there.
    pub fn floor_of(self, whole: u64) -> u64 {
        let product = u128::from(whole) * u128::from(self.0);
        u64::try_from(product / u128::from(Self::SCALE)).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:04}", self.0 / Self::SCALE, self.0 % Self::SCALE)
    }
}

/// Millionths in one, for [`log2_millionths`].
pub const MILLION: u64 = 1_000_000;

/// Bits of the fraction that [`log2_millionths`] computes before it rounds.
const FRACTION_BITS: u32 = 60;

/// log2(`numerator` / `denominator`) in millionths, rounded to the nearest.
///
/// The unrounded value is off by less than 2^-58, so the result is off by less than half a millionth and 2^-58:
/// it is the nearest one unless the true value lies that close to the middle between two. Exact for powers of two.
/// Swapping the two changes only the sign.
///
/// Each bit of the fraction comes from squaring a mantissa in [1, 2): if the square reaches 2 the bit is one, and
/// the square is halved. A square is cut to 63 bits of fraction, which changes the logarithm by less than 2^-62, and half
/// as much with every bit.
pub fn log2_millionths(numerator: NonZeroU64, denominator: NonZeroU64) -> i64 {
    if numerator < denominator {
        return -log2_millionths(denominator, numerator);
    }
    let high = numerator.get() << numerator.leading_zeros();
    let low = denominator.get() << denominator.leading_zeros();
    let mut exponent =
        i64::from(denominator.leading_zeros()) - i64::from(numerator.leading_zeros());
    // In units of 2^-63, so that 1 to 2 fills a u64.
    let mut mantissa = u128::from(high);
    if high >= low {
        mantissa = (mantissa << 63) / u128::from(low);
    } else {
        exponent -= 1;
        mantissa = (mantissa << 64) / u128::from(low);
    }
    let mut fraction = 0u128;
    for _ in 0..FRACTION_BITS {
        let square = mantissa * mantissa;
        let bit = square >> 127;
        fraction = fraction << 1 | bit;
        mantissa = square >> (63 + bit);
    }
    let million = u128::from(MILLION);
    let rounded = (fraction * million + (1 << (FRACTION_BITS - 1))) >> FRACTION_BITS;
    exponent * MILLION as i64 + i64::try_from(rounded).expect("at most a million")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn log2(numerator: u64, denominator: u64) -> i64 {
        let [n, d] = [numerator, denominator].map(|x| NonZeroU64::new(x).expect("above zero"));
        log2_millionths(n, d)
    }

    #[test]
    fn logarithms_are_rounded_to_the_nearest_millionth() {
        for (numerator, denominator, expected) in [
            (1, 1, 0),
            (2, 1, 1_000_000),
            (1, 8, -3_000_000),
            (1 << 63, 1, 63_000_000),
            (u64::MAX, u64::MAX, 0),
            // 1.584962500721156, 3.321928094887362, 0.137503523749935, 9.967226258835993.
            (3, 1, 1_584_963),
            (2, 3, -584_963),
            (10, 1, 3_321_928),
            (11, 10, 137_504),
            (1001, 1, 9_967_226),
            // Just below 64, and just above 0.
            (u64::MAX, 1, 64_000_000),
            (u64::MAX, u64::MAX - 1, 0),
        ] {
            assert_eq!(log2(numerator, denominator), expected, "{numerator}/{denominator}");
            assert_eq!(log2(denominator, numerator), -expected, "{denominator}/{numerator}");
        }
    }

    #[test]
    fn factors_round_down_and_saturate() {
        assert_eq!(Factor(13_250).floor_of(13_250_000), 17_556_250);
        assert_eq!(Factor(500).floor_of(39), 1);
        assert_eq!(Factor::ONE.floor_of(u64::MAX), u64::MAX);
        assert_eq!(Factor(10_001).floor_of(u64::MAX), u64::MAX);
        assert_eq!(Factor::ZERO.floor_of(7), 0);
        assert_eq!(Factor(13_250).to_string(), "1.3250");
    }

    proptest! {
        #[test]
        fn ratios_of_ratios_add_up(a in 1u64.., b in 1u64.., c in 1u64..) {
            let error = log2(a, b) + log2(b, c) - log2(a, c);
            // Three roundings by at most half of a millionth.
            prop_assert!(error.abs() <= 1, "{error}");
        }

        #[test]
        fn more_is_never_less(numerator in 1u64..u64::MAX, denominator in 1u64..) {
            prop_assert!(log2(numerator, denominator) <= log2(numerator + 1, denominator));
        }
    }
}
