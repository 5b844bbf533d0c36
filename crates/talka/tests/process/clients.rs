//! Clients that nobody here wrote, against real nodes: `clients` at the root holds what they try.
//!
//! `cargo xtask test` installs them and says where; without them these tests say so and try nothing.

use crate::{
    harness::{Node, folder, up, up_with_key},
    models::{fixture, room_for},
    resume::joined,
};
use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

const KEY: &str = "sk-for-clients-that-have-a-key";

/// The program that the variable names, if it is set.
fn program(variable: &str) -> Option<OsString> {
    let found = env::var_os(variable);
    if found.is_none() {
        eprintln!(
            "SKIPPED: {variable} is not set; `cargo xtask test` installs the clients and sets it"
        );
    }
    found
}

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../clients")
}

/// Has `command` try `node`, which has bard in `stages` stages; vectors are asked for at `encoder`.
fn check(command: &mut Command, node: &Node, encoder: &Node, locked: &Node, stages: usize) {
    command
        .current_dir(clients())
        .env("TALKA_URL", &node.http)
        .env("TALKA_LOCKED_URL", &locked.http);
    command
        .env("TALKA_ENCODER_URL", &encoder.http)
        .env("TALKA_LOCKED_KEY", KEY)
        .env("TALKA_STAGES", stages.to_string());
    // Of the person who runs the tests; they would go elsewhere or ask differently.
    for own in [
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "OPENAI_ORG_ID",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_BASE_URL",
    ] {
        command.env_remove(own);
    }
    let output = command.env("NO_PROXY", "*").output().expect("the client starts");
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{stages} stages:\n{}\n{}", said[0], said[1]);
}

/// Goal: what people run against other services runs against a model on one node and cut over two. Method: every
/// client's own tests at both.
fn check_whole_and_split(command: impl Fn() -> Command) {
    let place = folder();
    let bert = fixture("reference/bert").display().to_string();
    let locked = up_with_key(&place.path().join("locked"), KEY);
    let alone = up(&place.path().join("alone"), &["--model", "bard", "--model", &bert]);
    check(&mut command(), &alone, &alone, &locked, 1);

    let [memory, cache] = room_for("bard", 2);
    let flags = ["--model", "bard", &memory, &cache];
    let founder = up(&place.path().join("founder"), &flags);
    let second = joined(&founder, &founder.invite(&[]), &place.path().join("second"), &flags);
    check(&mut command(), &second, &alone, &locked, 2);
}

#[test]
fn python_clients_of_openai_and_anthropic_are_served() {
    let Some(python) = program("TALKA_CLIENTS_PYTHON") else { return };
    check_whole_and_split(|| {
        let mut command = Command::new(&python);
        command.args(["-B", "-m", "unittest", "discover", "--verbose"]);
        command
    });
}

#[test]
fn the_node_client_of_openai_is_served() {
    let Some(node) = program("TALKA_CLIENTS_NODE") else { return };
    check_whole_and_split(|| {
        let mut command = Command::new(&node);
        command.arg("--test");
        command
    });
}

/// Goal: `docs/ledger-format.md` is enough to check a proof. Method: a program that was written from it, and uses
/// nothing of ours, checks one that a node made.
#[test]
fn a_proof_is_checked_by_a_program_written_from_its_description() {
    let Some(python) = program("TALKA_CLIENTS_PYTHON") else { return };
    let place = folder();
    let node = up(&place.path().join("data"), &[]);
    let file = place.path().join("0.tlog-proof");
    let out = file.to_str().expect("a plain path");
    let report = node.cli(&["ledger", "proof", "0", "--out", out, "--json"]).json();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ledger/tests/check_proof.py");
    let holds = |key: &str| {
        let mut command = Command::new(&python);
        let output = command.arg("-B").arg(&script).arg(key).arg(&file).output();
        output.expect("Python starts").status.success()
    };
    assert!(holds(report["founder"].as_str().expect("a key")));
    assert!(!holds(&"0".repeat(64)));
}
