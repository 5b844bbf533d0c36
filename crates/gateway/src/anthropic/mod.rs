//! Anthropic's Messages API, for text and functions: `/v1/messages` and `/v1/messages/count_tokens`.
//!
//! Decides how its requests become the node's ([`request`], [`turns`], [`tools`]), how answers and named events go back
//! ([`answer`]), and that its callers get errors in its words ([`word`]). Departs from Anthropic where it would
//! have to pretend: an answer never goes on with a beginning that the caller wrote, thinking is refused by name,
//! how tokens are chosen may be said in either version (`temperature`, `top_p`, `top_k`; Anthropic's newer one takes
//! them no more), and `anthropic-version` may be left out. What a header `anthropic-beta` allows is asked for
//! by fields of the body, which are refused by name; the header itself changes nothing. Models are listed in
//! OpenAI's shape.

pub mod answer;
pub mod request;
pub mod tools;
pub mod turns;

use crate::{
    answering::{self, X_REQUEST_ID},
    entrance::Caller,
    error::{ApiError, ErrorDocument},
    fields::{Fields, wrong},
};
use answer::Voice;
use axum::{
    Json, Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderName},
    middleware::Next,
    response::Response,
    routing::post,
};
use serde_json::{Value, json};
use talka_node::api::{Api, Prompt};

/// Which version of the API a caller speaks.
const VERSION: &str = "anthropic-version";

/// Those that are spoken here, alike. The one before named no events.
const SPOKEN: [&str; 2] = ["2023-06-01", "2026-10-21"];

/// What this dialect calls the request's id.
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// The calls under `/v1/messages`.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/messages", post(messages))
        .route("/v1/messages/count_tokens", post(count_tokens))
}

async fn messages(
    Caller(api): Caller,
    headers: HeaderMap,
    body: Fields,
) -> Result<Response, ApiError> {
    check_version(&headers)?;
    answering::answer(&api, request::message(body)?, Voice::new).await
}

async fn count_tokens(
    Caller(api): Caller,
    headers: HeaderMap,
    body: Fields,
) -> Result<Json<Value>, ApiError> {
    check_version(&headers)?;
    let (model, messages, tools) = request::count_tokens(body)?;
    let count = api.count_tokens(&model, Prompt::Chat(messages), tools).await?;
    Ok(Json(json!({"input_tokens": count})))
}

fn check_version(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get(VERSION) else { return Ok(()) };
    match value.to_str().unwrap_or("?") {
        spoken if SPOKEN.contains(&spoken) => Ok(()),
        other => {
            let expected = format!("\"{}\"", SPOKEN.join("\" or \""));
            Err(wrong(VERSION, &Value::from(other), &expected))
        }
    }
}

/// Gives callers of this dialect errors in its words, and the request's id under its name: those of its
/// paths, and of any path those that say which version of it they speak.
pub async fn word(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_ours = path == "/v1/messages"
        || path.starts_with("/v1/messages/")
        || request.headers().contains_key(VERSION);
    let mut response = next.run(request).await;
    if !is_ours {
        return response;
    }
    let id = response.headers().get(X_REQUEST_ID).cloned();
    if let Some(document) = response.extensions_mut().remove::<ErrorDocument>() {
        let id = id.as_ref().and_then(|id| id.to_str().ok());
        let worded = document.in_anthropic_words(response.status(), id);
        *response.body_mut() = Body::from(worded.to_string());
    }
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn two_versions_are_spoken() {
        let with = |value: &'static str| {
            HeaderMap::from_iter([(
                HeaderName::from_static(VERSION),
                HeaderValue::from_static(value),
            )])
        };
        assert!(check_version(&HeaderMap::new()).is_ok());
        assert!(SPOKEN.iter().all(|spoken| check_version(&with(spoken)).is_ok()));
        let error = check_version(&with("2023-01-01")).expect_err("an older one");
        assert_eq!((error.row().code, error.param()), ("invalid_value", Some("anthropic-version")));
    }
}
