//! A ledger that its witnesses order by turns, on real nodes.

use crate::{
    harness::{Node, folder, join, lasting_address, try_post, up, wait_for},
    witnesses::{ask, body, check, founder, four, ids, one_final_ledger, order},
};
use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
};

/// Asks `http` again and again until told to stop; counts what was answered, and so paid.
fn call(http: &str, stops: &AtomicBool, answered: &AtomicU32) {
    while !stops.load(Ordering::Relaxed) {
        let reply = try_post(http, "/v1/completions", &body()).expect("it runs");
        if reply.status == 200 {
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Waits for so many answers more.
fn more(answered: &AtomicU32, count: u32, what: &str) {
    let before = answered.load(Ordering::Relaxed);
    wait_for(what, || (answered.load(Ordering::Relaxed) >= before + count).then_some(()));
}

/// Goal: requests go on being paid while the founder is dead, and there is one history when it comes back.
/// Method: callers ask two of four nodes all the while; witnesses are named and take turns; the founder is killed, and comes back;
/// then each of the others is killed in its turn, so that whoever leads is among them.
#[test]
fn requests_are_paid_while_the_founder_is_dead() {
    let place = folder();
    let address = lasting_address([127, 0, 0, 1]).to_string();
    let mut nodes = four(place.path(), &address);
    let [a, b, c, d] = ids(&nodes).map(String::from);
    nodes[0].cli(&["ledger", "witness", "lead"]).refused(1, &["four of them"]);
    let (stops, answered) = (AtomicBool::new(false), AtomicU32::new(0));
    let callers = [&nodes[1], &nodes[2]].map(|node| node.http.clone());
    thread::scope(|scope| {
        for http in &callers {
            scope.spawn(|| call(http, &stops, &answered));
        }
        more(&answered, 2, "answers that the founder ordered");
        nodes[0].cli(&["ledger", "witness", "appoint", &a, &b, &c, &d]).done();
        more(&answered, 2, "answers that witnesses agreed to");
        nodes[1].cli(&["ledger", "witness", "lead"]).refused(1, &["only the founder"]);
        let changed = nodes[0].cli(&["ledger", "witness", "lead", "--json"]).json();
        assert_eq!((&changed["by_turns"], &changed["quorum"]), (&true.into(), &3.into()));
        more(&answered, 2, "answers that witnesses ordered");

        nodes[0].kill();
        let height = nodes[1].ledger().len();
        more(&answered, 6, "answers without the founder");
        wait_for("entries without the founder", || {
            (nodes[1].ledger().len() > height + 6).then_some(())
        });
        // Whoever joins needs no founder either.
        let dir = place.path().join("e");
        drop(join(&nodes[1].invite(&[]), &dir, &["--name", "e"]));
        stops.store(true, Ordering::Relaxed);
    });
    one_final_ledger(&[&nodes[1], &nodes[2], &nodes[3]]);
    proved_without_the_founder(&nodes[1], [&a, &b, &c, &d], place.path());

    nodes[0] = founder(place.path(), &address);
    one_final_ledger(&nodes.each_ref());
    for (gone, name) in [(1, "b"), (2, "c"), (3, "d")] {
        nodes[gone].kill();
        let asked = &nodes[(gone + 1) % 4];
        wait_for("an answer without one of them", || {
            let reply = try_post(&asked.http, "/v1/completions", &body()).expect("it runs");
            (reply.status == 200).then_some(())
        });
        nodes[gone] = up(&place.path().join(name), &["--name", name]);
        one_final_ledger(&nodes.each_ref());
    }
    let before = order(&nodes[0])["size"].clone();
    nodes[0].cli(&["ledger", "witness", "follow"]).done();
    ask(&nodes[3]);
    let after = one_final_ledger(&nodes.each_ref());
    assert_eq!(order(&nodes[2])["by_turns"], false);
    assert!(after["entries"].as_u64() > before.as_u64());
}

/// What a node proves of entries that others than the founder ordered is checked by the witnesses' keys.
fn proved_without_the_founder(node: &Node, witnesses: [&str; 4], place: &Path) {
    let last = (node.ledger().len() - 1).to_string();
    let file = place.join("last.tlog-proof");
    let file = file.to_str().expect("a plain path");
    node.cli(&["ledger", "proof", &last, "--out", file]).done();
    let named: Vec<&str> = witnesses.iter().flat_map(|key| ["--witness", *key]).collect();
    let args = [&["--proof", file, "--founder", witnesses[0]], named.as_slice()].concat();
    assert!(check(&args).json()["cosignatures"].as_u64() >= Some(3));
}
