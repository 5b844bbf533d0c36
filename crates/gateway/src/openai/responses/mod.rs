//! `/v1/responses`: OpenAI's Responses API, for text and functions.
//!
//! Decides how its requests become the node's ([`request`], [`items`], [`tools`]) and how answers and typed events
//! go back ([`answer`]). Departs from OpenAI where it would have to pretend: no answer is stored, so `store: true`,
//! `previous_response_id` and `background` are refused by name, and `store` is false where it is left out;
//! events carry no `obfuscation`. Also understands what `/v1/chat/completions` takes for choosing tokens:
//! `stop`, `seed`, `top_k`, `min_p`, `logit_bias` and penalties.

pub mod answer;
pub mod items;
pub mod request;
pub mod tools;

use crate::{
    answering::{self, created_now},
    entrance::Caller,
    error::ApiError,
    fields::Fields,
};
use answer::Voice;
use axum::{
    Json, Router,
    extract::Path,
    response::Response,
    routing::{get, post},
};
use serde_json::{Value, json};
use talka_node::api::{Api, Prompt};

/// The calls under `/v1/responses`.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/responses", post(responses))
        .route("/v1/responses/input_tokens", post(input_tokens))
        .route("/v1/responses/{id}", get(not_kept).delete(not_kept))
        .route("/v1/responses/{id}/cancel", post(not_kept))
        .route("/v1/responses/{id}/input_items", get(not_kept))
}

async fn responses(Caller(api): Caller, body: Fields) -> Result<Response, ApiError> {
    let (asked, settings) = request::response(body)?;
    answering::answer(&api, asked, |generation| Voice::new(generation, settings, created_now()))
        .await
}

/// How many tokens a request's input has.
async fn input_tokens(Caller(api): Caller, body: Fields) -> Result<Json<Value>, ApiError> {
    let (model, messages, tools) = request::input_tokens(body)?;
    let count = api.count_tokens(&model, Prompt::Chat(messages), tools).await?;
    Ok(Json(json!({"object": "response.input_tokens", "input_tokens": count})))
}

async fn not_kept(Path(id): Path<String>) -> ApiError {
    ApiError::NotKept { id: id.chars().take(80).collect() }
}
