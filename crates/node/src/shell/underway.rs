//! Layers on their way into memory: how far each load is, for whoever waits for it. Decides nothing.

use crate::api::UnderwayReport;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use talka_base::LayerSpan;

/// The loads of one model, by span.
#[derive(Debug, Default)]
pub(crate) struct Underway {
    spans: Mutex<BTreeMap<LayerSpan, Progress>>,
}

#[derive(Debug, Clone)]
struct Progress {
    fetching: bool,
    bytes_here: Arc<AtomicU64>,
    bytes: u64,
}

/// One load; over when dropped.
#[derive(Debug)]
pub(crate) struct Load<'a> {
    underway: &'a Underway,
    span: LayerSpan,
    bytes_here: Arc<AtomicU64>,
}

impl Underway {
    /// `bytes` of `span` come from elsewhere; so many are here.
    pub(crate) fn fetching(&self, span: LayerSpan, bytes_here: u64, bytes: u64) -> Load<'_> {
        self.begin(span, true, bytes_here, bytes)
    }

    /// `bytes` of `span` are read from the disk.
    pub(crate) fn loading(&self, span: LayerSpan, bytes: u64) -> Load<'_> {
        self.begin(span, false, 0, bytes)
    }

    fn begin(&self, span: LayerSpan, fetching: bool, bytes_here: u64, bytes: u64) -> Load<'_> {
        let bytes_here = Arc::new(AtomicU64::new(bytes_here));
        let progress = Progress { fetching, bytes_here: Arc::clone(&bytes_here), bytes };
        self.lock().insert(span, progress);
        Load { underway: self, span, bytes_here }
    }

    /// All loads together, if there is one.
    pub(crate) fn report(&self) -> Option<UnderwayReport> {
        let spans = self.lock();
        let sum = |of: fn(&Progress) -> u64| spans.values().map(of).fold(0, u64::saturating_add);
        (!spans.is_empty()).then(|| UnderwayReport {
            fetching: spans.values().any(|progress| progress.fetching),
            bytes_here: sum(|progress| progress.bytes_here.load(Ordering::Relaxed)),
            bytes: sum(|progress| progress.bytes),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<LayerSpan, Progress>> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Load<'_> {
    /// So many bytes are here now.
    pub(crate) fn reached(&self, bytes: u64) {
        self.bytes_here.store(bytes, Ordering::Relaxed);
    }

    /// Where that is counted.
    pub(crate) fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.bytes_here)
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.underway.lock().remove(&self.span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_told_together_until_they_are_over() {
        let underway = Underway::default();
        let span = |start, end| LayerSpan::new(start, end).expect("a span");
        assert_eq!(underway.report(), None);
        let loading = underway.loading(span(0, 2), 100);
        loading.reached(40);
        let told =
            |fetching, bytes_here, bytes| Some(UnderwayReport { fetching, bytes_here, bytes });
        assert_eq!(underway.report(), told(false, 40, 100));
        let fetching = underway.fetching(span(2, 6), 7, 300);
        fetching.counter().store(60, Ordering::Relaxed);
        assert_eq!(underway.report(), told(true, 100, 400));
        drop(loading);
        assert_eq!(underway.report(), told(true, 60, 300));
        drop(fetching);
        assert_eq!(underway.report(), None);
    }
}
