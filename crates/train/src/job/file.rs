//! A job file as it is typed: what is absent takes the usual value.

use super::{JOB_BYTES_MAX, JobError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// How a job file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobFormat {
    /// `*.toml`
    Toml,
    /// `*.json`
    Json,
}

impl JobFormat {
    /// By the end of the file's name; JSON unless it says TOML.
    pub fn of(path: &Path) -> Self {
        if path.extension().is_some_and(|kind| kind.eq_ignore_ascii_case("toml")) {
            Self::Toml
        } else {
            Self::Json
        }
    }
}

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_doc])* #[serde(skip_serializing_if = "is_usual")] pub $field: $type,)*
        }
    };
}

fn is_usual<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

section! {
    /// A whole job file.
    JobFile {
        /// The job's name, and that of the model that it makes.
        task_id: Option<String>,
        /// `foundation`: a model from scratch.
        task_type: Option<String>,
        /// What the model looks like.
        model_specification: ModelFile,
        /// How text becomes tokens.
        tokenizer: TokenizerFile,
        /// How it is trained.
        training_config: TrainingFile,
        /// What it learns from.
        data_requirements: DataFile,
        /// What a machine must have.
        hardware_requirements: HardwareFile,
        /// How members train it together; absent where one node trains alone.
        network: Option<NetworkFile>,
        /// When it ends at the latest: a time in UTC, such as `2027-01-31T18:00:00Z`.
        deadline: Option<String>,
        /// What first weights and the order of samples follow from.
        seed: Option<u64>,
    }
}

section! {
    /// A size by name, single dimensions, or a size with some dimensions changed.
    ModelFile {
        /// `neurollm`.
        architecture: Option<String>,
        /// `bootstrap`, `early`, `growth` or `mature`.
        size: Option<String>,
        /// Width of the hidden state.
        hidden: Option<u32>,
        /// Blocks.
        layers: Option<u32>,
        /// Query heads.
        heads: Option<u32>,
        /// Key and value heads; as many as query heads if no size is named.
        kv_heads: Option<u32>,
        /// Width of the feed-forward.
        ffn: Option<u32>,
        /// Positions of a sequence.
        context: Option<u32>,
        /// Whether the embedding is the output matrix too.
        tied: Option<bool>,
        /// Base of the angles of rotation.
        rope_theta: Option<f64>,
        /// Added to the mean square in every norm.
        norm_epsilon: Option<f64>,
        /// What versions are written in: `f32` or `bf16`.
        weights: Option<String>,
    }
}

section! {
    /// Byte-level pairs of `size` entries if nothing is said.
    TokenizerFile {
        /// `bpe`, `characters` or `file`.
        kind: Option<String>,
        /// Entries of a vocabulary of pairs.
        size: Option<u32>,
        /// A `tokenizer.json`.
        file: Option<PathBuf>,
    }
}

section! {
    /// The inner steps.
    TrainingFile {
        /// The highest learning rate.
        learning_rate: Option<f64>,
        /// Rows of a batch.
        batch_size: Option<u32>,
        /// Positions of a row; the model's context if absent.
        length: Option<u32>,
        /// Times through the data.
        epochs: Option<f64>,
        /// Updates of the weights.
        steps: Option<u64>,
        /// Tokens to train on.
        tokens: Option<u64>,
        /// `adamw` or `muon`.
        optimizer: Option<String>,
        /// How much of the mean gradient stays.
        beta1: Option<f64>,
        /// How much of the mean squared gradient stays.
        beta2: Option<f64>,
        /// Added to the root of the mean square.
        epsilon: Option<f64>,
        /// Share of a weight that goes per step and unit of learning rate.
        weight_decay: Option<f64>,
        /// Whether the weights of norms decay too.
        decay_norms: Option<bool>,
        /// Muon's.
        momentum: Option<f64>,
        /// Steps over which the learning rate rises from zero.
        warmup: Option<u64>,
        /// The course of the learning rate after that.
        schedule: ScheduleFile,
        /// The greatest norm of all gradients; 0 for any.
        clip: Option<f64>,
        /// `f32` or `bf16-mixed`.
        precision: Option<String>,
        /// The part of what blocks add that is left out by chance in training.
        dropout: Option<f64>,
        /// Rows that go through the model at once: fewer need less memory.
        rows_at_once: Option<u32>,
        /// Compute the insides of blocks twice, to save memory.
        recompute: Option<bool>,
        /// Steps between two checkpoints.
        checkpoint_every: Option<u64>,
        /// Steps between two looks at the validation data.
        validate_every: Option<u64>,
        /// Versions are the mean of the weights over about so many steps; 0 for the weights as they are.
        average_steps: Option<u64>,
    }
}

section! {
    /// The course of the learning rate.
    ScheduleFile {
        /// `constant`, `cosine` or `trapezoid`.
        name: Option<String>,
        /// The part of the rate at the end.
        last: Option<f64>,
        /// The part of the steps over which a trapezoid falls.
        decay: Option<f64>,
    }
}

section! {
    /// The data.
    DataFile {
        /// Paths; relative ones stand beside the job file.
        files: Option<Vec<PathBuf>>,
        /// `text`, `jsonl` or `parquet`; by the names of the files if absent.
        data_format: Option<String>,
        /// The field of a line of jsonl, or the column of a Parquet file, that is the text.
        text_field: Option<String>,
        /// The part that is kept back for validation.
        validation_split: Option<f64>,
    }
}

section! {
    /// What a machine must have.
    HardwareFile {
        /// Free memory, in GB.
        min_memory_gb: Option<f64>,
    }
}

section! {
    /// Training by several members.
    NetworkFile {
        /// Nobody trains with fewer members.
        members_min: Option<u32>,
        /// Steps of a member in a round, at most.
        steps_per_round: Option<u32>,
        /// How long a round is trained at the longest.
        window_seconds: Option<f64>,
        /// How long after that updates are waited for.
        grace_seconds: Option<f64>,
        /// What becomes of updates that come too late: `carried` or `dropped`.
        late: Option<String>,
        /// `sparse`, `dense4`, `bf16` or `f32`.
        compressor: Option<String>,
        /// Of 4,096 values so many are sent, if sparse.
        top: Option<u32>,
        /// Parts of the model, of which each round exchanges one.
        fragments: Option<u32>,
        /// Whether members train on while a round's updates are exchanged.
        overlap: Option<bool>,
        /// The learning rate of the step that all take together; by the number of rounds if absent.
        outer_rate: Option<f64>,
        /// Its momentum.
        outer_momentum: Option<f64>,
        /// `mean`, `trimmed`, `median`, `krum` or `geometric`.
        merge: Option<String>,
        /// How many members may lie; for krum.
        liars: Option<u32>,
        /// Whether longer updates are shortened to the median length.
        clip: Option<bool>,
    }
}

impl JobFile {
    /// Reads a file's text.
    ///
    /// # Errors
    /// [`JobError`] names the field and the reason.
    pub fn read(text: &str, format: JobFormat) -> Result<Self, JobError> {
        if text.len() > JOB_BYTES_MAX {
            return Err(JobError::Size { found: text.len(), max: JOB_BYTES_MAX });
        }
        let syntax = |format, reason| JobError::Syntax { format, reason };
        let value = match format {
            JobFormat::Json => {
                serde_json::from_str(text).map_err(|error| syntax("JSON", error.to_string()))?
            }
            JobFormat::Toml => {
                let table: toml::Table =
                    toml::from_str(text).map_err(|error| syntax("TOML", at_line(text, &error)))?;
                plain(toml::Value::Table(table))
            }
        };
        Self::from_value(value)
    }

    /// Reads a document that was parsed.
    ///
    /// # Errors
    /// As [`JobFile::read`].
    pub fn from_value(value: Value) -> Result<Self, JobError> {
        if !value.is_object() {
            let reason = "an object was expected at the top".into();
            return Err(JobError::Syntax { format: "job", reason });
        }
        named(value)
    }

    /// The same with data and tokenizer found from `folder`, where they are not named from the root.
    #[must_use]
    pub fn beside(mut self, folder: &Path) -> Self {
        let files = self.data_requirements.files.iter_mut().flatten();
        for path in files.chain(&mut self.tokenizer.file) {
            *path = folder.join(&*path);
        }
        self
    }
}

/// Reads a value, and tells of an error in which field it is.
fn named<T: DeserializeOwned>(value: Value) -> Result<T, JobError> {
    serde_path_to_error::deserialize(value).map_err(|error| JobError::Field {
        field: error.path().to_string(),
        reason: error.inner().to_string(),
    })
}

fn at_line(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    format!("line {}: {}", before.matches('\n').count() + 1, error.message())
}

/// TOML as JSON; times become texts.
fn plain(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        // JSON has no other numbers; as a text it is refused where a number belongs.
        toml::Value::Float(number) if !number.is_finite() => number.to_string().into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(is) => is.into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(items) => items.into_iter().map(plain).collect(),
        toml::Value::Table(table) => table
            .into_iter()
            .map(|(name, value)| (name, plain(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}
