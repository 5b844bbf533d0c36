//! How fast bytes may go: whoever moved some is told how long to leave the line alone.
//!
//! A leaky bucket that is asked afterwards, since how long something is often shows only when it came. Over any
//! stretch of time no more goes than the rate allows, and what was moved last.

use std::time::Duration;
use talka_base::Tick;

/// An idle line may be used at once for so long as if it had been used evenly.
const SAVED_US: u64 = 250_000;

/// One direction of a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Throttle {
    /// Bytes a second; without a limit if 0.
    rate: u64,
    /// When all that was moved would have gone through, had it gone evenly, in µs.
    spent_until_us: u64,
}

impl Throttle {
    /// So many bytes a second from now on; without a limit if 0. What was moved before is forgotten.
    pub fn set_rate(&mut self, rate: u64) {
        *self = Self { rate, spent_until_us: 0 };
    }

    /// Counts `bytes` that were moved, and says how long nothing more may be.
    pub fn spend(&mut self, now: Tick, bytes: u64) -> Duration {
        let now_us = now.0.saturating_mul(1_000);
        let took_us = u128::from(bytes) * 1_000_000;
        let Some(took_us) = took_us.checked_div(self.rate.into()) else { return Duration::ZERO };
        let begun_us = self.spent_until_us.max(now_us.saturating_sub(SAVED_US));
        let took_us = u64::try_from(took_us).unwrap_or(u64::MAX);
        self.spent_until_us = begun_us.saturating_add(took_us);
        Duration::from_micros(self.spent_until_us.saturating_sub(now_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_moved_takes_its_time_and_a_rest_is_saved_for_a_moment() {
        let mut throttle = Throttle::default();
        assert_eq!(throttle.spend(Tick(5_000), u64::MAX), Duration::ZERO);
        throttle.set_rate(1_000);
        assert_eq!(throttle.spend(Tick(5_000), 250), Duration::ZERO);
        assert_eq!(throttle.spend(Tick(5_000), 2_000), Duration::from_secs(2));
        assert_eq!(throttle.spend(Tick(6_000), 1_000), Duration::from_secs(2));
        assert_eq!(throttle.spend(Tick(99_000), 1_250), Duration::from_secs(1));
        throttle.set_rate(0);
        assert_eq!(throttle.spend(Tick(99_000), 1_000_000), Duration::ZERO);
    }

    proptest! {
        /// Whoever waits as long as told moves no more than the rate allows, what was saved and the last piece.
        #[test]
        fn nobody_who_waits_is_faster_than_the_rate(
            rate in 1u64..1 << 32,
            pieces in proptest::collection::vec((0u64..1 << 24, 0u64..3_000), 1..100),
        ) {
            let mut throttle = Throttle::default();
            throttle.set_rate(rate);
            let (begin, mut now, mut moved) = (1_000_000_u64, 1_000_000_u64, 0_u128);
            for (bytes, idle) in pieces {
                moved += u128::from(bytes);
                let wait = throttle.spend(Tick(now), bytes);
                now += u64::try_from(wait.as_micros().div_ceil(1_000)).expect("short") + idle;
                let time = u128::from(now - begin + SAVED_US / 1_000);
                // Each division forgets at most a microsecond of bytes.
                prop_assert!(moved * 1_000 <= u128::from(rate) * time + 100 * u128::from(rate).div_ceil(1_000));
            }
        }
    }
}
