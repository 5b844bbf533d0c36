//! Callers who mean harm or break, over raw sockets: each gets a clean refusal or a closed connection, and nothing
//! that they began is left behind. Limits are short here, so that waiting for them is; none is measured.

use super::{
    tests::{Reply, exchange, no_keys, post_json, read_reply},
    *,
};
use crate::fields::Fields;
use axum::{body::Body, routing::post};
use futures_util::stream;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, oneshot},
};

/// Long enough for a test that sends at once, short enough to wait for.
const SHORT: Duration = Duration::from_millis(300);

const SHORT_LIMITS: Limits =
    Limits { connections: 64, head_time: SHORT, body_time: SHORT, stall_time: SHORT };

/// A gateway over `routes`. Dropping the sender stops it.
async fn start(routes: Router, limits: Limits) -> (SocketAddr, oneshot::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let config = GatewayConfig { limits, ..GatewayConfig::default() };
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(serve_routes(listener, routes, no_keys(), config, async {
        let _ = stopped.await;
    }));
    (address, stop)
}

fn echo() -> Router {
    Router::new().route("/v1/echo", post(async |_: Fields| "read"))
}

/// Sends `bytes`, keeps the connection open, and reads until the other side closes it.
async fn send(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    // A server that closes early may do so before all is sent, and with a reset.
    let _ = stream.write_all(bytes).await;
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply).await;
    reply
}

/// Goal: nobody holds a connection by being slow. Method: stop after each part of a request; the read to the end
/// ends only if the node closes.
#[tokio::test]
async fn whoever_stops_in_the_middle_is_closed() {
    let (address, _stop) = start(echo(), SHORT_LIMITS).await;
    let body = format!(
        "POST /v1/echo HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: 9\r\n\r\n{{\"a\""
    );
    for begun in ["", "P", "PRI * HT", "GET / HTTP/1.1\r\nHo", "GET / HTTP/1.1\r\nHost: a\r\n"] {
        let reply = String::from_utf8(send(address, begun.as_bytes()).await).expect("text");
        assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 4"), "{begun:?}: {reply}");
    }
    let reply = read_reply(send(address, body.as_bytes()).await);
    assert_eq!((reply.status, reply.error_code().as_str()), (408, "body_timeout"));
    assert!(reply.head.contains("connection: close"), "{}", reply.head);
}

#[tokio::test]
async fn what_is_no_http_is_refused_or_closed() {
    let (address, _stop) = start(echo(), SHORT_LIMITS).await;
    let long =
        format!("GET / HTTP/1.1\r\nHost: {address}\r\nX-Long: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("GET / HTTP/1.1\r\nHost: {address}\r\n{}\r\n", "X-A: b\r\n".repeat(500));
    let path = format!("GET /{} HTTP/1.1\r\nHost: {address}\r\n\r\n", "x".repeat(1 << 20));
    let twice = "POST /v1/echo HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}";
    let chunk = format!(
        "POST /v1/echo HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\nzz\r\n{{}}\r\n0\r\n\r\n"
    );
    let cases: [&[u8]; 10] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\r\n\r\n\0\0\0",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        long.as_bytes(),
        many.as_bytes(),
        path.as_bytes(),
        twice.as_bytes(),
        chunk.as_bytes(),
    ];
    for bytes in cases {
        let reply = String::from_utf8_lossy(&send(address, bytes).await).into_owned();
        let begun = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
        assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 4"), "{begun:?}: {reply}");
    }
    assert_eq!(post_json(address, "", "{}").await.status, 200, "others are answered");
}

#[tokio::test]
async fn what_is_no_json_is_refused_by_name() {
    let (address, _stop) = start(echo(), SHORT_LIMITS).await;
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
    let objects = "{\"a\":".repeat(100_000);
    for body in
        [deep.as_str(), &objects, "{\"a\":1", "{'a':1}", "{\"a\":NaN}", "{}{}", "\u{feff}{}"]
    {
        let reply = post_json(address, "", body).await;
        assert_eq!((reply.status, reply.error_code().as_str()), (400, "invalid_json"));
        assert!(reply.body.len() < 1_000, "the body is not sent back");
    }
    for bytes in [&b"{\"a\":\"\xff\xfe\"}"[..], b"\xc3\x28", b"{\"\xed\xa0\x80\":1}"] {
        let mut request = format!(
            "POST /v1/echo HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            bytes.len()
        )
        .into_bytes();
        request.extend_from_slice(bytes);
        let reply: Reply = read_reply(send(address, &request).await);
        assert_eq!((reply.status, reply.error_code().as_str()), (400, "invalid_json"));
    }
}

/// An answer without end, in pieces of 64 KiB. Each is counted when it is made; the channel closes when the answer
/// is dropped.
fn endless() -> (Router, mpsc::UnboundedReceiver<usize>) {
    const PIECE: usize = 64 << 10;
    let (made, count) = mpsc::unbounded_channel();
    let made = Arc::new(std::sync::Mutex::new(Some(made)));
    let answer = move || {
        let made = made.lock().expect("nobody panics").take().expect("asked once");
        let pieces = stream::unfold(made, |made| async move {
            let _ = made.send(PIECE);
            Some((Ok::<_, io::Error>(vec![0_u8; PIECE]), made))
        });
        std::future::ready(Body::from_stream(pieces))
    };
    (Router::new().route("/v1/endless", axum::routing::get(answer)), count)
}

async fn ask_endless(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let request = format!("GET /v1/endless HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sends");
    stream
}

/// Goal: a caller who reads nothing costs what is on its way and no more, and not for ever. Method: an endless
/// answer that nobody reads; what was made of it until the node gives up.
#[tokio::test]
async fn a_reader_who_stands_still_grows_no_memory_and_is_given_up() {
    let (routes, mut made) = endless();
    let (address, _stop) = start(routes, SHORT_LIMITS).await;
    let _stream = ask_endless(address).await;
    let mut bytes = 0;
    while let Some(more) = made.recv().await {
        bytes += more;
    }
    // The system keeps some megabytes of a connection; the rest is a few pieces.
    assert!((64 << 10..64 << 20).contains(&bytes), "{bytes} bytes were made");
}

#[tokio::test]
async fn an_answer_ends_with_its_caller() {
    let (routes, mut made) = endless();
    let (address, _stop) = start(routes, Limits::default()).await;
    let mut stream = ask_endless(address).await;
    stream.read_exact(&mut [0; 1_000]).await.expect("the beginning");
    drop(stream);
    while made.recv().await.is_some() {}
}

#[tokio::test]
async fn connections_are_bounded_and_the_next_one_waits_its_turn() {
    let (address, _stop) = start(echo(), Limits { connections: 1, ..SHORT_LIMITS }).await;
    let idle = TcpStream::connect(address).await.expect("connects");
    let reply = exchange(address, "GET /health/live HTTP/1.1", "").await;
    assert_eq!(reply.status, 200, "answered once the idle one is closed");
    drop(idle);
}
