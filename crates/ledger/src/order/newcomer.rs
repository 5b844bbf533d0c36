//! How a node that was not there comes to believe a ledger.
//!
//! In: all entries, and of the blocks only those that name witnesses, and the last. Out: the ledger, which it executed
//! entry by entry, or why it is not to be believed. Where the ledger names witnesses, each of these blocks needs their
//! cosignatures: what a sequencer signed alone counts for nothing.
//!
//! Taking every block one after the other, as a [`Replica`](super::Replica) does, comes to the same: a block holds all
//! entries before it by the root of the log, so the cosignatures of the last one cover them, if its witnesses are those
//! that earlier ones agreed to. So nobody has to send or check the signatures of the others.
//!
//! Never does: fetch anything, or say whether to believe a ledger without witnesses: its founder's signature is all there is.

use super::{Witnesses, chain::needed};
use crate::{
    block::{Block, BlockError},
    entry::{Entry, Event},
    error::LedgerError,
    govern::Action,
    ledger::Ledger,
    note::SignedNote,
    tlog::{CompactRange, leaf_hash},
};
use std::collections::VecDeque;
use talka_base::{NodeId, Signed, encode};

/// Entries from the founding on, and the blocks that are to make them final.
#[derive(Debug)]
pub struct Newcomer {
    ledger: Ledger,
    log: CompactRange,
    /// Going up; none begins before what was taken in.
    blocks: VecDeque<(Block, SignedNote)>,
    /// The block whose entries come now: who witnessed before, and the tree over what came of it.
    open: Option<(Witnesses, CompactRange)>,
    /// Entries that are final.
    size: u64,
}

/// Why a ledger is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum FinalityError {
    /// An entry does not follow.
    #[error("entry {height} does not follow")]
    Entry { height: u64, source: LedgerError },
    /// The sequencer did not sign it.
    #[error("a checkpoint of this ledger is of nobody who orders it")]
    Block(#[from] BlockError),
    /// It is about other entries.
    #[error("block {number}, as it was signed, is not what the entries come to")]
    Differs { number: u64 },
    /// Too few of the witnesses agreed.
    #[error("block {number} has {found} cosignatures of its witnesses, expected {expected}")]
    NotCosigned { number: u64, expected: usize, found: usize },
    /// It was not shown that the witnesses agreed.
    #[error("no cosigned checkpoint holds entry {height}, and the ledger names witnesses")]
    Uncovered { height: u64 },
}

impl Newcomer {
    /// Begins with the founding; `notes` are blocks of its ledger, in any order.
    ///
    /// # Errors
    /// [`FinalityError`] if it is none, or a note is no block.
    pub fn begin(
        founding: &Signed<Entry>,
        notes: impl IntoIterator<Item = SignedNote>,
    ) -> Result<Self, FinalityError> {
        let ledger =
            Ledger::begin(founding).map_err(|source| FinalityError::Entry { height: 0, source })?;
        let mut log = CompactRange::default();
        log.append(leaf_hash(&encode(founding)), |_, _| ());
        // Who had to sign is known only when the entries before are in.
        let read = notes.into_iter().map(|note| {
            let block: Block = note.text().parse().map_err(BlockError::from)?;
            Ok::<_, BlockError>((block, note))
        });
        let mut blocks = read.collect::<Result<Vec<_>, _>>()?;
        blocks.sort_by_key(|(block, _)| block.size);
        blocks.dedup_by(|later, earlier| later.0 == earlier.0);
        // Block 0 says nothing that the founding does not.
        let blocks = blocks.into_iter().filter(|(block, _)| block.number > 0).collect();
        Ok(Self { ledger, log, blocks, open: None, size: 1 })
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// [`FinalityError`].
    pub fn take(&mut self, entry: &Signed<Entry>) -> Result<(), FinalityError> {
        let height = self.log.size();
        if self.open.is_none() && self.blocks.front().is_some_and(|(next, _)| next.first == height)
        {
            self.open = Some((self.ledger.witnesses().clone(), CompactRange::default()));
        }
        let names = self.ledger.names_witnesses(&entry.claimed_value().event);
        self.ledger.apply(entry).map_err(|source| FinalityError::Entry { height, source })?;
        let leaf = leaf_hash(&encode(entry));
        self.log.append(leaf, |_, _| ());
        match &mut self.open {
            Some((_, batch)) => batch.append(leaf, |_, _| ()),
            None if names => return Err(FinalityError::Uncovered { height }),
            None => {}
        }
        if self.blocks.front().is_some_and(|(block, _)| block.size <= self.log.size()) {
            self.close()?;
        }
        Ok(())
    }

    /// Ends the block of which the last entry was just taken.
    fn close(&mut self) -> Result<(), FinalityError> {
        let Some((block, note)) = self.blocks.pop_front() else { return Ok(()) };
        let number = block.number;
        // It began where another one had not ended.
        let (before, batch) = self.open.take().ok_or(FinalityError::Differs { number })?;
        let signers = self.ledger.signers().chain(before.nodes());
        if Block::open_by(&note, signers)? != Block::close(&self.ledger, &self.log, &batch, number)
        {
            return Err(FinalityError::Differs { number });
        }
        check_cosigned(&needed(&before, self.ledger.witnesses()), &note, number)?;
        self.size = block.size;
        Ok(())
    }

    /// The ledger of all entries taken.
    ///
    /// # Errors
    /// [`FinalityError::Uncovered`] if it names witnesses and they did not cosign the end.
    pub fn end(self) -> Result<Ledger, FinalityError> {
        if !self.ledger.witnesses().is_solo() && self.size < self.log.size() {
            return Err(FinalityError::Uncovered { height: self.log.size() - 1 });
        }
        Ok(self.ledger)
    }

    /// The node that has to have signed the blocks.
    pub const fn sequencer(&self) -> NodeId {
        self.ledger.founder()
    }
}

/// Whether enough of each of these agreed to block `number`.
pub(super) fn check_cosigned(
    needed: &[Witnesses],
    note: &SignedNote,
    number: u64,
) -> Result<(), FinalityError> {
    for witnesses in needed {
        let cosigned = witnesses.cosigned(note);
        if !witnesses.are_enough(&cosigned) {
            let (expected, found) = (witnesses.quorum(), cosigned.len());
            return Err(FinalityError::NotCosigned { number, expected, found });
        }
    }
    Ok(())
}

/// The heights of those of `entries`, from the founding on, that name witnesses: their blocks are wanted. Of what does not
/// follow nothing is said.
pub fn naming(entries: &[Signed<Entry>]) -> Vec<u64> {
    let events = || entries.iter().map(|entry| &entry.claimed_value().event);
    let may_decide = |event: &Event| match event {
        Event::Proposed { proposal } => {
            matches!(proposal.claimed_value().action, Action::Witnesses { .. })
        }
        _ => false,
    };
    let heights = (0..).zip(events());
    if !events().any(may_decide) {
        let named = heights.filter(|(_, event)| matches!(event, Event::Appointed { .. }));
        return named.map(|(height, _)| height).collect();
    }
    // What became of a vote says the ledger alone.
    let Some(mut ledger) = entries.first().and_then(|first| Ledger::begin(first).ok()) else {
        return Vec::new();
    };
    let mut named = Vec::new();
    for (height, entry) in (1..).zip(&entries[1..]) {
        if ledger.names_witnesses(&entry.claimed_value().event) {
            named.push(height);
        }
        if ledger.apply(entry).is_err() {
            break;
        }
    }
    named
}
