//! SIGKILL of a node that orders the ledger.

use crate::harness::{Node, folder, try_post, up};
use serde_json::{Value, json};
use std::{collections::BTreeSet, path::Path, thread, time::Duration};

/// Times the node is killed.
const KILLS: u32 = 6;

/// Requests under way at any time.
const CALLERS: usize = 3;

/// Goal: what a caller was told is paid stays in the ledger, and the ledger stays whole.
/// Method: callers ask without pause; the node is killed at points spread over the life of a
/// request, and started again on the same directory.
#[test]
fn nothing_acknowledged_is_lost_when_the_node_is_killed() {
    let place = folder();
    let dir = place.path().join("data");
    let mut acknowledged = BTreeSet::new();
    for kill in 0..KILLS {
        acknowledged.extend(run_until_killed(&dir, kill));
        let node = up(&dir, &[]);
        let settled = settled(&node);
        let lost: Vec<_> = acknowledged.difference(&settled).collect();
        assert!(lost.is_empty(), "kill {kill}: acknowledged, but not in the ledger: {lost:?}");
        let verified = node.cli(&["ledger", "verify", "--json"]).json();
        let sum = verified["balances"].as_u64().zip(verified["reserved"].as_u64());
        assert_eq!(verified["minted"].as_u64(), sum.map(|(b, r)| b + r), "{verified}");
    }
    assert!(!acknowledged.is_empty(), "some requests were answered");
}

/// The requests that were answered before the end.
fn run_until_killed(dir: &Path, kill: u32) -> BTreeSet<String> {
    let mut node = up(dir, &[]);
    let address = &node.http.clone();
    thread::scope(|scope| {
        let callers: Vec<_> =
            (0..CALLERS).map(|caller| scope.spawn(move || answered(address, caller))).collect();
        // Primes apart, so that the kills fall into different parts of a request of a few ms.
        thread::sleep(Duration::from_millis(400) + Duration::from_micros(u64::from(kill) * 1_709));
        node.kill();
        callers.into_iter().flat_map(|caller| caller.join().expect("a caller")).collect()
    })
}

/// Asks until the node is gone; the requests that were acknowledged.
fn answered(address: &str, caller: usize) -> Vec<String> {
    let body = json!({
        "model": "bard", "prompt": "ROMEO:\n", "max_tokens": 2 + caller, "temperature": 0,
    });
    let mut requests = Vec::new();
    while let Ok(reply) = try_post(address, "/v1/completions", &body) {
        if reply.status == 200 {
            let request = reply.body["talka"]["request"].as_str().expect("an id");
            requests.push(request.to_owned());
        }
    }
    requests
}

fn settled(node: &Node) -> BTreeSet<String> {
    let request = |entry: &Value| entry["request"].as_str().map(String::from);
    node.ledger().iter().filter(|entry| entry["kind"] == "settled").filter_map(request).collect()
}
