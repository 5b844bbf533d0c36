//! A part of a file, in order and as it comes, for those who need no more of it.
//!
//! Nothing of it is kept here, and no digest proves a part: what vouches for it is the connection to the hub, the
//! commit, which names one content for ever, and that the server has the file in the size that its
//! repository lists. Cuts and stumbles are survived as in a download.

use crate::{
    error::HubError,
    http::{Fault, Http, header, passing, shown},
    reference::HubRef,
};
use reqwest::{Method, Response, StatusCode, Url, header::CONTENT_RANGE};
use std::ops::Range;
use tokio::sync::mpsc;

/// Where the content of one file is asked for.
pub(crate) struct Origin<'a> {
    pub http: &'a Http,
    pub reference: &'a HubRef,
    pub url: &'a Url,
    /// Of the whole file.
    pub bytes: u64,
}

/// What a server answered to a request for a range.
pub(crate) enum Body {
    /// That range.
    Part(Response),
    /// The whole file: it knows no ranges.
    Whole(Response),
}

impl Origin<'_> {
    /// Asks for `range`, which is not empty, and holds the answer's head against it.
    pub async fn open(&self, range: Range<u64>) -> Result<Body, Fault> {
        let is_whole = range.start == 0 && range.end == self.bytes;
        let asked = (!is_whole).then_some((range.start, range.end));
        let response = self.http.ask(Method::GET, self.url.clone(), asked).await?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            let told = header(&response, CONTENT_RANGE.as_str()).unwrap_or_default();
            let found = told.rsplit('/').next().and_then(|total| total.parse().ok());
            return Err(self.wrong_size(found.unwrap_or(0)).into());
        }
        let response = self.http.judge(response, self.reference).await?;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            self.check_range(&response, range.start)?;
            return Ok(Body::Part(response));
        }
        match response.content_length() {
            Some(found) if found != self.bytes => Err(self.wrong_size(found).into()),
            _ if is_whole => Ok(Body::Part(response)),
            _ => Ok(Body::Whole(response)),
        }
    }

    /// `Content-Range: bytes START-END/TOTAL` must be what was asked for.
    fn check_range(&self, response: &Response, start: u64) -> Result<(), HubError> {
        let told = header(response, CONTENT_RANGE.as_str()).unwrap_or_default();
        let parsed = told.strip_prefix("bytes ").and_then(|rest| {
            let (range, total) = rest.split_once('/')?;
            Some((range.split_once('-')?.0.parse::<u64>().ok()?, total.parse::<u64>().ok()))
        });
        match parsed {
            Some((_, Some(total))) if total != self.bytes => Err(self.wrong_size(total)),
            Some((found, _)) if found == start => Ok(()),
            _ => {
                let reason = format!("range {told:?}, expected one that starts at {start}");
                Err(HubError::Answer { url: shown(response.url()), reason })
            }
        }
    }

    fn wrong_size(&self, found: u64) -> HubError {
        let file = self.url.path().rsplit('/').next().unwrap_or_default().into();
        HubError::WrongSize { file, expected: self.bytes, found }
    }

    /// Sends `range` to `sink`, front to back, in pieces of any size; ends early if nobody listens.
    pub async fn read(
        &self,
        range: Range<u64>,
        sink: &mpsc::Sender<Vec<u8>>,
    ) -> Result<(), HubError> {
        if range.end > self.bytes {
            return Err(self.wrong_size(range.end));
        }
        let mut patience = self.http.patience();
        let mut left = range;
        while !left.is_empty() && !sink.is_closed() {
            let before = left.start;
            let outcome = self.copy(&mut left, sink).await;
            if left.start > before {
                patience.renew();
            }
            if let Err(fault) = outcome {
                tokio::time::sleep(patience.after(fault)?.1).await;
            }
        }
        Ok(())
    }

    /// One request. `left` shrinks by what came.
    async fn copy(&self, left: &mut Range<u64>, sink: &mpsc::Sender<Vec<u8>>) -> Result<(), Fault> {
        let mut response = match self.open(left.clone()).await? {
            Body::Part(response) => response,
            Body::Whole(_) => {
                return Err(HubError::NoRanges { host: self.http.host() }.into());
            }
        };
        while let Some(chunk) = response.chunk().await.map_err(passing)? {
            if chunk.len() as u64 > left.end - left.start {
                let reason = "it sends more than was asked for".into();
                return Err(HubError::Answer { url: shown(response.url()), reason }.into());
            }
            left.start += chunk.len() as u64;
            if sink.send(chunk.to_vec()).await.is_err() || left.is_empty() {
                return Ok(());
            }
        }
        Err(Fault::Passing { reason: "the connection ended early".into(), wait: None })
    }
}
