//! When a member's credits came, so that those not used for long can expire.
//!
//! A *lot* is what came on one day. What leaves a member leaves from its oldest lots first, so the lots follow from the
//! dated postings alone: on any day, what is left of the credits that came up to day D is what came up to D, less
//! all that ever left, or nothing. Credits that move between a member's own buckets do not leave: a reservation that is given
//! up makes no credits younger, and neither does a stake.

use crate::{
    book::{Book, Change},
    entry::Account,
    error::LedgerError,
    rules::{Outcome, Postings},
    stake::DAY_MS,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use talka_base::{Credits, MemberId, Tick};

/// A member's credits by the day on which they came: all that it has, or what of it is held. Their sum is that of those buckets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lots(BTreeMap<u64, Credits>);

/// Decides about the expiry of a member's credits: what is older than the policy allows, and not set aside or
/// staked, is burned. Anybody can say when that is due; the sequencer does.
pub(crate) fn judge(book: &Book, at: Tick, member: MemberId) -> Result<Outcome, LedgerError> {
    let due = due(book, at, member);
    if due == Credits::ZERO {
        return Err(LedgerError::NothingExpires { member });
    }
    let postings = Postings::default()
        .minus(Account::spendable(member), due)?
        .plus(Account::Burn, due)?
        .finish();
    Ok(Outcome { postings, change: Change::Nothing })
}

/// What of a member's credits expires at `at`.
pub(crate) fn due(book: &Book, at: Tick, member: MemberId) -> Credits {
    let Some(expiry) = book.policy.expiry else { return Credits::ZERO };
    let old = book.lots.get(&member).map_or(Credits::ZERO, |lots| lots.older(at, expiry.days));
    old.min(book.credits(Account::spendable(member)))
}

/// What of a member's credits will be older than the policy allows within its time of warning, and when the first of it is.
pub(crate) fn warning(book: &Book, at: Tick, member: MemberId) -> Option<(Credits, Tick)> {
    let expiry = book.policy.expiry?;
    let lots = book.lots.get(&member)?;
    let soon = lots.older(at, expiry.days - expiry.warning_days);
    let first = lots.next_expiry(expiry.days)?;
    (soon > Credits::ZERO).then_some((soon, Tick(first * DAY_MS)))
}

/// Days since 1970-01-01 UTC.
pub(crate) const fn day_of(at: Tick) -> u64 {
    at.0 / DAY_MS
}

impl Lots {
    /// So many µGFT came at `at`, or left, if it is below zero.
    ///
    /// # Panics
    /// If the lots hold less, or it is more than all credits: the rules checked the sums.
    pub(crate) fn change(&mut self, at: Tick, by: i128) {
        let credits = Credits(u64::try_from(by.unsigned_abs()).expect("rules checked the sums"));
        match by {
            0.. => self.add(at, credits),
            ..0 => self.take(credits),
        }
    }

    /// `credits` came at `at`.
    pub(crate) fn add(&mut self, at: Tick, credits: Credits) {
        if credits > Credits::ZERO {
            self.0.entry(day_of(at)).or_default().0 += credits.0;
        }
    }

    /// `credits` left, the oldest first.
    ///
    /// # Panics
    /// If the lots hold less: the rules compared the balance.
    pub(crate) fn take(&mut self, credits: Credits) {
        let mut left = credits.0;
        while left > 0 {
            let mut oldest = self.0.first_entry().expect("lots sum to the member's buckets");
            let part = left.min(oldest.get().0);
            oldest.get_mut().0 -= part;
            left -= part;
            if *oldest.get() == Credits::ZERO {
                oldest.remove();
            }
        }
    }

    /// What is `days` or more older than `at`.
    pub(crate) fn older(&self, at: Tick, days: u16) -> Credits {
        let Some(cutoff) = day_of(at).checked_sub(days.into()) else { return Credits::ZERO };
        Credits(self.0.range(..=cutoff).map(|(_, lot)| lot.0).sum())
    }

    /// The day on which the oldest lot expires, in days since 1970.
    pub(crate) fn next_expiry(&self, days: u16) -> Option<u64> {
        self.0.first_key_value().map(|(day, _)| day + u64::from(days))
    }

    /// All of them: the sum of the member's buckets.
    pub fn total(&self) -> Credits {
        Credits(self.0.values().map(|lot| lot.0).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn day(day: u64) -> Tick {
        Tick(day * DAY_MS + 5)
    }

    #[test]
    fn the_oldest_credits_go_first_and_a_day_is_one_lot() {
        let mut lots = Lots::default();
        for (at, credits) in [(1, 10), (1, 5), (3, 20), (4, 0)] {
            lots.add(day(at), Credits(credits));
        }
        assert_eq!(lots.0.len(), 2);
        lots.take(Credits(12));
        assert_eq!(lots.older(day(11), 10), Credits(3));
        assert_eq!(lots.older(day(12), 10), Credits(3));
        assert_eq!(lots.older(day(13), 10), Credits(23));
        assert_eq!(lots.older(day(10), 10), Credits::ZERO);
        assert_eq!(lots.older(day(2), 10), Credits::ZERO, "before there were any days");
        assert_eq!(lots.next_expiry(10), Some(11));
        lots.take(Credits(23));
        assert_eq!(lots, Lots::default());
        assert_eq!(lots.next_expiry(10), None);
    }

    proptest! {
        /// The rule in the module's first words, from sums alone.
        #[test]
        fn lots_agree_with_sums_of_all_that_came_and_left(
            steps in proptest::collection::vec((0u64..20, any::<bool>(), 0u64..1000), 0..60),
            days in 0u16..40,
        ) {
            let (mut lots, mut came, mut left, mut now) = (Lots::default(), Vec::new(), 0, 0);
            for (wait, comes, credits) in steps {
                now += wait;
                if comes {
                    lots.add(day(now), Credits(credits));
                    came.push((now, credits));
                } else {
                    let credits = credits.min(lots.total().0);
                    lots.take(Credits(credits));
                    left += credits;
                }
            }
            let old = came.iter().filter(|(at, _)| now >= at + u64::from(days));
            let old: u64 = old.map(|(_, credits)| credits).sum();
            prop_assert_eq!(lots.older(day(now), days).0, old.saturating_sub(left));
            prop_assert_eq!(lots.total().0, came.iter().map(|(_, c)| c).sum::<u64>() - left);
        }
    }
}
