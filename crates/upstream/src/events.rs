//! What the JSON of an answer says, whether of all of it or of one event.

use crate::error::AskError;
use serde::Deserialize;

/// Why a service ended its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model's end or a stop string.
    Stop,
    /// As many tokens as were asked for.
    Length,
    /// The service holds back the rest.
    Filtered,
}

/// Tokens as the service counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Usage {
    /// Of the prompt.
    pub prompt_tokens: u32,
    /// Of the answer, hidden ones included.
    pub completion_tokens: u32,
}

/// What one document adds to an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub text: String,
    pub finish: Option<Finish>,
    pub usage: Option<Usage>,
    /// The service gave up, in its own words.
    pub error: Option<String>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<serde_json::Value>,
    #[serde(default)]
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u32,
    #[serde(default)]
    delta: Option<Content>,
    #[serde(default)]
    message: Option<Content>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    content: Option<String>,
}

/// What `json` says.
///
/// # Errors
/// [`AskError::Malformed`] if it is nothing that the API sends.
pub(crate) fn part(json: &[u8]) -> Result<Part, AskError> {
    let malformed = |reason: String| AskError::Malformed { reason };
    // An array would do for a structure otherwise.
    let document: Document = serde_json::from_slice::<serde_json::Map<_, _>>(json)
        .and_then(|map| serde_json::from_value(map.into()))
        .map_err(|error| malformed(error.to_string()))?;
    if let Some(error) = document.error.filter(|error| !error.is_null()) {
        return Ok(Part { error: Some(told(&error)), ..Part::default() });
    }
    // Numbers that make no sense are none: they decide about nothing but the price.
    let usage = document.usage.and_then(|usage| serde_json::from_value(usage).ok());
    let mut part = Part { usage, ..Part::default() };
    // One answer was asked for.
    for choice in document.choices.into_iter().filter(|choice| choice.index == 0) {
        let content = choice.delta.or(choice.message).and_then(|content| content.content);
        part.text.push_str(&content.or(choice.text).unwrap_or_default());
        part.finish = choice.finish_reason.as_deref().map(finish).transpose()?.or(part.finish);
    }
    Ok(part)
}

fn finish(word: &str) -> Result<Finish, AskError> {
    match word {
        "stop" | "eos" => Ok(Finish::Stop),
        "length" => Ok(Finish::Length),
        "content_filter" => Ok(Finish::Filtered),
        // No tools were offered.
        other => {
            let reason =
                format!("an end for the reason {:?}", other.chars().take(40).collect::<String>());
            Err(AskError::Malformed { reason })
        }
    }
}

/// The words of an error: `{"message": …}`, or text.
pub(crate) fn told(error: &serde_json::Value) -> String {
    let message = error.get("message").unwrap_or(error);
    message.as_str().map_or_else(|| message.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, text: &str, finish: Option<Finish>, usage: Option<(u32, u32)>) {
        let usage = usage
            .map(|(prompt_tokens, completion_tokens)| Usage { prompt_tokens, completion_tokens });
        let expected = Part { text: text.into(), finish, usage, error: None };
        assert_eq!(part(json.as_bytes()), Ok(expected), "{json}");
    }

    #[test]
    fn events_and_documents_of_both_calls_are_understood() {
        let stop = Some(Finish::Stop);
        check(
            r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#,
            "",
            None,
            None,
        );
        check(r#"{"choices":[{"delta":{"content":"hé"},"finish_reason":null}]}"#, "hé", None, None);
        check(
            r#"{"choices":[{"text":"a","finish_reason":"length"}]}"#,
            "a",
            Some(Finish::Length),
            None,
        );
        check(r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":null}"#, "", stop, None);
        check(
            r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#,
            "",
            None,
            Some((3, 4)),
        );
        check(
            r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}]}"#,
            "x",
            stop,
            None,
        );
        check(r#"{"choices":[{"index":1,"text":"other"}],"x":1}"#, "", None, None);
        check(
            r#"{"choices":[],"usage":{"prompt_tokens":-3,"completion_tokens":1e99}}"#,
            "",
            None,
            None,
        );
    }

    #[test]
    fn what_is_no_answer_is_refused_and_errors_are_told() {
        for wrong in ["", "{", "[]", "7", r#"{"choices":7}"#, r#"{"choices":[{"text":7}]}"#] {
            assert!(matches!(part(wrong.as_bytes()), Err(AskError::Malformed { .. })), "{wrong}");
        }
        assert!(part(br#"{"choices":[{"finish_reason":"tool_calls"}]}"#).is_err());
        assert!(part("[".repeat(100_000).as_bytes()).is_err());
        let told = |json: &str| part(json.as_bytes()).expect("a document").error;
        assert_eq!(told(r#"{"error":{"message":"busy","code":1}}"#).as_deref(), Some("busy"));
        assert_eq!(told(r#"{"error":"busy"}"#).as_deref(), Some("busy"));
        assert_eq!(told(r#"{"error":[1]}"#).as_deref(), Some("[1]"));
    }
}
