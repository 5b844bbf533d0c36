//! `/v1/embeddings`: texts to vectors, in OpenAI's shapes.
//!
//! Departs from OpenAI where it would have to pretend: `dimensions` other than the model's own are refused,
//! for a cut vector means nothing unless the model was made for it. A text that is too long is refused,
//! unless vLLM's `truncate_prompt_tokens` says how it may be cut (-1: to what the model takes).

use super::{named, request::prompts};
use crate::{
    entrance::Caller,
    error::ApiError,
    fields::{Fields, wrong},
};
use axum::Json;
use axum::response::{IntoResponse, Response};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::Value;
use talka_node::api::{Api, EmbedRequest, Embeddings, StageReport};

/// Texts of one call, OpenAI's limit.
const TEXTS_MAX: usize = 2048;

/// How the numbers of a vector are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// A JSON array.
    Float,
    /// Base64 of f32, little-endian: what OpenAI's own clients ask for.
    Base64,
}

/// A checked request.
#[derive(Debug)]
pub(crate) struct Call {
    request: EmbedRequest,
    format: Format,
    dimensions: Option<u32>,
}

pub(super) async fn embeddings(Caller(api): Caller, body: Fields) -> Result<Response, ApiError> {
    let Call { request, format, dimensions } = read(body)?;
    if let Some(found) = dimensions {
        check_dimensions(&api, &request.model, found).await?;
    }
    let embeddings = api.embed(request).await?;
    let id = embeddings.request.to_string();
    Ok(named(Json(answer(embeddings, format)).into_response(), &id))
}

/// A body of `/v1/embeddings`.
pub(crate) fn read(mut body: Fields) -> Result<Call, ApiError> {
    let input: Value = body.required("input")?;
    let texts = prompts("input", input, TEXTS_MAX)?;
    let request =
        EmbedRequest { model: body.required("model")?, texts, tokens_max: truncation(&mut body)? };
    let format = match body.optional::<String>("encoding_format")?.as_deref() {
        None | Some("float") => Format::Float,
        Some("base64") => Format::Base64,
        Some(other) => {
            let expected = "\"float\" or \"base64\"";
            return Err(wrong("encoding_format", &Value::from(other), expected));
        }
    };
    let dimensions = body.optional("dimensions")?;
    body.take("user");
    body.finish()?;
    Ok(Call { request, format, dimensions })
}

/// `truncate_prompt_tokens`: -1 or at least 1.
fn truncation(body: &mut Fields) -> Result<Option<u32>, ApiError> {
    let Some(value) = body.take("truncate_prompt_tokens") else { return Ok(None) };
    let most = match value.as_i64() {
        Some(-1) => Some(u32::MAX),
        Some(most) => u32::try_from(most).ok().filter(|most| *most > 0),
        None => None,
    };
    let expected = "a whole number from 1, or -1 for what the model takes";
    most.map(Some).ok_or_else(|| wrong("truncate_prompt_tokens", &value, expected))
}

/// Before any work: a vector of another length would have to be paid for and thrown away.
async fn check_dimensions(api: &Api, name: &str, found: u32) -> Result<(), ApiError> {
    let models = api.models().await;
    let model = models.iter().find(|model| model.name == name || model.id.to_string() == name);
    match model.map(|model| model.shape.hidden) {
        Some(width) if width != found => {
            let expected = format!("{width}, the length of this model's vectors");
            Err(wrong("dimensions", &Value::from(found), &expected))
        }
        // A model that is not known is refused by name when it is asked.
        _ => Ok(()),
    }
}

#[derive(Serialize)]
struct Answer {
    object: &'static str,
    data: Vec<Item>,
    model: String,
    usage: Usage,
    talka: Provenance,
}

#[derive(Serialize)]
struct Item {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
}

/// What the vectors cost and who computed them: Talka's own field.
#[derive(Serialize)]
struct Provenance {
    request: String,
    cost_micro_gft: u64,
    flops: u64,
    /// Of the first text.
    route: Vec<StageReport>,
}

fn answer(embeddings: Embeddings, format: Format) -> Answer {
    let Embeddings { request, model, vectors, prompt_tokens, cost, flops, route } = embeddings;
    let item = |(index, vector): (usize, Vec<f32>)| {
        let embedding = match format {
            Format::Float => Vector::Float(vector),
            Format::Base64 => {
                let bytes: Vec<u8> = vector.into_iter().flat_map(f32::to_le_bytes).collect();
                Vector::Base64(STANDARD.encode(bytes))
            }
        };
        Item { object: "embedding", index, embedding }
    };
    Answer {
        object: "list",
        data: vectors.into_iter().enumerate().map(item).collect(),
        model,
        usage: Usage { prompt_tokens, total_tokens: prompt_tokens },
        talka: Provenance {
            request: request.to_string(),
            cost_micro_gft: cost.0,
            flops: flops.0,
            route,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use talka_node::{
        api::Prompt,
        base::{Credits, Flops, RequestId},
    };

    fn call(body: Value) -> Result<Call, ApiError> {
        read(Fields::parse(body.to_string().as_bytes()).expect("an object"))
    }

    #[test]
    fn a_text_tokens_and_lists_of_either_are_read() {
        let texts = |input: Value| {
            call(json!({"model": "m", "input": input})).expect("a request").request.texts
        };
        let text = |text: &str| Prompt::Text(text.into());
        assert_eq!(texts(json!("a")), [text("a")]);
        assert_eq!(texts(json!(["a", "b"])), ["a", "b"].map(text));
        assert_eq!(texts(json!([1, 2])), [Prompt::Tokens(vec![1, 2])]);
        let lists = [Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2, 3])];
        assert_eq!(texts(json!([[1], [2, 3]])), lists);
    }

    #[test]
    fn wrong_fields_are_named() {
        let refused = |field: &str, value: Value| {
            let mut body = json!({"model": "m", "input": "a"});
            body[field] = value;
            call(body).expect_err("refused").param().map(str::to_owned)
        };
        for (field, value) in [
            ("input", json!(7)),
            ("input", json!(vec!["a"; TEXTS_MAX + 1])),
            ("encoding_format", json!("int8")),
            ("truncate_prompt_tokens", json!(0)),
            ("truncate_prompt_tokens", json!(-2)),
            ("dimensions", json!("many")),
            ("stream", json!(true)),
        ] {
            assert_eq!(refused(field, value.clone()).as_deref(), Some(field), "{value}");
        }
        let cut =
            |value| call(json!({"model": "m", "input": "a", "truncate_prompt_tokens": value}));
        assert_eq!(cut(json!(-1)).expect("all").request.tokens_max, Some(u32::MAX));
        assert_eq!(cut(json!(5)).expect("five").request.tokens_max, Some(5));
    }

    #[test]
    fn vectors_are_written_as_numbers_or_as_their_bytes() {
        let embeddings = || Embeddings {
            request: RequestId([1; 16]),
            model: "m".into(),
            vectors: vec![vec![0.6, -0.8]],
            prompt_tokens: 3,
            cost: Credits(5),
            flops: Flops(7),
            route: Vec::new(),
        };
        let plain = serde_json::to_value(answer(embeddings(), Format::Float)).expect("JSON");
        assert_eq!(plain["data"][0]["embedding"].as_array().map(Vec::len), Some(2));
        assert_eq!(plain["usage"], json!({"prompt_tokens": 3, "total_tokens": 3}));
        let coded = serde_json::to_value(answer(embeddings(), Format::Base64)).expect("JSON");
        let text = coded["data"][0]["embedding"].as_str().expect("text");
        let bytes = STANDARD.decode(text).expect("base64");
        assert_eq!(bytes, [0.6_f32.to_le_bytes(), (-0.8_f32).to_le_bytes()].concat());
    }
}
