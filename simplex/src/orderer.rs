//! What simplex leaves to the application: blocks are made, executed, kept and given to the others here.
//!
//! The engine orders digests of blocks. A block's digest says everything before it, so it stands for a whole ledger, and a view
//! in which nothing is to be ordered repeats its parent's digest. What is executed may build on blocks that are not final yet.
//! A block that simplex finalised is cosigned, as ours are: clients check 2f+1 cosignatures, whoever orders.
//!
//! Simplex carries no blocks. A member that misses one asks others for what begins at its height, and believes an answer for
//! its digest, or for its cosignatures. A leader whose block does not execute is answered by silence, which ends its view.

use crate::{
    Input, Part,
    net::{Channel, Net},
    now,
    simplex::{Asked, payload},
    store::Store,
    town::{Reports, What},
};
use commonware_cryptography::sha256::Digest;
use commonware_utils::channel::oneshot;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::{Duration, Instant},
};
use talka_base::{Keypair, NodeId, Signed, TreeHash, decode, encode};
use talka_ledger::{
    Block, Entry, Event, Ledger, LedgerError,
    note::{NoteSignature, SignedNote},
    order::{BATCH_BYTES_MAX, Batch, CLOCK_SKEW_MS_MAX, Chain, Message, Record, Witnesses, digest},
};

/// What orderers say to each other; the engines have channels of their own.
pub const CHANNEL: Channel = 0;

/// Blocks that nobody here asked about are kept up to this many.
const HEARD_MAX: usize = 64;

/// A block that was executed here.
struct Candidate {
    chain: Chain,
    parent: TreeHash,
    batch: Batch,
}

/// An event that waits to be recorded.
struct Waiting {
    event: Box<Event>,
    since: Instant,
    is_ours: bool,
}

/// The engine waits for what this member proposes.
struct Proposing {
    parent: TreeHash,
    since: Instant,
    answer: oneshot::Sender<Digest>,
}

/// The engine waits for whether a block is there and right; the parent, if it named one.
struct Verdict {
    parent: Option<TreeHash>,
    block: TreeHash,
    answer: oneshot::Sender<bool>,
}

pub(crate) struct Orderer {
    keys: Keypair,
    me: NodeId,
    others: Vec<NodeId>,
    net: Net,
    store: Store,
    reports: Reports,
    /// A view without anything to order is ended after so long.
    hold: Duration,
    /// As far as it is final.
    chain: Chain,
    waiting: Vec<Waiting>,
    /// Executed, and not finalised by simplex.
    candidates: BTreeMap<TreeHash, Candidate>,
    /// Not executed, since what is before them is not known.
    heard: BTreeMap<TreeHash, Batch>,
    proposing: Option<Proposing>,
    verdicts: Vec<Verdict>,
    /// What simplex finalised last, if it is not known here.
    finalized: Option<TreeHash>,
    /// By number: finalised by simplex, and lacking cosignatures.
    decided: BTreeMap<u64, Candidate>,
    votes: BTreeMap<u64, BTreeMap<NodeId, NoteSignature>>,
    asks: usize,
}

impl Orderer {
    pub fn new(
        keys: Keypair,
        genesis: Chain,
        hold: Duration,
        (net, store, reports): (Net, Store, Reports),
    ) -> Self {
        let me = NodeId(keys.public());
        let others = genesis.ledger().witnesses().nodes().filter(|&node| node != me).collect();
        Self {
            keys,
            me,
            others,
            net,
            store,
            reports,
            hold,
            chain: genesis,
            waiting: Vec::new(),
            candidates: BTreeMap::new(),
            heard: BTreeMap::new(),
            proposing: None,
            verdicts: Vec::new(),
            finalized: None,
            decided: BTreeMap::new(),
            votes: BTreeMap::new(),
            asks: 0,
        }
    }

    /// Takes back what it kept before it died.
    pub fn recall(&mut self, kept: Vec<Record>) -> Result<(), LedgerError> {
        for record in kept {
            match record {
                Record::Signed(batch) => self.hear(batch),
                Record::Final(note) => {
                    self.execute(|_, _| Ok(())).expect("no disk is asked");
                    let is_it = |c: &&Candidate| c.batch.note.text() == note.text();
                    let chain = self.candidates.values().find(is_it).map(|c| c.chain.clone());
                    self.chain = chain.ok_or(LedgerError::Empty)?;
                    self.forget();
                }
                Record::Taken(batch) => {
                    self.chain = self.chain.extend(&batch.entries)?;
                    self.forget();
                }
                Record::Promised(_) | Record::Evidence(_) => {}
            }
        }
        self.execute(|_, _| Ok(())).expect("no disk is asked");
        Ok(())
    }

    /// The last block that simplex finalised, as far as that is known here.
    fn tip(&self) -> &Chain {
        self.decided.last_key_value().map_or(&self.chain, |(_, decided)| &decided.chain)
    }

    fn chain_of(&self, block: TreeHash) -> Option<&Chain> {
        let decided = self.decided.values().map(|decided| &decided.chain);
        let known = self.candidates.get(&block).map(|candidate| &candidate.chain);
        known.or_else(|| decided.chain([&self.chain]).find(|chain| name(chain) == block))
    }

    /// A block that somebody sent: looked at when the engine asks.
    fn hear(&mut self, batch: Batch) {
        let Ok(block) = batch.note.text().parse::<Block>() else { return };
        let id = digest(&block);
        let is_new = block.number > self.tip().number() && !self.candidates.contains_key(&id);
        if is_new && self.heard.len() < HEARD_MAX {
            self.heard.insert(id, batch);
        }
    }

    /// Executes what was heard and follows from what is known, and keeps it.
    fn execute(&mut self, keep: impl Fn(&mut Store, Record) -> io::Result<()>) -> io::Result<()> {
        while let Some((block, candidate)) = self.executable() {
            if let Some(batch) = self.heard.remove(&block) {
                keep(&mut self.store, Record::Signed(batch))?;
            }
            self.candidates.insert(block, candidate);
        }
        Ok(())
    }

    fn executable(&self) -> Option<(TreeHash, Candidate)> {
        self.heard.iter().find_map(|(&block, batch)| {
            let claimed: Block = batch.note.text().parse().ok()?;
            if claimed.at.since_ms(now()) > CLOCK_SKEW_MS_MAX {
                return None;
            }
            let known = self.candidates.values().map(|candidate| &candidate.chain);
            let mut parents = known.chain([self.tip()]).filter(|p| p.size() == claimed.first);
            parents.find_map(|parent| {
                let chain = parent.extend(&batch.entries).ok()?;
                let candidate = Candidate { parent: name(parent), chain, batch: batch.clone() };
                (name(&candidate.chain) == block).then_some((block, candidate))
            })
        })
    }

    /// Proposes a block of what waits, or, after a while without anything, the parent again.
    fn propose(&mut self) -> io::Result<()> {
        self.proposing.take_if(|proposing| proposing.answer.is_closed());
        let Some(Proposing { parent, since, answer }) = self.proposing.take() else {
            return Ok(());
        };
        let made = self.chain_of(parent).and_then(|chain| self.block_on(chain));
        if let Some((chain, batch)) = made {
            self.store.put(&Record::Signed(batch.clone()))?;
            let block = name(&chain);
            self.candidates.insert(block, Candidate { chain, parent, batch });
            // The engine may have left the view.
            let _ = answer.send(payload(block));
        } else if since.elapsed() >= self.hold {
            let _ = answer.send(payload(parent));
        } else {
            self.proposing = Some(Proposing { parent, since, answer });
        }
        Ok(())
    }

    fn block_on(&self, parent: &Chain) -> Option<(Chain, Batch)> {
        if self.waiting.is_empty() {
            return None;
        }
        let mut ledger = Ledger::clone(parent.ledger());
        let (mut entries, mut bytes) = (Vec::<Signed<Entry>>::new(), 0);
        for Waiting { event, .. } in &self.waiting {
            // What is refused may stand in a block before this one.
            if bytes < BATCH_BYTES_MAX
                && let Ok(entry) = ledger.propose(&self.keys, now(), (**event).clone())
                && ledger.apply(&entry).is_ok()
            {
                bytes += encode(&entry).len();
                entries.push(entry);
            }
        }
        let chain = parent.extend(&entries).ok()?;
        let note = chain.block()?.sign(&self.keys);
        Some((chain, Batch { note, entries }))
    }

    /// Answers the engine about blocks that are known by now.
    fn judge(&mut self) {
        for Verdict { parent, block, answer } in std::mem::take(&mut self.verdicts) {
            let is_nothing = parent == Some(block);
            let follows = match (self.candidates.get(&block), parent) {
                (Some(candidate), Some(parent)) => candidate.parent == parent,
                (Some(_), None) => true,
                (None, _) => is_nothing || parent.is_none() && self.chain_of(block).is_some(),
            };
            if follows {
                let _ = answer.send(true);
            } else if !answer.is_closed() {
                self.verdicts.push(Verdict { parent, block, answer });
            }
        }
    }

    /// Cosigns what simplex finalised, with all before it.
    fn decide(&mut self) {
        let Some(block) = self.finalized else { return };
        if self.chain_of(block).is_some() && !self.candidates.contains_key(&block) {
            self.finalized = None;
            return;
        }
        let mut path = Vec::new();
        let (mut cursor, tip) = (block, name(self.tip()));
        while cursor != tip {
            let Some(candidate) = self.candidates.get(&cursor) else { return };
            path.push(cursor);
            cursor = candidate.parent;
        }
        self.finalized = None;
        for block in path.into_iter().rev() {
            let mut decided = self.candidates.remove(&block).expect("just seen");
            let block = decided.chain.block().expect("a block just closed is known");
            decided.batch.note = block.sign(&self.keys);
            decided.batch.note.add(self.cosignature(block));
            self.tell(&self.others, &Message::Vote(block.number, self.cosignature(block)));
            self.reports.tell(What::Decided(decided.batch.clone()));
            self.decided.insert(decided.chain.number(), decided);
        }
        self.forget();
    }

    fn cosignature(&self, block: &Block) -> NoteSignature {
        Witnesses::cosign(block, &self.keys, now().0 / 1000)
    }

    /// Ends decided blocks whose cosignatures are enough.
    fn finish(&mut self) -> io::Result<()> {
        while let Some((number, mut decided)) = self.decided.pop_first() {
            for (node, signature) in self.votes.remove(&number).into_iter().flatten() {
                decided.batch.note.add_checked(&Witnesses::key(node), signature);
            }
            if !decided.chain.is_final(&decided.batch.note) {
                self.decided.insert(number, decided);
                return Ok(());
            }
            self.store.put(&Record::Final(decided.batch.note.clone()))?;
            self.advance(decided.chain, decided.batch);
        }
        Ok(())
    }

    fn advance(&mut self, chain: Chain, batch: Batch) {
        let recorded: BTreeSet<_> =
            batch.entries.iter().map(|e| e.claimed_value().event_id).collect();
        self.waiting.retain(|waiting| !recorded.contains(&waiting.event.id()));
        self.chain = chain;
        self.forget();
        self.reports.tell(What::Final(batch));
    }

    /// Lets go of what others decided against.
    fn forget(&mut self) {
        let tip = self.tip().number();
        self.candidates.retain(|_, candidate| candidate.chain.number() > tip);
        let is_later =
            |note: &SignedNote| note.text().parse::<Block>().is_ok_and(|b| b.number > tip);
        self.heard.retain(|_, batch| is_later(&batch.note));
        let number = self.chain.number();
        self.decided.retain(|&decided, _| decided > number);
        self.votes.retain(|&vote, _| vote > number);
    }

    /// Takes a final block of others, and asks for the next one.
    fn take_final(&mut self, from: NodeId, batch: Batch) -> io::Result<()> {
        let Ok(block) = batch.note.text().parse::<Block>() else { return Ok(()) };
        if block.number != self.chain.number() + 1 {
            return Ok(());
        }
        let Ok(chain) = self.chain.extend(&batch.entries) else { return Ok(()) };
        if chain.block() == Some(&block) && chain.is_final(&batch.note) {
            self.store.put(&Record::Taken(batch.clone()))?;
            self.tell(&[from], &Message::Want(chain.size()));
            self.advance(chain, batch);
        }
        Ok(())
    }

    fn hear_message(&mut self, from: NodeId, message: Message) -> io::Result<()> {
        match message {
            Message::Wish(event) => self.submit(event, false),
            Message::Proposal(batch) => self.hear(batch),
            Message::Final(batch) => return self.take_final(from, batch),
            Message::Vote(number, signature) => {
                let after = number.wrapping_sub(self.chain.number());
                if (1..=HEARD_MAX as u64).contains(&after) {
                    self.votes.entry(number).or_default().insert(from, signature);
                }
            }
            Message::Want(first) => {
                if let Some(batch) = self.store.stored(first) {
                    self.tell(&[from], &Message::Final(batch.clone()));
                }
                let open = self.candidates.values().chain(self.decided.values());
                for candidate in open.filter(|c| c.chain.block().is_some_and(|b| b.first == first))
                {
                    self.tell(&[from], &Message::Proposal(candidate.batch.clone()));
                }
            }
            Message::Offer(_)
            | Message::Ballot(_)
            | Message::Leave { .. }
            | Message::Seen(_)
            | Message::Accusation(_) => {}
        }
        Ok(())
    }

    fn submit(&mut self, event: Box<Event>, is_ours: bool) {
        let id = event.id();
        if self.waiting.iter().all(|waiting| waiting.event.id() != id) {
            if is_ours {
                self.tell(&self.others, &Message::Wish(event.clone()));
            }
            self.waiting.push(Waiting { event, since: Instant::now(), is_ours });
        }
    }

    fn asked(&mut self, asked: Asked) {
        match asked {
            Asked::Propose { parent, answer } => {
                self.reports.tell(What::Leads);
                self.proposing = Some(Proposing { parent, since: Instant::now(), answer });
            }
            Asked::Verify { parent, block, answer } => {
                self.verdicts.push(Verdict { parent: Some(parent), block, answer });
            }
            Asked::Certify { block, answer } => {
                self.verdicts.push(Verdict { parent: None, block, answer });
            }
            // A view without anything to order has no block of its own.
            Asked::Relay { block } => {
                if let Some(candidate) = self.candidates.get(&block) {
                    self.tell(&self.others, &Message::Proposal(candidate.batch.clone()));
                }
            }
            Asked::Finalized(block) => self.finalized = Some(block),
        }
    }

    fn tell(&self, nodes: &[NodeId], message: &Message) {
        let bytes = encode(message);
        nodes.iter().for_each(|&node| self.net.send(self.me, node, CHANNEL, bytes.clone()));
    }
}

impl Part for Orderer {
    fn take(&mut self, input: Input) -> io::Result<()> {
        match input {
            Input::Submit(event) => self.submit(event, true),
            Input::Message(from, bytes) => {
                if let Ok(message) = decode(&bytes) {
                    return self.hear_message(from, message);
                }
            }
            Input::Asked(asked) => self.asked(asked),
            Input::Show(_) | Input::Stop => {}
        }
        Ok(())
    }

    fn again(&mut self) -> io::Result<()> {
        let old = Duration::from_secs(1);
        let (ledger, reports) = (self.chain.ledger(), &self.reports);
        self.waiting.retain(|waiting| {
            let refused = ledger.would_take(now(), &waiting.event).err();
            match refused.filter(|_| waiting.since.elapsed() > old) {
                None => return true,
                Some(LedgerError::Duplicate { .. }) => {}
                Some(error) => reports.tell(What::Refused(waiting.event.clone(), error)),
            }
            false
        });
        for waiting in self.waiting.iter().filter(|w| w.is_ours && w.since.elapsed() > old) {
            self.tell(&self.others, &Message::Wish(waiting.event.clone()));
        }
        for block in self.decided.values().filter_map(|decided| decided.chain.block()) {
            self.tell(&self.others, &Message::Vote(block.number, self.cosignature(block)));
        }
        // A quiet ledger asks for nothing.
        if self.finalized.is_some() || !self.verdicts.is_empty() || !self.decided.is_empty() {
            self.asks = self.asks.wrapping_add(1);
            let other = self.others[self.asks % self.others.len()];
            let mut wanted = vec![self.chain.size(), self.tip().size()];
            wanted.extend(self.candidates.values().map(|candidate| candidate.chain.size()).max());
            wanted.dedup();
            wanted.into_iter().for_each(|first| self.tell(&[other], &Message::Want(first)));
        }
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        self.execute(|store, record| store.put(&record))?;
        self.decide();
        self.finish()?;
        self.propose()?;
        self.judge();
        Ok(())
    }

    fn wakes(&self) -> Option<Instant> {
        self.proposing.as_ref().map(|proposing| proposing.since + self.hold)
    }

    fn chain(&self) -> &Chain {
        &self.chain
    }
}

/// What stands for a chain with simplex.
pub(crate) fn name(chain: &Chain) -> TreeHash {
    digest(chain.block().expect("every block of this ledger is known"))
}
