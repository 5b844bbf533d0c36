//! What a node keeps beside a model that continues text: encoders, adapters, draft models. All of them
//! compared with tensors that another implementation computed.

use crate::{
    harness::{Node, cannot_start, folder, join, up, wait_for},
    models::{bard, fixture, golden, room_for, shallow_bard},
    together::three,
};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::{fs, path::Path};

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}

/// `reference.safetensors` of a folder.
struct Reference(Vec<u8>);

impl Reference {
    fn of(folder: &Path) -> Self {
        Self(fs::read(folder.join("reference.safetensors")).expect("a reference"))
    }

    /// Rows of a tensor's last dimension, 8 bytes an integer or 4 a float.
    fn rows<const N: usize>(&self, name: &str) -> Vec<Vec<[u8; N]>> {
        let file = SafeTensors::deserialize(&self.0).expect("safetensors");
        let tensor = file.tensor(name).expect("the tensor is there");
        let width = *tensor.shape().last().expect("a dimension");
        tensor.data().as_chunks().0.chunks(width).map(<[_]>::to_vec).collect()
    }

    fn tokens(&self) -> Vec<Vec<i64>> {
        let rows = self.rows("tokens").into_iter();
        rows.map(|row| row.into_iter().map(i64::from_le_bytes).collect()).collect()
    }

    fn floats(&self, name: &str) -> Vec<Vec<f64>> {
        let float = |bytes| f64::from(f32::from_le_bytes(bytes));
        let rows = self.rows(name).into_iter();
        rows.map(|row| row.into_iter().map(float).collect()).collect()
    }
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The vectors that a node makes.
fn vectors(node: &Node, body: &Value) -> Vec<Vec<f64>> {
    let answer = node.post("/v1/embeddings", body).done();
    let items = answer["data"].as_array().expect("an array").iter();
    let vector = |item: &Value| serde_json::from_value(item["embedding"].clone()).expect("numbers");
    items.map(vector).collect()
}

/// Goal: vectors equal those of transformers, whole and over three nodes, and are paid for.
#[test]
fn an_encoder_makes_vectors_alone_and_cut_over_three_nodes() {
    let place = folder();
    let model = fixture("reference/bert");
    let reference = Reference::of(&model);
    let (tokens, expected) = (reference.tokens(), reference.floats("embedding"));
    let body = json!({"model": "bert", "input": tokens});
    let nodes = three(place.path(), text(&model));
    let alone = up(&place.path().join("alone"), &["--model", text(&model)]);
    let whole = vectors(&alone, &body);
    for node in [&alone, &nodes[0], &nodes[2]] {
        let found = vectors(node, &body);
        assert_eq!(found, whole, "the same bits however it is cut");
        for (found, expected) in found.iter().zip(&expected) {
            assert!(cosine(found, expected) > 0.999_99);
            assert!((cosine(found, found).sqrt() - 1.0).abs() < 1e-6);
        }
    }
    let verified = nodes[2].cli(&["ledger", "verify", "--json"]).json();
    assert_eq!(verified["reserved"], 0, "every text was settled: {verified}");
    let credits = nodes[2].cli(&["credits", "--json"]).json();
    let members = credits["members"].as_array().expect("an array");
    assert!(members.iter().all(|member| member["earned"] != 0), "each stage worked: {credits}");
}

#[test]
fn what_an_encoder_cannot_do_is_refused_by_name() {
    let place = folder();
    let model = fixture("reference/bert");
    let node = up(&place.path().join("data"), &["--model", text(&model), "--model", "bard"]);
    let refused = |path: &str, body: Value, code: &str, words: &[&str]| {
        node.post(path, &body).refused(400, code, words);
    };
    let prompt = json!({"model": "bert", "prompt": "x"});
    refused("/v1/completions", prompt, "wrong_kind_of_model", &["bert is an encoder"]);
    let long = vec![7; 129];
    let body = json!({"model": "bert", "input": [[5, 6], long]});
    refused("/v1/embeddings", body, "context_length_exceeded", &["129 tokens", "at most 128"]);
    let body = json!({"model": "bert", "input": [[400]]});
    refused("/v1/embeddings", body, "unknown_token", &["400", "320"]);
    let body = json!({"model": "bert", "input": "x", "dimensions": 32});
    refused("/v1/embeddings", body, "invalid_value", &["dimensions is 32", "64"]);
    let body = json!({"model": "bert", "input": []});
    refused("/v1/embeddings", body, "empty_prompt", &["at least one token"]);

    let cut = json!({"model": "bert", "input": [long], "truncate_prompt_tokens": -1});
    let whole = json!({"model": "bert", "input": [vec![7; 128]], "dimensions": 64});
    assert_eq!(vectors(&node, &cut), vectors(&node, &whole));
    // A decoder makes vectors too.
    let of_bard = vectors(&node, &json!({"model": "bard", "input": ["Good morrow", "Fie!"]}));
    assert_eq!(of_bard.iter().map(Vec::len).collect::<Vec<_>>(), [192, 192]);
    let makes =
        |model: &str| node.get(&format!("/v1/models/{model}")).done()["talka"]["makes"].clone();
    assert_eq!((makes("bert"), makes("bard")), ("vectors".into(), "text".into()));
}

/// How likely `model` finds each of `tokens` but the first.
fn logprobs(node: &Node, model: &str, tokens: &[i64]) -> Vec<f64> {
    let body = json!({"model": model, "prompt": tokens, "max_tokens": 0, "echo": true,
        "logprobs": 0});
    let answer = node.post("/v1/completions", &body).done();
    let found = &answer["choices"][0]["logprobs"]["token_logprobs"];
    found.as_array().expect("an array").iter().filter_map(Value::as_f64).collect()
}

/// The same by the logits `[T, V]` of another implementation.
fn expected_logprobs(logits: &[Vec<f64>], tokens: &[i64]) -> Vec<f64> {
    let follows = logits.iter().zip(&tokens[1..]);
    let logprob = |(row, token): (&Vec<f64>, &i64)| {
        row[*token as usize] - row.iter().map(|x| x.exp()).sum::<f64>().ln()
    };
    follows.map(logprob).collect()
}

#[track_caller]
fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-3, "{found} {expected}");
    }
}

/// Goal: a request's adapter applies on every node of the route and to nobody else's rows, and a node
/// without it has no part. Method: PEFT's logits, and two nodes of which first one has the adapter.
#[test]
fn an_adapter_is_chosen_by_the_request_and_needed_on_every_stage() {
    let place = folder();
    let (model, adapter) = (fixture("reference/llama"), fixture("adapters/llama"));
    let reference = Reference::of(&adapter);
    let tokens = &reference.tokens()[0];
    let with = expected_logprobs(&reference.floats("logits"), tokens);
    let beside = format!("llama:quirk={}", text(&adapter));
    let flags = |layers| ["--model", text(&model), "--adapter", &beside, "--layers", layers];
    let founder = up(&place.path().join("a"), &flags("llama=0..2"));
    let bare = ["--model", text(&model), "--layers", "llama=2..4"];
    let guest = join(&founder.invite(&[]), &place.path().join("b"), &bare);
    wait_for("both halves", || founder.is_complete().then_some(()));

    let plain = logprobs(&founder, "llama", tokens);
    let body = json!({"model": "llama:quirk", "prompt": tokens, "max_tokens": 2});
    founder.post("/v1/completions", &body).refused(503, "no_route", &["llama:quirk", "2..4"]);
    guest.post("/v1/completions", &body).refused(404, "model_not_found", &["llama:quirk"]);
    guest.terminate();
    wait_for("a half that is gone", || (!founder.is_complete()).then_some(()));

    let invite = founder.invite(&[]);
    let _equipped = join(&invite, &place.path().join("c"), &flags("llama=2..4"));
    wait_for("both halves", || founder.is_complete().then_some(()));
    std::thread::scope(|threads| {
        let quirky = threads.spawn(|| logprobs(&founder, "llama:quirk", tokens));
        // Neighbours in a batch, one of them without.
        assert_close(&logprobs(&founder, "llama", tokens), &plain);
        assert_close(&quirky.join().expect("an answer"), &with);
    });
    let distance = plain.iter().zip(&with).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(distance > 0.01, "the adapter changes something: {distance}");
    let listed = founder.get("/v1/models").done();
    assert_eq!(listed["data"][1]["id"], "llama:quirk");
    assert_eq!(listed["data"][1]["talka"]["parent"], "llama");
}

/// Method: the draft is bard's first layer alone, cheap enough to be asked and often wrong.
#[test]
fn a_draft_model_changes_no_answer() {
    let place = folder();
    let draft = shallow_bard(place.path(), "shallow");
    let flags = ["--model", "bard", "--draft", &format!("bard={draft}")];
    let node = up(&place.path().join("data"), &flags);
    for golden in golden(&bard()) {
        let body = json!({"model": "bard", "prompt": golden.prompt, "temperature": 0,
            "max_tokens": golden.greedy_ids.len()});
        let answer = node.post("/v1/completions", &body).done();
        assert_eq!(answer["choices"][0]["text"], golden.continuation());
    }
}

#[test]
fn what_does_not_belong_to_a_model_stops_the_start() {
    let place = folder();
    let refused = |flags: &[&str], words: &[&str]| {
        cannot_start(&["up"], &place.path().join("data"), flags).refused(1, words);
    };
    let llama = fixture("reference/llama");
    refused(&["--model", "bard", "--draft", text(&llama)], &["llama cannot draft for bard"]);
    let adapter = format!("quirk={}", text(&fixture("adapters/llama")));
    refused(&["--model", "bard", "--adapter", &adapter], &["bard:quirk", "another base model"]);
    let missing = format!("quirk={}", text(place.path()));
    refused(&["--model", "bard", "--adapter", &missing], &["bard:quirk", "adapter_config.json"]);
}

/// Goal: with room for one of two models a node answers for both, one after the other.
/// Method: ask for the one that waits on the disk, then for the first again.
#[test]
fn models_are_swapped_when_they_are_asked_for() {
    let place = folder();
    let llama = fixture("reference/llama");
    let [memory, cache] = room_for("bard", 1);
    let flags = ["--model", "bard", "--model", text(&llama), "--policy", "dynamic"];
    let node = up(&place.path().join("data"), &[&flags[..], &[&memory, &cache]].concat());
    let on_disk = || -> Vec<String> {
        let models = node.get("/api/models").done();
        let waits = models.as_array().expect("an array").iter().filter(|m| m["share_bytes"] == 0);
        waits.map(|model| model["name"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(on_disk(), ["llama"]);
    let golden = &golden(&bard())[0];
    let bard_answers = || {
        let body = json!({"model": "bard", "prompt": golden.prompt, "temperature": 0,
            "max_tokens": golden.greedy_ids.len()});
        let answer = node.post("/v1/completions", &body).done();
        assert_eq!(answer["choices"][0]["text"], golden.continuation());
    };
    bard_answers();
    let reference = Reference::of(&llama);
    let tokens = &reference.tokens()[0];
    let expected = expected_logprobs(&reference.floats("logits"), tokens);
    assert_close(&logprobs(&node, "llama", tokens), &expected);
    assert_eq!(on_disk(), ["bard"]);
    assert!(node.cli(&["models", "list"]).done().contains("on disk, loads in"));
    bard_answers();
    assert_eq!(on_disk(), ["llama"]);
}

/// Goal: no answer comes from stages that hold the weights differently, unless that is wanted.
/// Method: halves of one model, one of them quantised, asked at nodes with different policies.
#[test]
fn a_route_mixes_no_precisions_unless_it_may() {
    let place = folder();
    let exact = ["--layers", "bard=0..3"];
    let founder = up(&place.path().join("a"), &exact);
    let invite = founder.invite(&["--reusable"]);
    let quantised = ["--layers", "bard=3..6", "--weights", "q8_0"];
    let b =
        join(&invite, &place.path().join("b"), &[&quantised[..], &["--mix-precision"]].concat());
    for node in [&founder, &b] {
        wait_for("both halves", || node.is_complete().then_some(()));
    }
    let body = json!({"model": "bard", "prompt": "ROMEO:", "max_tokens": 2});
    founder.post("/v1/completions", &body).refused(503, "no_route", &["3..6"]);
    assert_eq!(b.post("/v1/completions", &body).done()["talka"]["route"][1]["span"][0], 3);

    // The other half of each precision: now both make a route, and who is particular gets the exact one.
    let flags = ["--layers", "bard=0..3", "--weights", "q8_0", "--min-precision", "bard=bf16"];
    let c = join(&invite, &place.path().join("c"), &flags);
    let answer = wait_for("a route of one precision", || {
        let reply = founder.post("/v1/completions", &body);
        (reply.status == 200).then_some(reply.body)
    });
    let route = answer["talka"]["route"].as_array().expect("an array");
    let nodes: Vec<_> = route.iter().map(|stage| stage["node"].as_str()).collect();
    assert_eq!(nodes, [Some(c.id.as_str()), Some(b.id.as_str())], "both quantised");
    c.post("/v1/completions", &body).refused(503, "no_route", &["3..6"]);
}
