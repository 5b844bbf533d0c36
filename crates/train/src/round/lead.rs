//! What a leader does: open a round, gather offers, propose, count who accepted.

use super::{
    Contribution, Decision, Effect, Fault, Found, Message, RETURN_MS, Rounds, SEATS_MAX,
    SILENCE_MS, elect::Role,
};
use std::collections::{BTreeMap, BTreeSet};
use talka_base::{DecisionHash, NodeId, Tick, UpdateHash, WeightsHash};

/// What only a leader knows.
#[derive(Debug)]
pub(super) struct Lead {
    /// Who was heard of.
    heard: BTreeMap<NodeId, Heard>,
    /// For the round under way, one of each seat.
    offers: BTreeMap<NodeId, Contribution>,
    /// Whose offer was no update: nobody waits for another one.
    refused: BTreeSet<NodeId>,
    proposed: Option<(Decision, DecisionHash)>,
    accepts: BTreeMap<NodeId, WeightsHash>,
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    at: Tick,
    /// The last round that it knew to be decided.
    round: u64,
    /// Whether it held that one's weights.
    ready: bool,
    leaving: bool,
    /// Rounds that ended before it was ready for a seat.
    missed: u32,
}

/// Joiners that are remembered at most.
const HEARD_MAX: usize = 1024;
/// How often the time doubles that a newcomer is waited for.
const DOUBLINGS_MAX: u32 = 8;

impl Lead {
    /// At first all seats are thought to live, and to be back within [`RETURN_MS`]; the leader before has been silent for long.
    pub fn new(now: Tick, decision: &Decision, before: Option<NodeId>) -> Self {
        let later = now.plus_ms(RETURN_MS - SILENCE_MS);
        let heard = |node: NodeId| {
            let at = if before == Some(node) { now } else { later };
            (node, Heard { at, round: 0, ready: false, leaving: false, missed: 0 })
        };
        let heard = decision.seats.iter().map(|seat| heard(seat.node)).collect();
        let (offers, refused, accepts) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { heard, offers, refused, proposed: None, accepts }
    }

    fn is_alive(&self, now: Tick, node: NodeId, silence_ms: u64) -> bool {
        self.heard.get(&node).is_some_and(|h| !h.leaving && now.since_ms(h.at) < silence_ms)
    }

    fn is_ready(&self, now: Tick, node: NodeId, round: u64) -> bool {
        self.is_alive(now, node, SILENCE_MS)
            && self.heard.get(&node).is_some_and(|heard| heard.ready && heard.round == round)
    }

    /// Whether an update may still come from a seat, in a round that was opened then. One without the weights has a moment to
    /// catch up.
    fn may_offer(&self, now: Tick, node: NodeId, (round, opened): (u64, Tick)) -> bool {
        let is_late = now.since_ms(opened) >= SILENCE_MS;
        let lacks_weights = |heard: &Heard| is_late && heard.round == round && !heard.ready;
        self.is_alive(now, node, SILENCE_MS)
            && !self.refused.contains(&node)
            && !self.heard.get(&node).is_some_and(lacks_weights)
    }

    /// Whether somebody without a seat is on the way to one, in a round that was opened then. Where rounds are over sooner than
    /// weights are fetched, nobody would ever come to have the last ones; so the wait doubles until it is long enough.
    fn awaits_newcomer(&self, now: Tick, decision: &Decision, opened: Tick) -> bool {
        let comes = |(&node, heard): (&NodeId, &Heard)| {
            let patience_ms = SILENCE_MS << heard.missed.min(DOUBLINGS_MAX);
            decision.seat(node).is_none()
                && self.is_alive(now, node, SILENCE_MS)
                && !self.is_ready(now, node, decision.round)
                && now.since_ms(opened) < patience_ms
        };
        decision.seats.len() < SEATS_MAX && self.heard.iter().any(comes)
    }
}

impl Rounds {
    /// Opens the next round or proposes its end, as the time is.
    pub(super) fn lead(&mut self, now: Tick, out: &mut Vec<Effect>) {
        let (round, ready) = (self.decided.decision.round, self.is_ready());
        let Role::Leader(lead) = &mut self.role else { return };
        if self.leaving {
            // The others miss its beats and choose another.
            self.role = Role::Follower;
            return;
        }
        lead.heard.insert(self.me, Heard { at: now, round, ready, leaving: false, missed: 0 });
        if self.decided.decision.is_quorum(|node| lead.is_alive(now, node, SILENCE_MS)) {
            self.leader_heard = now;
        }
        if lead.proposed.is_some() {
            self.count_accepts(out);
        } else if self.is_ready() && self.proposal.is_none() && !self.is_over() {
            self.run_round(now, out);
        }
    }

    fn run_round(&mut self, now: Tick, out: &mut Vec<Effect>) {
        let Role::Leader(lead) = &self.role else { return };
        let decision = &self.decided.decision;
        let ready = |node: &NodeId| lead.is_ready(now, *node, decision.round);
        let joiners: Vec<NodeId> = lead.heard.keys().copied().filter(ready).collect();
        let wanted = usize::from(self.terms.seats_min);
        let fresh = joiners.iter().filter(|node| decision.seat(**node).is_none()).count();
        if decision.seats.len() < wanted {
            if decision.seats.len() + fresh >= wanted {
                self.propose(now, joiners, out);
            }
            return;
        }
        let opened = self.opened;
        let passed_ms = opened.map_or(0, |opened| now.since_ms(opened));
        self.train(now, self.terms.window_ms.saturating_sub(passed_ms), out);
        if opened.is_none() {
            return self.beat(now, out);
        }
        let most_ms = self.terms.window_ms.saturating_add(self.terms.grace_ms);
        if passed_ms >= most_ms || opened.is_some_and(|opened| self.have_all_offers(now, opened)) {
            self.propose(now, joiners, out);
        }
    }

    /// Whether nothing more is to be waited for.
    fn have_all_offers(&self, now: Tick, opened: Tick) -> bool {
        let Role::Leader(lead) = &self.role else { return false };
        let decision = &self.decided.decision;
        let seats = decision.seats.iter().map(|seat| seat.node);
        let mut waited_for =
            seats.filter(|&node| lead.may_offer(now, node, (decision.round, opened)));
        let has = |offer: &Contribution| self.have.contains(&offer.update);
        !lead.offers.is_empty()
            && !lead.awaits_newcomer(now, decision, opened)
            && waited_for.all(|node| lead.offers.get(&node).is_some_and(has))
    }

    fn propose(&mut self, now: Tick, joiners: Vec<NodeId>, out: &mut Vec<Effect>) {
        let (terms, decision) = (&self.terms, &self.decided.decision);
        let Role::Leader(lead) = &mut self.role else { return };
        let parts = lead.offers.values().filter(|offer| self.have.contains(&offer.update));
        let parts: Vec<_> = parts.copied().collect();
        // A whole round of silence costs the seat, unless an update came all the same.
        let silence_ms = SILENCE_MS.max(terms.window_ms.saturating_add(terms.grace_ms));
        let stays = |node: NodeId| {
            lead.is_alive(now, node, silence_ms) || parts.iter().any(|part| part.node == node)
        };
        let seats = decision.seats.iter().map(|seat| seat.node);
        let gone: BTreeSet<NodeId> =
            seats.filter(|&node| node != self.me && !stays(node)).collect();
        for (node, heard) in &mut lead.heard {
            let is_late = decision.seat(*node).is_none() && !joiners.contains(node);
            heard.missed = if is_late { heard.missed.saturating_add(1) } else { 0 };
        }
        let next = decision.next(terms, parts, &gone, joiners);
        lead.accepts.clear();
        self.put_forward(next, out);
    }

    /// What was accepted before its leader fell silent is to be decided first.
    pub(super) fn repropose(&mut self, out: &mut Vec<Effect>) {
        if let Some((_, outcome)) = &self.accepted {
            let decision = outcome.decision.clone();
            self.put_forward(decision, out);
        }
    }

    fn put_forward(&mut self, decision: Decision, out: &mut Vec<Effect>) {
        let Role::Leader(lead) = &mut self.role else { return };
        lead.proposed = Some((decision.clone(), decision.hash()));
        self.proposal = Some((self.term, self.me, decision));
        self.repeat_proposal(out);
    }

    /// To all who have a say and have not said it.
    fn repeat_proposal(&self, out: &mut Vec<Effect>) {
        let Role::Leader(lead) = &self.role else { return };
        let Some((proposed, _)) = &lead.proposed else { return };
        let seats = self.decided.decision.seats.iter().chain(&proposed.seats);
        let nodes: BTreeSet<NodeId> = seats.map(|seat| seat.node).collect();
        let missing =
            nodes.into_iter().filter(|node| *node != self.me && !lead.accepts.contains_key(node));
        let message = Message::Propose(self.term, proposed.clone());
        out.extend(missing.map(|node| Effect::Send(node, message.clone())));
    }

    fn count_accepts(&mut self, out: &mut Vec<Effect>) {
        let Role::Leader(lead) = &mut self.role else { return };
        let Some((proposed, _)) = &lead.proposed else { return };
        let candidates: BTreeSet<WeightsHash> = lead.accepts.values().copied().collect();
        let agreed = candidates.into_iter().find(|weights| {
            let has = |node: NodeId| lead.accepts.get(&node) == Some(weights);
            self.decided.decision.is_quorum(has) && proposed.is_quorum(has)
        });
        let Some(weights) = agreed else { return };
        let decision = proposed.clone();
        let seats = self.decided.decision.seats.iter().chain(&decision.seats);
        let mut told: BTreeSet<NodeId> = seats.map(|seat| seat.node).collect();
        told.extend(lead.heard.keys());
        told.remove(&self.me);
        let seated = |node: &NodeId| decision.seat(*node).is_some();
        lead.heard.retain(|node, heard| seated(node) || !heard.leaving);
        lead.proposed = None;
        lead.offers.clear();
        lead.refused.clear();
        lead.accepts.clear();
        self.hear_decided(self.me, decision.clone(), weights, out);
        let message = Message::Decided(decision.clone(), weights);
        out.extend(told.into_iter().map(|node| Effect::Send(node, message.clone())));
        out.push(Effect::Reward(decision));
    }

    pub(super) fn hear_here(
        &mut self,
        now: Tick,
        from: NodeId,
        (round, ready, leaving): (u64, bool, bool),
        out: &mut Vec<Effect>,
    ) {
        if round < self.decided.decision.round {
            self.tell_decided(from, out);
        }
        let Role::Leader(lead) = &mut self.role else { return };
        if lead.heard.len() < HEARD_MAX || lead.heard.contains_key(&from) {
            let missed = lead.heard.get(&from).map_or(0, |heard| heard.missed);
            let heard = Heard { at: now, round, ready, leaving, missed };
            let before = lead.heard.insert(from, heard);
            if before.is_none() {
                out.push(Effect::Send(from, self.beat_message(now)));
            }
        }
    }

    pub(super) fn hear_offer(
        &mut self,
        from: NodeId,
        round: u64,
        offer: Contribution,
        out: &mut Vec<Effect>,
    ) {
        let next = self.next_round();
        let Role::Leader(lead) = &mut self.role else { return };
        if round != next || lead.offers.get(&from) == Some(&offer) {
            return;
        }
        if offer.node != from || !self.decided.decision.allows(&self.terms, &offer) {
            return out.push(Effect::Blame(from, Fault::Offer(offer)));
        }
        if self.bad.contains(&offer.update) {
            return;
        }
        lead.offers.insert(from, offer);
        if !self.have.contains(&offer.update) && self.wanted.insert(offer.update) {
            out.push(Effect::Fetch { round, update: offer.update, from: vec![from] });
        }
    }

    /// Forgets offers of an update that is not to be had; says whose they were.
    pub(super) fn withdraw(&mut self, update: UpdateHash, found: Found) -> Vec<NodeId> {
        let Role::Leader(lead) = &mut self.role else { return Vec::new() };
        let bad = found == Found::Bad;
        let lost = |offer: &Contribution| found != Found::Good && offer.update == update;
        let offers = lead.offers.iter().filter(|(_, offer)| lost(offer));
        let nodes: Vec<NodeId> = offers.map(|(node, _)| *node).collect();
        nodes.iter().for_each(|node| {
            lead.offers.remove(node);
            if bad {
                lead.refused.insert(*node);
            }
        });
        nodes
    }

    pub(super) fn hear_accept(
        &mut self,
        from: NodeId,
        term: u64,
        hash: DecisionHash,
        weights: WeightsHash,
    ) {
        let Role::Leader(lead) = &mut self.role else { return };
        if term == self.term
            && lead.proposed.as_ref().is_some_and(|(_, proposed)| *proposed == hash)
        {
            lead.accepts.insert(from, weights);
        }
    }

    pub(super) fn repeat_as_leader(&mut self, now: Tick, out: &mut Vec<Effect>) {
        self.beat(now, out);
        self.repeat_proposal(out);
    }

    fn beat_message(&self, now: Tick) -> Message {
        let left = |opened| self.terms.window_ms.saturating_sub(now.since_ms(opened));
        let left_ms = self.opened.map(left).filter(|_| self.proposal.is_none());
        Message::Beat { term: self.term, round: self.decided.decision.round, left_ms }
    }

    /// To all who are there.
    fn beat(&mut self, now: Tick, out: &mut Vec<Effect>) {
        let message = self.beat_message(now);
        let Role::Leader(lead) = &mut self.role else { return };
        let seats = &self.decided.decision;
        let keeps = |node: &NodeId, heard: &mut Heard| {
            seats.seat(*node).is_some() || now.since_ms(heard.at) < SILENCE_MS
        };
        lead.heard.retain(keeps);
        let mut nodes: BTreeSet<NodeId> = lead.heard.keys().copied().collect();
        nodes.extend(seats.seats.iter().map(|seat| seat.node));
        nodes.remove(&self.me);
        out.extend(nodes.into_iter().map(|node| Effect::Send(node, message.clone())));
    }
}
