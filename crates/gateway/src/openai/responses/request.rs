//! Requests of the Responses API, checked and turned into the node's.
//!
//! Decides what of a request its answer repeats ([`Settings`]). Every parameter that would change the answer and
//! that this node lacks is refused by name. What items say is read in [`super::items`].

use super::{items, tools};
use crate::{
    asking::{self, Asked, Own, Unsupported, plain},
    error::ApiError,
    fields::{Fields, wrong},
    functions,
    openai::form,
};
use serde_json::{Value, json};
use talka_node::api::{ChatMessage, GenerateRequest, Grammar, Tool};

/// The field that asks for a form.
const FORMAT: &str = "text.format";

/// What `include` asks for to get log-probabilities.
const LOGPROBS: &str = "message.output_text.logprobs";

/// What `include` may ask for besides: of items that no answer here has, so they ask for nothing.
const INCLUDABLE: [&str; 7] = [
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
];

/// Most pairs of metadata, and the most characters of a key and of a value: OpenAI's limits.
const METADATA_MAX: (usize, usize, usize) = (16, 64, 512);

/// Labels for OpenAI's own books and caches.
const WITHOUT_EFFECT: [&str; 6] = [
    "user",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
];

/// What these calls lack.
const UNSUPPORTED: [Unsupported; 13] = [
    ("access_programs", &[], "leave it out"),
    ("background", &["false"], "stream the answer, and resume it if it breaks off"),
    ("background_options", &[], "leave it out"),
    ("context_management", &["[]"], "send only the turns that should count"),
    ("conversation", &[], "send earlier turns as input"),
    ("image", &[], "text is the only modality"),
    ("max_tool_calls", &[], "leave it out"),
    ("moderation", &[], "leave it out"),
    ("personality", &[], "say it in the instructions"),
    ("previous_response_id", &[], "answers are not stored: send earlier turns as input"),
    ("prompt", &[], "send the text itself as instructions or input"),
    ("store", &["false"], "answers are not stored: keep them yourself"),
    ("truncation", &["\"disabled\""], "leave out earlier turns yourself"),
];

/// What a response repeats of its request: an object of the documented names.
pub type Settings = Value;

/// A body of `/v1/responses`.
///
/// # Errors
/// [`ApiError`] names the field at fault.
pub fn response(mut body: Fields) -> Result<(Asked, Settings), ApiError> {
    let mut settings = json!({
        "background": false, "max_tool_calls": null, "previous_response_id": null, "store": false,
        "reasoning": {"effort": null, "summary": null}, "service_tier": "default",
        "truncation": "disabled",
    });
    let instructions: Option<String> = body.optional("instructions")?;
    settings["instructions"] = json!(instructions);
    let messages = items::messages(instructions, body.required("input")?)?;
    let max_tokens = max_output_tokens(&mut body)?;
    settings["max_output_tokens"] = json!(max_tokens);
    let text = Text::read(&mut body)?;
    settings["text"] = json!({"format": text.format, "verbosity": "medium"});
    let tools = tools::read(&mut body)?.repeated(&mut settings);
    let form = text.grammar.map(|grammar| (FORMAT.to_owned(), grammar));
    let (form, grammar) = functions::with_form(tools.as_ref(), form)?;
    let logprobs = logprobs(&mut body)?;
    settings["top_logprobs"] = json!(logprobs.unwrap_or(0));
    settings["metadata"] = metadata(&mut body)?;
    let sampling = asking::sampling(&mut body)?;
    settings["temperature"] = shortest(sampling.temperature);
    settings["top_p"] = shortest(sampling.top_p);
    let Own { guesses, fallback, resume } = asking::own(&mut body)?;
    let request = GenerateRequest {
        max_tokens,
        sampling,
        stop: asking::stop(&mut body, "stop")?,
        logprobs,
        grammar,
        tools,
        guesses,
        fallback,
        resume,
        ..plain(body.required("model")?, messages)
    };
    let is_streamed = stream(&mut body)?;
    reasoning(&mut body)?;
    asking::finish(body, &WITHOUT_EFFECT, &UNSUPPORTED)?;
    Ok((Asked { request, form, is_streamed }, settings))
}

/// A body of `/v1/responses/input_tokens`: the model, its input and the functions it is told of.
///
/// # Errors
/// [`ApiError`] names the field at fault.
pub fn input_tokens(mut body: Fields) -> Result<(String, Vec<ChatMessage>, Vec<Tool>), ApiError> {
    let messages = items::messages(body.optional("instructions")?, body.required("input")?)?;
    let model = body.required("model")?;
    // A form is not told to the model, and so takes no tokens.
    Text::read(&mut body)?;
    let tools = tools::read(&mut body)?.wish.map_or(Vec::new(), |wish| wish.tools);
    reasoning(&mut body)?;
    asking::finish(body, &WITHOUT_EFFECT, &UNSUPPORTED)?;
    Ok((model, messages, tools))
}

fn max_output_tokens(body: &mut Fields) -> Result<Option<u32>, ApiError> {
    match body.optional::<u32>("max_output_tokens")? {
        Some(0) => Err(wrong("max_output_tokens", &Value::from(0), "at least 1")),
        most => Ok(most),
    }
}

/// What the `text` object asks for.
struct Text {
    /// As the response repeats it.
    format: Value,
    grammar: Option<Grammar>,
}

impl Text {
    fn read(body: &mut Fields) -> Result<Self, ApiError> {
        let mut found = Self { format: json!({"type": "text"}), grammar: None };
        let Some(value) = body.take("text") else { return Ok(found) };
        let mut fields = Fields::nested("text", value)?;
        if let Some(format) = fields.take("format") {
            found.grammar = form::flat(&fields.path("format"), format.clone())?;
            found.format = format;
        }
        let harmless: [Unsupported; 1] =
            [("verbosity", &["\"medium\""], "ask for the length in the instructions")];
        asking::refuse_unsupported(&mut fields, &harmless)?;
        fields.finish()?;
        Ok(found)
    }
}

/// `include` says whether, `top_logprobs` how many alternatives.
fn logprobs(body: &mut Fields) -> Result<Option<u8>, ApiError> {
    let mut wanted = false;
    for (at, value) in
        body.optional::<Vec<Value>>("include")?.unwrap_or_default().iter().enumerate()
    {
        match value.as_str() {
            Some(LOGPROBS) => wanted = true,
            Some(other) if INCLUDABLE.contains(&other) => {}
            _ => {
                let place = format!("include[{at}]");
                return Err(wrong(&place, value, &format!("such as \"{LOGPROBS}\"")));
            }
        }
    }
    asking::top_logprobs(body, wanted, &format!("\"{LOGPROBS}\" in include"))
}

/// Labels of the caller's, given back with the response.
fn metadata(body: &mut Fields) -> Result<Value, ApiError> {
    let Some(value) = body.take("metadata") else { return Ok(json!({})) };
    let (pairs_max, key_max, text_max) = METADATA_MAX;
    let fits = |(key, text): (&String, &Value)| {
        let text = text.as_str().map(|text| text.chars().count());
        key.chars().count() <= key_max && text.is_some_and(|chars| chars <= text_max)
    };
    match value.as_object() {
        Some(pairs) if pairs.len() <= pairs_max && pairs.iter().all(fits) => Ok(value),
        _ => {
            let expected = format!(
                "an object of at most {pairs_max} texts of {text_max} characters under names of {key_max}"
            );
            Err(wrong("metadata", &value, &expected))
        }
    }
}

fn stream(body: &mut Fields) -> Result<bool, ApiError> {
    let stream = body.optional("stream")?.unwrap_or(false);
    let Some(value) = body.take("stream_options") else { return Ok(stream) };
    if !stream {
        return Err(wrong("stream_options", &value, "none without \"stream\": true"));
    }
    let mut fields = Fields::nested("stream_options", value)?;
    let harmless: [Unsupported; 1] = [("include_obfuscation", &["false"], "leave it out")];
    asking::refuse_unsupported(&mut fields, &harmless)?;
    fields.finish()?;
    Ok(stream)
}

/// No model here is told how hard to think.
fn reasoning(body: &mut Fields) -> Result<(), ApiError> {
    let Some(value) = body.take("reasoning") else { return Ok(()) };
    let mut fields = Fields::nested("reasoning", value)?;
    let instead = "leave it out";
    let table: [Unsupported; 5] = [
        ("context", &[], instead),
        ("effort", &["\"none\""], instead),
        ("generate_summary", &[], instead),
        ("mode", &[], instead),
        ("summary", &[], instead),
    ];
    asking::refuse_unsupported(&mut fields, &table)?;
    fields.finish()
}

/// The shortest decimal that is this number: what the caller wrote, most likely.
fn shortest(number: f32) -> Value {
    number.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
