//! Asking the founder to order an event, here or over its link.

use super::{Shared, desk::OrderResult, now};
use crate::{
    api::GenerateError,
    wire::{Control, Refusal},
};
use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use talka_base::{Credits, RequestId};
use talka_ledger::{Cancellation, Event, ReleaseReason};
use tokio::{sync::oneshot, time::timeout};

/// The founder answers within this time.
const ORDER_TIME_MAX: Duration = Duration::from_secs(5);

/// Has the founder order `event`; returns the durable entry.
pub(crate) async fn order(shared: &Arc<Shared>, event: Event) -> OrderResult {
    let desk = shared.desk();
    let founder = desk.founder();
    if founder == shared.me {
        let ordered = tokio::task::spawn_blocking(move || desk.order(event, now())).await;
        let entry = ordered.expect("ordering does not panic")?;
        shared.publish(vec![entry.clone()]);
        return Ok(entry);
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
        Ok(Ok(result)) => result,
        _ => Err(Refusal::Unreachable { reason: "the founder did not answer within 5 s".into() }),
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
