//! The message that carries tokens, hidden states, logits and vectors between stages. Pure.
//!
//! Layout: one byte, the length of the header's canonical encoding; that encoding; the payload, raw
//! and little-endian, row after row. The payload is copied once when a message is built and never
//! when it is read. A decoded message's payload has exactly the length its header implies, so a
//! stage may trust the shape; it may not trust the numbers, which may be NaN.
//!
//! Knows shapes and number formats only: which rows make sense, a stage decides.

use crate::frame::Lane;
use bytes::Bytes;
use half::bf16;
use serde::{Deserialize, Serialize};
use talka_base::{CodecError, Encoded, RequestId, decode, encode};

/// Positions in one message. A longer prompt is sent in pieces.
pub const ROWS_MAX: u32 = 65_536;
/// Numbers per row of a hidden state; the widest published models have less than half.
pub const WIDTH_MAX: u32 = 65_536;
/// Logits per row; the largest published vocabularies have about 260,000 tokens.
pub const VOCAB_MAX: u32 = 1 << 20;

/// How numbers of a hidden state are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WireType {
    /// Four bytes, exact.
    F32,
    /// Two bytes, rounded to nearest, ties to even.
    Bf16,
}

impl WireType {
    const fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// What a payload holds. Every shape starts with `T`, the header's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ActivationKind {
    /// `[T]` u32: input to the first stage.
    Tokens,
    /// `[T, width]`: output of one stage, input to the next.
    Hidden {
        /// Numbers per row.
        width: u32,
        /// How each is written.
        dtype: WireType,
    },
    /// `[T, vocab]` f32: output of the last stage.
    Logits {
        /// Numbers per row.
        vocab: u32,
    },
    /// `[T, count]` pairs of a token, u32, and its logit, f32: what the head needs of the last stage's output.
    Best {
        /// Pairs per row.
        count: u32,
    },
    /// `[T, width]` f32: what hidden states were pooled to, output of the last stage.
    Vector {
        /// Numbers per row.
        width: u32,
    },
}

impl ActivationKind {
    /// How the numbers of each row are written; `None` where tokens are, which are no numbers.
    pub const fn dtype(self) -> Option<WireType> {
        match self {
            Self::Tokens | Self::Best { .. } => None,
            Self::Hidden { dtype, .. } => Some(dtype),
            Self::Logits { .. } | Self::Vector { .. } => Some(WireType::F32),
        }
    }

    /// Bytes of one row.
    const fn row_bytes(self) -> u64 {
        match self {
            Self::Tokens => 4,
            Self::Hidden { width, dtype } => width as u64 * dtype.bytes(),
            Self::Logits { vocab } => vocab as u64 * 4,
            Self::Best { count } => count as u64 * 8,
            Self::Vector { width } => width as u64 * 4,
        }
    }

    fn check(self) -> Result<(), ActivationError> {
        match self {
            Self::Tokens => Ok(()),
            Self::Hidden { width, .. } | Self::Vector { width } => {
                bounded("width", width, WIDTH_MAX)
            }
            Self::Logits { vocab } => bounded("vocab", vocab, VOCAB_MAX),
            Self::Best { count } => bounded("count", count, VOCAB_MAX),
        }
    }
}

/// Which rows of which session a payload holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ActivationHeader {
    /// The sequence these rows belong to.
    pub session: RequestId,
    /// Counts the session's messages, so that a repeated or late one is told apart.
    pub step: u64,
    /// Absolute position of the first row in the sequence.
    pub position: u32,
    /// `T`, the number of rows, at least one.
    pub rows: u32,
    /// What each row is.
    pub kind: ActivationKind,
}

impl Encoded for ActivationHeader {
    const NAME: &'static str = "activation header";
    /// Version, session, four numbers as varints, kind with two fields.
    const SIZE_MAX: usize = 64;
}

const _: () = assert!(ActivationHeader::SIZE_MAX <= u8::MAX as usize, "length fits one byte");

impl ActivationHeader {
    /// The length of the payload this header describes.
    ///
    /// # Errors
    /// [`ActivationError`] if a field is out of bounds, or all of it would not fit one frame.
    pub fn payload_bytes(&self) -> Result<usize, ActivationError> {
        bounded("rows", self.rows, ROWS_MAX)?;
        self.kind.check()?;
        if self.position.checked_add(self.rows).is_none() {
            return Err(ActivationError::Position { position: self.position, rows: self.rows });
        }
        let max = Lane::Activations.payload_bytes_max() - Self::SIZE_MAX - 1;
        let found = u64::from(self.rows) * self.kind.row_bytes();
        usize::try_from(found)
            .ok()
            .filter(|&bytes| bytes <= max)
            .ok_or(ActivationError::Oversized { found, max })
    }
}

/// Why bytes are no activation message. Such bytes are the sender's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in each message")]
pub enum ActivationError {
    /// The message ends inside its header.
    #[error("activation message of {found} bytes, its header alone needs {expected}")]
    Truncated { expected: usize, found: usize },
    /// The header does not decode.
    #[error(transparent)]
    Header(#[from] CodecError),
    /// A dimension is zero or too large.
    #[error("activation {field} is {found}, expected 1 to {max}")]
    OutOfBounds { field: &'static str, found: u32, max: u32 },
    /// The rows pass the largest position there is.
    #[error("activation of {rows} rows from position {position} passes the last position")]
    Position { position: u32, rows: u32 },
    /// Rows times width do not fit one frame.
    #[error("activation of {found} bytes, expected at most {max}: send fewer rows at a time")]
    Oversized { found: u64, max: usize },
    /// The payload is not as long as its header says.
    #[error("activation payload of {found} bytes, expected {expected} by its header")]
    PayloadLength { expected: usize, found: usize },
}

/// Builds a message of bytes that are already in wire form, little-endian.
///
/// # Panics
/// If `header` is out of bounds or `payload` is not as long as it says: whoever builds a message
/// asks [`ActivationHeader::payload_bytes`] first where a shape comes from outside.
pub fn encode_activation(header: &ActivationHeader, payload: &[u8]) -> Bytes {
    let mut message = start(header, payload.len());
    message.extend_from_slice(payload);
    message.into()
}

/// Builds a message of `tokens`, `[T]`.
///
/// # Panics
/// As [`encode_activation`], and if `header` does not describe tokens.
pub fn encode_tokens(header: &ActivationHeader, tokens: &[u32]) -> Bytes {
    assert_eq!(header.kind, ActivationKind::Tokens, "tokens under a header of another kind");
    fill(header, tokens, |&token| token.to_le_bytes())
}

/// Builds a message of the best tokens of each row and their logits, `[T, count]`.
///
/// # Panics
/// As [`encode_activation`], and if `header` describes something else.
pub fn encode_best(header: &ActivationHeader, picks: &[(u32, f32)]) -> Bytes {
    assert!(matches!(header.kind, ActivationKind::Best { .. }), "a header of another kind");
    fill(header, picks, |(token, logit)| {
        let (token, logit) = (u64::from(*token), u64::from(logit.to_bits()));
        (token | logit << 32).to_le_bytes()
    })
}

/// Builds a message of hidden states `[T, width]`, logits or vectors, as `header` says. Each
/// number is rounded to nearest, ties to even, if its type on the wire is narrower than f32.
///
/// # Panics
/// As [`encode_activation`], and if `header` describes tokens.
pub fn encode_values(header: &ActivationHeader, values: &[f32]) -> Bytes {
    match header.kind.dtype().expect("numbers under a header of tokens") {
        WireType::F32 => fill(header, values, |x| x.to_le_bytes()),
        WireType::Bf16 => fill(header, values, |&x| bf16::from_f32(x).to_le_bytes()),
    }
}

/// Reads what the functions above built. The payload shares `message`'s memory.
///
/// # Errors
/// [`ActivationError`] says what was expected and found. Never panics, allocates nothing but the
/// header.
pub fn decode_activation(message: Bytes) -> Result<(ActivationHeader, Bytes), ActivationError> {
    let found = message.len();
    let truncated = |expected| ActivationError::Truncated { expected, found };
    let &header_bytes = message.first().ok_or(truncated(1))?;
    let payload_start = 1 + usize::from(header_bytes);
    let header = message.get(1..payload_start).ok_or(truncated(payload_start))?;
    let header: ActivationHeader = decode(header)?;
    let payload = message.slice(payload_start..);
    let expected = header.payload_bytes()?;
    if payload.len() != expected {
        return Err(ActivationError::PayloadLength { expected, found: payload.len() });
    }
    Ok((header, payload))
}

/// The tokens of a payload, `[T]`. Bytes past the last whole number are ignored.
pub fn read_tokens(payload: &[u8]) -> Vec<u32> {
    payload.as_chunks().0.iter().map(|&token| u32::from_le_bytes(token)).collect()
}

/// The tokens and logits of a payload. Bytes past the last whole pair are ignored.
pub fn read_best(payload: &[u8]) -> Vec<(u32, f32)> {
    let pair = |bytes: &[u8; 8]| {
        let pair = u64::from_le_bytes(*bytes);
        (pair as u32, f32::from_bits((pair >> 32) as u32))
    };
    payload.as_chunks().0.iter().map(pair).collect()
}

/// The numbers of a payload written as `dtype`. Bytes past the last whole number are ignored.
pub fn read_values(dtype: WireType, payload: &[u8]) -> Vec<f32> {
    match dtype {
        WireType::F32 => payload.as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect(),
        WireType::Bf16 => {
            payload.as_chunks().0.iter().map(|&x| bf16::from_le_bytes(x).to_f32()).collect()
        }
    }
}

/// A message's length byte and header, with room for the payload.
fn start(header: &ActivationHeader, payload_bytes: usize) -> Vec<u8> {
    assert_eq!(header.payload_bytes(), Ok(payload_bytes), "payload as long as its header says");
    let encoded = encode(header);
    let length = u8::try_from(encoded.len()).expect("a header is at most 64 bytes");
    let mut message = Vec::with_capacity(1 + encoded.len() + payload_bytes);
    message.push(length);
    message.extend(encoded);
    message
}

/// A message of `numbers`, each as `N` bytes.
fn fill<T, const N: usize>(
    header: &ActivationHeader,
    numbers: &[T],
    bytes_of: impl Fn(&T) -> [u8; N],
) -> Bytes {
    let mut message = start(header, N * numbers.len());
    let payload_start = message.len();
    message.resize(payload_start + N * numbers.len(), 0);
    let slots = message[payload_start..].as_chunks_mut().0;
    slots.iter_mut().zip(numbers).for_each(|(slot, number)| *slot = bytes_of(number));
    message.into()
}

const fn bounded(field: &'static str, found: u32, max: u32) -> Result<(), ActivationError> {
    if found >= 1 && found <= max {
        Ok(())
    } else {
        Err(ActivationError::OutOfBounds { field, found, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(kind: ActivationKind, rows: u32) -> ActivationHeader {
        ActivationHeader { session: RequestId([7; 16]), step: 3, position: 40, rows, kind }
    }

    fn hidden(width: u32, dtype: WireType, rows: u32) -> ActivationHeader {
        header(ActivationKind::Hidden { width, dtype }, rows)
    }

    #[test]
    fn the_layout_stays_what_it_is() {
        let message = encode_tokens(&header(ActivationKind::Tokens, 2), &[1, 0x0102_0304]);
        let mut expected = vec![21, 1];
        expected.extend([7; 16]);
        expected.extend([3, 40, 2, 0]);
        expected.extend([1, 0, 0, 0, 4, 3, 2, 1]);
        assert_eq!(message, expected);
    }

    #[test]
    fn bf16_rounds_to_nearest_with_ties_to_even() {
        let ulp = 2_f32.powi(-7);
        let values = [1.0 + 0.49 * ulp, 1.0 + 0.5 * ulp, 1.0 + 0.51 * ulp, 1.0 + 1.5 * ulp];
        let sent = hidden(4, WireType::Bf16, 1);
        let (found, payload) = decode_activation(encode_values(&sent, &values)).expect("decodes");
        assert_eq!(found, sent);
        let expected = [1.0, 1.0, 1.0 + ulp, 1.0 + 2.0 * ulp];
        assert_eq!(read_values(WireType::Bf16, &payload), expected);
        let odd = [f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -0.0];
        let (_, payload) = decode_activation(encode_values(&sent, &odd)).expect("decodes");
        let read = read_values(WireType::Bf16, &payload);
        assert_eq!(read, [f32::INFINITY, f32::NEG_INFINITY, f32::INFINITY, -0.0]);
        let (_, payload) =
            decode_activation(encode_values(&sent, &[f32::NAN; 4])).expect("decodes");
        assert!(read_values(WireType::Bf16, &payload).iter().all(|x| x.is_nan()));
    }

    #[test]
    fn a_payload_shares_the_memory_of_its_message() {
        let message = encode_values(&hidden(4, WireType::F32, 1), &[1.0, 2.0, 3.0, 4.0]);
        let (_, payload) = decode_activation(message.clone()).expect("decodes");
        assert_eq!(payload.as_ptr_range().end, message.as_ptr_range().end);
    }

    /// A message with this header and payload length is refused as `expected`.
    fn check_refused(header: ActivationHeader, payload_bytes: usize, expected: ActivationError) {
        let encoded = encode(&header);
        let mut message = vec![encoded.len() as u8];
        message.extend(encoded);
        message.resize(message.len() + payload_bytes, 0);
        assert_eq!(decode_activation(message.into()), Err(expected));
    }

    #[test]
    fn shapes_out_of_bounds_are_named() {
        let out_of_bounds = |field, found, max| ActivationError::OutOfBounds { field, found, max };
        let tokens = |rows| header(ActivationKind::Tokens, rows);
        let logits = |vocab| header(ActivationKind::Logits { vocab }, 1);
        check_refused(tokens(0), 0, out_of_bounds("rows", 0, ROWS_MAX));
        check_refused(tokens(ROWS_MAX + 1), 4, out_of_bounds("rows", ROWS_MAX + 1, ROWS_MAX));
        check_refused(hidden(0, WireType::F32, 1), 0, out_of_bounds("width", 0, WIDTH_MAX));
        check_refused(logits(u32::MAX), 4, out_of_bounds("vocab", u32::MAX, VOCAB_MAX));
        let expected = ActivationError::PayloadLength { expected: 8, found: 7 };
        check_refused(tokens(2), 7, expected);
        let expected = ActivationError::PayloadLength { expected: 8, found: 9 };
        check_refused(tokens(2), 9, expected);
        let expected = ActivationError::Oversized {
            found: 1 << 34,
            max: Lane::Activations.payload_bytes_max() - 65,
        };
        check_refused(hidden(WIDTH_MAX, WireType::F32, ROWS_MAX), 4, expected);
        let last = ActivationHeader { position: u32::MAX, ..tokens(2) };
        check_refused(last, 8, ActivationError::Position { position: u32::MAX, rows: 2 });
    }

    fn kinds() -> impl Strategy<Value = ActivationKind> {
        let dtype = prop_oneof![Just(WireType::F32), Just(WireType::Bf16)];
        prop_oneof![
            Just(ActivationKind::Tokens),
            (1..40_u32, dtype).prop_map(|(width, dtype)| ActivationKind::Hidden { width, dtype }),
            (1..40_u32).prop_map(|vocab| ActivationKind::Logits { vocab }),
            (1..40_u32).prop_map(|count| ActivationKind::Best { count }),
            (1..40_u32).prop_map(|width| ActivationKind::Vector { width }),
        ]
    }

    fn headers() -> impl Strategy<Value = ActivationHeader> {
        (any::<[u8; 16]>(), any::<u64>(), 0..u32::MAX - 40, 1..40_u32, kinds()).prop_map(
            |(session, step, position, rows, kind)| ActivationHeader {
                session: RequestId(session),
                step,
                position,
                rows,
                kind,
            },
        )
    }

    proptest! {
        #[test]
        fn round_trips_and_rejects_every_truncation(sent in headers(), byte: u8) {
            let length = sent.payload_bytes().expect("within bounds");
            let message = encode_activation(&sent, &vec![byte; length]);
            let decoded = decode_activation(message.clone());
            prop_assert_eq!(decoded, Ok((sent, Bytes::from(vec![byte; length]))));
            for end in 0..message.len() {
                prop_assert!(decode_activation(message.slice(..end)).is_err());
            }
            let longer = [&message[..], &[0]].concat();
            prop_assert!(decode_activation(longer.into()).is_err());
        }

        #[test]
        fn numbers_round_trip(values in proptest::collection::vec(any::<f32>(), 1..50)) {
            let count = values.len() as u32;
            let message = encode_values(&hidden(count, WireType::F32, 1), &values);
            let (_, payload) = decode_activation(message).expect("decodes");
            prop_assert_eq!(read_values(WireType::F32, &payload), values.clone());
            let tokens: Vec<u32> = values.iter().map(|x| x.to_bits()).collect();
            let message = encode_tokens(&header(ActivationKind::Tokens, count), &tokens);
            let (_, payload) = decode_activation(message).expect("decodes");
            prop_assert_eq!(read_tokens(&payload), tokens);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode_activation(bytes.into());
        }
    }
}
