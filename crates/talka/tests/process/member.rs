//! A member stakes credits and keeps its keys, by the command line of its node.

use crate::harness::{folder, join, talka, up, wait_for};
use serde_json::json;
use std::fs;

#[test]
fn a_member_locks_a_stake_that_is_kept_until_its_time() {
    let place = folder();
    let node = up(&place.path().join("barn"), &["--name", "barn"]);
    let before = node.cli(&["credits", "--json"]).json()["balance"].as_u64().expect("a balance");

    let staked = node.cli(&["member", "stake", "1000", "--days", "2", "--json"]).json();
    assert_eq!(staked["staked"], 1_000_000_000);
    assert_eq!(staked["stake_multiplier_millionths"], 1_100_000);
    assert!(staked["locked_until"].is_u64(), "{staked}");
    let after = node.cli(&["credits", "--json"]).json();
    assert_eq!(after["balance"], before - 1_000_000_000);
    let shown = node.cli(&["member"]).done();
    assert!(shown.contains("stake 1000.000000 GFT, multiplier 1.100000, locked for"), "{shown}");
    assert!(shown.contains("no root key"), "{shown}");

    node.cli(&["member", "unstake", "1000"]).refused(3, &["is locked until"]);
    node.cli(&["member", "stake", "0.5"]).refused(3, &["stake order has credits 500000"]);
    node.cli(&["member", "stake", "1", "--days", "4000"]).refused(3, &["days 4000"]);
    node.cli(&["member", "stake", "0"]).refused(1, &["lock"]);
    node.cli(&["ledger", "verify"]).done();
    let lines = node.cli(&["credits"]).done();
    assert!(lines.contains("staked"), "{lines}");
}

/// Goal: once a root key has the account, a node acts only as long as that key says so, and the key is never given to a
/// node. Method: the founder's other member takes a root; it delegates in one step, and in three as from a computer that is
/// never online; what it revokes acts no more.
#[test]
fn an_offline_root_delegates_to_a_node_and_revokes_it() {
    let place = folder();
    let founder = up(&place.path().join("barn"), &["--name", "barn"]);
    let node = join(&founder.invite(&[]), &place.path().join("mill"), &["--name", "mill"]);
    let path = |name: &str| place.path().join(name).to_str().expect("text").to_owned();
    let offline = |args: &[&str]| crate::harness::finish(&mut talka(args), "").done();
    let (root, next) = (path("root.key"), path("next.key"));
    let [key, next_key] = [&root, &next].map(|file| offline(&["member", "key", file]));
    let [key, next_key] = [key.trim(), next_key.trim()];
    crate::harness::finish(&mut talka(&["member", "key", &root]), "")
        .refused(1, &["the file must be a new one"]);

    node.cli(&["member", "delegate", "--for", "1d", "--root", &root]).refused(3, &["signed by"]);
    let rooted = node.cli(&["member", "root", key, "--json"]).json();
    assert_eq!((&rooted["root"], &rooted["nodes"][0]["may_act"]), (&json!(key), &json!(false)));
    node.cli(&["member", "stake", "1"]).refused(3, &["may not act for member"]);

    let delegated =
        node.cli(&["member", "delegate", "--for", "1d", "--root", &root, "--json"]).json();
    assert_eq!(delegated["nodes"][0]["may_act"], true);
    wait_for("the delegation", || {
        let seen = node.cli(&["member", "--json"]).json();
        (seen["next_key_order"] == 3).then_some(())
    });
    node.cli(&["member", "stake", "1"]).done();

    // The same from a computer that is never online: print, sign there, pass on.
    let printed = node.cli(&["member", "root", next_key]).done();
    let (order, signed) = (path("order.json"), path("signed.json"));
    fs::write(&order, printed).expect("written");
    fs::write(&signed, offline(&["member", "sign", &order, "--root", &root])).expect("written");
    let rotated = node.cli(&["member", "submit", &signed, "--json"]).json();
    assert_eq!(rotated["root"], next_key);
    node.cli(&["member", "submit", &signed]).refused(3, &["signed by"]);

    let me = node.cli(&["status", "--json"]).json()["node"].as_str().expect("an id").to_owned();
    node.cli(&["member", "revoke", &me, "--root", &root]).refused(3, &["signed by"]);
    node.cli(&["member", "revoke", &me, "--root", &next]).done();
    node.cli(&["member", "stake", "1"]).refused(3, &["may not act for member"]);
    founder.cli(&["ledger", "verify"]).done();
}
