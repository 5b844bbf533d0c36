use super::*;
use crate::{Outer, round::Late};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The least that a job has.
fn least() -> Value {
    json!({
        "task_id": "tiny",
        "model_specification": {"hidden": 32, "layers": 2, "heads": 4, "ffn": 64, "context": 16},
        "tokenizer": {"kind": "characters"},
        "training_config": {"steps": 10},
        "data_requirements": {"files": ["plays.txt"]},
    })
}

fn job(value: Value) -> Result<Job, JobError> {
    Job::try_from(JobFile::from_value(value)?)
}

/// The least job with one value put in at `place`.
fn with(place: &str, value: Value) -> Value {
    let mut file = least();
    let mut at = &mut file;
    for name in place.split('.') {
        at = &mut at[name];
    }
    *at = value;
    file
}

/// Putting `value` in at `place` is refused, and the message has all of `words`.
#[track_caller]
fn refused(place: &str, value: Value, words: &[&str]) {
    let message = job(with(place, value)).expect_err(place).to_string();
    for word in words {
        assert!(message.contains(word), "{message:?} lacks {word:?}");
    }
}

#[test]
fn a_job_says_little_and_means_much() {
    let job = job(least()).expect("a job");
    assert_eq!((job.batch, job.length, job.amount), (16, 16, Amount::Steps(10)));
    assert_eq!(job.model(65).kv_heads, 4);
    assert_eq!(job.schedule, SchedulePlan::Cosine(0.1));
    assert_eq!(job.clip, Some(1.0));
    assert_eq!(job.data.validation_split, 0.1);
    let config = job.train_config(65, 10);
    assert_eq!(config.validate(), Ok(()));
    assert_eq!(config.schedule, Schedule::Cosine { warmup: 0, steps: 10, last: 0.1 });
}

#[test]
fn a_size_may_be_named_and_changed() {
    let file = with("model_specification", json!({"size": "bootstrap", "layers": 3}));
    let model = job(file).expect("a job").model(100);
    assert_eq!((model.hidden, model.layers, model.kv_heads, model.vocab), (768, 3, 4, 100));
}

#[test]
fn whatever_is_wrong_is_named_with_its_reason() {
    refused("task_id", Value::Null, &["task_id", "missing"]);
    refused("task_id", json!("Ünfug"), &["task_id", "Ünfug", "a-z"]);
    refused("task_id", json!("../x"), &["task_id"]);
    refused("task_id", json!(7), &["task_id", "string"]);
    refused("task_type", json!("lora"), &["task_type", "lora"]);
    refused("colour", json!(1), &["colour", "unknown field"]);
    refused("reward", json!({"base_feicoin": 45}), &["reward", "unknown field"]);
    refused("training_config.learning_rat", json!(1), &["training_config.learning_rat", "unknown"]);
    refused("training_config.learning_rate", json!("much"), &["training_config.learning_rate"]);
    refused("training_config.learning_rate", json!(-1.0), &["training_config.learning_rate", "-1"]);
    refused("training_config.tokens", json!(5), &["training_config", "only one"]);
    refused("training_config.steps", json!(0), &["training_config.steps", "0"]);
    refused("training_config.steps", Value::Null, &["training_config.steps", "missing"]);
    refused("training_config.optimizer", json!("sgd"), &["training_config.optimizer", "muon"]);
    refused("training_config.momentum", json!(0.9), &["training_config.momentum", "muon"]);
    refused("training_config.batch_size", json!(0), &["training_config.batch_size"]);
    refused("training_config.length", json!(17), &["training_config.length", "1 to 16"]);
    refused("training_config.schedule", json!({"name": "steps"}), &["schedule.name", "cosine"]);
    refused("training_config.checkpoint_every", json!(0), &["checkpoint_every", "at least 1"]);
    refused("training_config.precision", json!("fp8"), &["precision", "bf16-mixed"]);
    refused("model_specification", json!({}), &["model_specification.size", "missing"]);
    refused("model_specification.size", json!("huge"), &["model_specification.size", "huge"]);
    refused("model_specification.ffn", Value::Null, &["model_specification.ffn", "missing"]);
    refused("model_specification.heads", json!(5), &["model_specification.hidden", "32"]);
    refused("model_specification.kv_heads", json!(3), &["model_specification.kv_heads", "divisor"]);
    let huge = json!({"hidden": 1 << 22, "layers": 4000, "heads": 2, "ffn": 1 << 24, "context": 8});
    refused("model_specification", huge, &["model_specification", "parameters"]);
    refused("tokenizer", json!({"size": 100}), &["tokenizer.size", "257"]);
    refused("tokenizer", json!({"kind": "words"}), &["tokenizer.kind", "words"]);
    refused("tokenizer", json!({"kind": "characters", "size": 9}), &["tokenizer.size"]);
    refused("data_requirements.files", json!([]), &["data_requirements.files", "0 paths"]);
    refused("data_requirements.files", json!(["a", ""]), &["data_requirements.files[1]", "empty"]);
    refused("data_requirements.data_format", json!("csv"), &["data_format", "csv", "parquet"]);
    refused("data_requirements.validation_split", json!(0.9), &["validation_split", "0.9"]);
    refused("hardware_requirements.min_vram_gb", json!(12), &["min_vram_gb", "unknown field"]);
    refused("deadline", json!("tomorrow"), &["deadline", "tomorrow", "UTC"]);
}

#[test]
fn what_is_no_document_is_refused_with_its_place() {
    let message = |text, format| JobFile::read(text, format).expect_err(text).to_string();
    assert!(message("{", JobFormat::Json).contains("JSON"));
    assert!(message("[1]", JobFormat::Json).contains("object"));
    let toml = message("task_id = 'a'\nsteps = = 3\n", JobFormat::Toml);
    assert!(toml.contains("TOML") && toml.contains("line 2"), "{toml}");
    assert!(message("seed = -1", JobFormat::Toml).contains("seed"));
    let nan = message("[training_config]\nlearning_rate = nan", JobFormat::Toml);
    assert!(nan.contains("training_config.learning_rate"), "{nan}");
    let long = "#".repeat(JOB_BYTES_MAX + 1);
    assert!(message(&long, JobFormat::Toml).contains("bytes"));
}

#[test]
fn toml_and_json_mean_the_same() {
    let toml = r#"
        task_id = "tiny"
        deadline = 2027-01-31T18:00:00Z
        [model_specification]
        hidden = 32
        layers = 2
        heads = 4
        ffn = 64
        context = 16
        [tokenizer]
        kind = "characters"
        [training_config]
        steps = 10
        [data_requirements]
        files = ["plays.txt"]
    "#;
    let read = JobFile::read(toml, JobFormat::Toml).expect("a job file");
    let mut same = least();
    same["deadline"] = json!("2027-01-31T18:00:00Z");
    assert_eq!(read, JobFile::from_value(same).expect("a job file"));
    let written = serde_json::to_string(&read).expect("JSON");
    assert_eq!(JobFile::read(&written, JobFormat::Json), Ok(read.clone()));
    let beside = read.beside(std::path::Path::new("/data"));
    assert_eq!(beside.data_requirements.files, Some(vec!["/data/plays.txt".into()]));
}

#[test]
fn amounts_become_steps() {
    assert_eq!(Amount::Tokens(1000).steps(4, 64, 0), 16);
    assert_eq!(Amount::Epochs(2.0).steps(16, 64, 100), 13);
    assert_eq!(Amount::Epochs(1e-9).steps(16, 64, 100), 1);
}

#[test]
fn memory_grows_with_the_model_the_batch_and_the_data() {
    let memory = |file: Value, data| job(file).expect("a job").memory_bytes(100, data);
    let least_bytes = memory(least(), 1000);
    assert!(memory(with("training_config.batch_size", json!(32)), 1000) > least_bytes);
    assert!(memory(with("model_specification.layers", json!(3)), 1000) > least_bytes);
    assert!(memory(with("training_config.recompute", json!(true)), 1000) < least_bytes);
    assert!(memory(with("training_config.rows_at_once", json!(1)), 1000) < least_bytes);
    assert!(memory(least(), 1_000_000) > least_bytes);
}

#[test]
fn the_examples_are_jobs() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let example = |name: &str| {
        let path = folder.join(name);
        let text = std::fs::read_to_string(&path).expect("an example");
        let file = JobFile::read(&text, JobFormat::of(&path)).expect("a job file");
        Job::try_from(file).expect("a job")
    };
    let bard = example("bard.toml");
    let parameters = crate::Parameters::new(&bard.model(1024)).len();
    assert_eq!((bard.vocab_max(), parameters), (1024, 2_632_128));
    assert_eq!(bard.amount, Amount::Steps(1300));
    let characters = example("characters.json");
    assert_eq!(characters.tokenizer, TokenizerPlan::Characters);
    assert_eq!(characters.amount, Amount::Steps(2000));
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    let name = prop_oneof![
        prop::sample::select(vec![
            "size", "steps", "files", "heads", "kind", "name", "tokens", "epochs", "hidden",
            "context", "seed",
        ])
        .prop_map(str::to_owned),
        "[a-z_]{1,8}",
    ];
    leaf.prop_recursive(3, 16, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..4)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
        for format in [JobFormat::Toml, JobFormat::Json] {
            let _ = JobFile::read(&text, format).and_then(Job::try_from);
        }
    }

    /// Goal: whatever one field is changed to, the job is refused or its trainer would take it.
    #[test]
    fn what_is_taken_makes_sense(
        place in prop::sample::select(vec![
            "task_id", "deadline", "seed", "tokenizer", "tokenizer.size", "model_specification",
            "model_specification.size", "model_specification.hidden", "model_specification.heads",
            "model_specification.kv_heads", "model_specification.context", "model_specification.rope_theta",
            "model_specification.weights",
            "training_config", "training_config.steps", "training_config.learning_rate", "training_config.beta1",
            "training_config.epsilon", "training_config.clip", "training_config.warmup", "training_config.length",
            "training_config.rows_at_once", "training_config.schedule", "data_requirements",
            "data_requirements.files", "data_requirements.validation_split", "hardware_requirements",
            "hardware_requirements.min_memory_gb",
        ]),
        value in any_value(),
    ) {
        if let Ok(job) = job(with(place, value)) {
            let steps = job.amount.steps(job.batch, job.tokens_per_step(), 1000);
            prop_assert_eq!(job.train_config(job.vocab_max(), steps).validate(), Ok(()));
            prop_assert!(job.memory_bytes(job.vocab_max(), u64::MAX) > 0);
        }
    }
}

/// The least job that members train together, with one more field of `[network]`.
fn together(field: &str, value: Value) -> Value {
    with("network", json!({ field: value }))
}

#[test]
fn members_take_the_usual_values_and_only_what_goes_together() {
    let plan = |file: Value| job(file).expect("a job").network.expect("members");
    let usual = plan(with("network", json!({})));
    assert_eq!((usual.fragments, usual.overlap, usual.late), (1, false, Late::Carried));
    assert_eq!((usual.rounds(120), usual.outer(3)), (3, Outer::AVERAGE));
    let parts = plan(together("fragments", json!(2)));
    assert_eq!((parts.fragments, parts.late), (2, Late::Dropped));
    refused("network", json!({"fragments": 3}), &["network.fragments is 3", "1 to 2"]);
    refused("network", json!({"fragments": 0}), &["network.fragments is 0"]);
    let carried = json!({"fragments": 2, "late": "carried"});
    refused("network", carried, &["network.late", "dropped where there are fragments"]);
    refused("network", json!({"overlap": "yes"}), &["network.overlap"]);
}

#[test]
fn what_members_hold_beside_a_trainer_counts() {
    let memory = |file: Value| job(file).expect("a job").memory_bytes(100, 1000);
    let alone = memory(least());
    let members = memory(together("members_min", json!(2)));
    assert!(members > alone);
    assert!(memory(with("training_config.average_steps", json!(50))) > alone);
    for (field, value) in
        [("members_min", json!(8)), ("overlap", json!(true)), ("fragments", json!(2))]
    {
        assert!(memory(together(field, value)) > members, "{field}");
    }
}
