//! The proof that a log only grew: that all of an older checkpoint's entries stand unchanged in a newer one.
//!
//! Its form is what C2SP tlog-witness sends to witnesses: the size of the older log, the hashes of RFC 6962, and the newer
//! checkpoint. The older checkpoint is what its reader kept. Whether to believe the newer one is asked apart
//! ([`Block::open`]).

use crate::{
    block::Block,
    checkpoint::{base64, hash, number},
    note::{NOTE_BYTES_MAX, SignedNote},
    proof::{ProofFileError, halves},
    tlog::{self, ProofError},
};
use std::fmt;
use talka_base::TreeHash;

/// The most hashes: one for each level of the largest tree, and one.
const PATH_MAX: usize = 65;
/// The longest proof that is read, in bytes.
pub const CONSISTENCY_BYTES_MAX: usize = NOTE_BYTES_MAX + 64 * (PATH_MAX + 1);

/// All that is needed to compare a newer checkpoint with an older one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consistency {
    /// Entries of the older log.
    pub old: u64,
    /// What shows the newer tree to begin with the older one.
    pub path: Vec<TreeHash>,
    /// The newer signed block.
    pub checkpoint: SignedNote,
}

impl Consistency {
    /// Checks that the log of `new` begins with all of `old`, both of which the caller believes.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn verify(&self, old: &Block, new: &Block) -> Result<(), ProofError> {
        if old.size != self.old {
            return Err(ProofError::Sizes { old: self.old, new: old.size });
        }
        tlog::verify_consistency((old.size, old.root), (new.size, new.root), &self.path)
    }

    /// Reads a proof.
    ///
    /// # Errors
    /// [`ProofFileError`]. Never panics, and allocates no more than a small multiple of the input.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProofFileError> {
        let (head, checkpoint) = halves(bytes, CONSISTENCY_BYTES_MAX)?;
        let fault = |line, expected| ProofFileError::Line { line, expected };
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| number(line.strip_prefix("old ")?));
        let old = old.ok_or(fault(1, "`old` and a number"))?;
        let mut path = Vec::new();
        for (line, text) in (2..).zip(lines) {
            if path.len() == PATH_MAX {
                return Err(fault(line, "at most 65 hashes"));
            }
            path.push(hash(text).ok_or(fault(line, "32 bytes in base64"))?);
        }
        Ok(Self { old, path, checkpoint: SignedNote::parse(checkpoint.as_bytes())? })
    }
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        self.path.iter().try_for_each(|hash| writeln!(f, "{}", base64(hash)))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tlog::{CompactRange, consistency_proof, leaf_hash};
    use std::collections::BTreeMap;
    use talka_base::{Keypair, NetworkId, Tick};

    const SIZE: u64 = 40;

    /// The block of the first `size` leaves, and a way to read the whole tree.
    fn tree(size: u64) -> (Block, BTreeMap<tlog::Node, TreeHash>) {
        let (mut log, mut nodes) = (CompactRange::default(), BTreeMap::new());
        for leaf in 0..size {
            log.append(leaf_hash(&leaf.to_be_bytes()), |node, hash| {
                nodes.insert(node, hash);
            });
        }
        let block = Block {
            network: NetworkId([7; 32]),
            number: 1,
            first: 1,
            entries_root: log.root(),
            size,
            root: log.root(),
            records: 1,
            state_root: log.root(),
            totals: crate::Totals::default(),
            parameters: log.root(),
            at: Tick(5),
        };
        (block, nodes)
    }

    fn proof(old: u64) -> (Block, Block, Consistency) {
        let (new, nodes) = tree(SIZE);
        let path = consistency_proof(old, SIZE, |node| nodes.get(&node).copied().ok_or(()));
        let checkpoint = new.sign(&Keypair::from_secret(&[1; 32]));
        let proof = Consistency { old, path: path.expect("all are there"), checkpoint };
        (tree(old).0, new, proof)
    }

    #[test]
    fn a_log_that_grew_is_shown_to_have_and_another_is_not() {
        for size in 2..=SIZE {
            let (old, new, proof) = proof(size);
            assert_eq!(proof.verify(&old, &new), Ok(()), "{size}");
            assert_eq!(Consistency::parse(proof.to_string().as_bytes()), Ok(proof.clone()));
            let rewritten = Block { root: TreeHash([3; 32]), ..old };
            assert!(proof.verify(&rewritten, &new).is_err(), "{size}");
            let shorter = Block { size: size - 1, ..tree(size).0 };
            assert!(proof.verify(&shorter, &new).is_err(), "{size}");
        }
    }

    #[test]
    fn what_is_no_proof_is_refused_with_its_line() {
        let text = proof(13).2.to_string();
        let check = |text: &str, line: usize| {
            let error = Consistency::parse(text.as_bytes()).expect_err("no proof");
            assert!(
                matches!(error, ProofFileError::Line { line: found, .. } if found == line),
                "{error}"
            );
        };
        check("old 13", 1);
        check(&text.replacen("old 13", "old 013", 1), 1);
        check(&text.replacen("old 13", "new 13", 1), 1);
        check(&text.replacen("old 13\n", "old 13\nx\n", 1), 2);
        let hash = "A".repeat(43) + "=\n";
        check(&text.replacen("old 13\n", &format!("old 13\n{}", hash.repeat(66)), 1), 67);
        let long = " ".repeat(CONSISTENCY_BYTES_MAX + 1);
        assert!(matches!(
            Consistency::parse(long.as_bytes()),
            Err(ProofFileError::Oversized { .. })
        ));
        for end in 0..text.len() {
            let _ = Consistency::parse(&text.as_bytes()[..end]);
        }
    }
}
