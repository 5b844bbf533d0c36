//! Having an event ordered: by the founder, here or over its link, or by the witnesses who take turns.

use super::{
    Shared,
    desk::{Desk, DeskError, OrderResult},
    now,
    ordering::{OrderInput, not_final},
    till,
};
use crate::{
    api::GenerateError,
    wire::{Control, Finality, Refusal},
};
use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use talka_base::{Credits, RequestId, Signed};
use talka_ledger::{Cancellation, Entry, Event, LedgerError, ReleaseReason};
use tokio::{sync::oneshot, time::timeout};

/// The founder answers within this time, and witnesses too.
const ORDER_TIME_MAX: Duration = Duration::from_secs(5);

/// An entry that is final is here within this time, on its way from the founder.
const ARRIVAL_TIME_MAX: Duration = Duration::from_secs(2);

/// Has the founder order `event`; returns the durable entry: the final one, where there are witnesses.
pub(crate) async fn order(shared: &Arc<Shared>, event: Event) -> OrderResult {
    let desk = shared.desk();
    let founder = desk.founder();
    if let Some(halt) = desk.halted() {
        return Err(DeskError::from(halt).into());
    }
    if founder == shared.me || desk.is_by_turns() {
        if desk.is_by_turns() {
            can_be_paid(&desk, &event)?;
        }
        decide_due(shared).await;
        return record(shared, event).await;
    }
    if !shared.links.is_open(founder) {
        let reason = format!("the founder {} is not linked", founder.short());
        return Err(Refusal::Unreachable { reason });
    }
    static NEXT_ID: AtomicU64 = AtomicU64::new(0);
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let (sender, answer) = oneshot::channel();
    let submissions = || shared.submissions.lock().unwrap_or_else(PoisonError::into_inner);
    submissions().insert(id, sender);
    shared.links.send(founder, &Control::Submit { id, event: Box::new(event) });
    let answer = timeout(ORDER_TIME_MAX, answer).await;
    submissions().remove(&id);
    match answer {
        Ok(Ok(Ok(entry))) => {
            // Whoever asks this node next is to see it.
            desk.reached(entry.claimed_value().height, ARRIVAL_TIME_MAX).await;
            Ok(entry)
        }
        Ok(Ok(Err(Refusal::Duplicate { height }))) => {
            desk.reached(height, ARRIVAL_TIME_MAX).await;
            Err(Refusal::Duplicate { height })
        }
        Ok(Ok(refused)) => refused,
        _ => Err(Refusal::Unreachable { reason: "the founder did not answer within 5 s".into() }),
    }
}

/// Where witnesses order by turns, whoever leads tells nobody else at once that credits are lacking.
fn can_be_paid(desk: &Desk, event: &Event) -> Result<(), Refusal> {
    match desk.read(|ledger| ledger.would_take(now(), event)) {
        Err(error @ LedgerError::Insufficient { .. }) => Err(DeskError::from(error).into()),
        _ => Ok(()),
    }
}

/// As one who orders: decides proposals whose time has come. The ledger takes nothing else before.
async fn decide_due(shared: &Arc<Shared>) {
    while let Some(proposal) = shared.desk().read(|ledger| ledger.undecided(now())) {
        match record(shared, Event::Decided { proposal }).await {
            Ok(_) | Err(Refusal::Duplicate { .. }) => {}
            Err(refusal) => {
                tracing::error!(%proposal, reason = describe(&refusal), "not decided");
                return;
            }
        }
    }
}

/// As one who orders, or where witnesses do by turns: has `event` ordered, and tells everybody. At once, or, where there are witnesses, as soon as they agreed.
async fn record(shared: &Arc<Shared>, event: Event) -> OrderResult {
    let (desk, mut event) = (shared.desk(), Box::new(event));
    if let Event::Settled { settlement } = &*event
        && desk.is_solo()
        && let Some(settled) = till::settle(shared, settlement.clone()).await
    {
        return settled;
    }
    if desk.is_solo() && !desk.read(|ledger| ledger.names_witnesses(&event)) {
        let alone = Arc::clone(&desk);
        let ordered = tokio::task::spawn_blocking(move || alone.order(*event, now())).await;
        match ordered.expect("ordering does not panic") {
            Ok(entry) => {
                shared.publish(vec![entry.clone()]);
                return Ok(entry);
            }
            // They were named a moment ago.
            Err(DeskError::Witnessed(back)) => event = back,
            Err(error) => return Err(error.into()),
        }
    }
    let (id, (sender, answer)) = (event.id(), oneshot::channel());
    if desk.wait_for(id, sender) {
        // Fails only when the node stops, and then no answer comes.
        let _ = shared.ordering.send(OrderInput::Submit(event)).await;
    }
    let answer = timeout(ORDER_TIME_MAX, answer).await;
    desk.waited_for(id);
    match answer {
        Ok(Ok(result)) => result,
        _ => Err(not_final()),
    }
}

/// What shows others that `entry`, which is final here, is; nothing where there are no witnesses.
pub(crate) async fn finality(shared: &Arc<Shared>, entry: &Signed<Entry>) -> Option<Finality> {
    let (desk, height) = (shared.desk(), entry.claimed_value().height);
    if desk.is_solo() {
        return None;
    }
    let proved = tokio::task::spawn_blocking(move || desk.prove(height)).await;
    match proved.expect("proving does not panic") {
        Ok(proof) => proof.map(Finality::from),
        Err(error) => {
            tracing::error!(%error, "an entry cannot be proved");
            None
        }
    }
}

/// As one who may order: records what follows from time alone. What heads forgot returns to its payers, credits that nobody
/// used expire, what was held for long enough can be spent, and proposals are decided.
pub(crate) fn sweep(shared: &Arc<Shared>) {
    let desk = shared.desk();
    if !desk.may_order() || desk.halted().is_some() {
        return;
    }
    let (forgotten, sessions, unused, freed) = desk.read(|ledger| {
        let forgotten = ledger.expired(now());
        let is_session = |request: &&RequestId| ledger.reservation(request).is_some();
        let sessions: Vec<_> = forgotten.iter().filter(is_session).copied().collect();
        (forgotten, sessions, ledger.expiring_now(now()), ledger.freed_now(now()))
    });
    let released = forgotten
        .into_iter()
        .map(|request| Event::Released { request, reason: ReleaseReason::Expired });
    let expired = unused.into_iter().map(|member| Event::Expired { member });
    let freed = freed.into_iter().map(|member| Event::Freed { member });
    let due: Vec<_> = released.chain(expired).chain(freed).collect();
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        decide_due(&shared).await;
        if sessions.len() > 1 {
            expire(&shared, sessions).await;
        }
        for event in due {
            let kind = event.kind();
            if let Event::Released { request, .. } = &event
                && shared.desk().read(|ledger| ledger.is_closed(request))
            {
                continue;
            }
            if let Err(refusal) = record(&shared, event).await {
                tracing::warn!(kind, reason = describe(&refusal), "not recorded");
            }
        }
    });
}

/// Ends sessions that expired together by one entry, where the founder orders alone. What that leaves is released one by one.
async fn expire(shared: &Arc<Shared>, sessions: Vec<RequestId>) {
    let desk = shared.desk();
    if !desk.orders() {
        return;
    }
    let closed = tokio::task::spawn_blocking(move || desk.expire(now(), &sessions)).await;
    match closed.expect("settling does not panic") {
        Ok(Some((entry, papers))) => {
            let height = entry.claimed_value().height;
            till::tell(shared, vec![entry], Some((height, papers)));
        }
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, "no epoch"),
    }
}

/// Has the founder give back what is held for `request`.
pub(crate) async fn cancel(shared: &Arc<Shared>, request: RequestId) {
    let network = shared.desk().network();
    let cancellation = Cancellation { network, request, node: shared.me };
    let reason = ReleaseReason::Cancelled(shared.keys.sign(cancellation));
    // If this is lost too, the founder gives it back when it expires.
    if let Err(refusal) = order(shared, Event::Released { request, reason }).await {
        tracing::warn!(%request, reason = describe(&refusal), "not released");
    }
}

/// What it means for a request that the founder does not hold credits for it.
pub(crate) fn refused_to_hold(refusal: Refusal) -> GenerateError {
    match refusal {
        Refusal::Insufficient { held, needed } => {
            GenerateError::InsufficientCredits { held: Credits(held), needed: Credits(needed) }
        }
        Refusal::Unreachable { reason } => GenerateError::LedgerUnreachable { reason },
        other => GenerateError::LedgerRefused { reason: describe(&other) },
    }
}

/// A refusal for people.
pub(crate) fn describe(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Insufficient { held, needed } => {
            format!("balance {}, needed {}", Credits(*held), Credits(*needed))
        }
        Refusal::Duplicate { height } => format!("already recorded at height {height}"),
        Refusal::Rule { reason } | Refusal::Unreachable { reason } => reason.clone(),
    }
}
