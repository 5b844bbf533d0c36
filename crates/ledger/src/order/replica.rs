//! A node that follows the sequencer and, where the ledger names it, witnesses.

use super::{Batch, Chain, Effect, Evidence, Input, Message, Order, Record, Witnesses};
use crate::{block::Block, entry::Entry, error::LedgerError, note::SignedNote};
use std::collections::BTreeMap;
use talka_base::{Keypair, NodeId, Signed, Tick};

/// A witness refuses a block further ahead of its clock than this, in milliseconds: whoever moves time
/// moves deadlines. It asks again, so a clock that is slow delays a block and stops none.
pub const CLOCK_SKEW_MS_MAX: u64 = 5 * 60 * 1000;
/// Blocks that are kept to be compared with what others saw.
const RECENT_MAX: usize = 256;

/// Executes every entry again. As a witness it votes for one block of each number; else it believes
/// final blocks only.
#[derive(Debug)]
pub struct Replica {
    keys: Keypair,
    /// As far as this node voted or knows it to be final.
    chain: Chain,
    last_final: Option<SignedNote>,
    /// The number of that block: the chain's, or one less while this node waits for the cosignatures of others.
    final_number: u64,
    /// By number: what the sequencer signed and this node executed.
    recent: BTreeMap<u64, SignedNote>,
    evidence: Option<Evidence>,
}

impl Replica {
    /// A node of the network that `founding` founds, with what it made durable since.
    ///
    /// # Errors
    /// [`LedgerError`] if the records do not follow from each other.
    pub fn recover(
        keys: Keypair,
        founding: &Signed<Entry>,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<Self, LedgerError> {
        let chain = Chain::found(founding)?;
        // Block 0 needs no signature: it follows from the founding, of which the network's id is the hash.
        Self::resume(keys, chain, None, records)
    }

    /// A node of a ledger whose last final block is that of `chain`, signed as `last_final` as far as that is
    /// known, with what it made durable since.
    ///
    /// # Errors
    /// [`LedgerError`] if the records do not follow from it.
    pub fn resume(
        keys: Keypair,
        chain: Chain,
        last_final: Option<SignedNote>,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<Self, LedgerError> {
        let final_number = chain.number();
        let recent = last_final.iter().map(|note| (final_number, note.clone())).collect();
        let mut replica = Self { keys, chain, last_final, final_number, recent, evidence: None };
        for record in records {
            match record {
                Record::Signed(batch) => {
                    let chain = replica.chain.extend(&batch.entries)?;
                    replica.advance(chain, batch.note);
                }
                Record::Taken(batch) => {
                    let chain = replica.chain.extend(&batch.entries)?;
                    replica.advance(chain, batch.note.clone());
                    replica.finish(batch.note);
                }
                Record::Final(note) => replica.finish(note),
                Record::Evidence(evidence) => replica.evidence = Some(*evidence),
                Record::Promised(_) => {}
            }
        }
        Ok(replica)
    }

    fn sequencer(&self) -> NodeId {
        self.chain.ledger().founder()
    }

    fn me(&self) -> NodeId {
        NodeId(self.keys.public())
    }

    fn advance(&mut self, chain: Chain, note: SignedNote) {
        self.recent.insert(chain.number(), note);
        while self.recent.len() > RECENT_MAX {
            self.recent.pop_first();
        }
        self.chain = chain;
    }

    fn finish(&mut self, note: SignedNote) {
        (self.last_final, self.final_number) = (Some(note), self.chain.number());
    }

    /// The block in `note`, if the sequencer signed it and it contradicts nothing that it signed before. Else
    /// this node keeps the proof, tells it, and stops.
    fn trusted(&mut self, note: &SignedNote, out: &mut Vec<Effect>) -> Option<Block> {
        let block = Block::open(note, self.sequencer().0).ok()?;
        if block.network != self.chain.ledger().network() {
            return None;
        }
        let near = self.recent.range(..=block.number).next_back();
        let near = near.into_iter().chain(self.recent.range(block.number..).next());
        if let Some(evidence) = near.filter_map(|(_, known)| Evidence::between(known, note)).next()
        {
            self.accuse(evidence, out);
        }
        self.evidence.is_none().then_some(block)
    }

    fn accuse(&mut self, evidence: Evidence, out: &mut Vec<Effect>) {
        let key = Block::key(self.chain.ledger().network(), self.sequencer().0);
        // What a witness signed while others ordered is not about what the sequencer orders.
        let is_about_it = evidence.witness().is_none() && evidence.verify(&key).is_ok();
        if self.evidence.is_none() && is_about_it {
            out.push(Effect::Persist(Record::Evidence(Box::new(evidence.clone()))));
            out.push(Effect::Publish(Message::Accusation(Box::new(evidence.clone()))));
            self.evidence = Some(evidence);
        }
    }

    /// The chain with `batch` as its next block, if its entries give exactly the block that was signed.
    fn executed(&self, block: &Block, batch: &Batch) -> Option<Chain> {
        let next = self.chain.extend(&batch.entries).ok()?;
        (next.block() == Some(block)).then_some(next)
    }

    fn consider(&mut self, now: Tick, batch: Batch, out: &mut Vec<Effect>) {
        let Some(block) = self.trusted(&batch.note, out) else { return };
        if self.chain.block() == Some(&block) {
            self.vote(now, out);
        } else if !self.follows(&block) {
            self.want_before(&block, out);
        } else if block.at.since_ms(now) <= CLOCK_SKEW_MS_MAX
            && let Some(next) = self.executed(&block, &batch)
            && next.needed().iter().any(|witnesses| witnesses.contains(&self.me()))
        {
            let note = batch.note.clone();
            out.push(Effect::Persist(Record::Signed(batch)));
            self.advance(next, note);
            self.vote(now, out);
        }
    }

    /// Cosigns the last block, which is durable here.
    fn vote(&self, now: Tick, out: &mut Vec<Effect>) {
        let is_asked = self.chain.needed().iter().any(|witnesses| witnesses.contains(&self.me()));
        if let Some(block) = self.chain.block().filter(|_| is_asked) {
            let signature = Witnesses::cosign(block, &self.keys, now.0 / 1000);
            let vote = Message::Vote(self.chain.number(), signature);
            out.push(Effect::Send(self.sequencer(), vote));
        }
    }

    fn take(&mut self, batch: Batch, out: &mut Vec<Effect>) {
        let Some(block) = self.trusted(&batch.note, out) else { return };
        if block.number == self.chain.number() {
            if !self.is_settled() && self.chain.is_final(&batch.note) {
                out.push(Effect::Persist(Record::Final(batch.note.clone())));
                self.finish(batch.note.clone());
                out.push(Effect::Finalised(batch));
            }
        } else if !self.follows(&block) {
            self.want_before(&block, out);
        } else if let Some(next) = self.executed(&block, &batch)
            && next.is_final(&batch.note)
        {
            out.push(Effect::Persist(Record::Taken(batch.clone())));
            self.advance(next, batch.note.clone());
            self.finish(batch.note.clone());
            out.push(Effect::Finalised(batch));
            self.want(out);
        }
    }

    /// Whether `block` comes next. None does before this node knows the last one to be final, so that it has the
    /// signatures of every block.
    fn follows(&self, block: &Block) -> bool {
        self.is_settled() && block.number == self.chain.number() + 1
    }

    /// Asks for what is missing before `block`; nothing, if it is an old one.
    fn want_before(&self, block: &Block, out: &mut Vec<Effect>) {
        if block.number > self.chain.number() {
            self.want(out);
        }
    }

    /// Asks for the signatures of the last block, if it lacks them, or else for the next one.
    fn want(&self, out: &mut Vec<Effect>) {
        let last = self.chain.block().filter(|_| !self.is_settled());
        let first = last.map_or(self.chain.size(), |block| block.first);
        out.push(Effect::Send(self.sequencer(), Message::Want(first)));
    }

    /// Whoever asks gets what is final here: signatures say whether to believe it.
    fn serve(&self, node: NodeId, first: u64, out: &mut Vec<Effect>) {
        if (1..self.chain.size()).contains(&first) {
            out.push(Effect::SendStored(node, first));
        }
    }
}

impl Order for Replica {
    fn step(&mut self, now: Tick, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Message(_, Message::Accusation(evidence)) => self.accuse(*evidence, out),
            Input::Again if let Some(evidence) = &self.evidence => {
                out.push(Effect::Publish(Message::Accusation(Box::new(evidence.clone()))));
            }
            // One proof is enough: nothing of this sequencer is believed any more.
            _ if self.evidence.is_some() => {}
            Input::Message(_, Message::Proposal(batch)) => self.consider(now, batch, out),
            Input::Message(_, Message::Final(batch)) => self.take(batch, out),
            Input::Message(_, Message::Seen(note)) => drop(self.trusted(&note, out)),
            Input::Message(node, Message::Want(first)) => self.serve(node, first, out),
            Input::Again => {
                self.want(out);
                if let Some((_, note)) = self.recent.last_key_value() {
                    out.push(Effect::Publish(Message::Seen(note.clone())));
                }
            }
            Input::Submit(_) | Input::Close | Input::Message(..) => {}
        }
    }

    fn chain(&self) -> &Chain {
        &self.chain
    }

    fn final_chain(&self) -> Option<&Chain> {
        self.is_settled().then_some(&self.chain)
    }

    fn is_settled(&self) -> bool {
        self.final_number == self.chain.number()
    }

    fn last_final(&self) -> Option<&SignedNote> {
        self.last_final.as_ref()
    }

    fn evidence(&self) -> Option<&Evidence> {
        self.evidence.as_ref()
    }
}
