//! Training jobs of this node: taken in, driven by a thread of their own, kept over restarts, and served.
//!
//! One job at a time, with a share of the threads that leaves some to answers. `folder` is what stands on the disk, `drive`
//! the thread of a job that this node trains alone. One that several members train has two, `rounds` and `worker`; `notices` are
//! jobs of others, `joining` how this node comes to take part.
//! A version is a model like any other: it is served under a name with its step, and the job's own name means
//! the version that was promoted last.

mod drive;
mod folder;
mod joining;
mod joint;
mod notices;
mod records;
mod rounds;
mod serving;
mod wages;
mod worker;

pub(crate) use joining::{estimate_join, join};
pub(super) use serving::promoted;

use super::{Shared, models::Models, now};
use crate::api::{
    Api, EstimateReport, RunDetail, RunPoint, RunReport, RunState, TogetherReport, TrainingError,
    VersionReport,
};
use folder::{RunFile, RunFolder};
use joint::Joint;
use notices::Notices;
use serde_json::Value;
use serving::Serving;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use sysinfo::{MemoryRefreshKind, RefreshKind, System};
use talka_base::{Credits, NodeId, Tick};
use talka_engine::{
    ModelSource,
    kernels::{Kernels, ThreadPool},
};
use talka_ledger::{Ledger, common_work};
use talka_train::{CourseError, Job, JobError, JobFile, Parameters, Survey, Trial, round::Terms};
use tokio::{runtime::Handle, task::spawn_blocking};

/// Of so many threads one is left to answers, and at least one trains.
const THREADS_PER_ANSWERING: usize = 4;

/// How long a node that stops waits for training to keep where it is.
const HALTING_MAX: Duration = Duration::from_secs(10);

/// What requests call the model of a job after `step`.
fn model_name(job: &str, step: u64) -> String {
    format!("{job}-v{step}")
}

/// All jobs of a node.
pub(crate) struct Training {
    folder: PathBuf,
    serving: Arc<Serving>,
    runs: Mutex<BTreeMap<String, Arc<Run>>>,
    /// What trains now, and what was trained by several and is still given to others.
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Jobs of others.
    notices: Notices,
}

/// One job.
struct Run {
    name: String,
    job: Job,
    folder: RunFolder,
    serving: Arc<Serving>,
    /// Its owner wants it to end.
    stopped: AtomicBool,
    /// The node is stopping.
    halted: AtomicBool,
    live: Mutex<Live>,
    /// As long as it takes part in rounds.
    joint: Mutex<Option<Arc<Joint>>>,
}

/// How the thread of a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// All steps are done.
    Done,
    /// The owner stopped it.
    Stopped,
    /// The deadline came.
    Deadline,
    /// The node is stopping: the job goes on when it starts again.
    Halted,
}

/// How a job stands.
struct Live {
    file: RunFile,
    step: u64,
    steps: u64,
    parameters: u64,
    vocab: u32,
    points: Vec<RunPoint>,
    versions: Vec<VersionReport>,
}

impl Training {
    /// The jobs in the data directory. Nothing goes on yet.
    pub(crate) fn open(data_dir: &Path) -> Self {
        let folder = data_dir.join("training");
        let serving = Arc::new(Serving::open(&folder));
        let folders = fs::read_dir(&folder).into_iter().flatten().flatten();
        let runs = folders.filter_map(|entry| {
            let folder = RunFolder(entry.path());
            let file = folder.run()?;
            let name = entry.file_name().into_string().ok()?;
            let job = Job::try_from(file.job.clone()).ok().filter(|job| job.name == name)?;
            Some((name, Arc::new(Run::new(job, folder, file, &serving))))
        });
        let runs = Mutex::new(runs.collect());
        Self { folder, serving, runs, threads: Mutex::default(), notices: Notices::default() }
    }

    /// Goes on with what was trained when the node stopped.
    pub(crate) fn resume(&self, shared: &Arc<Shared>) {
        let run = self.lock().values().find(|run| run.state().is_under_way()).cloned();
        if let Some(run) = run {
            self.lock_threads().push(start(run, shared));
        }
    }

    /// Has what is trained keep where it is, and waits for that a while: a step, most often.
    pub(crate) fn halt(&self) {
        self.lock().values().for_each(|run| run.halted.store(true, Ordering::Relaxed));
        let threads = std::mem::take(&mut *self.lock_threads());
        let began = Instant::now();
        while !threads.iter().all(JoinHandle::is_finished) && began.elapsed() < HALTING_MAX {
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn lock_threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All jobs, the latest first.
    pub(crate) fn reports(&self, names: &Names) -> Vec<RunReport> {
        let mut all: Vec<_> = self.lock().values().map(|run| run.report(names)).collect();
        all.sort_by_key(|run| std::cmp::Reverse(run.submitted_at));
        all
    }

    pub(crate) fn detail(&self, name: &str, names: &Names) -> Result<RunDetail, TrainingError> {
        let run = self.find(name)?;
        let (job, points) = {
            let live = run.live();
            (live.file.job.clone(), live.points.clone())
        };
        let joint = run.joint().clone();
        let (rounds, member_points) = match joint {
            Some(joint) => {
                let standing = joint.standing();
                (standing.rounds.clone(), standing.points.clone())
            }
            None => (run.folder.rounds(), run.folder.member_points()),
        };
        Ok(RunDetail { run: run.report(names), job, points, rounds, member_points })
    }

    pub(crate) fn stop(&self, name: &str, names: &Names) -> Result<RunReport, TrainingError> {
        let run = self.find(name)?;
        if !run.state().is_under_way() {
            return Err(TrainingError::NotRunning { name: name.into() });
        }
        run.stopped.store(true, Ordering::Relaxed);
        Ok(run.report(names))
    }

    pub(crate) fn served_before(&self, name: &str) -> Result<u64, TrainingError> {
        self.find(name)?;
        let nothing = || TrainingError::NothingBefore { name: name.into() };
        self.serving.of(name).and_then(|served| served.before).ok_or_else(nothing)
    }

    fn find(&self, name: &str) -> Result<Arc<Run>, TrainingError> {
        let runs = self.lock();
        runs.get(name).cloned().ok_or_else(|| TrainingError::NoRun {
            found: name.into(),
            known: runs.keys().cloned().collect(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Run>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `job` may be begun, or be gone on with.
    fn check(&self, job: &Job) -> Result<(), TrainingError> {
        let runs = self.lock();
        if let Some(other) =
            runs.values().find(|run| run.state().is_under_way() && run.name != job.name)
        {
            return Err(TrainingError::Busy { running: other.name.clone() });
        }
        match runs.get(&job.name) {
            Some(run) if run.job != *job => Err(TrainingError::Differs { name: job.name.clone() }),
            _ => Ok(()),
        }
    }

    /// Takes a job in that may be begun, and starts it unless it runs or is done. `terms` are those of one that others train.
    fn begin(
        &self,
        shared: &Arc<Shared>,
        job: Job,
        file: JobFile,
        terms: Option<&Terms>,
    ) -> Result<RunReport, TrainingError> {
        // Held to the end, so that two callers at once begin one job.
        let mut threads = self.lock_threads();
        threads.retain(|thread| !thread.is_finished());
        self.check(&job)?;
        let run = self.lock().get(&job.name).cloned();
        let run = match run {
            Some(run) => run,
            None => self.create(job, file, terms)?,
        };
        run.stopped.store(false, Ordering::Relaxed);
        if !run.state().is_under_way() && run.state() != RunState::Done {
            run.keep(RunState::Preparing, None)?;
            threads.push(start(Arc::clone(&run), shared));
        }
        Ok(run.report(&names(shared)))
    }

    fn create(
        &self,
        job: Job,
        file: JobFile,
        terms: Option<&Terms>,
    ) -> Result<Arc<Run>, TrainingError> {
        let folder = RunFolder(self.folder.join(&job.name));
        folder.create()?;
        if let Some(terms) = terms {
            folder.keep_terms(terms)?;
        }
        let file =
            RunFile { job: file, state: RunState::Stopped, reason: None, submitted_at: now() };
        folder.keep_run(&file)?;
        let run = Arc::new(Run::new(job, folder, file, &self.serving));
        self.lock().insert(run.name.clone(), Arc::clone(&run));
        Ok(run)
    }
}

impl Run {
    fn new(job: Job, folder: RunFolder, file: RunFile, serving: &Arc<Serving>) -> Self {
        let (points, versions) = (folder.points(), folder.all_versions());
        let step = versions.first().map_or(0, |version| version.step);
        // Of one that goes on, that is known once its data are read.
        let steps = if file.state == RunState::Done { step } else { 0 };
        let live = Live { file, step, steps, parameters: 0, vocab: 0, points, versions };
        Self {
            name: job.name.clone(),
            job,
            folder,
            serving: Arc::clone(serving),
            stopped: AtomicBool::new(false),
            halted: AtomicBool::new(false),
            live: Mutex::new(live),
            joint: Mutex::default(),
        }
    }

    fn joint(&self) -> MutexGuard<'_, Option<Arc<Joint>>> {
        self.joint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether members train it together.
    const fn is_joint(&self) -> bool {
        self.job.network.is_some()
    }

    /// Why it has to end now, if it has to.
    fn due_end(&self) -> Option<End> {
        if self.halted.load(Ordering::Relaxed) {
            return Some(End::Halted);
        }
        if self.stopped.load(Ordering::Relaxed) {
            return Some(End::Stopped);
        }
        self.job.deadline_ms.filter(|deadline| now() >= Tick(*deadline)).map(|_| End::Deadline)
    }

    /// Keeps how its thread ended.
    fn ended(&self, outcome: Result<End, TrainingError>) {
        let (state, reason) = match outcome {
            Ok(End::Halted) => return,
            Ok(End::Done) => (RunState::Done, None),
            Ok(End::Stopped) => (RunState::Stopped, None),
            Ok(End::Deadline) => (RunState::Stopped, Some("its deadline came".into())),
            Err(error) => {
                tracing::warn!(job = self.name, %error, "training broke off");
                (RunState::Failed, Some(error.to_string()))
            }
        };
        tracing::info!(job = self.name, ?state, "training ended");
        self.enter(state, reason);
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> RunState {
        self.live().file.state
    }

    /// Makes a new state durable.
    fn keep(&self, state: RunState, reason: Option<String>) -> Result<(), TrainingError> {
        let mut live = self.live();
        (live.file.state, live.file.reason) = (state, reason);
        Ok(self.folder.keep_run(&live.file)?)
    }

    /// As [`Run::keep`], where nobody waits for it.
    fn enter(&self, state: RunState, reason: Option<String>) {
        if let Err(error) = self.keep(state, reason) {
            tracing::warn!(job = self.name, %error, "how the job stands is not kept");
        }
    }

    /// Its data are read, and `points` are what came before.
    fn begun(
        &self,
        (step, steps): (u64, u64),
        (parameters, vocab): (usize, u32),
        points: Vec<RunPoint>,
    ) {
        let mut live = self.live();
        (live.step, live.steps) = (step, steps);
        (live.parameters, live.vocab) = (parameters as u64, vocab);
        live.points = points;
        let was_done = live.file.state == RunState::Done;
        drop(live);
        if !was_done {
            self.enter(RunState::Running, None);
        }
    }

    fn passed(&self, step: u64) {
        self.live().step = step;
    }

    fn reached(&self, point: RunPoint) {
        let mut live = self.live();
        live.step = point.step;
        live.points.push(point);
    }

    /// The losses seen last up to `step`, in training and on what was kept back.
    fn losses_at(&self, step: u64) -> (Option<f64>, Option<f64>) {
        let live = self.live();
        let last = live.points.last();
        let validation = last.filter(|point| point.step == step).and_then(|p| p.validation_loss);
        (last.and_then(|point| point.loss), validation)
    }

    fn versions_changed(&self) {
        let versions = self.folder.all_versions();
        self.live().versions = versions;
    }

    fn report(&self, names: &Names) -> RunReport {
        let together = self.together(names);
        let (bytes_sent, bytes_received) = self.traffic();
        let live = self.live();
        let served = self.serving.of(&self.name);
        let last = |value: fn(&RunPoint) -> Option<f64>| live.points.iter().rev().find_map(value);
        let tokens_per_second = last(|point| point.tokens_per_second).unwrap_or(0.0);
        let steps_left = live.steps.saturating_sub(live.step);
        let tokens_left = steps_left.saturating_mul(self.job.tokens_per_step());
        // Of a job that several train: what all of them did.
        let by_members = together.as_ref().map(TogetherReport::tokens);
        let runs = live.file.state == RunState::Running && tokens_per_second > 0.0;
        RunReport {
            name: self.name.clone(),
            state: live.file.state,
            reason: live.file.reason.clone(),
            submitted_at: live.file.submitted_at,
            step: live.step,
            steps: live.steps,
            tokens: by_members.unwrap_or(live.step * self.job.tokens_per_step()),
            loss: last(|point| point.loss),
            validation_loss: last(|point| point.validation_loss),
            tokens_per_second,
            left_ms: runs.then(|| (tokens_left as f64 / tokens_per_second * 1e3) as u64),
            bytes_sent,
            bytes_received,
            together,
            parameters: live.parameters,
            vocab: live.vocab,
            data: self.job.data.sources.iter().map(|s| s.path().display().to_string()).collect(),
            versions: live.versions.clone(),
            serving: served.map(|served| served.step),
            served_before: served.and_then(|served| served.before),
        }
    }
}

/// What people call the nodes.
type Names = BTreeMap<NodeId, String>;

pub(crate) fn names(shared: &Shared) -> Names {
    shared.view.borrow().nodes.iter().map(|node| (node.node, node.name.clone())).collect()
}

fn start(run: Arc<Run>, shared: &Arc<Shared>) -> JoinHandle<()> {
    let threads = threads_to_train(shared.settings.pool.threads());
    let kernels = Kernels::detect(ThreadPool::new(threads));
    let (weak, runtime) = (Arc::downgrade(shared), Handle::current());
    let (name, work): (_, Box<dyn FnOnce() + Send>) = if run.is_joint() {
        ("rounds", Box::new(move || rounds::drive(&run, &weak, &runtime, kernels)))
    } else {
        ("training", Box::new(move || drive::drive(&run, kernels)))
    };
    let thread = thread::Builder::new().name(name.into());
    thread.spawn(work).expect("the system has threads")
}

/// Makes the model as it is after `step` a version, by what `publish` writes, and forgets old ones.
fn record_version(
    run: &Run,
    step: u64,
    weights: String,
    publish: impl FnOnce(&Path) -> Result<(), CourseError>,
) -> Result<(), TrainingError> {
    let (loss, validation_loss) = run.losses_at(step);
    let version = VersionReport {
        step,
        model: model_name(&run.name, step),
        made_at: now(),
        loss,
        validation_loss,
        weights,
    };
    run.folder.add_version(&version, |folder| Ok::<_, TrainingError>(publish(folder)?))?;
    run.folder.forget_versions(&run.serving.steps(&run.name))?;
    run.versions_changed();
    Ok(())
}

/// All of a node's threads but those left to answers.
fn threads_to_train(threads: usize) -> usize {
    (threads - threads.div_ceil(THREADS_PER_ANSWERING)).max(1)
}

/// A job as a document says it, with paths that mean the same wherever the node was started.
fn read(document: Value) -> Result<(Job, JobFile), TrainingError> {
    let file = JobFile::from_value(document)?;
    let job = Job::try_from(file.clone())?;
    for (at, source) in job.data.sources.iter().enumerate() {
        if !source.path().is_absolute() {
            let field = format!("data_requirements.files[{at}]");
            let (found, expected) =
                (source.path().display().to_string(), "a path from the root".into());
            return Err(JobError::Value { field, found, expected }.into());
        }
    }
    Ok((job, file))
}

/// Begins a job or goes on with it.
pub(crate) async fn submit(
    shared: &Arc<Shared>,
    document: Value,
) -> Result<RunReport, TrainingError> {
    let (job, file) = read(document)?;
    shared.training.check(&job)?;
    if names_another_model(&shared.models, &job.name) {
        return Err(TrainingError::Named { name: job.name });
    }
    let shared = Arc::clone(shared);
    let begun = spawn_blocking(move || {
        check_memory(&job, &Survey::of(&job)?)?;
        shared.training.begin(&shared, job, file, None)
    });
    begun.await.expect("reading a job's data does not panic")
}

fn names_another_model(models: &Models, name: &str) -> bool {
    models.find(|known| known.name == name).is_some()
}

/// Says how much memory is needed and free.
fn check_memory(job: &Job, survey: &Survey) -> Result<(u64, u64), TrainingError> {
    let (needed, free) = (memory(job, survey), free_memory());
    if needed > free { Err(TrainingError::Memory { needed, free }) } else { Ok((needed, free)) }
}

fn memory(job: &Job, survey: &Survey) -> u64 {
    job.memory_bytes(survey.vocab, survey.data_bytes).max(job.memory_bytes_min)
}

/// Memory that programs can still take; all that can be counted where the system does not say.
fn free_memory() -> u64 {
    let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(memory).ok();
    system.map(|system| system.available_memory()).filter(|bytes| *bytes > 0).unwrap_or(u64::MAX)
}

/// What a job would take here.
pub(crate) async fn estimate(
    shared: &Arc<Shared>,
    document: Value,
) -> Result<EstimateReport, TrainingError> {
    let (job, _) = read(document)?;
    let shared = Arc::clone(shared);
    let estimated = spawn_blocking(move || {
        let survey = Survey::of(&job)?;
        trial(&shared, &job, &survey, survey.steps(&job))
    });
    estimated.await.expect("a trial does not panic")
}

/// Tries some steps of a job of `steps`, and says what all of it takes.
fn trial(
    shared: &Shared,
    job: &Job,
    survey: &Survey,
    steps: u64,
) -> Result<EstimateReport, TrainingError> {
    let vocab = survey.vocab;
    let tokens = steps.saturating_mul(job.tokens_per_step());
    let parameters = Parameters::new(&job.model(vocab)).len() as u64;
    let (memory_bytes, memory_free_bytes) = check_memory(job, survey)?;
    let threads = threads_to_train(shared.settings.pool.threads());
    let mut trial = Trial::new(job, vocab, Kernels::detect(ThreadPool::new(threads)))?;
    // The first step also makes room.
    trial.step()?;
    let tokens_per_second = pace(&mut trial)?;
    Ok(EstimateReport {
        parameters,
        vocab,
        steps,
        tokens,
        memory_bytes,
        memory_free_bytes,
        tokens_per_second,
        total_ms: (tokens as f64 / tokens_per_second * 1e3) as u64,
        // Weights and two moments, and versions of weights: those kept, the served one, one being made.
        disk_bytes: parameters * 4 * (3 + 7),
        bytes_per_day: bytes_per_day(job, vocab, tokens_per_second),
        credits: shared.desk().read(|ledger| credits(ledger, shared.me, job, vocab, steps)),
    })
}

/// About how many bytes a job that several train takes in a day at this pace, both ways: every member gets every other's updates.
fn bytes_per_day(job: &Job, vocab: u32, tokens_per_second: f64) -> u64 {
    const DAY_S: f64 = 86_400.0;
    let Some(plan) = &job.network else { return 0 };
    let update = plan.compressor.bytes(&Parameters::new(&job.model(vocab)).layout()) as f64;
    let tokens = f64::from(plan.steps_per_round) * job.tokens_per_step() as f64;
    let round_s = (tokens / tokens_per_second).min(plan.window_ms as f64 / 1e3);
    let others = f64::from(plan.members_min.max(2) - 1);
    (DAY_S / round_s * 2.0 * others * update / f64::from(plan.fragments)) as u64
}

/// What a node that does `steps` steps of a job that several train earns by it, if no day's budget bounds it.
fn credits(ledger: &Ledger, me: NodeId, job: &Job, vocab: u32, steps: u64) -> Credits {
    let batches = u32::try_from(steps).unwrap_or(u32::MAX);
    let tokens = steps.saturating_mul(job.tokens_per_step());
    let task = common_work::training(&job.model(vocab).shape(), tokens, batches, None);
    let worth = job.network.as_ref().and_then(|_| ledger.worth(&me, &task, now()));
    worth.unwrap_or(Credits::ZERO)
}

/// Tokens a second: of one step, or of as many as half a second takes.
fn pace(trial: &mut Trial) -> Result<f64, TrainingError> {
    let (began, mut tokens) = (Instant::now(), 0);
    loop {
        tokens += trial.step()?;
        if began.elapsed() >= Duration::from_millis(500) {
            return Ok(tokens as f64 / began.elapsed().as_secs_f64());
        }
    }
}

/// Serves a version, and has the job's name mean it.
pub(crate) async fn promote(
    api: &Api,
    shared: &Arc<Shared>,
    name: &str,
    step: Option<u64>,
) -> Result<RunReport, TrainingError> {
    let run = shared.training.find(name)?;
    if names_another_model(&shared.models, name) {
        return Err(TrainingError::Named { name: name.into() });
    }
    let known: Vec<u64> = run.folder.all_versions().iter().map(|version| version.step).collect();
    let latest = known.first().copied();
    let step = match step.or(latest).filter(|step| known.contains(step)) {
        Some(step) => step,
        None => {
            let (name, found) = (name.into(), step.unwrap_or_default());
            return Err(TrainingError::NoVersion { name, found, known });
        }
    };
    let model = model_name(name, step);
    api.serve(model.clone(), ModelSource::Folder(run.folder.version(step))).await?;
    let oldest = shared.training.serving.promote(name, step)?;
    shared.models.call(name, &model);
    if let Some(oldest) = oldest {
        // Answers that it was giving are long over, and a third version takes memory for nothing.
        api.rest(&model_name(name, oldest), true).await.or_else(unknown_is_fine)?;
    }
    Ok(run.report(&names(shared)))
}

/// A version that was not served since the start need not rest.
fn unknown_is_fine(error: crate::api::AdminError) -> Result<(), crate::api::AdminError> {
    if matches!(error, crate::api::AdminError::NoModel { .. }) { Ok(()) } else { Err(error) }
}
