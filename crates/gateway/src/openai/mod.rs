//! The OpenAI surface: `/v1/models`, `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`, and
//! `/v1/responses` ([`responses`]).
//!
//! Decides how a request in OpenAI's words becomes one in the node's ([`request`]) and how an answer
//! goes back ([`answer`]). Departs from OpenAI where it would have to pretend: a parameter that would
//! change the answer and is not supported is refused by name, never ignored; without `max_tokens` an
//! answer may fill the context, also under `/v1/completions` (OpenAI stops there after 16 tokens);
//! answers carry a `talka` object with what they cost and who computed them. A request may carry one as well:
//! `{"upstream": NAME}` has a service outside the network answer, `{"fallback": "never"}` none,
//! `{"resume": {"answer": ID, "tokens": N}}` goes on with an answer that broke off.
//!
//! `n` and several prompts are that many generations with seeds that count up, each reserved and paid
//! for on its own. Log-probabilities are those before sampling parameters (module `logprobs` shows them);
//! vLLM's `guided_*`, `min_tokens` and `ignore_eos` are understood as well (module `form`). Functions that an
//! answer may call are described to the model in its own format, and its calls are read back from it, both by the
//! node (modules `tools` and `messages` read what a request says of them). The older `functions` are refused.

pub mod answer;
pub(crate) mod embeddings;
pub(crate) mod form;
mod logprobs;
mod messages;
pub mod request;
pub mod responses;
mod tools;

use crate::{
    answering::{created_now, marked, named, refused},
    entrance::Caller,
    error::ApiError,
    fields::Fields,
};
use answer::Voice;
use axum::{
    Json, Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use request::Call;
use serde::Serialize;
use talka_node::api::{Api, GenerateError, Generation, ModelReport};

/// The calls under `/v1`.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model))
        .route("/v1/chat/completions", post(chat_completions))
        .route("/v1/completions", post(completions))
        .route("/v1/embeddings", post(embeddings::embeddings))
        .merge(responses::routes())
}

async fn chat_completions(Caller(api): Caller, body: Fields) -> Result<Response, ApiError> {
    answer_call(&api, request::chat(body)?).await
}

async fn completions(Caller(api): Caller, body: Fields) -> Result<Response, ApiError> {
    answer_call(&api, request::text(body)?).await
}

async fn answer_call(api: &Api, call: Call) -> Result<Response, ApiError> {
    let Call { surface, requests, per_prompt, form, stream } = call;
    let mut generations = Vec::with_capacity(requests.len());
    for request in requests {
        let begun = match generations.is_empty() {
            true => api.generate(request).await,
            false => api.generate_more(request).await,
        };
        // Those started before are dropped with the error, and so cancelled.
        generations.push(begun.map_err(|error| refused(error, &form))?);
    }
    let id = generations[0].request.to_string();
    let upstream = generations.iter().find_map(|generation| generation.upstream.clone());
    let voice = Voice::new(surface, &generations[0], per_prompt, created_now());
    let response = respond(voice, generations, stream).await.unwrap_or_else(|e| e.into_response());
    Ok(marked(named(response, &id), upstream))
}

async fn respond(
    voice: Voice,
    generations: Vec<Generation>,
    stream: Option<request::StreamOptions>,
) -> Result<Response, ApiError> {
    match stream {
        Some(options) => Ok(answer::stream(voice, generations, options)),
        None => {
            let (whole, upstream) = answer::whole(&voice, generations).await?;
            Ok(marked(Json(whole).into_response(), upstream))
        }
    }
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
    owned_by: String,
    talka: Facts,
}

/// What OpenAI has no words for.
#[derive(Serialize)]
#[serde(untagged)]
enum Facts {
    Known(ModelFacts),
    /// Only a service outside the network has it.
    Outside {
        upstream: String,
    },
}

#[derive(Serialize)]
struct ModelFacts {
    digest: String,
    complete: bool,
    layers: u32,
    context: u32,
    /// Text, or vectors: an encoder answers under `/v1/embeddings` only.
    makes: &'static str,
    /// The model that an adapter changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
}

impl ModelObject {
    fn of(report: &ModelReport, id: String) -> Self {
        let parent = (id != report.name).then(|| report.name.clone());
        Self {
            talka: Facts::Known(ModelFacts {
                digest: report.id.to_string(),
                complete: report.complete,
                layers: report.shape.layers,
                context: report.shape.context,
                makes: if report.is_encoder { "vectors" } else { "text" },
                parent,
            }),
            id,
            object: "model",
            created: 0,
            owned_by: "talka".into(),
        }
    }

    fn outside(upstream: &str, id: String) -> Self {
        let talka = Facts::Outside { upstream: upstream.into() };
        Self { id, object: "model", created: 0, owned_by: upstream.into(), talka }
    }

    /// Whether requests may call it `name`.
    fn is_called(&self, name: &str) -> bool {
        let by_digest = match &self.talka {
            Facts::Known(facts) => facts.parent.is_none() && facts.digest == name,
            Facts::Outside { .. } => false,
        };
        self.id == name || by_digest
    }
}

/// Each model, followed by its adapters, which are asked for like models; then those that only upstreams
/// have, each under the first that was set up for it.
async fn objects(api: &Api) -> Vec<ModelObject> {
    let reports = api.models().await;
    let objects = reports.iter().flat_map(|report| {
        let adapted = report.adapters.iter().map(|adapter| format!("{}:{adapter}", report.name));
        let names = std::iter::once(report.name.clone()).chain(adapted);
        names.map(move |name| ModelObject::of(report, name))
    });
    let mut objects: Vec<ModelObject> = objects.collect();
    for upstream in api.upstreams() {
        for model in upstream.models {
            if !objects.iter().any(|object| object.id == model) {
                objects.push(ModelObject::outside(&upstream.name, model));
            }
        }
    }
    objects
}

async fn models(State(api): State<Api>) -> Json<ModelList> {
    Json(ModelList { object: "list", data: objects(&api).await })
}

async fn model(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<ModelObject>, ApiError> {
    let models = objects(&api).await;
    let known = models.iter().map(|model| model.id.clone()).collect();
    let found = models.into_iter().find(|model| model.is_called(&id));
    found.map(Json).ok_or_else(|| GenerateError::UnknownModel { found: id, known }.into())
}
