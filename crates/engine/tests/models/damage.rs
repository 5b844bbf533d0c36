//! Files and calls that are wrong: each gets an error that says so, and changes nothing.

use crate::support::{Copy, fixture, kernels, logits, open, pipeline, span, try_open};
use proptest::proptest;
use serde_json::json;
use std::{ops::ControlFlow, sync::LazyLock};
use talka_engine::{
    GenerateError, LogitsWanted, Model, ModelError, Pipeline, Sampler, SamplingParams, StageError,
    StageInput, generate,
};

/// The message of opening a damaged model and loading all its layers.
fn message(damage: impl FnOnce(&Copy)) -> String {
    let copy = Copy::of("llama");
    damage(&copy);
    let loaded = try_open(copy.path())
        .and_then(|model| model.stage(span(0, model.shape().layers), &kernels()).map(drop));
    loaded.expect_err("damaged").to_string()
}

#[test]
fn missing_and_misshapen_tensors_are_named_with_both_shapes() {
    const NAME: &str = "model.layers.2.mlp.up_proj.weight";
    let missing = message(|copy| copy.edit_tensors(|t| drop(t.remove(NAME))));
    assert_eq!(missing, format!("tensor {NAME} is missing, expected with shape [160, 64]"));

    let turned = message(|copy| {
        copy.edit_tensors(|t| t.get_mut(NAME).expect("present").shape.reverse());
    });
    assert_eq!(
        turned,
        format!("tensor {NAME} has shape [64, 160], expected [160, 64] by config.json")
    );

    let integers = message(|copy| {
        copy.edit_tensors(|t| t.get_mut(NAME).expect("present").dtype = safetensors::Dtype::I32);
    });
    assert_eq!(
        integers,
        format!(
            "tensor {NAME} is stored as I32, expected one of F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, \
             Q2_K, Q3_K, Q4_K, Q5_K, Q6_K"
        )
    );
}

/// A stage needs its own tensors only.
#[test]
fn what_a_stage_does_not_hold_it_does_not_miss() {
    let copy = Copy::of("llama");
    copy.edit_tensors(|t| drop(t.remove("model.layers.2.mlp.up_proj.weight")));
    let model = open(copy.path());
    assert!(model.stage(span(0, 2), &kernels()).is_ok());
    assert!(model.stage(span(3, 4), &kernels()).is_ok());
    assert!(model.stage(span(1, 3), &kernels()).is_err());
    let error = model.stage(span(3, 5), &kernels()).expect_err("no layer 4");
    assert_eq!(error.to_string(), "the model has layers 0..4, asked for 3..5");
}

#[test]
fn absent_files_and_wrong_settings_are_named() {
    let check = |damage: fn(&Copy), expected: &str| {
        let found = message(damage);
        assert!(found.contains(expected), "found {found:?}, expected {expected:?}");
    };
    check(|c| c.remove("config.json"), "has no config.json; expected a folder");
    check(|c| c.remove("tokenizer.json"), "has no tokenizer.json");
    check(|c| c.remove("model.safetensors"), "has no model.safetensors");
    check(|c| c.write("config.json", "[1]"), "config.json does not parse");
    check(|c| c.write("tokenizer.json", "{}"), "tokenizer.json does not parse");
    check(
        |c| c.edit_json("config.json", |f| drop(f.insert("model_type".into(), json!("mamba")))),
        "model_type \"mamba\", supported are: llama",
    );
    check(
        |c| c.edit_json("config.json", |f| drop(f.insert("vocab_size".into(), json!(319)))),
        "token \"w319\" with id 319, expected ids below vocab_size = 319",
    );
    check(
        |c| c.edit_json("config.json", |f| drop(f.remove("hidden_size"))),
        "config.json lacks hidden_size",
    );
    check(
        |c| c.edit_json("config.json", |f| drop(f.insert("num_hidden_layers".into(), json!(0)))),
        "model shape has layers 0",
    );
    check(
        |c| c.write("chat_template.jinja", "{% if %}"),
        "the model's chat template does not parse",
    );
}

/// A fuzzer's find: every expert of every layer was looked up, for minutes.
#[test]
fn experts_are_bounded_over_all_layers() {
    let found = message(|copy| {
        copy.edit_json("config.json", |fields| {
            fields.insert("model_type".into(), json!("qwen3_moe"));
            fields.insert("num_hidden_layers".into(), json!(4096));
            fields.insert("num_experts".into(), json!(4096));
        });
    });
    let expected = "num_experts = 4096, expected 1 to 16 in a model of 4096 layers";
    assert!(found.contains(expected), "{found}");
}

#[test]
fn an_index_may_not_leave_its_folder_or_lie() {
    let index = |shard: &str| {
        let index = json!({"weight_map": {"model.norm.weight": shard}});
        message(|copy| copy.write("model.safetensors.index.json", index.to_string()))
    };
    for wrong in ["../model.safetensors", "/etc/passwd", "a\\b.safetensors", "model.bin", ""] {
        assert!(index(wrong).starts_with("the shard index names"), "{wrong}");
    }
    assert!(index("absent.safetensors").contains("has no absent.safetensors"));
    let lying = message(|copy| {
        let index = json!({"weight_map": {"no.such": "model.safetensors"}});
        copy.write("model.safetensors.index.json", index.to_string());
    });
    assert_eq!(
        lying,
        "the shard index places tensor no.such in model.safetensors, which does not hold it"
    );
}

#[test]
fn truncated_files_and_hostile_headers_are_refused() {
    let with_weights = |change: &dyn Fn(&mut Vec<u8>)| {
        message(|copy| {
            let mut bytes = copy.read("model.safetensors");
            change(&mut bytes);
            copy.write("model.safetensors", bytes);
        })
    };
    let length = |n: u64| move |bytes: &mut Vec<u8>| bytes[..8].copy_from_slice(&n.to_le_bytes());
    for found in [
        with_weights(&|bytes| bytes.truncate(bytes.len() - 1)),
        with_weights(&|bytes| bytes.truncate(1000)),
        with_weights(&|bytes| bytes.truncate(5)),
        with_weights(&length(u64::MAX)),
        with_weights(&length(1 << 40)),
        with_weights(&length(90_000_000)),
        with_weights(&length(0)),
        with_weights(&|bytes| bytes[20] = b'{'),
    ] {
        assert!(
            found.starts_with("model.safetensors is truncated or no safetensors file: "),
            "{found}"
        );
    }
    assert!(with_weights(&|bytes| bytes.clear()).contains("model.safetensors"));
}

proptest! {
    /// No header opens by accident, and none panics.
    #[test]
    fn a_header_with_any_byte_changed_opens_or_is_refused(place in 0_usize..4000, byte: u8) {
        static COPY: LazyLock<Copy> = LazyLock::new(|| Copy::of("llama"));
        static WHOLE: LazyLock<Vec<u8>> = LazyLock::new(|| COPY.read("model.safetensors"));
        let mut bytes = WHOLE.clone();
        bytes[place] = byte;
        COPY.write("model.safetensors", bytes);
        if let Ok(model) = try_open(COPY.path()) {
            let _ = model.stage(span(0, 4), &kernels());
        }
    }
}

/// A refused call leaves the cache as it was: the next good call gives what it would have given.
#[test]
fn refused_calls_change_nothing() {
    let model = open(&fixture("llama"));
    let mut stage = model.stage(span(0, 4), &kernels()).expect("a stage");
    let mut cache = stage.new_cache(span(0, 4), 4);
    let good = [5, 6, 7];
    let mut run = |tokens: &[u32], cache: &mut _| {
        stage.run(StageInput::Tokens(tokens), cache, LogitsWanted::Last)
    };
    let expected = logits(run(&good, &mut cache).expect("runs"));
    let full = StageError::CacheFull { len: 3, new: 2, max: 4 };
    assert_eq!(run(&[8, 9], &mut cache), Err(full));
    let unknown = StageError::UnknownToken { found: 320, vocab: 320 };
    assert_eq!(run(&[320], &mut cache), Err(unknown));
    assert_eq!(run(&[], &mut cache), Err(StageError::NoInput));
    assert_eq!(cache.len(), 3);
    cache.truncate(2);
    assert!(logits(run(&good[2..], &mut cache).expect("runs")) == expected);
}

#[test]
fn inputs_and_caches_that_belong_elsewhere_are_refused() {
    let model = open(&fixture("llama"));
    let mut stage = model.stage(span(1, 3), &kernels()).expect("a stage");
    let mut check = |input: StageInput<'_>, cache: &mut _, expected: &str| {
        let found = stage.run(input, cache, LogitsWanted::None).expect_err(expected);
        assert_eq!(found.to_string(), expected);
    };
    let row = [0.0; 64];
    let new_cache = |a, b| {
        let stage = model.stage(span(1, 3), &kernels()).expect("a stage");
        stage.new_cache(span(a, b), 8)
    };
    check(
        StageInput::Tokens(&[1]),
        &mut new_cache(1, 3),
        "layers 1..3 take hidden states as input, found tokens",
    );
    check(
        StageInput::Hidden(&row[..63]),
        &mut new_cache(1, 2),
        "input has 63 numbers, expected a positive multiple of the hidden width 64",
    );
    for (a, b) in [(0, 3), (2, 4), (3, 4), (0, u32::MAX)] {
        let expected = format!("the cache is for layers {a}..{b}, this stage holds 1..3");
        check(StageInput::Hidden(&row), &mut new_cache(a, b), &expected);
    }
    let tied = open(&fixture("llama-tied")).stage(span(1, 3), &kernels()).expect("a stage");
    check(
        StageInput::Hidden(&row),
        &mut tied.new_cache(span(1, 3), 8),
        "the cache has room for 2 layers of 4 heads of 16, expected 2 layers of 2 heads of 16: \
         it was made by another stage",
    );
    let small = model.stage(span(1, 2), &kernels()).expect("a stage");
    check(
        StageInput::Hidden(&row),
        &mut small.new_cache(span(1, 3), 8),
        "the cache has room for 1 layers of 2 heads of 16, expected 2 layers of 2 heads of 16: \
         it was made by another stage",
    );
}

fn answer(pipeline: &mut Pipeline, prompt: &[u32], max: u32) -> Result<u32, GenerateError> {
    let mut sampler = Sampler::new(SamplingParams::greedy(), prompt);
    let mut count = 0;
    generate(pipeline, prompt, &mut sampler, &[], max, |_| {
        count += 1;
        ControlFlow::Continue(())
    })?;
    Ok(count)
}

#[test]
fn a_generation_ends_with_its_context_and_a_longer_prompt_is_refused() {
    let model = open(&fixture("llama"));
    let context = model.shape().context;
    let full = vec![7; context as usize];
    let error = answer(&mut pipeline(&model, 1), &full, 1).expect_err("no room");
    assert_eq!(
        error.to_string(),
        "the prompt has 256 tokens, the context is 256 and must hold one more"
    );
    assert_eq!(answer(&mut pipeline(&model, 1), &full[..250], 100), Ok(6));
}

#[test]
fn stages_must_be_a_whole_model_in_order() {
    let model = open(&fixture("llama"));
    let make = |spans: &[(u32, u32)]| {
        let stages = spans.iter().map(|(a, b)| load(&model, *a, *b)).collect();
        Pipeline::new(stages, 8).map(drop).map_err(|e| e.to_string())
    };
    assert_eq!(make(&[(0, 2), (2, 4)]), Ok(()));
    let gap = "stage 1 covers layers 3..4, expected a stage that starts at layer 2";
    assert_eq!(make(&[(0, 2), (3, 4)]), Err(gap.into()));
    let short = "the stages end at layer 2, before the model does; expected all its layers";
    assert_eq!(make(&[(0, 2)]), Err(short.into()));
    assert!(make(&[]).is_err());
}

fn load(model: &Model, start: u32, end: u32) -> talka_engine::Stage {
    let stage: Result<_, ModelError> = model.stage(span(start, end), &kernels());
    stage.expect("a stage")
}

#[test]
fn numbers_that_are_none_are_refused_with_their_tensor() {
    for (name, at) in [("model.layers.1.mlp.down_proj.weight", 4_000), ("model.norm.weight", 12)] {
        let copy = Copy::of("llama");
        copy.edit_tensors(|tensors| {
            let bytes = &mut tensors.get_mut(name).expect("present").bytes;
            bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        });
        let model = open(copy.path());
        let error = model.stage(model.shape().span(), &kernels()).map(drop).expect_err("NaN");
        assert!(error.to_string().starts_with(&format!("tensor {name} holds a number")), "{error}");
    }
}

/// The message of opening the model after its table of tensors was changed in place.
fn with_table(change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) -> String {
    message(|copy| {
        let bytes = copy.read("model.safetensors");
        let (length, rest) = bytes.split_first_chunk().expect("a length");
        let (table, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
        let mut table = serde_json::from_slice(table).expect("a table");
        change(&mut table);
        let table = serde_json::to_vec(&table).expect("JSON");
        let length = (table.len() as u64).to_le_bytes();
        copy.write("model.safetensors", [&length, &table[..], data].concat());
    })
}

#[test]
fn tensors_that_overlap_or_leave_gaps_are_refused() {
    const NAME: &str = "model.norm.weight";
    const HEADER: &str = "model.safetensors is truncated or no safetensors file: ";
    let moved = |change: fn(u64, u64) -> [u64; 2]| {
        with_table(|table| {
            let place = &mut table[NAME]["data_offsets"];
            let at = |n: usize| place[n].as_u64().expect("a number");
            *place = json!(change(at(0), at(1)));
        })
    };
    for found in [
        moved(|start, end| [start - 64, end - 64]),
        moved(|start, end| [start - 64, end]),
        moved(|start, end| [start, end + 64]),
        moved(|start, end| [end, start]),
        moved(|_, _| [u64::MAX - 255, u64::MAX]),
        with_table(|table| table[NAME]["shape"] = json!([65])),
        with_table(|table| table[NAME]["shape"] = json!([u64::MAX, 2])),
        with_table(|table| table[NAME]["dtype"] = json!("F7")),
        with_table(|table| drop(table.remove(NAME))),
    ] {
        assert!(found.starts_with(HEADER), "{found}");
    }
}

#[test]
fn shards_may_not_hold_a_tensor_twice_nor_the_index_be_a_shard() {
    const INDEX: &str = "model.safetensors.index.json";
    let itself = message(|copy| {
        copy.write(INDEX, json!({"weight_map": {"model.norm.weight": INDEX}}).to_string());
    });
    assert!(itself.starts_with(&format!("the shard index names {INDEX:?}")), "{itself}");
    let twice = message(|copy| {
        copy.write("again.safetensors", copy.read("model.safetensors"));
        let map = json!({"model.norm.weight": "model.safetensors", "lm_head.weight": "again.safetensors"});
        copy.write(INDEX, json!({"weight_map": map}).to_string());
    });
    assert!(twice.ends_with("is stored twice"), "{twice}");
    let neither = message(|copy| {
        copy.write("odd.safetensors", copy.read("config.json"));
        copy.write(INDEX, json!({"weight_map": {"x": "odd.safetensors"}}).to_string());
    });
    assert!(
        neither.starts_with("odd.safetensors is truncated or no safetensors file"),
        "{neither}"
    );
}

#[test]
fn what_a_tokenizer_puts_around_a_text_must_be_tokens_of_the_model() {
    let found = message(|copy| {
        copy.edit_json("tokenizer.json", |fields| {
            let special = json!({"id": "<s>", "ids": [320], "tokens": ["<s>"]});
            let single = json!([{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]);
            let around = json!({
                "type": "TemplateProcessing", "single": single, "pair": single,
                "special_tokens": {"<s>": special},
            });
            fields.insert("post_processor".into(), around);
        });
    });
    assert!(found.contains("token \"<s>\" with id 320, expected ids below"), "{found}");
}
