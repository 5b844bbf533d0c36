//! Models from a hub on this computer: fetched, continued after a kill, served, shown and removed.

/// The server that the tests of `talka-hub` use.
#[allow(dead_code, reason = "those tests use more of it")]
#[path = "../../../hub/tests/hub/server.rs"]
pub mod server;

use crate::{
    harness::{finish, folder, talka, up, up_with_hub, wait_for, with_hub},
    models::{bard, golden},
};
use serde_json::{Value, json};
use server::{Behaviour, COMMIT, FakeHub};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

pub const REF: &str = "hf:acme/tiny";
pub const WEIGHTS: &str = "model.safetensors";
/// Nobody listens there.
pub const NOBODY: &str = "http://127.0.0.1:9";

/// The bundled model's files, as a repository has them.
pub fn files() -> Vec<(&'static str, Vec<u8>)> {
    let files = ["config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json"];
    files.map(|name| (name, fs::read(bard().join(name)).expect("a file of bard"))).into()
}

/// A command on the data directory `dir` that may fetch from `endpoint`.
fn ask(dir: &Path, endpoint: &str, args: &[&str]) -> crate::harness::Said {
    let mut command = talka(args);
    command.arg("--data-dir").arg(dir);
    finish(with_hub(&mut command, endpoint), "")
}

fn pulled(dir: &Path) -> PathBuf {
    dir.join("models/acme--tiny").join(COMMIT)
}

/// Goal: a kill costs nothing that was on the disk. Method: a server that falls silent in the middle
/// of the weights; SIGKILL once some of them are recorded; then what the next process asks for.
#[test]
fn a_killed_pull_is_continued_where_it_was() {
    let (place, hub) = (folder(), FakeHub::start(&files()));
    let dir = place.path().join("data");
    hub.behave(Behaviour { hold: Some(1_500_000), ..Behaviour::default() });
    let mut command = talka(&["models", "pull", REF, "--data-dir"]);
    command.arg(&dir).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = with_hub(&mut command, &hub.endpoint()).spawn().expect("talka starts");
    let state = pulled(&dir).join(format!("{WEIGHTS}.partial.state"));
    let recorded = || {
        let state = fs::read(&state).ok()?;
        let counter = state.get(48..56)?.try_into().ok()?;
        Some(u64::from_le_bytes(counter)).filter(|done| *done >= 1_000_000)
    };
    wait_for("recorded bytes", recorded);
    child.kill().expect("the process can be killed");
    child.wait().expect("the process ends");
    let kept = recorded().expect("the record stays");

    hub.behave(Behaviour::default());
    hub.asked();
    let told = ask(&dir, &hub.endpoint(), &["models", "pull", REF, "--json"]).json();
    assert_eq!((&told["name"], &told["commit"]), (&json!("tiny"), &json!(COMMIT)));
    let mut asked = hub.asked();
    asked.retain(|asked| asked.elsewhere);
    let size = fs::metadata(bard().join(WEIGHTS)).expect("weights").len();
    assert_eq!(asked.iter().map(|asked| asked.range).collect::<Vec<_>>(), [Some((kept, size))]);
    for (name, bytes) in files() {
        assert!(fs::read(pulled(&dir).join(name)).expect("a file") == bytes, "{name}");
    }
    assert!(!state.exists());
}

#[test]
fn a_model_of_the_hub_is_fetched_served_and_served_again_without_it() {
    let (place, hub) = (folder(), FakeHub::start(&files()));
    let dir = place.path().join("data");
    let golden = &golden(&bard())[0];
    let serves = |endpoint: &str| {
        let node = up_with_hub(&dir, &["--model", REF], endpoint);
        assert_eq!(node.get("/v1/models").done()["data"][0]["id"], "tiny");
        let args = ["run", "--temperature", "0", "--max-tokens", &golden.tokens(), &golden.prompt];
        assert_eq!(node.cli(&args).done(), golden.continuation());
        let shown = node.cli(&["models", "show", REF, "--json"]).json();
        assert_eq!((&shown["name"], &shown["complete"]), (&json!("tiny"), &json!(true)));
        let list = node.cli(&["models", "--json"]).json();
        assert_eq!((&list[0]["name"], &list[1]["ref"]), (&json!("tiny"), &json!(REF)));
        node.log()
    };
    let log = serves(&hub.endpoint());
    assert!(log.contains("fetching hf:acme/tiny: 4 files"), "{log}");
    hub.asked();
    serves(NOBODY);
    assert_eq!(hub.asked(), []);

    // Without any node.
    let list = ask(&dir, NOBODY, &["models", "list"]).done();
    assert!(list.contains(REF) && list.contains("whole"), "{list}");
    ask(&dir, NOBODY, &["models", "pull", REF]).done();
    let removed = ask(&dir, NOBODY, &["models", "rm", REF, "--json"]).json();
    assert!(removed["bytes"].as_u64().expect("bytes") > 5_000_000, "{removed}");
    assert!(!pulled(&dir).exists());
    ask(&dir, NOBODY, &["models", "rm", REF]).refused(1, &[REF, "not on this computer"]);
    ask(&dir, NOBODY, &["models", "pull", REF]).refused(1, &["cannot reach", "HF_ENDPOINT"]);
}

#[test]
fn what_cannot_be_fetched_is_told_by_word_and_exit_code() {
    let (place, hub) = (folder(), FakeHub::start(&files()));
    let dir = place.path().join("data");
    let pull = |reference: &str| ask(&dir, &hub.endpoint(), &["models", "pull", reference]);
    pull("hf:acme/none").refused(1, &["has no model acme/none"]);
    pull("hf:acme/tiny@v2").refused(1, &["no revision", "v2"]);
    pull("hf:acme/tiny:weights").refused(1, &["nearest", WEIGHTS]);
    pull("bard").refused(2, &["hf:OWNER/REPO"]);
    ask(&dir, "nowhere", &["models", "pull", REF]).refused(2, &["HF_ENDPOINT"]);
    hub.behave(Behaviour { gated: true, ..Behaviour::default() });
    pull(REF).refused(3, &["HF_TOKEN", "licence", "/acme/tiny"]);
    hub.behave(Behaviour { corrupt: true, ..Behaviour::default() });
    pull(REF).refused(1, &["expected", "thrown away"]);
    let mut offline = talka(&["models", "pull", REF, "--offline"]);
    finish(offline.env("TALKA_DATA_DIR", &dir), "").refused(2, &["--offline", "HF_HUB_OFFLINE"]);

    let mut with_token = talka(&["models", "pull", REF, "--json", "--data-dir"]);
    with_token.arg(&dir).env("HF_TOKEN", "hf_secret");
    hub.behave(Behaviour { gated: true, ..Behaviour::default() });
    let said = finish(with_hub(&mut with_token, &hub.endpoint()), "");
    assert_eq!(said.stderr, "", "programs get the document and nothing else");
    assert_eq!(said.json()["ref"], REF);
}

#[test]
fn without_a_model_the_largest_fetched_one_that_fits_is_served() {
    let (place, hub) = (folder(), FakeHub::start(&files()));
    let dir = place.path().join("data");
    ask(&dir, &hub.endpoint(), &["models", "pull", REF]).done();
    let serves = |more: &[&str]| {
        let node = up(&dir, more);
        node.get("/v1/models").done()["data"][0]["id"].clone()
    };
    assert_eq!(serves(&[]), "tiny");
    assert_eq!(serves(&["--model", "bard"]), "bard");
    // 6 MiB are 4.5 for weights, and these take 5.
    assert_eq!(serves(&["--memory", "6M"]), "bard");
    // What cannot be opened is passed over.
    let config = pulled(&dir).join("config.json");
    let text = fs::read_to_string(&config).expect("a configuration");
    fs::write(&config, text.replace("\"llama\"", "\"lhama\"")).expect("written");
    assert_eq!(serves(&[]), "bard");
}

#[test]
fn without_a_model_and_a_person_to_ask_bard_is_served_and_a_better_one_is_named() {
    const NAMED: &str = "HuggingFaceTB/SmolLM2-135M-Instruct";
    let (place, hub) = (folder(), FakeHub::of(NAMED, &files()));
    let dir = place.path().join("data");
    let node = up_with_hub(&dir, &["--memory", "512M"], &hub.endpoint());
    assert_eq!(node.get("/v1/models").done()["data"][0]["id"], "bard");
    wait_for("the suggestion", || {
        node.log().contains(&format!("talka up --model hf:{NAMED}")).then_some(())
    });
    assert!(!dir.join("models").exists(), "nothing is fetched unasked");
    let alone = up_with_hub(&place.path().join("other"), &["--memory", "512M"], NOBODY);
    assert_eq!(alone.get("/v1/models").done()["data"][0]["id"], "bard");
}

#[test]
fn a_model_is_shown_without_a_node() {
    let place = folder();
    let dir = place.path().join("data");
    let show = |args: &[&str]| ask(&dir, NOBODY, &[&["models", "show"], args].concat());
    let shown = show(&["bard", "--json"]).json();
    assert_eq!(shown["family"], "llama");
    assert_eq!(shown["parameters"], 2_632_128);
    assert_eq!(shown["parameters"], shown["parameters_active"]);
    assert_eq!(shown["weight_bytes"], 2 * 2_632_128);
    assert_eq!(shown["head_bytes"], 0, "tied");
    let layers = shown["layer_bytes"].as_array().expect("layers");
    let layers: u64 = layers.iter().filter_map(Value::as_u64).sum();
    let embedding = 2 * 192 * 1024;
    assert_eq!(shown["embedding_bytes"], embedding);
    assert_eq!(shown["weight_bytes"], layers + embedding + 2 * 192, "and the last norm");
    assert_eq!(shown["flops_first"], 2 * 6 * 405_504 + 6 * 4 * 192 + 2 * 192 * 1024);
    let text = show(&["bard"]).done();
    for word in ["2.63 M", "llama", "BF16", "256 tokens", "a layer", "BPE", "FLOP"] {
        assert!(text.contains(word), "{word:?} is missing:\n{text}");
    }
    let folder = bard();
    let by_path = show(&[folder.to_str().expect("text"), "--json"]).json();
    assert_eq!(by_path["id"], shown["id"]);
    show(&[REF]).refused(1, &["not on this computer", "talka models pull hf:acme/tiny"]);
    show(&["nobody-knows-it"]).refused(4, &["talka up"]);
}
