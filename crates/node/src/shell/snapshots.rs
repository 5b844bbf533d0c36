//! Snapshots of the ledger: taken now and then so that a start is quick, before entries are removed, and told to guests
//! of a node that removed them.

use super::desk::{Desk, DeskError};
use crate::{
    store::{
        StoreError,
        snapshot::{HANDOVERS_BYTES_MAX, Snapshot},
    },
    wire::SnapshotPart,
};
use talka_base::{NetworkId, Signed, Tick, encode};
use talka_ledger::{
    Block, Entry, Ledger, Proof, note::SignedNote, order::heirs, tlog::CompactRange,
};

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
        self.keep_snapshot(ledger, block, note).map(|_| ())
    }

    /// Says what shows who witnesses.
    fn keep_snapshot(
        &self,
        ledger: &Ledger,
        block: &Block,
        note: &SignedNote,
    ) -> Result<Vec<Proof>, StoreError> {
        let handovers = self.handovers(ledger.appointed_at(), block)?;
        let records = ledger.records().collect();
        let snapshot = Snapshot { checkpoint: note.clone(), handovers, records };
        self.store.put_snapshot(&block.network, block.size, &snapshot)?;
        Ok(snapshot.handovers)
    }

    /// What shows who witnesses at `block`, whom the entry `appointed_at` named: what the snapshot before says, and what came since.
    /// Where witnesses were named since, that is replayed; where their block never came here, they cannot be shown.
    fn handovers(&self, appointed_at: u64, block: &Block) -> Result<Vec<Proof>, StoreError> {
        let (network, end) = (&block.network, block.size);
        let start = self.store.snapshot_size(network)?.max(1);
        let since = |height| self.store.entries(network, height);
        let before = self.store.snapshot_part(network, 0, 0)?;
        let mut handovers = before.map_or_else(Vec::new, |snapshot| snapshot.handovers);
        if appointed_at < start {
            return Ok(handovers);
        }
        let mut ledger = match self.store.snapshot(network)? {
            Some(snapshot) => snapshot.restore(self.founder()).ok(),
            None => since(0).next().transpose()?.and_then(|first| Ledger::begin(&first).ok()),
        };
        let mut due: Option<(Block, SignedNote)> = None;
        for entry in since(start).take(end.saturating_sub(start) as usize) {
            let (entry, Some(ledger)) = (entry?, &mut ledger) else { break };
            if due.is_none() && ledger.names_witnesses(&entry.claimed_value().event) {
                due = self.store.checkpoint_of(network, entry.claimed_value().height)?;
            }
            if ledger.apply(&entry).is_err() {
                break;
            }
            if let Some((_, note)) = due.take_if(|(block, _)| block.size == ledger.height() + 1) {
                handovers.extend(ledger.handover(note));
            }
        }
        let bytes: usize = handovers.iter().map(|proof| proof.to_string().len()).sum();
        // More do not fit a message: then only the entries show it.
        Ok(if bytes > HANDOVERS_BYTES_MAX { Vec::new() } else { handovers })
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
            let handovers = self.keep_snapshot(&ledger, &block, &note)?;
            let network = block.network;
            let founding = self.store.entries_from(&network, 0, 1)?;
            let founded = founding.first().and_then(|founding| Ledger::begin(founding).ok());
            let shown = founded.and_then(|founded| heirs(&founded, &handovers).ok());
            if shown.is_none_or(|shown| shown != *ledger.witnesses()) {
                return Err(DeskError::Unshown);
            }
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
        let Some(Snapshot { checkpoint, handovers, mut records }) =
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
        let (mut subtrees, mut shown) = (Vec::new(), Vec::new());
        if from == 0 {
            subtrees = self.store.subtrees(&network, size)?;
            shown = handovers.iter().map(Proof::to_string).collect();
        }
        let checkpoint = checkpoint.to_string();
        Ok(Some(SnapshotPart { checkpoint, handovers: shown, subtrees, records }))
    }
}

/// A snapshot that comes in parts from somebody who may lie: only what the founder signed for is taken, or witnesses where there are any.
pub(crate) struct Incoming {
    founding: Signed<Entry>,
    /// Of the founding alone.
    ledger: Ledger,
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
        let handovers = part.handovers.iter().map(|proof| Proof::parse(proof.as_bytes()));
        let handovers =
            handovers.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
        let witnesses = heirs(&ledger, &handovers).map_err(|error| error.to_string())?;
        let signers = std::iter::once(ledger.founder()).chain(witnesses.nodes());
        let block = Block::open_by(&note, signers).map_err(|error| error.to_string())?;
        let log = CompactRange::of_subtrees(block.size, part.subtrees);
        let log = log.filter(|log| log.root() == block.root && block.network == ledger.network());
        let log = log.ok_or("the hashes of its log are not those of its block")?;
        let snapshot = Snapshot { checkpoint: note, handovers, records: Vec::new() };
        let mut incoming = Self { founding, ledger, block, snapshot, log, bytes: 0 };
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
        let Self { founding, ledger, block, snapshot, log, .. } = self;
        let ledger = snapshot.clone().restore_for(&ledger).map_err(|error| error.to_string())?;
        let told =
            Told::Since { founding: Box::new(founding), block: Box::new(block), snapshot, log };
        Ok((told, ledger))
    }
}
