//! One request for text from prompt to bill, as its head.
//!
//! A caller who leaves, or whose grammar leads nowhere, pays for what was computed until then.

use super::{
    Admission, Patience, Shared,
    events::{EventSender, event_channel},
    keys::KeyGuest,
    models::KnownModel,
    orders::cancel,
    resume::Record,
    session::{Bill, HeadSession, NoAnswer, SessionSize},
    upstream,
};
use crate::{
    api::{
        Fallback, FinishReason, GenerateError, GenerateEvent, GenerateRequest, Generation,
        LOGPROBS_MAX, Piece, Prompt, Resume, Summary,
    },
    core::{
        best,
        head::{EndedBefore, Head, HeadError, Progress, Task},
        resume::{Begun, Chosen, question, usable},
    },
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use talka_engine::{
    ChoiceRules, Chooser, Grammar, GrammarState, Guesser, TextStream, Tool, ToolParser,
};
use tokio::time::sleep;
use tracing::Instrument;

/// Pieces of text that wait for a slow caller; then the generation waits too.
pub(super) const EVENT_QUEUE: usize = 64;

/// A caller that takes nothing of a full queue for so long reads no more, whatever its connection says: its session
/// is somebody else's.
const STALL_TIME_MAX: Duration = Duration::from_secs(120);

/// Checks, prices and starts a request. An upstream answers if the request asks for it, and if there is
/// no way to have it answered here.
pub(crate) async fn start(
    shared: Arc<Shared>,
    request: GenerateRequest,
    key: Option<KeyGuest>,
    patience: Patience,
) -> Result<Generation, GenerateError> {
    let admission = Arc::new(shared.places.admit(key, patience).await?);
    match (&request.fallback, request.resume) {
        (Fallback::Only(_), Some(Resume { request, .. })) => {
            let reason = "upstreams begin anew; send the request without the name of the answer";
            return Err(GenerateError::NotResumable { request, reason });
        }
        (Fallback::Only(_), None) => {
            return upstream::start(shared, request, admission, None).await;
        }
        _ => {}
    }
    let may_begin_anew = request.resume.is_none() && upstream::may_answer(&shared, &request);
    let spare = may_begin_anew.then(|| request.clone());
    match start_here(&shared, request, spare.clone(), &admission).await {
        Err(error @ (GenerateError::NoRoute { .. } | GenerateError::UnknownModel { .. })) => {
            match spare {
                Some(request) => upstream::start(shared, request, admission, Some(error)).await,
                None => Err(error),
            }
        }
        started => started,
    }
}

/// Starts a request in the network. `spare` is the request for an upstream, should all stages be lost
/// before anything was said.
async fn start_here(
    shared: &Arc<Shared>,
    request: GenerateRequest,
    spare: Option<GenerateRequest>,
    admission: &Arc<Admission>,
) -> Result<Generation, GenerateError> {
    let chosen = shared.choose(&request.model)?;
    let known = Arc::clone(&chosen.known);
    if !known.model.is_decoder() {
        return Err(GenerateError::Encoder { model: known.name.clone() });
    }
    request.sampling.validate()?;
    check_bias(&known, &request)?;
    let prompt = tokens(&known, &request.prompt, request.functions())?;
    let size = Size::of(&known, &prompt, &request)?;
    let grammar = compile(&known, &request).await?;
    let rules = rules(&request);
    // A grammar may forbid any token.
    let best = match &grammar {
        None => best::needed(&rules, known.model.eos_ids()),
        Some(_) => None,
    };
    let echo = request.echo.then(|| echo(&known, &request.prompt, &prompt));
    let guesser = match request.guesses {
        true => known.guesser(&shared.pages, size.positions_max()),
        false => Guesser::None,
    };
    let asked = question(known.id, chosen.adapter_id(), &prompt);
    let (resume, is_reported) = (request.resume, request.logprobs.is_some());
    let chooser = Chooser::new(rules, &prompt, known.model.eos_ids(), grammar);
    let mut head = Box::new(Head::new(task(&known, request, prompt, size, chooser, guesser)));
    let begun = match resume {
        Some(resume) => recall(shared, resume, asked, is_reported, &mut head).await?,
        None => Recalled::default(),
    };
    let to_hold = size.session(head.generated());
    let opening = HeadSession::open(shared, admission, &chosen, to_hold, best);
    let session = opening.instrument(tracing::info_span!("route", model = chosen.name())).await?;

    let opening = begun.opening(echo, resume);
    let name = resume.map_or(session.id(), |resume| resume.request);
    let begin = Begun { question: asked, session: session.id() };
    let record = Record::begin(shared, name, &begin, &begun.chosen);
    let (events, receiver) = event_channel(EVENT_QUEUE);
    let (model, prompt_tokens) = (chosen.name(), size.prompt_tokens);
    let drafts = known.drafts();
    let run = Run {
        shared: Arc::clone(shared),
        session,
        record,
        events,
        prompt_tokens,
        drafts,
        spare,
        told: false,
        admission: Arc::clone(admission),
    };
    // Every line that is logged of an answer names it.
    let span = tracing::error_span!("answer", request = %name, session = %run.session.id());
    tokio::spawn(run.run(head, opening).instrument(span));
    Ok(Generation { request: name, model, prompt_tokens, upstream: None, events: receiver })
}

/// What is known of an answer before its first step.
#[derive(Default)]
struct Recalled {
    chosen: Vec<Chosen>,
    /// What of it the caller lacks.
    missed: Piece,
}

impl Recalled {
    /// What to say first, after `echo`, which is the prompt.
    fn opening(&self, echo: Option<String>, resume: Option<Resume>) -> Piece {
        let mut opening = self.missed.clone();
        if resume.is_none_or(|resume| resume.seen == 0) {
            opening.text.insert_str(0, &echo.unwrap_or_default());
        }
        opening
    }
}

/// Has `head` go on with the answer to `resume`. The credits of a head that died before are given back.
async fn recall(
    shared: &Arc<Shared>,
    resume: Resume,
    asked: [u8; 32],
    is_reported: bool,
    head: &mut Head,
) -> Result<Recalled, GenerateError> {
    let (begun, kept) = shared.answers.take_over(resume, asked).await?;
    let chosen = usable(kept, resume.seen, is_reported);
    let missed = head.replay(&chosen).map_err(|EndedBefore| GenerateError::NotResumable {
        request: resume.request,
        reason: "what it said already is more than this request allows; send what was sent then",
    })?;
    if !shared.desk().read(|ledger| ledger.is_closed(&begun.session)) {
        cancel(shared, begun.session).await;
    }
    Ok(Recalled { chosen, missed })
}

/// How tokens are chosen.
fn rules(request: &GenerateRequest) -> ChoiceRules {
    ChoiceRules {
        sampling: request.sampling.clone(),
        min_tokens: request.min_tokens,
        ignore_end: request.ignore_end,
        logprobs: reported(request.logprobs),
    }
}

/// How many alternatives are reported.
fn reported(logprobs: Option<u8>) -> Option<u8> {
    logprobs.map(|top| top.min(LOGPROBS_MAX))
}

/// What a head does for `request`, once all is well with it.
fn task(
    known: &KnownModel,
    request: GenerateRequest,
    prompt: Vec<u32>,
    size: Size,
    chooser: Chooser,
    guesser: Guesser,
) -> Task {
    let seen = request.resume.map_or(0, |resume| resume.seen);
    let model = known.model.clone();
    let tokenizer = model.tokenizer().clone();
    let format = model.template().tool_format();
    let calls = request.tools.map(|wish| {
        ToolParser::new(format, wish.tools.into_iter().map(|tool| tool.name).collect())
    });
    // Marks of calls may be special tokens, which are no text otherwise.
    let marks = [format.opening(), format.closing()].into_iter().flatten();
    let marks = marks.filter(|_| calls.is_some()).filter_map(|mark| tokenizer.special_id(mark));
    let marks = marks.collect();
    let text = match request.prompt {
        Prompt::Chat(_) => TextStream::new(tokenizer, request.stop).showing(marks),
        _ => TextStream::continuing(tokenizer, &prompt, request.stop),
    };
    let logprobs = reported(request.logprobs);
    Task {
        model,
        prompt,
        chooser,
        guesser,
        text,
        calls,
        max_new_tokens: size.max_new_tokens,
        prompt_logprobs: logprobs.filter(|_| request.echo),
        seen,
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

    /// Positions of prompt and answer.
    fn positions_max(&self) -> u32 {
        self.prompt_tokens + self.max_new_tokens
    }

    /// What is reserved to go on after `generated` tokens of the answer. The ledger grants logits for new tokens
    /// only, so a prompt that is scored counts as new but for its first token.
    fn session(&self, generated: u32) -> SessionSize {
        let (prompt_tokens, new_tokens) = if generated > 0 {
            (self.prompt_tokens + generated, self.max_new_tokens - generated)
        } else if self.scores_prompt {
            (1, self.prompt_tokens - 1 + self.max_new_tokens.max(1))
        } else {
            (self.prompt_tokens, self.max_new_tokens)
        };
        SessionSize { prompt_tokens, new_tokens, positions_max: self.positions_max() }
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
    let Some(grammar) = form(known, request) else { return Ok(None) };
    let known = Arc::clone(known);
    let compiled = tokio::task::spawn_blocking(move || known.compile(&grammar)).await;
    let compiled = compiled.expect("compiling does not panic");
    compiled.map(Some).map_err(|error| GenerateError::Grammar { reason: error.reason })
}

/// What the answer must look like, in the format in which the model writes calls.
fn form(known: &KnownModel, request: &GenerateRequest) -> Option<Grammar> {
    let Some(wish) = &request.tools else { return request.grammar.clone() };
    let (template, tokenizer) = (known.model.template(), known.model.tokenizer());
    let special = |mark: &str| tokenizer.special_id(mark);
    template.tool_format().form(wish, request.grammar.as_ref(), special)
}

/// The prompt as the caller wrote it.
fn echo(known: &KnownModel, prompt: &Prompt, tokens: &[u32]) -> String {
    match prompt {
        Prompt::Text(text) => text.clone(),
        // A decoder that fails on its own model's tokens has no text for them.
        _ => known.model.tokenizer().decode(tokens).unwrap_or_default(),
    }
}

/// The tokens of `prompt`, whose answer may call `tools`.
pub(super) fn tokens(
    known: &KnownModel,
    prompt: &Prompt,
    tools: &[Tool],
) -> Result<Vec<u32>, GenerateError> {
    let template = |reason: String| GenerateError::Template { reason };
    let tokenizer = known.model.tokenizer();
    let tokens = match prompt {
        Prompt::Tokens(tokens) => tokens.clone(),
        Prompt::Text(text) => tokenizer.encode(text, true).map_err(|e| template(e.to_string()))?,
        Prompt::Chat(messages) => {
            let rendered = known.model.template().render(messages, tools, true);
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
    session: HeadSession,
    record: Record,
    events: EventSender,
    prompt_tokens: u32,
    drafts: bool,
    /// For an upstream, as long as the caller got nothing.
    spare: Option<GenerateRequest>,
    told: bool,
    /// Given back when the request ends, however it does.
    admission: Arc<Admission>,
}

impl Run {
    async fn run(mut self, head: Box<Head>, opening: Piece) {
        // A caller who left is noticed by the first step.
        self.tell(opening).await;
        let (head, ending) = self.generate(head).await;
        let last = match ending {
            Ending::Complete(reason) => {
                let stop = head.stopped_by().map(str::to_owned);
                self.settle(reason, stop, head.generated()).await
            }
            Ending::Abandoned => {
                self.settle(FinishReason::Stop, None, head.generated()).await;
                // If it was taken over, somebody may still listen, and shall not take a part for the whole.
                GenerateEvent::Failed(GenerateError::TakenOver)
            }
            Ending::Astray(error) => {
                self.settle(FinishReason::Stop, None, head.generated()).await;
                GenerateEvent::Failed(error)
            }
            Ending::Broken(error) => {
                self.session.release().await;
                self.elsewhere(error).await
            }
        };
        // Whoever hears the end may ask again at once, so that its place must be free by then.
        let events = self.events.clone();
        drop(self);
        let _ = events.send(last).await;
    }

    /// Hands on `piece`, unless it says nothing; whether somebody still listens.
    async fn tell(&mut self, piece: Piece) -> bool {
        if piece.is_empty() {
            return true;
        }
        self.told = true;
        tokio::select! {
            // Who reads as fast as it comes costs no timer.
            biased;
            sent = self.events.send(GenerateEvent::Piece(piece)) => sent.is_ok(),
            () = self.record.taken_over() => false,
            () = sleep(STALL_TIME_MAX) => false,
        }
    }

    async fn generate(&mut self, mut head: Box<Head>) -> (Box<Head>, Ending) {
        for step in head.start() {
            self.session.send(step);
        }
        let mut sent_at = Instant::now();
        let ending = loop {
            let (events, record) = (&self.events, &self.record);
            let abandoned = async {
                tokio::select! {
                    () = events.closed() => {}
                    () = record.taken_over() => {}
                }
            };
            let (step, logits) = match self.session.answer(abandoned).await {
                Ok(answer) => answer,
                Err(NoAnswer::Abandoned) => break Ending::Abandoned,
                Err(NoAnswer::Broken(error)) => {
                    let (held, steps) = head.unanswered();
                    match self.session.mend(error, held, steps).await {
                        Ok(()) => continue,
                        Err(error) => break Ending::Broken(error),
                    }
                }
            };
            head.took(sent_at.elapsed().as_secs_f64());
            let before = head.generated();
            let progress;
            (head, progress) = self.take_in(head, step, logits).await;
            self.shared.meter.chose(head.generated().saturating_sub(before));
            let (piece, next) = match progress {
                Ok(Progress::Next { piece, step }) => {
                    if head.generated() > before {
                        self.record.keep(&head.chosen_after(before));
                    }
                    (piece, Ok(step))
                }
                Ok(Progress::Finished { piece, reason }) => (piece, Err(reason)),
                Err(HeadError::Grammar(error)) => {
                    break Ending::Astray(GenerateError::Grammar { reason: error.reason });
                }
                Err(error) => break Ending::Broken(self.session.wrong(&error)),
            };
            // The stages compute while the caller reads.
            sent_at = Instant::now();
            let finished = next.map(|step| self.session.send(step)).err();
            if !self.tell(piece).await {
                break Ending::Abandoned;
            }
            if let Some(reason) = finished {
                break Ending::Complete(reason);
            }
        };
        (head, ending)
    }

    /// What comes of an answer. A draft model takes its time over the next step: not on the thread that
    /// serves everybody.
    async fn take_in(
        &self,
        mut head: Box<Head>,
        step: u64,
        mut logits: Vec<f32>,
    ) -> (Box<Head>, Result<Progress, HeadError>) {
        let think = move || {
            let progress = head.logits(step, &mut logits);
            (head, progress)
        };
        if !self.drafts {
            return think();
        }
        tokio::task::spawn_blocking(think).await.expect("choosing tokens does not panic")
    }

    /// What comes of a request whose stages are lost for good: an upstream may begin anew if the caller got
    /// nothing yet. It could not go on in the middle: nobody else chooses the same tokens.
    async fn elsewhere(&mut self, error: GenerateError) -> GenerateEvent {
        let Some(request) = self.spare.take().filter(|_| !self.told) else {
            return GenerateEvent::Failed(error);
        };
        let begun = tokio::select! {
            begun = upstream::begin(&self.shared, &self.admission, &request, Some(error.clone())) => begun,
            () = self.events.closed() => return GenerateEvent::Failed(error),
        };
        match begun {
            Ok(forwarded) => forwarded.relay(&self.events).await,
            Err(error) => GenerateEvent::Failed(error),
        }
    }

    async fn settle(
        &mut self,
        finish: FinishReason,
        stop: Option<String>,
        generated: u32,
    ) -> GenerateEvent {
        match self.session.settle().await {
            Ok(Bill { cost, flops, receipts }) => GenerateEvent::Done(Summary {
                request: self.session.id(),
                finish,
                prompt_tokens: self.prompt_tokens,
                completion_tokens: generated,
                cost,
                flops,
                route: self.session.route_report(),
                receipts,
                upstream: None,
                stop,
            }),
            Err(error) => GenerateEvent::Failed(error),
        }
    }
}
