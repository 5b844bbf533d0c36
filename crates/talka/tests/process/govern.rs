//! Members decide together, by the command line of two nodes.

use crate::{
    harness::{folder, join, lasting_address, up, wait_for},
    witnesses::{ask, four_with, ids, one_final_ledger, order},
};
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

/// Goal: where the founding says so, a vote and no founder names the witnesses, and entries wait for them from then on.
/// Method: rules with short times; whoever proposes is no founder, and one yes of four suffices.
#[test]
fn a_vote_names_witnesses_where_the_founding_says_so() {
    let place = folder();
    let first = up(&place.path().join("other"), &[]);
    let mut rules: Value =
        serde_json::from_str(&first.cli(&["govern", "policy"]).done()).expect("JSON");
    drop(first);
    rules["governance"]["appoints"] = json!(true);
    let times = json!({"review_ms": 0, "voting_ms": 20_000, "delay_ms": 0});
    rules["governance"]["emergency"] = times;
    let file = place.path().join("rules.json");
    fs::write(&file, rules.to_string()).expect("written");
    let address = lasting_address([127, 0, 0, 1]).to_string();
    let more = ["--rules", file.to_str().expect("the path is text")];
    let nodes = four_with(place.path(), &address, &more);
    let named = ids(&nodes).join(",");
    let propose = ["govern", "propose", "Four of us witness", "--emergency", "--witnesses", &named];
    let made = nodes[1].cli(&[&propose[..], &["--json"]].concat()).json();
    let id = made["id"].as_str().expect("an id");
    nodes[1].cli(&["govern", "vote", id, "yes"]).done();
    wait_for("what was decided", || {
        let shown = nodes[2].cli(&["govern", "show", id, "--json"]).json();
        assert_ne!(shown["stage"], "rejected", "{shown}");
        (shown["stage"] == "enacted").then_some(())
    });
    assert_eq!(order(&nodes[3])["quorum"], 3);
    nodes.iter().for_each(ask);
    assert_eq!(one_final_ledger(&nodes.each_ref())["witnesses"], 4);
    let fifth = join(&nodes[2].invite(&[]), &place.path().join("e"), &["--name", "e"]);
    assert_eq!(one_final_ledger(&[&nodes[0], &fifth])["witnesses"], 4);
}
