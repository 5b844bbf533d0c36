//! Model families: one file each, which reads the family's `config.json` and names its tensors.
//!
//! A family file decides nothing about arithmetic. It fills in an [`Architecture`], and the one
//! [`Block`](crate::block::Block) runs it. What a new family needs beyond that (a bias, a norm in
//! another place, a window) becomes an option here, off for those before it.

mod bert;
mod gemma2;
mod gemma3;
mod gpt2;
mod llama;
mod mistral;
mod mixtral;
pub mod neurollm;
mod olmo2;
mod part;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3_moe;
mod read;

use crate::{
    config::{ConfigError, Fields},
    kernels::{Activation, AttentionRule},
    quant::Encoding,
    rope::Rope,
};
use serde_json::{Map, Value};
use std::ops::Range;
use talka_base::{LayerSpan, ModelShape, Precision};

pub(crate) use part::{LayerPart, Part};

/// Reads a family's configuration. The precision is that of the weights, which the file's own
/// `dtype` field does not tell reliably.
type ReadFamily = fn(Fields<'_>, Precision) -> Result<Architecture, ConfigError>;

/// Every family, by the `model_type` of its `config.json`.
const FAMILIES: &[(&str, ReadFamily)] = &[
    ("llama", llama::read),
    ("mistral", mistral::read),
    ("mixtral", mixtral::read),
    ("qwen2", qwen2::read),
    ("qwen3", qwen3::read),
    ("qwen3_moe", qwen3_moe::read),
    ("gemma2", gemma2::read),
    ("gemma3", gemma3::read),
    ("gemma3_text", gemma3::read),
    ("phi3", phi3::read),
    ("olmo2", olmo2::read),
    ("gpt2", gpt2::read),
    ("neurollm", neurollm::read),
    ("bert", bert::read),
];

/// What a transformer computes, apart from its weights.
#[derive(Debug, Clone)]
pub(crate) struct Architecture {
    /// The `model_type` it was read as.
    pub family: &'static str,
    pub shape: ModelShape,
    pub norm: Norm,
    /// Where in a layer norms stand.
    pub placement: Placement,
    pub attention: Attention,
    /// How positions turn queries and keys; each layer names one. Empty: positions are embedded.
    pub ropes: Vec<Rope>,
    pub layers: Vec<LayerRule>,
    pub feed_forward: FeedForward,
    pub input: Input,
    /// Whether a norm follows the last layer.
    pub final_norm: bool,
    /// Logits `l` become `cap · tanh(l / cap)`.
    pub logits_softcap: Option<f32>,
    /// Whether it continues text; else it is an encoder, without a head.
    pub decoder: bool,
    /// The head is the embedding's matrix.
    pub tied: bool,
    /// Ids that end a generation, as far as `config.json` tells.
    pub eos_ids: Vec<u32>,
    /// Where a tensor lies.
    pub locate: fn(&Architecture, Part) -> Location,
    /// Where published checkpoints keep a tensor, if these files have other names: adapters use theirs.
    pub published: Option<fn(&Architecture, Part) -> Location>,
    /// What matrices are brought to when they are loaded, if not as they are stored.
    pub weights: Option<Encoding>,
    /// What published files put before the names of tensors, some of them. Files of a model without
    /// its head also leave out a leading `model.`.
    pub prefixes: &'static [&'static str],
}

/// How a row of the hidden state is brought to a common size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Norm {
    pub kind: NormKind,
    /// Added to the mean square, or to the variance.
    pub epsilon: f32,
    /// Added to the weights: some families store them less one.
    pub offset: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NormKind {
    RootMeanSquare,
    /// Mean and variance, with a bias.
    Layer,
}

/// Where norms stand around attention and feed-forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Of the input: `x + f(norm(x))`.
    Before,
    /// Of the output: `x + norm(f(x))`.
    After,
    /// Of both: `x + norm(f(norm(x)))`.
    Around,
    /// Of the sum: `norm(x + f(x))`.
    Residual,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Attention {
    /// Scores are multiplied by this.
    pub scale: f32,
    /// And divided by the number of the layer, counted from 1.
    pub divide_by_layer: bool,
    /// Scores `s` become `cap · tanh(s / cap)`.
    pub softcap: Option<f32>,
    /// A norm of queries and keys.
    pub qk_norm: Option<QkNorm>,
    /// Whether queries, keys and values have biases.
    pub bias: bool,
    /// Whether the output has one.
    pub output_bias: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QkNorm {
    /// Of each head by itself.
    Heads,
    /// Of all heads of a position together.
    Row,
}

/// What differs from layer to layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LayerRule {
    /// Positions that a query sees, its own included; all if absent.
    pub window: Option<usize>,
    /// Which of the ropes.
    pub rope: usize,
    /// Whether experts take the place of the one feed-forward.
    pub experts: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct FeedForward {
    pub activation: Activation,
    /// Whether a second matrix gates the activation.
    pub gated: bool,
    pub bias: bool,
    /// Inner features of a layer without experts.
    pub width: u32,
    pub experts: Option<Experts>,
}

/// A mixture of experts (Shazeer et al. 2017; Jiang et al. 2024).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Experts {
    pub count: u32,
    /// How many see a token.
    pub used: u32,
    /// Inner features of each.
    pub width: u32,
    /// Whether the weights of those used are made to sum to one.
    pub normalise: bool,
}

/// From tokens to the first layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Input {
    /// Embeddings are multiplied by this.
    pub scale: f32,
    /// An embedding of each position is added.
    pub positions: bool,
    /// The embedding of the first token type is added.
    pub types: Option<u32>,
    /// A norm follows.
    pub norm: bool,
}

impl Input {
    /// The embedding as it is.
    pub const PLAIN: Self = Self { scale: 1.0, positions: false, types: None, norm: false };
}

/// Where the numbers of a [`Part`] lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    /// The tensor, without a prefix.
    pub name: String,
    /// The rows of this part, and how many the tensor has: it is stored together with others.
    pub rows: Option<(Range<usize>, usize)>,
    /// Inputs are the slower dimension.
    pub transposed: bool,
    /// The rows of each of so many heads are stored in pairs, for rotations of neighbours.
    pub interleaved_heads: Option<usize>,
    /// Which of how many experts, stored one after the other.
    pub expert: Option<(usize, usize)>,
}

impl Location {
    /// All of a tensor, as it lies.
    pub fn whole(name: String) -> Self {
        Self { name, rows: None, transposed: false, interleaved_heads: None, expert: None }
    }
}

impl Architecture {
    /// Reads a `config.json` by the family it names.
    pub fn read(config: &Map<String, Value>, precision: Precision) -> Result<Self, ConfigError> {
        let fields = Fields::top(config);
        let (name, read) = family(fields)?;
        let mut architecture = read(fields, precision)?;
        architecture.family = name;
        architecture.check(fields)?;
        Ok(architecture)
    }

    /// What every family must satisfy for the kernels to run it.
    fn check(&self, fields: Fields<'_>) -> Result<(), ConfigError> {
        let shape = &self.shape;
        shape.validate()?;
        if !self.ropes.is_empty() && !shape.head_dim.is_multiple_of(2) {
            return Err(fields.wrong("head_dim", shape.head_dim, "an even number"));
        }
        if !shape.heads.is_multiple_of(shape.kv_heads) {
            let expected = format!("a divisor of num_attention_heads = {}", shape.heads);
            return Err(fields.wrong("num_key_value_heads", shape.kv_heads, expected));
        }
        if let Some(experts) = &self.feed_forward.experts {
            let expected = || format!("1 to {}, the number of experts", experts.count);
            let max = EXPERTS_MAX.min(EXPERTS_OF_ALL_LAYERS_MAX / shape.layers);
            if experts.count == 0 || experts.count > max {
                let expected = format!("1 to {max} in a model of {} layers", shape.layers);
                return Err(fields.wrong("num_experts", experts.count, expected));
            }
            if experts.used == 0 || experts.used > experts.count {
                return Err(fields.wrong("num_experts_per_tok", experts.used, expected()));
            }
        }
        Ok(())
    }

    /// How the rows of layer `layer` attend.
    pub fn attention_rule(&self, layer: u32) -> AttentionRule {
        let divisor = if self.attention.divide_by_layer { layer + 1 } else { 1 };
        AttentionRule {
            scale: self.attention.scale / divisor as f32,
            window: self.layers[layer as usize].window,
            softcap: self.attention.softcap,
            causal: self.decoder,
        }
    }

    /// The tensors a stage of `span` needs, each once.
    pub fn parts(&self, span: LayerSpan) -> Vec<Part> {
        let (first, last) = (span.start() == 0, span.end() == self.shape.layers);
        let layers = span.layers().flat_map(|layer| {
            self.layer_parts(layer).into_iter().map(move |part| Part::Layer(layer, part))
        });
        let mut parts: Vec<_> = layers.collect();
        let layer_norm = self.norm.kind == NormKind::Layer;
        let mut add = |part, wanted: bool| parts.extend(wanted.then_some(part));
        add(Part::Embedding, first || (last && self.tied && self.decoder));
        add(Part::Positions, first && self.input.positions);
        add(Part::Types, first && self.input.types.is_some());
        add(Part::InputNorm, first && self.input.norm);
        add(Part::InputNormBias, first && self.input.norm && layer_norm);
        add(Part::FinalNorm, last && self.final_norm);
        add(Part::FinalNormBias, last && self.final_norm && layer_norm);
        add(Part::Head, last && self.decoder && !self.tied);
        parts
    }

    /// The tensors of a layer.
    fn layer_parts(&self, layer: u32) -> Vec<LayerPart> {
        use LayerPart as P;
        let (attention, feed_forward) = (&self.attention, &self.feed_forward);
        let layer_norm = self.norm.kind == NormKind::Layer;
        let (first, second) = (self.placement != Placement::After, self.has_output_norms());
        let mut parts = vec![P::Query, P::Key, P::Value, P::AttentionOutput];
        let mut add = |list: &[LayerPart], wanted: bool| {
            if wanted {
                parts.extend(list);
            }
        };
        add(&[P::AttentionNorm, P::FfnNorm], first);
        add(&[P::AttentionNormBias, P::FfnNormBias], first && layer_norm);
        add(&[P::AttentionOutputNorm, P::FfnOutputNorm], second);
        add(&[P::QueryBias, P::KeyBias, P::ValueBias], attention.bias);
        add(&[P::AttentionOutputBias], attention.output_bias);
        add(&[P::QueryNorm, P::KeyNorm], attention.qk_norm.is_some());
        match feed_forward.experts.filter(|_| self.layers[layer as usize].experts) {
            Some(experts) => {
                add(&[P::Router], true);
                for e in 0..experts.count {
                    add(&[P::ExpertGate(e), P::ExpertUp(e), P::ExpertDown(e)], true);
                }
            }
            None => {
                add(&[P::Gate], feed_forward.gated);
                add(&[P::Up, P::Down], true);
                add(&[P::GateBias], feed_forward.gated && feed_forward.bias);
                add(&[P::UpBias, P::DownBias], feed_forward.bias);
            }
        }
        parts
    }

    /// Whether a layer has a tensor.
    pub fn has(&self, layer: u32, part: LayerPart) -> bool {
        self.layer_parts(layer).contains(&part)
    }

    /// The names under which files may keep what [`Location`] calls `name`, likeliest first.
    pub fn spellings(&self, name: &str) -> Vec<String> {
        let mut endings = vec![name.to_owned()];
        endings.extend(name.strip_prefix("model.").map(str::to_owned));
        // The first BERTs were converted from a library that called them so.
        for (ours, theirs) in [("LayerNorm.weight", "gamma"), ("LayerNorm.bias", "beta")] {
            let start = name.strip_suffix(ours);
            endings.extend(start.map(|start| format!("{start}LayerNorm.{theirs}")));
        }
        let prefixed = |prefix| endings.iter().map(move |ending| format!("{prefix}{ending}"));
        self.prefixes.iter().flat_map(prefixed).collect()
    }

    /// Puts `experts` in place of the feed-forward of every layer.
    fn set_experts(&mut self, experts: Experts) {
        self.feed_forward.experts = Some(experts);
        // What a token meets is what the economy counts.
        self.shape.ffn = experts.width.saturating_mul(experts.used);
        self.layers.iter_mut().for_each(|rule| rule.experts = true);
    }

    /// Whether the outputs of attention and feed-forward have norms.
    pub fn has_output_norms(&self) -> bool {
        matches!(self.placement, Placement::After | Placement::Around)
    }

    /// The dimensions of a part, slowest first.
    pub fn dimensions(&self, part: Part) -> Vec<usize> {
        use LayerPart as P;
        let s = &self.shape;
        let [hidden, vocab] = [s.hidden, s.vocab].map(|n| n as usize);
        let head_dim = s.head_dim as usize;
        let query = s.heads as usize * head_dim;
        let key = s.kv_heads as usize * head_dim;
        let ffn = self.feed_forward.width as usize;
        let (experts, expert) =
            self.feed_forward.experts.map_or((0, 0), |e| (e.count as usize, e.width as usize));
        let per_head = self.attention.qk_norm == Some(QkNorm::Heads);
        match part {
            Part::Embedding | Part::Head => vec![vocab, hidden],
            Part::Positions => vec![s.context as usize, hidden],
            Part::Types => vec![self.input.types.unwrap_or(0) as usize, hidden],
            Part::InputNorm | Part::InputNormBias | Part::FinalNorm | Part::FinalNormBias => {
                vec![hidden]
            }
            Part::Layer(_, part) => match part {
                P::AttentionNorm
                | P::AttentionNormBias
                | P::AttentionOutputNorm
                | P::AttentionOutputBias
                | P::FfnNorm
                | P::FfnNormBias
                | P::FfnOutputNorm
                | P::DownBias => vec![hidden],
                P::Query => vec![query, hidden],
                P::Key | P::Value => vec![key, hidden],
                P::QueryBias => vec![query],
                P::KeyBias | P::ValueBias => vec![key],
                P::QueryNorm => vec![if per_head { head_dim } else { query }],
                P::KeyNorm => vec![if per_head { head_dim } else { key }],
                P::AttentionOutput => vec![hidden, query],
                P::Gate | P::Up => vec![ffn, hidden],
                P::GateBias | P::UpBias => vec![ffn],
                P::Down => vec![hidden, ffn],
                P::Router => vec![experts, hidden],
                P::ExpertGate(_) | P::ExpertUp(_) => vec![expert, hidden],
                P::ExpertDown(_) => vec![hidden, expert],
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

/// More experts than any published layer has.
const EXPERTS_MAX: u32 = 4096;
/// Nearly three times those of the largest published model (61 layers of 384): each is looked up by name
/// before any weight is, so that two large numbers in a file of settings must not make billions.
const EXPERTS_OF_ALL_LAYERS_MAX: u32 = 1 << 16;
