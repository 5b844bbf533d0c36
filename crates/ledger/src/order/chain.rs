//! A ledger, its log and its last block: what every part executes blocks on.

use super::{BATCH_BYTES_MAX, Witnesses};
use crate::{
    block::Block,
    entry::{Entry, Event},
    error::LedgerError,
    ledger::Ledger,
    note::SignedNote,
    tlog::{CompactRange, leaf_hash},
};
use std::sync::Arc;
use talka_base::{Keypair, Signed, Tick, encode};

/// The ledger up to the end of a block.
#[derive(Debug, Clone)]
pub struct Chain {
    ledger: Arc<Ledger>,
    log: CompactRange,
    number: u64,
    /// The last block; unknown where a follower of a solo ledger has the entries and was never told the block.
    block: Option<Block>,
    /// Who has to cosign the last block.
    needed: Vec<Witnesses>,
}

impl Chain {
    /// The chain of block 0, which holds the founding alone and needs no witness.
    ///
    /// # Errors
    /// [`LedgerError`] if `founding` is no valid founding.
    pub fn found(founding: &Signed<Entry>) -> Result<Self, LedgerError> {
        let ledger = Ledger::begin(founding)?;
        let mut log = CompactRange::default();
        log.append(leaf_hash(&encode(founding)), |_, _| ());
        let block = Some(Block::close(&ledger, &log, &log, 0));
        Ok(Self { ledger: Arc::new(ledger), log, number: 0, block, needed: Vec::new() })
    }

    /// The chain of a ledger that was executed before, up to the end of its block `number`. `last` is that block, with
    /// those who witnessed before its entries; it may be unknown while the ledger is solo.
    ///
    /// # Panics
    /// If the log has other than the ledger's entries.
    pub fn resume(
        ledger: Arc<Ledger>,
        log: CompactRange,
        number: u64,
        last: Option<(Block, Witnesses)>,
    ) -> Self {
        assert_eq!(log.size(), ledger.height() + 1, "the log holds the ledger's entries");
        let (block, before) = last.unzip();
        let needed = before.map_or_else(Vec::new, |before| needed(&before, ledger.witnesses()));
        Self { ledger, log, number, block, needed }
    }

    /// The chain one block longer, with these entries in it. Executes each.
    ///
    /// # Errors
    /// [`LedgerError`] of the first entry that does not follow, [`LedgerError::Empty`] without any.
    pub fn extend(&self, entries: &[Signed<Entry>]) -> Result<Self, LedgerError> {
        let mut next = Batch::of(self);
        for entry in entries {
            next.ledger.apply(entry)?;
            next.add(entry);
        }
        next.close(self)
    }

    /// The chain one block longer, with entries made of those of `events` that the rules allow; the others are
    /// handed to `refused`. Takes no more once the block is full, or others order from the next entry on. Nothing if no
    /// entry was made.
    pub(super) fn order(
        &self,
        keys: &Keypair,
        now: Tick,
        events: impl IntoIterator<Item = Box<Event>>,
        mut refused: impl FnMut(Box<Event>, LedgerError),
    ) -> Option<(Self, Vec<Signed<Entry>>)> {
        let mut next = Batch::of(self);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let mut events = events.into_iter();
        let turns = self.ledger.turns();
        while bytes < BATCH_BYTES_MAX
            && next.ledger.turns() == turns
            && let Some(event) = events.next()
        {
            match next.ledger.propose(keys, now, (*event).clone()) {
                Ok(entry) => {
                    next.ledger.apply(&entry).expect("an entry just proposed applies");
                    bytes += next.add(&entry);
                    entries.push(entry);
                }
                Err(error) => refused(event, error),
            }
        }
        Some((next.close(self).ok()?, entries))
    }

    /// The ledger after the last block.
    pub const fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// The last block, if it is known.
    pub const fn block(&self) -> Option<&Block> {
        self.block.as_ref()
    }

    /// The last block's number.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// The height at which the next block begins: the log's size.
    pub const fn size(&self) -> u64 {
        self.log.size()
    }

    /// Who has to cosign the last block: those named before it and, if it names others, those too.
    pub fn needed(&self) -> &[Witnesses] {
        &self.needed
    }

    /// Whether `note`, which has the last block's text, has the signatures that make it final.
    pub fn is_final(&self, note: &SignedNote) -> bool {
        let named = self.needed.iter().flat_map(Witnesses::nodes);
        let signers = std::iter::once(self.ledger.founder()).chain(named);
        Block::open_by(note, signers).ok() == self.block
            && self.block.is_some()
            && self.needed.iter().all(|witnesses| witnesses.are_enough(&witnesses.cosigned(note)))
    }
}

/// A block in the making.
struct Batch {
    ledger: Ledger,
    log: CompactRange,
    batch: CompactRange,
}

impl Batch {
    fn of(chain: &Chain) -> Self {
        let (ledger, log) = (Ledger::clone(&chain.ledger), chain.log.clone());
        Self { ledger, log, batch: CompactRange::default() }
    }

    /// Says how many bytes the entry has.
    fn add(&mut self, entry: &Signed<Entry>) -> usize {
        let bytes = encode(entry);
        let leaf = leaf_hash(&bytes);
        self.log.append(leaf, |_, _| ());
        self.batch.append(leaf, |_, _| ());
        bytes.len()
    }

    fn close(self, before: &Chain) -> Result<Chain, LedgerError> {
        let Self { ledger, log, batch } = self;
        if batch.size() == 0 {
            return Err(LedgerError::Empty);
        }
        let number = before.number + 1;
        let block = Some(Block::close(&ledger, &log, &batch, number));
        let needed = needed(before.ledger.witnesses(), ledger.witnesses());
        Ok(Chain { ledger: Arc::new(ledger), log, number, block, needed })
    }
}

/// Who has to cosign a block before whose entries `before` witnessed, and `after` do from now on.
pub fn needed(before: &Witnesses, after: &Witnesses) -> Vec<Witnesses> {
    let mut needed = vec![before.clone(), after.clone()];
    needed.dedup();
    needed
}
