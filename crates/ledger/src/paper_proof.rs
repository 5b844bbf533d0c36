//! Proofs that a settlement, or a voucher, is among the papers of an epoch.
//!
//! An epoch's entry holds the RFC 6962 root over its papers, and not these. So the path to that root, and the proof of the entry,
//! show one paper to somebody who has neither the others nor a node. The form is a section like that of any proof
//! ([`Proof`]), an empty line, and the proof of the entry.

use crate::{
    block::Block,
    entry::Entry,
    epoch::{Epoch, Paper},
    proof::{Claim, PATH_MAX, PROOF_BYTES_MAX, Proof, ProofFileError, Section, halves},
    tlog::{self, ProofError},
};
use std::fmt;
use talka_base::{Encoded, Signed, TreeHash, decode, encode};

/// The first line.
const PAPER: &str = "talka/paper-proof@v1";
/// The longest proof of a paper that is read, in bytes.
pub const PAPER_PROOF_BYTES_MAX: usize = PROOF_BYTES_MAX + 2 * Paper::SIZE_MAX + 64 * PATH_MAX;

/// A paper of an epoch, and all that is needed to check that against one checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaperProof {
    /// What it shows.
    pub paper: Paper,
    /// The paper's place among those of its epoch.
    pub index: u64,
    /// Its siblings up to their root.
    pub path: Vec<TreeHash>,
    /// The proof of the epoch's entry.
    pub entry: Proof,
}

/// Why a proof shows no paper.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum PaperProofError {
    /// What follows is no epoch.
    #[error("the entry that is to rest on the paper is no epoch")]
    NoEpoch,
    /// A path does not lead where it should.
    #[error(transparent)]
    Path(#[from] ProofError),
}

impl PaperProof {
    /// The paper at `index` of all those of the epoch that `entry` proves; nothing if there are fewer.
    pub fn of(papers: &[Paper], index: u64, entry: Proof) -> Option<Self> {
        let paper = papers.get(usize::try_from(index).ok()?)?.clone();
        let leaves: Vec<TreeHash> =
            papers.iter().map(|paper| tlog::leaf_hash(&encode(paper))).collect();
        let path = tlog::path_among(&leaves, index);
        Some(Self { paper, index, path, entry })
    }

    /// The epoch, if the entry is one.
    pub fn epoch(&self) -> Option<&Epoch> {
        self.signed_entry()?.claimed_value().event.epoch()
    }

    /// The epoch's entry, if an entry is proved.
    pub fn signed_entry(&self) -> Option<&Signed<Entry>> {
        match &self.entry.claim {
            Claim::Entry(entry) => Some(entry),
            Claim::Record(_) => None,
        }
    }

    /// Checks the proof against `block`, of which the caller knows that it is right.
    ///
    /// # Errors
    /// [`PaperProofError`].
    pub fn verify(&self, block: &Block) -> Result<(), PaperProofError> {
        let epoch = self.epoch().ok_or(PaperProofError::NoEpoch)?;
        let (leaf, root) = (tlog::leaf_hash(&encode(&self.paper)), TreeHash(epoch.evidence.0));
        tlog::verify_inclusion(leaf, self.index, epoch.papers, root, &self.path)?;
        Ok(self.entry.verify(block)?)
    }

    /// Whether these bytes begin as such a proof does.
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(PAPER.as_bytes())
    }

    /// Reads a proof.
    ///
    /// # Errors
    /// [`ProofFileError`]. Never panics, and allocates no more than a small multiple of the input.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProofFileError> {
        let (head, entry) = halves(bytes, PAPER_PROOF_BYTES_MAX)?;
        let Section { kind, extra, index, path } = Section::parse(head)?;
        if kind != PAPER {
            return Err(ProofFileError::Line { line: 1, expected: PAPER });
        }
        let paper = decode(&extra)?;
        Ok(Self { paper, index, path, entry: Proof::parse(entry.as_bytes())? })
    }
}

impl fmt::Display for PaperProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (extra, path) = (encode(&self.paper), self.path.clone());
        let section = Section { kind: PAPER, extra, index: self.index, path };
        write!(f, "{section}\n{}", self.entry)
    }
}
