//! A model on this machine: what it is, and the door to its layers.

use crate::{
    arch::Architecture,
    config::Fields,
    embed::{EmbeddingRules, ModelKind},
    error::ModelError,
    formats::{GgufModel, ModelSource, PIECE_BYTES, TensorTable, open_gguf},
    kernels::Kernels,
    kv::KvCache,
    lora::{Adapter, AdapterError},
    profile::{self, ModelProfile, Weights},
    quant::Encoding,
    stage::{Stage, page_shape},
    template::ChatTemplate,
    tokenizer::{Tokenizer, TokenizerError},
    weight::{self, measure},
};
use serde_json::{Map, Value};
use std::{collections::BTreeSet, path::Path, sync::Arc};
use talka_base::{LayerSpan, ModelId, ModelShape};

/// `config.json` is a page of settings.
const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// The largest published tokenizers (256,000 tokens) take 33 MB.
const TOKENIZER_BYTES_MAX: u64 = 128 << 20;
/// Lists every added token, hence larger than a page.
const TEMPLATE_BYTES_MAX: u64 = 16 << 20;

/// An opened model: its shape, tokenizer and template, and where its weights lie. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Model(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: ModelId,
    name: String,
    architecture: Arc<Architecture>,
    table: TensorTable,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    eos_ids: Vec<u32>,
    embedding: EmbeddingRules,
}

impl Model {
    /// Reads a model's configuration, tokenizer and tensor headers. Of the weights only the samples
    /// that identify it are touched.
    ///
    /// # Errors
    /// [`ModelError`] names the file, field or tensor at fault.
    pub fn open(source: ModelSource) -> Result<Self, ModelError> {
        if let ModelSource::Gguf(path) = &source {
            let gguf = open_gguf(path)?;
            return Self::of_gguf(gguf, source.name());
        }
        let config = source.require("config.json", CONFIG_BYTES_MAX)?;
        let tokenizer_file = source.require("tokenizer.json", TOKENIZER_BYTES_MAX)?;
        let table = source.tensors()?;
        let fields = parse("config.json", &config)?;
        let architecture = Architecture::read(&fields, table.precision())?;
        let tokenizer = Tokenizer::from_bytes(&tokenizer_file, architecture.shape.vocab)?;
        Ok(Self(Arc::new(Inner {
            id: table.id(&config, &tokenizer_file),
            name: source.name(),
            eos_ids: eos_ids(&source, &architecture)?,
            embedding: EmbeddingRules::read(
                &source,
                kind(&architecture),
                architecture.shape.context,
            )?,
            architecture: Arc::new(architecture),
            table,
            tokenizer,
            template: read_template(&source)?,
        })))
    }

    /// [`Model::open`], with every large matrix quantised to `weights`, Q8_0 or Q4_K, when a stage loads
    /// it. What is stored in fewer bits stays as it is. It is the same model, with the same id: nodes may
    /// hold it differently.
    ///
    /// # Errors
    /// As [`Model::open`]; [`ModelError::Weights`] for another encoding.
    pub fn open_as(source: ModelSource, weights: Encoding) -> Result<Self, ModelError> {
        if !matches!(weights, Encoding::Q8_0 | Encoding::Q4_K) {
            return Err(ModelError::Weights { found: weights });
        }
        let mut model = Self::open(source)?;
        let inner = Arc::get_mut(&mut model.0).expect("nobody else has it yet");
        let architecture = Arc::get_mut(&mut inner.architecture).expect("nobody else has it yet");
        architecture.weights = Some(weights);
        Ok(model)
    }

    fn of_gguf(gguf: GgufModel, name: String) -> Result<Self, ModelError> {
        let GgufModel { config, architecture, table, tokenizer, tokenizer_config, mut eos_ids } =
            gguf;
        let config = Value::Object(config).to_string();
        eos_ids.sort_unstable();
        eos_ids.dedup();
        Ok(Self(Arc::new(Inner {
            id: table.id(config.as_bytes(), &tokenizer),
            name,
            eos_ids,
            tokenizer: Tokenizer::from_bytes(&tokenizer, architecture.shape.vocab)?,
            embedding: EmbeddingRules::plain(kind(&architecture), architecture.shape.context),
            architecture: Arc::new(architecture),
            table,
            template: ChatTemplate::read(&tokenizer_config, None)?,
        })))
    }

    /// What it is, whatever its folder is called and however its weights are cut into files.
    pub fn id(&self) -> ModelId {
        self.0.id
    }

    /// The name of its folder, or of the bundled model.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its dimensions.
    pub fn shape(&self) -> &ModelShape {
        &self.0.architecture.shape
    }

    /// Bytes of the weights that a stage of `span` holds, embedding and head included where the span
    /// has them. Tensors that are missing count as nothing; [`Model::stage`] names them.
    pub fn span_bytes(&self, span: LayerSpan) -> u64 {
        let architecture = &self.0.architecture;
        // A stranger's span may go far beyond the model; do not walk it.
        let end = span.end().min(architecture.shape.layers);
        let Ok(span) = LayerSpan::new(span.start(), end) else { return 0 };
        let parts = architecture.parts(span).into_iter();
        let measure = |part| measure(&self.0.table, architecture, part);
        parts.filter_map(measure).map(|measure| measure.bytes).sum()
    }

    /// Whether it continues text or turns it into vectors.
    pub fn kind(&self) -> ModelKind {
        kind(&self.0.architecture)
    }

    /// How it turns a text into a vector. A decoder can too, if not as well.
    pub fn embedding(&self) -> &EmbeddingRules {
        &self.0.embedding
    }

    /// The tokens of a text to be made a vector of, with the special ones around it; cut to at most
    /// `tokens_max`. [`Self::embedding`] says how many are allowed.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] if the tokenizer has no way to spell the text.
    pub fn embedding_tokens(
        &self,
        text: &str,
        tokens_max: u32,
    ) -> Result<Vec<u32>, TokenizerError> {
        // As sentence-transformers does; a byte-level tokenizer would see the spaces.
        self.0.tokenizer.encode_at_most(text.trim(), tokens_max as usize)
    }

    /// Text to token ids and back.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.0.tokenizer
    }

    /// Messages to prompt text.
    pub fn template(&self) -> &ChatTemplate {
        &self.0.template
    }

    /// The ids that end a generation, from `config.json` and `generation_config.json`.
    pub fn eos_ids(&self) -> &[u32] {
        &self.0.eos_ids
    }

    /// What it is and what running it takes, by its headers alone.
    pub fn profile(&self) -> ModelProfile {
        let Inner { architecture, table, tokenizer, template, .. } = &*self.0;
        let shape = architecture.shape;
        let weights = Weights::of(architecture, table);
        ModelProfile {
            id: self.id(),
            family: architecture.family.into(),
            shape,
            parameters: weights.parameters,
            parameters_active: weights.parameters_active,
            flops_first: profile::flops_at(&shape, 0),
            flops_last: profile::flops_at(&shape, shape.context - 1),
            layer_bytes: weights.layer_bytes,
            embedding_bytes: weights.embedding_bytes,
            head_bytes: weights.head_bytes,
            weight_bytes: weights.weight_bytes,
            kv_bytes_per_position: KvCache::position_bytes(shape.layers, &page_shape(&shape)),
            encodings: weights.encodings,
            tokenizer: tokenizer.kind().into(),
            chat_template: template.is_own(),
        }
    }

    /// The `model_type` of its configuration.
    pub fn family(&self) -> &'static str {
        self.0.architecture.family
    }

    /// Whether it continues text; an encoder turns it into vectors instead.
    pub fn is_decoder(&self) -> bool {
        self.0.architecture.decoder
    }

    /// Whether all tensors of `span` are there as they must be; their numbers are not read.
    ///
    /// # Errors
    /// As [`Model::stage`].
    pub fn check(&self, span: LayerSpan) -> Result<(), ModelError> {
        let architecture = &self.0.architecture;
        let layers = architecture.shape.layers;
        if span.end() > layers {
            return Err(ModelError::NoSuchLayers { wanted: span, layers });
        }
        let parts = architecture.parts(span).into_iter();
        parts.into_iter().try_for_each(|part| weight::check(&self.0.table, architecture, part))
    }

    /// Names of the tensors that [`Model::stage`] reads for `span`, in order. One that is missing is
    /// left out; [`Model::check`] names it.
    pub fn tensors_of(&self, span: LayerSpan) -> BTreeSet<String> {
        let architecture = &self.0.architecture;
        let end = span.end().min(architecture.shape.layers);
        let Ok(span) = LayerSpan::new(span.start(), end) else { return BTreeSet::new() };
        let name = |part| weight::name(&self.0.table, architecture, part);
        architecture.parts(span).into_iter().filter_map(name).collect()
    }

    /// A piece of the tensor called `tensor`, of [`PIECE_BYTES`] or, at the end, what is left; `None` if
    /// there is no such piece or it is not on this computer.
    pub fn piece(&self, tensor: &str, piece: usize) -> Option<&[u8]> {
        self.0.table.get(tensor)?.bytes().ok()?.chunks(PIECE_BYTES).nth(piece)
    }

    /// Reads a LoRA adapter of this model from a folder in the layout of PEFT. Sequences choose it by
    /// [`KvCache::set_adapter`]; stages of other loads of the same model refuse it.
    ///
    /// # Errors
    /// [`AdapterError`] names what is wrong, or what was made for another base model.
    pub fn adapter(&self, folder: &Path, kernels: &Kernels) -> Result<Adapter, AdapterError> {
        Adapter::open(folder, &self.0.architecture, &self.0.name, kernels)
    }

    /// The layers of `span`, ready to run. Reads only their own tensors.
    ///
    /// # Errors
    /// [`ModelError`] names the first tensor that is missing, mis-shaped (with both shapes) or of a
    /// type no kernel reads, or the span that the model lacks.
    pub fn stage(&self, span: LayerSpan, kernels: &Kernels) -> Result<Stage, ModelError> {
        self.stage_watched(span, kernels, &mut |_| {})
    }

    /// The same; `seen` is told after each layer how many of the bytes of [`Model::span_bytes`] are loaded.
    ///
    /// # Errors
    /// As [`Model::stage`].
    pub fn stage_watched(
        &self,
        span: LayerSpan,
        kernels: &Kernels,
        seen: &mut dyn FnMut(u64),
    ) -> Result<Stage, ModelError> {
        let bytes = self.span_bytes(span);
        let mut part = |layers: u32| {
            let part = u128::from(bytes) * u128::from(layers) / u128::from(span.len());
            seen(part as u64);
        };
        Stage::load(&self.0.architecture, &self.0.table, span, kernels, &mut part)
    }
}

fn kind(architecture: &Architecture) -> ModelKind {
    if architecture.decoder { ModelKind::Decoder } else { ModelKind::Encoder }
}

fn parse(file: &str, bytes: &[u8]) -> Result<Map<String, Value>, ModelError> {
    serde_json::from_slice(bytes).map_err(|source| ModelError::Json { file: file.into(), source })
}

/// Chat models list the end of a turn only in `generation_config.json`.
fn eos_ids(source: &ModelSource, architecture: &Architecture) -> Result<Vec<u32>, ModelError> {
    const FILE: &str = "generation_config.json";
    let mut ids = architecture.eos_ids.clone();
    if let Some(bytes) = source.read(FILE, CONFIG_BYTES_MAX)? {
        let fields = parse(FILE, &bytes)?;
        ids.extend(Fields::of(FILE, &fields).ids("eos_token_id")?);
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

fn read_template(source: &ModelSource) -> Result<ChatTemplate, ModelError> {
    const FILE: &str = "tokenizer_config.json";
    let config = match source.read(FILE, TEMPLATE_BYTES_MAX)? {
        Some(bytes) => parse(FILE, &bytes)?,
        None => Map::new(),
    };
    let file = source.read("chat_template.jinja", TEMPLATE_BYTES_MAX)?;
    Ok(ChatTemplate::read(&config, file)?)
}
