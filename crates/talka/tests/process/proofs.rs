//! Proofs of the ledger: any node gives them, and no node is needed to check them.

use crate::harness::{Said, finish, folder, join, talka, up, wait_for};
use serde_json::{Value, json};
use std::fs;

/// Goal: whoever has a proof and the founder's key needs nothing else; whoever altered one is found out.
/// Method: a node that joined makes files, all nodes stop, and the files are checked without a data directory.
#[test]
fn a_proof_from_any_node_is_checked_without_one() {
    let place = folder();
    let founder = up(&place.path().join("a"), &["--name", "barn"]);
    let guest = join(&founder.invite(&[]), &place.path().join("b"), &[]);
    let path = |name: &str| place.path().join(name).to_str().expect("a plain path").to_owned();
    let (proof, checkpoint) = (path("1.tlog-proof"), path("village.checkpoint"));

    // Both rated themselves. The founder signs a block every few seconds and tells the others.
    wait_for("the founder's checkpoint of four entries", || {
        let answer = guest.get("/api/ledger/checkpoint");
        (answer.status == 200 && answer.done()["size"] == json!(4)).then_some(())
    });
    let report = guest.cli(&["ledger", "proof", "2", "--out", &proof, "--json"]).json();
    assert_eq!((&report["founder"], &report["size"]), (&json!(founder.id), &json!(4)));
    assert_eq!(report["hash"], guest.ledger()[2]["hash"]);
    let told = guest.cli(&["ledger", "checkpoint", "--out", &checkpoint, "--json"]).json();
    assert_eq!(told["state"], guest.cli(&["ledger", "verify", "--json"]).json()["state"]);
    assert_eq!(told, founder.cli(&["ledger", "checkpoint", "--json"]).json());
    guest.get("/api/ledger/7/proof").refused(404, "no_entry", &["0 to 3"]);
    let balance = path("guest.state-proof");
    let args = ["ledger", "proof", "--member", &guest.id, "--out", &balance, "--json"];
    let report = guest.cli(&args).json();
    assert_ne!(report["balance"], json!(0), "the grant");
    guest.get(&format!("/api/credits/{}/proof", "0".repeat(64))).refused(404, "no_member", &[]);
    guest.get("/api/credits/x/proof").refused(400, "invalid_value", &["member"]);
    let (key, stranger) = (founder.id.clone(), guest.id.clone());
    drop((founder, guest));

    let check = |args: &[&str]| -> Said {
        finish(&mut talka(&[&["ledger", "verify", "--json", "--proof", &proof], args].concat()), "")
    };
    let proved = check(&["--founder", &key]).json();
    assert_eq!((&proved["index"], &proved["size"]), (&json!(2), &json!(4)));
    assert_eq!(proved["signature_checked"], true);
    assert!(proved["claim"].as_str().is_some_and(|claim| claim.contains("joined")), "{proved}");
    let proved = check(&["--checkpoint", &checkpoint]).json();
    assert_eq!(proved["signature_checked"], false);
    check(&["--checkpoint", &checkpoint, "--founder", &key]).done();
    check(&[]).refused(1, &["--founder", "--checkpoint"]);
    check(&["--founder", &stranger]).refused(1, &["not believed"]);

    let args = ["ledger", "verify", "--proof", &balance, "--founder", &key];
    let said = finish(&mut talka(&args), "").done();
    assert!(said.contains(&stranger) && said.contains("(spendable)"), "{said}");

    let text = fs::read_to_string(&proof).expect("the proof");
    let altered = altered(&text);
    fs::write(&proof, altered).expect("written");
    check(&["--founder", &key]).refused(1, &["does not lead to"]);
}

/// The same proof with another hash on its path.
fn altered(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let other = "A".repeat(43) + "=";
    text.replacen(lines[3], &other, 1)
}

#[test]
fn a_proof_is_one_json_document_or_a_file_for_people() {
    let place = folder();
    let node = up(&place.path().join("data"), &[]);
    let report: Value = node.cli(&["ledger", "proof", "0", "--json"]).json();
    assert_eq!(node.cli(&["ledger", "proof", "0"]).done(), report["proof"].as_str().expect("text"));
    let checkpoint = node.cli(&["ledger", "checkpoint"]).done();
    assert!(checkpoint.starts_with("talka/"), "{checkpoint}");
}
