//! What is to be trained: the job file, and the job that it means.
//!
//! A job file is TOML or JSON. Its sections have the names of the task document of system 000 (`published-systems`, section
//! C), as far as they mean something here, and ours beside them. As typed ([`JobFile`]) nearly everything is optional; as
//! resolved ([`Job`]) every value is there and every number makes sense beside the others. Whatever is wrong is refused
//! with the field and the reason, unknown fields included: a misspelt `learning_rate` would cost a night.
//!
//! Never opens a file, reads no clock, and knows no machine: whether data are there and memory suffices is asked
//! elsewhere. Unlike system 000, a job promises no reward: what training earns follows from the network's policy.

mod file;
mod network;
mod time;

pub use file::{
    DataFile, HardwareFile, JobFile, JobFormat, ModelFile, NetworkFile, ScheduleFile,
    TokenizerFile, TrainingFile,
};
pub use network::NetworkPlan;

use crate::{
    AdamW, ConfigError, ModelConfig, Muon, OptimiserConfig, Parameters, Precision, Schedule,
    TrainConfig, WeightWidth, data::TextSource,
};
use std::path::PathBuf;
use time::parse_utc_ms;

/// The longest job file, in bytes.
pub const JOB_BYTES_MAX: usize = 1 << 20;
/// The longest name of a job: it names a folder and a model.
const NAME_BYTES_MAX: usize = 48;
/// Data files of a job.
pub const FILES_MAX: usize = 4096;
/// Entries of a vocabulary that a job may ask for.
const VOCAB_MAX: u32 = 1 << 20;
/// A byte-level vocabulary has all bytes, and the mark of an end.
const BPE_SIZE_MIN: u32 = 257;
/// Steps of a job.
const STEPS_MAX: u64 = 1 << 40;
/// Rows of a batch.
const BATCH_MAX: u32 = 1 << 16;
/// Tokens of a batch.
const BATCH_TOKENS_MAX: u64 = 1 << 24;
/// Weights of a model, and widths of all its blocks: beyond what anybody trains, and what can be reckoned in 64 bits.
const PARAMETERS_MAX: u128 = 1 << 40;
const WIDTHS_MAX: u64 = 1 << 32;

/// Why a job file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum JobError {
    /// More than anybody types.
    #[error("the job file has {found} bytes, expected at most {max}")]
    Size { found: usize, max: usize },
    /// Not one document of its format.
    #[error("the job file is no {format}: {reason}")]
    Syntax { format: &'static str, reason: String },
    /// A field of another type, or one that nobody knows.
    #[error("{field}: {reason}")]
    Field { field: String, reason: String },
    /// A field that must be there is not.
    #[error("{field} is missing, expected {expected}")]
    Missing { field: &'static str, expected: &'static str },
    /// A value that makes no sense, alone or beside the others.
    #[error("{field} is {found}, expected {expected}")]
    Value { field: String, found: String, expected: String },
}

/// How much is trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    /// Updates of the weights.
    Steps(u64),
    /// Tokens, rounded up to whole steps.
    Tokens(u64),
    /// Times that the training data are gone through, rounded up to whole steps.
    Epochs(f64),
}

impl Amount {
    /// Steps of `tokens_per_step` tokens over `samples` rows, `batch` of them a step.
    pub fn steps(self, batch: u32, tokens_per_step: u64, samples: u64) -> u64 {
        match self {
            Self::Steps(steps) => steps,
            Self::Tokens(tokens) => tokens.div_ceil(tokens_per_step.max(1)).max(1),
            Self::Epochs(epochs) => {
                let steps = (epochs * samples as f64 / f64::from(batch)).ceil();
                (steps as u64).clamp(1, STEPS_MAX)
            }
        }
    }
}

/// Which tokens text is cut into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenizerPlan {
    /// Byte-level pairs, trained on the job's own data, so many entries in all.
    Bpe {
        /// Bytes, merges and the mark of an end.
        size: u32,
    },
    /// One token for each character of the data.
    Characters,
    /// A `tokenizer.json` that is there.
    File(PathBuf),
}

/// What is learned from.
#[derive(Debug, Clone, PartialEq)]
pub struct DataPlan {
    /// Files, in this order.
    pub sources: Vec<TextSource>,
    /// The part of the tokens, from the end, that is kept back to see how well the model does; below 1.
    pub validation_split: f64,
}

/// The course of the learning rate, once the number of steps is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SchedulePlan {
    /// Level after the warm-up.
    Constant,
    /// Half a cosine down to this part.
    Cosine(f64),
    /// Level, then straight down over this part of the steps to this part of the rate.
    Trapezoid(f64, f64),
}

/// A job, with every value it has.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// What people call it, and the model that it makes.
    pub name: String,
    /// The model but for its vocabulary, which [`Job::model`] puts in: it follows from the data.
    shape: ModelConfig,
    /// How text becomes tokens.
    pub tokenizer: TokenizerPlan,
    /// What is learned from.
    pub data: DataPlan,
    /// The update.
    pub optimiser: OptimiserConfig,
    /// The course of the learning rate.
    pub schedule: SchedulePlan,
    /// Steps over which the learning rate rises from zero.
    pub warmup: u64,
    /// The greatest norm of all gradients; `None`: any.
    pub clip: Option<f64>,
    /// How numbers are held during a step.
    pub precision: Precision,
    /// What versions are written in.
    pub width: WeightWidth,
    /// Whether the insides of blocks are computed twice, to save memory.
    pub recompute: bool,
    /// The part of what blocks add that is left out by chance in training.
    pub dropout: f64,
    /// Rows of a batch that go through the model at once; `None`: all.
    pub rows_at_once: Option<usize>,
    /// Rows of a batch.
    pub batch: u32,
    /// Positions of a row.
    pub length: u32,
    /// How much is trained.
    pub amount: Amount,
    /// What first weights and the order of samples follow from.
    pub seed: u64,
    /// Steps between two checkpoints.
    pub checkpoint_every: u64,
    /// Steps between two looks at the validation data.
    pub validate_every: u64,
    /// About how many steps versions are the mean of; 0 for the weights as they are.
    pub average_steps: u64,
    /// Memory without which its owner does not want it tried, in bytes.
    pub memory_bytes_min: u64,
    /// When it ends at the latest, in milliseconds since 1970 UTC.
    pub deadline_ms: Option<u64>,
    /// How members train it together, if they do.
    pub network: Option<NetworkPlan>,
}

impl Job {
    /// The model with a vocabulary of `vocab` tokens.
    pub fn model(&self, vocab: u32) -> ModelConfig {
        ModelConfig { vocab, ..self.shape.clone() }
    }

    /// What the job says of vocabulary before its data are read: the most that it can be.
    pub fn vocab_max(&self) -> u32 {
        match self.tokenizer {
            TokenizerPlan::Bpe { size } => size,
            TokenizerPlan::Characters | TokenizerPlan::File(_) => self.shape.vocab,
        }
    }

    /// Everything a trainer is made of, for a vocabulary and a number of steps.
    pub fn train_config(&self, vocab: u32, steps: u64) -> TrainConfig {
        let warmup = self.warmup;
        let schedule = match self.schedule {
            SchedulePlan::Constant => Schedule::Constant { warmup },
            SchedulePlan::Cosine(last) => Schedule::Cosine { warmup, steps, last },
            SchedulePlan::Trapezoid(part, last) => {
                let decay = ((steps as f64 * part).ceil() as u64).min(steps);
                Schedule::Trapezoid { warmup, steps, decay, last }
            }
        };
        TrainConfig {
            optimiser: self.optimiser.clone(),
            schedule,
            clip: self.clip,
            rows_at_once: self.rows_at_once,
            recompute: self.recompute,
            dropout: self.dropout,
            precision: self.precision,
            ..TrainConfig::new(self.model(vocab))
        }
    }

    /// Tokens that a step trains.
    pub fn tokens_per_step(&self) -> u64 {
        u64::from(self.batch) * u64::from(self.length)
    }

    /// About how much memory training takes, in bytes: what a trainer holds, what exchanging takes, and the text beside its tokens.
    pub fn memory_bytes(&self, vocab: u32, data_bytes: u64) -> u64 {
        let need =
            self.train_config(vocab, 1).memory_need(self.batch as usize, self.length as usize);
        let parameters = Parameters::new(&self.model(vocab)).len() as u64;
        let mean = u64::from(self.average_steps > 0);
        let copies = self.network.as_ref().map_or(mean, |plan| plan.copies() + 2 * mean);
        // Tokens take four bytes, text about four bytes a token, and both are there at once when it is cut.
        let need = need.total().saturating_add(4 * copies * parameters);
        need.saturating_add(data_bytes.saturating_mul(3))
    }
}

impl TryFrom<JobFile> for Job {
    type Error = JobError;

    fn try_from(file: JobFile) -> Result<Self, JobError> {
        let name = name(file.task_id)?;
        if let Some(found) = file.task_type.filter(|kind| kind != "foundation") {
            return Err(value(
                "task_type",
                found,
                "\"foundation\": models are trained from scratch",
            ));
        }
        let (tokenizer, vocab) = tokenizer(file.tokenizer)?;
        let width = width(file.model_specification.weights.as_deref())?;
        let shape = shape(file.model_specification, vocab)?;
        let training = file.training_config;
        let amount = amount(&training)?;
        let batch = whole("training_config.batch_size", training.batch_size, 16, BATCH_MAX)?;
        let length =
            whole("training_config.length", training.length, shape.context, shape.context)?;
        let tokens = u64::from(batch) * u64::from(length);
        if tokens > BATCH_TOKENS_MAX {
            let found = format!("{batch} rows of {length}");
            let expected = format!("at most {BATCH_TOKENS_MAX} tokens in all");
            return Err(value("training_config.batch_size", found, expected));
        }
        let rows_at_once = match training.rows_at_once {
            None => None,
            rows => Some(whole("training_config.rows_at_once", rows, 1, batch)? as usize),
        };
        let checkpoint_every =
            every("training_config.checkpoint_every", training.checkpoint_every)?;
        let validate_every = every("training_config.validate_every", training.validate_every)?;
        let hardware = file.hardware_requirements;
        let job = Self {
            name,
            tokenizer,
            data: data(file.data_requirements)?,
            optimiser: optimiser(&training)?,
            schedule: schedule(training.schedule)?,
            warmup: training.warmup.unwrap_or(0),
            clip: match training.clip {
                None => Some(1.0),
                Some(0.0) => None,
                clip => clip,
            },
            precision: precision(training.precision.as_deref())?,
            width,
            recompute: training.recompute.unwrap_or(false),
            dropout: training.dropout.unwrap_or(0.0),
            rows_at_once,
            batch,
            length,
            amount,
            seed: file.seed.unwrap_or(0),
            checkpoint_every,
            validate_every,
            average_steps: training.average_steps.unwrap_or(0).min(STEPS_MAX),
            memory_bytes_min: gigabytes(hardware.min_memory_gb)?,
            deadline_ms: file.deadline.map(|text| deadline(&text)).transpose()?,
            network: NetworkPlan::of(file.network)?,
            shape,
        };
        let (layers, network) = (job.shape.layers, &job.network);
        if let Some(plan) = network.as_ref().filter(|plan| u32::from(plan.fragments) > layers) {
            let expected = format!("1 to {layers}, the model's layers");
            return Err(value("network.fragments", plan.fragments, expected));
        }
        // The vocabulary that is not known yet, and steps, are stood for by what any job may have.
        job.train_config(vocab, STEPS_MAX).validate().map_err(config)?;
        Ok(job)
    }
}

/// The error of a value that makes no sense.
fn value(field: &str, found: impl ToString, expected: impl Into<String>) -> JobError {
    JobError::Value { field: field.into(), found: found.to_string(), expected: expected.into() }
}

/// Whether a job may be called so: it names a folder and a model.
pub fn is_name(name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= NAME_BYTES_MAX
        && name.starts_with(is_word)
        && name.chars().all(|c| is_word(c) || c == '-' || c == '_')
}

fn name(task_id: Option<String>) -> Result<String, JobError> {
    let expected = "1 to 48 of a-z, 0-9, - and _, the first a letter or digit";
    let name = task_id.ok_or(JobError::Missing { field: "task_id", expected })?;
    if is_name(&name) { Ok(name) } else { Err(value("task_id", format!("{name:?}"), expected)) }
}

fn tokenizer(file: TokenizerFile) -> Result<(TokenizerPlan, u32), JobError> {
    let kind = file.kind.as_deref();
    let plan = match (kind, file.size, file.file) {
        (None | Some("file"), None, Some(path)) => (TokenizerPlan::File(path), VOCAB_MAX),
        (None | Some("bpe"), size, None) => {
            let size = size.unwrap_or(32_000);
            if !(BPE_SIZE_MIN..=VOCAB_MAX).contains(&size) {
                let expected = format!("{BPE_SIZE_MIN} to {VOCAB_MAX}");
                return Err(value("tokenizer.size", size, expected));
            }
            (TokenizerPlan::Bpe { size }, size)
        }
        (Some("characters"), None, None) => (TokenizerPlan::Characters, VOCAB_MAX),
        (Some("bpe" | "characters"), _, Some(path)) => {
            return Err(value("tokenizer.file", path.display(), "nothing beside this kind"));
        }
        (Some("characters"), Some(size), None) => {
            return Err(value(
                "tokenizer.size",
                size,
                "nothing: data have the characters they have",
            ));
        }
        (None | Some("file"), Some(size), Some(_)) => {
            return Err(value(
                "tokenizer.size",
                size,
                "nothing beside tokenizer.file, which has its own",
            ));
        }
        (Some("file"), _, None) => {
            let expected = "the path of a tokenizer.json";
            return Err(JobError::Missing { field: "tokenizer.file", expected });
        }
        (Some(kind), ..) => {
            return Err(value("tokenizer.kind", format!("{kind:?}"), "bpe, characters or file"));
        }
    };
    Ok(plan)
}

fn shape(file: ModelFile, vocab: u32) -> Result<ModelConfig, JobError> {
    let named = |field: &str| format!("model_specification.{field}");
    if let Some(found) =
        file.architecture.filter(|known| !["neurollm", "llama"].contains(&known.as_str()))
    {
        return Err(value(&named("architecture"), format!("{found:?}"), "neurollm"));
    }
    let dimensions = [file.hidden, file.layers, file.heads, file.kv_heads, file.ffn, file.context];
    let mut shape = match file.size.as_deref() {
        None if dimensions.iter().all(Option::is_none) => {
            let expected =
                "bootstrap, early, growth or mature, or hidden, layers, heads, ffn and context";
            return Err(JobError::Missing { field: "model_specification.size", expected });
        }
        None => {
            let needed = |field, given: Option<u32>| {
                given.ok_or(JobError::Missing {
                    field,
                    expected: "a whole number, for no size is named",
                })
            };
            let heads = needed("model_specification.heads", file.heads)?;
            ModelConfig {
                hidden: needed("model_specification.hidden", file.hidden)?,
                layers: needed("model_specification.layers", file.layers)?,
                heads,
                kv_heads: heads,
                ffn: needed("model_specification.ffn", file.ffn)?,
                vocab,
                context: needed("model_specification.context", file.context)?,
                ..ModelConfig::preset("bootstrap").map_err(config)?
            }
        }
        Some(size) => ModelConfig::preset(size)
            .map_err(|error| JobError::Field { field: named("size"), reason: error.to_string() })?,
    };
    shape.vocab = vocab;
    let places = [
        &mut shape.hidden,
        &mut shape.layers,
        &mut shape.heads,
        &mut shape.kv_heads,
        &mut shape.ffn,
        &mut shape.context,
    ];
    for (place, given) in places.into_iter().zip(dimensions) {
        *place = given.unwrap_or(*place);
    }
    shape.tied = file.tied.unwrap_or(shape.tied);
    shape.rope_theta = file.rope_theta.unwrap_or(shape.rope_theta);
    shape.norm_epsilon = file.norm_epsilon.unwrap_or(shape.norm_epsilon);
    shape.validate().map_err(config)?;
    check_size(&shape)?;
    Ok(shape)
}

/// A valid model that is so large that nobody means it.
fn check_size(model: &ModelConfig) -> Result<(), JobError> {
    let shape = model.shape();
    let blocks = u128::from(model.layers) * u128::from(shape.layer_parameters());
    let parameters = blocks + 2 * u128::from(shape.head_parameters());
    let widths = u64::from(model.layers) * (u64::from(model.hidden) + u64::from(model.ffn));
    if parameters > PARAMETERS_MAX || widths > WIDTHS_MAX {
        let expected =
            format!("at most {PARAMETERS_MAX}, in blocks whose widths sum to {WIDTHS_MAX}");
        return Err(value("model_specification", format!("{parameters} parameters"), expected));
    }
    Ok(())
}

/// An error of the crate's own configurations, whose fields are in the section of their kind.
fn config(error: ConfigError) -> JobError {
    match error {
        ConfigError::Field { field, found, expected } => {
            let of_model = ["hidden", "heads", "kv_heads", "norm_epsilon", "rope_theta"];
            let section =
                if of_model.contains(&field) { "model_specification" } else { "training_config" };
            JobError::Value { field: format!("{section}.{field}"), found, expected }
        }
        other => JobError::Field { field: "model_specification".into(), reason: other.to_string() },
    }
}

fn data(file: DataFile) -> Result<DataPlan, JobError> {
    let expected = "the paths of one or more files";
    let files =
        file.files.ok_or(JobError::Missing { field: "data_requirements.files", expected })?;
    if !(1..=FILES_MAX).contains(&files.len()) {
        let expected = format!("1 to {FILES_MAX} paths");
        return Err(value("data_requirements.files", format!("{} paths", files.len()), expected));
    }
    if let Some(at) = files.iter().position(|path| path.as_os_str().is_empty()) {
        let field = format!("data_requirements.files[{at}]");
        return Err(value(&field, "empty", "a path"));
    }
    let all_end = |end| files.iter().all(|path| path.extension().is_some_and(|kind| kind == end));
    let format = match file.data_format.as_deref() {
        None => ["jsonl", "parquet"].into_iter().find(|end| all_end(*end)).unwrap_or("text"),
        Some(known @ ("text" | "jsonl" | "parquet")) => known,
        Some(found) => {
            let found = format!("{found:?}");
            return Err(value("data_requirements.data_format", found, "text, jsonl or parquet"));
        }
    };
    let split = file.validation_split.unwrap_or(0.1);
    if !(0.0..=0.5).contains(&split) {
        return Err(value("data_requirements.validation_split", split, "0 to 0.5"));
    }
    let field = file.text_field.unwrap_or_else(|| "text".into());
    let source = |path| match format {
        "jsonl" => TextSource::JsonLines { path, field: field.clone() },
        "parquet" => TextSource::Parquet { path, column: field.clone() },
        _ => TextSource::Text { path },
    };
    Ok(DataPlan { sources: files.into_iter().map(source).collect(), validation_split: split })
}

fn amount(file: &TrainingFile) -> Result<Amount, JobError> {
    let given = [file.steps.is_some(), file.tokens.is_some(), file.epochs.is_some()];
    let bounded = |field: &str, found: u64| {
        if (1..=STEPS_MAX).contains(&found) {
            Ok(found)
        } else {
            Err(value(field, found, format!("1 to {STEPS_MAX}")))
        }
    };
    match (given.iter().filter(|is| **is).count(), file.steps, file.tokens, file.epochs) {
        (0, ..) => {
            let expected = "steps, tokens or epochs";
            Err(JobError::Missing { field: "training_config.steps", expected })
        }
        (1, Some(steps), ..) => Ok(Amount::Steps(bounded("training_config.steps", steps)?)),
        (1, _, Some(tokens), _) => Ok(Amount::Tokens(bounded("training_config.tokens", tokens)?)),
        (1, _, _, Some(epochs)) if epochs > 0.0 && epochs <= 1e6 => Ok(Amount::Epochs(epochs)),
        (1, _, _, Some(epochs)) => {
            Err(value("training_config.epochs", epochs, "more than 0 and at most 1000000"))
        }
        _ => {
            let reason = "only one of steps, tokens and epochs may be given".into();
            Err(JobError::Field { field: "training_config".into(), reason })
        }
    }
}

fn optimiser(file: &TrainingFile) -> Result<OptimiserConfig, JobError> {
    let kept = AdamW::default();
    let adamw = AdamW {
        learning_rate: file.learning_rate.unwrap_or(1e-3),
        beta1: file.beta1.unwrap_or(kept.beta1),
        beta2: file.beta2.unwrap_or(kept.beta2),
        epsilon: file.epsilon.unwrap_or(kept.epsilon),
        weight_decay: file.weight_decay.unwrap_or(kept.weight_decay),
        decay_norms: file.decay_norms.unwrap_or(kept.decay_norms),
    };
    match (file.optimizer.as_deref(), file.momentum) {
        (None | Some("adamw"), None) => Ok(OptimiserConfig::AdamW(adamw)),
        (None | Some("adamw"), Some(found)) => {
            Err(value("training_config.momentum", found, "nothing beside adamw; muon has one"))
        }
        (Some("muon"), momentum) => {
            let momentum = momentum.unwrap_or(Muon::default().momentum);
            Ok(OptimiserConfig::Muon(Muon { momentum, adamw }))
        }
        (Some(found), _) => {
            Err(value("training_config.optimizer", format!("{found:?}"), "adamw or muon"))
        }
    }
}

fn schedule(file: ScheduleFile) -> Result<SchedulePlan, JobError> {
    let part = |field: &str, given: Option<f64>, usual: f64| match given.unwrap_or(usual) {
        part if (0.0..=1.0).contains(&part) => Ok(part),
        found => Err(value(field, found, "0 to 1")),
    };
    let last = "training_config.schedule.last";
    match file.name.as_deref() {
        None | Some("cosine") => Ok(SchedulePlan::Cosine(part(last, file.last, 0.1)?)),
        Some("constant") => Ok(SchedulePlan::Constant),
        Some("trapezoid") => {
            let decay = part("training_config.schedule.decay", file.decay, 0.2)?;
            Ok(SchedulePlan::Trapezoid(decay, part(last, file.last, 0.0)?))
        }
        Some(found) => {
            let expected = "constant, cosine or trapezoid";
            Err(value("training_config.schedule.name", format!("{found:?}"), expected))
        }
    }
}

fn precision(name: Option<&str>) -> Result<Precision, JobError> {
    match name {
        None | Some("f32") => Ok(Precision::F32),
        Some("bf16" | "bf16-mixed") => Ok(Precision::Bf16),
        Some(found) => {
            Err(value("training_config.precision", format!("{found:?}"), "f32 or bf16-mixed"))
        }
    }
}

fn width(name: Option<&str>) -> Result<WeightWidth, JobError> {
    match name {
        None | Some("f32") => Ok(WeightWidth::F32),
        Some("bf16") => Ok(WeightWidth::Bf16),
        Some(found) => {
            Err(value("model_specification.weights", format!("{found:?}"), "f32 or bf16"))
        }
    }
}

fn whole(field: &str, given: Option<u32>, usual: u32, max: u32) -> Result<u32, JobError> {
    match given.unwrap_or(usual) {
        found if (1..=max).contains(&found) => Ok(found),
        found => Err(value(field, found, format!("1 to {max}"))),
    }
}

/// Steps between two things that cost time; often enough that little is lost and seldom enough not to matter.
fn every(field: &str, given: Option<u64>) -> Result<u64, JobError> {
    match given.unwrap_or(100) {
        0 => Err(value(field, 0, "at least 1")),
        steps => Ok(steps),
    }
}

fn gigabytes(given: Option<f64>) -> Result<u64, JobError> {
    match given.unwrap_or(0.0) {
        found if (0.0..=1e6).contains(&found) => Ok((found * 1e9) as u64),
        found => Err(value("hardware_requirements.min_memory_gb", found, "0 to 1000000")),
    }
}

fn deadline(text: &str) -> Result<u64, JobError> {
    let expected = "a time in UTC such as 2027-01-31T18:00:00Z";
    parse_utc_ms(text).ok_or_else(|| value("deadline", format!("{text:?}"), expected))
}

#[cfg(test)]
mod tests;
