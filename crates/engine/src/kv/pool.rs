//! The memory of all caches of a node.
//!
//! A cache reserves the most it can ever need when it is made, so one that was admitted never runs out
//! half-way. Pages are taken as positions fill them. What is left meanwhile may hold pages that no
//! cache uses, kept for prefixes that come again: they go, the longest unused first, when a page is
//! needed. Counts are exact: a page is counted from when it is taken until its last holder drops it.

use super::prefix::PrefixIndex;
use crate::{
    error::StageError,
    kernels::{Page, PageShape},
};
use std::{
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// A limit in bytes that caches share. Cheap to clone; clones are the same pool.
#[derive(Debug, Clone)]
pub struct PagePool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bytes_max: u64,
    bytes_reserved: AtomicU64,
    /// Its pages hold this too, not the pool, which holds pages.
    bytes_taken: Arc<AtomicU64>,
    /// Held while pages are taken, so that two takers never both see the last bytes free.
    prefixes: Mutex<PrefixIndex>,
}

/// Bytes that a cache may take. Given back when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    pool: PagePool,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.pool.0.bytes_reserved.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// A page that its pool counts.
#[derive(Debug)]
pub(super) struct PooledPage {
    page: Page,
    bytes_taken: Arc<AtomicU64>,
}

impl Deref for PooledPage {
    type Target = Page;

    fn deref(&self) -> &Page {
        &self.page
    }
}

impl PooledPage {
    /// For writing.
    pub fn page_mut(&mut self) -> &mut Page {
        &mut self.page
    }
}

impl Drop for PooledPage {
    fn drop(&mut self) {
        let bytes = self.page.shape().bytes() as u64;
        self.bytes_taken.fetch_sub(bytes, Ordering::AcqRel);
    }
}

impl PagePool {
    /// A pool of at most `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self(Arc::new(Inner {
            bytes_max,
            bytes_reserved: AtomicU64::new(0),
            bytes_taken: Arc::default(),
            prefixes: Mutex::default(),
        }))
    }

    /// The limit.
    pub fn bytes_max(&self) -> u64 {
        self.0.bytes_max
    }

    /// What the caches that live now may take in all. Never more than the limit.
    pub fn bytes_reserved(&self) -> u64 {
        self.0.bytes_reserved.load(Ordering::Acquire)
    }

    /// What pages take now, those kept for prefixes included. Never more than the limit.
    pub fn bytes_taken(&self) -> u64 {
        self.0.bytes_taken.load(Ordering::Acquire)
    }

    /// # Errors
    /// [`StageError::NoMemory`] if the caches that live leave less than that.
    pub(super) fn reserve(&self, bytes: u64) -> Result<Reservation, StageError> {
        let (reserved, max) = (&self.0.bytes_reserved, self.0.bytes_max);
        let grown = |now: u64| now.checked_add(bytes).filter(|sum| *sum <= max);
        match reserved.fetch_update(Ordering::AcqRel, Ordering::Acquire, grown) {
            Ok(_) => Ok(Reservation { pool: self.clone(), bytes }),
            Err(now) => Err(StageError::NoMemory { wanted: bytes, left: max - now, max }),
        }
    }

    /// Forgets the prefixes that a stage computed, which is gone or will be.
    pub fn forget(&self, stage: &crate::Stage) {
        self.prefixes().forget_stage(stage.number());
    }

    /// A page of zeros, within a reservation.
    pub(super) fn take(&self, shape: PageShape) -> Arc<PooledPage> {
        self.count(shape);
        let bytes_taken = Arc::clone(&self.0.bytes_taken);
        Arc::new(PooledPage { page: Page::new(shape), bytes_taken })
    }

    /// A copy that its holder may write, within a reservation.
    pub(super) fn copy(&self, page: &PooledPage) -> Arc<PooledPage> {
        self.count(page.shape());
        let bytes_taken = Arc::clone(&self.0.bytes_taken);
        Arc::new(PooledPage { page: page.page.clone(), bytes_taken })
    }

    /// Counts a page of `shape`, after making room. There is always enough to make: beyond what caches
    /// reserved there are only pages that no cache uses.
    fn count(&self, shape: PageShape) {
        let bytes = shape.bytes() as u64;
        let mut prefixes = self.prefixes();
        while self.bytes_taken() + bytes > self.0.bytes_max && prefixes.evict() {}
        self.0.bytes_taken.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(super) fn prefixes(&self) -> MutexGuard<'_, PrefixIndex> {
        // Nothing that panics runs while it is held.
        self.0.prefixes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
