//! What a node tells the others of its own speed, load and links.
//!
//! Measurements never stand still. What is told changes only where one moved by a fifth, so that placements, which
//! everybody computes from it, rest while nothing happens. Whether a node is busy is a matter of a minute, not of one
//! request.

use crate::wire::{Machine, ROUND_TRIPS_MAX};
use std::collections::BTreeMap;
use talka_base::{ModelId, NodeId, Tick};

/// What is told follows where it is off by this part of it...
const DRIFT_MAX: u32 = 5;
/// ...and how much goes through a link, which varies most, by this part...
const THROUGHPUT_DRIFT_MAX: u32 = 2;
/// ...and by this much: below, it is noise.
const LAYER_US_NOISE: u32 = 50;
const ROUND_TRIP_US_NOISE: u32 = 1_000;
const THROUGHPUT_KIB_NOISE: u32 = 64;
/// Millions a second, of operations and of bytes.
const MACHINE_NOISE: u32 = 100;

/// A node is busy from this many sessions on average...
const BUSY_SESSIONS: u64 = 4;
/// ...until there are no more than this many...
const IDLE_SESSIONS: u64 = 1;
/// ...over about this time, in milliseconds.
const BUSY_MS: u64 = 60_000;
/// A session, as averages count them.
const SESSION: u64 = 1_000_000;

/// What was measured until now.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Microseconds for one token through one layer, of models that ran.
    pub layer_us: Vec<(ModelId, u32)>,
    /// Sessions that stages here hold.
    pub load: u32,
    /// Microseconds to linked nodes and back.
    pub round_trips_us: Vec<(NodeId, u32)>,
    /// KiB a second from linked nodes.
    pub throughputs_kib: Vec<(NodeId, u32)>,
    /// How fast this one computes.
    pub machine: Machine,
}

/// What is told.
#[derive(Debug, Default)]
pub struct Measures {
    layer_us: BTreeMap<ModelId, u32>,
    round_trips_us: BTreeMap<NodeId, u32>,
    throughputs_kib: BTreeMap<NodeId, u32>,
    machine: Machine,
    load: u32,
    load_average: u64,
    sampled_at: Option<Tick>,
    is_busy: bool,
}

impl Measures {
    /// Takes a sample in. Says whether anything changed that placements depend on.
    pub fn take(&mut self, now: Tick, sample: Sample) -> bool {
        let mut changed = self.take_load(now, sample.load);
        for (model, us) in sample.layer_us {
            let told = self.layer_us.entry(model).or_default();
            changed |= follow(told, us, LAYER_US_NOISE, DRIFT_MAX);
        }
        let before = self.round_trips_us.len();
        let mut nearest = sample.round_trips_us;
        nearest.sort_by_key(|(node, us)| (*us, *node));
        nearest.truncate(ROUND_TRIPS_MAX);
        self.round_trips_us.retain(|node, _| nearest.iter().any(|(other, _)| other == node));
        changed |= self.round_trips_us.len() != before;
        for (node, us) in nearest {
            let told = self.round_trips_us.entry(node).or_default();
            changed |= follow(told, us, ROUND_TRIP_US_NOISE, DRIFT_MAX);
        }
        // No placement depends on these.
        let (told, found) = (&mut self.machine, sample.machine);
        follow(&mut told.matmul_mflops, found.matmul_mflops, MACHINE_NOISE, DRIFT_MAX);
        follow(&mut told.memory_mbytes, found.memory_mbytes, MACHINE_NOISE, DRIFT_MAX);
        self.take_throughputs(sample.throughputs_kib) || changed
    }

    /// Those of the nodes whose round trips are told.
    fn take_throughputs(&mut self, found: Vec<(NodeId, u32)>) -> bool {
        let before = self.throughputs_kib.len();
        self.throughputs_kib.retain(|node, _| self.round_trips_us.contains_key(node));
        let mut changed = self.throughputs_kib.len() != before;
        for (node, kib) in found {
            if self.round_trips_us.contains_key(&node) {
                let told = self.throughputs_kib.entry(node).or_default();
                changed |= follow(told, kib, THROUGHPUT_KIB_NOISE, THROUGHPUT_DRIFT_MAX);
            }
        }
        changed
    }

    fn take_load(&mut self, now: Tick, load: u32) -> bool {
        let passed = self.sampled_at.map_or(0, |at| now.since_ms(at)).min(BUSY_MS);
        self.sampled_at = Some(now);
        self.load = load;
        let load = u64::from(load) * SESSION;
        self.load_average = (self.load_average * (BUSY_MS - passed) + load * passed) / BUSY_MS;
        let least =
            if self.is_busy { IDLE_SESSIONS * SESSION + 1 } else { BUSY_SESSIONS * SESSION };
        let was_busy = std::mem::replace(&mut self.is_busy, self.load_average >= least);
        was_busy != self.is_busy
    }

    /// Microseconds for one token through one layer of `model`, if it ever ran.
    pub fn layer_us(&self, model: ModelId) -> Option<u32> {
        self.layer_us.get(&model).copied()
    }

    /// To the nearest nodes and back, by id.
    pub fn round_trips_us(&self) -> impl Iterator<Item = (NodeId, u32)> + '_ {
        self.round_trips_us.iter().map(|(node, us)| (*node, *us))
    }

    /// KiB a second from them, by id.
    pub fn throughputs_kib(&self) -> impl Iterator<Item = (NodeId, u32)> + '_ {
        self.throughputs_kib.iter().map(|(node, kib)| (*node, *kib))
    }

    /// How fast this machine computes.
    pub fn machine(&self) -> Machine {
        self.machine
    }

    /// Sessions now.
    pub fn load(&self) -> u32 {
        self.load
    }

    /// Whether there have been many for a while.
    pub fn is_busy(&self) -> bool {
        self.is_busy
    }
}

/// Moves `told` to `found` if it is off by more than noise and a `part` of it; 0 is nothing yet.
fn follow(told: &mut u32, found: u32, noise: u32, part: u32) -> bool {
    let found = found.max(1);
    let drift = told.abs_diff(found);
    let is_off = *told == 0 || drift > noise && drift > *told / part;
    if is_off {
        *told = found;
    }
    is_off
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: ModelId = ModelId([1; 32]);

    fn sample(us: u32, load: u32) -> Sample {
        let peers = (0..80).map(|n| (NodeId([n; 32]), 5_000 + u32::from(n) * 100));
        let layer_us = vec![(MODEL, us)];
        Sample { layer_us, load, round_trips_us: peers.collect(), ..Sample::default() }
    }

    #[test]
    fn what_is_told_rests_until_something_moved() {
        let mut measures = Measures::default();
        assert!(measures.take(Tick(1), sample(1_000, 0)));
        for us in [1_150, 1_200, 801] {
            assert!(!measures.take(Tick(2), sample(us, 0)), "{us}");
        }
        assert_eq!(measures.layer_us(MODEL), Some(1_000));
        assert!(measures.take(Tick(3), sample(1_300, 0)));
        assert_eq!(measures.layer_us(MODEL), Some(1_300));
        let told: Vec<_> = measures.round_trips_us().collect();
        assert_eq!((told.len(), told[3]), (ROUND_TRIPS_MAX, (NodeId([3; 32]), 5_300)));
        let gone = Sample { round_trips_us: vec![], ..sample(1_300, 0) };
        assert!(measures.take(Tick(4), gone));
        assert_eq!(measures.round_trips_us().count(), 0);
    }

    #[test]
    fn throughputs_are_told_of_linked_nodes_and_follow_slowly() {
        let mut measures = Measures::default();
        let near = NodeId([1; 32]);
        let with = |kib| {
            let throughputs_kib = vec![(near, kib), (NodeId([200; 32]), 5)];
            Sample { throughputs_kib, ..sample(1_000, 0) }
        };
        assert!(measures.take(Tick(1), with(10_000)));
        for kib in [6_000, 14_000] {
            assert!(!measures.take(Tick(2), with(kib)), "{kib}");
        }
        assert_eq!(measures.throughputs_kib().collect::<Vec<_>>(), [(near, 10_000)]);
        assert!(measures.take(Tick(3), with(3_000)));
        let gone = Sample { round_trips_us: vec![], ..with(3_000) };
        assert!(measures.take(Tick(4), gone));
        assert_eq!(measures.throughputs_kib().count(), 0);
    }

    #[test]
    fn busy_is_who_has_many_sessions_for_long() {
        let mut measures = Measures::default();
        let mut busy_after = |load, seconds| {
            for _ in 0..seconds * 4 {
                let now = measures.sampled_at.unwrap_or(Tick(0)).plus_ms(250);
                measures.take(now, sample(1_000, load));
            }
            measures.is_busy()
        };
        assert!(!busy_after(3, 600));
        assert!(!busy_after(8, 5));
        assert!(busy_after(8, 60));
        assert!(busy_after(2, 600));
        assert!(!busy_after(0, 120));
    }
}
