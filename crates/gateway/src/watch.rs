//! What holds for every request: it has an id, is counted, and each line that is logged of it names it.
//!
//! The id of an answer is that of its generation, which the ledger knows as well; other requests are numbered. Logs
//! neither headers nor bodies nor what a path holds beside its route: a caller may have put anything there.

use crate::{
    answering::X_REQUEST_ID,
    metrics::http::{Counting, HttpCounts, NO_ROUTE},
};
use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, header},
    middleware::Next,
    response::Response,
};
use http_body::{Frame, SizeHint};
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};
use tracing::{Instrument, Span, field::Empty};

/// Follows a request from its head to the last byte of its answer.
pub async fn watch(State(http): State<Arc<HttpCounts>>, request: Request, next: Next) -> Response {
    static SERIAL: AtomicU64 = AtomicU64::new(1);
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    let mut counting = http.begin(request.method(), route);
    let id = format!("http-{}", SERIAL.fetch_add(1, Ordering::Relaxed));
    // Of the highest level: lines that are logged at any level have their place.
    let span =
        tracing::error_span!("request", %id, method = %request.method(), route, answer = Empty);
    let mut response = next.run(request).instrument(span.clone()).await;
    let status = response.status().as_u16();
    counting.answered(status);
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    match headers.get(X_REQUEST_ID) {
        Some(answer) => {
            span.record("answer", answer.to_str().unwrap_or_default());
        }
        None => {
            let id = HeaderValue::try_from(id).expect("letters and digits fit a header");
            headers.insert(X_REQUEST_ID, id);
        }
    }
    // JSON lines tell the spans that are entered, not one that a line is said to belong to.
    span.in_scope(|| tracing::debug!(status, "answered"));
    response.map(|inner| Body::new(WatchedBody { inner, span, _counting: counting }))
}

/// A body whose lines are logged as its request's, which is over when the body is.
struct WatchedBody {
    inner: Body,
    span: Span,
    _counting: Counting,
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { inner, span, .. } = self.get_mut();
        let _entered = span.enter();
        Pin::new(inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, body::to_bytes, middleware, routing::get};
    use std::{
        io::{self, Write},
        sync::{Mutex, PoisonError},
    };
    use tracing_subscriber::fmt::MakeWriter;

    /// Where the test's log goes.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Log {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    /// Goal: a line that is logged while a body is read names its request.
    /// Method: a body that logs when it is asked for a piece, and a log of this test's own.
    #[tokio::test]
    async fn lines_of_an_answer_under_way_name_its_request() {
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false);
        let _guard = tracing::subscriber::set_default(subscriber.finish());
        let body = async || {
            let piece = futures_util::stream::once(async {
                tracing::warn!("from the body");
                Ok::<_, io::Error>("piece")
            });
            ([(X_REQUEST_ID, "abc")], Body::from_stream(piece))
        };
        let counts = Arc::new(HttpCounts::default());
        let watching = middleware::from_fn_with_state(counts, watch);
        let mut app = Router::new().route("/piece/{at}", get(body)).layer(watching);
        let request = Request::get("/piece/secret").body(Body::empty()).expect("a request");
        let response = tower_service::Service::call(&mut app, request).await.expect("an answer");
        assert_eq!(to_bytes(response.into_body(), 100).await.expect("a body"), "piece");
        let text = log.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let text = String::from_utf8(text).expect("UTF-8");
        let line = text.lines().find(|line| line.contains("from the body")).expect("a line");
        for part in ["id=http-", "route=\"/piece/{at}\"", "answer=\"abc\""] {
            assert!(line.contains(part), "{part} is missing: {line}");
        }
        assert!(!text.contains("secret"), "{text}");
    }
}
