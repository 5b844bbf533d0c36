//! The machine: its state, and which part of it heeds which input.

use super::{
    BEAT_MS, Contribution, Decision, Effect, Input, Late, Message, Record, Terms, elect::Role,
};
use std::collections::{BTreeSet, VecDeque};
use talka_base::{DecisionHash, NodeId, Tick, UpdateHash, WeightsHash};

/// A node's part in a job.
#[derive(Debug)]
pub struct Rounds {
    pub(super) me: NodeId,
    pub(super) terms: Terms,
    /// The highest term it knows, and whom it votes for in that.
    pub(super) term: u64,
    pub(super) voted: Option<NodeId>,
    pub(super) role: Role,
    pub(super) leader: Option<NodeId>,
    /// When the leader was heard last, or waiting for one began.
    pub(super) leader_heard: Tick,
    /// When this node first saw that the round under way is open.
    pub(super) opened: Option<Tick>,
    /// Since when it waits for that round's decision, or for another leader to bring it about.
    pub(super) patient_since: Option<Tick>,
    /// The last decision and what it gives.
    pub(super) decided: Outcome,
    /// What it accepted for the next round, in which term.
    pub(super) accepted: Option<(u64, Outcome)>,
    /// What the leader of a term wants decided next.
    pub(super) proposal: Option<(u64, NodeId, Decision)>,
    /// The round whose weights it holds.
    pub(super) holds: Option<(u64, WeightsHash)>,
    /// Decisions since then.
    pub(super) behind: VecDeque<Outcome>,
    /// Whether a leader said that there is no later decision.
    pub(super) current: bool,
    pub(super) syncing: Option<(u64, WeightsHash)>,
    pub(super) merging: Option<DecisionHash>,
    pub(super) merged: Option<(DecisionHash, WeightsHash)>,
    pub(super) have: BTreeSet<UpdateHash>,
    pub(super) wanted: BTreeSet<UpdateHash>,
    /// Of those wanted, what nobody had when asked last.
    pub(super) missing: BTreeSet<UpdateHash>,
    /// What turned out to be no update.
    pub(super) bad: BTreeSet<UpdateHash>,
    pub(super) work: Work,
    /// An update that is in no decision and is to be added to the next one, and its round.
    pub(super) carried: Option<(u64, Contribution)>,
    pub(super) leaving: bool,
    /// The last round for which the leader was told that this node could have a seat.
    ready_for: Option<u64>,
    /// When things were last repeated.
    repeated: Option<Tick>,
    /// What is to be said in the first step.
    unsaid: Vec<Effect>,
}

/// A decision and the weights that it gives.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub decision: Decision,
    pub hash: DecisionHash,
    pub weights: WeightsHash,
}

impl Outcome {
    pub fn new(decision: Decision, weights: WeightsHash) -> Self {
        let hash = decision.hash();
        Self { decision, hash, weights }
    }
}

/// What this node does for the round under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Idle,
    Training(u64),
    Offered(u64, Contribution),
}

impl Rounds {
    /// Node `me` in the job of these terms, with what it made durable since; at `now`.
    ///
    /// Records of decisions are its own and are believed.
    pub fn recover(
        me: NodeId,
        terms: Terms,
        now: Tick,
        records: impl IntoIterator<Item = Record>,
    ) -> Self {
        let decided = Outcome::new(Decision::genesis(&terms), terms.base);
        let mut rounds = Self {
            me,
            terms,
            term: 0,
            voted: None,
            role: Role::Follower,
            leader: None,
            leader_heard: now,
            opened: None,
            patient_since: None,
            decided,
            accepted: None,
            proposal: None,
            holds: None,
            behind: VecDeque::new(),
            current: false,
            syncing: None,
            merging: None,
            merged: None,
            have: BTreeSet::new(),
            wanted: BTreeSet::new(),
            missing: BTreeSet::new(),
            bad: BTreeSet::new(),
            work: Work::Idle,
            carried: None,
            leaving: false,
            ready_for: None,
            repeated: None,
            unsaid: Vec::new(),
        };
        for record in records {
            let mut said = Vec::new();
            rounds.replay(record, &mut said);
            // Whether the shell heard what became of its last update is not known: so it is told again.
            if !said.is_empty() {
                rounds.unsaid = said;
            }
        }
        rounds
    }

    /// As few records as give this machine back: what a shell may keep instead of all before, once it performed all effects.
    pub fn snapshot(&self) -> Vec<Record> {
        let decided = Record::Decided(self.decided.decision.clone(), self.decided.weights);
        let mut records = vec![Record::Term(self.term, self.voted)];
        records.extend((self.decided.decision.round > 0).then_some(decided));
        records.extend(self.holds.map(|(round, weights)| Record::Took(round, weights)));
        records.extend(self.accepted.iter().map(|(term, outcome)| {
            Record::Accepted(*term, outcome.decision.clone(), outcome.weights)
        }));
        let offered = match self.work {
            Work::Offered(round, offer) => Some((round, offer)),
            Work::Idle | Work::Training(_) => self.carried,
        };
        records.extend(offered.map(|(round, offer)| Record::Offered(round, offer)));
        records
    }

    fn replay(&mut self, record: Record, out: &mut Vec<Effect>) {
        match record {
            Record::Term(term, voted) => (self.term, self.voted) = (term, voted),
            Record::Accepted(term, decision, weights) => {
                let outcome = Outcome::new(decision, weights);
                self.merged = Some((outcome.hash, weights));
                self.accepted = Some((term, outcome));
            }
            Record::Decided(decision, weights) => {
                self.note_decided(Outcome::new(decision, weights), out);
            }
            Record::Offered(round, contribution) if round < self.next_round() => {
                self.unmerged(round, contribution, out);
            }
            Record::Offered(round, contribution) => {
                self.work = Work::Offered(round, contribution);
                self.carried = None;
            }
            Record::Took(round, weights) => {
                self.holds = Some((round, weights));
                self.behind.retain(|outcome| outcome.decision.round > round);
            }
        }
    }

    /// Takes one input at this node's time `now`. Same state and inputs give the same effects.
    pub fn step(&mut self, now: Tick, input: Input, out: &mut Vec<Effect>) {
        out.append(&mut self.unsaid);
        match input {
            Input::Again => {}
            Input::Message(from, message) => self.hear(now, from, message, out),
            Input::Trained { round, samples, update } => self.trained(round, samples, update, out),
            Input::Fetched { update, found } => self.fetched(update, found, out),
            Input::Merged { decision, weights } => {
                if self.merging.take_if(|merging| *merging == decision).is_some() {
                    self.merged = Some((decision, weights));
                }
            }
            Input::Synced(weights) => self.synced(weights, out),
            Input::Leave => self.leaving = true,
        }
        self.advance(out);
        self.elect(now, out);
        // A decision that falls here opens the next round here.
        for _ in 0..2 {
            self.lead(now, out);
            self.advance(out);
        }
        if self.repeated.is_none_or(|at| now.since_ms(at) >= BEAT_MS) {
            self.repeated = Some(now);
            self.repeat(now, out);
        }
        self.ask_for_seat(out);
    }

    /// Says at once that it has the weights that a seat needs: rounds may be shorter than a beat.
    fn ask_for_seat(&mut self, out: &mut Vec<Effect>) {
        let round = self.decided.decision.round;
        let can_have_one = self.is_ready() && !self.is_seated() && self.ready_for != Some(round);
        if let Some(leader) = self.leader.filter(|leader| can_have_one && *leader != self.me) {
            self.ready_for = Some(round);
            out.push(Effect::Send(leader, self.here()));
        }
    }

    fn hear(&mut self, now: Tick, from: NodeId, message: Message, out: &mut Vec<Effect>) {
        match message {
            Message::Beat { term, round, left_ms } => {
                self.hear_beat(now, from, (term, round, left_ms), out);
            }
            Message::Here { round, ready, leaving } => {
                self.hear_here(now, from, (round, ready, leaving), out);
            }
            Message::Offer(round, contribution) => self.hear_offer(from, round, contribution, out),
            Message::Propose(term, decision) => self.hear_proposal(now, from, term, decision, out),
            Message::Accept(term, hash, weights) => self.hear_accept(from, term, hash, weights),
            Message::Decided(decision, weights) => self.hear_decided(from, decision, weights, out),
            Message::Stand { term, round, accepted } => {
                self.hear_candidate(now, from, (term, round, accepted), out);
            }
            Message::Vote(term) => self.hear_vote(from, term),
            Message::Newer(term) => self.hear_newer(now, term, out),
        }
    }

    /// Says again what may have been lost.
    fn repeat(&mut self, now: Tick, out: &mut Vec<Effect>) {
        for update in std::mem::take(&mut self.missing) {
            self.wanted.remove(&update);
        }
        self.repeat_as_leader(now, out);
        let here = self.here();
        match self.leader {
            Some(leader) if leader != self.me => out.push(Effect::Send(leader, here)),
            Some(_) => {}
            None => out.push(Effect::Publish(here)),
        }
        self.repeat_offer(out);
    }

    pub(super) fn here(&self) -> Message {
        let round = self.decided.decision.round;
        Message::Here { round, ready: self.is_ready(), leaving: self.leaving }
    }

    /// Whether it holds the weights of the last decision.
    pub(super) fn is_ready(&self) -> bool {
        self.holds.is_some_and(|(round, _)| round == self.decided.decision.round)
    }

    /// The round that is trained, or would be.
    pub(super) const fn next_round(&self) -> u64 {
        self.decided.decision.round + 1
    }

    pub(super) fn is_over(&self) -> bool {
        self.decided.decision.round >= self.terms.rounds
    }

    /// Whether late work is worth keeping.
    pub(super) fn carries(&self) -> bool {
        self.terms.late == Late::Carried
    }

    /// The last decision known here.
    pub const fn decision(&self) -> &Decision {
        &self.decided.decision
    }

    /// The weights that it gives.
    pub const fn weights(&self) -> WeightsHash {
        self.decided.weights
    }

    /// Who leads, as far as this node knows.
    pub const fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// Whether this node takes part in the round under way.
    pub fn is_seated(&self) -> bool {
        self.decided.decision.seat(self.me).is_some()
    }
}
