//! SIGKILL of a node that orders the ledger.

use crate::harness::{Node, folder, try_post, up};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    env,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Times the node is killed, and how long it lives each time.
const KILLS: u32 = 6;
const LIFE: Duration = Duration::from_millis(400);

/// Seconds of a long run, in which the node lives longer each time; `cargo xtask bench ledger` makes one.
const CAMPAIGN: &str = "TALKA_KILL_SECONDS";
const CAMPAIGN_LIFE: Duration = Duration::from_secs(2);
/// After so many kills of a long run all entries are compared: there are ever more of them.
const CAMPAIGN_CHECK: u32 = 25;

/// Requests under way at any time.
const CALLERS: usize = 3;

/// Goal: what a caller was told is paid stays in the ledger, and the ledger stays whole.
/// Method: callers ask without pause; the node is killed at points spread over the life of a
/// request, and started again on the same directory.
#[test]
fn nothing_acknowledged_is_lost_when_the_node_is_killed() {
    let place = folder();
    let dir = place.path().join("data");
    let seconds: Option<u64> =
        env::var(CAMPAIGN).ok().map(|text| text.parse().expect("TALKA_KILL_SECONDS is a number"));
    let begun = Instant::now();
    let is_over = |kill| match seconds {
        Some(seconds) => begun.elapsed().as_secs() >= seconds,
        None => kill == KILLS,
    };
    let life = if seconds.is_some() { CAMPAIGN_LIFE } else { LIFE };
    let mut acknowledged = BTreeSet::new();
    let mut kill = 0;
    while !is_over(kill) {
        acknowledged.extend(run_until_killed(&dir, kill, life));
        kill += 1;
        if seconds.is_none() || kill.is_multiple_of(CAMPAIGN_CHECK) || is_over(kill) {
            check(&up(&dir, &[]), &acknowledged, kill);
        }
    }
    assert!(!acknowledged.is_empty(), "some requests were answered");
    println!("{kill} kills, {} answers acknowledged and none lost", acknowledged.len());
}

/// Compares what callers were told with what the ledger says.
pub fn check(node: &Node, acknowledged: &BTreeSet<String>, kill: u32) {
    let settled = settled(node);
    let lost: Vec<_> = acknowledged.difference(&settled).collect();
    assert!(lost.is_empty(), "kill {kill}: acknowledged, but not in the ledger: {lost:?}");
    let verified = node.cli(&["ledger", "verify", "--json"]).json();
    let sum = verified["balances"].as_u64().zip(verified["reserved"].as_u64());
    assert_eq!(verified["minted"].as_u64(), sum.map(|(b, r)| b + r), "{verified}");
}

/// The requests that were answered before the end.
fn run_until_killed(dir: &Path, kill: u32, life: Duration) -> BTreeSet<String> {
    // More than all answers of a long run cost.
    let mut node = up(dir, &["--grant", "1000000"]);
    let address = &node.http.clone();
    thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| scope.spawn(move || answered(address, caller, || ())))
            .collect();
        // Primes apart, so that the kills fall into different parts of a request of a few ms.
        thread::sleep(life + Duration::from_micros(u64::from(kill % 97) * 1_709));
        node.kill();
        callers.into_iter().flat_map(|caller| caller.join().expect("a caller")).collect()
    })
}

/// Asks until the node is gone; the requests that were acknowledged.
pub fn answered(address: &str, caller: usize, one_more: impl Fn()) -> Vec<String> {
    let body = json!({
        "model": "bard", "prompt": "ROMEO:\n", "max_tokens": 2 + caller, "temperature": 0,
    });
    let mut requests = Vec::new();
    while let Ok(reply) = try_post(address, "/v1/completions", &body) {
        if reply.status == 200 {
            let request = reply.body["talka"]["request"].as_str().expect("an id");
            requests.push(request.to_owned());
            one_more();
        }
    }
    requests
}

/// The requests that were paid, each of them once, whether alone or by an epoch.
fn settled(node: &Node) -> BTreeSet<String> {
    let request = |entry: &Value| entry["request"].as_str().map(String::from);
    let entries = node.ledger();
    let alone = entries.iter().filter(|entry| entry["kind"] == "settled").filter_map(request);
    let together = entries.iter().filter_map(|entry| entry["basis"]["sessions"].as_array());
    let settled: Vec<_> = alone.chain(together.flatten().filter_map(request)).collect();
    let distinct: BTreeSet<_> = settled.iter().cloned().collect();
    assert_eq!(settled.len(), distinct.len(), "a request was paid twice");
    distinct
}
