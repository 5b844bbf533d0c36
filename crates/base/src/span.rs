//! Half-open runs of layers.

use serde::{Deserialize, Serialize};
use std::{fmt, ops::Range, str::FromStr};

/// A contiguous, non-empty run of layers `start..end`, `end` exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(u32, u32)", into = "(u32, u32)")]
pub struct LayerSpan {
    start: u32,
    end: u32,
}

/// Why a span is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum SpanError {
    /// A span holds at least one layer.
    #[error("layer span {start}..{end} is empty, expected start < end")]
    Empty { start: u32, end: u32 },
    /// The text is not `A..B`.
    #[error("layer span {found:?}, expected A..B, half open, such as 0..16")]
    Syntax { found: String },
}

impl LayerSpan {
    /// # Errors
    /// [`SpanError::Empty`] unless `start < end`.
    pub fn new(start: u32, end: u32) -> Result<Self, SpanError> {
        if start < end { Ok(Self { start, end }) } else { Err(SpanError::Empty { start, end }) }
    }

    /// First layer.
    pub const fn start(self) -> u32 {
        self.start
    }

    /// One past the last layer.
    pub const fn end(self) -> u32 {
        self.end
    }

    /// Number of layers, at least one.
    #[allow(clippy::len_without_is_empty, reason = "a span is never empty")]
    pub const fn len(self) -> u32 {
        self.end - self.start
    }

    /// The layers as a range.
    pub const fn layers(self) -> Range<u32> {
        self.start..self.end
    }

    /// Whether every layer of `other` is in this span.
    pub const fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// The layers in both spans, if any.
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.start.max(other.start), self.end.min(other.end)).ok()
    }

    /// Whether `layer` is in this span.
    pub const fn contains_layer(self, layer: u32) -> bool {
        self.start <= layer && layer < self.end
    }
}

impl fmt::Display for LayerSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

impl FromStr for LayerSpan {
    type Err = SpanError;
    fn from_str(text: &str) -> Result<Self, SpanError> {
        let syntax = || SpanError::Syntax { found: text.into() };
        let (start, end) = text.split_once("..").ok_or_else(syntax)?;
        Self::new(start.parse().map_err(|_| syntax())?, end.parse().map_err(|_| syntax())?)
    }
}

impl TryFrom<(u32, u32)> for LayerSpan {
    type Error = SpanError;
    fn try_from((start, end): (u32, u32)) -> Result<Self, SpanError> {
        Self::new(start, end)
    }
}

impl From<LayerSpan> for (u32, u32) {
    fn from(span: LayerSpan) -> Self {
        (span.start, span.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_shows_and_names_what_is_wrong() {
        let span = LayerSpan::new(4, 9).expect("not empty");
        assert_eq!("4..9".parse(), Ok(span));
        assert_eq!((span.to_string(), span.len()), ("4..9".into(), 5));
        assert_eq!("9..4".parse::<LayerSpan>(), Err(SpanError::Empty { start: 9, end: 4 }));
        for wrong in ["", "4", "4..", "a..b", "4..=9", "-1..3"] {
            assert_eq!(wrong.parse::<LayerSpan>(), Err(SpanError::Syntax { found: wrong.into() }));
        }
    }

    #[test]
    fn spans_meet_where_both_have_layers() {
        let span = |text: &str| text.parse::<LayerSpan>().expect("test span");
        assert_eq!(span("0..4").intersection(span("2..9")), Some(span("2..4")));
        assert_eq!(span("0..4").intersection(span("4..9")), None);
    }

    #[test]
    fn an_empty_span_does_not_decode() {
        let bytes = postcard::to_stdvec(&(3_u32, 3_u32)).expect("serialises");
        assert!(postcard::from_bytes::<LayerSpan>(&bytes).is_err());
    }
}
