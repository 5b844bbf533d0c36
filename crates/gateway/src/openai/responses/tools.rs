//! Functions that a response may call, in the words of the Responses API.
//!
//! Departs from Chat Completions as OpenAI does: a function is told flat, and its arguments follow its schema unless
//! the caller says otherwise.

use super::request::Settings;
use crate::{error::ApiError, fields::Fields, functions, openai::tools::choice};
use serde_json::Value;
use talka_node::api::{Tool, ToolUse};

/// What a request says of functions.
#[derive(Debug)]
pub struct Read {
    /// If any may be called.
    pub wish: Option<ToolUse>,
    /// `tools`, `tool_choice` and `parallel_tool_calls` as they came, or by default.
    said: [(&'static str, Value); 3],
}

impl Read {
    /// Puts into `settings` what a response repeats.
    pub fn repeated(self, settings: &mut Settings) -> Option<ToolUse> {
        for (name, value) in self.said {
            settings[name] = value;
        }
        self.wish
    }
}

/// `tools`, `tool_choice` and `parallel_tool_calls`.
///
/// # Errors
/// [`ApiError`] names the field at fault.
pub fn read(body: &mut Fields) -> Result<Read, ApiError> {
    let told = body.optional::<Vec<Value>>("tools")?.unwrap_or_default();
    let tools = functions::functions(told.clone(), function)?;
    let parallel = body.optional("parallel_tool_calls")?.unwrap_or(true);
    let said = body.take("tool_choice").unwrap_or_else(|| "auto".into());
    let wish = functions::used(tools, choice(said.clone(), functions::name)?, parallel, &said)?;
    let said =
        [("tools", told.into()), ("tool_choice", said), ("parallel_tool_calls", parallel.into())];
    Ok(Read { wish, said })
}

/// `{"type": "function", "name", "description", "parameters", "strict"}`.
fn function(place: &str, value: Value) -> Result<(Tool, String), ApiError> {
    let mut fields = Fields::nested(place, value)?;
    functions::kind(&mut fields)?;
    let tool = Tool {
        name: functions::name(&mut fields)?,
        description: fields.optional("description")?,
        parameters: functions::schema(&mut fields, "parameters")?,
        strict: fields.optional("strict")?.unwrap_or(true),
    };
    let named = fields.path("name");
    fields.finish()?;
    Ok((tool, named))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use talka_node::api::ToolChoice;

    fn found(body: &Value) -> Result<Read, ApiError> {
        let mut fields = Fields::parse(body.to_string().as_bytes()).expect("an object");
        let read = read(&mut fields)?;
        fields.finish()?;
        Ok(read)
    }

    fn refused(body: Value, code: &str, param: &str) {
        let error = found(&body).expect_err(param);
        assert_eq!((error.row().code, error.param()), (code, Some(param)), "{error}");
    }

    #[test]
    fn functions_are_read_and_repeated() {
        let schema = json!({"type": "object", "properties": {"b": {}, "a": {}}});
        let body = json!({
            "tools": [
                {"type": "function", "name": "now"},
                {"type": "function", "name": "add", "description": "d", "parameters": schema, "strict": false},
            ],
            "tool_choice": {"type": "function", "name": "add"}, "parallel_tool_calls": false,
        });
        let mut settings = json!({});
        let wish = found(&body).expect("valid").repeated(&mut settings).expect("functions");
        assert_eq!(settings, body);
        assert_eq!((wish.choice, wish.parallel), (ToolChoice::Named("add".into()), false));
        let now = Tool { name: "now".into(), description: None, parameters: None, strict: true };
        let add = Tool {
            name: "add".into(),
            description: Some("d".into()),
            parameters: Some(schema),
            strict: false,
        };
        assert_eq!(wish.tools, [now, add]);
    }

    #[test]
    fn without_functions_nothing_is_called() {
        let mut settings = json!({});
        assert_eq!(found(&json!({})).expect("valid").repeated(&mut settings), None);
        let usual = json!({"tools": [], "tool_choice": "auto", "parallel_tool_calls": true});
        assert_eq!(settings, usual);
        let tools = json!([{"type": "function", "name": "x"}]);
        let none = found(&json!({"tools": tools, "tool_choice": "none"})).expect("valid");
        assert_eq!(none.wish, None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let one = |tool: Value| json!({"tools": [tool]});
        let value = "invalid_value";
        refused(one(json!({"type": "web_search"})), "unsupported_parameter", "tools[0].type");
        refused(one(json!({"type": "function", "name": "a b"})), value, "tools[0].name");
        let twice = json!({"type": "function", "name": "x"});
        refused(json!({"tools": [twice, twice]}), value, "tools[1].name");
        let nested = json!({"type": "function", "name": "x", "function": {}});
        refused(one(nested), "unknown_parameter", "tools[0].function");
        let hosted = json!({"tools": [twice], "tool_choice": {"type": "file_search"}});
        refused(hosted, "unsupported_parameter", "tool_choice.type");
        refused(json!({"tool_choice": "required"}), value, "tool_choice");
    }
}
