//! Answers from services outside the network: another network's node, and a server with every fault.

use crate::{
    harness::{
        Node, cannot_start, folder, join, talka, try_stream_once, up, up_with_env, up_with_key,
        wait_for,
    },
    models::{bard, golden},
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::{Response, header},
};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use std::{convert::Infallible, fs, net::TcpListener, thread, time::Duration};

const KEY: &str = "sk-nobody-may-see-this";

/// A server whose path says what is wrong with it: `/good/v1/completions`.
fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    listener.set_nonblocking(true).expect("a listener for tokio");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    thread::spawn(move || {
        runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            axum::serve(listener, Router::new().fallback(answer)).await
        })
    });
    address
}

const ONE: &str = r#"{"choices":[{"index":0,"text":"one "}]}"#;
const TWO: &str = r#"{"choices":[{"index":0,"text":"two","finish_reason":"stop"}]}"#;
const USAGE: &str = r#"{"choices":[],"usage":{"prompt_tokens":2,"completion_tokens":3}}"#;

async fn answer(request: Request) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let key = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let echoed = format!("{{\"error\":{{\"message\":\"no: {}\"}}}}", key.unwrap_or_default());
    let events =
        |data: &[&str]| data.iter().map(|data| format!("data: {data}\n\n")).collect::<String>();
    let (status, body) = match path.split('/').nth(1).unwrap_or_default() {
        "good" => (200, Body::from(events(&[ONE, TWO, USAGE, "[DONE]"]))),
        "uncounted" => (200, Body::from(events(&[ONE, TWO, "[DONE]"]))),
        "401" => (401, Body::from(echoed)),
        "429" => (429, Body::from(echoed)),
        "500" => (500, Body::from(echoed)),
        "hang" => (200, Body::from_stream(stream::pending::<Result<Bytes, Infallible>>())),
        "cut" => (200, Body::from(events(&[ONE]))),
        "long" => (200, Body::from(format!("{}data: {}", events(&[ONE]), "x".repeat(10_000_000)))),
        "wrong" => (200, Body::from(events(&["{\"choices\": 7}"]))),
        "slow" => (200, slow(events(&[ONE]))),
        other => (404, Body::from(other.to_owned())),
    };
    let response =
        Response::builder().status(status).header(header::CONTENT_TYPE, "text/event-stream");
    response.body(body).expect("a response")
}

/// The same again and again, and no end.
fn slow(event: String) -> Body {
    Body::from_stream(stream::repeat(event).then(|event| async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok::<_, Infallible>(Bytes::from(event))
    }))
}

/// Kinds of ledger entries after the founding, what nodes say of themselves left out.
fn kinds(node: &Node) -> Vec<String> {
    let kind = |entry: &Value| entry["kind"].as_str().expect("a kind").to_owned();
    node.ledger()[1..].iter().map(kind).filter(|kind| kind != "rated").collect()
}

/// Credits that the founder spent, and those that it can spend.
fn purse(node: &Node) -> (u64, u64) {
    let credits = node.get("/api/credits").done();
    let number = |value: &Value| value.as_u64().expect("credits");
    (number(&credits["members"][0]["spent"]), number(&credits["balance"]))
}

/// Part of bard only, so that no request has a route.
fn broken(dir: &std::path::Path, upstreams: &[String]) -> Node {
    let mut args = vec!["--model", "bard", "--layers", "bard=0..2"];
    upstreams.iter().for_each(|upstream| args.extend(["--upstream", upstream.as_str()]));
    up(dir, &args)
}

/// Goal: a node without a route answers through another network's node, word for word, and pays twice the
/// price. Method: a real node with a key as the upstream; the same greedy request whole and streamed.
#[test]
fn another_networks_node_answers_where_there_is_no_route() {
    let place = folder();
    let far = up_with_key(&place.path().join("far"), KEY);
    let key = place.path().join("key");
    fs::write(&key, KEY).expect("written");
    let flag = format!("far={}/v1,key-file={}", far.http, key.display());
    let near = broken(&place.path().join("near"), &[flag]);
    let golden = &golden(&bard())[0];
    let body = json!({
        "model": "bard", "prompt": golden.prompt, "temperature": 0, "max_tokens": golden.greedy_ids.len(),
    });

    let reply = near.post("/v1/completions", &body);
    assert_eq!(reply.upstream.as_deref(), Some("far"));
    let answer = reply.done();
    assert_eq!(answer["choices"][0]["text"], golden.continuation());
    assert_eq!(answer["talka"]["upstream"], "far");
    assert_eq!(answer["talka"]["audit"], "nothing_signed");
    assert_eq!(answer["usage"]["prompt_tokens"], golden.prompt_ids.len());
    assert_eq!(answer["usage"]["completion_tokens"], golden.greedy_ids.len());
    assert_eq!(kinds(&near), ["forwarded", "delivered"]);
    let paid = answer["talka"]["cost_micro_gft"].as_u64().expect("credits");
    assert_eq!(purse(&near).0, paid);

    let streamed = near.stream("/v1/completions", &body, |_| ());
    assert!(streamed.done && streamed.error.is_none(), "{streamed:?}");
    assert_eq!(
        (streamed.text.as_str(), streamed.upstream.as_deref()),
        (golden.continuation(), Some("far"))
    );

    // What the network itself takes for it is less: a token that is not fed back, and half the price.
    let own = near_price(&far, &body);
    assert!(paid >= 2 * own && paid < 3 * own, "{paid} against {own}");

    let mut never = body.clone();
    never["talka"] = json!({"fallback": "never"});
    near.post("/v1/completions", &never).refused(503, "no_route", &["bard"]);
    let chat = json!({
        "model": "bard", "messages": [{"role": "user", "content": "Good morrow"}], "max_tokens": 4,
        "talka": {"upstream": "far"},
    });
    let answer = near.post("/v1/chat/completions", &chat).done();
    assert!(!answer["choices"][0]["message"]["content"].as_str().expect("text").is_empty());
    near.cli(&["ledger", "verify"]).done();
    assert!(near.cli(&["status"]).done().contains("far http://"));
}

fn near_price(node: &Node, body: &Value) -> u64 {
    let answer = node.post("/v1/completions", body).done();
    answer["talka"]["cost_micro_gft"].as_u64().expect("credits")
}

/// Goal: upstreams that fail cost nothing, are skipped, and keep the key. Method: one server with every fault;
/// each alone, then all in a row before a good one; everything the node logs or tells is searched.
#[test]
fn upstreams_that_fail_are_skipped_and_cost_nothing() {
    let (place, server) = (folder(), serve());
    let faults = ["401", "429", "500", "hang", "wrong", "cut", "long", "404"];
    let flag = |name: &str, more: &str| {
        format!("{name}={server}/{name}/v1,model=only-{name}{more},key-env=SECRET,wait=1s")
    };
    let before = |name: &&str| ["401", "429", "500", "hang", "wrong"].contains(name);
    let mut flags: Vec<String> = faults
        .iter()
        .map(|name| flag(name, if before(name) { ",model=all" } else { "" }))
        .collect();
    flags.push(flag("good", ",model=all=far/all"));
    flags.push(flag("uncounted", ""));
    let mut args = vec!["--model", "bard"];
    flags.iter().for_each(|flag| args.extend(["--upstream", flag.as_str()]));
    let env = [("SECRET", KEY), ("TALKA_LOG", "trace")];
    let node = up_with_env(&place.path().join("node"), &args, &env);
    let (_, granted) = purse(&node);
    let ask = |model: &str| json!({"model": model, "prompt": "count", "max_tokens": 50});

    let mut told = String::new();
    for (name, words) in [
        ("401", "refuses the key"),
        ("429", "429"),
        ("500", "500"),
        ("hang", "said nothing"),
        ("wrong", "no answer"),
        ("cut", "cut off"),
        ("long", "line of more"),
        ("404", "404"),
    ] {
        let reply = node.post("/v1/completions", &ask(&format!("only-{name}")));
        told += &reply.body.to_string();
        reply.refused(502, "upstream_failed", &[name, words, "not charged"]);
    }
    assert!(
        kinds(&node).chunks(2).all(|pair| pair == ["forwarded", "released"]),
        "{:?}",
        kinds(&node)
    );
    assert_eq!(purse(&node), (0, granted));

    // All that fail before their first word are asked in vain; one hold serves them all.
    let entries = kinds(&node).len();
    let reply = node.post("/v1/completions", &ask("all"));
    assert_eq!(reply.upstream.as_deref(), Some("good"));
    let answer = reply.done();
    assert_eq!(
        (&answer["choices"][0]["text"], &answer["usage"]["total_tokens"]),
        (&json!("one two"), &json!(5))
    );
    assert_eq!(&kinds(&node)[entries..], ["forwarded", "delivered"]);
    // 5 tokens at 16,000 GFT a thousand, in micro-GFT; paid to the member that fetched it, which is this one.
    assert_eq!(
        (answer["talka"]["cost_micro_gft"].as_u64(), purse(&node)),
        (Some(80_000_000), (80_000_000, granted))
    );

    // Without a count of its own: three bytes of text are a token.
    let answer = node.post("/v1/completions", &ask("only-uncounted")).done();
    assert_eq!(
        answer["usage"],
        json!({"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5})
    );

    let streamed = node.stream("/v1/completions", &ask("only-cut"), |_| ());
    assert_eq!((streamed.text.as_str(), streamed.done), ("one ", false));
    let (code, message) = streamed.error.expect("it broke off");
    assert_eq!(code, "upstream_failed");
    assert!(message.contains("not charged"), "{message}");
    assert_eq!(kinds(&node).last().map(String::as_str), Some("released"));

    let models = node.get("/v1/models").done();
    let good = models["data"].as_array().expect("models").iter().find(|m| m["id"] == "only-good");
    assert_eq!(good.expect("a model")["talka"], json!({"upstream": "good"}));
    for (path, body, status, code) in [
        ("/v1/completions", json!({"model": "misspelt", "prompt": "x"}), 404, "model_not_found"),
        (
            "/v1/completions",
            json!({"model": "all", "prompt": "x", "echo": true}),
            404,
            "model_not_found",
        ),
        (
            "/v1/completions",
            json!({"model": "all", "prompt": "x", "top_k": 5, "talka": {"upstream": "good"}}),
            400,
            "unsupported_parameter",
        ),
        (
            "/v1/completions",
            json!({"model": "all", "prompt": "x", "talka": {"upstream": "nobody"}}),
            404,
            "upstream_not_found",
        ),
        (
            "/v1/completions",
            json!({"model": "bard", "prompt": "x", "talka": {"upstream": "good"}}),
            404,
            "model_not_found",
        ),
    ] {
        node.post(path, &body).refused(status, code, &[]);
    }
    for seen in [
        told,
        node.log(),
        node.cli(&["status"]).done(),
        node.cli(&["status", "--json"]).done(),
        node.get("/api/status").done().to_string(),
        models.to_string(),
    ] {
        assert!(!seen.contains(KEY), "{seen}");
    }
    assert!(node.log().len() > 10_000, "the log was not asked for everything");
    node.cli(&["ledger", "verify"]).done();
}

/// Goal: who leaves pays for what came, and no more is fetched. Method: an answer without end, left after
/// its first piece.
#[test]
fn a_caller_who_leaves_pays_for_what_came() {
    let (place, server) = (folder(), serve());
    let flag = format!("slow={server}/slow/v1,model=endless,price=1");
    let node = up(&place.path().join("node"), &["--model", "bard", "--upstream", &flag]);
    let body = json!({"model": "endless", "prompt": "count", "max_tokens": 1000});
    try_stream_once(&node.http, "/v1/completions", &body, None);
    wait_for("the payment", || (kinds(&node) == ["forwarded", "delivered"]).then_some(()));
    let (spent, _) = purse(&node);
    // At least one piece; the prompt has two tokens, and a GFT pays for a thousand.
    assert!((4_000..500_000).contains(&spent), "{spent}");
}

/// Goal: an answer that lost its stages before its first word begins anew outside. Method: the only other
/// stage is stopped with SIGSTOP just before the request, while it still counts as alive.
#[cfg(unix)]
#[test]
fn an_answer_that_lost_its_stages_before_its_first_word_comes_from_outside() {
    let (place, server) = (folder(), serve());
    let flag = format!("good={server}/good/v1");
    let founder = broken(&place.path().join("founder"), &[flag]);
    let other = join(&founder.invite(&[]), &place.path().join("other"), &["--layers", "bard=2..6"]);
    wait_for("a route", || founder.is_complete().then_some(()));
    let body = json!({"model": "bard", "prompt": "count", "max_tokens": 5});
    let answer = founder.post("/v1/completions", &body).done();
    assert_eq!(answer["talka"].get("upstream"), None);
    other.signal("STOP");
    let reply = founder.post("/v1/completions", &body);
    assert_eq!(reply.upstream.as_deref(), Some("good"));
    let answer = reply.done();
    assert_eq!(
        (&answer["choices"][0]["text"], &answer["talka"]["upstream"]),
        (&json!("one two"), &json!("good"))
    );
    let kinds = kinds(&founder);
    assert_eq!(&kinds[kinds.len() - 4..], ["reserved", "released", "forwarded", "delivered"]);
    other.signal("CONT");
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let place = folder();
    let start = |flag: &str| {
        cannot_start(&["up"], &place.path().join("node"), &["--model", "bard", "--upstream", flag])
    };
    start("groq").refused(2, &["--upstream", "NAME=URL"]);
    start("a=http://x/v1,key=sk-1").refused(2, &["key-file=FILE"]);
    start("a=http://x/v1,key-env=UNSET_IN_TESTS").refused(2, &["UNSET_IN_TESTS", "not set"]);
    start("a=ftp://x/v1").refused(1, &["upstream a", "https://"]);
    let key = place.path().join("key");
    fs::write(&key, KEY).expect("written");
    let unprotected = start(&format!("a=http://api.example.com/v1,key-file={}", key.display()));
    unprotected.refused(1, &["unprotected"]);
    let help = crate::harness::finish(&mut talka(&["up", "--help"]), "").done();
    assert!(help.contains("--upstream") && help.contains("key-env=GROQ_API_KEY"), "{help}");
}
