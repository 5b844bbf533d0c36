//! Members that really train, driven by the real rounds, on links that lose nothing.

use serde_json::{Value, json};
use std::{collections::VecDeque, path::Path, sync::Arc};
use talka_base::{NodeId, Tick, WeightsHash};
use talka_engine::kernels::{Kernels, ThreadPool};
use talka_train::{
    Depot, Job, JobFile, Member, Recipe,
    depot::Kind,
    member::{Begun, Offered},
    recipe,
    round::{Effect, Found, Input, Message, Record, Rounds, Terms},
};
use tempfile::TempDir;

const TEXT: &str =
    "To be, or not to be, that is the question: whether 'tis nobler in the mind to suffer. ";
const TICK_MS: u64 = 250;
const MEMBERS: usize = 3;
const ROUNDS: u64 = 5;

/// What differs between the worlds: fields of `[network]`, and `average_steps`.
fn job(folder: &Path, network: &Value, average_steps: u64) -> (Job, JobFile) {
    let text = folder.join("text.txt");
    std::fs::write(&text, TEXT.repeat(30)).expect("written");
    let mut file = json!({
        "task_id": "tiny",
        "model_specification": {"hidden": 16, "layers": 2, "heads": 2, "ffn": 32, "context": 8},
        "tokenizer": {"kind": "characters"},
        "training_config": {"steps": 4 * ROUNDS, "batch_size": 2, "learning_rate": 0.02,
                            "average_steps": average_steps},
        "data_requirements": {"files": [text]},
        "network": {"members_min": 2, "steps_per_round": 4, "window_seconds": 20,
                    "grace_seconds": 5},
    });
    for (field, value) in network.as_object().expect("fields") {
        file["network"][field] = value.clone();
    }
    let file = JobFile::from_value(file).expect("a job file");
    (Job::try_from(file.clone()).expect("a job"), file)
}

fn id(number: usize) -> NodeId {
    NodeId([number as u8 + 1; 32])
}

struct Node {
    folder: TempDir,
    depot: Arc<Depot>,
    member: Member,
    rounds: Rounds,
    /// What is durable.
    records: Vec<Record>,
    inputs: VecDeque<Input>,
    until: Tick,
    /// Of each round that it took.
    taken: Vec<WeightsHash>,
    /// Rounds that began with steps trained ahead.
    ahead: u64,
    done: bool,
}

struct World {
    terms: Terms,
    now: Tick,
    nodes: Vec<Node>,
}

impl World {
    fn new(network: &Value) -> Self {
        Self::averaging(network, 0)
    }

    fn averaging(network: &Value, average_steps: u64) -> Self {
        let folders: Vec<_> = (0..MEMBERS).map(|_| tempfile::tempdir().expect("made")).collect();
        let (job, file) = job(folders[0].path(), network, average_steps);
        let depot = open_depot(folders[0].path());
        let terms = recipe::found(&job, &file, folders[0].path(), &depot, id(0)).expect("founded");
        let now = Tick(0);
        let recipe = depot.read(&terms.recipe).expect("read").expect("here");
        for folder in &folders[1..] {
            // What whoever joins fetches first.
            let own = open_depot(folder.path());
            own.put(Kind::Always, &recipe).expect("kept");
            for thing in Recipe::read(&recipe).expect("good").0.things() {
                let bytes = depot.read(&thing.hash).expect("read").expect("here");
                assert_eq!(bytes.len() as u64, thing.bytes);
                own.put(Kind::Always, &bytes).expect("kept");
            }
        }
        let nodes = folders.into_iter().enumerate();
        let nodes = nodes.map(|(n, folder)| Node::open(n, folder, &terms, now, Vec::new()));
        let mut world = Self { nodes: nodes.collect(), terms, now };
        world.nodes[0].inputs.push_back(Input::Synced(world.terms.base));
        world
    }

    /// All processes die; what is durable is there again.
    fn restart(&mut self) {
        let now = self.now;
        let nodes = std::mem::take(&mut self.nodes).into_iter().enumerate();
        self.nodes = nodes
            .map(|(n, old)| {
                let taken = old.taken.clone();
                let mut node = Node::open(n, old.folder, &self.terms, now, old.records);
                if let Some(weights) = taken.last() {
                    node.member.take(taken.len() as u64 - 1, *weights).expect("it is here");
                }
                node.done = taken.len() as u64 > ROUNDS;
                node.taken = taken;
                node
            })
            .collect();
    }

    fn tick(&mut self) {
        self.now = Tick(self.now.0 + TICK_MS);
        for number in 0..self.nodes.len() {
            self.train(number);
            self.nodes[number].inputs.push_back(Input::Again);
            while let Some(input) = self.nodes[number].inputs.pop_front() {
                let mut effects = Vec::new();
                self.nodes[number].rounds.step(self.now, input, &mut effects);
                effects.into_iter().for_each(|effect| self.perform(number, effect));
            }
        }
    }

    /// One step, or the end of a round.
    fn train(&mut self, number: usize) {
        let now = self.now;
        let node = &mut self.nodes[number];
        let Some(next) = node.member.next() else { return };
        let is_ahead = node.member.training() != Some(next);
        let goes_on = is_ahead || now < node.until;
        if !(goes_on && node.member.step().expect("a step").is_some()) {
            let offered = node.member.finish().expect("kept").expect("was trained");
            node.offer(offered);
        }
    }

    fn perform(&mut self, number: usize, effect: Effect) {
        let here = number;
        match effect {
            Effect::Persist(record) => self.nodes[here].records.push(record),
            Effect::Send(to, message) => self.send(here, to, message),
            Effect::Publish(message) => (0..MEMBERS)
                .filter(|to| *to != here)
                .for_each(|to| self.send(here, id(to), message.clone())),
            Effect::Fetch { update, from, .. } => {
                let found = if self.copy(here, update.0, &from, Kind::Update(1)) {
                    Found::Good
                } else {
                    Found::Nothing
                };
                self.nodes[here].inputs.push_back(Input::Fetched { update, found });
            }
            Effect::Sync { weights, from } => {
                if self.copy(here, weights.0, &from, Kind::State(1)) {
                    self.nodes[here].inputs.push_back(Input::Synced(weights));
                }
            }
            other => self.nodes[here].perform(other),
        }
    }

    fn send(&mut self, from: usize, to: NodeId, message: Message) {
        let to = (0..MEMBERS).find(|n| id(*n) == to).expect("a node");
        self.nodes[to].inputs.push_back(Input::Message(id(from), message));
    }

    fn copy(&self, to: usize, hash: [u8; 32], from: &[NodeId], kind: Kind) -> bool {
        let to = &self.nodes[to].depot;
        let sources = (0..MEMBERS).filter(|n| from.contains(&id(*n)));
        to.has(&hash)
            || sources
                .filter_map(|n| self.nodes[n].depot.read(&hash).expect("read"))
                .any(|bytes| to.put(kind, &bytes).is_ok_and(|kept| kept == hash))
    }

    fn run(&mut self) {
        for _ in 0..4_000 {
            if self.nodes.iter().all(|node| node.done) {
                return;
            }
            self.tick();
        }
        panic!("no end in sight");
    }
}

impl Node {
    fn open(
        number: usize,
        folder: TempDir,
        terms: &Terms,
        now: Tick,
        records: Vec<Record>,
    ) -> Self {
        let depot = open_depot(folder.path());
        let recipe = depot.read(&terms.recipe).expect("read").expect("here");
        let (recipe, job) = Recipe::read(&recipe).expect("good");
        let kernels = Kernels::detect(ThreadPool::new(1));
        let member = Member::open((&recipe, &job), Arc::clone(&depot), folder.path(), kernels);
        let rounds = Rounds::recover(id(number), terms.clone(), now, records.clone());
        let (member, taken) = (member.expect("a member"), Vec::new());
        let inputs = VecDeque::new();
        Self {
            folder,
            depot,
            member,
            rounds,
            records,
            inputs,
            until: now,
            taken,
            ahead: 0,
            done: false,
        }
    }

    fn offer(&mut self, offered: Offered) {
        let Offered { round, samples, update, .. } = offered;
        self.inputs.push_back(Input::Trained { round, samples, update });
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Train { round, assignment, until } => {
                self.until = until;
                match self.member.begin(round, assignment).expect("begun") {
                    Begun::Done(known) => self.offer(known),
                    Begun::Ahead => self.ahead += 1,
                    Begun::Anew => {}
                }
            }
            Effect::Merge(decision) => {
                let weights = self.member.merge(&decision).expect("merged");
                let decision = decision.hash();
                self.inputs.push_back(Input::Merged { decision, weights });
            }
            Effect::Take { round, weights } => {
                if let Some(cut) = self.member.finish().expect("kept") {
                    self.offer(cut);
                }
                self.member.take(round, weights).expect("taken");
                self.taken.resize(round as usize, WeightsHash([0; 32]));
                self.taken.push(weights);
            }
            Effect::Settled { round, outcome } => {
                self.member.settle(round, outcome).expect("settled");
            }
            Effect::Blame(node, fault) => panic!("{node:?} did {fault:?}"),
            Effect::Finished => self.done = true,
            Effect::Reward(_) => {}
            other => unreachable!("{other:?}"),
        }
    }
}

fn open_depot(folder: &Path) -> Arc<Depot> {
    Arc::new(Depot::open(&folder.join("depot")).expect("opened"))
}

/// Goal: members that train apart come to the same weights, which are better than those before, with every way to write updates, whole or
/// in fragments, and when they train ahead.
#[test]
fn members_learn_together_and_hold_the_same_weights() {
    for network in [
        json!({"compressor": "f32"}),
        json!({"compressor": "bf16"}),
        json!({"compressor": "dense4"}),
        json!({"compressor": "sparse"}),
        json!({"compressor": "f32", "fragments": 2}),
        json!({"compressor": "bf16", "overlap": true}),
        json!({"compressor": "sparse", "fragments": 2, "overlap": true}),
    ] {
        let mut world = World::new(&network);
        world.tick();
        let before = world.nodes[0].member.validate().expect("a loss").expect("kept back");
        world.run();
        let last = world.nodes[0].taken.clone();
        assert_eq!(last.len() as u64, ROUNDS + 1);
        let mut losses = world.nodes.iter_mut().map(|node| {
            assert_eq!(node.taken.last(), last.last());
            assert_eq!(node.ahead > 0, network["overlap"] == true, "{network}");
            node.member.validate().expect("a loss").expect("kept back")
        });
        let after = losses.next().expect("three");
        assert!(losses.all(|loss| loss == after));
        assert!(after < before - 0.1, "{network}: {before} to {after}");
    }
}

fn with_kills(network: &Value, kills: &[usize]) -> World {
    let mut world = World::new(network);
    for _ in 0..kills.iter().max().map_or(0, |last| last + 1) {
        world.tick();
        let ticks = (world.now.0 / TICK_MS) as usize;
        if kills.contains(&ticks) {
            world.restart();
        }
    }
    world.run();
    world
}

/// Goal: after all were killed at any moment, the next rounds come to the same weights as if nothing had been.
#[test]
fn a_restart_of_all_members_changes_no_weights() {
    for network in
        [json!({"compressor": "sparse"}), json!({"compressor": "sparse", "fragments": 2})]
    {
        let taken = |kills: &[usize]| with_kills(&network, kills).nodes[0].taken.clone();
        let undisturbed = taken(&[]);
        for kill in 9..40 {
            assert_eq!(taken(&[kill, kill + 13]), undisturbed, "killed at tick {kill}: {network}");
        }
    }
}

/// Goal: what was trained ahead may be lost in a crash, and nothing else is.
#[test]
fn members_that_train_ahead_agree_after_a_restart() {
    let network = json!({"compressor": "sparse", "fragments": 2, "overlap": true});
    for kill in 9..40 {
        let world = with_kills(&network, &[kill, kill + 13]);
        let [first, others @ ..] = &world.nodes[..] else { panic!("three") };
        assert!(others.iter().all(|node| node.taken.last() == first.taken.last()), "{kill}");
    }
}

/// Goal: a version that is a mean is the same at all members, and none that they trained.
#[test]
fn members_share_the_mean_of_their_weights() {
    let network = json!({"compressor": "bf16"});
    let [plain, averaged] = [0, 8].map(|steps| {
        let mut world = World::averaging(&network, steps);
        world.run();
        let hashes: Vec<String> =
            world.nodes.iter().map(|node| node.member.weights_hash()).collect();
        assert!(hashes.iter().all(|hash| *hash == hashes[0]));
        hashes[0].clone()
    });
    assert_ne!(plain, averaged);
}

/// Goal: where a recipe came from is nobody's business, and a damaged one is refused.
#[test]
fn a_recipe_tells_names_and_no_places() {
    let world = World::new(&json!({}));
    let bytes = world.nodes[0].depot.read(&world.terms.recipe).expect("read").expect("here");
    let text = String::from_utf8(bytes).expect("JSON");
    assert!(text.contains("text.txt") && !text.contains('/'), "{text}");
    for (from, to) in [("\"version\":2", "\"version\":3"), ("\"steps\":20", "\"steps\":0")] {
        assert!(text.contains(from), "{text}");
        Recipe::read(text.replace(from, to).as_bytes()).expect_err(to);
    }
}
