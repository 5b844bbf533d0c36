//! An ordered map that is copied in one step and hashed again only where it changed.
//!
//! A binary trie over the bits of the keys, without nodes of one child (PATRICIA, Morrison 1968). Copies share every subtree
//! that neither changed since, and a subtree keeps its hash. So a block copies and hashes what its entries
//! changed, however much there is beside it; a `BTreeMap` would be copied and hashed as a whole.
//!
//! Whoever chooses keys can make their own paths as long as keys have bits, and no longer.

use crate::{entry::Account, tlog::node_hash};
use std::{
    fmt,
    ops::Index,
    sync::{Arc, OnceLock},
};
use talka_base::{MemberId, ModelId, NodeId, ProposalId, RequestId, Tick, TreeHash};

/// What a [`Map`] is ordered by: bytes that no other key begins with.
pub(crate) trait Key: Clone + PartialEq + fmt::Debug {
    /// As long for each key of a map.
    type Bytes: AsRef<[u8]>;

    fn bytes(&self) -> Self::Bytes;
}

macro_rules! keys {
    ($($id:ty, $size:literal);*) => {$(
        impl Key for $id {
            type Bytes = [u8; $size];

            fn bytes(&self) -> Self::Bytes {
                self.0
            }
        }
    )*};
}

keys!(MemberId, 32; ModelId, 32; NodeId, 32; ProposalId, 32; RequestId, 16);

/// The variant, and of a member's bucket its id and which.
impl Key for Account {
    type Bytes = [u8; 34];

    fn bytes(&self) -> Self::Bytes {
        let mut bytes = [0; 34];
        match self {
            Self::Member(member, bucket) => {
                bytes[1..33].copy_from_slice(&member.0);
                bytes[33] = *bucket as u8;
            }
            Self::Mint => bytes[0] = 1,
            Self::Burn => bytes[0] = 2,
            Self::Treasury => bytes[0] = 3,
        }
        bytes
    }
}

impl Key for (u64, RequestId) {
    type Bytes = [u8; 24];

    fn bytes(&self) -> Self::Bytes {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.0.to_be_bytes());
        bytes[8..].copy_from_slice(&self.1.0);
        bytes
    }
}

impl Key for (Tick, RequestId) {
    type Bytes = [u8; 24];

    fn bytes(&self) -> Self::Bytes {
        (self.0.0, self.1).bytes()
    }
}

/// A leaf's way to the root: the hash beside it on each level, from the leaf up, and whether that stands on the left.
pub(crate) type Path = Vec<(bool, TreeHash)>;

/// See the [module](self).
#[derive(Clone)]
pub(crate) struct Map<K, V> {
    root: Option<Node<K, V>>,
    len: usize,
}

#[derive(Clone)]
enum Node<K, V> {
    Leaf(Arc<(K, V)>),
    Branch(Arc<Branch<K, V>>),
}

/// Keys that are alike up to `bit`: those in which it is 0, and those in which it is 1.
#[derive(Clone)]
struct Branch<K, V> {
    bit: usize,
    sides: [Node<K, V>; 2],
    hash: OnceLock<TreeHash>,
}

/// 0 or 1; 0 beyond the end.
fn bit_of(bytes: &[u8], bit: usize) -> usize {
    bytes.get(bit / 8).map_or(0, |byte| usize::from(byte >> (7 - bit % 8) & 1))
}

/// The first bit in which keys differ.
fn first_difference(one: &[u8], other: &[u8]) -> Option<usize> {
    let (at, (a, b)) = one.iter().zip(other).enumerate().find(|(_, (a, b))| a != b)?;
    Some(8 * at + (a ^ b).leading_zeros() as usize)
}

impl<K: Key, V: Clone> Node<K, V> {
    /// The one leaf that may have this key.
    fn nearest(&self, bytes: &[u8]) -> &(K, V) {
        let mut node = self;
        loop {
            match node {
                Self::Leaf(leaf) => return leaf,
                Self::Branch(branch) => node = &branch.sides[bit_of(bytes, branch.bit)],
            }
        }
    }

    /// The branch, to be changed: what it said of itself holds no longer.
    fn change(branch: &mut Arc<Branch<K, V>>) -> &mut Branch<K, V> {
        let branch = Arc::make_mut(branch);
        branch.hash.take();
        branch
    }

    /// The value of a key that is there.
    fn value_mut(&mut self, bytes: &[u8]) -> &mut V {
        match self {
            Self::Leaf(leaf) => &mut Arc::make_mut(leaf).1,
            Self::Branch(branch) => {
                let branch = Self::change(branch);
                branch.sides[bit_of(bytes, branch.bit)].value_mut(bytes)
            }
        }
    }

    /// Adds a leaf whose key differs from the nearest one's first in `bit`.
    fn add(&mut self, bytes: &[u8], bit: usize, leaf: Self) {
        if let Self::Branch(branch) = self
            && branch.bit < bit
        {
            let branch = Self::change(branch);
            return branch.sides[bit_of(bytes, branch.bit)].add(bytes, bit, leaf);
        }
        let mut sides = [self.clone(), leaf];
        if bit_of(bytes, bit) == 0 {
            sides.swap(0, 1);
        }
        *self = Self::Branch(Arc::new(Branch { bit, sides, hash: OnceLock::new() }));
    }

    /// Takes the leaf of a key that is there, and leaves what stood beside it; nothing, if that is this node.
    fn take(&mut self, bytes: &[u8]) -> Option<Arc<(K, V)>> {
        let Self::Branch(branch) = self else { return None };
        let branch = Self::change(branch);
        let side = bit_of(bytes, branch.bit);
        if let Self::Leaf(leaf) = &branch.sides[side] {
            let (leaf, beside) = (leaf.clone(), branch.sides[1 - side].clone());
            *self = beside;
            return Some(leaf);
        }
        branch.sides[side].take(bytes)
    }

    fn hash(&self, leaf_hash: &impl Fn(&K, &V) -> TreeHash) -> TreeHash {
        match self {
            Self::Leaf(leaf) => leaf_hash(&leaf.0, &leaf.1),
            Self::Branch(branch) => *branch.hash.get_or_init(|| {
                let [left, right] = &branch.sides;
                node_hash(&left.hash(leaf_hash), &right.hash(leaf_hash))
            }),
        }
    }
}

impl<K: Key, V: Clone> Map<K, V> {
    pub const fn new() -> Self {
        Self { root: None, len: 0 }
    }

    pub const fn len(&self) -> usize {
        self.len
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.find(key.bytes().as_ref()).map(|(_, value)| value)
    }

    /// What stands under a key with these bytes.
    pub fn find(&self, bytes: &[u8]) -> Option<(&K, &V)> {
        let (key, value) = self.root.as_ref()?.nearest(bytes);
        (key.bytes().as_ref() == bytes).then_some((key, value))
    }

    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let bytes = key.bytes();
        self.find(bytes.as_ref())?;
        Some(self.root.as_mut()?.value_mut(bytes.as_ref()))
    }

    /// What stands under a key, or `value` from now on.
    pub fn get_or_insert_with(&mut self, key: K, value: impl FnOnce() -> V) -> &mut V {
        let bytes = key.bytes();
        if self.find(bytes.as_ref()).is_none() {
            self.insert(key, value());
        }
        self.root.as_mut().expect("it has this key").value_mut(bytes.as_ref())
    }

    /// The same, where that is the usual value.
    pub fn get_or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        self.get_or_insert_with(key, V::default)
    }

    pub fn insert(&mut self, key: K, value: V) {
        let bytes = key.bytes();
        let bytes = bytes.as_ref();
        let leaf = Node::Leaf(Arc::new((key.clone(), value)));
        let Some(root) = &mut self.root else {
            (self.root, self.len) = (Some(leaf), 1);
            return;
        };
        if let Some(bit) = first_difference(root.nearest(bytes).0.bytes().as_ref(), bytes) {
            root.add(bytes, bit, leaf);
            self.len += 1;
        } else if let Node::Leaf(leaf) = leaf {
            *root.value_mut(bytes) = Arc::unwrap_or_clone(leaf).1;
        }
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        let bytes = key.bytes();
        self.find(bytes.as_ref())?;
        self.len -= 1;
        let taken = self.root.as_mut()?.take(bytes.as_ref());
        let leaf = match (taken, &self.root) {
            (Some(leaf), _) => leaf,
            (None, Some(Node::Leaf(leaf))) => {
                let leaf = leaf.clone();
                self.root = None;
                leaf
            }
            (None, _) => return None,
        };
        Some(Arc::unwrap_or_clone(leaf).1)
    }

    /// The first key.
    pub fn first(&self) -> Option<K> {
        self.keys().next().cloned()
    }

    /// Takes what stands under the first key.
    pub fn pop_first(&mut self) -> Option<V> {
        self.remove(&self.first()?)
    }

    /// In the order of the keys' bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let mut waiting: Vec<_> = self.root.iter().collect();
        std::iter::from_fn(move || {
            loop {
                match waiting.pop()? {
                    Node::Leaf(leaf) => return Some((&leaf.0, &leaf.1)),
                    Node::Branch(branch) => waiting.extend(branch.sides.iter().rev()),
                }
            }
        })
    }

    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// The hash of the whole; nothing, if that is empty. `leaf_hash` is the same function every time.
    pub fn hash(&self, leaf_hash: impl Fn(&K, &V) -> TreeHash) -> Option<TreeHash> {
        self.root.as_ref().map(|root| root.hash(&leaf_hash))
    }

    /// How the leaf of a key that is there leads to the hash of the whole.
    pub fn path(&self, bytes: &[u8], leaf_hash: impl Fn(&K, &V) -> TreeHash) -> Path {
        let (mut path, mut node) = (Path::new(), self.root.as_ref());
        while let Some(Node::Branch(branch)) = node {
            let side = bit_of(bytes, branch.bit);
            path.push((side == 1, branch.sides[1 - side].hash(&leaf_hash)));
            node = Some(&branch.sides[side]);
        }
        path.reverse();
        path
    }
}

impl<K: Key, V: Clone> Default for Map<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Key, V: Clone + PartialEq> PartialEq for Map<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<K: Key, V: Clone + Eq> Eq for Map<K, V> {}

impl<K: Key, V: Clone + fmt::Debug> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Key, V: Clone> Index<&K> for Map<K, V> {
    type Output = V;

    fn index(&self, key: &K) -> &V {
        self.get(key).expect("a key that is there")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tlog::leaf_hash;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Few ids, of which many begin alike.
    fn id(number: u8) -> RequestId {
        let mut bytes = [0; 16];
        bytes[usize::from(number % 3) * 7] = number;
        RequestId(bytes)
    }

    fn hash_of(key: &RequestId, value: &u32) -> TreeHash {
        leaf_hash(&[key.0.as_slice(), &value.to_be_bytes()].concat())
    }

    /// As `docs/ledger-format.md` says it.
    fn definition(records: &[(RequestId, u32)]) -> Option<TreeHash> {
        let [(first, _), .., (last, _)] = records else {
            return records.first().map(|(key, value)| hash_of(key, value));
        };
        let bit = first_difference(&first.0, &last.0).expect("keys differ");
        let half = records.partition_point(|(key, _)| bit_of(&key.0, bit) == 0);
        let [left, right] = [&records[..half], &records[half..]].map(definition);
        Some(node_hash(&left?, &right?))
    }

    fn same(map: &Map<RequestId, u32>, model: &BTreeMap<RequestId, u32>) {
        assert!(map.iter().eq(model.iter()), "{map:?} beside {model:?}");
        assert_eq!(map.len(), model.len());
        let records: Vec<_> = model.iter().map(|(key, value)| (*key, *value)).collect();
        let root = map.hash(hash_of);
        assert_eq!(root, definition(&records));
        for (key, value) in model {
            assert_eq!(map.get(key), Some(value));
            let climb = |found, (is_left, beside): &(bool, TreeHash)| match is_left {
                true => node_hash(beside, &found),
                false => node_hash(&found, beside),
            };
            let path = map.path(&key.0, hash_of);
            assert_eq!(Some(path.iter().fold(hash_of(key, value), climb)), root);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn it_is_a_map_whose_copies_stay_what_they_were(
            steps in prop::collection::vec((any::<u8>(), any::<u32>(), 0_u8..6), 0..80),
        ) {
            let (mut map, mut model) = (Map::new(), BTreeMap::new());
            let mut copies = Vec::new();
            for (number, value, what) in steps {
                let key = id(number);
                match what {
                    0 => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                    1 => {
                        let (one, other) = (map.get_mut(&key), model.get_mut(&key));
                        prop_assert_eq!(&one, &other);
                        if let (Some(one), Some(other)) = (one, other) {
                            (*one, *other) = (value, value);
                        }
                    }
                    5 => prop_assert_eq!(map.pop_first(), model.pop_first().map(|(_, value)| value)),
                    2 => {
                        *map.get_or_insert_with(key, || value) ^= 1;
                        *model.entry(key).or_insert(value) ^= 1;
                    }
                    3 => copies.push((map.clone(), model.clone())),
                    _ => {
                        map.insert(key, value);
                        model.insert(key, value);
                    }
                }
                if value % 4 == 0 {
                    same(&map, &model);
                }
            }
            same(&map, &model);
            copies.iter().for_each(|(map, model)| same(map, model));
        }
    }

    #[test]
    fn keys_that_somebody_chose_to_be_alike_cost_a_level_for_each_bit() {
        let mut map = Map::new();
        let mut model = BTreeMap::new();
        for bit in 0..128_u32 {
            let key = RequestId((1_u128 << bit).to_be_bytes());
            map.insert(key, bit);
            model.insert(key, bit);
        }
        same(&map, &model);
        assert_eq!(map.path(&1_u128.to_be_bytes(), hash_of).len(), 127);
    }
}
