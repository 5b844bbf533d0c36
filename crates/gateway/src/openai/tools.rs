//! Functions that an answer may call, in the words of Chat Completions.

use crate::{
    error::ApiError,
    fields::{Fields, wrong},
    functions::{self, Wish},
};
use serde_json::Value;
use talka_node::api::{Tool, ToolChoice, ToolUse};

/// `tools`, `tool_choice` and `parallel_tool_calls`; nothing if no function may be called.
///
/// # Errors
/// [`ApiError`] names the field at fault.
pub fn wish(body: &mut Fields) -> Result<Option<ToolUse>, ApiError> {
    let tools = functions::functions(body.optional("tools")?.unwrap_or_default(), function)?;
    let parallel = body.optional("parallel_tool_calls")?.unwrap_or(true);
    let said = body.take("tool_choice").unwrap_or_else(|| "auto".into());
    functions::used(tools, choice(said.clone(), nested_name)?, parallel, &said)
}

/// `{"type": "function", "function": {"name", "description", "parameters", "strict"}}`.
fn function(place: &str, value: Value) -> Result<(Tool, String), ApiError> {
    let mut fields = Fields::nested(place, value)?;
    functions::kind(&mut fields)?;
    let mut inner = Fields::nested(&fields.path("function"), fields.required("function")?)?;
    fields.finish()?;
    let tool = Tool {
        name: functions::name(&mut inner)?,
        description: inner.optional("description")?,
        parameters: functions::schema(&mut inner, "parameters")?,
        strict: inner.optional("strict")?.unwrap_or(false),
    };
    let named = inner.path("name");
    inner.finish()?;
    Ok((tool, named))
}

/// `"none"`, `"auto"`, `"required"` or an object of type `function` whose name `named` reads.
///
/// # Errors
/// [`ApiError`] for any other choice.
pub fn choice(
    value: Value,
    named: impl Fn(&mut Fields) -> Result<String, ApiError>,
) -> Result<Wish, ApiError> {
    match value.as_str() {
        Some("none") => return Ok(Wish::None),
        Some("auto") => return Ok(Wish::Call(ToolChoice::Auto)),
        Some("required") => return Ok(Wish::Call(ToolChoice::Required)),
        Some(_) => {
            let expected = "\"none\", \"auto\", \"required\" or one function";
            return Err(wrong("tool_choice", &value, expected));
        }
        None => {}
    }
    let mut fields = Fields::nested("tool_choice", value)?;
    functions::kind(&mut fields)?;
    let name = named(&mut fields)?;
    fields.finish()?;
    Ok(Wish::Call(ToolChoice::Named(name)))
}

/// `{"function": {"name"}}`.
fn nested_name(fields: &mut Fields) -> Result<String, ApiError> {
    let mut inner = Fields::nested(&fields.path("function"), fields.required("function")?)?;
    let name = functions::name(&mut inner)?;
    inner.finish()?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::{NAME_BYTES_MAX, SCHEMA_BYTES_MAX, TOOLS_MAX, with_form};
    use serde_json::json;
    use talka_node::api::Grammar;

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
        let found = |grammar: Grammar| with_form(wish.as_ref(), Some(form(grammar)));
        assert!(found(Grammar::JsonObject).is_ok());
        let error = found(Grammar::Regex("a".into())).expect_err("no way to tell");
        assert_eq!(error.param(), Some("guided"));
        assert!(with_form(None, Some(form(Grammar::Regex("a".into())))).is_ok());
    }
}
