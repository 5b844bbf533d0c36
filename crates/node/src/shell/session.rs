//! One session as its head holds it: credits and a route first, then steps out and answers in, then the
//! bill.
//!
//! Nothing is computed before the founder holds the credits; nothing is charged unless every stage
//! signed for the same work. What steps say and what answers mean is [`core`](crate::core)'s.

use super::{
    Shared,
    models::{Chosen, KnownModel},
    now,
    orders::{describe, order},
    random,
};
use crate::{
    api::{GenerateError, StageReport},
    core::head::Step as HeadStep,
    wire::{Flow, Open, Payload, Refusal, Step},
};
use std::{sync::Arc, time::Duration};
use talka_base::{Credits, Flops, NodeId, Receipt, RequestId, Signed};
use talka_ledger::{Cancellation, Entry, Event, ReleaseReason, Reservation, Settlement};
use talka_plan::{Hop, find_route};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

/// While layers move, a request waits this long for a complete route.
const ROUTE_TIME_MAX: Duration = Duration::from_secs(3);
/// A stage that lives answers a step within this time, however long the prompt.
const STEP_TIME_MAX: Duration = Duration::from_secs(120);
/// Stages sign their receipts within this time.
const RECEIPT_TIME_MAX: Duration = Duration::from_secs(3);

/// What comes in for a session of this head.
#[derive(Debug)]
pub(crate) enum HeadEvent {
    /// The answer to a step: logits, or a vector.
    Answer { from: NodeId, step: u64, values: Vec<f32> },
    /// A stage gave up.
    Failed { from: NodeId, hop: u8, reason: String },
    /// A stage signed.
    Receipt { from: NodeId, receipt: Signed<Receipt> },
    /// A node is gone.
    NodeLost(NodeId),
}

/// How much a session may compute.
#[derive(Debug, Clone, Copy)]
pub(super) struct SessionSize {
    /// Tokens that credits are held for: the prompt's, and those that logits may be computed for.
    pub prompt_tokens: u32,
    pub new_tokens: u32,
    pub positions_max: u32,
}

/// Why no answer came.
pub(super) enum NoAnswer {
    /// The caller left.
    Abandoned,
    /// A stage is lost.
    Broken(GenerateError),
}

/// What a session came to.
pub(super) struct Bill {
    pub cost: Credits,
    pub flops: Flops,
}

/// A session that is open on every stage of its route.
pub(super) struct HeadSession {
    shared: Arc<Shared>,
    known: Arc<KnownModel>,
    id: RequestId,
    route: Vec<Hop>,
    inbox: mpsc::UnboundedReceiver<HeadEvent>,
}

impl HeadSession {
    /// Finds a route, has the founder hold what the session may cost, and opens it.
    ///
    /// # Errors
    /// [`GenerateError`]; nothing was computed or charged.
    pub async fn open(
        shared: &Arc<Shared>,
        chosen: &Chosen,
        size: SessionSize,
    ) -> Result<Self, GenerateError> {
        let route = find(shared, chosen).await?;
        let id = RequestId(random());
        let ticket = reserve(shared, &chosen.known, id, size).await?;
        let inbox = shared.open_inbox(id);
        let (shared, known) = (Arc::clone(shared), Arc::clone(&chosen.known));
        let session = Self { shared, known, id, route, inbox };
        let open = Open {
            session: id,
            head: session.shared.me,
            model: session.known.id,
            adapter: chosen.adapter_id(),
            route: session.route.iter().map(|hop| (hop.node, hop.span)).collect(),
            positions_max: size.positions_max,
            ticket,
        };
        session.send_first(Flow::Open { hop: 0, open: Box::new(open) });
        Ok(session)
    }

    pub fn id(&self) -> RequestId {
        self.id
    }

    /// Sends `step` down the route.
    pub fn send(&self, step: HeadStep) {
        self.send_first(Flow::Step(Step {
            session: self.id,
            hop: 0,
            number: step.number,
            position: step.position,
            wants: step.wants,
            payload: Payload::Tokens(step.tokens),
        }));
    }

    fn send_first(&self, flow: Flow) {
        self.shared.deliver(self.route[0].node, flow);
    }

    /// The next answer and the number of its step. `abandoned` ends when the caller leaves.
    pub async fn answer(
        &mut self,
        abandoned: impl Future<Output = ()>,
    ) -> Result<(u64, Vec<f32>), NoAnswer> {
        tokio::pin!(abandoned);
        let deadline = Instant::now() + STEP_TIME_MAX;
        let last = self.route.len() - 1;
        loop {
            let event = tokio::select! {
                event = timeout_at(deadline, self.inbox.recv()) => event,
                () = &mut abandoned => return Err(NoAnswer::Abandoned),
            };
            match event {
                Ok(Some(HeadEvent::Answer { from, step, values }))
                    if from == self.route[last].node =>
                {
                    return Ok((step, values));
                }
                Ok(Some(HeadEvent::Failed { from, hop, reason }))
                    if self.route.get(usize::from(hop)).is_some_and(|h| h.node == from) =>
                {
                    return Err(NoAnswer::Broken(self.lost(usize::from(hop), reason)));
                }
                Ok(Some(HeadEvent::NodeLost(node))) => {
                    if let Some(hop) = self.route.iter().position(|hop| hop.node == node) {
                        let reason = "it does not answer any more".into();
                        return Err(NoAnswer::Broken(self.lost(hop, reason)));
                    }
                }
                // From somebody who has no part in this, or out of turn.
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => {
                    let reason = format!("no answer within {} s", STEP_TIME_MAX.as_secs());
                    return Err(NoAnswer::Broken(self.lost(last, reason)));
                }
            }
        }
    }

    /// The error for an answer that is none: the last stage is to blame.
    pub fn wrong(&self, reason: String) -> GenerateError {
        self.lost(self.route.len() - 1, reason)
    }

    fn lost(&self, hop: usize, reason: String) -> GenerateError {
        let Hop { node, span } = self.route[hop];
        let name = self.shared.view.borrow().name_of(node);
        GenerateError::StageLost { name, span, reason }
    }

    /// Sends no more steps, and pays the stages for what all of them signed; if they do not, nobody pays.
    ///
    /// # Errors
    /// [`GenerateError::LedgerRefused`].
    pub async fn settle(&mut self) -> Result<Bill, GenerateError> {
        self.close();
        let Some(receipts) = self.receipts().await else {
            tracing::warn!(request = %self.id, "a stage signed no receipt: nobody pays");
            self.cancel().await;
            return Ok(Bill { cost: Credits::ZERO, flops: Flops::default() });
        };
        let work = receipts[0].claimed_value();
        let logits = receipts[receipts.len() - 1].claimed_value().logits;
        let shape = self.known.model.shape();
        let flops = receipts.iter().map(|r| r.claimed_value().flops(shape)).sum();
        let settlement = Settlement {
            network: work.network,
            request: self.id,
            positions: work.positions,
            logits,
            receipts,
        };
        let event = Event::Settled { settlement: self.shared.keys.sign(settlement) };
        match order(&self.shared, event).await {
            Ok(_) | Err(Refusal::Duplicate { .. }) => Ok(Bill { cost: self.cost(flops), flops }),
            Err(refusal) => {
                let reason = describe(&refusal);
                tracing::warn!(request = %self.id, reason, "the settlement was refused");
                Err(GenerateError::LedgerRefused { reason })
            }
        }
    }

    /// Sends no more steps, and gives the credits back.
    pub async fn release(&self) {
        self.close();
        self.cancel().await;
    }

    fn close(&self) {
        self.send_first(Flow::Close { hop: 0, session: self.id });
    }

    /// One receipt per hop, in order.
    async fn receipts(&mut self) -> Option<Vec<Signed<Receipt>>> {
        let deadline = Instant::now() + RECEIPT_TIME_MAX;
        let mut receipts = vec![None; self.route.len()];
        while receipts.iter().any(Option::is_none) {
            match timeout_at(deadline, self.inbox.recv()).await.ok()?? {
                HeadEvent::Receipt { from, receipt } => {
                    let span = receipt.claimed_value().span;
                    let hop = self.route.iter().position(|h| h.node == from && h.span == span);
                    if let Some(hop) = hop {
                        receipts[hop] = Some(receipt);
                    }
                }
                HeadEvent::NodeLost(node) if self.route.iter().any(|h| h.node == node) => {
                    return None;
                }
                _ => {}
            }
        }
        receipts.into_iter().collect()
    }

    fn cost(&self, flops: Flops) -> Credits {
        let precision = self.known.model.shape().precision;
        self.shared.desk().read(|ledger| talka_ledger::price(flops, precision, ledger.policy()))
    }

    async fn cancel(&self) {
        let cancellation = Cancellation {
            network: self.shared.desk().network(),
            request: self.id,
            node: self.shared.me,
        };
        let reason = ReleaseReason::Cancelled(self.shared.keys.sign(cancellation));
        let event = Event::Released { request: self.id, reason };
        // If this is lost too, the founder releases the reservation when it expires.
        if let Err(refusal) = order(&self.shared, event).await {
            tracing::warn!(request = %self.id, reason = describe(&refusal), "not released");
        }
    }

    pub fn route_report(&self) -> Vec<StageReport> {
        let view = self.shared.view.borrow();
        let report = |hop: &Hop| StageReport {
            node: hop.node,
            name: view.name_of(hop.node),
            span: hop.span,
        };
        self.route.iter().map(report).collect()
    }
}

impl Drop for HeadSession {
    fn drop(&mut self) {
        self.shared.close_inbox(self.id);
    }
}

/// A complete route; waits a little for one while layers move.
async fn find(shared: &Shared, chosen: &Chosen) -> Result<Vec<Hop>, GenerateError> {
    let layers = chosen.known.model.shape().layers;
    let mut view = shared.view.clone();
    let deadline = Instant::now() + ROUTE_TIME_MAX;
    loop {
        let adapter = chosen.adapter_id();
        let served = view.borrow_and_update().served_with(chosen.known.id, adapter);
        let missing = match find_route(layers, &served, shared.me) {
            Ok(route) => return Ok(route),
            Err(missing) => missing,
        };
        if !matches!(timeout_at(deadline, view.changed()).await, Ok(Ok(()))) {
            return Err(GenerateError::NoRoute { model: chosen.name(), missing });
        }
    }
}

async fn reserve(
    shared: &Arc<Shared>,
    known: &KnownModel,
    request: RequestId,
    size: SessionSize,
) -> Result<Signed<Entry>, GenerateError> {
    let reservation = Reservation {
        network: shared.desk().network(),
        request,
        payer: shared.member(),
        head: shared.me,
        model: known.id,
        shape: *known.model.shape(),
        prompt_tokens: size.prompt_tokens,
        max_new_tokens: size.new_tokens,
        at: now(),
    };
    let event = Event::Reserved { reservation: shared.keys.sign(reservation) };
    order(shared, event).await.map_err(|refusal| match refusal {
        Refusal::Insufficient { held, needed } => {
            GenerateError::InsufficientCredits { held: Credits(held), needed: Credits(needed) }
        }
        Refusal::Unreachable { reason } => GenerateError::LedgerUnreachable { reason },
        other => GenerateError::LedgerRefused { reason: describe(&other) },
    })
}
