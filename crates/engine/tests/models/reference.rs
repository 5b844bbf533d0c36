//! Tiny random models of every family, computed by transformers with `fixtures/reference` in f32.

use crate::support::{
    Copy, Stored, all_logits, fixture, greedy, hidden, kernels, logits, open, pipeline, span,
    tensors,
};
use half::{bf16, f16};
use safetensors::Dtype;
use serde_json::json;
use std::{collections::BTreeMap, path::Path};
use talka_base::Precision;
use talka_engine::{
    GenerateError, LogitsWanted, Model, ModelKind, ModelSource, Pooling, Sampler, SamplingParams,
    StageError, StageInput, StageOutput, embed::embed, generate, quant::Encoding,
};

/// Models that continue text.
const DECODERS: [&str; 15] = [
    "llama",
    "llama-tied",
    "llama3-rope",
    "llama-linear-rope",
    "llama-yarn",
    "mistral-window",
    "mixtral",
    "qwen2",
    "qwen3",
    "qwen3-moe",
    "gemma2",
    "gemma3",
    "phi3",
    "olmo2",
    "gpt2",
];

/// And one that turns it into vectors.
const ALL: [&str; 16] = {
    let mut all = ["bert"; 16];
    let mut index = 0;
    while index < DECODERS.len() {
        all[index] = DECODERS[index];
        index += 1;
    }
    all
};

/// Those whose configuration older programs wrote otherwise.
const LLAMAS: [&str; 5] = ["llama", "llama-tied", "llama3-rope", "llama-linear-rope", "llama-yarn"];

/// What transformers computed for one folder.
struct Reference(BTreeMap<String, Stored>);

impl Reference {
    fn of(family: &str) -> Self {
        Self::in_folder(&fixture(family))
    }

    fn in_folder(folder: &Path) -> Self {
        Self(tensors(&folder.join("reference.safetensors")))
    }

    /// The rows of `tokens` `[B, T]`.
    fn sequences(&self) -> Vec<Vec<u32>> {
        let tokens = &self.0["tokens"];
        tokens.ids().chunks_exact(tokens.shape[1]).map(<[u32]>::to_vec).collect()
    }

    /// Row `row` of a tensor `[B, ...]`.
    fn row(&self, name: &str, row: usize) -> Vec<f32> {
        let tensor = &self.0[name];
        let values = tensor.f32s();
        let len = values.len() / tensor.shape[0];
        values[row * len..(row + 1) * len].to_vec()
    }
}

/// Within 1e-4 of the largest absolute reference value.
fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    let largest = expected.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
    let pairs = found.iter().zip(expected);
    let worst = pairs.fold(0.0_f32, |max, (a, b)| max.max((a - b).abs()));
    assert!(worst <= 1e-4 * largest, "{what}: off by {worst}, largest is {largest}");
}

/// Every test of this file that any folder can be put to.
fn check(folder: &Path) {
    check_hidden_states(folder);
    if open(folder).kind() == ModelKind::Decoder {
        check_logits(folder);
        check_greedy(folder);
        check_cuts(folder);
    } else {
        check_embeddings(folder);
    }
}

/// Goal: models of other seeds and sizes than those of `fixtures` pass as well.
/// Method: `make_fixtures.py` writes them anywhere, and `TALKA_REFERENCE_MODELS` says where: one or more
/// folders of models, with colons between.
#[test]
fn models_of_other_seeds_and_sizes_equal_those_of_transformers() {
    let Some(places) = std::env::var_os("TALKA_REFERENCE_MODELS") else {
        eprintln!("not run: TALKA_REFERENCE_MODELS names no folders made by make_fixtures.py");
        return;
    };
    for place in std::env::split_paths(&places) {
        for entry in std::fs::read_dir(place).expect("a folder of models") {
            let folder = entry.expect("an entry").path();
            eprintln!("{}", folder.display());
            check(&folder);
        }
    }
}

fn check_logits(folder: &Path) {
    let (model, reference) = (open(folder), Reference::in_folder(folder));
    for (row, tokens) in reference.sequences().iter().enumerate() {
        let expected = reference.row("logits", row);
        assert_close(&all_logits(&model, tokens), &expected, &folder.display().to_string());
    }
}

#[test]
fn logits_equal_those_of_transformers() {
    DECODERS.iter().for_each(|family| check_logits(&fixture(family)));
}

/// One layer at a time, within one stage: sub-spans with caches of their own.
fn check_hidden_states(folder: &Path) {
    let (model, reference) = (open(folder), Reference::in_folder(folder));
    let layers = model.shape().layers;
    let mut stage = model.stage(span(0, layers), &kernels()).expect("a stage");
    for (row, tokens) in reference.sequences().iter().enumerate() {
        let mut state = Vec::new();
        for layer in 0..layers {
            let mut cache = stage.new_cache(span(layer, layer + 1), 48);
            let input = match layer {
                0 => StageInput::Tokens(tokens),
                _ => StageInput::Hidden(&state),
            };
            // The last comes after the final norm, as transformers returns it.
            let output = stage.run(input, &mut cache, LogitsWanted::None).expect("runs");
            state = hidden(output);
            let name = format!("hidden.{}", layer + 1);
            let what = format!("{} {name}", folder.display());
            assert_close(&state, &reference.row(&name, row), &what);
        }
    }
}

#[test]
fn hidden_states_after_every_layer_equal_those_of_transformers() {
    ALL.iter().for_each(|family| check_hidden_states(&fixture(family)));
}

fn check_greedy(folder: &Path) {
    let (model, reference) = (open(folder), Reference::in_folder(folder));
    let prompt = &reference.sequences()[0][..8];
    for stages in [1, 2, 4] {
        let ids = greedy(&mut pipeline(&model, stages), prompt, 32);
        assert_eq!(ids, reference.0["greedy"].ids(), "{} in {stages} stages", folder.display());
    }
}

#[test]
fn greedy_ids_equal_those_of_transformers_whole_and_cut() {
    DECODERS.iter().for_each(|family| check_greedy(&fixture(family)));
}

fn check_embeddings(folder: &Path) {
    let (model, reference) = (open(folder), Reference::in_folder(folder));
    for stages in [1, 2, 3] {
        let mut pipeline = pipeline(&model, stages);
        for (row, tokens) in reference.sequences().iter().enumerate() {
            let found = embed(&mut pipeline, tokens, Pooling::Mean).expect("an embedding");
            let what = format!("{} in {stages} stages", folder.display());
            assert_close(&found, &reference.row("embedding", row), &what);
        }
    }
}

#[test]
fn embeddings_equal_those_of_transformers_whole_and_cut() {
    check_embeddings(&fixture("bert"));
}

#[test]
fn an_encoder_takes_a_text_whole_and_tells_no_next_token() {
    let model = open(&fixture("bert"));
    assert_eq!(model.kind(), ModelKind::Encoder);
    let mut pipeline = pipeline(&model, 2);
    let mut sampler = Sampler::new(SamplingParams::greedy(), &[5]);
    let go_on = |_| std::ops::ControlFlow::Continue(());
    let refused = generate(&mut pipeline, &[5, 6], &mut sampler, &[], 3, go_on);
    assert_eq!(refused, Err(GenerateError::Encoder));
    let refused = pipeline.run(&[7], LogitsWanted::None);
    assert_eq!(refused, Err(StageError::TextInPieces { len: 2 }));
    // The next text is another.
    assert!(embed(&mut pipeline, &[7], Pooling::Cls).is_ok());
}

/// In one piece, in uneven pieces, token by token, in spans: the same bits.
fn check_cuts(folder: &Path) {
    let (model, reference) = (open(folder), Reference::in_folder(folder));
    let tokens = &reference.sequences()[0];
    let whole = all_logits(&model, tokens);
    let vocab = model.shape().vocab as usize;
    for (stages, piece) in [(1, 1), (1, 7), (2, 48), (3, 5), (4, 1)] {
        let mut pipeline = pipeline(&model, stages);
        let pieces = tokens
            .chunks(piece)
            .map(|piece| logits(pipeline.run(piece, LogitsWanted::All).expect("runs")));
        let cut: Vec<f32> = pieces.flatten().collect();
        let what = folder.display();
        assert!(cut == whole, "{what}: pieces of {piece}, {stages} stages");
        pipeline.truncate(40);
        let last = logits(pipeline.run(&tokens[40..], LogitsWanted::Last).expect("runs"));
        assert!(last == whole[47 * vocab..], "{what}: rerun from 40");
    }
}

#[test]
fn no_cut_changes_a_bit() {
    DECODERS.iter().for_each(|family| check_cuts(&fixture(family)));
}

/// A prompt longer than a stage takes at once.
#[test]
fn a_long_prompt_gives_the_same_bits_in_one_call_and_in_many() {
    let copy = Copy::of("llama-tied");
    copy.edit_json("config.json", |config| {
        config.insert("max_position_embeddings".into(), json!(700));
    });
    let model = open(copy.path());
    let tokens: Vec<u32> = (0..600).map(|n| (n * 7919 + 13) % 320).collect();
    let whole = all_logits(&model, &tokens);
    let vocab = model.shape().vocab as usize;
    for (stages, piece) in [(1, 100), (2, 599), (4, 600)] {
        let mut pipeline = pipeline(&model, stages);
        let pieces = tokens.chunks(piece);
        let ends: Vec<Vec<f32>> = pieces
            .map(|piece| logits(pipeline.run(piece, LogitsWanted::Last).expect("runs")))
            .collect();
        for (index, found) in ends.iter().enumerate() {
            let end = tokens.len().min((index + 1) * piece) * vocab;
            assert!(*found == whole[end - vocab..end], "piece {index} of {piece}");
        }
    }
}

/// `config.json` as transformers before 5 wrote it.
#[test]
fn the_old_form_of_the_configuration_means_the_same() {
    for family in LLAMAS {
        let copy = Copy::of(family);
        copy.edit_json("config.json", |config| {
            let mut rope = config.remove("rope_parameters").expect("the new form");
            let fields = rope.as_object_mut().expect("an object");
            config.insert("rope_theta".into(), fields.remove("rope_theta").expect("theta"));
            let kind = fields.remove("rope_type").expect("a type");
            let key = if kind == "llama3" { "rope_type" } else { "type" };
            fields.insert(key.into(), kind.clone());
            config
                .insert("rope_scaling".into(), if kind == "default" { json!(null) } else { rope });
            config.remove("head_dim");
        });
        let tokens = &Reference::of(family).sequences()[1];
        let (old, new) = (open(copy.path()), open(&fixture(family)));
        assert!(all_logits(&old, tokens) == all_logits(&new, tokens), "{family}");
    }
}

/// Files of models without heads, of models that also see, and of the first BERTs.
#[test]
fn tensors_are_found_under_the_names_of_other_files() {
    let without_model = |name: &str| name.strip_prefix("model.").unwrap_or(name).to_owned();
    let seeing = |name: &str| format!("language_model.{name}");
    let seeing_later = |name: &str| name.replacen("model.", "model.language_model.", 1);
    let first_bert = |name: &str| {
        let name = name.replace("LayerNorm.weight", "LayerNorm.gamma");
        format!("bert.{}", name.replace("LayerNorm.bias", "LayerNorm.beta"))
    };
    type Rename = fn(&str) -> String;
    let cases: [(&str, Rename); 4] = [
        ("qwen3", without_model),
        ("gemma3", seeing),
        ("gemma3", seeing_later),
        ("bert", first_bert),
    ];
    for (family, rename) in cases {
        let copy = Copy::of(family);
        copy.edit_tensors(|tensors| {
            let named = std::mem::take(tensors).into_iter();
            tensors.extend(named.map(|(name, tensor)| (rename(&name), tensor)));
        });
        if family == "gemma3" {
            copy.edit_json("config.json", |config| {
                let text = std::mem::take(config);
                config.insert("model_type".into(), "gemma3".into());
                config.insert("text_config".into(), text.into());
            });
        }
        let tokens = &Reference::of(family).sequences()[0];
        let run = |model: &Model| match pipeline(model, 1).run(tokens, LogitsWanted::All) {
            Ok(StageOutput::Hidden(numbers) | StageOutput::Logits(numbers)) => numbers,
            Err(error) => panic!("{family}: {error}"),
        };
        assert!(run(&open(copy.path())) == run(&open(&fixture(family))), "{family}");
    }
}

/// The same model cut into shards.
fn shard(copy: &Copy) {
    let (mut first, mut second) = (BTreeMap::new(), BTreeMap::new());
    let mut map = serde_json::Map::new();
    for (index, (name, tensor)) in copy.tensors().into_iter().enumerate() {
        let (shard, file) = if index % 3 == 0 {
            (&mut first, "a.safetensors")
        } else {
            (&mut second, "b.safetensors")
        };
        map.insert(name.clone(), file.into());
        shard.insert(name, tensor);
    }
    copy.write_tensors("a.safetensors", &first);
    copy.write_tensors("b.safetensors", &second);
    let index = json!({"metadata": {}, "weight_map": map});
    copy.write("model.safetensors.index.json", index.to_string());
    copy.remove("model.safetensors");
}

#[test]
fn shards_change_neither_identity_nor_results_and_weights_do() {
    let whole = open(&fixture("llama"));
    let copy = Copy::of("llama");
    shard(&copy);
    let sharded = open(copy.path());
    assert_eq!(sharded.id(), whole.id());
    let all = span(0, 4);
    assert_eq!(sharded.span_bytes(all), whole.span_bytes(all));
    let tokens = &Reference::of("llama").sequences()[0];
    assert!(all_logits(&sharded, tokens) == all_logits(&whole, tokens));

    let tuned = Copy::of("llama");
    tuned.edit_tensors(|tensors| tensors.get_mut("lm_head.weight").expect("head").bytes[0] ^= 1);
    assert_ne!(open(tuned.path()).id(), whole.id());
    assert_ne!(open(&fixture("llama3-rope")).id(), whole.id());
}

/// The copy's matrices stored in another type, its numbers rounded to it either way.
fn stored_as(copy: &Copy, dtype: Dtype, narrow: bool) -> Model {
    copy.edit_tensors(|tensors| {
        for tensor in tensors.values_mut() {
            let (bytes, rounded): (Vec<_>, Vec<_>) = tensor
                .f32s()
                .into_iter()
                .map(|x| match dtype {
                    Dtype::F16 => (f16::from_f32(x).to_le_bytes(), f16::from_f32(x).to_f32()),
                    _ => (bf16::from_f32(x).to_le_bytes(), bf16::from_f32(x).to_f32()),
                })
                .unzip();
            if narrow {
                (tensor.dtype, tensor.bytes) = (dtype, bytes.concat());
            } else {
                tensor.bytes = rounded.into_iter().flat_map(f32::to_le_bytes).collect();
            }
        }
    });
    open(copy.path())
}

/// Narrow weights are widened exactly: the same as f32 weights that hold the rounded numbers.
#[test]
fn narrow_weights_give_what_their_numbers_say() {
    let tokens = &Reference::of("llama").sequences()[0];
    for (dtype, precision) in [(Dtype::F16, Precision::F16), (Dtype::BF16, Precision::Bf16)] {
        let (narrow, wide) = (Copy::of("llama"), Copy::of("llama"));
        let (narrow, wide) = (stored_as(&narrow, dtype, true), stored_as(&wide, dtype, false));
        assert_eq!((narrow.shape().precision, wide.shape().precision), (precision, Precision::F32));
        assert_eq!(narrow.span_bytes(span(0, 4)) * 2, wide.span_bytes(span(0, 4)));
        assert_close(&all_logits(&narrow, tokens), &all_logits(&wide, tokens), "narrow");
    }
}

#[test]
fn a_span_weighs_its_layers_and_the_ends_it_has() {
    let bytes = |family, a, b| open(&fixture(family)).span_bytes(span(a, b));
    let table = 320 * 64 * 4;
    let norm = 64 * 4;
    let (whole, middle) = (bytes("llama", 0, 4), bytes("llama", 1, 2));
    assert_eq!(whole, 4 * middle + 2 * table + norm);
    assert_eq!(bytes("llama", 0, 1), middle + table);
    assert_eq!(bytes("llama", 3, 4), middle + table + norm);
    assert_eq!(bytes("llama", 3, u32::MAX), middle + table + norm);
    assert_eq!(bytes("llama", 4, 5), 0);
    let middle = bytes("llama-tied", 1, 2);
    assert_eq!(bytes("llama-tied", 0, 4), 4 * middle + table + norm);
    assert_eq!(bytes("llama-tied", 3, 4), middle + table + norm);
}

/// Goal: a profile counts every weight once. Method: its parts against the bytes a stage holds.
#[test]
fn a_profile_adds_up() {
    for family in ALL {
        let model = open(&fixture(family));
        let (profile, shape) = (model.profile(), *model.shape());
        assert_eq!(profile.shape, shape, "{family}");
        assert!(family.starts_with(&profile.family[..3]), "{family} is a {}", profile.family);
        assert_eq!(profile.weight_bytes, model.span_bytes(shape.span()), "{family}");
        assert_eq!(profile.weight_bytes, profile.encodings.values().sum::<u64>(), "{family}");
        let layers: u64 = profile.layer_bytes.iter().sum();
        let matrices = layers + profile.embedding_bytes + profile.head_bytes;
        let last_norm = profile.weight_bytes - matrices;
        let vector = 4 * u64::from(shape.hidden);
        assert!([0, vector, 2 * vector].contains(&last_norm), "{family}: weights and bias, f32");
        assert_eq!(profile.parameters, profile.weight_bytes / 4, "{family}: f32");
        assert!(profile.parameters_active <= profile.parameters, "{family}");
        assert_eq!(profile.flops_first, shape.flops(shape.span(), 0..1, 1), "{family}");
        assert!(profile.flops_first < profile.flops_last, "{family}");
    }
}

/// Goal: a model loaded smaller is the same model. Method: its logits beside those of the stored one.
#[test]
fn weights_may_be_quantised_when_loaded() {
    for family in ["llama", "gemma2", "gpt2"] {
        let stored = open(&fixture(family));
        let tokens = &Reference::of(family).sequences()[0];
        let expected = all_logits(&stored, tokens);
        // The narrow rows of these models have no whole Q4_K block: they become Q8_0. (Experts would be
        // chosen otherwise now and then: routers are sensitive when weights are random.)
        for weights in [Encoding::Q8_0, Encoding::Q4_K] {
            let source = ModelSource::Folder(fixture(family));
            let small = Model::open_as(source, weights).expect("opens");
            assert_eq!(small.id(), stored.id(), "{family}");
            let all = small.shape().span();
            assert!(small.span_bytes(all) * 3 < stored.span_bytes(all), "{family}");
            let found = all_logits(&small, tokens);
            let largest = expected.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
            let squares = found.iter().zip(&expected).map(|(a, b)| (a - b) * (a - b));
            let error = (squares.sum::<f32>() / found.len() as f32).sqrt();
            assert!(error < 0.03 * largest, "{family}: off by {error}, largest is {largest}");
        }
    }
    let source = ModelSource::Folder(fixture("llama"));
    let error = Model::open_as(source, Encoding::Q5_K).expect_err("not offered").to_string();
    assert_eq!(error, "weights can be loaded as q8_0 or q4_k, found Q5_K");
}
