//! Full pages of prompts, found again by the tokens that led to them.
//!
//! An entry is one page of positions in every layer. Its key is the entry before it and its own tokens,
//! compared as they are, so two prompts share exactly the pages over which they are equal from their
//! first token on. Entries whose pages a live cache also holds may be forgotten at any time: the cache
//! keeps its pages. Decides nothing about memory; [`PagePool`](super::PagePool) says when to evict.

use super::pool::PooledPage;
use crate::kernels::CacheElement;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// Names an entry. A later one has a higher number, hence children higher ones than their parent.
pub(super) type EntryId = u64;

/// What pages were computed by: never shared across.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Root {
    /// The stage's number.
    pub stage: u64,
    /// Given by the caller.
    pub namespace: u64,
    /// The number of the adapter; 0 if there is none.
    pub adapter: u64,
    pub element: CacheElement,
}

/// What a page follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Parent {
    Root(Root),
    Entry(EntryId),
}

type Key = (Parent, Arc<[u32]>);

#[derive(Debug)]
struct Entry {
    key: Key,
    /// One of each layer.
    pages: Vec<Arc<PooledPage>>,
    stage: u64,
    used_at: u64,
}

/// All prefixes of a pool.
#[derive(Debug, Default)]
pub(super) struct PrefixIndex {
    by_key: HashMap<Key, EntryId>,
    entries: BTreeMap<EntryId, Entry>,
    next: EntryId,
    /// Counts uses.
    clock: u64,
}

impl PrefixIndex {
    /// The entry for `tokens` after `parent`, and its pages.
    pub fn find(&self, parent: Parent, tokens: &[u32]) -> Option<(EntryId, &[Arc<PooledPage>])> {
        let id = *self.by_key.get(&(parent, Arc::from(tokens)))?;
        Some((id, &self.entries[&id].pages))
    }

    /// Keeps the pages of `tokens` after `parent`. None if the parent was forgotten: nobody would find
    /// them.
    pub fn insert(
        &mut self,
        root: Root,
        parent: Parent,
        tokens: &[u32],
        pages: Vec<Arc<PooledPage>>,
    ) -> Option<EntryId> {
        if let Parent::Entry(id) = parent {
            self.entries.get(&id)?;
        }
        let key: Key = (parent, Arc::from(tokens));
        let id = self.next;
        self.next += 1;
        self.by_key.insert(key.clone(), id);
        let entry = Entry { key, pages, stage: root.stage, used_at: self.clock };
        self.entries.insert(id, entry);
        Some(id)
    }

    /// Notes that the entries of one chain are in use now.
    pub fn touch(&mut self, chain: &[EntryId]) {
        self.clock += 1;
        for id in chain {
            if let Some(entry) = self.entries.get_mut(id) {
                entry.used_at = self.clock;
            }
        }
    }

    /// Forgets the longest unused entry with a page that no cache holds, and what follows it. False if
    /// there is none.
    pub fn evict(&mut self) -> bool {
        let frees = |(_, entry): &(&EntryId, &Entry)| {
            entry.pages.iter().any(|page| Arc::strong_count(page) == 1)
        };
        // Of entries used together the last first: the others are found without it.
        let least = |(id, entry): &(&EntryId, &Entry)| (entry.used_at, Reverse(**id));
        let Some((&id, _)) = self.entries.iter().filter(frees).min_by_key(least) else {
            return false;
        };
        self.forget(id);
        true
    }

    /// Forgets all that a stage computed.
    pub fn forget_stage(&mut self, stage: u64) {
        self.entries.retain(|_, entry| entry.stage != stage);
        let entries = &self.entries;
        self.by_key.retain(|_, id| entries.contains_key(id));
    }

    /// Forgets an entry and all that follow it.
    fn forget(&mut self, id: EntryId) {
        let mut gone = BTreeSet::from([id]);
        for (child, entry) in self.entries.range(id + 1..) {
            if matches!(entry.key.0, Parent::Entry(parent) if gone.contains(&parent)) {
                gone.insert(*child);
            }
        }
        for id in gone {
            if let Some(entry) = self.entries.remove(&id) {
                self.by_key.remove(&entry.key);
            }
        }
    }
}
