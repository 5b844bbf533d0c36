//! The form an answer must have, in the words of OpenAI and of vLLM.
//!
//! Decides which fields name a form: OpenAI's `response_format`, vLLM's `guided_json`, `guided_regex`,
//! `guided_choice` and `guided_grammar`, and its newer `structured_outputs` that holds them without
//! the prefix. At most one may be used. The Responses API and Anthropic's put a schema beside its `type`
//! ([`flat`]). Whether the form is a good one, the node decides: here it is
//! only read. A schema is always kept to, so `strict` changes nothing.

use crate::{
    error::ApiError,
    fields::{Fields, wrong},
};
use serde_json::Value;
use talka_node::api::Grammar;

/// vLLM's fields, inside `structured_outputs` and, with `guided_` before them, beside it.
const GUIDES: [&str; 4] = ["json", "regex", "choice", "grammar"];

/// The form asked for, if any, and the field that asks.
///
/// # Errors
/// [`ApiError`] names the field at fault, or the second of two that each ask for a form.
pub fn grammar(body: &mut Fields) -> Result<Option<(String, Grammar)>, ApiError> {
    let mut found: Vec<(String, Grammar)> = Vec::new();
    if let Some(value) = body.take("response_format") {
        found.extend(response_format(value)?.map(|form| ("response_format".into(), form)));
    }
    for guide in GUIDES {
        let name = format!("guided_{guide}");
        if let Some(value) = body.take(&name) {
            found.push((name.clone(), guided(guide, &name, value)?));
        }
    }
    if let Some(value) = body.take("structured_outputs") {
        let mut fields = Fields::nested("structured_outputs", value)?;
        for guide in GUIDES {
            if let Some(value) = fields.take(guide) {
                let name = fields.path(guide);
                let form = guided(guide, &name, value)?;
                found.push((name, form));
            }
        }
        fields.finish()?;
    }
    if let [(first, _), (second, _), ..] = found.as_slice() {
        let expected = format!("none beside {first}: an answer has one form");
        return Err(wrong(second, &Value::from("another form"), &expected));
    }
    Ok(found.pop())
}

/// `{"type": "text"}`, `{"type": "json_object"}`, or
/// `{"type": "json_schema", "json_schema": {"name", "schema", …}}`.
fn response_format(value: Value) -> Result<Option<Grammar>, ApiError> {
    format("response_format", value, |fields| {
        let place = fields.path("json_schema");
        let mut named = Fields::nested(&place, fields.required("json_schema")?)?;
        let schema = named_schema(&mut named)?;
        named.finish()?;
        Ok(schema)
    })
}

/// The form at `place`: `{"type": "text"}`, `{"type": "json_object"}`, or
/// `{"type": "json_schema", "name", "schema", …}`.
///
/// # Errors
/// [`ApiError`] names the field at fault.
pub fn flat(place: &str, value: Value) -> Result<Option<Grammar>, ApiError> {
    format(place, value, named_schema)
}

fn format(
    place: &str,
    value: Value,
    schema: impl FnOnce(&mut Fields) -> Result<Grammar, ApiError>,
) -> Result<Option<Grammar>, ApiError> {
    let mut fields = Fields::nested(place, value)?;
    let kind: String = fields.required("type")?;
    let form = match kind.as_str() {
        "text" => None,
        "json_object" => Some(Grammar::JsonObject),
        "json_schema" => Some(schema(&mut fields)?),
        _ => {
            let expected = "\"text\", \"json_object\" or \"json_schema\"";
            return Err(wrong(&fields.path("type"), &Value::from(kind), expected));
        }
    };
    fields.finish()?;
    Ok(form)
}

fn named_schema(fields: &mut Fields) -> Result<Grammar, ApiError> {
    // Labels for people and models that are told of the schema; here it is enforced.
    fields.optional::<String>("name")?;
    fields.optional::<String>("description")?;
    fields.optional::<bool>("strict")?;
    // Without a schema any object will do, as with OpenAI.
    let schema = fields.take("schema");
    Ok(schema.map_or(Grammar::JsonObject, Grammar::JsonSchema))
}

fn guided(guide: &str, name: &str, value: Value) -> Result<Grammar, ApiError> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let (form, expected) = match guide {
        "json" => (Some(schema(&value)), "a JSON schema"),
        "regex" => (text(&value).map(Grammar::Regex), "a regular expression"),
        "grammar" => (text(&value).map(Grammar::Lark), "a grammar in Lark's syntax"),
        _ => (one_of(&value), "an array of texts, at least one"),
    };
    form.ok_or_else(|| wrong(name, &value, expected))
}

/// Some clients send a schema as text.
fn schema(value: &Value) -> Grammar {
    let parsed = value.as_str().and_then(|text| serde_json::from_str(text).ok());
    Grammar::JsonSchema(parsed.unwrap_or_else(|| value.clone()))
}

/// One of the texts, letter by letter.
fn one_of(value: &Value) -> Option<Grammar> {
    let texts = value.as_array().filter(|texts| !texts.is_empty())?;
    let quoted: Option<Vec<String>> =
        texts.iter().map(|text| text.as_str().map(|text| Value::from(text).to_string())).collect();
    Some(Grammar::Lark(format!("start: {}", quoted?.join(" | "))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: &Value) -> Result<Option<Grammar>, ApiError> {
        let mut fields = Fields::parse(body.to_string().as_bytes()).expect("an object");
        let form = grammar(&mut fields)?;
        fields.finish()?;
        Ok(form.map(|(_, form)| form))
    }

    fn check(body: Value, expected: Option<Grammar>) {
        assert_eq!(read(&body).unwrap_or_else(|e| panic!("{body}: {e}")), expected);
    }

    fn refused(body: Value, param: &str) {
        let error = read(&body).expect_err(param);
        assert_eq!((error.row().status.as_u16(), error.param()), (400, Some(param)), "{error}");
    }

    #[test]
    fn every_way_to_ask_for_a_form_is_understood() {
        let schema = json!({"type": "object"});
        check(json!({}), None);
        check(json!({"response_format": {"type": "text"}}), None);
        check(json!({"response_format": {"type": "json_object"}}), Some(Grammar::JsonObject));
        let named = json!({"name": "x", "strict": true, "description": "d", "schema": schema});
        let asked = json!({"response_format": {"type": "json_schema", "json_schema": named}});
        check(asked, Some(Grammar::JsonSchema(schema.clone())));
        check(json!({"guided_json": schema}), Some(Grammar::JsonSchema(schema.clone())));
        let text = json!({"guided_json": schema.to_string()});
        check(text, Some(Grammar::JsonSchema(schema)));
        check(json!({"guided_regex": "a+"}), Some(Grammar::Regex("a+".into())));
        check(json!({"guided_grammar": "start: /a/"}), Some(Grammar::Lark("start: /a/".into())));
        let choice = Some(Grammar::Lark("start: \"yes\" | \"n\\\"o\"".into()));
        check(json!({"guided_choice": ["yes", "n\"o"]}), choice);
        let newer = json!({"structured_outputs": {"regex": "a+"}});
        check(newer, Some(Grammar::Regex("a+".into())));
    }

    #[test]
    fn a_schema_may_stand_beside_its_type() {
        let schema = json!({"type": "object"});
        let asked = json!({"type": "json_schema", "name": "x", "schema": schema, "strict": true});
        let form = flat("text.format", asked).expect("a form");
        assert_eq!(form, Some(Grammar::JsonSchema(schema)));
        assert_eq!(flat("text.format", json!({"type": "text"})).expect("none"), None);
        for (asked, param) in [
            (json!({"type": "xml"}), "text.format.type"),
            (json!({"type": "text", "schema": {}}), "text.format.schema"),
            (json!({"type": "json_schema", "json_schema": {}}), "text.format.json_schema"),
        ] {
            let error = flat("text.format", asked).expect_err(param);
            assert_eq!(error.param(), Some(param), "{error}");
        }
    }

    #[test]
    fn what_is_no_form_is_refused_by_name() {
        refused(json!({"response_format": "json"}), "response_format");
        refused(json!({"response_format": {"type": "xml"}}), "response_format.type");
        refused(json!({"response_format": {"type": "json_schema"}}), "response_format.json_schema");
        refused(json!({"response_format": {"type": "text", "x": 1}}), "response_format.x");
        refused(json!({"guided_regex": 5}), "guided_regex");
        refused(json!({"guided_choice": []}), "guided_choice");
        refused(json!({"guided_choice": [1]}), "guided_choice");
        refused(json!({"structured_outputs": {"backend": "x"}}), "structured_outputs.backend");
        let two = json!({"guided_regex": "a", "structured_outputs": {"json": {}}});
        refused(two, "structured_outputs.json");
    }
}
