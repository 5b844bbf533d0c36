//! A contiguous run of layers, and the border of the model where they touch it.
//!
//! Decides the order of operations over positions and layers. Never decides what token follows.

mod pass;

use crate::{
    arch::{Architecture, Part},
    block::{Block, NormWeights, Scratch},
    error::{ModelError, StageError},
    formats::TensorTable,
    kernels::{AttentionRule, CacheElement, Kernels, PageShape},
    kv::{Batch, CacheLayout, CacheOptions, CachePlan, KvCache, PagePool},
    weight::{Weight, load_vector},
};
use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use talka_base::{LayerSpan, ModelShape, Precision};

/// Most rows that go through the layers at once; longer inputs are cut, which changes no bit.
///
/// Bounds the scratch memory (some 20 MB for a model of 1 B parameters) where a prompt's length is
/// the caller's. Twice as many gain less than a hundredth in speed: each weight is already used
/// 256 times per read.
pub(crate) const ROWS_MAX: usize = 256;

/// Layers of a model with their weights; only hidden states cross its borders.
///
/// Same instruction set, weights, input and cache: same bits, on any number of threads and however
/// the input is cut into calls.
#[derive(Debug)]
pub struct Stage {
    /// Tells it from other stages of this process.
    number: u64,
    architecture: Arc<Architecture>,
    kernels: Kernels,
    span: LayerSpan,
    blocks: Vec<Block>,
    /// Where the span starts the model.
    entry: Option<Entry>,
    /// Where the span ends the model.
    tail: Option<Tail>,
    scratch: Scratch,
}

/// From tokens to the first layer's input.
#[derive(Debug)]
struct Entry {
    embedding: Weight,         // [V, D]
    positions: Option<Weight>, // [positions, D]
    /// The embedding of the first type.
    kind: Option<Vec<f32>>, // [D]
    norm: Option<NormWeights>, // [D]
}

/// From the last layer's output to logits.
#[derive(Debug)]
struct Tail {
    norm: Option<NormWeights>, // [D]
    /// Encoders have none.
    head: Option<Weight>, // [V, D]
}

/// What a stage is given for `T` new positions.
#[derive(Debug, Clone, Copy)]
pub enum StageInput<'a> {
    /// Token ids `[T]`, where the cache's span starts at layer 0.
    Tokens(&'a [u32]),
    /// Hidden states `[T, D]`, D fastest, elsewhere.
    Hidden(&'a [f32]),
}

impl StageInput<'_> {
    /// Some of its rows; a hidden state has `width` numbers.
    fn rows(self, rows: Range<usize>, width: usize) -> Self {
        match self {
            Self::Tokens(tokens) => Self::Tokens(&tokens[rows]),
            Self::Hidden(hidden) => Self::Hidden(&hidden[rows.start * width..rows.end * width]),
        }
    }
}

/// One sequence of [`Stage::run_batch`].
#[derive(Debug)]
pub struct BatchItem<'a> {
    /// Its `T` new positions, at least 1.
    pub input: StageInput<'a>,
    /// The positions before them.
    pub cache: &'a mut KvCache,
    /// What is wanted of a span that ends the model.
    pub logits: LogitsWanted,
}

/// For which positions a span that ends the model computes logits. Elsewhere it has no meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogitsWanted {
    /// None: a prompt that goes on, or an embedding.
    None,
    /// The last: what the next token is drawn from.
    Last,
    /// All `T`.
    All,
}

/// What a stage returns for `T` positions.
#[derive(Debug, Clone, PartialEq)]
pub enum StageOutput {
    /// `[T, D]`, D fastest: the input of the next layer. From a span that ends the model, asked for
    /// [`LogitsWanted::None`], or of an encoder: the hidden states after the final norm.
    Hidden(Vec<f32>),
    /// `[1, V]` or `[T, V]`, V fastest: unnormalised log-probabilities of the next token.
    Logits(Vec<f32>),
}

impl Entry {
    fn load(
        table: &TensorTable,
        architecture: &Architecture,
        kernels: &Kernels,
    ) -> Result<Self, ModelError> {
        let weight = |part| Weight::load(table, architecture, part, kernels);
        let input = &architecture.input;
        let kind = |_| {
            let mut kinds = load_vector(table, architecture, Part::Types)?;
            kinds.truncate(architecture.shape.hidden as usize);
            Ok::<_, ModelError>(kinds)
        };
        let norm = || NormWeights::load(table, architecture, Part::InputNorm, Part::InputNormBias);
        Ok(Self {
            embedding: weight(Part::Embedding)?,
            positions: input.positions.then(|| weight(Part::Positions)).transpose()?,
            kind: input.types.map(kind).transpose()?,
            norm: input.norm.then(norm).transpose()?,
        })
    }
}

impl Tail {
    fn load(
        table: &TensorTable,
        architecture: &Architecture,
        kernels: &Kernels,
        entry: Option<&Entry>,
    ) -> Result<Self, ModelError> {
        let norm = || NormWeights::load(table, architecture, Part::FinalNorm, Part::FinalNormBias);
        let weight = |part| Weight::load(table, architecture, part, kernels);
        let head = || match entry {
            Some(entry) if architecture.tied => Ok(entry.embedding.clone()),
            _ if architecture.tied => weight(Part::Embedding),
            _ => weight(Part::Head),
        };
        Ok(Self {
            norm: architecture.final_norm.then(norm).transpose()?,
            head: architecture.decoder.then(head).transpose()?,
        })
    }
}

impl Stage {
    /// `seen` is told the number of layers that are loaded, after each.
    pub(crate) fn load(
        architecture: &Arc<Architecture>,
        table: &TensorTable,
        span: LayerSpan,
        kernels: &Kernels,
        seen: &mut dyn FnMut(u32),
    ) -> Result<Self, ModelError> {
        let layers = architecture.shape.layers;
        if span.end() > layers {
            return Err(ModelError::NoSuchLayers { wanted: span, layers });
        }
        let entry =
            (span.start() == 0).then(|| Entry::load(table, architecture, kernels)).transpose()?;
        let mut blocks = Vec::with_capacity(span.len() as usize);
        for layer in span.layers() {
            blocks.push(Block::load(table, architecture, layer, kernels)?);
            seen(layer + 1 - span.start());
        }
        let tail = (span.end() == layers)
            .then(|| Tail::load(table, architecture, kernels, entry.as_ref()))
            .transpose()?;
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Ok(Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            architecture: Arc::clone(architecture),
            kernels: kernels.clone(),
            span,
            blocks,
            entry,
            tail,
            scratch: Scratch::default(),
        })
    }

    /// The layers it holds.
    pub fn span(&self) -> LayerSpan {
        self.span
    }

    /// Whether its last layer is the model's, so that it can return logits.
    pub fn ends_model(&self) -> bool {
        self.tail.is_some()
    }

    /// Which stage of this process it is.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// An empty cache for `span`, some or all of this stage's layers, with room for
    /// `positions_max` positions or the model's context, whichever is less. It shares nothing and its
    /// memory is not limited.
    ///
    /// Layers that the stage does not hold get no memory; [`Stage::run`] refuses such a cache.
    pub fn new_cache(&self, span: LayerSpan, positions_max: u32) -> KvCache {
        let options = CacheOptions { positions_max, element: None, share_prefixes: None };
        let pool = PagePool::new(u64::MAX);
        KvCache::new(&pool, self.plan(span, &options))
            .expect("u64::MAX bytes suffice for one cache")
    }

    /// As [`Self::new_cache`], with pages from `pool`, in which it reserves the most that it may need.
    ///
    /// # Errors
    /// [`StageError::NoMemory`] if the pool has less left.
    pub fn new_cache_in(
        &self,
        pool: &PagePool,
        span: LayerSpan,
        options: &CacheOptions,
    ) -> Result<KvCache, StageError> {
        KvCache::new(pool, self.plan(span, options))
    }

    /// The most that a cache made with these options can take, in bytes.
    pub fn cache_bytes_max(&self, span: LayerSpan, options: &CacheOptions) -> u64 {
        self.plan(span, options).bytes_max()
    }

    fn plan(&self, span: LayerSpan, options: &CacheOptions) -> CachePlan {
        let shape = &self.architecture.shape;
        let element = options.element.unwrap_or(page_shape(shape).element);
        let held = span.start().max(self.span.start())..span.end().min(self.span.end());
        let rules: Vec<AttentionRule> =
            held.map(|layer| self.architecture.attention_rule(layer)).collect();
        let whole = span.start() == 0 && span.end() == shape.layers;
        let is_causal = self.architecture.decoder;
        CachePlan {
            span,
            shape: PageShape { element, ..page_shape(shape) },
            positions_max: options.positions_max.min(shape.context),
            rows_max: ROWS_MAX,
            // What sees later rows is run at once: nothing may go before it is done.
            windows: rules.iter().map(|rule| rule.window.filter(|_| is_causal)).collect(),
            prefixes: options
                .share_prefixes
                .filter(|_| whole && is_causal)
                .map(|namespace| (self.number, namespace)),
        }
    }

    /// Runs the layers of `cache.span()` over `T` new positions, which follow those in `cache`, and
    /// adds them to it. `T` is at least 1. A [`Stage::run_batch`] of one.
    ///
    /// # Errors
    /// [`StageError`]: the input does not belong here, holds an unknown token, or does not fit the
    /// cache. Nothing is written then.
    pub fn run(
        &mut self,
        input: StageInput<'_>,
        cache: &mut KvCache,
        logits: LogitsWanted,
    ) -> Result<StageOutput, StageError> {
        let results = self.run_batch(&mut [BatchItem { input, cache, logits }]);
        results.into_iter().next().expect("one result for one item")
    }

    fn empty_output(&self, span: LayerSpan, logits: LogitsWanted, positions: usize) -> StageOutput {
        let shape = &self.architecture.shape;
        let ends = span.end() == shape.layers;
        let rows = if logits == LogitsWanted::Last { 1 } else { positions };
        if ends && self.architecture.decoder && logits != LogitsWanted::None {
            StageOutput::Logits(Vec::with_capacity(rows * shape.vocab as usize))
        } else {
            StageOutput::Hidden(Vec::with_capacity(positions * shape.hidden as usize))
        }
    }

    /// The number of positions, if all is well with the call.
    fn check(&self, input: StageInput<'_>, cache: &KvCache) -> Result<usize, StageError> {
        let (span, shape) = (cache.span(), &self.architecture.shape);
        if !self.span.contains(span) {
            return Err(StageError::NotHeld { wanted: span, held: self.span });
        }
        let [layers, kv_heads, head_dim] =
            [span.len(), shape.kv_heads, shape.head_dim].map(|n| n as usize);
        let expected = CacheLayout { layers, kv_heads, head_dim };
        let found = cache.layout();
        if found != expected {
            return Err(StageError::ForeignCache { found, expected });
        }
        if let Some(adapter) = cache.adapter().filter(|a| !a.belongs_to(&self.architecture)) {
            return Err(StageError::ForeignAdapter { name: adapter.name().into() });
        }
        if !self.architecture.decoder && !cache.is_empty() {
            return Err(StageError::TextInPieces { len: cache.len() });
        }
        let positions = self.check_input(input, span)?;
        cache.check_room(positions)?;
        Ok(positions)
    }

    fn check_input(&self, input: StageInput<'_>, span: LayerSpan) -> Result<usize, StageError> {
        let shape = &self.architecture.shape;
        let (tokens, hidden) = ("tokens", "hidden states");
        match input {
            StageInput::Tokens(_) if span.start() > 0 => {
                Err(StageError::WrongInput { span, expected: hidden, found: tokens })
            }
            StageInput::Hidden(_) if span.start() == 0 => {
                Err(StageError::WrongInput { span, expected: tokens, found: hidden })
            }
            StageInput::Tokens([]) => Err(StageError::NoInput),
            StageInput::Tokens(tokens) => match tokens.iter().find(|t| **t >= shape.vocab) {
                Some(&found) => Err(StageError::UnknownToken { found, vocab: shape.vocab }),
                None => Ok(tokens.len()),
            },
            StageInput::Hidden(hidden) => {
                let (found, width) = (hidden.len(), shape.hidden);
                if found == 0 || !found.is_multiple_of(width as usize) {
                    return Err(StageError::RaggedInput { found, width });
                }
                Ok(found / width as usize)
            }
        }
    }

    /// `scratch.hidden` `[T, D]` = the embeddings of `tokens` `[T]`, the rows of `batch`.
    fn embed(&mut self, tokens: impl Iterator<Item = u32>, batch: &Batch<'_>) {
        let entry = self.entry.as_ref().expect("a stage from layer 0 holds the embedding");
        let scale = self.architecture.input.scale;
        let width = self.architecture.shape.hidden as usize;
        let mut other = vec![0.0; width];
        let Scratch { hidden, normed, .. } = &mut self.scratch;
        let rows = hidden.chunks_exact_mut(width).zip(tokens).zip(batch.positions());
        for ((row, token), position) in rows {
            entry.embedding.matrix().row_into(token as usize, row);
            if scale != 1.0 {
                row.iter_mut().for_each(|x| *x *= scale);
            }
            if let Some(positions) = &entry.positions {
                positions.matrix().row_into(position as usize, &mut other);
                row.iter_mut().zip(&other).for_each(|(x, other)| *x += other);
            }
            if let Some(kind) = &entry.kind {
                row.iter_mut().zip(kind).for_each(|(x, kind)| *x += kind);
            }
        }
        if let Some(norm) = &entry.norm {
            norm.run(&self.kernels, &self.architecture, normed, hidden);
            std::mem::swap(normed, hidden);
        }
    }
}

/// Where all layers take at most this much for a position in f32, caches are small in any case, and keep
/// every bit.
const EXACT_POSITION_BYTES_MAX: u64 = 16 << 10;

/// The pages of a model's caches: f32 where the weights are or little would be saved, else f16.
pub(crate) fn page_shape(shape: &ModelShape) -> PageShape {
    let exact = PageShape {
        kv_heads: shape.kv_heads as usize,
        head_dim: shape.head_dim as usize,
        element: CacheElement::F32,
    };
    let is_small = KvCache::position_bytes(shape.layers, &exact) <= EXACT_POSITION_BYTES_MAX;
    if shape.precision == Precision::F32 || is_small {
        return exact;
    }
    PageShape { element: CacheElement::F16, ..exact }
}
