//! What an owner changes while the node runs.

use crate::harness::{Node, folder, join, up, wait_for};
use serde_json::{Value, json};

fn change(node: &Node, limits: &Value) -> Value {
    node.post("/api/settings", limits).done()
}

/// Goal: limits hold at once, and after a restart. Method: hours of another day than any close the node, a restart without
/// flags asks again, and flags overrule what was kept.
#[test]
fn limits_hold_at_once_and_after_a_restart() {
    let place = folder();
    let dir = place.path().join("data");
    let node = up(&dir, &[]);
    let before = node.get("/api/settings").done();
    assert_eq!((&before["hours"], &before["closed"]), (&json!([]), &Value::Null));
    assert_eq!((&before["threads"], &before["sharing"]), (&json!(1), &json!("specialised")));
    assert_eq!(before["rules"]["price_per_mille"][2], json!(["bf16", 500]));

    // A minute that is over whenever this runs, of one day of the week.
    let day = before_now();
    let kept = change(&node, &json!({ "hours": [day], "memory_bytes": 8_000_000_000_u64 }));
    assert_eq!(kept["hours"], json!([day]));
    let kept = change(&node, &json!({ "threads": 2, "bandwidth_bytes": 1_000_000 }));
    assert_eq!((&kept["threads"], &kept["bandwidth_bytes"]), (&json!(2), &json!(1_000_000)));
    assert_eq!(kept["memory_bytes"], 8_000_000_000_u64);
    wait_for("a closed node", || {
        let closed = node.get("/api/status").done()["closed"].clone();
        closed.as_str().filter(|why| why.starts_with("closed until")).map(str::to_owned)
    });
    // Its own callers are served as before.
    node.post("/v1/completions", &json!({ "model": "bard", "prompt": "A", "max_tokens": 2 }))
        .done();
    node.post("/api/settings", &json!({ "hours": ["never"] })).refused(
        400,
        "invalid_value",
        &["hours", "22:00-07:00"],
    );
    node.post("/api/settings", &json!({ "memory_bytes": 1 })).refused(
        400,
        "invalid_value",
        &["memory_bytes", "caches"],
    );
    for (name, wrong) in [("threads", 0), ("bandwidth_bytes", 1)] {
        node.post("/api/settings", &json!({ name: wrong })).refused(400, "invalid_value", &[name]);
    }
    drop(node);

    // What tests start has a flag for threads, which overrules what was kept.
    let again = up(&dir, &[]);
    let kept = again.get("/api/settings").done();
    assert_eq!(kept["hours"], json!([day]));
    assert_eq!((&kept["threads"], &kept["bandwidth_bytes"]), (&json!(1), &json!(1_000_000)));
    let unlimited = change(&again, &json!({ "bandwidth_bytes": 0 }));
    assert_eq!(unlimited["bandwidth_bytes"], Value::Null);
    assert_eq!(change(&again, &json!({ "hours": [] }))["closed"], Value::Null);
    drop(again);
    let told = up(&dir, &["--when-idle"]).get("/api/settings").done();
    assert_eq!((&told["hours"], &told["when_idle"]), (&json!([]), &json!(true)));
}

/// A minute of the day before yesterday, as hours are written.
fn before_now() -> String {
    let days = ["thu", "fri", "sat", "sun", "mon", "tue", "wed"];
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let today = since.expect("a clock").as_secs() / 86_400;
    format!("{} 12:00-12:01", days[(today as usize + 7 - 2) % 7])
}

/// Goal: a model that rests has no layers here, others go on, and it comes back when it is woken. Method: two nodes with
/// half of the layers each.
#[test]
fn a_model_rests_and_wakes() {
    let place = folder();
    let first = up(&place.path().join("first"), &["--layers", "bard=0..3"]);
    let more = ["--layers", "bard=3..6"];
    let second = join(&first.invite(&[]), &place.path().join("second"), &more);
    let whole = |node: &Node| {
        let model = node.get("/api/models").done()[0].clone();
        (model["complete"] == true).then_some(model)
    };
    wait_for("all layers", || whole(&first));

    let rests = |rests: bool| json!({ "model": "bard", "rests": rests });
    let models = second.post("/api/models/rest", &rests(true)).done();
    assert_eq!(models[0]["rests"], true);
    let left = wait_for("layers given back", || {
        let model = first.get("/api/models").done()[0].clone();
        (model["complete"] == false).then_some(model)
    });
    assert_eq!(left["coverage"].as_array().map(Vec::len), Some(1));
    let ask = json!({ "model": "bard", "prompt": "A", "max_tokens": 2 });
    assert_eq!(first.post("/v1/completions", &ask).status, 503);

    second.post("/api/models/rest", &rests(false)).done();
    wait_for("all layers again", || whole(&first));
    first.post("/v1/completions", &ask).done();
    second.post("/api/models/rest", &json!({ "model": "x", "rests": true })).refused(
        404,
        "model_not_found",
        &["bard"],
    );
}
