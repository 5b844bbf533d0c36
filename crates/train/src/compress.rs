//! Updates in few bytes, and the same updates read from a stranger's bytes.
//!
//! An update is what a member learned in a round: the anchor, which all members share, minus its own weights. What
//! is left out is not lost: [`Feedback`] carries it over to the next round.
//!
//! Four ways to write it, chosen once for a job ([`Compressor`]):
//!
//! - *Sparse* (SparseLoCo, Sarfi et al. 2025): of each block of 4,096 values the 64 largest, as a 12-bit index, a sign and one of
//!   two magnitudes: 896 bits a block, 0.219 bit a parameter. The paper spends a bit on which magnitude; here the order says
//!   it, first the smaller half, then the larger one, each by ascending index, and the bits saved hold both
//!   magnitudes as full f32. Unlike the paper the block of a short tail sends its share of the 64.
//! - *Dense4*: every value in 4 bits with one scale for 256: when sparse does not suit, and to measure sparse against.
//! - *Plain16* and *Plain32*: bf16, and f32 without any loss.
//!
//! Compressing is the sender's own affair; machines may differ in it. Reading is not: the same bytes give
//! the same values on every machine. An encoding is [`HEADER_BYTES`] and a body whose length follows from job and model
//! alone, so a wrong length is refused before anything is allocated. Bytes never panic.

mod bits;
mod block;
mod dense;
mod feedback;
mod sparse;

pub use block::Cut;
pub use feedback::Feedback;

use crate::Layout;
use talka_base::Blame;

/// Version, kind, how it is cut, and three numbers: see `Compressor::header`.
pub const HEADER_BYTES: usize = 16;
/// Raised whenever an encoding changes.
const VERSION: u8 = 1;

/// How updates of a job are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compressor {
    /// Each value as f32.
    Plain32,
    /// Each value as bf16, rounded to the nearest.
    Plain16,
    /// Each value in 4 bits: -7 to 7 times the scale of its 256.
    Dense4,
    /// The largest of each block, in two magnitudes.
    Sparse {
        /// What a block is.
        cut: Cut,
        /// How many values of a full block are sent.
        top: u16,
    },
}

/// Why bytes are no update of this job. Whoever signed for them is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum UpdateError {
    /// Too short, too long, or of another model.
    #[error("an update of {found} bytes, expected {expected}")]
    Size { expected: usize, found: usize },
    /// Another version, compressor or model than the job's.
    #[error("an update whose header is {found:02x?}, expected {expected:02x?}")]
    Header { expected: [u8; HEADER_BYTES], found: [u8; HEADER_BYTES] },
    /// NaN or infinity.
    #[error("an update whose value {position} is not finite")]
    NotFinite { position: usize },
    /// Indices out of order or out of the block, a magnitude below zero, or bits where none belong.
    #[error("an update whose block {block} is malformed: {reason}")]
    Malformed { block: usize, reason: &'static str },
}

impl UpdateError {
    /// Always the peer: it could have checked.
    pub const fn blame(&self) -> Blame {
        Blame::Peer
    }
}

impl Compressor {
    /// SparseLoCo's: 64 of each 4,096 values in the order in which they lie.
    pub const SPARSE: Self = Self::Sparse { cut: Cut::Flat, top: 64 };

    /// The length of every update of a model, in bytes.
    pub fn bytes(self, layout: &Layout) -> usize {
        HEADER_BYTES + self.body_bytes(layout)
    }

    fn body_bytes(self, layout: &Layout) -> usize {
        match self {
            Self::Plain32 => 4 * layout.len(),
            Self::Plain16 => 2 * layout.len(),
            Self::Dense4 => dense::bytes(layout.len()),
            Self::Sparse { cut, top } => {
                cut.blocks(layout).map(|block| sparse::bytes(&block, top)).sum()
            }
        }
    }

    /// The first bytes of every update of a model: version, kind, cut, 0, `top` (u16), 0 (u16), values (u64); all
    /// little-endian.
    fn header(self, layout: &Layout) -> [u8; HEADER_BYTES] {
        let (kind, cut, top) = match self {
            Self::Plain32 => (0, 0, 0),
            Self::Plain16 => (1, 0, 0),
            Self::Dense4 => (2, 0, 0),
            Self::Sparse { cut, top } => (3, cut.number(), top),
        };
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(&[VERSION, kind, cut, 0]);
        header[4..6].copy_from_slice(&top.to_le_bytes());
        header[8..].copy_from_slice(&(layout.len() as u64).to_le_bytes());
        header
    }

    /// Writes `values`, which lie as `layout` says. What the bytes mean is what [`Compressor::read`] makes of them.
    ///
    /// # Errors
    /// [`UpdateError::NotFinite`] if training diverged: such an update is not worth sending.
    ///
    /// # Panics
    /// If `values` are not as many as `layout` says.
    pub fn write(self, layout: &Layout, values: &[f32]) -> Result<Vec<u8>, UpdateError> {
        assert_eq!(values.len(), layout.len(), "values lie as the layout says");
        check_finite(values)?;
        let mut bytes = Vec::with_capacity(self.bytes(layout));
        bytes.extend(self.header(layout));
        match self {
            Self::Plain32 => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::Plain16 => bytes.extend(values.iter().flat_map(|&value| bf16_bytes(value))),
            Self::Dense4 => dense::write(values, &mut bytes),
            Self::Sparse { cut, top } => {
                let mut writer = sparse::Writer::default();
                cut.blocks(layout).for_each(|block| writer.write(&block, top, values, &mut bytes));
            }
        }
        Ok(bytes)
    }

    /// Reads what [`Compressor::write`] wrote for the same job and model, and nothing else: `layout.len()` values, all
    /// of them finite.
    ///
    /// # Errors
    /// [`UpdateError`] says what was expected and found.
    pub fn read(self, layout: &Layout, bytes: &[u8]) -> Result<Vec<f32>, UpdateError> {
        let (expected, found) = (self.bytes(layout), bytes.len());
        let Some((found_header, body)) =
            bytes.split_first_chunk::<HEADER_BYTES>().filter(|_| found == expected)
        else {
            return Err(UpdateError::Size { expected, found });
        };
        let header = self.header(layout);
        if *found_header != header {
            return Err(UpdateError::Header { expected: header, found: *found_header });
        }
        let values = match self {
            Self::Plain32 => body.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Self::Plain16 => body.as_chunks().0.iter().map(|b| bf16_value(*b)).collect(),
            Self::Dense4 => dense::read(layout.len(), body)?,
            Self::Sparse { cut, top } => sparse::read(layout.len(), cut.blocks(layout), top, body)?,
        };
        check_finite(&values)?;
        Ok(values)
    }
}

fn check_finite(values: &[f32]) -> Result<(), UpdateError> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(position) => Err(UpdateError::NotFinite { position }),
        None => Ok(()),
    }
}

/// Rounded to the nearest, but never up to infinity.
fn bf16_bytes(value: f32) -> [u8; 2] {
    let rounded = half::bf16::from_f32(value);
    let largest = half::bf16::MAX.to_f32();
    let finite =
        if rounded.is_finite() { rounded } else { half::bf16::from_f32(largest.copysign(value)) };
    finite.to_le_bytes()
}

fn bf16_value(bytes: [u8; 2]) -> f32 {
    half::bf16::from_le_bytes(bytes).to_f32()
}

#[cfg(test)]
mod tests;
