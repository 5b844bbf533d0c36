//! A service: where it is, with which key, and how long to wait for it.

use crate::{
    answer::Answer,
    error::{AskError, ServiceError},
    events,
    question::Question,
};
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue},
    redirect,
};
use std::{fmt, net::IpAddr, time::Duration};
use tokio::time::{Instant, timeout_at};

/// The longest name of a service, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// How long a service may take before its first word: a small computer reads a long prompt, or loads a model.
pub const FIRST_MAX_DEFAULT: Duration = Duration::from_secs(60);

/// A host across the world answers in well under a second; three lost packets cost 7.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// What is read of an answer that is an error.
const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// What is shown of a service's own words.
const MESSAGE_CHARS_MAX: usize = 200;

/// A secret that tells a service who asks. Never shown.
#[derive(Clone)]
pub struct Key {
    text: String,
    header: HeaderValue,
}

impl Key {
    /// The key in `text`; blanks around it are no part of it.
    ///
    /// # Errors
    /// [`ServiceError::Key`] if it cannot be part of a request.
    pub fn new(text: &str) -> Result<Self, ServiceError> {
        let text = text.trim().to_owned();
        let sound = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let header = sound.then(|| HeaderValue::try_from(format!("Bearer {text}")).ok()).flatten();
        let mut header = header.ok_or(ServiceError::Key)?;
        header.set_sensitive(true);
        Ok(Self { text, header })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(hidden)")
    }
}

/// How a service is asked.
#[derive(Debug, Clone)]
pub struct ServiceConfig {
    /// What people call it: letters, digits, dots, dashes and underscores.
    pub name: String,
    /// What `/chat/completions` is put behind, such as `https://api.example.com/v1`.
    pub address: String,
    /// Who asks, if the service wants to know.
    pub key: Option<Key>,
    /// How long it may take before its first word.
    pub first_max: Duration,
    /// How long it may be silent after that.
    pub silence_max: Duration,
}

impl ServiceConfig {
    /// The service at `address` with settings for one that has work to do.
    pub fn new(name: impl Into<String>, address: impl Into<String>, key: Option<Key>) -> Self {
        Self {
            name: name.into(),
            address: address.into(),
            key,
            first_max: FIRST_MAX_DEFAULT,
            silence_max: FIRST_MAX_DEFAULT / 2,
        }
    }
}

/// A service that can be asked.
#[derive(Debug)]
pub struct Service {
    config: ServiceConfig,
    address: Url,
    client: Client,
}

impl Service {
    /// Checks the settings; asks nobody.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn new(config: ServiceConfig) -> Result<Self, ServiceError> {
        let is_sound = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let (name, max) = (&config.name, NAME_BYTES_MAX);
        if !(1..=max).contains(&name.len()) || !name.bytes().all(is_sound) {
            let found = name.chars().take(max).collect();
            return Err(ServiceError::Name { found, max });
        }
        let address = address(&config)?;
        let builder = Client::builder()
            .user_agent(concat!("talka/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_MAX);
        // A proxy cannot reach what is on this computer.
        let builder = if is_here(&address) { builder.no_proxy() } else { builder };
        let client = builder.build();
        let client = client.map_err(|error| ServiceError::Client { reason: cause(&error) })?;
        Ok(Self { config, address, client })
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Where it is.
    pub fn address(&self) -> &str {
        self.address.as_str()
    }

    /// Whether it is told who asks.
    pub fn has_key(&self) -> bool {
        self.config.key.is_some()
    }

    /// Asks, and waits for the first word. Dropping the answer ends the question.
    ///
    /// # Errors
    /// [`AskError`]: another service may be asked, as nobody has seen anything of an answer.
    pub async fn ask(&self, question: &Question) -> Result<Answer, AskError> {
        let deadline = Instant::now() + self.config.first_max;
        let seconds = self.config.first_max.as_secs();
        let asking = async {
            let response = self.send(question).await?;
            let bytes_max = text_bytes_max(question.max_tokens);
            Answer::begin(response, self.config.silence_max, bytes_max).await
        };
        let answer = timeout_at(deadline, asking).await;
        answer.unwrap_or(Err(AskError::Silent { seconds })).map_err(|error| self.clean(error))
    }

    /// `error` without the key, should the service have repeated it.
    pub fn clean(&self, error: AskError) -> AskError {
        let clean = |text: String| {
            let text = match &self.config.key {
                Some(key) => text.replace(&key.text, "(key)"),
                None => text,
            };
            text.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect()
        };
        match error {
            AskError::Status { status, message } => {
                AskError::Status { status, message: clean(message) }
            }
            AskError::Failed { message } => AskError::Failed { message: clean(message) },
            AskError::Malformed { reason } => AskError::Malformed { reason: clean(reason) },
            other => other,
        }
    }

    async fn send(&self, question: &Question) -> Result<Response, AskError> {
        let mut url = self.address.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(question.path());
        }
        let mut request = self
            .client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "text/event-stream, application/json")
            .body(question.body().to_string());
        if let Some(key) = &self.config.key {
            request = request.header(AUTHORIZATION, key.header.clone());
        }
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        match status {
            _ if status.is_success() => Ok(response),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(AskError::Key { status: status.as_u16() })
            }
            _ if status.is_redirection() => Err(AskError::Redirect { status: status.as_u16() }),
            _ => {
                let message = message_of(response).await;
                Err(AskError::Status { status: status.as_u16(), message })
            }
        }
    }
}

/// An answer's text is at most so long: no vocabulary has tokens of more bytes on average.
fn text_bytes_max(max_tokens: u32) -> usize {
    const TOKEN_BYTES: usize = 64;
    const SLACK: usize = 4 << 10;
    (max_tokens as usize).saturating_mul(TOKEN_BYTES).saturating_add(SLACK)
}

fn address(config: &ServiceConfig) -> Result<Url, ServiceError> {
    let wrong = |reason: &str| ServiceError::Address {
        name: config.name.clone(),
        // What comes before the @ may be a secret.
        found: config.address.rsplit('@').next().unwrap_or_default().into(),
        reason: reason.into(),
    };
    let url = Url::parse(&config.address).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong("it is neither http nor https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("it holds a name or password: give a key instead"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it has a query or fragment"));
    }
    let is_near = is_here(&url) || is_private(&url);
    if config.key.is_some() && url.scheme() == "http" && !is_near {
        let (name, found) = (config.name.clone(), config.address.clone());
        return Err(ServiceError::Unprotected { name, found });
    }
    Ok(url)
}

fn ip(url: &Url) -> Option<IpAddr> {
    let host = url.host_str().unwrap_or_default();
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn is_here(url: &Url) -> bool {
    url.host_str() == Some("localhost") || ip(url).is_some_and(|ip| ip.is_loopback())
}

/// An address of the local network, where services rarely have certificates.
fn is_private(url: &Url) -> bool {
    ip(url).is_some_and(|ip| match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    })
}

pub(crate) fn unreachable(error: reqwest::Error) -> AskError {
    AskError::Unreachable { reason: cause(&error) }
}

/// The innermost cause: the outer ones only say that there is one.
fn cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// What an error's body says: the error of its document, or its first line.
async fn message_of(mut response: Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(piece)) = response.chunk().await {
        body.extend_from_slice(&piece[..piece.len().min(MESSAGE_BYTES_MAX - body.len())]);
        if body.len() == MESSAGE_BYTES_MAX {
            break;
        }
    }
    let text = String::from_utf8_lossy(&body);
    let document = serde_json::from_str::<serde_json::Value>(&text).ok();
    let told = document.as_ref().and_then(|document| document.get("error")).map(events::told);
    told.unwrap_or_else(|| text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, address: &str, key: Option<&str>) -> Result<(), ServiceError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let key = key.map(|text| Key::new(text).expect("a key"));
        Service::new(ServiceConfig::new(name, address, key)).map(|_| ())
    }

    #[test]
    fn settings_are_checked() {
        for (address, key) in [
            ("https://api.example.com/openai/v1", Some("sk-1")),
            ("http://api.example.com/v1/", None),
            ("http://127.0.0.1:11434/v1", Some("x")),
            ("http://localhost:1/v1", Some("x")),
            ("http://[::1]:1/v1", Some("x")),
            ("http://192.168.1.4:8000/v1", Some("x")),
        ] {
            assert_eq!(check("Groq-1.a_b", address, key), Ok(()), "{address}");
        }
        for address in [
            "",
            "api.example.com",
            "ftp://x/v1",
            "file:///etc/passwd",
            "https://u:pw@x/v1",
            "https://x/v1?key=1",
        ] {
            let error = check("a", address, None).expect_err(address);
            assert!(matches!(error, ServiceError::Address { .. }), "{error}");
            assert!(!error.to_string().contains("pw"), "{error}");
        }
        let unprotected = check("a", "http://api.example.com/v1", Some("sk-1"));
        assert!(matches!(unprotected, Err(ServiceError::Unprotected { .. })), "{unprotected:?}");
        for name in ["", "a b", "a\n", "ä", &"x".repeat(65)] {
            let error = check(name, "http://x/v1", None).expect_err(name);
            assert!(matches!(error, ServiceError::Name { .. }), "{error}");
        }
    }

    #[test]
    fn a_key_is_checked_and_never_shown() {
        let key = Key::new(" sk-secret\n").expect("a key");
        let config = ServiceConfig::new("a", "https://x/v1", Some(key));
        assert!(!format!("{config:?}").contains("secret"));
        for wrong in ["", " ", "a b", "a\u{7f}", "é"] {
            assert!(Key::new(wrong).is_err(), "{wrong:?}");
        }
        let _ = rustls::crypto::ring::default_provider().install_default();
        let service = Service::new(config).expect("sound settings");
        assert!(!format!("{service:?}").contains("secret"));
        let message = "bad key sk-secret\u{1b}[31m".to_owned();
        let cleaned = service.clean(AskError::Failed { message });
        assert_eq!(cleaned, AskError::Failed { message: "bad key (key)[31m".into() });
    }
}
