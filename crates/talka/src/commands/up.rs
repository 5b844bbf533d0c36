//! `talka up`: a node in the foreground, from the first socket to a clean end.
//!
//! The HTTP address is taken first: a taken port is the likeliest mistake, and it is better told
//! before a model is loaded than after. `ready` is printed when a caller would be answered.

use crate::{
    cli::{ListenArgs, NodeArgs, UpArgs},
    client::{self, Reach, install_cryptography},
    commands::govern,
    exit::{Exit, UsageError},
    files,
    hub::{self, Access},
    log,
    model_ref::{self, Located, ModelRef, Wishes},
    output,
    progress::Loads,
    quantity::Size,
    shelf::HubShelf,
    suggest::{self, Suggestion},
    upstream::UpstreamFlag,
};
use anyhow::{Context, Result};
use serde_json::json;
use std::{
    io::{self, IsTerminal},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use sysinfo::System;
use talka_gateway::{ApiKey, GatewayConfig, Logins, Tls, check_bind};
use talka_hub::HubRef;
use talka_node::{
    Load, MemoryShare, ModelChoice, Node, NodeConfig, Opening,
    api::{LedgerPolicy, ModelReport},
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

/// The longest name of a node, in bytes; the network refuses longer ones.
const NAME_BYTES_MAX: usize = 64;

/// How long a node's start may wait for the hub: nobody is to notice that there is no network.
const HUB_PATIENCE: Duration = Duration::from_secs(2);

/// How often a starting node is asked whether its layers are loaded: too short to be noticed.
const SERVING_POLL: Duration = Duration::from_millis(20);

pub async fn run(args: UpArgs) -> Result<Exit> {
    let UpArgs { node: args, join } = args;
    let join = join.map(files::invitation).transpose()?;
    let traces = log::start(&args.log)?;
    let key = files::api_key(&args.key)?.map(|text| ApiKey::new(&text)).transpose()?;
    check_bind(args.http, key.is_some()).map_err(|error| UsageError(error.to_string()))?;
    let gateway_config = gateway_config(&args.listen)?;
    let data_dir = files::data_dir(args.data_dir.as_deref())?;

    let listener = bind(args.http).await?;
    let address = listener.local_addr()?;
    let config = node_config(&args, join, data_dir.clone()).await?;
    install_cryptography();
    let node = Node::start(config).await?;
    let scheme = if gateway_config.tls.is_some() { "https" } else { "http" };
    let origin = format!("{scheme}://{address}");
    let logins = Logins::default();
    let access = Access::new(&data_dir, args.hub.offline, true);
    let shelf = HubShelf { access, node: node.api() };
    let config = GatewayConfig {
        key,
        logins: logins.clone(),
        shelf: Some(Arc::new(shelf)),
        ..gateway_config
    };
    let gateway = Gateway::open(listener, &node, config);
    files::write_http(&data_dir, address, args.listen.tls_cert.as_deref())?;

    let shown = args.log.is_for_people().then_some(&logins);
    let ended = gateway.until(live(&node, &origin, shown, args.json)).await;
    files::remove_http(&data_dir);
    node.shutdown().await;
    if let Some(traces) = traces {
        traces.finish().await;
    }
    ended.map(|()| Exit::Done)
}

/// How callers are listened to.
fn gateway_config(args: &ListenArgs) -> Result<GatewayConfig> {
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(cert), Some(key)) => Some(Tls::open(cert, key)?),
        _ => None,
    };
    let origins = args.cors_origins.clone();
    Ok(GatewayConfig { tls: tls.map(Arc::new), origins, ..GatewayConfig::default() })
}

/// What a node is told that is started with `args`; models that are on a hub are fetched.
pub(super) async fn node_config(
    args: &NodeArgs,
    join: Option<String>,
    data_dir: PathBuf,
) -> Result<NodeConfig> {
    let name = node_name(args.name.as_deref())?;
    let models = models(args, &data_dir, join.is_some()).await?;
    let upstreams = args.upstreams.iter().map(UpstreamFlag::resolve).collect::<Result<_>>()?;
    let load = Load::default();
    Ok(NodeConfig {
        data_dir,
        name,
        models,
        threads: args.threads.map(usize::from),
        bandwidth: args.bandwidth.map(|rate| rate.0),
        memory_bytes: args.memory.map(|size| size.0),
        cache_bytes: args.cache.map(|size| size.0),
        policy: args.policy.into(),
        mixes_precision: args.mix_precision,
        opening: Opening { hours: args.hours.clone(), when_idle: args.when_idle },
        weights: args.weights.map(Into::into),
        join,
        p2p_address: args.p2p,
        p2p_announced: args.announce,
        load: Load {
            running: args.listen.max_concurrent.map_or(load.running, usize::from),
            waiting: args.listen.max_queue.map_or(load.waiting, usize::from),
        },
        upstreams,
        grant: args.grant,
        request_time: args.request_time,
        rules: rules(args)?,
    })
}

/// By what a network is founded, if this start founds one and somebody said it.
fn rules(args: &NodeArgs) -> Result<Option<LedgerPolicy>> {
    match &args.rules {
        Some(path) => govern::policy_in(path).map(Some),
        None => Ok(args.economy.map(LedgerPolicy::of)),
    }
}

/// The models to serve, fetched if need be.
async fn models(args: &NodeArgs, data_dir: &Path, joins: bool) -> Result<Vec<ModelChoice>> {
    let access = Access::new(data_dir, args.hub.offline, args.json);
    let memory = memory(args);
    let mut served = Vec::with_capacity(args.models.len().max(1));
    for model in &args.models {
        served.push(model.serve(&access, &args.layers, memory.weights).await?);
    }
    if served.is_empty() {
        served.push(unchosen(args, &access, joins).await?.into());
    }
    let mut drafts = Vec::with_capacity(args.drafts.len());
    for choice in &args.drafts {
        drafts.push((choice, choice.draft.locate(&access).await?.source));
    }
    let wishes = Wishes {
        layers: &args.layers,
        precisions: &args.precisions,
        adapters: &args.adapters,
        drafts,
    };
    Ok(model_ref::choose(served, wishes)?)
}

fn memory(args: &NodeArgs) -> MemoryShare {
    MemoryShare::of(args.memory.map(|size| size.0), args.cache.map(|size| size.0))
}

/// What is served where nobody said what: the largest model that is here, can be opened and fits,
/// else one that is offered and taken, else `bard`.
async fn unchosen(args: &NodeArgs, access: &Access, joins: bool) -> Result<Located> {
    let memory = memory(args);
    for (reference, model) in suggest::kept(&access.store.list()?, memory) {
        let opened = Located::pulled(&reference, model.clone())
            .ok()
            .filter(|located| talka_node::profile(located.source.clone()).is_ok());
        if let Some(located) = opened {
            tracing::info!("serving {reference}, the largest fetched model that fits the memory");
            return Ok(located);
        }
    }
    // Who joins serves what the others have; and nobody is asked twice.
    let suggestion = suggest::largest(memory).filter(|_| !joins && !access.offline);
    let Some(suggestion) = suggestion else { return Ok(Located::bard()) };
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        tokio::spawn(async move {
            if let Some((_, size)) = offered(&suggestion).await {
                tracing::info!(
                    "serving bard, which is only a demonstration; a real model that fits this \
                     computer ({size}): talka up --model {}",
                    suggestion.reference
                );
            }
        });
        return Ok(Located::bard());
    }
    match offered(&suggestion).await {
        Some((reference, size)) if accepted(&suggestion, size).await? => {
            ModelRef::Hub(reference).locate(access).await
        }
        _ => Ok(Located::bard()),
    }
}

/// The suggestion and its size, if the hub answers at once and has it.
async fn offered(suggestion: &Suggestion) -> Option<(HubRef, Size)> {
    let reference: HubRef = suggestion.reference.parse().ok()?;
    let hub = hub::open().ok()?;
    let offer = tokio::time::timeout(HUB_PATIENCE, hub.offer(&reference)).await.ok()?.ok()?;
    Some((reference, Size(offer.bytes)))
}

/// Asks the person at the terminal; silence is a no.
async fn accepted(suggestion: &Suggestion, size: Size) -> Result<bool> {
    eprint!(
        "No model was chosen. {} fits this computer.\nFetch it now ({size}) and serve it instead of \
         the demonstration model bard? [y/N] ",
        suggestion.reference
    );
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    });
    let answer = answer.await.context("the question broke off")??;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// The name chosen, else this computer's, cut to what the network accepts.
fn node_name(chosen: Option<&str>) -> Result<String, UsageError> {
    match chosen {
        Some(name) if name.is_empty() || name.len() > NAME_BYTES_MAX => Err(UsageError(format!(
            "--name has {} bytes, expected 1 to {NAME_BYTES_MAX}",
            name.len()
        ))),
        Some(name) => Ok(name.into()),
        None => {
            let name = System::host_name().ok().filter(|name| !name.is_empty());
            let name = name.unwrap_or_else(|| "talka".into());
            Ok(name[..name.floor_char_boundary(NAME_BYTES_MAX)].to_owned())
        }
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address}: is another node or program using it? \
             Stop that one, or choose another address with --http, such as --http 127.0.0.1:0"
        )
    })
}

/// From a running node to the signal to stop: says `ready` as soon as it is.
async fn live(node: &Node, origin: &str, logins: Option<&Logins>, as_json: bool) -> Result<()> {
    tokio::select! {
        signal = stop_signal() => return signal,
        () = serving(node, Loads::new(as_json)) => announce(node, origin, logins, as_json).await?,
    }
    stop_signal().await
}

/// Waits until every model is served: all of it by the network, or this node's part of it. Shows how far it is.
async fn serving(node: &Node, mut loads: Loads) {
    let (api, me) = (node.api(), node.id());
    let is_served = |model: &ModelReport| {
        let waits_on_disk = model.share_bytes == Some(0);
        model.complete || waits_on_disk || model.coverage.iter().any(|stage| stage.node == me)
    };
    loop {
        let models = api.models().await;
        if models.iter().all(is_served) {
            return;
        }
        loads.show(&models);
        tokio::time::sleep(SERVING_POLL).await;
    }
}

/// Says that the node answers, and shows a link for browsers if `logins` are given.
async fn announce(node: &Node, origin: &str, logins: Option<&Logins>, as_json: bool) -> Result<()> {
    let network = node.api().status().await.network_name;
    let (http, id) = (origin, node.id().to_string());
    if as_json {
        // One line, although a document: the reader must not wait for an end that never comes.
        output::line(json!({ "http": http, "node": id, "network": network }).to_string())?;
    } else {
        output::line(format!("ready http={http} node={id} network={network}"))?;
    }
    if let Some(logins) = logins {
        // A node that is bound to every address is reached at this computer's own.
        let Reach { scheme, address } = client::reachable(origin)?;
        let path = logins.link().path;
        eprintln!(
            "In a browser, once and within 10 minutes: {scheme}://{address}{path} (another link: talka login)"
        );
    }
    Ok(())
}

/// The HTTP server of a running node.
struct Gateway {
    stop: oneshot::Sender<()>,
    serving: JoinHandle<io::Result<()>>,
}

impl Gateway {
    fn open(listener: TcpListener, node: &Node, config: GatewayConfig) -> Self {
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            // A dropped sender means the same: nobody needs the gateway any more.
            let _ = stopped.await;
        };
        let serving = tokio::spawn(talka_gateway::serve(listener, node.api(), config, shutdown));
        Self { stop, serving }
    }

    /// Serves until `signal`, then lets answers under way end.
    async fn until(mut self, signal: impl Future<Output = Result<()>>) -> Result<()> {
        tokio::select! {
            ended = &mut self.serving => {
                return ended.context("the HTTP server broke")?.context("the HTTP server ended");
            }
            signal = signal => signal?,
        }
        tracing::info!("stopping; once more stops at once");
        // It fails only if the server has ended by itself meanwhile, and the next line sees that.
        let _ = self.stop.send(());
        tokio::select! {
            ended = self.serving => ended.context("the HTTP server broke")?.context("the HTTP server ended"),
            signal = stop_signal() => signal,
        }
    }
}

/// Ctrl-C, or being asked to end by the system.
#[cfg(unix)]
pub(super) async fn stop_signal() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed.context("cannot watch for Ctrl-C"),
        _ = terminate.recv() => Ok(()),
    }
}

/// Ctrl-C.
#[cfg(not(unix))]
pub(super) async fn stop_signal() -> Result<()> {
    tokio::signal::ctrl_c().await.context("cannot watch for Ctrl-C")
}
