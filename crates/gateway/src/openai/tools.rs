//! Functions that an answer may call, in OpenAI's words.
//!
//! Decides what may be said of functions: their names, how many there are and how long they may be, and whether
//! they are called. Whether a schema is a good one, the node decides, where it forces a call to follow it. How a
//! model writes calls is never seen here.

use crate::{
    error::ApiError,
    fields::{Fields, shown, wrong},
};
use serde_json::Value;
use std::collections::BTreeSet;
use talka_node::api::{Grammar, Tool, ToolChoice, ToolUse};

/// Most functions of one request, OpenAI's limit.
const TOOLS_MAX: usize = 128;

/// The longest name of a function, OpenAI's limit.
const NAME_BYTES_MAX: usize = 64;

/// The longest schema of a function's arguments, in bytes of JSON. Published ones stay far below.
const SCHEMA_BYTES_MAX: usize = 64 << 10;

const NAME: &str = "1 to 64 letters of a-z, A-Z, 0-9, _ and -";

/// `tools`, `tool_choice` and `parallel_tool_calls`; nothing if no function may be called.
///
/// # Errors
/// [`ApiError`] names the field at fault.
pub fn wish(body: &mut Fields) -> Result<Option<ToolUse>, ApiError> {
    let tools = functions(body)?;
    let parallel = body.optional("parallel_tool_calls")?.unwrap_or(true);
    let Some(value) = body.take("tool_choice") else { return Ok(used(tools, parallel)) };
    let choice = choice(value.clone())?;
    let known = |name: &String| tools.iter().any(|tool| tool.name == *name);
    match choice {
        None => Ok(None),
        Some(ToolChoice::Auto) => Ok(used(tools, parallel)),
        Some(ToolChoice::Named(name)) if !known(&name) => {
            Err(wrong("tool_choice", &value, "the name of one of tools"))
        }
        Some(_) if tools.is_empty() => Err(wrong("tool_choice", &value, "none without tools")),
        Some(choice) => Ok(Some(ToolUse { tools, choice, parallel })),
    }
}

/// A form beside functions is for answers that call none, so it must be one that tells them apart.
///
/// # Errors
/// [`ApiError::Value`] for a form that cannot stand beside them.
pub fn check_form(
    tools: Option<&ToolUse>,
    form: Option<&(String, Grammar)>,
) -> Result<(), ApiError> {
    match (tools, form) {
        (Some(_), Some((name, Grammar::Regex(_) | Grammar::Lark(_)))) => {
            let expected = "none beside tools, or a JSON schema";
            Err(wrong(name, &Value::from("another form"), expected))
        }
        _ => Ok(()),
    }
}

fn used(tools: Vec<Tool>, parallel: bool) -> Option<ToolUse> {
    (!tools.is_empty()).then_some(ToolUse { tools, choice: ToolChoice::Auto, parallel })
}

fn functions(body: &mut Fields) -> Result<Vec<Tool>, ApiError> {
    let values = body.optional::<Vec<Value>>("tools")?.unwrap_or_default();
    if values.len() > TOOLS_MAX {
        let expected = format!("an array of at most {TOOLS_MAX}");
        return Err(wrong("tools", &Value::from(values), &expected));
    }
    let mut names = BTreeSet::new();
    let mut tools = Vec::with_capacity(values.len());
    for (at, value) in values.into_iter().enumerate() {
        let place = format!("tools[{at}]");
        let tool = function(&place, value)?;
        if !names.insert(tool.name.clone()) {
            let found = Value::from(tool.name);
            return Err(wrong(
                &format!("{place}.function.name"),
                &found,
                "another name than before",
            ));
        }
        tools.push(tool);
    }
    Ok(tools)
}

/// `{"type": "function", "function": {"name", "description", "parameters", "strict"}}`.
fn function(place: &str, value: Value) -> Result<Tool, ApiError> {
    let mut fields = Fields::nested(place, value)?;
    kind(&mut fields)?;
    let mut inner = Fields::nested(&fields.path("function"), fields.required("function")?)?;
    fields.finish()?;
    let tool = Tool {
        name: name(&mut inner)?,
        description: inner.optional("description")?,
        parameters: parameters(&mut inner)?,
        strict: inner.optional("strict")?.unwrap_or(false),
    };
    inner.finish()?;
    Ok(tool)
}

/// `"type": "function"`; there are other kinds, which are not known here.
pub(super) fn kind(fields: &mut Fields) -> Result<(), ApiError> {
    let kind: String = fields.required("type")?;
    if kind == "function" {
        return Ok(());
    }
    Err(ApiError::Unsupported {
        param: fields.path("type"),
        found: shown(&Value::from(kind)),
        instead: "functions are the only tools".into(),
    })
}

/// The name of a function.
pub(super) fn name(fields: &mut Fields) -> Result<String, ApiError> {
    let name: String = fields.required("name")?;
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_good) {
        return Ok(name);
    }
    Err(wrong(&fields.path("name"), &Value::from(name), NAME))
}

fn parameters(fields: &mut Fields) -> Result<Option<Value>, ApiError> {
    let place = fields.path("parameters");
    let Some(schema) = fields.take("parameters") else { return Ok(None) };
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

/// `"none"`, `"auto"`, `"required"` or `{"type": "function", "function": {"name"}}`.
fn choice(value: Value) -> Result<Option<ToolChoice>, ApiError> {
    match value.as_str() {
        Some("none") => return Ok(None),
        Some("auto") => return Ok(Some(ToolChoice::Auto)),
        Some("required") => return Ok(Some(ToolChoice::Required)),
        Some(_) => {
            let expected = "\"none\", \"auto\", \"required\" or one function";
            return Err(wrong("tool_choice", &value, expected));
        }
        None => {}
    }
    let mut fields = Fields::nested("tool_choice", value)?;
    kind(&mut fields)?;
    let mut inner = Fields::nested(&fields.path("function"), fields.required("function")?)?;
    fields.finish()?;
    let name = name(&mut inner)?;
    inner.finish()?;
    Ok(Some(ToolChoice::Named(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: &Value) -> Result<Option<ToolUse>, ApiError> {
        let mut fields = Fields::parse(body.to_string().as_bytes()).expect("an object");
        let wish = wish(&mut fields)?;
        fields.finish()?;
        Ok(wish)
    }

    fn tool(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name}})
    }

    fn refused(body: Value, code: &str, param: &str) {
        let error = read(&body).expect_err(param);
        assert_eq!((error.row().code, error.param()), (code, Some(param)), "{error}");
    }

    #[test]
    fn functions_are_read_with_all_that_is_said_of_them() {
        let schema = json!({"type": "object", "properties": {"b": {}, "a": {}}});
        let body = json!({"parallel_tool_calls": false, "tools": [tool("now"), {"type": "function",
            "function": {"name": "add", "description": "d", "parameters": schema, "strict": true}}]});
        let wish = read(&body).expect("valid").expect("functions");
        assert_eq!((wish.choice, wish.parallel), (ToolChoice::Auto, false));
        let now = Tool { name: "now".into(), description: None, parameters: None, strict: false };
        let add = Tool {
            name: "add".into(),
            description: Some("d".into()),
            parameters: Some(schema.clone()),
            strict: true,
        };
        assert_eq!(wish.tools, [now, add]);
        // Models are shown the parts of a schema in the order of whoever wrote it.
        let text = wish.tools[1].parameters.as_ref().map(Value::to_string);
        assert_eq!(text, Some(schema.to_string()));
    }

    #[test]
    fn whether_functions_are_called_is_read() {
        let choice = |choice: Value| {
            let body = json!({"tools": [tool("now")], "tool_choice": choice});
            read(&body).expect("valid").map(|wish| wish.choice)
        };
        assert_eq!(choice(json!("none")), None);
        assert_eq!(choice(json!("auto")), Some(ToolChoice::Auto));
        assert_eq!(choice(json!("required")), Some(ToolChoice::Required));
        assert_eq!(choice(tool("now")), Some(ToolChoice::Named("now".into())));
        for nothing in [json!({}), json!({"tools": []}), json!({"tool_choice": "auto"})] {
            assert_eq!(read(&nothing).expect("valid"), None);
        }
    }

    #[test]
    fn what_is_wrong_with_functions_is_named() {
        let with = |function: Value| json!({"tools": [{"type": "function", "function": function}]});
        let value = "invalid_value";
        refused(json!({"tools": {}}), value, "tools");
        refused(json!({"tools": vec![tool("x"); TOOLS_MAX + 1]}), value, "tools");
        refused(json!({"tools": [5]}), value, "tools[0]");
        refused(json!({"tools": [tool("x"), tool("x")]}), value, "tools[1].function.name");
        for bad in ["", "a b", "é", &"x".repeat(NAME_BYTES_MAX + 1)] {
            refused(json!({"tools": [tool(bad)]}), value, "tools[0].function.name");
        }
        refused(with(json!({})), "missing_required_parameter", "tools[0].function.name");
        refused(
            with(json!({"name": "x", "code": 1})),
            "unknown_parameter",
            "tools[0].function.code",
        );
        refused(with(json!({"name": "x", "strict": 1})), value, "tools[0].function.strict");
        for schema in [json!([]), json!("x"), json!({"type": "string"})] {
            let function = json!({"name": "x", "parameters": schema});
            refused(with(function), value, "tools[0].function.parameters");
        }
        let long = json!({"name": "x", "parameters": {"title": "x".repeat(SCHEMA_BYTES_MAX)}});
        refused(with(long), value, "tools[0].function.parameters");
        let custom = json!({"tools": [{"type": "custom", "custom": {"name": "x"}}]});
        refused(custom, "unsupported_parameter", "tools[0].type");
        refused(json!({"parallel_tool_calls": 1}), value, "parallel_tool_calls");
    }

    #[test]
    fn what_is_wrong_with_a_choice_is_named() {
        let with = |choice: Value| json!({"tools": [tool("x")], "tool_choice": choice});
        let value = "invalid_value";
        refused(with(json!("any")), value, "tool_choice");
        refused(with(json!(5)), value, "tool_choice");
        refused(with(tool("y")), value, "tool_choice");
        refused(json!({"tool_choice": "required"}), value, "tool_choice");
        refused(json!({"tool_choice": tool("x")}), value, "tool_choice");
        let allowed = json!({"type": "allowed_tools", "allowed_tools": {}});
        refused(with(allowed), "unsupported_parameter", "tool_choice.type");
    }

    #[test]
    fn a_form_beside_functions_is_json() {
        let wish = read(&json!({"tools": [tool("x")]})).expect("valid");
        let form = |form: Grammar| ("guided".to_owned(), form);
        let found = |grammar: Grammar| check_form(wish.as_ref(), Some(&form(grammar)));
        assert!(found(Grammar::JsonObject).is_ok());
        let error = found(Grammar::Regex("a".into())).expect_err("no way to tell");
        assert_eq!(error.param(), Some("guided"));
        assert!(check_form(None, Some(&form(Grammar::Regex("a".into())))).is_ok());
    }
}
