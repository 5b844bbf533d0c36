//! The page at `/`: the dashboard in a browser, embedded in the binary.
//!
//! Its source is `web`; `page` beside this crate's `src` is what `cargo xtask web` makes of that, and is committed, so that
//! building Talka needs no Node. Holds no data itself and asks no other host for anything; the policy sent along makes
//! the browser enforce that. Everything it shows it asks from `/api` and `/v1` as any program would.

use axum::{
    Router,
    http::{HeaderName, header},
    response::IntoResponse,
    routing::get,
};

/// What the page may do: load its own style and script, talk to its own host, nothing else. It makes no element from
/// text, and trusted types would keep it from doing so.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

/// The page and its parts.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let html = include_str!("../page/index.html");
    let css = include_str!("../page/talka.css");
    let js = include_str!("../page/talka.js");
    let licences = include_str!("../page/licences.md");
    let icon = include_str!("../page/icon.svg");
    Router::new()
        .route("/", get(async || part("text/html; charset=utf-8", html)))
        .route("/talka.css", get(async || part("text/css; charset=utf-8", css)))
        .route("/talka.js", get(async || part("text/javascript; charset=utf-8", js)))
        .route("/licences.md", get(async || part("text/plain; charset=utf-8", licences)))
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
