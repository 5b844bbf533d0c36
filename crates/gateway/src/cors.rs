//! Pages of other origins: none may read what a node answers, unless its owner names theirs.
//!
//! Decides what a browser is told of a page that asks. What such a page may do is [`auth`](crate::auth)'s: it gets
//! no cookie, and without a key it may ask models at most. Departs from the usual libraries in that there is no
//! "any origin": a node is not a public service.

use axum::{
    body::Body,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode, Uri,
        header::{
            ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
            ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
            ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
        },
    },
    middleware::Next,
    response::Response,
};
use std::{fmt, str::FromStr, sync::Arc};

/// What pages may send. Clients in browsers add headers of their own; a wildcard covers all but the key's.
const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static("authorization, *");
const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE");
/// What pages may read of an answer's headers.
const EXPOSED_HEADERS: HeaderValue =
    HeaderValue::from_static("x-request-id, request-id, retry-after, x-talka-upstream");
/// How long a browser may remember what it was allowed, in seconds: no longer than it takes to notice that a
/// node was started again without the origin.
const ALLOWED_S: HeaderValue = HeaderValue::from_static("600");

/// Where a page comes from: scheme, host and port, as browsers write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(HeaderValue);

/// Text that is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected an origin such as https://chat.example or http://localhost:3000, found {found:?}"
)]
pub struct OriginError {
    /// The text.
    pub found: String,
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let wrong = || OriginError { found: text.chars().take(80).collect() };
        let lower = text.trim_end_matches('/').to_ascii_lowercase();
        let uri: Uri = lower.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"));
        let whole = format!("{}://{authority}", scheme.ok_or_else(wrong)?);
        // No path, no query, and nobody's name in it.
        if whole != lower || lower.contains(['@', '*']) {
            return Err(wrong());
        }
        HeaderValue::try_from(whole).map(Self).map_err(|_| wrong())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or_default())
    }
}

/// The origins whose pages may read answers. None, by default.
#[derive(Debug, Clone, Default)]
pub struct Friends(Arc<[Origin]>);

impl FromIterator<Origin> for Friends {
    fn from_iter<T: IntoIterator<Item = Origin>>(origins: T) -> Self {
        Self(origins.into_iter().collect())
    }
}

impl Friends {
    /// Whether the origin that the request names is one of them.
    pub fn sent(&self, headers: &HeaderMap) -> bool {
        self.of(headers).is_some()
    }

    fn of(&self, headers: &HeaderMap) -> Option<&Origin> {
        let found = headers.get(ORIGIN)?;
        self.0.iter().find(|origin| origin.0 == found)
    }
}

/// Answers what browsers ask ahead, and marks all other answers for them.
pub async fn allow(State(friends): State<Friends>, request: Request, next: Next) -> Response {
    let allowed = friends.of(request.headers()).map(|origin| origin.0.clone());
    let asks_ahead = request.method() == Method::OPTIONS
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match &allowed {
        Some(_) if asks_ahead => ahead(),
        _ => next.run(request).await,
    };
    if let Some(origin) = allowed {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
    }
    if !friends.0.is_empty() {
        response.headers_mut().append(VARY, HeaderValue::from_static("origin"));
    }
    response
}

/// What one of the friends may send. No key is looked at: none comes with the question.
fn ahead() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS);
    headers.insert(ACCESS_CONTROL_MAX_AGE, ALLOWED_S);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for (text, shown) in [
            ("https://chat.example", "https://chat.example"),
            ("http://localhost:3000/", "http://localhost:3000"),
            ("HTTPS://Chat.Example", "https://chat.example"),
            ("http://[::1]:80", "http://[::1]:80"),
        ] {
            assert_eq!(text.parse::<Origin>().map(|origin| origin.to_string()), Ok(shown.into()));
        }
        for wrong in [
            "",
            "*",
            "null",
            "chat.example",
            "ftp://a.example",
            "https://a.example/page",
            "https://a.example?x",
            "https://me@a.example",
            "https://*.example",
        ] {
            assert!(wrong.parse::<Origin>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_friend_is_known_by_the_whole_of_its_origin() {
        let friends: Friends =
            ["https://a.example".parse().expect("an origin")].into_iter().collect();
        let sent = |text: &'static str| {
            friends.sent(&HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static(text))]))
        };
        assert!(sent("https://a.example"));
        for other in ["https://a.example.evil", "http://a.example", "https://a.example:1", "null"] {
            assert!(!sent(other), "{other}");
        }
        assert!(!friends.sent(&HeaderMap::new()) && !Friends::default().sent(&HeaderMap::new()));
    }
}
