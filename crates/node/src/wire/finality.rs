//! What shows a stage that the founder's entry which holds the credits is final, before its own ledger has it.

use super::{WireError, at_most};
use serde::{Deserialize, Serialize};
use talka_base::{NetworkId, NodeId, Signed, TreeHash};
use talka_ledger::{Block, Claim, Entry, Proof, note::SignedNote, order::Witnesses};

/// Hashes on the path of the largest log.
const PATH_MAX: usize = 64;

/// An entry's way to a checkpoint that enough witnesses cosigned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finality {
    /// The siblings of the entry's leaf up to the root.
    pub path: Vec<TreeHash>,
    /// The signed block with that root.
    pub checkpoint: SignedNote,
}

impl Finality {
    /// # Errors
    /// [`WireError::TooMany`].
    pub(super) fn check(&self) -> Result<(), WireError> {
        at_most("hashes on a path", self.path.len(), PATH_MAX)
    }

    /// Whether `entry` is in a block of `network` that one of `signers` signed and enough of `witnesses` cosigned.
    pub fn shows(
        &self,
        entry: &Signed<Entry>,
        network: NetworkId,
        signers: impl IntoIterator<Item = NodeId>,
        witnesses: &Witnesses,
    ) -> bool {
        let Ok(block) = Block::open_by(&self.checkpoint, signers) else { return false };
        let proof = Proof {
            claim: Claim::Entry(Box::new(entry.clone())),
            index: entry.claimed_value().height,
            path: self.path.clone(),
            checkpoint: self.checkpoint.clone(),
        };
        block.network == network
            && proof.verify(&block).is_ok()
            && witnesses.are_enough(&witnesses.cosigned(&self.checkpoint))
    }
}

impl From<Proof> for Finality {
    fn from(Proof { path, checkpoint, .. }: Proof) -> Self {
        Self { path, checkpoint }
    }
}
