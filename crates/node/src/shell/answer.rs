//! One request from prompt to settlement, as its head.
//!
//! Nothing is computed before the founder holds the credits; nothing is charged unless every stage
//! signed for the same work. A caller who leaves, or whose grammar leads nowhere, pays for what was
//! computed until then.

use super::{KnownModel, Shared, desk::OrderResult, now, random};
use crate::{
    api::{
        FinishReason, GenerateError, GenerateEvent, GenerateRequest, Generation, LOGPROBS_MAX,
        Piece, Prompt, StageReport, Summary,
    },
    core::head::{Head, HeadError, Progress, Step as HeadStep, Task},
    wire::{Control, Flow, Open, Payload, Refusal, Step},
};
use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use talka_base::{Credits, Flops, NodeId, Receipt, RequestId, Signed};
use talka_engine::{ChoiceRules, Chooser, GrammarState, Guesser, LookUp, TextStream};
use talka_ledger::{Cancellation, Entry, Event, ReleaseReason, Reservation, Settlement};
use talka_plan::{Hop, find_route};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::{Instant, timeout, timeout_at},
};

/// While layers move, a request waits this long for a complete route.
const ROUTE_TIME_MAX: Duration = Duration::from_secs(3);
/// The founder answers within this time.
const ORDER_TIME_MAX: Duration = Duration::from_secs(5);
/// A stage that lives answers a step within this time, however long the prompt.
const STEP_TIME_MAX: Duration = Duration::from_secs(120);
/// Stages sign their receipts within this time.
const RECEIPT_TIME_MAX: Duration = Duration::from_secs(3);
/// Pieces of text that wait for a slow caller; then the generation waits too.
const EVENT_QUEUE: usize = 64;

/// What comes in for a request of this head.
#[derive(Debug)]
pub(crate) enum HeadEvent {
    /// The answer to a step.
    Logits { from: NodeId, step: u64, values: Vec<f32> },
    /// A stage gave up.
    Failed { from: NodeId, hop: u8, reason: String },
    /// A stage signed.
    Receipt { from: NodeId, receipt: Signed<Receipt> },
    /// A node is gone.
    NodeLost(NodeId),
}

/// Checks, prices and starts a request.
pub(crate) async fn start(
    shared: Arc<Shared>,
    request: GenerateRequest,
) -> Result<Generation, GenerateError> {
    let running = super::REQUESTS_MAX;
    let permit = Arc::clone(&shared.admitted)
        .try_acquire_owned()
        .map_err(|_| GenerateError::Overloaded { running })?;
    let known = find_model(&shared, &request.model)?;
    request.sampling.validate()?;
    check_bias(&known, &request)?;
    let prompt = tokens(&known, &request.prompt)?;
    let size = Size::of(&known, &prompt, &request)?;
    let grammar = compile(&known, &request).await?;
    let route = route(&shared, &known).await?;
    let session = RequestId(random());
    let ticket = reserve(&shared, &known, session, &size).await?;

    let echo = request.echo.then(|| echo(&known, &request.prompt, &prompt));
    let task = task(&known, request, prompt, size, grammar);
    let (events, receiver) = mpsc::channel(EVENT_QUEUE);
    let model = known.name.clone();
    let inbox = shared.open_inbox(session);
    let prompt_tokens = size.prompt_tokens;
    let run = Run { shared, known, session, route, inbox, events, prompt_tokens, _permit: permit };
    tokio::spawn(run.run(Head::new(task), echo, size.positions_max(), ticket));
    Ok(Generation { request: session, model, prompt_tokens, events: receiver })
}

/// What a head does for `request`, once all is well with it.
fn task(
    known: &KnownModel,
    request: GenerateRequest,
    prompt: Vec<u32>,
    size: Size,
    grammar: Option<GrammarState>,
) -> Task {
    let model = known.model.clone();
    let tokenizer = model.tokenizer().clone();
    let text = match request.prompt {
        Prompt::Chat(_) => TextStream::new(tokenizer, request.stop),
        _ => TextStream::continuing(tokenizer, &prompt, request.stop),
    };
    let logprobs = request.logprobs.map(|top| top.min(LOGPROBS_MAX));
    let rules = ChoiceRules {
        sampling: request.sampling,
        min_tokens: request.min_tokens,
        ignore_end: request.ignore_end,
        logprobs,
    };
    let chooser = Chooser::new(rules, &prompt, model.eos_ids(), grammar);
    Task {
        model,
        prompt,
        chooser,
        // Looked-up guesses change no draw, so every request may have them.
        guesser: Guesser::LookUp(LookUp::default()),
        text,
        max_new_tokens: size.max_new_tokens,
        prompt_logprobs: logprobs.filter(|_| request.echo),
    }
}

/// How much a request may compute.
#[derive(Debug, Clone, Copy)]
struct Size {
    prompt_tokens: u32,
    max_new_tokens: u32,
    /// Logits are wanted after every token of the prompt.
    scores_prompt: bool,
}

impl Size {
    fn of(
        known: &KnownModel,
        prompt: &[u32],
        request: &GenerateRequest,
    ) -> Result<Self, GenerateError> {
        let context = known.model.shape().context;
        let prompt_tokens = u32::try_from(prompt.len()).unwrap_or(u32::MAX);
        let scores_prompt = request.echo && request.logprobs.is_some();
        let least = if scores_prompt && request.max_tokens == Some(0) { 0 } else { 1 };
        if prompt_tokens.saturating_add(least) > context {
            return Err(GenerateError::PromptTooLong { prompt: prompt_tokens, context });
        }
        let most = request.max_tokens.unwrap_or(u32::MAX);
        let max_new_tokens = most.clamp(least, context - prompt_tokens);
        Ok(Self { prompt_tokens, max_new_tokens, scores_prompt })
    }

    fn positions_max(&self) -> u32 {
        self.prompt_tokens + self.max_new_tokens
    }

    /// Prompt and new tokens to reserve for. The ledger grants logits for new tokens only, so a
    /// prompt that is scored counts as new but for its first token.
    fn reserved(&self) -> (u32, u32) {
        if self.scores_prompt {
            (1, self.prompt_tokens - 1 + self.max_new_tokens.max(1))
        } else {
            (self.prompt_tokens, self.max_new_tokens)
        }
    }
}

fn check_bias(known: &KnownModel, request: &GenerateRequest) -> Result<(), GenerateError> {
    let vocab = known.model.shape().vocab;
    match request.sampling.logit_bias.iter().find(|(token, _)| *token >= vocab) {
        Some(&(found, _)) => Err(GenerateError::UnknownBias { found, vocab }),
        None => Ok(()),
    }
}

/// Compiling takes milliseconds, and up to seconds for the first or a hostile one: not for the
/// thread that serves everybody.
async fn compile(
    known: &Arc<KnownModel>,
    request: &GenerateRequest,
) -> Result<Option<GrammarState>, GenerateError> {
    let Some(grammar) = request.grammar.clone() else { return Ok(None) };
    let known = Arc::clone(known);
    let compiled = tokio::task::spawn_blocking(move || known.compile(&grammar)).await;
    let compiled = compiled.expect("compiling does not panic");
    compiled.map(Some).map_err(|error| GenerateError::Grammar { reason: error.reason })
}

/// The prompt as the caller wrote it.
fn echo(known: &KnownModel, prompt: &Prompt, tokens: &[u32]) -> String {
    match prompt {
        Prompt::Text(text) => text.clone(),
        // A decoder that fails on its own model's tokens has no text for them.
        _ => known.model.tokenizer().decode(tokens).unwrap_or_default(),
    }
}

fn find_model(shared: &Shared, name: &str) -> Result<Arc<KnownModel>, GenerateError> {
    let found = shared.models.iter().find(|m| m.name == name || m.id.to_string() == name);
    found.cloned().ok_or_else(|| GenerateError::UnknownModel {
        found: name.to_owned(),
        known: shared.models.iter().map(|m| m.name.clone()).collect(),
    })
}

fn tokens(known: &KnownModel, prompt: &Prompt) -> Result<Vec<u32>, GenerateError> {
    let template = |reason: String| GenerateError::Template { reason };
    let tokenizer = known.model.tokenizer();
    let tokens = match prompt {
        Prompt::Tokens(tokens) => tokens.clone(),
        Prompt::Text(text) => tokenizer.encode(text, true).map_err(|e| template(e.to_string()))?,
        Prompt::Chat(messages) => {
            let rendered = known.model.template().render(messages, true);
            let text = rendered.map_err(|e| template(e.to_string()))?;
            tokenizer.encode(&text, false).map_err(|e| template(e.to_string()))?
        }
    };
    let vocab = known.model.shape().vocab;
    match tokens.iter().find(|token| **token >= vocab) {
        Some(found) => Err(GenerateError::UnknownToken { found: *found, vocab }),
        None if tokens.is_empty() => Err(GenerateError::EmptyPrompt),
        None => Ok(tokens),
    }
}

/// A complete route; waits a little for one while layers move.
async fn route(shared: &Shared, known: &KnownModel) -> Result<Vec<Hop>, GenerateError> {
    let layers = known.model.shape().layers;
    let mut view = shared.view.clone();
    let deadline = Instant::now() + ROUTE_TIME_MAX;
    loop {
        let served = view.borrow_and_update().served.get(&known.id).cloned().unwrap_or_default();
        let missing = match find_route(layers, &served, shared.me) {
            Ok(route) => return Ok(route),
            Err(missing) => missing,
        };
        if !matches!(timeout_at(deadline, view.changed()).await, Ok(Ok(()))) {
            return Err(GenerateError::NoRoute { model: known.name.clone(), missing });
        }
    }
}

async fn reserve(
    shared: &Arc<Shared>,
    known: &KnownModel,
    request: RequestId,
    size: &Size,
) -> Result<Signed<Entry>, GenerateError> {
    let (prompt_tokens, max_new_tokens) = size.reserved();
    let reservation = Reservation {
        network: shared.desk().network(),
        request,
        payer: shared.member(),
        head: shared.me,
        model: known.id,
        shape: *known.model.shape(),
        prompt_tokens,
        max_new_tokens,
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

/// How the running part of a request ended.
enum Ending {
    Complete(FinishReason),
    /// The caller left.
    Abandoned,
    /// The caller's grammar led nowhere: no stage is to blame, so what was computed is paid for.
    Astray(GenerateError),
    Broken(GenerateError),
}

/// A request under way.
struct Run {
    shared: Arc<Shared>,
    known: Arc<KnownModel>,
    session: RequestId,
    route: Vec<Hop>,
    inbox: mpsc::UnboundedReceiver<HeadEvent>,
    events: mpsc::Sender<GenerateEvent>,
    prompt_tokens: u32,
    /// Given back when the request ends, however it does.
    _permit: OwnedSemaphorePermit,
}

impl Run {
    async fn run(
        mut self,
        mut head: Head,
        echo: Option<String>,
        positions_max: u32,
        ticket: Signed<Entry>,
    ) {
        self.open(positions_max, ticket);
        if let Some(text) = echo {
            // A caller who left is noticed by the first step.
            let _ =
                self.events.send(GenerateEvent::Piece(Piece { text, ..Piece::default() })).await;
        }
        let ending = self.generate(&mut head).await;
        self.send_first(Flow::Close { hop: 0, session: self.session });
        let last = match ending {
            Ending::Complete(reason) => self.settle(Some(reason), head.generated()).await,
            Ending::Abandoned => self.settle(None, head.generated()).await,
            Ending::Astray(error) => {
                self.settle(None, head.generated()).await;
                GenerateEvent::Failed(error)
            }
            Ending::Broken(error) => {
                self.release().await;
                GenerateEvent::Failed(error)
            }
        };
        self.shared.close_inbox(self.session);
        let _ = self.events.send(last).await;
    }

    fn open(&self, positions_max: u32, ticket: Signed<Entry>) {
        let open = Open {
            session: self.session,
            head: self.shared.me,
            model: self.known.id,
            route: self.route.iter().map(|hop| (hop.node, hop.span)).collect(),
            positions_max,
            ticket,
        };
        self.send_first(Flow::Open { hop: 0, open: Box::new(open) });
    }

    fn send_first(&self, flow: Flow) {
        self.shared.deliver(self.route[0].node, flow);
    }

    fn send_step(&self, step: HeadStep) {
        self.send_first(Flow::Step(Step {
            session: self.session,
            hop: 0,
            number: step.number,
            position: step.position,
            wants: step.wants,
            payload: Payload::Tokens(step.tokens),
        }));
    }

    async fn generate(&mut self, head: &mut Head) -> Ending {
        for step in head.start() {
            self.send_step(step);
        }
        loop {
            let (step, mut logits) = match self.next_logits().await {
                Ok(answer) => answer,
                Err(ending) => return ending,
            };
            let (piece, next) = match head.logits(step, &mut logits) {
                Ok(Progress::Next { piece, step }) => (piece, Ok(step)),
                Ok(Progress::Finished { piece, reason }) => (piece, Err(reason)),
                Err(HeadError::Grammar(error)) => {
                    return Ending::Astray(GenerateError::Grammar { reason: error.reason });
                }
                Err(error) => return self.broken(self.route.len() - 1, error.to_string()),
            };
            // The stages compute while the caller reads.
            let finished = next.map(|step| self.send_step(step)).err();
            if !piece.is_empty() && self.events.send(GenerateEvent::Piece(piece)).await.is_err() {
                return Ending::Abandoned;
            }
            if let Some(reason) = finished {
                return Ending::Complete(reason);
            }
        }
    }

    /// The answer to the open step, or why none comes.
    async fn next_logits(&mut self) -> Result<(u64, Vec<f32>), Ending> {
        let deadline = Instant::now() + STEP_TIME_MAX;
        let last = self.route.len() - 1;
        loop {
            let event = tokio::select! {
                event = timeout_at(deadline, self.inbox.recv()) => event,
                () = self.events.closed() => return Err(Ending::Abandoned),
            };
            match event {
                Ok(Some(HeadEvent::Logits { from, step, values }))
                    if from == self.route[last].node =>
                {
                    return Ok((step, values));
                }
                Ok(Some(HeadEvent::Failed { from, hop, reason }))
                    if self.route.get(usize::from(hop)).is_some_and(|h| h.node == from) =>
                {
                    return Err(self.broken(usize::from(hop), reason));
                }
                Ok(Some(HeadEvent::NodeLost(node))) => {
                    if let Some(hop) = self.route.iter().position(|hop| hop.node == node) {
                        return Err(self.broken(hop, "it does not answer any more".into()));
                    }
                }
                // From somebody who has no part in this, or out of turn.
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => {
                    let seconds = STEP_TIME_MAX.as_secs();
                    return Err(self.broken(last, format!("no answer within {seconds} s")));
                }
            }
        }
    }

    fn broken(&self, hop: usize, reason: String) -> Ending {
        let Hop { node, span } = self.route[hop];
        let name = self.shared.view.borrow().name_of(node);
        Ending::Broken(GenerateError::StageLost { name, span, reason })
    }

    /// Pays the stages for what all of them signed; if they do not, nobody pays.
    async fn settle(&mut self, finish: Option<FinishReason>, generated: u32) -> GenerateEvent {
        let finish = finish.unwrap_or(FinishReason::Stop);
        let mut summary = Summary {
            request: self.session,
            finish,
            prompt_tokens: self.prompt_tokens,
            completion_tokens: generated,
            cost: Credits::ZERO,
            flops: Flops::default(),
            route: self.route_report(),
        };
        let Some(receipts) = self.receipts().await else {
            tracing::warn!(request = %self.session, "a stage signed no receipt: nobody pays");
            self.release().await;
            return GenerateEvent::Done(summary);
        };
        let work = receipts[0].claimed_value();
        let logits = receipts[receipts.len() - 1].claimed_value().logits;
        let shape = self.known.model.shape();
        summary.flops = receipts.iter().map(|r| r.claimed_value().flops(shape)).sum();
        let settlement = Settlement {
            network: work.network,
            request: self.session,
            positions: work.positions,
            logits,
            receipts,
        };
        let event = Event::Settled { settlement: self.shared.keys.sign(settlement) };
        match order(&self.shared, event).await {
            Ok(_) | Err(Refusal::Duplicate { .. }) => summary.cost = self.cost(summary.flops),
            Err(refusal) => {
                let reason = describe(&refusal);
                tracing::warn!(request = %self.session, reason, "the settlement was refused");
                return GenerateEvent::Failed(GenerateError::LedgerRefused { reason });
            }
        }
        GenerateEvent::Done(summary)
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

    async fn release(&self) {
        let cancellation = Cancellation {
            network: self.shared.desk().network(),
            request: self.session,
            node: self.shared.me,
        };
        let reason = ReleaseReason::Cancelled(self.shared.keys.sign(cancellation));
        let event = Event::Released { request: self.session, reason };
        // If this is lost too, the founder releases the reservation when it expires.
        if let Err(refusal) = order(&self.shared, event).await {
            tracing::warn!(request = %self.session, reason = describe(&refusal), "not released");
        }
    }

    fn route_report(&self) -> Vec<StageReport> {
        let view = self.shared.view.borrow();
        let report = |hop: &Hop| StageReport {
            node: hop.node,
            name: view.name_of(hop.node),
            span: hop.span,
        };
        self.route.iter().map(report).collect()
    }
}
