//! What a look at this computer and its node found. Plain data: what it means is decided in `judge`.

use std::path::PathBuf;
use talka_node::api::{OrderReport, PeerReport, Status, VerifyReport};

/// Everything that was looked at.
#[derive(Debug, Clone)]
pub struct Facts {
    /// By this computer's clock, in milliseconds since 1970 UTC.
    pub now_ms: u64,
    pub data_dir: DataDir,
    /// Bytes free where the data is; nothing if the system does not say.
    pub disk_free: Option<u64>,
    /// Bytes available and in all.
    pub memory: Option<(u64, u64)>,
    /// What was fetched; the reason if that cannot be read.
    pub models: Result<Kept, String>,
    pub hub: HubFact,
    /// Why this computer opens no UDP port, if it does not.
    pub udp: Result<(), String>,
    pub node: NodeFact,
}

/// Where data is kept.
#[derive(Debug, Clone)]
pub struct DataDir {
    pub path: PathBuf,
    /// It, or the nearest folder above it that exists.
    pub existing: PathBuf,
    /// Why nothing can be written there, if so.
    pub writable: Result<(), String>,
}

/// Models fetched from the hub.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    pub root: PathBuf,
    pub count: usize,
    pub bytes: u64,
    /// References whose fetch did not end.
    pub unfinished: Vec<String>,
    /// References whose files are damaged, and how.
    pub broken: Vec<(String, String)>,
    /// References that this version cannot run, and why.
    pub unsupported: Vec<(String, String)>,
}

/// Whether models could be fetched.
#[derive(Debug, Clone)]
pub enum HubFact {
    /// Nobody may ask.
    Forbidden,
    /// Its address or the token cannot be used.
    Misnamed(String),
    /// The host that answers.
    Answers(String),
    /// Why none does.
    Silent(String),
}

/// The node that a person means.
#[derive(Debug, Clone)]
pub enum NodeFact {
    /// None runs: why that is known, the address where one would listen, and why one could not.
    Absent {
        why: String,
        address: String,
        free: Result<(), String>,
    },
    /// Something answers, and refuses or is no node.
    Refuses(String),
    Runs(Box<Running>),
}

/// What a running node says.
#[derive(Debug, Clone)]
pub struct Running {
    pub address: String,
    pub status: Status,
    pub peers: Vec<PeerReport>,
    /// What replaying its ledger led to.
    pub ledger: Result<VerifyReport, String>,
    /// Who makes entries final.
    pub order: OrderReport,
}
