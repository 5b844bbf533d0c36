//! How many requests a node takes in: so many are answered at once, so many more wait for their turn, and the rest
//! are told to come again.
//!
//! Whoever waits holds nothing, and leaves the queue by leaving. So a call for several answers waits for the first
//! of them only: one that held some places and waited for more could wait for itself.

use super::keys::{KeyGuest, KeyHold};
use crate::api::GenerateError;
use std::{sync::Arc, time::Duration};
use talka_base::Credits;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// A caller waits no longer than this for its turn: most clients and proxies give up after a minute without a word.
const TURN_TIME_MAX: Duration = Duration::from_secs(30);

/// How many requests a node takes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Answered at once, at most [`super::REQUESTS_MAX`].
    pub running: usize,
    /// Waiting for their turn.
    pub waiting: usize,
}

impl Default for Load {
    /// What a computer with some cores answers faster together than one after the other, and as many again.
    fn default() -> Self {
        Self { running: 64, waiting: 64 }
    }
}

/// The places of a node.
#[derive(Debug)]
pub(crate) struct Places {
    load: Load,
    running: Arc<Semaphore>,
    waiting: Semaphore,
}

/// Whether a request may wait for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    Waits,
    /// It is now or never.
    Never,
}

/// What a request has while it is answered; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    /// The key that let its caller in, and whose budget pays, if one did.
    key: Option<KeyGuest>,
    _place: OwnedSemaphorePermit,
}

impl Admission {
    /// Sets aside the most that a part of the request may cost, if a key pays.
    pub(crate) fn hold(&self, most: Credits) -> Result<Option<KeyHold>, GenerateError> {
        Ok(self.key.as_ref().map(|key| key.hold(most)).transpose()?)
    }
}

impl Places {
    pub(crate) fn new(load: Load) -> Self {
        let load = Load { running: load.running.clamp(1, super::REQUESTS_MAX), ..load };
        let running = Arc::new(Semaphore::new(load.running));
        Self { load, running, waiting: Semaphore::new(load.waiting) }
    }

    /// A place for whoever `key` let in.
    ///
    /// # Errors
    /// [`GenerateError::Overloaded`] if all are taken and there is no waiting, or it was in vain.
    pub(crate) async fn admit(
        &self,
        key: Option<KeyGuest>,
        patience: Patience,
    ) -> Result<Admission, GenerateError> {
        let place = match Arc::clone(&self.running).try_acquire_owned() {
            Ok(place) => Some(place),
            Err(_) if patience == Patience::Never => None,
            Err(_) => self.turn().await,
        };
        let running = self.load.running;
        place
            .map(|place| Admission { key, _place: place })
            .ok_or(GenerateError::Overloaded { running })
    }

    /// A place, once one is free and all that waited before have theirs.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let _waits = self.waiting.try_acquire().ok()?;
        let place = timeout(TURN_TIME_MAX, Arc::clone(&self.running).acquire_owned()).await.ok()?;
        Some(place.expect("places are never closed"))
    }

    /// Requests that are answered now.
    pub(crate) fn running(&self) -> usize {
        self.load.running - self.running.available_permits()
    }

    /// Requests that may be answered at once.
    pub(crate) fn most(&self) -> usize {
        self.load.running
    }

    /// Whether another request would be taken in, to be answered or to wait.
    pub(crate) fn have_room(&self) -> bool {
        self.running.available_permits() > 0 || self.waiting.available_permits() > 0
    }

    /// Requests that wait for their turn.
    pub(crate) fn waiting(&self) -> usize {
        self.load.waiting - self.waiting.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::yield_now;

    async fn admit(places: &Places, patience: Patience) -> Result<Admission, GenerateError> {
        places.admit(None, patience).await
    }

    /// Goal: as many run and wait as may, the rest are refused, and turns come in order. Method: one place, one
    /// who waits; then the place is given back.
    #[tokio::test]
    async fn so_many_run_so_many_wait_and_the_rest_are_refused() {
        let places = Arc::new(Places::new(Load { running: 1, waiting: 1 }));
        let first = admit(&places, Patience::Waits).await.expect("a place");
        let waits = Arc::clone(&places);
        let second = tokio::spawn(async move { admit(&waits, Patience::Waits).await });
        while places.waiting() == 0 {
            yield_now().await;
        }
        for patience in [Patience::Waits, Patience::Never] {
            let refused = admit(&places, patience).await.expect_err("no place, no queue");
            assert_eq!(refused, GenerateError::Overloaded { running: 1 });
        }
        assert_eq!((places.running(), places.waiting()), (1, 1));
        drop(first);
        let second = second.await.expect("no panic").expect("its turn");
        assert_eq!((places.running(), places.waiting()), (1, 0));
        drop(second);
        assert_eq!(places.running(), 0);
    }

    #[tokio::test]
    async fn whoever_leaves_the_queue_makes_room_in_it() {
        let places = Arc::new(Places::new(Load { running: 1, waiting: 1 }));
        let _first = admit(&places, Patience::Never).await.expect("a place");
        for _ in 0..3 {
            let waits = Arc::clone(&places);
            let waiting = tokio::spawn(async move { admit(&waits, Patience::Waits).await });
            while places.waiting() == 0 {
                yield_now().await;
            }
            waiting.abort();
            assert!(waiting.await.is_err_and(|ended| ended.is_cancelled()));
            assert_eq!(places.waiting(), 0);
        }
    }
}
