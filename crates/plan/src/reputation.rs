//! What a node thinks of another one from what it saw of it.
//!
//! Local and free of charge: it neither earns nor costs credits, and two honest nodes may think differently. What the
//! network agrees on is reliability, in the ledger. The changes are those of the FEI network, in thousandths of its points;
//! where it gives a range, the change is linear within it. There reputation had no bounds; here it starts at zero and
//! never falls below, so that a new key is never better than an old one.

use crate::availability::Week;
use talka_base::Factor;

/// A task that was completed.
const TASK: i64 = 200;
/// An audit that it passed or failed.
const AUDIT: i64 = 300;
/// Bandwidth that it kept for a week, or not.
const BANDWIDTH: i64 = 200;
/// The answers to so many tasks, if most were in time or not.
const RESPONSES: i64 = 100;
const RESPONSES_TASKS: u32 = 10;
/// A week's uptime against what was promised: the least change, and what is added up to.
const UPTIME_LEAST: i64 = 100;
const UPTIME_MOST: i64 = 500;
/// A model that it trained, from the worst to the best.
const MODEL_LEAST: i64 = 100;
const MODEL_MOST: i64 = 1_000;

/// What was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// A task ended; in time or not, if it was completed.
    Task {
        /// Whether there is a result.
        completed: bool,
        /// Whether it came when it was expected.
        in_time: bool,
    },
    /// A result was computed again.
    Audit {
        /// Whether it was right.
        passed: bool,
    },
    /// A week of its schedule is over.
    Uptime {
        /// What it kept of the week.
        week: Week,
        /// The part that it had promised.
        commitment: Factor,
    },
    /// A week in which its links were as fast as it says, or were not.
    Bandwidth {
        /// Whether they were.
        kept: bool,
    },
    /// A model that it trained was rated.
    Model {
        /// From the worst to the best.
        quality: Factor,
    },
}

/// What is thought of one node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reputation {
    thousandths: i64,
    /// Tasks since the last judgement of responses, and those of them in time.
    responses: (u32, u32),
}

impl Reputation {
    /// Thousandths of a point, never negative.
    pub const fn thousandths(&self) -> i64 {
        self.thousandths
    }

    /// Takes in what was seen.
    pub fn take(&mut self, seen: Seen) {
        let change = match seen {
            Seen::Task { completed, in_time } => {
                self.respond(completed && in_time) + if completed { TASK } else { 0 }
            }
            Seen::Audit { passed } => signed(AUDIT, passed),
            Seen::Uptime { week, commitment } => uptime(week, commitment),
            Seen::Bandwidth { kept } => signed(BANDWIDTH, kept),
            Seen::Model { quality } => between(MODEL_LEAST, MODEL_MOST, quality.0, Factor::SCALE),
        };
        self.thousandths = self.thousandths.saturating_add(change).max(0);
    }

    fn respond(&mut self, in_time: bool) -> i64 {
        let (tasks, quick) = &mut self.responses;
        *tasks += 1;
        *quick += u32::from(in_time);
        if *tasks < RESPONSES_TASKS {
            return 0;
        }
        let most = 2 * *quick > RESPONSES_TASKS;
        self.responses = (0, 0);
        signed(RESPONSES, most)
    }
}

const fn signed(change: i64, good: bool) -> i64 {
    if good { change } else { -change }
}

/// From `least` at zero of `whole` to `most` at all of it.
fn between(least: i64, most: i64, part: u32, whole: u32) -> i64 {
    least + (most - least) * i64::from(part.min(whole)) / i64::from(whole)
}

/// Nothing for a week without hours.
fn uptime(week: Week, commitment: Factor) -> i64 {
    if week.scheduled_ms == 0 {
        return 0;
    }
    let kept = week.kept_ms.min(week.scheduled_ms);
    let kept = u128::from(kept) * u128::from(Factor::SCALE) / u128::from(week.scheduled_ms);
    let kept = u32::try_from(kept).expect("at most the scale");
    let committed = commitment.min(Factor::ONE).0;
    if kept < committed {
        return -between(UPTIME_LEAST, UPTIME_MOST, committed - kept, committed);
    }
    match Factor::SCALE - committed {
        0 => UPTIME_MOST,
        room => between(UPTIME_LEAST, UPTIME_MOST, kept - committed, room),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(seen: Seen, expected: i64) {
        let before = Reputation { thousandths: 10_000, ..Reputation::default() };
        let mut after = before;
        after.take(seen);
        assert_eq!(after.thousandths() - before.thousandths(), expected, "{seen:?}");
    }

    fn week(kept: u64, committed: u32) -> Seen {
        let week = Week { scheduled_ms: 100, kept_ms: kept };
        Seen::Uptime { week, commitment: Factor(committed) }
    }

    #[test]
    fn each_thing_seen_changes_it_as_published() {
        check(Seen::Task { completed: true, in_time: true }, 200);
        check(Seen::Task { completed: false, in_time: false }, 0);
        check(Seen::Audit { passed: true }, 300);
        check(Seen::Audit { passed: false }, -300);
        check(Seen::Bandwidth { kept: true }, 200);
        check(Seen::Bandwidth { kept: false }, -200);
        check(Seen::Model { quality: Factor::ZERO }, 100);
        check(Seen::Model { quality: Factor(5_000) }, 550);
        check(Seen::Model { quality: Factor::ONE }, 1_000);
    }

    #[test]
    fn uptime_counts_against_what_was_promised() {
        check(week(85, 8_500), 100);
        check(week(100, 8_500), 500);
        check(week(84, 8_400), 100);
        check(week(92, 8_400), 300);
        check(week(0, 8_500), -500);
        check(week(34, 6_800), -300);
        check(week(100, 10_000), 500);
        check(week(0, 0), 100);
        let week = Week { scheduled_ms: 0, kept_ms: 0 };
        check(Seen::Uptime { week, commitment: Factor::ONE }, 0);
    }

    #[test]
    fn answers_are_judged_by_tens_and_nobody_falls_below_zero() {
        let mut reputation = Reputation::default();
        let mut tasks = |quick: u32, slow: u32| {
            let before = reputation.thousandths();
            (0..quick).for_each(|_| reputation.take(Seen::Task { completed: true, in_time: true }));
            (0..slow).for_each(|_| reputation.take(Seen::Task { completed: true, in_time: false }));
            reputation.thousandths() - before
        };
        assert_eq!(tasks(6, 3), 9 * 200);
        assert_eq!(tasks(0, 1), 200 + 100);
        assert_eq!(tasks(5, 5), 10 * 200 - 100);
        (0..100).for_each(|_| reputation.take(Seen::Audit { passed: false }));
        assert_eq!(reputation.thousandths(), 0);
    }
}
