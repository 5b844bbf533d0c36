//! A node that dies while it computes.

use crate::{
    harness::{Node, folder, lasting_address, up, wait_for},
    models::{bard, golden},
    together::{three, three_with},
};
use serde_json::{Value, json};
use std::time::Instant;

/// Goal: a lost stage ends the request with a clear error, costs nothing, and the rest go on.
/// Method: SIGKILL the holder of middle layers (or, where the founder holds them, another) as soon
/// as the first words of a long answer come; then ask again.
#[test]
fn a_killed_stage_ends_the_request_clearly_and_the_others_take_over() {
    let place = folder();
    let mut nodes = three(place.path(), "bard");
    let coverage = nodes[0].get("/api/models").done()[0]["coverage"].clone();
    let holder = |stage: usize| coverage[stage]["node"].as_str().expect("an id");
    let victim = [1, 2].into_iter().map(holder).find(|id| *id != nodes[0].id);
    let victim = victim.expect("the founder holds one stage only").to_owned();
    let [founder, others @ ..] = &mut nodes;
    let victim = others.iter_mut().find(|node| node.id == victim).expect("one of ours");

    let before = founder.cli(&["credits", "--json"]).json();
    let body =
        json!({ "model": "bard", "prompt": "ROMEO:\n", "temperature": 0, "max_tokens": 240 });
    let mut killed = None;
    let streamed = founder.stream("/v1/completions", &body, |text| {
        if !text.is_empty() && killed.is_none() {
            victim.kill();
            killed = Some(Instant::now());
        }
    });
    eprintln!("broke off {:?} after the kill", killed.expect("some text came").elapsed());
    let (code, message) = streamed.error.as_ref().expect("the answer breaks off with an error");
    assert_eq!(code, "stage_lost", "{message}");
    assert!(!streamed.done, "no client may take this for the whole: {streamed:?}");
    assert!(message.contains("not charged"), "{message}");

    let answer = answer_again(founder);
    let after = founder.cli(&["credits", "--json"]).json();
    let spent = |report: &Value| -> u64 {
        let members = report["members"].as_array().expect("an array").iter();
        members.map(|member| member["spent"].as_u64().expect("µGFT")).sum()
    };
    let cost = answer["talka"]["cost_micro_gft"].as_u64().expect("µGFT");
    assert_eq!(spent(&after) - spent(&before), cost, "only the complete answer was paid");
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
    let address = lasting_address();
    let flags = ["--p2p", &address];
    let founder = up(&place.path().join("a"), &flags);
    let [mut founder, b, _c] = three_with(founder, place.path(), "bard");
    answer_again(&b);
    let before = founder.cli(&["ledger", "verify", "--json"]).json();
    founder.kill();
    wait_for("the founder's death to be noticed", || {
        let said = b.cli(&["run", "--max-tokens", "2", "ROMEO:"]);
        assert_eq!((said.code, said.stdout.as_str()), (4, ""), "{said:#?}");
        said.stderr.contains("ledger cannot be reached").then_some(())
    });
    let founder = up(&founder.dir, &flags);
    assert_eq!(founder.cli(&["ledger", "verify", "--json"]).json()["head"], before["head"]);
    answer_again(&b);
    founder.cli(&["ledger", "verify"]).done();
}
