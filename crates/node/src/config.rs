//! What a node is told when it starts, and why it may refuse to.

use crate::{
    core::{
        fallback::{UpstreamModel, UpstreamPrice},
        owner::Opening,
    },
    shell::admission::Load,
    wire::Grade,
};
use std::{
    error::Error,
    fmt::Debug,
    net::SocketAddr,
    ops::Range,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use talka_base::{Credits, LayerSpan};
use talka_engine::{AdapterError, ModelError, ModelSource, quant::Encoding};
use talka_ledger::Policy as LedgerPolicy;
use talka_plan::residency::Policy;
use talka_upstream::{ServiceConfig, ServiceError};
use tokio::sync::mpsc;

/// A place that gives ranges of a model's files, such as a hub: of its weights only what this node needs
/// is fetched.
pub trait Ranges: Debug + Send + Sync {
    /// Where it is, for people.
    fn place(&self) -> String;

    /// Names what the files hold: the same text never stands for other bytes.
    fn content(&self) -> String;

    /// The folder of the model's small files, its index of shards among them.
    fn folder(&self) -> &Path;

    /// Names of the safetensors files that are there, and their lengths in bytes.
    fn files(&self) -> Vec<(String, u64)>;

    /// Sends `range` of `file` to `sink`, in order and in pieces of any size, with patience for a line that breaks.
    fn read<'a>(
        &'a self,
        file: &'a str,
        range: Range<u64>,
        sink: mpsc::Sender<Vec<u8>>,
    ) -> RangeRead<'a>;
}

/// A range on its way.
pub type RangeRead<'a> =
    Pin<Box<dyn Future<Output = Result<(), Box<dyn Error + Send + Sync>>> + Send + 'a>>;

/// Where a model's files are.
#[derive(Debug, Clone)]
pub enum ModelPlace {
    /// On this computer.
    Here(ModelSource),
    /// On other nodes of the network, which call it by the same name: each layer is fetched when this
    /// node is to serve it.
    Peers,
    /// Somewhere that gives ranges of files: likewise.
    Ranges(Arc<dyn Ranges>),
}

/// A model to serve.
#[derive(Debug, Clone)]
pub struct ModelChoice {
    /// Where its files are.
    pub place: ModelPlace,
    /// What requests call it.
    pub name: String,
    /// The layers to serve; chosen by the node if absent.
    pub span: Option<LayerSpan>,
    /// Low-rank adapters to keep beside it: what requests call each, and its folder in PEFT's layout.
    pub adapters: Vec<(String, PathBuf)>,
    /// The least faithful way in which a stage may hold it that answers callers of this node.
    pub grade_min: Grade,
    /// A smaller model with the same vocabulary that guesses for this one.
    pub draft: Option<ModelSource>,
}

impl ModelChoice {
    /// A model whose files are here, with nothing beside it.
    pub const fn here(name: String, source: ModelSource) -> Self {
        let place = ModelPlace::Here(source);
        Self { place, name, span: None, adapters: Vec::new(), grade_min: Grade::Q4, draft: None }
    }
}

/// A service outside the network that answers where the network cannot, and when a request asks for it.
#[derive(Debug, Clone)]
pub struct UpstreamChoice {
    /// Where it is and how it is asked.
    pub service: ServiceConfig,
    /// What it serves; if nothing is named, the models that this node knows, by the same names.
    pub models: Vec<UpstreamModel>,
    /// What its answers cost.
    pub price: UpstreamPrice,
}

/// Of the memory a node offers, this part is for caches unless its owner says how much, the rest for weights.
const CACHE_SHARE: u64 = 4;

const MEMORY_BYTES_FALLBACK: u64 = 4 << 30;

/// What a node uses of its machine's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryShare {
    /// For weights.
    pub weights: u64,
    /// For what sequences leave in the layers' caches.
    pub caches: u64,
}

impl MemoryShare {
    /// Of `offered` bytes, half of the machine's memory if nothing is said; `caches` of them for caches, a
    /// quarter if nothing is said, never more than all.
    pub fn of(offered: Option<u64>, caches: Option<u64>) -> Self {
        let offered = offered.unwrap_or_else(half_of_memory);
        let caches = caches.unwrap_or(offered / CACHE_SHARE).min(offered);
        Self { weights: offered - caches, caches }
    }

    /// All of it.
    pub fn sum(self) -> u64 {
        self.weights + self.caches
    }
}

fn half_of_memory() -> u64 {
    let memory = sysinfo::RefreshKind::nothing()
        .with_memory(sysinfo::MemoryRefreshKind::nothing().with_ram());
    // Where the machine does not say, offer enough for a small model.
    let total = sysinfo::System::new_with_specifics(memory).map(|system| system.total_memory());
    total.unwrap_or(MEMORY_BYTES_FALLBACK) / 2
}

/// How a node is set up.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Where keys, membership and ledger are kept. One process at a time.
    pub data_dir: PathBuf,
    /// What people call this node.
    pub name: String,
    /// Models to serve, at least one.
    pub models: Vec<ModelChoice>,
    /// Threads that compute; as many as there are processors if absent.
    pub threads: Option<usize>,
    /// Memory for weights and caches in bytes; half of the machine's if absent.
    pub memory_bytes: Option<u64>,
    /// How much of it is for caches; a quarter if absent.
    pub cache_bytes: Option<u64>,
    /// How several models share the memory for weights.
    pub policy: Policy,
    /// Whether stages that hold weights differently may make one route.
    pub mixes_precision: bool,
    /// Bytes a second that weights may take each way, where they come from or go to other computers; without a limit
    /// if absent.
    pub bandwidth: Option<u64>,
    /// When it gives work to others.
    pub opening: Opening,
    /// What weights are quantised to when they are loaded; as they are stored if absent.
    pub weights: Option<Encoding>,
    /// An invitation to use before anything else.
    pub join: Option<String>,
    /// UDP address for other nodes; all interfaces and the port of last time if absent.
    pub p2p_address: Option<SocketAddr>,
    /// The only address told to other nodes; this machine's own if absent.
    pub p2p_announced: Option<SocketAddr>,
    /// How many requests of callers it takes in.
    pub load: Load,
    /// Services to fall back on, in the order in which they are asked.
    pub upstreams: Vec<UpstreamChoice>,
    /// What each member is granted, if this start founds a network; the policy's default if absent.
    pub grant: Option<Credits>,
    /// How long a request may take before what it set aside may be given back, if this start founds a network; the
    /// policy's default if absent.
    pub request_time: Option<Duration>,
    /// The rules of money, if this start founds a network; the co-operative's if absent.
    pub rules: Option<LedgerPolicy>,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum StartError {
    /// The data directory is in use, unreadable or corrupt.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// The node's key cannot be read.
    #[error(transparent)]
    Identity(#[from] talka_net::IdentityError),
    /// No socket for other nodes.
    #[error("cannot open a UDP socket for other nodes: {0}")]
    Bind(#[from] talka_net::BindError),
    /// A model's files are missing or wrong.
    #[error("model {name}: {source}")]
    Model { name: String, source: ModelError },
    /// A model that is not on this computer does not come.
    #[error("model {name} cannot be fetched: {source}")]
    Fetch { name: String, source: Box<crate::FetchError> },
    /// The owner asked for layers that the model lacks.
    #[error("model {name} has layers 0..{layers}, found --layers {name}={span}")]
    NoSuchLayers { name: String, layers: u32, span: LayerSpan },
    /// An adapter's files are missing, wrong or for another model.
    #[error("adapter {name}: {source}")]
    Adapter { name: String, source: AdapterError },
    /// A node tells the others of no more.
    #[error("model {name} has {found} adapters, expected at most {max}")]
    TooManyAdapters { name: String, found: usize, max: usize },
    /// A draft model that cannot guess for the model.
    #[error("{draft} cannot draft for {name}: {reason}")]
    Draft { name: String, draft: String, reason: String },
    /// Two models or adapters under one name.
    #[error("{name} is given twice, expected different names")]
    DuplicateModel { name: String },
    /// An upstream's settings are wrong.
    #[error(transparent)]
    Upstream(#[from] ServiceError),
    /// Two upstreams under one name.
    #[error("upstream {name} is given twice, expected different names")]
    DuplicateUpstream { name: String },
    /// A node without models has nothing to do.
    #[error("no model was given, expected at least one")]
    NoModel,
    /// The stored ledger does not verify.
    #[error(
        "the ledger in {path} does not verify: {reason}; restore it from a backup, or move the \
             directory away to start anew"
    )]
    Ledger { path: PathBuf, reason: String },
    /// Another record of the store cannot be used.
    #[error(
        "record {record} in {path} cannot be used: {reason}; restore it from a backup, or move \
             the directory away to start anew"
    )]
    Record { record: &'static str, path: PathBuf, reason: String },
    /// The invitation could not be used.
    #[error(transparent)]
    Join(#[from] crate::api::AdminError),
}
