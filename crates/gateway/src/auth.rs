//! Who may ask, as far as a request's outside tells: whoever holds the owner's key or one that the node made, or,
//! without an owner's key, programs and pages of this computer.
//!
//! What a key that the node made is good for is the node's to say; [`entrance`](crate::entrance) asks it.
//!
//! A browser that logged in ([`login`](crate::login)) shows a session instead of a key.
//!
//! Without a key the gateway listens on a loopback address only, and still has two enemies: a web
//! page that makes the user's browser send requests here (cross-site request forgery), and one whose
//! host name is rebound to 127.0.0.1 so that the browser takes us for its own site. The first
//! carries a foreign `Origin`, the second a foreign `Host`; both are refused.

use crate::{
    cors::Friends,
    error::ApiError,
    health::is_health,
    login::{Cookie, LOGIN_PATH},
};
use axum::http::{HeaderMap, HeaderName, Method, Uri, header, uri::Authority};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};
use talka_node::api::Keys;

/// Paths that hold no data: open to whoever reaches the port. Everything else is guarded.
const OPEN_PATHS: [&str; 6] =
    ["/", "/openapi.json", "/talka.css", "/talka.js", "/icon.svg", "/licences.md"];

/// Where Anthropic's clients put the key.
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Says how a browser's request and the page that made it are related.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The longest key accepted, in bytes: a header must carry it.
const KEY_BYTES_MAX: usize = 1024;

/// A bearer key. Only its BLAKE3 hash is kept; comparing takes the same time for every wrong key.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(blake3::Hash);

/// Why text cannot be a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nothing but white space.
    #[error("the API key is empty, expected 1 to {KEY_BYTES_MAX} printable ASCII characters")]
    Empty,
    /// Longer than a header should be.
    #[error("the API key has {found} bytes, expected at most {KEY_BYTES_MAX}")]
    Long {
        /// Its length in bytes.
        found: usize,
    },
    /// No header can carry it.
    #[error("the API key has a character at byte {at} that is not printable ASCII")]
    Character {
        /// Position of the character.
        at: usize,
    },
}

impl ApiKey {
    /// The key in `text`, without the white space around it that files and shells leave.
    ///
    /// # Errors
    /// [`KeyError`] if no client could ever send it.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        if text.len() > KEY_BYTES_MAX {
            return Err(KeyError::Long { found: text.len() });
        }
        if let Some(at) = text.bytes().position(|byte| !byte.is_ascii_graphic()) {
            return Err(KeyError::Character { at });
        }
        Ok(Self(blake3::hash(text.as_bytes())))
    }

    /// Whether `text` is this key. [`blake3::Hash`] compares in constant time.
    pub fn matches(&self, text: &str) -> bool {
        self.0 == blake3::hash(text.as_bytes())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(not shown)")
    }
}

/// An address that others reach, and no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "refused to listen on {address} without an API key: other computers could use this node and \
     spend its credits; give a key with --api-key-file FILE or TALKA_API_KEY, or listen on 127.0.0.1"
)]
pub struct BindRefused {
    /// The address asked for.
    pub address: SocketAddr,
}

/// Whether the gateway may listen on `address`: anywhere with a key, else on loopback only.
///
/// # Errors
/// [`BindRefused`] says how to give a key.
pub fn check_bind(address: SocketAddr, has_key: bool) -> Result<(), BindRefused> {
    if has_key || address.ip().is_loopback() { Ok(()) } else { Err(BindRefused { address }) }
}

/// Whom a node lets in.
#[derive(Debug, Clone)]
pub enum Rule {
    /// Whoever sends this key, the owner's, or one that the node made, and browsers that logged in.
    Keyed(ApiKey),
    /// Programs of this computer, and pages served from here.
    Loopback,
}

/// The rule at the entrance, and what belongs to it.
#[derive(Debug, Clone)]
pub struct Door {
    /// Whom it opens to.
    pub rule: Rule,
    /// How the node's own pages are reached: `http` or `https`.
    pub scheme: &'static str,
    /// Where a browser keeps its session.
    pub cookie: Cookie,
    /// Origins whose pages may ask models here.
    pub friends: Friends,
}

/// Who asks, by the outside of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass<'a> {
    /// Nobody need say who they are.
    Open,
    /// The owner, or a program of the owner's computer.
    Owner,
    /// Whoever the node gave this key to, if it did.
    Key(&'a str),
    /// A browser that logged in, if this is its session.
    Session(&'a str),
}

impl Door {
    /// Whether a request may enter, and as who.
    ///
    /// # Errors
    /// [`ApiError::KeyMissing`], [`ApiError::Host`] or [`ApiError::Origin`].
    pub fn judge<'a>(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &'a HeaderMap,
    ) -> Result<Pass<'a>, ApiError> {
        let open =
            OPEN_PATHS.contains(&uri.path()) || uri.path() == LOGIN_PATH || is_health(uri.path());
        match &self.rule {
            Rule::Keyed(_) if open => Ok(Pass::Open),
            Rule::Keyed(owner) => match given_key(headers).map(str::trim) {
                Some(given) if owner.matches(given) => Ok(Pass::Owner),
                Some(given) => Ok(Pass::Key(given)),
                None => {
                    let session = self.cookie.of(headers).ok_or(ApiError::KeyMissing)?;
                    self.check_own_page(method, uri, headers)?;
                    Ok(Pass::Session(session))
                }
            },
            Rule::Loopback if is_health(uri.path()) => Ok(Pass::Open),
            Rule::Loopback => {
                let host = check_host(uri, headers)?;
                if open {
                    return Ok(Pass::Open);
                }
                let is_friend = self.friends.sent(headers) && uri.path().starts_with("/v1/");
                if !is_friend {
                    self.check_origin(host.as_str(), headers)?;
                }
                // Clients must send some key, so here any is as good as none. But one that the node made holds
                // its bearer to its limits, and one that it no longer knows makes nobody the owner.
                let given = given_key(headers).map(str::trim).filter(|given| Keys::is_one(given));
                Ok(given.map_or(Pass::Owner, Pass::Key))
            }
        }
    }

    /// Programs say of no page that they come from it; our own page says so.
    fn check_origin(&self, host: &str, headers: &HeaderMap) -> Result<(), ApiError> {
        let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        match (text(header::ORIGIN), text(SEC_FETCH_SITE)) {
            (Some(found), _) => {
                let own = format!("{}://{host}", self.scheme);
                if found.eq_ignore_ascii_case(&own) { Ok(()) } else { Err(origin(found)) }
            }
            // Images and links of other pages name no origin, but browsers tell that they are others'.
            (None, Some(site @ ("cross-site" | "same-site"))) => Err(origin(site)),
            (None, _) => Ok(()),
        }
    }

    /// A browser sends its cookie for whatever page of this host makes it ask, on any port. So what a session
    /// changes is to be asked by our own page, and said to be so.
    fn check_own_page(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), ApiError> {
        self.check_origin(named_host(uri, headers), headers)?;
        let is_told =
            [header::ORIGIN, SEC_FETCH_SITE].iter().any(|name| headers.contains_key(name));
        if method.is_safe() || is_told { Ok(()) } else { Err(origin("nowhere")) }
    }
}

fn origin(found: &str) -> ApiError {
    ApiError::Origin { found: found.chars().take(80).collect() }
}

/// The host asked for, as it is named.
fn named_host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> &'a str {
    let named = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    uri.authority().map(Authority::as_str).or(named).unwrap_or_default()
}

/// The key as OpenAI's clients send it, else as Anthropic's do.
fn given_key(headers: &HeaderMap) -> Option<&str> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return headers.get(X_API_KEY)?.to_str().ok();
    };
    let (scheme, given) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(given)
}

/// The host asked for, which must be a name or address of loopback. Any port: it may be forwarded.
fn check_host(uri: &Uri, headers: &HeaderMap) -> Result<Authority, ApiError> {
    let found = named_host(uri, headers);
    found
        .parse::<Authority>()
        .ok()
        .filter(|authority| is_loopback(authority.host()))
        .ok_or_else(|| ApiError::Host { found: found.chars().take(80).collect() })
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    const KEY: &str = "correct-horse";

    /// Who enters, if anybody does.
    fn judge(
        door: &Door,
        path: &str,
        headers: &[(HeaderName, &str)],
    ) -> Result<String, &'static str> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).expect("a header")))
            .collect();
        let uri = path.parse().expect("a path");
        let pass = door.judge(&Method::POST, &uri, &headers).map_err(|error| error.row().code)?;
        Ok(match pass {
            Pass::Open => "open".into(),
            Pass::Owner => "owner".into(),
            Pass::Key(given) | Pass::Session(given) => given.into(),
        })
    }

    fn admit(door: &Door, path: &str, headers: &[(HeaderName, &str)]) -> Result<(), &'static str> {
        match judge(door, path, headers)?.as_str() {
            "open" | "owner" => Ok(()),
            _ => Err("invalid_api_key"),
        }
    }

    fn door(rule: Rule) -> Door {
        let cookie = Cookie::new(4242, false);
        Door { rule, scheme: "http", cookie, friends: Friends::default() }
    }

    fn keyed() -> Door {
        door(Rule::Keyed(ApiKey::new(KEY).expect("a key")))
    }

    fn loopback() -> Door {
        door(Rule::Loopback)
    }

    #[test]
    fn a_key_is_bounded_and_never_shown() {
        let key = ApiKey::new(" correct-horse\r\n").expect("a key");
        assert!(key.matches(KEY) && !key.matches("correct-hors") && !key.matches(""));
        let debug = format!("{key:?} {:?}", keyed());
        assert!(!debug.contains(KEY) && !debug.contains(&key.0.to_hex().to_string()), "{debug}");

        assert_eq!(ApiKey::new(" \n"), Err(KeyError::Empty));
        assert_eq!(ApiKey::new(&"k".repeat(1025)), Err(KeyError::Long { found: 1025 }));
        assert_eq!(ApiKey::new("two words"), Err(KeyError::Character { at: 3 }));
        assert_eq!(ApiKey::new("clé"), Err(KeyError::Character { at: 2 }));
    }

    #[test]
    fn only_loopback_is_bound_without_a_key() {
        for address in ["127.0.0.1:4242", "127.8.8.8:1", "[::1]:4242"] {
            assert_eq!(check_bind(address.parse().expect("an address"), false), Ok(()));
        }
        for address in ["0.0.0.0:4242", "[::]:4242", "192.168.1.4:4242", "[fe80::1]:1"] {
            let address = address.parse().expect("an address");
            let refused = check_bind(address, false).expect_err("not loopback");
            assert_eq!(refused, BindRefused { address });
            let message = refused.to_string();
            assert!(message.contains("--api-key-file") && message.contains("TALKA_API_KEY"));
            assert_eq!(check_bind(address, true), Ok(()));
        }
    }

    #[test]
    fn a_keyed_door_opens_to_the_key_alone() {
        let bearer = |text: &'static str| [(header::AUTHORIZATION, text)];
        for path in ["/v1/models", "/api/status", "/unknown", "//", "/V1/models"] {
            assert_eq!(admit(&keyed(), path, &[]), Err("missing_api_key"), "{path}");
            assert_eq!(admit(&keyed(), path, &bearer("Bearer x")), Err("invalid_api_key"));
            assert_eq!(
                admit(&keyed(), path, &bearer("Basic correct-horse")),
                Err("missing_api_key")
            );
            assert_eq!(admit(&keyed(), path, &bearer("bearer correct-horse")), Ok(()));
        }
        let own = |text: &'static str| [(X_API_KEY, text)];
        assert_eq!(admit(&keyed(), "/v1/messages", &own("correct-horse")), Ok(()));
        assert_eq!(admit(&keyed(), "/v1/messages", &own("x")), Err("invalid_api_key"));
        let both = [(X_API_KEY, "correct-horse"), (header::AUTHORIZATION, "Bearer x")];
        assert_eq!(admit(&keyed(), "/v1/messages", &both), Err("invalid_api_key"));
        for path in OPEN_PATHS {
            assert_eq!(admit(&keyed(), path, &[]), Ok(()), "{path}");
        }
        let foreign =
            [(header::AUTHORIZATION, "Bearer correct-horse"), (header::HOST, "a.example")];
        assert_eq!(admit(&keyed(), "/v1/models", &foreign), Ok(()));
    }

    #[test]
    fn a_key_that_a_node_made_is_looked_up_and_any_other_text_is_not_on_loopback() {
        let made = format!("sk-talka-{}", "0".repeat(64));
        for given in ["x", "sk-talka-00", &made] {
            let bearer = format!("Bearer {given}");
            let headers = [(header::AUTHORIZATION, bearer.as_str()), (header::HOST, "127.0.0.1")];
            assert_eq!(judge(&keyed(), "/v1/models", &headers), Ok(given.into()));
            let expected = if given == made { &made } else { "owner" };
            assert_eq!(judge(&loopback(), "/v1/models", &headers), Ok(expected.into()));
            assert_eq!(judge(&loopback(), "/", &headers), Ok("open".into()));
        }
    }

    #[test]
    fn a_rebound_host_name_is_refused() {
        let host = |name: &'static str| [(header::HOST, name)];
        for name in ["localhost:4242", "127.0.0.1:4242", "[::1]:4242", "LOCALHOST", "127.1.2.3"] {
            assert_eq!(admit(&loopback(), "/api/status", &host(name)), Ok(()), "{name}");
        }
        for name in [
            "evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "127.0.0.1.nip.example",
            "",
            "::1",
        ] {
            let found = admit(&loopback(), "/api/status", &host(name));
            assert_eq!(found, Err("foreign_host"), "{name}");
            assert_eq!(admit(&loopback(), "/", &host(name)), Err("foreign_host"), "{name}");
            assert_eq!(admit(&loopback(), "/health", &host(name)), Ok(()));
        }
        assert_eq!(admit(&loopback(), "/api/status", &[]), Err("foreign_host"));
    }

    #[test]
    fn pages_of_a_named_origin_may_ask_models_and_no_more() {
        let friends = ["https://chat.example".parse().expect("an origin")];
        let door = Door { friends: friends.into_iter().collect(), ..loopback() };
        let from = |origin| [(header::HOST, "127.0.0.1:4242"), (header::ORIGIN, origin)];
        assert_eq!(admit(&door, "/v1/models", &from("https://chat.example")), Ok(()));
        let refused = admit(&door, "/api/keys", &from("https://chat.example"));
        assert_eq!(refused, Err("foreign_origin"));
        let other = admit(&door, "/v1/models", &from("https://other.example"));
        assert_eq!(other, Err("foreign_origin"));
    }

    /// Goal: a session is for our own page alone. Method: requests as browsers send them, from our page and others.
    #[test]
    fn a_session_is_used_by_our_own_page_alone() {
        let judge = |method: Method, more: &[(HeaderName, &str)]| {
            let own = [(header::COOKIE, "talka-4242=ab"), (header::HOST, "box.local:4242")];
            let all = own.iter().chain(more).map(|(name, value)| {
                (name.clone(), HeaderValue::from_str(value).expect("a header"))
            });
            let (uri, headers) = ("/api/keys".parse().expect("a path"), HeaderMap::from_iter(all));
            match keyed().judge(&method, &uri, &headers) {
                Ok(pass) => Ok(pass == Pass::Session("ab")),
                Err(error) => Err(error.row().code),
            }
        };
        let (own, site) = ("http://box.local:4242", SEC_FETCH_SITE);
        assert_eq!(judge(Method::POST, &[(header::ORIGIN, own)]), Ok(true));
        assert_eq!(judge(Method::DELETE, &[(site.clone(), "same-origin")]), Ok(true));
        assert_eq!(judge(Method::GET, &[]), Ok(true));
        let foreign = Err("foreign_origin");
        assert_eq!(judge(Method::POST, &[]), foreign);
        for origin in ["http://box.local:8000", "https://box.local:4242", "null"] {
            assert_eq!(judge(Method::POST, &[(header::ORIGIN, origin)]), foreign, "{origin}");
            assert_eq!(judge(Method::GET, &[(header::ORIGIN, origin)]), foreign, "{origin}");
        }
        for other in ["same-site", "cross-site"] {
            assert_eq!(judge(Method::GET, &[(site.clone(), other)]), foreign);
        }
        let key = (header::AUTHORIZATION, "Bearer correct-horse");
        assert_eq!(judge(Method::POST, &[key]), Ok(false), "a key comes first");
    }

    #[test]
    fn a_page_of_another_site_is_refused() {
        let from =
            |origin: &'static str| [(header::HOST, "127.0.0.1:4242"), (header::ORIGIN, origin)];
        let own = admit(&loopback(), "/v1/chat/completions", &from("http://127.0.0.1:4242"));
        assert_eq!(own, Ok(()));
        for origin in
            ["https://evil.example", "null", "http://127.0.0.1:8000", "http://localhost:4242"]
        {
            for path in ["/api/invites", "/v1/chat/completions", "/api/status"] {
                let found = admit(&loopback(), path, &from(origin));
                assert_eq!(found, Err("foreign_origin"), "{origin} {path}");
            }
        }
    }
}
