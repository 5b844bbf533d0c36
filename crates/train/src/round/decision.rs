//! What is decided on a round, and whether it follows from what was decided before.

use super::Terms;
use crate::assign::Assignment;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use talka_base::{DecisionHash, Encoded, JobId, NodeId, UpdateHash, encode};

/// Seats of a job at most: what still fits a message, and what the leader's link can fetch the updates of.
pub const SEATS_MAX: usize = 256;

/// Whose updates are merged after a round, and who takes part in the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Of which job.
    pub job: JobId,
    /// From 1; decision 0 follows from the terms and is the founder alone.
    pub round: u64,
    /// The decision before.
    pub parent: DecisionHash,
    /// What is merged, by ascending node, in that order.
    pub parts: Vec<Contribution>,
    /// Who has a seat in the next round, those of longest standing first.
    pub seats: Vec<Seat>,
    /// The next round's first place in the stream of samples.
    pub base: u64,
}

impl Encoded for Decision {
    const NAME: &'static str = "decision";
    const SIZE_MAX: usize = 1 << 16;
}

/// What a seat adds to a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contribution {
    /// Whose.
    pub node: NodeId,
    /// The first round whose work is in it: an earlier one if that one's update was carried.
    pub since: u64,
    /// Assigned samples that it was trained on: its weight.
    pub samples: u64,
    /// The update.
    pub update: UpdateHash,
}

/// A member of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// Who.
    pub node: NodeId,
    /// Work up to this round is merged, or can no longer be.
    pub merged: u64,
}

/// Why a decision does not follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum DecisionError {
    /// Of another job, or not the next one.
    #[error("a decision on round {found} of {job:?}, expected round {expected} after {parent:?}")]
    Order { job: JobId, expected: u64, found: u64, parent: DecisionHash },
    /// Samples were skipped or given out twice.
    #[error("the next round begins at place {found} of the stream, expected {expected}")]
    Base { expected: u64, found: u64 },
    /// An update of somebody without a seat, of work that is merged already or was never assigned, or out of order.
    #[error("the contribution of {node:?} is not allowed")]
    Part { node: NodeId },
    /// No seats, too many, one twice, or changed.
    #[error("the seats do not follow from those before")]
    Seats,
}

impl Decision {
    /// The first one of a job.
    pub fn genesis(terms: &Terms) -> Self {
        let seats = vec![Seat { node: terms.founder, merged: 0 }];
        let (job, parent) = (terms.job(), DecisionHash([0; 32]));
        Self { job, round: 0, parent, parts: Vec::new(), seats, base: 0 }
    }

    /// Its digest.
    pub fn hash(&self) -> DecisionHash {
        DecisionHash(*blake3::hash(&encode(self)).as_bytes())
    }

    /// What a seat of the next round trains on.
    pub fn assignment(&self, node: NodeId, quota: u64) -> Option<Assignment> {
        let seat = self.seats.iter().position(|seat| seat.node == node)? as u64;
        Some(Assignment { base: self.base, seats: self.seats.len() as u64, seat, quota })
    }

    /// The seat of a node.
    pub fn seat(&self, node: NodeId) -> Option<&Seat> {
        self.seats.iter().find(|seat| seat.node == node)
    }

    /// Whether these nodes are a quorum of its seats: each counts 2, the first 3, and more than half is needed. Two
    /// quorums of the same seats share a node.
    pub fn is_quorum(&self, has: impl Fn(NodeId) -> bool) -> bool {
        let seats = self.seats.iter().enumerate().filter(|(_, seat)| has(seat.node));
        let votes: usize = seats.map(|(at, _)| if at == 0 { 3 } else { 2 }).sum();
        votes > self.seats.len()
    }

    /// The next decision: with these updates, without the seats of `gone`, with new seats for `joined`.
    pub fn next(
        &self,
        terms: &Terms,
        parts: Vec<Contribution>,
        gone: &BTreeSet<NodeId>,
        joined: impl IntoIterator<Item = NodeId>,
    ) -> Self {
        let round = self.round + 1;
        let kept = self.seats.iter().filter(|seat| !gone.contains(&seat.node));
        let mut seats: Vec<Seat> = kept.map(|seat| seat.after(round, &parts)).collect();
        let new = joined.into_iter().filter(|node| self.seat(*node).is_none());
        seats.extend(new.map(|node| Seat { node, merged: round }));
        seats.truncate(SEATS_MAX);
        let (job, parent, base) = (self.job, self.hash(), self.end(terms));
        Self { job, round, parent, parts, seats, base }
    }

    /// Where the samples of the next round end.
    const fn end(&self, terms: &Terms) -> u64 {
        let seats = self.seats.len() as u64;
        Assignment { base: self.base, seats, seat: 0, quota: terms.quota }.end()
    }

    /// Whether this contribution to the next round is one that a seat may make.
    pub fn allows(&self, terms: &Terms, part: &Contribution) -> bool {
        let round = self.round + 1;
        let rounds = (part.since..=round).count() as u64;
        let most = terms.quota.saturating_mul(rounds);
        self.seat(part.node).is_some_and(|seat| seat.merged < part.since)
            && (1..=most).contains(&part.samples)
    }

    /// Whether `next` follows.
    ///
    /// # Errors
    /// [`DecisionError`] says what does not.
    pub fn check_next(&self, terms: &Terms, next: &Self) -> Result<(), DecisionError> {
        let (expected, parent) = (self.round + 1, self.hash());
        if next.job != self.job || next.round != expected || next.parent != parent {
            let (job, found) = (next.job, next.round);
            return Err(DecisionError::Order { job, expected, found, parent });
        }
        let (expected, found) = (self.end(terms), next.base);
        if expected != found {
            return Err(DecisionError::Base { expected, found });
        }
        for (at, part) in next.parts.iter().enumerate() {
            let ascends = at == 0 || next.parts[at - 1].node < part.node;
            if !ascends || !self.allows(terms, part) {
                return Err(DecisionError::Part { node: part.node });
            }
        }
        if next.seats_follow(self) { Ok(()) } else { Err(DecisionError::Seats) }
    }

    /// Seats that stay keep their order, before new ones; whose update is merged stays.
    fn seats_follow(&self, before: &Self) -> bool {
        let nodes: BTreeSet<NodeId> = self.seats.iter().map(|seat| seat.node).collect();
        let stays = |seat: &&Seat| nodes.contains(&seat.node);
        let kept =
            before.seats.iter().filter(stays).map(|seat| seat.after(self.round, &self.parts));
        let new = self.seats.iter().filter(|seat| before.seat(seat.node).is_none());
        let fresh = new.map(|seat| Seat { node: seat.node, merged: self.round });
        (1..=SEATS_MAX).contains(&self.seats.len())
            && nodes.len() == self.seats.len()
            && self.seats.iter().copied().eq(kept.chain(fresh))
    }
}

impl Seat {
    /// This seat after a round with these parts.
    fn after(&self, round: u64, parts: &[Contribution]) -> Self {
        let merged = parts.iter().any(|part| part.node == self.node);
        Self { merged: if merged { round } else { self.merged }, ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::round::Late;
    use proptest::prelude::*;
    use talka_base::WeightsHash;

    fn terms() -> Terms {
        Terms {
            founder: node(0),
            base: WeightsHash([0; 32]),
            rounds: 10,
            seats_min: 1,
            quota: 10,
            window_ms: 1000,
            grace_ms: 1000,
            late: Late::Carried,
            recipe: [0; 32],
        }
    }

    const fn node(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    const fn part(number: u8, since: u64, samples: u64) -> Contribution {
        Contribution { node: node(number), since, samples, update: UpdateHash([number; 32]) }
    }

    /// Decision 1 of a job with these seats besides the founder's.
    fn seated(others: std::ops::Range<u8>) -> Decision {
        Decision::genesis(&terms()).next(&terms(), Vec::new(), &BTreeSet::new(), others.map(node))
    }

    /// What of `change` follows from a decision with seats 0, 1 and 2.
    fn check(change: impl FnOnce(&mut Decision), expected: Option<DecisionError>) {
        let before = seated(1..3);
        let parts = vec![part(0, 2, 10), part(2, 2, 1)];
        let mut next = before.next(&terms(), parts, &[node(1)].into(), [node(7)]);
        change(&mut next);
        assert_eq!(before.check_next(&terms(), &next).err(), expected, "{next:?}");
    }

    #[test]
    fn only_what_follows_is_accepted() {
        check(|_| {}, None);
        check(|next| next.base += 1, Some(DecisionError::Base { expected: 40, found: 41 }));
        let wrong_part = |number| Some(DecisionError::Part { node: node(number) });
        check(|next| next.parts.swap(0, 1), wrong_part(0));
        check(|next| next.parts[0].samples = 0, wrong_part(0));
        check(|next| next.parts[0].samples = 11, wrong_part(0));
        check(|next| next.parts[0].since = 3, wrong_part(0));
        check(|next| next.parts[1].node = node(7), wrong_part(7));
        // Seat 2 was seated by decision 1, so there is no earlier work of it.
        check(|next| next.parts[1].since = 1, wrong_part(2));
        for change in [
            |next: &mut Decision| next.seats.clear(),
            |next: &mut Decision| next.seats.swap(0, 1),
            |next: &mut Decision| next.seats[0].merged = 1,
            |next: &mut Decision| next.seats.push(next.seats[2]),
        ] {
            check(change, Some(DecisionError::Seats));
        }
        let mut other = seated(1..3).next(&terms(), Vec::new(), &BTreeSet::new(), []);
        other.round += 1;
        assert!(matches!(
            seated(1..3).check_next(&terms(), &other),
            Err(DecisionError::Order { expected: 2, found: 3, .. })
        ));
    }

    #[test]
    fn carried_work_counts_for_all_its_rounds_and_no_work_twice() {
        let first = seated(1..2);
        let none = BTreeSet::new();
        let second = first.next(&terms(), vec![part(0, 2, 10)], &none, []);
        assert!(second.allows(&terms(), &part(1, 2, 20)));
        assert!(!second.allows(&terms(), &part(1, 2, 21)));
        assert!(second.allows(&terms(), &part(0, 3, 10)));
        assert!(!second.allows(&terms(), &part(0, 2, 10)));
        let third = second.next(&terms(), vec![part(1, 2, 20)], &none, []);
        assert_eq!(third.seat(node(1)).map(|seat| seat.merged), Some(3));
    }

    proptest! {
        #[test]
        fn two_quorums_share_a_seat(seats in 1u8..9, chosen: u16) {
            let decision = seated(1..seats);
            let has = |wanted: bool| move |node: NodeId| (chosen >> node.0[0] & 1 == 1) == wanted;
            let both = decision.is_quorum(has(true)) && decision.is_quorum(has(false));
            prop_assert!(!both);
            // Somebody decides whenever all but the smaller half are there.
            prop_assert!(decision.is_quorum(has(true)) || decision.is_quorum(has(false)));
            prop_assert!(decision.is_quorum(|_| true));
        }
    }
}
