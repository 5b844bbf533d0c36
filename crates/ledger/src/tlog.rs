//! The RFC 6962 Merkle tree over the log's entries, and the proofs that it gives.
//!
//! In: hashes of leaves, one after the other; later, hashes of complete subtrees, read back from
//! wherever they were stored. Out: the tree's root at any size, a proof that a leaf lies at its place
//! ([`inclusion_proof`]) and that one tree begins with another ([`consistency_proof`]). A proof is
//! checked ([`verify_inclusion`], [`verify_consistency`]) with nothing but itself and the roots.
//!
//! Only complete subtrees are ever stored, as C2SP tlog-tiles does: their hashes never change. Everything
//! else follows from a logarithm of them.
//!
//! Never does: store anything, or say whose root is right; that is a checkpoint's part.

mod proof;

pub use proof::{ProofError, verify_consistency, verify_inclusion};

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use talka_base::TreeHash;

/// The hash of a leaf: SHA-256 of 0x00 and its bytes.
pub fn leaf_hash(leaf: &[u8]) -> TreeHash {
    TreeHash(Sha256::new_with_prefix([0]).chain_update(leaf).finalize().into())
}

/// The hash of an inner node: SHA-256 of 0x01 and both children.
pub fn node_hash(left: &TreeHash, right: &TreeHash) -> TreeHash {
    TreeHash(
        Sha256::new_with_prefix([1]).chain_update(left.0).chain_update(right.0).finalize().into(),
    )
}

/// The root of a tree without leaves: SHA-256 of nothing.
pub fn empty_root() -> TreeHash {
    TreeHash(Sha256::digest([]).into())
}

/// The root of the tree over `leaves`, given as hashes.
pub fn root(leaves: impl IntoIterator<Item = TreeHash>) -> TreeHash {
    let mut range = CompactRange::default();
    leaves.into_iter().for_each(|leaf| range.append(leaf, |_, _| ()));
    range.root()
}

/// The place of a complete subtree: the 2^`level` leaves from `index << level` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    /// 0 for a leaf.
    pub level: u8,
    /// How many subtrees of this level stand to its left.
    pub index: u64,
}

/// All of a tree that is needed to go on with it: the roots of its largest complete subtrees, at most 64.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompactRange {
    size: u64,
    /// From the left, ever smaller: one for each bit of `size`.
    peaks: Vec<TreeHash>,
}

impl CompactRange {
    /// The tree of the first `size` leaves, from its stored hashes.
    ///
    /// # Errors
    /// Whatever `read` says.
    pub fn load<E>(size: u64, read: impl FnMut(Node) -> Result<TreeHash, E>) -> Result<Self, E> {
        Ok(Self { size, peaks: peaks(0, size).map(read).collect::<Result<_, _>>()? })
    }

    /// The complete subtrees that it is made of, from the left: what [`CompactRange::load`] asks for.
    pub fn subtrees(&self) -> impl Iterator<Item = (Node, TreeHash)> {
        peaks(0, self.size).zip(self.peaks.iter().copied())
    }

    /// The tree of `size` leaves whose largest complete subtrees have the roots `hashes`, from the left; nothing if
    /// such a tree has another number of them.
    pub fn of_subtrees(size: u64, hashes: Vec<TreeHash>) -> Option<Self> {
        (hashes.len() == size.count_ones() as usize).then_some(Self { size, peaks: hashes })
    }

    /// Number of leaves.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf by its hash. `store` is told each subtree that is complete now, the leaf first.
    pub fn append(&mut self, leaf: TreeHash, mut store: impl FnMut(Node, TreeHash)) {
        let (mut node, mut hash) = (Node { level: 0, index: self.size }, leaf);
        store(node, hash);
        while node.index % 2 == 1 {
            let left = self.peaks.pop().expect("a peak for each bit of the size");
            hash = node_hash(&left, &hash);
            node = Node { level: node.level + 1, index: node.index / 2 };
            store(node, hash);
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The root of the tree.
    pub fn root(&self) -> TreeHash {
        fold(self.peaks.iter().copied())
    }
}

/// The path from leaf `index` up to the root of the tree of the first `size` leaves: the sibling at each
/// level, the leaf's own first (RFC 6962, 2.1.1). At most 64 hashes.
///
/// # Errors
/// Whatever `read` says, which is asked for complete subtrees of this tree only.
///
/// # Panics
/// If the tree has no such leaf.
pub fn inclusion_proof<E>(
    index: u64,
    size: u64,
    mut read: impl FnMut(Node) -> Result<TreeHash, E>,
) -> Result<Vec<TreeHash>, E> {
    assert!(index < size, "leaf {index} of a tree of {size}");
    let (mut start, mut end) = (0, size);
    let mut path = Vec::new();
    while end - start > 1 {
        let middle = split(start, end);
        if index < middle {
            path.push(subtree(middle, end, &mut read)?);
            end = middle;
        } else {
            path.push(subtree(start, middle, &mut read)?);
            start = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// The path from leaf `index` up to the root of the tree over `leaves`, which are all here.
///
/// # Panics
/// If there is no such leaf.
pub fn path_among(leaves: &[TreeHash], index: u64) -> Vec<TreeHash> {
    let (mut tree, mut nodes) = (CompactRange::default(), BTreeMap::new());
    for leaf in leaves {
        tree.append(*leaf, |node, hash| {
            nodes.insert(node, hash);
        });
    }
    let path = inclusion_proof(index, tree.size(), |node| nodes.get(&node).copied().ok_or(()));
    path.expect("every hash was just computed")
}

/// The hashes that show the tree of the first `new` leaves to begin with the tree of the first `old`
/// (RFC 6962, 2.1.2). None if the trees are the same or the old one is empty; at most 65.
///
/// # Errors
/// Whatever `read` says.
///
/// # Panics
/// If `old` is more than `new`.
pub fn consistency_proof<E>(
    old: u64,
    new: u64,
    mut read: impl FnMut(Node) -> Result<TreeHash, E>,
) -> Result<Vec<TreeHash>, E> {
    assert!(old <= new, "a tree of {old} leaves before one of {new}");
    let mut path = Vec::new();
    if old == 0 {
        return Ok(path);
    }
    let (mut start, mut end) = (0, new);
    while end != old {
        let middle = split(start, end);
        if old <= middle {
            path.push(subtree(middle, end, &mut read)?);
            end = middle;
        } else {
            path.push(subtree(start, middle, &mut read)?);
            start = middle;
        }
    }
    // The whole old tree is what the verifier has already.
    if start > 0 {
        path.push(subtree(start, end, &mut read)?);
    }
    path.reverse();
    Ok(path)
}

/// Where RFC 6962 cuts a range of two leaves or more: the left part is the largest power of two that leaves
/// something to the right.
const fn split(start: u64, end: u64) -> u64 {
    start + (1 << (end - start - 1).ilog2())
}

/// The hash of a range that [`split`] cut off.
fn subtree<E>(
    start: u64,
    end: u64,
    read: impl FnMut(Node) -> Result<TreeHash, E>,
) -> Result<TreeHash, E> {
    let hashes = peaks(start, end).map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(fold(hashes.into_iter()))
}

/// The largest complete subtrees of a range, from the left. `start` is a multiple of a power of two that is
/// at least as large as the range.
fn peaks(start: u64, end: u64) -> impl Iterator<Item = Node> {
    let mut at = start;
    std::iter::from_fn(move || {
        let level = (end - at).checked_ilog2()?;
        let node = Node { level: level as u8, index: at >> level };
        at += 1 << level;
        Some(node)
    })
}

/// The root over complete subtrees that get smaller to the right.
fn fold(peaks: impl DoubleEndedIterator<Item = TreeHash>) -> TreeHash {
    peaks.rev().reduce(|right, left| node_hash(&left, &right)).unwrap_or_else(empty_root)
}

#[cfg(test)]
mod tests;
