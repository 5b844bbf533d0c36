//! From a configuration to a node ready to run.

use super::{
    HUB_QUEUE, Shared,
    admission::Places,
    bench,
    desk::{Desk, DeskError},
    fetch::{self, Caller, give::TAKERS_MAX},
    hub::{Hub, HubInput, View},
    join,
    keys::Keys,
    links::{Links, MEMBERSHIP_KEY},
    machine,
    meter::{self, Meter},
    models::KnownModel,
    now, ordering,
    owner::Watcher,
    probe::Probes,
    random,
    rating::{self, OwnRating},
    resume::Answers,
    routes::Decisions,
    settings::{Bandwidth, Limits, Settings},
    snapshots::Told,
    stages::StageThread,
    till::Till,
    training::{self, Training},
    upstream::Upstream,
};
use crate::{
    api::AdminError,
    config::{MemoryShare, ModelPlace, NodeConfig, StartError},
    core::{Core, OwnModel, faults::Faults, frames::far_bytes, owner::Owner},
    store::{Store, StoreError, journal::Journals, vouchers::VoucherFile},
    wire::PEERS_MAX,
};
use serde::{Deserialize, Serialize};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, RwLock},
};
use talka_base::{Encoded, Keypair, NetworkId, NodeId, decode, encode};
use talka_engine::{
    PagePool,
    kernels::{Kernels, ThreadPool},
};
use talka_ledger::{Block, BlockError, Founding};
use talka_net::{BindOptions, Endpoint, Identity, Invite};
use tokio::sync::{Semaphore, mpsc, watch};

/// Holds the node's secret key.
pub(crate) const IDENTITY_FILE: &str = "identity.key";
pub(crate) const NETWORK_KEY: &str = "network";
const PEERS_KEY: &str = "peers";
const PORT_KEY: &str = "port";

/// Other nodes and where they were last.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Peers(Vec<(NodeId, Vec<SocketAddr>)>);

impl Encoded for Peers {
    const NAME: &'static str = "known nodes";
    const SIZE_MAX: usize = 512 * PEERS_MAX;
}

/// Writes down where the others are.
pub(crate) fn keep_peers(
    store: &Store,
    peers: &[(NodeId, Vec<SocketAddr>)],
) -> Result<(), StoreError> {
    store.put(PEERS_KEY, &encode(&Peers(peers.to_vec())))
}

/// Opens everything a node needs, in an order that leaves nothing behind when a step fails.
pub(super) async fn open(
    mut config: NodeConfig,
) -> Result<(Arc<Shared>, Hub, mpsc::Receiver<HubInput>), StartError> {
    let store = Arc::new(Store::open(&config.data_dir)?);
    let promoted = add_promoted(&mut config);
    let identity = Identity::load_or_create(&config.data_dir.join(IDENTITY_FILE), random())?;
    let keys = identity.keypair().clone();
    let callers = Keys::open(Arc::clone(&store))?;
    let answers = Answers::new(Journals::open(&config.data_dir)?);
    let vouchers = VoucherFile::open(&config.data_dir)?;
    let limits = Limits::kept(&store)?.unless_told(&config);
    let kernels = Kernels::detect(ThreadPool::new(limits.threads()));
    let mut models = open_models(&config, &kernels)?;
    let upstreams = Upstream::open_all(&config.upstreams)?;
    let endpoint = bind(&config, &store, &keys).await?;
    let (desk, mut peers) = match enter_network(&config, &store, &keys, &endpoint).await {
        Ok(entered) => entered,
        Err(error) => {
            endpoint.close().await;
            return Err(error);
        }
    };
    peers.extend(known_peers(&config, &store)?);
    let instance = u64::from_le_bytes(random());
    let caller = Caller::new(&endpoint, Arc::new(desk), &store, instance);
    let mut faults = Faults::default();
    let fetched =
        fetch_models(&config, &kernels, &store, &caller, &peers, &mut faults, &mut models).await;
    if let Err(error) = fetched {
        endpoint.close().await;
        return Err(error);
    }
    let models: Vec<_> = models.into_iter().flatten().collect();

    let memory = MemoryShare::of(limits.memory_bytes, config.cache_bytes);
    let rates = bench::glance(&kernels);
    let bytes_per_second = rates.memory_bytes as f64;
    let meter = Meter::default();
    meter.begin(bytes_per_second, rates.matmul_flops as f64);
    let mut own: Vec<_> = models.iter().map(|known| own_model(known, bytes_per_second)).collect();
    // The first one named is what the node is for.
    own[0].is_core = true;
    let extra: u64 = models.iter().map(|known| known.extra_bytes()).sum();
    let weights = memory.weights.saturating_sub(extra);
    let opening = limits.opening();
    let watches = !opening.hours.is_empty() || opening.when_idle;
    let watcher = Watcher::new(opening.when_idle);
    let owner = Owner::new(opening, now(), watcher.glance());
    let mut core =
        Core::new(NodeId(keys.public()), config.name.clone(), weights, config.policy, own)
            .mixing(config.mixes_precision)
            .owned(owner);
    for (peer, addresses) in &peers {
        core.introduce(*peer, addresses);
    }
    let (view_sender, view) = watch::channel(View::default());
    let (hub, inputs) = mpsc::channel(HUB_QUEUE);
    let (ordering, to_order) = mpsc::channel(ordering::QUEUE);
    let pages = PagePool::new(memory.caches);
    let shared = Arc::new_cyclic(|weak| Shared {
        me: NodeId(keys.public()),
        keys,
        name: config.name.clone(),
        started_at: now(),
        models: models.into(),
        upstreams,
        store,
        callers,
        desk: RwLock::new(caller.desk),
        endpoint,
        links: Links::default(),
        hub,
        ordering,
        view,
        stages: StageThread::start(weak.clone(), pages.clone(), vouchers),
        pages,
        inboxes: Mutex::default(),
        submissions: Mutex::default(),
        till: Till::default(),
        invites: Mutex::default(),
        probes: Probes::default(),
        meter,
        rating: OwnRating::new(bench::measured(&machine::look(), &rates)),
        tally: Arc::default(),
        decisions: Decisions::default(),
        settings: Settings {
            pool: Arc::clone(kernels.pool()),
            bandwidth: Bandwidth::new(limits.bandwidth),
            caches_bytes: memory.caches,
            extra_bytes: extra,
            policy: config.policy,
            weights: config.weights,
            limits: Mutex::new(limits),
        },
        mixes_precision: config.mixes_precision,
        answers,
        places: Places::new(config.load),
        instance,
        faults: Mutex::new(faults),
        reputations: Mutex::default(),
        outlines: config.data_dir.join("outlines"),
        takers: Semaphore::new(TAKERS_MAX),
        training: Training::open(&config.data_dir),
    });
    promoted.iter().for_each(|(job, model)| shared.models.call(job, model));
    shared.training.resume(&shared);
    tokio::spawn(ordering::run(Arc::downgrade(&shared), to_order));
    // Witnesses cannot be reached yet.
    if shared.desk().is_solo() {
        rating::tell(&shared).await;
    }
    let watcher = watches.then_some(watcher);
    Ok((shared, Hub { core, kernels, watcher, view: view_sender }, inputs))
}

/// Adds the versions of trained models that were served when the node stopped; returns what is called how. An owner who
/// names a model like a job means that model.
fn add_promoted(config: &mut NodeConfig) -> Vec<(String, String)> {
    let mut called = Vec::new();
    for (job, choice) in training::promoted(&config.data_dir) {
        if config.models.iter().all(|known| known.name != job && known.name != choice.name) {
            called.push((job, choice.name.clone()));
            config.models.push(choice);
        }
    }
    called
}

/// The models whose files are here, in the order chosen, and gaps for the others.
pub(super) fn open_models(
    config: &NodeConfig,
    kernels: &Kernels,
) -> Result<Vec<Option<Arc<KnownModel>>>, StartError> {
    let mut models = Vec::new();
    for (count, choice) in config.models.iter().enumerate() {
        if config.models[..count].iter().any(|known| known.name == choice.name) {
            return Err(StartError::DuplicateModel { name: choice.name.clone() });
        }
        let ModelPlace::Here(source) = &choice.place else {
            models.push(None);
            continue;
        };
        let known = KnownModel::open(choice, source.clone(), config.weights, kernels)?;
        models.push(Some(Arc::new(known)));
    }
    if models.is_empty() { Err(StartError::NoModel) } else { Ok(models) }
}

/// Fills the gaps with what other nodes, or the places where those models are, say of them. Nodes that say
/// what they cannot show are counted in `faults`.
async fn fetch_models(
    config: &NodeConfig,
    kernels: &Kernels,
    store: &Store,
    caller: &Caller,
    peers: &[(NodeId, Vec<SocketAddr>)],
    faults: &mut Faults,
    models: &mut [Option<Arc<KnownModel>>],
) -> Result<(), StartError> {
    let data_dir = &config.data_dir;
    for (choice, known) in config.models.iter().zip(models) {
        let name = &choice.name;
        let found = match &choice.place {
            ModelPlace::Here(_) => continue,
            ModelPlace::Peers => {
                let found = fetch::find(caller, store, data_dir, name, peers, faults).await;
                found.map(|source| (source, None))
            }
            ModelPlace::Ranges(ranges) => {
                let found = fetch::ranges::survey(Arc::clone(ranges), data_dir, name).await;
                found.map(|(source, remote)| (source, Some(remote)))
            }
        };
        let (source, remote) = found
            .map_err(|source| StartError::Fetch { name: name.clone(), source: Box::new(source) })?;
        let mut opened = KnownModel::open(choice, source, config.weights, kernels)?;
        opened.remote = remote;
        *known = Some(Arc::new(opened));
    }
    Ok(())
}

/// What the core is told of a model whose files are known.
pub(crate) fn own_model(known: &KnownModel, bytes_per_second: f64) -> OwnModel {
    let shape = known.model.shape();
    let bytes = known.model.span_bytes(known.pinned.unwrap_or(shape.span()));
    let layer_bytes = known.model.span_bytes(shape.span()) / u64::from(shape.layers);
    OwnModel {
        bytes,
        grade: known.grade,
        frame_bytes: far_bytes(shape),
        is_core: known.pinned.is_some(),
        layer_us: meter::read_us(layer_bytes, bytes_per_second),
        pinned: known.pinned,
        adapters: known.adapters.iter().map(|known| known.adapter.id()).collect(),
        ..OwnModel::new(known.id, known.name.clone(), shape.layers, layer_bytes)
    }
}

/// The address asked for, else all interfaces with the port of last time: the others know it.
async fn bind(config: &NodeConfig, store: &Store, keys: &Keypair) -> Result<Endpoint, StartError> {
    let everywhere = |port| BindOptions {
        announced: config.p2p_announced,
        ..BindOptions::everywhere(keys.clone(), port)
    };
    if let Some(address) = config.p2p_address {
        let addresses = vec![address];
        let options = BindOptions { addresses, port_mapping: false, ..everywhere(0) };
        return Ok(Endpoint::bind(options).await?);
    }
    let last =
        store.get(PORT_KEY)?.and_then(|bytes| Some(u16::from_le_bytes(bytes.try_into().ok()?)));
    let endpoint = match last {
        Some(port) => match Endpoint::bind(everywhere(port)).await {
            Ok(endpoint) => endpoint,
            Err(_) => Endpoint::bind(everywhere(0)).await?,
        },
        None => Endpoint::bind(everywhere(0)).await?,
    };
    if let Some(address) = endpoint.bound_port() {
        store.put(PORT_KEY, &address.to_le_bytes())?;
    }
    Ok(endpoint)
}

/// The network this node is in, a network it joins now, or one it founds.
async fn enter_network(
    config: &NodeConfig,
    store: &Arc<Store>,
    keys: &Keypair,
    endpoint: &Endpoint,
) -> Result<(Desk, Vec<(NodeId, Vec<SocketAddr>)>), StartError> {
    let stored = store.get(NETWORK_KEY)?;
    let network = stored.map(|bytes| {
        <[u8; 32]>::try_from(bytes.as_slice()).map(NetworkId).map_err(|_| StartError::Record {
            record: NETWORK_KEY,
            path: config.data_dir.clone(),
            reason: format!("{} bytes, expected 32", bytes.len()),
        })
    });
    let ledger = |error: DeskError| match error {
        DeskError::Store(error) => StartError::Store(error),
        other => StartError::Ledger { path: config.data_dir.clone(), reason: other.to_string() },
    };
    let desk = match network.transpose()? {
        Some(network) => Desk::open(Arc::clone(store), keys.clone(), network).map_err(ledger)?,
        None => None,
    };
    if let Some(invite) = &config.join {
        let invite = parse_invite(invite)?;
        match &desk {
            // The same command again, after a restart.
            Some(desk) if desk.network() == invite.network => {}
            _ => {
                return Ok(join_network(
                    &config.name,
                    store,
                    keys,
                    endpoint,
                    &invite,
                    desk.as_ref(),
                )
                .await?);
            }
        }
    }
    if let Some(desk) = desk {
        return Ok((desk, Vec::new()));
    }
    let desk = found(config, store, keys).map_err(ledger)?;
    store.put(NETWORK_KEY, &desk.network().0)?;
    Ok((desk, Vec::new()))
}

fn found(config: &NodeConfig, store: &Arc<Store>, keys: &Keypair) -> Result<Desk, DeskError> {
    let mut policy = config.rules.clone().unwrap_or_default();
    policy.grant = config.grant.unwrap_or(policy.grant);
    if let Some(time) = config.request_time {
        policy.reservation_ms_max = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    }
    let founding = Founding {
        name: format!("{}'s network", config.name),
        founder: NodeId(keys.public()),
        founder_name: config.name.clone(),
        policy,
        nonce: random(),
    };
    Desk::found(Arc::clone(store), keys.clone(), founding, now())
}

/// An invitation as it was handed over.
pub(crate) fn parse_invite(text: &str) -> Result<Invite, AdminError> {
    text.parse().map_err(refused)
}

fn refused(error: talka_net::InviteError) -> AdminError {
    AdminError::Invite { reason: error.to_string() }
}

/// Joins the network of `invite` and makes it this node's own. A network that this node shares with
/// others is not left: only one without other members, or that removed this node. Its ledger stays on disk.
pub(crate) async fn join_network(
    name: &str,
    store: &Arc<Store>,
    keys: &Keypair,
    endpoint: &Endpoint,
    invite: &Invite,
    current: Option<&Desk>,
) -> Result<(Desk, Vec<(NodeId, Vec<SocketAddr>)>), AdminError> {
    if let Some(desk) = current {
        may_leave(desk, NodeId(keys.public()))?;
    }
    invite.check_expiry(now()).map_err(refused)?;
    let joined = join::ask(endpoint, name, invite).await?;
    let ledger = |error: DeskError| AdminError::Ledger { reason: error.to_string() };
    match &joined.ledger {
        Told::Entries(entries) => {
            let held = usize::try_from(store.entry_count(&invite.network)?).unwrap_or(usize::MAX);
            store.append(&invite.network, entries.get(held..).unwrap_or_default())?;
        }
        Told::Since { founding, block, snapshot, log } => {
            store.begin_from(founding, block, snapshot, log)?;
        }
    }
    for note in &joined.notes {
        let block = note.text().parse::<Block>().map_err(|e| ledger(BlockError::from(e).into()))?;
        store.put_checkpoint(&block, note)?;
    }
    let desk = Desk::open(Arc::clone(store), keys.clone(), invite.network).map_err(ledger)?;
    let desk = desk.expect("the ledger just stored is there");
    store.put(MEMBERSHIP_KEY, &encode(&joined.membership))?;
    // Last: from here on a restart finds the new network.
    store.put(NETWORK_KEY, &invite.network.0)?;
    Ok((desk, joined.peers))
}

/// Whether a node may leave the network of `desk` for another.
fn may_leave(desk: &Desk, me: NodeId) -> Result<(), AdminError> {
    let (network, members) = desk.read(|l| (l.name().to_owned(), l.members().count()));
    let is_removed = desk.read(|ledger| ledger.removed(&me).is_some());
    if members > 1 && !is_removed {
        Err(AdminError::AlreadyMember { network, members })
    } else {
        Ok(())
    }
}

fn known_peers(
    config: &NodeConfig,
    store: &Store,
) -> Result<Vec<(NodeId, Vec<SocketAddr>)>, StartError> {
    let Some(bytes) = store.get(PEERS_KEY)? else { return Ok(Vec::new()) };
    let peers: Peers = decode(&bytes).map_err(|error| StartError::Record {
        record: PEERS_KEY,
        path: config.data_dir.clone(),
        reason: error.to_string(),
    })?;
    Ok(peers.0)
}
