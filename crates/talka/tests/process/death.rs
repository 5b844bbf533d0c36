//! A node that dies while it computes.

use crate::{
    harness::{folder, wait_for},
    models::{bard, golden},
    together::three,
};
use serde_json::json;

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
    let mut killed = false;
    let streamed = founder.stream("/v1/completions", &body, |text| {
        if !text.is_empty() && !killed {
            victim.kill();
            killed = true;
        }
    });
    let (code, message) = streamed.error.as_ref().expect("the answer breaks off with an error");
    assert_eq!(code, "stage_lost", "{message}");
    assert!(!streamed.done, "no client may take this for the whole: {streamed:?}");
    assert!(message.contains("not charged"), "{message}");

    let golden = &golden(&bard())[1];
    let body = json!({
        "model": "bard", "prompt": golden.prompt, "temperature": 0,
        "max_tokens": golden.greedy_ids.len(),
    });
    let answer = wait_for("a complete route without the dead", || {
        let reply = founder.post("/v1/completions", &body);
        (reply.status == 200).then_some(reply.body)
    });
    assert_eq!(answer["choices"][0]["text"], golden.continuation());

    let after = founder.cli(&["credits", "--json"]).json();
    let spent = |report: &serde_json::Value| -> u64 {
        let members = report["members"].as_array().expect("an array").iter();
        members.map(|member| member["spent"].as_u64().expect("µGFT")).sum()
    };
    let cost = answer["talka"]["cost_micro_gft"].as_u64().expect("µGFT");
    assert_eq!(spent(&after) - spent(&before), cost, "only the complete answer was paid");
    assert_eq!(after["reserved"], 0);
    founder.cli(&["ledger", "verify"]).done();
}
