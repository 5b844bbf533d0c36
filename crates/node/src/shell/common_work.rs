//! As the founder: has the ledger pay for what no request pays for.

use super::{Shared, now, orders};
use crate::{core::attendance::Attendance, wire::Refusal};
use std::sync::Arc;
use talka_base::{Credits, NodeId};
use talka_ledger::{
    Event,
    common_work::{CommonWork, TASKS_MAX},
    profile::Task,
};

/// Reports are numbered, and of two made at once one is refused and made anew, at most so often.
const REPORTED_TRIES: u32 = 4;

/// Counts who is there, and reports it when it is time.
pub(crate) fn look(shared: &Arc<Shared>, attendance: &mut Attendance) {
    if shared.desk().founder() != shared.me {
        return;
    }
    let there: Vec<NodeId> = {
        let view = shared.view.borrow();
        let open = view.nodes.iter().filter(|node| node.linked && node.closed.is_none());
        open.map(|node| node.node).collect()
    };
    let Some(tasks) = attendance.look(now(), there) else { return };
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        if let Err(refusal) = reward(&shared, tasks).await {
            tracing::warn!(reason = orders::describe(&refusal), "common work was not recorded");
        }
    });
}

/// Has the ledger pay `tasks` from the day's budget. What is worth nothing in this economy is left out.
///
/// # Errors
/// [`Refusal`] if a report was not taken; those before it stand.
pub(crate) async fn reward(
    shared: &Arc<Shared>,
    mut tasks: Vec<(NodeId, Task)>,
) -> Result<(), Refusal> {
    shared.desk().read(|ledger| {
        let is_paid = |(node, task): &(NodeId, Task)| {
            ledger.worth(node, task, now()).is_some_and(|worth| worth > Credits::ZERO)
        };
        tasks.retain(is_paid);
    });
    for part in tasks.chunks(TASKS_MAX) {
        report(shared, part).await?;
    }
    Ok(())
}

async fn report(shared: &Arc<Shared>, tasks: &[(NodeId, Task)]) -> Result<(), Refusal> {
    let mut outcome = Ok(());
    for _ in 0..REPORTED_TRIES {
        let (network, serial) =
            shared.desk().read(|ledger| (ledger.network(), ledger.next_report()));
        let report = CommonWork { network, serial, tasks: tasks.to_vec() };
        let event = Event::Rewarded { report: shared.keys.sign(report) };
        outcome = orders::order(shared, event).await.map(|_| ());
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}
