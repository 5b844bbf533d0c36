//! What the dialects ask for alike: how tokens are chosen, where an answer stops, Talka's own object.
//!
//! Decides ranges and defaults in one place, so that a parameter means the same wherever it may be sent.
//! Never decides which parameters a dialect has: each takes what it documents from here and refuses the
//! rest by name.

use crate::{
    error::ApiError,
    fields::{Fields, shown, wrong},
};
use serde_json::Value;
use talka_node::api::{
    ChatMessage, Fallback, GenerateRequest, LOGPROBS_MAX, Prompt, Resume, SamplingParams,
};

/// More stop strings than any documented limit.
const STOP_STRINGS_MAX: usize = 16;

/// The longest stop string, in bytes: the node holds back as much text while it may still match.
const STOP_BYTES_MAX: usize = 1024;

/// Most biases of one request, OpenAI's limit.
pub const BIASES_MAX: usize = 1024;

/// A checked request for one answer.
#[derive(Debug)]
pub struct Asked {
    /// What to generate.
    pub request: GenerateRequest,
    /// The field that asks for a form, to name it if the form is refused.
    pub form: Option<String>,
    /// Event by event, not whole.
    pub is_streamed: bool,
}

/// A request that asks for nothing but an answer to `messages`.
pub fn plain(model: String, messages: Vec<ChatMessage>) -> GenerateRequest {
    GenerateRequest {
        model,
        prompt: Prompt::Chat(messages),
        max_tokens: None,
        sampling: SamplingParams { seed: fresh_seed(), ..SamplingParams::default() },
        stop: Vec::new(),
        min_tokens: 0,
        ignore_end: false,
        logprobs: None,
        echo: false,
        grammar: None,
        tools: None,
        guesses: true,
        fallback: Fallback::Allowed,
        resume: None,
    }
}

/// The node's defaults are OpenAI's, but for the seed: without one, no two answers are alike.
///
/// # Errors
/// [`ApiError`] names the field at fault.
pub fn sampling(body: &mut Fields) -> Result<SamplingParams, ApiError> {
    let usual = SamplingParams::default();
    Ok(SamplingParams {
        temperature: body.between("temperature", 0.0, 2.0)?.unwrap_or(usual.temperature),
        top_p: body.between("top_p", 0.0, 1.0)?.unwrap_or(usual.top_p),
        min_p: body.between("min_p", 0.0, 1.0)?.unwrap_or(usual.min_p),
        top_k: body.optional("top_k")?.unwrap_or(usual.top_k),
        repetition_penalty: body
            .between("repetition_penalty", 0.0, 10.0)?
            .unwrap_or(usual.repetition_penalty),
        frequency_penalty: body.between("frequency_penalty", -2.0, 2.0)?.unwrap_or(0.0),
        presence_penalty: body.between("presence_penalty", -2.0, 2.0)?.unwrap_or(0.0),
        logit_bias: logit_bias(body)?,
        // OpenAI's seeds are signed; any bits will do.
        seed: body.optional::<i64>("seed")?.map_or_else(fresh_seed, i64::cast_unsigned),
    })
}

/// Token ids, as text, and what is added to their logits.
fn logit_bias(body: &mut Fields) -> Result<Vec<(u32, f32)>, ApiError> {
    let Some(value) = body.take("logit_bias") else { return Ok(Vec::new()) };
    let Some(biases) = value.as_object().filter(|biases| biases.len() <= BIASES_MAX) else {
        let expected = format!("an object of at most {BIASES_MAX} token ids with a bias each");
        return Err(wrong("logit_bias", &value, &expected));
    };
    let bias = |(token, bias): (&String, &Value)| {
        let id = token.parse().ok();
        let number = bias.as_f64().filter(|bias| (-100.0..=100.0).contains(bias));
        id.zip(number.map(|bias| bias as f32)).ok_or_else(|| {
            let place = format!("logit_bias.{}", shown(&Value::from(token.as_str())));
            wrong(&place, bias, "a number from -100 to 100 under a token id")
        })
    };
    biases.iter().map(bias).collect()
}

/// A seed that nobody chose.
fn fresh_seed() -> u64 {
    getrandom::u64().expect("the operating system gives random numbers")
}

/// The texts under `name` before the first of which an answer ends; one may come without an array.
///
/// # Errors
/// [`ApiError::Value`] if they are too many, too long or empty.
pub fn stop(body: &mut Fields, name: &str) -> Result<Vec<String>, ApiError> {
    let Some(value) = body.take(name) else { return Ok(Vec::new()) };
    let expected = format!(
        "text or an array of at most {STOP_STRINGS_MAX} texts of 1 to {STOP_BYTES_MAX} bytes"
    );
    let strings = match &value {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(all) => all.iter().map(|s| s.as_str().map(str::to_owned)).collect(),
        _ => None,
    };
    strings
        .filter(|all| all.len() <= STOP_STRINGS_MAX)
        .filter(|all| all.iter().all(|s| (1..=STOP_BYTES_MAX).contains(&s.len())))
        .ok_or_else(|| wrong(name, &value, &expected))
}

/// What Talka's own object asks for.
#[derive(Debug)]
pub struct Own {
    /// As [`GenerateRequest::guesses`].
    pub guesses: bool,
    /// As [`GenerateRequest::fallback`].
    pub fallback: Fallback,
    /// As [`GenerateRequest::resume`].
    pub resume: Option<Resume>,
}

/// Talka's own object: `{"guesses": false}`, whether tokens may be guessed ahead; `{"upstream": NAME}` or
/// `{"fallback": "allow" | "never"}`, whether the answer may come from outside; `{"resume": …}`, which
/// answer it goes on with.
///
/// # Errors
/// [`ApiError`] names the field at fault.
pub fn own(body: &mut Fields) -> Result<Own, ApiError> {
    let Some(value) = body.take("talka") else {
        return Ok(Own { guesses: true, fallback: Fallback::Allowed, resume: None });
    };
    let mut fields = Fields::nested("talka", value)?;
    let guesses = fields.optional("guesses")?.unwrap_or(true);
    let upstream = fields.optional::<String>("upstream")?;
    let fallback = fields.optional::<String>("fallback")?;
    let resume = fields.take("resume").map(resume).transpose()?;
    let place = fields.path("fallback");
    fields.finish()?;
    let fallback = match (upstream, fallback.as_deref()) {
        (None, None | Some("allow")) => Fallback::Allowed,
        (None, Some("never")) => Fallback::Never,
        (Some(name), None | Some("allow")) => Fallback::Only(name),
        (Some(_), Some("never")) => {
            return Err(wrong(&place, &Value::from("never"), "none beside talka.upstream"));
        }
        (_, Some(other)) => {
            return Err(wrong(&place, &Value::from(other), "\"allow\" or \"never\""));
        }
    };
    Ok(Own { guesses, fallback, resume })
}

/// `{"answer": ID, "tokens": N}`: the `id` of an answer that broke off, and the `talka.tokens` of its last chunk
/// that came. Every dialect puts another word before the same digits, `chatcmpl-…`, `resp_…`, `msg_…`.
fn resume(value: Value) -> Result<Resume, ApiError> {
    let mut fields = Fields::nested("talka.resume", value)?;
    let answer: String = fields.required("answer")?;
    let seen = fields.optional("tokens")?.unwrap_or(0);
    let place = fields.path("answer");
    fields.finish()?;
    let (_, digits) = answer.rsplit_once(['-', '_']).unwrap_or(("", &answer));
    let request = digits.parse().map_err(|_| {
        wrong(&place, &Value::from(answer.as_str()), "the id of an answer such as \"cmpl-…\"")
    })?;
    Ok(Resume { request, seen })
}

/// Documented parameters that would change the answer, with the values (as JSON) that ask for
/// nothing, and what a caller can do instead.
pub type Unsupported = (&'static str, &'static [&'static str], &'static str);

/// Takes each parameter of `table` if it asks for nothing.
///
/// # Errors
/// [`ApiError::Unsupported`] names the first one that does.
pub fn refuse_unsupported(body: &mut Fields, table: &[Unsupported]) -> Result<(), ApiError> {
    for (name, harmless, instead) in table {
        let Some(value) = body.take(name) else { continue };
        let asks_nothing = harmless.iter().any(|json| {
            serde_json::from_str::<Value>(json).expect("the table holds JSON") == value
        });
        if !asks_nothing {
            return Err(unsupported(&body.path(name), &value, instead));
        }
    }
    Ok(())
}

/// Ends the reading of a body: what is left may only be labels `without_effect`, or ask for nothing of `unsupported`.
///
/// # Errors
/// [`ApiError`] names the first other parameter.
pub fn finish(
    mut body: Fields,
    without_effect: &[&str],
    unsupported: &[Unsupported],
) -> Result<(), ApiError> {
    for name in without_effect {
        body.take(name);
    }
    refuse_unsupported(&mut body, unsupported)?;
    body.finish()
}

/// `top_logprobs`: how many alternatives to each token, where log-probabilities are `wanted`. `switch` says in
/// words how they are.
///
/// # Errors
/// [`ApiError::Value`] for too many, or any where none are wanted.
pub fn top_logprobs(body: &mut Fields, wanted: bool, switch: &str) -> Result<Option<u8>, ApiError> {
    let Some(top) = body.optional::<u32>("top_logprobs")? else { return Ok(wanted.then_some(0)) };
    let expected = match u8::try_from(top).ok().filter(|top| *top <= LOGPROBS_MAX) {
        Some(0) if !wanted => return Ok(None),
        Some(top) if wanted => return Ok(Some(top)),
        Some(_) => format!("none without {switch}"),
        None => format!("a whole number from 0 to {LOGPROBS_MAX}"),
    };
    Err(wrong("top_logprobs", &Value::from(top), &expected))
}

/// The error for something documented that would change the answer.
pub fn unsupported(param: &str, found: &Value, instead: &str) -> ApiError {
    ApiError::Unsupported { param: param.into(), found: shown(found), instead: instead.into() }
}

/// One of `roles`, in the words of chat templates: `developer` is OpenAI's newer word for `system`.
///
/// # Errors
/// [`ApiError`] if there is none, or another one.
pub fn role(fields: &mut Fields, roles: &[&str]) -> Result<String, ApiError> {
    let role: String = fields.required("role")?;
    match role.as_str() {
        found if !roles.contains(&found) => {
            let expected = format!("one of \"{}\"", roles.join("\", \""));
            Err(wrong(&fields.path("role"), &Value::from(role), &expected))
        }
        "developer" => Ok("system".into()),
        _ => Ok(role),
    }
}

/// What the parts of a message's content may be in one dialect.
#[derive(Debug)]
pub struct Parts {
    /// Types of parts whose `text` counts.
    pub kinds: &'static [&'static str],
    /// Fields that change nothing: marks for caches, and what an earlier answer said about itself.
    pub labels: &'static [&'static str],
    /// Fields that must be empty.
    pub empty: &'static [&'static str],
    /// What stands between two parts.
    pub glue: &'static str,
}

/// Text, or an array of parts, joined.
///
/// # Errors
/// [`ApiError`] names the part and the field at fault.
pub fn content(place: &str, value: Value, parts: &Parts) -> Result<String, ApiError> {
    match value {
        Value::String(text) => Ok(text),
        Value::Array(items) => {
            let named = items.into_iter().enumerate();
            let texts = named.map(|(at, item)| text_part(&format!("{place}[{at}]"), item, parts));
            Ok(texts.collect::<Result<Vec<_>, _>>()?.join(parts.glue))
        }
        other => Err(wrong(place, &other, "text or an array of text parts")),
    }
}

/// One part.
///
/// # Errors
/// [`ApiError`] names the field at fault.
pub fn text_part(place: &str, part: Value, parts: &Parts) -> Result<String, ApiError> {
    let mut fields = Fields::nested(place, part)?;
    let kind: String = fields.required("type")?;
    if !parts.kinds.contains(&kind.as_str()) {
        let instead = "text is the only modality";
        return Err(unsupported(&fields.path("type"), &Value::from(kind), instead));
    }
    let text = fields.required("text")?;
    for label in parts.labels {
        fields.take(label);
    }
    for name in parts.empty {
        let is_empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
        if let Some(value) = fields.take(name).filter(|value| !is_empty(value)) {
            return Err(unsupported(&fields.path(name), &value, "put what matters into the text"));
        }
    }
    fields.finish()?;
    Ok(text)
}
