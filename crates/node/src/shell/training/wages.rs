//! Pays for a job's rounds, each once, whenever the node that pays dies.
//!
//! Before a round's report goes to the ledger, its number there is written down beside the job. After a restart the ledger says whether
//! it got that far: reports are numbered without gaps, and this node makes them all.

use super::folder::RunFolder;
use crate::shell::{Shared, common_work};
use serde::{Deserialize, Serialize};
use std::sync::Weak;
use talka_base::NodeId;
use talka_ledger::profile::Task;
use tokio::{runtime::Handle, sync::mpsc};

/// What is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Paid {
    /// The last round that was to be paid.
    pub(super) round: u64,
    /// The number of its report, or of the first if there are several; 0 if there is none.
    pub(super) report: u64,
}

impl Paid {
    /// The last round that was paid, where the ledger's next report has this number.
    pub(super) const fn until(self, next_report: u64) -> u64 {
        if self.report < next_report { self.round } else { self.round.saturating_sub(1) }
    }
}

/// Rounds to pay for, in order.
#[derive(Debug, Clone)]
pub(super) struct Wages(mpsc::UnboundedSender<(u64, Vec<(NodeId, Task)>)>);

impl Wages {
    /// Pays one round after the other until nobody hands in any more. One that the ledger refuses is told, and not tried again.
    pub(super) fn pay(runtime: &Handle, shared: Weak<Shared>, folder: RunFolder) -> Self {
        let (sender, mut rounds) = mpsc::unbounded_channel::<(u64, Vec<_>)>();
        runtime.spawn(async move {
            while let Some((round, tasks)) = rounds.recv().await {
                let Some(shared) = shared.upgrade() else { return };
                let report = shared.desk().read(talka_ledger::Ledger::next_report);
                let kept = folder.clone();
                let paid = move || kept.keep_paid(Paid { round, report });
                let kept = tokio::task::spawn_blocking(paid).await;
                if let Err(error) = kept.expect("writing does not panic") {
                    tracing::warn!(round, %error, "a round of training was not paid");
                } else if let Err(refusal) = common_work::reward(&shared, tasks).await {
                    tracing::warn!(round, ?refusal, "a round of training was not paid");
                }
            }
        });
        Self(sender)
    }

    pub(super) fn owe(&self, round: u64, tasks: Vec<(NodeId, Task)>) {
        // A node that stops pays when it starts again.
        let _ = self.0.send((round, tasks));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_whose_report_never_came_to_the_ledger_is_not_paid() {
        let paid = Paid { round: 7, report: 12 };
        assert_eq!([11, 12, 13, 20].map(|next| paid.until(next)), [6, 6, 7, 7]);
        assert_eq!(Paid { round: 7, report: 0 }.until(1), 7);
        assert_eq!(Paid { round: 0, report: 1 }.until(1), 0);
    }
}
