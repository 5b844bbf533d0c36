//! Goal: whatever a service does, an answer is either whole or ends with an error that says what was
//! wrong, in bounded memory and time. Method: services on this computer, each with one fault.

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::{Response, StatusCode, header},
};
use futures_util::{StreamExt, stream};
use std::{convert::Infallible, sync::Mutex, time::Duration};
use talka_upstream::{
    AskError, Finish, Key, Question, Said, Service, ServiceConfig, Usage, Wording,
};
use tokio::net::TcpListener;

const KEY: &str = "sk-very-secret";

type Reply = fn() -> Response<Body>;

/// A service that gives everybody the same answer, and who asked it what.
async fn serve(reply: Reply) -> (String, &'static Mutex<Vec<(String, Option<String>, String)>>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let asked: &'static Mutex<Vec<_>> = Box::leak(Box::default());
    let answer = move |request: Request| async move {
        let (head, body) = request.into_parts();
        let key =
            head.headers.get(header::AUTHORIZATION).map(|v| v.to_str().expect("text").to_owned());
        let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
        let body = String::from_utf8(body.to_vec()).expect("text");
        asked.lock().expect("no panic").push((head.uri.path().to_owned(), key, body));
        reply()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}/v1", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    (address, asked)
}

fn question() -> Question {
    Question {
        model: "m".into(),
        wording: Wording::Text("once".into()),
        max_tokens: 100,
        temperature: 0.0,
        top_p: 1.0,
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        logit_bias: Vec::new(),
        seed: 1,
        stop: Vec::new(),
        form: None,
    }
}

fn service(address: &str) -> Service {
    let key = Some(Key::new(KEY).expect("a key"));
    let mut config = ServiceConfig::new("test", address, key);
    config.first_max = Duration::from_secs(2);
    config.silence_max = Duration::from_secs(1);
    Service::new(config).expect("sound settings")
}

/// The text, and how it ended: before anything was said, or after some of it.
#[derive(Debug, PartialEq)]
enum Heard {
    Refused(AskError),
    Broken(String, AskError),
    Whole(String, Finish, Option<Usage>),
}

async fn ask(reply: Reply) -> Heard {
    let (address, _) = serve(reply).await;
    hear(&service(&address)).await
}

async fn hear(service: &Service) -> Heard {
    let mut answer = match service.ask(&question()).await {
        Ok(answer) => answer,
        Err(error) => return Heard::Refused(error),
    };
    let mut text = String::new();
    loop {
        match answer.next().await {
            Ok(Said::Text(more)) => text += &more,
            Ok(Said::End { finish, usage }) => return Heard::Whole(text, finish, usage),
            Err(error) => return Heard::Broken(text, service.clean(error)),
        }
    }
}

fn respond(status: u16, kind: &str, body: Body) -> Response<Body> {
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, kind);
    response.body(body).expect("a response")
}

fn events(text: impl Into<Body>) -> Response<Body> {
    respond(200, "text/event-stream", text.into())
}

/// These bytes, and then nothing for ever.
fn hanging(text: &'static str) -> Body {
    let first = stream::iter([Ok::<_, Infallible>(Bytes::from_static(text.as_bytes()))]);
    Body::from_stream(first.chain(stream::pending()))
}

const ONE: &str = "data: {\"choices\":[{\"index\":0,\"text\":\"one \"}]}\n\n";
const TWO: &str =
    "data: {\"choices\":[{\"index\":0,\"text\":\"two\",\"finish_reason\":\"stop\"}]}\n\n";

#[tokio::test]
async fn a_good_service_is_asked_and_heard() {
    let (address, asked) = serve(|| {
        let usage =
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n";
        events([": wait\n\n", ONE, TWO, usage, "data: [DONE]\n\n"].concat())
    })
    .await;
    let usage = Some(Usage { prompt_tokens: 1, completion_tokens: 2 });
    assert_eq!(hear(&service(&address)).await, Heard::Whole("one two".into(), Finish::Stop, usage));
    let asked = asked.lock().expect("no panic");
    let (path, key, body) = &asked[0];
    assert_eq!((path.as_str(), key.as_deref()), ("/v1/completions", Some("Bearer sk-very-secret")));
    assert!(body.contains("\"stream\":true") && !body.contains(KEY), "{body}");
}

#[tokio::test]
async fn an_answer_in_one_document_is_understood() {
    let heard = ask(|| {
        let body = r#"{"choices":[{"index":0,"text":"all","finish_reason":"length"}]}"#;
        respond(200, "application/json; charset=utf-8", Body::from(body))
    });
    assert_eq!(heard.await, Heard::Whole("all".into(), Finish::Length, None));
}

#[tokio::test]
async fn an_end_without_the_last_word_is_an_end() {
    let heard = ask(|| events([ONE, TWO].concat()));
    assert_eq!(heard.await, Heard::Whole("one two".into(), Finish::Stop, None));
}

#[tokio::test]
async fn refusals_are_told_without_the_key() {
    let refused = ask(|| {
        let body = format!("{{\"error\":{{\"message\":\"wrong key {KEY}\"}}}}");
        respond(401, "application/json", Body::from(body))
    });
    assert_eq!(refused.await, Heard::Refused(AskError::Key { status: 401 }));
    let busy = ask(|| {
        let body = format!("{{\"error\":{{\"message\":\"slow down, {KEY}\"}}}}");
        respond(429, "application/json", Body::from(body))
    });
    let message = "slow down, (key)".to_owned();
    assert_eq!(busy.await, Heard::Refused(AskError::Status { status: 429, message }));
    let broken = ask(|| respond(500, "text/html", Body::from("<h1>\u{1b}oops</h1>\nmore")));
    let message = "<h1>oops</h1>".to_owned();
    assert_eq!(broken.await, Heard::Refused(AskError::Status { status: 500, message }));
    let endless = ask(|| {
        let piece = stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 1024])));
        respond(503, "text/plain", Body::from_stream(piece))
    });
    let Heard::Refused(AskError::Status { status: 503, message }) = endless.await else {
        panic!("another error");
    };
    assert_eq!(message.len(), 200);
}

#[tokio::test]
async fn the_key_follows_no_redirect() {
    let (elsewhere, asked) = serve(|| events(TWO)).await;
    let elsewhere: &'static str = Box::leak(elsewhere.into_boxed_str());
    static TARGET: Mutex<&str> = Mutex::new("");
    *TARGET.lock().expect("no panic") = elsewhere;
    let heard = ask(|| {
        let mut response =
            respond(StatusCode::TEMPORARY_REDIRECT.as_u16(), "text/plain", Body::empty());
        let target = TARGET.lock().expect("no panic").parse().expect("a header");
        response.headers_mut().insert(header::LOCATION, target);
        response
    });
    assert_eq!(heard.await, Heard::Refused(AskError::Redirect { status: 307 }));
    assert!(asked.lock().expect("no panic").is_empty());
}

#[tokio::test]
async fn silence_ends_before_and_within_an_answer() {
    assert_eq!(ask(|| events(hanging(""))).await, Heard::Refused(AskError::Silent { seconds: 2 }));
    let comments = ask(|| {
        let life = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Some((Ok::<_, Infallible>(Bytes::from_static(b": alive\n\n")), ()))
        });
        events(Body::from_stream(life))
    });
    assert_eq!(comments.await, Heard::Refused(AskError::Silent { seconds: 2 }));
    let stalled = ask(|| events(hanging(ONE)));
    assert_eq!(stalled.await, Heard::Broken("one ".into(), AskError::Silent { seconds: 1 }));
}

#[tokio::test]
async fn a_slow_answer_is_still_an_answer() {
    let heard = ask(|| {
        let pieces = stream::iter([ONE, ONE, ONE, TWO]).then(|piece| async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            Ok::<_, Infallible>(Bytes::from_static(piece.as_bytes()))
        });
        events(Body::from_stream(pieces))
    });
    assert_eq!(heard.await, Heard::Whole("one one one two".into(), Finish::Stop, None));
}

#[tokio::test]
async fn a_cut_answer_is_no_answer() {
    assert_eq!(ask(|| events("")).await, Heard::Refused(AskError::Cut));
    assert_eq!(ask(|| events(ONE)).await, Heard::Broken("one ".into(), AskError::Cut));
    let done = ask(|| events([ONE, "data: [DONE]\n\n"].concat()));
    assert_eq!(done.await, Heard::Broken("one ".into(), AskError::Cut));
    let torn = ask(|| {
        let pieces = stream::iter([Ok(ONE), Err(std::io::Error::other("torn"))]);
        let pieces = pieces.then(|piece| async move {
            // The first is on its way before the connection is gone.
            tokio::time::sleep(Duration::from_millis(100)).await;
            piece
        });
        events(Body::from_stream(pieces))
    });
    let heard = torn.await;
    assert!(
        matches!(&heard, Heard::Broken(text, AskError::Unreachable { .. }) if text == "one "),
        "{heard:?}"
    );
}

#[tokio::test]
async fn lines_and_answers_are_bounded() {
    let max = 256 << 10;
    let long = ask(|| events(format!("data: {}", "x".repeat(10_000_000))));
    assert_eq!(long.await, Heard::Refused(AskError::Line { max }));
    let long = ask(|| events([ONE, "data: ", &"x".repeat(10_000_000)].concat()));
    assert_eq!(long.await, Heard::Broken("one ".into(), AskError::Line { max }));
    let endless = ask(|| {
        let piece = stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(ONE.as_bytes())));
        events(Body::from_stream(piece))
    });
    let Heard::Broken(text, AskError::Long { max }) = endless.await else { panic!("another end") };
    assert!(text.len() <= max && max == 100 * 64 + 4096, "{max}");
    let document = ask(|| respond(200, "application/json", Body::from("[".repeat(10_000_000))));
    assert!(matches!(document.await, Heard::Refused(AskError::Long { .. })));
}

#[tokio::test]
async fn what_is_no_answer_is_refused() {
    for reply in [
        (|| events("data: {\"choices\": 7}\n\n")) as Reply,
        || events("data: nonsense\n\n"),
        || respond(200, "application/json", Body::from("{}")),
        || respond(200, "application/json", Body::from("<html>")),
    ] {
        let heard = ask(reply).await;
        assert!(matches!(heard, Heard::Refused(AskError::Malformed { .. })), "{heard:?}");
    }
    let page = ask(|| respond(200, "text/html", Body::from("<html>\nhello")));
    assert_eq!(page.await, Heard::Refused(AskError::Cut));
    let error =
        ask(|| events([ONE, "data: {\"error\":{\"message\":\"out of memory\"}}\n\n"].concat()));
    let message = "out of memory".to_owned();
    assert_eq!(error.await, Heard::Broken("one ".into(), AskError::Failed { message }));
}

#[tokio::test]
async fn nobody_there_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}/v1", listener.local_addr().expect("an address"));
    drop(listener);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let heard = hear(&service(&address)).await;
    assert!(matches!(heard, Heard::Refused(AskError::Unreachable { .. })), "{heard:?}");
}
