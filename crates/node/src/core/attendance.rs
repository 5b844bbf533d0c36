//! Who was there to be asked, and for how long: what the node that orders the ledger reports as common work.
//!
//! Counts only what it saw itself, from one look to the next. A node that is shut to others by its owner is not there.

use std::collections::BTreeMap;
use talka_base::{NodeId, Tick};
use talka_ledger::{common_work, profile::Task};

/// Every hour: a line of the ledger for all nodes together, and no more than an hour is lost with the founder's process.
pub const REPORT_MS: u64 = 60 * 60 * 1000;

/// Looks further apart than this saw nothing of the time between them: the machine slept. A sweep takes two seconds.
const GAP_MS_MAX: u64 = 10_000;

/// Since the last report.
#[derive(Debug, Clone, Default)]
pub struct Attendance {
    reported_at: Option<Tick>,
    looked_at: Tick,
    ms: BTreeMap<NodeId, u64>,
}

impl Attendance {
    /// These nodes are there at `now`. What was done by them since the last report, once that is an hour ago.
    pub fn look(
        &mut self,
        now: Tick,
        there: impl IntoIterator<Item = NodeId>,
    ) -> Option<Vec<(NodeId, Task)>> {
        let passed_ms = now.since_ms(self.looked_at);
        self.looked_at = now;
        if passed_ms <= GAP_MS_MAX {
            for node in there {
                *self.ms.entry(node).or_default() += passed_ms;
            }
        }
        let since = *self.reported_at.get_or_insert(now);
        if now.since_ms(since) < REPORT_MS {
            return None;
        }
        self.reported_at = Some(now);
        let done = std::mem::take(&mut self.ms).into_iter().map(|(node, ms)| {
            let seconds = u32::try_from(ms / 1000).unwrap_or(u32::MAX);
            (node, common_work::availability(seconds))
        });
        Some(done.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use talka_ledger::profile::Job;

    const A: NodeId = NodeId([1; 32]);
    const B: NodeId = NodeId([2; 32]);

    /// Looks every two seconds from `from` for so many seconds; `is_there` says when B is.
    fn watch(
        attendance: &mut Attendance,
        from: u64,
        seconds: u64,
        is_there: impl Fn(u64) -> bool,
    ) -> Vec<Vec<(NodeId, u32)>> {
        let looks = (0..=seconds).step_by(2);
        let reports = looks.filter_map(|second| {
            let there = [Some(A), is_there(second).then_some(B)].into_iter().flatten();
            attendance.look(Tick((from + second) * 1000), there)
        });
        let seconds = |(node, task): (NodeId, Task)| match task.job {
            Job::Availability { seconds } => (node, seconds),
            job => panic!("{job:?}"),
        };
        reports.map(|tasks| tasks.into_iter().map(seconds).collect()).collect()
    }

    #[test]
    fn who_was_there_is_told_every_hour() {
        let mut attendance = Attendance::default();
        let reports = watch(&mut attendance, 1_000, 7_200, |second| second > 1_800);
        assert_eq!(reports, [vec![(A, 3_600), (B, 1_800)], vec![(A, 3_600), (B, 3_600)]]);
    }

    #[test]
    fn nobody_is_paid_for_time_that_nobody_saw() {
        let mut attendance = Attendance::default();
        assert!(watch(&mut attendance, 1_000, 600, |_| false).is_empty());
        let reports = watch(&mut attendance, 5_000, 100, |_| false);
        assert_eq!(reports, [vec![(A, 600)]], "between the two it slept");
    }
}
