//! Tells the ledger what this machine measured at its start and, where this node is the judge, which stages left a session
//! that it heads. Remembers for this node alone who did its part.

use super::{Shared, now, orders};
use crate::{core::rating::is_news, wire::Refusal};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use talka_base::{NodeId, RequestId, Tick};
use talka_ledger::{
    Event,
    standing::{Finding, Judgement, Measured, Rating},
};
use talka_plan::reputation::Seen;

/// A rating that the founder refused is not tried again for this long, in milliseconds.
const REFUSED_MS: u64 = 10 * 60_000;

/// Judgements are numbered, and of two made at once one is refused and made anew, at most so often.
const JUDGED_TRIES: u32 = 4;

/// What this machine measured, and whether it is being told.
#[derive(Debug)]
pub(crate) struct OwnRating {
    measured: Measured,
    is_asking: AtomicBool,
    not_before: AtomicU64,
}

impl OwnRating {
    pub(crate) fn new(measured: Measured) -> Self {
        Self { measured, is_asking: AtomicBool::new(false), not_before: AtomicU64::new(0) }
    }

    /// The paper, where it is time for one.
    fn due(&self, shared: &Shared, now: Tick) -> Option<Rating> {
        if now.0 < self.not_before.load(Ordering::Relaxed) {
            return None;
        }
        let (node, measured) = (shared.me, self.measured);
        let desk = shared.desk();
        let founder = desk.founder();
        if founder != node && !desk.is_by_turns() && !shared.links.is_open(founder) {
            return None;
        }
        desk.read(|ledger| {
            let standing = ledger.standing(&node);
            let is_due = ledger.is_member_node(&node) && is_news(&standing, &measured, now);
            let (network, number) = (ledger.network(), standing.ratings());
            is_due.then_some(Rating { network, node, number, measured })
        })
    }
}

/// Has the founder record the rating, if there is one to tell and the founder can be reached. Returns at once.
pub(crate) fn tell_soon(shared: &Arc<Shared>) {
    if shared.rating.due(shared, now()).is_some() {
        let shared = Arc::clone(shared);
        tokio::spawn(async move { tell(&shared).await });
    }
}

/// The same, and waits for the answer. A founder does so before anybody knows that it is there.
pub(crate) async fn tell(shared: &Arc<Shared>) {
    let own = &shared.rating;
    let Some(rating) = own.due(shared, now()) else { return };
    if own.is_asking.swap(true, Ordering::Relaxed) {
        return;
    }
    let event = Event::Rated { rating: shared.keys.sign(rating) };
    match orders::order(shared, event).await {
        Ok(entry) => tracing::info!(height = entry.claimed_value().height, "rated"),
        // The entry is on its way here.
        Err(Refusal::Duplicate { .. } | Refusal::Unreachable { .. }) => {}
        Err(refusal) => {
            tracing::warn!(reason = orders::describe(&refusal), "not rated");
            own.not_before.store(now().plus_ms(REFUSED_MS).0, Ordering::Relaxed);
        }
    }
    own.is_asking.store(false, Ordering::Relaxed);
}

/// These nodes had a part in an answer that this node heads, and did it; in time, unless the answer broke off on the way.
pub(crate) fn completed(shared: &Shared, nodes: impl IntoIterator<Item = NodeId>, in_time: bool) {
    let mut reputations = shared.lock_reputations();
    for node in nodes.into_iter().filter(|node| *node != shared.me) {
        reputations.saw(node, Seen::Task { completed: true, in_time });
    }
}

/// These nodes had a part in `request`, which this node heads, and are gone. Only the judge's word counts, and what
/// happens among a member's own nodes is nobody's business.
pub(crate) fn failed(shared: &Arc<Shared>, request: RequestId, nodes: BTreeSet<NodeId>) {
    for node in &nodes {
        let seen = Seen::Task { completed: false, in_time: false };
        shared.lock_reputations().saw(*node, seen);
    }
    let desk = shared.desk();
    if desk.founder() != shared.me {
        return;
    }
    for node in nodes {
        let is_other = desk.read(|ledger| {
            ledger
                .member_of(&node)
                .is_some_and(|member| Some(member) != ledger.member_of(&shared.me))
        });
        if is_other {
            let shared = Arc::clone(shared);
            tokio::spawn(async move {
                let judged = judge(&shared, node, Finding::Failed { request }).await;
                if let Err(refusal) = judged {
                    let reason = orders::describe(&refusal);
                    tracing::warn!(node = %node.short(), reason, "not judged");
                }
            });
        }
    }
}

/// Has the founder record what was found. Only its own word counts.
pub(crate) async fn judge(
    shared: &Arc<Shared>,
    node: NodeId,
    finding: Finding,
) -> Result<(), Refusal> {
    let mut outcome = Ok(());
    for _ in 0..JUDGED_TRIES {
        let (network, number) =
            shared.desk().read(|ledger| (ledger.network(), ledger.standing(&node).judgements()));
        let judgement = Judgement { network, judge: shared.me, node, number, finding };
        let event = Event::Judged { judgement: shared.keys.sign(judgement) };
        outcome = orders::order(shared, event).await.map(|_| ());
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}
