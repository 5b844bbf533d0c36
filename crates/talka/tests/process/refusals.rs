//! Bad input: a clear error, and nothing changes.

use crate::{
    harness::{cannot_start, finish, folder, join, talka, up, up_with_key},
    models::{broken_bard, truncated_bard},
};
use serde_json::{Value, json};
use std::{
    fs::{self, OpenOptions},
    io::{Seek, SeekFrom, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

#[test]
fn requests_that_cannot_be_answered_change_nothing() {
    let place = folder();
    let node = up(&place.path().join("data"), &[]);
    let before = node.cli(&["ledger", "verify", "--json"]).json();
    let ask = |change: Value| {
        let mut body = json!({ "model": "bard", "prompt": "ROMEO:", "max_tokens": 2 });
        for (name, value) in change.as_object().expect("fields") {
            body[name] = value.clone();
        }
        node.post("/v1/completions", &body)
    };
    ask(json!({ "model": "gpt-9" })).refused(404, "model_not_found", &["gpt-9", "bard"]);
    ask(json!({ "prompt": vec![300; 257] })).refused(
        400,
        "context_length_exceeded",
        &["257 tokens", "256 tokens"],
    );
    ask(json!({ "prompt": [] })).refused(400, "empty_prompt", &["at least one token"]);
    ask(json!({ "prompt": [5000] })).refused(400, "unknown_token", &["5000", "1024"]);
    ask(json!({ "temperature": -1 })).refused(400, "invalid_value", &["temperature"]);
    ask(json!({ "tmperature": 1 })).refused(400, "unknown_parameter", &["tmperature"]);

    node.cli(&["run", "--model", "gpt-9", "ROMEO:"]).refused(1, &["gpt-9", "bard"]);
    node.cli(&["models", "show", "gpt-9"]).refused(1, &["gpt-9", "bard"]);
    node.cli(&["ledger", "proof", "999"]).refused(1, &["999"]);
    assert_eq!(node.cli(&["ledger", "verify", "--json"]).json(), before);
}

#[test]
fn flags_that_make_no_sense_are_bad_usage() {
    let place = folder();
    let dir = place.path().join("data");
    let refused = |flags: &[&str], words: &[&str]| {
        cannot_start(&["up"], &dir, flags).refused(2, words);
        assert!(!dir.exists(), "{flags:?} left something behind");
    };
    refused(&["--model", "tiny.gguf"], &["No such file", "bard", "Hugging Face", ".gguf"]);
    let absent = ["talka models pull hf:acme/tiny", "--offline"];
    refused(&["--model", "hf:acme/tiny", "--offline"], &absent);
    refused(&["--model", "hf:gpt2"], &["hf:OWNER/REPO"]);
    refused(&["--model", "/no/such/folder"], &["/no/such/folder", "config.json"]);
    refused(&["--layers", "bard=3..3"], &["3..3", "start < end"]);
    refused(&["--layers", "other=0..1"], &["other=0..1", "bard"]);
    refused(&["--memory", "much"], &["much", "8G"]);
    refused(&["--name", ""], &["1 to 64"]);
    finish(&mut talka(&["serve"]), "").refused(2, &["serve"]);
}

#[test]
fn an_invitation_is_refused_once_expired_or_used_or_garbled() {
    let place = folder();
    let founder = up(&place.path().join("a"), &[]);
    let dir = place.path().join("new");
    let refused = |invite: &str, word: &str| {
        for more in [&[][..], &["--dry-run"]] {
            cannot_start(&["join", invite], &dir, more).refused(3, &["invitation", word]);
        }
    };
    refused("not-an-invitation", "");
    let mut garbled = founder.invite(&[]);
    let last = garbled.pop().expect("some text");
    garbled.push(if last == 'a' { 'b' } else { 'a' });
    refused(&garbled, "");

    let expired = founder.invite(&["--valid", "1s"]);
    thread::sleep(Duration::from_millis(1_100));
    refused(&expired, "expired");

    let once = founder.invite(&[]);
    let member = join(&once, &place.path().join("b"), &[]);
    refused(&once, "used");
    let status = founder.cli(&["status", "--json"]).json();
    assert_eq!(status["nodes_known"], 2, "nobody else came in");

    // An invitation of another network, for a node that belongs to this one.
    let stranger = up(&place.path().join("s"), &[]);
    member.cli(&["join", &stranger.invite(&[])]).refused(1, &["belongs to network", "--data-dir"]);
    assert_eq!(member.cli(&["status", "--json"]).json()["network"], status["network"]);
}

#[test]
fn a_data_directory_and_a_port_belong_to_one_node() {
    let place = folder();
    let dir = place.path().join("data");
    let node = up(&dir, &[]);
    let shown = dir.to_str().expect("the path is text");
    cannot_start(&["up"], &dir, &[]).refused(1, &[shown]);

    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("its address").to_string();
    let other = place.path().join("other");
    let other = other.to_str().expect("the path is text");
    let args = ["up", "--data-dir", other, "--http", &address, "--p2p", "127.0.0.1:0"];
    finish(&mut talka(&args), "").refused(1, &[&address, "--http"]);
    assert!(!Path::new(other).exists(), "the port is taken before anything is written");

    // The first was not disturbed, and is still found.
    node.cli(&["run", "--max-tokens", "1", "ROMEO:"]).done();
}

#[test]
fn a_corrupt_store_is_named_and_left_alone() {
    for (at, damage) in [(0, &[0xa5; 4096][..]), (16 * 1024, &[0x5a; 65_536][..])] {
        let place = folder();
        let dir = place.path().join("data");
        let mut node = up(&dir, &[]);
        node.cli(&["run", "--max-tokens", "1", "ROMEO:"]).done();
        node.kill();
        let file = store_file(&dir);
        let mut opened = OpenOptions::new().write(true).open(&file).expect("the store opens");
        opened.seek(SeekFrom::Start(at)).expect("the store is long enough");
        opened.write_all(damage).expect("damage");
        drop(opened);
        let damaged = fs::read(&file).expect("the store reads");

        let name = file.file_name().expect("a name").to_string_lossy();
        cannot_start(&["up"], &dir, &[]).refused(1, &[&name]);
        assert!(fs::read(&file).expect("the store reads") == damaged, "kept for inquiry");
    }
}

/// The database in `dir`.
fn store_file(dir: &Path) -> PathBuf {
    let entries =
        fs::read_dir(dir).expect("the data directory").map(|e| e.expect("an entry").path());
    let mut stores = entries.filter(|path| path.extension().is_some_and(|e| e == "redb"));
    stores.next().expect("a store")
}

#[test]
fn nobody_gets_in_without_the_key() {
    let place = folder();
    let dir = place.path().join("data");
    let shown = dir.to_str().expect("the path is text");
    let open = ["up", "--data-dir", shown, "--http", "0.0.0.0:0", "--p2p", "127.0.0.1:0"];
    finish(&mut talka(&open), "").refused(2, &["0.0.0.0", "--api-key-file", "TALKA_API_KEY"]);

    let node = up_with_key(&dir, "correct-horse");
    node.get("/v1/models").done();
    node.cli(&["status"]).done();
    let ask = |key: Option<&str>| {
        let mut command = talka(&["status", "--data-dir", shown]);
        if let Some(key) = key {
            command.env("TALKA_API_KEY", key);
        }
        finish(&mut command, "")
    };
    ask(None).refused(3, &["API key"]);
    ask(Some("wrong-horse")).refused(3, &["API key"]);

    let file = place.path().join("key");
    fs::write(&file, "correct-horse\n").expect("a key file");
    let file = file.to_str().expect("the path is text");
    let with_file = ["status", "--data-dir", shown, "--api-key-file", file];
    finish(&mut talka(&with_file), "").done();
}

#[test]
fn a_request_beyond_the_balance_is_refused_before_any_work() {
    let place = folder();
    let node = up(&place.path().join("data"), &["--grant", "0.1"]);
    let before = node.cli(&["ledger", "verify", "--json"]).json();
    assert_eq!(before["minted"], 100_000);
    let body = json!({ "model": "bard", "prompt": "ROMEO:", "max_tokens": 200 });
    let words = ["not enough credits", "0.100000 GFT"];
    node.post("/v1/completions", &body).refused(402, "insufficient_credits", &words);
    node.cli(&["run", "--max-tokens", "200", "ROMEO:"]).refused(3, &words);
    assert_eq!(node.cli(&["ledger", "verify", "--json"]).json(), before, "no entry, no work");
    // What fits the balance is answered.
    node.cli(&["run", "--max-tokens", "1", "ROMEO:"]).done();
}

#[test]
fn a_broken_model_is_named_down_to_the_tensor() {
    const TENSOR: &str = "model.layers.2.mlp.up_proj.weight";
    let place = folder();
    let refused = |model: &str, words: &[&str]| {
        let dir = place.path().join("data");
        cannot_start(&["up"], &dir, &["--model", model]).refused(1, words);
    };
    let missing = broken_bard(place.path(), "missing", |table| {
        let table = table.as_object_mut().expect("a table");
        let tensor = table.remove(TENSOR).expect("the tensor");
        // Under another name, since bytes that belong to no tensor are an error of their own.
        table.insert("somebody.elses.weight".into(), tensor);
    });
    refused(&missing, &[TENSOR]);
    let shaped = broken_bard(place.path(), "shaped", |table| {
        assert_eq!(table[TENSOR]["shape"], json!([512, 192]));
        table[TENSOR]["shape"] = json!([192, 512]);
    });
    refused(&shaped, &[TENSOR, "[512, 192]", "[192, 512]"]);
    for (name, keep) in [("empty", 0), ("table", 1000), ("weights", 1_000_000)] {
        let truncated = truncated_bard(place.path(), name, keep);
        refused(&truncated, &["model.safetensors"]);
    }
    let hostile = broken_bard(place.path(), "hostile", |table| {
        table[TENSOR]["data_offsets"] = json!([0, u64::MAX]);
    });
    refused(&hostile, &["model.safetensors"]);
}
