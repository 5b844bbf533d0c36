//! A ledger with witnesses: drives this node's part of [`order`](talka_ledger::order), which decides.
//!
//! While the ledger is solo there is no part: entries come one by one. The founder's node takes up the part of the sequencer
//! with the first appointment, after it closed a block of all entries before; every other node takes up that of a replica
//! when it gets the block that begins where its entries end. From then on entries come in final blocks only. Where witnesses order
//! by turns, every node takes part in the [`Council`], and sends what it wants recorded to all of them.
//!
//! What a part wants kept is on disk before anything later is sent. Every signed block that comes is first compared with
//! those kept here, from the beginning on: whoever signed two that cannot both be true is not believed again ([`Halt`]).

use super::{
    Shared,
    desk::{Desk, DeskError, OrderResult, Part},
    now,
};
use crate::{
    core::faults::Fault,
    store::{RECORD_BYTES_MAX, StoreError},
    wire::{Control, Refusal, shorten},
};
use std::sync::{Arc, PoisonError, Weak, atomic::Ordering};
use talka_base::{EventId, NetworkId, NodeId, Tick};
use talka_ledger::{
    Block, Event, Ledger, LedgerError,
    note::SignedNote,
    order::{
        Batch, Chain, Council, Effect, Evidence, FinalityError, Input, Message, Order, Record,
        Replica, Sequencer, Witnesses,
    },
};
use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
};

/// Where the proof of a founder who signed what cannot be true is kept: the network's id follows, and a witness's of one who did.
const EVIDENCE_KEY: &str = "evidence/";

/// Inputs that wait. What comes beyond from others is dropped: it is sent again.
pub(crate) const QUEUE: usize = 256;

/// Why nothing more is believed or ordered here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Halt {
    /// The proof convinces anybody.
    #[error(
        "the founder signed two blocks that cannot both be true: do not trust what it orders; \
         `talka ledger evidence` shows the proof"
    )]
    Dishonest(Box<Evidence>),
    /// Another node has a block that this founder signed and does not know.
    #[error(
        "the data here is older than what this node signed: its last block is {known}, and it signed \
         block {signed}; stop it and put back the newest copy of its data directory"
    )]
    RolledBack { known: u64, signed: u64 },
}

/// What is told to whom.
pub(crate) enum Tell {
    One(NodeId, Message),
    All(Message),
    /// It sent what no sound node sends.
    Blame(NodeId),
}

/// What happens to the ledger's order.
pub(crate) enum OrderInput {
    /// Somebody waits for this to be final.
    Submit(Box<Event>),
    /// Another node sent this.
    Message(NodeId, Box<Message>),
    /// Some time passed.
    Again,
}

/// Takes inputs one after the other until the node stops, apart from the hub: a block is executed and waits for the disk.
pub(crate) async fn run(shared: Weak<Shared>, mut inputs: mpsc::Receiver<OrderInput>) {
    let mut batch = Vec::new();
    while inputs.recv_many(&mut batch, QUEUE).await > 0 {
        let Some(shared) = shared.upgrade() else { break };
        let inputs = std::mem::take(&mut batch);
        spawn_blocking(move || take_all(&shared, inputs)).await.expect("ordering does not panic");
    }
}

fn take_all(shared: &Shared, inputs: Vec<OrderInput>) {
    let desk = shared.desk();
    let mut tell = |what| match what {
        Tell::One(node, message) => shared.links.send(node, &Control::Order(Box::new(message))),
        Tell::All(message) => shared.links.broadcast(&Control::Order(Box::new(message))),
        Tell::Blame(node) => shared.blame(node, Fault::Order),
    };
    let mut take = |input| {
        if let Err(error) = desk.take(now(), input, &mut tell) {
            tracing::error!(%error, "the ledger's order cannot go on");
        }
    };
    let mut submitted = false;
    for input in inputs {
        match input {
            OrderInput::Submit(event) => {
                submitted = true;
                take(Input::Submit(event));
            }
            OrderInput::Message(node, message) => take(Input::Message(node, *message)),
            OrderInput::Again => take(Input::Again),
        }
    }
    // What came together makes up one block.
    if submitted {
        take(Input::Close);
    }
}

impl Desk {
    /// Whether entries are ordered, and followed, one by one.
    pub(crate) fn is_solo(&self) -> bool {
        !self.is_witnessed.load(Ordering::Relaxed)
    }

    /// Why nothing more is believed or ordered here, if so.
    pub(crate) fn halted(&self) -> Option<Halt> {
        self.halt.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn check_halt(&self) -> Result<(), Halt> {
        self.halted().map_or(Ok(()), Err)
    }

    /// Has `sender` told what becomes of the event of this id. Says whether nobody waits for it yet.
    pub(crate) fn wait_for(&self, event: EventId, sender: oneshot::Sender<OrderResult>) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let senders = waiting.entry(event).or_default();
        senders.push(sender);
        senders.len() == 1
    }

    /// Forgets those who wait for the event no more.
    pub(crate) fn waited_for(&self, event: EventId) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(senders) = waiting.get_mut(&event) {
            senders.retain(|sender| !sender.is_closed());
            if senders.is_empty() {
                waiting.remove(&event);
            }
        }
    }

    fn answer(&self, event: EventId, result: &OrderResult) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for sender in waiting.remove(&event).into_iter().flatten() {
            // Whoever asked may have left.
            let _ = sender.send(result.clone());
        }
    }

    /// Takes one input of ordering and does what follows from it. Blocks on the disk.
    ///
    /// # Errors
    /// [`DeskError`]; the next input begins with what is on disk.
    pub(crate) fn take(
        &self,
        now: Tick,
        input: Input,
        tell: &mut dyn FnMut(Tell),
    ) -> Result<(), DeskError> {
        let mut part = self.lock_part();
        if let Input::Message(from, message) = &input {
            match message {
                Message::Accusation(evidence) if evidence.witness().is_none() => {
                    return self.accuse(Some(*from), evidence, tell);
                }
                Message::Accusation(evidence) => {
                    let holds = |witness| evidence.verify(&Witnesses::key(witness)).is_ok();
                    if !evidence.witness().is_some_and(holds) {
                        tell(Tell::Blame(*from));
                        return Ok(());
                    }
                }
                Message::Proposal(Batch { note, .. })
                | Message::Final(Batch { note, .. })
                | Message::Seen(note) => self.compare(*from, note, tell)?,
                Message::Vote(..)
                | Message::Want(_)
                | Message::Wish(_)
                | Message::Offer(_)
                | Message::Ballot(_)
                | Message::Leave { .. } => {}
            }
        }
        if let Some(halt) = self.halted() {
            self.stand_still(halt, input, tell);
            return Ok(());
        }
        if part.is_none() {
            *part = self.take_up(now, &input)?;
        }
        let taken = match part.as_mut() {
            Some(order) => self.step(&mut **order, now, input, tell),
            None => {
                self.is_witnessed.store(false, Ordering::Relaxed);
                return self.alone(now, input, tell);
            }
        };
        let is_over = part.as_ref().is_some_and(|order| {
            order.is_settled() && order.chain().ledger().witnesses().is_solo()
        });
        // What failed begins anew with what is on disk.
        if taken.is_err() || is_over {
            *part = None;
        }
        self.is_witnessed.store(!is_over, Ordering::Relaxed);
        taken?;
        self.change_part(&mut part, now, tell)
    }

    /// Has another part take over what waits, once others order.
    fn change_part(
        &self,
        part: &mut Part,
        now: Tick,
        tell: &mut dyn FnMut(Tell),
    ) -> Result<(), DeskError> {
        let Some(order) = part.as_mut() else { return Ok(()) };
        let by_turns = order.final_chain().map(|chain| chain.ledger().turns().by_turns);
        if by_turns.is_none_or(|by_turns| by_turns == order.is_by_turns()) {
            return Ok(());
        }
        let waiting = order.hand_over();
        *part = self.recover()?;
        let Some(order) = part.as_mut() else { return Ok(()) };
        let waiting = waiting.into_iter().map(Input::Submit);
        for input in waiting.chain([Input::Close]) {
            self.step(&mut **order, now, input, tell)?;
        }
        Ok(())
    }

    /// Does nothing more but to say why.
    fn stand_still(&self, halt: Halt, input: Input, tell: &mut dyn FnMut(Tell)) {
        match (halt, input) {
            (Halt::Dishonest(evidence), Input::Again) => {
                tell(Tell::All(Message::Accusation(evidence)));
            }
            (halt, Input::Submit(event)) => {
                self.answer(event.id(), &Err(DeskError::from(halt).into()));
            }
            _ => {}
        }
    }

    /// While the ledger has no witnesses.
    fn alone(&self, now: Tick, input: Input, tell: &mut dyn FnMut(Tell)) -> Result<(), DeskError> {
        match input {
            Input::Submit(event) => {
                let id = event.id();
                let ordered = self.order_alone(*event, now).map_err(Refusal::from);
                self.answer(id, &ordered);
            }
            Input::Message(from, Message::Seen(note)) if !self.orders() => {
                if let Err(error) = self.follow_checkpoint(&note) {
                    tracing::error!(peer = %from.short(), %error, "checkpoint refused");
                    tell(Tell::Blame(from));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn step(
        &self,
        order: &mut (dyn Order + Send),
        now: Tick,
        input: Input,
        tell: &mut dyn FnMut(Tell),
    ) -> Result<(), DeskError> {
        let (mut effects, mut finals, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        order.step(now, input, &mut effects);
        for effect in effects {
            match effect {
                Effect::Persist(Record::Evidence(evidence)) => match evidence.witness() {
                    Some(witness) => self.keep_evidence(witness, &evidence)?,
                    None => return self.accuse(None, &evidence, tell),
                },
                Effect::Persist(record) => self.persist(&record)?,
                Effect::Send(node, message) => tell(Tell::One(node, message)),
                Effect::Publish(message) => tell(Tell::All(message)),
                Effect::SendStored(node, first) => {
                    if let Some(batch) = self.store.block_from(&self.network(), first)? {
                        tell(Tell::One(node, Message::Final(batch)));
                    }
                }
                Effect::Finalised(batch) => finals.push(batch),
                Effect::Refused(event, error) => refused.push((event.id(), error)),
            }
        }
        if let Some(chain) = order.final_chain()
            && chain.size() > self.entries_held()
        {
            self.replace(|ledger| *ledger = Arc::clone(chain.ledger()));
            if let (Some(block), Some(note)) = (chain.block(), order.last_final()) {
                self.snapshot_if_due(chain.ledger(), block, note)?;
            }
        }
        for entry in finals.into_iter().flat_map(|batch: Batch| batch.entries) {
            self.answer(entry.claimed_value().event_id, &Ok(entry));
        }
        for (event, error) in refused {
            // One that stands in a block under way is told when that is final.
            let is_under_way =
                matches!(error, LedgerError::Duplicate { height } if height >= self.entries_held());
            if !is_under_way {
                self.answer(event, &Err(DeskError::from(error).into()));
            }
        }
        Ok(())
    }

    fn persist(&self, record: &Record) -> Result<(), DeskError> {
        let block = |note: &SignedNote| self.open_block(note);
        match record {
            Record::Signed(batch) => self.store.put_pending(&block(&batch.note)?, batch)?,
            Record::Final(note) => self.store.finalise(&block(note)?, note, None)?,
            Record::Taken(batch) => {
                self.store.finalise(&block(&batch.note)?, &batch.note, Some(batch))?;
            }
            Record::Promised(_) => self.store.put_promise(&self.network(), record)?,
            Record::Evidence(_) => {}
        }
        Ok(())
    }

    /// The part that this input begins, if it does.
    fn take_up(&self, now: Tick, input: &Input) -> Result<Part, DeskError> {
        if let Some(order) = self.recover()? {
            return Ok(Some(order));
        }
        match input {
            Input::Submit(event) if self.read(|ledger| ledger.names_witnesses(event)) => {
                if let Err(error) = self.read(|ledger| ledger.would_take(now, event)) {
                    self.answer(event.id(), &Err(DeskError::from(error).into()));
                    return Ok(None);
                }
                self.become_sequencer().map(Some)
            }
            Input::Message(_, Message::Proposal(batch) | Message::Final(batch))
                if !self.orders() =>
            {
                let block = Block::open(&batch.note, self.founder().0)?;
                let follows = block.first == self.entries_held() && block.number > 0;
                Ok(if follows { Some(self.become_replica(block.number - 1)?) } else { None })
            }
            _ => Ok(None),
        }
    }

    fn become_sequencer(&self) -> Result<Box<dyn Order + Send>, DeskError> {
        let (block, note) = self.checkpoint()?.expect("the founder's node closes blocks");
        let chain = self.chain(block.number, Some((block, Witnesses::default())))?;
        Ok(Box::new(Sequencer::resume(self.keys.clone(), chain, note, [])?))
    }

    fn become_replica(&self, number: u64) -> Result<Box<dyn Order + Send>, DeskError> {
        let chain = self.chain(number, None)?;
        Ok(Box::new(Replica::resume(self.keys.clone(), chain, None, [])?))
    }

    fn chain(&self, number: u64, last: Option<(Block, Witnesses)>) -> Result<Chain, DeskError> {
        let ledger = self.ledger();
        let log = self.store.log(&ledger.network(), ledger.height() + 1)?;
        if let Some((block, _)) = &last
            && (block.size, block.root) != (log.size(), log.root())
        {
            return Err(FinalityError::Differs { number }.into());
        }
        Ok(Chain::resume(ledger, log, number, last))
    }

    /// The part that this node had when it stopped, if the ledger on disk has witnesses or is about to.
    pub(super) fn recover(&self) -> Result<Part, DeskError> {
        let (network, held) = (self.network(), self.entries_held());
        let pending = self.store.pending(&network)?;
        let first = pending.first().map(|batch| self.open_block(&batch.note));
        let (first, ledger) = (first.transpose()?, self.ledger());
        if first.is_none() && ledger.witnesses().is_solo() {
            return Ok(None);
        }
        let last = match self.store.last_checkpoint(&network)? {
            Some(note) => Some((self.open_block(&note)?, note)),
            None => None,
        };
        let last = last.filter(|(block, _)| block.size == held);
        let number = match (&last, &first) {
            (Some((block, _)), _) => block.number,
            (None, Some(first)) if ledger.witnesses().is_solo() => first.number.saturating_sub(1),
            _ => return Err(FinalityError::Uncovered { height: held - 1 }.into()),
        };
        let (block, note) = last.unzip();
        let known = match block {
            Some(block) => Some((block.clone(), self.witnesses_before(&ledger, block.first)?)),
            None => None,
        };
        let chain = self.chain(number, known)?;
        if let Some(note) = &note
            && !chain.is_final(note)
        {
            return Err(FinalityError::Uncovered { height: held - 1 }.into());
        }
        let (keys, records) = (self.keys.clone(), pending.into_iter().map(Record::Signed));
        let order: Box<dyn Order + Send> = match note {
            note if ledger.turns().by_turns => {
                let accused = self.evidence_kept()?.into_iter();
                let accused = accused.map(|evidence| Record::Evidence(Box::new(evidence)));
                let records = records.chain(self.store.promise(&network)?).chain(accused);
                Box::new(Council::resume(keys, chain, note, records)?)
            }
            Some(note) if self.orders() => Box::new(Sequencer::resume(keys, chain, note, records)?),
            note => Box::new(Replica::resume(keys, chain, note, records)?),
        };
        Ok(Some(order))
    }

    /// Who witnessed before the entry at `height`, as far as the entries before are here: where they were removed,
    /// a block is held to those who witness since.
    fn witnesses_before(&self, ledger: &Ledger, height: u64) -> Result<Witnesses, DeskError> {
        let network = ledger.network();
        if ledger.appointed_at() < height || self.store.first_held(&network)? > 1 {
            return Ok(ledger.witnesses().clone());
        }
        let mut entries = self.store.entries(&network, 0);
        let Some(founding) = entries.next().transpose()? else { return Ok(Witnesses::default()) };
        let mut before = Ledger::begin(&founding)?;
        for entry in entries.take(usize::try_from(height).unwrap_or(usize::MAX).saturating_sub(1)) {
            before.apply(&entry?)?;
        }
        Ok(before.witnesses().clone())
    }

    /// Compares a block that came with those kept here.
    fn compare(
        &self,
        from: NodeId,
        note: &SignedNote,
        tell: &mut dyn FnMut(Tell),
    ) -> Result<(), DeskError> {
        let network = self.network();
        let is_ours = |block: &Block| block.network == network;
        let Some(block) = Block::open(note, self.founder().0).ok().filter(is_ours) else {
            // What another witness signed is believed for its cosignatures only.
            if !self.open_block(note).is_ok_and(|block| is_ours(&block)) {
                tell(Tell::Blame(from));
            }
            return Ok(());
        };
        let known = self.store.checkpoints_around(&network, block.number)?;
        let pending = if self.is_solo() { Vec::new() } else { self.store.pending(&network)? };
        let signed = known.iter().chain(pending.iter().map(|batch| &batch.note));
        if let Some(evidence) = signed.filter_map(|known| Evidence::between(known, note)).next() {
            if self.is_by_turns() {
                // One dishonest member stops nothing. It may be a founder put back from an old copy, who is to know.
                tell(Tell::One(from, Message::Accusation(Box::new(evidence))));
                return Ok(());
            }
            return self.accuse(None, &evidence, tell);
        }
        if self.orders() && !self.is_by_turns() {
            self.heed(&block, &pending)?;
        }
        Ok(())
    }

    /// The founder stops if it hears of a block that it signed and has forgotten: the next one that it signed would
    /// contradict that.
    fn heed(&self, block: &Block, pending: &[Batch]) -> Result<(), DeskError> {
        let last = self.store.last_checkpoint(&block.network)?;
        let signed = last.iter().chain(pending.iter().map(|batch| &batch.note));
        let numbers = signed.filter_map(|note| Some(note.text().parse::<Block>().ok()?.number));
        let known = numbers.max().unwrap_or(0);
        if block.number > known && self.halted().is_none() {
            let halt = Halt::RolledBack { known, signed: block.number };
            tracing::error!(reason = %halt, "the ledger stands still");
            *self.halt.write().unwrap_or_else(PoisonError::into_inner) = Some(halt);
        }
        Ok(())
    }

    /// Keeps the proof that the founder is dishonest, if it is one, and tells everybody. Nothing that it orders is believed
    /// from then on.
    fn accuse(
        &self,
        from: Option<NodeId>,
        evidence: &Evidence,
        tell: &mut dyn FnMut(Tell),
    ) -> Result<(), DeskError> {
        if matches!(self.halted(), Some(Halt::Dishonest(_))) || self.is_by_turns() {
            return Ok(());
        }
        let (network, text) = (self.network(), evidence.to_string());
        let holds = evidence.verify(&Block::key(network, self.founder().0)).is_ok();
        if !holds || text.len() > RECORD_BYTES_MAX {
            from.into_iter().for_each(|from| tell(Tell::Blame(from)));
            return Ok(());
        }
        self.store.put(&evidence_key(network), text.as_bytes())?;
        let halt = Halt::Dishonest(Box::new(evidence.clone()));
        tracing::error!(founder = %self.founder().short(), reason = %halt, "the ledger stands still");
        *self.halt.write().unwrap_or_else(PoisonError::into_inner) = Some(halt);
        tell(Tell::All(Message::Accusation(Box::new(evidence.clone()))));
        Ok(())
    }

    /// Keeps the proof that a witness is dishonest. What witnesses order goes on: that is what the others are for.
    fn keep_evidence(&self, witness: NodeId, evidence: &Evidence) -> Result<(), StoreError> {
        tracing::error!(
            witness = %witness.short(),
            "a witness signed two blocks of one turn; `talka ledger evidence` shows the proof"
        );
        let key = format!("{}/{witness}", evidence_key(self.network()));
        self.store.put(&key, evidence.to_string().as_bytes())
    }

    /// The proofs kept that witnesses are dishonest. Blocks on the disk.
    pub(crate) fn evidence_kept(&self) -> Result<Vec<Evidence>, StoreError> {
        let kept = self.store.records(&format!("{}/", evidence_key(self.network())))?;
        Ok(kept.iter().filter_map(|(_, bytes)| Evidence::parse(bytes).ok()).collect())
    }

    /// What was proved before a restart.
    pub(super) fn recall_evidence(&self) -> Result<(), StoreError> {
        let kept = self.store.get(&evidence_key(self.network()))?;
        if let Some(evidence) = kept.and_then(|bytes| Evidence::parse(&bytes).ok()) {
            let halt = Some(Halt::Dishonest(Box::new(evidence)));
            *self.halt.write().unwrap_or_else(PoisonError::into_inner) = halt;
        }
        Ok(())
    }
}

fn evidence_key(network: NetworkId) -> String {
    format!("{EVIDENCE_KEY}{network}")
}

/// Refused because witnesses did not answer in time.
pub(crate) fn not_final() -> Refusal {
    let reason = "the ledger's witnesses did not make it final within 5 s";
    Refusal::Unreachable { reason: shorten(reason) }
}

#[cfg(test)]
mod tests;
