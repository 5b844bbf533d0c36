//! The OpenAI surface: `/v1/models`, `/v1/chat/completions`, `/v1/completions`.
//!
//! Decides how a request in OpenAI's words becomes one in the node's ([`request`]) and how an answer
//! goes back ([`answer`]). Departs from OpenAI where it would have to pretend: a parameter that would
//! change the answer and is not supported is refused by name, never ignored; without `max_tokens` an
//! answer may fill the context, also under `/v1/completions` (OpenAI stops there after 16 tokens);
//! answers carry a `talka` object with what they cost and who computed them.
//!
//! `n` and several prompts are that many generations with seeds that count up, each reserved and paid
//! for on its own. Log-probabilities are those before sampling parameters (module `logprobs` shows them);
//! vLLM's `guided_*`, `min_tokens` and `ignore_eos` are understood as well (module `form`).

pub mod answer;
mod form;
mod logprobs;
pub mod request;

use crate::{error::ApiError, fields::Fields};
use answer::Voice;
use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderName, HeaderValue},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use request::Call;
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};
use talka_node::api::{Api, GenerateError, Generation, ModelReport};

/// Names the request in logs, receipts and the ledger.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The calls under `/v1`.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model))
        .route("/v1/chat/completions", post(chat_completions))
        .route("/v1/completions", post(completions))
}

async fn chat_completions(State(api): State<Api>, body: Fields) -> Result<Response, ApiError> {
    answer_call(&api, request::chat(body)?).await
}

async fn completions(State(api): State<Api>, body: Fields) -> Result<Response, ApiError> {
    answer_call(&api, request::text(body)?).await
}

async fn answer_call(api: &Api, call: Call) -> Result<Response, ApiError> {
    let Call { surface, requests, per_prompt, form, stream } = call;
    let mut generations = Vec::with_capacity(requests.len());
    for request in requests {
        // Those started before are dropped with the error, and so cancelled.
        generations.push(api.generate(request).await.map_err(|error| refused(error, &form))?);
    }
    let id = generations[0].request.to_string();
    let voice = Voice::new(surface, &generations[0], per_prompt, created_now());
    let mut response =
        respond(voice, generations, stream).await.unwrap_or_else(|e| e.into_response());
    let value = HeaderValue::try_from(id).expect("hexadecimal digits fit a header");
    response.headers_mut().insert(X_REQUEST_ID, value);
    Ok(response)
}

/// A form that was refused is named as the caller named it.
fn refused(error: GenerateError, form: &Option<String>) -> ApiError {
    match (error, form) {
        (GenerateError::Grammar { reason }, Some(param)) => {
            ApiError::Form { param: param.clone(), reason }
        }
        (error, _) => error.into(),
    }
}

async fn respond(
    voice: Voice,
    generations: Vec<Generation>,
    stream: Option<request::StreamOptions>,
) -> Result<Response, ApiError> {
    match stream {
        Some(options) => Ok(answer::stream(voice, generations, options).into_response()),
        None => Ok(Json(answer::whole(&voice, generations).await?).into_response()),
    }
}

/// Seconds since 1970 UTC, as `created` wants them; zero on a clock before that.
fn created_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[derive(Serialize)]
struct ModelList {
    object: &'static str,
    data: Vec<ModelObject>,
}

#[derive(Serialize)]
struct ModelObject {
    id: String,
    object: &'static str,
    /// Zero: a model's digest says what it is, not when it was made.
    created: u64,
    owned_by: &'static str,
    talka: ModelFacts,
}

/// What OpenAI has no words for.
#[derive(Serialize)]
struct ModelFacts {
    digest: String,
    complete: bool,
    layers: u32,
    context: u32,
}

impl From<ModelReport> for ModelObject {
    fn from(report: ModelReport) -> Self {
        Self {
            talka: ModelFacts {
                digest: report.id.to_string(),
                complete: report.complete,
                layers: report.shape.layers,
                context: report.shape.context,
            },
            id: report.name,
            object: "model",
            created: 0,
            owned_by: "talka",
        }
    }
}

async fn models(State(api): State<Api>) -> Json<ModelList> {
    let data = api.models().await.into_iter().map(ModelObject::from).collect();
    Json(ModelList { object: "list", data })
}

async fn model(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<ModelObject>, ApiError> {
    find_model(api.models().await, &id).map(|report| Json(report.into()))
}

fn find_model(models: Vec<ModelReport>, id: &str) -> Result<ModelReport, ApiError> {
    let known = models.iter().map(|model| model.name.clone()).collect();
    models
        .into_iter()
        .find(|model| model.name == id || model.id.to_string() == id)
        .ok_or_else(|| GenerateError::UnknownModel { found: id.into(), known }.into())
}
