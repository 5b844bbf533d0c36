//! Functions that an answer may call: what the dialects say of them alike.
//!
//! Decides how many functions there may be, what a name is and how long a schema, and that whoever must be
//! called is there. Each dialect has its own shape for a function and for the wish to call; each gives both here.
//! Whether a schema is a good one, the node decides, where it forces a call to follow it. How a model writes calls
//! is never seen here.

use crate::{
    asking::unsupported,
    error::ApiError,
    fields::{Fields, wrong},
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use talka_node::api::{ChatMessage, Grammar, Tool, ToolChoice, ToolUse};

/// Most functions of one request, OpenAI's limit.
pub const TOOLS_MAX: usize = 128;

/// The longest name of a function, OpenAI's limit.
pub const NAME_BYTES_MAX: usize = 64;

/// The longest schema of a function's arguments, in bytes of JSON. Published ones stay far below.
pub const SCHEMA_BYTES_MAX: usize = 64 << 10;

const NAME: &str = "1 to 64 letters of a-z, A-Z, 0-9, _ and -";

/// What a request may wish of functions.
#[derive(Debug, Clone, PartialEq)]
pub enum Wish {
    /// None may be called.
    None,
    /// As [`ToolChoice`] says.
    Call(ToolChoice),
}

/// The functions under `tools`, whose `values` came, each read by `read` from its place, with the path of its name.
///
/// # Errors
/// [`ApiError`] names the function and the field at fault.
pub fn functions(
    values: Vec<Value>,
    read: impl Fn(&str, Value) -> Result<(Tool, String), ApiError>,
) -> Result<Vec<Tool>, ApiError> {
    if values.len() > TOOLS_MAX {
        let expected = format!("an array of at most {TOOLS_MAX}");
        return Err(wrong("tools", &Value::from(values), &expected));
    }
    let mut names = BTreeSet::new();
    let mut tools = Vec::with_capacity(values.len());
    for (at, value) in values.into_iter().enumerate() {
        let (tool, place) = read(&format!("tools[{at}]"), value)?;
        if !names.insert(tool.name.clone()) {
            return Err(wrong(&place, &Value::from(tool.name), "another name than before"));
        }
        tools.push(tool);
    }
    Ok(tools)
}

/// What the request says of functions, if any may be called. `said` is what it said of the choice, if anything.
///
/// # Errors
/// [`ApiError::Value`] if a function must be called that is not there.
pub fn used(
    tools: Vec<Tool>,
    wish: Wish,
    parallel: bool,
    said: &Value,
) -> Result<Option<ToolUse>, ApiError> {
    let known = |name: &String| tools.iter().any(|tool| tool.name == *name);
    match wish {
        Wish::None => Ok(None),
        Wish::Call(ToolChoice::Auto) if tools.is_empty() => Ok(None),
        Wish::Call(ToolChoice::Named(name)) if !known(&name) => {
            Err(wrong("tool_choice", said, "the name of one of tools"))
        }
        Wish::Call(_) if tools.is_empty() => Err(wrong("tool_choice", said, "none without tools")),
        Wish::Call(choice) => Ok(Some(ToolUse { tools, choice, parallel })),
    }
}

/// The form of an answer that may call `tools`, and the field to name if the node refuses one: that which asked for a
/// form, else `tools`, whose schemas may prescribe one. A form beside functions is for answers that call none, so it
/// must be one that tells them apart.
///
/// # Errors
/// [`ApiError::Value`] for a form that cannot stand beside functions.
pub fn with_form(
    tools: Option<&ToolUse>,
    form: Option<(String, Grammar)>,
) -> Result<(Option<String>, Option<Grammar>), ApiError> {
    match (tools, form) {
        (Some(_), Some((name, Grammar::Regex(_) | Grammar::Lark(_)))) => {
            let expected = "none beside tools, or a JSON schema";
            Err(wrong(&name, &Value::from("another form"), expected))
        }
        (Some(_), None) => Ok((Some("tools".into()), None)),
        (_, form) => Ok(form.unzip()),
    }
}

/// `"type": "function"`; there are other kinds, which are not known here.
///
/// # Errors
/// [`ApiError`] names the field.
pub fn kind(fields: &mut Fields) -> Result<(), ApiError> {
    let kind: String = fields.required("type")?;
    if kind == "function" {
        return Ok(());
    }
    Err(unsupported(&fields.path("type"), &Value::from(kind), "functions are the only tools"))
}

/// The name of a function.
///
/// # Errors
/// [`ApiError`] if there is none, or one that is no name.
pub fn name(fields: &mut Fields) -> Result<String, ApiError> {
    let name: String = fields.required("name")?;
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_good) {
        return Ok(name);
    }
    Err(wrong(&fields.path("name"), &Value::from(name), NAME))
}

/// The schema of a function's arguments, under `field`.
///
/// # Errors
/// [`ApiError::Value`] if it is no schema of an object, or too long.
pub fn schema(fields: &mut Fields, field: &str) -> Result<Option<Value>, ApiError> {
    let place = fields.path(field);
    let Some(schema) = fields.take(field) else { return Ok(None) };
    let of_object = |kind: &Value| kind == "object";
    if !schema.is_object() || !schema.get("type").is_none_or(of_object) {
        return Err(wrong(&place, &schema, "a JSON schema of an object"));
    }
    let size = schema.to_string().len();
    if size > SCHEMA_BYTES_MAX {
        let expected = format!("a schema of at most {SCHEMA_BYTES_MAX} bytes");
        return Err(wrong(&place, &Value::from(format!("{size} bytes")), &expected));
    }
    Ok(Some(schema))
}

/// The functions that a conversation called so far, by the ids of their calls.
#[derive(Debug, Default)]
pub struct Called(BTreeMap<String, String>);

impl Called {
    /// Takes note of the calls of a message.
    pub fn note(&mut self, message: &ChatMessage) {
        self.0.extend(message.tool_calls.iter().map(|call| (call.id.clone(), call.name.clone())));
    }

    /// The function whose call has the id that `fields` names under `field`, and that id.
    ///
    /// # Errors
    /// [`ApiError`] if nothing before was called by that id.
    pub fn answered(&self, fields: &mut Fields, field: &str) -> Result<(String, String), ApiError> {
        let id: String = fields.required(field)?;
        match self.0.get(&id) {
            Some(name) => Ok((id, name.clone())),
            None => {
                let expected = "the id of a call before it";
                Err(wrong(&fields.path(field), &Value::from(id), expected))
            }
        }
    }
}

/// What a call came back with, as a message.
pub fn result(id: String, name: String, content: String) -> ChatMessage {
    ChatMessage { tool_call_id: Some(id), name: Some(name), ..ChatMessage::new("tool", content) }
}
