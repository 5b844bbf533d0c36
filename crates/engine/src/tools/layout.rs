//! Functions, calls and results in the messages that a template gets.
//!
//! Decides how a conversation must be changed so that a template takes it. In the generic way calls and results
//! become plain messages of assistant and user, and the functions are described in the system's message, or,
//! for templates that refuse one, in the user's first. The templates of Llama 3 take one call a message, those
//! of Mistral take ids of nine letters or digits only.

use super::{Tool, ToolCall, ToolFormat};
use crate::template::{ChatMessage, json::written};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// `messages` as a template takes them for a model of `format`; and how else, should it refuse them.
pub(crate) fn laid_out(
    format: ToolFormat,
    messages: &[ChatMessage],
    tools: &[Tool],
) -> (Vec<ChatMessage>, Option<Vec<ChatMessage>>) {
    match format {
        ToolFormat::Hermes => (messages.to_vec(), None),
        ToolFormat::Llama3 => (messages.iter().flat_map(one_by_one).collect(), None),
        ToolFormat::Mistral => (with_short_ids(messages), None),
        ToolFormat::Generic => {
            let plain = plain(messages);
            match tools {
                [] => (plain, None),
                tools => described(&plain, &description(tools)),
            }
        }
    }
}

/// A message with several calls as several messages.
fn one_by_one(message: &ChatMessage) -> Vec<ChatMessage> {
    if message.tool_calls.len() < 2 {
        return vec![message.clone()];
    }
    let calls = message.tool_calls.iter().enumerate();
    let one = calls.map(|(at, call)| ChatMessage {
        content: if at == 0 { message.content.clone() } else { String::new() },
        tool_calls: vec![call.clone()],
        ..message.clone()
    });
    one.collect()
}

/// Ids numbered in the order in which they come: the same conversation gets the same prompt.
fn with_short_ids(messages: &[ChatMessage]) -> Vec<ChatMessage> {
    let mut short = BTreeMap::new();
    let mut shorten = |id: &str| {
        let number = short.len();
        short.entry(id.to_owned()).or_insert_with(|| format!("{number:09}")).clone()
    };
    let mut messages = messages.to_vec();
    for message in &mut messages {
        for call in &mut message.tool_calls {
            call.id = shorten(&call.id);
        }
        if let Some(id) = &mut message.tool_call_id {
            *id = shorten(id);
        }
    }
    messages
}

/// Calls as the text that the model wrote, results as the user's words. Results that follow each other are one
/// message: many templates want user and assistant in turn.
fn plain(messages: &[ChatMessage]) -> Vec<ChatMessage> {
    let mut plain: Vec<ChatMessage> = Vec::with_capacity(messages.len());
    let mut after_result = false;
    for message in messages {
        let is_result = message.role == "tool";
        match plain.last_mut() {
            Some(last) if is_result && after_result => {
                last.content.push('\n');
                last.content += &result(message);
            }
            _ if is_result => plain.push(ChatMessage::new("user", result(message))),
            _ => plain.push(ChatMessage::new(message.role.as_str(), said(message))),
        }
        after_result = is_result;
    }
    plain
}

fn result(message: &ChatMessage) -> String {
    match &message.name {
        Some(name) => format!("{name} returned: {}", message.content),
        None => message.content.clone(),
    }
}

/// Text and calls, one a line.
fn said(message: &ChatMessage) -> String {
    let text = Some(message.content.clone()).filter(|text| !text.is_empty());
    let lines: Vec<String> = text.into_iter().chain(message.tool_calls.iter().map(call)).collect();
    lines.join("\n")
}

fn call(call: &ToolCall) -> String {
    let object: Option<Map<String, Value>> = serde_json::from_str(&call.arguments).ok();
    let arguments = object.map_or_else(|| call.arguments.as_str().into(), Value::from);
    line(&json!({"name": call.name, "arguments": arguments}))
}

fn line(value: &Value) -> String {
    written(value, None).expect("a JSON value is JSON")
}

/// What a model without a format of its own is told.
fn description(tools: &[Tool]) -> String {
    let functions: Vec<String> = tools.iter().map(|tool| line(&tool.described())).collect();
    format!(
        "Functions:\n{}\nTo call one, answer only {{\"name\": NAME, \"arguments\": {{...}}}}, \
         one call a line.",
        functions.join("\n")
    )
}

/// `description` behind the system's message or as one; and in the second case, in the user's first.
fn described(
    messages: &[ChatMessage],
    description: &str,
) -> (Vec<ChatMessage>, Option<Vec<ChatMessage>>) {
    let joined = |first: &str, second: &str| format!("{first}\n\n{second}");
    let mut with_system = messages.to_vec();
    if let Some(system) = with_system.first_mut().filter(|first| first.role == "system") {
        system.content = joined(&system.content, description);
        return (with_system, None);
    }
    with_system.insert(0, ChatMessage::new("system", description));
    let mut with_user = messages.to_vec();
    let user = with_user.iter_mut().find(|message| message.role == "user");
    let second = user.is_some_and(|user| {
        user.content = joined(description, &user.content);
        true
    });
    (with_system, second.then_some(with_user))
}
