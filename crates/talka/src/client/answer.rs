//! An answer that arrives piece by piece, and goes on where it was if the node is started again meanwhile.

use super::{Client, ClientError, ErrorBody, root_cause};
use crate::sse::SseReader;
use reqwest::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::VecDeque, time::Duration};
use tokio::time::{Instant, sleep};

/// What ends a complete stream.
const DONE: &str = "[DONE]";

/// A node that is started again answers within this time; its supervisor or its owner needs a moment.
const RETURN_TIME_MAX: Duration = Duration::from_secs(30);
/// Pause between two attempts to reach it.
const RETURN_PAUSE: Duration = Duration::from_millis(300);

/// The text of one answer, from `/v1/completions` or `/v1/chat/completions`. Dropping it before
/// the end closes the connection, and so cancels the request.
#[derive(Debug)]
pub struct Answer<'a> {
    client: &'a Client,
    path: &'static str,
    body: Value,
    response: Response,
    reader: SseReader,
    events: VecDeque<String>,
    /// Where to go on: the answer's id, and how many of its tokens came.
    place: Option<(String, u32)>,
}

/// One event: both interfaces in one, since a choice has either `text` or `delta`.
#[derive(Debug, Deserialize)]
struct Chunk {
    #[serde(default)]
    id: String,
    #[serde(default)]
    choices: Vec<Choice>,
    error: Option<ErrorBody>,
    talka: Option<Own>,
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

#[derive(Debug, Deserialize)]
struct Own {
    tokens: Option<u32>,
}

impl<'a> Answer<'a> {
    pub(super) async fn begin(
        client: &'a Client,
        path: &'static str,
        body: Value,
    ) -> Result<Self, ClientError> {
        let response = client.open(path, &body).await?;
        let (reader, events) = (SseReader::default(), VecDeque::new());
        Ok(Self { client, path, body, response, reader, events, place: None })
    }

    /// The next text, or `None` at the end of a complete answer. Safe to abandon and call again.
    ///
    /// # Errors
    /// [`ClientError::Answered`] if the node gave the answer up, [`ClientError::BrokenOff`] if the
    /// connection ended before the answer and the node did not come back to go on with it.
    pub async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            while let Some(event) = self.events.pop_front() {
                if event == DONE {
                    return Ok(None);
                }
                let chunk = parse(&event, self.response.status().as_u16())?;
                if let Some(Own { tokens: Some(tokens) }) = chunk.talka {
                    self.place = Some((chunk.id.clone(), tokens));
                }
                let text = chunk.text();
                if !text.is_empty() {
                    return Ok(Some(text));
                }
            }
            if let Err(error) = self.fill().await {
                self.go_on(error).await?;
            }
        }
    }

    async fn fill(&mut self) -> Result<(), ClientError> {
        let broken = |reason: String| ClientError::BrokenOff { reason };
        let piece = self.response.chunk().await.map_err(|error| broken(root_cause(&error)))?;
        let piece = piece.ok_or_else(|| broken("the node closed the connection".into()))?;
        self.events.extend(self.reader.push(&piece).map_err(|error| broken(error.to_string()))?);
        Ok(())
    }

    /// Asks for the rest of an answer that broke off; `error` if nobody gives it.
    async fn go_on(&mut self, error: ClientError) -> Result<(), ClientError> {
        let Some((answer, tokens)) = &self.place else { return Err(error) };
        self.body["talka"]["resume"] = json!({"answer": answer, "tokens": tokens});
        let deadline = Instant::now() + RETURN_TIME_MAX;
        while Instant::now() < deadline {
            match self.client.open(self.path, &self.body).await {
                Ok(response) => {
                    (self.response, self.reader) = (response, SseReader::default());
                    return Ok(());
                }
                // Not there yet, or still without the other nodes.
                Err(ClientError::NoNode { .. } | ClientError::Answered { status: 503, .. }) => {
                    sleep(RETURN_PAUSE).await;
                }
                Err(_) => break,
            }
        }
        Err(error)
    }
}

impl Chunk {
    fn text(self) -> String {
        let text = |choice: Choice| choice.text.or(choice.delta.and_then(|delta| delta.content));
        self.choices.into_iter().filter_map(text).collect()
    }
}

fn parse(event: &str, status: u16) -> Result<Chunk, ClientError> {
    let mut chunk: Chunk = serde_json::from_str(event)
        .map_err(|error| ClientError::BrokenOff { reason: format!("event {event:?}: {error}") })?;
    match chunk.error.take() {
        Some(error) => Err(error.with_status(status)),
        None => Ok(chunk),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_interfaces_give_text_and_errors() {
        let text = |event| parse(event, 200).map(Chunk::text);
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
