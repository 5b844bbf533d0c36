//! Checks proofs: the algorithms of RFC 9162, 2.1.3.2 and 2.1.4.2, which hold for RFC 6962 trees too.

use super::{empty_root, node_hash};
use talka_base::TreeHash;

/// Why a proof does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum ProofError {
    /// There is no such leaf.
    #[error("leaf {index} of a tree of {size} leaves, expected one below {size}")]
    Index { index: u64, size: u64 },
    /// The trees are in the wrong order.
    #[error("a tree of {old} leaves cannot lead to one of {new}")]
    Sizes { old: u64, new: u64 },
    /// Too few or too many hashes for trees of this size.
    #[error("{hashes} hashes, which is not the length of a proof for this place")]
    Length { hashes: usize },
    /// The hashes lead elsewhere.
    #[error("the proof leads to the root {found}, expected {expected}")]
    Root { expected: TreeHash, found: TreeHash },
}

/// Checks that the tree of `size` leaves with this `root` holds `leaf`, a leaf's hash, at `index`.
///
/// # Errors
/// [`ProofError`].
pub fn verify_inclusion(
    leaf: TreeHash,
    index: u64,
    size: u64,
    root: TreeHash,
    path: &[TreeHash],
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::Index { index, size });
    }
    let mut climb = Climb { node: index, last: size - 1 };
    let mut found = leaf;
    for sibling in path {
        found = match climb.step(path.len())? {
            Side::Left => node_hash(sibling, &found),
            Side::Right => node_hash(&found, sibling),
        };
    }
    climb.end(path.len())?;
    expect(root, found)
}

/// Checks that the tree of `new` leaves begins with the tree of `old` leaves.
///
/// # Errors
/// [`ProofError`].
pub fn verify_consistency(
    (old, old_root): (u64, TreeHash),
    (new, new_root): (u64, TreeHash),
    path: &[TreeHash],
) -> Result<(), ProofError> {
    if old > new {
        return Err(ProofError::Sizes { old, new });
    }
    if old == 0 || old == new {
        let known = if old == 0 { empty_root() } else { new_root };
        let same = if new == 0 { expect(empty_root(), new_root) } else { Ok(()) };
        return same.and(expect(known, old_root)).and(length_is(0, path.len()));
    }
    // An old tree that is one complete subtree is where the proof begins.
    let (start, rest) = if old.is_power_of_two() {
        (old_root, path)
    } else {
        let (start, rest) = path.split_first().ok_or(ProofError::Length { hashes: 0 })?;
        (*start, rest)
    };
    let complete = (old - 1).trailing_ones();
    let mut climb = Climb { node: (old - 1) >> complete, last: (new - 1) >> complete };
    let (mut found_old, mut found_new) = (start, start);
    for sibling in rest {
        match climb.step(path.len())? {
            Side::Left => {
                found_old = node_hash(sibling, &found_old);
                found_new = node_hash(sibling, &found_new);
            }
            Side::Right => found_new = node_hash(&found_new, sibling),
        }
    }
    climb.end(path.len())?;
    expect(old_root, found_old)?;
    expect(new_root, found_new)
}

/// The way from a node up to the root. `last` is the last node of its level.
struct Climb {
    node: u64,
    last: u64,
}

/// Where the next sibling stands.
enum Side {
    Left,
    Right,
}

impl Climb {
    fn step(&mut self, hashes: usize) -> Result<Side, ProofError> {
        if self.last == 0 {
            return Err(ProofError::Length { hashes });
        }
        let side = if self.node % 2 == 1 || self.node == self.last {
            // The last node of an odd level has no sibling there: it moves up to where it has one.
            let levels = self.node.trailing_zeros().min(63);
            self.node >>= levels;
            self.last >>= levels;
            Side::Left
        } else {
            Side::Right
        };
        self.node >>= 1;
        self.last >>= 1;
        Ok(side)
    }

    fn end(&self, hashes: usize) -> Result<(), ProofError> {
        if self.last == 0 { Ok(()) } else { Err(ProofError::Length { hashes }) }
    }
}

fn length_is(expected: usize, hashes: usize) -> Result<(), ProofError> {
    if hashes == expected { Ok(()) } else { Err(ProofError::Length { hashes }) }
}

fn expect(expected: TreeHash, found: TreeHash) -> Result<(), ProofError> {
    if found == expected { Ok(()) } else { Err(ProofError::Root { expected, found }) }
}
