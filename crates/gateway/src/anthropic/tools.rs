//! Functions that a message may call, in the words of the Messages API.

use crate::{
    asking::{self, Unsupported, unsupported},
    error::ApiError,
    fields::{Fields, wrong},
    functions::{self, Wish},
};
use serde_json::{Value, json};
use talka_node::api::{Tool, ToolChoice, ToolUse};

/// What functions lack here.
const UNSUPPORTED: [Unsupported; 3] = [
    ("allowed_callers", &[r#"["direct"]"#], "leave it out"),
    ("defer_loading", &["false"], "leave it out"),
    ("input_examples", &["[]"], "put them into the description"),
];

/// Marks for Anthropic's cache, and for the pace of arguments, which come as they are written anyway.
const WITHOUT_EFFECT: [&str; 2] = ["cache_control", "eager_input_streaming"];

/// `tools` and `tool_choice`; nothing if no function may be called.
///
/// # Errors
/// [`ApiError`] names the field at fault.
pub fn wish(body: &mut Fields) -> Result<Option<ToolUse>, ApiError> {
    let tools = functions::functions(body.optional("tools")?.unwrap_or_default(), function)?;
    let said = body.take("tool_choice").unwrap_or_else(|| json!({"type": "auto"}));
    let (wish, parallel) = choice(said.clone())?;
    functions::used(tools, wish, parallel, &said)
}

/// `{"name", "description", "input_schema", "strict"}`; its type, where it has one, is `custom`.
fn function(place: &str, value: Value) -> Result<(Tool, String), ApiError> {
    let mut fields = Fields::nested(place, value)?;
    if let Some(kind) = fields.optional::<String>("type")?
        && kind != "custom"
    {
        let instead = "only functions that the caller runs are tools";
        return Err(unsupported(&fields.path("type"), &Value::from(kind), instead));
    }
    let name = functions::name(&mut fields)?;
    let Some(parameters) = functions::schema(&mut fields, "input_schema")? else {
        let param = fields.path("input_schema");
        return Err(ApiError::Missing { param, expected: "a JSON schema of an object" });
    };
    let tool = Tool {
        name,
        description: fields.optional("description")?,
        parameters: Some(parameters),
        strict: fields.optional("strict")?.unwrap_or(false),
    };
    let named = fields.path("name");
    for label in WITHOUT_EFFECT {
        fields.take(label);
    }
    asking::refuse_unsupported(&mut fields, &UNSUPPORTED)?;
    fields.finish()?;
    Ok((tool, named))
}

/// `{"type": "auto" | "any" | "tool" | "none", "name", "disable_parallel_tool_use"}`; whether several calls may be
/// made.
fn choice(value: Value) -> Result<(Wish, bool), ApiError> {
    let mut fields = Fields::nested("tool_choice", value)?;
    let kind: String = fields.required("type")?;
    let wish = match kind.as_str() {
        "none" => Wish::None,
        "auto" => Wish::Call(ToolChoice::Auto),
        "any" => Wish::Call(ToolChoice::Required),
        "tool" => Wish::Call(ToolChoice::Named(functions::name(&mut fields)?)),
        _ => {
            let expected = "\"auto\", \"any\", \"tool\" or \"none\"";
            return Err(wrong(&fields.path("type"), &Value::from(kind), expected));
        }
    };
    let single = fields.optional("disable_parallel_tool_use")?.unwrap_or(false);
    fields.finish()?;
    Ok((wish, !single))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(body: &Value) -> Result<Option<ToolUse>, ApiError> {
        let mut fields = Fields::parse(body.to_string().as_bytes()).expect("an object");
        let wish = wish(&mut fields)?;
        fields.finish()?;
        Ok(wish)
    }

    fn refused(body: Value, code: &str, param: &str) {
        let error = found(&body).expect_err(param);
        assert_eq!((error.row().code, error.param()), (code, Some(param)), "{error}");
    }

    fn tool(name: &str) -> Value {
        json!({"name": name, "input_schema": {"type": "object"}})
    }

    #[test]
    fn functions_are_read_with_all_that_is_said_of_them() {
        let mut add = tool("add");
        for (name, value) in [
            ("type", json!("custom")),
            ("description", json!("d")),
            ("strict", json!(true)),
            ("cache_control", json!({"type": "ephemeral"})),
            ("defer_loading", json!(false)),
        ] {
            add[name] = value;
        }
        let wish = found(&json!({"tools": [tool("now"), add]})).expect("valid").expect("functions");
        assert_eq!((wish.choice, wish.parallel), (ToolChoice::Auto, true));
        let parameters = Some(json!({"type": "object"}));
        let now = Tool {
            name: "now".into(),
            description: None,
            parameters: parameters.clone(),
            strict: false,
        };
        let add =
            Tool { name: "add".into(), description: Some("d".into()), parameters, strict: true };
        assert_eq!(wish.tools, [now, add]);
    }

    #[test]
    fn whether_functions_are_called_is_read() {
        let choice = |choice: Value| {
            let body = json!({"tools": [tool("now")], "tool_choice": choice});
            found(&body).expect("valid").map(|wish| (wish.choice, wish.parallel))
        };
        assert_eq!(choice(json!({"type": "none"})), None);
        assert_eq!(choice(json!({"type": "any"})), Some((ToolChoice::Required, true)));
        let single = json!({"type": "auto", "disable_parallel_tool_use": true});
        assert_eq!(choice(single), Some((ToolChoice::Auto, false)));
        let named = json!({"type": "tool", "name": "now"});
        assert_eq!(choice(named), Some((ToolChoice::Named("now".into()), true)));
        assert_eq!(found(&json!({})).expect("valid"), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let (value, missing) = ("invalid_value", "missing_required_parameter");
        let with = |name: &str, value: Value| {
            let mut tool = tool("x");
            tool[name] = value;
            json!({"tools": [tool]})
        };
        let hosted = with("type", json!("web_search_20250305"));
        refused(hosted, "unsupported_parameter", "tools[0].type");
        refused(with("input_schema", Value::Null), missing, "tools[0].input_schema");
        refused(with("input_schema", json!("x")), value, "tools[0].input_schema");
        refused(
            with("defer_loading", json!(true)),
            "unsupported_parameter",
            "tools[0].defer_loading",
        );
        refused(with("x", json!(1)), "unknown_parameter", "tools[0].x");
        refused(json!({"tools": [tool("x"), tool("x")]}), value, "tools[1].name");
        let choice = |choice: Value| json!({"tools": [tool("x")], "tool_choice": choice});
        refused(choice(json!("auto")), value, "tool_choice");
        refused(choice(json!({"type": "required"})), value, "tool_choice.type");
        refused(choice(json!({"type": "tool"})), missing, "tool_choice.name");
        refused(choice(json!({"type": "tool", "name": "y"})), value, "tool_choice");
        refused(json!({"tool_choice": {"type": "any"}}), value, "tool_choice");
    }
}
