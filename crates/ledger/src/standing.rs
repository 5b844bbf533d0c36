//! What a node's work counts for when an answer is shared out: its hardware multiplier times its reliability.
//!
//! Decides how a measured machine and a history of tasks become two factors, what a change of hardware costs, and
//! when a node is halted. Never decides who gets work (`plan` does), nor whether work was right (audits do). The factors
//! are weights for sharing what a payer spends, so unlike in the systems they come from, no multiplier creates credits.
//!
//! A node without a rating counts as 1 × 1.

mod class;
mod paper;
mod reliability;

pub use class::{HardwareClass, MULTIPLIER_MAX, MULTIPLIER_MIN, index, index_of_kind, multiplier};
pub use paper::{Finding, Judgement, RATED_AGAIN_MS_MIN, Rating};
pub(crate) use paper::{judge, rate};
pub use reliability::{
    Record, SUSPENDED_BELOW, SUSPENDED_TASKS_MIN, WINDOW_TASKS, is_suspended, redundancy,
    reliability,
};

use crate::book::Mark;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU64;
use talka_base::{DeviceKind, Factor, HardwareId, Scores, Tick, log2_millionths};

/// A node whose hardware changed this often since it joined, or since it was last cleared, is reviewed.
pub const HARDWARE_CHANGES_MAX: u32 = 3;

/// Quarantine for a multiplier that doubles, in milliseconds.
const QUARANTINE_MS_PER_DOUBLING: u64 = 24 * 3_600_000;

/// How long a multiplier that rises from `old` to `new` does not count yet: 24 hours · log2(new/old), in milliseconds,
/// rounded down. Zero if it does not rise.
pub fn quarantine_ms(old: Factor, new: Factor) -> u64 {
    let (Some(old), Some(new)) = (NonZeroU64::new(old.0.into()), NonZeroU64::new(new.0.into()))
    else {
        return 0;
    };
    let doublings = u64::try_from(log2_millionths(new, old)).unwrap_or(0);
    doublings * QUARANTINE_MS_PER_DOUBLING / talka_base::fixed::MILLION
}

/// What a node measured of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// What does its work.
    pub kind: DeviceKind,
    /// How it did in the benchmark.
    pub scores: Scores,
    /// What it is made of.
    pub hardware: HardwareId,
}

impl Measured {
    /// The index that counts: the scores' within what the kind of device may reach.
    pub fn index(&self) -> Factor {
        index_of_kind(self.kind, index(&self.scores))
    }

    /// Its class.
    pub fn class(&self) -> HardwareClass {
        HardwareClass::at(self.index())
    }

    /// Its multiplier once no quarantine holds it back.
    pub fn multiplier(&self) -> Factor {
        multiplier(self.index())
    }
}

/// Why a node counts for the least, until somebody who may do so clears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Halt {
    /// Too few of its tasks were completed or right.
    Suspended,
    /// Its hardware changed [`HARDWARE_CHANGES_MAX`] times.
    Review,
}

/// A multiplier that does not count yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Quarantine {
    until: Tick,
    /// What counts meanwhile.
    multiplier: Factor,
}

/// The last rating of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rated {
    /// What it measured.
    pub measured: Measured,
    /// When the ledger took it.
    pub at: Tick,
}

/// A node's standing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Ratings and judgements so far, and where the last ones stand.
    ratings: u32,
    last_rating: Option<Mark>,
    judgements: u32,
    last_judgement: Option<Mark>,
    rated: Option<Rated>,
    quarantine: Option<Quarantine>,
    hardware_changes: u32,
    record: Record,
    halt: Option<Halt>,
}

impl Standing {
    /// Takes in what the node measured, at `at`.
    ///
    /// A lower multiplier counts at once, a higher one after its quarantine; so does the first one above 1, or
    /// staying unrated would be a way round it. Measuring again what is in quarantine does not make it longer.
    pub fn rate(&mut self, measured: Measured, at: Tick) {
        let now = self.earned_multiplier(at);
        let was = self.rated.map(|rated| rated.measured);
        let (found, waits) = (measured.multiplier(), quarantine_ms(now, measured.multiplier()));
        let until = at.plus_ms(waits);
        self.quarantine = (waits > 0).then(|| {
            let pending = self.quarantine.filter(|q| at < q.until);
            let is_known = was.is_some_and(|was| found <= was.multiplier());
            let until = pending.filter(|_| is_known).map_or(until, |q| q.until.min(until));
            Quarantine { until, multiplier: now }
        });
        if was.is_some_and(|was| was.hardware != measured.hardware) {
            self.hardware_changes += 1;
            if self.hardware_changes >= HARDWARE_CHANGES_MAX {
                self.halt = Some(Halt::Review);
            }
        }
        self.rated = Some(Rated { measured, at });
    }

    /// A task that it was given ended.
    pub fn task(&mut self, completed: bool) {
        self.record.task(completed);
        self.halt_if_unreliable();
    }

    /// A task that it completed was computed again, and was right or not.
    pub fn audit(&mut self, passed: bool) {
        self.record.audit(passed);
        self.halt_if_unreliable();
    }

    /// It is trusted anew: its record and its changes of hardware are forgotten, and it is no longer halted.
    pub fn clear(&mut self) {
        (self.record, self.hardware_changes, self.halt) = (Record::default(), 0, None);
    }

    fn halt_if_unreliable(&mut self) {
        if self.halt.is_none() && self.record.is_suspended() {
            self.halt = Some(Halt::Suspended);
        }
    }

    /// The multiplier that counts at `at`: the lowest one for a node that is halted.
    pub fn multiplier(&self, at: Tick) -> Factor {
        if self.halt.is_some() { MULTIPLIER_MIN } else { self.earned_multiplier(at) }
    }

    fn earned_multiplier(&self, at: Tick) -> Factor {
        let quarantine = self.quarantine.filter(|q| at < q.until).map(|q| q.multiplier);
        let rated = || self.rated.map(|rated| rated.measured.multiplier());
        quarantine.or_else(rated).unwrap_or(Factor::ONE)
    }

    /// What counts of its tasks.
    pub fn reliability(&self) -> Factor {
        self.record.reliability()
    }

    /// How many ratings it has: the number of the next one.
    pub const fn ratings(&self) -> u32 {
        self.ratings
    }

    /// How many judgements it has: the number of the next one.
    pub const fn judgements(&self) -> u32 {
        self.judgements
    }

    /// Its last rating.
    pub const fn rated(&self) -> Option<&Rated> {
        self.rated.as_ref()
    }

    /// Until when its last rating does not count, if that is after `at`.
    pub fn quarantined_until(&self, at: Tick) -> Option<Tick> {
        self.quarantine.map(|q| q.until).filter(|until| at < *until)
    }

    /// How often its hardware changed.
    pub const fn hardware_changes(&self) -> u32 {
        self.hardware_changes
    }

    /// Its last tasks.
    pub const fn record(&self) -> &Record {
        &self.record
    }

    /// Why it counts for the least, if it does.
    pub const fn halt(&self) -> Option<Halt> {
        self.halt
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR_MS: u64 = 3_600_000;

    /// A discrete GPU of this index.
    fn gpu(index: u32, hardware: u8) -> Measured {
        let score = Some(Factor(index));
        let scores = Scores { matmul: score, memory: score, latency: score };
        Measured { kind: DeviceKind::DiscreteGpu, scores, hardware: HardwareId([hardware; 32]) }
    }

    fn hours(count: u64) -> Tick {
        Tick(count * HOUR_MS)
    }

    #[test]
    fn the_published_quarantines_are_kept() {
        // Ten-thousandths of a multiplier, and of an hour.
        for (old, new, expected) in [
            (10_000, 20_000, 240_000),
            (10_000, 40_000, 480_000),
            (10_000, 80_000, 720_000),
            (20_000, 30_000, 140_391),
            (1_000, 10_000, 797_263),
            (500, 80_000, 1_757_263),
            (10_000, 13_250, 97_438),
            (80_000, 10_000, 0),
            (10_000, 10_000, 0),
            (0, 10_000, 0),
        ] {
            let ms = quarantine_ms(Factor(old), Factor(new));
            assert_eq!((ms + 180) / 360, expected, "{old} to {new}");
        }
    }

    #[test]
    fn unrated_nodes_count_once_and_better_hardware_counts_after_its_quarantine() {
        let mut standing = Standing::default();
        assert_eq!(
            (standing.multiplier(Tick(0)), standing.reliability()),
            (Factor::ONE, Factor::ONE)
        );
        standing.rate(gpu(5_500, 1), Tick(0));
        assert_eq!(standing.multiplier(hours(23)), Factor::ONE);
        assert_eq!(standing.quarantined_until(hours(23)), Some(hours(24)));
        assert_eq!(standing.multiplier(hours(24)), Factor(20_000));
        // To four times that: 48 hours more.
        standing.rate(gpu(9_200, 2), hours(30));
        assert_eq!(
            (standing.multiplier(hours(77)), standing.multiplier(hours(78))),
            (Factor(20_000), Factor(80_000))
        );
        standing.rate(gpu(3_500, 2), hours(100));
        assert_eq!(standing.multiplier(hours(100)), Factor::ONE, "less counts at once");
        assert_eq!(standing.hardware_changes(), 1, "the same machine did worse");
    }

    #[test]
    fn measuring_again_does_not_renew_a_quarantine_but_more_does() {
        let mut standing = Standing::default();
        standing.rate(gpu(5_500, 1), Tick(0));
        standing.rate(gpu(5_500, 1), hours(20));
        assert_eq!(standing.quarantined_until(hours(20)), Some(hours(24)));
        standing.rate(gpu(5_400, 1), hours(21));
        assert_eq!(standing.quarantined_until(hours(21)), Some(hours(24)));
        standing.rate(gpu(9_200, 1), hours(22));
        assert_eq!(standing.quarantined_until(hours(22)), Some(hours(22 + 72)));
        standing.rate(gpu(3_600, 1), hours(23));
        let waits = quarantine_ms(Factor::ONE, Factor(10_500));
        assert_eq!(standing.quarantined_until(hours(23)), Some(hours(23).plus_ms(waits)));
    }

    #[test]
    fn a_third_change_is_reviewed_and_clearing_starts_anew() {
        let mut standing = Standing::default();
        (1..=3).for_each(|hardware| standing.rate(gpu(3_500, hardware), Tick(0)));
        assert_eq!((standing.halt(), standing.multiplier(Tick(0))), (None, Factor::ONE));
        standing.rate(gpu(3_500, 2), Tick(0));
        assert_eq!(standing.halt(), Some(Halt::Review));
        assert_eq!(standing.multiplier(Tick(0)), MULTIPLIER_MIN);
        (0..100).for_each(|_| standing.task(false));
        assert_eq!(standing.halt(), Some(Halt::Review), "one reason is enough");
        standing.clear();
        assert_eq!((standing.halt(), standing.hardware_changes()), (None, 0));
        assert_eq!(
            (standing.multiplier(Tick(0)), standing.reliability()),
            (Factor::ONE, Factor::ONE)
        );
    }

    #[test]
    fn unreliable_nodes_are_suspended_until_they_are_cleared() {
        let mut standing = Standing::default();
        (0..9).for_each(|_| standing.task(false));
        assert_eq!((standing.halt(), standing.reliability()), (None, Factor(5_000)));
        standing.task(false);
        assert_eq!(standing.halt(), Some(Halt::Suspended));
        (0..100).for_each(|_| standing.task(true));
        assert_eq!(standing.multiplier(Tick(0)), MULTIPLIER_MIN);
        standing.clear();
        assert_eq!(standing.multiplier(Tick(0)), Factor::ONE);
    }

    proptest! {
        #[test]
        fn a_multiplier_never_rises_without_its_quarantine(
            ratings in proptest::collection::vec((0u32..=10_000, 0u64..100, 0u8..2), 1..30),
        ) {
            let mut standing = Standing::default();
            let mut at = Tick(0);
            for (index, wait, hardware) in ratings {
                at = at.plus_ms(wait * HOUR_MS);
                let before = standing.multiplier(at);
                let measured = gpu(index, hardware);
                standing.rate(measured, at);
                prop_assert!(standing.multiplier(at) <= before.max(MULTIPLIER_MIN));
                prop_assert!(standing.multiplier(at) >= MULTIPLIER_MIN);
                if standing.halt().is_none() && standing.quarantined_until(at).is_none() {
                    prop_assert_eq!(standing.multiplier(at), measured.multiplier());
                }
            }
        }
    }
}
