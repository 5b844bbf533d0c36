//! Runs language models on a CPU: file formats, tokenizer, chat template, layers, sampling, text.
//!
//! Decides how a model is computed. Never opens a socket, knows no credits and no other node; reads
//! files only where a caller says a model is. Two honest machines may differ here in the last bits
//! and nothing breaks; on one machine the same input gives the same bits, however it is cut into
//! prefill chunks, spans or batches.
//!
//! Start at [`Model::open`]; a [`Stage`] runs some of its layers; [`generate`](generate::generate)
//! is the whole loop in one process.

mod arch;
mod block;
pub mod choose;
mod config;
pub mod embed;
mod error;
mod formats;
pub mod generate;
pub mod grammar;
pub mod kernels;
mod kv;
pub mod logprobs;
pub mod lora;
mod model;
mod profile;
pub mod quant;
mod rope;
pub mod sample;
pub mod speculate;
mod stage;
pub mod template;
pub mod text;
mod token_bytes;
pub mod tokenizer;
pub mod tools;
mod weight;

pub use arch::neurollm::PRESETS as NEUROLLM_PRESETS;
pub use choose::{Choice, ChoiceEnd, ChoiceRules, Chooser};
pub use config::ConfigError;
pub use embed::{EmbeddingRules, ModelKind, Pooling};
pub use error::{ModelError, StageError};
pub use formats::{
    BundledModel, GgufError, HEADER_START_BYTES, ModelSource, OUTLINE_BYTES_MAX, Outline,
    OutlineError, PIECE_BYTES, PartialModel, Place, Sample, Survey, Surveyed, TensorOutline,
    header_bytes, weight_files,
};
pub use generate::{Finish, GenerateError, Pipeline, generate, generate_guessing};
pub use grammar::{Grammar, GrammarCompiler, GrammarError, GrammarState};
pub use kernels::CacheElement;
pub use kv::{CacheLayout, CacheOptions, KvCache, PagePool, TRUNCATE_POSITIONS_MAX};
pub use logprobs::TokenLogProbs;
pub use lora::{Adapter, AdapterError};
pub use model::Model;
pub use profile::ModelProfile;
pub use sample::{Guess, Sampler, SamplingError, SamplingParams};
pub use speculate::{Drafter, Guesser, LookUp, Speculation};
pub use stage::{BatchItem, LogitsWanted, Stage, StageInput, StageOutput};
pub use template::{ChatMessage, ChatTemplate, TemplateError};
pub use text::{TextDelta, TextStream};
pub use tokenizer::{Tokenizer, TokenizerError};
pub use tools::{CallPart, Parsed, Tool, ToolCall, ToolChoice, ToolFormat, ToolParser, ToolUse};
