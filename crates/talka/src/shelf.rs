//! The models on this computer's disk, and the hub, as the gateway asks for them.

use crate::hub::{self, Access};
use std::{sync::Arc, thread};
use talka_gateway::{Progress, Pull, Shelf, ShelfError, ShelfModel};
use talka_hub::{Event, HubError, HubRef};
use talka_node::api::Api;
use tokio::{runtime::Handle, sync::oneshot, task::spawn_blocking};

/// What [`Access`] knows, for the gateway.
#[derive(Debug)]
pub struct HubShelf {
    pub access: Access,
    /// The node whose line it uses.
    pub node: Api,
}

fn read(reference: &str) -> Result<HubRef, ShelfError> {
    reference.parse().map_err(|error: talka_hub::HubRefError| ShelfError::Reference {
        reason: error.to_string(),
    })
}

fn failed(error: impl ToString) -> ShelfError {
    ShelfError::Failed { reason: error.to_string() }
}

impl HubShelf {
    async fn fetch(&self, reference: &str, progress: &Progress) -> Result<(), ShelfError> {
        let reference = read(reference)?;
        let hub = hub::open().map_err(failed)?;
        let seen = |event: Event<'_>| match event {
            Event::Start { bytes, present, .. } => progress.start(bytes, present),
            Event::Received(bytes) => {
                progress.add(bytes);
                // All that waits for this thread is this fetch.
                thread::sleep(self.node.fetched(bytes));
            }
            Event::Lost(bytes) => progress.take_back(bytes),
            _ => {}
        };
        hub.pull(&self.access.store, &reference, &seen).await.map(|_| ()).map_err(failed)
    }
}

impl Shelf for HubShelf {
    fn list(&self) -> Result<Vec<ShelfModel>, ShelfError> {
        let kept = self.access.store.list().map_err(failed)?;
        let models = kept.iter().flat_map(|kept| {
            let whole = kept.models.iter().map(|model| ShelfModel {
                reference: model.reference(&kept.reference).to_string(),
                bytes: model.bytes,
                whole: true,
            });
            let part = kept.models.is_empty().then(|| ShelfModel {
                reference: kept.reference.to_string(),
                bytes: kept.bytes,
                whole: false,
            });
            whole.chain(part).collect::<Vec<_>>()
        });
        Ok(models.collect())
    }

    fn check(&self, reference: &str) -> Result<String, ShelfError> {
        let reference = read(reference)?.to_string();
        if self.access.offline { Err(ShelfError::Offline { reference }) } else { Ok(reference) }
    }

    /// On a thread of its own, for the hub's futures stay on the thread where they began. It ends with what is returned.
    fn pull(self: Arc<Self>, reference: String, progress: Arc<Progress>) -> Pull {
        Box::pin(async move {
            let (wanted, unwanted) = oneshot::channel::<()>();
            let runtime = Handle::current();
            let fetched = spawn_blocking(move || {
                runtime.block_on(async {
                    tokio::select! {
                        fetched = self.fetch(&reference, &progress) => fetched,
                        // Nobody reads this.
                        _ = unwanted => Ok(()),
                    }
                })
            });
            let fetched = fetched.await.expect("fetching does not panic");
            drop(wanted);
            fetched
        })
    }

    fn remove(&self, reference: &str) -> Result<u64, ShelfError> {
        self.access.store.remove(&read(reference)?).map_err(|error| match error {
            HubError::NotHere { .. } => ShelfError::NotHere { reason: error.to_string() },
            other => failed(other),
        })
    }
}
