//! Backups of the ledger, what comes back from them, and networks whose old entries were removed.

use crate::harness::{Node, finish, folder, join, lasting_address, talka, up, wait_for};
use crate::witnesses::{ask, four, ids, one_final_ledger};
use serde_json::json;
use std::{fs, path::Path};

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// Goal: a founder whose disk died goes on where it was, from the backup that another member took.
/// Method: a founder and a guest; the guest takes the backup; the founder's folder is removed but its key.
#[test]
fn a_network_survives_its_founder_s_disk() {
    let place = folder();
    let (data, kept) = (place.path().join("a"), place.path().join("identity.key"));
    let file = place.path().join("village.talka-backup");
    let founder = up(&data, &["--name", "barn"]);
    let guest = join(&founder.invite(&[]), &place.path().join("b"), &[]);
    wait_for("both rated in the guest's copy", || (guest.ledger().len() == 4).then_some(()));
    let report = guest.cli(&["ledger", "backup", text(&file), "--json"]).json();
    assert_eq!((&report["entries"], &report["name"]), (&json!(4), &json!("barn's network")));
    let before = founder.cli(&["ledger", "verify", "--json"]).json();
    fs::copy(data.join("identity.key"), &kept).expect("copied");
    founder.terminate();
    fs::remove_dir_all(&data).expect("removed");

    let restore = |args: &[&str]| {
        let args = [&["ledger", "restore", text(&file), "--data-dir", text(&data)], args].concat();
        finish(&mut talka(&args), "")
    };
    let report = restore(&["--json"]).json();
    assert_eq!((&report["identity"], &report["new_entries"]), (&json!("missing"), &json!(4)));
    fs::copy(&kept, data.join("identity.key")).expect("copied");
    let said = restore(&[]).done();
    assert!(said.contains("0 new here") && said.contains("the founder's"), "{said}");
    let again = up(&data, &["--name", "barn"]);
    let after = again.cli(&["ledger", "verify", "--json"]).json();
    assert_eq!((&after["head"], &after["state"]), (&before["head"], &before["state"]));
    let other = join(&again.invite(&[]), &place.path().join("c"), &[]);
    assert!(other.ledger().len() >= 5, "it goes on ordering");

    let bytes = fs::read(&file).expect("the backup");
    fs::write(&file, &bytes[..bytes.len() - 9]).expect("written");
    restore(&["--check"]).refused(1, &["cannot be used", "ends in the middle"]);
    let busy =
        finish(&mut talka(&["ledger", "restore", "/nowhere/x", "--data-dir", text(&data)]), "");
    busy.refused(1, &["/nowhere/x"]);
}

/// Goal: who removes old entries still serves, proves and lets others in.
/// Method: a founder removes all that it can; a guest joins with nothing but its snapshot, and joins, serves and proves.
#[test]
fn a_guest_begins_with_the_snapshot_of_a_founder_that_removed_entries() {
    let place = folder();
    let founder = up(&place.path().join("a"), &["--name", "barn"]);
    let first = join(&founder.invite(&[]), &place.path().join("b"), &[]);
    wait_for("both rated", || (founder.ledger().len() == 4).then_some(()));
    founder.cli(&["run", "--max-tokens", "4", "O"]).done();
    let before = founder.cli(&["credits", "--json"]).json();
    let pruned = founder.cli(&["ledger", "prune", "--keep-days", "0", "--json"]).json();
    assert!(pruned["removed"].as_u64().is_some_and(|n| n >= 4), "{pruned}");
    assert_eq!(founder.cli(&["credits", "--json"]).json()["members"], before["members"]);

    let guest = join(&founder.invite(&[]), &place.path().join("c"), &[]);
    wait_for("the guest has all that came since", || {
        (founder.ledger().last() == guest.ledger().last()).then_some(())
    });
    let verified = guest.cli(&["ledger", "verify", "--json"]).json();
    assert_eq!(verified["since"], pruned["snapshot"]);
    wait_for("the one that has all entries agrees", || {
        let state = |node: &Node| node.cli(&["ledger", "verify", "--json"]).json()["state"].clone();
        (state(&guest) == state(&first)).then_some(())
    });
    let entries = guest.get("/api/ledger?from=1").done();
    let entries = entries.as_array().expect("a list");
    let heights: Vec<u64> = entries.iter().filter_map(|entry| entry["height"].as_u64()).collect();
    assert_eq!(heights.first().copied(), verified["since"].as_u64());
    let height = heights[heights.len() - 1];
    wait_for("a block that holds it", || {
        (guest.get(&format!("/api/ledger/{height}/proof")).status == 200).then_some(())
    });
    founder.get("/api/ledger/2/proof").refused(410, "pruned", &["removed"]);
}

/// Goal: a guest believes the snapshot of a ledger with witnesses, who agreed to entries that nobody has any more; so does whoever
/// restores a backup of it.
#[test]
fn a_guest_of_witnesses_begins_with_a_snapshot_too() {
    let place = folder();
    let address = lasting_address([127, 0, 0, 1]).to_string();
    let nodes = four(place.path(), &address);
    let appoint = [&["ledger", "witness", "appoint"], &ids(&nodes)[..]].concat();
    nodes[0].cli(&appoint).done();
    ask(&nodes[1]);
    one_final_ledger(&nodes.each_ref());
    for node in &nodes {
        let pruned = node.cli(&["ledger", "prune", "--keep-days", "0", "--json"]).json();
        assert!(pruned["removed"].as_u64() > Some(4), "{pruned}");
    }
    let guest = join(&nodes[1].invite(&[]), &place.path().join("e"), &["--name", "e"]);
    let verified = guest.cli(&["ledger", "verify", "--json"]).json();
    assert!(verified["since"].as_u64() > Some(4), "{verified}");
    assert_eq!(verified["witnesses"], 4);
    ask(&guest);
    let last = wait_for("one ledger", || {
        let heads = [&nodes[0], &nodes[3], &guest].map(|node| {
            let report = node.cli(&["ledger", "verify", "--json"]).json();
            [report["head"].clone(), report["state"].clone()]
        });
        (heads[0] == heads[1] && heads[1] == heads[2]).then(|| heads[0].clone())
    });
    let file = place.path().join("village.talka-backup");
    guest.cli(&["ledger", "backup", text(&file)]).done();
    let data = place.path().join("f");
    let restore = |more: &[&str]| {
        let args = [&["ledger", "restore", text(&file), "--data-dir", text(&data)], more].concat();
        finish(&mut talka(&args), "")
    };
    let checked = restore(&["--check", "--json"]).json();
    assert_eq!(checked["head"], last[0], "{checked}");
    restore(&[]).done();
}
