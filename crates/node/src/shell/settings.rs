//! What the owner may change while the node runs, and what that was when it started.
//!
//! What is changed is kept, and holds after a restart, too, unless the node is then started with flags that say otherwise.
//! Nothing is decided here: [`crate::core`] takes the limits in.

use crate::{
    config::{NodeConfig, StartError},
    core::owner::{Hours, Opening},
    store::{Store, StoreError},
};
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, MutexGuard, PoisonError};
use talka_base::{Encoded, decode, encode};
use talka_engine::quant::Encoding;
use talka_plan::residency::Policy;

/// Hours of different days that one node may keep: a few for each day.
pub(crate) const HOURS_MAX: usize = 32;

const LIMITS_KEY: &str = "limits";

/// What the owner set, and what cannot change before the next start.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) threads: usize,
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

/// What may change. Hours are text, as people write them: what is kept outlives this program's version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Memory for weights and caches in bytes; half of the machine's if absent.
    pub(crate) memory_bytes: Option<u64>,
    hours: Vec<String>,
    when_idle: bool,
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
        self
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
        let mut limits = Limits { memory_bytes: Some(1 << 30), ..Limits::default() };
        limits.open(&opening);
        let kept: Limits = decode(&encode(&limits)).expect("what was encoded");
        assert_eq!(kept, limits);
        assert_eq!(kept.opening(), opening);
        let longest = "wed-tue 10:00-23:59".len() + 2;
        assert!(longest * HOURS_MAX + 16 <= Limits::SIZE_MAX);
    }
}
