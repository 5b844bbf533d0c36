//! Golden continuations: `bard`, which is bundled, and `stories260k`, a published model.

use crate::support::{greedy, open, pipeline, root};
use serde::Deserialize;
use std::{fs, path::Path};
use talka_engine::{
    BundledModel, ChatMessage, LogitsWanted, Model, ModelSource, StageOutput, TextStream,
};

#[derive(Deserialize)]
struct Golden {
    prompt: String,
    prompt_ids: Vec<u32>,
    greedy_ids: Vec<u32>,
    /// Of each greedy id.
    logprobs: Vec<f64>,
    /// Prompt and continuation.
    text: String,
}

fn golden(folder: &Path) -> Vec<Golden> {
    let bytes = fs::read(folder.join("golden.json")).expect("golden.json");
    serde_json::from_slice(&bytes).expect("a list of continuations")
}

fn check_continuations(model: &Model, folder: &Path, stages: u32) {
    for golden in golden(folder) {
        let ids = greedy(&mut pipeline(model, stages), &golden.prompt_ids, golden.greedy_ids.len());
        assert_eq!(ids, golden.greedy_ids, "{:?} in {stages} stages", golden.prompt);
    }
}

/// Prompt to ids, ids to text, at once and as a stream.
fn check_text(model: &Model, folder: &Path) {
    let tokenizer = model.tokenizer();
    for golden in golden(folder) {
        let ids = tokenizer.encode(&golden.prompt, true).expect("encodes");
        assert_eq!(ids, golden.prompt_ids, "{:?}", golden.prompt);
        let all = [golden.prompt_ids.as_slice(), &golden.greedy_ids].concat();
        assert_eq!(tokenizer.decode(&all).expect("decodes"), golden.text);
        let mut stream = TextStream::continuing(tokenizer.clone(), &golden.prompt_ids, vec![]);
        let pieces = golden.greedy_ids.iter().map(|id| stream.push(*id).text);
        let text: String = pieces.collect::<String>() + &stream.finish();
        assert_eq!(golden.prompt + &text, golden.text);
    }
}

fn check_logprobs(model: &Model, folder: &Path) {
    let vocab = model.shape().vocab as usize;
    for golden in golden(folder) {
        let all = [golden.prompt_ids.as_slice(), &golden.greedy_ids].concat();
        let output = pipeline(model, 1).run(&all[..all.len() - 1], LogitsWanted::All);
        let Ok(StageOutput::Logits(logits)) = output else { panic!("expected logits") };
        let answer = logits.chunks_exact(vocab).skip(golden.prompt_ids.len() - 1);
        for ((row, id), expected) in answer.zip(&golden.greedy_ids).zip(&golden.logprobs) {
            let total: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
            let found = f64::from(row[*id as usize]) - total.ln();
            assert!((found - expected).abs() < 2e-4, "{found} for {expected} of {id}");
        }
    }
}

#[test]
fn bard_continues_as_its_golden_file_says() {
    let folder = root().join("assets/models/bard");
    let model = open(&folder);
    assert_eq!((model.name(), model.eos_ids()), ("bard", [0].as_slice()));
    check_text(&model, &folder);
    check_logprobs(&model, &folder);
    check_continuations(&model, &folder, 1);
    check_continuations(&model, &folder, 3);
}

#[test]
fn bard_renders_messages_by_its_template() {
    let model = open(&root().join("assets/models/bard"));
    let message = ChatMessage::new("user", "ROMEO:");
    let text = model.template().render(&[message.clone(), message], &[], true).expect("renders");
    assert_eq!(text, "ROMEO:\nROMEO:\n");
}

/// From bytes within the program, at whatever address they happen to lie.
#[test]
fn a_bundled_model_is_the_same_as_its_folder() {
    let folder = root().join("assets/models/bard");
    let names = ["config.json", "tokenizer.json", "model.safetensors", "tokenizer_config.json"];
    for shift in [0, 1] {
        let files = names.map(|name| {
            let mut bytes = vec![0; shift];
            bytes.extend(fs::read(folder.join(name)).expect("a file"));
            let bytes: &'static [u8] = &bytes.leak()[shift..];
            (name, bytes)
        });
        let files: &'static _ = Box::leak(Box::new(files));
        let bundled = Box::leak(Box::new(BundledModel { name: "bard", files }));
        let model = Model::open(ModelSource::Bundled(bundled)).expect("opens");
        assert_eq!(model.id(), open(&folder).id());
        check_continuations(&model, &folder, 1);
    }
}

#[test]
fn stories260k_continues_as_published_whole_and_cut() {
    let folder = root().join("../shared/models/stories260k");
    if !folder.exists() {
        eprintln!("SKIPPED: no stories260k in {}", folder.display());
        return;
    }
    let model = open(&folder);
    check_text(&model, &folder);
    check_logprobs(&model, &folder);
    for stages in [1, 2, 3, 5] {
        check_continuations(&model, &folder, stages);
    }
}
