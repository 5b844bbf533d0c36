//! What joining would come to, said before, and what came of it.

use crate::{
    harness::{Node, cannot_start, folder, join, up, wait_for},
    models::{bard, room_for},
};
use serde_json::{Value, json};

/// What of bard a node serves, as `/api/models` of it says.
fn served(node: &Node) -> Vec<Value> {
    let models = node.get("/api/models").done();
    let stages = models[0]["coverage"].as_array().expect("an array").iter();
    stages.filter(|stage| stage["node"] == node.id.as_str()).map(|s| s["span"].clone()).collect()
}

/// Goal: the layers that are forecast are those that joining gives, and asking changes nothing.
/// Method: a founder that keeps to half of a model, a newcomer with memory for as much that asks first, with the model
/// and without it, and then joins with the same one-time invitation.
#[test]
fn joining_gives_the_layers_that_a_dry_run_forecast() {
    let place = folder();
    let model = bard();
    let model = model.to_str().expect("the path is text");
    let [memory, cache] = room_for(model, 2);
    let rooms = [memory.as_str(), cache.as_str()];
    let founder = up(&place.path().join("ann"), &["--model", model, "--layers", "bard=0..3"]);
    let dir = place.path().join("new");
    let invite = founder.invite(&[]);
    let forecasts = [model, "peer:bard"].map(|model| {
        let flags = [&["--model", model, "--dry-run"], &rooms[..]].concat();
        let report = cannot_start(&["join", &invite, "--json"], &dir, &flags).json();
        assert_eq!(report["inviter"], founder.id.as_str());
        assert!(report["round_trip_us"].as_u64() > Some(0) && report["nodes"] == 1, "{report}");
        check(&report["models"][0]);
        let text = cannot_start(&["join", &invite], &dir, &flags).done();
        for word in ["Nothing was joined", "tokens/s", "bytes a token", "an hour", "does not fit"] {
            assert!(text.contains(word), "{word} is not in {text}");
        }
        report["models"][0]["serves"].as_array().expect("an array").clone()
    });
    assert!(!dir.exists(), "nothing is kept");
    let ledger = founder.cli(&["ledger", "verify", "--json"]).json();
    assert_eq!(ledger["members"], 1, "nobody joined");

    let newcomer = join(&invite, &dir, &[&["--model", model], &rooms[..]].concat());
    wait_for("the layers forecast", || (served(&newcomer) == forecasts[0]).then_some(()));
    assert_eq!(forecasts[0], forecasts[1], "whether the model is here or there");
    let body = json!({"model": "bard", "prompt": "ROMEO:", "max_tokens": 2});
    newcomer.post("/v1/completions", &body).done();
}

/// A model that only both together hold.
fn check(model: &Value) {
    assert_eq!((&model["alone"], &model["before"]), (&Value::Null, &Value::Null), "{model}");
    assert_eq!(model["serves"].as_array().map(Vec::len), Some(1), "{model}");
    assert!(model["credits_per_hour"].as_u64() > Some(0), "{model}");
    for way in [&model["together"], &model["after"]] {
        assert_eq!(way["hops"].as_array().map(Vec::len), Some(2), "{model}");
        assert!(way["tokens_per_s"].as_f64() > Some(0.0), "{model}");
        assert!(way["link_bytes"].as_u64() > Some(0), "{model}");
    }
}

#[test]
fn a_dry_run_needs_an_inviter_that_answers() {
    let place = folder();
    let mut founder = up(&place.path().join("ann"), &[]);
    let invite = founder.invite(&[]);
    founder.kill();
    let said = cannot_start(&["join", &invite, "--dry-run"], &place.path().join("new"), &[]);
    said.refused(4, &["inviter", "cannot be reached"]);
}
