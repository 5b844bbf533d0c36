//! Why the store cannot do what was asked.

use std::{io, path::PathBuf};
use talka_base::{Blame, CodecError, NetworkId};
use talka_ledger::ReplayError;

/// A store that cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message names its fields")]
pub enum StoreError {
    #[error("data directory {} cannot be used: check that it is a folder you may write to", dir.display())]
    DataDir { dir: PathBuf, source: io::Error },
    #[error(
        "data directory {} is in use by another talka: stop that one, or choose another directory \
         with --data-dir",
        dir.display()
    )]
    DataDirInUse { dir: PathBuf },
    /// Refuse to start: going on could lose or forge what was acknowledged.
    #[error(
        "store {} is damaged: restore it from a copy, or move it away to begin without it",
        file.display()
    )]
    Corrupt { file: PathBuf, source: Damage },
    /// The bytes are as written, but the ledger's rules were broken when they were.
    #[error(
        "store {} holds a ledger that does not verify: restore it from a copy, or move it away to \
         begin without it",
        file.display()
    )]
    Replay { file: PathBuf, source: Box<ReplayError> },
    /// The bytes are as written, and mean nothing here.
    #[error(
        "store {} was written by another version of talka: go on with that one, or move the file away to begin without it",
        file.display()
    )]
    OtherVersion { file: PathBuf, source: Damage },
    #[error("store {} has layout {found}, this program knows {expected}: update it", file.display())]
    Layout { file: PathBuf, expected: u64, found: u64 },
    /// The disk is full, gone or read-only.
    #[error("store {} cannot be read or written: check the disk", file.display())]
    Disk { file: PathBuf, source: Box<redb::Error> },
    /// What is older than the snapshot can be removed.
    #[error(
        "ledger entry {height} was removed here to save room, the first still held is {first}: ask a node \
         that keeps all, or look into a backup"
    )]
    Pruned { height: u64, first: u64 },
    #[error("a snapshot after {found} entries is older than what is here, which are {expected}")]
    OldSnapshot { expected: u64, found: u64 },
    /// The caller left out or repeated an entry.
    #[error("ledger entry has height {found}, the store goes on at {expected}")]
    Height { expected: u64, found: u64 },
    #[error(
        "record {key_start:?} has a key of {key_bytes} and a value of {record_bytes} bytes, expected \
         at most {} and {}",
        super::KEY_BYTES_MAX,
        super::RECORD_BYTES_MAX
    )]
    RecordSize { key_start: String, key_bytes: usize, record_bytes: usize },
}

impl StoreError {
    /// Always this machine: nothing that a peer sends reaches the store unchecked.
    pub const fn blame(&self) -> Blame {
        Blame::Us
    }
}

/// What is wrong with a damaged file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message names its fields")]
pub enum Damage {
    #[error(transparent)]
    Database(Box<redb::Error>),
    /// The database met something that it holds for impossible.
    #[error("reading it failed: {message}")]
    Panicked { message: String },
    #[error("{record} is not as it was written")]
    Digest { record: String },
    #[error("{record} cannot be decoded")]
    Encoding { record: String, source: CodecError },
    #[error("ledger entry {expected} is missing, the next is {found}")]
    Gap { expected: u64, found: u64 },
    #[error("the ledger of network {expected} is that of {found}")]
    OtherNetwork { expected: NetworkId, found: NetworkId },
    #[error("the snapshot of the ledger is not what its block says")]
    Snapshot(#[source] super::snapshot::SnapshotRefused),
    #[error("it names no layout")]
    NoLayout,
}

/// An error inside a transaction, before the file's name is added to it.
#[derive(Debug)]
pub(super) enum Failure {
    Store(StoreError),
    Damage(Damage),
    Database(Box<redb::Error>),
}

impl Failure {
    pub fn at(self, file: PathBuf) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Damage(source @ Damage::Encoding { source: CodecError::Version { .. }, .. }) => {
                StoreError::OtherVersion { file, source }
            }
            Self::Damage(source) => StoreError::Corrupt { file, source },
            Self::Database(source) if is_damage(&source) => {
                StoreError::Corrupt { file, source: Damage::Database(source) }
            }
            Self::Database(source) => StoreError::Disk { file, source },
        }
    }
}

/// Whether the bytes on disk are at fault, or getting at them.
fn is_damage(error: &redb::Error) -> bool {
    use io::ErrorKind::{InvalidData, UnexpectedEof};
    match error {
        redb::Error::Io(source) => matches!(source.kind(), InvalidData | UnexpectedEof),
        redb::Error::PreviousIo | redb::Error::ValueTooLarge(_) => false,
        _ => true,
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Damage> for Failure {
    fn from(damage: Damage) -> Self {
        Self::Damage(damage)
    }
}

macro_rules! from_redb {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for Failure {
            fn from(error: redb::$error) -> Self {
                Self::Database(Box::new(error.into()))
            }
        }
    )*};
}

from_redb!(
    CommitError,
    DatabaseError,
    SetDurabilityError,
    StorageError,
    TableError,
    TransactionError
);
