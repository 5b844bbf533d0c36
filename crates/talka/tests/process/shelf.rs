//! Models that a running node fetches for whoever asks it.

use crate::{
    harness::{Node, folder, up, up_with_hub, wait_for},
    hub::{
        REF, files,
        server::{Behaviour, FakeHub},
    },
    models::bard,
};
use serde_json::{Value, json};

/// What requests call the model at [`REF`].
const SERVED: &str = "tiny";

fn order(node: &Node, what: &str) -> crate::harness::Reply {
    node.post(&format!("/api/shelf/{what}"), &json!({ "ref": REF }))
}

/// The one fetch, once it stands so.
fn until(node: &Node, state: &str, enough: impl Fn(&Value) -> bool) -> Value {
    wait_for("the fetch", || {
        let pull = node.get("/api/shelf").done()["pulls"][0].clone();
        (pull["state"] == state && enough(&pull)).then_some(pull)
    })
}

/// Goal: a fetch is seen as it goes, is stopped, and goes on with what came. Method: a hub that falls silent in the middle
/// of the weights.
#[test]
fn a_running_node_fetches_shows_and_removes_models() {
    let (place, hub) = (folder(), FakeHub::start(&files()));
    hub.behave(Behaviour { hold: Some(1_500_000), ..Behaviour::default() });
    // What the hub has are bard's weights.
    let other = bard().join("../../../fixtures/reference/llama");
    let more = ["--model", other.to_str().expect("text")];
    let node = up_with_hub(&place.path().join("data"), &more, &hub.endpoint());
    assert_eq!(node.get("/api/shelf").done(), json!({ "models": [], "pulls": [] }));

    order(&node, "pull").done();
    let half = until(&node, "running", |pull| pull["done_bytes"].as_u64() > Some(1_000_000));
    assert!(half["total_bytes"].as_u64() > half["done_bytes"].as_u64(), "{half}");
    let heard = node.follow("/api/live", |name, data| name == "pulls" && data[0]["ref"] == REF);
    assert!(heard);
    order(&node, "remove").refused(409, "running", &["stop"]);
    order(&node, "stop").done();
    until(&node, "stopped", |_| true);
    order(&node, "stop").refused(404, "not_running", &[REF]);

    hub.behave(Behaviour::default());
    order(&node, "pull").done();
    let done = until(&node, "done", |_| true);
    assert_eq!(done["done_bytes"], done["total_bytes"]);
    let models = node.get("/api/shelf").done()["models"].clone();
    assert_eq!((&models[0]["ref"], &models[0]["whole"]), (&json!(REF), &json!(true)));
    assert_eq!(models[0]["served"], false);
    assert_eq!(order(&node, "serve").done()["models"][0]["served"], true);
    let ask = json!({ "model": SERVED, "prompt": "A", "max_tokens": 2 });
    wait_for("its layers", || {
        let models = node.get("/api/models").done();
        let is_it = |model: &Value| model["name"] == SERVED && model["complete"] == true;
        models.as_array()?.iter().any(is_it).then_some(())
    });
    node.post("/v1/completions", &ask).done();
    // One that is served already is woken, and no second one comes.
    node.post("/api/models/rest", &json!({ "model": SERVED, "rests": true })).done();
    order(&node, "serve").done();
    let models = node.get("/api/models").done();
    let of_it = |model: &&Value| model["name"] == SERVED;
    let models: Vec<_> = models.as_array().expect("a list").iter().filter(of_it).collect();
    assert_eq!((models.len(), &models[0]["rests"]), (1, &json!(false)));

    assert_eq!(order(&node, "remove").done()["models"], json!([]));
    for gone in ["serve", "remove"] {
        order(&node, gone).refused(404, "model_not_found", &[REF]);
    }
    drop(node);
    let node = up_with_hub(&place.path().join("again"), &["--model", "bard"], &hub.endpoint());
    order(&node, "pull").done();
    until(&node, "done", |_| true);
    order(&node, "serve").refused(400, "model_refused", &["as bard"]);
}

#[test]
fn what_cannot_be_fetched_is_refused_by_name() {
    let place = folder();
    let node = up(&place.path().join("data"), &[]);
    order(&node, "pull").refused(403, "offline", &[REF, "--offline"]);
    node.post("/api/shelf/pull", &json!({ "ref": "../etc" })).refused(400, "invalid_value", &[]);
    node.post("/api/shelf/pull", &json!({})).refused(400, "missing_required_parameter", &["ref"]);
}
