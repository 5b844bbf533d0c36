//! Requests in OpenAI's words, checked and turned into the node's.
//!
//! Decides which parameters are honoured, which change nothing and are accepted, and which are
//! refused by name because ignoring them would change the answer behind the caller's back. Numbers
//! that OpenAI bounds are bounded here; the rest is bounded by the node.

use super::{form, messages::messages, tools};
use crate::{
    asking::{self, Own, Unsupported, unsupported},
    error::ApiError,
    fields::{Fields, wrong},
    functions,
};
use serde_json::Value;
use talka_node::api::{GenerateRequest, Prompt};

/// Most answers to one call, whether to one prompt or to several.
const CHOICES_MAX: usize = 32;

/// Most alternatives under `/v1/completions`, OpenAI's limit there.
const TEXT_LOGPROBS_MAX: u32 = 5;

/// Which of the two generating calls was made; they differ in names and shapes only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Text,
}

/// What a stream should carry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// One more chunk with the usage, before the end.
    pub include_usage: bool,
}

/// A checked request.
#[derive(Debug)]
pub struct Call {
    /// The shape of the answer.
    pub surface: Surface,
    /// What to generate, one request per choice: those of a prompt one after the other, alike but
    /// for their seeds.
    pub requests: Vec<GenerateRequest>,
    /// How many of them there are for each prompt.
    pub per_prompt: usize,
    /// The field that asks for a form, to name it if the form is refused.
    pub form: Option<String>,
    /// Whether and how to stream.
    pub stream: Option<StreamOptions>,
}

/// Documented parameters that never change an answer: labels for OpenAI's own books and caches.
const WITHOUT_EFFECT: [&str; 7] = [
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
];

/// What these two calls lack.
const UNSUPPORTED: [Unsupported; 15] = [
    ("best_of", &["1"], "use n"),
    ("tools", &["[]"], "use /v1/chat/completions"),
    ("tool_choice", &["\"none\"", "\"auto\""], "use /v1/chat/completions"),
    ("parallel_tool_calls", &["true", "false"], "leave it out"),
    ("functions", &["[]"], "use tools, the newer form"),
    ("function_call", &["\"none\"", "\"auto\""], "use tool_choice, the newer form"),
    ("modalities", &["[\"text\"]"], "text is the only one"),
    ("audio", &[], "text is the only modality"),
    ("prediction", &[], "leave it out"),
    ("reasoning_effort", &["\"none\""], "leave it out"),
    ("verbosity", &["\"medium\""], "ask for the length in a message"),
    ("web_search_options", &[], "leave it out"),
    ("moderation", &[], "leave it out"),
    ("suffix", &["\"\""], "put everything into the prompt"),
    ("echo", &["false"], "use /v1/completions"),
];

/// A body of `/v1/chat/completions`.
///
/// # Errors
/// [`ApiError`] names the field at fault.
pub fn chat(mut body: Fields) -> Result<Call, ApiError> {
    let prompt = Prompt::Chat(messages(&mut body)?);
    call(Surface::Chat, vec![prompt], body)
}

/// A body of `/v1/completions`.
///
/// # Errors
/// [`ApiError`] names the field at fault.
pub fn text(mut body: Fields) -> Result<Call, ApiError> {
    let value: Value = body.required("prompt")?;
    call(Surface::Text, prompts("prompt", value, CHOICES_MAX)?, body)
}

fn call(surface: Surface, prompts: Vec<Prompt>, mut body: Fields) -> Result<Call, ApiError> {
    let logprobs = match surface {
        Surface::Chat => chat_logprobs(&mut body)?,
        Surface::Text => text_logprobs(&mut body)?,
    };
    let echo = surface == Surface::Text && body.optional("echo")?.unwrap_or(false);
    let tools = match surface {
        Surface::Chat => tools::wish(&mut body)?,
        Surface::Text => None,
    };
    let form = form::grammar(&mut body)?;
    let (form, grammar) = functions::with_form(tools.as_ref(), form)?;
    let Own { guesses, fallback, resume } = asking::own(&mut body)?;
    let request = GenerateRequest {
        model: body.required("model")?,
        prompt: Prompt::Tokens(Vec::new()),
        max_tokens: max_tokens(&mut body, echo && logprobs.is_some())?,
        sampling: asking::sampling(&mut body)?,
        stop: asking::stop(&mut body, "stop")?,
        min_tokens: body.optional("min_tokens")?.unwrap_or(0),
        ignore_end: body.optional("ignore_eos")?.unwrap_or(false),
        logprobs,
        echo,
        grammar,
        tools,
        guesses,
        fallback,
        resume,
    };
    let per_prompt = choices(&mut body, prompts.len())?;
    if resume.is_some() && prompts.len() * per_prompt > 1 {
        let found = Value::from(prompts.len() * per_prompt);
        return Err(wrong("n", &found, "one choice where an answer is gone on with"));
    }
    let stream = stream(&mut body)?;
    asking::finish(body, &WITHOUT_EFFECT, &UNSUPPORTED)?;
    let requests = prompts.into_iter().flat_map(|prompt| {
        let request = GenerateRequest { prompt, ..request.clone() };
        (0..per_prompt).map(move |at| {
            let mut request = request.clone();
            request.sampling.seed = request.sampling.seed.wrapping_add(at as u64);
            request
        })
    });
    Ok(Call { surface, requests: requests.collect(), per_prompt, form, stream })
}

/// `n`: how many answers to each of `prompts` prompts.
fn choices(body: &mut Fields, prompts: usize) -> Result<usize, ApiError> {
    let n = body.optional::<u32>("n")?.unwrap_or(1);
    let most = CHOICES_MAX / prompts.max(1);
    match n as usize {
        n if (1..=most).contains(&n) => Ok(n),
        _ => {
            let expected =
                format!("a whole number from 1 to {most}: at most {CHOICES_MAX} answers");
            Err(wrong("n", &Value::from(n), &expected))
        }
    }
}

/// `logprobs` says whether, `top_logprobs` how many alternatives.
fn chat_logprobs(body: &mut Fields) -> Result<Option<u8>, ApiError> {
    let wanted = body.optional("logprobs")?.unwrap_or(false);
    asking::top_logprobs(body, wanted, "\"logprobs\": true")
}

/// The older form: the number of alternatives, 0 for the tokens alone. `false`, which some clients
/// send, is none.
fn text_logprobs(body: &mut Fields) -> Result<Option<u8>, ApiError> {
    let Some(value) = body.take("logprobs").filter(|value| *value != Value::Bool(false)) else {
        return Ok(None);
    };
    let top = value.as_u64().filter(|top| *top <= u64::from(TEXT_LOGPROBS_MAX));
    let expected = format!("a whole number from 0 to {TEXT_LOGPROBS_MAX}");
    top.map(|top| Some(top as u8)).ok_or_else(|| wrong("logprobs", &value, &expected))
}

/// `max_completion_tokens` is the newer name of `max_tokens`. None at all make sense only where the
/// prompt itself is scored.
fn max_tokens(body: &mut Fields, may_be_none: bool) -> Result<Option<u32>, ApiError> {
    let old = body.optional::<u32>("max_tokens")?;
    let new = body.optional::<u32>("max_completion_tokens")?;
    if let (Some(old), Some(new)) = (old, new)
        && old != new
    {
        let expected = format!("the same as max_tokens ({old}), or only one of the two");
        return Err(wrong("max_completion_tokens", &Value::from(new), &expected));
    }
    let name = if new.is_some() { "max_completion_tokens" } else { "max_tokens" };
    match new.or(old) {
        Some(0) if !may_be_none => {
            Err(wrong(name, &Value::from(0), "at least 1, unless echo and logprobs are asked for"))
        }
        most => Ok(most),
    }
}

fn stream(body: &mut Fields) -> Result<Option<StreamOptions>, ApiError> {
    let stream = body.optional("stream")?.unwrap_or(false);
    let Some(value) = body.take("stream_options") else {
        return Ok(stream.then(StreamOptions::default));
    };
    if !stream {
        return Err(wrong("stream_options", &value, "none without \"stream\": true"));
    }
    let mut fields = Fields::nested("stream_options", value)?;
    let include_usage = fields.optional("include_usage")?.unwrap_or(false);
    if fields.optional("include_obfuscation")? == Some(true) {
        let place = fields.path("include_obfuscation");
        return Err(unsupported(&place, &Value::from(true), "leave it out"));
    }
    fields.finish()?;
    Ok(Some(StreamOptions { include_usage }))
}

/// Text, token ids, or an array of at most `max` of either, under `name`: one prompt each.
pub(super) fn prompts(name: &str, value: Value, max: usize) -> Result<Vec<Prompt>, ApiError> {
    let expected = format!("text, token ids, or an array of 1 to {max} of either");
    let prompts = match &value {
        Value::String(text) => Some(vec![Prompt::Text(text.clone())]),
        Value::Array(items) => match items.as_slice() {
            [Value::String(_) | Value::Array(_), ..] if items.len() <= max => {
                items.iter().map(prompt).collect()
            }
            ids => token_ids(ids).map(|prompt| vec![prompt]),
        },
        _ => None,
    };
    prompts.ok_or_else(|| wrong(name, &value, &expected))
}

fn prompt(value: &Value) -> Option<Prompt> {
    match value {
        Value::String(text) => Some(Prompt::Text(text.clone())),
        Value::Array(ids) => token_ids(ids),
        _ => None,
    }
}

fn token_ids(ids: &[Value]) -> Option<Prompt> {
    let ids = ids.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()));
    ids.collect::<Option<Vec<u32>>>().map(Prompt::Tokens)
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
