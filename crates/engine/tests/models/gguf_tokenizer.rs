//! Tokenizers in GGUF files against the ids that llama.cpp found (`fixtures/tokenizers`).

use crate::{
    gguf_file::{Field, Writer},
    support::root,
};
use serde_json::Value;
use std::{env, fs, path::Path};
use talka_engine::{Model, ModelSource};

fn golden() -> Value {
    let path = root().join("fixtures/tokenizers/tokenizers.json");
    serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON")
}

fn texts(value: &Value) -> Vec<String> {
    let list = value.as_array().expect("a list");
    list.iter().map(|text| text.as_str().expect("a text").to_owned()).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    let list = value.as_array().expect("a list");
    list.iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

/// A llama without weights: enough to open.
fn vocabulary(kind: &str, tokens: &Value) -> Writer {
    let mut writer = Writer::default();
    writer.set("general.architecture", Field::Text("llama".into()));
    for (key, n) in [
        ("block_count", 1),
        ("context_length", 64),
        ("embedding_length", 32),
        ("feed_forward_length", 32),
        ("attention.head_count", 1),
    ] {
        writer.set(&format!("llama.{key}"), Field::U32(n));
    }
    writer.set("llama.attention.layer_norm_rms_epsilon", Field::F32(1e-5));
    let tokens = texts(tokens);
    writer.set("tokenizer.ggml.model", Field::Text(kind.into()));
    writer.set("tokenizer.ggml.tokens", Field::Texts(tokens));
    writer
}

/// Compares the ids of each text; and the text with what the ids spell, where that is the same.
fn check(model: &Model, what: &str, texts: &[String], expected: &[Value], skip: &[u32]) {
    assert_eq!(texts.len(), expected.len());
    for (n, (text, expected)) in texts.iter().zip(expected).enumerate() {
        if skip.contains(&(n as u32)) {
            continue;
        }
        let found = model.tokenizer().encode(text, false).expect("encodes");
        let spelt = |ids: &[u32]| -> Vec<String> {
            let bytes = |id: &u32| model.tokenizer().token_bytes(*id).to_vec();
            ids.iter().map(|id| String::from_utf8_lossy(&bytes(id)).into_owned()).collect()
        };
        let expected = ids(expected);
        assert_eq!(spelt(&found), spelt(&expected), "{what}: text {n} {text:?}");
        assert_eq!(found, expected, "{what}: text {n} {text:?}");
        assert_eq!(model.tokenizer().decode(&found).expect("decodes"), *text, "{what}");
    }
}

#[test]
fn byte_level_cuts_are_those_of_llama_cpp() {
    let golden = golden();
    let all = texts(&golden["texts"]);
    let stored = &golden["byte_level"];
    for (pre, expected) in stored["ids"].as_object().expect("ids by name") {
        let mut writer = vocabulary("gpt2", &stored["tokens"]);
        writer.set("tokenizer.ggml.merges", Field::Texts(texts(&stored["merges"])));
        writer.set("tokenizer.ggml.pre", Field::Text(pre.clone()));
        let model = writer.open().expect("opens");
        let skip = stored["skip"].get(pre).map(ids).unwrap_or_default();
        check(&model, pre, &all, expected.as_array().expect("a list"), &skip);
    }
}

#[test]
fn a_cut_that_is_not_known_is_refused() {
    let golden = golden();
    let stored = &golden["byte_level"];
    let mut writer = vocabulary("gpt2", &stored["tokens"]);
    writer.set("tokenizer.ggml.merges", Field::Texts(texts(&stored["merges"])));
    let message = |writer: &Writer| writer.open().map(drop).expect_err("refused").to_string();
    let supported = "supported are: default, gpt-2, ";
    assert!(message(&writer).contains(supported), "{}", message(&writer));
    writer.set("tokenizer.ggml.pre", Field::Text("klingon".into()));
    let expected = format!("cuts text as \"klingon\" (tokenizer.ggml.pre), {supported}");
    assert!(message(&writer).contains(&expected), "{}", message(&writer));
}

#[test]
fn sentencepiece_merges_as_llama_cpp_does() {
    let golden = golden();
    let all = texts(&golden["texts"]);
    let stored = &golden["sentencepiece"];
    for (name, expected) in stored["ids"].as_object().expect("ids by name") {
        let mut writer = vocabulary("llama", &stored["tokens"]);
        let scores = stored["scores"].as_array().expect("a list").iter();
        let scores = scores.map(|x| x.as_f64().expect("a number") as f32).collect();
        writer.set("tokenizer.ggml.scores", Field::Floats(scores));
        let kinds = ids(&stored["types"]).into_iter().map(u32::cast_signed).collect();
        writer.set("tokenizer.ggml.token_type", Field::Ints(kinds));
        writer.set("tokenizer.ggml.unknown_token_id", Field::U32(0));
        writer.set("tokenizer.ggml.add_space_prefix", Field::Bool(name == "prefix"));
        let model = writer.open().expect("opens");
        check(&model, name, &all, expected.as_array().expect("a list"), &[]);
    }
}

/// Goal: the vocabularies of real models give the ids that their own tokenizers gave.
/// Method: where `TALKA_VOCABULARIES` names llama.cpp's folder `models`, texts (`.inp`) and ids (`.out`) beside
/// each file there. They are too large, and not ours, to be here.
#[test]
fn real_vocabularies_give_the_ids_of_their_own_tokenizers() {
    let Some(folder) = env::var_os("TALKA_VOCABULARIES") else { return };
    for name in ["llama-bpe", "llama-spm", "phi-3", "qwen2", "gpt-2", "deepseek-coder"] {
        let path = Path::new(&folder).join(format!("ggml-vocab-{name}.gguf"));
        let read = |end: &str| {
            fs::read_to_string(format!("{}{end}", path.display())).expect("a file beside it")
        };
        let model = Model::open(ModelSource::Gguf(path.clone())).expect(name);
        let inputs = read(".inp");
        let (inputs, _) = inputs.rsplit_once("\n__ggml_vocab_test__").expect("a text");
        let inputs = inputs.split("\n__ggml_vocab_test__\n");
        for (text, expected) in inputs.zip(read(".out").lines()) {
            let found = model.tokenizer().encode(text, false).expect("encodes");
            let found: Vec<String> = found.iter().map(u32::to_string).collect();
            let expected: Vec<&str> = expected.split_whitespace().collect();
            assert_eq!(found, expected, "{name}: {text:?}");
        }
    }
}
