//! What was seen of a world, and what must hold of it.

use super::TICK_MS;
use std::collections::{BTreeMap, BTreeSet};
use talka_base::{NodeId, WeightsHash};
use talka_train::round::{Decision, Effect, Message, Outcome, Record, Terms};

#[derive(Default)]
pub struct Facts {
    pub decisions: BTreeMap<u64, (Decision, WeightsHash)>,
    /// When each round was decided first.
    pub decided_at: BTreeMap<u64, u64>,
    pub bytes: BTreeMap<NodeId, u64>,
    pub blamed: BTreeSet<NodeId>,
    pub outcomes: BTreeMap<(NodeId, u64), Outcome>,
    trained: BTreeMap<(NodeId, u64), BTreeSet<u64>>,
    /// By leader, term and round: when it first said that the round is open, and when it proposed its end.
    opened: BTreeMap<(NodeId, u64, u64), u64>,
    proposed: BTreeMap<(NodeId, u64, u64), u64>,
}

impl Facts {
    /// # Panics
    /// If nodes decide different things, or take different weights for the same round.
    pub fn see(&mut self, now: u64, node: NodeId, effect: &Effect) {
        match effect {
            Effect::Persist(Record::Decided(decision, weights)) => {
                let round = decision.round;
                let found = (decision.clone(), *weights);
                let first = self.decisions.entry(round).or_insert_with(|| found.clone());
                assert_eq!(*first, found, "two decisions on round {round}");
                self.decided_at.entry(round).or_insert(now);
            }
            Effect::Take { round, weights } if *round > 0 => {
                let expected = &self.decisions[round].1;
                assert_eq!(weights, expected, "{node:?} took other weights for round {round}");
            }
            Effect::Send(_, Message::Beat { term, round, left_ms: Some(_) }) => {
                self.opened.entry((node, *term, round + 1)).or_insert(now);
            }
            Effect::Send(_, Message::Propose(term, decision)) => {
                self.proposed.entry((node, *term, decision.round)).or_insert(now);
            }
            Effect::Blame(node, _) => {
                self.blamed.insert(*node);
            }
            _ => {}
        }
    }

    /// # Panics
    /// If somebody else trained on any of these places, or the same node in another round.
    pub fn trained(&mut self, node: NodeId, round: u64, places: &[u64]) {
        for (&(other, other_round), others) in &self.trained {
            let same = (other, other_round) == (node, round);
            let shared = places.iter().find(|place| others.contains(place));
            assert!(
                same || shared.is_none(),
                "place {shared:?} trained in {round} and {other_round}"
            );
        }
        self.trained.entry((node, round)).or_default().extend(places);
    }

    /// # Panics
    /// If an update was merged and is merged or carried again.
    pub fn settle(&mut self, node: NodeId, round: u64, outcome: Outcome) {
        let before = self.outcomes.insert((node, round), outcome);
        assert!(
            before.is_none_or(|before| before == outcome),
            "{node:?} {round}: {before:?}, {outcome:?}"
        );
    }

    /// The rounds of a node whose work is merged, by decision.
    pub fn merged(&self) -> Vec<(NodeId, std::ops::RangeInclusive<u64>, u64)> {
        let parts = self.decisions.iter().flat_map(|(round, (decision, _))| {
            decision.parts.iter().map(|part| (part.node, part.since..=*round, part.samples))
        });
        parts.collect()
    }

    /// # Panics
    /// If work was merged twice, samples are claimed that nobody trained on, or a round took longer than it may.
    pub fn check(&self, terms: &Terms, update_bytes: u64) {
        let mut seen = BTreeSet::new();
        for (node, rounds, samples) in self.merged() {
            let trained = rounds.clone().filter_map(|round| self.trained.get(&(node, round)));
            let found: u64 = trained.map(|places| places.len() as u64).sum();
            // A round whose work was lost in a crash may lie between two that were carried.
            assert!(samples <= found, "{node:?} {rounds:?}: {samples} claimed, {found} trained");
            for round in rounds {
                assert!(seen.insert((node, round)), "round {round} of {node:?} merged twice");
            }
        }
        for ((node, round), outcome) in &self.outcomes {
            let merged = seen.contains(&(*node, *round));
            assert!(*outcome != Outcome::Merged || merged || self.is_unseated(*node, *round));
        }
        self.check_times(terms);
        assert!(update_bytes > 0);
    }

    /// Whoever lost its seat cannot tell what became of its work.
    fn is_unseated(&self, node: NodeId, round: u64) -> bool {
        self.decisions.range(round..).any(|(_, (decision, _))| decision.seat(node).is_none())
    }

    /// Whoever leads closes a round in time, whatever happens to others.
    fn check_times(&self, terms: &Terms) {
        for (key, proposed) in &self.proposed {
            let Some(opened) = self.opened.get(key) else { continue };
            let took_ms = proposed - opened;
            let most_ms = terms.window_ms + terms.grace_ms + 2 * TICK_MS;
            assert!(took_ms <= most_ms, "{key:?} took {took_ms} ms of {most_ms}");
        }
    }

    /// What became of all samples that were trained: merged, or not.
    pub fn samples(&self) -> (u64, u64) {
        let merged: BTreeSet<(NodeId, u64)> = self
            .merged()
            .into_iter()
            .flat_map(|(node, rounds, _)| rounds.map(move |round| (node, round)))
            .collect();
        let count = |wanted: bool| {
            let places = self.trained.iter().filter(|(key, _)| merged.contains(key) == wanted);
            places.map(|(_, places)| places.len() as u64).sum()
        };
        (count(true), count(false))
    }
}
