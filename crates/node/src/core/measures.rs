//! What a node tells the others of its own speed, load and links.
//!
//! Measurements never stand still. What is told changes only where one moved by a fifth, so that placements, which
//! everybody computes from it, rest while nothing happens. Whether a node is busy is a matter of a minute, not of one
//! request.

use crate::wire::ROUND_TRIPS_MAX;
use std::collections::BTreeMap;
use talka_base::{ModelId, NodeId, Tick};

/// What is told follows where it is off by this part of it...
const DRIFT_MAX: u32 = 5;
/// ...and by this much: below, it is noise.
const LAYER_US_NOISE: u32 = 50;
const ROUND_TRIP_US_NOISE: u32 = 1_000;

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
}

/// What is told.
#[derive(Debug, Default)]
pub struct Measures {
    layer_us: BTreeMap<ModelId, u32>,
    round_trips_us: BTreeMap<NodeId, u32>,
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
            changed |= follow(self.layer_us.entry(model).or_default(), us, LAYER_US_NOISE);
        }
        let before = self.round_trips_us.len();
        let mut nearest = sample.round_trips_us;
        nearest.sort_by_key(|(node, us)| (*us, *node));
        nearest.truncate(ROUND_TRIPS_MAX);
        self.round_trips_us.retain(|node, _| nearest.iter().any(|(other, _)| other == node));
        changed |= self.round_trips_us.len() != before;
        for (node, us) in nearest {
            changed |=
                follow(self.round_trips_us.entry(node).or_default(), us, ROUND_TRIP_US_NOISE);
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

    /// Sessions now.
    pub fn load(&self) -> u32 {
        self.load
    }

    /// Whether there have been many for a while.
    pub fn is_busy(&self) -> bool {
        self.is_busy
    }
}

/// Moves `told` to `found` if it is off by more than drift and noise; 0 is nothing yet.
fn follow(told: &mut u32, found: u32, noise: u32) -> bool {
    let found = found.max(1);
    let drift = told.abs_diff(found);
    let is_off = *told == 0 || drift > noise && drift > *told / DRIFT_MAX;
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
        Sample { layer_us: vec![(MODEL, us)], load, round_trips_us: peers.collect() }
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
