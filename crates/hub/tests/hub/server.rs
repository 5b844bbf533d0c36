//! A hub on this computer: the part of the interface that model downloads use, with every fault that
//! a network can have, and a second host for large files as the real one has.

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, Method, Response, StatusCode},
};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::Duration,
};

/// The commit that `main` is at first.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

const CUT_DELAY: Duration = Duration::from_millis(50);

/// What the server does wrong, or differently.
#[derive(Debug, Clone, Default)]
pub struct Behaviour {
    /// Cuts the connection after so many bytes of content, for the next so many answers.
    pub cut: Option<(usize, usize)>,
    /// Stops after so many bytes of each content and never ends it.
    pub hold: Option<usize>,
    /// Answers so many requests for content with 503 first.
    pub busy: usize,
    /// Knows no ranges.
    pub no_ranges: bool,
    /// Sends other bytes than it lists.
    pub corrupt: bool,
    /// Wants a token that it knows, for content.
    pub gated: bool,
    /// Lists names only.
    pub names_only: bool,
    /// Knows no commits: lists by the tree alone, so many files a page.
    pub tree_pages: Option<usize>,
    /// Says that files are so large, whatever they are.
    pub claimed_bytes: Option<u64>,
}

/// A request for content or a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Of the host for large files.
    pub elsewhere: bool,
    pub path: String,
    /// Start and end, half open.
    pub range: Option<(u64, u64)>,
    pub token: bool,
}

#[derive(Debug)]
struct Inner {
    repo: String,
    commit: String,
    files: BTreeMap<String, Vec<u8>>,
    behaviour: Behaviour,
    asked: Vec<Asked>,
    cdn: SocketAddr,
}

/// The running server with one repository. It ends with the test's process.
#[derive(Debug, Clone)]
pub struct FakeHub {
    inner: Arc<Mutex<Inner>>,
    address: SocketAddr,
}

impl FakeHub {
    /// A hub with the repository `acme/tiny`.
    pub fn start(files: &[(&str, Vec<u8>)]) -> Self {
        Self::of("acme/tiny", files)
    }

    /// A hub with the repository `repo`.
    pub fn of(repo: &str, files: &[(&str, Vec<u8>)]) -> Self {
        let [hub, cdn] = [(), ()].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone()));
        let inner = Inner {
            repo: repo.into(),
            commit: COMMIT.into(),
            files: files.collect(),
            behaviour: Behaviour::default(),
            asked: Vec::new(),
            cdn: cdn.local_addr().expect("its address"),
        };
        let this = Self {
            inner: Arc::new(Mutex::new(inner)),
            address: hub.local_addr().expect("its address"),
        };
        for (listener, elsewhere) in [(hub, false), (cdn, true)] {
            let state = (this.clone(), elsewhere);
            thread::spawn(move || serve(listener, state));
        }
        this
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn behave(&self, behaviour: Behaviour) {
        self.lock().behaviour = behaviour;
    }

    /// The repository moves on.
    pub fn commit(&self, commit: &str, file: &str, bytes: &[u8]) {
        let mut inner = self.lock();
        inner.commit = commit.into();
        inner.files.insert(file.into(), bytes.to_vec());
    }

    /// Everything asked since the last call.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.lock().asked)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no handler panics")
    }

    fn answer(&self, elsewhere: bool, request: &Request) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let range = range_of(request.headers());
        let token = request.headers().contains_key("authorization");
        let mut inner = self.lock();
        inner.asked.push(Asked { elsewhere, path: path.clone(), range, token });
        if let Some(api) = path.strip_prefix("/api/models/") {
            return inner.listing(api, request.uri().query().unwrap_or_default());
        }
        let Some(rest) = path.strip_prefix(&format!("/{}/resolve/", inner.repo)) else {
            return error(StatusCode::NOT_FOUND, "", "no such page");
        };
        let Some((revision, file)) = rest.split_once('/') else {
            return error(StatusCode::NOT_FOUND, "", "no such page");
        };
        if inner.behaviour.gated && !elsewhere && !token {
            return error(StatusCode::UNAUTHORIZED, "GatedRepo", "Access is restricted");
        }
        let is_known = revision == inner.commit || revision == "main";
        if !is_known || !inner.files.contains_key(file) {
            return error(StatusCode::NOT_FOUND, "EntryNotFound", "no such file");
        }
        if !elsewhere && is_large(file) {
            return inner.redirect(&path, file);
        }
        inner.content(file, range, request.method())
    }
}

impl Inner {
    fn listing(&self, api: &str, query: &str) -> Response<Body> {
        let rest = api.strip_prefix(&self.repo).and_then(|rest| rest.strip_prefix('/'));
        let Some((what, revision)) = rest.and_then(|rest| rest.split_once('/')) else {
            return error(StatusCode::NOT_FOUND, "RepoNotFound", "Repository not found");
        };
        if revision != "main" && revision != self.commit {
            return error(StatusCode::NOT_FOUND, "RevisionNotFound", "Invalid rev id");
        }
        let is_tree = what == "tree";
        if is_tree && self.behaviour.names_only {
            return error(StatusCode::NOT_FOUND, "", "no trees here");
        }
        if self.behaviour.tree_pages.is_some() && !is_tree {
            return error(StatusCode::NOT_FOUND, "", "no such page");
        }
        let mut files: Vec<_> =
            self.files.iter().map(|(n, b)| self.describe(n, b, is_tree)).collect();
        let mut response = Response::builder();
        if let Some(page) = self.behaviour.tree_pages {
            let start =
                query.rsplit_once("cursor=").map_or(0, |(_, n)| n.parse().expect("a number"));
            let end = files.len().min(start + page);
            if end < files.len() {
                let path = format!("/api/models/{api}?recursive=true&cursor={end}");
                response = response.header("link", format!("<{path}>; rel=\"next\""));
            }
            files = files.drain(start..end).collect();
        }
        let document = match is_tree {
            true => json!(files),
            false => json!({ "sha": self.commit, "siblings": files }),
        };
        response
            .header("content-type", "application/json")
            .body(document.to_string().into())
            .expect("a response")
    }

    fn describe(&self, name: &str, bytes: &[u8], is_tree: bool) -> Value {
        let (sha256, git) = (sha256(bytes), git_blob(bytes));
        let size = self.behaviour.claimed_bytes.unwrap_or(bytes.len() as u64);
        match (self.behaviour.names_only, is_tree, is_large(name)) {
            (true, ..) => json!({ "rfilename": name }),
            (_, true, true) => {
                json!({ "type": "file", "path": name, "size": size, "oid": "0".repeat(40),
                "lfs": { "oid": sha256, "size": size, "pointerSize": 134 } })
            }
            (_, true, false) => json!({ "type": "file", "path": name, "size": size, "oid": git }),
            (_, false, true) => json!({ "rfilename": name, "size": size, "blobId": "0".repeat(40),
                "lfs": { "sha256": sha256, "size": size, "pointerSize": 134 } }),
            (_, false, false) => json!({ "rfilename": name, "size": size, "blobId": git }),
        }
    }

    fn redirect(&self, path: &str, file: &str) -> Response<Body> {
        let bytes = &self.files[file];
        Response::builder()
            .status(StatusCode::FOUND)
            .header("location", format!("http://{}{path}?signature=x", self.cdn))
            .header("x-linked-size", bytes.len())
            .header("x-linked-etag", format!("\"{}\"", sha256(bytes)))
            .body(Body::empty())
            .expect("a response")
    }

    fn content(
        &mut self,
        file: &str,
        range: Option<(u64, u64)>,
        method: &Method,
    ) -> Response<Body> {
        let head = method == Method::HEAD;
        if self.behaviour.busy > 0 && !head {
            self.behaviour.busy -= 1;
            return error(StatusCode::SERVICE_UNAVAILABLE, "", "come back later");
        }
        let mut bytes = self.files[file].clone();
        let (total, tag) = (bytes.len(), git_blob(&bytes));
        if self.behaviour.corrupt {
            bytes.iter_mut().for_each(|byte| *byte ^= 1);
        }
        let range = range.filter(|_| !self.behaviour.no_ranges);
        let mut response = Response::builder().header("etag", format!("\"{tag}\""));
        if let Some((start, end)) = range {
            let end = end.min(bytes.len() as u64);
            if start >= end {
                let response = response.status(StatusCode::RANGE_NOT_SATISFIABLE);
                let response = response.header("content-range", format!("bytes */{total}"));
                return response.body(Body::empty()).expect("a response");
            }
            bytes = bytes[start as usize..end as usize].to_vec();
            let range = format!("bytes {start}-{}/{total}", end - 1);
            response = response.status(StatusCode::PARTIAL_CONTENT).header("content-range", range);
        }
        response = response.header("content-length", bytes.len());
        let body = if head { Body::empty() } else { self.body(bytes) };
        response.body(body).expect("a response")
    }

    fn body(&mut self, bytes: Vec<u8>) -> Body {
        let piece = |bytes: &[u8]| Ok::<_, io::Error>(Bytes::copy_from_slice(bytes));
        if let Some((after, times)) =
            self.behaviour.cut.filter(|(after, times)| *times > 0 && *after < bytes.len())
        {
            self.behaviour.cut = Some((after, times - 1));
            let cut = stream::once(async {
                // What was written before an error leaves the machine only if it gets the time to.
                tokio::time::sleep(CUT_DELAY).await;
                Err(io::Error::from(io::ErrorKind::ConnectionReset))
            });
            return Body::from_stream(stream::iter([piece(&bytes[..after])]).chain(cut));
        }
        if let Some(after) = self.behaviour.hold.filter(|after| *after < bytes.len()) {
            let begun = stream::iter([piece(&bytes[..after])]);
            return Body::from_stream(begun.chain(stream::pending()));
        }
        Body::from(bytes)
    }
}

fn serve(listener: TcpListener, state: (FakeHub, bool)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("an async runtime").block_on(async {
        listener.set_nonblocking(true).expect("a socket can be asked");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        let app = Router::new().fallback(answer).with_state(state);
        axum::serve(listener, app).await.expect("the server runs");
    });
}

async fn answer(
    State((hub, elsewhere)): State<(FakeHub, bool)>,
    request: Request,
) -> Response<Body> {
    hub.answer(elsewhere, &request)
}

fn error(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let response = Response::builder().status(status);
    let response = if code.is_empty() { response } else { response.header("x-error-code", code) };
    response.body(json!({ "error": message }).to_string().into()).expect("a response")
}

fn range_of(headers: &HeaderMap) -> Option<(u64, u64)> {
    let text = headers.get("range")?.to_str().ok()?.strip_prefix("bytes=")?;
    let (start, last) = text.split_once('-')?;
    Some((start.parse().ok()?, last.parse::<u64>().ok()? + 1))
}

fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".gguf")
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn git_blob(bytes: &[u8]) -> String {
    let mut sha = sha1_smol::Sha1::from(format!("blob {}\0", bytes.len()));
    sha.update(bytes);
    sha.digest().to_string()
}
