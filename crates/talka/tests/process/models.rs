//! Models on disk: the ones tests compare with, and copies that are broken on purpose.

use crate::harness::{finish, talka};
use serde::Deserialize;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A greedy continuation computed by another implementation.
#[derive(Debug, Deserialize)]
pub struct Golden {
    pub prompt: String,
    pub prompt_ids: Vec<u32>,
    pub greedy_ids: Vec<u32>,
    /// Of each greedy id.
    pub logprobs: Vec<f64>,
    text: String,
}

impl Golden {
    /// The text without the prompt.
    pub fn continuation(&self) -> &str {
        self.text.strip_prefix(&self.prompt).expect("the text begins with its prompt")
    }

    /// Tokens to ask for, as a flag's value.
    pub fn tokens(&self) -> String {
        self.greedy_ids.len().to_string()
    }
}

/// The continuations that belong to the model in `folder`.
pub fn golden(folder: &Path) -> Vec<Golden> {
    let text = fs::read_to_string(folder.join("golden.json")).expect("golden.json is there");
    serde_json::from_str(&text).expect("golden.json holds continuations")
}

/// The bundled model's folder.
pub fn bard() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/models/bard")
}

/// A file or folder under `fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

/// A published model that is too big to bundle; absent from a bare clone.
pub fn stories260k() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models/stories260k");
    let there = folder.is_dir();
    if !there {
        eprintln!("SKIPPED: {} is not there", folder.display());
    }
    there.then_some(folder)
}

/// Flags of a node that can hold an `nth` of `model` and not a layer more.
pub fn room_for(model: &str, nth: u64) -> [String; 2] {
    const CACHE: u64 = 64 << 20;
    let shown = finish(&mut talka(&["models", "show", model, "--json"]), "").json();
    let number = |value: &Value| value.as_u64().expect("a number");
    let layers = number(&shown["shape"]["layers"]);
    let weights = number(&shown["weight_bytes"]) * (2 * layers.div_ceil(nth) + 1) / (2 * layers);
    [format!("--memory={}", weights + CACHE), format!("--cache={CACHE}")]
}

/// A copy of bard in `parent/NAME` whose tensor table went through `change`.
pub fn broken_bard(parent: &Path, name: &str, change: impl Fn(&mut Value)) -> String {
    let folder = copy_of_bard(parent, name);
    let file = folder.join("model.safetensors");
    let bytes = fs::read(&file).expect("weights");
    let size = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    let (table, data) = bytes[8..].split_at(usize::try_from(size).expect("a small table"));
    let mut table: Value = serde_json::from_slice(table).expect("the table is JSON");
    change(&mut table);
    let table = table.to_string();
    let size = u64::try_from(table.len()).expect("a small table").to_le_bytes();
    fs::write(&file, [&size, table.as_bytes(), data].concat()).expect("weights");
    folder.to_str().expect("the path is text").to_owned()
}

/// A copy of bard in `parent/NAME` whose weights end after `keep` bytes.
pub fn truncated_bard(parent: &Path, name: &str, keep: usize) -> String {
    let folder = copy_of_bard(parent, name);
    let file = folder.join("model.safetensors");
    let bytes = fs::read(&file).expect("weights");
    fs::write(&file, &bytes[..keep]).expect("weights");
    folder.to_str().expect("the path is text").to_owned()
}

/// A copy of bard in `parent/NAME` that ends after its first layer.
pub fn shallow_bard(parent: &Path, name: &str) -> String {
    let folder = copy_of_bard(parent, name);
    let file = folder.join("config.json");
    let config = fs::read(&file).expect("a configuration");
    let mut config: Value = serde_json::from_slice(&config).expect("JSON");
    config["num_hidden_layers"] = 1.into();
    fs::write(&file, config.to_string()).expect("written");
    folder.to_str().expect("the path is text").to_owned()
}

fn copy_of_bard(parent: &Path, name: &str) -> PathBuf {
    let folder = parent.join(name);
    fs::create_dir(&folder).expect("a new folder");
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(bard().join(file), folder.join(file)).expect("a copy");
    }
    folder
}
