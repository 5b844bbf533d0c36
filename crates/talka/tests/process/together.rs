//! Three nodes that serve one model cut by layers.

use crate::{
    harness::{Node, folder, join, up, wait_for},
    models::{Golden, bard, golden, room_for, stories260k},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, path::Path};

/// The founder and two who joined by invitation, each with `model`, once it is cut over all three: none
/// of them holds more than a third.
pub fn three(place: &Path, model: &str) -> [Node; 3] {
    let [memory, cache] = room_for(model, 3);
    let flags = ["--model", model, &memory, &cache];
    three_with(up(&place.join("a"), &flags), place, &flags)
}

/// The same with a founder that was started before, and `flags` for the others.
pub fn three_with(founder: Node, place: &Path, flags: &[&str]) -> [Node; 3] {
    let b = join(&founder.invite(&[]), &place.join("b"), flags);
    // Any member may invite, and one invitation may serve many.
    let c = join(&b.invite(&["--reusable", "--valid", "1h"]), &place.join("c"), flags);
    let nodes = [founder, b, c];
    for node in &nodes {
        wait_for("a model cut over three nodes", || {
            let model = &node.get("/api/models").done()[0];
            let stages = model["coverage"].as_array().expect("an array");
            let holders: BTreeSet<_> = stages.iter().map(|stage| stage["node"].as_str()).collect();
            (model["complete"] == true && stages.len() == 3 && holders.len() == 3).then_some(())
        });
    }
    nodes
}

/// Goal: the same answers from three nodes as from one, and everybody's work is paid.
/// Method: greedy continuations of another implementation, asked at each node in turn.
fn check(model: &str, golden: &[Golden]) {
    let place = folder();
    let nodes = three(place.path(), model);
    assert!(nodes.iter().all(|node| node.network == nodes[0].network));

    ask(&nodes[1], golden);
    let members = standing(&nodes[1]);
    for node in &nodes {
        let member = &members[&node.id];
        assert_ne!(member["earned"], 0, "a stage of every answer: {members}");
        assert_eq!(member["spent"] != 0, node.id == nodes[1].id, "one asked: {members}");
    }
    ask(&nodes[0], golden);
    ask(&nodes[2], golden);
    for (name, value) in standing(&nodes[0]).as_object().expect("an object") {
        assert_ne!(value["spent"], 0, "{name} asked");
    }
    explained(&nodes[1]);
    let state = wait_for("one ledger", || {
        let verify = |node: &Node| node.cli(&["ledger", "verify", "--json"]).json();
        let [a, b, c] = nodes.each_ref().map(verify);
        (a == b && b == c).then_some(a)
    });
    assert_eq!(state["members"], 3);
    assert_eq!(state["reserved"], 0);
    assert_eq!(state["minted"], state["balances"]);
}

/// Each continuation from `node`, computed by three.
fn ask(node: &Node, golden: &[Golden]) {
    for golden in golden {
        let body = json!({
            "model": node.get("/v1/models").done()["data"][0]["id"], "prompt": golden.prompt,
            "temperature": 0, "max_tokens": golden.greedy_ids.len(),
        });
        let answer = node.post("/v1/completions", &body).done();
        assert_eq!(answer["choices"][0]["text"], golden.continuation());
        assert_eq!(answer["talka"]["route"].as_array().map(Vec::len), Some(3), "{answer}");
        let args = ["run", "--temperature", "0", "--max-tokens", &golden.tokens(), &golden.prompt];
        assert_eq!(node.cli(&args).done(), golden.continuation());
    }
}

/// What a person can learn of routes: which was taken, which would be, and why not another.
fn explained(node: &Node) {
    let status = node.cli(&["status", "--json"]).json();
    let routes = status["routes"].as_array().expect("an array");
    assert!((1..=10).contains(&routes.len()), "{status}");
    for route in routes {
        assert_eq!(route["hops"].as_array().map(Vec::len), Some(3), "{route}");
        assert_ne!(route["token_us"], 0, "{route}");
    }
    let model = routes[0]["model"].as_str().expect("a name");
    let report = node.cli(&["doctor", "route", model, "--json"]).json();
    let stages = report["considered"].as_array().expect("an array");
    assert_eq!(stages.len(), 3, "{report}");
    assert!(stages.iter().all(|stage| stage["chosen"] == true), "{report}");
    let told = node.cli(&["doctor", "route", model]).done();
    assert_eq!(told.matches("chosen for layers").count(), 3, "{told}");
    node.cli(&["doctor", "route", "nobody's"]).refused(1, &["nobody's", model]);
    let peers = node.cli(&["peers", "--json"]).json();
    for peer in peers.as_array().expect("an array").iter().filter(|peer| peer["this"] == false) {
        assert!(peer["round_trip_us"].is_u64(), "{peer}");
        assert_eq!(peer["layer_us"].as_array().map(Vec::len), Some(1), "{peer}");
        assert!(peer["flops_per_second"].as_u64() > Some(0), "{peer}");
        assert!(peer["memory_bytes_per_second"].as_u64() > Some(0), "{peer}");
    }
}

/// Members of `talka credits` by id; a member's id is its node's.
fn standing(node: &Node) -> Value {
    let credits = node.cli(&["credits", "--json"]).json();
    let members = credits["members"].as_array().expect("an array").iter();
    let by_id = members.map(|m| (m["member"].as_str().expect("an id").to_owned(), m.clone()));
    Value::Object(by_id.collect())
}

#[test]
fn bard_over_three_nodes_answers_as_on_one() {
    check("bard", &golden(&bard()));
}

#[test]
fn stories260k_over_three_nodes_answers_as_on_one() {
    if let Some(folder) = stories260k() {
        check(folder.to_str().expect("the path is text"), &golden(&folder));
    }
}

/// A running node is told to join instead of a second one being started.
#[test]
fn a_node_that_runs_already_joins_where_it_is() {
    let place = folder();
    let founder = up(&place.path().join("a"), &[]);
    let other = up(&place.path().join("b"), &[]);
    assert_ne!(founder.cli(&["status", "--json"]).json()["network"], Value::Null);
    let told = other.cli(&["join", &founder.invite(&[]), "--json"]).json();
    assert_eq!(told["network_name"], founder.network.as_str());
    assert_eq!(told["invited_by"], founder.id.as_str());
    let known = wait_for("two nodes", || {
        let status = founder.cli(&["status", "--json"]).json();
        (status["nodes_alive"] == 2).then_some(status)
    });
    assert_eq!(known["network"], told["network"]);
}
