//! A world in which nodes train together: links that delay and lose, disks that outlive crashes, a clock of its own, and the
//! shell that [`talka_train::round`] asks for, around a model of a few hundred values.
//!
//! Everything comes from the seed. While it runs, the world checks what must always hold ([`Facts`]).

#![allow(dead_code, unused_imports, reason = "each test uses a part of it")]

mod facts;
mod node;

pub use facts::Facts;
pub use node::{Lie, Node};

use std::collections::{BTreeMap, BTreeSet};
use talka_base::{NodeId, Tick, UpdateHash, WeightsHash, decode, encode, rng::Rng};
use talka_train::{
    Compressor, Layout, Shared,
    round::{Effect, Found, Input, Late, Message, Terms},
};

/// How often shells call their machines.
pub const TICK_MS: u64 = 250;
/// How long a merge takes.
const MERGE_MS: u64 = 20;
/// Where a shell asks again for weights that nobody had.
const RETRY_MS: u64 = 500;

/// How messages travel.
#[derive(Debug, Clone, Copy)]
pub struct Links {
    pub delay_ms: (u64, u64),
    pub loss_per_mille: u64,
}

#[derive(Debug, Clone)]
pub enum Event {
    Tick,
    Deliver(NodeId, Vec<u8>),
    TrainingEnds(u64),
    Fetched(UpdateHash, Vec<NodeId>),
    Merged(talka_base::DecisionHash, WeightsHash),
    Synced(WeightsHash, Vec<NodeId>),
}

pub struct World {
    pub now: u64,
    pub terms: Terms,
    pub layout: Layout,
    pub compressor: Compressor,
    pub nodes: Vec<Node>,
    pub links: Links,
    pub facts: Facts,
    pub rng: Rng,
    /// Nodes of the same number hear each other.
    sides: BTreeMap<usize, u8>,
    /// By time and order: for which node, in which of its lives.
    queue: BTreeMap<(u64, u64), (usize, u64, Event)>,
    queued: u64,
}

pub fn id(number: usize) -> NodeId {
    NodeId([number as u8 + 1; 32])
}

pub fn layout() -> Layout {
    Layout::new([(8, 8), (1, 6)])
}

/// Terms of a job that node 0 submits: rounds of ten seconds.
pub fn terms(rounds: u64, seats_min: u16) -> Terms {
    Terms {
        founder: id(0),
        base: Shared::new(vec![0.0; layout().len()]).hash(),
        rounds,
        seats_min,
        quota: 40,
        window_ms: 10_000,
        grace_ms: 6_000,
        late: Late::Carried,
        recipe: [7; 32],
    }
}

impl World {
    /// Nodes that are all there from the beginning, each sample taking `sample_ms` on each.
    pub fn new(seed: u64, terms: Terms, nodes: usize, sample_ms: u64) -> Self {
        let links = Links { delay_ms: (20, 20), loss_per_mille: 0 };
        let mut world = Self {
            now: 1_000_000,
            terms,
            layout: layout(),
            compressor: Compressor::Dense4,
            nodes: Vec::new(),
            links,
            facts: Facts::default(),
            rng: Rng::new(seed),
            sides: BTreeMap::new(),
            queue: BTreeMap::new(),
            queued: 0,
        };
        for _ in 0..nodes {
            world.add_node(sample_ms);
        }
        world
    }

    /// One more node, that joins now.
    pub fn add_node(&mut self, sample_ms: u64) -> usize {
        let number = self.nodes.len();
        let mut node = Node::new(id(number), sample_ms);
        if number == 0 {
            node.disk.keep_state(&Shared::new(vec![0.0; self.layout.len()]));
        }
        self.nodes.push(node);
        self.start(number);
        number
    }

    pub fn start(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if node.start(self.terms.clone(), Tick(self.now)) {
            if number == 0 && node.disk.taken.is_none() {
                self.step(number, Input::Synced(self.terms.base));
            }
            self.at(self.now, number, Event::Tick);
        }
    }

    pub fn kill(&mut self, number: usize) {
        self.nodes[number].kill();
    }

    /// From now on only nodes of the same side hear each other.
    pub fn cut(&mut self, sides: impl IntoIterator<Item = (usize, u8)>) {
        self.sides = sides.into_iter().collect();
    }

    pub fn heal(&mut self) {
        self.sides.clear();
    }

    fn linked(&self, a: usize, b: usize) -> bool {
        let side = |n: usize| self.sides.get(&n).copied().unwrap_or_default();
        self.nodes[a].is_up() && self.nodes[b].is_up() && side(a) == side(b)
    }

    fn at(&mut self, time: u64, number: usize, event: Event) {
        self.queued += 1;
        self.queue.insert((time, self.queued), (number, self.nodes[number].life, event));
    }

    pub fn run_for(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some((&(time, order), _)) = self.queue.first_key_value()
            && time <= end
        {
            let (number, life, event) = self.queue.remove(&(time, order)).expect("just seen");
            self.now = time;
            if self.nodes[number].is_up() && self.nodes[number].life == life {
                self.happen(number, event);
            }
        }
        self.now = end;
    }

    /// Whether every node that is up knows the last round to be decided and holds its weights.
    pub fn is_done(&self) -> bool {
        self.nodes.iter().all(|node| !node.is_up() || node.finished(self.terms.rounds))
    }

    /// # Panics
    /// If the job is not done within this time.
    pub fn run_until_done(&mut self, ms_max: u64) {
        let end = self.now + ms_max;
        while !self.is_done() {
            assert!(self.now < end, "not done after {ms_max} ms: {}", self.describe());
            self.run_for(1000);
        }
    }

    pub fn describe(&self) -> String {
        let node = |node: &Node| match &node.machine {
            Some(m) => format!(
                "{} leader {:?} seats {}",
                m.decision().round,
                m.leader(),
                m.decision().seats.len()
            ),
            None => "down".to_owned(),
        };
        self.nodes.iter().map(node).collect::<Vec<_>>().join("; ")
    }

    fn happen(&mut self, number: usize, event: Event) {
        match event {
            Event::Tick => {
                self.step(number, Input::Again);
                self.at(self.now + TICK_MS, number, Event::Tick);
            }
            Event::Deliver(from, bytes) => {
                let message = decode::<Message>(&bytes).expect("sent by us");
                self.step(number, Input::Message(from, message));
            }
            Event::TrainingEnds(round) => self.end_training(number, Some(round)),
            Event::Fetched(update, from) => {
                let found = self.fetch(number, update, &from);
                self.step(number, Input::Fetched { update, found });
            }
            Event::Merged(decision, weights) => {
                self.step(number, Input::Merged { decision, weights });
            }
            Event::Synced(weights, from) => self.sync(number, weights, from),
        }
    }

    fn step(&mut self, number: usize, input: Input) {
        let mut effects = Vec::new();
        let now = Tick(self.now);
        let Some(machine) = &mut self.nodes[number].machine else { return };
        machine.step(now, input, &mut effects);
        for effect in effects {
            // A shell that died performs no more.
            if self.nodes[number].is_up() {
                self.perform(number, effect);
            }
        }
    }

    fn perform(&mut self, number: usize, effect: Effect) {
        self.facts.see(self.now, id(number), &effect);
        match effect {
            Effect::Persist(record) => self.nodes[number].disk.records.push(record),
            Effect::Send(to, message) => self.send(number, to, &message),
            Effect::Publish(message) => {
                for to in 0..self.nodes.len() {
                    self.send(number, id(to), &message);
                }
            }
            Effect::Train { round, assignment, until } => {
                self.end_training(number, None);
                let ends = self.nodes[number].train(round, assignment, self.now, until.0);
                self.at(ends, number, Event::TrainingEnds(round));
            }
            Effect::Fetch { update, from, .. } => {
                let time = self.now + self.delay() + self.delay();
                self.at(time, number, Event::Fetched(update, from));
            }
            Effect::Merge(decision) => {
                let weights = self.nodes[number].merge(&decision, &self.layout, self.compressor);
                let event = Event::Merged(decision.hash(), weights);
                self.at(self.now + MERGE_MS, number, event);
            }
            Effect::Sync { weights, from } => {
                self.nodes[number].wanted = Some(weights);
                let time = self.now + self.delay() + self.delay();
                self.at(time, number, Event::Synced(weights, from));
            }
            Effect::Take { weights, .. } => {
                self.nodes[number].disk.take(weights);
                self.end_training(number, None);
            }
            Effect::Settled { round, outcome } => {
                let (layout, compressor) = (self.layout.clone(), self.compressor);
                self.nodes[number].settle(round, outcome, &layout, compressor);
                self.facts.settle(id(number), round, outcome);
            }
            Effect::Reward(_) | Effect::Blame(..) | Effect::Finished => {}
        }
    }

    fn delay(&mut self) -> u64 {
        let (least, most) = self.links.delay_ms;
        least + self.rng.below(most - least + 1)
    }

    fn send(&mut self, from: usize, to: NodeId, message: &Message) {
        let Some(number) = (0..self.nodes.len()).find(|&n| id(n) == to && n != from) else {
            return;
        };
        let lost = self.rng.below(1000) < self.links.loss_per_mille;
        let time = self.now + self.delay();
        if !lost && self.linked(from, number) {
            self.at(time, number, Event::Deliver(id(from), encode(message)));
        }
    }

    /// Ends what is trained, if it is this round, or any.
    fn end_training(&mut self, number: usize, round: Option<u64>) {
        let (now, layout, compressor) = (self.now, self.layout.clone(), self.compressor);
        let Some(done) = self.nodes[number].end_training(now, round, &layout, compressor) else {
            return;
        };
        self.facts.trained(id(number), done.round, &done.places);
        let samples = done.places.len() as u64;
        self.step(number, Input::Trained { round: done.round, samples, update: done.update });
    }

    fn fetch(&mut self, number: usize, update: UpdateHash, from: &[NodeId]) -> Found {
        if !self.nodes[number].disk.updates.contains_key(&update) {
            let has = |n: usize| self.nodes[n].disk.updates.get(&update).cloned();
            let reachable =
                |n: usize| n != number && self.linked(number, n) && from.contains(&id(n));
            let Some(bytes) = (0..self.nodes.len()).filter(|&n| reachable(n)).find_map(has) else {
                return Found::Nothing;
            };
            *self.facts.bytes.entry(id(number)).or_default() += bytes.len() as u64;
            self.nodes[number].disk.updates.insert(update, bytes);
        }
        let bytes = &self.nodes[number].disk.updates[&update];
        let good = self.compressor.read(&self.layout, bytes).is_ok();
        if good { Found::Good } else { Found::Bad }
    }

    fn sync(&mut self, number: usize, weights: WeightsHash, from: Vec<NodeId>) {
        if self.nodes[number].wanted != Some(weights) {
            return;
        }
        if !self.nodes[number].disk.states.contains_key(&weights) {
            let has = |n: usize| self.nodes[n].disk.states.get(&weights).cloned();
            let reachable = |n: usize| self.linked(number, n) && from.contains(&id(n));
            let Some(state) = (0..self.nodes.len()).filter(|&n| reachable(n)).find_map(has) else {
                return self.at(self.now + RETRY_MS, number, Event::Synced(weights, from));
            };
            *self.facts.bytes.entry(id(number)).or_default() += state.write().len() as u64;
            assert_eq!(state.hash(), weights);
            self.nodes[number].disk.states.insert(weights, state);
        }
        self.nodes[number].wanted = None;
        self.step(number, Input::Synced(weights));
    }

    /// Checks what can be said at the end only.
    pub fn check(&self) {
        self.facts.check(&self.terms, self.compressor.bytes(&self.layout) as u64);
    }
}

/// The seeds of a campaign: `TALKA_SEEDS` says how many, else `usual`.
pub fn seeds(usual: u64) -> std::ops::Range<u64> {
    let wanted = std::env::var("TALKA_SEEDS").ok().and_then(|text| text.parse().ok());
    0..wanted.unwrap_or(usual)
}

/// Node numbers as a set of ids.
pub fn ids(numbers: impl IntoIterator<Item = usize>) -> BTreeSet<NodeId> {
    numbers.into_iter().map(id).collect()
}
