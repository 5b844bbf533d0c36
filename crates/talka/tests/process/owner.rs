//! Nodes whose owners say when others may use them.

use crate::harness::{cannot_start, up, up_with_env, wait_for};
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::tempdir;

/// An hour that begins `ahead` of now, by the clock of UTC.
fn hour(ahead: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() / 3_600;
    format!("{:02}:00-{:02}:00", (now + ahead) % 24, (now + ahead + 1) % 24)
}

/// Goal: a node out of its hours does nothing for others, says why, and still answers its own callers.
/// Method: it joins one that is open; both are asked.
#[test]
fn a_closed_node_takes_no_layers_and_says_why() {
    let place = tempdir().expect("a folder");
    let open = up(&place.path().join("open"), &["--name", "open"]);
    let hours = ["--name", "closed", "--hours", &hour(6), "--hours", &hour(9)];
    let invite = open.invite(&[]);
    let more = [&hours[..], &["--join", &invite]].concat();
    let closed = up_with_env(&place.path().join("closed"), &more, &[("TZ", "UTC")]);

    let found = wait_for("the closed node to let go", || {
        let peers = open.cli(&["peers", "--json"]).json();
        let peer = peers.as_array()?.iter().find(|peer| peer["name"] == "closed")?.clone();
        let serves_none = peer["serves"].as_array()?.is_empty();
        (peer["alive"] == true && serves_none && peer["closed"].is_string()).then_some(peer)
    });
    let why = found["closed"].as_str().expect("text");
    let opens = &hour(6)[..5];
    assert!(why.starts_with("closed until ") && why.ends_with(opens), "{why}");

    let report = open.cli(&["doctor", "route", "bard", "--json"]).json();
    assert_eq!(report["closed"][0]["why"], why, "{report}");
    assert_eq!(report["hops"][0]["name"], "open", "{report}");
    let told = open.cli(&["doctor", "route", "bard"]).done();
    assert!(told.contains("closed gives no work to others"), "{told}");
    assert!(open.cli(&["peers"]).done().contains(why));
    assert!(closed.cli(&["status"]).done().contains(why));

    let body = json!({ "model": "bard", "prompt": "Once", "max_tokens": 4, "temperature": 0 });
    let answer = closed.post("/v1/completions", &body).done();
    assert_eq!(answer["usage"]["completion_tokens"], 4, "{answer}");
}

/// A node that is alone and closed is its own callers' all the same.
#[test]
fn a_closed_node_answers_its_own_callers_alone() {
    let place = tempdir().expect("a folder");
    let more = ["--hours", &hour(6)];
    let node = up_with_env(&place.path().join("a"), &more, &[("TZ", "UTC")]);
    let body = json!({ "model": "bard", "prompt": "Once", "max_tokens": 4, "temperature": 0 });
    let answer = node.post("/v1/completions", &body).done();
    assert_eq!(answer["usage"]["completion_tokens"], 4, "{answer}");
}

#[test]
fn what_is_no_hours_is_refused() {
    let place = tempdir().expect("a folder");
    let said = cannot_start(&["up"], &place.path().join("a"), &["--hours", "9-17"]);
    said.refused(2, &["9-17", "22:00-07:00"]);
}
