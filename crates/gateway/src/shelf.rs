//! Models on this computer's disk, and fetching more: `/api/shelf`.
//!
//! Knows no hub and no disk: whoever starts the gateway gives it a [`Shelf`]. It decides how many fetches run and are
//! remembered, and what they look like from outside. A fetch goes on when whoever asked for it leaves; one that is
//! stopped, or that a stop of the node ends, goes on from what came when it is asked for again.

use crate::{error::ApiError, fields::Fields};
use axum::{Extension, Json, Router, routing::get, routing::post};
use serde::Serialize;
use std::{
    fmt::Debug,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{spawn, task::AbortHandle, task::spawn_blocking};

/// Fetches that run at once: each has connections of its own, and a disk writes no faster for more.
const RUNNING_MAX: usize = 2;

/// Fetches that are remembered, those that run included.
const PULLS_MAX: usize = 16;

/// The longest reference, in bytes: owners, repositories and files have names of at most some hundred.
const REFERENCE_BYTES_MAX: usize = 1024;

/// Where models are kept and come from.
pub trait Shelf: Debug + Send + Sync {
    /// What is on the disk, whole or in part. Blocks.
    ///
    /// # Errors
    /// [`ShelfError`].
    fn list(&self) -> Result<Vec<ShelfModel>, ShelfError>;

    /// `reference` as this shelf writes it, if it may be fetched.
    ///
    /// # Errors
    /// [`ShelfError::Reference`] or [`ShelfError::Offline`].
    fn check(&self, reference: &str) -> Result<String, ShelfError>;

    /// Fetches a reference that was checked, and tells `progress` of it.
    fn pull(self: Arc<Self>, reference: String, progress: Arc<Progress>) -> Doing;

    /// Has the node serve what `reference` names, which is on the disk.
    fn serve(self: Arc<Self>, reference: String) -> Doing;

    /// Frees the disk of what `reference` names; says how many bytes. Blocks.
    ///
    /// # Errors
    /// [`ShelfError`].
    fn remove(&self, reference: &str) -> Result<u64, ShelfError>;
}

/// What takes its time.
pub type Doing = Pin<Box<dyn Future<Output = Result<(), ShelfError>> + Send>>;

/// Why a shelf does not do what is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum ShelfError {
    /// Not something that can be fetched.
    #[error("{reason}")]
    Reference { reason: String },
    /// Nothing may be fetched.
    #[error("{reference} cannot be fetched: this node was started to fetch nothing (--offline)")]
    Offline { reference: String },
    /// The hub or the disk did not do it.
    #[error("{reason}")]
    Failed { reason: String },
    /// It is on the disk and cannot be served.
    #[error("{reason}")]
    Refused { reason: String },
    /// Not on the disk.
    #[error("{reason}")]
    NotHere { reason: String },
    /// Enough runs already.
    #[error("{running} models are being fetched, the most at once: wait, or stop one of them")]
    Busy { running: usize },
    /// Nothing of that name is being fetched.
    #[error("{reference} is not being fetched")]
    NotRunning { reference: String },
    /// It cannot go while it comes.
    #[error("{reference} is being fetched: stop that first")]
    Running { reference: String },
    /// The gateway was started without a shelf.
    #[error("this node keeps no models of its own")]
    None,
}

/// A model on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShelfModel {
    /// How to name it.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Bytes on the disk.
    pub bytes: u64,
    /// Whether all of it is here.
    pub whole: bool,
    /// Whether the node serves a model of its name.
    pub served: bool,
}

/// How far a fetch is, in bytes. Written by the shelf, from any thread.
#[derive(Debug, Default)]
pub struct Progress {
    total: AtomicU64,
    done: AtomicU64,
}

impl Progress {
    /// It begins, and `present` of `total` bytes are here.
    pub fn start(&self, total: u64, present: u64) {
        self.total.store(total, Ordering::Relaxed);
        self.done.store(present, Ordering::Relaxed);
    }

    /// So many bytes came.
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many bytes that had come are no good.
    pub fn take_back(&self, bytes: u64) {
        let less = |done: u64| Some(done.saturating_sub(bytes));
        let _ = self.done.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// How a fetch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PullState {
    /// It goes on.
    Running,
    /// The model is here.
    Done,
    /// It broke off.
    Failed,
    /// Somebody stopped it.
    Stopped,
}

/// A fetch, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PullReport {
    /// What is fetched.
    #[serde(rename = "ref")]
    pub reference: String,
    /// How it stands.
    pub state: PullState,
    /// Bytes that are here.
    pub done_bytes: u64,
    /// Bytes of the model; 0 until the hub said.
    pub total_bytes: u64,
    /// Why it broke off.
    pub error: Option<String>,
}

/// The shelf, and what is being fetched.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pulls {
    shelf: Option<Arc<dyn Shelf>>,
    all: Arc<Mutex<Vec<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    reference: String,
    state: PullState,
    error: Option<String>,
    progress: Arc<Progress>,
    stop: Option<AbortHandle>,
}

impl Entry {
    fn is_running(&self) -> bool {
        self.state == PullState::Running
    }

    fn report(&self) -> PullReport {
        PullReport {
            reference: self.reference.clone(),
            state: self.state,
            done_bytes: self.progress.done.load(Ordering::Relaxed),
            total_bytes: self.progress.total.load(Ordering::Relaxed),
            error: self.error.clone(),
        }
    }
}

impl Pulls {
    pub(crate) fn new(shelf: Option<Arc<dyn Shelf>>) -> Self {
        Self { shelf, all: Arc::default() }
    }

    fn shelf(&self) -> Result<Arc<dyn Shelf>, ShelfError> {
        self.shelf.clone().ok_or(ShelfError::None)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that are remembered, the latest first.
    pub(crate) fn reports(&self) -> Vec<PullReport> {
        self.lock().iter().rev().map(Entry::report).collect()
    }

    /// Begins to fetch, unless that is under way already.
    fn begin(&self, reference: &str) -> Result<(), ShelfError> {
        let shelf = self.shelf()?;
        let reference = shelf.check(reference)?;
        let mut all = self.lock();
        if all.iter().any(|entry| entry.is_running() && entry.reference == reference) {
            return Ok(());
        }
        let running = all.iter().filter(|entry| entry.is_running()).count();
        if running >= RUNNING_MAX {
            return Err(ShelfError::Busy { running });
        }
        all.retain(|entry| entry.reference != reference);
        if all.len() >= PULLS_MAX {
            all.remove(0);
        }
        let progress = Arc::new(Progress::default());
        let (pulls, name, seen) = (self.clone(), reference.clone(), Arc::clone(&progress));
        let task = spawn(async move {
            let ended = shelf.pull(name.clone(), seen).await;
            pulls.end(&name, ended);
        });
        let stop = Some(task.abort_handle());
        all.push(Entry { reference, state: PullState::Running, error: None, progress, stop });
        Ok(())
    }

    fn end(&self, reference: &str, ended: Result<(), ShelfError>) {
        let mut all = self.lock();
        let entry = all.iter_mut().find(|entry| entry.is_running() && entry.reference == reference);
        let Some(entry) = entry else { return };
        entry.stop = None;
        match ended {
            Ok(()) => entry.state = PullState::Done,
            Err(error) => {
                tracing::warn!(reference, %error, "not fetched");
                (entry.state, entry.error) = (PullState::Failed, Some(error.to_string()));
            }
        }
    }

    fn stop(&self, reference: &str) -> Result<(), ShelfError> {
        let mut all = self.lock();
        let entry = all.iter_mut().find(|entry| entry.is_running() && entry.reference == reference);
        let entry = entry.ok_or_else(|| ShelfError::NotRunning { reference: reference.into() })?;
        if let Some(stop) = entry.stop.take() {
            stop.abort();
        }
        entry.state = PullState::Stopped;
        Ok(())
    }

    async fn remove(&self, reference: String) -> Result<u64, ShelfError> {
        let shelf = self.shelf()?;
        if self.lock().iter().any(|entry| entry.is_running() && entry.reference == reference) {
            return Err(ShelfError::Running { reference });
        }
        let removed = spawn_blocking(move || shelf.remove(&reference)).await;
        removed.expect("removing does not panic")
    }
}

/// What `/api/shelf` shows.
#[derive(Debug, Serialize)]
struct ShelfReport {
    models: Vec<ShelfModel>,
    pulls: Vec<PullReport>,
}

/// The calls under `/api/shelf`; the layer that holds [`Pulls`] is the server's.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/api/shelf", get(list))
        .route("/api/shelf/pull", post(pull))
        .route("/api/shelf/stop", post(stop))
        .route("/api/shelf/serve", post(serve))
        .route("/api/shelf/remove", post(remove))
}

async fn list(Extension(pulls): Extension<Pulls>) -> Result<Json<ShelfReport>, ApiError> {
    let shelf = pulls.shelf()?;
    let models = spawn_blocking(move || shelf.list()).await.expect("listing does not panic")?;
    Ok(Json(ShelfReport { models, pulls: pulls.reports() }))
}

async fn pull(
    Extension(pulls): Extension<Pulls>,
    body: Fields,
) -> Result<Json<Vec<PullReport>>, ApiError> {
    pulls.begin(&reference(body)?)?;
    Ok(Json(pulls.reports()))
}

async fn stop(
    Extension(pulls): Extension<Pulls>,
    body: Fields,
) -> Result<Json<Vec<PullReport>>, ApiError> {
    pulls.stop(&reference(body)?)?;
    Ok(Json(pulls.reports()))
}

async fn serve(
    Extension(pulls): Extension<Pulls>,
    body: Fields,
) -> Result<Json<ShelfReport>, ApiError> {
    pulls.shelf()?.serve(reference(body)?).await?;
    list(Extension(pulls)).await
}

async fn remove(
    Extension(pulls): Extension<Pulls>,
    body: Fields,
) -> Result<Json<ShelfReport>, ApiError> {
    pulls.remove(reference(body)?).await?;
    list(Extension(pulls)).await
}

fn reference(mut body: Fields) -> Result<String, ApiError> {
    let text: String = body.required("ref")?;
    body.finish()?;
    if text.len() > REFERENCE_BYTES_MAX {
        return Err(ApiError::Value {
            param: "ref".into(),
            found: format!("a text of {} bytes", text.len()),
            expected: format!("at most {REFERENCE_BYTES_MAX}"),
        });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::{sync::Semaphore, task::yield_now};

    /// Fetches ten bytes, one for each permit; a reference with `bad` in it breaks off.
    #[derive(Debug)]
    struct Bench(Arc<Semaphore>);

    impl Shelf for Bench {
        fn list(&self) -> Result<Vec<ShelfModel>, ShelfError> {
            Ok(Vec::new())
        }

        fn check(&self, reference: &str) -> Result<String, ShelfError> {
            let reason = || ShelfError::Reference { reason: "no such thing".into() };
            reference.starts_with("hf:").then(|| reference.to_owned()).ok_or_else(reason)
        }

        fn pull(self: Arc<Self>, reference: String, progress: Arc<Progress>) -> Doing {
            Box::pin(async move {
                progress.start(10, 0);
                for _ in 0..10 {
                    self.0.acquire().await.expect("open").forget();
                    progress.add(1);
                    if reference.contains("bad") {
                        progress.take_back(3);
                        return Err(ShelfError::Failed { reason: "the line broke".into() });
                    }
                }
                Ok(())
            })
        }

        fn serve(self: Arc<Self>, _: String) -> Doing {
            Box::pin(async { Ok(()) })
        }

        fn remove(&self, _: &str) -> Result<u64, ShelfError> {
            Ok(7)
        }
    }

    fn bench() -> (Pulls, Arc<Semaphore>) {
        let permits = Arc::new(Semaphore::new(0));
        (Pulls::new(Some(Arc::new(Bench(Arc::clone(&permits))))), permits)
    }

    async fn until(
        pulls: &Pulls,
        reference: &str,
        state: PullState,
        done_bytes: u64,
    ) -> PullReport {
        loop {
            let found = pulls.reports().into_iter().find(|r| r.reference == reference);
            if let Some(found) = found.filter(|r| r.state == state && r.done_bytes == done_bytes) {
                return found;
            }
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_fetch_is_seen_from_its_beginning_to_its_end() {
        let (pulls, permits) = bench();
        pulls.begin("hf:a").expect("begins");
        until(&pulls, "hf:a", PullState::Running, 0).await;
        permits.add_permits(4);
        let half = until(&pulls, "hf:a", PullState::Running, 4).await;
        assert_eq!((half.total_bytes, half.error), (10, None));
        // The same again is the same one.
        pulls.begin("hf:a").expect("is under way");
        assert_eq!(pulls.reports().len(), 1);
        let running = ShelfError::Running { reference: "hf:a".into() };
        assert_eq!(pulls.remove("hf:a".into()).await, Err(running));
        permits.add_permits(6);
        until(&pulls, "hf:a", PullState::Done, 10).await;
        assert_eq!(pulls.remove("hf:a".into()).await, Ok(7));
    }

    #[tokio::test]
    async fn fetches_break_off_are_stopped_and_are_few() {
        let (pulls, permits) = bench();
        pulls.begin("hf:bad").expect("begins");
        permits.add_permits(1);
        let failed = until(&pulls, "hf:bad", PullState::Failed, 0).await;
        assert_eq!(failed.error.as_deref(), Some("the line broke"));

        pulls.begin("hf:a").expect("begins");
        pulls.begin("hf:b").expect("begins");
        assert_eq!(pulls.begin("hf:c"), Err(ShelfError::Busy { running: 2 }));
        pulls.stop("hf:a").expect("runs");
        until(&pulls, "hf:a", PullState::Stopped, 0).await;
        assert!(matches!(pulls.stop("hf:a"), Err(ShelfError::NotRunning { .. })));
        assert!(matches!(pulls.begin("bard"), Err(ShelfError::Reference { .. })));
        assert_eq!(Pulls::new(None).begin("hf:a"), Err(ShelfError::None));
    }

    #[tokio::test]
    async fn only_the_last_fetches_are_remembered() {
        let (pulls, permits) = bench();
        for number in 0..20 {
            let reference = format!("hf:{number}");
            pulls.begin(&reference).expect("begins");
            permits.add_permits(10);
            until(&pulls, &reference, PullState::Done, 10).await;
        }
        let reports = pulls.reports();
        assert_eq!(reports.len(), PULLS_MAX);
        assert_eq!(reports[0].reference, "hf:19");
    }

    #[test]
    fn a_reference_is_one_bounded_text() {
        let read = |value: serde_json::Value| {
            reference(Fields::parse(value.to_string().as_bytes()).expect("an object")).ok()
        };
        assert_eq!(read(json!({ "ref": "hf:a/b" })).as_deref(), Some("hf:a/b"));
        assert_eq!(read(json!({ "ref": "x".repeat(1025) })), None);
        assert_eq!(read(json!({ "ref": "hf:a/b", "more": 1 })), None);
    }
}
