//! Answers in OpenAI's shapes, whole or as server-sent events.
//!
//! A stream is `data: CHUNK` events and then `data: [DONE]`; one that breaks off ends with
//! `data: {"error": …}` and without `[DONE]`, so that no client mistakes a part for the whole. An
//! answer may have several choices, each a [`Generation`] of its own; they live exactly as long as the
//! response: a caller who goes away cancels them, and if one breaks off so do the others.

use super::{
    logprobs,
    request::{StreamOptions, Surface},
};
use crate::{
    answering::{Own, Provenance, Told, events_response, listen},
    error::ApiError,
};
use axum::response::{Response, sse::Event};
use futures_util::{Stream, StreamExt, future::try_join_all, stream};
use serde::Serialize;
use serde_json::Value;
use talka_node::api::{
    CallPart, FinishReason, GenerateEvent, Generation, Piece, Summary, TokenReport,
};

/// What all parts of one answer share.
#[derive(Debug, Clone)]
pub struct Voice {
    surface: Surface,
    id: String,
    created: u64,
    model: String,
    /// Choices that share a prompt, which is counted once.
    per_prompt: usize,
}

/// A whole answer or one chunk of it.
#[derive(Serialize)]
pub struct Answer<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<Choice<'a>>,
    /// Absent, `null` (in all but the last chunk of a stream that includes it) or the usage.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    talka: Option<Own>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    #[serde(flatten)]
    content: Content<'a>,
    /// `null` unless asked for: OpenAI's clients expect the field.
    logprobs: Option<Value>,
    finish_reason: Option<FinishReason>,
}

/// What a choice says, in the shape of its surface.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Content<'a> {
    Message(Message<'a>),
    Delta(Delta<'a>),
    Text(&'a str),
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    /// `null` in an answer that only calls.
    content: Option<&'a str>,
    refusal: Option<()>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call<'a>>,
}

#[derive(Serialize, Default)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call<'a>>,
}

/// A call of a function, or in a stream a part of one: only the first has an id, a type and a name.
#[derive(Serialize)]
struct Call<'a> {
    /// Only in streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
}

impl Voice {
    /// The voice of choices the first of which is `generation`, `per_prompt` to each prompt, begun
    /// `created` seconds after 1970.
    pub fn new(surface: Surface, generation: &Generation, per_prompt: usize, created: u64) -> Self {
        let prefix = match surface {
            Surface::Chat => "chatcmpl",
            Surface::Text => "cmpl",
        };
        let id = format!("{prefix}-{}", generation.request);
        Self { surface, id, created, model: generation.model.clone(), per_prompt }
    }

    /// Tokens of all choices.
    fn usage(&self, summaries: &[Summary]) -> Usage {
        let prompts = summaries.iter().step_by(self.per_prompt.max(1));
        let sum = |tokens: u32, more: u32| tokens.saturating_add(more);
        let prompt_tokens = prompts.map(|summary| summary.prompt_tokens).fold(0, sum);
        let completion_tokens = summaries.iter().map(|s| s.completion_tokens).fold(0, sum);
        let total_tokens = prompt_tokens.saturating_add(completion_tokens);
        Usage { prompt_tokens, completion_tokens, total_tokens }
    }

    /// Log-probabilities in the shape of the surface; `offset` counts the characters of the choice.
    fn logprobs(&self, tokens: &[TokenReport], offset: &mut usize) -> Option<Value> {
        if tokens.is_empty() {
            return None;
        }
        Some(match self.surface {
            Surface::Chat => logprobs::chat(tokens),
            Surface::Text => logprobs::text(tokens, offset),
        })
    }

    fn answer<'a>(&'a self, object: &'static str, choices: Vec<Choice<'a>>) -> Answer<'a> {
        let Self { id, created, model, .. } = self;
        Answer { id, object, created: *created, model, choices, usage: None, talka: None }
    }

    /// A part of a call in choice `index`. Ids are the answer's, so that they stay when it is gone on with.
    fn call<'a>(&self, index: u32, part: &'a CallPart) -> Call<'a> {
        let request = self.id.rsplit('-').next().unwrap_or_default();
        let begins = part.name.is_some();
        Call {
            index: Some(part.index),
            id: begins.then(|| format!("call_{request}_{index}_{}", part.index)),
            kind: begins.then_some("function"),
            function: Function { name: part.name.as_deref(), arguments: &part.arguments },
        }
    }

    fn message<'a>(&self, index: u32, told: &'a Told) -> Message<'a> {
        let whole = |part| Call { index: None, ..self.call(index, part) };
        let tool_calls: Vec<Call<'_>> = told.piece.calls.iter().map(whole).collect();
        let is_said = tool_calls.is_empty() || !told.piece.text.is_empty();
        let content = is_said.then_some(told.piece.text.as_str());
        Message { role: "assistant", content, refusal: None, tool_calls }
    }

    fn complete<'a>(&'a self, told: &'a [Told]) -> Answer<'a> {
        let object = match self.surface {
            Surface::Chat => "chat.completion",
            Surface::Text => "text_completion",
        };
        let choices = told.iter().zip(0..).map(|(told, index)| {
            let content = match self.surface {
                Surface::Chat => Content::Message(self.message(index, told)),
                Surface::Text => Content::Text(&told.piece.text),
            };
            let logprobs = self.logprobs(&told.piece.tokens, &mut 0);
            Choice { index, content, logprobs, finish_reason: Some(told.summary.finish) }
        });
        let mut answer = self.answer(object, choices.collect());
        let summaries: Vec<_> = told.iter().map(|told| told.summary.clone()).collect();
        answer.usage = Some(Some(self.usage(&summaries)));
        answer.talka = Some(Own::End(Provenance::of(&summaries)));
        answer
    }

    fn chunk<'a>(&'a self, choices: Vec<Choice<'a>>) -> Answer<'a> {
        let object = match self.surface {
            Surface::Chat => "chat.completion.chunk",
            Surface::Text => "text_completion",
        };
        self.answer(object, choices)
    }

    fn piece_chunk<'a>(&'a self, index: u32, piece: &'a Piece, offset: &mut usize) -> Answer<'a> {
        let text = piece.text.as_str();
        let content = match self.surface {
            Surface::Chat => {
                let tool_calls: Vec<_> =
                    piece.calls.iter().map(|part| self.call(index, part)).collect();
                let is_said = tool_calls.is_empty() || !text.is_empty();
                Content::Delta(Delta { role: None, content: is_said.then_some(text), tool_calls })
            }
            Surface::Text => Content::Text(text),
        };
        let logprobs = self.logprobs(&piece.tokens, offset);
        self.chunk(vec![Choice { index, content, logprobs, finish_reason: None }])
    }

    fn finish_chunk(&self, index: u32, finish: FinishReason) -> Answer<'_> {
        let content = match self.surface {
            Surface::Chat => Content::Delta(Delta::default()),
            Surface::Text => Content::Text(""),
        };
        let finish_reason = Some(finish);
        self.chunk(vec![Choice { index, content, logprobs: None, finish_reason }])
    }

    /// What precedes all text of a choice: a chat names its speaker first.
    fn opening(&self, index: u32, options: StreamOptions) -> Option<String> {
        let Surface::Chat = self.surface else { return None };
        let content = Content::Delta(Delta {
            role: Some("assistant"),
            content: Some(""),
            tool_calls: Vec::new(),
        });
        let chunk =
            self.chunk(vec![Choice { index, content, logprobs: None, finish_reason: None }]);
        Some(data(chunk.with_usage_pending(options)))
    }

    /// What follows the last choice's end.
    fn ending(&self, summaries: &[Summary], options: StreamOptions) -> Vec<String> {
        let mut chunks = Vec::new();
        if options.include_usage {
            let mut usage = self.chunk(Vec::new());
            usage.usage = Some(Some(self.usage(summaries)));
            usage.talka = Some(Own::End(Provenance::of(summaries)));
            chunks.push(data(usage));
        }
        chunks.push("[DONE]".into());
        chunks
    }
}

/// A stream of several choices, as far as it went.
struct Telling {
    voice: Voice,
    options: StreamOptions,
    /// Characters of each choice's tokens so far.
    offsets: Vec<usize>,
    /// Of the choices that ended.
    summaries: Vec<Option<Summary>>,
}

impl Telling {
    /// The data of the events that say `event` of choice `index`; whether they are the last.
    fn say(&mut self, index: u32, event: Option<GenerateEvent>) -> (Vec<String>, bool) {
        let Self { voice, options, offsets, summaries } = self;
        let at = index as usize;
        match event {
            Some(GenerateEvent::Piece(piece)) => {
                let mut chunk = voice.piece_chunk(index, &piece, &mut offsets[at]);
                if summaries.len() == 1 {
                    chunk.talka = Own::part(&piece);
                }
                (vec![data(chunk.with_usage_pending(*options))], false)
            }
            Some(GenerateEvent::Done(summary)) => {
                let chunk = voice.finish_chunk(index, summary.finish);
                let mut chunk = chunk.with_usage_pending(*options);
                if !options.include_usage {
                    let provenance = Provenance::of(std::slice::from_ref(&summary));
                    chunk.talka = Some(Own::End(provenance));
                }
                let mut said = vec![data(chunk)];
                summaries[at] = Some(summary);
                let all: Option<Vec<Summary>> = summaries.iter().cloned().collect();
                said.extend(all.iter().flat_map(|all| voice.ending(all, *options)));
                (said, all.is_some())
            }
            Some(GenerateEvent::Failed(error)) => (vec![broken_off(error.into())], true),
            None => (vec![broken_off(ApiError::Interrupted)], true),
        }
    }
}

impl Answer<'_> {
    fn with_usage_pending(mut self, options: StreamOptions) -> Self {
        self.usage = options.include_usage.then_some(None);
        self
    }
}

fn data(answer: Answer<'_>) -> String {
    serde_json::to_string(&answer).expect("answers are plain data")
}

fn broken_off(error: ApiError) -> String {
    tracing::warn!(%error, "an answer broke off");
    serde_json::to_string(&error.document()).expect("errors are plain data")
}

/// Waits for all choices; with the upstream that made one of them, if any did.
///
/// # Errors
/// Whatever made the node give up one of them.
pub async fn whole(
    voice: &Voice,
    generations: Vec<Generation>,
) -> Result<(Value, Option<String>), ApiError> {
    let told = try_join_all(generations.into_iter().map(listen)).await?;
    let answer = serde_json::to_value(voice.complete(&told)).expect("answers are plain data");
    Ok((answer, told.into_iter().find_map(|told| told.summary.upstream)))
}

/// The answer as server-sent events, each sent as soon as the node has it.
pub fn stream(voice: Voice, generations: Vec<Generation>, options: StreamOptions) -> Response {
    let events = chunks(voice, generations, options).map(|data| Event::default().data(data));
    events_response(events, None)
}

/// The data of all events, in order. Dropping the stream drops the generations.
fn chunks(
    voice: Voice,
    generations: Vec<Generation>,
    options: StreamOptions,
) -> impl Stream<Item = String> + Send {
    let count = generations.len();
    let opening: Vec<_> =
        (0..count as u32).filter_map(|index| voice.opening(index, options)).collect();
    let (offsets, summaries) = (vec![0; count], vec![None; count]);
    let telling = Telling { voice, options, offsets, summaries };
    let events = generations.into_iter().zip(0..).map(|(generation, index)| {
        Box::pin(stream::unfold(Some(generation), move |live| async move {
            let mut generation = live?;
            let event = generation.events.recv().await;
            let goes_on = matches!(event, Some(GenerateEvent::Piece(_)));
            Some(((index, event), goes_on.then_some(generation)))
        }))
    });
    let events = stream::select_all(events);
    let said = stream::unfold(Some((telling, events)), |live| async move {
        let (mut telling, mut events) = live?;
        let (index, event) = events.next().await?;
        let (said, last) = telling.say(index, event);
        Some((said, (!last).then_some((telling, events))))
    });
    stream::iter([opening]).chain(said).flat_map(stream::iter)
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
