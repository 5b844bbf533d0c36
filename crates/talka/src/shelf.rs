//! The models on this computer's disk, and the hub, as the gateway asks for them.

use crate::{
    hub::{self, Access},
    model_ref::Located,
};
use std::{sync::Arc, thread};
use talka_gateway::{Doing, Progress, Shelf, ShelfError, ShelfModel};
use talka_hub::{Event, HubError, HubRef};
use talka_node::api::{AdminError, Api};
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

impl HubShelf {
    /// A whole model on the disk.
    fn find(&self, reference: &str) -> Result<Located, ShelfError> {
        let wanted = read(reference)?;
        for kept in self.access.store.list().map_err(failed)? {
            for model in kept.models {
                let found = model.reference(&kept.reference);
                if found == wanted {
                    return Located::pulled(&found, model).map_err(failed);
                }
            }
        }
        let reason = format!("{reference} is not on this computer, or not whole: fetch it first");
        Err(ShelfError::NotHere { reason })
    }
}

impl Shelf for HubShelf {
    fn list(&self) -> Result<Vec<ShelfModel>, ShelfError> {
        let (kept, names) = (self.access.store.list().map_err(failed)?, self.node.model_names());
        let models = kept.iter().flat_map(|kept| {
            let whole = kept.models.iter().map(|model| ShelfModel {
                reference: model.reference(&kept.reference).to_string(),
                bytes: model.bytes,
                whole: true,
                served: names.contains(&model.name),
            });
            let part = kept.models.is_empty().then(|| ShelfModel {
                reference: kept.reference.to_string(),
                bytes: kept.bytes,
                whole: false,
                served: false,
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
    fn pull(self: Arc<Self>, reference: String, progress: Arc<Progress>) -> Doing {
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

    fn serve(self: Arc<Self>, reference: String) -> Doing {
        Box::pin(async move {
            let shelf = Arc::clone(&self);
            let found = spawn_blocking(move || shelf.find(&reference)).await;
            let Located { name, source, .. } = found.expect("looking does not panic")?;
            let refused = |error: AdminError| ShelfError::Refused { reason: error.to_string() };
            self.node.serve(name, source).await.map_err(refused)
        })
    }

    fn remove(&self, reference: &str) -> Result<u64, ShelfError> {
        self.access.store.remove(&read(reference)?).map_err(|error| match error {
            HubError::NotHere { .. } => ShelfError::NotHere { reason: error.to_string() },
            other => failed(other),
        })
    }
}
