//! Blocks that this node signed or cosigned and that wait for signatures of others.
//!
//! They are written down before a signature leaves, so that there is never another block of the same number. Once a block
//! is final its entries become the ledger's, in one transaction with its checkpoint: a ledger with witnesses always
//! ends where a block ends, and has the signatures of every block.

use super::{
    Damage, Store, StoreError, append_entries,
    error::Failure,
    log::{insert_checkpoint, open_checkpoint},
    seal,
};
use redb::{ReadableDatabase, TableDefinition, TableError, WriteTransaction};
use talka_base::{NetworkId, decode, encode};
use talka_ledger::{
    Block,
    note::SignedNote,
    order::{Batch, Record},
};

/// Network and block number to the sealed encoding of a [`Record::Signed`]. Made when first written to.
const PENDING: TableDefinition<(&[u8; 32], u64), &[u8]> = TableDefinition::new("pending");

/// Network to the sealed encoding of a [`Record::Promised`]. Made when first written to.
const PROMISES: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("promises");

fn promise_key(network: &NetworkId) -> Vec<u8> {
    [b"promise".as_slice(), &network.0].concat()
}

fn pending_key(network: &NetworkId, number: u64) -> Vec<u8> {
    [b"pending".as_slice(), &network.0, &number.to_be_bytes()].concat()
}

fn open_pending(network: &NetworkId, number: u64, sealed: &[u8]) -> Result<Batch, Failure> {
    let record = || format!("signed block {number}");
    let bytes = seal::open(&pending_key(network, number), sealed)
        .ok_or_else(|| Damage::Digest { record: record() })?;
    match decode(bytes).map_err(|source| Damage::Encoding { record: record(), source })? {
        Record::Signed(batch) => Ok(batch),
        _ => Err(Damage::Digest { record: record() }.into()),
    }
}

impl Store {
    /// Keeps a block that was signed here and is not final. On disk when this returns.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be written.
    pub fn put_pending(&self, block: &Block, batch: &Batch) -> Result<(), StoreError> {
        let sealed = seal::seal(
            &pending_key(&block.network, block.number),
            &encode(&Record::Signed(batch.clone())),
        );
        self.write(|transaction| {
            let mut table = transaction.open_table(PENDING)?;
            table.insert((&block.network.0, block.number), sealed.as_slice())?;
            Ok(())
        })
    }

    /// Keeps what this node may not contradict, in place of what it kept before. On disk when this returns.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be written.
    pub fn put_promise(&self, network: &NetworkId, promise: &Record) -> Result<(), StoreError> {
        let sealed = seal::seal(&promise_key(network), &encode(promise));
        self.write(|transaction| {
            transaction.open_table(PROMISES)?.insert(&network.0, sealed.as_slice())?;
            Ok(())
        })
    }

    /// What this node may not contradict, if it promised anything.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it was altered on disk.
    pub fn promise(&self, network: &NetworkId) -> Result<Option<Record>, StoreError> {
        self.read(|database| {
            let table = match database.begin_read()?.open_table(PROMISES) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(None),
                table => table?,
            };
            let Some(sealed) = table.get(&network.0)? else { return Ok(None) };
            let record = || "the promise".to_owned();
            let bytes = seal::open(&promise_key(network), sealed.value())
                .ok_or_else(|| Damage::Digest { record: record() })?;
            Ok(Some(decode(bytes).map_err(|source| Damage::Encoding { record: record(), source })?))
        })
    }

    /// The blocks signed here that are not final, in order.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] names the first that was altered on disk.
    pub fn pending(&self, network: &NetworkId) -> Result<Vec<Batch>, StoreError> {
        self.read(|database| {
            let transaction = database.begin_read()?;
            let table = match transaction.open_table(PENDING) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                table => table?,
            };
            let rows = table.range((&network.0, 0)..=(&network.0, u64::MAX))?;
            rows.map(|row| {
                let (key, value) = row?;
                open_pending(network, key.value().1, value.value())
            })
            .collect()
        })
    }

    /// Makes `block`, signed as `note`, the ledger's last one. Its entries are those of `taken`, or, if it was signed
    /// here, those kept with it. All or nothing is on disk when this returns.
    ///
    /// # Errors
    /// [`StoreError::Height`] unless the entries continue the ledger.
    pub fn finalise(
        &self,
        block: &Block,
        note: &SignedNote,
        taken: Option<&Batch>,
    ) -> Result<(), StoreError> {
        let (network, number) = (&block.network, block.number);
        self.write(|transaction| {
            let signed = remove_pending(transaction, network, number)?;
            let batch = taken.or(signed.as_ref());
            let damage = || Damage::Digest { record: format!("signed block {number}") };
            append_entries(transaction, network, &batch.ok_or_else(damage)?.entries)?;
            insert_checkpoint(transaction, block, note)
        })
    }

    /// The final block that begins at the height `first`, with its entries, unless they were removed.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it was altered on disk.
    pub fn block_from(&self, network: &NetworkId, first: u64) -> Result<Option<Batch>, StoreError> {
        let found = self.checkpoint_of(network, first)?;
        let Some((block, note)) = found.filter(|(block, _)| block.first == first) else {
            return Ok(None);
        };
        let count = usize::try_from(block.size - block.first).unwrap_or(usize::MAX);
        let entries = match self.entries_from(network, first, count) {
            Err(StoreError::Pruned { .. }) => return Ok(None),
            entries => entries?,
        };
        Ok((entries.len() == count).then_some(Batch { note, entries }))
    }

    /// The first signed block here that holds the entry at `height`, or, where that one is missing, comes after it.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if one was altered on disk.
    pub fn checkpoint_of(
        &self,
        network: &NetworkId,
        height: u64,
    ) -> Result<Option<(Block, SignedNote)>, StoreError> {
        self.read(|database| {
            let table = database.begin_read()?.open_table(super::log::CHECKPOINTS)?;
            let last = table.range((&network.0, 0)..=(&network.0, u64::MAX))?.next_back();
            let Some(last) = last.transpose()? else { return Ok(None) };
            let (mut low, mut high) = (0, last.0.value().1);
            let mut found = None;
            // Numbers go up with sizes, and some may be missing.
            while low <= high {
                let middle = low + (high - low) / 2;
                let mut rows = table.range((&network.0, middle)..=(&network.0, high))?;
                let Some(row) = rows.next().transpose()? else {
                    if middle == 0 {
                        break;
                    }
                    high = middle - 1;
                    continue;
                };
                let number = row.0.value().1;
                let note = open_checkpoint(network, number, row.1.value())?;
                let damage = || Damage::Digest { record: format!("checkpoint {number}") };
                let block: Block = note.text().parse().map_err(|_| damage())?;
                if block.size > height {
                    found = Some((block, note));
                    if middle == 0 {
                        break;
                    }
                    high = middle - 1;
                } else {
                    low = number + 1;
                }
            }
            Ok(found)
        })
    }
}

/// Takes out the pending block of this number, if there is one.
fn remove_pending(
    transaction: &WriteTransaction,
    network: &NetworkId,
    number: u64,
) -> Result<Option<Batch>, Failure> {
    let mut table = transaction.open_table(PENDING)?;
    let Some(sealed) = table.remove((&network.0, number))? else { return Ok(None) };
    open_pending(network, number, sealed.value()).map(Some)
}
