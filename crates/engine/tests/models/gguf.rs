//! The reference models as GGUF files, written as llama.cpp's converter writes them.

use crate::gguf_file::{Field, Writer, open_bytes};
use crate::support::{
    Stored, all_logits, fixture, greedy, hidden, kernels, pipeline, span, tensors,
};
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path};
use talka_engine::{LogitsWanted, Model, ModelSource, StageInput};

/// The families that a GGUF file can hold, by fixture and llama.cpp's name.
const FAMILIES: [(&str, &str); 12] = [
    ("llama", "llama"),
    ("llama-tied", "llama"),
    ("llama3-rope", "llama"),
    ("mixtral", "llama"),
    ("qwen2", "qwen2"),
    ("qwen3", "qwen3"),
    ("qwen3-moe", "qwen3moe"),
    ("gemma2", "gemma2"),
    ("gemma3", "gemma3"),
    ("phi3", "phi3"),
    ("olmo2", "olmo2"),
    ("gpt2", "gpt2"),
];

/// What llama.cpp calls a tensor of a checkpoint.
fn rename(name: &str, family: &str) -> String {
    let name = name.trim_start_matches("transformer.").trim_start_matches("model.");
    let name = name.replace("layers.", "blk.");
    let name = if let Some(rest) = name.strip_prefix("h.") { format!("blk.{rest}") } else { name };
    let norms: &[(&str, &str)] = match family {
        "gemma2" | "gemma3" => &[
            ("pre_feedforward_layernorm", "ffn_norm"),
            ("post_attention_layernorm", "post_attention_norm"),
        ],
        "olmo2" => &[("post_attention_layernorm", "post_attention_norm")],
        _ => &[("post_attention_layernorm", "ffn_norm")],
    };
    let others = [
        ("embed_tokens", "token_embd"),
        ("lm_head", "output"),
        ("input_layernorm", "attn_norm"),
        ("post_feedforward_layernorm", "post_ffw_norm"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.qkv_proj", "attn_qkv"),
        ("mlp.gate_up_proj", "ffn_up"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("block_sparse_moe.gate", "ffn_gate_inp"),
        ("mlp.gate.", "ffn_gate_inp."),
        ("attn.c_attn", "attn_qkv"),
        ("attn.c_proj", "attn_output"),
        ("mlp.c_fc", "ffn_up"),
        ("mlp.c_proj", "ffn_down"),
        ("ln_1", "attn_norm"),
        ("ln_2", "ffn_norm"),
        ("ln_f", "output_norm"),
        ("wte", "token_embd"),
        ("wpe", "position_embd"),
    ];
    let all = norms.iter().chain(&others);
    let name = all.fold(name, |name, (from, to)| name.replace(from, to));
    if name == "norm.weight" { "output_norm.weight".into() } else { name }
}

/// Rows of each head in pairs, as llama.cpp's converter leaves them for the first llamas.
fn interleave(rows: &[f32], heads: usize, width: usize) -> Vec<f32> {
    let mut out = Vec::new();
    for head in rows.chunks_exact(rows.len() / heads) {
        let half = head.len() / width / 2;
        for pair in 0..half {
            for row in [pair, pair + half] {
                out.extend_from_slice(&head[row * width..(row + 1) * width]);
            }
        }
    }
    out
}

/// The experts of a layer one after the other.
fn stack(stored: &BTreeMap<String, Stored>, writer: &mut Writer) -> Vec<String> {
    let mut used = Vec::new();
    let kinds = [("gate_proj", "gate"), ("up_proj", "up"), ("down_proj", "down")]
        .into_iter()
        .chain([("w1", "gate"), ("w3", "up"), ("w2", "down")]);
    for (kind, to) in kinds {
        for layer in 0..8 {
            let mut all = Vec::new();
            let mut shape = Vec::new();
            for expert in 0..16 {
                let name = ["mlp", "block_sparse_moe"]
                    .map(|at| format!("model.layers.{layer}.{at}.experts.{expert}.{kind}.weight"))
                    .into_iter()
                    .find(|name| stored.contains_key(name));
                let Some(name) = name else { break };
                all.extend(stored[&name].f32s());
                shape = vec![expert + 1, stored[&name].shape[0], stored[&name].shape[1]];
                used.push(name);
            }
            if !all.is_empty() {
                writer.tensors.push((format!("blk.{layer}.ffn_{to}_exps.weight"), shape, all));
            }
        }
    }
    used
}

/// A reference model in GGUF.
fn converted(folder: &Path, name: &str) -> Writer {
    let family = folder.file_name().expect("a name").to_str().expect("text");
    let config: Value =
        serde_json::from_slice(&fs::read(folder.join("config.json")).expect("a file"))
            .expect("JSON");
    let mut writer = Writer::default();
    writer.set("general.architecture", Field::Text(name.into()));
    let number = |fields: &[&str]| fields.iter().find_map(|field| config[*field].as_u64());
    let mut put = |key: &str, fields: &[&str]| {
        if let Some(n) = number(fields) {
            writer.set(&format!("{name}.{key}"), Field::U32(n as u32));
        }
    };
    put("block_count", &["num_hidden_layers", "n_layer"]);
    put("context_length", &["max_position_embeddings", "n_positions"]);
    put("embedding_length", &["hidden_size", "n_embd"]);
    put("attention.head_count", &["num_attention_heads", "n_head"]);
    put("attention.head_count_kv", &["num_key_value_heads"]);
    put("attention.key_length", &["head_dim"]);
    put("attention.sliding_window", &["sliding_window"]);
    put("expert_count", &["num_local_experts"]);
    put("expert_used_count", &["num_experts_per_tok"]);
    put("expert_feed_forward_length", &["moe_intermediate_size"]);
    let hidden = number(&["hidden_size", "n_embd"]).expect("a width") as usize;
    let ffn = number(&["intermediate_size"]).unwrap_or(4 * hidden as u64);
    writer.set(&format!("{name}.feed_forward_length"), Field::U32(ffn as u32));
    let mut float = |key: &str, value: &Value| {
        if let Some(x) = value.as_f64() {
            writer.set(&format!("{name}.{key}"), Field::F32(x as f32));
        }
    };
    float("attention.layer_norm_rms_epsilon", &config["rms_norm_eps"]);
    float("attention.layer_norm_epsilon", &config["layer_norm_epsilon"]);
    float("attn_logit_softcapping", &config["attn_logit_softcapping"]);
    float("final_logit_softcapping", &config["final_logit_softcapping"]);
    let rope = &config["rope_parameters"];
    let theta = [&rope["rope_theta"], &rope["full_attention"]["rope_theta"]];
    float("rope.freq_base", theta.into_iter().find(|x| x.is_number()).unwrap_or(&Value::Null));
    words(&mut writer, 320);

    let stored = tensors(&folder.join("model.safetensors"));
    let used = stack(&stored, &mut writer);
    let heads = number(&["num_attention_heads", "n_head"]).expect("heads") as usize;
    let kv_heads = number(&["num_key_value_heads"]).unwrap_or(heads as u64) as usize;
    for (from, tensor) in stored.iter().filter(|(from, _)| !used.contains(from)) {
        let to = rename(from, family);
        let (mut shape, mut numbers) = (tensor.shape.clone(), tensor.f32s());
        if name == "llama" && to.contains("attn_q.") {
            numbers = interleave(&numbers, heads, hidden);
        } else if name == "llama" && to.contains("attn_k.") {
            numbers = interleave(&numbers, kv_heads, hidden);
        }
        if family.starts_with("gemma") && to.contains("norm") {
            numbers.iter_mut().for_each(|weight| *weight += 1.0);
        }
        let conv1d = ["c_attn.weight", "c_proj.weight", "c_fc.weight"];
        if family == "gpt2" && conv1d.iter().any(|end| from.ends_with(end)) {
            let (k, n) = (shape[0], shape[1]);
            numbers = (0..n * k).map(|at| numbers[at % k * n + at / k]).collect();
            shape = vec![n, k];
        }
        writer.tensors.push((to, shape, numbers));
    }
    if rope["rope_type"] == "llama3" {
        writer.tensors.push(("rope_freqs.weight".into(), vec![8], llama3_factors(rope)));
    }
    writer
}

/// What llama.cpp's converter makes of llama3's bands: a divisor of each pair's frequency.
fn llama3_factors(rope: &Value) -> Vec<f32> {
    let number = |field: &str| rope[field].as_f64().expect("a number");
    let (factor, low, high) =
        (number("factor"), number("low_freq_factor"), number("high_freq_factor"));
    let original = number("original_max_position_embeddings");
    let factors = (0..8).map(|pair| {
        let frequency = number("rope_theta").powf(-f64::from(pair) / 8.0);
        let wavelength = std::f64::consts::TAU / frequency;
        if wavelength < original / high {
            1.0
        } else if wavelength > original / low {
            factor
        } else {
            let smooth = (original / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    });
    factors.map(|factor| factor as f32).collect()
}

/// A vocabulary of `count` words, as sentencepiece has them.
fn words(writer: &mut Writer, count: usize) {
    let tokens = (0..count).map(|n| if n == 0 { "<unk>".into() } else { format!("w{n}") });
    writer.set("tokenizer.ggml.model", Field::Text("llama".into()));
    writer.set("tokenizer.ggml.tokens", Field::Texts(tokens.collect()));
    writer.set("tokenizer.ggml.scores", Field::Floats(vec![0.0; count]));
    let kinds = (0..count).map(|n| if n == 0 { 2 } else { 1 });
    writer.set("tokenizer.ggml.token_type", Field::Ints(kinds.collect()));
    writer.set("tokenizer.ggml.unknown_token_id", Field::U32(0));
    writer.set("tokenizer.ggml.eos_token_id", Field::U32(2));
    writer.set("tokenizer.ggml.add_bos_token", Field::Bool(false));
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    let largest = expected.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
    let pairs = found.iter().zip(expected);
    let worst = pairs.fold(0.0_f32, |max, (a, b)| max.max((a - b).abs()));
    assert!(worst <= 1e-4 * largest, "{what}: off by {worst}, largest is {largest}");
}

#[test]
fn every_family_computes_from_gguf_what_transformers_computed() {
    for (family, name) in FAMILIES {
        let folder = fixture(family);
        let model = converted(&folder, name).open().unwrap_or_else(|e| panic!("{family}: {e}"));
        let reference = tensors(&folder.join("reference.safetensors"));
        let tokens = &reference["tokens"].ids()[..reference["tokens"].shape[1]];
        let expected = reference["logits"].f32s();
        let expected = &expected[..expected.len() / reference["tokens"].shape[0]];
        assert_close(&all_logits(&model, tokens), expected, family);
        let ids = greedy(&mut pipeline(&model, 2), &tokens[..8], 32);
        assert_eq!(ids, reference["greedy"].ids(), "{family}");
    }
}

#[test]
fn a_slice_of_a_gguf_file_runs_alone() {
    let folder = fixture("qwen3");
    let model = converted(&folder, "qwen3").open().expect("a model");
    let reference = tensors(&folder.join("reference.safetensors"));
    let row = |name: &str| {
        let all = reference[name].f32s();
        all[..all.len() / reference[name].shape[0]].to_vec()
    };
    let mut stage = model.stage(span(1, 3), &kernels()).expect("a stage");
    let mut cache = stage.new_cache(span(1, 3), 64);
    let input = row("hidden.1");
    let output = stage.run(StageInput::Hidden(&input), &mut cache, LogitsWanted::None);
    assert_close(&hidden(output.expect("runs")), &row("hidden.3"), "layers 1..3");
}

#[test]
fn both_versions_and_split_files_are_read() {
    let folder = fixture("llama");
    let mut writer = converted(&folder, "llama");
    let whole = writer.open().expect("version 3");
    writer.version = 2;
    let tokens: Vec<u32> = (3..20).collect();
    let expected = all_logits(&whole, &tokens);
    assert!(all_logits(&writer.open().expect("version 2"), &tokens) == expected);

    let place = tempfile::tempdir().expect("a folder");
    let path = |part: usize| place.path().join(format!("m-{part:05}-of-00002.gguf"));
    let tensors = writer.tensors.split_off(writer.tensors.len() / 2);
    let mut second = Writer { tensors, ..Writer::default() };
    for (part, file) in [&mut writer, &mut second].into_iter().enumerate() {
        file.set("split.no", Field::U32(part as u32));
        file.set("split.count", Field::U32(2));
        fs::write(path(part + 1), file.bytes().0).expect("written");
    }
    let open = |part| Model::open(ModelSource::Gguf(path(part)));
    assert!(all_logits(&open(1).expect("both parts"), &tokens) == expected);
    assert!(open(2).expect_err("the second").to_string().contains("name the first part"));
    fs::remove_file(path(2)).expect("removed");
    assert!(open(1).expect_err("one part").to_string().contains("m-00002-of-00002.gguf"));
}

#[test]
fn damage_is_named() {
    let writer = converted(&fixture("llama"), "llama");
    let refused = |change: &dyn Fn(&mut Writer), expected: &str| {
        let mut writer = converted(&fixture("llama"), "llama");
        change(&mut writer);
        let opened = writer.open().and_then(|model| model.check(model.shape().span()));
        let error = opened.expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused(&|w| w.version = 1, "GGUF version 1, expected 2 or 3");
    refused(&|w| w.version = 3_u32.swap_bytes(), "big-endian");
    refused(&|w| w.set("general.architecture", Field::Text("x".into())), "twice");
    refused(&|w| w.metadata[0].1 = Field::Text("rwkv7".into()), "rwkv7");
    refused(&|w| w.metadata[1].1 = Field::Text("four".into()), "expected");
    refused(&|w| w.tensors.push(w.tensors[0].clone()), "twice");
    refused(&|w| drop(w.tensors.remove(3)), "missing");
    let (bytes, header) = writer.bytes();
    assert!(open_bytes(b"GGML").expect_err("magic").to_string().contains("no GGUF file"));
    for length in (0..header).step_by(97).chain([bytes.len() - 1]) {
        let error = open_bytes(&bytes[..length]).map(drop).expect_err("truncated").to_string();
        assert!(
            length == 0 || error.contains("download it again") || error.contains("GGUF"),
            "{error}"
        );
    }
}
