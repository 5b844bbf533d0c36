//! What was said so far, in the words of the Messages API.
//!
//! Decides how its messages become a conversation: texts of one message, and messages of one speaker that follow each
//! other, are joined by a line break, because chat templates know one text a turn and many of them two speakers that
//! take turns. What calls came back with stands in the user's messages; each becomes a message of its own, before
//! what the user says besides. A call that failed is marked by a word, since templates have no other sign.

use crate::{
    asking::{self, Parts, unsupported},
    error::ApiError,
    fields::{Fields, wrong},
    functions::{self, Called},
};
use serde_json::{Map, Value};
use talka_node::api::{ChatMessage, ToolCall};

/// Who may speak.
const ROLES: [&str; 3] = ["system", "user", "assistant"];

/// Marks for Anthropic's cache change nothing here: equal beginnings are computed once anyway.
const PARTS: Parts =
    Parts { kinds: &["text"], labels: &["cache_control"], empty: &["citations"], glue: "\n" };

/// Before the result of a call that failed.
const FAILED: &str = "Error: ";

/// What the system says, then the messages, no two of one speaker in a row.
///
/// # Errors
/// [`ApiError`] names the message and the field at fault.
pub fn conversation(body: &mut Fields) -> Result<Vec<ChatMessage>, ApiError> {
    let system = body.take("system").map(|value| asking::content("system", value, &PARTS));
    let system = system.transpose()?.map(|content| ChatMessage::new("system", content));
    let messages: Vec<Value> = body.required("messages")?;
    if messages.is_empty() {
        return Err(wrong("messages", &Value::from(messages), "at least one message"));
    }
    let last = messages.len() - 1;
    let mut turns: Vec<ChatMessage> = system.into_iter().collect();
    let mut called = Called::default();
    for (at, value) in messages.into_iter().enumerate() {
        let turn = turn(&format!("messages[{at}]"), value, &called)?;
        called.note(&turn.said);
        turns.extend(turn.results);
        join(&mut turns, turn.said);
    }
    if turns.last().is_some_and(|turn| turn.role == "assistant") {
        let instead = "answers do not go on with a given beginning: end with a message of the user";
        return Err(unsupported(&format!("messages[{last}].role"), &"assistant".into(), instead));
    }
    Ok(turns)
}

/// Adds `said`, unless it says nothing, to the turn before if that is the same speaker's.
fn join(turns: &mut Vec<ChatMessage>, said: ChatMessage) {
    match turns.last_mut() {
        Some(before) if before.role == "tool" && said.content.is_empty() => {}
        Some(before) if before.role == said.role => {
            if !before.content.is_empty() && !said.content.is_empty() {
                before.content.push_str(PARTS.glue);
            }
            before.content.push_str(&said.content);
            before.tool_calls.extend(said.tool_calls);
        }
        _ => turns.push(said),
    }
}

/// One message.
struct Turn {
    results: Vec<ChatMessage>,
    /// Its text and its calls.
    said: ChatMessage,
}

fn turn(place: &str, value: Value, called: &Called) -> Result<Turn, ApiError> {
    let mut fields = Fields::nested(place, value)?;
    let role = asking::role(&mut fields, &ROLES)?;
    let place = fields.path("content");
    let content = fields.required("content")?;
    fields.finish()?;
    let mut turn = Turn { results: Vec::new(), said: ChatMessage::new(role, "") };
    let blocks = match content {
        Value::Array(blocks) => blocks,
        text => {
            turn.said.content = asking::content(&place, text, &PARTS)?;
            return Ok(turn);
        }
    };
    let mut texts = Vec::new();
    for (at, value) in blocks.into_iter().enumerate() {
        let place = format!("{place}[{at}]");
        match (value.get("type").and_then(Value::as_str), turn.said.role.as_str()) {
            (Some("tool_use"), "assistant") => turn.said.tool_calls.push(call(&place, value)?),
            (Some("tool_result"), "user") => turn.results.push(result(&place, value, called)?),
            _ => texts.push(asking::text_part(&place, value, &PARTS)?),
        }
    }
    turn.said.content = texts.join(PARTS.glue);
    Ok(turn)
}

/// `{"type": "tool_use", "id", "name", "input"}`.
fn call(place: &str, value: Value) -> Result<ToolCall, ApiError> {
    let mut fields = block(place, value)?;
    let id = fields.required("id")?;
    let name = functions::name(&mut fields)?;
    let input: Map<String, Value> = fields.required("input")?;
    fields.finish()?;
    Ok(ToolCall { id, name, arguments: Value::Object(input).to_string() })
}

/// `{"type": "tool_result", "tool_use_id", "content", "is_error"}`.
fn result(place: &str, value: Value, called: &Called) -> Result<ChatMessage, ApiError> {
    let mut fields = block(place, value)?;
    let (id, name) = called.answered(&mut fields, "tool_use_id")?;
    let place = fields.path("content");
    let content = fields.take("content").map(|value| asking::content(&place, value, &PARTS));
    let mut content = content.transpose()?.unwrap_or_default();
    if fields.optional("is_error")? == Some(true) {
        content.insert_str(0, FAILED);
    }
    fields.finish()?;
    Ok(functions::result(id, name, content))
}

/// A block whose type is known already.
fn block(place: &str, value: Value) -> Result<Fields, ApiError> {
    let mut fields = Fields::nested(place, value)?;
    for known in ["type", "cache_control"] {
        fields.take(known);
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: &Value) -> Result<Vec<ChatMessage>, ApiError> {
        conversation(&mut Fields::parse(body.to_string().as_bytes()).expect("an object"))
    }

    fn refused(messages: Value, code: &str, param: &str) {
        let error = read(&json!({"messages": messages})).expect_err(param);
        assert_eq!((error.row().code, error.param()), (code, Some(param)), "{error}");
        assert_eq!(error.row().status.as_u16(), 400);
    }

    fn said(role: &str, content: &str) -> ChatMessage {
        ChatMessage::new(role, content)
    }

    fn uses(id: &str) -> Value {
        json!({"type": "tool_use", "id": id, "name": "roll", "input": {"b": 1, "a": 2}})
    }

    #[test]
    fn blocks_and_turns_of_one_speaker_are_joined() {
        let blocks = |texts: [&str; 2]| {
            let block = |text| json!({"type": "text", "text": text, "cache_control": {"type": "ephemeral"}});
            json!(texts.map(block))
        };
        let found = read(&json!({
            "system": blocks(["be brief", "rhyme"]),
            "messages": [
                {"role": "user", "content": blocks(["a", "b"])},
                {"role": "user", "content": "c"},
                {"role": "assistant", "content": [{"type": "text", "text": "d", "citations": null}]},
                {"role": "user", "content": "e"},
            ],
        }));
        let expected = [
            said("system", "be brief\nrhyme"),
            said("user", "a\nb\nc"),
            said("assistant", "d"),
            said("user", "e"),
        ];
        assert_eq!(found.expect("valid"), expected);
    }

    #[test]
    fn calls_and_what_they_came_back_with_are_turns() {
        let result = |id: &str, extra: Value| {
            let mut block = json!({"type": "tool_result", "tool_use_id": id});
            block
                .as_object_mut()
                .expect("an object")
                .extend(extra.as_object().expect("an object").clone());
            block
        };
        let found = read(&json!({"messages": [
            {"role": "user", "content": "Roll."},
            {"role": "assistant", "content": [{"type": "text", "text": "So:"}, uses("a"), uses("b")]},
            {"role": "user", "content": [
                result("b", json!({"content": "5"})),
                result("a", json!({"content": [{"type": "text", "text": "no die"}], "is_error": true})),
                {"type": "text", "text": "Well?"},
            ]},
            {"role": "assistant", "content": [uses("c")]},
            {"role": "user", "content": [result("c", json!({}))]},
        ]}));
        let call = |id: &str| {
            let arguments = "{\"b\":1,\"a\":2}".into();
            ToolCall { id: id.into(), name: "roll".into(), arguments }
        };
        let result =
            |id: &str, content: &str| functions::result(id.into(), "roll".into(), content.into());
        let expected = [
            said("user", "Roll."),
            ChatMessage { tool_calls: vec![call("a"), call("b")], ..said("assistant", "So:") },
            result("b", "5"),
            result("a", "Error: no die"),
            said("user", "Well?"),
            ChatMessage { tool_calls: vec![call("c")], ..said("assistant", "") },
            result("c", ""),
        ];
        assert_eq!(found.expect("valid"), expected);
    }

    #[test]
    fn messages_that_are_none_are_refused_by_name() {
        let one = |value: Value| json!([value]);
        let (value, missing) = ("invalid_value", "missing_required_parameter");
        refused(json!([]), value, "messages");
        refused(one(json!({"role": "tool", "content": "x"})), value, "messages[0].role");
        refused(one(json!({"role": "user"})), missing, "messages[0].content");
        let named = json!({"role": "user", "content": "x", "name": "a"});
        refused(one(named), "unknown_parameter", "messages[0].name");
        for kind in ["image", "document", "tool_use", "thinking"] {
            let message = json!({"role": "user", "content": [{"type": kind}]});
            refused(one(message), "unsupported_parameter", "messages[0].content[0].type");
        }
        let cited =
            json!({"role": "user", "content": [{"type": "text", "text": "x", "citations": [{}]}]});
        refused(one(cited), "unsupported_parameter", "messages[0].content[0].citations");
        let begun = json!([
            {"role": "user", "content": "hi"}, {"role": "assistant", "content": "Well,"},
        ]);
        refused(begun, "unsupported_parameter", "messages[1].role");
        let orphan = json!({"type": "tool_result", "tool_use_id": "x", "content": "5"});
        let orphan = json!({"role": "user", "content": [orphan]});
        refused(one(orphan), value, "messages[0].content[0].tool_use_id");
        let mut listed = uses("a");
        listed["input"] = json!([]);
        let listed = json!({"role": "assistant", "content": [listed]});
        refused(one(listed), value, "messages[0].content[0].input");
        assert_eq!(
            read(&json!({"system": 5, "messages": []})).expect_err("no text").param(),
            Some("system")
        );
    }
}
