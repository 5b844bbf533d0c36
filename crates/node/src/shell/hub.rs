//! The task that owns the [`Core`]: feeds it what happens and performs what it decides.

use super::{
    Shared, common_work,
    desk::{Desk, DeskError, Followed},
    fetch, join, links,
    meter::try_out,
    models::KnownModel,
    now,
    ordering::OrderInput,
    orders::{self, order},
    owner::Watcher,
    rating,
};
use crate::{
    core::{
        Core, Effect, HEARTBEAT_MS, Input, OwnModel,
        attendance::Attendance,
        directory::Speed,
        faults::Fault,
        measures::Sample,
        owner::{Closed, Opening},
    },
    shell::stages::Job,
    wire::{BULK_BYTES_MAX, Control, Heartbeat, Machine},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};
use talka_base::{AdapterId, LayerSpan, ModelId, NodeId, Tick};
use talka_engine::kernels::Kernels;
use talka_ledger::order::Message;
use talka_plan::Links;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, sleep},
};

/// How often the core learns that time passed.
const TICK: Duration = Duration::from_millis(250);
/// Ticks between two looks for expired reservations, and between two sweeps of the stages.
const TICKS_PER_SWEEP: u64 = 8;
/// Ticks between two tries of what witnesses did not answer.
const TICKS_PER_ASKING: u64 = 4;
/// Ticks between two looks for answers that nobody goes on with any more: a minute. They are kept for ten.
const TICKS_PER_FORGETTING: u64 = 240;
/// Ticks between two looks at what was measured: as often as the others are told.
const TICKS_PER_SAMPLE: u64 = HEARTBEAT_MS / TICK.as_millis() as u64;
/// A node that is behind asks for entries at most this often, in milliseconds.
const CATCH_UP_MS: u64 = 500;

/// What was sent to a node before it was removed, the entry that says so among it, arrives within this time.
const PARTING: Duration = Duration::from_millis(500);

/// What the hub is told.
pub(crate) enum HubInput {
    LinkUp {
        peer: NodeId,
    },
    LinkDown {
        peer: NodeId,
        reason: String,
    },
    DialFailed {
        peer: NodeId,
    },
    /// It did not answer a question.
    Unresponsive {
        peer: NodeId,
    },
    Control {
        peer: NodeId,
        message: Box<Control>,
    },
    Loaded {
        model: ModelId,
        span: LayerSpan,
        success: bool,
    },
    /// A caller asks for a model.
    Asked {
        model: ModelId,
    },
    /// The owner sets other limits: when others are served, and bytes for weights.
    Limit {
        opening: Opening,
        weights_bytes: u64,
        done: oneshot::Sender<()>,
    },
    /// The owner has one more model.
    Serve {
        model: Box<OwnModel>,
        done: oneshot::Sender<()>,
    },
    /// The owner lets a model rest, or wakes it.
    Rest {
        model: ModelId,
        rests: bool,
        done: oneshot::Sender<()>,
    },
    /// Somebody wants to know what live nodes say of themselves.
    Outlook {
        answer: oneshot::Sender<Vec<(NodeId, Heartbeat)>>,
    },
    /// This node now belongs to another network.
    Adopt {
        desk: Box<Desk>,
        peers: Vec<(NodeId, Vec<SocketAddr>)>,
        done: oneshot::Sender<()>,
    },
}

/// What the other parts may know of the network, replaced whenever it changes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct View {
    /// This node first.
    pub(crate) nodes: Vec<NodeView>,
    /// Who serves what now.
    pub(crate) served: BTreeMap<ModelId, Vec<(NodeId, LayerSpan)>>,
    /// How fast those are that have a model.
    pub(crate) speeds: BTreeMap<ModelId, Vec<(NodeId, Speed)>>,
    /// How far all are from each other.
    pub(crate) links: Arc<Links>,
    /// Who can add which adapter to what it serves.
    pub(crate) adapted: BTreeMap<ModelId, Vec<(NodeId, AdapterId)>>,
    /// Memory that this node gives to each of its models, once that is decided.
    pub(crate) shares: BTreeMap<ModelId, u64>,
    /// Models that this node's owner lets rest.
    pub(crate) resting: BTreeSet<ModelId>,
    /// Models of which this node loads layers now.
    pub(crate) loading: BTreeSet<ModelId>,
    /// When this node gives work to others, apart from what is seen.
    pub(crate) opening: Opening,
    /// Models that nodes load when they are asked for.
    pub(crate) on_demand: BTreeSet<ModelId>,
    /// Where the others are.
    pub(crate) introductions: Vec<(NodeId, Vec<SocketAddr>)>,
}

/// One node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NodeView {
    pub(crate) node: NodeId,
    pub(crate) name: String,
    pub(crate) linked: bool,
    pub(crate) heard_at: Option<Tick>,
    pub(crate) memory_bytes: u64,
    /// Sessions that its stages hold.
    pub(crate) load: u32,
    /// Microseconds there and back, as far as this node measured.
    pub(crate) round_trip_us: Option<u32>,
    /// KiB a second between this node and that one, by the word of the end that gets less.
    pub(crate) throughput_kib: Option<u32>,
    pub(crate) machine: Machine,
    /// Milliseconds that its clock is ahead of this one's.
    pub(crate) clock_ms: Option<i64>,
    /// Why it gives no work to others, if it does not.
    pub(crate) closed: Option<Closed>,
}

impl View {
    /// Who serves what of `model` and can add `adapter`, if one is wanted.
    pub(crate) fn served_with(
        &self,
        model: ModelId,
        adapter: Option<AdapterId>,
    ) -> Vec<(NodeId, LayerSpan)> {
        let mut served = self.served.get(&model).cloned().unwrap_or_default();
        if let Some(adapter) = adapter {
            let adapted = self.adapted.get(&model).map_or(&[][..], Vec::as_slice);
            served.retain(|(node, _)| adapted.contains(&(*node, adapter)));
        }
        served
    }

    /// What people call `node`.
    pub(crate) fn name_of(&self, node: NodeId) -> String {
        let found = self.nodes.iter().find(|n| n.node == node);
        found.map_or_else(|| node.short(), |n| n.name.clone())
    }
}

/// The hub and what it needs to perform effects.
pub(crate) struct Hub {
    pub(crate) core: Core,
    pub(crate) kernels: Kernels,
    /// Looks at the machine, if its owner set limits.
    pub(crate) watcher: Option<Watcher>,
    pub(crate) view: watch::Sender<View>,
}

/// Runs until the node stops.
pub(crate) async fn run(shared: Arc<Shared>, mut hub: Hub, mut inputs: mpsc::Receiver<HubInput>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut caught_up_at = Tick(0);
    let mut attendance = Attendance::default();
    let mut count = 0_u64;
    loop {
        let input = tokio::select! {
            input = inputs.recv() => input,
            _ = ticks.tick() => None,
        };
        match input {
            None => {
                count += 1;
                rating::tell_soon(&shared);
                hub.core.set_ledger_height(shared.desk().entries_held());
                hub.step(&shared, Input::Addresses(shared.endpoint.addresses()));
                if count.is_multiple_of(TICKS_PER_SAMPLE) {
                    hub.step(&shared, Input::Measured(sample(&shared)));
                    if let Some(activity) = hub.watcher.as_mut().map(Watcher::look) {
                        hub.step(&shared, Input::Seen(activity));
                    }
                }
                hub.part(&shared);
                if count.is_multiple_of(TICKS_PER_SWEEP) {
                    shared.stages.send(Job::Tick);
                    orders::sweep(&shared);
                    common_work::look(&shared, &mut attendance);
                    checkpoint(&shared, None);
                }
                if count.is_multiple_of(TICKS_PER_ASKING) {
                    again(&shared);
                }
                if count.is_multiple_of(TICKS_PER_FORGETTING) {
                    let shared = Arc::clone(&shared);
                    tokio::task::spawn_blocking(move || shared.answers.sweep());
                }
            }
            Some(HubInput::Control { peer, message }) => {
                hub.control(&shared, peer, *message, &mut caught_up_at).await;
            }
            Some(HubInput::LinkUp { peer }) => {
                tracing::info!(peer = %peer.short(), "linked");
                hub.step(&shared, Input::LinkUp { peer });
                checkpoint(&shared, Some(peer));
                again(&shared);
            }
            Some(HubInput::LinkDown { peer, reason }) => {
                tracing::info!(peer = %peer.short(), reason, "link closed");
                // Another link may have come up before word of the old one's end came here.
                if !shared.links.is_open(peer) {
                    hub.step(&shared, Input::LinkDown { peer });
                }
            }
            Some(HubInput::Unresponsive { peer }) => {
                hub.step(&shared, Input::Unresponsive { peer });
            }
            Some(HubInput::Asked { model }) => hub.step(&shared, Input::Asked { model }),
            Some(HubInput::DialFailed { peer }) => hub.step(&shared, Input::DialFailed { peer }),
            Some(HubInput::Loaded { model, span, success: true }) => {
                hub.step(&shared, Input::Loaded { model, span });
            }
            Some(HubInput::Loaded { model, span, success: false }) => {
                hub.step(&shared, Input::LoadFailed { model, span });
            }
            Some(HubInput::Limit { opening, weights_bytes, done }) => {
                hub.limit(&shared, opening, weights_bytes);
                let _ = done.send(());
            }
            Some(HubInput::Serve { model, done }) => {
                hub.step(&shared, Input::Serve(model));
                let _ = done.send(());
            }
            Some(HubInput::Rest { model, rests, done }) => {
                hub.step(&shared, Input::Rest { model, rests });
                let _ = done.send(());
            }
            Some(HubInput::Outlook { answer }) => {
                // Who asked may have left.
                let _ = answer.send(hub.core.outlook(now()));
            }
            Some(HubInput::Adopt { desk, peers, done }) => {
                shared.links.close_all("this node joined another network");
                shared.replace_desk(*desk);
                hub.core.forget_network();
                for (peer, addresses) in &peers {
                    hub.core.introduce(*peer, addresses);
                }
                hub.step(&shared, Input::Tick);
                let _ = done.send(());
            }
        }
    }
}

impl Hub {
    fn step(&mut self, shared: &Arc<Shared>, input: Input) {
        let mut effects = Vec::new();
        self.core.step(now(), input, &mut effects);
        for effect in effects {
            self.perform(shared, effect);
        }
        let view = self.look(shared);
        self.view.send_if_modified(|old| {
            let is_new = *old != view;
            *old = view;
            is_new
        });
    }

    /// Leaves nodes alone that the ledger says were removed; others may still introduce them for a while.
    fn part(&mut self, shared: &Arc<Shared>) {
        let known: Vec<_> = self.core.directory().nodes().map(|(node, _)| node).collect();
        let desk = shared.desk();
        let removed = desk.read(|ledger| {
            let is_removed = |node: &NodeId| ledger.removed(node).is_some();
            known.into_iter().filter(is_removed).collect::<Vec<_>>()
        });
        for peer in removed {
            self.core.forget(peer);
            shared.peer_gone(peer);
            let shared = Arc::clone(shared);
            tokio::spawn(async move {
                // It may read in the ledger what became of it.
                sleep(PARTING).await;
                shared.links.close(peer, links::REMOVED);
            });
        }
    }

    /// Holds from now on, and from what is seen at this moment.
    fn limit(&mut self, shared: &Arc<Shared>, opening: Opening, memory_bytes: u64) {
        let watches = opening.when_idle || !opening.hours.is_empty();
        let watcher = Watcher::new(opening.when_idle);
        let activity = watcher.glance();
        self.watcher = watches.then_some(watcher);
        self.step(shared, Input::Limited { opening, memory_bytes });
        self.step(shared, Input::Seen(activity));
    }

    fn perform(&self, shared: &Arc<Shared>, effect: Effect) {
        match effect {
            Effect::Broadcast(heartbeat) => {
                shared.links.broadcast(&Control::Heartbeat(heartbeat));
            }
            Effect::Tell(peer, heartbeat) => {
                shared.links.send(peer, &Control::Heartbeat(heartbeat));
            }
            Effect::Dial { peer, addresses } => {
                tokio::spawn(links::dial(Arc::clone(shared), peer, addresses));
            }
            Effect::Sever { peer } => {
                tracing::warn!(peer = %peer.short(), "silent, taken for dead");
                shared.blame(peer, Fault::Silence);
                shared.links.close(peer, "silent for too long");
                shared.peer_gone(peer);
            }
            Effect::Probe { peer } => {
                shared.links.send(peer, &Control::Bulk(vec![0; BULK_BYTES_MAX]));
            }
            Effect::Admit { others } => shared.stages.send(Job::Admit { others }),
            Effect::Blame(peer, fault) => shared.blame(peer, fault),
            Effect::Load { model, span } => self.load(shared, model, span),
            Effect::Unload { model, span } => shared.stages.send(Job::Retire(model, span)),
        }
    }

    fn load(&self, shared: &Arc<Shared>, id: ModelId, span: LayerSpan) {
        let Some(known) = shared.model_by_id(id) else { return };
        let (shared, kernels) = (Arc::clone(shared), self.kernels.clone());
        tokio::spawn(async move {
            let success = match fetch::bring(&shared, &known, span).await {
                Ok(()) => {
                    let shared = Arc::clone(&shared);
                    let loaded = spawn_blocking(move || install(&shared, &known, span, &kernels));
                    loaded.await.expect("loading does not panic")
                }
                Err(error) => {
                    tracing::error!(model = known.name, %span, %error, "cannot fetch");
                    false
                }
            };
            let _ = shared.hub.send(HubInput::Loaded { model: id, span, success }).await;
        });
    }

    fn look(&self, shared: &Shared) -> View {
        let me = NodeView {
            node: shared.me,
            name: shared.name.clone(),
            linked: true,
            heard_at: None,
            memory_bytes: self.core.memory_bytes(),
            load: self.core.load(),
            round_trip_us: None,
            throughput_kib: None,
            machine: self.core.machine(),
            clock_ms: None,
            closed: self.core.closed(),
        };
        let round_trips: BTreeMap<_, _> = self.core.round_trips_us().collect();
        let others = self.core.directory().nodes().map(|(node, known)| {
            let heartbeat: Option<&Heartbeat> = known.heartbeat.as_ref();
            NodeView {
                node,
                name: heartbeat.map_or_else(|| node.short(), |h| h.name.clone()),
                linked: known.linked,
                heard_at: known.heard_at,
                memory_bytes: heartbeat.map_or(0, |h| h.memory_bytes),
                load: heartbeat.map_or(0, |h| h.load),
                round_trip_us: round_trips.get(&node).copied(),
                throughput_kib: self.core.links().throughput_kib(shared.me, node),
                machine: heartbeat.map(|h| h.machine).unwrap_or_default(),
                clock_ms: known.clock_ms,
                closed: heartbeat.and_then(|h| h.closed),
            }
        });
        let models = self.core.models().iter();
        View {
            nodes: std::iter::once(me).chain(others).collect(),
            served: models.clone().map(|m| (m.id, self.core.served(m.id))).collect(),
            speeds: models.clone().map(|m| (m.id, self.core.speeds(m.id))).collect(),
            links: Arc::clone(self.core.links()),
            adapted: models.clone().map(|m| (m.id, self.core.adapted(m.id))).collect(),
            shares: models.clone().filter_map(|m| Some((m.id, m.share_bytes?))).collect(),
            resting: self.core.resting().collect(),
            loading: models.clone().filter(|m| !m.loading.is_empty()).map(|m| m.id).collect(),
            opening: self.core.opening().clone(),
            on_demand: models.map(|m| m.id).filter(|id| self.core.can_be_loaded(*id)).collect(),
            introductions: self.core.directory().introductions(),
        }
    }

    async fn control(
        &mut self,
        shared: &Arc<Shared>,
        peer: NodeId,
        message: Control,
        caught_up_at: &mut Tick,
    ) {
        match message {
            Control::Heartbeat(heartbeat) => {
                let is_behind = heartbeat.ledger_height > shared.desk().entries_held();
                if is_behind && now().since_ms(*caught_up_at) > CATCH_UP_MS {
                    *caught_up_at = now();
                    let from = shared.desk().entries_held();
                    let wanted = if shared.desk().is_solo() {
                        Control::EntriesWanted { from }
                    } else {
                        Control::Order(Box::new(Message::Want(from)))
                    };
                    shared.links.send(peer, &wanted);
                }
                self.step(shared, Input::Heard { peer, heartbeat });
            }
            Control::EntriesWanted { from } => {
                shared.links.send(peer, &join::page(shared, from));
                checkpoint(shared, Some(peer));
            }
            // Dropped if too many wait: whoever sent it sends it again.
            Control::Order(message) => {
                drop(shared.ordering.try_send(OrderInput::Message(peer, message)))
            }
            Control::Entries(entries) => {
                let desk = shared.desk();
                let followed = spawn_blocking(move || {
                    let followed = desk.follow(&entries)?;
                    Ok::<_, DeskError>((followed, desk.without_papers(&entries)?))
                });
                match followed.await.expect("following does not panic") {
                    Ok((Followed::New(_), epochs)) => {
                        for height in epochs {
                            shared.links.send(peer, &Control::PapersWanted { height });
                        }
                    }
                    Ok((Followed::WantsBlock, _)) => {
                        let wanted = Message::Want(shared.desk().entries_held());
                        shared.links.send(peer, &Control::Order(Box::new(wanted)));
                    }
                    Err(error) => {
                        tracing::warn!(peer = %peer.short(), %error, "ledger entries refused");
                    }
                }
            }
            Control::Pruned { first } => {
                let here = shared.desk().entries_held();
                tracing::error!(
                    peer = %peer.short(), first, here,
                    "this node was away for longer than entries are kept there: take a backup at another \
                     node, `talka ledger backup`, stop this one, and restore it here, `talka ledger restore`"
                );
            }
            Control::PapersWanted { height } => send_papers(shared, peer, height),
            Control::Papers { height, papers } => {
                let desk = shared.desk();
                let taken = spawn_blocking(move || desk.take_papers(height, *papers)).await;
                if let Err(error) = taken.expect("keeping papers does not panic") {
                    tracing::error!(%error, "papers of an epoch are not kept");
                }
            }
            Control::Submit { id, event } => {
                let shared = Arc::clone(shared);
                tokio::spawn(async move {
                    let result = order(&shared, *event).await.map(Box::new);
                    shared.links.send(peer, &Control::Ordered { id, result });
                });
            }
            Control::Ordered { id, result } if peer == shared.desk().founder() => {
                let mut waiting = shared.submissions.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(waiting) = waiting.remove(&id) {
                    let _ = waiting.send(result.map(|entry| *entry));
                }
            }
            Control::Ping(_)
            | Control::Pong(_)
            | Control::Suspect(_)
            | Control::Bulk(_)
            | Control::Training(_) => {
                unreachable!("whoever reads a link answers these")
            }
            Control::Ordered { .. }
            | Control::Hello(_)
            | Control::Join(_)
            | Control::Fetch(_)
            | Control::Look(_)
            | Control::Outlook(_)
            | Control::SnapshotWanted { .. }
            | Control::SnapshotPart(_)
            | Control::Admitted(_)
            | Control::BlockWanted(_)
            | Control::Block(_)
            | Control::Refused { .. } => {
                tracing::warn!(peer = %peer.short(), "a message out of turn");
                shared.links.close(peer, "a message out of turn");
            }
        }
    }
}

/// Sends what an epoch rests on, if it is here.
fn send_papers(shared: &Arc<Shared>, peer: NodeId, height: u64) {
    let shared = Arc::clone(shared);
    tokio::task::spawn_blocking(move || {
        match shared.store.papers(&shared.desk().network(), height) {
            Ok(Some(papers)) => {
                let papers = Box::new(papers);
                shared.links.send(peer, &Control::Papers { height, papers });
            }
            Ok(None) => {}
            Err(error) => tracing::error!(%error, height, "papers of an epoch cannot be read"),
        }
    });
}

/// Loads a stage whose tensors are here and says whether it runs.
fn install(shared: &Shared, known: &KnownModel, span: LayerSpan, kernels: &Kernels) -> bool {
    let begun = Instant::now();
    let load = known.underway.loading(span, known.model.span_bytes(span));
    let stage = known.model.stage_watched(span, kernels, &mut |bytes| load.reached(bytes));
    drop(load);
    shared.meter.loaded(known.id, begun.elapsed());
    match stage {
        Ok(mut stage) => {
            if let Some(time) = try_out(&mut stage, known.model.shape().hidden) {
                shared.meter.tried(known.id, span.len(), time);
            }
            tracing::info!(model = known.name, %span, "serving");
            shared.stages.send(Job::Install(known.id, Box::new(stage)));
            true
        }
        Err(error) => {
            tracing::error!(model = known.name, %span, %error, "cannot load");
            false
        }
    }
}

/// What this node measured of itself and its links.
fn sample(shared: &Shared) -> Sample {
    let round_trips_us = shared.links.round_trips_us();
    Sample {
        throughputs_kib: shared.meter.throughputs_kib(&round_trips_us),
        machine: shared.meter.machine(),
        layer_us: shared.meter.layer_us(),
        load: u32::try_from(shared.stages.sessions_held()).unwrap_or(u32::MAX),
        round_trips_us,
    }
}

/// Keeps where the others are, so that a restart finds them again. Beside the hub, which must not wait for a slow disk: others
/// would take this node for dead.
pub(crate) async fn remember_peers(shared: Arc<Shared>) {
    let mut view = shared.view.clone();
    let mut kept = Vec::new();
    loop {
        let peers = view.borrow_and_update().introductions.clone();
        // A node that joins another network has its new peers introduced first: never none.
        if !peers.is_empty() && peers != kept {
            let (store, to_keep) = (Arc::clone(&shared.store), peers.clone());
            let done = spawn_blocking(move || super::open::keep_peers(&store, &to_keep)).await;
            match done.expect("the store does not panic") {
                Ok(()) => kept = peers,
                Err(error) => tracing::error!(%error, "cannot remember the other nodes"),
            }
        }
        if view.changed().await.is_err() {
            return;
        }
    }
}

/// What has to do with order and was not answered is sent again. Dropped if too much waits: the next time is soon.
fn again(shared: &Shared) {
    drop(shared.ordering.try_send(OrderInput::Again));
}

/// Sends the last signed block to `peer`, or, if it is a new one, to everybody.
fn checkpoint(shared: &Arc<Shared>, peer: Option<NodeId>) {
    let shared = Arc::clone(shared);
    let seen = |note| Control::Order(Box::new(Message::Seen(note)));
    tokio::task::spawn_blocking(move || match (shared.desk().checkpoint(), peer) {
        (Ok(Some((_, note))), Some(peer)) => shared.links.send(peer, &seen(note)),
        (Ok(Some((block, note))), None) if shared.desk().is_news(&block) => {
            shared.links.broadcast(&seen(note));
        }
        (Ok(_), _) => {}
        (Err(error), _) => tracing::error!(%error, "no checkpoint"),
    });
}
