//! What the owner may change while the node runs, and what that was when it started.
//!
//! What is changed is kept, and holds after a restart, too, unless the node is then started with flags that say otherwise.
//! Nothing is decided here: [`crate::core`] takes the limits in.

use super::machine;
use crate::{
    config::{NodeConfig, StartError},
    core::{owner::Opening, throttle::Throttle},
    store::{Store, StoreError},
};
use serde::{Deserialize, Serialize};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use talka_base::{Encoded, decode, encode};
use talka_engine::{kernels::ThreadPool, quant::Encoding};
use talka_plan::{availability::Hours, residency::Policy};

/// Hours of different days that one node may keep: a few for each day.
pub(crate) const HOURS_MAX: usize = 32;

const LIMITS_KEY: &str = "limits";

/// What the owner set, and what cannot change before the next start.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The threads that compute.
    pub(crate) pool: Arc<ThreadPool>,
    pub(crate) bandwidth: Bandwidth,
    /// For what sequences leave in the layers' caches, in bytes.
    pub(crate) caches_bytes: u64,
    /// For adapters and draft models, in bytes.
    pub(crate) extra_bytes: u64,
    pub(crate) policy: Policy,
    /// What weights are quantised to when they are loaded.
    pub(crate) weights: Option<Encoding>,
    pub(crate) limits: Mutex<Limits>,
}

impl Settings {
    pub(crate) fn limits(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What weights may take of the line, each way. Answers do not wait for it: what they send is little.
#[derive(Debug, Default)]
pub(crate) struct Bandwidth {
    given: Mutex<Throttle>,
    fetched: Mutex<Throttle>,
}

impl Bandwidth {
    /// With so many bytes a second each way; without a limit if 0.
    pub(crate) fn new(rate: u64) -> Self {
        let bandwidth = Self::default();
        bandwidth.set_rate(rate);
        bandwidth
    }

    pub(crate) fn set_rate(&self, rate: u64) {
        for way in [&self.given, &self.fetched] {
            lock(way).set_rate(rate);
        }
    }

    /// How long to wait after so many bytes went to another computer.
    pub(crate) fn gave(&self, bytes: u64) -> Duration {
        lock(&self.given).spend(super::now(), bytes)
    }

    /// How long to wait after so many bytes came from another computer.
    pub(crate) fn fetched(&self, bytes: u64) -> Duration {
        lock(&self.fetched).spend(super::now(), bytes)
    }
}

fn lock(throttle: &Mutex<Throttle>) -> MutexGuard<'_, Throttle> {
    throttle.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What may change. Hours are text, as people write them: what is kept outlives this program's version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Memory for weights and caches in bytes; half of the machine's if absent.
    pub(crate) memory_bytes: Option<u64>,
    hours: Vec<String>,
    when_idle: bool,
    /// Threads that compute; as many as there are processors if absent.
    pub(crate) threads: Option<u32>,
    /// Bytes a second for weights, each way; without a limit if 0.
    pub(crate) bandwidth: u64,
}

impl Encoded for Limits {
    const NAME: &'static str = "limits";
    const SIZE_MAX: usize = 64 * HOURS_MAX;
}

impl Limits {
    /// What was kept.
    pub(crate) fn kept(store: &Store) -> Result<Self, StartError> {
        let Some(bytes) = store.get(LIMITS_KEY)? else { return Ok(Self::default()) };
        let limits: Self = decode(&bytes).map_err(|error| StartError::Record {
            record: LIMITS_KEY,
            path: store.file().into(),
            reason: error.to_string(),
        })?;
        Ok(limits)
    }

    /// The same, but for what the owner said at the start.
    pub(crate) fn unless_told(mut self, config: &NodeConfig) -> Self {
        self.memory_bytes = config.memory_bytes.or(self.memory_bytes);
        if config.opening != Opening::default() {
            self.open(&config.opening);
        }
        let threads = config.threads.map(|threads| u32::try_from(threads).unwrap_or(u32::MAX));
        self.threads = threads.or(self.threads);
        self.bandwidth = config.bandwidth.unwrap_or(self.bandwidth);
        self
    }

    /// Threads that are to compute.
    pub(crate) fn threads(&self) -> usize {
        self.threads.map_or_else(machine::processors, |threads| threads as usize)
    }

    pub(crate) fn keep(&self, store: &Store) -> Result<(), StoreError> {
        store.put(LIMITS_KEY, &encode(self))
    }

    pub(crate) fn open(&mut self, opening: &Opening) {
        self.hours = opening.hours.iter().map(Hours::to_string).collect();
        self.when_idle = opening.when_idle;
    }

    /// Hours that this program cannot read are left out: they were none when they were kept.
    pub(crate) fn opening(&self) -> Opening {
        let hours = self.hours.iter().filter_map(|text| text.parse().ok()).collect();
        Opening { hours, when_idle: self.when_idle }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_in_words() {
        let hours = ["mon-fri 18:00-08:00", "22:00-07:00"].map(|text| text.parse().expect("hours"));
        let opening = Opening { hours: hours.to_vec(), when_idle: true };
        let mut limits = Limits {
            memory_bytes: Some(1 << 30),
            threads: Some(3),
            bandwidth: 125_000,
            ..Limits::default()
        };
        limits.open(&opening);
        let kept: Limits = decode(&encode(&limits)).expect("what was encoded");
        assert_eq!(kept, limits);
        assert_eq!(kept.opening(), opening);
        let longest = "wed-tue 10:00-23:59".len() + 2;
        assert!(longest * HOURS_MAX + 32 <= Limits::SIZE_MAX);
    }
}
