//! Members decide together, by the command line of two nodes.

use crate::harness::{folder, join, up, wait_for};
use serde_json::{Value, json};
use std::fs;

/// Goal: what one member proposes another one sees and votes on, once. Method: an emergency, whose voting begins at
/// once; what happens when days have passed is tried where time is a number (`crates/ledger/tests/governance.rs`).
#[test]
fn two_members_propose_and_vote() {
    let place = folder();
    let founder = up(&place.path().join("barn"), &["--name", "barn"]);
    let other = join(&founder.invite(&[]), &place.path().join("mill"), &["--name", "mill"]);

    let policy = founder.cli(&["govern", "policy"]).done();
    let mut policy: Value = serde_json::from_str(&policy).expect("JSON");
    policy["grant"] = json!(7_000_000);
    let file = place.path().join("policy.json");
    fs::write(&file, policy.to_string()).expect("written");
    let file = file.to_str().expect("the path is text");
    let propose = ["govern", "propose", "A smaller grant", "--emergency", "--policy", file];
    let made = founder.cli(&[&propose[..], &["--json"]].concat()).json();
    assert_eq!((&made["stage"], &made["electorate"]), (&json!("voting"), &json!(2)));
    assert_eq!(made["action"]["parameters"]["grant"], 7_000_000);
    founder.cli(&propose).refused(3, &["open proposal", "one at a time"]);

    let id = made["id"].as_str().expect("an id");
    let seen = wait_for("the proposal", || {
        let seen = other.cli(&["govern", "--json"]).json();
        seen.as_array().is_some_and(|all| !all.is_empty()).then_some(seen)
    });
    assert_eq!((&seen[0]["id"], &seen[0]["member_name"]), (&json!(id), &json!("barn")));
    other.cli(&["govern", "vote", &id[..8], "yes"]).done();
    other.cli(&["govern", "vote", &id[..8], "no"]).refused(3, &["a vote stands"]);
    let shown = wait_for("the vote", || {
        let shown = founder.cli(&["govern", "show", &id[..8], "--json"]).json();
        (shown["votes"]["yes"] == 1).then_some(shown)
    });
    assert_eq!((&shown["is_approved"], &shown["voted"]), (&json!(true), &Value::Null));
    let listed = founder.cli(&["govern"]).done();
    assert!(listed.contains("A smaller grant") && listed.contains("voting"), "{listed}");
    founder.cli(&["ledger", "verify"]).done();

    founder.cli(&["govern", "show", "ffff"]).refused(1, &["no proposal begins with"]);
    policy["governance"]["quorum"] = json!(0);
    fs::write(file, policy.to_string()).expect("written");
    let other_title = ["govern", "propose", "No quorum", "--policy", file];
    other.cli(&other_title).refused(3, &["governance.quorum 0", "expected 1 to 10000"]);
    other.cli(&["govern", "propose", "Nothing"]).refused(2, &["--policy"]);
}
