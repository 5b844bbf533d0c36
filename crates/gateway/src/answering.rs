//! What answers have in common in every dialect: where they came from, how a stream is framed.
//!
//! Decides that an answer lives exactly as long as its response: a caller who goes away cancels it. A dialect
//! that gives one answer a call is a [`Teller`]: it words the whole answer and each event; [`answer`] does
//! the rest. A stream that breaks off ends with what the dialect says of it, never like a complete one.

use crate::{asking::Asked, error::ApiError};
use axum::{
    Json,
    http::{HeaderName, HeaderValue},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use serde_json::Value;
use std::{
    convert::Infallible,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use talka_node::api::{
    Api, GenerateError, GenerateEvent, Generation, Piece, ReceiptReport, StageReport, Summary,
};

/// Names the request in logs, receipts and the ledger.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Names the upstream that answers, where one does.
pub const X_TALKA_UPSTREAM: HeaderName = HeaderName::from_static("x-talka-upstream");

/// Something without meaning is sent when nothing else was for this long: a long prompt may take minutes
/// before its first token, and proxies commonly close a connection after 30 s of silence.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Talka's own field.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Own {
    /// Of a part: how many tokens of the answer were chosen by then, which says where to go on if it breaks off.
    Part {
        /// As [`Piece::generated`].
        tokens: u32,
    },
    /// Of a whole answer, or the end of one.
    End(Provenance),
}

impl Own {
    /// Of a part, if its tokens are counted.
    pub fn part(piece: &Piece) -> Option<Self> {
        (piece.generated > 0).then_some(Self::Part { tokens: piece.generated })
    }
}

/// What the answer cost and who computed it.
#[derive(Debug, Serialize)]
pub struct Provenance {
    request: String,
    cost_micro_gft: u64,
    flops: u64,
    /// Of the first choice.
    route: Vec<StageReport>,
    /// Of all choices: what the stages signed for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    receipts: Vec<ReceiptReport>,
    audit: Audit,
    /// The first service outside the network that made one of the choices.
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<String>,
    /// One per choice, if there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    requests: Vec<String>,
}

/// Whether anybody else looked into the work that an answer took. Nodes do not audit each other yet, so nobody did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Audit {
    /// There is the word of the stages alone, which they signed.
    Unaudited,
    /// It came from outside the network, or took no work: nobody signed for any.
    NothingSigned,
}

impl Provenance {
    /// Of all choices together; there is at least one.
    pub fn of(summaries: &[Summary]) -> Self {
        let all = || summaries.iter();
        let names: Vec<_> = all().map(|summary| summary.request.to_string()).collect();
        let is_signed = all().any(|summary| !summary.receipts.is_empty());
        Self {
            audit: if is_signed { Audit::Unaudited } else { Audit::NothingSigned },
            request: names[0].clone(),
            cost_micro_gft: all().map(|summary| summary.cost.0).sum(),
            flops: all().map(|summary| summary.flops.0).sum(),
            route: summaries[0].route.clone(),
            receipts: all().flat_map(|summary| summary.receipts.clone()).collect(),
            upstream: all().find_map(|summary| summary.upstream.clone()),
            requests: if names.len() > 1 { names } else { Vec::new() },
        }
    }

    /// Of one answer, as JSON.
    pub fn of_one(summary: &Summary) -> Value {
        let provenance = Self::of(std::slice::from_ref(summary));
        serde_json::to_value(provenance).expect("answers are plain data")
    }
}

/// What a generation said, to its end.
#[derive(Debug)]
pub struct Told {
    /// All that it said.
    pub piece: Piece,
    /// How it ended.
    pub summary: Summary,
}

/// Waits for one generation.
///
/// # Errors
/// Whatever made the node give it up.
pub async fn listen(generation: Generation) -> Result<Told, ApiError> {
    let (pieces, summary) = hear(generation).await?;
    let mut all = Piece::default();
    pieces.into_iter().for_each(|piece| all.extend(piece));
    Ok(Told { piece: all, summary })
}

/// Waits for one generation, and keeps its pieces apart.
///
/// # Errors
/// Whatever made the node give it up.
pub async fn hear(mut generation: Generation) -> Result<(Vec<Piece>, Summary), ApiError> {
    let mut pieces = Vec::new();
    loop {
        match generation.events.recv().await {
            Some(GenerateEvent::Piece(piece)) => pieces.push(piece),
            Some(GenerateEvent::Done(summary)) => return Ok((pieces, summary)),
            Some(GenerateEvent::Failed(error)) => return Err(error.into()),
            None => return Err(ApiError::Interrupted),
        }
    }
}

/// One event of a stream.
#[derive(Debug, PartialEq)]
pub struct Said {
    /// Its name.
    pub name: &'static str,
    /// Its data.
    pub data: Value,
}

/// How a dialect words one answer.
pub trait Teller: Send + Sized + 'static {
    /// The whole answer, which came in `pieces`.
    fn whole(self, pieces: Vec<Piece>, summary: &Summary) -> Value;
    /// What precedes all text.
    fn opening(&mut self) -> Vec<Said>;
    /// More text.
    fn piece(&mut self, piece: Piece) -> Vec<Said>;
    /// The end of a complete answer.
    fn end(&mut self, summary: &Summary) -> Vec<Said>;
    /// The end of one that broke off.
    fn broken(&mut self, error: &ApiError) -> Vec<Said>;
    /// What says nothing; a comment if the dialect has no word for it.
    fn idle() -> Option<Said> {
        None
    }
}

/// Has the node answer, and `teller`'s teller say it, whole or event by event.
///
/// # Errors
/// [`ApiError`] if nothing was begun.
pub async fn answer<T: Teller>(
    api: &Api,
    asked: Asked,
    teller: impl FnOnce(&Generation) -> T,
) -> Result<Response, ApiError> {
    let Asked { request, form, is_streamed } = asked;
    let begun = api.generate(request).await;
    let generation = begun.map_err(|error| refused(error, &form))?;
    let (id, upstream) = (generation.request.to_string(), generation.upstream.clone());
    let teller = teller(&generation);
    let response = if is_streamed {
        let events = told(teller, generation).map(event);
        events_response(events, T::idle().map(event))
    } else {
        whole(teller, generation).await.unwrap_or_else(IntoResponse::into_response)
    };
    Ok(marked(named(response, &id), upstream))
}

async fn whole<T: Teller>(teller: T, generation: Generation) -> Result<Response, ApiError> {
    let (pieces, summary) = hear(generation).await?;
    let answer = Json(teller.whole(pieces, &summary)).into_response();
    Ok(marked(answer, summary.upstream))
}

/// All events of an answer, in order. Dropping the stream drops the generation.
pub fn told<T: Teller>(mut teller: T, generation: Generation) -> impl Stream<Item = Said> + Send {
    let opening = teller.opening();
    let rest = stream::unfold(Some((teller, generation)), |live| async move {
        let (mut teller, mut generation) = live?;
        let (said, goes_on) = match generation.events.recv().await {
            Some(GenerateEvent::Piece(piece)) => (teller.piece(piece), true),
            Some(GenerateEvent::Done(summary)) => (teller.end(&summary), false),
            Some(GenerateEvent::Failed(error)) => (broken_off(&mut teller, &error.into()), false),
            None => (broken_off(&mut teller, &ApiError::Interrupted), false),
        };
        Some((said, goes_on.then_some((teller, generation))))
    });
    stream::iter([opening]).chain(rest).flat_map(stream::iter)
}

fn broken_off(teller: &mut impl Teller, error: &ApiError) -> Vec<Said> {
    tracing::warn!(%error, "an answer broke off");
    teller.broken(error)
}

fn event(Said { name, data }: Said) -> Event {
    Event::default().event(name).data(data.to_string())
}

/// The events as they come. `idle` is sent in silences, else a comment.
pub fn events_response(
    events: impl Stream<Item = Event> + Send + 'static,
    idle: Option<Event>,
) -> Response {
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let keep_alive = match idle {
        Some(event) => keep_alive.event(event),
        None => keep_alive,
    };
    // Proxies of the nginx kind collect an answer before passing it on unless told otherwise.
    let unbuffered = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    let events = Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(keep_alive);
    ([unbuffered], events).into_response()
}

/// The response with its request's id.
pub fn named(mut response: Response, id: &str) -> Response {
    let value = HeaderValue::try_from(id).expect("hexadecimal digits fit a header");
    response.headers_mut().insert(X_REQUEST_ID, value);
    response
}

/// The response marked as an upstream's. One that stood in for lost stages has marked itself, if the answer is
/// a whole one; the head of a stream has gone out by then, and only its last event says so.
pub fn marked(mut response: Response, upstream: Option<String>) -> Response {
    if let Some(name) = upstream {
        let value = HeaderValue::try_from(name).expect("names of upstreams fit a header");
        response.headers_mut().insert(X_TALKA_UPSTREAM, value);
    }
    response
}

/// A form that was refused is named as the caller named it.
pub fn refused(error: GenerateError, form: &Option<String>) -> ApiError {
    match (error, form) {
        (GenerateError::Grammar { reason }, Some(param)) => {
            ApiError::Form { param: param.clone(), reason }
        }
        (error, _) => error.into(),
    }
}

/// Seconds since 1970 UTC; zero on a clock before that.
pub fn created_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;
    use serde_json::json;

    #[tokio::test]
    async fn events_have_a_name_and_one_line_of_data() {
        let said = |name, text: &str| Said { name, data: json!({"text": text}) };
        let events = [said("a", "one\r\n\ndata: two\u{2028}"), said("b", "")];
        let response = events_response(stream::iter(events.map(event)), None);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        let body = String::from_utf8(body.to_vec()).expect("UTF-8");
        let frames: Vec<&str> = body.split_terminator("\n\n").collect();
        assert_eq!(frames[1], "event: b\ndata: {\"text\":\"\"}");
        let first = frames[0].strip_prefix("event: a\ndata: ").expect("a name");
        let first: Value = serde_json::from_str(first).expect("one line of JSON");
        assert_eq!(first["text"], "one\r\n\ndata: two\u{2028}");
        assert_eq!(frames.len(), 2, "{body}");
    }
}
