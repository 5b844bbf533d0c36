//! What a node tells of others that do not keep to the rules: real processes, seen through `talka peers`.
//! Rogues that send what no process of ours would are in the tests of `talka-node`.

use crate::harness::{Node, folder, join, lasting_address, up, wait_for};
use serde_json::{Value, json};
use std::{fs, path::Path};
use talka_sim::{LinkModel, Relay};

/// How often `node` saw `fault` of the node `peer`, by the word of `talka peers --json`.
fn count(node: &Node, peer: &str, fault: &str) -> u64 {
    let peers = node.cli(&["peers", "--json"]).json();
    let report = peers.as_array().expect("nodes").iter().find(|report| report["node"] == peer);
    report.and_then(|report| report["faults"][fault].as_u64()).unwrap_or_default()
}

/// A node's own address, and the relay in front of it that all others know.
struct Door {
    own: String,
    announced: String,
    relay: Relay,
}

impl Door {
    fn new(seed: u64) -> Self {
        let address = lasting_address([127, 0, 0, 2]);
        let relay = Relay::start(address, LinkModel::default(), seed).expect("a relay");
        Self { own: address.to_string(), announced: relay.address().to_string(), relay }
    }

    fn flags<'a>(&'a self, layers: &'a str) -> [&'a str; 8] {
        let Self { own, announced, .. } = self;
        ["--model", "bard", "--layers", layers, "--p2p", own, "--announce", announced]
    }

    /// Lets nothing pass, or again everything.
    fn shut(&self, cut: bool) {
        self.relay.set(LinkModel { cut, ..LinkModel::default() });
    }
}

/// Goal: a partition is counted, and heals. Method: two nodes with a relay between them that lets nothing pass
/// until one is blamed; then it does again, and a request that needs both is answered.
#[test]
fn a_partition_is_counted_and_heals() {
    let place = folder();
    let doors = [Door::new(1), Door::new(2)];
    let founder = up(&place.path().join("founder"), &doors[0].flags("bard=0..2"));
    let invite = founder.invite(&[]);
    let other = join(&invite, &place.path().join("other"), &doors[1].flags("bard=2..6"));
    wait_for("a route", || founder.is_complete().then_some(()));
    assert_eq!(count(&founder, &other.id, "silence"), 0);

    doors.iter().for_each(|door| door.shut(true));
    wait_for("blame", || (count(&founder, &other.id, "silence") > 0).then_some(()));
    assert!(!founder.is_complete());
    doors.iter().for_each(|door| door.shut(false));
    wait_for("the way back", || founder.is_complete().then_some(()));
    let body = json!({"model": "bard", "prompt": "Good morrow", "max_tokens": 5});
    let answer = founder.post("/v1/completions", &body).done();
    assert_eq!(answer["talka"]["route"].as_array().map(Vec::len), Some(2));
    let shown = founder.cli(&["peers"]).done();
    assert!(shown.contains("FAULTS") && shown.contains("silence"), "{shown}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        if entry.path().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
    }
}

/// Goal: a data directory that was copied to a second computer does no harm but to its owner, who is named.
/// Method: a member is stopped, copied and started twice.
#[cfg(unix)]
#[test]
fn two_nodes_with_one_key_are_found_out() {
    let place = folder();
    let founder = up(&place.path().join("founder"), &["--model", "bard"]);
    let dir = place.path().join("twin");
    let twin = join(&founder.invite(&[]), &dir, &["--model", "bard"]);
    let id = twin.id.clone();
    assert_eq!(twin.terminate(), Some(0));
    let copied = place.path().join("copied");
    copy(&dir, &copied);
    let _first = up(&dir, &["--model", "bard"]);
    let _second = up(&copied, &["--model", "bard"]);
    wait_for("blame", || (count(&founder, &id, "key") > 0).then_some(()));
    let body = json!({"model": "bard", "prompt": "Good morrow", "max_tokens": 5});
    let answer: Value = founder.post("/v1/completions", &body).done();
    assert_eq!(answer["usage"]["completion_tokens"], 5);
}
