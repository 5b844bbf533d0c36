//! Answers in OpenAI's shapes, whole or as server-sent events.
//!
//! A stream is `data: CHUNK` events and then `data: [DONE]`; one that breaks off ends with
//! `data: {"error": …}` and without `[DONE]`, so that no client mistakes a part for the whole. The
//! [`Generation`] lives exactly as long as the response: a caller who goes away cancels it.

use super::request::{StreamOptions, Surface};
use crate::error::ApiError;
use axum::{
    http::{HeaderName, HeaderValue},
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use std::{convert::Infallible, time::Duration};
use talka_node::api::{FinishReason, GenerateEvent, Generation, StageReport, Summary};

/// A comment is sent when nothing else was for this long: a long prompt may take minutes before its
/// first token, and proxies commonly close a connection after 30 s of silence.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What all parts of one answer share.
#[derive(Debug, Clone)]
pub struct Voice {
    surface: Surface,
    id: String,
    created: u64,
    model: String,
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
    talka: Option<Provenance>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    #[serde(flatten)]
    content: Content<'a>,
    /// Always `null`: OpenAI's clients expect the field.
    logprobs: Option<()>,
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
    content: &'a str,
    refusal: Option<()>,
}

#[derive(Serialize, Default)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
}

/// What the answer cost and who computed it: Talka's own field.
#[derive(Serialize)]
struct Provenance {
    request: String,
    cost_micro_gft: u64,
    flops: u64,
    route: Vec<StageReport>,
}

impl From<&Summary> for Usage {
    fn from(summary: &Summary) -> Self {
        Self {
            prompt_tokens: summary.prompt_tokens,
            completion_tokens: summary.completion_tokens,
            total_tokens: summary.prompt_tokens.saturating_add(summary.completion_tokens),
        }
    }
}

impl From<&Summary> for Provenance {
    fn from(summary: &Summary) -> Self {
        Self {
            request: summary.request.to_string(),
            cost_micro_gft: summary.cost.0,
            flops: summary.flops.0,
            route: summary.route.clone(),
        }
    }
}

impl Voice {
    /// The voice of `generation`, begun `created` seconds after 1970.
    pub fn new(surface: Surface, generation: &Generation, created: u64) -> Self {
        let prefix = match surface {
            Surface::Chat => "chatcmpl",
            Surface::Text => "cmpl",
        };
        let id = format!("{prefix}-{}", generation.request);
        Self { surface, id, created, model: generation.model.clone() }
    }

    fn answer<'a>(&'a self, object: &'static str, choices: Vec<Choice<'a>>) -> Answer<'a> {
        let Self { id, created, model, .. } = self;
        Answer { id, object, created: *created, model, choices, usage: None, talka: None }
    }

    fn complete<'a>(&'a self, text: &'a str, summary: &Summary) -> Answer<'a> {
        let (object, content) = match self.surface {
            Surface::Chat => {
                let message = Message { role: "assistant", content: text, refusal: None };
                ("chat.completion", Content::Message(message))
            }
            Surface::Text => ("text_completion", Content::Text(text)),
        };
        let choice = Choice::new(content, Some(summary.finish));
        let mut answer = self.answer(object, vec![choice]);
        answer.usage = Some(Some(summary.into()));
        answer.talka = Some(summary.into());
        answer
    }

    fn chunk<'a>(&'a self, choices: Vec<Choice<'a>>) -> Answer<'a> {
        let object = match self.surface {
            Surface::Chat => "chat.completion.chunk",
            Surface::Text => "text_completion",
        };
        self.answer(object, choices)
    }

    fn text_chunk<'a>(&'a self, text: &'a str) -> Answer<'a> {
        let content = match self.surface {
            Surface::Chat => Content::Delta(Delta { role: None, content: Some(text) }),
            Surface::Text => Content::Text(text),
        };
        self.chunk(vec![Choice::new(content, None)])
    }

    fn finish_chunk(&self, finish: FinishReason) -> Answer<'_> {
        let content = match self.surface {
            Surface::Chat => Content::Delta(Delta::default()),
            Surface::Text => Content::Text(""),
        };
        self.chunk(vec![Choice::new(content, Some(finish))])
    }

    /// What precedes all text of a stream: a chat names its speaker first.
    fn opening(&self, options: StreamOptions) -> Vec<String> {
        match self.surface {
            Surface::Chat => {
                let delta = Delta { role: Some("assistant"), content: Some("") };
                let chunk = self.chunk(vec![Choice::new(Content::Delta(delta), None)]);
                vec![data(chunk.with_usage_pending(options))]
            }
            Surface::Text => Vec::new(),
        }
    }

    /// The data of the events that say `event`.
    fn say(&self, event: GenerateEvent, options: StreamOptions) -> Vec<String> {
        match event {
            GenerateEvent::Text(text) => {
                vec![data(self.text_chunk(&text).with_usage_pending(options))]
            }
            GenerateEvent::Done(summary) => self.ending(&summary, options),
            GenerateEvent::Failed(error) => vec![broken_off(error.into())],
        }
    }

    fn ending(&self, summary: &Summary, options: StreamOptions) -> Vec<String> {
        let mut finish = self.finish_chunk(summary.finish).with_usage_pending(options);
        let mut chunks = if options.include_usage {
            let mut usage = self.chunk(Vec::new());
            usage.usage = Some(Some(summary.into()));
            usage.talka = Some(summary.into());
            vec![data(finish), data(usage)]
        } else {
            finish.talka = Some(summary.into());
            vec![data(finish)]
        };
        chunks.push("[DONE]".into());
        chunks
    }
}

impl<'a> Choice<'a> {
    fn new(content: Content<'a>, finish_reason: Option<FinishReason>) -> Self {
        Self { index: 0, content, logprobs: None, finish_reason }
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

/// Waits for the whole answer.
///
/// # Errors
/// Whatever made the node give up.
pub async fn whole(
    voice: &Voice,
    mut generation: Generation,
) -> Result<serde_json::Value, ApiError> {
    let mut text = String::new();
    loop {
        match generation.events.recv().await {
            Some(GenerateEvent::Text(more)) => text.push_str(&more),
            Some(GenerateEvent::Done(summary)) => {
                let answer = voice.complete(&text, &summary);
                return Ok(serde_json::to_value(answer).expect("answers are plain data"));
            }
            Some(GenerateEvent::Failed(error)) => return Err(error.into()),
            None => return Err(ApiError::Interrupted),
        }
    }
}

/// The answer as server-sent events, each sent as soon as the node has it.
pub fn stream(voice: Voice, generation: Generation, options: StreamOptions) -> impl IntoResponse {
    let events = chunks(voice, generation, options)
        .map(|data| Ok::<_, Infallible>(Event::default().data(data)));
    // Proxies of the nginx kind collect an answer before passing it on unless told otherwise.
    let unbuffered = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    ([unbuffered], Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// The data of all events, in order. Dropping the stream drops the generation.
fn chunks(
    voice: Voice,
    generation: Generation,
    options: StreamOptions,
) -> impl Stream<Item = String> + Send {
    let opening = voice.opening(options);
    let said = stream::unfold(Some((voice, generation)), move |live| async move {
        let (voice, mut generation) = live?;
        let event = generation.events.recv().await;
        let last = !matches!(event, Some(GenerateEvent::Text(_)));
        let said = match event {
            Some(event) => voice.say(event, options),
            None => vec![broken_off(ApiError::Interrupted)],
        };
        Some((said, (!last).then_some((voice, generation))))
    });
    stream::iter([opening]).chain(said).flat_map(stream::iter)
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
