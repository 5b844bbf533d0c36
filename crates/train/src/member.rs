//! One member's own work in a job that several train: its steps of a round, its update, and the merging of all.
//!
//! Does what a [`Rounds`](crate::round::Rounds) asks for by [`Train`], [`Merge`], [`Take`] and [`Settled`], one thing after the
//! other; when, and what of it is merged, is decided there. What others may ask for lies in the job's [`Depot`]. Its own state lies
//! beside it: what the inner optimiser remembers and what compression left out, as they stood after the last round that
//! this member offered something for. It is written before the offer is made. So a round that a crash cut off is trained again
//! from the same state, on the same samples, and comes to the same update.
//!
//! The learning rate follows the job's rounds and not the steps of one member, so that who joins late or is slow steps as far as
//! the others do.
//!
//! [`Train`]: crate::round::Effect::Train
//! [`Merge`]: crate::round::Effect::Merge
//! [`Take`]: crate::round::Effect::Take
//! [`Settled`]: crate::round::Effect::Settled

use crate::{
    Batch, Compressor, CourseError, Feedback, Job, Layout, Moments, Outer, Parameters, Part,
    Recipe, Said, Shared, StepReport, Trainer,
    assign::Assignment,
    checkpoint::{seal, split, unseal},
    data::Windows,
    depot::{Depot, Kind},
    files,
    job::NetworkPlan,
    material::{self, Material},
    round::{CATCH_UP_MAX, Decision, Outcome},
};
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use talka_base::{UpdateHash, WeightsHash};
use talka_engine::kernels::Kernels;

/// First bytes of the file of a member's own state; the last one is its version.
const MAGIC: [u8; 8] = *b"talka-m\x01";
const OWN: &str = "own";
/// Shared states that are kept, so that who joins gets one that was the last when it asked.
const STATES_KEPT: u64 = 3;

/// Held-out batches by which single updates are judged: enough to tell which of two helps more.
const JUDGING_BATCHES_MAX: usize = 2;

/// A member at work.
#[derive(Debug)]
pub struct Member {
    own_path: PathBuf,
    depot: Arc<Depot>,
    plan: NetworkPlan,
    outer: Outer,
    batch: u64,
    length: usize,
    material: Material,
    validation: Vec<Batch>,
    layout: Layout,
    trainer: Trainer,
    feedback: Feedback,
    shared: Shared,
    /// What the last merge gave.
    merged: Option<(WeightsHash, Shared)>,
    task: Option<Task>,
    offered: Option<Offered>,
}

/// A round that is trained.
#[derive(Debug, Clone, Copy)]
struct Task {
    round: u64,
    assignment: Assignment,
    samples: u64,
}

/// What a member learned in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// Which round.
    pub round: u64,
    /// How many samples it was trained on; none if nothing was learned.
    pub samples: u64,
    /// The update, which is in the depot if there are samples.
    pub update: UpdateHash,
    /// What became of it is known and heeded.
    is_settled: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnHeader {
    offered: Offered,
    updates: u64,
    /// Numbers of first and second moments, and of what compression left out.
    lengths: [u64; 3],
}

impl Member {
    /// A member of `job`, whose things are in `depot`, with its own state in `folder`. It holds no weights
    /// yet: [`Member::take`] gives it some.
    ///
    /// # Errors
    /// [`CourseError`] says which of the files cannot be used.
    ///
    /// # Panics
    /// If the job is not one for members.
    pub fn open(
        (recipe, job): (&Recipe, &Job),
        depot: Arc<Depot>,
        folder: &Path,
        kernels: Kernels,
    ) -> Result<Self, CourseError> {
        let plan = job.network.clone().expect("asked for jobs with [network] only");
        let material = recipe.material(job, &depot)?;
        let validation = material.validation(job)?;
        material.windows(job.length as usize)?;
        let config = job.train_config(recipe.vocab, recipe.steps);
        let parameters = Parameters::new(&config.model);
        let layout = parameters.layout();
        let nothing = vec![0.0; parameters.len()];
        let shared = Shared::new(nothing.clone());
        let mut member = Self {
            own_path: folder.join(OWN),
            depot,
            outer: plan.outer(plan.rounds(recipe.steps)),
            feedback: Feedback::new(parameters.len(), plan.feedback),
            plan,
            batch: job.batch.into(),
            length: job.length as usize,
            material,
            validation,
            layout,
            trainer: Trainer::new(config, nothing, kernels)?,
            shared,
            merged: None,
            task: None,
            offered: None,
        };
        if member.own_path.exists() {
            let (offered, moments, feedback) = member.read_own()?;
            member.trainer.set_moments(moments)?;
            (member.feedback, member.offered) = (feedback, Some(offered));
        }
        Ok(member)
    }

    fn read_own(&self) -> Result<(Offered, Moments<f32>, Feedback), CourseError> {
        let (header, numbers): (OwnHeader, _) = unseal(&MAGIC, &self.own_path)?;
        let parts = split(numbers, header.lengths);
        let [first, second, carried] = parts
            .filter(|[.., carried]| carried.len() == self.layout.len())
            .ok_or(CourseError::Changed { what: "the model" })?;
        let moments = Moments { updates: header.updates, first, second };
        Ok((header.offered, moments, Feedback::restore(carried, self.plan.feedback)))
    }

    fn write_own(
        &self,
        offered: Offered,
        moments: &Moments<f32>,
        feedback: &Feedback,
    ) -> Result<(), CourseError> {
        let parts = [&moments.first[..], &moments.second, feedback.carried()];
        let lengths = parts.map(|part| part.len() as u64);
        let header = OwnHeader { offered, updates: moments.updates, lengths };
        Ok(files::write(&self.own_path, &seal(&MAGIC, &header, &parts))?)
    }

    /// Weights of the model.
    pub const fn parameters(&self) -> usize {
        self.layout.len()
    }

    /// Tokens of the vocabulary.
    pub fn vocab(&self) -> u32 {
        self.trainer.config().model.vocab
    }

    /// How updates are written, and where tensors lie in them: what it takes to check one.
    pub fn form(&self) -> (Compressor, Layout) {
        (self.plan.compressor, self.layout.clone())
    }

    /// The step of the schedule at which `round` ends.
    pub fn step_of(&self, round: u64) -> u64 {
        round * u64::from(self.plan.steps_per_round)
    }

    /// Begins the round after the one whose state was taken last. Says what was learned if that is known: after a crash.
    ///
    /// # Errors
    /// The state does not fit the model.
    pub fn begin(
        &mut self,
        round: u64,
        assignment: Assignment,
    ) -> Result<Option<Offered>, CourseError> {
        if let Some(offered) = self.offered.filter(|offered| offered.round == round) {
            return Ok(Some(offered));
        }
        self.trainer.set_weights(self.shared.anchor())?;
        self.trainer.set_steps(self.step_of(round - 1));
        self.trainer.set_luck(assignment.seat);
        self.task = Some(Task { round, assignment, samples: 0 });
        Ok(None)
    }

    /// The round that is trained.
    pub fn training(&self) -> Option<u64> {
        self.task.map(|task| task.round)
    }

    /// The next step of the round that is trained; nothing if there is none, or all of what was assigned is done.
    ///
    /// # Errors
    /// Training has diverged.
    pub fn step(&mut self) -> Result<Option<StepReport>, CourseError> {
        let Some(task) = &mut self.task else { return Ok(None) };
        let places = task.samples..task.samples + self.batch;
        let places: Option<Vec<u64>> = places.map(|index| task.assignment.place(index)).collect();
        let Some(places) = places else { return Ok(None) };
        let windows = self.material.windows(self.length)?;
        let report = self.trainer.step(&batch(&windows, &places))?;
        task.samples += self.batch;
        Ok(Some(report))
    }

    /// Ends the round that is trained: makes the update, and all that the next round begins with, durable.
    ///
    /// # Errors
    /// They cannot be written, or what was learned are no numbers.
    pub fn finish(&mut self) -> Result<Option<Offered>, CourseError> {
        let Some(Task { round, samples, .. }) = self.task.take() else { return Ok(None) };
        let nothing = Offered { round, samples, update: UpdateHash([0; 32]), is_settled: true };
        if samples == 0 {
            return Ok(Some(nothing));
        }
        let weights = self.trainer.weights().iter();
        let learned: Vec<f32> =
            self.shared.anchor().iter().zip(weights).map(|(anchor, own)| anchor - own).collect();
        let bytes = self.feedback.send(self.plan.compressor, &self.layout, &learned)?;
        let update = UpdateHash(self.depot.put(Kind::Update(round), &bytes)?);
        let offered = Offered { round, samples, update, is_settled: false };
        self.write_own(offered, self.trainer.moments(), &self.feedback)?;
        self.offered = Some(offered);
        Ok(Some(offered))
    }

    /// Heeds what became of this member's update of `round`: one that counts later waits with what compression left out.
    ///
    /// # Errors
    /// The update is gone, or this member's state cannot be written.
    pub fn settle(&mut self, round: u64, outcome: Outcome) -> Result<(), CourseError> {
        let is_meant = |offered: &Offered| offered.round == round && !offered.is_settled;
        let Some(offered) = self.offered.filter(is_meant) else { return Ok(()) };
        let settled = Offered { is_settled: true, ..offered };
        // Moments as they stood: those of the trainer may be of a later round by now.
        let (_, moments, mut before) = self.read_own()?;
        if outcome == Outcome::Carried {
            let update = self.depot.read(&offered.update.0)?;
            let update = update.ok_or(CourseError::Gone { what: "this node's update", round })?;
            for feedback in [&mut self.feedback, &mut before] {
                feedback.take_back(self.plan.compressor, &self.layout, &update)?;
            }
        }
        self.write_own(settled, &moments, &before)?;
        self.offered = Some(settled);
        Ok(())
    }

    /// Merges a decision's updates, which are in the depot, onto the state taken last; keeps the result and says its hash.
    ///
    /// # Errors
    /// An update is gone or none, or the result cannot be written.
    pub fn merge(&mut self, decision: &Decision) -> Result<WeightsHash, CourseError> {
        let mut values = Vec::with_capacity(decision.parts.len());
        for part in &decision.parts {
            values.push(self.update(part.update, decision.round)?);
        }
        let tokens = |samples: u64| samples.saturating_mul(self.length as u64);
        let parts: Vec<_> = decision
            .parts
            .iter()
            .zip(&values)
            .map(|(part, values)| Part { values, tokens: tokens(part.samples) })
            .collect();
        let mut shared = self.shared.clone();
        if let Err(error) = shared.step(self.outer, self.plan.rule, Said::Learned, &parts) {
            // All members come to this, and go on with the weights before.
            debug_assert_eq!(shared, self.shared, "{error}");
        }
        let hash = WeightsHash(self.depot.put(Kind::State(decision.round), &shared.write())?);
        self.merged = Some((hash, shared));
        Ok(hash)
    }

    /// By how much each update of a decision alone lowers the loss of the state taken last on held-out data, in nats; nothing if no data are
    /// kept back, or not all of the updates are here. Not while a round is trained.
    ///
    /// # Errors
    /// An update is gone or none, or the model cannot be run.
    pub fn judge(&mut self, decision: &Decision) -> Result<Option<Vec<f64>>, CourseError> {
        let batches = &self.validation[..self.validation.len().min(JUDGING_BATCHES_MAX)];
        if batches.is_empty() || !decision.parts.iter().all(|part| self.depot.has(&part.update.0)) {
            return Ok(None);
        }
        self.trainer.set_weights(self.shared.anchor())?;
        let before = self.trainer.evaluate(batches)?;
        let mut lowered = Vec::with_capacity(decision.parts.len());
        for part in &decision.parts {
            let learned = self.update(part.update, decision.round)?;
            let weights = self.shared.anchor().iter().zip(&learned);
            let weights: Vec<f32> = weights.map(|(anchor, learned)| anchor - learned).collect();
            self.trainer.set_weights(&weights)?;
            lowered.push(before - self.trainer.evaluate(batches)?);
        }
        Ok(Some(lowered))
    }

    fn update(&self, update: UpdateHash, round: u64) -> Result<Vec<f32>, CourseError> {
        let bytes = self.depot.read(&update.0)?;
        let bytes = bytes.ok_or(CourseError::Gone { what: "an update", round })?;
        Ok(self.plan.compressor.read(&self.layout, &bytes)?)
    }

    /// Takes the state of `round`, which is in the depot, and forgets what nobody asks for any more.
    ///
    /// # Errors
    /// The state is gone or does not fit the model.
    pub fn take(&mut self, round: u64, weights: WeightsHash) -> Result<(), CourseError> {
        self.shared = match self.merged.take() {
            Some((hash, shared)) if hash == weights => shared,
            _ => {
                let state = self.depot.read(&weights.0)?;
                let state = state.ok_or(CourseError::Gone { what: "the shared state", round })?;
                Shared::read(self.layout.len(), &state)?
            }
        };
        let updates = round.saturating_sub(CATCH_UP_MAX as u64);
        Ok(self.depot.forget(round.saturating_sub(STATES_KEPT - 1), updates)?)
    }

    /// The mean loss of the shared weights over the validation data, if any were kept back. Not while a round is trained.
    ///
    /// # Errors
    /// The model cannot be run.
    pub fn validate(&mut self) -> Result<Option<f64>, CourseError> {
        if self.validation.is_empty() {
            return Ok(None);
        }
        self.trainer.set_weights(self.shared.anchor())?;
        Ok(Some(self.trainer.evaluate(&self.validation)?))
    }

    /// Writes the shared weights as a model into `folder`, which is there, in the layout that is served.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn publish(&self, folder: &Path) -> Result<(), CourseError> {
        self.material.publish(&self.trainer.config().model, self.shared.anchor(), folder)
    }

    /// The BLAKE3 digest of the shared weights, in hexadecimal.
    pub fn weights_hash(&self) -> String {
        material::hash_of(self.shared.anchor())
    }
}

fn batch(windows: &Windows<'_>, places: &[u64]) -> Batch {
    let tokens = places.iter().flat_map(|place| windows.at(*place)).copied().collect();
    Batch { tokens, rows: places.len() }
}
