//! Sizes, durations and credits as people type and read them.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use talka_node::{
    api::BANDWIDTH_BYTES_MIN,
    base::{Credits, Tick},
};

/// Text that is not the quantity expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found:?}")]
pub struct QuantityError {
    expected: &'static str,
    found: String,
}

impl QuantityError {
    /// What it should have been.
    pub fn expected(&self) -> &'static str {
        self.expected
    }
}

/// A number of bytes, typed as `512M`, `8G`, `8GB` or `8GiB`: powers of 1024 in every spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

const SIZE: &str = "a size such as 512M or 8G";
const SIZE_UNITS: [(&str, u64); 5] =
    [("", 1), ("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30), ("T", 1 << 40)];

impl FromStr for Size {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let wrong = || QuantityError { expected: SIZE, found: text.into() };
        let (number, unit) = split(text);
        let unit = unit.to_ascii_uppercase();
        let unit = unit.strip_suffix("IB").or(unit.strip_suffix('B')).unwrap_or(&unit);
        let factor = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(factor).map(Self).ok_or_else(wrong)
    }
}

/// A size in a second, for weights.
///
/// # Errors
/// [`QuantityError`] also where it is too little to be of use.
pub fn bandwidth(text: &str) -> Result<Size, QuantityError> {
    let expected = "a size in a second of at least 125000 bytes, such as 500K or 2M";
    let wrong = || QuantityError { expected, found: text.into() };
    text.parse().ok().filter(|rate: &Size| rate.0 >= BANDWIDTH_BYTES_MIN).ok_or_else(wrong)
}

impl fmt::Display for Size {
    /// One decimal in the largest unit that leaves at least 1: `5.0 MiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) =
            *SIZE_UNITS.iter().rev().find(|(_, factor)| self.0 >= *factor).unwrap_or(&("", 1));
        if factor == 1 {
            return write!(f, "{} B", self.0);
        }
        let tenths = u128::from(self.0) * 10 / u128::from(factor);
        write!(f, "{}.{} {unit}iB", tenths / 10, tenths % 10)
    }
}

/// A time span typed as `90s`, `30m`, `24h` or `7d`.
///
/// # Errors
/// [`QuantityError`] if the number or the unit is missing, or the span is zero or beyond 2^64 ms.
pub fn duration(text: &str) -> Result<Duration, QuantityError> {
    let wrong = || QuantityError {
        expected: "a time span such as 90s, 30m, 24h or 7d",
        found: text.into(),
    };
    let (number, unit) = split(text);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number
        .checked_mul(seconds)
        .filter(|seconds| (1..=u64::MAX / 1000).contains(seconds))
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

/// Credits typed in GFT with at most six decimals, such as `1000` or `0.25`.
///
/// # Errors
/// [`QuantityError`] if the text is not such a number.
pub fn credits(text: &str) -> Result<Credits, QuantityError> {
    parse_micro(text).map(Credits).ok_or_else(|| QuantityError {
        expected: "an amount in GFT with at most six decimals, such as 1000 or 0.25",
        found: text.into(),
    })
}

/// A signed number of µGFT, in GFT.
pub fn signed_gft(micro: i64) -> String {
    let sign = if micro < 0 { '-' } else { '+' };
    let size = micro.unsigned_abs();
    format!("{sign}{}.{:06}", size / 1_000_000, size % 1_000_000)
}

fn parse_micro(text: &str) -> Option<u64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > 6 {
        return None;
    }
    let micro: u64 = format!("{decimals:0<6}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(micro)
}

/// The time by this computer's clock.
pub fn now() -> Tick {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Tick(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A span of milliseconds, rounded to what a glance needs: `3 s`, `12 min`, `5 h`.
pub fn show_ms(ms: u64) -> String {
    match ms / 1000 {
        0 => format!("{ms} ms"),
        s @ 1..=119 => format!("{s} s"),
        s @ 120..=7199 => format!("{} min", s / 60),
        s => format!("{} h", s / 3600),
    }
}

/// Microseconds as milliseconds: `0.35 ms`, `12.3 ms`, `450 ms`.
pub fn show_us(us: u64) -> String {
    match us {
        0..10_000 => format!("{}.{:02} ms", us / 1_000, us % 1_000 / 10),
        10_000..100_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        _ => format!("{} ms", us / 1_000),
    }
}

/// How many of `unit` in a second, for a glance: `12.5 MB/s`; nothing if that is not known.
pub fn per_second(n: u64, unit: &str) -> String {
    if n == 0 { String::new() } else { format!("{}{unit}/s", show_count(n)) }
}

/// A number for a glance, with three digits: `512`, `2.64 M`, `1.24 G`.
pub fn show_count(n: u64) -> String {
    const UNITS: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    let power = n.max(1).ilog10() / 3;
    let unit = UNITS[power as usize];
    let hundredths = u128::from(n) * 100 / 1000_u128.pow(power);
    let (whole, rest) = (hundredths / 100, hundredths % 100);
    match (power, whole) {
        (0, _) => n.to_string(),
        (_, 0..10) => format!("{whole}.{rest:02} {unit}"),
        (_, 10..100) => format!("{whole}.{} {unit}", rest / 10),
        _ => format!("{whole} {unit}"),
    }
}

/// The leading digits and the rest.
fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_every_spelling_and_shown_in_one() {
        for (text, bytes) in [("0", 0), ("7b", 7), ("512M", 512 << 20), ("8GiB", 8 << 30)] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for wrong in ["", "G", "-1G", "1.5G", "8X", "99999999T", "8 G"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
        assert_eq!(Size(1023).to_string(), "1023 B");
        assert_eq!(Size(5_270_264).to_string(), "5.0 MiB");
        assert_eq!(Size(u64::MAX).to_string(), "16777215.9 TiB");
    }

    #[test]
    fn durations_need_a_unit_and_are_never_zero() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for wrong in ["", "24", "h", "0s", "1w", "-1h", "999999999999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_bandwidth_is_enough_to_be_of_use() {
        assert_eq!(bandwidth("2M"), Ok(Size(2 << 20)));
        assert_eq!(bandwidth("125000"), Ok(Size(125_000)));
        for wrong in ["", "0", "124999", "20Mbit", "fast"] {
            assert!(bandwidth(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn credits_are_exact_to_the_sixth_decimal() {
        assert_eq!(credits("1000"), Ok(Credits(1_000_000_000)));
        assert_eq!(credits("0.000001"), Ok(Credits(1)));
        assert_eq!(credits("2.5"), Ok(Credits(2_500_000)));
        for wrong in ["", ".", "1.", ".5", "1.0000001", "-1", "1e3", "99999999999999999999"] {
            assert!(credits(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn counts_keep_three_digits() {
        let shown = [0, 999, 1000, 2_641_344, 12_345_678, 999_999_999, u64::MAX].map(show_count);
        assert_eq!(shown, ["0", "999", "1.00 k", "2.64 M", "12.3 M", "999 M", "18.4 E"]);
    }

    #[test]
    fn microseconds_keep_three_digits() {
        let shown = [0, 357, 9_999, 12_345, 450_000].map(show_us);
        assert_eq!(shown, ["0.00 ms", "0.35 ms", "9.99 ms", "12.3 ms", "450 ms"]);
    }

    #[test]
    fn spans_of_time_are_rounded_down() {
        let shown = [999, 1000, 119_999, 120_000, 7_200_000].map(show_ms);
        assert_eq!(shown, ["999 ms", "1 s", "119 s", "2 min", "2 h"]);
    }

    #[test]
    fn amounts_keep_their_sign_and_all_six_decimals() {
        let shown = [0, -1, 2_500_000, i64::MIN].map(signed_gft);
        assert_eq!(shown, ["+0.000000", "-0.000001", "+2.500000", "-9223372036854.775808"]);
    }
}
