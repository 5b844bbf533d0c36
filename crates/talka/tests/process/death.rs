//! A node that dies while it computes.

use crate::{
    harness::{Node, folder, join, lasting_address, stream_harmed, up, wait_for},
    models::{bard, golden, room_for},
    together::three_with,
};
use serde_json::{Value, json};
use std::time::Instant;

/// Goal: an answer whose layers nobody serves any more ends with a clear error and costs nothing.
/// Method: two nodes with pinned layers; SIGKILL the second as soon as the first words come.
#[test]
fn an_answer_without_a_route_ends_clearly_and_costs_nothing() {
    let place = folder();
    let founder = up(&place.path().join("a"), &["--layers", "bard=0..3"]);
    let mut other = join(&founder.invite(&[]), &place.path().join("b"), &["--layers", "bard=3..6"]);
    wait_for("both halves", || founder.is_complete().then_some(()));
    let before = founder.cli(&["credits", "--json"]).json();
    let body =
        json!({ "model": "bard", "prompt": "ROMEO:\n", "temperature": 0, "max_tokens": 240 });
    let mut killed = None;
    let streamed = founder.stream("/v1/completions", &body, |text| {
        if !text.is_empty() && killed.is_none() {
            other.kill();
            killed = Some(Instant::now());
        }
    });
    eprintln!("given up {:?} after the kill", killed.expect("some text came").elapsed());
    let (code, message) = streamed.error.as_ref().expect("the answer breaks off with an error");
    assert_eq!(code, "stage_lost", "{message}");
    assert!(!streamed.done, "no client may take this for the whole: {streamed:?}");
    assert!(!streamed.text.is_empty(), "what was said stands");
    assert!(message.contains("3..6") && message.contains("not charged"), "{message}");
    let after = founder.cli(&["credits", "--json"]).json();
    assert_eq!(after["members"], before["members"], "nobody paid or earned");
    assert_eq!(after["reserved"], 0);
    founder.cli(&["ledger", "verify"]).done();
}

/// Asks until a complete route is found; the answer is the right one.
fn answer_again(node: &Node) -> Value {
    let golden = &golden(&bard())[1];
    let body = json!({
        "model": "bard", "prompt": golden.prompt, "temperature": 0,
        "max_tokens": golden.greedy_ids.len(),
    });
    let answer = wait_for("a complete route without the dead", || {
        let reply = node.post("/v1/completions", &body);
        (reply.status == 200).then_some(reply.body)
    });
    assert_eq!(answer["choices"][0]["text"], golden.continuation());
    answer
}

/// Goal: without the node that orders the ledger nothing is computed unpaid, and nothing is lost.
/// Method: kill the founder, ask another node, bring the founder back where it was.
#[test]
fn without_the_founder_requests_are_refused_until_it_is_back() {
    let place = folder();
    let address = lasting_address([127, 0, 0, 1]).to_string();
    // Any two hold the whole model.
    let [memory, cache] = room_for("bard", 2);
    let flags = ["--p2p", &address, &memory, &cache];
    let founder = up(&place.path().join("a"), &flags);
    let [mut founder, b, _c] = three_with(founder, place.path(), &flags[2..]);
    answer_again(&b);
    let before = founder.cli(&["ledger", "verify", "--json"]).json();
    founder.kill();
    wait_for("the founder's death to be noticed", || {
        let said = b.cli(&["run", "--max-tokens", "2", "ROMEO:"]);
        assert_eq!((said.code, said.stdout.as_str()), (4, ""), "{said:#?}");
        said.stderr.contains("ledger cannot be reached").then_some(())
    });
    let founder = up(&founder.dir, &flags);
    // It may have added what it measured at its start.
    assert!(founder.ledger().iter().any(|entry| entry["hash"] == before["head"]), "{before}");
    answer_again(&b);
    founder.cli(&["ledger", "verify"]).done();
}

/// Goal: what a head signed for is claimed even if the stage that holds the vouchers is killed too. Method: as below, and SIGKILL
/// one of the stages right after the head; then start it again.
#[test]
fn what_a_head_signed_for_is_claimed_by_a_stage_that_was_killed_too() {
    let place = folder();
    let founder = up(&place.path().join("a"), &["--layers", "bard=0..3"]);
    let invite = founder.invite(&["--reusable"]);
    let flags = ["--layers", "bard=3..6"];
    let mut stage = join(&invite, &place.path().join("b"), &flags);
    let mut head = join(&invite, &place.path().join("c"), &["--layers", "bard=0..1"]);
    wait_for("a route", || head.is_complete().then_some(()));
    let address = head.http.clone();
    let streamed = stream_harmed(&address, || {
        head.kill();
        stage.kill();
    });
    assert!(!streamed.done, "{streamed:?}");
    let claims = || -> Vec<Value> {
        let entries = founder.ledger();
        entries.into_iter().filter(|entry| entry["kind"] == "claimed").collect()
    };
    wait_for("the founder's own claim", || (claims().len() == 1).then_some(()));
    // Nobody else has the other one.
    let stage = up(&stage.dir, &flags);
    let claims = wait_for("the claim of the stage that was killed", || {
        let claims = claims();
        (claims.len() == 2).then_some(claims)
    });
    assert_eq!(claims[0]["request"], claims[1]["request"]);
    founder.cli(&["ledger", "verify"]).done();
    stage.cli(&["ledger", "verify"]).done();
}

/// Goal: what a head signed for while an answer came is claimed when the head vanishes. Method: a third node asks two
/// that serve half each; SIGKILL it in the middle of a long answer.
#[test]
fn what_a_vanished_head_signed_for_is_claimed() {
    let place = folder();
    let founder = up(&place.path().join("a"), &["--layers", "bard=0..3"]);
    let invite = founder.invite(&["--reusable"]);
    let _other = join(&invite, &place.path().join("b"), &["--layers", "bard=3..6"]);
    let mut head = join(&invite, &place.path().join("c"), &["--layers", "bard=0..1"]);
    wait_for("a route", || head.is_complete().then_some(()));
    let address = head.http.clone();
    let streamed = stream_harmed(&address, || head.kill());
    assert!(!streamed.done, "{streamed:?}");
    let claims = wait_for("the claims of both stages", || {
        let entries: Value = founder.get("/api/ledger?from=0&limit=1000").done();
        let entries = entries.as_array().expect("a list").clone();
        let claims: Vec<_> = entries.into_iter().filter(|e| e["kind"] == "claimed").collect();
        (claims.len() == 2).then_some(claims)
    });
    assert_eq!(claims[0]["request"], claims[1]["request"]);
    founder.cli(&["ledger", "verify"]).done();
}
