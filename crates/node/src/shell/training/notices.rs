//! Jobs that other nodes train and that this one may join: who told of them lately.

use crate::wire::training::Notice;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use talka_base::{JobId, NodeId};

/// Jobs and tellers that are remembered; more than any network has.
const JOBS_MAX: usize = 256;
const TELLERS_MAX: usize = 256;
/// Who has not told of a job for so long does not train it any more.
const FRESH: Duration = Duration::from_secs(15);

/// A job that others train.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) notice: Notice,
    by: BTreeMap<NodeId, Instant>,
}

impl Told {
    /// Who told of it lately.
    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.by.iter().filter(|(_, at)| at.elapsed() < FRESH).map(|(node, _)| *node).collect()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Notices(Mutex<BTreeMap<JobId, Told>>);

impl Notices {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<JobId, Told>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hear(&self, from: NodeId, notices: Vec<Notice>) {
        let mut jobs = self.lock();
        for notice in notices {
            let job = notice.terms.job();
            if jobs.len() >= JOBS_MAX && !jobs.contains_key(&job) {
                jobs.retain(|_, told| !told.nodes().is_empty());
                if jobs.len() >= JOBS_MAX {
                    return;
                }
            }
            let told = jobs.entry(job).or_insert_with(|| Told { notice, by: BTreeMap::new() });
            if told.by.len() < TELLERS_MAX || told.by.contains_key(&from) {
                told.by.insert(from, Instant::now());
            }
        }
    }

    /// Those that somebody trains now.
    pub(super) fn all(&self) -> Vec<Told> {
        self.lock().values().filter(|told| !told.nodes().is_empty()).cloned().collect()
    }

    /// Who trains a job.
    pub(super) fn sources(&self, job: JobId) -> Vec<NodeId> {
        self.lock().get(&job).map(Told::nodes).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::training::tests;

    fn notice(number: u64) -> Notice {
        tests::notice(&format!("job-{number}"), number)
    }

    #[test]
    fn a_flood_of_jobs_and_tellers_takes_bounded_memory() {
        let notices = Notices::default();
        let job = notice(0).terms.job();
        for number in 0..2 * TELLERS_MAX {
            let node = NodeId(
                [(number / 256) as u8, (number % 256) as u8].repeat(16).try_into().expect("32"),
            );
            notices.hear(node, vec![notice(0)]);
        }
        assert_eq!(notices.sources(job).len(), TELLERS_MAX);
        notices.hear(NodeId([9; 32]), (0..2 * JOBS_MAX as u64).map(notice).collect());
        assert_eq!(notices.all().len(), JOBS_MAX);
        assert_eq!(notices.sources(job).len(), TELLERS_MAX);
    }
}
