//! Keys: made and removed by the command line, kept over restarts, held to their limits.

use crate::harness::{
    Node, Reply, cannot_start, finish, folder, talka, try_stream_once, up, up_with_key, wait_for,
};
use serde_json::{Value, json};
use std::fs;

/// Asks for `tokens` tokens with `key`.
fn ask(node: &Node, key: &str, tokens: u32) -> Reply {
    let body = json!({ "model": "bard", "prompt": "ROMEO:", "max_tokens": tokens });
    node.post_with_key("/v1/completions", &body, key)
}

fn only_key(node: &Node) -> Value {
    let keys = node.cli(&["keys", "--json"]).json();
    assert_eq!(keys.as_array().map(Vec::len), Some(1), "{keys}");
    keys[0].clone()
}

/// Goal: a key is charged what its requests really cost and never passes its budget, also after a restart; the
/// ledger sees nothing of a request that was refused. Method: a budget that holds one answer, then is too small.
#[test]
fn a_budget_is_spent_and_outlives_a_restart() {
    let place = folder();
    let dir = place.path().join("data");
    let mut node = up_with_key(&dir, "correct-horse");
    let key = node.cli(&["keys", "add", "bob", "--budget", "0.1"]).done();
    let key = key.trim();
    assert!(key.starts_with("sk-talka-"), "{key}");

    let answer = ask(&node, key, 2).done();
    let cost = answer["talka"]["cost_micro_gft"].as_u64().expect("a cost");
    let bob = only_key(&node);
    assert_eq!((bob["name"].as_str(), bob["spent"].as_u64()), (Some("bob"), Some(cost)));
    assert_eq!((bob["held"].as_u64(), bob["running"].as_u64()), (Some(0), Some(0)));
    let before = node.cli(&["ledger", "verify", "--json"]).json();
    ask(&node, key, 200).refused(402, "key_budget_exceeded", &["budget of 0.100000 GFT"]);
    assert_eq!(node.cli(&["ledger", "verify", "--json"]).json(), before, "no entry, no work");

    node.kill();
    let node = up_with_key(&dir, "correct-horse");
    assert_eq!(only_key(&node)["spent"], cost);
    ask(&node, key, 200).refused(402, "key_budget_exceeded", &[]);
    let shown = dir.to_str().expect("the path is text");
    let run = ["run", "--max-tokens", "1", "--data-dir", shown, "ROMEO:"];
    finish(talka(&run).env("TALKA_API_KEY", key), "").done();
    let status = ["status", "--data-dir", shown];
    finish(talka(&status).env("TALKA_API_KEY", key), "").refused(3, &["scope admin"]);
    assert!(!node.log().contains(key), "no key is logged");

    assert!(node.cli(&["keys", "rm", "bob"]).done().starts_with("removed bob ("));
    ask(&node, key, 1).refused(401, "invalid_api_key", &["removed"]);
    assert_eq!(node.cli(&["keys", "--json"]).json(), json!([]));
}

#[test]
fn a_key_does_what_it_is_for_where_its_owner_needs_none() {
    let place = folder();
    let node = up(&place.path().join("data"), &[]);
    let made = node.cli(&["keys", "add", "ops", "--scope", "admin", "--expires", "30d", "--json"]);
    let made = made.json();
    let key = made["secret"].as_str().expect("a secret");
    assert_eq!(made["scopes"], json!(["admin"]));
    ask(&node, key, 1).refused(403, "missing_scope", &["\"ops\"", "infer"]);
    let order = json!({ "name": "ops" });
    node.post_with_key("/api/keys", &order, key).refused(409, "key_exists", &["\"ops\""]);
    node.cli(&["keys", "add", "x", "--scope", "root"]).refused(2, &["infer or admin"]);
    node.cli(&["keys", "rm", "nobody"]).refused(1, &["nobody"]);

    // A key of any other text is as good as none on this computer, as ever.
    ask(&node, "anything", 1).done();
    let id = made["id"].as_str().expect("an id");
    assert_eq!(node.cli(&["keys", "rm", id, "--json"]).json()["name"], "ops");
}

/// Goal: the link that a starting node prints, and a fresh one, each let a browser in once, without a key. Method:
/// open them as a browser does, with a client that keeps no cookies by itself.
#[test]
fn a_printed_link_lets_a_browser_in_once() {
    let place = folder();
    let node = up_with_key(&place.path().join("data"), "correct-horse");
    let printed = wait_for("the link", || {
        let log = node.log();
        let start = log.find("http://127.0.0.1:").filter(|_| log.contains("/login?token="))?;
        Some(log[start..].split_whitespace().next()?.to_owned())
    });
    let fresh = node.cli(&["login"]).done();
    for link in [printed.as_str(), fresh.trim()] {
        let cookie = node.open_link(link).expect("a session");
        let reply = node.get_with_cookie("/api/status", &cookie);
        assert_eq!(reply.done()["node"], node.id.as_str());
        assert_eq!(node.open_link(link), None, "it is used up");
    }
    let over = node.get_with_cookie("/api/status", &format!("{}=00", "talka-1"));
    over.refused(401, "missing_api_key", &[]);
}

/// Goal: a node with a certificate of its own making is reached over HTTPS alone, by its data directory without a
/// word, by its name with the certificate. Method: the command line, and the link for browsers.
#[test]
fn a_node_with_a_certificate_is_reached_over_https() {
    let place = folder();
    let file = |name: &str| place.path().join(name).to_str().expect("the path is text").to_owned();
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(&cert, made.cert.pem()).expect("written");
    fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let node = up(&place.path().join("data"), &["--tls-cert", &cert, "--tls-key", &key]);
    assert!(node.http.starts_with("https://127.0.0.1:"), "{}", node.http);

    node.cli(&["run", "--max-tokens", "1", "ROMEO:"]).done();
    assert!(node.cli(&["login"]).done().starts_with(&node.http));
    let by_name = node.http.replace("127.0.0.1", "localhost");
    let ask = |more: &[&str]| finish(&mut talka(&[&["status", "--http"], more].concat()), "");
    ask(&[&by_name, "--tls-ca", &cert]).done();
    ask(&[&by_name]).refused(4, &["no node answers", "certificate"]);
    ask(&[by_name.trim_start_matches("https://")]).refused(4, &["no node answers"]);

    let dir = place.path().join("other");
    let none = ["--tls-cert", cert.as_str(), "--tls-key", cert.as_str()];
    cannot_start(&["up"], &dir, &none).refused(2, &["cert.pem", "no private key"]);
    cannot_start(&["up"], &dir, &["--tls-cert", &cert]).refused(2, &["--tls-key"]);
    cannot_start(&["up"], &dir, &["--cors-origin", "*"]).refused(2, &["https://chat.example"]);
}

/// Goal: whoever leaves in the middle gives back the place and the credits, and pays for what was computed. Method: a
/// stream that is left after its first piece, with a key for one call at once.
#[test]
fn a_caller_who_leaves_gives_back_what_it_held() {
    let place = folder();
    let node = up(&place.path().join("data"), &[]);
    let add = ["keys", "add", "bob", "--concurrent", "1", "--budget", "100"];
    let key = node.cli(&add).done();
    let body = json!({ "model": "bard", "prompt": "ROMEO:", "max_tokens": 200 });
    for _ in 0..3 {
        try_stream_once(&node.http, "/v1/completions", &body, Some(key.trim()));
        wait_for("the call to end", || (only_key(&node)["running"] == 0).then_some(()));
        assert_eq!(only_key(&node)["held"], 0);
    }
    ask(&node, key.trim(), 1).done();
}

#[test]
fn a_node_answers_as_many_at_once_as_its_owner_says() {
    let place = folder();
    let node = up(&place.path().join("data"), &["--max-concurrent", "1", "--max-queue", "3"]);
    let body = |n: u32| json!({ "model": "bard", "prompt": "ROMEO:", "max_tokens": 2, "n": n });
    // The second answer of one call does not wait for the first.
    let reply = node.post("/v1/completions", &body(2));
    reply.refused(429, "overloaded", &["1 requests are running"]);
    node.post("/v1/completions", &body(1)).done();
    let status = node.cli(&["status", "--json"]).json();
    assert_eq!((&status["requests_running"], &status["requests_waiting"]), (&json!(0), &json!(0)));
    let dir = place.path().join("other");
    cannot_start(&["up"], &dir, &["--max-concurrent", "0"]).refused(2, &["1..=1024"]);
}
