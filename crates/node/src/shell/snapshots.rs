//! Snapshots of the ledger: taken now and then so that a start is quick, before entries are removed, and told to guests
//! of a node that removed them.

use super::desk::{Desk, DeskError};
use crate::{
    store::{StoreError, snapshot::Snapshot},
    wire::SnapshotPart,
};
use talka_base::{NetworkId, Signed, Tick, encode};
use talka_ledger::{Block, Entry, Ledger, note::SignedNote, tlog::CompactRange};

/// A start replays fewer entries than this. Some 2,000 are checked in a second on a small computer.
const SNAPSHOT_ENTRIES: u64 = 10_000;
/// How often a snapshot is tried again because an entry came between block and look.
const ATTEMPTS: usize = 5;
/// Records of one message at most, and their bytes.
const PART_RECORDS: usize = 4_096;
const PART_BYTES: usize = 1 << 20;
/// The largest state that a guest takes: some million members.
const SNAPSHOT_BYTES_MAX: usize = 1 << 30;

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Removed {
    /// Number of entries.
    pub(crate) entries: u64,
    /// The first one still here, after the founding.
    pub(crate) first: u64,
    /// Number of entries of the snapshot.
    pub(crate) snapshot: u64,
}

impl Desk {
    /// Keeps the state of `ledger`, which is that of `block`, if enough entries came since the last time.
    pub(super) fn snapshot_if_due(
        &self,
        ledger: &Ledger,
        block: &Block,
        note: &SignedNote,
    ) -> Result<(), StoreError> {
        let last = self.store.snapshot_size(&block.network)?;
        if block.size < last.saturating_add(SNAPSHOT_ENTRIES) {
            return Ok(());
        }
        self.keep_snapshot(ledger, block, note)
    }

    fn keep_snapshot(
        &self,
        ledger: &Ledger,
        block: &Block,
        note: &SignedNote,
    ) -> Result<(), StoreError> {
        let snapshot = Snapshot { checkpoint: note.clone(), records: ledger.records().collect() };
        self.store.put_snapshot(&block.network, block.size, &snapshot)
    }

    /// Takes a snapshot at the last block and removes entries from before `before` for which it stands. Nothing if
    /// there is no block about the entries here. Blocks on the disk.
    pub(crate) fn prune(&self, before: Tick) -> Result<Option<Removed>, DeskError> {
        for _ in 0..ATTEMPTS {
            let Some((block, note)) = self.checkpoint()? else { break };
            let ledger = self.ledger();
            if ledger.height() + 1 != block.size {
                continue;
            }
            self.keep_snapshot(&ledger, &block, &note)?;
            let network = block.network;
            let below = self.first_since(&network, before, block.size)?;
            let entries = self.store.prune(&network, below)?;
            let first = self.store.first_held(&network)?;
            return Ok(Some(Removed { entries, first, snapshot: block.size }));
        }
        Ok(None)
    }

    /// The height of the first entry not before `tick`, or `end`. Times never run backwards.
    fn first_since(&self, network: &NetworkId, tick: Tick, end: u64) -> Result<u64, StoreError> {
        let (mut low, mut high) = (self.store.first_held(network)?, end);
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.store.entries_from(network, middle, 1)?;
            if entry.first().is_some_and(|entry| entry.claimed_value().at < tick) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The records of this node's snapshot from place `from` on, as many as fit one message; nothing without one.
    pub(crate) fn snapshot_part(&self, from: u64) -> Result<Option<SnapshotPart>, StoreError> {
        let network = self.network();
        let size = self.store.snapshot_size(&network)?;
        let Some((checkpoint, mut records)) =
            self.store.snapshot_part(&network, from, PART_RECORDS)?
        else {
            return Ok(None);
        };
        let mut bytes = 0;
        let fits = records.iter().take_while(|record| {
            bytes += encode(*record).len();
            bytes <= PART_BYTES
        });
        records.truncate(fits.count().max(1));
        let subtrees = if from == 0 { self.store.subtrees(&network, size)? } else { Vec::new() };
        Ok(Some(SnapshotPart { checkpoint: checkpoint.to_string(), subtrees, records }))
    }
}

/// A snapshot that comes in parts from somebody who may lie: only what the founder signed for is taken.
pub(crate) struct Incoming {
    founding: Signed<Entry>,
    block: Block,
    snapshot: Snapshot,
    log: CompactRange,
    bytes: usize,
}

/// The ledger of a network, as it is told to a guest.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    /// From the founding on.
    Entries(Vec<Signed<Entry>>),
    /// From a snapshot on.
    Since { founding: Box<Signed<Entry>>, block: Box<Block>, snapshot: Snapshot, log: CompactRange },
}

impl Incoming {
    /// Begins with the first part.
    ///
    /// # Errors
    /// Why it is not believed.
    pub(crate) fn begin(founding: Signed<Entry>, part: SnapshotPart) -> Result<Self, String> {
        let ledger = Ledger::begin(&founding).map_err(|error| error.to_string())?;
        let note = SignedNote::parse(part.checkpoint.as_bytes()).map_err(|e| e.to_string())?;
        let block = Block::open(&note, ledger.founder().0).map_err(|error| error.to_string())?;
        let log = CompactRange::of_subtrees(block.size, part.subtrees);
        let log = log.filter(|log| log.root() == block.root && block.network == ledger.network());
        let log = log.ok_or("the hashes of its log are not those of its block")?;
        let snapshot = Snapshot { checkpoint: note, records: Vec::new() };
        let mut incoming = Self { founding, block, snapshot, log, bytes: 0 };
        incoming.add(part.records)?;
        Ok(incoming)
    }

    /// The place of the next record wanted; nothing once all are here.
    pub(crate) fn wanted(&self) -> Option<u64> {
        let have = self.snapshot.records.len() as u64;
        (have < self.block.records).then_some(have)
    }

    /// Adds another part.
    ///
    /// # Errors
    /// Why it is not believed.
    pub(crate) fn take(&mut self, part: SnapshotPart) -> Result<(), String> {
        if part.checkpoint != self.snapshot.checkpoint.to_string() {
            return Err("another snapshot was taken meanwhile: try again".into());
        }
        self.add(part.records)
    }

    fn add(&mut self, records: Vec<talka_ledger::StateRecord>) -> Result<(), String> {
        self.bytes += records.iter().map(|record| encode(record).len()).sum::<usize>();
        self.snapshot.records.extend(records);
        let (have, size) = (self.snapshot.records.len() as u64, self.block.records);
        if have > size || self.bytes > SNAPSHOT_BYTES_MAX {
            return Err(format!("{have} records of {} bytes for a state of {size}", self.bytes));
        }
        Ok(())
    }

    /// All of it together, and the ledger that it makes.
    ///
    /// # Errors
    /// Why it is not believed.
    pub(crate) fn finish(self) -> Result<(Told, Ledger), String> {
        let Self { founding, block, snapshot, log, .. } = self;
        let ledger = Ledger::restore(snapshot.records.iter().cloned(), &block);
        let ledger = ledger.map_err(|error| error.to_string())?;
        if !ledger.witnesses().is_solo() {
            return Err(
                "its ledger has witnesses, and it removed the entries that show who they are: be \
                        invited by a node that keeps all"
                    .into(),
            );
        }
        let told =
            Told::Since { founding: Box::new(founding), block: Box::new(block), snapshot, log };
        Ok((told, ledger))
    }
}
