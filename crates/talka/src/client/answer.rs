//! An answer that arrives piece by piece.

use super::{ClientError, ErrorBody, root_cause};
use crate::sse::SseReader;
use reqwest::Response;
use serde::Deserialize;
use std::collections::VecDeque;

/// What ends a complete stream.
const DONE: &str = "[DONE]";

/// The text of one answer, from `/v1/completions` or `/v1/chat/completions`. Dropping it before
/// the end closes the connection, and so cancels the request.
#[derive(Debug)]
pub struct Answer {
    response: Response,
    reader: SseReader,
    events: VecDeque<String>,
}

/// One event: both interfaces in one, since a choice has either `text` or `delta`.
#[derive(Debug, Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    error: Option<ErrorBody>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    text: Option<String>,
    delta: Option<Delta>,
}

#[derive(Debug, Deserialize)]
struct Delta {
    content: Option<String>,
}

impl Answer {
    pub(super) fn new(response: Response) -> Self {
        Self { response, reader: SseReader::default(), events: VecDeque::new() }
    }

    /// The next text, or `None` at the end of a complete answer. Safe to abandon and call again.
    ///
    /// # Errors
    /// [`ClientError::Answered`] if the node gave the answer up, [`ClientError::BrokenOff`] if the
    /// connection ended before the answer.
    pub async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            while let Some(event) = self.events.pop_front() {
                if event == DONE {
                    return Ok(None);
                }
                let text = text_of(&event, self.response.status().as_u16())?;
                if !text.is_empty() {
                    return Ok(Some(text));
                }
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), ClientError> {
        let broken = |reason: String| ClientError::BrokenOff { reason };
        let piece = self.response.chunk().await.map_err(|error| broken(root_cause(&error)))?;
        let piece = piece.ok_or_else(|| broken("the node closed the connection".into()))?;
        self.events.extend(self.reader.push(&piece).map_err(|error| broken(error.to_string()))?);
        Ok(())
    }
}

fn text_of(event: &str, status: u16) -> Result<String, ClientError> {
    let chunk: Chunk = serde_json::from_str(event)
        .map_err(|error| ClientError::BrokenOff { reason: format!("event {event:?}: {error}") })?;
    if let Some(error) = chunk.error {
        return Err(error.with_status(status));
    }
    let text = |choice: Choice| choice.text.or(choice.delta.and_then(|delta| delta.content));
    Ok(chunk.choices.into_iter().filter_map(text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_interfaces_give_text_and_errors() {
        let text = |event| text_of(event, 200);
        let completion = r#"{"choices":[{"index":0,"text":"be","finish_reason":null}]}"#;
        let chat = r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":"be"}}]}"#;
        let usage = r#"{"choices":[],"usage":{"prompt_tokens":3}}"#;
        assert_eq!(text(completion).expect("text"), "be");
        assert_eq!(text(chat).expect("text"), "be");
        assert_eq!(text(usage).expect("nothing"), "");

        let lost = r#"{"error":{"message":"stage lost","type":"x","code":"stage_lost"}}"#;
        let error = text(lost).expect_err("an error");
        assert_eq!(error.to_string(), "stage lost");
        assert!(matches!(text("<html>"), Err(ClientError::BrokenOff { .. })));
    }
}
