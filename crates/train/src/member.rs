//! One member's own work in a job that several train: its steps of a round, its update, and the merging of all.
//!
//! Does what a [`Rounds`](crate::round::Rounds) asks for by [`Train`], [`Merge`], [`Take`] and [`Settled`], one thing after the
//! other; when, and what of it is merged, is decided there. What others may ask for lies in the job's [`Depot`]. Its own state lies
//! beside it: what the inner optimiser remembers and what compression left out, as they stood after the last round that
//! this member offered something for. It is written before the offer is made. So a round that a crash cut off is trained again
//! from the same state, on the same samples, and comes to the same update.
//!
//! With several [fragments](crate::fragment) a round exchanges one of them, and the others go on from this member's own weights, which
//! are then a part of its own state.
//!
//! A member may train *ahead*: while a round's updates are exchanged it goes on, from what they would give if there were its own alone, with
//! what it would be assigned next if nobody comes or goes. Once the merged weights are here, what it learned since is added to them (as the eager updates of
//! Kale et al. 2025 do). If things came otherwise that work is lost, as it is in a crash; so only without training ahead does a
//! restart come to the same updates.
//!
//! The learning rate follows the job's rounds and not the steps of one member, so that who joins late or is slow steps as far as
//! the others do.
//!
//! [`Train`]: crate::round::Effect::Train
//! [`Merge`]: crate::round::Effect::Merge
//! [`Take`]: crate::round::Effect::Take
//! [`Settled`]: crate::round::Effect::Settled

use crate::{
    Batch, Compressor, CourseError, Feedback, Fragment, Fragments, Job, Moments, Outer, Parameters,
    Part, Recipe, Said, Shared, StepReport, Trainer,
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
const MAGIC: [u8; 8] = *b"talka-m\x02";
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
    average_steps: u64,
    material: Material,
    validation: Vec<Batch>,
    rounds: u64,
    fragments: Fragments,
    trainer: Trainer,
    /// Of each fragment.
    feedback: Vec<Feedback>,
    /// This member's own weights, with fragments that were merged since; empty unless there are several, or before the first round.
    own: Vec<f32>,
    shared: Shared,
    /// What the last merge gave.
    merged: Option<(WeightsHash, Shared)>,
    task: Option<Task>,
    ahead: Option<Ahead>,
    offered: Option<Offered>,
}

/// Training for the round after the one whose updates are exchanged.
#[derive(Debug)]
struct Ahead {
    task: Task,
    /// The weights that it began with.
    from: Vec<f32>,
}

/// How a round begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// With nothing done yet.
    Anew,
    /// With the steps that were trained ahead.
    Ahead,
    /// It was done before a crash, and this was learned.
    Done(Offered),
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

/// A member's own state after a round.
struct Own {
    offered: Offered,
    moments: Moments<f32>,
    feedback: Vec<Feedback>,
    weights: Vec<f32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnHeader {
    offered: Offered,
    updates: u64,
    /// Numbers of first and second moments, of what compression left out fragment by fragment, and of own weights.
    lengths: [u64; 4],
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
        let fragments = Fragments::of(&parameters, plan.fragments.into());
        let nothing = vec![0.0; parameters.len()];
        let shared = Shared::new(nothing.clone());
        let mut member = Self {
            own_path: folder.join(OWN),
            depot,
            outer: plan.outer(plan.rounds(recipe.steps)),
            rounds: plan.rounds(recipe.steps),
            feedback: feedback_of(nothing.clone(), &fragments, plan.feedback),
            fragments,
            plan,
            batch: job.batch.into(),
            length: job.length as usize,
            average_steps: job.average_steps,
            material,
            validation,
            trainer: Trainer::new(config, nothing, kernels)?,
            own: Vec::new(),
            shared,
            merged: None,
            task: None,
            ahead: None,
            offered: None,
        };
        if member.own_path.exists() {
            let own = member.read_own()?;
            member.trainer.set_moments(own.moments)?;
            (member.feedback, member.own) = (own.feedback, own.weights);
            member.offered = Some(own.offered);
        }
        Ok(member)
    }

    fn read_own(&self) -> Result<Own, CourseError> {
        let (header, numbers): (OwnHeader, _) = unseal(&MAGIC, &self.own_path)?;
        let parts = split(numbers, header.lengths);
        let len = self.parameters();
        let [first, second, carried, weights] = parts
            .filter(|[.., carried, own]| carried.len() == len && [0, len].contains(&own.len()))
            .ok_or(CourseError::Changed { what: "the model" })?;
        let moments = Moments { updates: header.updates, first, second };
        let feedback = feedback_of(carried, &self.fragments, self.plan.feedback);
        Ok(Own { offered: header.offered, moments, feedback, weights })
    }

    fn write_own(
        &self,
        offered: Offered,
        moments: &Moments<f32>,
        feedback: &[Feedback],
        weights: &[f32],
    ) -> Result<(), CourseError> {
        let carried = feedback.iter().map(Feedback::carried);
        let carried_len = carried.clone().map(<[f32]>::len).sum();
        let lengths = [moments.first.len(), moments.second.len(), carried_len, weights.len()];
        let lengths = lengths.map(|len| len as u64);
        let header = OwnHeader { offered, updates: moments.updates, lengths };
        let mut parts = vec![&moments.first[..], &moments.second];
        parts.extend(carried);
        parts.push(weights);
        Ok(files::write(&self.own_path, &seal(&MAGIC, &header, &parts))?)
    }

    /// Weights of the model.
    pub fn parameters(&self) -> usize {
        self.shared.anchor().len()
    }

    /// Tokens of the vocabulary.
    pub fn vocab(&self) -> u32 {
        self.trainer.config().model.vocab
    }

    /// How updates are written, and of which parts of the model: what it takes to check one.
    pub fn form(&self) -> (Compressor, Fragments) {
        (self.plan.compressor, self.fragments.clone())
    }

    /// The step of the schedule at which `round` ends.
    pub fn step_of(&self, round: u64) -> u64 {
        round * u64::from(self.plan.steps_per_round)
    }

    /// Begins the round after the one whose state was taken last.
    ///
    /// # Errors
    /// The state does not fit the model.
    pub fn begin(&mut self, round: u64, assignment: Assignment) -> Result<Begun, CourseError> {
        let ahead = self.ahead.take();
        if let Some(offered) = self.offered.filter(|offered| offered.round == round) {
            return Ok(Begun::Done(offered));
        }
        let start = if self.own.is_empty() { self.shared.anchor() } else { &self.own };
        if let Some(Ahead { task, from }) = ahead {
            if (task.round, task.assignment) == (round, assignment) {
                let learned = self.trainer.weights().iter().zip(&from);
                let weights = start.iter().zip(learned);
                let weights: Vec<f32> =
                    weights.map(|(start, (now, from))| start + (now - from)).collect();
                self.trainer.set_weights(&weights)?;
                self.task = Some(task);
                return Ok(Begun::Ahead);
            }
            // As if it had not been.
            self.trainer.set_moments(self.read_own()?.moments)?;
        }
        self.trainer.set_weights(start)?;
        self.go_on_at(round, assignment);
        self.task = Some(Task { round, assignment, samples: 0 });
        Ok(Begun::Anew)
    }

    fn go_on_at(&mut self, round: u64, assignment: Assignment) {
        self.trainer.set_steps(self.step_of(round - 1));
        self.trainer.set_luck(assignment.seat);
    }

    /// The round under way that is trained.
    pub fn training(&self) -> Option<u64> {
        self.task.map(|task| task.round)
    }

    /// The round that the next step is for: the one under way, or the one after it where there are steps to train ahead.
    pub fn next(&self) -> Option<u64> {
        let has_more = |ahead: &Ahead| ahead.task.samples < ahead.task.assignment.quota;
        let ahead = || self.ahead.as_ref().filter(|ahead| has_more(ahead));
        self.training().or_else(|| ahead().map(|ahead| ahead.task.round))
    }

    /// A step of the round that is trained; nothing if there is none, or all of what was assigned is done.
    ///
    /// # Errors
    /// Training has diverged.
    pub fn step(&mut self) -> Result<Option<StepReport>, CourseError> {
        let ahead = self.ahead.as_mut().map(|ahead| &mut ahead.task);
        let Some(task) = self.task.as_mut().or(ahead) else { return Ok(None) };
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
        let Some(Task { round, samples, assignment }) = self.task.take() else { return Ok(None) };
        let nothing = Offered { round, samples, update: UpdateHash([0; 32]), is_settled: true };
        if samples == 0 {
            return Ok(Some(nothing));
        }
        let fragment = self.fragments.of_round(round);
        let weights = self.trainer.weights();
        let [anchor, own] = [self.shared.anchor(), weights].map(|whole| fragment.gather(whole));
        let learned: Vec<f32> = anchor.iter().zip(&own).map(|(anchor, own)| anchor - own).collect();
        let feedback = &mut self.feedback[self.fragments.number(round)];
        let bytes = feedback.send(self.plan.compressor, &fragment.layout, &learned)?;
        let update = UpdateHash(self.depot.put(Kind::Update(round), &bytes)?);
        let offered = Offered { round, samples, update, is_settled: false };
        let mut next = Vec::new();
        if self.fragments.count() > 1 || self.plan.overlap {
            // As if this member's update alone were merged: nearer to what will be than its own weights, which have what was left out.
            let sent = self.plan.compressor.read(&fragment.layout, &bytes)?;
            let merged = anchor.iter().zip(&sent).map(|(anchor, sent)| anchor - sent);
            next = weights.to_vec();
            fragment.scatter(&merged.collect::<Vec<_>>(), &mut next);
        }
        if self.fragments.count() > 1 {
            self.own.clone_from(&next);
        }
        self.write_own(offered, self.trainer.moments(), &self.feedback, &self.own)?;
        self.offered = Some(offered);
        if self.plan.overlap && round < self.rounds {
            self.trainer.set_weights(&next)?;
            let assignment = Assignment { base: assignment.end(), ..assignment };
            self.go_on_at(round + 1, assignment);
            let task = Task { round: round + 1, assignment, samples: 0 };
            self.ahead = Some(Ahead { task, from: next });
        }
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
        // As it stood: what the trainer has may be of a later round by now.
        let mut own = self.read_own()?;
        if outcome == Outcome::Carried {
            let update = self.depot.read(&offered.update.0)?;
            let update = update.ok_or(CourseError::Gone { what: "this node's update", round })?;
            let (fragment, number) = (self.fragments.of_round(round), self.fragments.number(round));
            for feedback in [&mut self.feedback[number], &mut own.feedback[number]] {
                feedback.take_back(self.plan.compressor, &fragment.layout, &update)?;
            }
        }
        self.write_own(settled, &own.moments, &own.feedback, &own.weights)?;
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
        let fragment = self.fragments.of_round(decision.round);
        let mut part = shared.gather(fragment);
        // One that gives no finite weights changes nothing: all members come to this, and go on with the weights before.
        if part.step(self.outer, self.plan.rule, Said::Learned, &parts).is_ok() {
            shared.scatter(fragment, &part);
            if self.average_steps > 0 {
                let steps = self.plan.steps_per_round.into();
                shared.average(decision.round, steps, self.average_steps);
            }
        }
        let hash = WeightsHash(self.depot.put(Kind::State(decision.round), &shared.write())?);
        self.merged = Some((hash, shared));
        Ok(hash)
    }

    /// By how much each update of a decision alone lowers the loss of the state taken last on held-out data, in nats; nothing if no data are
    /// kept back, or not all of the updates are here.
    ///
    /// # Errors
    /// An update is gone or none, or the model cannot be run.
    pub fn judge(&self, decision: &Decision) -> Result<Option<Vec<f64>>, CourseError> {
        let batches = &self.validation[..self.validation.len().min(JUDGING_BATCHES_MAX)];
        if batches.is_empty() || !decision.parts.iter().all(|part| self.depot.has(&part.update.0)) {
            return Ok(None);
        }
        let before = self.trainer.evaluate_at(self.shared.anchor(), batches)?;
        let fragment = self.fragments.of_round(decision.round);
        let anchor = fragment.gather(self.shared.anchor());
        let mut weights = self.shared.anchor().to_vec();
        let mut lowered = Vec::with_capacity(decision.parts.len());
        for part in &decision.parts {
            let learned = self.update(part.update, decision.round)?;
            let alone = anchor.iter().zip(&learned).map(|(anchor, learned)| anchor - learned);
            fragment.scatter(&alone.collect::<Vec<_>>(), &mut weights);
            lowered.push(before - self.trainer.evaluate_at(&weights, batches)?);
        }
        Ok(Some(lowered))
    }

    fn update(&self, update: UpdateHash, round: u64) -> Result<Vec<f32>, CourseError> {
        let bytes = self.depot.read(&update.0)?;
        let bytes = bytes.ok_or(CourseError::Gone { what: "an update", round })?;
        Ok(self.plan.compressor.read(&self.fragments.of_round(round).layout, &bytes)?)
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
                Shared::read(self.parameters(), &state)?
            }
        };
        if !self.own.is_empty() {
            // Those merged since this member's own weights; of many rounds the last ones have all fragments.
            let since = self.offered.map_or(1, |offered| offered.round);
            for round in since.max((round + 1).saturating_sub(self.fragments.count()))..=round {
                self.fragments.of_round(round).copy(self.shared.anchor(), &mut self.own);
            }
        }
        let updates = round.saturating_sub(CATCH_UP_MAX as u64);
        Ok(self.depot.forget(round.saturating_sub(STATES_KEPT - 1), updates)?)
    }

    /// The mean loss of what a version would be now over the validation data, if any were kept back.
    ///
    /// # Errors
    /// The model cannot be run.
    pub fn validate(&self) -> Result<Option<f64>, CourseError> {
        if self.validation.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.trainer.evaluate_at(self.shared.served(), &self.validation)?))
    }

    /// Writes what the members share as a model into `folder`, which is there, in the layout that is served.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn publish(&self, folder: &Path) -> Result<(), CourseError> {
        self.material.publish(&self.trainer.config().model, self.shared.served(), folder)
    }

    /// The BLAKE3 digest of what a version would be now, in hexadecimal.
    pub fn weights_hash(&self) -> String {
        material::hash_of(self.shared.served())
    }
}

/// What compression left out of each fragment, from all of it one after the other.
fn feedback_of(carried: Vec<f32>, fragments: &Fragments, decay: f32) -> Vec<Feedback> {
    let mut carried = carried.into_iter();
    let mut of = |fragment: &Fragment| {
        Feedback::restore(carried.by_ref().take(fragment.layout.len()).collect(), decay)
    };
    (0..fragments.count()).map(|round| of(fragments.of_round(round))).collect()
}

fn batch(windows: &Windows<'_>, places: &[u64]) -> Batch {
    let tokens = places.iter().flat_map(|place| windows.at(*place)).copied().collect();
    Batch { tokens, rows: places.len() }
}
