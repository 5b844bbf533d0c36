//! The node that orders entries.

use super::{Batch, Chain, Effect, Evidence, Input, Message, Order, Record, Witnesses};
use crate::{
    entry::{Entry, Event},
    error::LedgerError,
    note::{NoteSignature, SignedNote},
};
use std::collections::{BTreeSet, VecDeque};
use talka_base::{Keypair, NodeId, Signed, Tick};

/// Events that wait for a block at most. What comes beyond is refused: its sender asks again.
pub const EVENTS_WAITING_MAX: usize = 65_536;

/// Orders entries and gathers the cosignatures of their blocks. One block is under way at a time; what comes
/// meanwhile makes up the next.
#[derive(Debug)]
pub struct Sequencer {
    keys: Keypair,
    /// As far as it is final.
    chain: Chain,
    last_final: SignedNote,
    waiting: VecDeque<Box<Event>>,
    open: Option<Open>,
}

/// A block that is signed and not final yet.
#[derive(Debug)]
struct Open {
    chain: Chain,
    batch: Batch,
    /// Whose cosignatures are in the note, each of them checked.
    cosigned: BTreeSet<NodeId>,
}

impl Open {
    fn new(chain: Chain, batch: Batch) -> Self {
        let cosigned = chain.needed().iter().flat_map(|w| w.cosigned(&batch.note)).collect();
        Self { chain, batch, cosigned }
    }

    fn is_final(&self) -> bool {
        self.chain.needed().iter().all(|witnesses| witnesses.are_enough(&self.cosigned))
    }
}

impl Sequencer {
    /// The sequencer of the network that `founding` founds, with what it made durable since.
    ///
    /// # Errors
    /// [`LedgerError`] if the records do not follow from each other, or `keys` are not the founder's.
    pub fn recover(
        keys: Keypair,
        founding: &Signed<Entry>,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<Self, LedgerError> {
        let chain = Chain::found(founding)?;
        let (expected, found) = (chain.ledger().founder(), NodeId(keys.public()));
        if expected != found {
            return Err(LedgerError::NotSequencer { expected, found });
        }
        let last_final = chain.block().expect("block 0 is known").sign(&keys);
        Self::resume(keys, chain, last_final, records)
    }

    /// The sequencer of a ledger whose last final block is that of `chain`, signed as `last_final`, with what it made
    /// durable since.
    ///
    /// # Errors
    /// [`LedgerError`] if the records do not follow from it.
    pub fn resume(
        keys: Keypair,
        chain: Chain,
        last_final: SignedNote,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<Self, LedgerError> {
        let mut sequencer = Self { keys, chain, last_final, waiting: VecDeque::new(), open: None };
        for record in records {
            match record {
                Record::Signed(batch) => {
                    let chain = sequencer.chain.extend(&batch.entries)?;
                    sequencer.open = Some(Open::new(chain, batch));
                }
                Record::Final(note) => {
                    let open = sequencer.open.take().ok_or(LedgerError::Empty)?;
                    (sequencer.chain, sequencer.last_final) = (open.chain, note);
                }
                // Never a sequencer's.
                Record::Taken(_) | Record::Evidence(_) | Record::Promised(_) => {}
            }
        }
        Ok(sequencer)
    }

    fn submit(&mut self, event: Box<Event>, out: &mut Vec<Effect>) {
        let max = EVENTS_WAITING_MAX;
        if self.waiting.len() < max {
            self.waiting.push_back(event);
        } else {
            out.push(Effect::Refused(event, LedgerError::Busy { max }));
        }
    }

    /// Signs the next block, if none is under way and something waits.
    fn close(&mut self, now: Tick, out: &mut Vec<Effect>) {
        if self.open.is_some() || self.chain.ledger().turns().by_turns {
            return;
        }
        let events = std::iter::from_fn(|| self.waiting.pop_front());
        let mut refused = Vec::new();
        let ordered = self.chain.order(&self.keys, now, events, |event, error| {
            refused.push(Effect::Refused(event, error));
        });
        if let Some((chain, entries)) = ordered {
            let batch = Batch { note: self.sign(&chain, now), entries };
            out.push(Effect::Persist(Record::Signed(batch.clone())));
            self.open = Some(Open::new(chain, batch));
        }
        // Some are refused for what stands in this very block.
        out.append(&mut refused);
        self.propose(out);
        self.finish(now, out);
    }

    /// The signed block, cosigned if this node witnesses too: it executed every entry.
    fn sign(&self, chain: &Chain, now: Tick) -> SignedNote {
        let block = chain.block().expect("a block just closed is known");
        let mut note = block.sign(&self.keys);
        let me = NodeId(self.keys.public());
        if chain.needed().iter().any(|witnesses| witnesses.contains(&me)) {
            note.add(Witnesses::cosign(block, &self.keys, now.0 / 1000));
        }
        note
    }

    /// Asks those who have not cosigned yet.
    fn propose(&self, out: &mut Vec<Effect>) {
        let Some(open) = &self.open else { return };
        let needed: BTreeSet<_> = open.chain.needed().iter().flat_map(Witnesses::nodes).collect();
        for &node in needed.difference(&open.cosigned) {
            out.push(Effect::Send(node, Message::Proposal(open.batch.clone())));
        }
    }

    fn count(&mut self, node: NodeId, number: u64, signature: NoteSignature) {
        let Some(open) = self.open.as_mut().filter(|open| open.chain.number() == number) else {
            return;
        };
        let is_witness = open.chain.needed().iter().any(|witnesses| witnesses.contains(&node));
        if is_witness && open.batch.note.add_checked(&Witnesses::key(node), signature) {
            open.cosigned.insert(node);
        }
    }

    /// Ends the block under way, if its signatures are enough, and begins the next.
    fn finish(&mut self, now: Tick, out: &mut Vec<Effect>) {
        let Some(Open { chain, batch, .. }) = self.open.take_if(|open| open.is_final()) else {
            return;
        };
        (self.chain, self.last_final) = (chain, batch.note.clone());
        out.push(Effect::Persist(Record::Final(batch.note.clone())));
        out.push(Effect::Finalised(batch.clone()));
        out.push(Effect::Publish(Message::Final(batch)));
        self.close(now, out);
    }

    fn serve(&self, node: NodeId, first: u64, out: &mut Vec<Effect>) {
        if (1..self.chain.size()).contains(&first) {
            out.push(Effect::SendStored(node, first));
        } else if let Some(open) = self.open.as_ref().filter(|_| first == self.chain.size()) {
            out.push(Effect::Send(node, Message::Proposal(open.batch.clone())));
        }
    }
}

impl Order for Sequencer {
    fn step(&mut self, now: Tick, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Submit(event) => self.submit(event, out),
            Input::Close => self.close(now, out),
            Input::Again => self.propose(out),
            Input::Message(node, Message::Want(first)) => self.serve(node, first, out),
            Input::Message(node, Message::Vote(number, signature)) => {
                self.count(node, number, signature);
            }
            Input::Message(..) => {}
        }
        // Not after votes only: a sequencer may have died between a block's last signature and its end.
        self.finish(now, out);
    }

    fn chain(&self) -> &Chain {
        &self.chain
    }

    fn final_chain(&self) -> Option<&Chain> {
        Some(&self.chain)
    }

    fn is_settled(&self) -> bool {
        self.open.is_none() && self.waiting.is_empty()
    }

    fn last_final(&self) -> Option<&SignedNote> {
        Some(&self.last_final)
    }

    /// It would have to accuse itself.
    fn evidence(&self) -> Option<&Evidence> {
        None
    }

    fn hand_over(&mut self) -> Vec<Box<Event>> {
        std::mem::take(&mut self.waiting).into()
    }
}
