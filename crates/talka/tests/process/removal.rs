//! Nodes that are sent away.

use crate::harness::{Node, folder, join, up, wait_for};
use serde_json::{Value, json};

fn names(node: &Node) -> Vec<String> {
    let peers = node.get("/api/peers").done();
    let name = |peer: &Value| peer["name"].as_str().expect("a name").to_owned();
    peers.as_array().expect("a list").iter().map(name).collect()
}

/// Goal: a removed node is gone for all, for good, and keeps its account. Method: the founder removes one of three; it is
/// started again and asks to come back with its old paper, and then with a new invitation.
#[test]
fn a_removed_node_is_gone_for_all_and_stays_so() {
    let place = folder();
    let dir = |name: &str| place.path().join(name);
    let founder = up(&dir("founder"), &["--name", "founder"]);
    let invite = founder.invite(&["--reusable"]);
    let friend = join(&invite, &dir("friend"), &["--name", "friend"]);
    let rogue = join(&invite, &dir("rogue"), &["--name", "rogue"]);
    for node in [&founder, &friend, &rogue] {
        wait_for("three nodes", || (names(node).len() == 3).then_some(()));
    }

    founder.cli(&["peers", "clear", "rogue"]).refused(1, &["neither suspended nor under review"]);
    friend.cli(&["peers", "clear", "rogue"]).refused(1, &["founder"]);
    founder.cli(&["peers", "clear", "nobody"]).refused(1, &["nobody", "talka peers"]);

    let remove = |id: &str| json!({ "node": id });
    friend.post("/api/peers/remove", &remove(&rogue.id)).refused(
        409,
        "ledger_refused",
        &["founder"],
    );
    founder.post("/api/peers/remove", &remove(&founder.id)).refused(
        409,
        "ledger_refused",
        &["founded"],
    );
    founder.post("/api/peers/remove", &remove("rogue")).refused(400, "invalid_value", &["node"]);
    founder.post("/api/peers/remove", &remove(&rogue.id)).done();
    for node in [&founder, &friend] {
        wait_for("two nodes", || (names(node).len() == 2).then_some(()));
        node.cli(&["ledger", "verify"]).done();
    }
    let members = founder.get("/api/credits").done()["members"].clone();
    assert_eq!(members.as_array().map(Vec::len), Some(3), "the account stays: {members}");
    // Once more changes nothing.
    founder.post("/api/peers/remove", &remove(&rogue.id)).done();

    wait_for("the removed node to know", || (names(&rogue).len() == 2).then_some(()));
    drop(rogue);
    let rogue = up(&dir("rogue"), &["--name", "rogue"]);
    let asked = json!({ "model": "bard", "prompt": "A", "max_tokens": 2 });
    assert_eq!(
        rogue.post("/v1/completions", &asked).status,
        503,
        "the founder holds nothing for it"
    );
    assert_eq!(names(&founder).len(), 2);
    let again = founder.invite(&[]);
    rogue.cli(&["join", &again]).refused(3, &["removed", "new key"]);
    // Whoever did no wrong goes on.
    friend.post("/v1/completions", &asked).done();
}
