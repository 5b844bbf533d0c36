//! A node of the world: its machine, its disk, and a model that learns.

use std::collections::{BTreeMap, BTreeSet};
use talka_base::{NodeId, Tick, UpdateHash, WeightsHash, rng::Rng};
use talka_train::{
    Compressor, Feedback, Layout, Outer, Part, Rule, Said, Shared,
    assign::{self, Assignment},
    round::{Decision, Outcome, Record, Rounds, Terms},
};

/// Samples of the data.
const SAMPLES: u64 = 5000;

/// How a node lies about what it learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    None,
    NaN,
    Short,
    Flipped,
}

pub struct Node {
    id: NodeId,
    /// How long one sample takes.
    pub sample_ms: u64,
    pub lie: Lie,
    pub machine: Option<Rounds>,
    pub life: u64,
    pub disk: Disk,
    pub wanted: Option<WeightsHash>,
    run: Option<Run>,
}

/// What survives a crash.
#[derive(Default)]
pub struct Disk {
    pub records: Vec<Record>,
    pub states: BTreeMap<WeightsHash, Shared>,
    pub taken: Option<WeightsHash>,
    pub updates: BTreeMap<UpdateHash, Vec<u8>>,
    /// After the training of each round: what is carried, and what was sent.
    private: BTreeMap<u64, (Feedback, Vec<u8>)>,
    settled: BTreeSet<u64>,
}

impl Disk {
    pub fn keep_state(&mut self, state: &Shared) -> WeightsHash {
        let hash = state.hash();
        self.states.insert(hash, state.clone());
        hash
    }

    pub fn take(&mut self, weights: WeightsHash) {
        assert!(self.states.contains_key(&weights), "a shell takes only what is here");
        self.taken = Some(weights);
    }

    fn anchor(&self) -> &Shared {
        &self.states[&self.taken.expect("weights are taken before they are used")]
    }
}

struct Run {
    round: u64,
    assignment: Assignment,
    began: u64,
}

/// What training came to.
pub struct Done {
    pub round: u64,
    pub places: Vec<u64>,
    pub update: UpdateHash,
}

impl Node {
    pub fn new(id: NodeId, sample_ms: u64) -> Self {
        let (machine, run, wanted) = (None, None, None);
        Self { id, sample_ms, lie: Lie::None, machine, life: 0, disk: Disk::default(), wanted, run }
    }

    pub const fn is_up(&self) -> bool {
        self.machine.is_some()
    }

    /// Whether it was down.
    pub fn start(&mut self, terms: Terms, now: Tick) -> bool {
        let was_down = !self.is_up();
        if was_down {
            self.life += 1;
            let records = self.disk.records.clone();
            self.machine = Some(Rounds::recover(self.id, terms, now, records));
        }
        was_down
    }

    pub fn kill(&mut self) {
        (self.machine, self.run, self.wanted) = (None, None, None);
    }

    pub fn finished(&self, rounds: u64) -> bool {
        let is_last = |machine: &Rounds| {
            machine.decision().round == rounds && self.disk.taken == Some(machine.weights())
        };
        self.machine.as_ref().is_some_and(is_last)
    }

    /// Says when it will be done.
    pub fn train(&mut self, round: u64, assignment: Assignment, now: u64, until: u64) -> u64 {
        self.run = Some(Run { round, assignment, began: now });
        until.min(now + assignment.quota * self.sample_ms)
    }

    pub fn end_training(
        &mut self,
        now: u64,
        round: Option<u64>,
        layout: &Layout,
        compressor: Compressor,
    ) -> Option<Done> {
        let run = self.run.take_if(|run| round.is_none_or(|round| round == run.round))?;
        let samples = ((now - run.began) / self.sample_ms).min(run.assignment.quota);
        let places: Vec<u64> = (0..samples).map_while(|n| run.assignment.place(n)).collect();
        let mut learned = learned(self.disk.anchor().anchor(), &places);
        if self.lie == Lie::Flipped {
            learned.iter_mut().for_each(|value| *value = -*value);
        }
        let mut feedback = self.feedback(run.round, layout.len());
        let mut bytes = feedback.send(compressor, layout, &learned).expect("finite");
        match self.lie {
            Lie::NaN => bytes[16..20].copy_from_slice(&f32::NAN.to_le_bytes()),
            Lie::Short => bytes.truncate(bytes.len() / 2),
            Lie::None | Lie::Flipped => {}
        }
        let update = UpdateHash(*blake3::hash(&bytes).as_bytes());
        if samples > 0 {
            self.disk.private.insert(run.round, (feedback, bytes.clone()));
            self.disk.settled.remove(&run.round);
            self.disk.updates.insert(update, bytes);
        }
        Some(Done { round: run.round, places, update })
    }

    /// What is carried into a round.
    fn feedback(&self, round: u64, len: usize) -> Feedback {
        let before = self.disk.private.range(..round).next_back();
        before.map_or_else(
            || Feedback::new(len, Feedback::DECAY),
            |(_, (feedback, _))| feedback.clone(),
        )
    }

    pub fn settle(
        &mut self,
        round: u64,
        outcome: Outcome,
        layout: &Layout,
        compressor: Compressor,
    ) {
        if outcome == Outcome::Carried
            && self.disk.settled.insert(round)
            && let Some((feedback, bytes)) = self.disk.private.get_mut(&round)
        {
            // A liar's bytes are nothing that could be carried.
            let _ = feedback.take_back(compressor, layout, bytes);
        }
    }

    pub fn merge(
        &mut self,
        decision: &Decision,
        layout: &Layout,
        compressor: Compressor,
    ) -> WeightsHash {
        let read = |update: &UpdateHash| {
            compressor.read(layout, &self.disk.updates[update]).expect("checked when fetched")
        };
        let values: Vec<_> = decision.parts.iter().map(|part| read(&part.update)).collect();
        let parts = decision.parts.iter().zip(&values);
        let parts: Vec<_> =
            parts.map(|(part, values)| Part { values, tokens: part.samples }).collect();
        let mut state = self.disk.anchor().clone();
        state.step(Outer::AVERAGE, Rule::MEAN, Said::Learned, &parts).expect("merges");
        self.disk.keep_state(&state)
    }

    /// How far the weights taken are from what samples teach.
    pub fn loss(&self) -> f32 {
        let weights = self.disk.anchor().anchor();
        let squares = weights.iter().enumerate().map(|(at, w)| (w - target(at)).powi(2));
        squares.sum::<f32>() / weights.len() as f32
    }
}

fn target(at: usize) -> f32 {
    ((at * 7919) % 1000) as f32 / 500.0 - 1.0
}

/// The anchor minus the weights after these samples: each pulls towards the target, and a little astray.
fn learned(anchor: &[f32], places: &[u64]) -> Vec<f32> {
    let mut weights = anchor.to_vec();
    for &place in places {
        let mut astray = Rng::new(assign::sample(3, SAMPLES, place));
        for (at, weight) in weights.iter_mut().enumerate() {
            let noise = astray.below(1000) as f32 / 500.0 - 1.0;
            *weight += 0.01 * (target(at) + 0.3 * noise - *weight);
        }
    }
    anchor.iter().zip(weights).map(|(anchor, weight)| anchor - weight).collect()
}
