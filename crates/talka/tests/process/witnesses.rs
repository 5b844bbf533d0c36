//! A ledger whose entries count once witnesses agreed, on real nodes.

use crate::harness::{
    Node, Said, finish, folder, join, lasting_address, talka, try_post, up, wait_for,
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

const SHORT: &str = "To be";

pub(crate) fn body() -> Value {
    json!({"model": "bard", "prompt": SHORT, "temperature": 0, "max_tokens": 3})
}

/// Asks `node` once; the answer was paid when this returns.
#[track_caller]
pub(crate) fn ask(node: &Node) {
    node.post("/v1/completions", &body()).done();
}

/// A founder at `address` and three who joined, each with the whole model.
pub(crate) fn four(place: &Path, address: &str) -> [Node; 4] {
    four_with(place, address, &[])
}

/// The same, by a founder of whom more is asked.
pub(crate) fn four_with(place: &Path, address: &str, more: &[&str]) -> [Node; 4] {
    let founder = founder_with(place, address, more);
    let invite = founder.invite(&["--reusable", "--valid", "1h"]);
    let [b, c, d] = ["b", "c", "d"].map(|name| join(&invite, &place.join(name), &["--name", name]));
    let nodes = [founder, b, c, d];
    for node in &nodes {
        wait_for("links between all", || {
            let peers = node.get("/api/peers").done();
            let linked = |peer: &Value| peer["alive"] == true;
            let peers = peers.as_array().expect("an array");
            (peers.len() == 4 && peers.iter().all(linked)).then_some(())
        });
    }
    nodes
}

/// The founder, whom the others find again where it was.
pub(crate) fn founder(place: &Path, address: &str) -> Node {
    founder_with(place, address, &[])
}

fn founder_with(place: &Path, address: &str, more: &[&str]) -> Node {
    up(&place.join("a"), &[&["--name", "a", "--p2p", address], more].concat())
}

pub(crate) fn order(node: &Node) -> Value {
    node.cli(&["ledger", "witness", "list", "--json"]).json()
}

/// Waits until all nodes verify one ledger, of which every entry is final.
pub(crate) fn one_final_ledger(nodes: &[&Node]) -> Value {
    wait_for("one ledger, final to its end", || {
        let verify = |node: &&Node| {
            let mut report = node.cli(&["ledger", "verify", "--json"]).json();
            // Papers of epochs lie outside of the ledger, and who comes later has none of before.
            report.as_object_mut().expect("an object").remove("papers");
            report
        };
        let reports: Vec<Value> = nodes.iter().map(verify).collect();
        let is_final = |node: &&Node| order(node)["size"] == reports[0]["entries"];
        let is_one = reports.windows(2).all(|pair| pair[0] == pair[1]);
        (is_one && nodes.iter().all(is_final)).then(|| reports[0].clone())
    })
}

pub(crate) fn ids(nodes: &[Node; 4]) -> [&str; 4] {
    nodes.each_ref().map(|node| node.id.as_str())
}

/// Checks files without any node.
pub(crate) fn check(args: &[&str]) -> Said {
    finish(&mut talka(&[&["ledger", "verify", "--json"], args].concat()), "")
}

/// Goal: from the moment at which witnesses are named entries count only with them, nothing that was told is lost, and
/// whoever was away comes to the same ledger.
/// Method: callers ask all the while; a witness is killed and comes back; then the founder is; a fifth node joins.
#[test]
fn entries_stay_final_while_a_witness_and_the_founder_die_and_come_back() {
    let place = folder();
    let address = lasting_address([127, 0, 0, 1]).to_string();
    let mut nodes = four(place.path(), &address);
    let path = |name: &str| place.path().join(name).to_str().expect("a plain path").to_owned();
    let older = path("older.checkpoint");
    nodes[0].cli(&["ledger", "checkpoint", "--out", &older]).done();

    let stops = AtomicBool::new(false);
    let answers = thread::scope(|scope| {
        let callers = [&nodes[0], &nodes[1]].map(|node| {
            let (http, stops) = (node.http.clone(), &stops);
            scope.spawn(move || {
                let mut answers = 0;
                while !stops.load(Ordering::Relaxed) {
                    try_post(&http, "/v1/completions", &body()).expect("it runs").done();
                    answers += 1;
                }
                answers
            })
        });
        let [a, b, c, d] = ids(&nodes);
        // Another than the founder may not.
        let by_other = nodes[1].cli(&["ledger", "witness", "appoint", a, b, c, d]);
        by_other.refused(1, &["only the founder"]);
        nodes[0].cli(&["ledger", "witness", "appoint", "a", "b"]).refused(1, &["3f+1"]);
        let named = nodes[0].cli(&["ledger", "witness", "appoint", "a", b, c, "d", "--json"]);
        assert_eq!(named.json()["quorum"], 3);
        let height = nodes[0].ledger().len();
        wait_for("answers that witnesses agreed to", || {
            (nodes[0].ledger().len() > height + 6).then_some(())
        });
        stops.store(true, Ordering::Relaxed);
        callers.map(|caller| caller.join().expect("it asked")).iter().sum::<u32>()
    });
    assert!(answers > 1);
    one_final_ledger(&nodes.each_ref());

    nodes[3].kill();
    let rest = [&nodes[0], &nodes[1], &nodes[2]];
    rest.iter().for_each(|node| ask(node));
    let without = one_final_ledger(&rest);
    nodes[3] = up(&place.path().join("d"), &["--name", "d"]);
    assert_eq!(one_final_ledger(&nodes.each_ref())["witnesses"], 4);
    nodes[0].kill();
    nodes[0] = founder(place.path(), &address);
    wait_for("a founder whom witnesses answer", || {
        let reply = try_post(&nodes[0].http, "/v1/completions", &body()).expect("it runs");
        (reply.status == 200).then_some(())
    });
    let after = one_final_ledger(&nodes.each_ref());
    assert!(after["entries"].as_u64() > without["entries"].as_u64());
    assert_eq!(after["minted"], after["balances"], "all was settled: {after}");

    let fifth = join(&nodes[1].invite(&[]), &place.path().join("e"), &["--name", "e"]);
    assert_eq!(one_final_ledger(&[&nodes[0], &fifth])["witnesses"], 4);
    ask(&fifth);
    proofs(&fifth, ids(&nodes), &older, &path);
}

/// What a node that came late proves is checked by the witnesses' keys, and without them it is not believed.
fn proofs(node: &Node, witnesses: [&str; 4], older: &str, path: &dyn Fn(&str) -> String) {
    let (proof, since) = (path("2.tlog-proof"), path("since.consistency"));
    let founder = witnesses[0];
    node.cli(&["ledger", "proof", "2", "--out", &proof]).done();
    let named: Vec<&str> = witnesses.iter().flat_map(|key| ["--witness", key]).collect();
    let trust = [&["--founder", founder], named.as_slice()].concat();
    let proved = check(&[&["--proof", &proof], trust.as_slice()].concat()).json();
    assert!(proved["cosignatures"].as_u64() >= Some(3), "{proved}");

    let text = fs::read_to_string(older).expect("a checkpoint");
    let old = text.lines().nth(1).expect("its size");
    node.cli(&["ledger", "consistency", old, "--out", &since]).done();
    let compared = [&["--consistency", &since, "--checkpoint", older], trust.as_slice()].concat();
    assert_eq!(check(&compared).json()["old"].to_string(), old);
    node.get("/api/ledger/consistency?old=999999").refused(404, "no_size", &["999999"]);

    // What the founder signed alone.
    let text = fs::read_to_string(&proof).expect("the proof");
    let bare: String = text
        .split_inclusive('\n')
        .filter(|line| !witnesses.iter().any(|key| line.starts_with(&cosigner(key))))
        .collect();
    assert_ne!(bare, text);
    fs::write(&proof, bare).expect("written");
    check(&[&["--proof", &proof], trust.as_slice()].concat()).refused(1, &["not final"]);
    check(&["--proof", &proof, "--founder", founder]).done();
}

/// What a witness's line in a checkpoint begins with.
fn cosigner(key: &str) -> String {
    format!("\u{2014} talka/{} ", &key[..10])
}

/// Copies a data directory of a node that does not run.
fn copied(from: &Path, to: PathBuf) -> PathBuf {
    fs::create_dir_all(&to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a type").is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
    }
    to
}

/// Goal: a founder whose data was put back to an earlier day, and who went on from there, is found out by the first
/// witness that it meets; everybody keeps the proof, which needs no node, and orders nothing more with it.
#[test]
fn a_founder_who_went_on_from_an_old_copy_is_found_out() {
    let place = folder();
    let (dir, address) = (place.path().join("a"), lasting_address([127, 0, 0, 1]).to_string());
    let mut nodes = four(place.path(), &address);
    nodes[0].get("/api/ledger/checkpoint").done();
    nodes[0].kill();
    let old = copied(&dir, place.path().join("old"));
    nodes[0] = founder(place.path(), &address);
    wait_for("witnesses to be named", || {
        let [a, b, c, d] = ids(&nodes);
        let said = nodes[0].cli(&["ledger", "witness", "appoint", a, b, c, d]);
        (said.code == 0).then_some(())
    });
    ask(&nodes[0]);
    one_final_ledger(&nodes.each_ref());
    nodes.iter_mut().for_each(Node::kill);

    fs::remove_dir_all(&dir).expect("removed");
    copied(&old, dir.clone());
    let founder = founder(place.path(), &address);
    // Alone it cannot know, and signs what it signed otherwise before.
    ask(&founder);
    founder.get("/api/ledger/checkpoint").done();
    let [b, c] = ["b", "c"].map(|name| up(&place.path().join(name), &["--name", name]));
    let file = place.path().join("village.evidence");
    let out = file.to_str().expect("a plain path");
    for node in [&b, &c, &founder] {
        wait_for("evidence", || (node.get("/api/ledger/evidence").status == 200).then_some(()));
        let said = node.cli(&["doctor", "--json"]);
        assert_eq!(said.code, 1, "{said:?}");
        let (status, _, health) = node.text("/health");
        assert_eq!(status, 503);
        assert!(health.contains("ledger_halted"), "{health}");
    }
    b.cli(&["ledger", "evidence", "--out", out]).done();
    assert!(b.cli(&["ledger", "show"]).stderr.contains("cannot both be true"));
    assert!(b.log().contains("the ledger stands still"), "{}", b.log());
    b.post("/v1/completions", &body()).refused(500, "ledger_refused", &["cannot both be true"]);
    let (accused, other) = (founder.id.clone(), b.id.clone());
    drop((founder, c));
    let dir = b.dir.clone();
    drop(b);
    let convicted = check(&["--evidence", out, "--founder", &accused]).json();
    assert_eq!(convicted["accused"], json!(accused));
    check(&["--evidence", out, "--founder", &other]).refused(1, &["does not convict"]);
    let again = up(&dir, &["--name", "b"]);
    assert_eq!(again.get("/api/ledger/evidence").status, 200, "it was kept");
}
