//! Requests of the Messages API, checked and turned into the node's.
//!
//! Decides how its messages become a conversation: blocks of one message, and messages of one speaker that
//! follow each other, are joined by a line break, because chat templates know one text a turn and many of
//! them two speakers that take turns.

use crate::{
    asking::{self, Asked, Own, Parts, Unsupported, plain, unsupported},
    error::ApiError,
    fields::{Fields, wrong},
    openai::form,
};
use serde_json::Value;
use talka_node::api::{ChatMessage, GenerateRequest, Grammar, SamplingParams};

/// Who may speak.
const ROLES: [&str; 3] = ["system", "user", "assistant"];

/// Marks for Anthropic's cache change nothing here: equal beginnings are computed once anyway.
const PARTS: Parts =
    Parts { kinds: &["text"], labels: &["cache_control"], empty: &["citations"], glue: "\n" };

/// Labels for Anthropic's own books and caches.
const WITHOUT_EFFECT: [&str; 3] = ["cache_control", "service_tier", "user_profile_id"];

/// What these calls lack.
const UNSUPPORTED: [Unsupported; 10] = [
    ("container", &[], "leave it out"),
    ("context_management", &[], "send only the turns that should count"),
    ("diagnostics", &[], "leave it out"),
    ("inference_geo", &[], "ask nodes whose place you know"),
    ("mcp_servers", &["[]"], "leave it out"),
    ("output_format", &[], "use output_config.format"),
    ("speed", &["\"standard\""], "leave it out"),
    ("thinking", &[r#"{"type":"disabled"}"#], "leave it out"),
    ("tool_choice", &[r#"{"type":"auto"}"#, r#"{"type":"none"}"#], "use /v1/chat/completions"),
    ("tools", &["[]"], "use /v1/chat/completions"),
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
    let Own { guesses, fallback, resume } = asking::own(&mut body)?;
    let mut request = GenerateRequest {
        max_tokens,
        stop: asking::stop(&mut body, "stop_sequences")?,
        grammar: output_form(&mut body)?,
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
    finish(body)?;
    Ok(Asked { request, form: Some("output_config.format".into()), is_streamed })
}

/// A body of `/v1/messages/count_tokens`: the model and the conversation.
///
/// # Errors
/// [`ApiError`] names the field at fault.
pub fn count_tokens(mut body: Fields) -> Result<(String, Vec<ChatMessage>), ApiError> {
    let messages = conversation(&mut body)?;
    let model = body.required("model")?;
    // A form is not told to the model, and so takes no tokens.
    output_form(&mut body)?;
    finish(body)?;
    Ok((model, messages))
}

fn finish(mut body: Fields) -> Result<(), ApiError> {
    for name in WITHOUT_EFFECT {
        body.take(name);
    }
    asking::refuse_unsupported(&mut body, &UNSUPPORTED)?;
    body.finish()
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

/// What the system says, then the messages, no two of one speaker in a row.
fn conversation(body: &mut Fields) -> Result<Vec<ChatMessage>, ApiError> {
    let system = body.take("system").map(|value| asking::content("system", value, &PARTS));
    let system = system.transpose()?.map(|content| ChatMessage::new("system", content));
    let messages: Vec<Value> = body.required("messages")?;
    if messages.is_empty() {
        return Err(wrong("messages", &Value::from(messages), "at least one message"));
    }
    let last = messages.len() - 1;
    let mut turns: Vec<ChatMessage> = system.into_iter().collect();
    for (at, value) in messages.into_iter().enumerate() {
        let said = turn(at, value)?;
        match turns.last_mut() {
            Some(before) if before.role == said.role => {
                before.content.push_str(PARTS.glue);
                before.content.push_str(&said.content);
            }
            _ => turns.push(said),
        }
    }
    if turns.last().is_some_and(|turn| turn.role == "assistant") {
        let instead = "answers do not go on with a given beginning: end with a message of the user";
        return Err(unsupported(&format!("messages[{last}].role"), &"assistant".into(), instead));
    }
    Ok(turns)
}

fn turn(at: usize, value: Value) -> Result<ChatMessage, ApiError> {
    let mut fields = Fields::nested(&format!("messages[{at}]"), value)?;
    let role = asking::role(&mut fields, &ROLES)?;
    let place = fields.path("content");
    let content = asking::content(&place, fields.required("content")?, &PARTS)?;
    fields.finish()?;
    Ok(ChatMessage::new(role, content))
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
