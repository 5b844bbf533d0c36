//! Chat messages to prompt text, by the model's own Jinja template.
//!
//! Takes the template where transformers does: `chat_template.jinja`, else `chat_template` of
//! `tokenizer_config.json` (a string, or a list of which the one named `default` is taken, and
//! `tool_use` where there are functions to call). The environment is the one of transformers: blocks
//! trimmed, `raise_exception`, `tojson` as Python writes JSON, Python's string methods. A template comes
//! with a model from a stranger: it can compute nothing but text, and its steps are counted.
//!
//! A model without a template gets [`FALLBACK`], so that chat works with base models too. How functions
//! and calls look where a template knows none, [`crate::tools`] says.

pub(crate) mod json;

use crate::tools::{Tool, ToolCall, ToolFormat, laid_out};
use minijinja::{
    Environment, Error, ErrorKind, Value,
    syntax::SyntaxConfig,
    value::{Kwargs, Serde},
};
use serde_json::Map;
use std::{collections::BTreeMap, sync::Arc};

/// For models without a template: the beginning token, if the tokenizer adds one, then a line
/// `role: content` per message, then `assistant:`.
pub const FALLBACK: &str = "\
    {{- beginning -}}\
    {%- for message in messages -%}{{ message.role }}: {{ message.content }}{{ '\\n' }}{%- endfor -%}\
    {%- if add_generation_prompt -%}assistant:{%- endif -%}";

/// Steps a rendering may take before it is stopped.
///
/// Published templates take a few dozen per message; this leaves room for 100,000 messages and ends
/// a malicious loop in a fraction of a second.
const STEPS_MAX: u64 = 10_000_000;

const NAME: &str = "chat_template";

/// The template for conversations with functions, where a model has one of its own for them.
const NAME_TOOLS: &str = "tool_use";

/// Why a template is not usable, or did not accept the messages.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in the messages")]
pub enum TemplateError {
    /// The template does not compile.
    #[error("the model's chat template does not parse: {source}")]
    Syntax { source: Box<Error> },
    /// The file is not text.
    #[error("the model's chat template is not UTF-8 text")]
    NotText,
    /// The template itself objects to the messages (roles out of order, say).
    #[error("the model's chat template refuses these messages: {reason}")]
    Refused { reason: String },
    /// The template failed.
    #[error("the model's chat template fails on these messages: {source}")]
    Render { source: Box<Error> },
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant` or `tool`; what else is accepted is up to the template.
    pub role: String,
    /// What was said, or came of a call.
    pub content: String,
    /// What the assistant called.
    pub tool_calls: Vec<ToolCall>,
    /// Of a result: the call that it is of.
    pub tool_call_id: Option<String>,
    /// Of a result: the function that was called.
    pub name: Option<String>,
}

impl ChatMessage {
    /// Just text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), ..Self::default() }
    }

    /// In the fields that templates know. Those that a message lacks are not there at all: templates ask.
    fn value(&self) -> serde_json::Value {
        let mut fields = serde_json::json!({"role": self.role, "content": self.content});
        if !self.tool_calls.is_empty() {
            fields["tool_calls"] = self.tool_calls.iter().map(call_value).collect();
        }
        for (name, text) in [("tool_call_id", &self.tool_call_id), ("name", &self.name)] {
            if let Some(text) = text {
                fields[name] = text.as_str().into();
            }
        }
        fields
    }
}

/// Templates write arguments as JSON, so they get the object; what is none stays text.
fn call_value(call: &ToolCall) -> serde_json::Value {
    let object: Option<Map<String, serde_json::Value>> = serde_json::from_str(&call.arguments).ok();
    let arguments = object.map_or_else(|| call.arguments.as_str().into(), serde_json::Value::from);
    let function = serde_json::json!({"name": call.name, "arguments": arguments});
    serde_json::json!({"id": call.id, "type": "function", "function": function})
}

/// A compiled chat template. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    /// Special tokens by the name templates use (`bos_token`, `eos_token`, ...).
    tokens: Arc<BTreeMap<String, String>>,
    /// What [`FALLBACK`] starts with.
    beginning: String,
    format: ToolFormat,
}

impl ChatTemplate {
    /// From a parsed `tokenizer_config.json` and the bytes of `chat_template.jinja`, if there is one.
    pub(crate) fn read(
        config: &Map<String, serde_json::Value>,
        file: Option<Vec<u8>>,
    ) -> Result<Self, TemplateError> {
        let (source, for_tools) = match file {
            Some(bytes) => {
                (Some(String::from_utf8(bytes).map_err(|_| TemplateError::NotText)?), None)
            }
            None => {
                let named = |name| config.get(NAME).and_then(|found| template_in(found, name));
                (named("default"), named(NAME_TOOLS))
            }
        };
        let source = source.unwrap_or_else(|| FALLBACK.into());
        let for_tools = for_tools.unwrap_or_else(|| source.clone());
        let format = ToolFormat::of(&for_tools);
        let tokens = special_tokens(config);
        let adds = config.get("add_bos_token").and_then(serde_json::Value::as_bool);
        let beginning = match tokens.get("bos_token") {
            Some(token) if adds != Some(false) => token.clone(),
            _ => String::new(),
        };
        let mut environment = environment();
        for (name, source) in [(NAME, source), (NAME_TOOLS, for_tools)] {
            environment
                .add_template_owned(name, source)
                .map_err(|source| TemplateError::Syntax { source: Box::new(source) })?;
        }
        let (environment, tokens) = (Arc::new(environment), Arc::new(tokens));
        Ok(Self { environment, tokens, beginning, format })
    }

    /// How the model writes calls of functions that this template tells it of.
    pub fn tool_format(&self) -> ToolFormat {
        self.format
    }

    /// Whether the model brought it, or it is the plain one for models without.
    pub fn is_own(&self) -> bool {
        self.environment.get_template(NAME).is_ok_and(|template| template.source() != FALLBACK)
    }

    /// The prompt for `messages` and the functions that may be called; with `add_generation_prompt` it ends
    /// where the model's answer begins. Encode it without adding special tokens: they are in the text.
    ///
    /// # Errors
    /// [`TemplateError::Refused`] with the template's own words, or [`TemplateError::Render`].
    pub fn render(
        &self,
        messages: &[ChatMessage],
        tools: &[Tool],
        add_generation_prompt: bool,
    ) -> Result<String, TemplateError> {
        let (first, second) = laid_out(self.format, messages, tools);
        // In the generic way the prompt describes the functions, and the template need not.
        let tools: &[Tool] = if self.format == ToolFormat::Generic { &[] } else { tools };
        let rendered = self.render_as(&first, tools, add_generation_prompt);
        match (rendered, second) {
            (Err(TemplateError::Refused { .. }), Some(messages)) => {
                self.render_as(&messages, tools, add_generation_prompt)
            }
            (rendered, _) => rendered,
        }
    }

    fn render_as(
        &self,
        messages: &[ChatMessage],
        tools: &[Tool],
        add_generation_prompt: bool,
    ) -> Result<String, TemplateError> {
        let message = |m: &ChatMessage| Value::from(Serde(m.value()));
        let mut own = vec![
            ("messages", messages.iter().map(message).collect::<Value>()),
            ("add_generation_prompt", add_generation_prompt.into()),
            ("beginning", self.beginning.as_str().into()),
        ];
        if !tools.is_empty() {
            let tool = |tool: &Tool| {
                let function = tool.described();
                Value::from(Serde(serde_json::json!({"type": "function", "function": function})))
            };
            own.push(("tools", tools.iter().map(tool).collect()));
        }
        let tokens = self.tokens.iter().map(|(name, token)| (name.as_str(), token.into()));
        let all = Value::from_pairs(tokens.chain(own));
        let name = if tools.is_empty() { NAME } else { NAME_TOOLS };
        let template = self.environment.get_template(name).map_err(failure)?;
        template.render(all).map_err(failure)
    }
}

/// The environment that transformers compiles templates in.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the usual delimiters are valid"));
    environment.set_fuel(Some(STEPS_MAX));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", tojson);
    environment.add_function("raise_exception", |reason: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "refused").with_source(Refusal(reason)))
    });
    environment
}

/// Not the one of minijinja, which escapes for HTML.
fn tojson(value: &Value, args: Kwargs) -> Result<String, Error> {
    let written = json::written(value, args.get::<Option<usize>>("indent")?);
    let failed = |source| Error::new(ErrorKind::BadSerialization, "no JSON").with_source(source);
    written.map_err(failed)
}

/// What a template passed to `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

fn failure(error: Error) -> TemplateError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(error) = cause {
        if let Some(Refusal(reason)) = error.downcast_ref() {
            return TemplateError::Refused { reason: reason.clone() };
        }
        cause = error.source();
    }
    TemplateError::Render { source: Box::new(error) }
}

/// A template as a string, which is for everything, or the one of this name of a list.
fn template_in(value: &serde_json::Value, name: &str) -> Option<String> {
    match value {
        serde_json::Value::String(template) => Some(template.clone()),
        serde_json::Value::Array(list) => {
            let named = list.iter().find(|t| t.get("name").is_some_and(|n| n == name));
            named.and_then(|t| t.get("template")?.as_str()).map(str::to_owned)
        }
        _ => None,
    }
}

/// Every `..._token` of the file: a string, or an object with a `content`.
fn special_tokens(config: &Map<String, serde_json::Value>) -> BTreeMap<String, String> {
    let tokens = config.iter().filter(|(name, _)| name.ends_with("_token"));
    let text = |value: &serde_json::Value| {
        let content = value.get("content").unwrap_or(value);
        content.as_str().map(str::to_owned)
    };
    tokens.filter_map(|(name, value)| Some((name.clone(), text(value)?))).collect()
}

#[cfg(test)]
#[path = "template/tool_tests.rs"]
mod tool_tests;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: &str, content: &str) -> ChatMessage {
        ChatMessage::new(role, content)
    }

    fn render(config: &str, file: Option<&str>) -> Result<String, TemplateError> {
        let config = serde_json::from_str(config).expect("an object");
        let template = ChatTemplate::read(&config, file.map(|f| f.as_bytes().to_vec()))?;
        let messages = [message("system", " Be brief. "), message("user", "Hi <b>")];
        template.render(&messages, &[], true)
    }

    /// The template of Llama 3 instruct models, shortened by its tools.
    const LLAMA3: &str = "{% set loop_messages = messages %}{% for message in loop_messages %}\
        {% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ \
        message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}\
        {% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}\
        {% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}\
        {% endif %}";

    #[test]
    fn a_published_template_renders_as_published() {
        let config = serde_json::json!({
            "bos_token": {"content": "<|begin_of_text|>", "special": true},
            "chat_template": [
                {"name": "tool_use", "template": "no"},
                {"name": "default", "template": LLAMA3},
            ],
        });
        assert_eq!(
            render(&config.to_string(), None).expect("renders"),
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>\
             <|start_header_id|>user<|end_header_id|>\n\nHi <b><|eot_id|>\
             <|start_header_id|>assistant<|end_header_id|>\n\n"
        );
    }

    #[test]
    fn blocks_are_trimmed_and_python_methods_work() {
        let file = "{% for m in messages %}\n  {% if m.role.startswith('u') %}\n\
            {{ m['content'].upper() }}{{ eos_token }}\n  {% endif %}\n{% endfor %}\n";
        let text = render(r#"{"eos_token": "</s>", "chat_template": "unused"}"#, Some(file));
        assert_eq!(text.expect("renders"), "HI <B></s>\n");
    }

    #[test]
    fn a_template_may_refuse_in_its_own_words() {
        let file = "{{ raise_exception('roles must alternate') }}";
        let error = render("{}", Some(file)).expect_err("refused");
        assert_eq!(
            error.to_string(),
            "the model's chat template refuses these messages: roles must alternate"
        );
    }

    #[test]
    fn a_template_that_never_ends_is_stopped() {
        let file = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        assert!(matches!(render("{}", Some(file)), Err(TemplateError::Render { .. })));
        assert!(matches!(render("{}", Some("{% for %}")), Err(TemplateError::Syntax { .. })));
    }

    #[test]
    fn without_a_template_messages_become_lines() {
        let lines = "system:  Be brief. \nuser: Hi <b>\nassistant:";
        assert_eq!(render("{}", None).expect("renders"), lines);
        let text = render(r#"{"bos_token": "<s>", "add_bos_token": true}"#, None);
        assert_eq!(text.expect("renders"), format!("<s>{lines}"));
        let text = render(r#"{"bos_token": "<s>", "add_bos_token": false}"#, None);
        assert_eq!(text.expect("renders"), lines);
    }
}
