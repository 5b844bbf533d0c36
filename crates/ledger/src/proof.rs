//! Proofs that fit into a small file and need no node: that an entry is in the log, or that the state
//! holds a record, such as a balance.
//!
//! The form is C2SP tlog-proof: what is proved (as its `extra` data), its place, the path to the root and
//! the checkpoint that signs the root. A proof of a record has another first line, since its path leads to
//! the state root. Whether to believe the checkpoint is asked apart ([`Block::open`],
//! [`Chain::is_final`](crate::order::Chain::is_final)).

use crate::{
    block::Block,
    checkpoint::{base64, from_base64, hash, number},
    entry::Entry,
    note::{NOTE_BYTES_MAX, NoteError, SignedNote},
    state::{self, StateRecord},
    tlog::{self, ProofError},
};
use data_encoding::BASE64;
use std::fmt;
use talka_base::{CodecError, Encoded, Signed, TreeHash, decode, encode};

/// The first line of a proof of an entry.
const ENTRY: &str = "c2sp.org/tlog-proof@v1";
/// The first line of a proof of a record.
const RECORD: &str = "talka/state-proof@v1";
/// The longest path: one hash for each level of the largest tree.
pub(crate) const PATH_MAX: usize = 64;
/// The longest proof that is read, in bytes: the largest entry in base64, a path and a checkpoint.
pub const PROOF_BYTES_MAX: usize = 2 * <Signed<Entry> as Encoded>::SIZE_MAX + NOTE_BYTES_MAX;

/// What a proof shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The log holds this entry.
    Entry(Box<Signed<Entry>>),
    /// The state has this record.
    Record(Box<StateRecord>),
}

/// A claim, and all that is needed to check it against one checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// What it shows.
    pub claim: Claim,
    /// The place of the entry in the log; of a record, bit i says whether the i-th hash of the path stands on the left.
    pub index: u64,
    /// The leaf's siblings up to the root.
    pub path: Vec<TreeHash>,
    /// The signed block whose root this is.
    pub checkpoint: SignedNote,
}

/// Why bytes are no proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum ProofFileError {
    /// Nothing of it was read.
    #[error("a proof of {found} bytes, expected at most {max}")]
    Oversized { found: usize, max: usize },
    /// Not as the specification says.
    #[error("line {line} of the proof: expected {expected}")]
    Line { line: usize, expected: &'static str },
    /// What is proved is no entry or record.
    #[error(transparent)]
    Claim(#[from] CodecError),
    /// What follows is no checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] NoteError),
}

impl Claim {
    fn encoded(&self) -> Vec<u8> {
        match self {
            Self::Entry(entry) => encode(&**entry),
            Self::Record(record) => encode(&**record),
        }
    }

    const fn first_line(&self) -> &'static str {
        match self {
            Self::Entry(_) => ENTRY,
            Self::Record(_) => RECORD,
        }
    }
}

impl Proof {
    /// Checks the proof against `block`, of which the caller knows that it is right.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn verify(&self, block: &Block) -> Result<(), ProofError> {
        match &self.claim {
            Claim::Entry(entry) => {
                let leaf = tlog::leaf_hash(&encode(&**entry));
                tlog::verify_inclusion(leaf, self.index, block.size, block.root, &self.path)
            }
            Claim::Record(record) => {
                state::verify(record, self.index, block.state_root, &self.path)
            }
        }
    }

    /// Reads a proof.
    ///
    /// # Errors
    /// [`ProofFileError`]. Never panics, and allocates no more than a small multiple of the input.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProofFileError> {
        let (head, checkpoint) = halves(bytes, PROOF_BYTES_MAX)?;
        let Section { kind, extra, index, path } = Section::parse(head)?;
        let claim = match kind {
            ENTRY => Claim::Entry(Box::new(decode(&extra)?)),
            RECORD => Claim::Record(Box::new(decode(&extra)?)),
            _ => {
                let expected = "c2sp.org/tlog-proof@v1 or talka/state-proof@v1";
                return Err(ProofFileError::Line { line: 1, expected });
            }
        };
        let checkpoint = SignedNote::parse(checkpoint.as_bytes())?;
        Ok(Self { claim, index, path, checkpoint })
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, extra) = (self.claim.first_line(), self.claim.encoded());
        let section = Section { kind, extra, index: self.index, path: self.path.clone() };
        write!(f, "{section}\n{}", self.checkpoint)
    }
}

/// A file of at most `max` bytes as text, before and after its first empty line.
pub(crate) fn halves(bytes: &[u8], max: usize) -> Result<(&str, &str), ProofFileError> {
    let found = bytes.len();
    if found > max {
        return Err(ProofFileError::Oversized { found, max });
    }
    let fault = |expected| ProofFileError::Line { line: 1, expected };
    let text = str::from_utf8(bytes).map_err(|_| fault("UTF-8"))?;
    text.split_once("\n\n").ok_or(fault("an empty line"))
}

/// What is proved, and the path to a root.
pub(crate) struct Section<'a> {
    pub kind: &'a str,
    pub extra: Vec<u8>,
    pub index: u64,
    pub path: Vec<TreeHash>,
}

impl<'a> Section<'a> {
    pub fn parse(text: &'a str) -> Result<Self, ProofFileError> {
        let fault = |line, expected| ProofFileError::Line { line, expected };
        let mut lines = text.split('\n');
        let kind = lines.next().unwrap_or_default();
        let extra = lines.next().and_then(|line| line.strip_prefix("extra "));
        let extra = extra.and_then(from_base64);
        let extra = extra.ok_or(fault(2, "`extra` and base64 of what is proved"))?;
        let index = lines.next().and_then(|line| number(line.strip_prefix("index ")?));
        let index = index.ok_or(fault(3, "`index` and a number"))?;
        let mut path = Vec::new();
        for (line, text) in (4..).zip(lines) {
            if path.len() == PATH_MAX {
                return Err(fault(line, "at most 64 hashes"));
            }
            path.push(hash(text).ok_or(fault(line, "32 bytes in base64"))?);
        }
        Ok(Self { kind, extra, index, path })
    }
}

impl fmt::Display for Section<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extra = BASE64.encode(&self.extra);
        write!(f, "{}\nextra {extra}\nindex {}\n", self.kind, self.index)?;
        self.path.iter().try_for_each(|hash| writeln!(f, "{}", base64(hash)))
    }
}
