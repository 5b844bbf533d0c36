//! A model from the hub to the store, all of it or as much as came.

use crate::{
    download::Download,
    error::HubError,
    http::{Http, HubConfig},
    listing::{Listing, RemoteFile},
    partial,
    range::Origin,
    reference::HubRef,
    select::{Needs, Selection},
    space::free_bytes,
    store::{Begun, Lock, Pulled, Store, at, is_here},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::Method;
use std::{fs, ops::Range, time::Duration};
use tokio::sync::{Semaphore, mpsc};

/// Files at a time: the many small ones wait for the network more than for its width.
const FILES_TOGETHER: usize = 4;

/// How often a busy repository is looked at again.
const LOCK_POLL: Duration = Duration::from_millis(200);

/// Left free on a disk: other programs need to write too.
const RESERVE_BYTES: u64 = 64 << 20;

/// What happens during a pull.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Another process is at the same repository; we wait for it.
    Locked,
    /// The hub cannot be asked, but the model is here.
    Offline {
        /// Why it cannot.
        reason: &'a HubError,
    },
    /// It begins.
    Start {
        /// Files of the model.
        files: usize,
        /// Bytes of all of them.
        bytes: u64,
        /// Of those, already here.
        present: u64,
    },
    /// So many bytes came.
    Received(u64),
    /// So many bytes that had come were thrown away.
    Lost(u64),
    /// A request failed and is made again.
    Waiting {
        /// What the server or the system said.
        reason: &'a str,
        /// How long we wait.
        wait: Duration,
    },
    /// A large file came and its digest is computed.
    Checking {
        /// Within the repository.
        file: &'a str,
    },
}

/// What a pull would fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Bytes of all files.
    pub bytes: u64,
    /// The files.
    pub selection: Selection,
}

/// A hub to fetch from.
#[derive(Debug)]
pub struct Hub {
    http: Http,
    config: HubConfig,
}

impl Hub {
    /// Opens no connection yet.
    ///
    /// # Errors
    /// [`HubError::Endpoint`] if the endpoint is no address.
    pub fn new(config: HubConfig) -> Result<Self, HubError> {
        Ok(Self { http: Http::new(&config)?, config })
    }

    /// The hub's host.
    pub fn host(&self) -> String {
        self.http.host()
    }

    /// Whether anybody answers at all.
    ///
    /// # Errors
    /// [`HubError::Unreachable`] with the reason.
    pub async fn reach(&self, patience: Duration) -> Result<(), HubError> {
        let unreachable = |reason| HubError::Unreachable { host: self.host(), reason };
        let asked = self.http.ask(Method::HEAD, self.http.url(&[], &[]), None);
        match tokio::time::timeout(patience, asked).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(fault)) => self.http.patience_none().after(fault).map(|_| ()),
            Err(_) => Err(unreachable(format!("no answer within {} s", patience.as_secs()))),
        }
    }

    /// What pulling `reference` would fetch, from the hub's listing alone.
    ///
    /// # Errors
    /// As [`Self::pull`].
    pub async fn offer(&self, reference: &HubRef) -> Result<Offer, HubError> {
        let listing = self.http.listing(reference).await?;
        let selection = Selection::new(&listing, reference)?;
        Ok(Offer { bytes: selection.bytes(), selection })
    }

    /// Brings the model that `reference` names into `store`: what is missing of it, or nothing.
    ///
    /// Asks the hub what the revision is now. If nobody answers and the model is here, that one
    /// serves. `report` hears of every step, from several tasks.
    ///
    /// # Errors
    /// [`HubError`]; what came stays, and the next pull goes on from there.
    pub async fn pull(
        &self,
        store: &Store,
        reference: &HubRef,
        report: &(dyn Fn(Event<'_>) + Send + Sync),
    ) -> Result<Pulled, HubError> {
        let lock = lock(store, reference, report).await?;
        let listing = match self.http.listing(reference).await {
            Ok(listing) => listing,
            Err(error) if error.is_unreachable() => {
                let Some(pulled) = store.find(reference)? else { return Err(error) };
                report(Event::Offline { reason: &error });
                return Ok(pulled);
            }
            Err(error) => return Err(error),
        };
        let listing = self.bring(store, reference, listing, |_| true, &lock, report).await?;
        let pulled = store.pulled(reference, &listing)?;
        pulled.ok_or_else(|| HubError::NotHere { reference: reference.to_string() })
    }

    /// Brings the small files of the model that `reference` names into `store`, and none of its weights: those
    /// are read by [`Self::read`]. Does not ask the hub for what is here.
    ///
    /// # Errors
    /// As [`Self::pull`]; [`HubError::Parts`] for a model that is not one in the Hugging Face layout.
    pub async fn begin(
        &self,
        store: &Store,
        reference: &HubRef,
        report: &(dyn Fn(Event<'_>) + Send + Sync),
    ) -> Result<Begun, HubError> {
        let lock = lock(store, reference, report).await?;
        if let Some(begun) = store.begun(reference)? {
            return Ok(begun);
        }
        let listing = self.http.listing(reference).await?;
        if Selection::new(&listing, reference)?.needs != Needs::Folder {
            return Err(HubError::Parts { reference: reference.to_string() });
        }
        let small = |file: &RemoteFile| !file.is_weights();
        let listing = self.bring(store, reference, listing, small, &lock, report).await?;
        let begun = store.begun_of(reference, &listing)?;
        begun.ok_or_else(|| HubError::NotHere { reference: reference.to_string() })
    }

    /// Sends `range` of one of the files of weights of `begun` to `sink`, in order and in pieces of any size.
    /// Waits for a server that stumbles. Ends early if nobody listens.
    ///
    /// # Errors
    /// [`HubError`]; what was sent before is right.
    pub async fn read(
        &self,
        reference: &HubRef,
        begun: &Begun,
        file: &str,
        range: Range<u64>,
        sink: &mpsc::Sender<Vec<u8>>,
    ) -> Result<(), HubError> {
        let known = begun.weights.iter().find(|known| known.path == file);
        let bytes = known.and_then(|known| known.bytes).ok_or_else(|| HubError::NoFile {
            repo: reference.repository(),
            file: file.into(),
            nearest: begun.weights.iter().map(|known| known.path.clone()).collect(),
        })?;
        let url = self.http.file_url(reference, &begun.commit, file);
        let origin = Origin { http: &self.http, reference, url: &url, bytes };
        origin.read(range, sink).await
    }

    /// Brings those files that `wanted` takes of the model that `reference` chooses from `listing`, and makes the
    /// revision known under its commit.
    async fn bring(
        &self,
        store: &Store,
        reference: &HubRef,
        listing: Listing,
        wanted: fn(&RemoteFile) -> bool,
        _lock: &Lock,
        report: &(dyn Fn(Event<'_>) + Send + Sync),
    ) -> Result<Listing, HubError> {
        let (listing, mut selection) = self.complete(reference, listing).await?;
        selection.files.retain(wanted);
        remove_changed(store, reference, &listing)?;
        store.write_listing(reference, &listing)?;
        let folder = store.commit(reference, &listing.commit);
        link_same(store, reference, &listing, &selection);
        let missing: Vec<_> =
            selection.files.iter().filter(|file| !is_here(&folder, file)).collect();
        let needed = self.check_space(store, reference, &listing, &missing)?;
        let bytes = selection.bytes();
        report(Event::Start {
            files: selection.files.len(),
            bytes,
            present: bytes.saturating_sub(needed),
        });
        self.fetch(store, reference, &listing, missing, report).await?;
        store.point(reference, &listing.commit)?;
        Ok(listing)
    }

    /// The listing with size and digest of every file that is needed.
    async fn complete(
        &self,
        reference: &HubRef,
        mut listing: Listing,
    ) -> Result<(Listing, Selection), HubError> {
        let mut selection = Selection::new(&listing, reference)?;
        for file in selection.files.iter_mut().filter(|file| file.bytes.is_none()) {
            *file = self.http.describe(reference, &listing.commit, file).await?;
            let known = listing.files.iter_mut().find(|known| known.path == file.path);
            if let Some(known) = known {
                known.clone_from(file);
            }
        }
        Ok((listing, selection))
    }

    /// Bytes still to come, if the disk has room for them.
    fn check_space(
        &self,
        store: &Store,
        reference: &HubRef,
        listing: &Listing,
        missing: &[&RemoteFile],
    ) -> Result<u64, HubError> {
        let folder = store.commit(reference, &listing.commit);
        let lacks = |file: &&RemoteFile| {
            let bytes = file.bytes.unwrap_or(0);
            bytes - partial::bytes_in_place(&folder.join(&file.path), file, bytes).min(bytes)
        };
        let needed: u64 = missing.iter().map(lacks).sum();
        match free_bytes(store.root()) {
            Some(free) if needed > 0 && needed > free.saturating_sub(RESERVE_BYTES) => {
                let what = reference.repository();
                Err(HubError::DiskFull { what, place: store.root().into(), needed, free })
            }
            _ => Ok(needed),
        }
    }

    async fn fetch(
        &self,
        store: &Store,
        reference: &HubRef,
        listing: &Listing,
        missing: Vec<&RemoteFile>,
        report: &(dyn Fn(Event<'_>) + Send + Sync),
    ) -> Result<(), HubError> {
        let connections = Semaphore::new(self.config.connections.max(1));
        let segment_bytes = self.config.segment_bytes;
        let download = Download {
            http: &self.http,
            reference,
            connections: &connections,
            segment_bytes,
            report,
        };
        let folder = store.commit(reference, &listing.commit);
        let files = missing.into_iter().map(|file| {
            let url = self.http.file_url(reference, &listing.commit, &file.path);
            let path = folder.join(&file.path);
            let download = &download;
            async move { download.fetch(file, &url, &path).await }
        });
        stream::iter(files).buffer_unordered(FILES_TOGETHER).try_collect().await
    }
}

/// Waits until no other process changes `reference`'s repository.
async fn lock(
    store: &Store,
    reference: &HubRef,
    report: &(dyn Fn(Event<'_>) + Send + Sync),
) -> Result<Lock, HubError> {
    let mut is_told = false;
    loop {
        if let Some(lock) = store.try_lock(reference)? {
            return Ok(lock);
        }
        if !is_told {
            report(Event::Locked);
            is_told = true;
        }
        tokio::time::sleep(LOCK_POLL).await;
    }
}

/// Removes files whose content is another now, although the commit's name is the same: a hub without
/// commits gives all of a revision's states one name.
fn remove_changed(store: &Store, reference: &HubRef, listing: &Listing) -> Result<(), HubError> {
    // A damaged record tells nothing, and is about to be replaced.
    let Ok(Some(before)) = store.listing(reference, &listing.commit) else { return Ok(()) };
    let folder = store.commit(reference, &listing.commit);
    for file in &listing.files {
        let known = before.get(&file.path).filter(|known| is_here(&folder, known));
        let digests = known.and_then(|known| known.digest.as_ref()).zip(file.digest.as_ref());
        if digests.is_some_and(|(before, now)| before != now) {
            let path = folder.join(&file.path);
            fs::remove_file(&path).map_err(at(&path))?;
        }
    }
    Ok(())
}

/// Files that another commit has too get a second name here and are not fetched again.
fn link_same(store: &Store, reference: &HubRef, listing: &Listing, selection: &Selection) {
    let folder = store.commit(reference, &listing.commit);
    for file in selection.files.iter().filter(|file| !is_here(&folder, file)) {
        let Some(same) = store.elsewhere(reference, &listing.commit, file) else { continue };
        let path = folder.join(&file.path);
        let made = path.parent().map(|parent| fs::create_dir_all(parent).map_err(at(parent)));
        if made.is_some_and(|made| made.is_ok()) {
            // Where the file system has no second names the file is fetched.
            let _ = fs::hard_link(same, path);
        }
    }
}
