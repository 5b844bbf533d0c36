use super::*;
use proptest::prelude::*;
use std::{cell::RefCell, collections::BTreeMap, convert::Infallible};

fn hash(hex: &str) -> TreeHash {
    hex.parse().expect("64 digits")
}

/// The leaves of the Certificate Transparency project's reference tests.
const LEAVES: [&[u8]; 8] = [
    b"",
    b"\x00",
    b"\x10",
    b"\x20\x21",
    b"\x30\x31",
    b"\x40\x41\x42\x43",
    b"\x50\x51\x52\x53\x54\x55\x56\x57",
    b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
];

/// The roots of trees of the first leaves, from the same tests.
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

/// A tree with all hashes that a store would keep.
#[derive(Default)]
struct Tree {
    range: CompactRange,
    stored: RefCell<BTreeMap<Node, TreeHash>>,
    roots: Vec<TreeHash>,
}

impl Tree {
    fn of<'a>(leaves: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut tree = Self { roots: vec![empty_root()], ..Self::default() };
        for leaf in leaves {
            let stored = tree.stored.get_mut();
            tree.range.append(leaf_hash(leaf), |node, hash| {
                assert_eq!(stored.insert(node, hash), None, "a complete subtree never changes");
            });
            tree.roots.push(tree.range.root());
        }
        tree
    }

    fn of_size(size: u64) -> Self {
        let leaves: Vec<_> = (0..size).map(u64::to_le_bytes).collect();
        Self::of(leaves.iter().map(<[u8; 8]>::as_slice))
    }

    fn read(&self, node: Node) -> Result<TreeHash, Infallible> {
        Ok(self.stored.borrow()[&node])
    }

    fn inclusion(&self, index: u64, size: u64) -> Vec<TreeHash> {
        inclusion_proof(index, size, |node| self.read(node)).expect("stored")
    }

    fn consistency(&self, old: u64, new: u64) -> Vec<TreeHash> {
        consistency_proof(old, new, |node| self.read(node)).expect("stored")
    }

    fn at(&self, size: u64) -> (u64, TreeHash) {
        (size, self.roots[size as usize])
    }
}

#[test]
fn roots_are_those_of_the_reference() {
    let tree = Tree::of(LEAVES);
    assert_eq!(tree.roots, ROOTS.map(hash));
    assert_eq!(root(LEAVES.map(leaf_hash)), hash(ROOTS[8]));
}

#[test]
fn inclusion_proofs_are_those_of_the_reference() {
    let tree = Tree::of(LEAVES);
    let check = |index, size, expected: &[&str]| {
        let expected: Vec<_> = expected.iter().copied().map(hash).collect();
        assert_eq!(tree.inclusion(index, size), expected, "leaf {index} of {size}");
    };
    check(0, 1, &[]);
    check(
        0,
        8,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    );
    check(
        5,
        8,
        &[
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    );
    check(2, 3, &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]);
    check(
        1,
        5,
        &[
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    );
}

#[test]
fn consistency_proofs_are_those_of_the_reference() {
    let tree = Tree::of(LEAVES);
    let check = |old, new, expected: &[&str]| {
        let expected: Vec<_> = expected.iter().copied().map(hash).collect();
        assert_eq!(tree.consistency(old, new), expected, "{old} to {new}");
    };
    check(1, 1, &[]);
    check(
        1,
        8,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    );
    check(
        6,
        8,
        &[
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    );
    check(
        2,
        5,
        &[
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    );
}

/// The definition in RFC 6962, 2.1, word for word: what the fast ways are compared with.
fn defined_root(leaves: &[TreeHash]) -> TreeHash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let middle = split(0, leaves.len() as u64) as usize;
            node_hash(&defined_root(&leaves[..middle]), &defined_root(&leaves[middle..]))
        }
    }
}

#[test]
fn every_root_follows_the_definition_and_is_found_again_from_what_was_stored() {
    let tree = Tree::of_size(300);
    let leaves: Vec<_> = (0..300_u64).map(|i| leaf_hash(&i.to_le_bytes())).collect();
    for size in 0..=300 {
        assert_eq!(tree.roots[size], defined_root(&leaves[..size]), "{size} leaves");
        let loaded = CompactRange::load(size as u64, |node| tree.read(node)).expect("stored");
        assert_eq!((loaded.size(), loaded.root()), (size as u64, tree.roots[size]));
    }
}

#[test]
fn every_proof_of_every_size_holds() {
    let tree = Tree::of_size(260);
    for size in 0..=260 {
        for index in 0..size {
            let (path, leaf) = (tree.inclusion(index, size), leaf_hash(&index.to_le_bytes()));
            assert_eq!(verify_inclusion(leaf, index, size, tree.at(size).1, &path), Ok(()));
        }
        for old in 0..=size {
            let path = tree.consistency(old, size);
            assert_eq!(verify_consistency(tree.at(old), tree.at(size), &path), Ok(()));
        }
    }
}

#[test]
fn proofs_of_trees_near_the_largest_size_end() {
    let root = empty_root();
    let read = |_| Ok::<_, Infallible>(root);
    for (index, size) in [(u64::MAX - 1, u64::MAX), (0, u64::MAX), (1 << 63, (1 << 63) + 1)] {
        let path = inclusion_proof(index, size, read).expect("made");
        let wrong = verify_inclusion(root, index, size, root, &path);
        assert!(matches!(wrong, Err(ProofError::Root { .. })), "{wrong:?}");
        let path = consistency_proof(index, size, read).expect("made");
        let wrong = verify_consistency((index, root), (size, root), &path);
        assert!(index == 0 || matches!(wrong, Err(ProofError::Root { .. })), "{wrong:?}");
    }
}

/// What can be wrong with a proof that was right.
#[derive(Debug, Clone)]
enum Harm {
    Flip { at: usize, bit: u8 },
    Drop { at: usize },
    Repeat { at: usize },
    Append,
    Move { by: u64 },
    OtherRoot,
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        4 => (any::<usize>(), any::<u8>()).prop_map(|(at, bit)| Harm::Flip { at, bit }),
        1 => any::<usize>().prop_map(|at| Harm::Drop { at }),
        1 => any::<usize>().prop_map(|at| Harm::Repeat { at }),
        1 => Just(Harm::Append),
        2 => (1_u64..400).prop_map(|by| Harm::Move { by }),
        1 => Just(Harm::OtherRoot),
    ]
}

/// Harms a path; false if there was nothing to harm.
fn harm_path(path: &mut Vec<TreeHash>, harm: &Harm) -> bool {
    let length = path.len();
    match *harm {
        Harm::Append => path.push(empty_root()),
        _ if length == 0 => return false,
        Harm::Flip { at, bit } => {
            path[at % length].0[usize::from(bit / 8)] ^= 1 << (bit % 8);
        }
        Harm::Drop { at } => drop(path.remove(at % length)),
        Harm::Repeat { at } => path.insert(at % length, path[at % length]),
        _ => return false,
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn wrong_inclusion_proofs_are_refused(size in 1_u64..200, leaf: u64, harm in harm()) {
        let tree = Tree::of_size(size);
        let index = leaf % size;
        let (mut path, leaf) = (tree.inclusion(index, size), leaf_hash(&index.to_le_bytes()));
        let (_, mut root) = tree.at(size);
        let mut claimed = index;
        match harm {
            Harm::Move { by } => claimed += by,
            Harm::OtherRoot => root = tree.at(size - 1).1,
            _ => prop_assume!(harm_path(&mut path, &harm)),
        }
        prop_assert!(verify_inclusion(leaf, claimed, size, root, &path).is_err());
    }

    #[test]
    fn wrong_consistency_proofs_are_refused(new in 2_u64..200, old: u64, harm in harm()) {
        let tree = Tree::of_size(new);
        let old = 1 + old % (new - 1);
        let mut path = tree.consistency(old, new);
        let (mut from, mut to) = (tree.at(old), tree.at(new));
        match harm {
            Harm::Move { .. } => from = tree.at(old - 1),
            Harm::OtherRoot => to.1 = tree.at(new - 1).1,
            _ => prop_assume!(harm_path(&mut path, &harm)),
        }
        prop_assert!(verify_consistency(from, to, &path).is_err());
    }

    #[test]
    fn arbitrary_proofs_are_refused_without_panic(
        (a, b) in any::<(u64, u64)>(),
        hashes in proptest::collection::vec(any::<[u8; 32]>(), 0..80),
    ) {
        let path: Vec<_> = hashes.into_iter().map(TreeHash).collect();
        let root = TreeHash([7; 32]);
        prop_assert!(verify_inclusion(TreeHash([8; 32]), a, b, root, &path).is_err());
        prop_assert!(verify_consistency((a, root), (b, TreeHash([8; 32])), &path).is_err() || a == 0);
    }
}
