//! The items of a conversation, in the words of the Responses API.
//!
//! Decides which items there are: messages of text, calls of functions and what they came back with; any other is
//! refused by its type. What one turn of an assistant said and called is one message, as chat templates want it.

use crate::{
    asking::{self, Parts, unsupported},
    error::ApiError,
    fields::{Fields, wrong},
    functions::{self, Called},
};
use serde_json::Value;
use talka_node::api::{ChatMessage, ToolCall};

/// Who may speak.
const ROLES: [&str; 4] = ["system", "developer", "user", "assistant"];

/// Parts are joined without anything between them.
const PARTS: Parts = Parts {
    kinds: &["input_text", "output_text"],
    labels: &["logprobs", "prompt_cache_breakpoint"],
    empty: &["annotations"],
    glue: "",
};

/// What an earlier response said of an item.
const LABELS: [&str; 3] = ["id", "status", "phase"];

/// `instructions` come first, as the system's words.
///
/// # Errors
/// [`ApiError`] names the item and the field at fault.
pub fn messages(instructions: Option<String>, input: Value) -> Result<Vec<ChatMessage>, ApiError> {
    let mut messages: Vec<ChatMessage> = Vec::new();
    messages.extend(instructions.map(|text| ChatMessage::new("system", text)));
    let items = match input {
        Value::String(text) => {
            messages.push(ChatMessage::new("user", text));
            return Ok(messages);
        }
        Value::Array(items) if !items.is_empty() => items,
        other => return Err(wrong("input", &other, "text or an array of at least one item")),
    };
    let mut called = Called::default();
    for (at, value) in items.into_iter().enumerate() {
        let message = item(Fields::nested(&format!("input[{at}]"), value)?, &called)?;
        called.note(&message);
        match messages.last_mut() {
            Some(last) if !message.tool_calls.is_empty() && last.role == "assistant" => {
                last.tool_calls.extend(message.tool_calls);
            }
            _ => messages.push(message),
        }
    }
    Ok(messages)
}

fn item(mut fields: Fields, called: &Called) -> Result<ChatMessage, ApiError> {
    let kind: Option<String> = fields.optional("type")?;
    let read = match kind.as_deref() {
        None | Some("message") => message(&mut fields)?,
        Some("function_call") => call(&mut fields)?,
        Some("function_call_output") => output(&mut fields, called)?,
        Some(other) => {
            let instead = "items are messages of text, calls of functions and their outputs";
            return Err(unsupported(&fields.path("type"), &Value::from(other), instead));
        }
    };
    for label in LABELS {
        fields.optional::<String>(label)?;
    }
    fields.finish()?;
    Ok(read)
}

/// One that the caller wrote, or that an earlier response said.
fn message(fields: &mut Fields) -> Result<ChatMessage, ApiError> {
    let role = asking::role(fields, &ROLES)?;
    let place = fields.path("content");
    let content = asking::content(&place, fields.required("content")?, &PARTS)?;
    Ok(ChatMessage::new(role, content))
}

/// `{"type": "function_call", "call_id", "name", "arguments"}`.
fn call(fields: &mut Fields) -> Result<ChatMessage, ApiError> {
    let call = ToolCall {
        id: fields.required("call_id")?,
        name: functions::name(fields)?,
        arguments: fields.required("arguments")?,
    };
    Ok(ChatMessage { tool_calls: vec![call], ..ChatMessage::new("assistant", "") })
}

/// `{"type": "function_call_output", "call_id", "output"}`.
fn output(fields: &mut Fields, called: &Called) -> Result<ChatMessage, ApiError> {
    let (id, name) = called.answered(fields, "call_id")?;
    let place = fields.path("output");
    let content = asking::content(&place, fields.required("output")?, &PARTS)?;
    Ok(functions::result(id, name, content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(items: Value, code: &str, param: &str) {
        let error = messages(None, items).expect_err(param);
        assert_eq!((error.row().code, error.param()), (code, Some(param)), "{error}");
    }

    fn said(role: &str, content: &str) -> ChatMessage {
        ChatMessage::new(role, content)
    }

    fn calls(id: &str) -> Value {
        json!({
            "type": "function_call", "id": "fc_1", "status": "completed", "call_id": id,
            "name": "roll", "arguments": "{}",
        })
    }

    #[test]
    fn items_may_be_messages_of_text() {
        let found = messages(
            Some("rhyme".into()),
            json!([
                {"role": "developer", "content": "briefly"},
                {"type": "message", "role": "user", "content": [
                    {"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"},
                ]},
                {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [
                    {"type": "output_text", "text": "c", "annotations": [], "logprobs": []},
                ]},
            ]),
        );
        let expected = [
            said("system", "rhyme"),
            said("system", "briefly"),
            said("user", "ab"),
            said("assistant", "c"),
        ];
        assert_eq!(found.expect("valid"), expected);
    }

    #[test]
    fn what_a_turn_said_and_called_is_one_message() {
        let output = |id: &str, output: Value| json!({"type": "function_call_output", "call_id": id, "output": output});
        let found = messages(
            None,
            json!([
                {"role": "user", "content": "Roll."}, {"role": "assistant", "content": "So:"},
                calls("a"), calls("b"), output("b", json!("5")),
                output("a", json!([{"type": "input_text", "text": "6"}])),
                calls("c"),
            ]),
        );
        let call =
            |id: &str| ToolCall { id: id.into(), name: "roll".into(), arguments: "{}".into() };
        let result =
            |id: &str, content: &str| functions::result(id.into(), "roll".into(), content.into());
        let expected = [
            said("user", "Roll."),
            ChatMessage { tool_calls: vec![call("a"), call("b")], ..said("assistant", "So:") },
            result("b", "5"),
            result("a", "6"),
            ChatMessage { tool_calls: vec![call("c")], ..said("assistant", "") },
        ];
        assert_eq!(found.expect("valid"), expected);
    }

    #[test]
    fn what_is_wrong_with_an_item_is_named() {
        let one = |item: Value| json!([item]);
        let (value, missing) = ("invalid_value", "missing_required_parameter");
        refused(json!([]), value, "input");
        refused(json!(7), value, "input");
        refused(one(json!("hi")), value, "input[0]");
        refused(one(json!({"role": "tool", "content": "x"})), value, "input[0].role");
        refused(one(json!({"role": "user"})), missing, "input[0].content");
        let orphan = json!({"type": "function_call_output", "call_id": "1", "output": "x"});
        refused(one(orphan), value, "input[0].call_id");
        let silent = json!({"type": "function_call_output", "call_id": "a"});
        refused(json!([calls("a"), silent]), missing, "input[1].output");
        let nameless = json!({"type": "function_call", "call_id": "a", "arguments": "{}"});
        refused(one(nameless), missing, "input[0].name");
        let shell = json!({"type": "local_shell_call", "call_id": "a"});
        refused(one(shell), "unsupported_parameter", "input[0].type");
        let image = json!({"role": "user", "content": [{"type": "input_image"}]});
        refused(one(image), "unsupported_parameter", "input[0].content[0].type");
        let cited = json!({"role": "assistant", "content": [
            {"type": "output_text", "text": "c", "annotations": [{}]},
        ]});
        refused(one(cited), "unsupported_parameter", "input[0].content[0].annotations");
        let named = json!({"role": "user", "content": "x", "name": "a"});
        refused(one(named), "unknown_parameter", "input[0].name");
    }
}
