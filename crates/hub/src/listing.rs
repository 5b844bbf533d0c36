//! What a repository holds at one revision.
//!
//! Asks `/api/models/OWNER/REPO/revision/REV?blobs=true`, which names the commit, and every file
//! with size and digest. Mirrors that leave sizes out are asked for `/tree/REV?recursive=true`
//! too, and if even that tells nothing, each needed file is asked after by itself.

use crate::{
    digest::Digest,
    error::HubError,
    http::{self, Fault, Http, LINKED_SIZE, shown},
    reference::{HubRef, is_commit, is_safe_path},
};
use reqwest::{Method, Response, Url, header::LINK};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;

/// A listing of the largest model repositories is some hundred KB.
const LISTING_BYTES_MAX: usize = 16 << 20;
/// Far more than any model has.
const FILES_MAX: usize = 20_000;
/// Of a tree, a thousand files each.
const PAGES_MAX: usize = 20;
/// 16 TiB: larger than any one file, small enough that sums do not overflow.
const FILE_BYTES_MAX: u64 = 1 << 44;

/// A file as its repository describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteFile {
    /// Within the repository, with `/`. Safe to join to a folder.
    pub path: String,
    /// Its size, unless the hub has not told it yet.
    pub bytes: Option<u64>,
    /// What proves its content, unless the hub has not told it.
    pub digest: Option<Digest>,
}

/// The files of a repository at one commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The commit; where a hub names none, the revision asked for.
    pub commit: String,
    /// Ordered by path. Files whose names are unsafe are left out: no model needs them.
    pub files: Vec<RemoteFile>,
}

/// `/api/models/.../revision/...`.
#[derive(Debug, Deserialize)]
struct ModelAnswer {
    sha: Option<String>,
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

/// An entry of `/api/models/.../tree/...`.
#[derive(Debug, Deserialize)]
struct TreeEntry {
    #[serde(rename = "type")]
    kind: Option<String>,
    path: String,
    size: Option<u64>,
    oid: Option<String>,
    lfs: Option<Lfs>,
}

/// What is said of a file that git holds only a pointer to.
#[derive(Debug, Deserialize)]
struct Lfs {
    #[serde(alias = "oid")]
    sha256: Option<String>,
    size: Option<u64>,
}

impl Listing {
    fn new(commit: String, files: impl IntoIterator<Item = RemoteFile>) -> Result<Self, String> {
        let safe = files.into_iter().filter(|file| is_safe_path(&file.path));
        let files: BTreeMap<_, _> = safe.map(|file| (file.path.clone(), file)).collect();
        if files.len() > FILES_MAX {
            return Err(format!("{} files, expected at most {FILES_MAX}", files.len()));
        }
        let huge = files.values().find(|file| file.bytes.is_some_and(|n| n > FILE_BYTES_MAX));
        if let Some(file) = huge {
            return Err(format!("{} is said to have {:?} bytes", file.path, file.bytes));
        }
        Ok(Self { commit, files: files.into_values().collect() })
    }

    /// The file at `path`.
    pub fn get(&self, path: &str) -> Option<&RemoteFile> {
        let at = self.files.binary_search_by(|file| file.path.as_str().cmp(path)).ok()?;
        self.files.get(at)
    }

    /// Reads what [`Self::to_json`] wrote, with the same distrust as an answer.
    pub(crate) fn from_json(bytes: &[u8]) -> Result<Self, String> {
        let read: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        Self::new(read.commit, read.files)
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }
}

impl RemoteFile {
    /// Whether it holds weights, and so may be larger than all others together.
    pub(crate) fn is_weights(&self) -> bool {
        self.path.ends_with(".safetensors")
    }

    /// From what a listing says: for large files size and digest of the content, not of the pointer.
    fn told(path: String, size: Option<u64>, blob: Option<String>, lfs: Option<Lfs>) -> Self {
        let (bytes, digest) = match lfs {
            Some(lfs) => (lfs.size.or(size), lfs.sha256),
            None => (size, blob),
        };
        Self { path, bytes, digest: digest.as_deref().and_then(Digest::of_text) }
    }
}

impl Http {
    /// What `reference`'s repository holds at its revision.
    pub async fn listing(&self, reference: &HubRef) -> Result<Listing, HubError> {
        let mut patience = self.patience_first();
        loop {
            match self.try_listing(reference).await {
                Ok(listing) => return Ok(listing),
                Err(fault) => tokio::time::sleep(patience.after(fault)?.1).await,
            }
        }
    }

    async fn try_listing(&self, reference: &HubRef) -> Result<Listing, Fault> {
        let url = self.api(reference, "revision", &[("blobs", "true")]);
        let response = self.ask(Method::GET, url, None).await?;
        let known = match self.judge(response, reference).await {
            Ok(response) => Some(json::<ModelAnswer>(response).await?),
            Err(Fault::Final(HubError::Status { status: 404, .. })) => None,
            Err(fault) => return Err(fault),
        };
        let commit = known.as_ref().and_then(|answer| answer.sha.clone());
        let commit = commit.filter(|sha| is_commit(sha));
        let commit = commit.unwrap_or_else(|| reference.revision().to_owned());
        let files = known.map(|answer| answer.siblings).unwrap_or_default();
        let files: Vec<_> = files
            .into_iter()
            .map(|s| RemoteFile::told(s.rfilename, s.size, s.blob_id, s.lfs))
            .collect();
        let is_told = !files.is_empty() && files.iter().all(|file| file.bytes.is_some());
        let files = if is_told { files } else { self.tree(reference, files).await? };
        let url = self.page(reference);
        Listing::new(commit, files).map_err(|reason| HubError::Answer { url, reason }.into())
    }

    /// The files as the tree tells them; `listed` where there is no tree.
    async fn tree(
        &self,
        reference: &HubRef,
        listed: Vec<RemoteFile>,
    ) -> Result<Vec<RemoteFile>, Fault> {
        let mut files = Vec::new();
        let mut next = Some(self.api(reference, "tree", &[("recursive", "true")]));
        for _ in 0..PAGES_MAX {
            let Some(url) = next else { return Ok(files) };
            let response = self.ask(Method::GET, url, None).await?;
            let response = match self.judge(response, reference).await {
                Ok(response) => response,
                Err(Fault::Final(HubError::Status { status: 404, .. })) if !listed.is_empty() => {
                    return Ok(listed);
                }
                Err(Fault::Final(HubError::Status { status: 404, .. })) => {
                    let (host, repo) = (self.host(), reference.repository());
                    let page = self.page(reference);
                    return Err(HubError::NoRepo { host, repo, page }.into());
                }
                Err(fault) => return Err(fault),
            };
            next = next_page(&response);
            let entries = json::<Vec<TreeEntry>>(response).await?.into_iter();
            let entries = entries.filter(|entry| entry.kind.as_deref() != Some("directory"));
            files.extend(entries.map(|e| RemoteFile::told(e.path, e.size, e.oid, e.lfs)));
        }
        let reason = format!("more than {PAGES_MAX} pages of files");
        Err(HubError::Answer { url: self.page(reference), reason }.into())
    }

    /// `file` with the size and digest that its own headers tell.
    pub async fn describe(
        &self,
        reference: &HubRef,
        commit: &str,
        file: &RemoteFile,
    ) -> Result<RemoteFile, HubError> {
        let mut patience = self.patience_first();
        loop {
            match self.try_describe(reference, commit, file).await {
                Ok(file) => return Ok(file),
                Err(fault) => tokio::time::sleep(patience.after(fault)?.1).await,
            }
        }
    }

    async fn try_describe(
        &self,
        reference: &HubRef,
        commit: &str,
        file: &RemoteFile,
    ) -> Result<RemoteFile, Fault> {
        let url = self.file_url(reference, commit, &file.path);
        let response = self.ask(Method::HEAD, url, None).await?;
        let is_linked = response.headers().contains_key(LINKED_SIZE);
        let response = if is_linked { response } else { self.judge(response, reference).await? };
        let number = |name| http::header(&response, name).and_then(|text| text.parse().ok());
        let bytes = number(LINKED_SIZE).or_else(|| number("content-length"));
        let bytes = bytes.filter(|bytes| *bytes <= FILE_BYTES_MAX).ok_or_else(|| {
            let reason = "it does not tell the file's size".into();
            HubError::Answer { url: shown(response.url()), reason }
        })?;
        let tag = http::header(&response, "x-linked-etag");
        let tag = tag.or_else(|| http::header(&response, "etag")).unwrap_or_default();
        let digest = Digest::of_text(tag.trim_start_matches("W/").trim_matches('"'));
        let digest = file.digest.clone().or(digest);
        Ok(RemoteFile { path: file.path.clone(), bytes: Some(bytes), digest })
    }

    /// Where a file's content is.
    pub fn file_url(&self, reference: &HubRef, commit: &str, path: &str) -> Url {
        let [owner, repo] = reference.halves();
        let parts: Vec<_> =
            [owner, repo, "resolve", commit].into_iter().chain(path.split('/')).collect();
        self.url(&parts, &[])
    }

    fn api(&self, reference: &HubRef, what: &str, query: &[(&str, &str)]) -> Url {
        let [owner, repo] = reference.halves();
        self.url(&["api", "models", owner, repo, what, reference.revision()], query)
    }
}

async fn json<T: DeserializeOwned>(response: Response) -> Result<T, Fault> {
    let url = shown(response.url());
    let body = http::body(response, LISTING_BYTES_MAX).await?;
    let wrong = |error: serde_json::Error| HubError::Answer { url, reason: error.to_string() };
    Ok(serde_json::from_slice(&body).map_err(wrong)?)
}

/// The `next` of a `Link` header, if it is an address of the same origin.
fn next_page(response: &Response) -> Option<Url> {
    let links = response.headers().get(LINK)?.to_str().ok()?;
    let next = links.split(',').find(|link| link.contains("rel=\"next\""))?;
    let address = next.split_once('<')?.1.split_once('>')?.0;
    let url = response.url().join(address).ok()?;
    (url.origin() == response.url().origin()).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, bytes: u64) -> RemoteFile {
        RemoteFile { path: path.into(), bytes: Some(bytes), digest: None }
    }

    #[test]
    fn unsafe_names_and_sizes_never_come_in() {
        let files = ["../x", "/x", "a/../b", "C:x", ".talka.json", "b", "a/c"].map(|p| file(p, 1));
        let listing = Listing::new("c".into(), files).expect("a listing");
        let paths: Vec<_> = listing.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["a/c", "b"]);
        assert!(listing.get("b").is_some() && listing.get("c").is_none());
        assert_eq!(Listing::from_json(&listing.to_json()), Ok(listing));
        assert!(Listing::new("c".into(), [file("a", u64::MAX)]).is_err());
        assert!(Listing::from_json(b"{").is_err());
    }

    #[test]
    fn large_files_are_known_by_their_content_not_their_pointer() {
        let sha = "a".repeat(64);
        let lfs = Some(Lfs { sha256: Some(sha.clone()), size: Some(7) });
        let told = RemoteFile::told("x".into(), Some(134), Some("b".repeat(40)), lfs);
        assert_eq!((told.bytes, told.digest), (Some(7), Some(Digest::Sha256(sha))));
    }
}
