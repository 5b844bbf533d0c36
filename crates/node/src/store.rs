//! What a node keeps on disk: ledger entries and a few small records, in one data directory.
//!
//! One file, `talka.redb`, holds the ledgers of all networks that the node was ever part of (an
//! entry's key is network and height) and the node's own records, so that both change in one
//! transaction log. Beside it lies `lock`, held as long as the store is open: one node per data
//! directory.
//!
//! What [`Store::append`] and [`Store::put`] acknowledged is on disk: commits are immediate and in
//! two phases. The second phase matters when the file is damaged later: redb then reports the
//! damage, where a one-phase commit would silently fall back to the state before.
//!
//! A damaged file is an error that names it, on opening or on reading, and never a panic: the
//! whole file is checked on opening, and each value carries a digest over its key and itself. One
//! thing is not noticed: a file left by a crash of which, before it is opened again, exactly the
//! bit flips that says which of the last two commits is the newer; the newer one is then gone.
//!
//! What heads chose lately ([`journal`]) lies in files of its own: it is written with every token and
//! needs to outlive the process, but not the machine. So do the [`vouchers`] that stages hold.
//!
//! Decides nothing about entries but that they are contiguous; the ledger's rules are checked by
//! replaying ([`Store::ledger`]). All calls block.

pub mod backup;
mod error;
mod file;
pub mod journal;
mod log;
mod papers;
mod pending;
mod seal;
pub mod snapshot;
#[cfg(test)]
mod tests;
pub mod vouchers;

pub use error::{Damage, StoreError};

use file::guarded;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use std::{
    fs::File,
    path::{Path, PathBuf},
};
use talka_base::{NetworkId, Signed, decode, encode};
use talka_ledger::{Entry, Ledger, ReplayError};

/// Network and height to the sealed encoding of a `Signed<Entry>`.
const ENTRIES: TableDefinition<(&[u8; 32], u64), &[u8]> = TableDefinition::new("entries");
/// Key to sealed bytes.
const RECORDS: TableDefinition<&str, &[u8]> = TableDefinition::new("records");
/// The layout of these and those of [`log`], under the key `version`.
const LAYOUT: TableDefinition<&str, u64> = TableDefinition::new("layout");
const LAYOUT_VERSION: u64 = 3;

/// The longest key of a record, in bytes.
pub const KEY_BYTES_MAX: usize = 256;
/// The longest record, in bytes: invites and memberships have a few hundred.
pub const RECORD_BYTES_MAX: usize = 1 << 20;
/// Entries read at once while iterating: at most 32 MiB, and usually 128 KiB.
const BATCH: usize = 256;

/// An open data directory. Dropping it releases the directory.
#[derive(Debug)]
pub struct Store {
    database: Database,
    file: PathBuf,
    /// Declared last: the directory is free only once the file is closed.
    _lock: File,
}

impl Store {
    /// Opens or creates the store in `data_dir`, creating the directory if need be, and checks the
    /// whole file.
    ///
    /// # Errors
    /// [`StoreError::DataDirInUse`] if another node has it open; [`StoreError::Corrupt`] if the
    /// file is damaged.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let lock = file::lock(data_dir)?;
        let file = data_dir.join("talka.redb");
        let database = file::open(&file)?;
        Ok(Self { database, file, _lock: lock })
    }

    /// Appends entries to a network's ledger, and their hashes to its log. They are on disk when this returns,
    /// all or none.
    ///
    /// # Errors
    /// [`StoreError::Height`] unless the entries continue the ledger one by one.
    pub fn append(&self, network: &NetworkId, entries: &[Signed<Entry>]) -> Result<(), StoreError> {
        self.write(|transaction| append_entries(transaction, network, entries))
    }

    /// Entries of a network's ledger on disk: the height of the next one.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be read.
    pub fn entry_count(&self, network: &NetworkId) -> Result<u64, StoreError> {
        self.read(|database| {
            let transaction = database.begin_read()?;
            let next = next_height(&transaction.open_table(ENTRIES)?, network)?;
            Ok(next.max(snapshot::size(&transaction.open_table(snapshot::SNAPSHOTS)?, network)?))
        })
    }

    /// At most `limit` entries of a network's ledger, from `height` on, in order. Not verified:
    /// only what [`Ledger`] takes counts.
    ///
    /// # Errors
    /// [`StoreError::Pruned`] if the first of them was removed, [`StoreError::Corrupt`] names the first entry that
    /// is missing or altered.
    pub fn entries_from(
        &self,
        network: &NetworkId,
        height: u64,
        limit: usize,
    ) -> Result<Vec<Signed<Entry>>, StoreError> {
        self.read(|database| {
            let transaction = database.begin_read()?;
            let table = transaction.open_table(ENTRIES)?;
            let rows = table.range((&network.0, height)..=(&network.0, u64::MAX))?;
            let mut rows = rows.take(limit).peekable();
            let kept = snapshot::size(&transaction.open_table(snapshot::SNAPSHOTS)?, network)?;
            if (1..kept).contains(&height) {
                let first = rows.peek().and_then(|row| Some(row.as_ref().ok()?.0.value().1));
                let first = first.unwrap_or(kept);
                if height < first && first <= kept {
                    return Err(StoreError::Pruned { height, first }.into());
                }
            }
            let mut entries = Vec::new();
            for (expected, row) in (height..=u64::MAX).zip(rows) {
                let (key, value) = row?;
                let found = key.value().1;
                if height == 0 && expected == 1 && (2..=kept).contains(&found) {
                    // The founding stays when those after it are removed.
                    break;
                }
                if found != expected {
                    return Err(Damage::Gap { expected, found }.into());
                }
                entries.push(open_entry(network, found, value.value())?);
            }
            Ok(entries)
        })
    }

    /// A network's entries from `height` on in order, read a batch at a time. Ends after an error.
    pub fn entries(&self, network: &NetworkId, height: u64) -> Entries<'_> {
        Entries {
            store: self,
            network: *network,
            batch: Vec::new().into_iter(),
            next: Some(height),
        }
    }

    /// A network's ledger: that of its snapshot, if there is one, and the entries since, each checked in full;
    /// `None` if none of its entries are here.
    ///
    /// # Errors
    /// [`StoreError::Replay`] names the first entry that does not follow.
    pub fn ledger(&self, network: &NetworkId) -> Result<Option<Ledger>, StoreError> {
        let replay = |height, source| {
            let source = Box::new(ReplayError { height, source });
            StoreError::Replay { file: self.file.clone(), source }
        };
        let Some(first) = self.entries(network, 0).next().transpose()? else { return Ok(None) };
        let mut ledger = Ledger::begin(&first).map_err(|e| replay(0, e))?;
        if ledger.network() != *network {
            let source = Damage::OtherNetwork { expected: *network, found: ledger.network() };
            return Err(StoreError::Corrupt { file: self.file.clone(), source });
        }
        if let Some(snapshot) = self.snapshot(network)? {
            let restored = snapshot.restore(ledger.founder());
            ledger = restored.map_err(|source| self.corrupt(Damage::Snapshot(source)))?;
        }
        let next = ledger.height() + 1;
        for (height, entry) in (next..).zip(self.entries(network, next)) {
            let entry = entry?;
            let is_epoch = entry.claimed_value().event.epoch().is_some();
            let papers = if is_epoch { self.papers(network, height)? } else { None };
            // Only a full check refuses an epoch for its papers: it counts without.
            if papers.is_none_or(|papers| ledger.apply_with(&entry, &papers.0).is_err()) {
                ledger.apply(&entry).map_err(|e| replay(height, e))?;
            }
        }
        Ok(Some(ledger))
    }

    /// The record under `key`, or `None`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it was altered on disk.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|database| {
            let transaction = database.begin_read()?;
            let table = transaction.open_table(RECORDS)?;
            let Some(value) = table.get(key)? else { return Ok(None) };
            Ok(Some(open_record(key, value.value())?.to_vec()))
        })
    }

    /// Writes the record under `key`, in place of any before. On disk when this returns.
    ///
    /// # Errors
    /// [`StoreError::RecordSize`] beyond [`KEY_BYTES_MAX`] or [`RECORD_BYTES_MAX`].
    pub fn put(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        if key.len() > KEY_BYTES_MAX || bytes.len() > RECORD_BYTES_MAX {
            let key_start = key.chars().take(40).collect();
            let (key_bytes, record_bytes) = (key.len(), bytes.len());
            return Err(StoreError::RecordSize { key_start, key_bytes, record_bytes });
        }
        self.write(|transaction| {
            let sealed = seal::seal(key.as_bytes(), bytes);
            transaction.open_table(RECORDS)?.insert(key, sealed.as_slice())?;
            Ok(())
        })
    }

    /// All records whose keys begin with `prefix`, in the order of their keys.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] names the first that was altered on disk.
    pub fn records(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.read(|database| {
            let transaction = database.begin_read()?;
            let table = transaction.open_table(RECORDS)?;
            let mut found = Vec::new();
            for row in table.range(prefix..)? {
                let (key, value) = row?;
                let key = key.value();
                if !key.starts_with(prefix) {
                    break;
                }
                found.push((key.to_owned(), open_record(key, value.value())?.to_vec()));
            }
            Ok(found)
        })
    }

    /// Removes the record under `key`, if there is one. Gone for good when this returns.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be written.
    pub fn remove(&self, key: &str) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.open_table(RECORDS)?.remove(key)?;
            Ok(())
        })
    }

    /// The error for a record that this file holds and that means nothing.
    pub fn corrupt(&self, source: Damage) -> StoreError {
        StoreError::Corrupt { file: self.file.clone(), source }
    }

    /// The file, for messages.
    pub fn file(&self) -> &Path {
        &self.file
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, error::Failure>,
    ) -> Result<T, StoreError> {
        guarded(&self.file, || work(&self.database))
    }

    fn write(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<(), error::Failure>,
    ) -> Result<(), StoreError> {
        guarded(&self.file, || file::commit(&self.database, work))
    }
}

/// The entries of one ledger; see [`Store::entries`].
#[derive(Debug)]
pub struct Entries<'a> {
    store: &'a Store,
    network: NetworkId,
    batch: std::vec::IntoIter<Signed<Entry>>,
    /// Where the next batch starts; `None` after the last.
    next: Option<u64>,
}

impl Iterator for Entries<'_> {
    type Item = Result<Signed<Entry>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(entry) = self.batch.next() {
            return Some(Ok(entry));
        }
        let from = self.next.take()?;
        match self.store.entries_from(&self.network, from, BATCH) {
            Ok(batch) => {
                self.next = (batch.len() == BATCH).then_some(from + BATCH as u64);
                self.batch = batch.into_iter();
                self.batch.next().map(Ok)
            }
            Err(error) => Some(Err(error)),
        }
    }
}

fn append_entries(
    transaction: &WriteTransaction,
    network: &NetworkId,
    entries: &[Signed<Entry>],
) -> Result<(), error::Failure> {
    let mut table = transaction.open_table(ENTRIES)?;
    let next = next_height(&table, network)?.max(snapshot::size_in(transaction, network)?);
    for (expected, signed) in (next..).zip(entries) {
        let found = signed.claimed_value().height;
        if found != expected {
            return Err(StoreError::Height { expected, found }.into());
        }
        let sealed = seal::seal(&entry_key(network, found), &encode(signed));
        table.insert((&network.0, found), sealed.as_slice())?;
    }
    log::append(transaction, network, next, entries)
}

fn next_height(
    table: &impl ReadableTable<(&'static [u8; 32], u64), &'static [u8]>,
    network: &NetworkId,
) -> Result<u64, redb::StorageError> {
    let last = table.range((&network.0, 0)..=(&network.0, u64::MAX))?.next_back();
    Ok(last.transpose()?.map_or(0, |(key, _)| key.value().1.saturating_add(1)))
}

fn entry_key(network: &NetworkId, height: u64) -> Vec<u8> {
    [network.0.as_slice(), &height.to_be_bytes()].concat()
}

fn open_entry(
    network: &NetworkId,
    height: u64,
    sealed: &[u8],
) -> Result<Signed<Entry>, error::Failure> {
    let record = || format!("ledger entry {height}");
    let bytes = seal::open(&entry_key(network, height), sealed)
        .ok_or_else(|| Damage::Digest { record: record() })?;
    Ok(decode(bytes).map_err(|source| Damage::Encoding { record: record(), source })?)
}

fn open_record<'a>(key: &str, sealed: &'a [u8]) -> Result<&'a [u8], Damage> {
    seal::open(key.as_bytes(), sealed).ok_or_else(|| Damage::Digest { record: key.into() })
}
