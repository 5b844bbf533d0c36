//! What can be wrong with a model, and with a call on one of its stages.

use crate::{
    config::ConfigError, kv::CacheLayout, template::TemplateError, tokenizer::TokenizerError,
};
use talka_base::LayerSpan;

/// Why a model could not be opened or a stage not loaded. Nothing was kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in the messages")]
pub enum ModelError {
    /// The operating system refused.
    #[error("cannot read {file}: {source}")]
    Read { file: String, source: std::io::Error },
    /// Not a model in the Hugging Face layout.
    #[error(
        "{place} has no {file}; expected a folder in the Hugging Face layout with config.json, \
         tokenizer.json and model.safetensors (or its shards and their index)"
    )]
    MissingFile { file: String, place: String },
    /// No published model comes near this size.
    #[error("{file} is larger than {max} bytes, the most such a file may have")]
    FileTooLarge { file: String, max: u64 },
    /// A JSON file does not parse.
    #[error("{file} does not parse: {source}")]
    Json { file: String, source: serde_json::Error },
    /// The configuration is wrong or not supported.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The tokenizer is wrong.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat template is wrong.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The header is not one, or does not describe this file.
    #[error("{file} is truncated or no safetensors file: {source}; download it again")]
    Header { file: String, source: safetensors::SafeTensorError },
    /// Not a GGUF file, or a damaged one.
    #[error("{file}: {source}")]
    Gguf { file: String, source: crate::formats::GgufError },
    /// The index names a file it may not name.
    #[error("the shard index names {found:?}, expected a file NAME.safetensors in its folder")]
    ShardName { found: String },
    /// The index and a shard disagree.
    #[error("the shard index places tensor {name} in {shard}, which does not hold it")]
    NotInShard { name: String, shard: String },
    /// Two shards disagree.
    #[error("tensor {name} is stored twice")]
    TwiceStored { name: String },
    /// A tensor the architecture needs is absent.
    #[error("tensor {name} is missing, expected with shape {expected:?}")]
    MissingTensor { name: String, expected: Vec<usize> },
    /// The tensor of a model that is fetched piece by piece.
    #[error("tensor {name} is not on this computer yet; it has to be fetched first")]
    NotFetched { name: String },
    /// A tensor has another shape than the configuration says.
    #[error("tensor {name} has shape {found:?}, expected {expected:?} by config.json")]
    TensorShape { name: String, found: Vec<usize>, expected: Vec<usize> },
    /// A tensor is stored in a type no kernel reads.
    #[error("tensor {name} is stored as {found}, expected one of {}", supported())]
    TensorType { name: String, found: String },
    /// A number that no answer can come of.
    #[error(
        "tensor {name} holds a number that is infinite or none; the file is damaged or the training of the model failed"
    )]
    NotFinite { name: String },
    /// Nothing is quantised to this.
    #[error("weights can be loaded as q8_0 or q4_k, found {found}")]
    Weights { found: crate::quant::Encoding },
    /// A tensor cannot be held.
    #[error("tensor {name}: {source}")]
    Matrix { name: String, source: crate::kernels::MatrixError },
    /// The model has no such layers.
    #[error("the model has layers 0..{layers}, asked for {wanted}")]
    NoSuchLayers { wanted: LayerSpan, layers: u32 },
}

/// Why a stage did not run. The cache is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in the messages")]
pub enum StageError {
    /// The sequence would grow past what its cache holds.
    #[error("the cache holds {len} of at most {max} positions, {new} more do not fit")]
    CacheFull { len: u32, new: usize, max: u32 },
    /// A token that the model does not know.
    #[error("token {found} is outside the vocabulary of {vocab}")]
    UnknownToken { found: u32, vocab: u32 },
    /// Tokens enter at layer 0, hidden states elsewhere.
    #[error("layers {span} take {expected} as input, found {found}")]
    WrongInput { span: LayerSpan, expected: &'static str, found: &'static str },
    /// Not a whole, positive number of rows.
    #[error("input has {found} numbers, expected a positive multiple of the hidden width {width}")]
    RaggedInput { found: usize, width: u32 },
    /// No input at all.
    #[error("input is empty, expected at least one position")]
    NoInput,
    /// The cache is for layers that this stage lacks.
    #[error("the cache is for layers {wanted}, this stage holds {held}")]
    NotHeld { wanted: LayerSpan, held: LayerSpan },
    /// An encoder was given a text in pieces.
    #[error(
        "the cache holds {len} positions of this text; an encoder takes a text whole, as each \
         position sees all others"
    )]
    TextInPieces { len: u32 },
    /// An adapter cannot join a sequence on its way.
    #[error("the cache holds {len} positions, computed with another adapter or none; expected 0")]
    AdapterTooLate { len: u32 },
    /// The adapter was loaded for another model.
    #[error("adapter {name} was loaded for another model than that of this stage")]
    ForeignAdapter { name: String },
    /// The cache was made by a stage of another model or of other layers.
    #[error("the cache has room for {found}, expected {expected}: it was made by another stage")]
    ForeignCache { found: CacheLayout, expected: CacheLayout },
    /// The pool cannot promise the memory.
    #[error(
        "the cache may take {wanted} bytes, {left} of {max} are left; close other sequences or raise the limit"
    )]
    NoMemory { wanted: u64, left: u64, max: u64 },
    /// Pages before the window were given back, then the cache was truncated into them.
    #[error(
        "the cache was truncated to {len} positions, before what its windows keep; start it anew"
    )]
    PositionsGone { len: u32 },
    /// The items of a batch go through the same layers.
    #[error("the cache is for layers {found}, the batch runs {expected}")]
    OtherSpan { found: LayerSpan, expected: LayerSpan },
}

/// The names of all encodings.
fn supported() -> String {
    crate::quant::Encoding::ALL.map(|encoding| encoding.to_string()).join(", ")
}
