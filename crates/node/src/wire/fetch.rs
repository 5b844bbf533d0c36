//! What is said on a link that was opened to fetch a model, or what members of a training job give each other.
//!
//! It is a link of its own: nothing waits behind a piece but other pieces. After the greeting
//! ([`Control::Fetch`](super::Control::Fetch)) the dialler asks and the other side answers, in the order of the
//! questions, each in one frame of the control lane.

use super::WireError;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use talka_base::{Encoded, JobId, ModelId, decode, encode};
use talka_engine::PIECE_BYTES;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// What is the model that requests call this?
    Describe {
        /// As in `/v1/models`.
        name: String,
    },
    /// A piece of the model's outline, counted from 0.
    Outline {
        /// Which model.
        model: ModelId,
        /// Which piece, of [`PIECE_BYTES`].
        piece: u32,
    },
    /// A piece of one tensor.
    Piece {
        /// Which model.
        model: ModelId,
        /// By the order of names.
        tensor: u32,
        /// Counted from 0.
        piece: u32,
    },
    /// A piece of something that a training job's members have.
    Thing {
        /// Which job.
        job: JobId,
        /// Its BLAKE3.
        hash: [u8; 32],
        /// Which piece, of [`PIECE_BYTES`].
        piece: u32,
    },
}

impl Encoded for Ask {
    const NAME: &'static str = "question about a model";
    const SIZE_MAX: usize = 1 << 10;
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The model, and its outline's BLAKE3 and length.
    Described {
        /// Its id.
        model: ModelId,
        /// BLAKE3 of its outline.
        outline: [u8; 32],
        /// The outline's length.
        bytes: u64,
    },
    /// The outline is still being made, which takes as long as reading all weights: ask again.
    NotYet,
    /// What was asked for is not here.
    Absent {
        /// Why, for people.
        reason: String,
    },
    /// The piece.
    Piece(Bytes),
}

/// The answers that are no piece.
#[derive(Debug, Serialize, Deserialize)]
enum Notice {
    Described { model: ModelId, outline: [u8; 32], bytes: u64 },
    NotYet,
    Absent { reason: String },
}

impl Encoded for Notice {
    const NAME: &'static str = "answer about a model";
    const SIZE_MAX: usize = 1 << 10;
}

/// First byte of an answer.
const NOTICE: u8 = 0;
const PIECE: u8 = 1;

impl Ask {
    /// The bytes to send.
    pub fn to_bytes(&self) -> Bytes {
        encode(self).into()
    }

    /// # Errors
    /// [`WireError`]; the sender is to blame.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WireError> {
        Ok(decode(bytes)?)
    }
}

impl Answer {
    /// The bytes to send.
    pub fn to_bytes(&self) -> Bytes {
        let notice = match self {
            Self::Piece(bytes) => return [&[PIECE], bytes.as_ref()].concat().into(),
            Self::Described { model, outline, bytes } => {
                Notice::Described { model: *model, outline: *outline, bytes: *bytes }
            }
            Self::NotYet => Notice::NotYet,
            Self::Absent { reason } => Notice::Absent { reason: super::shorten(reason) },
        };
        [vec![NOTICE], encode(&notice)].concat().into()
    }

    /// # Errors
    /// [`WireError`]; the sender is to blame.
    pub fn from_bytes(bytes: &Bytes) -> Result<Self, WireError> {
        match bytes.first() {
            Some(&PIECE) => {
                super::at_most("bytes of a piece", bytes.len() - 1, PIECE_BYTES)?;
                Ok(Self::Piece(bytes.slice(1..)))
            }
            Some(&NOTICE) => Ok(match decode(&bytes[1..])? {
                Notice::Described { model, outline, bytes } => {
                    Self::Described { model, outline, bytes }
                }
                Notice::NotYet => Self::NotYet,
                Notice::Absent { reason } => Self::Absent { reason: super::shorten(&reason) },
            }),
            found => Err(WireError::Answer { found: found.copied() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn questions_and_answers_round_trip() {
        let model = ModelId([3; 32]);
        let questions = [
            Ask::Describe { name: "bard".into() },
            Ask::Outline { model, piece: 2 },
            Ask::Piece { model, tensor: 300, piece: u32::MAX },
        ];
        for question in questions {
            assert_eq!(Ask::from_bytes(&question.to_bytes()), Ok(question));
        }
        let answers = [
            Answer::Described { model, outline: [4; 32], bytes: 5 },
            Answer::NotYet,
            Answer::Absent { reason: "no such model".into() },
            Answer::Piece(Bytes::from_static(b"weights")),
            Answer::Piece(Bytes::new()),
        ];
        for answer in answers {
            assert_eq!(Answer::from_bytes(&answer.to_bytes()), Ok(answer));
        }
    }

    #[test]
    fn a_piece_that_is_too_long_is_refused() {
        let bytes = Bytes::from(vec![PIECE; PIECE_BYTES + 2]);
        let error = Answer::from_bytes(&bytes).expect_err("too long");
        assert!(matches!(error, WireError::TooMany { max: PIECE_BYTES, .. }), "{error}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Ask::from_bytes(&bytes);
            let _ = Answer::from_bytes(&bytes.into());
        }
    }
}
