//! Model families: one file each, which reads the family's `config.json` and names its tensors.
//!
//! A family file decides nothing about arithmetic. It fills in an [`Architecture`], and the one
//! [`Block`](crate::block::Block) runs it. What a new family needs beyond that (a bias, a norm in
//! another place, a window) becomes an option here, off for those before it.

mod llama;

use crate::{
    config::{ConfigError, Fields},
    rope::Rope,
};
use serde_json::{Map, Value};
use talka_base::{LayerSpan, ModelShape, Precision};

/// Reads a family's configuration. The precision is that of the weights, which the file's own
/// `dtype` field does not tell reliably.
type ReadFamily = fn(Fields<'_>, Precision) -> Result<Architecture, ConfigError>;

/// Every family, by the `model_type` of its `config.json`.
const FAMILIES: &[(&str, ReadFamily)] = &[("llama", llama::read)];

/// What a decoder computes, apart from its weights.
#[derive(Debug, Clone)]
pub(crate) struct Architecture {
    pub shape: ModelShape,
    /// Added to the mean square in every norm.
    pub norm_epsilon: f32,
    pub rope: Rope,
    /// The head is the embedding's matrix.
    pub tied: bool,
    /// Ids that end a generation, as far as `config.json` tells.
    pub eos_ids: Vec<u32>,
    /// What the family calls a tensor.
    pub tensor_name: fn(Part) -> String,
}

/// A tensor of a decoder, by what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// `[V, D]`: token to hidden state.
    Embedding,
    /// A tensor of the layer of that number.
    Layer(u32, LayerPart),
    /// `[D]`: the norm after the last layer.
    FinalNorm,
    /// `[V, D]`: hidden state to logits.
    Head,
}

/// A tensor of one layer. Matrices are `[N, K]`: output features by input features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerPart {
    AttentionNorm,
    Query,
    Key,
    Value,
    AttentionOutput,
    FfnNorm,
    Gate,
    Up,
    Down,
}

impl LayerPart {
    pub const ALL: [Self; 9] = [
        Self::AttentionNorm,
        Self::Query,
        Self::Key,
        Self::Value,
        Self::AttentionOutput,
        Self::FfnNorm,
        Self::Gate,
        Self::Up,
        Self::Down,
    ];
}

impl Architecture {
    /// Reads a `config.json` by the family it names.
    pub fn read(config: &Map<String, Value>, precision: Precision) -> Result<Self, ConfigError> {
        let fields = Fields::top(config);
        let (_, read) = family(fields)?;
        let architecture = read(fields, precision)?;
        architecture.check(fields)?;
        Ok(architecture)
    }

    /// The name of the family that a `config.json` names, if it is a known one.
    pub fn family(config: &Map<String, Value>) -> Result<&'static str, ConfigError> {
        family(Fields::top(config)).map(|(name, _)| name)
    }

    /// What every family must satisfy for the kernels to run it.
    fn check(&self, fields: Fields<'_>) -> Result<(), ConfigError> {
        let shape = &self.shape;
        shape.validate()?;
        if !shape.head_dim.is_multiple_of(2) {
            return Err(fields.wrong("head_dim", shape.head_dim, "an even number"));
        }
        if !shape.heads.is_multiple_of(shape.kv_heads) {
            let expected = format!("a divisor of num_attention_heads = {}", shape.heads);
            return Err(fields.wrong("num_key_value_heads", shape.kv_heads, expected));
        }
        Ok(())
    }

    /// The tensors a stage of `span` needs, each once.
    pub fn parts(&self, span: LayerSpan) -> Vec<Part> {
        let (first, last) = (span.start() == 0, span.end() == self.shape.layers);
        let layers =
            span.layers().flat_map(|n| LayerPart::ALL.into_iter().map(move |p| Part::Layer(n, p)));
        let mut parts: Vec<_> = layers.collect();
        if first || (last && self.tied) {
            parts.push(Part::Embedding);
        }
        if last {
            parts.push(Part::FinalNorm);
        }
        if last && !self.tied {
            parts.push(Part::Head);
        }
        parts
    }

    /// The dimensions of a tensor, slowest first.
    pub fn dimensions(&self, part: Part) -> Vec<usize> {
        let s = &self.shape;
        let [hidden, ffn, vocab] = [s.hidden, s.ffn, s.vocab].map(|n| n as usize);
        let query = s.heads as usize * s.head_dim as usize;
        let key = s.kv_heads as usize * s.head_dim as usize;
        match part {
            Part::Embedding | Part::Head => vec![vocab, hidden],
            Part::FinalNorm => vec![hidden],
            Part::Layer(_, part) => match part {
                LayerPart::AttentionNorm | LayerPart::FfnNorm => vec![hidden],
                LayerPart::Query => vec![query, hidden],
                LayerPart::Key | LayerPart::Value => vec![key, hidden],
                LayerPart::AttentionOutput => vec![hidden, query],
                LayerPart::Gate | LayerPart::Up => vec![ffn, hidden],
                LayerPart::Down => vec![hidden, ffn],
            },
        }
    }
}

/// The family that `fields` name.
fn family(fields: Fields<'_>) -> Result<(&'static str, ReadFamily), ConfigError> {
    let Some(family) = fields.str("model_type")? else {
        return Err(fields.missing("model_type", "the name of a model family"));
    };
    FAMILIES.iter().find(|(name, _)| *name == family).copied().ok_or_else(|| {
        let supported: Vec<_> = FAMILIES.iter().map(|(name, _)| *name).collect();
        let found = family.chars().take(100).collect();
        ConfigError::UnknownFamily { found, supported: supported.join(", ") }
    })
}
