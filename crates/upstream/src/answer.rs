//! An answer as it comes in.

use crate::{
    error::AskError,
    events::{self, Finish, Part, Usage},
    lines::Lines,
    service::unreachable,
};
use reqwest::{Response, header::CONTENT_TYPE};
use std::time::Duration;
use tokio::time::timeout;

/// What a document around the text of an answer may take.
const DOCUMENT_SLACK: usize = 64 << 10;

/// Of a service that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// More of the answer; never empty.
    Text(String),
    /// Its end; there is nothing more.
    End {
        /// Why.
        finish: Finish,
        /// What the service counted, if it says so.
        usage: Option<Usage>,
    },
}

/// An answer under way. Dropping it closes the connection.
#[derive(Debug)]
pub struct Answer {
    response: Response,
    lines: Lines,
    silence_max: Duration,
    /// Bytes of text that may still come.
    bytes_left: usize,
    bytes_max: usize,
    finish: Option<Finish>,
    usage: Option<Usage>,
    /// Already read.
    first: Option<Said>,
    ended: bool,
}

impl Answer {
    /// Waits for the first word.
    pub(crate) async fn begin(
        response: Response,
        silence_max: Duration,
        bytes_max: usize,
    ) -> Result<Self, AskError> {
        let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_whole = kind.is_some_and(|kind| kind.starts_with("application/json"));
        let mut answer = Self {
            response,
            lines: Lines::default(),
            silence_max,
            bytes_left: bytes_max,
            bytes_max,
            finish: None,
            usage: None,
            first: None,
            ended: false,
        };
        answer.first = Some(if is_whole { answer.whole().await? } else { answer.read().await? });
        Ok(answer)
    }

    /// What comes next. After the end there is nothing: do not ask.
    ///
    /// # Errors
    /// [`AskError`]; show it after [`Service::clean`](crate::Service::clean).
    pub async fn next(&mut self) -> Result<Said, AskError> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        if self.ended {
            return self.end();
        }
        let silence_max = self.silence_max;
        let silent = AskError::Silent { seconds: silence_max.as_secs() };
        timeout(silence_max, self.read()).await.unwrap_or(Err(silent))
    }

    /// Reads on until something was said. Comments and empty events are not: they would keep a service
    /// alive that does nothing.
    async fn read(&mut self) -> Result<Said, AskError> {
        loop {
            while let Some(data) = self.lines.next()? {
                if data == "[DONE]" {
                    return self.end();
                }
                let text = self.take(events::part(data.as_bytes())?)?;
                if !text.is_empty() {
                    return Ok(Said::Text(text));
                }
            }
            match self.response.chunk().await.map_err(unreachable)? {
                Some(bytes) => self.lines.push(&bytes)?,
                None => return self.end(),
            }
        }
    }

    /// An answer that is one document: all of it at once.
    async fn whole(&mut self) -> Result<Said, AskError> {
        let mut body = Vec::new();
        // Six bytes say a character at most, as \u….
        let max = self.bytes_max.saturating_mul(6).saturating_add(DOCUMENT_SLACK);
        while let Some(piece) = self.response.chunk().await.map_err(unreachable)? {
            if body.len() + piece.len() > max {
                return Err(AskError::Long { max });
            }
            body.extend_from_slice(&piece);
        }
        let text = self.take(events::part(&body)?)?;
        self.ended = true;
        if self.finish.is_none() {
            return Err(AskError::Malformed { reason: "a document without an answer".into() });
        }
        if text.is_empty() { self.end() } else { Ok(Said::Text(text)) }
    }

    /// The text of `part`; the rest is kept for the end.
    fn take(&mut self, part: Part) -> Result<String, AskError> {
        if let Some(message) = part.error {
            return Err(AskError::Failed { message });
        }
        self.finish = part.finish.or(self.finish);
        self.usage = part.usage.or(self.usage);
        let left = self.bytes_left.checked_sub(part.text.len());
        self.bytes_left = left.ok_or(AskError::Long { max: self.bytes_max })?;
        Ok(part.text)
    }

    /// The end, if the service said that the answer is complete.
    fn end(&mut self) -> Result<Said, AskError> {
        self.ended = true;
        let finish = self.finish.ok_or(AskError::Cut)?;
        Ok(Said::End { finish, usage: self.usage })
    }
}
