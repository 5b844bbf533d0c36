//! Everything a node decides, as pure functions of what it was told: no clock, socket, file or
//! thread. The shell feeds it and performs the [`Effect`]s; tests run many cores side by side.

pub mod assign;
pub mod attendance;
pub mod best;
mod demand;
pub mod directory;
pub mod embed;
pub mod fallback;
pub mod faults;
pub mod fetch;
pub mod forecast;
pub mod frames;
pub mod head;
pub mod histogram;
pub mod invites;
pub mod keys;
mod limits;
pub mod measures;
pub mod owner;
pub mod pace;
pub mod rating;
pub mod readiness;
pub mod recent;
pub mod reputations;
pub mod resume;
pub mod runs;
pub mod throttle;
pub mod till;

use crate::wire::{Grade, Heartbeat, Machine, Offer};
use assign::changes;
use demand::Asked;
use directory::{Directory, Speed};
use faults::Fault;
use measures::{Measures, Sample};
use owner::{Activity, Closed, Opening, Owner};
use std::{net::SocketAddr, sync::Arc};
use talka_base::{AdapterId, LayerSpan, ModelId, NodeId, Tick};
use talka_plan::{Candidate, Goal, Links, Placement, place, residency::Policy, uncovered};

/// How often a node tells the others that it lives and what it serves, in milliseconds.
pub const HEARTBEAT_MS: u64 = 1_000;

/// A node silent this long is taken for dead, in milliseconds.
///
/// Three heartbeats, and half of one for the way. A request whose stage died must end within 5 s:
/// this leaves 1.5 s for the rest.
pub const SILENCE_MS_MAX: u64 = 3_500;

/// A node that starts listens so long to those it knows of before it takes layers, in milliseconds: else it would
/// load what others serve, and the others might then leave that to it.
const LISTEN_MS: u64 = 1_000;
const _: () = assert!(SILENCE_MS_MAX > 3 * HEARTBEAT_MS);

/// Pause before a node that could not be reached is dialled again, in milliseconds: doubled each
/// time from the first value to the second.
const REDIAL_MS: (u64, u64) = (1_000, 8_000);

/// Pause before a node whose link broke is dialled, in milliseconds: it may well be there.
const REDIAL_FIRST_MS: u64 = 100;

/// A model whose weights this node has.
#[derive(Debug, Clone)]
pub struct OwnModel {
    /// Its digest.
    pub id: ModelId,
    /// What this node calls it.
    pub name: String,
    /// Number of layers.
    pub layers: u32,
    /// All weights, in bytes.
    pub bytes: u64,
    /// Weights of one layer, in bytes.
    pub layer_bytes: u64,
    /// How its weights are held here.
    pub grade: Grade,
    /// What a token takes between two stages, in bytes.
    pub frame_bytes: u32,
    /// It stays in memory when others are swapped.
    pub is_core: bool,
    /// When anybody last asked for it.
    pub wanted_at: Option<Tick>,
    /// Since when it has room in memory.
    pub resident_since: Option<Tick>,
    /// How much room; absent until that is decided.
    pub share_bytes: Option<u64>,
    /// Microseconds for one token through one layer, as far as can be told before it ran.
    pub layer_us: u32,
    /// Adapters that can be added to its layers.
    pub adapters: Vec<AdapterId>,
    /// The span the owner asked for, if any.
    pub pinned: Option<LayerSpan>,
    /// The owner wants none of it in memory.
    pub rests: bool,
    /// Spans ready to run here.
    pub serves: Vec<LayerSpan>,
    /// Spans being loaded.
    pub loading: Vec<LayerSpan>,
    /// Spans that failed to load: not tried again.
    pub failed: Vec<LayerSpan>,
}

impl OwnModel {
    /// A model of `layers` layers of `layer_bytes`, held as it is stored, of which nothing else is known or done.
    pub fn new(id: ModelId, name: String, layers: u32, layer_bytes: u64) -> Self {
        Self {
            id,
            name,
            layers,
            bytes: layer_bytes.saturating_mul(layers.into()),
            layer_bytes,
            grade: Grade::Stored,
            frame_bytes: 0,
            is_core: false,
            wanted_at: None,
            resident_since: None,
            share_bytes: None,
            layer_us: 0,
            adapters: Vec::new(),
            pinned: None,
            rests: false,
            serves: Vec::new(),
            loading: Vec::new(),
            failed: Vec::new(),
        }
    }

    /// Whether it waits on the disk.
    pub fn is_swapped_out(&self) -> bool {
        self.rests || self.share_bytes == Some(0) && self.pinned.is_none()
    }
}

/// Something a node learned.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the fields are what they are called")]
pub enum Input {
    /// A link to a node of the network opened.
    LinkUp { peer: NodeId },
    /// The link to a node closed.
    LinkDown { peer: NodeId },
    /// A node could not be reached.
    DialFailed { peer: NodeId },
    /// A linked node did not answer when asked whether it is there.
    Unresponsive { peer: NodeId },
    /// A node said what it is and does.
    Heard { peer: NodeId, heartbeat: Heartbeat },
    /// A span was loaded.
    Loaded { model: ModelId, span: LayerSpan },
    /// A span could not be loaded.
    LoadFailed { model: ModelId, span: LayerSpan },
    /// A caller of this node asks for a model.
    Asked { model: ModelId },
    /// This is how fast, loaded and far the node is.
    Measured(Sample),
    /// This is what its owner does with the machine.
    Seen(Activity),
    /// Its owner sets other limits: when others are served, and bytes for weights.
    Limited { opening: Opening, memory_bytes: u64 },
    /// Its owner has one more model.
    Serve(Box<OwnModel>),
    /// Its owner lets a model rest, or wakes it.
    Rest { model: ModelId, rests: bool },
    /// This node can be reached at these addresses.
    Addresses(Vec<SocketAddr>),
    /// Time passed.
    Tick,
}

/// Something to be done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are what they are called")]
pub enum Effect {
    /// Tell every linked node.
    Broadcast(Heartbeat),
    /// Tell one node.
    Tell(NodeId, Heartbeat),
    /// Open a link.
    Dial { peer: NodeId, addresses: Vec<SocketAddr> },
    /// Close a link: its node is silent.
    Sever { peer: NodeId },
    /// Load layers; answered by [`Input::Loaded`] or [`Input::LoadFailed`].
    Load { model: ModelId, span: LayerSpan },
    /// Send a node something long, so that it sees how much goes through.
    Probe { peer: NodeId },
    /// Work for the sessions of other heads, or end those and take no more.
    Admit { others: bool },
    /// Count what a node did.
    Blame(NodeId, Fault),
    /// Give layers back; sessions that use them keep them until they end.
    Unload { model: ModelId, span: LayerSpan },
}

/// One node's view of its network and what it makes of it.
#[derive(Debug)]
pub struct Core {
    me: NodeId,
    name: String,
    memory_bytes: u64,
    policy: Policy,
    /// Stages that hold weights differently may make one route.
    mixes_precision: bool,
    models: Vec<OwnModel>,
    asked: Asked,
    addresses: Vec<SocketAddr>,
    directory: Directory,
    ledger_height: u64,
    measures: Measures,
    owner: Owner,
    /// Other heads get no work done here.
    is_shut: bool,
    /// How far all are from each other.
    links: Arc<Links>,
    /// Something that placements depend on changed since they were made.
    is_stale: bool,
    next_heartbeat: Tick,
    /// When it took its first step.
    begun_at: Option<Tick>,
}

impl Core {
    /// A node that knows nobody yet. `memory_bytes` is what it offers for weights, `policy` how its models share
    /// them.
    pub fn new(
        me: NodeId,
        name: String,
        memory_bytes: u64,
        policy: Policy,
        models: Vec<OwnModel>,
    ) -> Self {
        Self {
            me,
            name,
            memory_bytes,
            policy,
            mixes_precision: false,
            models,
            asked: Asked::default(),
            addresses: Vec::new(),
            directory: Directory::default(),
            ledger_height: 0,
            measures: Measures::default(),
            owner: Owner::default(),
            is_shut: false,
            links: Arc::default(),
            is_stale: true,
            next_heartbeat: Tick(0),
            begun_at: None,
        }
    }

    /// The same node; with `mixes`, it shares layers with nodes that hold the weights differently too.
    pub fn mixing(self, mixes: bool) -> Self {
        Self { mixes_precision: mixes, ..self }
    }

    /// The same node, open to others when `owner` lets it.
    pub fn owned(self, owner: Owner) -> Self {
        Self { owner, ..self }
    }

    /// Why this node gives no work to others, if it does not.
    pub fn closed(&self) -> Option<Closed> {
        self.owner.closed()
    }

    /// What this node knows of the others.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The models this node has.
    pub fn models(&self) -> &[OwnModel] {
        &self.models
    }

    /// Who serves which layers of `model` now, this node included.
    pub fn served(&self, model: ModelId) -> Vec<(NodeId, LayerSpan)> {
        let own = self.models.iter().filter(|m| m.id == model).flat_map(|m| &m.serves);
        own.map(|span| (self.me, *span)).chain(self.directory.served(model)).collect()
    }

    /// Who can add which adapter to the layers it serves of `model`, this node included.
    pub fn adapted(&self, model: ModelId) -> Vec<(NodeId, AdapterId)> {
        let own = self.models.iter().filter(|m| m.id == model).flat_map(|m| &m.adapters);
        own.map(|adapter| (self.me, *adapter)).chain(self.directory.adapted(model)).collect()
    }

    /// How fast each live node is that has `model`, this one included.
    pub fn speeds(&self, model: ModelId) -> Vec<(NodeId, Speed)> {
        let own = self.models.iter().filter(|m| m.id == model).map(|m| {
            let (layer_us, load) = (self.layer_us(m), self.measures.load());
            let speed = Speed { layer_us, load, grade: m.grade };
            (self.me, speed)
        });
        own.chain(self.directory.speeds(model)).collect()
    }

    /// How far live nodes are from each other, by their own word.
    pub fn links(&self) -> &Arc<Links> {
        &self.links
    }

    /// Sessions that stages of this node hold.
    pub fn load(&self) -> u32 {
        self.measures.load()
    }

    /// Microseconds from this node to linked ones and back.
    pub fn round_trips_us(&self) -> impl Iterator<Item = (NodeId, u32)> + '_ {
        self.measures.round_trips_us()
    }

    /// KiB a second from linked nodes to this one.
    pub fn throughputs_kib(&self) -> impl Iterator<Item = (NodeId, u32)> + '_ {
        self.measures.throughputs_kib()
    }

    /// How fast this node computes.
    pub fn machine(&self) -> Machine {
        self.measures.machine()
    }

    /// Memory this node offers for weights, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Forgets all other nodes: this one is in another network now.
    pub fn forget_network(&mut self) {
        self.directory = Directory::default();
        self.is_stale = true;
        self.next_heartbeat = Tick(0);
    }

    /// Forgets one node: it was removed from the network.
    pub fn forget(&mut self, peer: NodeId) {
        self.is_stale |= self.directory.forget(peer);
    }

    /// Remembers that `peer` can be reached at `addresses`, so that it will be dialled.
    pub fn introduce(&mut self, peer: NodeId, addresses: &[SocketAddr]) {
        if peer != self.me {
            self.directory.introduce(peer, addresses);
        }
    }

    /// Says how many ledger entries this node holds; told to the others.
    pub fn set_ledger_height(&mut self, height: u64) {
        self.ledger_height = height;
    }

    /// Takes `input` in at time `now` and appends what is to be done to `out`.
    ///
    /// Same state and inputs give the same effects.
    pub fn step(&mut self, now: Tick, input: Input, out: &mut Vec<Effect>) {
        let mut gone = Vec::new();
        self.is_stale |= !matches!(
            input,
            Input::Tick
                | Input::Addresses(_)
                | Input::Heard { .. }
                | Input::Measured(_)
                | Input::Seen(_)
                | Input::Asked { .. }
        );
        match input {
            Input::LinkUp { peer } => {
                self.directory.link_up(peer, now);
                out.push(Effect::Tell(peer, self.heartbeat(now)));
            }
            Input::LinkDown { peer } => self.directory.link_down(peer, now, REDIAL_FIRST_MS),
            Input::DialFailed { peer } => self.directory.dial_failed(peer, now, REDIAL_MS),
            Input::Heard { peer, mut heartbeat } => {
                if self.drop_lies(&mut heartbeat) {
                    out.push(Effect::Blame(peer, Fault::Layers));
                }
                for (known, addresses) in &heartbeat.peers {
                    self.introduce(*known, addresses);
                }
                heartbeat.asked.iter().for_each(|model| self.wanted(*model, now));
                self.is_stale |= self.directory.heard(peer, heartbeat, now);
            }
            Input::Loaded { model, span } => self.loaded(model, span, true),
            Input::LoadFailed { model, span } => self.loaded(model, span, false),
            Input::Asked { model } => self.asked(model, now),
            Input::Measured(sample) => self.is_stale |= self.measures.take(now, sample),
            Input::Addresses(addresses) => self.addresses = addresses,
            Input::Seen(activity) => self.seen(now, activity),
            Input::Limited { opening, memory_bytes } => self.limited(opening, memory_bytes),
            Input::Serve(model) => self.serve(*model),
            Input::Rest { model, rests } => self.rest(model, rests),
            Input::Unresponsive { peer } => {
                gone.extend(self.directory.is_linked(peer).then_some(peer))
            }
            Input::Tick => {}
        }
        gone.extend(self.directory.silent(now, SILENCE_MS_MAX));
        self.is_stale |= !gone.is_empty() || self.somebody_waits(now);
        for peer in gone {
            self.directory.link_down(peer, now, REDIAL_MS.0);
            out.push(Effect::Sever { peer });
        }
        for (peer, addresses) in self.directory.due_dials(now) {
            out.push(Effect::Dial { peer, addresses });
        }
        // Not where answers might wait for it.
        if self.measures.load() == 0 {
            let due = self.directory.due_probe(self.me, now);
            out.extend(due.map(|peer| Effect::Probe { peer }));
        }
        let begun_at = *self.begun_at.get_or_insert(now);
        let listens = self.directory.is_anybody_unheard() && now.since_ms(begun_at) < LISTEN_MS;
        let changed = self.is_stale && !listens && self.assign(now, out);
        let is_shut = self.owner.is_shut(now);
        let turns = is_shut != self.is_shut;
        self.is_shut = is_shut;
        if changed || turns || now >= self.next_heartbeat {
            self.next_heartbeat = now.plus_ms(HEARTBEAT_MS);
            out.push(Effect::Broadcast(self.heartbeat(now)));
        }
        // Heads whose sessions end look for another way, and know by then that it leads not here.
        out.extend(turns.then_some(Effect::Admit { others: !is_shut }));
    }

    fn seen(&mut self, now: Tick, activity: Activity) {
        if self.owner.look(now, activity) {
            self.is_stale = true;
            // The sooner others know, the sooner they take over.
            self.next_heartbeat = Tick(0);
        }
    }

    /// Takes out of `heartbeat` what is said of layers that a model lacks. Whether there was any.
    fn drop_lies(&self, heartbeat: &mut Heartbeat) -> bool {
        let mut lied = false;
        for offer in &mut heartbeat.offers {
            let Some(own) = self.models.iter().find(|own| own.id == offer.model) else { continue };
            let is_there = |span: &LayerSpan| span.end() <= own.layers;
            let said = offer.serves.len();
            offer.serves.retain(is_there);
            lied |= offer.serves.len() < said || !offer.pinned.as_ref().is_none_or(is_there);
            offer.pinned = offer.pinned.filter(is_there);
        }
        lied
    }

    /// What this node should serve of each model by what it knows now. A span is given back only
    /// when others serve all of it *and should*: two nodes that both serve too much would otherwise
    /// each rely on the other and both let go. Models without room are given back first, whoever serves
    /// them. Says whether the offer to the others changed.
    fn assign(&mut self, now: Tick, out: &mut Vec<Effect>) -> bool {
        self.links = Arc::new(self.known_links());
        let before: Vec<_> = self.models.iter().map(|model| model.share_bytes).collect();
        self.share_memory(now);
        let mut changed = self.models.iter().map(|model| model.share_bytes).ne(before);
        for model in self.models.iter_mut().filter(|model| model.is_swapped_out()) {
            let id = model.id;
            changed |= !model.serves.is_empty();
            out.extend(model.serves.drain(..).map(|span| Effect::Unload { model: id, span }));
        }
        for index in 0..self.models.len() {
            let is_open = self.closed().is_none();
            let placement = self.placement(&self.models[index], is_open);
            let model = &self.models[index];
            let served = self.directory.served(model.id);
            let reliable = |(node, span): &(NodeId, LayerSpan)| {
                let span = *span;
                let targets: Vec<_> = placement.of(*node).collect();
                targets.into_iter().filter_map(move |target| target.intersection(span))
            };
            let others: Vec<_> = served.iter().flat_map(reliable).collect();
            let target = if is_open {
                placement.of(self.me).collect()
            } else {
                self.own_use(model, &others)
            };
            let model = &mut self.models[index];
            let known = [model.serves.as_slice(), &model.loading, &model.failed].concat();
            let change = changes(&known, &model.serves, &target, &others);
            for span in change.load {
                model.loading.push(span);
                out.push(Effect::Load { model: model.id, span });
            }
            for span in change.unload {
                model.serves.retain(|s| *s != span);
                out.push(Effect::Unload { model: model.id, span });
                changed = true;
            }
        }
        // What was given back may be placed anew.
        self.is_stale = changed;
        changed
    }

    /// What a closed node serves its own callers: nothing that `others` serve and will go on to.
    fn own_use(&self, model: &OwnModel, others: &[LayerSpan]) -> Vec<LayerSpan> {
        if uncovered(model.layers, others.iter().copied()).is_empty() {
            return Vec::new();
        }
        self.placement(model, true).of(self.me).collect()
    }

    fn known_links(&self) -> Links {
        let mut links = Links::default();
        self.directory.tell_links(&mut links);
        for (peer, us) in self.measures.round_trips_us() {
            links.tell(self.me, peer, us / 2);
        }
        for (peer, kib) in self.measures.throughputs_kib() {
            links.tell_throughput(self.me, peer, kib);
        }
        links
    }

    fn layer_us(&self, model: &OwnModel) -> u32 {
        self.measures.layer_us(model.id).unwrap_or(model.layer_us)
    }

    /// Where layers of `model` belong, with this node or, if it takes no part, as the others see it.
    fn placement(&self, model: &OwnModel, takes_part: bool) -> Placement {
        // Layers are shared with those only that can make a route with this node.
        let grade = (!self.mixes_precision).then_some(model.grade);
        let mut candidates = self.directory.candidates(model.id, grade);
        candidates.push(self.candidate(model, takes_part));
        self.place_among(model, &candidates)
    }

    /// What this node offers `model`: nothing, if it takes no part.
    fn candidate(&self, model: &OwnModel, takes_part: bool) -> Candidate {
        Candidate {
            node: self.me,
            memory_bytes: model.share_bytes.filter(|_| takes_part).unwrap_or(0),
            layer_us: self.layer_us(model),
            pinned: model.pinned.filter(|_| takes_part && !model.rests),
            serves: model.serves.clone(),
        }
    }

    fn place_among(&self, model: &OwnModel, candidates: &[Candidate]) -> Placement {
        let is_busy = self.measures.is_busy() || self.directory.is_busy(model.id);
        let goal = if is_busy { Goal::Throughput } else { Goal::Interactive };
        let ways = self.links.carrying(model.frame_bytes);
        place(model.layers, model.layer_bytes, candidates, ways, goal)
    }

    fn loaded(&mut self, model: ModelId, span: LayerSpan, success: bool) {
        let Some(model) = self.models.iter_mut().find(|m| m.id == model) else { return };
        model.loading.retain(|s| *s != span);
        let list = if success { &mut model.serves } else { &mut model.failed };
        list.push(span);
        // The others learn of it at once: somebody may wait to give the same layers back.
        self.next_heartbeat = Tick(0);
    }

    fn heartbeat(&self, now: Tick) -> Heartbeat {
        Heartbeat {
            name: self.name.clone(),
            at: now,
            memory_bytes: self.memory_bytes,
            addresses: self.addresses.clone(),
            ledger_height: self.ledger_height,
            load: self.measures.load(),
            is_busy: self.measures.is_busy(),
            asked: self.asked.lately(now),
            round_trips_us: self.measures.round_trips_us().collect(),
            throughputs_kib: self.measures.throughputs_kib().collect(),
            machine: self.measures.machine(),
            closed: self.closed(),
            offers: self.models.iter().map(|m| self.offer(m)).collect(),
            peers: self.directory.introductions(),
        }
    }

    /// A closed node offers nothing; what it serves it says until others had time to take over.
    fn offer(&self, model: &OwnModel) -> Offer {
        let is_open = self.closed().is_none();
        Offer {
            model: model.id,
            pinned: model.pinned.filter(|_| is_open && !model.rests),
            memory_bytes: model.share_bytes.filter(|_| is_open).unwrap_or(0),
            grade: model.grade,
            could_bytes: if is_open { self.could_bytes(model) } else { 0 },
            layer_us: self.layer_us(model),
            serves: if self.is_shut { Vec::new() } else { model.serves.clone() },
            adapters: model.adapters.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
