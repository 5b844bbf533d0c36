//! The Merkle log over a ledger's entries, and the signed blocks that name its root.
//!
//! Hashes of complete subtrees are written in the transaction that appends their entries, so a tree is never
//! ahead of its entries or behind. They never change; nothing else of the tree is stored.

use super::{Damage, Store, StoreError, error::Failure, seal};
use redb::{ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};
use talka_base::{NetworkId, Signed, TreeHash, encode};
use talka_ledger::{
    Block, Entry,
    note::SignedNote,
    tlog::{CompactRange, Node, consistency_proof, inclusion_proof, leaf_hash},
};

/// Network, level and index to the sealed hash of a complete subtree.
pub(super) const TREE: TableDefinition<(&[u8; 32], u8, u64), &[u8]> = TableDefinition::new("tree");
/// Network and number to the sealed text of a signed block.
pub(super) const CHECKPOINTS: TableDefinition<(&[u8; 32], u64), &[u8]> =
    TableDefinition::new("checkpoints");

type Hashes<'a> = Table<'a, (&'static [u8; 32], u8, u64), &'static [u8]>;

/// Adds `entries`, which come after the first `size`, to the tree.
pub(super) fn append(
    transaction: &WriteTransaction,
    network: &NetworkId,
    size: u64,
    entries: &[Signed<Entry>],
) -> Result<(), Failure> {
    let mut table: Hashes<'_> = transaction.open_table(TREE)?;
    let mut tree = CompactRange::load(size, |node| read_node(&table, network, node))?;
    let mut complete = Vec::new();
    for entry in entries {
        tree.append(leaf_hash(&encode(entry)), |node, hash| complete.push((node, hash)));
    }
    for (node, hash) in complete {
        let sealed = seal::seal(&node_key(network, node), &hash.0);
        table.insert((&network.0, node.level, node.index), sealed.as_slice())?;
    }
    Ok(())
}

/// Adds the complete subtrees of `log`, whose leaves are not here.
pub(super) fn graft(
    transaction: &WriteTransaction,
    network: &NetworkId,
    log: &CompactRange,
) -> Result<(), Failure> {
    let mut table: Hashes<'_> = transaction.open_table(TREE)?;
    for (node, hash) in log.subtrees() {
        let sealed = seal::seal(&node_key(network, node), &hash.0);
        table.insert((&network.0, node.level, node.index), sealed.as_slice())?;
    }
    Ok(())
}

fn read_node(
    table: &impl ReadableTable<(&'static [u8; 32], u8, u64), &'static [u8]>,
    network: &NetworkId,
    node: Node,
) -> Result<TreeHash, Failure> {
    let damage =
        || Damage::Digest { record: format!("log hash {} of level {}", node.index, node.level) };
    let sealed = table.get((&network.0, node.level, node.index))?.ok_or_else(damage)?;
    let bytes = seal::open(&node_key(network, node), sealed.value()).ok_or_else(damage)?;
    Ok(TreeHash(bytes.try_into().map_err(|_| damage())?))
}

fn node_key(network: &NetworkId, node: Node) -> Vec<u8> {
    [network.0.as_slice(), &[node.level], &node.index.to_be_bytes()].concat()
}

fn checkpoint_key(network: &NetworkId, number: u64) -> Vec<u8> {
    [b"checkpoint".as_slice(), &network.0, &number.to_be_bytes()].concat()
}

/// Writes a signed block.
pub(super) fn insert_checkpoint(
    transaction: &WriteTransaction,
    block: &Block,
    note: &SignedNote,
) -> Result<(), Failure> {
    let key = checkpoint_key(&block.network, block.number);
    let sealed = seal::seal(&key, note.to_string().as_bytes());
    let mut table = transaction.open_table(CHECKPOINTS)?;
    table.insert((&block.network.0, block.number), sealed.as_slice())?;
    Ok(())
}

pub(super) fn open_checkpoint(
    network: &NetworkId,
    number: u64,
    sealed: &[u8],
) -> Result<SignedNote, Failure> {
    let damage = || Damage::Digest { record: format!("checkpoint {number}") };
    let text = seal::open(&checkpoint_key(network, number), sealed).ok_or_else(damage)?;
    Ok(SignedNote::parse(text).map_err(|_| damage())?)
}

impl Store {
    /// The tree over the first `size` entries of a network's ledger.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if there are fewer, or a hash was altered on disk.
    pub fn log(&self, network: &NetworkId, size: u64) -> Result<CompactRange, StoreError> {
        self.read_tree(|read| CompactRange::load(size, |node| read(network, node)))
    }

    /// The tree over the entries from `first` to below `size` alone.
    ///
    /// # Errors
    /// As [`Store::log`].
    pub fn batch(
        &self,
        network: &NetworkId,
        first: u64,
        size: u64,
    ) -> Result<CompactRange, StoreError> {
        self.read_tree(|read| {
            let mut tree = CompactRange::default();
            for index in first..size {
                tree.append(read(network, Node { level: 0, index })?, |_, _| ());
            }
            Ok(tree)
        })
    }

    /// The path from entry `height` to the root of the tree over the first `size` entries.
    ///
    /// # Errors
    /// As [`Store::log`].
    ///
    /// # Panics
    /// If `height` is not below `size`.
    pub fn path(
        &self,
        network: &NetworkId,
        height: u64,
        size: u64,
    ) -> Result<Vec<TreeHash>, StoreError> {
        self.read_tree(|read| inclusion_proof(height, size, |node| read(network, node)))
    }

    /// What shows the tree of the first `new` entries to begin with that of the first `old`.
    ///
    /// # Errors
    /// As [`Store::log`].
    ///
    /// # Panics
    /// If `old` is more than `new`.
    pub fn consistency(
        &self,
        network: &NetworkId,
        old: u64,
        new: u64,
    ) -> Result<Vec<TreeHash>, StoreError> {
        self.read_tree(|read| consistency_proof(old, new, |node| read(network, node)))
    }

    fn read_tree<T>(
        &self,
        work: impl FnOnce(&dyn Fn(&NetworkId, Node) -> Result<TreeHash, Failure>) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        self.read(|database| {
            let table = database.begin_read()?.open_table(TREE)?;
            work(&|network, node| read_node(&table, network, node))
        })
    }

    /// Keeps a signed block. On disk when this returns.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be written.
    pub fn put_checkpoint(&self, block: &Block, note: &SignedNote) -> Result<(), StoreError> {
        self.write(|transaction| insert_checkpoint(transaction, block, note))
    }

    /// The last signed block of a network that is here.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it was altered on disk.
    pub fn last_checkpoint(&self, network: &NetworkId) -> Result<Option<SignedNote>, StoreError> {
        self.read(|database| {
            let table = database.begin_read()?.open_table(CHECKPOINTS)?;
            let mut rows = table.range((&network.0, 0)..=(&network.0, u64::MAX))?;
            let Some(row) = rows.next_back().transpose()? else { return Ok(None) };
            Ok(Some(open_checkpoint(network, row.0.value().1, row.1.value())?))
        })
    }

    /// All signed blocks of a network that are here, in order.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] names the first that was altered on disk.
    pub fn checkpoints(&self, network: &NetworkId) -> Result<Vec<SignedNote>, StoreError> {
        self.read(|database| {
            let table = database.begin_read()?.open_table(CHECKPOINTS)?;
            let rows = table.range((&network.0, 0)..=(&network.0, u64::MAX))?;
            rows.map(|row| {
                let (key, value) = row?;
                open_checkpoint(network, key.value().1, value.value())
            })
            .collect()
        })
    }

    /// The signed blocks nearest to a number: at or below it, and at or above it.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if one was altered on disk.
    pub fn checkpoints_around(
        &self,
        network: &NetworkId,
        number: u64,
    ) -> Result<Vec<SignedNote>, StoreError> {
        self.read(|database| {
            let table = database.begin_read()?.open_table(CHECKPOINTS)?;
            let below = table.range((&network.0, 0)..=(&network.0, number))?.next_back();
            let above = table.range((&network.0, number)..=(&network.0, u64::MAX))?.next();
            let mut notes = Vec::new();
            for row in below.into_iter().chain(above) {
                let (key, value) = row?;
                notes.push(open_checkpoint(network, key.value().1, value.value())?);
            }
            Ok(notes)
        })
    }

    /// The signed block of a number.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it was altered on disk.
    pub fn checkpoint(
        &self,
        network: &NetworkId,
        number: u64,
    ) -> Result<Option<SignedNote>, StoreError> {
        self.read(|database| {
            let table = database.begin_read()?.open_table(CHECKPOINTS)?;
            let Some(sealed) = table.get((&network.0, number))? else { return Ok(None) };
            Ok(Some(open_checkpoint(network, number, sealed.value())?))
        })
    }
}
