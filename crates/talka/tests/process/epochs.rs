//! Many sessions that end together and are settled by one entry.

use crate::{
    crash,
    harness::{Node, finish, folder, join, talka, up, wait_for},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// Texts of one request: each is a session.
const TEXTS: usize = 96;
/// Such requests at once.
const REQUESTS: usize = 2;

/// Vectors of so many short texts, each a session of its own.
fn ask(node: &Node) {
    let texts: Vec<_> = (0..TEXTS).map(|text| format!("Good morrow {text}")).collect();
    node.post("/v1/embeddings", &json!({"model": "bard", "input": texts})).done();
}

fn epochs(entries: &[Value]) -> Vec<&Value> {
    entries.iter().filter(|entry| entry["kind"] == "epoch").collect()
}

fn sessions(epoch: &Value) -> &Vec<Value> {
    epoch["basis"]["sessions"].as_array().expect("an epoch tells its sessions")
}

fn verified(node: &Node) -> Value {
    node.cli(&["ledger", "verify", "--json"]).json()
}

/// Goal: short answers that end together need far fewer entries than there are of them; each is explained, credits are
/// conserved, and a node that only follows checks the papers and comes to the same state.
/// Method: two nodes serve a half each; the founder asks for vectors of many short texts at the same time.
#[test]
fn many_short_answers_are_settled_by_few_entries() {
    let place = folder();
    let founder = up(&place.path().join("a"), &["--layers", "bard=0..3", "--name", "attic"]);
    let half = ["--layers", "bard=3..6", "--name", "barn"];
    let other = join(&founder.invite(&[]), &place.path().join("b"), &half);
    wait_for("both halves", || founder.is_complete().then_some(()));
    thread::scope(|scope| {
        for _ in 0..REQUESTS {
            scope.spawn(|| ask(&founder));
        }
    });
    let entries = founder.ledger();
    let together: usize = epochs(&entries).iter().map(|epoch| sessions(epoch).len()).sum();
    let alone = entries.iter().filter(|entry| entry["kind"] == "settled").count();
    assert_eq!(together + alone, TEXTS * REQUESTS, "each text once");
    let settling = epochs(&entries).len() + alone;
    println!("{} sessions were settled by {settling} entries", together + alone);
    assert!(settling * 4 <= together + alone, "{settling} entries for {}", together + alone);

    let report = verified(&founder);
    let sum = report["balances"].as_u64().zip(report["reserved"].as_u64());
    assert_eq!(report["minted"].as_u64(), sum.map(|(balances, reserved)| balances + reserved));
    assert_eq!((&report["reserved"], &report["papers"]), (&json!(0), &json!(together)));
    // The papers come on their own.
    let same = wait_for("the same ledger and all papers at the other node", || {
        let theirs = verified(&other);
        (theirs["head"] == report["head"] && theirs["papers"] == report["papers"]).then_some(theirs)
    });
    assert_eq!(same["state"], report["state"]);
    explains(&founder, true);
    // Who got papers after their entry does not know any more what the ratings were before it.
    explains(&other, false);
    let largest = epochs(&entries).into_iter().max_by_key(|epoch| sessions(epoch).len());
    let largest = largest.expect("an epoch");
    let height = largest["height"].to_string();
    founder.cli(&["ledger", "proof", &height]).done();
    let request = sessions(largest)[1]["request"].as_str().expect("an id");
    proves(&other, &height, request, &founder.id);
}

/// A session that others settled with it is shown by its own paper, to somebody without a node.
fn proves(node: &Node, height: &str, request: &str, founder: &str) {
    let place = folder();
    let file = place.path().join("paid.proof");
    let file = file.to_str().expect("a plain path");
    wait_for("a block that holds the epoch", || {
        let args = ["ledger", "proof", height, "--request", request, "--out", file];
        (node.cli(&args).code == 0).then_some(())
    });
    let checked = ["ledger", "verify", "--proof", file, "--founder", founder, "--json"];
    let proved = finish(&mut talka(&checked), "").json();
    let claim = proved["claim"].as_str().expect("a text");
    assert!(claim.starts_with(&format!("request {request}, paid ")), "{claim}");
    let unknown = "0".repeat(32);
    let refused = node.cli(&["ledger", "proof", height, "--request", &unknown]);
    refused.refused(1, &[&unknown, "no paper"]);
    let text = fs::read_to_string(file).expect("written");
    let (paper, entry) = text.split_once("\n\n").expect("two parts");
    let index = paper.lines().nth(2).expect("a place");
    let other = if index == "index 0" { "index 1" } else { "index 0" };
    fs::write(file, format!("{}\n\n{entry}", paper.replace(index, other))).expect("written");
    finish(&mut talka(&checked), "").refused(1, &["paper"]);
}

/// Every session of this member's last epochs says what it cost, and for which work of whom.
fn explains(node: &Node, with_ratings: bool) {
    let credits = node.cli(&["credits", "--json", "--last", "20"]).json();
    let lines = credits["lines"].as_array().expect("lines").clone();
    let together = epochs(&lines);
    assert!(!together.is_empty(), "{credits}");
    for session in together.iter().flat_map(|epoch| sessions(epoch)) {
        assert_eq!(session["basis"]["of"], "work", "{session}");
        let work = session["basis"]["work"].as_array().expect("stages");
        assert_eq!(work.len(), 2, "{session}");
        let is_rated = |stage: &Value| stage["reliability"].is_u64();
        assert!(!with_ratings || work.iter().all(is_rated), "{session}");
        assert!(session["cost"].as_u64() > Some(0) && session["payer"].is_string(), "{session}");
    }
    let told = node.cli(&["credits", "--last", "20"]).done();
    assert!(told.contains("sessions that ended together, epoch"), "{told}");
    assert!(told.contains("attic 0..3") && told.contains("barn 3..6"), "{told}");
}

/// Callers that ask without pause, so many that some of their answers end together.
const CALLERS: usize = 16;

/// Goal: what a caller was told is paid stays in the ledger with its papers, though it was settled with others.
/// Method: SIGKILL the founder in the middle of what many callers ask, as soon as some were answered; three times.
#[test]
fn nothing_acknowledged_is_lost_when_the_node_that_closes_epochs_is_killed() {
    let place = folder();
    let dir = place.path().join("data");
    let mut acknowledged = BTreeSet::new();
    for kill in 1..=3 {
        let mut node = up(&dir, &[]);
        let (address, count) = (node.http.clone(), AtomicUsize::new(0));
        thread::scope(|scope| {
            let ask = |caller| {
                crash::answered(&address, caller % 3, || {
                    count.fetch_add(1, Ordering::Relaxed);
                })
            };
            let callers: Vec<_> =
                (0..CALLERS).map(|caller| scope.spawn(move || ask(caller))).collect();
            wait_for("answers", || (count.load(Ordering::Relaxed) >= 3 * CALLERS).then_some(()));
            node.kill();
            for caller in callers {
                acknowledged.extend(caller.join().expect("a caller"));
            }
        });
        let node = up(&dir, &[]);
        crash::check(&node, &acknowledged, kill);
        let entries = node.ledger();
        let epochs = epochs(&entries);
        let together: usize = epochs.iter().map(|epoch| sessions(epoch).len()).sum();
        println!(
            "kill {kill}: {} acknowledged, {together} of {} epochs",
            acknowledged.len(),
            epochs.len()
        );
        assert!(together > 0, "some ended together");
        // Every paper is there, or this would not count them.
        assert_eq!(verified(&node)["papers"], together);
    }
}
