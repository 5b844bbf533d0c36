//! Adapters in PEFT's layout, against models whose weights they were merged into.

use crate::support::{
    Copy, Stored, fixture, hidden, kernels, logits, open, pipeline, root, span, tensors,
};
use safetensors::Dtype;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, fs, path::Path};
use talka_engine::{
    Adapter, AdapterError, BatchItem, CacheOptions, LogitsWanted, Model, PagePool, StageError,
    StageInput, StageOutput,
};

const RANK: usize = 5;
const ALPHA: f32 = 12.0;

/// Numbers in -1..1, of `seed` alone.
fn numbers(seed: usize, length: usize) -> Vec<f32> {
    let mix = |n: usize| (n.wrapping_mul(2_654_435_761) ^ (n >> 7)).wrapping_mul(40_503);
    let number = |n: usize| (mix(n + seed * 7_919) >> 3 & 0xffff) as f32 / 32_768.0 - 1.0;
    (0..length).map(number).collect()
}

fn stored(shape: [usize; 2], numbers: &[f32]) -> Stored {
    let bytes = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
    Stored { dtype: Dtype::F32, shape: shape.to_vec(), bytes }
}

/// A folder with an adapter.
struct Files(tempfile::TempDir);

impl Files {
    fn new(config: &Value, tensors: &BTreeMap<String, Stored>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("adapter_config.json"), config.to_string()).expect("written");
        let bytes = safetensors::serialize(tensors, None).expect("safetensors");
        fs::write(folder.path().join("adapter_model.safetensors"), bytes).expect("written");
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

fn config() -> Value {
    json!({"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none",
        "target_modules": ["q_proj"], "rank_pattern": {}, "modules_to_save": null})
}

/// Whether an adapter can change the tensor of this name.
fn is_linear(name: &str, tensor: &Stored) -> bool {
    let of_layer = [".layers.", ".h.", "encoder.layer."].iter().any(|part| name.contains(part));
    let routed = name.contains(".experts.") || name.contains("moe.gate");
    of_layer && !routed && tensor.shape.len() == 2
}

/// An adapter of every linear map of a model.
fn adapter_of(
    base: &BTreeMap<String, Stored>,
    transposed: bool,
    seed: usize,
) -> BTreeMap<String, Stored> {
    let mut tensors = BTreeMap::new();
    for (index, (name, tensor)) in base.iter().filter(|(name, t)| is_linear(name, t)).enumerate() {
        let module = name.strip_suffix(".weight").expect("a weight");
        let [mut outputs, mut inputs] = [tensor.shape[0], tensor.shape[1]];
        if transposed {
            (outputs, inputs) = (inputs, outputs);
        }
        let name = |m| format!("base_model.model.{module}.lora_{m}.weight");
        let down: Vec<_> = numbers(seed + index, RANK * inputs).iter().map(|x| x * 0.2).collect();
        let up: Vec<_> =
            numbers(seed + index + 500, outputs * RANK).iter().map(|x| x * 0.2).collect();
        tensors.insert(name("A"), stored([RANK, inputs], &down));
        tensors.insert(name("B"), stored([outputs, RANK], &up));
    }
    tensors
}

/// Adds `scale · B·A` to the weights of `copy`.
fn merge(copy: &Copy, adapter: &BTreeMap<String, Stored>, transposed: bool, scale: f32) {
    copy.edit_tensors(|base| {
        for (name, down) in adapter.iter().filter(|(name, _)| name.contains("lora_A")) {
            let up = &adapter[&name.replace("lora_A", "lora_B")];
            let module = name.strip_prefix("base_model.model.").expect("PEFT's");
            let tensor = base.get_mut(&module.replace(".lora_A", "")).expect("its base");
            let mut weights = tensor.f32s();
            let (outputs, inputs) = (up.shape[0], down.shape[1]);
            let (down, up) = (down.f32s(), up.f32s());
            for n in 0..outputs {
                for k in 0..inputs {
                    let sum: f32 = (0..RANK).map(|r| up[n * RANK + r] * down[r * inputs + k]).sum();
                    let at = if transposed { k * outputs + n } else { n * inputs + k };
                    weights[at] += scale * sum;
                }
            }
            tensor.bytes = weights.into_iter().flat_map(f32::to_le_bytes).collect();
        }
    });
}

/// What a model returns for `tokens`, in two stages: logits, or an encoder's hidden states.
fn run(model: &Model, adapter: Option<&Adapter>, tokens: &[u32]) -> Vec<f32> {
    let layers = model.shape().layers;
    let mut state = Vec::new();
    for (start, end) in [(0, 1), (1, layers)] {
        let mut stage = model.stage(span(start, end), &kernels()).expect("a stage");
        let mut cache = stage.new_cache(stage.span(), 64);
        cache.set_adapter(adapter.cloned()).expect("empty");
        let input =
            if start == 0 { StageInput::Tokens(tokens) } else { StageInput::Hidden(&state) };
        state = match stage.run(input, &mut cache, LogitsWanted::All).expect("runs") {
            StageOutput::Hidden(state) | StageOutput::Logits(state) => state,
        };
    }
    state
}

fn tokens() -> Vec<u32> {
    (0..24).map(|n| (n * 7_919 + 13) % 320).collect()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    let largest = b.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
    a.iter().zip(b).fold(0.0_f32, |max, (a, b)| max.max((a - b).abs())) / largest
}

/// Adapters that the peft library made, and what it computes with them.
#[test]
fn adapters_of_peft_give_what_peft_gives() {
    for family in ["llama", "phi3", "gpt2"] {
        let folder = root().join("fixtures/adapters").join(family);
        let reference = tensors(&folder.join("reference.safetensors"));
        let (tokens, expected) = (reference["tokens"].ids(), reference["logits"].f32s());
        let model = open(&fixture(family));
        let adapter = model.adapter(&folder, &kernels()).expect("an adapter");
        assert!(adapter.warning().is_none(), "{:?}", adapter.warning());
        assert!(distance(&run(&model, Some(&adapter), &tokens), &expected) < 1e-4, "{family}");
        assert!(distance(&run(&model, None, &tokens), &expected) > 1e-2, "{family}");
    }
}

/// Fused, turned, windowed, routed and encoding models among them.
#[test]
fn an_adapter_gives_what_merged_weights_give() {
    for family in ["llama", "phi3", "gpt2", "gemma2", "olmo2", "mixtral", "bert"] {
        let copy = Copy::of(family);
        let transposed = family == "gpt2";
        let tensors = adapter_of(&copy.tensors(), transposed, 1);
        for (rslora, scale) in [(false, ALPHA / RANK as f32), (true, ALPHA / (RANK as f32).sqrt())]
        {
            let mut config = config();
            config["use_rslora"] = rslora.into();
            let files = Files::new(&config, &tensors);
            let base = open(&fixture(family));
            let adapter = base.adapter(files.path(), &kernels()).expect("an adapter");
            assert!(adapter.warning().is_none() && adapter.bytes() > 0);
            let merged = Copy::of(family);
            merge(&merged, &tensors, transposed, scale);
            let expected = run(&open(merged.path()), None, &tokens());
            let found = run(&base, Some(&adapter), &tokens());
            let plain = run(&base, None, &tokens());
            assert!(distance(&found, &expected) < 1e-4, "{family} {rslora}");
            assert!(distance(&plain, &expected) > 1e-2, "{family}: the adapter changes something");
        }
    }
}

/// Cut anywhere, an adapted sequence has the same bits.
#[test]
fn pieces_change_no_bit_of_an_adapted_sequence() {
    let (model, files) = (open(&fixture("llama")), llama_adapter(1));
    let adapter = model.adapter(files.path(), &kernels()).expect("an adapter");
    let tokens = tokens();
    let whole = run(&model, Some(&adapter), &tokens);
    let mut stage = model.stage(model.shape().span(), &kernels()).expect("a stage");
    let mut cache = stage.new_cache(stage.span(), 64);
    cache.set_adapter(Some(adapter)).expect("empty");
    let mut cut = Vec::new();
    for piece in tokens.chunks(5) {
        let output = stage.run(StageInput::Tokens(piece), &mut cache, LogitsWanted::All);
        cut.extend(logits(output.expect("runs")));
    }
    assert!(cut == whole);
    let other = open(&fixture("qwen2"));
    let mut theirs = other.stage(other.shape().span(), &kernels()).expect("a stage");
    cache.truncate(0);
    let refused = theirs.run(StageInput::Tokens(&tokens), &mut cache, LogitsWanted::None);
    assert!(matches!(refused, Err(StageError::ForeignAdapter { .. })), "{refused:?}");
}

fn llama_adapter(seed: usize) -> Files {
    Files::new(&config(), &adapter_of(&Copy::of("llama").tensors(), false, seed))
}

/// Sequences with two adapters and without, in one batch of unequal pieces: the bits of each alone.
#[test]
fn each_sequence_of_a_batch_keeps_its_own() {
    let model = open(&fixture("llama"));
    let files = [llama_adapter(1), llama_adapter(2)];
    let adapters =
        files.each_ref().map(|files| model.adapter(files.path(), &kernels()).expect("an adapter"));
    assert_ne!(adapters[0].number(), adapters[1].number());
    let mut stage = model.stage(span(0, 4), &kernels()).expect("a stage");
    let chosen = [None, Some(0), Some(1), Some(1), Some(0)].map(|n| n.map(|n: usize| &adapters[n]));
    let mut caches = chosen.map(|adapter| {
        let mut cache = stage.new_cache(span(0, 4), 64);
        cache.set_adapter(adapter.cloned()).expect("empty");
        cache
    });
    let tokens = tokens();
    let mut found = vec![Vec::new(); chosen.len()];
    for piece in 0..4 {
        let mut items: Vec<_> = (0..)
            .zip(&mut caches)
            .map(|(sequence, cache)| {
                // Of four pieces, the borders differ between sequences.
                let border = |n: usize| if n == 4 { 24 } else { n * 6 + n.min(1) * sequence % 5 };
                let input = StageInput::Tokens(&tokens[border(piece)..border(piece + 1)]);
                BatchItem { input, cache, logits: LogitsWanted::None }
            })
            .collect();
        for (found, output) in found.iter_mut().zip(stage.run_batch(&mut items)) {
            found.extend(hidden(output.expect("runs")));
        }
    }
    for (adapter, found) in chosen.into_iter().zip(&found) {
        let mut cache = stage.new_cache(span(0, 4), 64);
        cache.set_adapter(adapter.cloned()).expect("empty");
        let alone = stage.run(StageInput::Tokens(&tokens), &mut cache, LogitsWanted::None);
        assert!(*found == hidden(alone.expect("runs")));
    }
    assert!(found[0] != found[1] && found[1] != found[2] && found[2] == found[3]);
    let late = caches[0].set_adapter(Some(adapters[0].clone()));
    assert_eq!(late, Err(StageError::AdapterTooLate { len: 24 }));
}

/// What one adapter computed is no prefix of a sequence with another or none.
#[test]
fn prefixes_are_shared_by_sequences_of_one_adapter_only() {
    let model = open(&fixture("llama"));
    let files = llama_adapter(1);
    let adapter = model.adapter(files.path(), &kernels()).expect("an adapter");
    let mut stage = model.stage(span(0, 4), &kernels()).expect("a stage");
    let pool = PagePool::new(64 << 20);
    let options = CacheOptions { positions_max: 200, element: None, share_prefixes: Some(0) };
    let tokens: Vec<u32> = (0..150).map(|n| (n * 31 + 7) % 320).collect();
    let mut begin = |adapter: Option<&Adapter>| {
        let mut cache = stage.new_cache_in(&pool, span(0, 4), &options).expect("memory");
        cache.set_adapter(adapter.cloned()).expect("empty");
        let adopted = cache.adopt(&tokens);
        let rest = StageInput::Tokens(&tokens[adopted..]);
        let output = stage.run(rest, &mut cache, LogitsWanted::Last).expect("runs");
        (adopted, logits(output), cache)
    };
    let (plain, adapted) = (begin(None), begin(Some(&adapter)));
    assert_eq!((plain.0, adapted.0), (0, 0));
    let again = begin(Some(&adapter));
    assert!(again.0 >= 64 && again.1 == adapted.1 && again.1 != plain.1);
}

/// Opens a llama's adapter after `edit`.
fn opened(
    edit: impl FnOnce(&mut Map<String, Value>, &mut BTreeMap<String, Stored>),
) -> Result<Adapter, AdapterError> {
    let mut tensors = adapter_of(&Copy::of("llama").tensors(), false, 1);
    let mut config = config();
    edit(config.as_object_mut().expect("an object"), &mut tensors);
    let files = Files::new(&config, &tensors);
    open(&fixture("llama")).adapter(files.path(), &kernels())
}

const QUERY: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";

#[test]
fn an_adapter_of_another_model_is_refused_and_another_name_is_a_warning() {
    let other = Files::new(&config(), &adapter_of(&Copy::of("gpt2").tensors(), true, 1));
    let error = open(&fixture("llama")).adapter(other.path(), &kernels()).expect_err("a GPT-2's");
    assert!(matches!(error, AdapterError::NoPlace { .. }), "{error}");
    let error = opened(|config, tensors| {
        config.insert("base_model_name_or_path".into(), "acme/larger".into());
        tensors.insert(QUERY.into(), stored([RANK, 65], &numbers(1, RANK * 65)));
    });
    assert_eq!(
        error.expect_err("wider").to_string(),
        format!(
            "the adapter's {QUERY} has shape [5, 65], expected [5, 64]: it was made for another base \
             model (acme/larger)"
        )
    );
    let named = opened(|config, _| {
        config.insert("base_model_name_or_path".into(), "acme/Other".into());
    });
    let warning = named.expect("it fits").warning().map(str::to_owned).expect("another name");
    assert!(warning.contains("acme/Other") && warning.contains("llama"), "{warning}");
    let same = opened(|config, _| {
        config.insert("base_model_name_or_path".into(), "acme/Llama".into());
    });
    assert!(same.expect("it fits").warning().is_none());
}

#[test]
fn what_an_adapter_cannot_change_here_is_refused_by_name() {
    let settings = [
        ("use_dora", json!(true)),
        ("bias", json!("all")),
        ("modules_to_save", json!(["lm_head"])),
        ("rank_pattern", json!({"q_proj": 3})),
        ("peft_type", json!("IA3")),
        ("r", json!(0)),
        ("r", json!(null)),
    ];
    for (name, value) in settings {
        let error = opened(|config, _| drop(config.insert(name.into(), value)));
        assert!(error.expect_err(name).to_string().contains(name), "{name}");
    }
    let rank = opened(|config, _| drop(config.insert("r".into(), json!(4))));
    assert!(matches!(rank, Err(AdapterError::Shape { .. })));
    let half = opened(|_, tensors| drop(tensors.remove(&QUERY.replace("lora_A", "lora_B"))));
    assert!(matches!(half, Err(AdapterError::Missing { .. })));
    let head = opened(|_, tensors| {
        let tensor = tensors[QUERY].clone();
        tensors.insert("base_model.model.lm_head.lora_A.weight".into(), tensor);
    });
    assert!(matches!(head, Err(AdapterError::NoPlace { .. })));
    let none = opened(|_, tensors| tensors.clear());
    assert!(matches!(none, Err(AdapterError::Empty)));
    let nan = opened(|_, tensors| {
        let tensor = tensors.get_mut(QUERY).expect("there");
        tensor.bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    assert!(matches!(nan, Err(AdapterError::NotFinite { .. })));
    let type_error = opened(|_, tensors| {
        let tensor = tensors.get_mut(QUERY).expect("there");
        tensor.dtype = Dtype::I32;
    });
    assert!(matches!(type_error, Err(AdapterError::Type { .. })));
    let model = open(&fixture("llama"));
    let empty = tempfile::tempdir().expect("a folder");
    let error = model.adapter(empty.path(), &kernels()).expect_err("no files");
    assert!(matches!(error, AdapterError::MissingFile { .. }));
    fs::copy(fixture("llama").join("config.json"), empty.path().join("adapter_config.json"))
        .expect("a copy");
    assert!(model.adapter(empty.path(), &kernels()).is_err());
}

#[test]
fn a_pipeline_takes_an_adapter_for_its_next_sequence() {
    let model = open(&fixture("bert"));
    let files = Files::new(&config(), &adapter_of(&Copy::of("bert").tensors(), false, 3));
    let adapter = model.adapter(files.path(), &kernels()).expect("an adapter");
    let mut pipeline = pipeline(&model, 2);
    for adapter in [Some(adapter), None] {
        pipeline.set_adapter(adapter.clone());
        let found = pipeline.run(&tokens(), LogitsWanted::None).expect("runs");
        assert!(hidden(found) == run(&model, adapter.as_ref(), &tokens()));
    }
}
