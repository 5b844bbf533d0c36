//! Which models this node keeps in memory, by what callers anywhere in the network ask for.
//!
//! A model that is asked for and that nobody serves whole is loaded by as few nodes as can hold it: those that have it
//! already first, then those that can hold all of it, then by id. Everybody reckons this alone, from what all tell.

use super::{Core, OwnModel};
use std::{cmp::Reverse, collections::BTreeMap};
use talka_base::{ModelId, Tick};
use talka_plan::{
    residency::{Held, Policy, share},
    uncovered,
};

/// The others are told for this long that somebody here asked for a model, in milliseconds: a few heartbeats.
const ASKED_MS: u64 = 5_000;

/// Who asks for a model that nobody has in memory waits for this long, in milliseconds.
const WISH_MS: u64 = 90_000;

/// What callers of this node asked for, and when.
#[derive(Debug, Default)]
pub(super) struct Asked(BTreeMap<ModelId, Tick>);

impl Asked {
    fn note(&mut self, model: ModelId, now: Tick) {
        self.0.retain(|_, at| now.since_ms(*at) <= ASKED_MS);
        self.0.insert(model, now);
    }

    /// Models asked for lately.
    pub(super) fn lately(&self, now: Tick) -> Vec<ModelId> {
        let lately = self.0.iter().filter(|(_, at)| now.since_ms(**at) <= ASKED_MS);
        lately.map(|(model, _)| *model).collect()
    }
}

impl Core {
    /// A caller of this node asks for `model`.
    pub(super) fn asked(&mut self, model: ModelId, now: Tick) {
        self.asked.note(model, now);
        self.wanted(model, now);
        if !self.is_complete(model) {
            // Somebody may have to load it: the sooner they hear of it, the better.
            self.next_heartbeat = Tick(0);
        }
    }

    /// A caller of some node asks for `model`.
    pub(super) fn wanted(&mut self, model: ModelId, now: Tick) {
        if let Some(own) = self.models.iter_mut().find(|own| own.id == model) {
            own.wanted_at = Some(now);
            self.is_stale |= self.policy != Policy::Specialised;
        }
    }

    /// A model was asked for and has no room: it may have its turn as time passes.
    pub(super) fn somebody_waits(&self, now: Tick) -> bool {
        let waits = |model: &OwnModel| model.share_bytes == Some(0) && !model.rests;
        self.models.iter().any(|model| waits(model) && is_wished(model, now))
    }

    /// Shares the memory out anew.
    pub(super) fn share_memory(&mut self, now: Tick) {
        let awake = self.models.iter().filter(|model| !model.rests);
        let held: Vec<Held> = awake.map(|model| self.held(model, now)).collect();
        let mut shares = share(self.policy, self.memory_bytes, now, &held).into_iter();
        for model in &mut self.models {
            let bytes = if model.rests { 0 } else { shares.next().unwrap_or(0) };
            model.share_bytes = Some(bytes);
            model.resident_since = model.resident_since.or(Some(now)).filter(|_| bytes > 0);
            if !model.loading.is_empty() {
                // Its time begins when it is there.
                model.resident_since = model.resident_since.map(|_| now);
            }
        }
    }

    fn held(&self, model: &OwnModel, now: Tick) -> Held {
        let is_resident = model.resident_since.is_some();
        Held {
            model: model.id,
            bytes: model.bytes,
            is_core: model.is_core,
            wanted_at: model
                .wanted_at
                .filter(|_| is_resident || is_wished(model, now) && self.is_its_turn(model)),
            resident_since: model.resident_since.filter(|at| *at <= now),
        }
    }

    /// Whether this node is one of those that should load a model that is not complete.
    fn is_its_turn(&self, model: &OwnModel) -> bool {
        if self.is_complete(model.id) {
            return false;
        }
        let me = (0, self.could_bytes(model), self.me);
        let mut nodes = self.directory.offered_bytes(model.id);
        nodes.push(me);
        nodes.sort_by_key(|(has, could, node)| (Reverse(*has), *could < model.bytes, *node));
        let mut before = 0_u64;
        for (has, could, node) in nodes {
            if before >= model.bytes {
                return false;
            }
            if node == self.me {
                return true;
            }
            before = before.saturating_add(has.max(could));
        }
        false
    }

    fn is_complete(&self, model: ModelId) -> bool {
        let layers = self.models.iter().find(|own| own.id == model).map_or(0, |own| own.layers);
        let served = self.served(model);
        uncovered(layers, served.into_iter().map(|(_, span)| span)).is_empty()
    }

    /// Bytes that a model could have here if it were asked for.
    pub(super) fn could_bytes(&self, model: &OwnModel) -> u64 {
        if self.policy == Policy::Specialised || model.rests {
            return 0;
        }
        let stays = |other: &&OwnModel| other.is_core && !other.rests && other.id != model.id;
        let stay = self.models.iter().filter(stays);
        let stay: u64 = stay.map(|other| other.bytes).sum();
        let stay = if self.policy == Policy::Mixed { stay } else { 0 };
        self.memory_bytes.saturating_sub(stay).min(model.bytes)
    }

    /// Whether nodes would load `model` if it were asked for, and could hold all of it together.
    pub fn can_be_loaded(&self, model: ModelId) -> bool {
        let Some(own) = self.models.iter().find(|own| own.id == model) else { return false };
        let mut nodes = self.directory.offered_bytes(model);
        nodes.push((own.share_bytes.unwrap_or(0), self.could_bytes(own), self.me));
        let sum = |sum: u64, (has, could, _): &(u64, u64, _)| sum.saturating_add(*has.max(could));
        nodes.iter().any(|(_, could, _)| *could > 0) && nodes.iter().fold(0, sum) >= own.bytes
    }
}

/// Somebody may still wait for it.
fn is_wished(model: &OwnModel, now: Tick) -> bool {
    model.wanted_at.is_some_and(|at| now.since_ms(at) < WISH_MS)
}
