//! Answers that go on after their head was killed, or for a caller whose connection broke.

use crate::{
    harness::{Node, Streamed, finish, folder, join, lasting_address, talka, up, wait_for},
    models::room_for,
};
use serde_json::{Value, json};
use std::{io::Read, path::Path, process::Stdio};

const PATH: &str = "/v1/completions";

/// A long answer to a play's beginning.
fn request(extra: &Value) -> Value {
    let mut body = json!({
        "model": "bard", "prompt": "ROMEO:\n", "max_tokens": 180, "ignore_eos": true, "temperature": 0,
    });
    for (name, value) in extra.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

/// `body`, going on with the answer `id` of which `tokens` came.
fn resumed(body: &Value, id: &str, tokens: u64) -> Value {
    let mut body = body.clone();
    body["talka"] = json!({"resume": {"answer": id, "tokens": tokens}});
    body
}

/// The answer as far as it came until `node` was killed, once it has `length` bytes.
fn stream_until_killed(node: &mut Node, body: &Value, length: usize) -> Streamed {
    let broken = node.stream(PATH, body, |text| {
        if text.len() > length {
            node.signal("KILL");
        }
    });
    node.kill();
    assert!(!broken.done && broken.tokens > 0, "{broken:?}");
    broken
}

/// Goal: no token of an answer is lost, repeated or different when its head dies, and it is paid once.
/// Method: the head is killed in the middle, started again on the same directory and asked to go on, for the
/// rest and for the whole; twice in one answer.
fn check(start: impl Fn() -> Node, body: &Value) {
    let mut node = start();
    let whole = node.post(PATH, body).done()["choices"][0]["text"].clone();
    let whole = whole.as_str().expect("text");

    let first = stream_until_killed(&mut node, body, 90);
    let mut node = start();
    let again = resumed(body, &first.id, first.tokens);
    let second = stream_until_killed(&mut node, &again, 90);
    assert_eq!(second.id, first.id);
    let node = start();
    let third = node.stream(PATH, &resumed(body, &first.id, second.tokens), |_| ());
    assert!(third.done, "{third:?}");
    assert_eq!([&first.text, &second.text, &third.text].map(String::as_str).concat(), whole);
    assert_eq!((&third.id, third.finish.as_deref()), (&first.id, Some("length")));

    // Who lost even what came may have it again, after its end too.
    let answer = node.post(PATH, &resumed(body, &first.id, 0)).done();
    assert_eq!(answer["choices"][0]["text"], whole);
    assert_eq!(answer["id"], first.id);
    let kinds: Vec<_> = node.ledger().iter().map(|entry| entry["kind"].clone()).collect();
    let count = |kind: &str| kinds.iter().filter(|found| **found == kind).count();
    assert_eq!((count("reserved"), count("settled"), count("released")), (5, 3, 2), "{kinds:?}");
    assert_eq!(node.cli(&["credits", "--json"]).json()["reserved"], 0);
}

#[test]
fn an_answer_goes_on_after_its_node_was_killed() {
    let place = folder();
    check(|| up(place.path(), &[]), &request(&json!({})));
}

#[test]
fn drawn_tokens_go_on_as_well() {
    let place = folder();
    check(|| up(place.path(), &[]), &request(&json!({"temperature": 1, "seed": 5})));
}

/// The same where another node has a part of the model.
#[test]
fn an_answer_over_two_nodes_goes_on_after_its_head_was_killed() {
    let place = folder();
    let path = |name: &str| place.path().join(name);
    let [memory, cache] = room_for("bard", 2);
    let flags = ["--model", "bard", &memory, &cache];
    let founder = up(&path("founder"), &flags);
    let invite = founder.invite(&["--reusable"]);
    check(|| joined(&founder, &invite, &path("head"), &flags), &request(&json!({})));
}

/// A node in the founder's network, once it has heard the founder.
pub fn joined(founder: &Node, invite: &str, dir: &Path, flags: &[&str]) -> Node {
    let node = join(invite, dir, flags);
    for of in [founder, &node] {
        wait_for("a model cut over two nodes", || {
            let model = &of.get("/api/models").done()[0];
            let stages = model["coverage"].as_array().map(Vec::len);
            (model["complete"] == true && stages == Some(2)).then_some(())
        });
    }
    node
}

/// Goal: who runs a command in a terminal sees no break. Method: the node is killed while `talka run` prints, and
/// started again at the same address.
#[test]
fn a_terminal_goes_on_when_its_node_comes_back() {
    let place = folder();
    let address = lasting_address([127, 0, 0, 1]).to_string();
    let start = || up(&place.path().join("data"), &["--http", &address]);
    let mut node = start();
    let args = ["run", "--http", &address, "--temperature", "0", "--max-tokens", "200", "ROMEO:\n"];
    let whole = finish(&mut talka(&args), "").done();
    let mut child = talka(&args).stdout(Stdio::piped()).spawn().expect("talka starts");
    let mut stdout = child.stdout.take().expect("standard output is piped");
    let mut text = vec![0; 40];
    stdout.read_exact(&mut text).expect("some text");
    node.kill();
    let _node = start();
    stdout.read_to_end(&mut text).expect("the rest");
    assert!(child.wait().expect("an end").success());
    assert_eq!(String::from_utf8(text).expect("UTF-8"), whole);
}

#[test]
fn what_cannot_be_gone_on_with_is_refused() {
    let place = folder();
    let node = up(place.path(), &[]);
    let body = request(&json!({"max_tokens": 20}));
    let unknown = "cmpl-000102030405060708090a0b0c0d0e0f";
    let refused = |body: &Value, words: &[&str]| {
        node.post(PATH, body).refused(404, "not_resumable", words);
    };
    refused(&resumed(&body, unknown, 0), &["keeps none", "ten minutes"]);

    let answer = node.post(PATH, &body).done();
    let id = answer["id"].as_str().expect("an id");
    let other = request(&json!({"prompt": "JULIET:\n"}));
    refused(&resumed(&other, id, 0), &["another prompt", "send what was sent then"]);
    let shorter = request(&json!({"max_tokens": 5}));
    refused(&resumed(&shorter, id, 0), &["more than this request allows"]);
}
