//! How often something may happen: so many times a minute, all at once after a quiet minute.
//!
//! The cell rate algorithm: one number says when the next call would be due if all came evenly. Equal to a
//! bucket that holds a minute's worth of tokens and is refilled evenly, without a timer to refill it.

use talka_base::Tick;

const MINUTE_US: u64 = 60_000_000;

/// The rate of one kind of call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pace {
    per_minute: u32,
    /// When the calls let through so far would have come to an end, had they come evenly, in µs.
    spent_until_us: u64,
}

impl Pace {
    /// At most `per_minute` calls at once, and one more each time that a minute's part of one has passed.
    pub fn new(per_minute: u32) -> Self {
        Self { per_minute: per_minute.max(1), spent_until_us: 0 }
    }

    /// Counts a call, or says in how many milliseconds one may come.
    ///
    /// # Errors
    /// The wait; the call is not counted.
    pub fn take(&mut self, now: Tick) -> Result<(), u64> {
        let now_us = now.0.saturating_mul(1_000);
        let interval_us = MINUTE_US.div_ceil(u64::from(self.per_minute));
        let most_us = interval_us * u64::from(self.per_minute);
        // A clock that was set back must not shut a caller out for longer than a full bucket does.
        self.spent_until_us = self.spent_until_us.clamp(now_us, now_us.saturating_add(most_us));
        let until_us = self.spent_until_us.saturating_add(interval_us);
        match until_us.saturating_sub(now_us).checked_sub(most_us) {
            None | Some(0) => {
                self.spent_until_us = until_us;
                Ok(())
            }
            Some(early_us) => Err(early_us.div_ceil(1_000)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_minutes_worth_comes_at_once_and_then_one_by_one() {
        let mut pace = Pace::new(3);
        for _ in 0..3 {
            assert_eq!(pace.take(Tick(1_000)), Ok(()));
        }
        assert_eq!(pace.take(Tick(1_000)), Err(20_000));
        assert_eq!(pace.take(Tick(20_999)), Err(1));
        assert_eq!(pace.take(Tick(21_000)), Ok(()));
        assert_eq!(pace.take(Tick(21_000)), Err(20_000));
    }

    #[test]
    fn a_clock_set_back_shuts_nobody_out_for_long() {
        let mut pace = Pace::new(60);
        assert_eq!(pace.take(Tick(10_000_000)), Ok(()));
        assert_eq!(pace.take(Tick(0)), Err(1_000));
        assert_eq!(pace.take(Tick(1_000)), Ok(()));
    }

    proptest! {
        /// In any stretch of time no more than the bucket and what was refilled meanwhile comes through.
        #[test]
        fn no_stretch_of_time_has_more_than_its_share(
            per_minute in 1u32..200,
            pauses in proptest::collection::vec(0u64..3_000, 1..300),
        ) {
            let mut pace = Pace::new(per_minute);
            let mut now = 0;
            let mut taken = Vec::new();
            for pause in pauses {
                now += pause;
                if pace.take(Tick(now)).is_ok() {
                    taken.push(now);
                }
            }
            for (first, begun) in taken.iter().enumerate() {
                for (last, ended) in taken.iter().enumerate().skip(first) {
                    let refilled = (ended - begun) * u64::from(per_minute) / 60_000;
                    prop_assert!((last - first) as u64 <= u64::from(per_minute) - 1 + refilled);
                }
            }
        }

        /// Whoever waits as long as told is let through.
        #[test]
        fn the_wait_told_is_enough(per_minute in 1u32..5_000, calls in 1u32..6_000) {
            let mut pace = Pace::new(per_minute);
            let mut now = Tick(7);
            for _ in 0..calls {
                if let Err(wait_ms) = pace.take(now) {
                    now = now.plus_ms(wait_ms);
                    prop_assert_eq!(pace.take(now), Ok(()));
                }
            }
        }
    }
}
