//! One request for text from prompt to bill, as its head.
//!
//! A caller who leaves, or whose grammar leads nowhere, pays for what was computed until then.

use super::{
    Shared,
    models::KnownModel,
    session::{Bill, HeadSession, NoAnswer, SessionSize},
    upstream,
};
use crate::{
    api::{
        Fallback, FinishReason, GenerateError, GenerateEvent, GenerateRequest, Generation,
        LOGPROBS_MAX, Piece, Prompt, Summary,
    },
    core::{
        best,
        head::{Head, HeadError, Progress, Task},
    },
};
use std::{sync::Arc, time::Instant};
use talka_engine::{ChoiceRules, Chooser, GrammarState, Guesser, TextStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Pieces of text that wait for a slow caller; then the generation waits too.
pub(super) const EVENT_QUEUE: usize = 64;

/// Checks, prices and starts a request. An upstream answers if the request asks for it, and if there is
/// no way to have it answered here.
pub(crate) async fn start(
    shared: Arc<Shared>,
    request: GenerateRequest,
) -> Result<Generation, GenerateError> {
    let running = super::REQUESTS_MAX;
    let permit = Arc::clone(&shared.admitted)
        .try_acquire_owned()
        .map_err(|_| GenerateError::Overloaded { running })?;
    let permit = Arc::new(permit);
    if let Fallback::Only(_) = request.fallback {
        return upstream::start(shared, request, permit, None).await;
    }
    let spare = upstream::may_answer(&shared, &request).then(|| request.clone());
    match start_here(&shared, request, spare.clone(), &permit).await {
        Err(error @ (GenerateError::NoRoute { .. } | GenerateError::UnknownModel { .. })) => {
            match spare {
                Some(request) => upstream::start(shared, request, permit, Some(error)).await,
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
    permit: &Arc<OwnedSemaphorePermit>,
) -> Result<Generation, GenerateError> {
    let chosen = shared.choose(&request.model)?;
    let known = Arc::clone(&chosen.known);
    if !known.model.is_decoder() {
        return Err(GenerateError::Encoder { model: known.name.clone() });
    }
    request.sampling.validate()?;
    check_bias(&known, &request)?;
    let prompt = tokens(&known, &request.prompt)?;
    let size = Size::of(&known, &prompt, &request)?;
    let grammar = compile(&known, &request).await?;
    let rules = rules(&request);
    // A grammar may forbid any token.
    let best = match &grammar {
        None => best::needed(&rules, known.model.eos_ids()),
        Some(_) => None,
    };
    let session = HeadSession::open(shared, &chosen, size.session(), best).await?;

    let echo = request.echo.then(|| echo(&known, &request.prompt, &prompt));
    let guesser = match request.guesses {
        true => known.guesser(&shared.pages, size.session().positions_max),
        false => Guesser::None,
    };
    let chooser = Chooser::new(rules, &prompt, known.model.eos_ids(), grammar);
    let task = task(&known, request, prompt, size, chooser, guesser);
    let (events, receiver) = mpsc::channel(EVENT_QUEUE);
    let (request, model, prompt_tokens) = (session.id(), chosen.name(), size.prompt_tokens);
    let drafts = known.drafts();
    let run = Run {
        shared: Arc::clone(shared),
        session,
        events,
        prompt_tokens,
        drafts,
        spare,
        told: false,
        _permit: Arc::clone(permit),
    };
    tokio::spawn(run.run(Box::new(Head::new(task)), echo));
    Ok(Generation { request, model, prompt_tokens, upstream: None, events: receiver })
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
    let model = known.model.clone();
    let tokenizer = model.tokenizer().clone();
    let text = match request.prompt {
        Prompt::Chat(_) => TextStream::new(tokenizer, request.stop),
        _ => TextStream::continuing(tokenizer, &prompt, request.stop),
    };
    let logprobs = reported(request.logprobs);
    Task {
        model,
        prompt,
        chooser,
        guesser,
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

    /// What is reserved. The ledger grants logits for new tokens only, so a prompt that is scored counts as
    /// new but for its first token.
    fn session(&self) -> SessionSize {
        let (prompt_tokens, new_tokens) = if self.scores_prompt {
            (1, self.prompt_tokens - 1 + self.max_new_tokens.max(1))
        } else {
            (self.prompt_tokens, self.max_new_tokens)
        };
        let positions_max = self.prompt_tokens + self.max_new_tokens;
        SessionSize { prompt_tokens, new_tokens, positions_max }
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

pub(super) fn tokens(known: &KnownModel, prompt: &Prompt) -> Result<Vec<u32>, GenerateError> {
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
    events: mpsc::Sender<GenerateEvent>,
    prompt_tokens: u32,
    drafts: bool,
    /// For an upstream, as long as the caller got nothing.
    spare: Option<GenerateRequest>,
    told: bool,
    /// Given back when the request ends, however it does.
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Run {
    async fn run(mut self, head: Box<Head>, echo: Option<String>) {
        if let Some(text) = echo {
            self.told = true;
            // A caller who left is noticed by the first step.
            let _ =
                self.events.send(GenerateEvent::Piece(Piece { text, ..Piece::default() })).await;
        }
        let (head, ending) = self.generate(head).await;
        let last = match ending {
            Ending::Complete(reason) => self.settle(reason, head.generated()).await,
            Ending::Abandoned => self.settle(FinishReason::Stop, head.generated()).await,
            Ending::Astray(error) => {
                self.settle(FinishReason::Stop, head.generated()).await;
                GenerateEvent::Failed(error)
            }
            Ending::Broken(error) => {
                self.session.release().await;
                self.elsewhere(error).await
            }
        };
        let _ = self.events.send(last).await;
    }

    async fn generate(&mut self, mut head: Box<Head>) -> (Box<Head>, Ending) {
        for step in head.start() {
            self.session.send(step);
        }
        let mut sent_at = Instant::now();
        let ending = loop {
            let (step, logits) = match self.session.answer(self.events.closed()).await {
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
            let progress;
            (head, progress) = self.take_in(head, step, logits).await;
            let (piece, next) = match progress {
                Ok(Progress::Next { piece, step }) => (piece, Ok(step)),
                Ok(Progress::Finished { piece, reason }) => (piece, Err(reason)),
                Err(HeadError::Grammar(error)) => {
                    break Ending::Astray(GenerateError::Grammar { reason: error.reason });
                }
                Err(error) => break Ending::Broken(self.session.wrong(&error)),
            };
            // The stages compute while the caller reads.
            sent_at = Instant::now();
            let finished = next.map(|step| self.session.send(step)).err();
            self.told |= !piece.is_empty();
            if !piece.is_empty() && self.events.send(GenerateEvent::Piece(piece)).await.is_err() {
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
            begun = upstream::begin(&self.shared, &request, Some(error.clone())) => begun,
            () = self.events.closed() => return GenerateEvent::Failed(error),
        };
        match begun {
            Ok(forwarded) => forwarded.relay(&self.events).await,
            Err(error) => GenerateEvent::Failed(error),
        }
    }

    async fn settle(&mut self, finish: FinishReason, generated: u32) -> GenerateEvent {
        match self.session.settle().await {
            Ok(Bill { cost, flops }) => GenerateEvent::Done(Summary {
                request: self.session.id(),
                finish,
                prompt_tokens: self.prompt_tokens,
                completion_tokens: generated,
                cost,
                flops,
                route: self.session.route_report(),
                upstream: None,
            }),
            Err(error) => GenerateEvent::Failed(error),
        }
    }
}
