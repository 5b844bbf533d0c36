//! Jobs that a node trains, and what they make.

use crate::harness::{Node, folder, up, wait_for};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

const LINES: &str =
    "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\n";

/// A job of so many tiny steps in `place`, and the file that says so.
fn job(place: &Path, steps: u64) -> (Value, PathBuf) {
    fs::write(place.join("plays.txt"), LINES.repeat(40)).expect("written");
    let job = json!({
        "task_id": "tiny",
        "seed": 7,
        "model_specification": {"hidden": 16, "layers": 1, "heads": 2, "ffn": 32, "context": 16, "tied": true},
        "tokenizer": {"kind": "characters"},
        "training_config": {
            "steps": steps, "batch_size": 2, "learning_rate": 0.01, "checkpoint_every": 10, "validate_every": 10,
        },
        "data_requirements": {"files": ["plays.txt"]},
    });
    let file = place.join("tiny.json");
    fs::write(&file, job.to_string()).expect("written");
    (job, file)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}

fn run(node: &Node) -> Value {
    node.get("/api/training/runs/tiny").done()["run"].clone()
}

/// The job, once it stands so.
fn until(node: &Node, what: &str, enough: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, || Some(run(node)).filter(|run| enough(run)))
}

fn ask(node: &Node, model: &str) -> Value {
    wait_for("an answer of the trained model", || {
        let ask = json!({ "model": model, "prompt": "To", "max_tokens": 3 });
        let reply = node.post("/v1/completions", &ask);
        (reply.status == 200).then_some(reply.body)
    })
}

#[test]
fn a_model_is_trained_and_served_a_moment_later() {
    let place = folder();
    let (_, file) = job(place.path(), 20);
    let dir = place.path().join("data");
    let node = up(&dir, &["--model", "bard"]);
    assert_eq!(node.cli(&["train", "status", "--json"]).json(), json!([]));
    let estimate = node.cli(&["train", "estimate", text(&file), "--json"]).json();
    assert_eq!((&estimate["steps"], &estimate["bytes_per_day"]), (&json!(20), &json!(0)));
    assert!(estimate["tokens_per_second"].as_f64() > Some(0.0), "{estimate}");

    let done = node.cli(&["train", text(&file), "--json"]).json();
    assert_eq!(
        (&done["state"], &done["step"], &done["steps"]),
        (&json!("done"), &json!(20), &json!(20))
    );
    assert_eq!(done["parameters"], estimate["parameters"]);
    let steps: Vec<_> =
        done["versions"].as_array().expect("a list").iter().map(|v| &v["step"]).collect();
    assert_eq!(steps, [20, 10]);
    let points = node.cli(&["train", "logs", "tiny", "--json"]).json();
    let first = points[0]["loss"].as_f64().expect("a loss");
    assert!(done["loss"].as_f64().expect("a loss") < first, "{points}");
    assert!(done["validation_loss"].is_f64(), "{done}");
    let shown = node.cli(&["train", "status", "tiny"]).done();
    assert!(shown.contains("tiny done: step 20 of 20") && shown.contains("tiny-v20"), "{shown}");

    // Nobody has to start the node anew.
    node.cli(&["train", "promote", "tiny", "--step", "10"]).done();
    assert_eq!(ask(&node, "tiny")["model"], "tiny-v10");
    node.cli(&["train", "promote", "tiny"]).done();
    assert_eq!(ask(&node, "tiny")["model"], "tiny-v20");
    let back = node.cli(&["train", "rollback", "tiny", "--json"]).json();
    assert_eq!((&back["serving"], &back["served_before"]), (&json!(10), &json!(20)));
    assert_eq!(ask(&node, "tiny")["model"], "tiny-v10");
    drop(node);
    let node = up(&dir, &["--model", "bard"]);
    assert_eq!(ask(&node, "tiny")["model"], "tiny-v10");
    assert_eq!(run(&node)["state"], "done");
}

#[test]
fn bad_jobs_are_refused_with_the_field_or_the_file() {
    let place = folder();
    let (good, file) = job(place.path(), 5);
    let node = up(&place.path().join("data"), &["--model", "bard"]);
    let with = |pointer: &str, value: Value| {
        let mut job = good.clone();
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        let parent = job.pointer_mut(parent).and_then(Value::as_object_mut).expect("a section");
        parent.insert(name.to_owned(), value);
        job
    };
    let refused = |job: &Value, code: i32, words: &[&str]| {
        fs::write(&file, job.to_string()).expect("written");
        node.cli(&["train", text(&file)]).refused(code, words);
    };
    refused(&with("/training_config/learning_rat", json!(1)), 2, &["training_config.learning_rat"]);
    refused(&with("/training_config/steps", json!(0)), 2, &["training_config.steps", "is 0"]);
    refused(
        &with("/data_requirements/files", json!(["none.txt"])),
        1,
        &["none.txt", "cannot be read"],
    );
    for (name, bytes, reason) in
        [("empty.txt", &b""[..], "holds no text"), ("latin.txt", b"f\xfcr", "not UTF-8")]
    {
        fs::write(place.path().join(name), bytes).expect("written");
        refused(&with("/data_requirements/files", json!([name])), 1, &[name, reason]);
    }
    let huge = json!({ "min_memory_gb": 1e5 });
    refused(&with("/hardware_requirements", huge), 1, &["memory", "free"]);
    refused(&with("/task_id", json!("bard")), 1, &["another model is called bard"]);
    node.cli(&["train", text(&place.path().join("no.toml"))]).refused(2, &["no.toml"]);
    fs::write(place.path().join("bad.toml"), "task_id = ").expect("written");
    node.cli(&["train", text(&place.path().join("bad.toml"))]).refused(2, &["TOML", "line 1"]);

    node.post("/api/training", &json!({ "job": good })).refused(
        400,
        "invalid_job",
        &["data_requirements.files[0]", "from the root"],
    );
    node.post("/api/training/stop", &json!({ "run": "tiny" })).refused(404, "no_run", &["tiny"]);
    node.get("/api/training/runs/tiny").refused(404, "no_run", &["tiny"]);
    assert_eq!(node.get("/api/training").done(), json!([]));
}

/// Goal: a node that dies while it trains comes to the same weights as one that does not. Method: one job on two nodes, of
/// which one is killed in its midst and started again.
#[test]
fn a_killed_node_goes_on_to_the_same_weights() {
    let place = folder();
    let (_, file) = job(place.path(), 600);
    let calm = up(&place.path().join("calm"), &["--model", "bard"]);
    let expected = calm.cli(&["train", text(&file), "--json"]).json();
    drop(calm);

    let dir = place.path().join("killed");
    let mut node = up(&dir, &["--model", "bard"]);
    node.cli(&["train", text(&file), "--detach"]).done();
    until(&node, "some steps", |run| run["step"].as_u64() > Some(30));
    node.kill();
    let node = up(&dir, &["--model", "bard"]);
    // Answers go on meanwhile.
    node.post("/v1/completions", &json!({ "model": "bard", "prompt": "A", "max_tokens": 2 }))
        .done();
    let done = until(&node, "the end", |run| run["state"] == "done");
    assert_eq!(done["versions"][0]["weights"], expected["versions"][0]["weights"]);
    let points = node.cli(&["train", "logs", "tiny", "--last", "1000", "--json"]).json();
    let steps: Vec<_> =
        points.as_array().expect("a list").iter().filter_map(|p| p["step"].as_u64()).collect();
    assert_eq!(steps, (1..=600).collect::<Vec<_>>());
}

#[test]
fn a_job_is_stopped_and_goes_on() {
    let place = folder();
    // More steps than anybody waits for.
    let (mut job, file) = job(place.path(), 1_000_000);
    let node = up(&place.path().join("data"), &["--model", "bard"]);
    node.cli(&["train", text(&file), "--detach"]).done();
    until(&node, "a step", |run| run["step"].as_u64() > Some(0));
    let other = place.path().join("other.json");
    job["task_id"] = json!("other");
    fs::write(&other, job.to_string()).expect("written");
    node.cli(&["train", text(&other)]).refused(1, &["tiny is trained now"]);
    job["task_id"] = json!("tiny");
    job["seed"] = json!(8);
    fs::write(&other, job.to_string()).expect("written");
    node.cli(&["train", "stop", "tiny"]).done();
    let stopped = until(&node, "its end", |run| run["state"] == "stopped");
    node.cli(&["train", text(&other)]).refused(1, &["another job is called tiny"]);
    node.cli(&["train", "stop", "tiny"]).refused(1, &["not trained now"]);
    node.cli(&["train", text(&file), "--detach"]).done();
    until(&node, "more steps", |run| run["step"].as_u64() > stopped["step"].as_u64());
}
