//! One file from the hub to the disk: in parallel ranges where the server has them, else in one run.
//!
//! The first request tells which it is. A connection that breaks costs what it had not delivered; a
//! server that stumbles is waited for; as long as anything comes, patience starts over.

use crate::{
    error::HubError,
    http::{Fault, Http, Patience, passing, shown},
    listing::RemoteFile,
    partial::{Partial, Segment},
    pull::Event,
    range::{Body, Origin},
    reference::HubRef,
    store::at,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::{Response, Url};
use std::{fs, path::Path};
use tokio::sync::Semaphore;

/// Between two writes. Larger loses more when the process is killed; smaller costs a switch of
/// threads for every packet.
const WRITE_BYTES: usize = 256 << 10;

/// Files whose check takes long enough that a person wonders.
const CHECK_SHOWN_BYTES: u64 = 64 << 20;

/// What all files of a pull share.
pub(crate) struct Download<'a> {
    pub http: &'a Http,
    pub reference: &'a HubRef,
    pub connections: &'a Semaphore,
    pub segment_bytes: u64,
    pub report: &'a (dyn Fn(Event<'_>) + Send + Sync),
}

impl Download<'_> {
    /// Brings `file` from `url` to `path`, which exists afterwards, whole and checked.
    pub async fn fetch(&self, file: &RemoteFile, url: &Url, path: &Path) -> Result<(), HubError> {
        let bytes = file.bytes.unwrap_or(0);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(at(folder))?;
        }
        loop {
            let partial = Partial::open(path, file, bytes, self.segment_bytes).map_err(at(path))?;
            let resumed = partial.done();
            self.receive(&partial, url, bytes).await?;
            let Some(wrong) = self.check(file, partial.data()).await? else {
                return partial.finish(path).map_err(at(path));
            };
            partial.discard().map_err(at(path))?;
            (self.report)(Event::Lost(bytes));
            // Old bytes may be to blame, of a disk that lost its power. Fresh ones have no excuse.
            if resumed == 0 {
                return Err(wrong);
            }
        }
    }

    /// `None` if the digest is right, or none is known.
    async fn check(&self, file: &RemoteFile, path: &Path) -> Result<Option<HubError>, HubError> {
        let Some(expected) = file.digest.clone() else { return Ok(None) };
        if file.bytes.is_some_and(|bytes| bytes > CHECK_SHOWN_BYTES) {
            (self.report)(Event::Checking { file: &file.path });
        }
        let (kind, read) = (expected.clone(), path.to_owned());
        let found = tokio::task::spawn_blocking(move || kind.of_file(&read)).await;
        let found = found.map_err(std::io::Error::other).flatten().map_err(at(path))?;
        let file = file.path.clone();
        Ok((found != expected).then_some(HubError::WrongDigest { file, expected, found }))
    }

    /// Every byte of `partial` that is not in place yet.
    async fn receive(&self, partial: &Partial, url: &Url, bytes: u64) -> Result<(), HubError> {
        let missing: Vec<_> = partial.segments.iter().filter(|s| !s.is_done()).cloned().collect();
        let Some((first, rest)) = missing.split_first() else { return Ok(()) };
        let mut run = Run { download: self, partial, url, bytes, patience: self.http.patience() };
        let permit = self.connections.acquire().await.expect("the semaphore is never closed");
        match run.open_patiently(first).await? {
            Body::Whole(response) => {
                (self.report)(Event::Lost(partial.done()));
                run.whole(response).await
            }
            Body::Part(response) => {
                let first = async {
                    run.segment(first.clone(), Some(response)).await?;
                    drop(permit);
                    Ok(())
                };
                let rest = rest.iter().map(|segment| self.alone(partial, url, bytes, segment));
                let rest = stream::iter(rest).buffer_unordered(usize::MAX).try_collect::<()>();
                tokio::try_join!(first, rest).map(|_| ())
            }
        }
    }

    /// One further segment, once a connection is free.
    async fn alone(
        &self,
        partial: &Partial,
        url: &Url,
        bytes: u64,
        segment: &Segment,
    ) -> Result<(), HubError> {
        let _permit = self.connections.acquire().await.expect("the semaphore is never closed");
        let mut run = Run { download: self, partial, url, bytes, patience: self.http.patience() };
        run.segment(segment.clone(), None).await
    }
}

/// The requests for one segment, or for the whole file.
struct Run<'a> {
    download: &'a Download<'a>,
    partial: &'a Partial,
    url: &'a Url,
    /// Of the whole file.
    bytes: u64,
    patience: Patience,
}

impl Run<'_> {
    /// Fetches what `segment` lacks, from `response` first if one is open.
    async fn segment(
        &mut self,
        mut segment: Segment,
        mut response: Option<Response>,
    ) -> Result<(), HubError> {
        while !segment.is_done() {
            let open = match response.take() {
                Some(open) => open,
                None => match self.open_patiently(&segment).await? {
                    Body::Part(open) => open,
                    Body::Whole(_) => {
                        self.wait(Fault::Passing { reason: NO_RANGE.into(), wait: None }).await?;
                        continue;
                    }
                },
            };
            let before = segment.done;
            let outcome = self.copy(open, &mut segment).await;
            if segment.done > before {
                self.patience.renew();
            }
            if let Err(fault) = outcome {
                self.wait(fault).await?;
            }
        }
        Ok(())
    }

    /// Fetches the whole file in one run, and again from its start whenever that breaks.
    async fn whole(&mut self, response: Response) -> Result<(), HubError> {
        let mut response = Some(response);
        loop {
            let mut segment = Segment { number: None, start: 0, end: self.bytes, done: 0 };
            let open = match response.take() {
                Some(open) => open,
                None => match self.open_patiently(&segment).await? {
                    Body::Part(open) | Body::Whole(open) => open,
                },
            };
            match self.copy(open, &mut segment).await {
                Ok(()) => return Ok(()),
                Err(fault) => {
                    (self.download.report)(Event::Lost(segment.done));
                    self.wait(fault).await?;
                }
            }
        }
    }

    async fn open_patiently(&mut self, segment: &Segment) -> Result<Body, HubError> {
        loop {
            match self.open(segment).await {
                Ok(body) => return Ok(body),
                Err(fault) => self.wait(fault).await?,
            }
        }
    }

    async fn wait(&mut self, fault: Fault) -> Result<(), HubError> {
        let (reason, wait) = self.patience.after(fault)?;
        (self.download.report)(Event::Waiting { reason: &reason, wait });
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Asks for what `segment` lacks.
    async fn open(&self, segment: &Segment) -> Result<Body, Fault> {
        let Download { http, reference, .. } = self.download;
        let origin = Origin { http, reference, url: self.url, bytes: self.bytes };
        origin.open(segment.start + segment.done..segment.end).await
    }

    /// Puts the body of `response` in place until `segment` is done. What came before an error is in
    /// place too, and counted.
    async fn copy(&self, mut response: Response, segment: &mut Segment) -> Result<(), Fault> {
        let failed = |source| Fault::from(at(self.partial.data())(source));
        let mut writer = self.partial.writer(segment).map_err(failed)?;
        let mut pending = Vec::with_capacity(WRITE_BYTES);
        let outcome = loop {
            let length = segment.end - segment.start - segment.done - pending.len() as u64;
            let (piece, ended) = match response.chunk().await {
                Ok(Some(piece)) if piece.len() as u64 > length => {
                    let reason = format!("it sends more than the {} bytes of the file", self.bytes);
                    let url = shown(response.url());
                    (None, Some(Err(HubError::Answer { url, reason }.into())))
                }
                Ok(Some(piece)) => (Some(piece), None),
                Ok(None) if length == 0 => (None, Some(Ok(()))),
                Ok(None) => {
                    let reason = "the connection ended early".into();
                    (None, Some(Err(Fault::Passing { reason, wait: None })))
                }
                Err(error) => (None, Some(Err(passing(error)))),
            };
            pending.extend_from_slice(&piece.unwrap_or_default());
            if ended.is_some() || pending.len() >= WRITE_BYTES {
                let count = pending.len() as u64;
                (writer, pending) = written(writer, pending).await.map_err(failed)?;
                segment.done += count;
                (self.download.report)(Event::Received(count));
            }
            if let Some(outcome) = ended {
                break outcome;
            }
        };
        // All that was asked for has come: how the connection ends does not matter.
        if segment.is_done() { Ok(()) } else { outcome }
    }
}

const NO_RANGE: &str = "it sent the whole file where a part was asked for";

/// Writes where waiting for the disk keeps nobody else waiting, and hands back writer and buffer.
async fn written(
    mut writer: crate::partial::Writer,
    mut bytes: Vec<u8>,
) -> std::io::Result<(crate::partial::Writer, Vec<u8>)> {
    let task = tokio::task::spawn_blocking(move || {
        writer.write(&bytes)?;
        bytes.clear();
        Ok((writer, bytes))
    });
    task.await.map_err(std::io::Error::other).flatten()
}
