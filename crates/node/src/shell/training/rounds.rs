//! Drives a node's part in the rounds of a job ([`Rounds`], which decides): a thread with the clock, the disk and the links, beside
//! the one that trains ([`super::worker`]).
//!
//! What the rounds want durable is on the disk before anything later is done. Long things go on beside them: training and
//! merging on the worker's thread, fetching in tasks.

use super::{
    End, Run,
    joint::{Heard, Joint},
    records::Records,
    wages::{Paid, Wages},
    worker::{Work, Worker},
};
use crate::{
    api::{RoundReport, RoundShare, RunState, TrainingError},
    core::faults::Fault,
    shell::{Shared, fetch::things::Wanted, now},
    wire::{
        Control,
        training::{Progress, TrainingMessage},
    },
};
use std::{
    sync::{
        Arc, Weak,
        atomic::Ordering,
        mpsc::{self, Sender},
    },
    thread,
    time::{Duration, Instant},
};
use talka_base::{ModelShape, NodeId, Tick, UpdateHash, WeightsHash};
use talka_engine::kernels::Kernels;
use talka_ledger::{
    Ledger,
    common_work::{bonus_for, training, with_bonus},
};
use talka_train::{
    Compressor, Fragments, Member, Recipe, Shared as SharedState,
    depot::Kind,
    recipe::{self, RECIPE_BYTES_MAX},
    round::{Decision, Effect, Found, Input, Message, Record, Rounds},
};
use tokio::{runtime::Handle, sync::mpsc as tasks, time::timeout};

/// How often rounds are told that time passed.
const AGAIN: Duration = Duration::from_millis(250);
/// How often others are told of the job.
const NOTICE: Duration = Duration::from_secs(2);
/// Between two attempts to fetch the same thing.
const RETRY: Duration = Duration::from_secs(2);
/// Who leaves says so for as long: a beat may be lost.
const LEAVING: Duration = Duration::from_millis(2500);

/// Takes part in `run`'s rounds until its owner stops it or the node stops; says how that was. A job that is done goes on being given to
/// whoever is late.
pub(super) fn drive(run: &Arc<Run>, shared: &Weak<Shared>, runtime: &Handle, kernels: Kernels) {
    let outcome = begin(run, shared, runtime, kernels);
    *run.joint() = None;
    match outcome {
        // It was given to others, and is as done as before.
        _ if run.state() == RunState::Done => {}
        outcome => run.ended(outcome),
    }
}

fn begin(
    run: &Arc<Run>,
    shared: &Weak<Shared>,
    runtime: &Handle,
    kernels: Kernels,
) -> Result<End, TrainingError> {
    let Some(me) = shared.upgrade().map(|shared| shared.me) else { return Ok(End::Halted) };
    let depot = run.folder.depot()?;
    let terms = match run.folder.terms() {
        Some(terms) => terms,
        None => {
            let file = run.live().file.job.clone();
            let terms = recipe::found(&run.job, &file, &run.folder.0, &depot, me)?;
            run.folder.keep_terms(&terms)?;
            terms
        }
    };
    let (joint, heard) = Joint::new(
        terms.clone(),
        Arc::clone(&depot),
        run.folder.rounds(),
        run.folder.member_points(),
    );
    let joint = Arc::new(joint);
    *run.joint() = Some(Arc::clone(&joint));
    let recipe = match fetch_all(run, &joint, shared, runtime)? {
        Fetched::Recipe(recipe) => recipe,
        Fetched::Cut(end) => return Ok(end),
    };
    let (records, kept) = Records::open(&run.folder.0)?;
    let held = kept.iter().rev().find_map(|record| match record {
        Record::Took(round, weights) => Some((*round, *weights)),
        _ => None,
    });
    let member = Member::open((&recipe, &run.job), depot, &run.folder.0, kernels)?;
    let step = held.map_or(0, |(round, _)| member.step_of(round));
    let points = run.folder.points_until(step)?;
    run.begun((step, recipe.steps), (member.parameters(), member.vocab()), points);
    let parameters = member.parameters();
    let (compressor, fragments) = member.form();
    let record = run.folder.record()?;
    let decided: Vec<(Decision, WeightsHash)> = kept
        .iter()
        .filter_map(|record| match record {
            Record::Decided(decision, weights) => Some((decision.clone(), *weights)),
            _ => None,
        })
        .collect();
    let rounds = Rounds::recover(me, terms.clone(), Tick(0), kept);
    let worker = Worker::new(Arc::clone(run), member, record, (me, terms.rounds), joint.speaker());
    let (work, asked) = mpsc::channel();
    let thread = thread::Builder::new().name("training".into());
    let thread = thread.spawn(move || worker.all(&asked)).expect("the system has threads");
    if let Some((round, weights)) = held {
        let _ = work.send(Work::Restore(round, weights));
    }
    let mut part = Part {
        run,
        shared,
        runtime,
        me,
        shape: run.job.model(recipe.vocab).shape(),
        joint,
        rounds,
        records,
        work,
        wages: Wages::pay(runtime, shared.clone(), run.folder.clone()),
        compressor,
        parameters,
        fragments,
        began: Instant::now(),
        leaving: None,
    };
    part.make_up(&decided)?;
    let end = part.all(heard, terms.founder == me && held.is_none());
    // The worker ends once nobody asks.
    drop(part);
    let _ = thread.join();
    end
}

/// What came of fetching.
enum Fetched {
    Recipe(Box<Recipe>),
    /// The job ended before all was here.
    Cut(End),
}

/// Brings the recipe and what it names.
fn fetch_all(
    run: &Run,
    joint: &Joint,
    shared: &Weak<Shared>,
    runtime: &Handle,
) -> Result<Fetched, TrainingError> {
    let bring = |hash, bytes_max| -> Result<Option<End>, TrainingError> {
        let wanted = Wanted {
            job: joint.job,
            hash,
            bytes_max,
            kind: Kind::Always,
            depot: Arc::clone(&joint.depot),
        };
        while !joint.depot.has(&hash) {
            if let Some(end) = run.due_end() {
                return Ok(Some(end));
            }
            let Some(shared) = shared.upgrade() else { return Ok(Some(End::Halted)) };
            let sources = shared.training.sources(joint.job);
            let (is_here, came) = runtime.block_on(wanted.bring(&shared, &sources))?;
            joint.received.fetch_add(came, Ordering::Relaxed);
            drop(shared);
            if !is_here {
                thread::sleep(AGAIN);
            }
        }
        Ok(None)
    };
    if let Some(end) = bring(joint.terms.recipe, RECIPE_BYTES_MAX)? {
        return Ok(Fetched::Cut(end));
    }
    let recipe = joint.depot.read(&joint.terms.recipe)?.unwrap_or_default();
    let (recipe, _) = Recipe::read(&recipe).map_err(talka_train::CourseError::from)?;
    for thing in recipe.things() {
        if let Some(end) = bring(thing.hash, thing.bytes)? {
            return Ok(Fetched::Cut(end));
        }
    }
    Ok(Fetched::Recipe(Box::new(recipe)))
}

/// A node's part.
struct Part<'a> {
    run: &'a Arc<Run>,
    shared: &'a Weak<Shared>,
    runtime: &'a Handle,
    me: NodeId,
    shape: ModelShape,
    joint: Arc<Joint>,
    rounds: Rounds,
    records: Records,
    work: Sender<Work>,
    wages: Wages,
    compressor: Compressor,
    /// Weights of the model.
    parameters: usize,
    fragments: Fragments,
    /// Rounds go by a clock that nobody sets.
    began: Instant,
    leaving: Option<Instant>,
}

impl Part<'_> {
    fn now(&self) -> Tick {
        Tick(self.began.elapsed().as_millis() as u64)
    }

    fn instant(&self, tick: Tick) -> Instant {
        self.began + Duration::from_millis(tick.0)
    }

    fn all(
        &mut self,
        mut heard: tasks::Receiver<Heard>,
        has_base: bool,
    ) -> Result<End, TrainingError> {
        if has_base {
            self.step(Input::Synced(self.joint.terms.base))?;
        }
        let (mut again, mut notice) = (Instant::now(), Instant::now());
        loop {
            let wait = again.saturating_duration_since(Instant::now());
            match self.runtime.block_on(async { timeout(wait, heard.recv()).await }) {
                Ok(Some(Heard::Message(from, message))) => {
                    self.step(Input::Message(from, *message))?;
                }
                Ok(Some(Heard::Input(input))) => self.step(input)?,
                Ok(Some(Heard::Progress(node, progress))) => self.progressed(node, progress),
                Ok(Some(Heard::Judged(decision, lowered))) => self.pay(&decision, lowered),
                Ok(Some(Heard::Failed(reason))) => return Err(TrainingError::Broken { reason }),
                Ok(None) => return Ok(End::Halted),
                Err(_) => {
                    again = Instant::now() + AGAIN;
                    self.step(Input::Again)?;
                }
            }
            if notice <= Instant::now() {
                notice = Instant::now() + NOTICE;
                self.publish(TrainingMessage::Open(vec![self.joint.notice(&self.run.name)]));
            }
            if let Some(end) = self.due_end()? {
                return Ok(end);
            }
        }
    }

    fn due_end(&mut self) -> Result<Option<End>, TrainingError> {
        let end = match self.run.due_end() {
            _ if self.shared.strong_count() == 0 => Some(End::Halted),
            Some(End::Deadline) if self.run.state() == RunState::Done => None,
            end => end,
        };
        let Some(end) = end else { return Ok(None) };
        match self.leaving {
            _ if end == End::Halted => Ok(Some(end)),
            None => {
                self.leaving = Some(Instant::now());
                self.step(Input::Leave)?;
                Ok(None)
            }
            Some(since) if since.elapsed() < LEAVING => Ok(None),
            Some(_) => Ok(Some(end)),
        }
    }

    fn step(&mut self, input: Input) -> Result<(), TrainingError> {
        let mut effects = Vec::new();
        self.rounds.step(self.now(), input, &mut effects);
        for effect in effects {
            self.perform(effect)?;
        }
        if self.records.is_long() {
            self.records.replace(&self.rounds.snapshot())?;
        }
        let mut standing = self.joint.standing();
        standing.leader = self.rounds.leader();
        standing.seats = self.rounds.decision().seats.iter().map(|seat| seat.node).collect();
        Ok(())
    }

    fn perform(&mut self, effect: Effect) -> Result<(), TrainingError> {
        match effect {
            Effect::Persist(record) => {
                self.records.add(&record)?;
                if let Record::Decided(decision, weights) = record {
                    self.decided(&decision, weights)?;
                }
            }
            Effect::Send(to, message) => self.send(to, message),
            Effect::Publish(message) => {
                self.publish(TrainingMessage::Round(self.joint.job, Box::new(message)));
            }
            Effect::Train { round, assignment, until } => {
                let until = self.instant(until);
                self.ask(Work::Train { round, assignment, until });
            }
            Effect::Merge(decision) => self.ask(Work::Merge(decision)),
            Effect::Take { round, weights } => self.ask(Work::Take(round, weights)),
            Effect::Settled { round, outcome } => self.ask(Work::Settle(round, outcome)),
            Effect::Fetch { round, update, from } => self.fetch(round, update, from),
            Effect::Sync { weights, from } => self.sync(weights, from),
            Effect::Blame(node, fault) => {
                tracing::warn!(job = self.run.name, peer = %node.short(), ?fault, "a member broke a rule");
                if let Some(shared) = self.shared.upgrade() {
                    shared.blame(node, Fault::Training);
                }
            }
            // The founder of the ledger pays when it hears of a decision; the end shows when its weights are taken.
            Effect::Reward(_) | Effect::Finished => {}
        }
        Ok(())
    }

    fn ask(&self, work: Work) {
        // A worker that failed said so.
        let _ = self.work.send(work);
    }

    fn send(&self, to: NodeId, message: Message) {
        let Some(shared) = self.shared.upgrade() else { return };
        let message = TrainingMessage::Round(self.joint.job, Box::new(message));
        let message = Control::Training(message);
        self.count(&message, 1);
        shared.links.send(to, &message);
    }

    fn publish(&self, message: TrainingMessage) {
        let Some(shared) = self.shared.upgrade() else { return };
        let message = Control::Training(message);
        self.count(&message, shared.links.count());
        shared.links.broadcast(&message);
    }

    fn count(&self, message: &Control, times: usize) {
        let bytes = message.to_bytes().len() * times;
        self.joint.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Notes how a member's part of a round went, and tells the others of this node's own.
    fn progressed(&self, node: NodeId, progress: Progress) {
        if let Some(point) = self.joint.progressed(node, progress)
            && let Err(error) = self.run.folder.add_member_point(&point)
        {
            tracing::warn!(job = self.run.name, %error, "a point of a member's curve is not kept");
        }
        if node == self.me {
            self.publish(TrainingMessage::Progress(self.joint.job, progress));
        }
    }

    /// Notes and pays for what was decided before a crash and not noted or not paid for. Before this node first pays, nothing is owed.
    fn make_up(&self, decided: &[(Decision, WeightsHash)]) -> Result<(), TrainingError> {
        let noted = self.joint.standing().rounds.last().map_or(0, |report| report.round);
        for (decision, weights) in decided.iter().filter(|(known, _)| known.round > noted) {
            self.note(decision, *weights)?;
        }
        let Some(shared) = self.shared.upgrade().filter(|_| self.pays()) else { return Ok(()) };
        let last = decided.last().map_or(0, |(decision, _)| decision.round);
        let until = match self.run.folder.paid() {
            Some(paid) => paid.until(shared.desk().read(Ledger::next_report)),
            None => {
                self.run.folder.keep_paid(Paid { round: last, report: 0 })?;
                last
            }
        };
        for (decision, _) in decided.iter().filter(|(known, _)| known.round > until) {
            self.pay(decision, None);
        }
        Ok(())
    }

    /// Whether this node orders the ledger, and pays for what it sees decided.
    fn pays(&self) -> bool {
        self.shared.upgrade().is_some_and(|shared| shared.desk().founder() == self.me)
    }

    fn note(&self, decision: &Decision, weights: WeightsHash) -> Result<(), TrainingError> {
        let shares = decision.parts.iter();
        let report = RoundReport {
            round: decision.round,
            at: now(),
            weights,
            parts: shares.map(|p| RoundShare { node: p.node, samples: p.samples }).collect(),
        };
        self.run.folder.add_round(&report)?;
        self.joint.standing().rounds.push(report);
        Ok(())
    }

    /// A round is decided: that is noted, and paid for where this node orders the ledger.
    fn decided(&self, decision: &Decision, weights: WeightsHash) -> Result<(), TrainingError> {
        self.note(decision, weights)?;
        if self.pays() && !decision.parts.is_empty() {
            // Before the weights change that they are judged from.
            self.ask(Work::Judge(decision.clone()));
        }
        Ok(())
    }

    /// Has the ledger pay for what a decision merged: by samples, and a little more for those that helped most.
    fn pay(&self, decision: &Decision, lowered: Option<Vec<i64>>) {
        if decision.parts.is_empty() {
            return;
        }
        let (length, batch) = (u64::from(self.run.job.length), u64::from(self.run.job.batch));
        let bonus = bonus_for(&lowered.unwrap_or_default());
        let bonus = bonus.into_iter().chain(std::iter::repeat(false));
        let tasks = decision.parts.iter().zip(bonus).map(|(part, is_better)| {
            let tokens = part.samples.saturating_mul(length);
            let tokens = if is_better { with_bonus(tokens) } else { tokens };
            let batches = u32::try_from(part.samples / batch).unwrap_or(u32::MAX);
            (part.node, training(&self.shape, tokens, batches, None))
        });
        self.wages.owe(decision.round, tasks.collect());
    }

    fn wanted(&self, hash: [u8; 32], bytes_max: u64, kind: Kind) -> Wanted {
        let depot = Arc::clone(&self.joint.depot);
        Wanted { job: self.joint.job, hash, bytes_max, kind, depot }
    }

    fn fetch(&self, round: u64, update: UpdateHash, from: Vec<NodeId>) {
        let (compressor, layout) = (self.compressor, self.fragments.of_round(round).layout.clone());
        let bytes = compressor.bytes(&layout) as u64;
        let wanted = self.wanted(update.0, bytes, Kind::Update(round));
        let (joint, shared) = (Arc::clone(&self.joint), self.shared.clone());
        self.runtime.spawn(async move {
            let Some(shared) = shared.upgrade() else { return };
            let came = wanted.bring(&shared, &from).await;
            joint.received.fetch_add(came.as_ref().map_or(0, |(_, came)| *came), Ordering::Relaxed);
            let depot = Arc::clone(&joint.depot);
            let check = move || match depot.read(&update.0) {
                Ok(Some(bytes)) if compressor.read(&layout, &bytes).is_ok() => Found::Good,
                Ok(Some(_)) => Found::Bad,
                _ => Found::Nothing,
            };
            let found = tokio::task::spawn_blocking(check).await.expect("reading does not panic");
            let _ = joint.speaker().send(Heard::Input(Input::Fetched { update, found })).await;
        });
    }

    /// Fetches weights, until they are here or others are wanted.
    fn sync(&self, weights: WeightsHash, from: Vec<NodeId>) {
        let len = self.parameters;
        let bytes_max = SharedState::bytes_max(len);
        let round = self.rounds.decision().round;
        let wanted = self.wanted(weights.0, bytes_max, Kind::State(round));
        self.joint.standing().wants = Some(weights);
        let (joint, weak) = (Arc::clone(&self.joint), self.shared.clone());
        self.runtime.spawn(async move {
            while let Some(shared) = weak.upgrade() {
                let mut sources = from.clone();
                sources.extend(shared.training.sources(joint.job));
                match wanted.bring(&shared, &sources).await {
                    Ok((is_here, came)) => {
                        joint.received.fetch_add(came, Ordering::Relaxed);
                        if is_here {
                            break;
                        }
                    }
                    Err(error) => tracing::warn!(%error, "weights are not kept"),
                }
                drop(shared);
                tokio::time::sleep(RETRY).await;
                if joint.standing().wants != Some(weights) {
                    return;
                }
            }
            let depot = Arc::clone(&joint.depot);
            let check = move || {
                let state = depot.read(&weights.0).ok().flatten()?;
                SharedState::read(len, &state).ok()
            };
            let read = tokio::task::spawn_blocking(check).await.expect("reading does not panic");
            if read.is_some() {
                let _ = joint.speaker().send(Heard::Input(Input::Synced(weights))).await;
            }
        });
    }
}
