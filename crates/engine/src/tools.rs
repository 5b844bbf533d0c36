//! Functions that a model may ask its caller to call: how they are told, asked for and read.
//!
//! Decides in which format a model writes calls ([`ToolFormat`]), by what its chat template says; how
//! functions, calls and results look in a prompt (module `layout`); what an answer must look like where calls
//! are forced (module `form`); and what of an answer is text and what is a call ([`ToolParser`]). Never
//! calls anything, and knows no caller's JSON but the schemas of parameters.
//!
//! A format is known where text alone tells a call from its surroundings and the call is JSON. Templates with
//! another one (XML, names outside of the JSON) and templates without any get [`ToolFormat::Generic`]: the
//! functions are described in the system's message, and a call is the JSON that it asks for.

mod form;
mod layout;
mod parse;

pub use parse::{CallPart, Parsed, ToolParser};

pub(crate) use layout::laid_out;
use serde_json::{Value, json};

/// A function that a model may ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// Letters, digits, `_` and `-`; unique in a request.
    pub name: String,
    /// What it does, for the model.
    pub description: Option<String>,
    /// JSON schema of its arguments, an object; without one there are no arguments.
    pub parameters: Option<Value>,
    /// Arguments follow the schema even where the model is free to call or not.
    pub strict: bool,
}

/// A call in a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// Names it for its result.
    pub id: String,
    /// The function.
    pub name: String,
    /// JSON as the model wrote it, an object unless the model failed.
    pub arguments: String,
}

/// Whether functions are called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ToolChoice {
    /// As the model likes.
    #[default]
    Auto,
    /// At least one.
    Required,
    /// This one, once.
    Named(String),
}

/// What a request says of functions.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolUse {
    /// At least one.
    pub tools: Vec<Tool>,
    /// Whether they are called.
    pub choice: ToolChoice,
    /// An answer may hold several calls.
    pub parallel: bool,
}

/// How a model writes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolFormat {
    /// Hermes and Qwen: `<tool_call>{"name": …, "arguments": …}</tool_call>`, one after the other.
    Hermes,
    /// Llama 3: an answer that is `{"name": …, "parameters": …}`, perhaps behind `<|python_tag|>`.
    Llama3,
    /// Mistral: `[TOOL_CALLS] [{"name": …, "arguments": …}]`.
    Mistral,
    /// An answer that is `{"name": …, "arguments": …}`, as the prompt asks.
    Generic,
}

/// Signs of formats that are not known: XML inside the marks of Hermes, names outside of Mistral's JSON.
const FOREIGN: [&str; 3] = ["<function=", "<arg_key>", "[ARGS]"];

impl ToolFormat {
    /// The format that `template` tells its model of.
    pub fn of(template: &str) -> Self {
        let says = |words: &str| template.contains(words);
        if !says("tools") || FOREIGN.into_iter().any(says) {
            Self::Generic
        } else if says("<tool_call>") {
            Self::Hermes
        } else if says("[TOOL_CALLS]") {
            Self::Mistral
        } else if says("<|python_tag|>") || says("Environment: ipython") {
            Self::Llama3
        } else {
            Self::Generic
        }
    }

    /// What stands before calls, and cannot be read where it is a special token that is not shown.
    pub fn opening(self) -> Option<&'static str> {
        match self {
            Self::Hermes => Some("<tool_call>"),
            Self::Llama3 => Some("<|python_tag|>"),
            Self::Mistral => Some("[TOOL_CALLS]"),
            Self::Generic => None,
        }
    }

    /// What stands behind each call.
    pub fn closing(self) -> Option<&'static str> {
        match self {
            Self::Hermes => Some("</tool_call>"),
            Self::Llama3 | Self::Mistral | Self::Generic => None,
        }
    }

    /// Whether an answer that begins with `{` may be a call.
    fn is_bare(self) -> bool {
        matches!(self, Self::Llama3 | Self::Generic)
    }

    /// What the model was taught to call a call's arguments.
    fn arguments(self) -> &'static str {
        match self {
            Self::Llama3 => "parameters",
            Self::Hermes | Self::Mistral | Self::Generic => "arguments",
        }
    }
}

impl Tool {
    /// The schema of its arguments.
    fn schema(&self) -> Value {
        let none = || json!({"type": "object", "properties": {}, "additionalProperties": false});
        self.parameters.clone().unwrap_or_else(none)
    }

    /// What a prompt tells of it.
    pub(crate) fn described(&self) -> Value {
        let mut told = json!({"name": self.name});
        if let Some(description) = &self.description {
            told["description"] = description.as_str().into();
        }
        told["parameters"] =
            self.parameters.clone().unwrap_or_else(|| json!({"type": "object", "properties": {}}));
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(template: &str, expected: ToolFormat) {
        assert_eq!(ToolFormat::of(template), expected, "{template}");
    }

    #[test]
    fn a_template_tells_its_format() {
        check("{% if tools %}<tool_call>", ToolFormat::Hermes);
        check("{% if tools %}[TOOL_CALLS] [", ToolFormat::Mistral);
        check("{% if tools %}<|python_tag|>", ToolFormat::Llama3);
        check("{% if tools is not none %}Environment: ipython", ToolFormat::Llama3);
        check("{% if tools %}<|tool_calls_section_begin|>", ToolFormat::Generic);
        check("{% if tools %}<tool_call><function=x>", ToolFormat::Generic);
        check("{% if tools %}[TOOL_CALLS]name[ARGS]", ToolFormat::Generic);
        check("{{ messages }} <tool_call>", ToolFormat::Generic);
    }
}
