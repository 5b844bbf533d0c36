//! Messages of a conversation, in OpenAI's words.
//!
//! Decides which roles speak, that content is text, and that each result of a function answers a call that came
//! before it. What else a chat template wants of roles and their order, it says itself.

use crate::{
    asking::{self, Parts, unsupported},
    error::ApiError,
    fields::{Fields, wrong},
    functions::{self, Called},
};
use serde_json::Value;
use talka_node::api::{ChatMessage, ToolCall};

/// Who may speak.
const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

/// Parts are joined without anything between them.
const PARTS: Parts = Parts { kinds: &["text"], labels: &[], empty: &[], glue: "" };

/// Fields of a message that clients echo from an earlier answer, empty here.
const ECHOED: [&str; 4] = ["refusal", "annotations", "audio", "function_call"];

/// `messages`, at least one.
///
/// # Errors
/// [`ApiError`] names the message and the field at fault.
pub fn messages(body: &mut Fields) -> Result<Vec<ChatMessage>, ApiError> {
    let values: Vec<Value> = body.required("messages")?;
    if values.is_empty() {
        return Err(wrong("messages", &Value::from(values), "at least one message"));
    }
    let mut called = Called::default();
    let mut messages = Vec::with_capacity(values.len());
    for (at, value) in values.into_iter().enumerate() {
        let message = message(&format!("messages[{at}]"), value, &called)?;
        called.note(&message);
        messages.push(message);
    }
    Ok(messages)
}

fn message(place: &str, value: Value, called: &Called) -> Result<ChatMessage, ApiError> {
    let mut fields = Fields::nested(place, value)?;
    let role = asking::role(&mut fields, &ROLES)?;
    let tool_calls = if role == "assistant" { calls(&mut fields)? } else { Vec::new() };
    let (tool_call_id, name) = if role == "tool" {
        let (id, name) = answered(&mut fields, called)?;
        (Some(id), Some(name))
    } else {
        (None, None)
    };
    let place = fields.path("content");
    let content = match fields.take("content") {
        // Whoever calls need not say anything.
        None if !tool_calls.is_empty() => String::new(),
        None => fields.required("content")?,
        Some(value) => asking::content(&place, value, &PARTS)?,
    };
    for name in ECHOED.iter().chain(&["tool_calls", "tool_call_id", "name"]) {
        let empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
        if let Some(value) = fields.take(name).filter(|value| !empty(value)) {
            return Err(unsupported_here(&fields.path(name), &value));
        }
    }
    fields.finish()?;
    Ok(ChatMessage { role, content, tool_calls, tool_call_id, name })
}

/// The calls of an assistant's message.
fn calls(fields: &mut Fields) -> Result<Vec<ToolCall>, ApiError> {
    let place = fields.path("tool_calls");
    let calls = fields.optional::<Vec<Value>>("tool_calls")?.unwrap_or_default();
    let named = calls.into_iter().enumerate();
    named.map(|(at, value)| call(&format!("{place}[{at}]"), value)).collect()
}

/// `{"id", "type": "function", "function": {"name", "arguments"}}`.
fn call(place: &str, value: Value) -> Result<ToolCall, ApiError> {
    let mut fields = Fields::nested(place, value)?;
    let id = fields.required("id")?;
    functions::kind(&mut fields)?;
    let mut function = Fields::nested(&fields.path("function"), fields.required("function")?)?;
    // Streamed answers number their calls; some clients send the number back.
    fields.optional::<u32>("index")?;
    fields.finish()?;
    let name = functions::name(&mut function)?;
    let arguments = function.required("arguments")?;
    function.finish()?;
    Ok(ToolCall { id, name, arguments })
}

/// The call that a function's result answers, and the function.
fn answered(fields: &mut Fields, called: &Called) -> Result<(String, String), ApiError> {
    let (id, name) = called.answered(fields, "tool_call_id")?;
    match fields.optional::<String>("name")? {
        Some(found) if found != name => {
            let expected = format!("{name:?}, the function that was called, or none");
            Err(wrong(&fields.path("name"), &Value::from(found), &expected))
        }
        _ => Ok((id, name)),
    }
}

fn unsupported_here(param: &str, found: &Value) -> ApiError {
    unsupported(param, found, "put what matters into the content")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(values: Value) -> Result<Vec<ChatMessage>, ApiError> {
        let body = json!({ "messages": values });
        let mut fields = Fields::parse(body.to_string().as_bytes()).expect("an object");
        messages(&mut fields)
    }

    fn refused(values: Value, code: &str, param: &str) {
        let error = read(values).expect_err(param);
        assert_eq!((error.row().code, error.param()), (code, Some(param)), "{error}");
    }

    fn echoed(id: &str) -> Value {
        json!({"id": id, "type": "function", "function": {"name": "add", "arguments": "{\"a\":1}"}})
    }

    #[test]
    fn content_may_be_parts_and_roles_are_known() {
        let found = read(json!([
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "c", "refusal": null, "annotations": [], "tool_calls": null},
        ]));
        let expected = [("system", "be brief"), ("user", "ab"), ("assistant", "c")];
        let expected = expected.map(|(role, content)| ChatMessage::new(role, content));
        assert_eq!(found.expect("valid"), expected);

        let one = |value: Value| json!([value]);
        let missing = "missing_required_parameter";
        refused(one(json!({"role": "user"})), missing, "messages[0].content");
        refused(one(json!({"content": "x"})), missing, "messages[0].role");
        refused(one(json!({"role": "judge", "content": "x"})), "invalid_value", "messages[0].role");
        refused(one(json!({"role": "user", "content": 4})), "invalid_value", "messages[0].content");
        refused(one(json!("hi")), "invalid_value", "messages[0]");
        let image = json!({"role": "user", "content": [{"type": "image_url", "image_url": {}}]});
        refused(one(image), "unsupported_parameter", "messages[0].content[0].type");
        for (name, value) in [("name", json!("ada")), ("tool_calls", json!([echoed("c")]))] {
            let message = json!({"role": "user", "content": "x", name: value});
            refused(one(message), "unsupported_parameter", &format!("messages[0].{name}"));
        }
    }

    #[test]
    fn calls_and_their_results_are_read() {
        let found = read(json!([
            {"role": "assistant", "content": null, "tool_calls": [echoed("c1"), echoed("c2")]},
            {"role": "tool", "tool_call_id": "c2", "content": "2"},
            {"role": "tool", "tool_call_id": "c1", "name": "add", "content": [{"type": "text", "text": "1"}]},
        ]));
        let found = found.expect("valid");
        let call = |id: &str| ToolCall {
            id: id.into(),
            name: "add".into(),
            arguments: "{\"a\":1}".into(),
        };
        assert_eq!(
            (found[0].content.as_str(), &found[0].tool_calls),
            ("", &vec![call("c1"), call("c2")])
        );
        for (message, id, content) in [(&found[1], "c2", "2"), (&found[2], "c1", "1")] {
            let expected = ChatMessage {
                tool_call_id: Some(id.into()),
                name: Some("add".into()),
                ..ChatMessage::new("tool", content)
            };
            assert_eq!(*message, expected);
        }
    }

    #[test]
    fn what_is_wrong_with_calls_and_results_is_named() {
        let called = |call: Value| json!([{"role": "assistant", "tool_calls": [call]}]);
        let with = |name: &str, value: Value| {
            let mut call = echoed("c");
            call[name] = value;
            called(call)
        };
        let (value, missing) = ("invalid_value", "missing_required_parameter");
        refused(json!([{"role": "assistant"}]), missing, "messages[0].content");
        refused(json!([{"role": "assistant", "tool_calls": []}]), missing, "messages[0].content");
        refused(called(json!({})), missing, "messages[0].tool_calls[0].id");
        refused(
            with("type", json!("custom")),
            "unsupported_parameter",
            "messages[0].tool_calls[0].type",
        );
        refused(with("x", json!(1)), "unknown_parameter", "messages[0].tool_calls[0].x");
        let object = json!({"name": "add", "arguments": {}});
        refused(with("function", object), value, "messages[0].tool_calls[0].function.arguments");
        let older =
            json!([{"role": "assistant", "content": "x", "function_call": {"name": "add"}}]);
        refused(older, "unsupported_parameter", "messages[0].function_call");

        let result = |id: Value, name: Value| {
            let result = json!({"role": "tool", "tool_call_id": id, "name": name, "content": "1"});
            json!([{"role": "assistant", "tool_calls": [echoed("c")]}, result])
        };
        refused(result(json!(null), json!(null)), missing, "messages[1].tool_call_id");
        refused(result(json!("d"), json!(null)), value, "messages[1].tool_call_id");
        refused(result(json!("c"), json!("sub")), value, "messages[1].name");
    }
}
