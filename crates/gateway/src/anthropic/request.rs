//! Requests of the Messages API, checked and turned into the node's.
//!
//! Decides which parameters are honoured and which are refused by name. What messages say is read in
//! [`super::turns`], functions in [`super::tools`].

use super::{tools, turns::conversation};
use crate::{
    asking::{self, Asked, Own, Unsupported, plain},
    error::ApiError,
    fields::{Fields, wrong},
    functions,
    openai::form,
};
use serde_json::Value;
use talka_node::api::{ChatMessage, GenerateRequest, Grammar, SamplingParams, Tool};

/// The field that asks for a form.
const FORMAT: &str = "output_config.format";

/// Labels for Anthropic's own books and caches.
const WITHOUT_EFFECT: [&str; 3] = ["cache_control", "service_tier", "user_profile_id"];

/// What these calls lack.
const UNSUPPORTED: [Unsupported; 8] = [
    ("container", &[], "leave it out"),
    ("context_management", &[], "send only the turns that should count"),
    ("diagnostics", &[], "leave it out"),
    ("inference_geo", &[], "ask nodes whose place you know"),
    ("mcp_servers", &["[]"], "leave it out"),
    ("output_format", &[], "use output_config.format"),
    ("speed", &["\"standard\""], "leave it out"),
    ("thinking", &[r#"{"type":"disabled"}"#], "leave it out"),
];

/// A body of `/v1/messages`.
///
/// # Errors
/// [`ApiError`] names the field at fault.
pub fn message(mut body: Fields) -> Result<Asked, ApiError> {
    let messages = conversation(&mut body)?;
    let max_tokens = match body.required::<u32>("max_tokens")? {
        0 => return Err(wrong("max_tokens", &Value::from(0), "at least 1")),
        most => Some(most),
    };
    let tools = tools::wish(&mut body)?;
    let form = output_form(&mut body)?.map(|grammar| (FORMAT.to_owned(), grammar));
    let (form, grammar) = functions::with_form(tools.as_ref(), form)?;
    let Own { guesses, fallback, resume } = asking::own(&mut body)?;
    let mut request = GenerateRequest {
        max_tokens,
        stop: asking::stop(&mut body, "stop_sequences")?,
        grammar,
        tools,
        guesses,
        fallback,
        resume,
        ..plain(body.required("model")?, messages)
    };
    sampling(&mut body, &mut request.sampling)?;
    if let Some(value) = body.take("metadata") {
        let mut fields = Fields::nested("metadata", value)?;
        fields.optional::<String>("user_id")?;
        fields.finish()?;
    }
    let is_streamed = body.optional("stream")?.unwrap_or(false);
    asking::finish(body, &WITHOUT_EFFECT, &UNSUPPORTED)?;
    Ok(Asked { request, form, is_streamed })
}

/// A body of `/v1/messages/count_tokens`: the model, the conversation and the functions it is told of.
///
/// # Errors
/// [`ApiError`] names the field at fault.
pub fn count_tokens(mut body: Fields) -> Result<(String, Vec<ChatMessage>, Vec<Tool>), ApiError> {
    let messages = conversation(&mut body)?;
    let model = body.required("model")?;
    // A form is not told to the model, and so takes no tokens.
    output_form(&mut body)?;
    let tools = tools::wish(&mut body)?.map_or(Vec::new(), |wish| wish.tools);
    asking::finish(body, &WITHOUT_EFFECT, &UNSUPPORTED)?;
    Ok((model, messages, tools))
}

/// Anthropic's ranges. What is left out stays as it is.
fn sampling(body: &mut Fields, sampling: &mut SamplingParams) -> Result<(), ApiError> {
    if let Some(temperature) = body.between("temperature", 0.0, 1.0)? {
        sampling.temperature = temperature;
    }
    if let Some(top_p) = body.between("top_p", 0.0, 1.0)? {
        sampling.top_p = top_p;
    }
    if let Some(top_k) = body.optional("top_k")? {
        sampling.top_k = top_k;
    }
    Ok(())
}

/// `{"format": {"type": "json_schema", "schema": …}}`.
fn output_form(body: &mut Fields) -> Result<Option<Grammar>, ApiError> {
    let Some(value) = body.take("output_config") else { return Ok(None) };
    let mut fields = Fields::nested("output_config", value)?;
    let place = fields.path("format");
    let form = fields.take("format").map(|value| form::flat(&place, value)).transpose()?;
    // The usual effort asks for nothing.
    let table: [Unsupported; 2] =
        [("effort", &["\"high\""], "leave it out"), ("task_budget", &[], "use max_tokens")];
    asking::refuse_unsupported(&mut fields, &table)?;
    fields.finish()?;
    Ok(form.flatten())
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
