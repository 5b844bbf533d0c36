//! Answers that can be gone on with: keeps what their heads choose, and ends one that is asked for again.
//!
//! An answer has one head at a time. Whoever goes on with it takes it over from the one that still gives it to a
//! connection that broke without a word.

use super::Shared;
use crate::{
    api::{GenerateError, Resume},
    core::resume::{Begun, Chosen},
    store::journal::{Journal, Journals},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};
use talka_base::RequestId;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

/// A head that is told to leave an answer does so within this time: it waits for nothing but its caller.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(5);

/// The answers of this node's heads.
#[derive(Debug)]
pub(crate) struct Answers {
    journals: Journals,
    live: Mutex<HashMap<RequestId, Live>>,
}

/// How to end an answer that is being given.
#[derive(Debug, Clone)]
struct Live {
    leave: Arc<Notify>,
    /// Ends when it is left.
    left: watch::Receiver<()>,
}

/// What one head keeps of the answer it gives. Dropping it leaves the answer to others.
pub(super) struct Record {
    shared: Arc<Shared>,
    request: RequestId,
    /// Absent once the disk refused something.
    journal: Option<Journal>,
    leave: Arc<Notify>,
    _left: watch::Sender<()>,
}

impl Answers {
    pub(crate) fn new(journals: Journals) -> Self {
        Self { journals, live: Mutex::default() }
    }

    /// Forgets old answers. Blocks.
    pub(crate) fn sweep(&self) {
        if let Err(error) = self.journals.sweep(SystemTime::now()) {
            tracing::warn!(%error, "old answers are not removed");
        }
    }

    /// What is kept of the answer to `resume` as one to `question`, once nobody gives it any more.
    ///
    /// # Errors
    /// [`GenerateError::NotResumable`].
    pub(super) async fn take_over(
        &self,
        resume: Resume,
        question: [u8; 32],
    ) -> Result<(Begun, Vec<Chosen>), GenerateError> {
        let request = resume.request;
        let refused = |reason| GenerateError::NotResumable { request, reason };
        let live = self.lock().get(&request).cloned();
        if let Some(Live { leave, mut left }) = live {
            leave.notify_one();
            // No value is ever sent: it changes by ending.
            let left = timeout(LEAVE_TIME_MAX, left.changed()).await;
            left.map_err(|_| refused("it is being given to another caller"))?.unwrap_or_default();
        }
        let kept = self.journals.read(request).map_err(|error| {
            tracing::warn!(%error, %request, "what was kept of an answer cannot be read");
            refused("what this node kept of it cannot be read")
        })?;
        match kept {
            None => Err(refused(
                "this node keeps none of that name; answers are kept for ten minutes, those of upstreams never",
            )),
            Some((begun, _)) if begun.question != question => {
                Err(refused("it answers another prompt or model; send what was sent then"))
            }
            Some(kept) => Ok(kept),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RequestId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    /// Begins to keep the answer to `request`, of which `chosen` is known already.
    pub fn begin(
        shared: &Arc<Shared>,
        request: RequestId,
        begun: &Begun,
        chosen: &[Chosen],
    ) -> Self {
        let journal = shared.answers.journals.begin(request, begun, chosen);
        let journal = journal.map_err(|error| not_kept(request, &error)).ok();
        let leave = Arc::new(Notify::new());
        let (sender, left) = watch::channel(());
        shared.answers.lock().insert(request, Live { leave: Arc::clone(&leave), left });
        Self { shared: Arc::clone(shared), request, journal, leave, _left: sender }
    }

    /// Keeps what a step chose. A write to the system's cache: it does not wait for the disk.
    pub fn keep(&mut self, chosen: &Chosen) {
        let added = self.journal.as_mut().map(|journal| journal.add(chosen));
        if let Some(Err(error)) = added {
            not_kept(self.request, &error);
            self.journal = None;
        }
    }

    /// Ends when somebody else shall go on.
    pub async fn taken_over(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let mut live = self.shared.answers.lock();
        // Another one may have begun after waiting in vain for this one.
        if live.get(&self.request).is_some_and(|live| Arc::ptr_eq(&live.leave, &self.leave)) {
            live.remove(&self.request);
        }
    }
}

/// An answer is worth more than a copy of it.
fn not_kept(request: RequestId, error: &std::io::Error) {
    tracing::warn!(%error, %request, "an answer is not kept: it cannot be gone on with");
}
