//! How reliable a node is: which of its last tasks it completed, and whether audits found what it computed to be right.
//!
//! The formula is imece's. There the counters never forgot, a failed challenge counted as a completed task, and one that
//! passed made up for all before. Here only the last [`WINDOW_TASKS`] count, a task whose audit failed was not completed,
//! and consistency is an exponential average.

use serde::{Deserialize, Serialize};
use talka_base::Factor;

/// Tasks that count.
pub const WINDOW_TASKS: u32 = 100;
/// A node is suspended below this reliability...
pub const SUSPENDED_BELOW: Factor = Factor(5_200);
/// ...once so many of its tasks are known.
pub const SUSPENDED_TASKS_MIN: u32 = 10;
/// An audit counts for one part in so many of the consistency: seven failures in a row take away four fifths.
const AUDIT_PARTS: u32 = 5;

/// The least and the highest rate at which tasks are given to two nodes, so that answers can be compared.
const REDUNDANCY_MIN: u32 = 500;
const REDUNDANCY_MAX: u32 = 5_000;
/// A node with less history than this is always checked at the highest rate...
const REDUNDANCY_TASKS_MIN: u32 = 20;
/// ...and one with this much reliability at the least.
const REDUNDANCY_RELIABLE: Factor = Factor(9_500);

/// 0.5 + 0.5·(completed/assigned · consistency), rounded half up: from 0.5 to 1. Without tasks all were completed.
pub fn reliability(completed: u32, assigned: u32, consistency: Factor) -> Factor {
    let (completed, assigned) = if assigned == 0 { (1, 1) } else { (completed, assigned) };
    let share = u64::from(completed.min(assigned)) * u64::from(consistency.min(Factor::ONE).0);
    let half = (share + u64::from(assigned)) / (2 * u64::from(assigned));
    Factor(Factor::SCALE / 2 + u32::try_from(half).expect("at most a half"))
}

/// Whether a node with so many tasks is suspended.
///
/// The tasks are those assigned: imece asks for completed ones, to which a failed challenge belonged.
pub fn is_suspended(assigned: u32, reliability: Factor) -> bool {
    assigned >= SUSPENDED_TASKS_MIN && reliability < SUSPENDED_BELOW
}

/// Which part of a node's tasks another node is to compute too.
///
/// One half for a new node; 0.05 for a reliable one; otherwise less with every task up to [`WINDOW_TASKS`].
pub fn redundancy(tasks: u32, reliability: Factor) -> Factor {
    if tasks < REDUNDANCY_TASKS_MIN {
        return Factor(REDUNDANCY_MAX);
    }
    if reliability >= REDUNDANCY_RELIABLE {
        return Factor(REDUNDANCY_MIN);
    }
    let known = tasks.min(WINDOW_TASKS) - REDUNDANCY_TASKS_MIN;
    let fall = (REDUNDANCY_MAX - REDUNDANCY_MIN) * known / (WINDOW_TASKS - REDUNDANCY_TASKS_MIN);
    Factor(REDUNDANCY_MAX - fall)
}

/// What a node did with its last tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// One bit per task, set if it was completed, the last one lowest.
    outcomes: u128,
    assigned: u32,
    consistency: Factor,
}

impl Default for Record {
    fn default() -> Self {
        Self { outcomes: 0, assigned: 0, consistency: Factor::ONE }
    }
}

impl Record {
    /// A task ended.
    pub fn task(&mut self, completed: bool) {
        self.outcomes = (self.outcomes << 1 | u128::from(completed)) & ((1 << WINDOW_TASKS) - 1);
        self.assigned = (self.assigned + 1).min(WINDOW_TASKS);
    }

    /// An audit of a task that was counted before found it right, or wrong: then the last completed task was none.
    pub fn audit(&mut self, passed: bool) {
        if !passed {
            self.outcomes &= self.outcomes.wrapping_sub(1);
        }
        // Rounded towards what was found, so that the average gets there.
        let old = self.consistency.0;
        self.consistency = Factor(if passed {
            old + (Factor::SCALE - old).div_ceil(AUDIT_PARTS)
        } else {
            old - old.div_ceil(AUDIT_PARTS)
        });
    }

    /// Tasks that count, at most [`WINDOW_TASKS`].
    pub const fn assigned(&self) -> u32 {
        self.assigned
    }

    /// Those of them that were completed.
    pub const fn completed(&self) -> u32 {
        self.outcomes.count_ones()
    }

    /// What audits found: one if all passed or there were none.
    pub const fn consistency(&self) -> Factor {
        self.consistency
    }

    /// See [`reliability`].
    pub fn reliability(&self) -> Factor {
        reliability(self.completed(), self.assigned, self.consistency)
    }

    /// See [`redundancy`].
    pub fn redundancy(&self) -> Factor {
        redundancy(self.assigned, self.reliability())
    }

    /// See [`is_suspended`].
    pub fn is_suspended(&self) -> bool {
        is_suspended(self.assigned, self.reliability())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_published_reliabilities_are_kept() {
        for (completed, assigned, consistency, expected) in [
            (10, 10, 10_000, 10_000),
            (9, 10, 10_000, 9_500),
            (5, 10, 5_000, 6_250),
            (20, 20, 0, 5_000),
            (1, 10, 400, 5_020),
            (0, 0, 10_000, 10_000),
        ] {
            let found = reliability(completed, assigned, Factor(consistency));
            assert_eq!(found, Factor(expected), "{completed}/{assigned}, {consistency}");
        }
        assert!(is_suspended(10, Factor(5_020)) && !is_suspended(9, Factor(5_020)));
        assert!(!is_suspended(100, SUSPENDED_BELOW));
    }

    #[test]
    fn the_published_redundancies_are_kept() {
        for (tasks, reliability, expected) in [
            (19, 10_000, 5_000),
            (20, 10_000, 500),
            (20, 9_000, 5_000),
            (60, 9_000, 2_750),
            (100, 9_000, 500),
            (5_000, 9_000, 500),
        ] {
            assert_eq!(redundancy(tasks, Factor(reliability)), Factor(expected), "{tasks}");
        }
    }

    #[test]
    fn old_tasks_are_forgotten_and_one_audit_makes_up_for_little() {
        let mut record = Record::default();
        (0..10).for_each(|_| record.task(false));
        assert_eq!(record.reliability(), Factor(5_000));
        assert!(record.is_suspended());
        (0..100).for_each(|_| record.task(true));
        assert_eq!((record.completed(), record.assigned()), (100, 100));
        assert_eq!(record.reliability(), Factor::ONE);

        record.audit(false);
        assert_eq!((record.completed(), record.consistency()), (99, Factor(8_000)));
        record.audit(true);
        assert_eq!(record.consistency(), Factor(8_400));
        assert_eq!(record.reliability(), Factor(9_158));
        (0..60).for_each(|_| record.audit(true));
        assert_eq!(record.consistency(), Factor::ONE);
        (0..60).for_each(|_| record.audit(false));
        assert_eq!(record.consistency(), Factor::ZERO);
        assert!(record.is_suspended());
    }

    proptest! {
        #[test]
        fn a_record_never_leaves_its_bounds(
            steps in proptest::collection::vec(any::<(bool, bool)>(), 0..300),
        ) {
            let mut record = Record::default();
            for &(is_audit, good) in &steps {
                if is_audit { record.audit(good) } else { record.task(good) }
                prop_assert!(record.completed() <= record.assigned());
                prop_assert!(record.assigned() <= WINDOW_TASKS);
                prop_assert!((Factor(5_000)..=Factor::ONE).contains(&record.reliability()));
                prop_assert!((Factor(500)..=Factor(5_000)).contains(&record.redundancy()));
            }
            let tasks: Vec<_> = steps.iter().filter(|(is_audit, _)| !is_audit).collect();
            prop_assert_eq!(record.assigned() as usize, tasks.len().min(100));
        }
    }
}
