//! Traces for OpenTelemetry: where the time of a request went, sent to a collector as OTLP over HTTP, in JSON.
//!
//! Told are a request, in it the answer and the way to its route, and on every node that computes for it a stage. The trace's id is
//! that of the answer, `x-request-id`: so the nodes of a route tell their stages into one trace though nothing about
//! traces goes over their links. (Of several choices the first names the trace; stages of the others have traces of their
//! own.) Nothing of prompts and answers is told: spans have no such fields.
//!
//! Own, because four kinds of spans need none of what the usual crates bring along. A collector that does not answer costs
//! nobody any time: what it does not take is dropped and counted.

mod document;
#[cfg(test)]
mod tests;

use crate::{client::install_cryptography, exit::UsageError};
use anyhow::Result;
use document::{Attribute, Done, document};
use futures_util::FutureExt;
use std::{
    fmt::Debug,
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use tracing::{
    Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    layer::{Context, Layer},
    registry::{LookupSpan, SpanRef},
};

/// Spans that are told, by name. Their targets are ours.
const TOLD: [&str; 4] = ["request", "answer", "route", "stage"];

/// The field that names a session: the trace in which an answer, and the stages of its route, are told.
const SESSION: &str = "session";

/// Traces that wait for the collector: some seconds of a busy node.
const QUEUE: usize = 1_024;

/// Spans in one message at most, and how long the first of them waits for others.
const BATCH: usize = 512;
const BATCH_TIME: Duration = Duration::from_secs(1);

/// Longest wait for the collector, and for the last message when the node stops.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
const LAST_TIME_MAX: Duration = Duration::from_secs(2);

/// Spans within one request that are told: one for each text of a large request for vectors.
const INNER_MAX: usize = 256;

/// The longest text of an attribute, in bytes.
const TEXT_BYTES_MAX: usize = 256;

/// What hears of spans.
#[derive(Debug)]
pub struct Traces {
    queue: mpsc::Sender<Vec<Done>>,
}

/// What sends them.
#[derive(Debug)]
pub struct Exporter {
    stop: oneshot::Sender<()>,
    sending: JoinHandle<()>,
}

impl Exporter {
    /// Sends what is left, for a short while.
    pub async fn finish(self) {
        // A task that has ended needs no word.
        let _ = self.stop.send(());
        let _ = timeout(LAST_TIME_MAX, self.sending).await;
    }
}

/// Tells spans to the collector at `endpoint`, such as `http://127.0.0.1:4318`.
///
/// # Errors
/// If that is no address.
pub fn start(endpoint: &str) -> Result<(Traces, Exporter)> {
    install_cryptography();
    let address = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
    let address = reqwest::Url::parse(&address).ok().filter(|url| url.has_host());
    let address = address.ok_or_else(|| {
        UsageError(format!("--otlp {endpoint:?}: expected such as http://127.0.0.1:4318"))
    })?;
    let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_TIME_MAX).build()?;
    let (queue, waiting) = mpsc::channel(QUEUE);
    let (stop, stopped) = oneshot::channel();
    let sending = tokio::spawn(send_all(client, address, waiting, stopped));
    Ok((Traces { queue }, Exporter { stop, sending }))
}

async fn send_all(
    client: reqwest::Client,
    address: reqwest::Url,
    mut waiting: mpsc::Receiver<Vec<Done>>,
    stopped: oneshot::Receiver<()>,
) {
    // It is asked again after it has come.
    let mut stopped = stopped.fuse();
    let mut fails = false;
    loop {
        let first = tokio::select! {
            first = waiting.recv() => first,
            _ = &mut stopped => {
                waiting.close();
                waiting.recv().await
            }
        };
        let Some(mut spans) = first else { return };
        let full_at = Instant::now() + BATCH_TIME;
        while spans.len() < BATCH
            && let Ok(Some(more)) = timeout_at(full_at, waiting.recv()).await
        {
            spans.extend(more);
        }
        let sent = client.post(address.clone()).json(&document(&spans)).send().await;
        match sent.and_then(reqwest::Response::error_for_status) {
            Ok(_) => fails = false,
            Err(error) if !fails => {
                fails = true;
                // Without the address, which may hold a secret.
                let error = error.without_url();
                tracing::warn!(%error, "traces are lost: the collector does not take them");
            }
            Err(_) => {}
        }
    }
}

/// A span under way.
struct Open {
    /// Of the innermost span around it.
    parent: Option<String>,
    /// The trace, if this is the outermost span, and it is known by now.
    trace: Option<String>,
    done: Done,
    /// Spans within that ended.
    inner: Vec<Done>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Traces {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id).filter(is_told) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let session = fields.session.take();
        let outer = outer(&span);
        let parent = outer
            .as_ref()
            .and_then(|outer| Some(outer.extensions().get::<Open>()?.done.id.clone()));
        let mut done = Done::new(span.name(), SystemTime::now(), fields.attributes);
        let (mut parent, mut trace) = (parent, None);
        if let Some(session) = session {
            // The second half of a session's id names the span of its answer, on whatever node.
            let answer = session.get(16..32).unwrap_or_default().to_owned();
            match span.name() {
                "answer" => done.id = answer,
                _ => parent = Some(answer),
            }
            match outermost(&span) {
                Some(outermost) => {
                    if let Some(open) = outermost.extensions_mut().get_mut::<Open>() {
                        open.trace.get_or_insert(session);
                    }
                }
                None => trace = Some(session),
            }
        }
        span.extensions_mut().insert(Open { parent, trace, done, inner: Vec::new() });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        values.record(&mut fields);
        if let Some(open) = span.extensions_mut().get_mut::<Open>() {
            open.done.attributes.extend(fields.attributes);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let Some(open) = span.extensions_mut().remove::<Open>() else { return };
        let Open { parent, trace, mut done, mut inner } = open;
        (done.parent, done.ended) = (parent, SystemTime::now());
        if let Some(outermost) = outermost(&span) {
            if let Some(open) = outermost.extensions_mut().get_mut::<Open>() {
                inner.push(done);
                inner.truncate(INNER_MAX.saturating_sub(open.inner.len()));
                open.inner.append(&mut inner);
            }
            return;
        }
        inner.push(done);
        let trace = trace.unwrap_or_else(|| document::fresh(16));
        inner.iter_mut().for_each(|done| done.trace.clone_from(&trace));
        // A full queue is a collector that does not keep up.
        let _ = self.queue.try_send(inner);
    }
}

fn is_told<'a, S: LookupSpan<'a>>(span: &SpanRef<'a, S>) -> bool {
    TOLD.contains(&span.name()) && span.metadata().target().starts_with("talka_")
}

/// The innermost span around `span` that is told.
fn outer<'a, S: LookupSpan<'a>>(span: &SpanRef<'a, S>) -> Option<SpanRef<'a, S>> {
    span.scope().skip(1).find(|outer| outer.extensions().get::<Open>().is_some())
}

/// The outermost one.
fn outermost<'a, S: LookupSpan<'a>>(span: &SpanRef<'a, S>) -> Option<SpanRef<'a, S>> {
    span.scope().skip(1).filter(|outer| outer.extensions().get::<Open>().is_some()).last()
}

/// What a span says of itself.
#[derive(Default)]
struct Fields {
    session: Option<String>,
    attributes: Vec<Attribute>,
}

impl Fields {
    fn text(&mut self, field: &Field, mut text: String) {
        if field.name() == SESSION {
            self.session = Some(text.clone());
        }
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        self.attributes.push(Attribute::text(field.name(), text));
    }
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.attributes.push(Attribute::number(field.name(), value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(field, format!("{value:?}"));
    }
}
