//! A model that several nodes train together.

use crate::harness::{Node, folder, join, lasting_address, up, wait_for};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

const LINES: &str =
    "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\n";
const STEPS_PER_ROUND: u64 = 10;
/// Rounds of a job that no test sees the end of.
const ENDLESS: u64 = 1_000_000;

/// A job of so many rounds in `place`, and the file that says so.
fn job(place: &Path, rounds: u64, members_min: u64, window_s: u64) -> PathBuf {
    job_with(place, rounds, members_min, window_s, &json!({}))
}

/// The same with more fields of `[network]`.
fn job_with(
    place: &Path,
    rounds: u64,
    members_min: u64,
    window_s: u64,
    network: &Value,
) -> PathBuf {
    fs::write(place.join("plays.txt"), LINES.repeat(40)).expect("written");
    let mut job = json!({
        "task_id": "tiny",
        "seed": 7,
        "model_specification": {"hidden": 16, "layers": 2, "heads": 2, "ffn": 32, "context": 16, "tied": true},
        "tokenizer": {"kind": "characters"},
        "training_config": {
            "steps": rounds * STEPS_PER_ROUND, "batch_size": 2, "learning_rate": 0.01,
            "checkpoint_every": 20, "validate_every": 10,
        },
        "data_requirements": {"files": ["plays.txt"]},
        "network": {
            "members_min": members_min, "steps_per_round": STEPS_PER_ROUND, "window_seconds": window_s,
            "grace_seconds": 2, "compressor": "dense4",
        },
    });
    for (field, value) in network.as_object().expect("fields") {
        job["network"][field] = value.clone();
    }
    let file = place.join("tiny.json");
    fs::write(&file, job.to_string()).expect("written");
    file
}

/// A founder and one that joined it.
fn pair(place: &Path) -> [Node; 2] {
    let founder = up(&place.join("a"), &["--model", "bard"]);
    let member = join(&founder.invite(&[]), &place.join("b"), &["--model", "bard"]);
    [founder, member]
}

fn detail(node: &Node) -> Value {
    node.get("/api/training/runs/tiny").done()
}

/// The job, once it stands so.
fn until(node: &Node, what: &str, enough: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, || Some(detail(node)).filter(|detail| enough(&detail["run"])))
}

fn done(node: &Node) -> Value {
    until(node, "the job's end", |run| {
        assert_ne!(run["state"], "failed", "{run}");
        run["state"] == "done"
    })
}

/// Has the founder of a job begin it, and others take part once they hear of it.
fn begin(file: &Path, nodes: &[&Node]) {
    nodes[0].cli(&["train", file.to_str().expect("text"), "--detach"]).done();
    nodes[1..].iter().for_each(|node| take_part(node));
}

fn take_part(node: &Node) {
    wait_for("news of the job", || {
        let open = node.get("/api/training/open").done();
        (open[0]["name"] == "tiny").then_some(())
    });
    node.cli(&["train", "join", "tiny", "--detach"]).done();
}

/// What each round gave, by the record of a node.
fn weights(detail: &Value) -> Vec<(u64, String)> {
    let rounds = detail["rounds"].as_array().expect("a list");
    let of = |round: &Value| {
        let weights = round["weights"].as_str().expect("a hash").to_owned();
        (round["round"].as_u64().expect("a number"), weights)
    };
    rounds.iter().map(of).collect()
}

/// Goal: two nodes train a model together that neither could see the other's data files for, hold the same weights after every
/// round, serve it, and are paid by the network.
#[test]
fn two_nodes_train_a_model_and_serve_it() {
    let place = folder();
    let nodes = pair(place.path());
    let file = job(place.path(), 6, 2, 60);
    let estimate =
        nodes[0].cli(&["train", "estimate", file.to_str().expect("text"), "--json"]).json();
    assert!(estimate["bytes_per_day"].as_u64() > Some(0), "{estimate}");
    begin(&file, &[&nodes[0]]);
    wait_for("news of the job", || {
        (nodes[1].get("/api/training/open").done() != json!([])).then_some(())
    });
    let joining = nodes[1].cli(&["train", "join", "tiny", "--dry-run", "--json"]).json();
    for field in ["steps", "parameters"] {
        assert_eq!(joining[field], estimate[field], "{field}");
    }
    assert_eq!(nodes[1].get("/api/training").done(), json!([]));
    take_part(&nodes[1]);
    let [first, second] = nodes.each_ref().map(done);
    assert_eq!(weights(&first), weights(&second));
    assert_eq!(weights(&first).len(), 6, "{first}");
    // The first round seats the second node; each of the others has work of both.
    for round in &first["rounds"].as_array().expect("a list")[1..] {
        let parts = round["parts"].as_array().expect("a list");
        assert_eq!(parts.len(), 2, "{round}");
        assert!(parts.iter().all(|part| part["samples"] == 2 * STEPS_PER_ROUND), "{round}");
    }
    let points = first["points"].as_array().expect("a list");
    let [began, ended] = [&points[0], points.last().expect("some")]
        .map(|point| point["validation_loss"].as_f64().expect("a loss"));
    assert!(ended < began - 0.05, "{points:?}");
    let curve = |node: &Node| {
        let points = first["member_points"].as_array().expect("a list");
        points.iter().filter(|point| point["node"] == node.id).count()
    };
    assert!(nodes.iter().all(|node| curve(node) >= 4), "{first}");
    let run = &first["run"];
    assert!(run["bytes_sent"].as_u64() > Some(0) && run["bytes_received"].as_u64() > Some(0));
    let shown = nodes[1].cli(&["train", "status", "tiny"]).done();
    assert!(shown.contains("6 of 6 rounds") && shown.contains("leads"), "{shown}");

    nodes[1].cli(&["train", "promote", "tiny"]).done();
    let answer = wait_for("an answer of the trained model", || {
        let ask = json!({ "model": "tiny", "prompt": "To", "max_tokens": 3 });
        let reply = nodes[1].post("/v1/completions", &ask);
        (reply.status == 200).then_some(reply.body)
    });
    assert_eq!(answer["model"], "tiny-v60");
    wait_for("the pay of both", || {
        let entries = nodes[0].ledger();
        let paid = |node: &Node| {
            entries.iter().filter(|entry| entry["kind"] == "rewarded").any(|entry| {
                let postings = entry["postings"].as_array().expect("a list");
                postings.iter().any(|posting| posting["account"] == node.id)
            })
        };
        nodes.iter().all(paid).then_some(())
    });
}

/// Goal: who joins late contributes within two rounds, and fetches one checkpoint.
#[test]
fn a_late_joiner_contributes_within_two_rounds() {
    let place = folder();
    let [founder, second] = pair(place.path());
    let file = job(place.path(), ENDLESS, 1, 60);
    begin(&file, &[&founder]);
    let at_round = |node: &Node, least: u64| {
        let enough = |run: &Value| run["together"]["round"].as_u64() >= Some(least);
        until(node, "some rounds", enough)
    };
    at_round(&founder, 3);
    take_part(&second);
    // It says that it is ready once it has fetched what it needs.
    let seated = until(&founder, "a seat", |run| {
        let members = run["together"]["members"].as_array().expect("a list");
        members.iter().any(|member| member["node"] == second.id && member["is_seated"] == true)
    });
    let round = seated["run"]["together"]["round"].as_u64().expect("a number");
    let later = at_round(&founder, round + 2);
    let rounds = later["rounds"].as_array().expect("a list");
    let contributed = rounds.iter().find(|round| {
        let parts = round["parts"].as_array().expect("a list");
        parts.iter().any(|part| part["node"] == second.id)
    });
    let first = contributed.expect("a contribution")["round"].as_u64().expect("a number");
    assert!(first <= round + 2, "seated after round {round}, contributed to {first}");
    for node in [&founder, &second] {
        node.cli(&["train", "stop", "tiny"]).done();
        until(node, "its end", |run| run["state"] == "stopped");
    }
}

/// Goal: after all nodes were killed, the next rounds come to the same weights as if nothing had been, and each round is paid for once.
#[test]
fn killed_nodes_go_on_to_the_same_weights() {
    let place = folder();
    let run = |name: &str, kills: bool| {
        let place = place.path().join(name);
        fs::create_dir(&place).expect("made");
        let addresses = [(); 2].map(|()| lasting_address([127, 0, 0, 1]).to_string());
        let [a, b] = addresses.each_ref().map(|at| ["--model", "bard", "--p2p", at]);
        let mut founder = up(&place.join("a"), &a);
        let mut member = join(&founder.invite(&[]), &place.join("b"), &b);
        let file = job(&place, 9, 2, 60);
        begin(&file, &[&founder, &member]);
        if kills {
            until(&member, "some rounds", |run| run["together"]["round"].as_u64() >= Some(4));
            founder.kill();
            member.kill();
            founder = up(&place.join("a"), &a);
            member = up(&place.join("b"), &b);
        }
        let [first, second] = [&founder, &member].map(done);
        let (a, b) = (&first["run"]["versions"][0], &second["run"]["versions"][0]);
        assert_eq!(a["weights"], b["weights"]);
        let rounds = first["rounds"].as_array().expect("a list").iter();
        let worked = rounds.filter(|round| round["parts"] != json!([])).count();
        wait_for("the pay of all rounds", || {
            let entries = founder.ledger();
            let paid = entries.iter().filter(|entry| entry["kind"] == "rewarded").count();
            assert!(paid <= worked, "{paid} reports for {worked} rounds");
            (paid == worked).then_some(())
        });
        (first["rounds"].clone(), weights(&first), a["weights"].clone())
    };
    let (_, calm, expected) = run("calm", false);
    let (whole, rounds, found) = run("killed", true);
    assert_eq!(found, expected, "{whole:#}, {calm:?}");
    assert_eq!(rounds, calm);
}

/// Goal: members that exchange a part of the model at a time, and train on meanwhile, hold the same weights after every round too.
#[test]
fn members_train_on_while_they_exchange() {
    let place = folder();
    let nodes = pair(place.path());
    let network = json!({"fragments": 2, "overlap": true, "compressor": "sparse"});
    let file = job_with(place.path(), 12, 2, 60, &network);
    begin(&file, &[&nodes[0], &nodes[1]]);
    let [first, second] = nodes.each_ref().map(done);
    assert_eq!(weights(&first), weights(&second));
    assert_eq!(weights(&first).len(), 12, "{first}");
    let losses: Vec<f64> = first["points"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|point| point["validation_loss"].as_f64())
        .collect();
    assert!(losses.last() < losses.first(), "{losses:?}");
}

/// Goal: a member that dies costs its own work only, and one that comes back goes on with the others.
#[test]
fn a_member_that_dies_is_not_waited_for() {
    let place = folder();
    let [founder, mut member] = pair(place.path());
    let file = job(place.path(), ENDLESS, 1, 5);
    begin(&file, &[&founder, &member]);
    let seated = |run: &Value| {
        let members = run["together"]["members"].as_array().cloned().unwrap_or_default();
        members.iter().filter(|member| member["is_seated"] == true).count()
    };
    let round = |detail: &Value| detail["run"]["together"]["round"].as_u64().expect("a number");
    until(&founder, "two seats", |run| seated(run) == 2);
    member.kill();
    let alone = until(&founder, "one seat", |run| seated(run) == 1);
    until(&founder, "rounds of one", |run| {
        run["together"]["round"].as_u64() >= Some(round(&alone) + 3)
    });
    let member = up(&place.path().join("b"), &["--model", "bard"]);
    until(&founder, "two seats again", |run| seated(run) == 2);
    let both = until(&member, "rounds of both", |run| seated(run) == 2 && run["step"] != 0);
    let common = wait_for("the same weights", || {
        let [ours, theirs] = [&founder, &member].map(|node| weights(&detail(node)));
        ours.into_iter().rev().find(|round| theirs.contains(round))
    });
    assert!(common.0 > round(&alone), "{common:?} {both}");
}

#[test]
fn what_nobody_trains_cannot_be_joined() {
    let place = folder();
    let [founder, member] = pair(place.path());
    member.cli(&["train", "join", "tiny"]).refused(1, &["nobody trains", "tiny"]);
    let file = job(place.path(), ENDLESS, 2, 60);
    begin(&file, &[&founder]);
    wait_for("news of the job", || {
        let open = member.cli(&["train", "open"]).done();
        open.contains("tiny").then_some(())
    });
    member.cli(&["train", "join", "other"]).refused(1, &["other", "expected one of: tiny"]);
    let wrong = json!({ "job": 7 });
    member.post("/api/training/join", &wrong).refused(400, "invalid_value", &["job"]);
    // Nobody trains alone where two are needed.
    let waiting = detail(&founder);
    assert_eq!(
        (&waiting["run"]["step"], waiting["rounds"].as_array().map(Vec::len)),
        (&json!(0), Some(0))
    );
}
