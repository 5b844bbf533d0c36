//! A whole generation in one process: prompt in, tokens out, over one or more stages.
//!
//! What the node does over a network, without one: the reference for its results, and what the
//! tests and benchmarks run. Decides when a generation ends; text is [`crate::TextStream`]'s.

use crate::{
    choose::{Choice, ChoiceEnd, Chooser},
    error::StageError,
    grammar::GrammarError,
    kv::{CacheOptions, KvCache, PagePool},
    lora::Adapter,
    sample::{Guess, Sampler},
    speculate::Guesser,
    stage::{LogitsWanted, Stage, StageInput, StageOutput},
};
use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
};

/// Stages that cover a model, with the cache of one sequence. Several pipelines may share the stages and
/// run one after the other.
#[derive(Debug)]
pub struct Pipeline {
    stages: Vec<(Arc<Mutex<Stage>>, KvCache)>,
}

/// Why a generation failed. What was generated before stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in the messages")]
pub enum GenerateError {
    /// The stages are not the whole model in order.
    #[error(
        "stage {index} covers layers {found}, expected a stage that starts at layer {expected}"
    )]
    Gap { index: usize, found: talka_base::LayerSpan, expected: u32 },
    /// The last stage ends before the model does, or there is none.
    #[error("the stages end at layer {end}, before the model does; expected all its layers")]
    Incomplete { end: u32 },
    /// The prompt does not leave room for one more token.
    #[error("the prompt has {prompt} tokens, the context is {context} and must hold one more")]
    PromptTooLong { prompt: usize, context: u32 },
    /// Not a model that continues text.
    #[error("the model is an encoder: it makes vectors of texts and has no next token to tell")]
    Encoder,
    /// A stage refused.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The grammar cannot be followed any further.
    #[error(transparent)]
    Grammar(#[from] GrammarError),
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it with one of its ids of end, or its grammar allows no more.
    End,
    /// The caller stopped it (a stop string, say).
    Stopped,
    /// It reached the number of tokens asked for, or the end of the context.
    Length,
}

impl Pipeline {
    /// # Errors
    /// [`GenerateError::Gap`] or [`GenerateError::Incomplete`] unless `stages` are a whole model in
    /// order.
    pub fn new(stages: Vec<Stage>, positions_max: u32) -> Result<Self, GenerateError> {
        let mut expected = 0;
        for (index, stage) in stages.iter().enumerate() {
            let found = stage.span();
            if found.start() != expected {
                return Err(GenerateError::Gap { index, found, expected });
            }
            expected = found.end();
        }
        if !stages.last().is_some_and(Stage::ends_model) {
            return Err(GenerateError::Incomplete { end: expected });
        }
        let with_cache = |stage: Stage| {
            let cache = stage.new_cache(stage.span(), positions_max);
            (Arc::new(Mutex::new(stage)), cache)
        };
        Ok(Self { stages: stages.into_iter().map(with_cache).collect() })
    }

    /// A pipeline over the same stages, for another sequence, whose cache counts in `pool`.
    ///
    /// # Errors
    /// [`StageError`] if the pool has no room for it.
    pub fn another(&self, pool: &PagePool, positions_max: u32) -> Result<Self, StageError> {
        let options = CacheOptions { positions_max, element: None, share_prefixes: None };
        let with_cache = |(stage, _): &(Arc<Mutex<Stage>>, KvCache)| {
            let held = lock(stage);
            let cache = held.new_cache_in(pool, held.span(), &options)?;
            Ok((Arc::clone(stage), cache))
        };
        Ok(Self { stages: self.stages.iter().map(with_cache).collect::<Result<_, _>>()? })
    }

    /// How many positions the sequence may have.
    pub fn positions_max(&self) -> u32 {
        self.stages.iter().map(|(_, cache)| cache.positions_max()).min().unwrap_or(0)
    }

    /// How many positions it has.
    pub fn len(&self) -> u32 {
        self.stages.first().map_or(0, |(_, cache)| cache.len())
    }

    /// Whether it has none yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all positions from `len` on.
    pub fn truncate(&mut self, len: u32) {
        self.stages.iter_mut().for_each(|(_, cache)| cache.truncate(len));
    }

    /// Forgets all positions and runs the next sequence with `adapter`.
    pub fn set_adapter(&mut self, adapter: Option<Adapter>) {
        for (_, cache) in &mut self.stages {
            cache.truncate(0);
            cache.set_adapter(adapter.clone()).expect("the cache was emptied");
        }
    }

    /// Runs `tokens` `[T]` through all stages after the positions already there.
    ///
    /// # Errors
    /// [`StageError`]; no cache is changed.
    pub fn run(&mut self, tokens: &[u32], logits: LogitsWanted) -> Result<StageOutput, StageError> {
        let before = self.len();
        let output = self.run_stages(tokens, logits);
        if output.is_err() {
            // Stages before the one that refused have moved on.
            self.truncate(before);
        }
        output
    }

    fn run_stages(
        &mut self,
        tokens: &[u32],
        logits: LogitsWanted,
    ) -> Result<StageOutput, StageError> {
        let mut hidden = None::<Vec<f32>>;
        for (stage, cache) in &mut self.stages {
            let input = match &hidden {
                None => StageInput::Tokens(tokens),
                Some(hidden) => StageInput::Hidden(hidden),
            };
            match lock(stage).run(input, cache, logits)? {
                StageOutput::Hidden(output) => hidden = Some(output),
                logits @ StageOutput::Logits(_) => return Ok(logits),
            }
        }
        Ok(StageOutput::Hidden(hidden.unwrap_or_default()))
    }
}

/// A stage's buffers hold nothing between runs, so one that panicked does no harm to the next.
fn lock(stage: &Mutex<Stage>) -> std::sync::MutexGuard<'_, Stage> {
    stage.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers `prompt` with at most `tokens_max` tokens, each given to `on_token` as it is drawn; ids of
/// end (`eos_ids`) are not. Prompt and answer together never exceed the context. Appends to what
/// `pipeline` already holds.
///
/// # Errors
/// [`GenerateError`]; a prompt that is too long is refused before any work.
pub fn generate(
    pipeline: &mut Pipeline,
    prompt: &[u32],
    sampler: &mut Sampler,
    eos_ids: &[u32],
    tokens_max: u32,
    mut on_token: impl FnMut(u32) -> ControlFlow<()>,
) -> Result<Finish, GenerateError> {
    let room = room_after(pipeline, prompt)?;
    let mut input = prompt.to_vec();
    for _ in 0..room.min(tokens_max as usize) {
        let StageOutput::Logits(mut logits) = pipeline.run(&input, LogitsWanted::Last)? else {
            return Err(GenerateError::Encoder);
        };
        let token = sampler.sample(&mut logits);
        if eos_ids.contains(&token) {
            return Ok(Finish::End);
        }
        if on_token(token).is_break() {
            return Ok(Finish::Stopped);
        }
        input = vec![token];
    }
    Ok(Finish::Length)
}

/// As [`generate`], by the rules of `chooser` and with tokens guessed ahead by `guesser`: fewer passes
/// through the layers, and the same answer ([`crate::speculate`]).
///
/// # Errors
/// [`GenerateError`]; a prompt that is too long is refused before any work.
pub fn generate_guessing(
    pipeline: &mut Pipeline,
    prompt: &[u32],
    chooser: &mut Chooser,
    guesser: &mut Guesser,
    tokens_max: u32,
    mut on_choice: impl FnMut(&Choice) -> ControlFlow<()>,
) -> Result<Finish, GenerateError> {
    let mut left = room_after(pipeline, prompt)?.min(tokens_max as usize);
    let mut said = prompt.to_vec();
    let mut input = prompt.to_vec();
    let mut guesses: Vec<Guess> = Vec::new();
    while left > 0 {
        let wanted = if guesses.is_empty() { LogitsWanted::Last } else { LogitsWanted::All };
        let StageOutput::Logits(mut logits) = pipeline.run(&input, wanted)? else {
            return Err(GenerateError::Encoder);
        };
        let choices = chooser.choose_run(&mut logits, &guesses)?;
        for choice in &choices {
            if choice.end == Some(ChoiceEnd::Token) {
                return Ok(Finish::End);
            }
            let stopped = on_choice(choice).is_break();
            if choice.end.is_some() || stopped {
                return Ok(if stopped { Finish::Stopped } else { Finish::End });
            }
            said.push(choice.token);
            left -= 1;
        }
        guesser.record(guesses.len(), choices.len() - 1);
        // Of the guesses, those before the last choice were right.
        pipeline.truncate(pipeline.len() - (guesses.len() + 1 - choices.len()) as u32);
        guesses = guesser.guess(&said, chooser, left.saturating_sub(1))?;
        input = said[said.len() - 1..].to_vec();
        input.extend(guesses.iter().map(|guess| guess.token));
    }
    Ok(Finish::Length)
}

/// How many tokens of an answer to `prompt` have room, at least one.
fn room_after(pipeline: &Pipeline, prompt: &[u32]) -> Result<usize, GenerateError> {
    let context = pipeline.positions_max();
    let room = (context as usize).saturating_sub(pipeline.len() as usize + prompt.len());
    if room == 0 {
        return Err(GenerateError::PromptTooLong { prompt: prompt.len(), context });
    }
    Ok(room)
}
