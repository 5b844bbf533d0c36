//! The rules for every request, over a real socket and without a node.

use super::*;
use crate::fields::Fields;
use axum::{
    body::Body,
    routing::{get, post},
};
use futures_util::{StreamExt, stream};
use serde_json::Value;
use std::net::SocketAddr;
use talka_node::{
    api::{KeyLimits, KeyOrder, Scope},
    store::Store,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
};

/// A gateway over one call that reads a JSON object. Dropping the sender stops it.
async fn start(key: Option<&str>) -> (SocketAddr, oneshot::Sender<()>) {
    start_with(key, no_keys()).await
}

/// Keys in a store that is gone with them.
pub(super) fn no_keys() -> Keys {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(dir.path()).expect("a store");
    Keys::open(Arc::new(store)).expect("no keys")
}

async fn start_with(key: Option<&str>, keys: Keys) -> (SocketAddr, oneshot::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let routes = Router::new().route("/v1/echo", post(async |_: Fields| "read"));
    let config = GatewayConfig {
        key: key.map(|text| ApiKey::new(text).expect("a key")),
        ..GatewayConfig::default()
    };
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(serve_routes(listener, routes, keys, config, async {
        let _ = stopped.await;
    }));
    (address, stop)
}

pub(super) struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn error_code(&self) -> String {
        let document: Value = serde_json::from_str(&self.body).expect(&self.body);
        document["error"]["code"].as_str().expect("a code").to_owned()
    }
}

/// One exchange. `head` is the request line and the headers, host and connection excepted.
pub(super) async fn exchange(address: SocketAddr, head: &str, body: &str) -> Reply {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let request = format!("{head}\r\nHost: {address}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.expect("sends");
    let mut reply = Vec::new();
    // A server that refuses a body may reset the connection once its answer is sent.
    let ended = stream.read_to_end(&mut reply).await;
    assert!(ended.is_ok() || !reply.is_empty(), "{ended:?}");
    read_reply(reply)
}

/// A reply as it came over the wire.
pub(super) fn read_reply(bytes: Vec<u8>) -> Reply {
    let reply = String::from_utf8(bytes).expect("UTF-8");
    let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    Reply { status, head: head.to_lowercase(), body: body.to_owned() }
}

pub(super) async fn post_json(address: SocketAddr, headers: &str, body: &str) -> Reply {
    let head = format!(
        "POST /v1/echo HTTP/1.1\r\nContent-Length: {}\r\nContent-Type: application/json{headers}",
        body.len()
    );
    exchange(address, &head, body).await
}

#[tokio::test]
async fn every_answer_is_stamped_and_unknown_paths_and_methods_are_json() {
    let (address, _stop) = start(None).await;
    for (line, status, code) in [
        ("GET /v1/nothing HTTP/1.1", 404, "unknown_path"),
        ("GET /v1/echo HTTP/1.1", 405, "method_not_allowed"),
        ("DELETE /health/live HTTP/1.1", 405, "method_not_allowed"),
    ] {
        let reply = exchange(address, line, "").await;
        assert_eq!((reply.status, reply.error_code().as_str()), (status, code), "{line}");
        assert!(reply.head.contains("x-request-id: http-"), "{}", reply.head);
        assert!(reply.head.contains("x-content-type-options: nosniff"));
        assert_eq!(reply.head.contains("\r\nallow: "), status == 405, "{}", reply.head);
    }
}

/// Goal: every caller gets errors in the words of the dialect it speaks, those included that no handler
/// sees. Method: a wrong key, an unknown path and a wrong method, by path and by header.
#[tokio::test]
async fn errors_are_worded_as_the_caller_speaks() {
    let (address, _stop) = start(Some("correct-horse")).await;
    let key = "\r\nx-api-key: correct-horse";
    let version = "\r\nanthropic-version: 2023-06-01";
    for (head, status, kind) in [
        ("GET /v1/messages/batches HTTP/1.1".to_owned(), 401, "authentication_error"),
        (format!("GET /v1/messages/batches HTTP/1.1{key}"), 404, "not_found_error"),
        (format!("GET /v1/echo HTTP/1.1{key}{version}"), 405, "invalid_request_error"),
    ] {
        let reply = exchange(address, &head, "").await;
        let document: Value = serde_json::from_str(&reply.body).expect(&reply.body);
        assert_eq!((reply.status, document["error"]["type"].as_str()), (status, Some(kind)));
        assert_eq!(document["type"], "error");
        let id = document["request_id"].as_str().expect("an id");
        for name in ["request-id", "x-request-id"] {
            assert!(reply.head.contains(&format!("\r\n{name}: {id}")), "{}", reply.head);
        }
    }
    let reply = post_json(address, &format!("{key}{version}"), "{}").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "read"));
    let reply = exchange(address, &format!("GET /v1/messagesx HTTP/1.1{key}"), "").await;
    assert_eq!(reply.error_code(), "unknown_path");
}

#[tokio::test]
async fn bodies_are_json_and_bounded() {
    let (address, _stop) = start(None).await;
    assert_eq!(post_json(address, "", "{}").await.status, 200);
    let reply = post_json(address, "", "{\"a\":").await;
    assert_eq!((reply.status, reply.error_code().as_str()), (400, "invalid_json"));

    let head = "POST /v1/echo HTTP/1.1\r\nContent-Length: 2\r\nContent-Type: text/plain";
    let reply = exchange(address, head, "{}").await;
    assert_eq!((reply.status, reply.error_code().as_str()), (415, "unsupported_content_type"));

    let head = format!(
        "POST /v1/echo HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}",
        BODY_BYTES_MAX + 1
    );
    let reply = exchange(address, &head, "").await;
    assert_eq!((reply.status, reply.error_code().as_str()), (413, "body_too_large"));

    // Without a declared length the body is read up to the limit.
    let head = "POST /v1/echo HTTP/1.1\r\nContent-Type: application/json\r\n\
                Transfer-Encoding: chunked";
    let text = format!("\"{}\"", "x".repeat(BODY_BYTES_MAX));
    let reply = exchange(address, head, &format!("{:x}\r\n{text}\r\n", text.len())).await;
    assert_eq!((reply.status, reply.error_code().as_str()), (413, "body_too_large"));
}

#[tokio::test]
async fn without_a_key_foreign_pages_and_names_are_refused() {
    let (address, _stop) = start(None).await;
    let own = format!("\r\nOrigin: http://{address}");
    assert_eq!(post_json(address, &own, "{}").await.status, 200);
    let reply = post_json(address, "\r\nOrigin: https://evil.example", "{}").await;
    assert_eq!((reply.status, reply.error_code().as_str()), (403, "foreign_origin"));
    // A second host header comes after this one; the first is the one a rebound page would send.
    let rebound = exchange(address, "GET / HTTP/1.1\r\nHost: evil.example", "").await;
    assert_eq!((rebound.status, rebound.error_code().as_str()), (403, "foreign_host"));
}

#[tokio::test]
async fn a_key_guards_every_call_and_leaves_the_page_open() {
    let (address, _stop) = start(Some("correct-horse")).await;
    let reply = post_json(address, "", "{}").await;
    assert_eq!((reply.status, reply.error_code().as_str()), (401, "missing_api_key"));
    assert!(reply.head.contains("www-authenticate: bearer"));
    let reply = post_json(address, "\r\nAuthorization: Bearer wrong", "{}").await;
    assert_eq!((reply.status, reply.error_code().as_str()), (401, "invalid_api_key"));
    let reply = post_json(address, "\r\nAuthorization: Bearer correct-horse", "{}").await;
    assert_eq!(reply.status, 200);
    assert_eq!(exchange(address, "GET /unknown HTTP/1.1", "").await.status, 401);
    assert_eq!(exchange(address, "GET /health/live HTTP/1.1", "").await.status, 200);

    let page = exchange(address, "GET / HTTP/1.1", "").await;
    assert_eq!(page.status, 200);
    assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);
}

/// Goal: a key that the node made lets its bearer do what it is for, as often as it allows, and no more, whether
/// the owner has a key or not. Method: one key for asking, two calls a minute.
#[tokio::test]
async fn a_made_key_is_held_to_its_scope_and_rate() {
    for owner in [None, Some("correct-horse")] {
        let keys = no_keys();
        let order = KeyOrder {
            name: "bob".into(),
            scopes: vec![Scope::Infer],
            limits: KeyLimits { requests_per_minute: Some(2), ..KeyLimits::default() },
            valid_ms: None,
        };
        let made = keys.add(order).await.expect("a key");
        let (address, _stop) = start_with(owner, keys.clone()).await;
        let bearer = format!("\r\nAuthorization: Bearer {}", made.secret.reveal());
        let reply = exchange(address, &format!("GET /api/keys HTTP/1.1{bearer}"), "").await;
        assert_eq!((reply.status, reply.error_code().as_str()), (403, "missing_scope"));
        for _ in 0..2 {
            assert_eq!(post_json(address, &bearer, "{}").await.status, 200);
        }
        let reply = post_json(address, &bearer, "{}").await;
        assert_eq!((reply.status, reply.error_code().as_str()), (429, "rate_limit_exceeded"));
        assert!(reply.head.contains("\r\nretry-after: "), "{}", reply.head);
        assert_eq!(keys.list()[0].running, 0);
        keys.remove("bob".into()).await.expect("it is there");
        let reply = post_json(address, &bearer, "{}").await;
        assert_eq!((reply.status, reply.error_code().as_str()), (401, "invalid_api_key"));
    }
}

/// Goal: a link lets one browser in, once, and what it gives is good for our page until it logs out. Method: what
/// a browser sends, with the key that makes the link.
#[tokio::test]
async fn a_login_link_gives_a_browser_a_session_once() {
    let (address, _stop) = start(Some("correct-horse")).await;
    let json = "\r\nContent-Length: 2\r\nContent-Type: application/json";
    let ask = format!("POST /api/login-links HTTP/1.1{json}");
    assert_eq!(exchange(address, &ask, "{}").await.status, 401);
    let made = exchange(address, &format!("{ask}\r\nx-api-key: correct-horse"), "{}").await;
    let link: crate::LoginLink = serde_json::from_str(&made.body).expect("a link");

    let open = format!("GET {} HTTP/1.1", link.path);
    let ahead = exchange(address, &format!("{open}\r\nSec-Purpose: prefetch"), "").await;
    assert_eq!(ahead.status, 403, "nobody opened it yet");
    let opened = exchange(address, &open, "").await;
    assert_eq!(opened.status, 303);
    let set = opened.head.split("set-cookie: ").nth(1).expect("a cookie");
    assert!(set.contains("; httponly; samesite=strict"), "{set}");
    assert_eq!(exchange(address, &open, "").await.status, 403, "used");

    let session = set.split(';').next().expect("a session");
    let cookie = format!("\r\nCookie: {session}\r\nOrigin: http://{address}");
    assert_eq!(post_json(address, &cookie, "{}").await.status, 200);
    let foreign = format!("\r\nCookie: {session}\r\nOrigin: http://127.0.0.1:1");
    let reply = post_json(address, &foreign, "{}").await;
    assert_eq!((reply.status, reply.error_code().as_str()), (403, "foreign_origin"));
    let leave = format!("POST /api/logout HTTP/1.1{json}{cookie}");
    let left = exchange(address, &leave, "{}").await;
    assert!(left.status == 200 && left.head.contains("max-age=0"), "{}", left.head);
    let reply = post_json(address, &cookie, "{}").await;
    assert_eq!((reply.status, reply.error_code().as_str()), (401, "missing_api_key"));
}

/// Goal: the page needs nothing but itself. Method: look for what would load or run something else.
#[tokio::test]
async fn the_page_names_no_other_host_and_runs_nothing_inline() {
    let (address, _stop) = start(None).await;
    for path in ["/", "/talka.css", "/talka.js", "/icon.svg"] {
        let reply = exchange(address, &format!("GET {path} HTTP/1.1"), "").await;
        assert_eq!(reply.status, 200, "{path}");
        // Names of XML dialects, and of what Svelte's own errors are called: nothing is asked there.
        let text =
            reply.body.replace("http://www.w3.org/", "").replace("https://svelte.dev/e/", "");
        for forbidden in ["http://", "https://", ".innerHTML=", "@import", "eval(", "new Function"]
        {
            assert!(!text.contains(forbidden), "{path} has {forbidden}");
        }
        let inline = ["style=", "onclick", "<style", "<script>"];
        let is_markup = path == "/" || path == "/icon.svg";
        assert!(!is_markup || !inline.iter().any(|word| text.contains(word)), "{path}");
    }
}

/// Goal: a page of an origin that the owner names may read answers, and no other's. Method: what a browser asks
/// ahead, and then, with a key.
#[tokio::test]
async fn pages_of_named_origins_may_read_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let config = GatewayConfig {
        key: Some(ApiKey::new("correct-horse").expect("a key")),
        origins: vec!["https://chat.example".parse().expect("an origin")],
        ..GatewayConfig::default()
    };
    let routes = Router::new().route("/v1/echo", post(async |_: Fields| "read"));
    tokio::spawn(serve_routes(listener, routes, no_keys(), config, std::future::pending()));

    let ahead = "OPTIONS /v1/echo HTTP/1.1\r\nAccess-Control-Request-Method: POST\r\nOrigin: ";
    let reply = exchange(address, &format!("{ahead}https://chat.example"), "").await;
    assert_eq!(reply.status, 204);
    for line in [
        "access-control-allow-origin: https://chat.example",
        "access-control-allow-headers: authorization, *",
        "vary: origin",
    ] {
        assert!(reply.head.contains(line), "{}", reply.head);
    }
    let reply = exchange(address, &format!("{ahead}https://other.example"), "").await;
    assert!(reply.status == 401 && !reply.head.contains("allow-origin"), "{}", reply.head);
    assert!(reply.head.contains("vary: origin"), "{}", reply.head);

    let key = "\r\nx-api-key: correct-horse\r\nOrigin: https://chat.example";
    let reply = post_json(address, key, "{}").await;
    assert!(reply.status == 200 && reply.head.contains("allow-origin: https://chat.example"));
    let reply = post_json(address, "\r\nOrigin: https://chat.example", "{}").await;
    assert!(reply.status == 401 && reply.head.contains("allow-origin"), "it may read why");
}

#[tokio::test]
async fn an_open_address_without_a_key_is_not_served() {
    let listener = TcpListener::bind("0.0.0.0:0").await.expect("a free port");
    let served =
        serve_routes(listener, Router::new(), no_keys(), GatewayConfig::default(), async {}).await;
    let error = served.expect_err("refused");
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("--api-key-file"), "{error}");
}

#[tokio::test]
async fn a_stopped_gateway_ends_though_a_connection_idles() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let idle = TcpStream::connect(address).await.expect("connects");
    let served =
        serve_routes(listener, Router::new(), no_keys(), GatewayConfig::default(), async {}).await;
    assert!(served.is_ok());
    drop(idle);
}

/// A stream that has no end of its own is ended, not cut off: its last chunk says so.
#[tokio::test]
async fn a_stopped_gateway_ends_endless_streams() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let endless = async |Extension(closing): Extension<Closing>| {
        let items = stream::iter([Ok::<_, io::Error>("begun")]).chain(stream::pending());
        Body::from_stream(closing.cut(items))
    };
    let routes = Router::new().route("/endless", get(endless));
    let (stop, stopped) = oneshot::channel::<()>();
    let server =
        tokio::spawn(serve_routes(listener, routes, no_keys(), GatewayConfig::default(), async {
            let _ = stopped.await;
        }));
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let request = format!("GET /endless HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sends");
    let (mut reply, mut piece) = (Vec::new(), [0; 1024]);
    while !reply.windows(5).any(|five| five == b"begun") {
        let read = stream.read(&mut piece).await.expect("reads");
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&reply));
        reply.extend_from_slice(&piece[..read]);
    }
    stop.send(()).expect("the gateway listens");
    stream.read_to_end(&mut reply).await.expect("ends");
    assert!(reply.ends_with(b"\r\n0\r\n\r\n"), "{}", String::from_utf8_lossy(&reply));
    assert!(server.await.expect("no panic").is_ok());
}
