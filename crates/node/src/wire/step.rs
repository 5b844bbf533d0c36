//! One step of a session: rows for a stage, or what the last stage answers.

use super::Leg;
use bytes::Bytes;
use talka_base::RequestId;
use talka_engine::{LogitsWanted, Pooling};
use talka_net::{ActivationHeader, ActivationKind, WireType, activation};

/// What rows are.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// Token ids `[T]`, into the first stage.
    Tokens(Vec<u32>),
    /// Hidden states `[T, width]`, between stages.
    Hidden {
        /// D.
        width: u32,
        /// How each number is written. Between stages on one node nothing is, and nothing rounded.
        dtype: WireType,
        /// D fastest.
        values: Vec<f32>,
    },
    /// What the last stage answers the head.
    Answer(Answer),
}

/// What the head gets for a step that wants something.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Logits `[1, V]` or `[T, V]`, as the step asked.
    Logits {
        /// V.
        vocab: u32,
        /// V fastest.
        values: Vec<f32>,
    },
    /// What the head needs of logits: tokens and theirs, of each row as many as of the others.
    Best {
        /// Of one row.
        count: u32,
        /// Row after row.
        picks: Vec<(u32, f32)>,
    },
    /// What the step's hidden states were pooled to, `[D]`.
    Vector(Vec<f32>),
}

/// What the head waits for after a step, from the last stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Logits after some rows, or nothing at all.
    Logits(LogitsWanted),
    /// What the rows are pooled to, not yet of length 1: so that a text may come in several steps.
    Vector(Pooling),
}

impl Wanted {
    /// All rows of the step go through a stage together.
    pub fn is_whole(self) -> bool {
        self == Self::Logits(LogitsWanted::All)
    }

    /// What the layers are asked for.
    pub fn logits(self) -> LogitsWanted {
        match self {
            Self::Logits(wanted) => wanted,
            Self::Vector(_) => LogitsWanted::None,
        }
    }
}

/// One step of a session.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The session.
    pub session: RequestId,
    /// Where it is.
    pub leg: Leg,
    /// Counts the session's steps from 0.
    pub number: u64,
    /// Absolute position of the first row. Lower than where the session stands if the head guessed
    /// tokens and some were wrong: a stage forgets what follows. See [`LogitsWanted::All`].
    pub position: u32,
    /// What the head waits for.
    pub wants: Wanted,
    /// The rows.
    pub payload: Payload,
}

impl Step {
    pub(super) fn body(&self) -> Bytes {
        let header = |rows: usize, kind| ActivationHeader {
            session: self.session,
            step: self.number,
            position: self.position,
            rows: u32::try_from(rows).expect("a step has few rows"),
            kind,
        };
        match &self.payload {
            Payload::Tokens(tokens) => {
                activation::encode_tokens(&header(tokens.len(), ActivationKind::Tokens), tokens)
            }
            Payload::Hidden { width, dtype, values } => {
                let kind = ActivationKind::Hidden { width: *width, dtype: *dtype };
                activation::encode_values(&header(values.len() / *width as usize, kind), values)
            }
            Payload::Answer(Answer::Logits { vocab, values }) => {
                let kind = ActivationKind::Logits { vocab: *vocab };
                activation::encode_values(&header(values.len() / *vocab as usize, kind), values)
            }
            Payload::Answer(Answer::Best { count, picks }) => {
                let kind = ActivationKind::Best { count: *count };
                activation::encode_best(&header(picks.len() / *count as usize, kind), picks)
            }
            Payload::Answer(Answer::Vector(values)) => {
                let width = u32::try_from(values.len()).expect("a vector is short");
                activation::encode_values(&header(1, ActivationKind::Vector { width }), values)
            }
        }
    }

    pub(super) fn from_parts(
        leg: Leg,
        wants: Wanted,
        header: ActivationHeader,
        payload: &[u8],
    ) -> Self {
        let ActivationHeader { session, step: number, position, rows: _, kind } = header;
        let payload = match kind {
            ActivationKind::Tokens => Payload::Tokens(activation::read_tokens(payload)),
            ActivationKind::Hidden { width, dtype } => {
                Payload::Hidden { width, dtype, values: activation::read_values(dtype, payload) }
            }
            ActivationKind::Logits { vocab } => {
                let values = activation::read_values(WireType::F32, payload);
                Payload::Answer(Answer::Logits { vocab, values })
            }
            ActivationKind::Best { count } => {
                Payload::Answer(Answer::Best { count, picks: activation::read_best(payload) })
            }
            ActivationKind::Vector { .. } => {
                let values = activation::read_values(WireType::F32, payload);
                Payload::Answer(Answer::Vector(values))
            }
        };
        Self { session, leg, number, position, wants, payload }
    }
}
