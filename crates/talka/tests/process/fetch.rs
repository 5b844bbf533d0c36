//! Nodes that have no files of a model and serve layers of it, fetched from the others.

use crate::{
    harness::{Node, cannot_start, folder, join, lasting_address, up, wait_for},
    models::{bard, golden},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};
use talka_sim::{LinkModel, Relay};

const FIRST: &str = "bard=0..3";
const LAST: &str = "bard=3..6";

/// Slow enough that half of `bard` takes seconds, in bytes a second.
const SLOW: LinkModel = LinkModel {
    delay: Duration::ZERO,
    jitter: Duration::ZERO,
    loss: 0.0,
    rate: Some(400_000),
    cut: false,
};

/// Where a node is, and the relay in front of it. Only between nodes that all have one is a link as slow as it is
/// meant to be.
struct Door {
    own: String,
    relay: Relay,
    announced: String,
}

impl Door {
    fn new() -> Self {
        let own = lasting_address([127, 0, 0, 2]);
        let relay = Relay::start(own, LinkModel::default(), 1).expect("a relay");
        let announced = relay.address().to_string();
        Self { own: own.to_string(), relay, announced }
    }

    /// Flags of the node, with the layers of `model` that it serves.
    fn flags<'a>(&'a self, model: &'a str, layers: &'a str) -> [&'a str; 8] {
        let [own, announced] = [&self.own, &self.announced].map(String::as_str);
        ["--model", model, "--layers", layers, "--p2p", own, "--announce", announced]
    }
}

/// Waits until `node` serves `layers`, as `seer` knows.
pub fn served(seer: &Node, node: &Node, layers: [u32; 2]) {
    wait_for("layers that are fetched", || {
        let models = seer.get("/api/models").done();
        let is_it =
            |stage: &Value| stage["node"] == node.id.as_str() && stage["span"] == json!(layers);
        let mut stages = models.as_array()?.iter().filter_map(|model| model["coverage"].as_array());
        stages.any(|stages| stages.iter().any(is_it)).then_some(())
    });
}

/// Greedy continuations from `node` are those of another implementation, whatever the model is called there.
pub fn speaks(node: &Node) {
    let model = node.get("/v1/models").done()["data"][0]["id"].clone();
    for golden in golden(&bard()) {
        let body = json!({
            "model": model, "prompt": golden.prompt, "temperature": 0,
            "max_tokens": golden.greedy_ids.len(),
        });
        let answer = node.post("/v1/completions", &body).done();
        assert_eq!(answer["choices"][0]["text"], golden.continuation());
    }
}

/// Files of a node's one fetched model whose names end so, and when each was written.
pub fn files(dir: &Path, end: &str) -> BTreeMap<PathBuf, SystemTime> {
    let Ok(mut models) = fs::read_dir(dir.join("fetched")) else { return BTreeMap::new() };
    let Some(Ok(model)) = models.next() else { return BTreeMap::new() };
    let all =
        fs::read_dir(model.path()).expect("a folder").map(|file| file.expect("a file").path());
    let written = |path: &PathBuf| fs::metadata(path).and_then(|file| file.modified()).ok();
    all.filter(|path| path.to_string_lossy().ends_with(end))
        .filter_map(|path| Some((path.clone(), written(&path)?)))
        .collect()
}

/// What a node fetched are tensors of `bard`, and not all of them.
pub fn has_a_part(dir: &Path) {
    let whole = fs::read(bard().join("model.safetensors")).expect("bard's weights");
    let mut bytes = 0;
    for file in files(dir, ".tensor").keys() {
        let tensor = fs::read(file).expect("a tensor");
        assert!(whole.windows(tensor.len()).any(|part| part == tensor), "{}", file.display());
        bytes += tensor.len();
    }
    assert_eq!(files(dir, ".part").len(), 0);
    assert!(0 < bytes && bytes < whole.len() * 3 / 4, "{bytes} of {}", whole.len());
}

/// Goal: layers go from hand to hand, each node takes its own only, and answers are the same.
/// Method: the second node fetches from the first, the third from the second while the first is gone.
#[test]
fn layers_are_fetched_from_whoever_has_them() {
    let place = folder();
    let at = |name: &str| place.path().join(name);
    // The founder has nothing to do with the model.
    let other = bard().join("../../../fixtures/reference/llama");
    let founder = up(&at("f"), &["--model", other.to_str().expect("text")]);
    let invite = founder.invite(&["--reusable"]);
    let mut first = join(&invite, &at("a"), &["--model", "bard", "--layers", FIRST]);
    let mut second = join(&invite, &at("b"), &["--model", "peer:bard", "--layers", LAST]);
    served(&second, &second, [3, 6]);
    served(&second, &first, [0, 3]);
    speaks(&second);
    has_a_part(&at("b"));

    first.kill();
    let third = join(&invite, &at("c"), &["--model", "peer:bard", "--layers", LAST]);
    served(&third, &third, [3, 6]);
    has_a_part(&at("c"));
    second.kill();
    let first = up(&at("a"), &["--model", "bard", "--layers", FIRST]);
    served(&third, &first, [0, 3]);
    speaks(&third);
    drop(first);
    // What was fetched is there, whoever else is.
    let second = up(&at("b"), &["--model", "peer:bard", "--layers", LAST]);
    served(&second, &second, [3, 6]);
}

/// Goal: weights take no more of a line than the owner of either end allows. Method: half of `bard`, with a limit for
/// the node that gives, and then for the one that fetches; haste would show, a slow machine does not.
#[test]
fn weights_keep_to_the_bandwidth() {
    const RATE: u64 = 500 << 10;
    const LIMIT: &[&str] = &["--bandwidth", "500K"];
    let place = folder();
    for (gives, fetches) in [(LIMIT, &[][..]), (&[], LIMIT)] {
        let at = |name: &str| place.path().join(format!("{name}{}", gives.len()));
        let whole = [&["--layers", "bard=0..6"], gives].concat();
        let founder = up(&at("a"), &whole);
        let part = [&["--model", "peer:bard", "--layers", LAST], fetches].concat();
        let begun = Instant::now();
        let friend = join(&founder.invite(&[]), &at("b"), &part);
        served(&friend, &friend, [3, 6]);
        let bytes: u64 = files(&at("b"), ".tensor")
            .keys()
            .map(|file| fs::metadata(file).expect("a tensor").len())
            .sum();
        // One piece, and what a quiet line may take at once, come before any wait.
        let held = bytes - (256 << 10) - RATE / 4;
        assert!(begun.elapsed() > Duration::from_millis(held * 1000 / RATE), "{bytes} bytes");
    }
}

/// Goal: what came before a crash is not fetched again.
/// Method: kill a node that fetches over a slow link, and start it again.
#[test]
fn a_fetch_goes_on_after_a_crash() {
    let place = folder();
    let dir = place.path().join("b");
    let doors = [(); 2].map(|()| Door::new());
    let founder = up(&place.path().join("a"), &doors[0].flags("bard", "bard=0..6"));
    doors[0].relay.set(SLOW);
    let flags = doors[1].flags("peer:bard", LAST);
    // Ready before it serves: the founder has all layers.
    let mut node = join(&founder.invite(&[]), &dir, &flags);
    wait_for("some tensors", || (files(&dir, ".tensor").len() >= 3).then_some(()));
    node.kill();
    let came = files(&dir, ".tensor");
    let node = up(&dir, &flags);
    served(&node, &node, [3, 6]);
    let all = files(&dir, ".tensor");
    assert!(came.len() < all.len(), "it was killed in the middle");
    assert!(came.iter().all(|(path, written)| all.get(path) == Some(written)), "{came:?} {all:?}");
    let log = node.log();
    assert!(log.contains("of which") && !log.contains("of which 0.0 MiB"), "{log}");
    has_a_part(&dir);
    speaks(&node);
}

/// Goal: a node that sends wrong bytes is found out, and another one sends the right ones.
/// Method: a node fetches all, its files are damaged while it is off, and then it is the fastest source.
#[test]
fn who_sends_wrong_pieces_is_not_believed() {
    let place = folder();
    let at = |name: &str| place.path().join(name);
    let doors = [(); 3].map(|()| Door::new());
    let founder = up(&at("a"), &doors[0].flags("bard", FIRST));
    let invite = founder.invite(&["--reusable"]);
    let mut rogue = join(&invite, &at("r"), &doors[1].flags("peer:bard", "bard=0..6"));
    served(&rogue, &rogue, [0, 6]);
    rogue.kill();
    for file in files(&at("r"), ".tensor").keys() {
        let mut bytes = fs::read(file).expect("a tensor");
        bytes[0] ^= 1;
        fs::write(file, bytes).expect("written");
    }
    let mut rogue = up(&at("r"), &doors[1].flags("peer:bard", "bard=0..1"));
    doors[0].relay.set(SLOW);
    let node = join(&invite, &at("c"), &doors[2].flags("peer:bard", LAST));
    wait_for("blame", || node.log().contains("sent a wrong piece").then_some(()));
    let peers = node.cli(&["peers", "--json"]).json();
    let known =
        peers.as_array().expect("nodes").iter().find(|peer| peer["node"] == rogue.id.as_str());
    assert_eq!(known.expect("a node")["faults"]["piece"], 1, "{peers}");
    rogue.kill();
    served(&node, &node, [3, 6]);
    has_a_part(&at("c"));
    doors[0].relay.set(LinkModel::default());
    speaks(&node);
}

#[test]
fn a_model_that_nobody_has_is_an_error() {
    let place = folder();
    let alone = cannot_start(&["up"], &place.path().join("a"), &["--model", "peer:bard"]);
    alone.refused(1, &["bard", "no other node is known"]);
    let founder = up(&place.path().join("b"), &[]);
    let invite = founder.invite(&[]);
    let flags = ["--model", "peer:other"];
    cannot_start(&["join", &invite], &place.path().join("c"), &flags)
        .refused(1, &["other", "has no such model"]);
    let shown = crate::harness::talka(&["models", "show", "peer:bard"]);
    crate::harness::finish(&mut { shown }, "").refused(2, &["talka up"]);
}
