//! Terms and votes: who leads.

use super::{Effect, Message, Record, Rounds, SILENCE_MS, STAGGER_MS, lead::Lead};
use std::collections::BTreeSet;
use talka_base::{NodeId, Tick};

/// Terms that may pass unheard: more than a year of standing in vain.
const TERMS_SKIPPED_MAX: u64 = 1 << 24;

#[derive(Debug)]
pub(super) enum Role {
    Follower,
    /// Stands, with these votes.
    Candidate(BTreeSet<NodeId>),
    Leader(Box<Lead>),
}

impl Rounds {
    /// Stands if it is time to, and leads once it has the votes.
    pub(super) fn elect(&mut self, now: Tick, out: &mut Vec<Effect>) {
        if !matches!(self.role, Role::Leader(_)) && self.should_stand(now) {
            self.stand(now, out);
        }
        if let Role::Candidate(votes) = &self.role
            && self.is_elected(votes)
        {
            self.role = Role::Leader(Box::new(Lead::new(now, &self.decided.decision, self.leader)));
            self.leader = Some(self.me);
            self.leader_heard = now;
            self.current = true;
            self.repropose(out);
        }
    }

    fn should_stand(&self, now: Tick) -> bool {
        let Some(rank) = self.rank().filter(|_| !self.leaving) else { return false };
        // Whoever submitted a job begins it at once.
        let begins = self.decided.decision.seats.len() == 1;
        begins || !self.leader_is_fine(now, rank * STAGGER_MS)
    }

    /// The order in which seats stand: the one after the leader first.
    fn rank(&self) -> Option<u64> {
        let seats = &self.decided.decision.seats;
        let at = |node: NodeId| seats.iter().position(|seat| seat.node == node);
        let mine = at(self.me)?;
        let first = self.leader.and_then(at).map_or(0, |leader| leader + 1);
        Some(((mine + seats.len() - first % seats.len()) % seats.len()) as u64)
    }

    /// Whether there is a leader that lives and keeps a round's time, give or take.
    fn leader_is_fine(&self, now: Tick, more_ms: u64) -> bool {
        let round_ms = self.terms.window_ms.saturating_add(self.terms.grace_ms);
        let most_ms = round_ms.saturating_add(SILENCE_MS).saturating_add(more_ms);
        now.since_ms(self.leader_heard) < SILENCE_MS + more_ms
            && self.patient_since.is_none_or(|since| now.since_ms(since) < most_ms)
    }

    fn stand(&mut self, now: Tick, out: &mut Vec<Effect>) {
        self.raise_term(self.term.saturating_add(1), Some(self.me), out);
        self.role = Role::Candidate([self.me].into());
        self.wait_anew(now);
        let message = Message::Stand {
            term: self.term,
            round: self.decided.decision.round,
            accepted: self.accepted_term(),
        };
        let others = self.voters().into_iter().filter(|&node| node != self.me);
        out.extend(others.map(|node| Effect::Send(node, message.clone())));
    }

    /// Gives whoever is to lead next the time of a round.
    fn wait_anew(&mut self, now: Tick) {
        self.leader_heard = now;
        self.patient_since = self.patient_since.map(|_| now);
    }

    /// A leader that somebody was cut off from stands again, so that all can follow it.
    pub(super) fn hear_newer(&mut self, now: Tick, term: u64, out: &mut Vec<Effect>) {
        let leads = matches!(self.role, Role::Leader(_));
        if term > self.term && self.is_near(term) {
            self.raise_term(term, None, out);
            if leads {
                self.stand(now, out);
            }
        }
    }

    /// Whether a term may have come about by votes: else one node could use all of them up.
    const fn is_near(&self, term: u64) -> bool {
        term < self.term.saturating_add(TERMS_SKIPPED_MAX)
    }

    fn accepted_term(&self) -> u64 {
        self.accepted.as_ref().map_or(0, |(term, _)| *term)
    }

    /// The seats, and those that an accepted decision would bring.
    fn voters(&self) -> BTreeSet<NodeId> {
        let accepted = self.accepted.iter().flat_map(|(_, outcome)| &outcome.decision.seats);
        self.decided.decision.seats.iter().chain(accepted).map(|seat| seat.node).collect()
    }

    fn is_elected(&self, votes: &BTreeSet<NodeId>) -> bool {
        let has = |node: NodeId| votes.contains(&node);
        self.decided.decision.is_quorum(has)
            && self.accepted.as_ref().is_none_or(|(_, outcome)| outcome.decision.is_quorum(has))
    }

    /// Goes to a higher term, as a follower, with this vote in it.
    pub(super) fn raise_term(&mut self, term: u64, vote: Option<NodeId>, out: &mut Vec<Effect>) {
        let votes_now = term == self.term && self.voted.is_none() && vote.is_some();
        if term > self.term || votes_now {
            if term > self.term {
                self.role = Role::Follower;
                self.leader = self.leader.filter(|&leader| leader != self.me);
            }
            (self.term, self.voted) = (term, vote);
            out.push(Effect::Persist(Record::Term(term, vote)));
        }
    }

    pub(super) fn hear_candidate(
        &mut self,
        now: Tick,
        from: NodeId,
        (term, round, accepted): (u64, u64, u64),
        out: &mut Vec<Effect>,
    ) {
        if round < self.decided.decision.round {
            return self.tell_decided(from, out);
        }
        let may_stand = round > self.decided.decision.round || self.voters().contains(&from);
        if !may_stand || !self.is_near(term) {
            return;
        }
        // Else somebody who was cut off would unseat a leader that all others hear.
        let is_sure = self.leader != Some(from) && self.leader_is_fine(now, 0);
        if is_sure && !matches!(self.role, Role::Candidate(_)) {
            return;
        }
        if term > self.term {
            self.raise_term(term, None, out);
        }
        let knows_enough = round > self.decided.decision.round || accepted >= self.accepted_term();
        if term < self.term {
            out.push(Effect::Send(from, Message::Newer(self.term)));
        } else if knows_enough && self.voted.is_none_or(|voted| voted == from) {
            self.raise_term(term, Some(from), out);
            self.wait_anew(now);
            out.push(Effect::Send(from, Message::Vote(term)));
        }
    }

    pub(super) fn hear_vote(&mut self, from: NodeId, term: u64) {
        if let Role::Candidate(votes) = &mut self.role
            && term == self.term
        {
            votes.insert(from);
        }
    }

    /// Whether `from` leads, by this word of it on the round after `round`; tells it if there is a later term.
    pub(super) fn follow(
        &mut self,
        now: Tick,
        from: NodeId,
        (term, round): (u64, u64),
        out: &mut Vec<Effect>,
    ) -> bool {
        let known = round == self.decided.decision.round && !self.voters().contains(&from);
        if known || !self.is_near(term) {
            return false;
        }
        if term < self.term {
            out.push(Effect::Send(from, Message::Newer(self.term)));
            return false;
        }
        self.raise_term(term, None, out);
        if from != self.me {
            self.role = Role::Follower;
        }
        self.leader = Some(from);
        self.leader_heard = now;
        true
    }
}
