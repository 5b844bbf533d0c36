//! Events that wait to be ordered, on every node that may have to see to it.

use crate::{entry::Event, ledger::Ledger};
use std::collections::BTreeMap;
use talka_base::{EventId, Tick};

/// In the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// By place.
    events: BTreeMap<u64, Waiting>,
    places: BTreeMap<EventId, u64>,
    next: u64,
}

/// An event that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub event: Box<Event>,
    pub since: Tick,
    /// Somebody waits for it at this node, which therefore sends it again.
    pub is_ours: bool,
}

impl Pool {
    pub fn len(&self) -> usize {
        self.events.len()
    }

    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Adds an event; says whether it is new here.
    pub fn add(&mut self, event: Box<Event>, since: Tick, is_ours: bool) -> bool {
        let id = event.id();
        if let Some(known) = self.places.get(&id).and_then(|place| self.events.get_mut(place)) {
            known.is_ours |= is_ours;
            return false;
        }
        self.places.insert(id, self.next);
        self.events.insert(self.next, Waiting { event, since, is_ours });
        self.next += 1;
        true
    }

    /// Takes out an event that need not wait any more.
    pub fn remove(&mut self, id: &EventId) -> Option<Waiting> {
        self.places.remove(id).and_then(|place| self.events.remove(&place))
    }

    /// Takes out those that the ledger would refuse at `now`, of those that came before `before`.
    pub fn refused(
        &mut self,
        ledger: &Ledger,
        now: Tick,
        before: Tick,
    ) -> Vec<(Box<Event>, crate::LedgerError)> {
        let old = self.events.values().filter(|waiting| waiting.since < before);
        let refused: Vec<_> = old
            .filter_map(|waiting| {
                let error = ledger.would_take(now, &waiting.event).err()?;
                Some((waiting.event.id(), error))
            })
            .collect();
        let out = |(id, error)| Some((self.remove(&id)?.event, error));
        refused.into_iter().filter_map(out).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.events.values()
    }

    pub fn into_events(self) -> impl Iterator<Item = Box<Event>> {
        self.events.into_values().map(|waiting| waiting.event)
    }
}
