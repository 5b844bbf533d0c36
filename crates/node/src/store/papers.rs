//! Papers of epochs: what entries rest on and do not hold.
//!
//! Whoever closes an epoch writes its papers in the transaction that appends the entry, so that no settlement is
//! acknowledged that is not on the disk in full. Everybody else gets them from another node; an entry counts without.

use super::{Damage, Store, StoreError, append_entries, error::Failure, seal};
use redb::{ReadableDatabase, TableDefinition, TableError, WriteTransaction};
use talka_base::{NetworkId, Signed, decode, encode};
use talka_ledger::{Entry, epoch::Papers};

/// Network and height of the epoch to the sealed encoding of its [`Papers`]. Made when first written to.
const PAPERS: TableDefinition<(&[u8; 32], u64), &[u8]> = TableDefinition::new("papers");

fn papers_key(network: &NetworkId, height: u64) -> Vec<u8> {
    [b"papers".as_slice(), &network.0, &height.to_be_bytes()].concat()
}

fn insert(
    transaction: &WriteTransaction,
    network: &NetworkId,
    height: u64,
    papers: &Papers,
) -> Result<(), Failure> {
    let sealed = seal::seal(&papers_key(network, height), &encode(papers));
    transaction.open_table(PAPERS)?.insert((&network.0, height), sealed.as_slice())?;
    Ok(())
}

/// Removes those of the epochs before `below`.
pub(super) fn prune(
    transaction: &WriteTransaction,
    network: &NetworkId,
    below: u64,
) -> Result<(), Failure> {
    let mut table = transaction.open_table(PAPERS)?;
    Ok(table.retain_in((&network.0, 0)..(&network.0, below), |_, _| false)?)
}

impl Store {
    /// As [`Store::append`], with the papers of epochs among the entries, by height.
    ///
    /// # Errors
    /// As [`Store::append`].
    pub fn append_with(
        &self,
        network: &NetworkId,
        entries: &[Signed<Entry>],
        papers: &[(u64, Papers)],
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            append_entries(transaction, network, entries)?;
            papers
                .iter()
                .try_for_each(|(height, papers)| insert(transaction, network, *height, papers))
        })
    }

    /// Keeps the papers of the epoch at `height`, which the caller has compared with it. On disk when this returns.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be written.
    pub fn put_papers(
        &self,
        network: &NetworkId,
        height: u64,
        papers: &Papers,
    ) -> Result<(), StoreError> {
        self.write(|transaction| insert(transaction, network, height, papers))
    }

    /// Whether the papers of the epoch at `height` are here.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be read.
    pub fn has_papers(&self, network: &NetworkId, height: u64) -> Result<bool, StoreError> {
        self.read(|database| match database.begin_read()?.open_table(PAPERS) {
            Err(TableError::TableDoesNotExist(_)) => Ok(false),
            table => Ok(table?.get((&network.0, height))?.is_some()),
        })
    }

    /// The papers of the epoch at `height`, if they are here.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if they were altered on disk.
    pub fn papers(&self, network: &NetworkId, height: u64) -> Result<Option<Papers>, StoreError> {
        self.read(|database| {
            let table = match database.begin_read()?.open_table(PAPERS) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(None),
                table => table?,
            };
            let Some(sealed) = table.get((&network.0, height))? else { return Ok(None) };
            let record = || format!("papers of entry {height}");
            let bytes = seal::open(&papers_key(network, height), sealed.value())
                .ok_or_else(|| Damage::Digest { record: record() })?;
            Ok(Some(decode(bytes).map_err(|source| Damage::Encoding { record: record(), source })?))
        })
    }
}
