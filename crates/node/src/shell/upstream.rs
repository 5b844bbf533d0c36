//! Answers from outside the network: holds credits, asks one upstream after the other, passes on what the
//! first that answers says, pays for what came.
//!
//! Whom to ask for what is [`core::fallback`](crate::core::fallback)'s. Another upstream is asked only
//! as long as nobody has seen anything of an answer; from then on a failure ends it, and costs nothing.

use super::{
    Admission, Shared,
    answer::{EVENT_QUEUE, tokens},
    events::{EventSender, event_channel},
    keys::KeyHold,
    models::KnownModel,
    now,
    orders::{cancel, describe, order, refused_to_hold},
    random,
};
use crate::{
    api::{
        Fallback, FinishReason, GenerateError, GenerateEvent, GenerateRequest, Generation, Piece,
        Prompt, Summary, UpstreamReport,
    },
    config::{StartError, UpstreamChoice},
    core::fallback::{
        ANSWER_TOKENS_DEFAULT, Offer, UpstreamModel, UpstreamPrice, answer_estimate, candidates,
        prompt_estimate, question, unspeakable,
    },
    wire::Refusal,
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use talka_base::{Flops, RequestId};
use talka_ledger::{Delivery, Event, Forwarding, Tariff};
use talka_upstream::{Answer, AskError, Finish, Question, Said, Service, Usage};
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

/// An upstream that failed is asked after the others for so long: what is down stays down for minutes, but
/// one that is only busy should not wait for long.
const AILING: Duration = Duration::from_secs(30);

/// An upstream and what became of its answers.
pub(crate) struct Upstream {
    service: Service,
    models: Vec<UpstreamModel>,
    price: UpstreamPrice,
    record: Mutex<Record>,
}

#[derive(Default)]
struct Record {
    asked: u64,
    failed: u64,
    last_failure: Option<(Instant, String)>,
}

impl Upstream {
    /// Checks the settings of all; asks nobody.
    pub(crate) fn open_all(choices: &[UpstreamChoice]) -> Result<Vec<Self>, StartError> {
        let mut all: Vec<Self> = Vec::with_capacity(choices.len());
        for choice in choices {
            let service = Service::new(choice.service.clone())?;
            if all.iter().any(|other| other.service.name() == service.name()) {
                return Err(StartError::DuplicateUpstream { name: service.name().into() });
            }
            let (models, price) = (choice.models.clone(), choice.price);
            all.push(Self { service, models, price, record: Mutex::default() });
        }
        Ok(all)
    }

    pub(crate) fn name(&self) -> &str {
        self.service.name()
    }

    pub(crate) fn report(&self) -> UpstreamReport {
        let record = self.record();
        UpstreamReport {
            name: self.name().into(),
            address: self.service.address().into(),
            models: self.models.iter().map(|model| model.local.clone()).collect(),
            has_key: self.service.has_key(),
            asked: record.asked,
            failed: record.failed,
            last_failure: record.last_failure.as_ref().map(|(_, reason)| reason.clone()),
        }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offer(&self) -> Offer<'_> {
        let last = self.record().last_failure.as_ref().map(|(at, _)| *at);
        let ailing = last.is_some_and(|at| at.elapsed() < AILING);
        Offer { name: self.name(), models: &self.models, ailing }
    }

    async fn ask(&self, question: &Question) -> Result<Answer, AskError> {
        self.record().asked += 1;
        self.service.ask(question).await.inspect_err(|error| self.note(error))
    }

    /// Counts and logs a failure, whose message holds no key.
    fn note(&self, error: &AskError) {
        tracing::warn!(upstream = self.name(), %error, "an upstream failed");
        let mut record = self.record();
        record.failed += 1;
        record.last_failure = Some((Instant::now(), error.to_string()));
    }
}

/// Whether an upstream might answer `request`.
pub(crate) fn may_answer(shared: &Shared, request: &GenerateRequest) -> bool {
    unspeakable(request).is_none() && !choose(shared, request).is_empty()
}

fn choose(shared: &Shared, request: &GenerateRequest) -> Vec<(usize, String)> {
    let offers: Vec<Offer<'_>> = shared.upstreams.iter().map(Upstream::offer).collect();
    let known = shared.choose(&request.model).map(|chosen| chosen.name());
    let name = known.as_ref().unwrap_or(&request.model);
    candidates(&offers, &request.fallback, name, known.is_ok())
}

/// Starts an answer that the request itself wants from outside.
pub(crate) async fn start(
    shared: Arc<Shared>,
    request: GenerateRequest,
    admission: Arc<Admission>,
    why: Option<GenerateError>,
) -> Result<Generation, GenerateError> {
    let forwarded = begin(&shared, &admission, &request, why).await?;
    let (events, receiver) = event_channel(EVENT_QUEUE);
    let generation = Generation {
        request: forwarded.hold.id,
        model: request.model,
        prompt_tokens: forwarded.size.prompt_tokens,
        upstream: Some(forwarded.upstream().name().into()),
        events: receiver,
    };
    let relaying = async move {
        let last = forwarded.relay(&events).await;
        // Whoever hears the end may ask again at once, so that its place must be free by then.
        drop(admission);
        let _ = events.send(last).await;
    };
    tokio::spawn(relaying.in_current_span());
    Ok(generation)
}

/// Asks until one answers. `why` says what kept the network from answering.
///
/// # Errors
/// `why` if there is nobody to ask, else what the upstreams said. Nothing is charged.
pub(crate) async fn begin(
    shared: &Arc<Shared>,
    admission: &Admission,
    request: &GenerateRequest,
    why: Option<GenerateError>,
) -> Result<Forwarded, GenerateError> {
    let chosen = choose(shared, request);
    if let Some(what) = unspeakable(request) {
        return Err(why.unwrap_or(GenerateError::NotForUpstream { what }));
    }
    if chosen.is_empty() {
        return Err(why.unwrap_or_else(|| nobody(shared, request)));
    }
    let size = Size::of(shared, request);
    let mut failures = Vec::new();
    let mut hold: Option<Hold> = None;
    for (at, remote) in chosen {
        let upstream = &shared.upstreams[at];
        let tariff = upstream.price.tariff(size.known.as_ref().map(|known| *known.model.shape()));
        let held = match hold.take().filter(|hold| hold.tariff == tariff) {
            Some(hold) => hold,
            None => Hold::new(shared, admission, tariff, &size).await?,
        };
        let text = size.text(&request.prompt);
        let question = question(request, &remote, text.as_deref(), size.max_new_tokens);
        tracing::info!(request = %held.id, upstream = upstream.name(), "asking an upstream");
        match upstream.ask(&question).await {
            Ok(answer) => {
                return Ok(Forwarded { at, hold: held, size, answer, told: String::new() });
            }
            Err(error) => failures.push(format!("{}: {error}", upstream.name())),
        }
        hold = Some(held);
    }
    if let Some(hold) = hold {
        hold.release().await;
    }
    let why = why.map(|error| format!("{error}; ")).unwrap_or_default();
    Err(GenerateError::NoUpstream { why, failures: failures.join("; ") })
}

/// The error for a request that wants an upstream which is not there, or a model that it lacks.
fn nobody(shared: &Shared, request: &GenerateRequest) -> GenerateError {
    let Fallback::Only(found) = &request.fallback else {
        return unknown_model(shared, &request.model);
    };
    match shared.upstreams.iter().find(|upstream| upstream.name() == found) {
        Some(upstream) => {
            let known = upstream.models.iter().map(|model| model.local.clone()).collect();
            GenerateError::UnknownModel { found: request.model.clone(), known }
        }
        None => {
            let known = shared.upstreams.iter().map(|upstream| upstream.name().into()).collect();
            GenerateError::UnknownUpstream { found: found.clone(), known }
        }
    }
}

/// The error for a model that neither this node nor an upstream has.
pub(crate) fn unknown_model(shared: &Shared, found: &str) -> GenerateError {
    let models = shared.models.all();
    let own = models.iter().flat_map(|known| known.names());
    let others = shared.upstreams.iter().flat_map(|upstream| &upstream.models);
    let mut known: Vec<String> = own.collect();
    for model in others {
        if !known.contains(&model.local) {
            known.push(model.local.clone());
        }
    }
    GenerateError::UnknownModel { found: found.to_owned(), known }
}

/// How much may be asked, and what is known of the model.
struct Size {
    known: Option<Arc<KnownModel>>,
    prompt_tokens: u32,
    max_new_tokens: u32,
}

impl Size {
    fn of(shared: &Shared, request: &GenerateRequest) -> Self {
        let known = shared.choose(&request.model).ok().map(|chosen| chosen.known);
        let known = known.filter(|known| known.model.is_decoder());
        // The upstream may take what the template here does not.
        let counted = known.as_ref().and_then(|known| tokens(known, &request.prompt, &[]).ok());
        let counted = counted.and_then(|tokens| u32::try_from(tokens.len()).ok());
        let prompt_tokens = counted.unwrap_or_else(|| prompt_estimate(&request.prompt));
        let room = known.as_ref().map_or(ANSWER_TOKENS_DEFAULT, |known| {
            known.model.shape().context.saturating_sub(prompt_tokens)
        });
        let max_new_tokens = request.max_tokens.unwrap_or(room).max(1);
        Self { known, prompt_tokens, max_new_tokens }
    }

    /// What token ids say in the vocabulary that they come from.
    fn text(&self, prompt: &Prompt) -> Option<String> {
        let Prompt::Tokens(ids) = prompt else { return None };
        self.known.as_ref()?.model.tokenizer().decode(ids).ok()
    }

    /// What came, as the upstream counted it, else as it is counted here; never more than was held.
    fn used(&self, told: &str, usage: Option<Usage>) -> (u32, u32) {
        let (prompt, new) = match usage {
            Some(usage) => (usage.prompt_tokens, usage.completion_tokens),
            None => {
                let tokenizer = self.known.as_ref().map(|known| known.model.tokenizer());
                let counted = tokenizer.and_then(|tokenizer| tokenizer.encode(told, false).ok());
                let counted = counted.and_then(|tokens| u32::try_from(tokens.len()).ok());
                (self.prompt_tokens, counted.unwrap_or_else(|| answer_estimate(told.len())))
            }
        };
        (prompt.clamp(1, self.prompt_tokens), new.min(self.max_new_tokens))
    }
}

/// Credits in the reserve for an answer from outside. Given back when dropped.
struct Hold {
    shared: Arc<Shared>,
    /// What the caller's key pays it from.
    held: Option<KeyHold>,
    id: RequestId,
    tariff: Tariff,
    /// Later the founder may give the credits back, and the answer could not be paid.
    until: Instant,
    is_open: bool,
}

impl Hold {
    async fn new(
        shared: &Arc<Shared>,
        admission: &Admission,
        tariff: Tariff,
        size: &Size,
    ) -> Result<Self, GenerateError> {
        let id = RequestId(random());
        let desk = shared.desk();
        let most = desk
            .read(|ledger| tariff.price(size.prompt_tokens, size.max_new_tokens, ledger.policy()));
        let held = admission.hold(most)?;
        let forwarding = Forwarding {
            network: desk.network(),
            request: id,
            payer: shared.member(),
            head: shared.me,
            tariff: tariff.clone(),
            prompt_tokens: size.prompt_tokens,
            max_new_tokens: size.max_new_tokens,
            at: desk.signing_time(now()),
        };
        let open_ms = desk.read(|ledger| ledger.policy().reservation_ms_max);
        // A tenth is left for paying.
        let until = Instant::now() + Duration::from_millis(open_ms / 10 * 9);
        let mut hold = Self { shared: Arc::clone(shared), held, id, tariff, until, is_open: true };
        let event = Event::Forwarded { forwarding: shared.keys.sign(forwarding) };
        if let Err(refusal) = order(shared, event).await {
            // Where the founder did not answer it may hold them all the same.
            hold.is_open = matches!(refusal, Refusal::Unreachable { .. });
            return Err(refused_to_hold(refusal));
        }
        Ok(hold)
    }

    async fn release(mut self) {
        self.is_open = false;
        cancel(&self.shared, self.id).await;
    }

    /// Pays for what came: tokens of prompt and answer.
    async fn pay(mut self, used: (u32, u32)) -> Result<talka_base::Credits, GenerateError> {
        let (prompt_tokens, new_tokens) = used;
        let desk = self.shared.desk();
        let (network, request) = (desk.network(), self.id);
        let delivery = Delivery { network, request, prompt_tokens, new_tokens };
        let event = Event::Delivered { delivery: self.shared.keys.sign(delivery) };
        self.is_open = false;
        match order(&self.shared, event).await {
            Ok(_) | Err(Refusal::Duplicate { .. }) => {
                let policy = desk.read(|ledger| ledger.policy().clone());
                let cost = self.tariff.price(prompt_tokens, new_tokens, &policy);
                if let Some(held) = self.held.take() {
                    held.pay(cost).await;
                }
                Ok(cost)
            }
            Err(refusal) => {
                let reason = describe(&refusal);
                tracing::warn!(request = %self.id, reason, "the delivery was refused");
                Err(GenerateError::LedgerRefused { reason })
            }
        }
    }
}

impl Drop for Hold {
    /// The caller left while an upstream was asked.
    fn drop(&mut self) {
        if !self.is_open {
            return;
        }
        let (shared, id) = (Arc::clone(&self.shared), self.id);
        // Without a runtime the node is stopping, and the founder gives the credits back in time.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { cancel(&shared, id).await });
        }
    }
}

/// An upstream that has begun to answer.
pub(crate) struct Forwarded {
    at: usize,
    hold: Hold,
    size: Size,
    answer: Answer,
    /// What the caller got.
    told: String,
}

/// How the passing on ended.
enum Ending {
    Complete(Finish, Option<Usage>),
    /// The caller left.
    Abandoned,
    Broken(AskError),
}

impl Forwarded {
    fn upstream(&self) -> &Upstream {
        &self.hold.shared.upstreams[self.at]
    }

    /// Passes the answer on to `events`; returns the last event, which is for the caller to send.
    pub(crate) async fn relay(mut self, events: &EventSender) -> GenerateEvent {
        match self.pass_on(events).await {
            Ending::Complete(finish, usage) => self.settle(finish, usage).await,
            Ending::Abandoned => self.settle(Finish::Stop, None).await,
            Ending::Broken(error) => {
                let error = self.upstream().service.clean(error);
                self.upstream().note(&error);
                let (name, reason) = (self.upstream().name().to_owned(), error.to_string());
                self.hold.release().await;
                GenerateEvent::Failed(GenerateError::UpstreamLost { name, reason })
            }
        }
    }

    async fn pass_on(&mut self, events: &EventSender) -> Ending {
        let begun = Instant::now();
        loop {
            let said = tokio::select! {
                said = timeout_at(self.hold.until, self.answer.next()) => said,
                () = events.closed() => return Ending::Abandoned,
            };
            let seconds = begun.elapsed().as_secs();
            match said.unwrap_or(Err(AskError::Slow { seconds })) {
                Ok(Said::Text(text)) => {
                    self.told += &text;
                    let piece = Piece { text, ..Piece::default() };
                    if events.send(GenerateEvent::Piece(piece)).await.is_err() {
                        return Ending::Abandoned;
                    }
                }
                Ok(Said::End { finish, usage }) => return Ending::Complete(finish, usage),
                Err(error) => return Ending::Broken(error),
            }
        }
    }

    async fn settle(self, finish: Finish, usage: Option<Usage>) -> GenerateEvent {
        let (request, upstream) = (self.hold.id, self.upstream().name().to_owned());
        let (prompt_tokens, completion_tokens) = self.size.used(&self.told, usage);
        let cost = match self.hold.pay((prompt_tokens, completion_tokens)).await {
            Ok(cost) => cost,
            Err(error) => return GenerateEvent::Failed(error),
        };
        GenerateEvent::Done(Summary {
            request,
            finish: match finish {
                Finish::Stop => FinishReason::Stop,
                Finish::Length => FinishReason::Length,
                Finish::Filtered => FinishReason::Filtered,
            },
            prompt_tokens,
            completion_tokens,
            cost,
            flops: Flops::default(),
            route: Vec::new(),
            receipts: Vec::new(),
            upstream: Some(upstream),
            stop: None,
        })
    }
}
