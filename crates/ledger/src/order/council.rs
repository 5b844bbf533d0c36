//! A node of a ledger whose witnesses order by turns.
//!
//! Decides one block after the other by the algorithm of Tendermint (Buchman, Kwon and Milosevic, "The latest gossip on BFT
//! consensus", arXiv 1807.04938). In a *turn* one witness leads. It offers a block; whoever can execute it prepares it;
//! where 2f+1 prepared it, members hold on to it and commit; where 2f+1 committed, it is decided. A member prepares one
//! block in a turn, and no other than the one that it holds unless 2f+1 prepared that other one later. So at most one
//! block of a number is ever decided while at most f of 3f+1 members are dishonest, however late or lost messages are.
//! A decided block is cosigned, and 2f+1 cosignatures make it final: what others check is as with one sequencer.
//!
//! Departs from the paper: nobody votes for nothing. Who saw no progress for some time leaves the turn and says which block
//! it holds, with the 2f+1 ballots; 2f+1 who left begin the next turn, whose leader therefore knows what may have been decided.
//! A turn goes on over many blocks, so that a dead leader costs time once. While nothing is to be ordered, a node asks one other a second
//! whether it missed a block, and nothing else is sent or written.
//!
//! What has to survive a crash is a [`Promise`], durable before the ballot that it is about leaves.

use super::{
    Batch, Chain, EVENTS_WAITING_MAX, Effect, Evidence, Input, Message, Order, Record, Witnesses,
    ballots::{Ballot, Ballots, Offer, Stage, digest, prepared_in},
    pool::Pool,
    replica::CLOCK_SKEW_MS_MAX,
};
use crate::{
    block::Block,
    entry::{Entry, Event},
    error::LedgerError,
    note::{NoteSignature, SignedNote},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use talka_base::{Keypair, NodeId, Signed, Tick, TreeHash};

/// A turn without a final block is left after this long, in milliseconds, if something waits; twice as long for each
/// turn that failed before it. Ways between homes are 0.2 s long at most, and a block needs four of them.
const PATIENCE_MS: u64 = 2_000;
/// It doubles so often at most: half a minute.
const DOUBLINGS_MAX: u32 = 4;
/// An event that waits this long, in milliseconds, though others are ordered, is being kept out: the turn is left.
const NEGLECT_MS: u64 = 10_000;
/// What others sent about the next block is kept until this one is final: an offer, two ballots and a cosignature each.
const EARLY_MAX: usize = 4;

/// What a member may not contradict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// The number of the block under way.
    pub number: u64,
    /// The turn.
    pub turn: u64,
    /// The block that it prepared in this turn, if it did.
    pub prepared: Option<TreeHash>,
    /// The block that it holds, with the ballots of the latest turn in which a quorum prepared it.
    pub held: Option<Offer>,
}

/// A block that was executed here.
#[derive(Debug, Clone)]
struct Candidate {
    chain: Chain,
    entries: Vec<Signed<Entry>>,
}

/// A block of which it is known that a quorum prepared it.
#[derive(Debug, Clone)]
struct Held {
    turn: u64,
    block: TreeHash,
    ballots: Vec<Signed<Ballot>>,
}

/// What an offer comes to: the block, and the earlier turn in which a quorum prepared it.
type Judged = (TreeHash, Option<u64>);

/// A block that is decided and lacks cosignatures.
#[derive(Debug)]
struct Decided {
    chain: Chain,
    batch: Batch,
}

/// Orders by turns with the other witnesses; on a node that is none, follows them.
#[derive(Debug)]
pub struct Council {
    keys: Keypair,
    me: NodeId,
    /// As far as it is final.
    chain: Chain,
    last_final: Option<SignedNote>,
    turn: u64,
    /// Turns that ended since the last final block.
    failed: u32,
    /// When this turn began here, and when something became final last, as far as that was seen.
    entered: Tick,
    progressed: Tick,
    /// Since when a block is under way.
    under_way: Option<Tick>,
    /// The latest turn in which each witness was seen, and the latest that it left.
    seen: BTreeMap<NodeId, u64>,
    left: BTreeMap<NodeId, u64>,
    waiting: Pool,
    /// About the block under way.
    candidates: BTreeMap<TreeHash, Candidate>,
    offers: BTreeMap<NodeId, Offer>,
    /// What this turn's offer was found to be, once it was looked at.
    judged: Option<Option<Judged>>,
    ballots: Ballots,
    prepared: Option<(u64, TreeHash)>,
    held: Option<Held>,
    decided: Option<Decided>,
    cosignatures: BTreeMap<NodeId, NoteSignature>,
    /// What witnesses signed and cannot both be true: the first of each that did.
    accused: BTreeMap<NodeId, Evidence>,
    /// About the block after it.
    early: BTreeMap<NodeId, Vec<Message>>,
    /// Whom to ask next for what is missing.
    asks: usize,
}

impl Council {
    /// A node of a ledger whose last final block is that of `chain`, signed as `last_final` as far as that is known,
    /// with what it made durable since.
    ///
    /// # Errors
    /// [`LedgerError`] if the records do not follow from it.
    pub fn resume(
        keys: Keypair,
        chain: Chain,
        last_final: Option<SignedNote>,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<Self, LedgerError> {
        let mut council = Self {
            me: NodeId(keys.public()),
            keys,
            chain,
            last_final,
            turn: 0,
            failed: 0,
            entered: Tick(0),
            progressed: Tick(0),
            under_way: None,
            seen: BTreeMap::new(),
            left: BTreeMap::new(),
            waiting: Pool::default(),
            candidates: BTreeMap::new(),
            offers: BTreeMap::new(),
            judged: None,
            ballots: Ballots::default(),
            prepared: None,
            held: None,
            decided: None,
            cosignatures: BTreeMap::new(),
            accused: BTreeMap::new(),
            early: BTreeMap::new(),
            asks: 0,
        };
        for record in records {
            council.recall(record)?;
        }
        Ok(council)
    }

    fn recall(&mut self, record: Record) -> Result<(), LedgerError> {
        match record {
            Record::Signed(batch) => {
                let chain = self.chain.extend(&batch.entries)?;
                let candidate = Candidate { chain, entries: batch.entries.clone() };
                let block = self.keep(candidate);
                let chain = self.candidates[&block].chain.clone();
                self.decided = Some(Decided { chain, batch });
            }
            Record::Taken(batch) => {
                let chain = self.chain.extend(&batch.entries)?;
                self.advance(chain, batch.note);
            }
            Record::Final(note) => {
                if let Some(decided) = self.decided.take() {
                    self.advance(decided.chain, note);
                }
            }
            Record::Promised(promise) => self.keep_promise(*promise)?,
            Record::Evidence(evidence) => {
                let witness = evidence.witness();
                self.accused.extend(witness.map(|witness| (witness, *evidence)));
            }
        }
        Ok(())
    }

    fn keep_promise(&mut self, promise: Promise) -> Result<(), LedgerError> {
        let Promise { number, turn, prepared, held } = promise;
        self.turn = self.turn.max(turn);
        if number != self.number() {
            return Ok(());
        }
        self.prepared = prepared.map(|block| (turn, block));
        if let Some(block) = prepared.filter(|_| turn == self.turn) {
            self.ballots.add(self.ballot(Stage::Prepare, block));
        }
        if let Some(Offer { turn, entries, prepared: ballots, .. }) = held {
            let chain = self.chain.extend(&entries)?;
            let block = self.keep(Candidate { chain, entries });
            self.held = Some(Held { turn, block, ballots });
        }
        Ok(())
    }

    /// The number of the block under way.
    fn number(&self) -> u64 {
        self.chain.number() + 1
    }

    fn witnesses(&self) -> &Witnesses {
        self.chain.ledger().witnesses()
    }

    fn is_member(&self) -> bool {
        self.witnesses().contains(&self.me)
    }

    fn others(&self) -> impl Iterator<Item = NodeId> {
        self.witnesses().nodes().filter(|&node| node != self.me)
    }

    /// The witness that leads in a turn.
    fn leader_of(&self, turn: u64) -> NodeId {
        let count = self.witnesses().nodes().count() as u64;
        let place = usize::try_from(turn % count).expect("below 64");
        self.witnesses().nodes().nth(place).expect("below their number")
    }

    /// One more than this many are honest ones among them.
    fn faulty_max(&self) -> usize {
        self.witnesses().nodes().count() - self.witnesses().quorum()
    }

    fn tell(&self, message: &Message, out: &mut Vec<Effect>) {
        out.extend(self.others().map(|node| Effect::Send(node, message.clone())));
    }

    fn keep(&mut self, candidate: Candidate) -> TreeHash {
        let block = digest(candidate.chain.block().expect("a block just closed is known"));
        self.candidates.insert(block, candidate);
        block
    }

    /// Executes an offer; nothing if it does not follow, or its ballots prove nothing.
    fn judge(&mut self, offer: &Offer) -> Option<Judged> {
        let chain = self.chain.extend(&offer.entries).ok()?;
        let block = digest(chain.block()?);
        let about = (self.number(), block);
        let network = self.chain.ledger().network();
        let turn = prepared_in(&offer.prepared, self.witnesses(), network, about);
        if turn.is_none() && !offer.prepared.is_empty() {
            return None;
        }
        self.candidates.entry(block).or_insert(Candidate { chain, entries: offer.entries.clone() });
        Some((block, turn))
    }

    /// Holds on to a block that a quorum prepared later than the one held now.
    fn hold(&mut self, turn: u64, block: TreeHash, ballots: Vec<Signed<Ballot>>) {
        if self.held.as_ref().is_none_or(|held| held.turn < turn) {
            self.held = Some(Held { turn, block, ballots });
        }
    }

    fn held_offer(&self) -> Option<Offer> {
        let Held { turn, block, ballots } = self.held.as_ref()?;
        let entries = self.candidates.get(block)?.entries.clone();
        Some(Offer { number: self.number(), turn: *turn, entries, prepared: ballots.clone() })
    }

    fn promise(&self) -> Effect {
        let (number, turn) = (self.number(), self.turn);
        let prepared = self.prepared.filter(|(of, _)| *of == turn).map(|(_, block)| block);
        let promise = Promise { number, turn, prepared, held: self.held_offer() };
        Effect::Persist(Record::Promised(Box::new(promise)))
    }

    fn ballot(&self, stage: Stage, block: TreeHash) -> Signed<Ballot> {
        let (network, number) = (self.chain.ledger().network(), self.number());
        self.keys.sign(Ballot { network, number, turn: self.turn, stage, block })
    }

    /// As the leader, offers a block: the one held, or one of what waits.
    fn lead(&mut self, now: Tick, out: &mut Vec<Effect>) {
        let has_offered = self.offers.get(&self.me).is_some_and(|offer| offer.turn == self.turn);
        let has_prepared = self.prepared.is_some_and(|(turn, _)| turn >= self.turn);
        if self.leader_of(self.turn) != self.me || has_offered || has_prepared {
            return;
        }
        let known = match &self.decided {
            Some(decided) => Some((decided.batch.entries.clone(), Vec::new())),
            None => self.held_offer().map(|held| (held.entries, held.prepared)),
        };
        let Some((entries, prepared)) = known.or_else(|| Some((self.order(now, out)?, Vec::new())))
        else {
            return;
        };
        let offer = Offer { number: self.number(), turn: self.turn, entries, prepared };
        self.offers.insert(self.me, offer.clone());
        self.tell(&Message::Offer(Box::new(offer)), out);
    }

    /// Entries of what waits; nothing if nothing of it can be recorded.
    fn order(&mut self, now: Tick, out: &mut Vec<Effect>) -> Option<Vec<Signed<Entry>>> {
        let events = self.waiting.iter().map(|waiting| waiting.event.clone());
        let mut refused = Vec::new();
        let ordered = self.chain.order(&self.keys, now, events, |event, error| {
            refused.push((event, error));
        });
        for (event, error) in refused {
            self.waiting.remove(&event.id());
            out.push(Effect::Refused(event, error));
        }
        ordered.map(|(_, entries)| entries)
    }

    /// Prepares what the leader of this turn offers, unless this node prepared something in it before, or holds another block.
    fn consider(&mut self, now: Tick, out: &mut Vec<Effect>) {
        let is_done = self.prepared.is_some_and(|(turn, _)| turn >= self.turn);
        let offer = self.offers.get(&self.leader_of(self.turn));
        let Some(offer) = offer.filter(|offer| offer.turn == self.turn && !is_done).cloned() else {
            return;
        };
        let judged = match self.judged {
            Some(judged) => judged,
            None => self.judge(&offer),
        };
        self.judged = Some(judged);
        let Some((block, prepared_in)) = judged else { return };
        if let Some(turn) = prepared_in.filter(|&turn| turn < self.turn) {
            self.hold(turn, block, offer.prepared);
        }
        let at = self.candidates[&block].chain.block().expect("just closed").at;
        let is_other = self.held.as_ref().is_some_and(|held| held.block != block);
        let is_decided_otherwise = self
            .decided
            .as_ref()
            .is_some_and(|decided| decided.chain.block().map(digest) != Some(block));
        if !self.is_member()
            || is_other
            || is_decided_otherwise
            || at.since_ms(now) > CLOCK_SKEW_MS_MAX
        {
            return;
        }
        self.prepared = Some((self.turn, block));
        self.under_way.get_or_insert(now);
        out.push(self.promise());
        self.say(self.ballot(Stage::Prepare, block), out);
    }

    fn say(&mut self, ballot: Signed<Ballot>, out: &mut Vec<Effect>) {
        let _ = self.ballots.add(ballot.clone());
        self.tell(&Message::Ballot(Box::new(ballot)), out);
    }

    /// Holds and commits what a quorum prepared, and decides what a quorum committed.
    fn count(&mut self, now: Tick, out: &mut Vec<Effect>) {
        let prepared = self.ballots.quorum(Stage::Prepare, self.witnesses());
        if let Some((turn, block, ballots)) = prepared
            && self.candidates.contains_key(&block)
        {
            self.hold(turn, block, ballots);
            let mine = self.ballots.of(Stage::Commit, self.me);
            let is_new = mine.is_none_or(|mine| mine.claimed_value().turn < turn);
            let holds = self.held.as_ref().is_some_and(|held| held.turn == turn);
            if turn == self.turn && holds && is_new && self.is_member() {
                out.push(self.promise());
                self.say(self.ballot(Stage::Commit, block), out);
            }
        }
        let committed = self.ballots.quorum(Stage::Commit, self.witnesses());
        if let Some((_, block, _)) = committed
            && self.decided.is_none()
            && let Some(Candidate { chain, entries }) = self.candidates.get(&block).cloned()
        {
            self.decide(now, chain, entries, out);
        }
        self.finish(now, out);
    }

    /// Cosigns a block that can be the only one of its number.
    fn decide(
        &mut self,
        now: Tick,
        chain: Chain,
        entries: Vec<Signed<Entry>>,
        out: &mut Vec<Effect>,
    ) {
        let block = chain.block().expect("a block just closed is known");
        let mut note = block.sign(&self.keys);
        if self.is_member() {
            note.add(Witnesses::cosign(block, &self.keys, now.0 / 1000));
        }
        let batch = Batch { note, entries };
        self.under_way.get_or_insert(now);
        out.push(Effect::Persist(Record::Signed(batch.clone())));
        self.decided = Some(Decided { chain, batch });
        self.cosign(now, out);
    }

    fn cosign(&self, now: Tick, out: &mut Vec<Effect>) {
        let block = self.decided.as_ref().and_then(|decided| decided.chain.block());
        if let Some(block) = block.filter(|_| self.is_member()) {
            let signature = Witnesses::cosign(block, &self.keys, now.0 / 1000);
            self.tell(&Message::Vote(self.number(), signature), out);
        }
    }

    /// Ends the decided block, if its cosignatures are enough.
    fn finish(&mut self, now: Tick, out: &mut Vec<Effect>) {
        let Some(decided) = &mut self.decided else { return };
        for (node, signature) in std::mem::take(&mut self.cosignatures) {
            decided.batch.note.add_checked(&Witnesses::key(node), signature);
        }
        if !decided.chain.is_final(&decided.batch.note) {
            return;
        }
        let Some(Decided { chain, batch }) = self.decided.take() else { return };
        out.push(Effect::Persist(Record::Final(batch.note.clone())));
        out.push(Effect::Finalised(batch.clone()));
        // The other members gather the cosignatures themselves.
        if self.leader_of(self.turn) == self.me {
            out.push(Effect::Publish(Message::Final(batch.clone())));
        }
        self.advance(chain, batch.note.clone());
        self.begin(now, &batch.entries, out);
    }

    /// Takes a final block of others.
    fn take(&mut self, now: Tick, from: NodeId, batch: Batch, out: &mut Vec<Effect>) {
        let Ok(block) = batch.note.text().parse::<Block>() else { return };
        if block.number != self.number() {
            if block.number > self.number() {
                out.push(Effect::Send(from, Message::Want(self.chain.size())));
            }
            return;
        }
        let Ok(chain) = self.chain.extend(&batch.entries) else { return };
        if chain.block() != Some(&block) || !chain.is_final(&batch.note) {
            return;
        }
        out.push(Effect::Persist(Record::Taken(batch.clone())));
        out.push(Effect::Finalised(batch.clone()));
        out.push(Effect::Send(from, Message::Want(chain.size())));
        self.advance(chain, batch.note.clone());
        self.begin(now, &batch.entries, out);
    }

    /// Goes on after a final block, of which everything is durable.
    fn advance(&mut self, chain: Chain, note: SignedNote) {
        (self.chain, self.last_final) = (chain, Some(note));
        (self.failed, self.under_way) = (0, None);
        // Whoever still sees no progress says so again.
        self.left.clear();
        self.candidates.clear();
        self.offers.clear();
        self.judged = None;
        self.cosignatures.clear();
        (self.ballots, self.prepared) = (Ballots::default(), None);
        (self.held, self.decided) = (None, None);
    }

    /// Takes out what is recorded, and takes up what came early.
    fn begin(&mut self, now: Tick, recorded: &[Signed<Entry>], out: &mut Vec<Effect>) {
        self.progressed = now;
        for entry in recorded {
            self.waiting.remove(&entry.claimed_value().event_id);
        }
        for (from, messages) in std::mem::take(&mut self.early) {
            for message in messages {
                self.hear(now, from, message, out);
            }
        }
    }

    /// Enters a later turn.
    fn enter(&mut self, now: Tick, turn: u64) {
        self.failed = self.failed.saturating_add(1);
        (self.turn, self.entered, self.judged) = (turn, now, None);
        self.under_way = self.under_way.map(|_| now);
        let held = self.held.as_ref().map(|held| held.block);
        let decided = self.decided.as_ref().and_then(|d| d.chain.block().map(digest));
        self.candidates.retain(|block, _| Some(*block) == held || Some(*block) == decided);
    }

    fn patience_ms(&self) -> u64 {
        PATIENCE_MS << self.failed.min(DOUBLINGS_MAX)
    }

    /// Leaves the turn, and says what it holds.
    fn leave(&mut self, out: &mut Vec<Effect>) {
        self.left.insert(self.me, self.turn);
        let held = self.held_offer().map(Box::new);
        self.tell(&Message::Leave { turn: self.turn, held }, out);
    }

    /// The greatest turn that so many of the witnesses reached.
    fn reached(&self, turns: &BTreeMap<NodeId, u64>, count: usize) -> Option<u64> {
        let mut turns: Vec<u64> = turns.values().copied().collect();
        turns.sort_unstable_by(|a, b| b.cmp(a));
        turns.get(count.checked_sub(1)?).copied()
    }

    /// Goes where the others are: a quorum that left a turn begins the next, and where one honest member is, others may follow.
    fn follow(&mut self, now: Tick, out: &mut Vec<Effect>) {
        if let Some(turn) = self.reached(&self.seen, self.faulty_max() + 1)
            && turn > self.turn
        {
            self.enter(now, turn);
        }
        if let Some(turn) = self.reached(&self.left, self.witnesses().quorum())
            && turn >= self.turn
        {
            self.enter(now, turn.saturating_add(1));
        }
        let others_left = self.reached(&self.left, self.faulty_max() + 1);
        if others_left.is_some_and(|turn| turn >= self.turn) && !self.has_left() && self.is_member()
        {
            self.leave(out);
        }
    }

    fn see(&mut self, node: NodeId, turn: u64) {
        let seen = self.seen.entry(node).or_default();
        *seen = turn.max(*seen);
    }

    /// Something that a witness sent about the block under way, or about the next.
    fn hear(&mut self, now: Tick, from: NodeId, message: Message, out: &mut Vec<Effect>) {
        let number = match &message {
            Message::Offer(offer) => offer.number,
            Message::Ballot(ballot) => ballot.claimed_value().number,
            Message::Vote(number, _) => *number,
            _ => return,
        };
        if number == self.number() + 1 {
            let early = self.early.entry(from).or_default();
            if early.len() < EARLY_MAX && !early.contains(&message) {
                early.push(message);
            }
            return;
        }
        if number != self.number() {
            return;
        }
        match message {
            Message::Offer(offer) => {
                let known = self.offers.get(&from).map(|offer| offer.turn);
                let is_newer = known.is_none_or(|turn| turn < offer.turn);
                if self.leader_of(offer.turn) == from && offer.turn >= self.turn && is_newer {
                    self.see(from, offer.turn);
                    self.offers.insert(from, *offer);
                }
            }
            Message::Ballot(ballot) => self.hear_ballot(*ballot, out),
            Message::Vote(_, signature) => drop(self.cosignatures.insert(from, signature)),
            _ => {}
        }
        self.move_on(now, out);
    }

    fn hear_ballot(&mut self, ballot: Signed<Ballot>, out: &mut Vec<Effect>) {
        let signer = NodeId(*ballot.claimed_signer());
        let Ballot { network, turn, .. } = *ballot.claimed_value();
        if network == self.chain.ledger().network()
            && self.witnesses().contains(&signer)
            && ballot.verify_by(&signer.0).is_ok()
        {
            self.see(signer, turn);
            if let Some(evidence) = self.ballots.add(ballot) {
                self.accuse(evidence, out);
            }
        }
    }

    /// Keeps what convicts a witness, and tells it: once. Its ballots count on, for up to f such members change nothing.
    fn accuse(&mut self, evidence: Evidence, out: &mut Vec<Effect>) {
        let Some(witness) = evidence.witness().filter(|w| self.witnesses().contains(w)) else {
            return;
        };
        if !self.accused.contains_key(&witness) && evidence.verify(&Witnesses::key(witness)).is_ok()
        {
            out.push(Effect::Persist(Record::Evidence(Box::new(evidence.clone()))));
            out.push(Effect::Publish(Message::Accusation(Box::new(evidence.clone()))));
            self.accused.insert(witness, evidence);
        }
    }

    fn hear_leave(&mut self, from: NodeId, turn: u64, held: Option<Offer>) {
        let left = self.left.entry(from).or_default();
        *left = turn.max(*left);
        self.see(from, turn);
        let claimed = held.as_ref().and_then(|offer| offer.prepared.first());
        let claimed = claimed.map(|ballot| ballot.claimed_value().turn);
        let is_later = claimed > self.held.as_ref().map(|held| held.turn);
        if let Some(offer) = held.filter(|offer| is_later && offer.number == self.number())
            && let Some((block, Some(turn))) = self.judge(&offer)
        {
            self.hold(turn, block, offer.prepared);
        }
    }

    /// Does all that what is known by now asks for.
    fn move_on(&mut self, now: Tick, out: &mut Vec<Effect>) {
        if !self.chain.ledger().turns().by_turns {
            return;
        }
        let before = self.number();
        self.follow(now, out);
        self.lead(now, out);
        self.consider(now, out);
        self.count(now, out);
        // A final block is followed by the next.
        if self.number() != before {
            self.move_on(now, out);
        }
    }

    fn submit(&mut self, now: Tick, event: Box<Event>, is_ours: bool, out: &mut Vec<Effect>) {
        let max = EVENTS_WAITING_MAX;
        if self.waiting.len() >= max {
            if is_ours {
                out.push(Effect::Refused(event, LedgerError::Busy { max }));
            }
        } else if self.waiting.add(event.clone(), now, is_ours) && is_ours {
            self.tell(&Message::Wish(event), out);
        }
    }

    /// Some time passed.
    fn again(&mut self, now: Tick, out: &mut Vec<Effect>) {
        let before = Tick(now.0.saturating_sub(PATIENCE_MS));
        let ledger = std::sync::Arc::clone(self.chain.ledger());
        for (event, error) in self.waiting.refused(&ledger, now, before) {
            out.push(Effect::Refused(event, error));
        }
        let unanswered = Tick(now.0.saturating_sub(PATIENCE_MS / 2));
        let ours = self.waiting.iter().filter(|w| w.is_ours && w.since < unanswered);
        for waiting in ours {
            self.tell(&Message::Wish(waiting.event.clone()), out);
        }
        self.ask(out);
        if self.is_member() {
            if self.has_left() || self.is_stuck(now) {
                self.leave(out);
            }
            self.repeat(now, out);
        }
    }

    fn has_left(&self) -> bool {
        self.left.get(&self.me).is_some_and(|&turn| turn >= self.turn)
    }

    /// Whether whoever leads should have done more.
    fn is_stuck(&self, now: Tick) -> bool {
        let patience_ms = self.patience_ms();
        let first = self.waiting.iter().next().map(|waiting| waiting.since);
        let waits = first.map(|since| since.max(self.entered));
        let neglected =
            waits.is_some_and(|since| now.since_ms(since) > NEGLECT_MS.max(patience_ms));
        let waits = waits.map(|since| since.max(self.progressed));
        let since = waits.into_iter().chain(self.under_way).min();
        neglected || since.is_some_and(|since| now.since_ms(since) > patience_ms)
    }

    /// Sends again what was not answered.
    fn repeat(&self, now: Tick, out: &mut Vec<Effect>) {
        if let Some(offer) = self.offers.get(&self.me).filter(|offer| offer.turn == self.turn) {
            self.tell(&Message::Offer(Box::new(offer.clone())), out);
        }
        for stage in [Stage::Prepare, Stage::Commit] {
            if let Some(ballot) = self.ballots.of(stage, self.me) {
                self.tell(&Message::Ballot(Box::new(ballot.clone())), out);
            }
        }
        self.cosign(now, out);
    }

    /// Asks one of the others, each in its turn, for what may be missing.
    fn ask(&mut self, out: &mut Vec<Effect>) {
        let others: Vec<NodeId> = self.others().collect();
        self.asks = self.asks.wrapping_add(1);
        if let Some(&node) = others.get(self.asks % others.len().max(1)) {
            out.push(Effect::Send(node, Message::Want(self.chain.size())));
        }
    }
}

impl Order for Council {
    fn step(&mut self, now: Tick, input: Input, out: &mut Vec<Effect>) {
        let is_witness = |council: &Self, node: &NodeId| {
            *node != council.me && council.witnesses().contains(node)
        };
        match input {
            Input::Submit(event) => return self.submit(now, event, true, out),
            Input::Close => {}
            Input::Again => self.again(now, out),
            Input::Message(_, Message::Wish(event)) if self.is_member() => {
                self.submit(now, event, false, out);
            }
            Input::Message(node, Message::Want(first)) => {
                if (1..self.chain.size()).contains(&first) {
                    out.push(Effect::SendStored(node, first));
                }
            }
            Input::Message(node, Message::Final(batch)) => self.take(now, node, batch, out),
            Input::Message(_, Message::Accusation(evidence)) => self.accuse(*evidence, out),
            Input::Message(node, Message::Leave { turn, held }) if is_witness(self, &node) => {
                self.hear_leave(node, turn, held.map(|held| *held));
            }
            Input::Message(node, message) if is_witness(self, &node) => {
                self.hear(now, node, message, out);
            }
            Input::Message(..) => {}
        }
        self.move_on(now, out);
    }

    fn chain(&self) -> &Chain {
        &self.chain
    }

    fn final_chain(&self) -> Option<&Chain> {
        Some(&self.chain)
    }

    fn is_settled(&self) -> bool {
        self.decided.is_none() && self.waiting.is_empty()
    }

    fn last_final(&self) -> Option<&SignedNote> {
        self.last_final.as_ref()
    }

    fn evidence(&self) -> Option<&Evidence> {
        self.accused.values().next()
    }

    fn is_by_turns(&self) -> bool {
        true
    }

    fn hand_over(&mut self) -> Vec<Box<Event>> {
        std::mem::take(&mut self.waiting).into_events().collect()
    }
}
