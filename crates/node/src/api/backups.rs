//! Backups of the ledger, what is restored from them, and the removal of old entries.

use super::{AdminError, Api};
use crate::{
    shell::{
        desk::DeskError,
        links::MEMBERSHIP_KEY,
        now,
        open::{IDENTITY_FILE, NETWORK_KEY},
    },
    store::{
        Store, StoreError,
        backup::{self, BackupError, Check, Piece, Pieces},
    },
};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
};
use talka_base::{EntryHash, Keypair, NetworkId, NodeId, Tick, encode};
use talka_ledger::{Event, Ledger};
use talka_net::Identity;
use tokio::sync::mpsc;

const DAY_MS: u64 = 24 * 3_600_000;
/// Bytes of a backup that are told at once, and how many such pieces wait for a slow reader.
const CHUNK_BYTES: usize = 64 << 10;
const CHUNKS_MAX: usize = 8;

/// What a backup holds, every entry of it replayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupReport {
    /// The network.
    pub network: NetworkId,
    /// Its name.
    pub name: String,
    /// Number of entries of the ledger, those included that a snapshot stands for.
    pub entries: u64,
    /// Signed blocks.
    pub blocks: u64,
    /// The hash of the last entry.
    pub head: EntryHash,
    /// The time of the last entry.
    pub at: Tick,
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreReport {
    /// What the backup holds.
    #[serde(flatten)]
    pub backup: BackupReport,
    /// Entries that were not in the data directory before.
    pub new_entries: u64,
    /// Who the data directory's key is in that network.
    pub identity: RestoredIdentity,
}

/// Who the key of a data directory is in a restored network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoredIdentity {
    /// Its founder, who goes on ordering entries.
    Founder,
    /// A node of a member.
    Member,
    /// A node of a member, whose membership is among the removed entries.
    MembershipMissing,
    /// Nobody in it.
    Stranger,
    /// There is none.
    Missing,
}

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneReport {
    /// Entries removed now.
    pub removed: u64,
    /// The first entry after the founding that is still here.
    pub first: u64,
    /// Entries that the snapshot stands for.
    pub snapshot: u64,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum RestoreError {
    #[error("the backup {} cannot be used", file.display())]
    Backup { file: PathBuf, source: Box<BackupError> },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the key in {} cannot be read", file.display())]
    Identity { file: PathBuf, reason: String },
    #[error(
        "the data directory {} belongs to network {expected}, the backup is of {found}: restore it into \
         another one with --data-dir",
        dir.display()
    )]
    OtherNetwork { dir: PathBuf, expected: NetworkId, found: NetworkId },
}

impl Api {
    /// This node's copy of the ledger as one file, in pieces that come as fast as they are taken; see
    /// [`backup`] for what it holds. Ends with an error if the copy cannot be read.
    pub fn ledger_backup(&self) -> mpsc::Receiver<io::Result<Vec<u8>>> {
        let (sender, pieces) = mpsc::channel(CHUNKS_MAX);
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || {
            let network = shared.desk().network();
            let out = BufWriter::with_capacity(CHUNK_BYTES, Chunks(sender.clone()));
            match backup::write(&shared.store, &network, out) {
                // Whoever asked has left.
                Ok(()) | Err(BackupError::Io(_)) => {}
                Err(error) => {
                    tracing::error!(%error, "no backup of the ledger");
                    let _ = sender.blocking_send(Err(io::Error::other(error.to_string())));
                }
            }
        });
        pieces
    }

    /// Takes a snapshot of the ledger and removes this node's copy of entries older than `keep_days`. Balances, and
    /// proofs of what is still here, are as before.
    ///
    /// # Errors
    /// [`AdminError::NoCheckpoint`] if no signed block is about the entries here, [`AdminError::Ledger`] if nothing here but the
    /// entries shows who witnesses.
    pub async fn ledger_prune(&self, keep_days: u32) -> Result<PruneReport, AdminError> {
        let desk = self.shared.desk();
        let before = Tick(now().0.saturating_sub(u64::from(keep_days) * DAY_MS));
        let pruned = tokio::task::spawn_blocking(move || desk.prune(before)).await;
        let removed = pruned.expect("pruning does not panic").map_err(|error| match error {
            DeskError::Store(error) => error.into(),
            other => AdminError::Ledger { reason: other.to_string() },
        })?;
        let removed = removed.ok_or(AdminError::NoCheckpoint)?;
        Ok(PruneReport {
            removed: removed.entries,
            first: removed.first,
            snapshot: removed.snapshot,
        })
    }
}

/// Hands on what is written.
struct Chunks(mpsc::Sender<io::Result<Vec<u8>>>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(bytes.to_vec()));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn report(check: &Check) -> BackupReport {
    let Check { ledger, blocks, .. } = check;
    BackupReport {
        network: ledger.network(),
        name: ledger.name().into(),
        entries: ledger.height() + 1,
        blocks: *blocks,
        head: ledger.head_hash(),
        at: ledger.at(),
    }
}

fn checked(file: &Path) -> Result<Check, BackupError> {
    Check::all(BufReader::new(File::open(file)?))
}

/// Replays a backup, without any node.
///
/// # Errors
/// [`RestoreError::Backup`] says what is wrong with it.
pub fn check_backup(file: &Path) -> Result<BackupReport, RestoreError> {
    let at = |error| RestoreError::Backup { file: file.into(), source: Box::new(error) };
    Ok(report(&checked(file).map_err(at)?))
}

/// Puts the ledger of a backup into a data directory that no node uses now, next to what it has of that network
/// already, and makes that network the directory's own if it has none. Checks all of it first.
///
/// # Errors
/// [`RestoreError`]; nothing was changed then.
pub fn restore_backup(data_dir: &Path, file: &Path) -> Result<RestoreReport, RestoreError> {
    let at = |error| RestoreError::Backup { file: file.into(), source: Box::new(error) };
    let check = checked(file).map_err(at)?;
    let found = check.ledger.network();
    let store = Store::open(data_dir)?;
    let own = store.get(NETWORK_KEY)?;
    if let Some(expected) = own.and_then(|bytes| Some(NetworkId(bytes.try_into().ok()?)))
        && expected != found
    {
        return Err(RestoreError::OtherNetwork { dir: data_dir.into(), expected, found });
    }
    let keys = keys(data_dir)?;
    let backup = report(&check);
    let is_known = |ledger: &Ledger, node| ledger.founder() == node || ledger.is_member_node(&node);
    let me = keys.map(|keys| NodeId(keys.public()));
    let identity = match me {
        None => RestoredIdentity::Missing,
        Some(me) if me == check.ledger.founder() => RestoredIdentity::Founder,
        Some(me) if is_known(&check.ledger, me) => RestoredIdentity::Member,
        Some(_) => RestoredIdentity::Stranger,
    };
    let reader = || Ok::<_, BackupError>(BufReader::new(File::open(file)?));
    let stored = reader().and_then(|input| check.store(&store, input));
    let new_entries = stored.map_err(at)?;
    let identity = match (identity, me) {
        (RestoredIdentity::Member, Some(me)) if store.get(MEMBERSHIP_KEY)?.is_none() => {
            match reader().and_then(|input| membership(input, me)).map_err(at)? {
                Some(bytes) => {
                    store.put(MEMBERSHIP_KEY, &bytes)?;
                    identity
                }
                None => RestoredIdentity::MembershipMissing,
            }
        }
        (identity, _) => identity,
    };
    // Last: from here on a start finds the network.
    store.put(NETWORK_KEY, &found.0)?;
    Ok(RestoreReport { backup, new_entries, identity })
}

/// The key of a data directory, if there is one.
fn keys(data_dir: &Path) -> Result<Option<Keypair>, RestoreError> {
    let file = data_dir.join(IDENTITY_FILE);
    match Identity::load(&file) {
        Ok(identity) => Ok(identity.map(|identity| identity.keypair().clone())),
        Err(error) => Err(RestoreError::Identity { file, reason: error.to_string() }),
    }
}

/// The membership of node `me`, encoded.
fn membership(input: impl io::Read, me: NodeId) -> Result<Option<Vec<u8>>, BackupError> {
    let mut last = None;
    for piece in Pieces::open(input)? {
        if let Piece::Entry(entry) = piece?
            && let Event::Joined { membership } = &entry.claimed_value().event
            && membership.claimed_value().node == me
        {
            last = Some(encode(membership));
        }
    }
    Ok(last)
}
