//! Asks a hub: redirects, the token, bounded answers, and patience with servers that stumble.
//!
//! Redirects are followed here and not by the HTTP library, because one thing matters: the token
//! goes to the hub's own origin and nowhere else. Large files lie with another host, which is told
//! what it needs by the address the hub sends us to.

use crate::{error::HubError, reference::HubRef};
use reqwest::{
    Client, Method, Response, StatusCode, Url,
    header::{
        ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RANGE, RETRY_AFTER,
    },
    redirect,
};
use std::{fmt, net::IpAddr, time::Duration};

/// A host across the world answers in well under a second; three lost packets cost 7.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Between two pieces of an answer. Longer is a dead connection, and another one goes on from there.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// The hub needs two for a large file: to its bridge and to the store.
const REDIRECTS_MAX: usize = 8;
/// What a server may ask us to wait. Beyond that a person should know.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Waits double; eight make two minutes, the time a router needs to start again.
const TRIES: u32 = 8;
/// Whoever types a command waits for the first answer: three tries are two seconds.
const TRIES_FIRST: u32 = 3;
/// What is read of an answer that is an error.
const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// How a hub is asked.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// Such as `https://huggingface.co`.
    pub endpoint: String,
    /// Who asks, if the hub shall know.
    pub token: Option<Token>,
    /// The first wait after a failure; each further one is twice as long.
    pub wait: Duration,
    /// Connections at a time.
    pub connections: usize,
    /// How much one request asks for, at most. Whatever the value, a cut loses nothing that came.
    pub segment_bytes: u64,
}

impl HubConfig {
    /// The hub at `endpoint` with settings for a connection of any speed.
    ///
    /// Eight connections of 32 MiB each: one alone is often held to a tenth of a fast line, and a
    /// segment still takes seconds, so that asking for it is not what time goes into.
    pub fn new(endpoint: impl Into<String>, token: Option<Token>) -> Self {
        let wait = Duration::from_millis(500);
        Self { endpoint: endpoint.into(), token, wait, connections: 8, segment_bytes: 32 << 20 }
    }
}

/// A secret that tells the hub who asks. Never shown.
#[derive(Clone)]
pub struct Token(HeaderValue);

impl Token {
    /// # Errors
    /// [`HubError::Token`] if `text` cannot be part of a request.
    pub fn new(text: &str) -> Result<Self, HubError> {
        let text = text.trim();
        let sound = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        let value = sound.then(|| HeaderValue::try_from(format!("Bearer {text}")).ok()).flatten();
        let mut value = value.ok_or(HubError::Token)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// Why one try failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The same may succeed later; the server may have said when.
    Passing { reason: String, wait: Option<Duration> },
    /// It will not.
    Final(HubError),
}

impl From<HubError> for Fault {
    fn from(error: HubError) -> Self {
        Self::Final(error)
    }
}

/// How often and how long to wait for something that keeps failing.
#[derive(Debug)]
pub(crate) struct Patience {
    host: String,
    wait: Duration,
    tries: u32,
    tries_max: u32,
}

impl Patience {
    /// Something came: the next failure is the first again.
    pub fn renew(&mut self) {
        self.tries = 0;
    }

    /// How long to wait before the next try.
    ///
    /// # Errors
    /// The fault itself once it is final, or once patience is at its end.
    pub fn after(&mut self, fault: Fault) -> Result<(String, Duration), HubError> {
        let (reason, asked) = match fault {
            Fault::Final(error) => return Err(error),
            Fault::Passing { reason, wait } => (reason, wait),
        };
        self.tries += 1;
        if self.tries >= self.tries_max || asked.is_some_and(|wait| wait > WAIT_MAX) {
            return Err(HubError::Unreachable { host: self.host.clone(), reason });
        }
        let own = self.wait * 2_u32.pow(self.tries - 1);
        Ok((reason, asked.unwrap_or(own).min(WAIT_MAX)))
    }
}

/// Who asks, and whom.
#[derive(Debug)]
pub(crate) struct Http {
    client: Client,
    endpoint: Url,
    token: Option<Token>,
    wait: Duration,
}

impl Http {
    pub fn new(config: &HubConfig) -> Result<Self, HubError> {
        let wrong = |reason: String| HubError::Endpoint { found: config.endpoint.clone(), reason };
        let endpoint = Url::parse(&config.endpoint).map_err(|error| wrong(error.to_string()))?;
        if !matches!(endpoint.scheme(), "http" | "https") || endpoint.cannot_be_a_base() {
            return Err(wrong("neither http nor https".into()));
        }
        let mut headers = HeaderMap::new();
        // Sizes and ranges are those of the file, never of a compressed answer.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let builder = Client::builder()
            .user_agent(concat!("talka/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_MAX)
            .read_timeout(SILENCE_MAX);
        // A proxy cannot reach what is on this computer.
        let builder = if is_here(&endpoint) { builder.no_proxy() } else { builder };
        let client = builder.build().map_err(|error| wrong(reason_of(&error)))?;
        Ok(Self { client, endpoint, token: config.token.clone(), wait: config.wait })
    }

    /// The hub's host, for messages.
    pub fn host(&self) -> String {
        self.endpoint.host_str().unwrap_or_default().into()
    }

    /// The page where people see a repository.
    pub fn page(&self, reference: &HubRef) -> String {
        self.url(&reference.halves(), &[]).into()
    }

    /// The endpoint with more path, each part of it escaped, and a query.
    pub fn url(&self, parts: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(parts);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// Patience for a file under way.
    pub fn patience(&self) -> Patience {
        Patience { host: self.host(), wait: self.wait, tries: 0, tries_max: TRIES }
    }

    /// Patience for the first question.
    pub fn patience_first(&self) -> Patience {
        Patience { tries_max: TRIES_FIRST, ..self.patience() }
    }

    /// No patience: the reason of the first failure.
    pub fn patience_none(&self) -> Patience {
        Patience { tries_max: 1, ..self.patience() }
    }

    /// The answer at `url`, whatever its status, redirects followed.
    pub async fn ask(
        &self,
        method: Method,
        url: Url,
        range: Option<(u64, u64)>,
    ) -> Result<Response, Fault> {
        let mut url = url;
        for _ in 0..REDIRECTS_MAX {
            let mut request = self.client.request(method.clone(), url.clone());
            if let Some((start, end)) = range {
                request = request.header(RANGE, format!("bytes={start}-{}", end - 1));
            }
            if let Some(Token(token)) = self.token.as_ref().filter(|_| self.is_own(&url)) {
                request = request.header(AUTHORIZATION, token.clone());
            }
            let response = request.send().await.map_err(passing)?;
            match self.next(&method, &response)? {
                Some(next) => url = next,
                None => return Ok(response),
            }
        }
        Err(HubError::Answer { url: shown(&url), reason: "it redirects in circles".into() }.into())
    }

    /// Where `response` sends us, if it does.
    fn next(&self, method: &Method, response: &Response) -> Result<Option<Url>, Fault> {
        let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
        // What a question about a file wants to know stands on the hub's own answer.
        let is_told = method == Method::HEAD && response.headers().contains_key(LINKED_SIZE);
        if !is_redirect || is_told {
            return Ok(None);
        }
        let url = response.url();
        let wrong = |reason: &str| HubError::Answer { url: shown(url), reason: reason.into() };
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| wrong("it redirects nowhere"))?;
        let next = url.join(location).map_err(|_| wrong("it redirects to no address"))?;
        let is_safe =
            next.scheme() == "https" || (next.scheme() == "http" && url.scheme() == "http");
        if !is_safe {
            return Err(wrong("it redirects to an address that is not protected").into());
        }
        Ok(Some(next))
    }

    /// Whether `url` is the hub itself: the same scheme, host and port.
    fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.endpoint.origin()
    }

    /// `response` if it is a success, else what its error means for `reference`.
    pub async fn judge(&self, response: Response, reference: &HubRef) -> Result<Response, Fault> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let code = header(&response, "x-error-code").unwrap_or_default();
        let message = header(&response, "x-error-message");
        let wait = header(&response, RETRY_AFTER.as_str()).and_then(|text| text.parse().ok());
        let url = shown(response.url());
        let is_own = self.is_own(response.url());
        let message = match message {
            Some(message) => message,
            None => message_of(response).await,
        };
        let (repo, page) = (reference.repository(), self.page(reference));
        let revision = reference.revision().to_owned();
        Err(match (status, code.as_str()) {
            (StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS, _) => busy(status, wait),
            (status, _) if status.is_server_error() => busy(status, wait),
            (_, "RevisionNotFound") => HubError::NoRevision { repo, revision }.into(),
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) if is_own => HubError::Refused {
                host: self.host(),
                repo,
                page,
                status: status.as_u16(),
                message,
                with_token: self.token.is_some(),
            }
            .into(),
            (_, "RepoNotFound") => HubError::NoRepo { host: self.host(), repo, page }.into(),
            // An address that the hub handed out and that has expired: the next try gets a new one.
            (StatusCode::FORBIDDEN, _) => busy(status, None),
            _ => HubError::Status { url, status: status.as_u16(), message }.into(),
        })
    }
}

/// The size of a file that lies elsewhere, in the hub's own answer.
pub(crate) const LINKED_SIZE: &str = "x-linked-size";

/// A header's text, if it is there and is text.
pub(crate) fn header(response: &Response, name: &str) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.chars().take(500).collect())
}

/// The body of `response`, at most `bytes_max` of it.
pub(crate) async fn body(mut response: Response, bytes_max: usize) -> Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(passing)? {
        if body.len() + piece.len() > bytes_max {
            let reason = format!("its answer is longer than {bytes_max} bytes");
            return Err(HubError::Answer { url: shown(response.url()), reason }.into());
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// What an error's body says: the `error` of its document, or its first line.
async fn message_of(response: Response) -> String {
    let Ok(bytes) = body(response, MESSAGE_BYTES_MAX).await else { return String::new() };
    let text = String::from_utf8_lossy(&bytes);
    let document = serde_json::from_str::<serde_json::Value>(&text).ok();
    let told = document.as_ref().and_then(|d| d["error"].as_str()).map(String::from);
    let line = told.unwrap_or_else(|| text.lines().next().unwrap_or_default().to_owned());
    line.chars().filter(|c| !c.is_control()).take(300).collect()
}

fn busy(status: StatusCode, seconds: Option<u64>) -> Fault {
    let reason = format!("it answers {status}");
    Fault::Passing { reason, wait: seconds.map(Duration::from_secs) }
}

/// A failed connection, which the next may not share.
pub(crate) fn passing(error: reqwest::Error) -> Fault {
    Fault::Passing { reason: reason_of(&error), wait: None }
}

/// The innermost cause: the outer ones only say that there is one.
fn reason_of(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// An address without its query, which may hold a signature.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.into()
}

fn is_here(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_shown() {
        let token = Token::new(" hf_secret\n").expect("a token");
        assert!(!format!("{:?}", HubConfig::new("https://h", Some(token))).contains("secret"));
        assert!(Token::new("a b").is_err());
        assert!(Token::new(" ").is_err());
    }

    #[test]
    fn patience_doubles_is_renewed_and_ends() {
        let mut patience = Patience {
            host: "hub".into(),
            wait: Duration::from_secs(1),
            tries: 0,
            tries_max: TRIES_FIRST,
        };
        let fault = |wait| Fault::Passing { reason: "cut".into(), wait };
        let wait = |patience: &mut Patience, asked| {
            patience.after(fault(asked)).map(|(_, wait)| wait.as_secs()).ok()
        };
        assert_eq!(wait(&mut patience, None), Some(1));
        assert_eq!(wait(&mut patience, Some(Duration::from_secs(7))), Some(7));
        assert_eq!(wait(&mut patience, None), None);
        patience.renew();
        assert_eq!(wait(&mut patience, None), Some(1));
        assert_eq!(wait(&mut patience, Some(WAIT_MAX * 2)), None, "too long to wait unseen");
    }

    #[test]
    fn parts_of_an_address_are_escaped() {
        let config = HubConfig::new("http://127.0.0.1:1/prefix/", None);
        rustls::crypto::ring::default_provider().install_default().ok();
        let http = Http::new(&config).expect("an endpoint");
        let url = http.url(&["a", "refs/pr/1", "x y"], &[("blobs", "true")]);
        assert_eq!(url.as_str(), "http://127.0.0.1:1/prefix/a/refs%2Fpr%2F1/x%20y?blobs=true");
        for wrong in ["", "huggingface.co", "ftp://h", "mailto:x"] {
            assert!(Http::new(&HubConfig::new(wrong, None)).is_err(), "{wrong}");
        }
    }
}
