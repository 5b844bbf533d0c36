//! Requests over HTTP, counted by method, route and status.
//!
//! Memory is bounded: a route is a pattern of this program and never what a caller typed, methods without a name here
//! are counted together.

use super::text::{Kind, Page};
use axum::http::Method;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use talka_node::api::Histogram;

/// Steps of how long a request takes, to the last byte of its answer, in microseconds.
const REQUEST_US: &[u64] = &[
    1_000,
    5_000,
    25_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    15_000_000,
    60_000_000,
    300_000_000,
];

/// The route of paths that are none.
pub const NO_ROUTE: &str = "none";

/// Which requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    method: &'static str,
    route: Arc<str>,
    /// Nothing, if the caller left before there was one.
    status: Option<u16>,
}

/// All counts since the start.
#[derive(Debug, Default)]
pub struct HttpCounts(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    running: u64,
    ended: BTreeMap<Series, u64>,
    took: BTreeMap<Arc<str>, Histogram>,
}

/// A request under way; counted when it is dropped.
#[derive(Debug)]
pub struct Counting {
    counts: Arc<HttpCounts>,
    series: Series,
    begun: Instant,
}

impl HttpCounts {
    /// A request for `route` has come.
    pub fn begin(self: &Arc<Self>, method: &Method, route: &str) -> Counting {
        self.lock().running += 1;
        let series = Series { method: name(method), route: route.into(), status: None };
        Counting { counts: Arc::clone(self), series, begun: Instant::now() }
    }

    /// Adds all counts to `page`.
    pub fn tell(&self, page: &mut Page) {
        let inner = self.lock();
        let help = "Requests under way.";
        page.one(Kind::Gauge, "talka_http_requests_running", help, inner.running);
        let help = "Requests that ended, by method, route and status; left: the caller went before one was known.";
        let mut family = page.family(Kind::Counter, "talka_http_requests_total", help);
        for (Series { method, route, status }, count) in &inner.ended {
            let status = status.map_or("left".into(), |status| status.to_string());
            family.sample(&[("method", method), ("route", route), ("status", &status)], count);
        }
        let help = "From a request to the last byte of its answer.";
        let mut family = page.histograms("talka_http_request_seconds", help, 6);
        for (route, took) in &inner.took {
            family.add(&[("route", route)], took);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counting {
    /// The answer has begun.
    pub fn answered(&mut self, status: u16) {
        self.series.status = Some(status);
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let mut inner = self.counts.lock();
        inner.running = inner.running.saturating_sub(1);
        *inner.ended.entry(self.series.clone()).or_default() += 1;
        let took = inner.took.entry(Arc::clone(&self.series.route));
        let took = took.or_insert_with(|| Histogram::new(REQUEST_US));
        took.add(u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
}

/// Anybody may invent methods.
fn name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_once_when_they_end() {
        let counts = Arc::new(HttpCounts::default());
        let mut first = counts.begin(&Method::GET, "/a");
        first.answered(200);
        let page = || {
            let mut page = Page::default();
            counts.tell(&mut page);
            page.into_text()
        };
        assert!(page().contains("talka_http_requests_running 1\n"), "{}", page());
        assert!(!page().contains("route=\""), "{}", page());
        drop(first);
        drop(counts.begin(&Method::GET, "/a"));
        let odd = Method::from_bytes(b"BREW").expect("a method");
        drop(counts.begin(&odd, NO_ROUTE));
        for line in [
            "talka_http_requests_running 0\n",
            "{method=\"GET\",route=\"/a\",status=\"200\"} 1\n",
            "{method=\"GET\",route=\"/a\",status=\"left\"} 1\n",
            "{method=\"other\",route=\"none\",status=\"left\"} 1\n",
            "talka_http_request_seconds_count{route=\"/a\"} 2\n",
        ] {
            assert!(page().contains(line), "{line} is missing in {}", page());
        }
    }
}
