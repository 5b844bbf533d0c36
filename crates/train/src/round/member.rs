//! What every member does: hear what is decided, catch up, train, accept.

use super::{
    CATCH_UP_MAX, Contribution, Decision, Effect, Fault, Found, Message, Outcome, Record, Rounds,
    machine::{self, Work},
};
use talka_base::{DecisionHash, NodeId, Tick, UpdateHash, WeightsHash};

impl Rounds {
    pub(super) fn hear_beat(
        &mut self,
        now: Tick,
        from: NodeId,
        (term, round, left_ms): (u64, u64, Option<u64>),
        out: &mut Vec<Effect>,
    ) {
        if round < self.decided.decision.round {
            return self.tell_decided(from, out);
        }
        if !self.follow(now, from, (term, round), out) {
            return;
        }
        self.current = round == self.decided.decision.round;
        if !self.current {
            out.push(Effect::Send(from, self.here()));
        } else if let Some(left_ms) = left_ms {
            self.advance(out);
            self.train(now, left_ms, out);
        }
    }

    /// Begins to train the round under way, once.
    pub(super) fn train(&mut self, now: Tick, left_ms: u64, out: &mut Vec<Effect>) {
        self.opened.get_or_insert(now);
        self.patient_since.get_or_insert(now);
        let round = self.next_round();
        let assignment = self.decided.decision.assignment(self.me, self.terms.quota);
        let Some(assignment) = assignment.filter(|_| self.is_ready() && !self.leaving) else {
            return;
        };
        let idle = match self.work {
            Work::Idle => true,
            Work::Training(other) | Work::Offered(other, _) => other < round,
        };
        if idle && left_ms > 0 {
            self.work = Work::Training(round);
            let until = now.plus_ms(left_ms.min(self.terms.window_ms));
            out.push(Effect::Train { round, assignment, until });
        }
    }

    pub(super) fn trained(
        &mut self,
        round: u64,
        samples: u64,
        update: UpdateHash,
        out: &mut Vec<Effect>,
    ) {
        if samples == 0 {
            return;
        }
        let carried = self.carried.map(|(_, offer)| (offer.since, offer.samples));
        let (since, before) = carried.unwrap_or((round, 0));
        let samples = samples.saturating_add(before);
        let contribution = Contribution { node: self.me, since, samples, update };
        if self.work == Work::Training(round) && round == self.next_round() {
            self.carried = None;
            self.work = Work::Offered(round, contribution);
            out.push(Effect::Persist(Record::Offered(round, contribution)));
            self.repeat_offer(out);
        } else if round < self.next_round() && self.is_fresh(since) {
            // Too late: as if it had been offered and left out.
            out.push(Effect::Persist(Record::Offered(round, contribution)));
            self.unmerged(round, contribution, out);
        }
    }

    /// Whether work since that round was not merged in any decision.
    fn is_fresh(&self, since: u64) -> bool {
        self.decided.decision.seat(self.me).is_some_and(|seat| seat.merged < since)
    }

    pub(super) fn unmerged(
        &mut self,
        round: u64,
        contribution: Contribution,
        out: &mut Vec<Effect>,
    ) {
        let outcome = if self.carries() { Outcome::Carried } else { Outcome::Dropped };
        self.carried = self.carries().then_some((round, contribution));
        out.push(Effect::Settled { round, outcome });
    }

    pub(super) fn repeat_offer(&mut self, out: &mut Vec<Effect>) {
        let Work::Offered(round, contribution) = self.work else { return };
        if round != self.next_round() || self.proposal.is_some() {
            return;
        }
        match self.leader {
            Some(leader) if leader == self.me => self.hear_offer(leader, round, contribution, out),
            Some(leader) => out.push(Effect::Send(leader, Message::Offer(round, contribution))),
            None => {}
        }
    }

    pub(super) fn tell_decided(&self, to: NodeId, out: &mut Vec<Effect>) {
        let (decision, weights) = (self.decided.decision.clone(), self.decided.weights);
        out.push(Effect::Send(to, Message::Decided(decision, weights)));
    }

    pub(super) fn hear_decided(
        &mut self,
        from: NodeId,
        decision: Decision,
        weights: WeightsHash,
        out: &mut Vec<Effect>,
    ) {
        if decision.job != self.decided.decision.job || decision.round < self.next_round() {
            return;
        }
        if decision.round == self.next_round()
            && let Err(error) = self.decided.decision.check_next(&self.terms, &decision)
        {
            return out.push(Effect::Blame(from, Fault::Decision(error)));
        }
        out.push(Effect::Persist(Record::Decided(decision.clone(), weights)));
        self.note_decided(machine::Outcome::new(decision, weights), out);
        if self.is_over() {
            out.push(Effect::Finished);
        }
    }

    /// A decision beyond the last one known.
    pub(super) fn note_decided(&mut self, outcome: machine::Outcome, out: &mut Vec<Effect>) {
        let follows = outcome.decision.parent == self.decided.hash;
        if !follows || self.behind.len() >= CATCH_UP_MAX {
            self.behind.clear();
        }
        self.behind.push_back(outcome.clone());
        self.decided = outcome;
        (self.accepted, self.proposal) = (None, None);
        (self.opened, self.patient_since) = (None, None);
        self.settle(out);
    }

    /// Says what became of its update, now that its round is decided.
    fn settle(&mut self, out: &mut Vec<Effect>) {
        let decision = &self.decided.decision;
        if let Work::Offered(round, contribution) = self.work
            && round <= decision.round
        {
            self.work = Work::Idle;
            // Without a seat nobody can tell, so that it counts for merged: better lost than merged twice.
            if decision.seat(self.me).is_none_or(|seat| seat.merged >= contribution.since) {
                out.push(Effect::Settled { round, outcome: Outcome::Merged });
            } else {
                self.unmerged(round, contribution, out);
            }
        }
        if !self.is_seated() {
            self.carried = None;
        }
    }

    /// Goes on with whatever can be gone on with: catching up first, then the proposal.
    pub(super) fn advance(&mut self, out: &mut Vec<Effect>) {
        self.catch_up(out);
        let Some((term, leader, decision)) = self.proposal.clone() else { return };
        if !self.is_ready() || self.syncing.is_some() {
            return;
        }
        let hash = decision.hash();
        let Some(weights) = self.result_of(&decision, hash, leader, out) else { return };
        let is_new = self.accepted.as_ref().is_none_or(|(t, o)| (*t, o.hash) != (term, hash));
        if is_new {
            out.push(Effect::Persist(Record::Accepted(term, decision.clone(), weights)));
            self.accepted = Some((term, machine::Outcome { decision, hash, weights }));
            self.say_accepted(out);
        }
    }

    fn say_accepted(&mut self, out: &mut Vec<Effect>) {
        let (Some((term, accepted)), Some(leader)) = (&self.accepted, self.leader) else { return };
        let (term, hash, weights) = (*term, accepted.hash, accepted.weights);
        if leader == self.me {
            self.hear_accept(leader, term, hash, weights);
        } else {
            out.push(Effect::Send(leader, Message::Accept(term, hash, weights)));
        }
    }

    /// Takes the weights of decisions since those that it holds, one after the other, or fetches the last ones.
    fn catch_up(&mut self, out: &mut Vec<Effect>) {
        while let Some(next) = self.behind.front().cloned() {
            let held = self.holds.map(|(round, _)| round);
            if held.is_some_and(|held| held >= next.decision.round) {
                self.behind.pop_front();
                continue;
            }
            if self.syncing.is_some() {
                return;
            }
            if held.is_none_or(|held| held + 1 < next.decision.round) {
                return self.sync_last(out);
            }
            let holder = self.leader.unwrap_or(self.me);
            let Some(weights) = self.result_of(&next.decision, next.hash, holder, out) else {
                return;
            };
            if weights != next.weights {
                // Something is wrong with this machine: the others know better.
                return self.sync_last(out);
            }
            self.take(next.decision.round, weights, out);
        }
        if self.holds.is_none() && self.current && self.syncing.is_none() {
            self.sync_last(out);
        }
    }

    fn take(&mut self, round: u64, weights: WeightsHash, out: &mut Vec<Effect>) {
        self.holds = Some((round, weights));
        out.push(Effect::Persist(Record::Took(round, weights)));
        out.push(Effect::Take { round, weights });
        if round == self.decided.decision.round {
            (self.merged, self.merging) = (None, None);
            for updates in [&mut self.have, &mut self.wanted, &mut self.missing, &mut self.bad] {
                updates.clear();
            }
        }
    }

    fn sync_last(&mut self, out: &mut Vec<Effect>) {
        let weights = self.decided.weights;
        self.syncing = Some((self.decided.decision.round, weights));
        out.push(Effect::Sync { weights, from: self.others() });
    }

    fn others(&self) -> Vec<NodeId> {
        let seats = self.decided.decision.seats.iter().map(|seat| seat.node);
        seats.filter(|&node| node != self.me).collect()
    }

    pub(super) fn synced(&mut self, weights: WeightsHash, out: &mut Vec<Effect>) {
        if let Some((round, _)) = self.syncing.take_if(|(_, wanted)| *wanted == weights) {
            self.take(round, weights, out);
        } else if self.holds.is_none() && weights == self.terms.base {
            self.take(0, weights, out);
        }
    }

    /// What a decision on the round after the one held gives; if that is not known yet, what is needed for it is under way.
    fn result_of(
        &mut self,
        decision: &Decision,
        hash: DecisionHash,
        holder: NodeId,
        out: &mut Vec<Effect>,
    ) -> Option<WeightsHash> {
        if decision.parts.is_empty() {
            return self.holds.map(|(_, weights)| weights);
        }
        if let Some((_, weights)) = self.merged.filter(|(merged, _)| *merged == hash) {
            return Some(weights);
        }
        let mut complete = true;
        for part in decision.parts.iter().filter(|part| !self.have.contains(&part.update)) {
            complete = false;
            if self.wanted.insert(part.update) {
                let mut from = vec![part.node, holder];
                from.extend(decision.seats.iter().map(|seat| seat.node));
                from.retain(|&node| node != self.me);
                out.push(Effect::Fetch { round: decision.round, update: part.update, from });
            }
        }
        if complete && self.merging != Some(hash) {
            self.merging = Some(hash);
            out.push(Effect::Merge(decision.clone()));
        }
        None
    }

    pub(super) fn fetched(&mut self, update: UpdateHash, found: Found, out: &mut Vec<Effect>) {
        if !self.wanted.contains(&update) {
            return;
        }
        let offered_by = self.withdraw(update, found);
        match found {
            Found::Good => {
                self.wanted.remove(&update);
                self.have.insert(update);
            }
            Found::Bad => {
                self.bad.insert(update);
                let nodes = offered_by.into_iter();
                out.extend(nodes.map(|node| Effect::Blame(node, Fault::Update(update))));
                // A leader wants this merged, and ought to have looked at it first.
                if let Some((_, leader, decision)) = &self.proposal
                    && decision.parts.iter().any(|part| part.update == update)
                {
                    out.push(Effect::Blame(*leader, Fault::Update(update)));
                    self.proposal = None;
                }
            }
            // Decided without being there any more: then whole weights have to do.
            Found::Nothing if !self.behind.is_empty() => self.sync_last(out),
            // Asked for again after a while.
            Found::Nothing => {
                self.missing.insert(update);
            }
        }
    }

    pub(super) fn hear_proposal(
        &mut self,
        now: Tick,
        from: NodeId,
        term: u64,
        decision: Decision,
        out: &mut Vec<Effect>,
    ) {
        if decision.round <= self.decided.decision.round {
            return self.tell_decided(from, out);
        }
        if !self.follow(now, from, (term, decision.round - 1), out) {
            return;
        }
        if decision.round > self.next_round() {
            return out.push(Effect::Send(from, self.here()));
        }
        if let Err(error) = self.decided.decision.check_next(&self.terms, &decision) {
            return out.push(Effect::Blame(from, Fault::Decision(error)));
        }
        let hash = decision.hash();
        if self.accepted.as_ref().is_some_and(|(t, o)| (*t, o.hash) == (term, hash)) {
            return self.say_accepted(out);
        }
        self.proposal = Some((term, from, decision));
    }
}
