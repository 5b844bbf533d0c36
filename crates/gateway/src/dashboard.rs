//! The page at `/`: status and chat in a browser, embedded in the binary.
//!
//! Holds no data itself and asks no other host for anything; the policy sent along makes the browser
//! enforce that. Everything it shows it asks from `/api` and `/v1` as any program would.

use axum::{
    Router,
    http::{HeaderName, header},
    response::IntoResponse,
    routing::get,
};

/// What the page may do: load its own style and script, talk to its own host, nothing else.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page and its parts.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let html = include_str!("../../../web/index.html");
    let css = include_str!("../../../web/talka.css");
    let js = include_str!("../../../web/talka.js");
    let icon = include_str!("../../../web/icon.svg");
    Router::new()
        .route("/", get(async || part("text/html; charset=utf-8", html)))
        .route("/talka.css", get(async || part("text/css; charset=utf-8", css)))
        .route("/talka.js", get(async || part("text/javascript; charset=utf-8", js)))
        .route("/icon.svg", get(async || part("image/svg+xml", icon)))
}

/// Asked anew on each visit: the page must fit the node that serves it.
fn part(kind: &'static str, body: &'static str) -> impl IntoResponse {
    let headers: [(HeaderName, &str); 4] = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, body)
}
