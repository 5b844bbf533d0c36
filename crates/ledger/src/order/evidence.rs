//! The proof that a key signed what cannot be true: it convinces anybody, without the log and for ever.

use super::Ballot;
use crate::{
    block::{Block, BlockError},
    checkpoint::from_base64,
    note::{NoteKey, SignedNote, serde_as_text},
    proof::{Claim, Proof, ProofFileError},
    tlog::ProofError,
};
use data_encoding::BASE64;
use std::{fmt, str::FromStr};
use talka_base::{CodecError, NodeId, SignatureError, Signed, decode, encode};

/// Two statements of one key of which one is false.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// Two blocks that no one log has: a split view, or a log that was cut and went on otherwise.
    Contradiction(SignedNote, SignedNote),
    /// Two entries at one height: a log that was rewritten.
    Rewritten(Box<Proof>, Box<Proof>),
    /// Two ballots of a witness, where witnesses order by turns: for different blocks, in one turn and at one stage.
    Ballots(Box<Signed<Ballot>>, Box<Signed<Ballot>>),
}

/// Why a proof of dishonesty proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// Not signed as a block by the accused.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// A path leads elsewhere.
    #[error(transparent)]
    Path(#[from] ProofError),
    /// One of the two cannot be read.
    #[error(transparent)]
    Proof(#[from] ProofFileError),
    /// A ballot that the accused did not sign.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// No ballot.
    #[error(transparent)]
    Ballot(#[from] CodecError),
    /// Both may be true.
    #[error("the two statements do not contradict each other")]
    Consistent,
    /// Not the text of evidence.
    #[error("expected `talka/evidence@v1`, a kind and two lines of base64")]
    Malformed,
}

const FIRST_LINE: &str = "talka/evidence@v1";
/// The longest evidence that is read, in bytes.
pub(super) const EVIDENCE_BYTES_MAX: usize = 3 * crate::proof::PROOF_BYTES_MAX;

impl Evidence {
    /// The evidence in two signed blocks, if they contradict each other. Signatures are not checked.
    pub fn between(a: &SignedNote, b: &SignedNote) -> Option<Self> {
        let (first, second) = (a.text().parse().ok()?, b.text().parse().ok()?);
        contradict(&first, &second).then(|| Self::Contradiction(a.clone(), b.clone()))
    }

    /// The witness that ballots accuse. Anything else accuses whoever it is verified with.
    pub fn witness(&self) -> Option<NodeId> {
        match self {
            Self::Ballots(ballot, _) => Some(NodeId(*ballot.claimed_signer())),
            Self::Contradiction(..) | Self::Rewritten(..) => None,
        }
    }

    /// Checks that `accused` signed both statements and that one of them is false. The key is a
    /// sequencer's ([`Block::key`]) or a witness's ([`Witnesses::key`](super::Witnesses::key)).
    ///
    /// # Errors
    /// [`EvidenceError`].
    pub fn verify(&self, accused: &NoteKey) -> Result<(), EvidenceError> {
        let is_false = match self {
            Self::Contradiction(a, b) => {
                contradict(&signed_block(a, accused)?, &signed_block(b, accused)?)
            }
            Self::Rewritten(a, b) => {
                let (first, second) = (proved_block(a, accused)?, proved_block(b, accused)?);
                let are_entries = [a, b].iter().all(|p| matches!(p.claim, Claim::Entry(_)));
                let is_one_place = (first.network, a.index) == (second.network, b.index);
                are_entries && is_one_place && a.claim != b.claim
            }
            Self::Ballots(a, b) => {
                let public = accused.public();
                a.verify_by(&public)?.contradicts(b.verify_by(&public)?)
            }
        };
        if is_false { Ok(()) } else { Err(EvidenceError::Consistent) }
    }

    /// Reads evidence.
    ///
    /// # Errors
    /// [`EvidenceError`]. Never panics, and allocates no more than a small multiple of the input.
    pub fn parse(bytes: &[u8]) -> Result<Self, EvidenceError> {
        let text = (bytes.len() <= EVIDENCE_BYTES_MAX).then(|| str::from_utf8(bytes));
        let text = text.and_then(Result::ok).ok_or(EvidenceError::Malformed)?;
        let lines: Vec<_> = text.split('\n').take(6).collect();
        let &[FIRST_LINE, kind, first, second, ""] = lines.as_slice() else {
            return Err(EvidenceError::Malformed);
        };
        let [first, second] = [first, second].map(from_base64);
        let (Some(first), Some(second)) = (first, second) else {
            return Err(EvidenceError::Malformed);
        };
        let note = |bytes: &[u8]| SignedNote::parse(bytes).map_err(BlockError::from);
        match kind {
            "contradiction" => Ok(Self::Contradiction(note(&first)?, note(&second)?)),
            "rewritten" => Ok(Self::Rewritten(
                Box::new(Proof::parse(&first)?),
                Box::new(Proof::parse(&second)?),
            )),
            "ballots" => Ok(Self::Ballots(Box::new(decode(&first)?), Box::new(decode(&second)?))),
            _ => Err(EvidenceError::Malformed),
        }
    }
}

impl FromStr for Evidence {
    type Err = EvidenceError;

    fn from_str(text: &str) -> Result<Self, EvidenceError> {
        Self::parse(text.as_bytes())
    }
}

serde_as_text!(Evidence);

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |text: &dyn fmt::Display| text.to_string().into_bytes();
        let (kind, first, second) = match self {
            Self::Contradiction(a, b) => ("contradiction", text(a), text(b)),
            Self::Rewritten(a, b) => ("rewritten", text(a), text(b)),
            Self::Ballots(a, b) => ("ballots", encode(&**a), encode(&**b)),
        };
        let [first, second] = [first, second].map(|bytes| BASE64.encode(&bytes));
        write!(f, "{FIRST_LINE}\n{kind}\n{first}\n{second}\n")
    }
}

fn signed_block(note: &SignedNote, signer: &NoteKey) -> Result<Block, EvidenceError> {
    note.verify(signer).map_err(BlockError::from)?;
    Ok(note.text().parse().map_err(BlockError::from)?)
}

/// The block whose tree holds what `proof` shows.
fn proved_block(proof: &Proof, signer: &NoteKey) -> Result<Block, EvidenceError> {
    let block = signed_block(&proof.checkpoint, signer)?;
    proof.verify(&block)?;
    Ok(block)
}

/// Whether no one log has both blocks. In a log, a later block has a higher number, begins where the one before
/// it ended or after, and has no earlier time.
fn contradict(a: &Block, b: &Block) -> bool {
    let (earlier, later) = if a.number <= b.number { (a, b) } else { (b, a) };
    if a.network != b.network || a == b {
        return false;
    }
    let gap = later.number - earlier.number;
    gap == 0
        || later.first < earlier.size
        || (gap == 1 && later.first > earlier.size)
        || later.at < earlier.at
}
