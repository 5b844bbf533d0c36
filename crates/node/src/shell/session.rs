//! One session as its head holds it: credits and a route first, then steps out and answers in, then the
//! bill.
//!
//! Nothing is computed before the founder holds the credits; nothing is charged unless every stage
//! signed for the same work, or this head signed for it on the way: stages of others get vouchers for work whose
//! answers are here ([`dues`]). What steps say and what answers mean is [`core`](crate::core)'s.
//!
//! A session outlives its stages. When no answer comes for a while, the nodes of the route are asked whether
//! they are there; where one is lost, the session is opened anew over another route ([`HeadSession::mend`]).
//! Stages that are on both routes go on from what they hold. Only the last route's stages sign, so
//! nothing is paid twice.

mod dues;

use super::{
    Admission, Party, Shared,
    hub::HubInput,
    keys::KeyHold,
    models::{Chosen, KnownModel},
    now,
    orders::{cancel, describe, finality, order, refused_to_hold},
    probe, random, rating, routes,
};
use crate::{
    api::{GenerateError, ReceiptReport, StageReport},
    core::{
        best,
        faults::Fault,
        frames::frame_type,
        head::{HeadError, Step as HeadStep, chunk_rows},
    },
    wire::{
        Answer, Best, Finality, Flow, Grade, Leg, Open, Payload, Refusal, RouteHop, Step, Wanted,
    },
};
use dues::Dues;
use std::{cmp::Ordering, collections::BTreeSet, sync::Arc, time::Duration};
use talka_base::{
    AdapterId, Credits, Flops, ModelShape, NodeId, Receipt, RequestId, Signed, encode, hex,
};
use talka_engine::LogitsWanted;
use talka_ledger::{Entry, Event, Reservation, Settlement};
use talka_net::WireType;
use talka_plan::Hop;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};

/// While layers move, a request waits this long for a complete route.
const ROUTE_TIME_MAX: Duration = Duration::from_secs(3);
/// While a node loads a model that waited on the disk, this long: weights of 17 GB take up to a minute.
const SWAP_TIME_MAX: Duration = Duration::from_secs(90);
/// A stage that lives answers a step within this time, however long the prompt.
const STEP_TIME_MAX: Duration = Duration::from_secs(120);
/// After this long without an answer the route's nodes are asked whether they are there; then again after
/// twice as long. Asking a node that is busy costs one small message.
const PATIENCE_MIN: Duration = Duration::from_millis(250);
/// A session without a route is given up after this long.
const MEND_TIME_MAX: Duration = Duration::from_secs(10);
/// Pause before a route that could not be opened is tried again.
const MEND_PAUSE: Duration = Duration::from_millis(50);
/// Where there is no route, it is looked for again at each news, and after this time.
const ROUTE_PAUSE: Duration = Duration::from_millis(100);
/// Stages sign their receipts within this time.
const RECEIPT_TIME_MAX: Duration = Duration::from_secs(3);

/// What comes in for a session of this head.
#[derive(Debug)]
pub(crate) enum HeadEvent {
    /// The answer to a step: logits, or a vector.
    Answer { from: NodeId, attempt: u8, step: u64, answer: Answer },
    /// A stage gave up.
    Failed { from: NodeId, leg: Leg, reason: String },
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
    /// A stage is lost: [`HeadSession::mend`] may help.
    Broken(GenerateError),
}

/// What a session came to.
pub(super) struct Bill {
    pub cost: Credits,
    pub flops: Flops,
    pub receipts: Vec<ReceiptReport>,
}

/// A session that is open on every stage of its route.
pub(super) struct HeadSession {
    shared: Arc<Shared>,
    known: Arc<KnownModel>,
    id: RequestId,
    adapter: Option<AdapterId>,
    /// How all stages of the route hold the weights, unless they may differ.
    grade: Option<Grade>,
    size: SessionSize,
    best: Option<Best>,
    /// What the caller's key pays it from.
    held: Option<KeyHold>,
    ticket: Signed<Entry>,
    finality: Option<Finality>,
    route: Vec<Hop>,
    /// The first node of the route, as it was when the session was opened over it.
    first_node: Party,
    /// Counts the routes from 0.
    attempt: u8,
    /// Nodes of earlier routes, which may hold something of this session.
    visited: BTreeSet<NodeId>,
    /// When the last route broke, until an answer comes over a new one.
    broken_at: Option<Instant>,
    /// Nodes of the route that did not answer when they were asked last.
    gone: BTreeSet<NodeId>,
    /// The last step answered over this route.
    answered: Option<u64>,
    /// How long answers took lately.
    usual: Duration,
    /// What is owed and signed for.
    dues: Dues,
    inbox: mpsc::UnboundedReceiver<HeadEvent>,
}

impl HeadSession {
    /// Finds a route, has the caller's key and the founder hold what the session may cost, and opens it. Of logits `best` are
    /// wanted.
    ///
    /// # Errors
    /// [`GenerateError`]; nothing was computed or charged.
    pub async fn open(
        shared: &Arc<Shared>,
        admission: &Admission,
        chosen: &Chosen,
        size: SessionSize,
        best: Option<Best>,
    ) -> Result<Self, GenerateError> {
        let (route, grade) = find(shared, chosen).await?;
        let id = RequestId(random());
        let held = admission.hold(quote(shared, &chosen.known, size))?;
        let ticket = reserve(shared, &chosen.known, id, size).await?;
        let finality = finality(shared, &ticket).await;
        let dues = Dues::new(shared, &chosen.known, id, size.prompt_tokens, &ticket);
        let mut session = Self {
            inbox: shared.open_inbox(id),
            shared: Arc::clone(shared),
            known: Arc::clone(&chosen.known),
            id,
            adapter: chosen.adapter_id(),
            grade,
            size,
            best,
            held,
            ticket,
            finality,
            first_node: shared.party(route[0].node),
            route,
            attempt: 0,
            visited: BTreeSet::new(),
            broken_at: None,
            gone: BTreeSet::new(),
            answered: None,
            usual: Duration::ZERO,
            dues,
        };
        session.dues.reroute(0, &session.route, 0, |_| true);
        session.send_open(0, |_| true);
        Ok(session)
    }

    /// Opens the session over its route, on stages that are `fresh` and on those that hold `held` positions.
    fn send_open(&self, held: u32, fresh: impl Fn(&Hop) -> bool) {
        let hop = |hop: &Hop| RouteHop { node: hop.node, span: hop.span, fresh: fresh(hop) };
        let open = Open {
            session: self.id,
            head: self.shared.me,
            model: self.known.id,
            adapter: self.adapter,
            route: self.route.iter().map(hop).collect(),
            held,
            positions_max: self.size.positions_max,
            frames: self.frames(),
            best: self.best.clone(),
            ticket: self.ticket.clone(),
            finality: self.finality.clone(),
        };
        self.send_first(Flow::Open { leg: self.first(), open: Box::new(open) });
    }

    fn frames(&self) -> WireType {
        let view = self.shared.view.borrow();
        frame_type(self.known.model.shape().precision, &self.route, &view.links)
    }

    fn first(&self) -> Leg {
        Leg { attempt: self.attempt, hop: 0 }
    }

    pub fn id(&self) -> RequestId {
        self.id
    }

    /// Sends `step` down the route.
    pub fn send(&mut self, step: HeadStep) {
        self.dues.sent(step.number, step.position);
        self.send_step(step);
    }

    fn send_step(&self, step: HeadStep) {
        self.send_first(Flow::Step(Step {
            session: self.id,
            leg: self.first(),
            number: step.number,
            position: step.position,
            wants: step.wants,
            payload: Payload::Tokens(step.tokens),
        }));
    }

    fn send_first(&self, flow: Flow) {
        self.shared.deliver_to(self.first_node, flow);
    }

    /// The next answer and the number of its step. `abandoned` ends when the caller leaves.
    pub async fn answer(
        &mut self,
        abandoned: impl Future<Output = ()>,
    ) -> Result<(u64, Vec<f32>), NoAnswer> {
        tokio::pin!(abandoned);
        let begun = Instant::now();
        let mut patience = PATIENCE_MIN.max(3 * self.usual);
        let last = self.route.len() - 1;
        loop {
            let event = tokio::select! {
                event = timeout_at(begun + patience, self.inbox.recv()) => event,
                () = &mut abandoned => return Err(NoAnswer::Abandoned),
            };
            match event {
                Ok(Some(HeadEvent::Answer { from, attempt, step, answer }))
                    if from == self.route[last].node
                        && attempt == self.attempt
                        && self.answered.is_none_or(|answered| step > answered) =>
                {
                    self.answered = Some(step);
                    self.usual = (self.usual * 7 + begun.elapsed()) / 8;
                    self.whole_again();
                    return match self.values(answer) {
                        Some(values) => {
                            self.pay_for(step);
                            Ok((step, values))
                        }
                        None => {
                            self.shared.blame(from, Fault::Shape);
                            let reason = "not what was asked for".into();
                            Err(NoAnswer::Broken(self.lost(last, reason)))
                        }
                    };
                }
                Ok(Some(HeadEvent::Failed { from, leg, reason }))
                    if leg.attempt == self.attempt =>
                {
                    let hop = usize::from(leg.hop);
                    if self.route.get(hop).is_some_and(|hop| hop.node == from) {
                        return Err(NoAnswer::Broken(self.lost(hop, reason)));
                    }
                }
                Ok(Some(HeadEvent::NodeLost(node))) => {
                    if let Some(hop) = self.route.iter().position(|hop| hop.node == node) {
                        return Err(NoAnswer::Broken(self.lost(hop, "its link broke".into())));
                    }
                }
                Ok(Some(event)) => self.out_of_turn(&event),
                Err(_) if begun.elapsed() < STEP_TIME_MAX => {
                    if let Some(hop) = self.silent_hop().await {
                        let reason = "it does not answer any more".into();
                        return Err(NoAnswer::Broken(self.lost(hop, reason)));
                    }
                    patience = begun.elapsed() + 2 * patience;
                }
                Ok(None) | Err(_) => {
                    let reason = format!("no answer within {} s", STEP_TIME_MAX.as_secs());
                    return Err(NoAnswer::Broken(self.lost(last, reason)));
                }
            }
        }
    }

    /// The answer to `step` is here: signs what is due for the work before it.
    fn pay_for(&mut self, step: u64) {
        for (node, voucher) in self.dues.answered(step, &self.shared.keys) {
            self.shared.deliver(node, Flow::Voucher(voucher));
        }
    }

    /// An answer as numbers: logits `[T, V]`, or a vector.
    fn values(&self, answer: Answer) -> Option<Vec<f32>> {
        match answer {
            Answer::Logits { values, .. } | Answer::Vector(values) => Some(values),
            Answer::Best { count, picks } => {
                let vocab = self.known.model.shape().vocab as usize;
                best::spread(&picks, count as usize, vocab)
            }
        }
    }

    /// Blames whoever sent what nobody waits for.
    fn out_of_turn(&self, event: &HeadEvent) {
        let (from, fault) = match event {
            HeadEvent::Answer { from, attempt, .. } => {
                let is_last = self.route.last().is_some_and(|hop| hop.node == *from);
                let fault = match attempt.cmp(&self.attempt) {
                    Ordering::Equal if is_last => Fault::Twice,
                    Ordering::Less if is_last || self.visited.contains(from) => Fault::Late,
                    _ => Fault::Session,
                };
                (from, fault)
            }
            HeadEvent::Failed { from, .. } if !self.visited.contains(from) => {
                (from, Fault::Session)
            }
            // Stages of earlier routes end theirs as they must.
            HeadEvent::Failed { .. } | HeadEvent::Receipt { .. } | HeadEvent::NodeLost(_) => return,
        };
        self.shared.blame(*from, fault);
    }

    /// The first hop whose node is not there, by asking all of them.
    async fn silent_hop(&mut self) -> Option<usize> {
        self.find_gone().await;
        self.route.iter().position(|hop| self.gone.contains(&hop.node))
    }

    /// Asks the nodes of the route whether they are there.
    async fn find_gone(&mut self) {
        let mut questions = JoinSet::new();
        for node in self.route.iter().map(|hop| hop.node).collect::<BTreeSet<_>>() {
            let shared = Arc::clone(&self.shared);
            questions.spawn(async move { (node, probe::answers(&shared, node).await) });
        }
        let answers = questions.join_all().await.into_iter();
        self.gone = answers.filter(|(_, answered)| !answered).map(|(node, _)| node).collect();
    }

    /// Opens the session over a route without what is lost, and runs again what is not answered: `steps`,
    /// which follow the tokens `held`. `error` says what was lost.
    ///
    /// # Errors
    /// `error`, if there is no such route for too long.
    pub async fn mend(
        &mut self,
        error: GenerateError,
        held: &[u32],
        steps: &[HeadStep],
    ) -> Result<(), GenerateError> {
        let again = self.broken_at.is_some();
        let begun = *self.broken_at.get_or_insert_with(Instant::now);
        if again {
            // What the stages hold could not be used, or there is no way between two of them yet.
            sleep(MEND_PAUSE).await;
        }
        self.visited.extend(self.route.iter().map(|hop| hop.node));
        let route = match self.attempt.checked_add(1) {
            Some(_) if begun.elapsed() < MEND_TIME_MAX => {
                self.other_route(again, begun + MEND_TIME_MAX).await
            }
            _ => None,
        };
        let route = route.ok_or(error)?;
        let old = std::mem::replace(&mut self.route, route);
        rating::failed(&self.shared, self.id, std::mem::take(&mut self.gone));
        self.first_node = self.shared.party(self.route[0].node);
        self.attempt += 1;
        self.answered = None;
        tracing::info!(request = %self.id, attempt = self.attempt, "going on over another route");
        let fresh = |hop: &Hop| again || held.is_empty() || !old.contains(hop);
        self.dues.reroute(self.attempt, &self.route, held.len() as u32, fresh);
        self.send_open(held.len() as u32, fresh);
        if fresh(&self.route[0]) {
            self.replay(held);
        }
        steps.iter().for_each(|step| self.send(step.clone()));
        Ok(())
    }

    /// A route over nodes that answer; the present one where it still stands, unless all of it shall be
    /// found anew.
    async fn other_route(&mut self, anew: bool, deadline: Instant) -> Option<Vec<Hop>> {
        if self.gone.is_empty() {
            self.find_gone().await;
        }
        let mut view = self.shared.view.clone();
        loop {
            let known = (&*self.known, self.adapter, self.grade);
            let route = (&self.route[..], anew);
            // Word of who is gone may still be on its way to the view.
            let found =
                routes::mend(&self.shared, &view.borrow_and_update(), known, route, &self.gone);
            if found.is_some() {
                return found;
            }
            if Instant::now() > deadline {
                return None;
            }
            // Who was gone may be linked again.
            let _ = timeout(ROUTE_PAUSE, view.changed()).await;
            self.find_gone().await;
        }
    }

    /// Sends the first stage the tokens that it has lost; nobody answers.
    fn replay(&self, tokens: &[u32]) {
        let rows = chunk_rows(self.known.model.shape().hidden);
        for (piece, tokens) in tokens.chunks(rows).enumerate() {
            self.send_step(HeadStep {
                number: 0,
                position: (piece * rows) as u32,
                tokens: tokens.to_vec(),
                wants: Wanted::Logits(LogitsWanted::None),
            });
        }
    }

    /// An answer came: what earlier routes left is not needed any more.
    fn whole_again(&mut self) {
        if self.broken_at.take().is_some() {
            self.abandon(self.attempt);
        }
    }

    fn abandon(&self, before: u8) {
        for node in &self.visited {
            self.shared.deliver(*node, Flow::Abandon { session: self.id, before });
        }
    }

    /// The error for an answer that is none: the last stage is to blame.
    pub fn wrong(&self, error: &HeadError) -> GenerateError {
        let last = self.route.len() - 1;
        if let Some(fault) = error.fault() {
            self.shared.blame(self.route[last].node, fault);
        }
        self.lost(last, error.to_string())
    }

    fn lost(&self, hop: usize, reason: String) -> GenerateError {
        let Hop { node, span } = self.route[hop];
        let name = self.shared.view.borrow().name_of(node);
        GenerateError::StageLost { name, span, reason }
    }

    /// Sends no more steps, and pays the stages for what all of them signed; if they do not, only what this head has
    /// signed for on the way.
    ///
    /// # Errors
    /// [`GenerateError::LedgerRefused`].
    pub async fn settle(&mut self) -> Result<Bill, GenerateError> {
        self.close();
        let Some(receipts) = self.receipts().await else {
            tracing::warn!(request = %self.id, "a stage signed no receipt: nobody is paid by work");
            return Ok(self.end_unsigned().await);
        };
        let nodes = receipts.iter().map(|receipt| receipt.claimed_value().node);
        rating::completed(&self.shared, nodes, self.attempt == 0);
        let work = receipts[0].claimed_value();
        let (network, positions) = (work.network, work.positions);
        let logits = receipts[receipts.len() - 1].claimed_value().logits;
        let shape = self.known.model.shape();
        let flops = shape.flops(shape.span(), 0..positions, logits);
        let reports: Vec<_> = receipts.iter().map(|receipt| reported(receipt, shape)).collect();
        let (request, vouchers) = (self.id, self.dues.of_lost_stages());
        self.pay(Settlement { network, request, positions, logits, receipts, vouchers }).await?;
        let cost = self.cost(positions, logits);
        self.charge(cost).await;
        Ok(Bill { cost, flops, receipts: reports })
    }

    async fn pay(&self, settlement: Settlement) -> Result<(), GenerateError> {
        let event = Event::Settled { settlement: self.shared.keys.sign(settlement) };
        match order(&self.shared, event).await {
            Ok(_) | Err(Refusal::Duplicate { .. }) => Ok(()),
            Err(refusal) => {
                let reason = describe(&refusal);
                tracing::warn!(request = %self.id, reason, "the settlement was refused");
                Err(GenerateError::LedgerRefused { reason })
            }
        }
    }

    async fn charge(&mut self, cost: Credits) {
        if let Some(held) = self.held.take() {
            held.pay(cost).await;
        }
    }

    /// Pays what is signed for and nothing else; if that is nothing, all credits go back.
    async fn end_unsigned(&mut self) -> Bill {
        let (vouchers, cost) = self.dues.all();
        let bill = Bill { cost, flops: Flops::default(), receipts: Vec::new() };
        if vouchers.is_empty() {
            cancel(&self.shared, self.id).await;
            return bill;
        }
        let (network, request) = (self.shared.desk().network(), self.id);
        let (positions, logits, receipts) = (0, 0, Vec::new());
        let settlement = Settlement { network, request, positions, logits, receipts, vouchers };
        // If this is lost, the stages claim it.
        if self.pay(settlement).await.is_ok() {
            self.charge(cost).await;
        }
        bill
    }

    /// Sends no more steps, and gives the credits back that are not signed for.
    pub async fn release(&mut self) {
        self.close();
        self.abandon(self.attempt.saturating_add(1));
        self.end_unsigned().await;
    }

    fn close(&self) {
        self.send_first(Flow::Close { leg: self.first(), session: self.id });
    }

    /// One receipt per hop, in order.
    async fn receipts(&mut self) -> Option<Vec<Signed<Receipt>>> {
        let deadline = Instant::now() + RECEIPT_TIME_MAX;
        let mut receipts = vec![None; self.route.len()];
        while receipts.iter().any(Option::is_none) {
            match timeout_at(deadline, self.inbox.recv()).await.ok()?? {
                HeadEvent::Receipt { from, receipt } => {
                    let claimed = receipt.claimed_value();
                    let is_it = |hop: &Hop| hop.node == from && hop.span == claimed.span;
                    let hop = self.route.iter().position(is_it);
                    if let Some(hop) = hop.filter(|hop| self.dues.is_of(*hop, claimed)) {
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

    fn cost(&self, positions: u32, logits: u32) -> Credits {
        let shape = self.known.model.shape();
        self.shared.desk().read(|ledger| {
            let policy = self.ticket.claimed_value().terms(ledger.policy());
            policy.profile.charge(shape, positions, logits, &policy)
        })
    }

    pub fn route_report(&self) -> Vec<StageReport> {
        self.shared.view.borrow().report(&self.route)
    }
}

impl Drop for HeadSession {
    fn drop(&mut self) {
        self.shared.close_inbox(self.id);
    }
}

/// What callers are told of `receipt`, for work on a model of this shape.
fn reported(receipt: &Signed<Receipt>, shape: &ModelShape) -> ReceiptReport {
    let claimed = receipt.claimed_value();
    ReceiptReport {
        node: claimed.node,
        span: claimed.span,
        positions: claimed.positions,
        flops: claimed.flops(shape),
        signed: hex::show(&encode(receipt)),
    }
}

/// A complete route; waits a little for one while layers move.
async fn find(
    shared: &Shared,
    chosen: &Chosen,
) -> Result<(Vec<Hop>, Option<Grade>), GenerateError> {
    let mut view = shared.view.clone();
    let model = chosen.known.id;
    // Whoever has it on the disk shall know. If the node is stopping, nobody waits for the answer.
    let _ = shared.hub.send(HubInput::Asked { model }).await;
    let on_demand = view.borrow().on_demand.contains(&model);
    let deadline = Instant::now() + if on_demand { SWAP_TIME_MAX } else { ROUTE_TIME_MAX };
    loop {
        let found = routes::choose(shared, &view.borrow_and_update(), chosen);
        let missing = match found {
            Ok(found) => return Ok(found),
            Err(missing) => missing,
        };
        if !matches!(timeout_at(deadline, view.changed()).await, Ok(Ok(()))) {
            return Err(GenerateError::NoRoute { model: chosen.name(), missing });
        }
    }
}

/// The most that a session of `size` may cost.
fn quote(shared: &Shared, known: &KnownModel, size: SessionSize) -> Credits {
    let SessionSize { prompt_tokens, new_tokens, .. } = size;
    let shape = known.model.shape();
    shared
        .desk()
        .read(|ledger| talka_ledger::quote(shape, prompt_tokens, new_tokens, ledger.policy()))
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
        at: shared.desk().signing_time(now()),
    };
    let event = Event::Reserved { reservation: shared.keys.sign(reservation) };
    order(shared, event).await.map_err(refused_to_hold)
}
