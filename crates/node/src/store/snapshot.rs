//! The state of a ledger at a signed block, kept so that a start need not replay what came before, and the removal
//! of entries that it stands for.
//!
//! The founding is never removed: it says whose signature counts. Nor are the hashes of the log, so the entries that
//! are left, and those that somebody else kept, are still proved to lie in it.

use super::{
    ENTRIES, Store, StoreError,
    error::{Damage, Failure},
    log, seal,
};
use redb::{ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use talka_base::{Encoded, NetworkId, NodeId, Signed, TreeHash, decode, encode};
use talka_ledger::{
    Block, BlockError, Entry, Ledger, Proof, SnapshotError, StateRecord,
    note::SignedNote,
    order::{FinalityError, heirs},
    tlog::CompactRange,
};

/// Network and place to sealed bytes: at 0 a [`Header`], then the records of the state in order.
pub(super) const SNAPSHOTS: TableDefinition<(&[u8; 32], u64), &[u8]> =
    TableDefinition::new("snapshots");

/// Which block a snapshot is of.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    size: u64,
    checkpoint: String,
    handovers: Vec<String>,
}

impl Encoded for Header {
    const NAME: &'static str = "snapshot header";
    const SIZE_MAX: usize = HANDOVERS_BYTES_MAX + (1 << 16);
}

/// Proofs of who witnessed since when, in all: thousands of changes among few witnesses, dozens among many.
pub(crate) const HANDOVERS_BYTES_MAX: usize = 1 << 20;

/// The state of a ledger at a signed block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The block, signed.
    pub checkpoint: SignedNote,
    /// What shows who witnesses, from the founding on; see [`heirs`]. Not all where the node that took it was not told all.
    pub handovers: Vec<Proof>,
    /// What its state root is the root of.
    pub records: Vec<StateRecord>,
}

/// Why a snapshot is not believed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotRefused {
    /// Nobody signed its block who may.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// Its records are not what the block says.
    #[error(transparent)]
    Records(#[from] SnapshotError),
    /// Its witnesses did not agree to it, or nothing shows that it has these witnesses.
    #[error(transparent)]
    Finality(#[from] Box<FinalityError>),
    /// What is to show who witnesses shows others.
    #[error("the proofs of who witnesses lead to others than its state names")]
    Witnesses,
}

impl Snapshot {
    /// The ledger that goes on from here, if `founder` signed for it, or one of the witnesses that it names: then it
    /// convinces nobody but whoever wrote it.
    ///
    /// # Errors
    /// [`SnapshotRefused`].
    pub fn restore(self, founder: NodeId) -> Result<Ledger, SnapshotRefused> {
        let block = self.checkpoint.text().parse().map_err(BlockError::from)?;
        let ledger = Ledger::restore(self.records, &block)?;
        let signers = std::iter::once(founder).chain(ledger.witnesses().nodes());
        Block::open_by(&self.checkpoint, signers)?;
        Ok(ledger)
    }

    /// The same for somebody else, who has the ledger of the founding alone: it is believed as far as its witnesses agreed, where
    /// there are any.
    ///
    /// # Errors
    /// [`SnapshotRefused`].
    pub fn restore_for(self, founding: &Ledger) -> Result<Ledger, SnapshotRefused> {
        let witnesses = heirs(founding, &self.handovers).map_err(Box::new)?;
        let note = self.checkpoint.clone();
        let number = note.text().parse::<Block>().map_err(BlockError::from)?.number;
        let ledger = self.restore(founding.founder())?;
        if *ledger.witnesses() != witnesses {
            return Err(SnapshotRefused::Witnesses);
        }
        let cosigned = witnesses.cosigned(&note);
        if !witnesses.are_enough(&cosigned) {
            let (expected, found) = (witnesses.quorum(), cosigned.len());
            return Err(Box::new(FinalityError::NotCosigned { number, expected, found }).into());
        }
        Ok(ledger)
    }
}

/// A snapshot's header, or damage to it.
fn parse(header: Header) -> Result<(u64, SignedNote, Vec<Proof>), Damage> {
    let damaged = || Damage::Digest { record: "the snapshot's block".into() };
    let note = SignedNote::parse(header.checkpoint.as_bytes()).map_err(|_| damaged())?;
    let handovers = header.handovers.iter().map(|proof| Proof::parse(proof.as_bytes()));
    let handovers = handovers.collect::<Result<_, _>>().map_err(|_| damaged())?;
    Ok((header.size, note, handovers))
}

/// Entries that a network's snapshot stands for; 0 without one.
pub(super) fn size(
    table: &impl ReadableTable<(&'static [u8; 32], u64), &'static [u8]>,
    network: &NetworkId,
) -> Result<u64, Failure> {
    let Some(sealed) = table.get((&network.0, 0))? else { return Ok(0) };
    Ok(open_header(network, sealed.value())?.size)
}

pub(super) fn size_in(transaction: &WriteTransaction, network: &NetworkId) -> Result<u64, Failure> {
    size(&transaction.open_table(SNAPSHOTS)?, network)
}

fn key(network: &NetworkId, place: u64) -> Vec<u8> {
    [b"snapshot".as_slice(), &network.0, &place.to_be_bytes()].concat()
}

fn open<'a>(network: &NetworkId, place: u64, sealed: &'a [u8]) -> Result<&'a [u8], Damage> {
    let record = || format!("record {place} of the snapshot");
    seal::open(&key(network, place), sealed).ok_or_else(|| Damage::Digest { record: record() })
}

fn open_header(network: &NetworkId, sealed: &[u8]) -> Result<Header, Damage> {
    let encoding = |source| Damage::Encoding { record: "the snapshot's header".into(), source };
    decode(open(network, 0, sealed)?).map_err(encoding)
}

fn write(
    transaction: &WriteTransaction,
    network: &NetworkId,
    size: u64,
    snapshot: &Snapshot,
) -> Result<(), Failure> {
    let mut table = transaction.open_table(SNAPSHOTS)?;
    table.retain_in((&network.0, 0)..=(&network.0, u64::MAX), |_, _| false)?;
    let header = encode(&Header {
        size,
        checkpoint: snapshot.checkpoint.to_string(),
        handovers: snapshot.handovers.iter().map(Proof::to_string).collect(),
    });
    let records = snapshot.records.iter().map(encode);
    for (place, bytes) in (0..).zip(std::iter::once(header).chain(records)) {
        let sealed = seal::seal(&key(network, place), &bytes);
        table.insert((&network.0, place), sealed.as_slice())?;
    }
    Ok(())
}

impl Store {
    /// Keeps a snapshot of a network, whose block has `size` entries, in place of any before. On disk when this
    /// returns.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be written.
    pub fn put_snapshot(
        &self,
        network: &NetworkId,
        size: u64,
        snapshot: &Snapshot,
    ) -> Result<(), StoreError> {
        self.write(|transaction| write(transaction, network, size, snapshot))
    }

    /// Entries that the snapshot of a network stands for; 0 without one.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if its header was altered on disk.
    pub fn snapshot_size(&self, network: &NetworkId) -> Result<u64, StoreError> {
        self.read(|database| size(&database.begin_read()?.open_table(SNAPSHOTS)?, network))
    }

    /// The snapshot of a network.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] names the first record that was altered on disk.
    pub fn snapshot(&self, network: &NetworkId) -> Result<Option<Snapshot>, StoreError> {
        self.snapshot_part(network, 0, usize::MAX)
    }

    /// The snapshot of a network with at most `limit` of its records, from place `from` on; nothing without a snapshot.
    ///
    /// # Errors
    /// As [`Store::snapshot`].
    pub fn snapshot_part(
        &self,
        network: &NetworkId,
        from: u64,
        limit: usize,
    ) -> Result<Option<Snapshot>, StoreError> {
        self.read(|database| {
            let table = database.begin_read()?.open_table(SNAPSHOTS)?;
            let Some(header) = table.get((&network.0, 0))? else { return Ok(None) };
            let (_, checkpoint, handovers) = parse(open_header(network, header.value())?)?;
            let mut records = Vec::new();
            let first = from.saturating_add(1);
            for row in table.range((&network.0, first)..=(&network.0, u64::MAX))?.take(limit) {
                let (found, value) = row?;
                let place = found.value().1;
                let encoding =
                    |source| Damage::Encoding { record: format!("record {place}"), source };
                records.push(decode(open(network, place, value.value())?).map_err(encoding)?);
            }
            Ok(Some(Snapshot { checkpoint, handovers, records }))
        })
    }

    /// Begins a network's ledger here with its founding and a snapshot, without the entries between. `log` is the
    /// tree over those: the next entry goes on from it. What this stores the caller has checked.
    ///
    /// # Errors
    /// [`StoreError::OldSnapshot`] if more entries are here already.
    pub fn begin_from(
        &self,
        founding: &Signed<Entry>,
        block: &Block,
        snapshot: &Snapshot,
        log: &CompactRange,
    ) -> Result<(), StoreError> {
        let network = &block.network;
        let expected = self.entry_count(network)?;
        if expected > block.size {
            return Err(StoreError::OldSnapshot { expected, found: block.size });
        }
        if expected == 0 {
            self.append(network, std::slice::from_ref(founding))?;
        }
        self.write(|transaction| {
            log::graft(transaction, network, log)?;
            write(transaction, network, block.size, snapshot)
        })?;
        self.put_checkpoint(block, &snapshot.checkpoint)
    }

    /// Removes the entries of a network below `height` for which its snapshot stands, but the founding. Says how many.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be written.
    pub fn prune(&self, network: &NetworkId, height: u64) -> Result<u64, StoreError> {
        let mut removed = 0;
        self.write(|transaction| {
            let below = height.min(size_in(transaction, network)?);
            let mut table = transaction.open_table(ENTRIES)?;
            if below > 1 {
                table.retain_in((&network.0, 1)..(&network.0, below), |_, _| {
                    removed += 1;
                    false
                })?;
                super::papers::prune(transaction, network, below)?;
            }
            Ok(())
        })?;
        Ok(removed)
    }

    /// The height of the first entry after the founding that is here, or would be next.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be read.
    pub fn first_held(&self, network: &NetworkId) -> Result<u64, StoreError> {
        let next = self.entry_count(network)?;
        self.read(|database| {
            let table = database.begin_read()?.open_table(ENTRIES)?;
            let first =
                table.range((&network.0, 1)..=(&network.0, u64::MAX))?.next().transpose()?;
            Ok(first.map_or(next.max(1), |(key, _)| key.value().1))
        })
    }

    /// The roots of the complete subtrees over the first `size` entries, from the left.
    ///
    /// # Errors
    /// As [`Store::log`].
    pub fn subtrees(&self, network: &NetworkId, size: u64) -> Result<Vec<TreeHash>, StoreError> {
        Ok(self.log(network, size)?.subtrees().map(|(_, hash)| hash).collect())
    }
}
