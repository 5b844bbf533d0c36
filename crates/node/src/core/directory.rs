//! What a node knows of the others: where they are, when they were last heard, what they serve.

use crate::wire::{ADDRESSES_MAX, Grade, Heartbeat, PEERS_MAX};
use std::{collections::BTreeMap, net::SocketAddr};
use talka_base::{AdapterId, LayerSpan, ModelId, NodeId, Tick};
use talka_plan::{Candidate, Links};

/// What is told of another node's clock changes in steps no smaller: below is how long its words were under way.
const CLOCK_STEP_MS: u64 = 500;

/// The nodes of a network but this one.
#[derive(Debug, Default)]
pub struct Directory {
    nodes: BTreeMap<NodeId, Known>,
}

/// One of them.
#[derive(Debug, Default)]
pub struct Known {
    /// Whether a link is open. A node is alive as long as it is linked.
    pub linked: bool,
    /// When it was last heard, or its link opened.
    pub heard_at: Option<Tick>,
    /// The last thing it said.
    pub heartbeat: Option<Heartbeat>,
    /// Milliseconds that its clock is ahead of this one's, or behind if negative; off by the time that its words take.
    pub clock_ms: Option<i64>,
    addresses: Vec<SocketAddr>,
    next_dial: Tick,
    redial_ms: u64,
    /// When the link opened.
    linked_at: Tick,
    /// Something was sent over it only to see how much goes through.
    is_probed: bool,
}

/// How fast a node is with one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speed {
    /// Microseconds for one token through one layer.
    pub layer_us: u32,
    /// Sessions that its stages hold.
    pub load: u32,
    /// How it holds the weights.
    pub grade: Grade,
}

impl Directory {
    /// All known nodes, by id.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Known)> {
        self.nodes.iter().map(|(id, known)| (*id, known))
    }

    /// Whether `node` was known until now.
    pub(super) fn forget(&mut self, node: NodeId) -> bool {
        self.nodes.remove(&node).is_some()
    }

    /// Where `node` can be reached.
    pub fn addresses(&self, node: NodeId) -> &[SocketAddr] {
        self.nodes.get(&node).map_or(&[], |known| &known.addresses)
    }

    /// Addresses of every node, for others to dial and for this one to remember.
    pub fn introductions(&self) -> Vec<(NodeId, Vec<SocketAddr>)> {
        let reachable = self.nodes.iter().filter(|(_, known)| !known.addresses.is_empty());
        reachable.map(|(id, known)| (*id, known.addresses.clone())).take(PEERS_MAX).collect()
    }

    /// What live nodes serve of `model`.
    pub fn served(&self, model: ModelId) -> Vec<(NodeId, LayerSpan)> {
        let offers = self.live_offers(model);
        offers.flat_map(|(node, offer)| offer.serves.iter().map(move |s| (node, *s))).collect()
    }

    /// What adapters live nodes can add to `model`.
    pub fn adapted(&self, model: ModelId) -> Vec<(NodeId, AdapterId)> {
        let offers = self.live_offers(model);
        offers.flat_map(|(node, offer)| offer.adapters.iter().map(move |a| (node, *a))).collect()
    }

    /// Live nodes that have the weights of `model`, of one grade or of any.
    pub(super) fn candidates(&self, model: ModelId, grade: Option<Grade>) -> Vec<Candidate> {
        self.live_offers(model)
            .filter(|(_, offer)| grade.is_none_or(|grade| offer.grade == grade))
            .map(|(node, offer)| Candidate {
                node,
                memory_bytes: offer.memory_bytes,
                layer_us: offer.layer_us,
                pinned: offer.pinned,
                serves: offer.serves.clone(),
            })
            .collect()
    }

    /// How fast live nodes are that have `model`, and what they have to do.
    pub(super) fn speeds(&self, model: ModelId) -> impl Iterator<Item = (NodeId, Speed)> + '_ {
        self.live_offers(model).map(|(node, offer)| {
            let beat = self.nodes.get(&node).and_then(|known| known.heartbeat.as_ref());
            let load = beat.map_or(0, |heartbeat| heartbeat.load);
            (node, Speed { layer_us: offer.layer_us, load, grade: offer.grade })
        })
    }

    /// What live nodes give to `model`, and could give.
    pub(super) fn offered_bytes(&self, model: ModelId) -> Vec<(u64, u64, NodeId)> {
        let offers = self.live_offers(model);
        offers.map(|(node, offer)| (offer.memory_bytes, offer.could_bytes, node)).collect()
    }

    /// Whether one of the live nodes that have `model` has been busy for a while.
    pub(super) fn is_busy(&self, model: ModelId) -> bool {
        let beats = self.nodes.values().filter(|k| k.linked).filter_map(|k| k.heartbeat.as_ref());
        beats.filter(|beat| beat.is_busy).any(|beat| beat.offers.iter().any(|o| o.model == model))
    }

    /// Adds what live nodes say of their links.
    pub(super) fn tell_links(&self, links: &mut Links) {
        for (node, known) in self.nodes.iter().filter(|(_, known)| known.linked) {
            for (other, us) in known.heartbeat.iter().flat_map(|beat| &beat.round_trips_us) {
                links.tell(*node, *other, us / 2);
            }
            for (other, kib) in known.heartbeat.iter().flat_map(|beat| &beat.throughputs_kib) {
                links.tell_throughput(*node, *other, *kib);
            }
        }
    }

    fn live_offers(
        &self,
        model: ModelId,
    ) -> impl Iterator<Item = (NodeId, &crate::wire::Offer)> + '_ {
        let live = self.nodes.iter().filter(|(_, known)| known.linked);
        let beats = live.filter_map(|(id, known)| known.heartbeat.as_ref().map(|h| (*id, h)));
        beats.flat_map(move |(id, heartbeat)| {
            heartbeat.offers.iter().filter(move |o| o.model == model).map(move |o| (id, o))
        })
    }

    pub(super) fn introduce(&mut self, node: NodeId, addresses: &[SocketAddr]) {
        if addresses.is_empty()
            || (self.nodes.len() >= PEERS_MAX && !self.nodes.contains_key(&node))
        {
            return;
        }
        let known = self.nodes.entry(node).or_default();
        // A node's own word about where it is counts more than hearsay.
        if known.heartbeat.is_none() {
            known.addresses = addresses.iter().take(ADDRESSES_MAX).copied().collect();
        }
    }

    pub(super) fn link_up(&mut self, node: NodeId, now: Tick) {
        let known = self.nodes.entry(node).or_default();
        known.linked = true;
        known.heard_at = Some(now);
        known.redial_ms = 0;
        (known.linked_at, known.is_probed) = (now, false);
    }

    pub(super) fn link_down(&mut self, node: NodeId, now: Tick, redial_ms: u64) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.linked = false;
            known.next_dial = now.plus_ms(redial_ms);
        }
    }

    pub(super) fn dial_failed(&mut self, node: NodeId, now: Tick, (first, last): (u64, u64)) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.redial_ms = (known.redial_ms * 2).clamp(first, last);
            known.next_dial = now.plus_ms(known.redial_ms);
        }
    }

    /// Says whether anything is new that placements depend on.
    pub(super) fn heard(&mut self, node: NodeId, heartbeat: Heartbeat, now: Tick) -> bool {
        let known = self.nodes.entry(node).or_default();
        known.heard_at = Some(now);
        if !heartbeat.addresses.is_empty() {
            known.addresses = heartbeat.addresses.clone();
        }
        let new = &heartbeat;
        let is_same = known.heartbeat.as_ref().is_some_and(|old| {
            old.offers == new.offers
                && old.is_busy == new.is_busy
                && old.round_trips_us == new.round_trips_us
                && old.throughputs_kib == new.throughputs_kib
        });
        let clock_ms = ahead_ms(heartbeat.at, now);
        if known.clock_ms.is_none_or(|told| told.abs_diff(clock_ms) > CLOCK_STEP_MS) {
            known.clock_ms = Some(clock_ms);
        }
        known.heartbeat = Some(heartbeat);
        !is_same
    }

    /// Whether a link to `node` is open.
    pub(super) fn is_linked(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|known| known.linked)
    }

    /// Linked nodes that were not heard for `silence_ms_max`.
    pub(super) fn silent(&self, now: Tick, silence_ms_max: u64) -> Vec<NodeId> {
        let is_silent = |known: &Known| {
            known.linked && known.heard_at.is_none_or(|t| now.since_ms(t) > silence_ms_max)
        };
        self.nodes.iter().filter(|(_, known)| is_silent(known)).map(|(id, _)| *id).collect()
    }

    /// Whether there is a node that never said anything.
    pub(super) fn is_anybody_unheard(&self) -> bool {
        self.nodes.values().any(|known| known.heartbeat.is_none())
    }

    /// A node that nobody knows of how much gets to it from `me`, although it has been linked for a while. Each
    /// is returned once a link.
    pub(super) fn due_probe(&mut self, me: NodeId, now: Tick) -> Option<NodeId> {
        let is_told = |known: &Known| {
            let told = known.heartbeat.as_ref().map(|beat| &beat.throughputs_kib);
            // One that has not spoken yet cannot have told.
            told.is_none_or(|told| told.iter().any(|(node, _)| *node == me))
        };
        let is_due = |known: &Known| {
            known.linked && !known.is_probed && now.since_ms(known.linked_at) >= PROBE_MS
        };
        let due = self.nodes.iter_mut().find(|(_, known)| is_due(known) && !is_told(known));
        due.map(|(node, known)| {
            known.is_probed = true;
            *node
        })
    }

    /// Unlinked nodes whose turn it is to be dialled; each is returned once per pause.
    pub(super) fn due_dials(&mut self, now: Tick) -> Vec<(NodeId, Vec<SocketAddr>)> {
        let due =
            |known: &Known| !known.linked && !known.addresses.is_empty() && known.next_dial <= now;
        let mut dials = Vec::new();
        for (id, known) in self.nodes.iter_mut().filter(|(_, known)| due(known)) {
            // Until the outcome of this dial is known.
            known.next_dial = now.plus_ms(DIAL_MS_MAX);
            dials.push((*id, known.addresses.clone()));
        }
        dials
    }
}

/// How long traffic has to show by itself how much goes through a new link, in milliseconds.
const PROBE_MS: u64 = 5_000;

/// No second dial while one may still be under way, in milliseconds.
const DIAL_MS_MAX: u64 = 15_000;

/// How far a clock that says `at` is ahead of one that says `now`.
fn ahead_ms(at: Tick, now: Tick) -> i64 {
    let ms = i128::from(at.0) - i128::from(now.0);
    i64::try_from(ms).unwrap_or(if ms < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heartbeat(at: u64) -> Heartbeat {
        Heartbeat {
            name: "n".into(),
            at: Tick(at),
            memory_bytes: 0,
            addresses: Vec::new(),
            ledger_height: 0,
            load: 0,
            is_busy: false,
            asked: Vec::new(),
            round_trips_us: Vec::new(),
            throughputs_kib: Vec::new(),
            machine: crate::wire::Machine::default(),
            closed: None,
            offers: Vec::new(),
            peers: Vec::new(),
        }
    }

    /// Goal: another clock is told by what its owner says, in steps that a slow link alone does not make.
    #[test]
    fn clocks_are_compared_in_steps() {
        let (mut directory, node) = (Directory::default(), NodeId([1; 32]));
        let mut hear = |at, now| {
            directory.heard(node, heartbeat(at), Tick(now));
            directory.nodes().next().and_then(|(_, known)| known.clock_ms)
        };
        assert_eq!(hear(10_000, 10_050), Some(-50));
        assert_eq!(hear(11_000, 11_500), Some(-50), "half a second on the way");
        assert_eq!(hear(72_000, 12_000), Some(60_000), "the clock was set");
        assert_eq!(hear(u64::MAX, 0), Some(i64::MAX));
        assert_eq!(hear(0, u64::MAX), Some(i64::MIN));
    }
}
