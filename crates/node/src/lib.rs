//! A node of a Talka network.
//!
//! [`core`] decides, as pure functions of what it was told; the private `shell` touches clock,
//! sockets, disk and threads and decides nothing; [`store`] is the disk; [`wire`] is what nodes say
//! to each other. Front ends use [`Node::start`] and then [`api`] alone. Knows no HTTP.

pub mod api;
mod config;
pub mod core;
mod shell;
pub mod store;
pub mod wire;

pub use config::{
    MemoryShare, ModelChoice, ModelPlace, NodeConfig, RangeRead, Ranges, StartError, UpstreamChoice,
};
pub use core::{
    fallback::{UpstreamModel, UpstreamPrice},
    owner::Opening,
};
pub use shell::{FetchError, Node, REQUESTS_MAX, admission::Load};
pub use talka_base as base;
pub use talka_engine::{BundledModel, ModelError, ModelProfile, ModelSource, quant::Encoding};
pub use talka_ledger::profile::{PROFILE_NAMES, Profile};
pub use talka_plan::{
    availability::{Hours, HoursError},
    residency::Policy,
};
pub use talka_upstream::{Key, ServiceConfig, ServiceError};
pub use wire::Grade;

/// What a node with `config` would come to if it joined the network of `config.join`. It joins nothing, and keeps
/// nothing. One layer of each model whose files are here is loaded and run.
///
/// # Errors
/// [`StartError`] says what is wrong with the models, the invitation or the way to the inviter.
pub async fn forecast(config: NodeConfig) -> Result<api::ForecastReport, StartError> {
    shell::forecast::forecast(config).await
}

/// Measures this machine with `threads` threads, one for each processor if nothing is said, for some seconds; no node need run. Says before each step what comes.
pub fn bench_hardware(
    threads: Option<usize>,
    next: impl FnMut(api::BenchStep),
) -> api::HardwareReport {
    shell::bench::run(threads, next)
}

/// Puts what whoever can measure GPUs found into the report of this machine, or why nothing was found. What the machine
/// counts for stays as it was.
pub fn rate_gpus(report: &mut api::HardwareReport, found: Result<Vec<api::GpuFinding>, String>) {
    shell::bench::rate_gpus(report, found);
}

/// What the model at `source` is and takes, by its headers; no node need run.
///
/// # Errors
/// [`ModelError`] names the file, field or tensor at fault.
pub fn profile(source: ModelSource) -> Result<ModelProfile, ModelError> {
    Ok(talka_engine::Model::open(source)?.profile())
}
