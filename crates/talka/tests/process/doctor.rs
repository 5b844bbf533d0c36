//! What `talka doctor` finds on a real computer, with nodes and without.

use crate::{
    harness::{Said, finish, folder, join, talka, up, wait_for, with_hub},
    hub::{
        NOBODY, REF, WEIGHTS, files,
        server::{COMMIT, FakeHub},
    },
};
use serde_json::Value;
use std::{fs, path::Path};

/// The finding of `check` in a document of findings.
#[track_caller]
fn finding(said: &Said, check: &str) -> Value {
    let findings: Value = serde_json::from_str(&said.stdout).expect("one document");
    let findings = findings.as_array().expect("findings");
    let found = findings.iter().find(|finding| finding["check"] == check);
    found.unwrap_or_else(|| panic!("{check} is missing: {said:#?}")).clone()
}

/// Goal: a member learns that the founder is gone, that clocks agree while it is there, and what to do.
#[test]
fn a_founder_that_is_gone_is_a_failure_and_clocks_are_compared() {
    let place = folder();
    let mut founder = up(&place.path().join("a"), &["--name", "kitchen"]);
    let second = join(&founder.invite(&[]), &place.path().join("b"), &[]);
    let doctor = || second.cli(&["doctor", "--json"]);
    wait_for("a heartbeat", || {
        let time = finding(&doctor(), "time");
        (time["found"].as_str()?.contains("agrees with those of 1 other")).then_some(())
    });
    let well = doctor();
    assert_eq!(well.code, 0, "{well:#?}");
    assert_eq!(finding(&well, "nat")["grade"], "note", "it listens on this computer alone");

    founder.kill();
    wait_for("silence", || (finding(&doctor(), "peers")["grade"] == "failed").then_some(()));
    let gone = doctor();
    assert_eq!(gone.code, 1, "{gone:#?}");
    let peers = finding(&gone, "peers");
    assert!(peers["advice"].as_str().expect("advice").contains("start kitchen again"), "{peers}");
    let told = second.cli(&["doctor"]);
    assert!(told.code == 1 && told.stdout.contains("FAILED  peers"), "{told:#?}");
}

/// Goal: a damaged model is found before somebody waits for it. Method: a fetched one whose weights have no header.
#[test]
fn a_damaged_model_is_found_without_a_node() {
    let (place, hub) = (folder(), FakeHub::start(&files()));
    let dir = place.path().join("data");
    let ask = |args: &[&str], endpoint: &str| {
        let mut command = talka(args);
        command.arg("--data-dir").arg(&dir);
        finish(with_hub(&mut command, endpoint), "")
    };
    ask(&["models", "pull", REF], &hub.endpoint()).done();
    let sound = ask(&["doctor", "--json"], NOBODY);
    let models = finding(&sound, "models");
    assert_eq!(models["grade"], "ok", "{models}");
    assert_eq!(finding(&sound, "hub")["grade"], "note", "nobody listens there");

    let weights = dir.join("models/acme--tiny").join(COMMIT).join(WEIGHTS);
    damage(&weights);
    let damaged = ask(&["doctor", "--json"], NOBODY);
    let models = finding(&damaged, "models");
    assert_eq!((damaged.code, &models["grade"]), (1, &Value::from("failed")), "{damaged:#?}");
    let advice = models["advice"].as_str().expect("advice");
    assert!(advice.contains(&format!("talka models rm {REF}")), "{advice}");
}

/// Makes nonsense of a file's header; its size stays.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[..8].fill(0xff);
    fs::write(path, bytes).expect("written");
}
