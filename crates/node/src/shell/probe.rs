//! Asking a node whether it is there, where waiting for its silence to be noticed would take too long.
//!
//! A node that does not answer is taken for dead by whoever asked. The asker also tells the others, who ask
//! for themselves: nobody is cut off on another's word.

use super::{Shared, hub::HubInput};
use crate::wire::Control;
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use talka_base::NodeId;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

/// A node that lives answers within this time, on a busy machine and over a slow link too.
const PONG_TIME_MAX: Duration = Duration::from_millis(500);
/// After this time the others are told, so that they look meanwhile.
const SUSPICION_TIME: Duration = Duration::from_millis(150);

/// Questions under way.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    waiting: Mutex<HashMap<u64, (NodeId, oneshot::Sender<()>)>>,
    /// Nodes that are asked because another node suspects them.
    suspected: Mutex<HashSet<NodeId>>,
    next: AtomicU64,
}

impl Probes {
    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, (NodeId, oneshot::Sender<()>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn suspected(&self) -> MutexGuard<'_, HashSet<NodeId>> {
        self.suspected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in the answer of `from` to question `id`.
    pub(crate) fn answered(&self, from: NodeId, id: u64) {
        let mut waiting = self.waiting();
        if waiting.get(&id).is_some_and(|(node, _)| *node == from)
            && let Some((_, asker)) = waiting.remove(&id)
        {
            // Nobody waits any more: it was too late.
            let _ = asker.send(());
        }
    }
}

/// Whether `node` answers. If not, its link is closed.
pub(crate) async fn answers(shared: &Shared, node: NodeId) -> bool {
    ask(shared, node, true).await
}

/// Looks for itself at a node that another one suspects.
pub(crate) fn suspect(shared: &Arc<Shared>, node: NodeId) {
    if node == shared.me || !shared.probes.suspected().insert(node) {
        return;
    }
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        ask(&shared, node, false).await;
        shared.probes.suspected().remove(&node);
    });
}

async fn ask(shared: &Shared, node: NodeId, tells: bool) -> bool {
    if node == shared.me {
        return true;
    }
    if !shared.links.is_open(node) {
        return false;
    }
    let begun = Instant::now();
    let id = shared.probes.next.fetch_add(1, Ordering::Relaxed);
    let (sender, mut answer) = oneshot::channel();
    shared.probes.waiting().insert(id, (node, sender));
    shared.links.send(node, &Control::Ping(id));
    let mut answered = timeout_at(begun + SUSPICION_TIME, &mut answer).await.is_ok();
    if !answered {
        if tells {
            shared.links.broadcast(&Control::Suspect(node));
        }
        answered = timeout_at(begun + PONG_TIME_MAX, &mut answer).await.is_ok();
    }
    shared.probes.waiting().remove(&id);
    if !answered {
        let _ = shared.hub.send(HubInput::Unresponsive { peer: node }).await;
    }
    answered
}
