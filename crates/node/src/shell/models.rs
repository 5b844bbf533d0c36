//! The models a node knows, and what requests call them: `MODEL`, or `MODEL:ADAPTER`.

use super::{
    Shared,
    fetch::{give::Telling, ranges::Remote},
    meter::{read_us, try_out},
    underway::Underway,
    upstream::unknown_model,
};
use crate::{
    api::GenerateError,
    config::{ModelChoice, StartError},
    wire::{ADAPTERS_MAX, Grade, OFFERS_MAX},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
};
use talka_base::{AdapterId, LayerSpan, ModelId, NodeId};
use talka_engine::{
    Adapter, Drafter, Grammar, GrammarCompiler, GrammarError, GrammarState, Guesser, LookUp, Model,
    ModelSource, PagePool, Pipeline, kernels::Kernels, quant::Encoding,
};

/// Positions of the pipeline that requests' own ones are made from, and that is never run.
const PATTERN_POSITIONS: u32 = 1;

/// A model whose files this node has.
pub(crate) struct KnownModel {
    pub(crate) name: String,
    pub(crate) id: ModelId,
    pub(crate) model: Model,
    /// Its files.
    pub(crate) source: ModelSource,
    /// Where its tensors come from, if that is neither this computer nor the other nodes.
    pub(crate) remote: Option<Remote>,
    /// The span its owner pinned.
    pub(crate) pinned: Option<LayerSpan>,
    pub(crate) adapters: Vec<KnownAdapter>,
    /// Stages that hold it in less have no part in answers to callers of this node.
    pub(crate) grade_min: Grade,
    /// How its weights are held here.
    pub(crate) grade: Grade,
    draft: Option<Draft>,
    /// What is told to nodes that have none of it.
    pub(crate) telling: Telling,
    /// Held while tensors of it are fetched.
    pub(crate) fetching: tokio::sync::Mutex<()>,
    /// Spans of it that are on their way into memory.
    pub(crate) underway: Underway,
    /// Nodes that sent wrong pieces of it.
    pub(crate) liars: Mutex<BTreeSet<NodeId>>,
    /// Made when a request first brings a grammar.
    grammars: OnceLock<Result<GrammarCompiler, GrammarError>>,
}

/// The models of a node, in the order in which they came. They stay until it stops.
#[derive(Default)]
pub(crate) struct Models {
    all: RwLock<Vec<Arc<KnownModel>>>,
    /// Names that mean a model of another name: those of training jobs, of their version.
    called: RwLock<BTreeMap<String, String>>,
}

impl From<Vec<Arc<KnownModel>>> for Models {
    fn from(models: Vec<Arc<KnownModel>>) -> Self {
        Self { all: RwLock::new(models), called: RwLock::default() }
    }
}

impl Models {
    pub(crate) fn all(&self) -> Vec<Arc<KnownModel>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn find(&self, is_it: impl Fn(&KnownModel) -> bool) -> Option<Arc<KnownModel>> {
        let models = self.all.read().unwrap_or_else(PoisonError::into_inner);
        models.iter().find(|known| is_it(known)).cloned()
    }

    /// From now on `name` means the model called `model`.
    pub(crate) fn call(&self, name: &str, model: &str) {
        let mut called = self.called.write().unwrap_or_else(PoisonError::into_inner);
        called.insert(name.into(), model.into());
    }

    /// The name of the model that `name` means; `name` itself if it means no other.
    fn meant_by(&self, name: &str) -> String {
        let called = self.called.read().unwrap_or_else(PoisonError::into_inner);
        called.get(name).map_or(name, String::as_str).to_owned()
    }

    /// One more, or one that was there before with the same name or weights.
    ///
    /// # Errors
    /// How many there are, if that is as many as a node can offer.
    pub(crate) fn add(&self, known: Arc<KnownModel>) -> Result<Arc<KnownModel>, usize> {
        let mut models = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let same = |other: &&Arc<KnownModel>| other.name == known.name || other.id == known.id;
        if let Some(known) = models.iter().find(same) {
            return Ok(Arc::clone(known));
        }
        if models.len() >= OFFERS_MAX {
            return Err(models.len());
        }
        models.push(Arc::clone(&known));
        Ok(known)
    }
}

/// A resident adapter.
pub(crate) struct KnownAdapter {
    pub(crate) name: String,
    pub(crate) adapter: Adapter,
}

/// A smaller model that guesses what this one will say.
struct Draft {
    pattern: Pipeline,
    /// What a guess costs, as a part of this model's pass: both are bound by reading weights.
    cost: f64,
    bytes: u64,
}

/// What a request asks for.
#[derive(Clone)]
pub(crate) struct Chosen {
    pub(crate) known: Arc<KnownModel>,
    /// Its name and itself.
    pub(crate) adapter: Option<(String, Adapter)>,
}

impl Chosen {
    /// As requests call it.
    pub(crate) fn name(&self) -> String {
        match &self.adapter {
            None => self.known.name.clone(),
            Some((adapter, _)) => format!("{}:{adapter}", self.known.name),
        }
    }

    /// What stages know the adapter by.
    pub(crate) fn adapter_id(&self) -> Option<AdapterId> {
        self.adapter.as_ref().map(|(_, adapter)| adapter.id())
    }
}

impl KnownModel {
    /// Opens the model of `choice`, whose files are at `source`, with its adapters and draft, and checks the
    /// tensors of the layers this node may be asked to serve: all of them, unless its owner named some. Their
    /// numbers are not read, so this is quick; adapters and drafts are loaded whole.
    pub(crate) fn open(
        choice: &ModelChoice,
        source: ModelSource,
        weights: Option<Encoding>,
        kernels: &Kernels,
    ) -> Result<Self, StartError> {
        let name = choice.name.clone();
        let wrong = |source| StartError::Model { name: name.clone(), source };
        let open = |source| match weights {
            None => Model::open(source),
            Some(weights) => Model::open_as(source, weights),
        };
        let model = open(source.clone()).map_err(wrong)?;
        let layers = model.shape().layers;
        if let Some(span) = choice.span.filter(|span| span.end() > layers) {
            return Err(StartError::NoSuchLayers { name, layers, span });
        }
        model.check(choice.span.unwrap_or(model.shape().span())).map_err(wrong)?;
        let found = choice.adapters.len();
        if found > ADAPTERS_MAX {
            return Err(StartError::TooManyAdapters { name, found, max: ADAPTERS_MAX });
        }
        let mut adapters: Vec<KnownAdapter> = Vec::new();
        for (adapter_name, folder) in &choice.adapters {
            let name = format!("{name}:{adapter_name}");
            if adapters.iter().any(|known| known.name == *adapter_name) {
                return Err(StartError::DuplicateModel { name });
            }
            let adapter = model.adapter(folder, kernels);
            let adapter =
                adapter.map_err(|source| StartError::Adapter { name: name.clone(), source })?;
            if let Some(warning) = adapter.warning() {
                tracing::warn!(adapter = name, "{warning}");
            }
            adapters.push(KnownAdapter { name: adapter_name.clone(), adapter });
        }
        let draft = choice.draft.clone().map(|source| {
            let draft = open(source).map_err(wrong)?;
            Draft::load(&name, &model, &draft, kernels)
        });
        let (id, draft) = (model.id(), draft.transpose()?);
        let grade = Grade::of(model.shape().precision, weights);
        Ok(Self {
            name,
            id,
            model,
            source,
            remote: None,
            pinned: choice.span,
            adapters,
            grade_min: choice.grade_min,
            grade,
            draft,
            telling: Telling::default(),
            fetching: tokio::sync::Mutex::default(),
            underway: Underway::default(),
            liars: Mutex::default(),
            grammars: OnceLock::new(),
        })
    }

    /// The resident adapter with this id.
    pub(crate) fn adapter(&self, id: AdapterId) -> Option<&Adapter> {
        self.adapters.iter().map(|known| &known.adapter).find(|adapter| adapter.id() == id)
    }

    /// Sorts the vocabulary when first called, which takes up to a second for the largest.
    pub(crate) fn compile(&self, grammar: &Grammar) -> Result<GrammarState, GrammarError> {
        let compiler = self.grammars.get_or_init(|| GrammarCompiler::new(&self.model));
        compiler.as_ref().map_err(Clone::clone)?.compile(grammar)
    }

    /// Whoever guesses for an answer of at most `positions_max` positions, prompt included: the draft model,
    /// else, or where `pool` has no room for its cache, what was said before.
    pub(crate) fn guesser(&self, pool: &PagePool, positions_max: u32) -> Guesser {
        let drafter = self.draft.as_ref().and_then(|draft| {
            let pipeline = draft.pattern.another(pool, positions_max).ok()?;
            Some(Guesser::Drafter(Box::new(Drafter::new(pipeline, draft.cost))))
        });
        // Looked-up guesses change no draw, so every request may have them.
        drafter.unwrap_or(Guesser::LookUp(LookUp::default()))
    }

    /// What adapters and draft take of the memory for weights, in bytes.
    pub(crate) fn extra_bytes(&self) -> u64 {
        let adapters = self.adapters.iter().map(|known| known.adapter.bytes() as u64);
        adapters.sum::<u64>() + self.draft.as_ref().map_or(0, |draft| draft.bytes)
    }

    /// Microseconds for one token through one layer, by running one of the layers this node may serve, with its
    /// part of reading what is no layer. Nothing if its weights are not here.
    pub(crate) fn try_layer(&self, kernels: &Kernels, bytes_per_second: f64) -> Option<u32> {
        let shape = self.model.shape();
        let served = self.pinned.unwrap_or(shape.span());
        // One of the middle comes without embeddings and head.
        let layer = served.start() + (served.len() - 1) / 2;
        let span = LayerSpan::new(layer, layer + 1).ok()?;
        let mut stage = self.model.stage(span, kernels).ok()?;
        let us = try_out(&mut stage, shape.hidden)?.as_secs_f64() * 1e6;
        let average = self.model.span_bytes(shape.span()) / u64::from(shape.layers);
        let rest = average.saturating_sub(self.model.span_bytes(span));
        Some((us.ceil() as u32).saturating_add(read_us(rest, bytes_per_second)))
    }

    /// Whether guesses take time, so that they must not be made where others wait.
    pub(crate) fn drafts(&self) -> bool {
        self.draft.is_some()
    }
}

impl Draft {
    fn load(
        name: &str,
        model: &Model,
        draft: &Model,
        kernels: &Kernels,
    ) -> Result<Self, StartError> {
        let refused = |reason: &str| StartError::Draft {
            name: name.into(),
            draft: draft.name().into(),
            reason: reason.into(),
        };
        if !draft.is_decoder() || !model.is_decoder() {
            return Err(refused("one of the two is an encoder, which continues no text"));
        }
        let same_size = draft.shape().vocab == model.shape().vocab;
        if !same_size || !draft.tokenizer().spells_as(model.tokenizer()) {
            return Err(refused(
                "their vocabularies differ, expected a smaller model of one family",
            ));
        }
        let span = draft.shape().span();
        let wrong = |source| StartError::Model { name: draft.name().into(), source };
        let stage = draft.stage(span, kernels).map_err(wrong)?;
        let pattern = Pipeline::new(vec![stage], PATTERN_POSITIONS).expect("it is the whole model");
        let bytes = draft.span_bytes(span);
        let cost = bytes as f64 / model.span_bytes(model.shape().span()) as f64;
        Ok(Self { pattern, cost, bytes })
    }
}

impl Shared {
    pub(crate) fn model_by_id(&self, id: ModelId) -> Option<Arc<KnownModel>> {
        self.models.find(|known| known.id == id)
    }

    /// The model, and the adapter if the name has one: `MODEL` or `MODEL:ADAPTER`.
    pub(crate) fn choose(&self, name: &str) -> Result<Chosen, GenerateError> {
        let find = |name: &str| self.models.find(|m| m.name == name || m.id.to_string() == name);
        if let Some(known) = find(name).or_else(|| find(&self.models.meant_by(name))) {
            return Ok(Chosen { known, adapter: None });
        }
        let with_adapter = name.rsplit_once(':').and_then(|(model, adapter)| {
            let known = find(model)?;
            let found = known.adapters.iter().find(|known| known.name == adapter)?;
            let adapter = Some((found.name.clone(), found.adapter.clone()));
            Some(Chosen { known, adapter })
        });
        with_adapter.ok_or_else(|| unknown_model(self, name))
    }
}

impl KnownModel {
    /// Everything that requests may call it.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> + '_ {
        let adapted = self.adapters.iter().map(|known| format!("{}:{}", self.name, known.name));
        std::iter::once(self.name.clone()).chain(adapted)
    }
}
