//! Who is paid what when somebody vanishes.

use crate::harness::{Node, folder, join, stream_harmed, up, wait_for};
use serde_json::json;

/// What the member whose first node has this id earned and spent.
fn earned_and_spent(asked: &Node, member: &str) -> (u64, u64) {
    let credits = asked.cli(&["credits", "--json"]).json();
    let members = credits["members"].as_array().expect("members");
    let found = members.iter().find(|known| known["member"] == member).expect("a member");
    let number = |field: &str| found[field].as_u64().expect("a number");
    (number("earned"), number("spent"))
}

/// Goal: a stage that vanishes costs its payer nothing that brought no answer, and is paid for what did.
/// Method: SIGKILL one of two stages in the middle of a long answer; later ask for just as much of the same answer, and compare.
#[test]
fn a_vanished_worker_is_paid_for_the_answers_that_came_and_no_more() {
    let place = folder();
    let payer = up(&place.path().join("a"), &["--layers", "bard=0..3"]);
    let flags = ["--layers", "bard=3..6"];
    let mut worker = join(&payer.invite(&[]), &place.path().join("b"), &flags);
    wait_for("both halves", || payer.is_complete().then_some(()));
    let streamed = stream_harmed(&payer.http, || worker.kill());
    let (code, message) = streamed.error.as_ref().expect("it breaks off");
    assert_eq!(code, "stage_lost", "{message}");
    let (paid, _) = earned_and_spent(&payer, &worker.id);
    let (_, spent) = earned_and_spent(&payer, &payer.id);
    assert!(paid > 0 && paid == spent, "it was paid {paid}, the answer cost {spent}");

    let worker = up(&worker.dir, &flags);
    wait_for("both halves again", || payer.is_complete().then_some(()));
    let body = json!({
        "model": "bard", "prompt": "ROMEO:\n", "temperature": 0, "max_tokens": streamed.tokens,
    });
    let whole = payer.post("/v1/completions", &body).done();
    assert!(whole["choices"][0]["text"].as_str().expect("text").starts_with(&streamed.text));
    let (_, after) = earned_and_spent(&payer, &payer.id);
    let cost = after - spent;
    println!(
        "{} tokens cost {cost}; for what came of them the lost stage had {paid}",
        streamed.tokens
    );
    assert!(paid < cost, "{paid} for a part of the work, all of which costs {cost}");
    worker.cli(&["ledger", "verify"]).done();
}

/// Goal: what a head signed for is paid when the time of its request is over, though it never comes back.
/// Method: a network in which requests have 40 s; SIGKILL a head in the middle of an answer, and wait.
#[test]
fn what_a_vanished_head_signed_for_is_paid_when_its_time_is_over() {
    let place = folder();
    let flags = ["--layers", "bard=0..3", "--request-time", "40s"];
    let founder = up(&place.path().join("a"), &flags);
    let invite = founder.invite(&["--reusable"]);
    let other = join(&invite, &place.path().join("b"), &["--layers", "bard=3..6"]);
    let mut head = join(&invite, &place.path().join("c"), &["--layers", "bard=0..1"]);
    wait_for("a route", || head.is_complete().then_some(()));
    let address = head.http.clone();
    let streamed = stream_harmed(&address, || head.kill());
    assert!(!streamed.done, "{streamed:?}");
    let report = || founder.cli(&["ledger", "verify", "--json"]).json();
    wait_for("the end of its time", || (report()["reserved"] == 0).then_some(()));
    // A claim that comes after the end is paid at once.
    let paid = wait_for("both stages' pay", || {
        let paid = [&founder.id, &other.id].map(|id| earned_and_spent(&founder, id).0);
        paid.iter().all(|paid| *paid > 0).then_some(paid)
    });
    let (_, spent) = earned_and_spent(&founder, &head.id);
    assert_eq!(paid.iter().sum::<u64>(), spent, "all comes from whom the answers were for");
    let ends: Vec<_> = founder.ledger().into_iter().map(|entry| entry["kind"].clone()).collect();
    assert!(!ends.contains(&json!("settled")), "nobody settled: {ends:?}");
    let theirs = wait_for("the same ledger", || {
        let theirs = other.cli(&["ledger", "verify", "--json"]).json();
        (theirs["head"] == report()["head"]).then_some(theirs)
    });
    assert_eq!(theirs["state"], report()["state"]);
}
