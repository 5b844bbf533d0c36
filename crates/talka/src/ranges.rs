//! A model of the hub as a node reads parts of it: what [`talka_node`] asks for, said in the words of
//! [`talka_hub`].

use std::{fmt::Write as _, ops::Range, path::Path};
use talka_hub::{Begun, Hub, HubRef, RemoteFile};
use talka_node::{RangeRead, Ranges};
use tokio::sync::mpsc;

/// A model whose small files are here.
#[derive(Debug)]
pub struct HubRanges {
    /// `None` where nothing may be fetched.
    hub: Option<Hub>,
    reference: HubRef,
    begun: Begun,
}

impl HubRanges {
    /// The model `begun` of `reference`; without a `hub` only what was fetched before can be served.
    pub fn new(hub: Option<Hub>, reference: HubRef, begun: Begun) -> Self {
        Self { hub, reference, begun }
    }
}

impl Ranges for HubRanges {
    fn place(&self) -> String {
        match &self.hub {
            Some(hub) => format!("{} at {}", self.reference, hub.host()),
            None => self.reference.to_string(),
        }
    }

    fn content(&self) -> String {
        let Begun { commit, small, weights, .. } = &self.begun;
        let mut content = format!("hf:{}@{commit}", self.reference.repository());
        for RemoteFile { path, bytes, digest } in small.iter().chain(weights) {
            let digest = digest.as_ref().map(ToString::to_string).unwrap_or_default();
            // Writing to text does not fail.
            let _ = write!(content, "\n{path} {} {digest}", bytes.unwrap_or(0));
        }
        content
    }

    fn folder(&self) -> &Path {
        &self.begun.folder
    }

    fn files(&self) -> Vec<(String, u64)> {
        let file = |file: &RemoteFile| Some((file.path.clone(), file.bytes?));
        self.begun.weights.iter().filter_map(file).collect()
    }

    fn read<'a>(
        &'a self,
        file: &'a str,
        range: Range<u64>,
        sink: mpsc::Sender<Vec<u8>>,
    ) -> RangeRead<'a> {
        Box::pin(async move {
            let Some(hub) = &self.hub else {
                return Err("--offline forbids to fetch what is not on this computer".into());
            };
            Ok(hub.read(&self.reference, &self.begun, file, range, &sink).await?)
        })
    }
}
