//! What travels on a lane: one version byte, the payload's length as four little-endian bytes, the
//! payload. Pure: reads no socket, so every malformed input can be tested.
//!
//! A length is checked before anything is allocated, and buffers grow only as bytes arrive: a peer
//! that announces the largest frame and sends nothing costs 64 KiB.

use bytes::Bytes;
use std::fmt;

/// First byte of every frame. Raised whenever the layout changes.
pub const FRAME_VERSION: u8 = 1;

/// Version byte and length.
pub const HEADER_BYTES: usize = 5;

/// The buffer a payload starts with, and the most that is read from a lane at a time, so that a
/// long activations frame never holds back a control frame for longer than copying this much.
const READ_BYTES_MAX: usize = 64 * 1024;

/// One of the two persistent streams of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Small messages that must not wait: membership, heartbeats, reservations, receipts.
    Control,
    /// Activation messages, large and many.
    Activations,
}

impl Lane {
    /// Both lanes, in the order in which they are opened and preferred.
    pub const ALL: [Self; 2] = [Self::Control, Self::Activations];

    /// The longest payload of one frame, in bytes.
    ///
    /// Control holds a batch of ledger entries. Activations holds 4,096 positions of hidden width
    /// 4,096 in f32, or 128 rows of logits over 128 K tokens.
    pub const fn payload_bytes_max(self) -> usize {
        match self {
            Self::Control => 4 * 1024 * 1024,
            Self::Activations => 64 * 1024 * 1024,
        }
    }

    /// The byte that opens the lane's stream and says which lane it is.
    pub const fn tag(self) -> u8 {
        match self {
            Self::Control => b'c',
            Self::Activations => b'a',
        }
    }

    /// The lane that `tag` opens.
    pub fn from_tag(tag: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.tag() == tag)
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Control => "control",
            Self::Activations => "activations",
        })
    }
}

/// A frame that breaks the rules. Received from a peer it is the peer's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in each message")]
pub enum FrameError {
    /// The other side speaks another version, or no frames at all.
    #[error("{lane} frame has version {found}, expected {expected}: update the older side")]
    Version { lane: Lane, expected: u8, found: u8 },
    /// Longer than the lane allows; nothing was allocated.
    #[error("{lane} frame of {found} bytes, expected at most {max}")]
    Oversized { lane: Lane, found: u64, max: usize },
    /// The lane ended inside a frame.
    #[error("{lane} lane ended {found} bytes into a frame of {expected}")]
    Truncated { lane: Lane, expected: usize, found: usize },
}

/// The header of a frame whose payload has `payload_bytes` bytes.
///
/// # Errors
/// [`FrameError::Oversized`] if the lane does not carry that much in one frame.
pub fn header(lane: Lane, payload_bytes: usize) -> Result<[u8; HEADER_BYTES], FrameError> {
    let max = lane.payload_bytes_max();
    let oversized = || FrameError::Oversized { lane, found: payload_bytes as u64, max };
    if payload_bytes > max {
        return Err(oversized());
    }
    let [a, b, c, d] = u32::try_from(payload_bytes).map_err(|_| oversized())?.to_le_bytes();
    Ok([FRAME_VERSION, a, b, c, d])
}

/// Takes one lane's bytes as they come and gives back payloads.
///
/// Write bytes to the front of [`Decoder::space`], then say how many with [`Decoder::filled`]. The
/// space never reaches past the current frame. All state is here, so a reader may be dropped
/// between the two calls and lose nothing.
pub struct Decoder {
    lane: Lane,
    header: [u8; HEADER_BYTES],
    header_filled: usize,
    /// The announced length; meaningful once the header is complete.
    payload_bytes: usize,
    /// Zeroed up to its length, which grows towards `payload_bytes`; received up to `filled`.
    payload: Vec<u8>,
    filled: usize,
}

impl fmt::Debug for Decoder {
    /// Leaves out the bytes: they may be many, and are somebody's words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("lane", &self.lane)
            .field("payload_bytes", &self.payload_bytes)
            .field("filled", &self.filled)
            .finish_non_exhaustive()
    }
}

impl Decoder {
    /// A decoder at the start of a frame.
    pub const fn new(lane: Lane) -> Self {
        Self {
            lane,
            header: [0; HEADER_BYTES],
            header_filled: 0,
            payload_bytes: 0,
            payload: Vec::new(),
            filled: 0,
        }
    }

    /// Where the next bytes of the lane go; never empty.
    pub fn space(&mut self) -> &mut [u8] {
        if self.header_filled < HEADER_BYTES {
            return &mut self.header[self.header_filled..];
        }
        if self.filled == self.payload.len() {
            // Doubling keeps the copies linear and the waste below what was really received.
            let length = (2 * self.filled).max(READ_BYTES_MAX).min(self.payload_bytes);
            self.payload.resize(length, 0);
        }
        let end = self.payload.len().min(self.filled + READ_BYTES_MAX);
        &mut self.payload[self.filled..end]
    }

    /// Counts `count` bytes as written to the front of [`Decoder::space`]. Gives the payload that
    /// they complete, if any.
    ///
    /// # Errors
    /// [`FrameError`] if a header just completed breaks the rules; the lane is then unusable.
    ///
    /// # Panics
    /// If `count` exceeds the space that was offered.
    pub fn filled(&mut self, count: usize) -> Result<Option<Bytes>, FrameError> {
        assert!(count <= self.space().len(), "{count} bytes written past the space offered");
        if self.header_filled < HEADER_BYTES {
            self.header_filled += count;
            if self.header_filled < HEADER_BYTES {
                return Ok(None);
            }
            self.payload_bytes = self.check_header()?;
        } else {
            self.filled += count;
        }
        if self.filled < self.payload_bytes {
            return Ok(None);
        }
        let payload = std::mem::take(&mut self.payload);
        *self = Self::new(self.lane);
        Ok(Some(Bytes::from(payload)))
    }

    /// Checks that the lane may end here, between two frames.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] inside a frame.
    pub fn end(&self) -> Result<(), FrameError> {
        if self.header_filled == 0 {
            return Ok(());
        }
        let expected = HEADER_BYTES + self.payload_bytes;
        let found = self.header_filled + self.filled;
        Err(FrameError::Truncated { lane: self.lane, expected, found })
    }

    fn check_header(&self) -> Result<usize, FrameError> {
        let [version, length @ ..] = self.header;
        let lane = self.lane;
        if version != FRAME_VERSION {
            return Err(FrameError::Version { lane, expected: FRAME_VERSION, found: version });
        }
        let found = u64::from(u32::from_le_bytes(length));
        let max = lane.payload_bytes_max();
        usize::try_from(found).ok().filter(|&bytes| bytes <= max).ok_or(FrameError::Oversized {
            lane,
            found,
            max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `bytes` in pieces of at most `piece`.
    fn decode(decoder: &mut Decoder, bytes: &[u8], piece: usize) -> Result<Vec<Bytes>, FrameError> {
        let mut payloads = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let space = decoder.space();
            let count = space.len().min(rest.len()).min(piece);
            space[..count].copy_from_slice(&rest[..count]);
            rest = &rest[count..];
            payloads.extend(decoder.filled(count)?);
        }
        Ok(payloads)
    }

    fn encode(lane: Lane, payloads: &[Vec<u8>]) -> Vec<u8> {
        payloads
            .iter()
            .flat_map(|p| [&header(lane, p.len()).expect("short enough")[..], p].concat())
            .collect()
    }

    fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let payload = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40),
            (0..3 * READ_BYTES_MAX).prop_map(|n| (0..n).map(|i| (i % 251) as u8).collect()),
        ];
        proptest::collection::vec(payload, 0..5)
    }

    proptest! {
        #[test]
        fn round_trips_in_any_pieces(payloads in payloads(), piece in 1..100_000_usize) {
            for lane in Lane::ALL {
                let mut decoder = Decoder::new(lane);
                let found = decode(&mut decoder, &encode(lane, &payloads), piece);
                prop_assert_eq!(found, Ok(payloads.iter().cloned().map(Bytes::from).collect()));
                prop_assert_eq!(decoder.end(), Ok(()));
            }
        }

        #[test]
        fn a_lane_that_ends_inside_a_frame_is_truncated(payload: Vec<u8>, cut in 1..1000_usize) {
            let bytes = encode(Lane::Control, &[payload]);
            let cut = 1 + cut % (bytes.len() - 1);
            let mut decoder = Decoder::new(Lane::Control);
            prop_assert_eq!(decode(&mut decoder, &bytes[..cut], usize::MAX), Ok(vec![]));
            let truncated = matches!(decoder.end(), Err(FrameError::Truncated { .. }));
            prop_assert!(truncated);
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_never_allocate_ahead(bytes: Vec<u8>, piece in 1..64_usize) {
            let mut decoder = Decoder::new(Lane::Activations);
            let _ = decode(&mut decoder, &bytes, piece);
            prop_assert!(decoder.payload.len() <= 2 * bytes.len() + READ_BYTES_MAX);
        }
    }

    #[test]
    fn a_longer_frame_is_refused_at_its_header() {
        for lane in Lane::ALL {
            let max = lane.payload_bytes_max();
            let longest = header(lane, max).expect("exactly as long as allowed");
            assert_eq!(decode(&mut Decoder::new(lane), &longest, 5), Ok(vec![]));
            let found = max as u64 + 1;
            let oversized = Err(FrameError::Oversized { lane, found, max });
            assert_eq!(header(lane, max + 1), oversized);
            let [a, b, c, d] = (max as u32 + 1).to_le_bytes();
            let decoded = decode(&mut Decoder::new(lane), &[FRAME_VERSION, a, b, c, d], 5);
            assert_eq!(decoded.map(|_| [0; 5]), oversized);
        }
    }

    #[test]
    fn another_version_is_named() {
        let error = decode(&mut Decoder::new(Lane::Control), b"GET /", 5).expect_err("no frame");
        assert_eq!(
            error.to_string(),
            "control frame has version 71, expected 1: update the older side"
        );
    }

    #[test]
    fn an_announced_giant_costs_one_small_buffer() {
        let lane = Lane::Activations;
        let mut decoder = Decoder::new(lane);
        let announced = header(lane, lane.payload_bytes_max()).expect("allowed");
        assert_eq!(decode(&mut decoder, &announced, 5), Ok(vec![]));
        assert_eq!(decoder.space().len(), READ_BYTES_MAX);
        assert_eq!(decoder.payload.len(), READ_BYTES_MAX);
    }

    #[test]
    fn tags_name_their_lanes() {
        for lane in Lane::ALL {
            assert_eq!(Lane::from_tag(lane.tag()), Some(lane));
        }
        assert_eq!(Lane::from_tag(0), None);
    }
}
