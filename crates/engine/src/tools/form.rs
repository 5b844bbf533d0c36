//! What an answer must look like where it must call functions, or where calls must follow their schemas.
//!
//! Decides the grammar for a format: marks and braces as the model was taught to write them, each function with
//! the schema of its arguments. An answer that calls is one thing and an answer that speaks another; text before
//! a call is possible only where a mark says that a call begins. No grammar is needed where a model is free in
//! everything.

use super::{Tool, ToolChoice, ToolFormat, ToolUse};
use crate::grammar::{Grammar, with_few_blanks};
use serde_json::{Value, json};
use std::fmt::Write;

/// Most calls of one answer where its form is prescribed: more than models make, and an end for those that
/// would never stop.
const CALLS_MAX: u32 = 16;

/// The words of a schema that say what its value may be; without any of them it is an object.
const KINDS: [&str; 7] = ["type", "$ref", "anyOf", "oneOf", "allOf", "const", "enum"];

/// Any text.
const ANY: &str = "/(?s:.*)/";

/// Text that cannot be taken for a bare call.
const ANY_BUT_JSON: &str = r"/\s*([^\s{](?s:.*))?/";

impl ToolFormat {
    /// What an answer must look like by `wish`, if anything. One that calls nothing has the form `otherwise`,
    /// if there is one. `special` tells the token of a mark that is no text.
    pub fn form(
        self,
        wish: &ToolUse,
        otherwise: Option<&Grammar>,
        special: impl Fn(&str) -> Option<u32>,
    ) -> Option<Grammar> {
        let wanted: Vec<&Tool> = match &wish.choice {
            ToolChoice::Auto if wish.parallel && !wish.tools.iter().any(|tool| tool.strict) => {
                return otherwise.map(|form| self.either(form, wish, &special));
            }
            ToolChoice::Auto | ToolChoice::Required => wish.tools.iter().collect(),
            ToolChoice::Named(name) => wish.tools.iter().filter(|t| t.name == *name).collect(),
        };
        let is_free = wish.choice == ToolChoice::Auto;
        let one = !wish.parallel || matches!(wish.choice, ToolChoice::Named(_));
        let grammar = match (is_free, otherwise) {
            (true, Some(form)) => return Some(self.either(form, wish, &special)),
            (true, None) => self.text_or_calls(one, &special),
            (false, _) => format!("start: calls\n{}", self.calls(one, &special)),
        };
        Some(Grammar::Lark(grammar + &functions(self, &wanted, is_free)))
    }

    /// Calls, or an answer of `form`.
    fn either(
        self,
        form: &Grammar,
        wish: &ToolUse,
        special: &impl Fn(&str) -> Option<u32>,
    ) -> Grammar {
        let schema = match form {
            Grammar::JsonObject => json!({"type": "object"}),
            Grammar::JsonSchema(schema) => schema.clone(),
            // What these say is no part of another grammar: they stand alone.
            Grammar::Regex(_) | Grammar::Lark(_) => return form.clone(),
        };
        let tools: Vec<&Tool> = wish.tools.iter().collect();
        let calls = self.calls(!wish.parallel, special) + &functions(self, &tools, true);
        let schema = with_few_blanks(schema);
        Grammar::Lark(format!("start: otherwise | calls\notherwise: %json {schema}\n{calls}"))
    }

    /// Text, and calls where their mark stands, or in its place.
    fn text_or_calls(self, one: bool, special: &impl Fn(&str) -> Option<u32>) -> String {
        let calls = self.calls(one, special);
        match self.opening().filter(|_| !self.is_bare()) {
            None => format!("start: TEXT | calls\nTEXT: {ANY_BUT_JSON}\n{calls}"),
            Some(mark) if special(mark).is_some() => {
                format!("start: TEXT | TEXT calls AFTER\nTEXT: {ANY}\nAFTER: /\\s*/\n{calls}")
            }
            Some(mark) => {
                let (mark, rest) = (pattern(mark), self.rest(one));
                let most = if one { 1 } else { CALLS_MAX };
                // A lazy lexeme ends with the first mark in it.
                format!(
                    "start: TEXT | (before rest){{1,{most}}} AFTER\n\
                     before[lazy]: /(?s:.*){mark}/\n\
                     TEXT: {ANY} & ~/(?s:.*){mark}(?s:.*)/\nAFTER: /\\s*/\n{rest}"
                )
            }
        }
    }

    /// The rule `calls`, and others that it needs, but for `call`.
    fn calls(self, one: bool, special: &impl Fn(&str) -> Option<u32>) -> String {
        let more = CALLS_MAX - 1;
        let mark = |mark: &str| match special(mark) {
            Some(token) => format!("<[{token}]>"),
            None => quoted(mark),
        };
        let opening = self.opening().map(mark).unwrap_or_default();
        let rule = match (self, one) {
            (Self::Hermes, true) => format!("{opening} rest"),
            (Self::Hermes, false) => {
                format!("{opening} rest (\"\\n\" {opening} rest){{0,{more}}}")
            }
            (Self::Mistral, _) => format!("{opening} rest"),
            (Self::Llama3 | Self::Generic, true) => "call".into(),
            (Self::Llama3, false) => format!("call (\"; \" call){{0,{more}}}"),
            (Self::Generic, false) => format!("call (\"\\n\" call){{0,{more}}}"),
        };
        format!("calls: {rule}\n{}", self.rest(one))
    }

    /// The rule `rest`: what follows the opening mark, where there is one.
    fn rest(self, one: bool) -> String {
        let more = CALLS_MAX - 1;
        match (self, one) {
            (Self::Hermes, _) => "rest: \"\\n\" call \"\\n</tool_call>\"\n".into(),
            (Self::Mistral, true) => "rest: \" [\" call \"]\"\n".into(),
            (Self::Mistral, false) => {
                format!("rest: \" [\" call (\", \" call){{0,{more}}} \"]\"\n")
            }
            (Self::Llama3 | Self::Generic, _) => String::new(),
        }
    }
}

/// The rule `call`, one of `tools`. If `is_free`, only strict ones are held to their schemas.
fn functions(format: ToolFormat, tools: &[&Tool], is_free: bool) -> String {
    let names: Vec<String> = (0..tools.len()).map(|at| format!("call{at}")).collect();
    let mut rules = format!("call: {}\n", names.join(" | "));
    for (tool, rule) in tools.iter().zip(&names) {
        let schema = if is_free && !tool.strict { json!({}) } else { tool.schema() };
        let schema = with_few_blanks(object(schema));
        let head =
            quoted(&format!("{{\"name\": {}, \"{}\": ", quoted(&tool.name), format.arguments()));
        writeln!(rules, "{rule}: {head} {rule}_arguments \"}}\"").expect("text takes any text");
        writeln!(rules, "{rule}_arguments: %json {schema}").expect("text takes any text");
    }
    rules
}

/// `schema`, of an object unless it says otherwise.
fn object(mut schema: Value) -> Value {
    if let Some(fields) = schema.as_object_mut()
        && !KINDS.iter().any(|kind| fields.contains_key(*kind))
    {
        fields.insert("type".into(), "object".into());
    }
    schema
}

/// A text in JSON, which is how Lark writes it as well.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A regular expression for `mark`, whose letters may mean something in one.
fn pattern(mark: &str) -> String {
    let letter = |letter: char| match r"\.+*?()|[]{}^$/".contains(letter) {
        true => format!("\\{letter}"),
        false => letter.to_string(),
    };
    mark.chars().map(letter).collect()
}

#[cfg(test)]
#[path = "form_tests.rs"]
mod tests;
