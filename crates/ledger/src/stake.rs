//! Stake: credits that a member locks as a pledge, what they are worth in rewards, and how a penalty is taken.
//!
//! Follows system 003 with the answers of its contradictions: the logarithmic multiplier, capped at two; a penalty
//! bounded by what is pledged; at most half of it to whoever reported, the rest burned. Unlike there, nothing spendable
//! is touched: a member who pledged nothing and earned nothing has nothing to lose here.

use crate::{
    book::{Book, Change},
    entry::{Account, Bucket},
    error::LedgerError,
    rules::{Outcome, Postings, acting_member, check_network},
};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU64;
use talka_base::{
    Credits, Encoded, Factor, MemberId, NetworkId, NodeId, Signed, Tick, fixed::MILLION,
    log2_millionths,
};

/// Milliseconds of a day.
pub(crate) const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The stake at which the multiplier's logarithm is one.
const STAKE_UNIT: NonZeroU64 = NonZeroU64::new(Credits::from_gft(1000).0).unwrap();

/// What may be staked, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StakeRules {
    /// The least that one order may add.
    pub least: Credits,
    /// The most that a member may have staked.
    pub most: Credits,
    /// The shortest lock, in days.
    pub lock_days_min: u16,
    /// The longest lock, in days.
    pub lock_days_max: u16,
    /// The most of a penalty that goes to whoever reported it; the rest is burned. At most a half.
    pub reporter: Factor,
}

impl Default for StakeRules {
    fn default() -> Self {
        Self {
            least: Credits::from_gft(1),
            most: Credits::from_gft(10_000_000),
            lock_days_min: 1,
            lock_days_max: 365,
            reporter: Factor(5_000),
        }
    }
}

/// How long a stake is locked unless its order says otherwise, in days.
pub const LOCK_DAYS_DEFAULT: u16 = 30;

/// "Change my stake so", signed by a node that acts for the member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StakeOrder {
    /// The network whose ledger this is for.
    pub network: NetworkId,
    /// The node that signs.
    pub by: NodeId,
    /// 1 for the member's first order, then one more each, so that none works twice.
    pub serial: u64,
    /// What changes.
    pub change: StakeChange,
}

/// What a [`StakeOrder`] changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StakeChange {
    /// Spendable credits are staked, and all that is staked is locked for so long at least.
    Lock {
        /// How much is added.
        credits: Credits,
        /// From now on, in days.
        days: u16,
    },
    /// Staked credits are spendable again, once the lock is over.
    Unlock {
        /// How much.
        credits: Credits,
    },
}

impl Encoded for StakeOrder {
    const NAME: &'static str = "stake order";
    const SIZE_MAX: usize = 128;
}

/// What the ledger keeps of a member's stake beside its amount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StakeLock {
    /// Until when it cannot be unlocked.
    pub until: Tick,
    /// Orders taken so far.
    pub serial: u64,
}

/// Decides about a stake order.
pub(crate) fn judge(
    book: &Book,
    at: Tick,
    order: &Signed<StakeOrder>,
) -> Result<Outcome, LedgerError> {
    let paper = order.verify_by(&order.claimed_value().by.0)?;
    check_network(book, "stake order", paper.network)?;
    let member = acting_member(book, at, paper.by)?;
    let lock = book.members[&member].stake;
    let (expected, found) = (lock.serial + 1, paper.serial);
    if found != expected {
        return Err(LedgerError::Serial { expected, found });
    }
    let (spendable, staked) = (Account::spendable(member), Account::Member(member, Bucket::Stake));
    let (from, to, credits, until) = match paper.change {
        StakeChange::Lock { credits, days } => {
            check_lock(&book.policy.stake, book.credits(staked), credits, days)?;
            (spendable, staked, credits, locked_until(lock.until, at, days))
        }
        StakeChange::Unlock { .. } if at < lock.until => {
            return Err(LedgerError::Locked { member, until: lock.until, now: at });
        }
        StakeChange::Unlock { credits } => (staked, spendable, credits, lock.until),
    };
    let postings = Postings::default().minus(from, credits)?.plus(to, credits)?.finish();
    let lock = StakeLock { until, serial: found };
    Ok(Outcome { postings, change: Change::Stake { member, lock } })
}

fn check_lock(
    rules: &StakeRules,
    staked: Credits,
    credits: Credits,
    days: u16,
) -> Result<(), LedgerError> {
    let room = rules.most.0.saturating_sub(staked.0);
    let (min, max) = (rules.lock_days_min.into(), rules.lock_days_max.into());
    for (field, found, min, max) in
        [("credits", credits.0, rules.least.0, room), ("days", days.into(), min, max)]
    {
        if !(min..=max).contains(&found) {
            return Err(LedgerError::Stake { field, found, min, max });
        }
    }
    Ok(())
}

/// The postings of a penalty: stake first, then held earnings; a part to `reporter`, the rest burned.
pub(crate) fn penalty(
    book: &Book,
    member: MemberId,
    penalty: Credits,
    reporter: Option<MemberId>,
) -> Result<Postings, LedgerError> {
    let [stake, held] = [Bucket::Stake, Bucket::Held].map(|b| Account::Member(member, b));
    let part = if reporter.is_some() { book.policy.stake.reporter } else { Factor::ZERO };
    let slash = slash(penalty, book.credits(stake), book.credits(held), part);
    let postings = Postings::default()
        .minus(stake, slash.from_stake)?
        .minus(held, slash.from_held)?
        .plus(Account::Burn, slash.burned)?;
    match reporter {
        Some(reporter) => postings.plus(Account::spendable(reporter), slash.reporter),
        None => Ok(postings),
    }
}

/// When a stake that was locked until `current` is free again after more is added at `at`: the later date counts.
pub fn locked_until(current: Tick, at: Tick, days: u16) -> Tick {
    current.max(at.plus_ms(u64::from(days) * DAY_MS))
}

/// The reward multiplier of a stake, in millionths: 1 + 0.1 × log2(1 + stake / 1000 GFT), rounded to the nearest, at
/// most 2.
pub fn multiplier_millionths(stake: Credits) -> u64 {
    let logarithm = log2_millionths(STAKE_UNIT.saturating_add(stake.0), STAKE_UNIT);
    let tenth = (logarithm.unsigned_abs() + 5) / 10;
    (MILLION + tenth).min(2 * MILLION)
}

/// Where a penalty is taken from and where it goes. `from_stake + from_held == reporter + burned`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slash {
    /// Taken from the stake.
    pub from_stake: Credits,
    /// Taken from held earnings, once no stake is left.
    pub from_held: Credits,
    /// Paid to whoever reported.
    pub reporter: Credits,
    /// Burned.
    pub burned: Credits,
}

/// Takes `penalty` from the stake first, then from held earnings, and never more than there is.
///
/// `reporter` is the part for whoever reported, at most a half; rounded down.
pub fn slash(penalty: Credits, stake: Credits, held: Credits, reporter: Factor) -> Slash {
    let from_stake = penalty.min(stake);
    let from_held = Credits(penalty.0 - from_stake.0).min(held);
    let taken = u128::from(from_stake.0) + u128::from(from_held.0);
    let taken = u64::try_from(taken).expect("never more than the penalty");
    let reporter = reporter.min(Factor(Factor::SCALE / 2)).floor_of(taken);
    Slash { from_stake, from_held, reporter: Credits(reporter), burned: Credits(taken - reporter) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Section N2 of the published systems, to the last of six digits.
    #[test]
    fn the_multiplier_has_the_published_values() {
        for (stake, expected) in [
            (0, 1_000_000),
            (100, 1_013_750),
            (1_000, 1_100_000),
            (2_000, 1_158_496),
            (5_000, 1_258_496),
            (10_000, 1_345_943),
            (50_000, 1_567_243),
            (100_000, 1_665_821),
            (1_000_000, 1_996_723),
            (1_023_000, 2_000_000),
            (10_000_000, 2_000_000),
        ] {
            assert_eq!(multiplier_millionths(Credits::from_gft(stake)), expected, "{stake}");
        }
        assert_eq!(multiplier_millionths(Credits(u64::MAX)), 2_000_000);
    }

    fn check(penalty: u64, stake: u64, held: u64, expected: [u64; 4]) {
        let [penalty, stake, held] = [penalty, stake, held].map(Credits::from_gft);
        let slash = slash(penalty, stake, held, StakeRules::default().reporter);
        let Slash { from_stake, from_held, reporter, burned } = slash;
        assert_eq!([from_stake, from_held, reporter, burned], expected.map(Credits::from_gft));
    }

    /// System 003 takes 10 of a balance of 100, or all of one of 4; a validator's 20 with a stake of 5 comes 5 from
    /// the stake and 15 from the balance. There the rest comes from the spendable balance, here from held earnings.
    #[test]
    fn a_penalty_is_taken_from_the_stake_then_from_held_earnings_and_halved() {
        check(10, 100, 0, [10, 0, 5, 5]);
        check(10, 4, 0, [4, 0, 2, 2]);
        check(10, 0, 0, [0, 0, 0, 0]);
        check(20, 5, 100, [5, 15, 10, 10]);
    }

    #[test]
    fn a_validator_against_the_consensus_loses_twenty_and_nobody_gains() {
        let [penalty, stake, held] = [20, 5, 100].map(Credits::from_gft);
        let Slash { reporter, burned, .. } = slash(penalty, stake, held, Factor::ZERO);
        assert_eq!((reporter, burned), (Credits::ZERO, Credits::from_gft(20)));
    }

    #[test]
    fn more_stake_extends_the_lock_to_the_later_date() {
        let day = |days: u64| Tick(days * DAY_MS);
        assert_eq!(locked_until(Tick(0), day(10), 30), day(40));
        assert_eq!(locked_until(day(40), day(20), 30), day(50));
        assert_eq!(locked_until(day(40), day(20), 1), day(40));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100_000))]

        #[test]
        fn a_slash_takes_no_more_than_stake_and_held_and_gives_away_at_most_half(
            penalty: u64, stake: u64, held: u64, reporter: u32,
        ) {
            let [penalty, stake, held] = [penalty, stake, held].map(Credits);
            let slash = slash(penalty, stake, held, Factor(reporter));
            prop_assert!(slash.from_stake <= stake && slash.from_held <= held);
            let taken = slash.from_stake.0 + slash.from_held.0;
            prop_assert!(taken <= penalty.0);
            prop_assert_eq!(slash.reporter.0 + slash.burned.0, taken);
            prop_assert!(slash.reporter <= slash.burned);
        }

        #[test]
        fn more_stake_never_counts_less(stake: u64, more: u64) {
            let more = Credits(stake.saturating_add(more));
            prop_assert!(multiplier_millionths(Credits(stake)) <= multiplier_millionths(more));
        }
    }
}
