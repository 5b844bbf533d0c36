//! What the node and its network do, as it happens: `GET /api/live`, server-sent events.
//!
//! Sends `status`, `peers` and `pulls`, the documents of `/api/status` and `/api/peers` and the fetches of `/api/shelf`, at
//! the beginning and then each one when it changed. Looks once a second, so nothing is sent more often; a reader that is slow misses what was in between, and nothing
//! waits for it. How long a node has been silent changes all the time: here it is 0 for nodes that answer and whole tens of
//! seconds for others. Ends when the node stops, so that a page that is left open holds up no end.

use crate::shelf::Pulls;
use axum::{
    Extension,
    extract::State,
    http::{HeaderName, HeaderValue},
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use std::{convert::Infallible, time::Duration};
use talka_node::api::{Api, PeerReport};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

/// How often the node is looked at.
const PACE: Duration = Duration::from_secs(1);

/// A comment is sent when nothing else was for this long; whoever hears nothing for a good while longer may take the
/// connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Steps in which silence is told, in milliseconds.
const SILENCE_STEP_MS: u64 = 10_000;

/// Ends streams that have no end of their own: closed when the gateway stops.
#[derive(Debug, Clone)]
pub(crate) struct Closing(watch::Receiver<()>);

impl Closing {
    /// With what to drop when it is time.
    pub(crate) fn new() -> (watch::Sender<()>, Self) {
        let (open, closing) = watch::channel(());
        (open, Self(closing))
    }

    /// `items` until the gateway stops.
    pub(crate) fn cut<S: Stream>(self, items: S) -> impl Stream<Item = S::Item> {
        let Self(mut closing) = self;
        items.take_until(async move { while closing.changed().await.is_ok() {} })
    }
}

/// The call.
pub(crate) async fn live(
    State(api): State<Api>,
    Extension(closing): Extension<Closing>,
    Extension(pulls): Extension<Pulls>,
) -> impl IntoResponse {
    // Proxies of the nginx kind collect an answer before passing it on unless told otherwise.
    let unbuffered = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    let events = closing
        .cut(news(api, pulls))
        .map(|News { name, data }| Ok::<_, Infallible>(Event::default().event(name).data(data)));
    ([unbuffered], Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// What changed, once a second at most.
fn news(api: Api, pulls: Pulls) -> impl Stream<Item = News> + Send {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let begin = (api, pulls, Told::default(), pace);
    let looks = stream::unfold(begin, |(api, pulls, mut told, mut pace)| async move {
        pace.tick().await;
        let documents = [
            ("status", document(&api.status().await)),
            ("peers", document(&calmed(api.peers().await))),
            ("pulls", document(&pulls.reports())),
        ];
        let changed = told.changed(documents);
        Some((changed, (api, pulls, told, pace)))
    });
    looks.flat_map(stream::iter)
}

/// A document and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct News {
    name: &'static str,
    data: String,
}

/// What a reader has been told last.
#[derive(Debug, Default)]
struct Told([String; 3]);

impl Told {
    /// Those of the documents that are new to the reader.
    fn changed(&mut self, documents: [(&'static str, String); 3]) -> Vec<News> {
        let Self(told) = self;
        let mut changed = Vec::new();
        for (before, (name, data)) in told.iter_mut().zip(documents) {
            if *before != data {
                before.clone_from(&data);
                changed.push(News { name, data });
            }
        }
        changed
    }
}

fn document<T: Serialize>(report: &T) -> String {
    serde_json::to_string(report).expect("reports are plain data")
}

/// Silence in steps, so that a network in which nothing happens is no news.
fn calmed(mut peers: Vec<PeerReport>) -> Vec<PeerReport> {
    for peer in &mut peers {
        let step = |ms: u64| if peer.alive { 0 } else { ms / SILENCE_STEP_MS * SILENCE_STEP_MS };
        peer.silent_ms = peer.silent_ms.map(step);
    }
    peers
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn peer(alive: bool, silent_ms: Option<u64>) -> PeerReport {
        let document = json!({
            "node": "11".repeat(32), "name": "n", "member": "22".repeat(32), "this": false, "alive": alive,
            "silent_ms": silent_ms, "memory_bytes": 1, "load": 0, "round_trip_us": null,
            "link_bytes_per_second": null, "flops_per_second": 0, "memory_bytes_per_second": 0, "closed": null,
            "serves": [], "faults": {}, "layer_us": [],
        });
        serde_json::from_value(document).expect("a peer")
    }

    #[test]
    fn only_what_changed_is_told() {
        let mut told = Told::default();
        let mut check = |status: &str, peers: &str, expected: &[(&str, &str)]| {
            let same = ("pulls", String::new());
            let changed = told.changed([("status", status.into()), ("peers", peers.into()), same]);
            let found: Vec<_> = changed.iter().map(|news| (news.name, &*news.data)).collect();
            assert_eq!(found, expected);
        };
        check("1", "a", &[("status", "1"), ("peers", "a")]);
        check("1", "a", &[]);
        check("2", "a", &[("status", "2")]);
        check("2", "b", &[("peers", "b")]);
        check("1", "a", &[("status", "1"), ("peers", "a")]);
    }

    #[test]
    fn silence_alone_is_news_every_ten_seconds_only() {
        let silence = |alive, ms| calmed(vec![peer(alive, ms)])[0].silent_ms;
        assert_eq!([silence(true, Some(4_999)), silence(true, None)], [Some(0), None]);
        assert_eq!(
            [silence(false, Some(9_999)), silence(false, Some(10_000))],
            [Some(0), Some(10_000)]
        );
        assert_eq!(silence(false, Some(u64::MAX)), Some(u64::MAX / 10_000 * 10_000));
        assert_eq!(silence(false, None), None);
    }

    #[tokio::test]
    async fn a_stream_ends_when_the_gateway_does() {
        let (open, closing) = Closing::new();
        let mut items = Box::pin(closing.cut(stream::iter([1]).chain(stream::pending())));
        assert_eq!(items.next().await, Some(1));
        drop(open);
        assert_eq!(items.next().await, None);
    }
}
