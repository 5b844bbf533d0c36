//! Login by a link: it is good once and for minutes, and gives a browser a session instead of a key.
//!
//! `talka up` prints a link, `talka login` another one. Whoever opens it gets a cookie that scripts cannot read and
//! that the browser sends with requests of our own page only; [`Door`](crate::auth::Door) looks at those once more. A
//! session may do what the owner may. Links and sessions are in memory, as hashes, and end with the node.
//!
//! A browser sends a cookie to every port of a host. So its name holds the port, and two nodes on one computer do not
//! take each other's place.

use crate::{error::ApiError, fields::Fields};
use axum::{
    Json, Router,
    extract::{Query, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};
use talka_node::base::{Tick, hex};

/// How long a link is good, in milliseconds: time to find the line that was printed and to click on it.
pub const LINK_MS: u64 = 10 * 60 * 1_000;

/// A session ends so long after it was used last, in milliseconds: a page that is open every day stays open.
const SESSION_IDLE_MS: u64 = 36 * 3_600 * 1_000;

/// Most links, and most sessions, that are good at once; the oldest make room.
const ISSUED_MAX: usize = 64;

/// Where links lead.
pub const LOGIN_PATH: &str = "/login";

/// Says that a browser asks ahead of its user, who may never come.
const SEC_PURPOSE: HeaderName = HeaderName::from_static("sec-purpose");

/// 256 random bits, of which only the hash is kept.
type Token = [u8; 32];

/// Which links and sessions are good. Reads no clock and draws nothing.
#[derive(Debug, Default)]
struct LoginBook {
    links: Vec<Issued>,
    sessions: Vec<Issued>,
}

#[derive(Debug)]
struct Issued {
    hash: [u8; 32],
    until: Tick,
}

impl LoginBook {
    fn link(&mut self, token: &Token, now: Tick) {
        issue(&mut self.links, token, now, LINK_MS);
    }

    /// Uses a link up and begins `session`, if it was good.
    fn redeem(&mut self, link: &Token, session: &Token, now: Tick) -> bool {
        let Some(at) = find(&mut self.links, link, now) else { return false };
        self.links.remove(at);
        issue(&mut self.sessions, session, now, SESSION_IDLE_MS);
        true
    }

    /// Whether the session is good; if so, it is for longer.
    fn visit(&mut self, session: &Token, now: Tick) -> bool {
        let found = find(&mut self.sessions, session, now);
        if let Some(at) = found {
            self.sessions[at].until = now.plus_ms(SESSION_IDLE_MS);
        }
        found.is_some()
    }

    fn end(&mut self, session: &Token, now: Tick) {
        if let Some(at) = find(&mut self.sessions, session, now) {
            self.sessions.remove(at);
        }
    }
}

fn issue(all: &mut Vec<Issued>, token: &Token, now: Tick, valid_ms: u64) {
    all.retain(|issued| issued.until >= now);
    if all.len() == ISSUED_MAX {
        all.remove(0);
    }
    all.push(Issued { hash: hash(token), until: now.plus_ms(valid_ms) });
}

fn find(all: &mut Vec<Issued>, token: &Token, now: Tick) -> Option<usize> {
    all.retain(|issued| issued.until >= now);
    let hash = hash(token);
    all.iter().position(|issued| issued.hash == hash)
}

/// Of random bits; see the hash of a key's secret.
fn hash(token: &Token) -> [u8; 32] {
    blake3::derive_key("talka 2026 login", token)
}

/// The links and sessions of a running node. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Logins(Arc<Mutex<LoginBook>>);

/// A link as it is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoginLink {
    /// Path and query, to be put after the node's address.
    pub path: String,
    /// Until when it is good.
    pub expires_at: Tick,
}

impl Logins {
    /// A fresh link.
    pub fn link(&self) -> LoginLink {
        let (token, now) = (draw(), now());
        self.book().link(&token, now);
        let path = format!("{LOGIN_PATH}?token={}", hex::show(&token));
        LoginLink { path, expires_at: now.plus_ms(LINK_MS) }
    }

    /// Uses a link up; what its session is called, if it was good.
    fn redeem(&self, link: &str) -> Option<String> {
        let (link, session) = (hex::parse(link).ok()?, draw());
        self.book().redeem(&link, &session, now()).then(|| hex::show(&session))
    }

    /// Whether there is a session called so.
    pub fn visit(&self, session: &str) -> bool {
        hex::parse(session).is_ok_and(|session| self.book().visit(&session, now()))
    }

    fn end(&self, session: &str) {
        if let Ok(session) = hex::parse(session) {
            self.book().end(&session, now());
        }
    }

    fn book(&self) -> MutexGuard<'_, LoginBook> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn draw() -> Token {
    let mut token = [0; 32];
    getrandom::fill(&mut token).expect("the operating system gives random bytes");
    token
}

fn now() -> Tick {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Tick(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The cookie in which a browser keeps its session.
#[derive(Debug, Clone)]
pub struct Cookie {
    name: String,
    /// Sent over TLS only.
    is_secure: bool,
}

impl Cookie {
    /// Of a node that listens on `port`.
    pub fn new(port: u16, is_secure: bool) -> Self {
        Self { name: format!("talka-{port}"), is_secure }
    }

    /// Its value in a request.
    pub fn of<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let all = headers.get_all(header::COOKIE).into_iter();
        let pairs = all.filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(';'));
        let mut named = pairs.filter_map(|pair| pair.trim().split_once('='));
        named.find(|(name, _)| *name == self.name).map(|(_, value)| value)
    }

    /// Has a browser keep `session` until it is closed; without one, forget what it kept.
    fn set(&self, session: Option<&str>) -> HeaderValue {
        let mut text = format!("{}={}; Path=/; HttpOnly", self.name, session.unwrap_or_default());
        text += "; SameSite=Strict";
        if session.is_none() {
            text += "; Max-Age=0";
        }
        if self.is_secure {
            text += "; Secure";
        }
        HeaderValue::try_from(text).expect("hexadecimal digits fit a header")
    }
}

/// What the calls here need.
#[derive(Debug, Clone)]
pub struct Login {
    /// Links and sessions.
    pub logins: Logins,
    /// Where browsers keep theirs.
    pub cookie: Cookie,
}

/// Where links lead, and the calls that make and end what they give.
pub fn routes(login: Login) -> Router {
    Router::new()
        .route(LOGIN_PATH, get(enter))
        .route("/api/login-links", post(link))
        .route("/api/logout", post(leave))
        .with_state(login)
}

#[derive(Deserialize)]
struct LinkQuery {
    token: String,
}

/// Only the call of a person who opens the link uses it up.
async fn enter(State(login): State<Login>, request: Request) -> Response {
    let is_opened = request.method() == Method::GET && !request.headers().contains_key(SEC_PURPOSE);
    let session = Query::<LinkQuery>::try_from_uri(request.uri())
        .ok()
        .filter(|_| is_opened)
        .and_then(|query| login.logins.redeem(&query.token));
    let Some(session) = session else {
        // A person reads this.
        let error = ApiError::LoginLink;
        return (error.row().status, error.to_string()).into_response();
    };
    let mut response = axum::response::Redirect::to("/").into_response();
    let headers = response.headers_mut();
    headers.insert(header::SET_COOKIE, login.cookie.set(Some(&session)));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

async fn link(State(login): State<Login>, body: Fields) -> Result<Response, ApiError> {
    body.finish()?;
    let mut response = Json(login.logins.link()).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn leave(
    State(login): State<Login>,
    headers: HeaderMap,
    body: Fields,
) -> Result<Response, ApiError> {
    body.finish()?;
    if let Some(session) = login.cookie.of(&headers) {
        login.logins.end(session);
    }
    let mut response = Json(serde_json::json!({})).into_response();
    response.headers_mut().insert(header::SET_COOKIE, login.cookie.set(None));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Tick = Tick(1_000_000);

    #[test]
    fn a_link_is_good_once_and_for_minutes() {
        let mut book = LoginBook::default();
        book.link(&[1; 32], NOW);
        assert!(!book.redeem(&[2; 32], &[9; 32], NOW), "another one");
        assert!(book.redeem(&[1; 32], &[9; 32], NOW.plus_ms(LINK_MS)));
        assert!(!book.redeem(&[1; 32], &[8; 32], NOW.plus_ms(LINK_MS)), "used");
        book.link(&[3; 32], NOW);
        assert!(!book.redeem(&[3; 32], &[7; 32], NOW.plus_ms(LINK_MS + 1)), "too old");
        assert!(book.visit(&[9; 32], NOW) && !book.visit(&[8; 32], NOW));
    }

    #[test]
    fn a_session_lasts_as_long_as_it_is_used_and_is_ended() {
        let mut book = LoginBook::default();
        book.link(&[1; 32], NOW);
        assert!(book.redeem(&[1; 32], &[9; 32], NOW));
        let later = NOW.plus_ms(SESSION_IDLE_MS);
        assert!(book.visit(&[9; 32], later) && book.visit(&[9; 32], later.plus_ms(1)));
        book.end(&[9; 32], later);
        assert!(!book.visit(&[9; 32], later));
        assert!(!book.visit(&[1; 32], NOW), "a link is no session");
    }

    #[test]
    fn what_was_issued_is_bounded() {
        let mut book = LoginBook::default();
        for n in 0..=ISSUED_MAX as u8 {
            book.link(&[n; 32], NOW);
        }
        assert_eq!(book.links.len(), ISSUED_MAX);
        assert!(!book.redeem(&[0; 32], &[9; 32], NOW) && book.redeem(&[1; 32], &[9; 32], NOW));
    }

    #[test]
    fn the_cookie_is_for_one_port_and_hidden_from_scripts() {
        let cookie = Cookie::new(4242, false);
        let set = cookie.set(Some("ab"));
        assert_eq!(set, "talka-4242=ab; Path=/; HttpOnly; SameSite=Strict");
        assert!(
            Cookie::new(1, true).set(None).to_str().expect("text").ends_with("; Max-Age=0; Secure")
        );
        let with = |text: &'static str| {
            HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static(text))])
        };
        assert_eq!(cookie.of(&with("a=b; talka-4242=ab;talka-1=c")), Some("ab"));
        assert_eq!(cookie.of(&with("talka-424=ab; xtalka-4242=c")), None);
        let logins = Logins::default();
        assert!(!logins.visit("no token") && !logins.visit(&logins.link().path));
    }
}
