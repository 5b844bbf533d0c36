//! Training jobs of this node: taken in, driven by a thread of their own, kept over restarts, and served.
//!
//! One job at a time, with a share of the threads that leaves some to answers. `folder` is what stands on the disk, `drive`
//! the thread. A version is a model like any other: it is served under a name with its step, and the job's own name means
//! the version that was promoted last.

mod drive;
mod folder;
mod serving;

pub(super) use serving::promoted;

use super::{Shared, models::Models, now};
use crate::api::{Api, EstimateReport, RunDetail, RunPoint, RunReport, RunState, TrainingError};
use folder::{RunFile, RunFolder};
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
use talka_base::Credits;
use talka_engine::{
    ModelSource,
    kernels::{Kernels, ThreadPool},
};
use talka_train::{Course, Job, JobError, JobFile, Parameters, Survey, Trial};
use tokio::task::spawn_blocking;

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
    /// What trains now.
    thread: Mutex<Option<JoinHandle<()>>>,
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
}

/// How a job stands.
struct Live {
    file: RunFile,
    step: u64,
    steps: u64,
    parameters: u64,
    vocab: u32,
    points: Vec<RunPoint>,
    versions: Vec<crate::api::VersionReport>,
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
        Self { folder, serving, runs, thread: Mutex::default() }
    }

    /// Goes on with what was trained when the node stopped.
    pub(crate) fn resume(&self, threads: usize) {
        let run = self.lock().values().find(|run| run.state().is_under_way()).cloned();
        if let Some(run) = run {
            *self.lock_thread() = Some(start(run, threads));
        }
    }

    /// Has what is trained keep where it is, and waits for that a while: a step, most often.
    pub(crate) fn halt(&self) {
        self.lock().values().for_each(|run| run.halted.store(true, Ordering::Relaxed));
        let thread = self.lock_thread().take();
        let began = Instant::now();
        while thread.as_ref().is_some_and(|thread| !thread.is_finished())
            && began.elapsed() < HALTING_MAX
        {
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn lock_thread(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All jobs, the latest first.
    pub(crate) fn reports(&self) -> Vec<RunReport> {
        let mut all: Vec<_> = self.lock().values().map(|run| run.report()).collect();
        all.sort_by_key(|run| std::cmp::Reverse(run.submitted_at));
        all
    }

    pub(crate) fn detail(&self, name: &str) -> Result<RunDetail, TrainingError> {
        let run = self.find(name)?;
        let (job, points) = {
            let live = run.live();
            (live.file.job.clone(), live.points.clone())
        };
        Ok(RunDetail { run: run.report(), job, points })
    }

    pub(crate) fn stop(&self, name: &str) -> Result<RunReport, TrainingError> {
        let run = self.find(name)?;
        if !run.state().is_under_way() {
            return Err(TrainingError::NotRunning { name: name.into() });
        }
        run.stopped.store(true, Ordering::Relaxed);
        Ok(run.report())
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

    /// Takes a job in that may be begun, and starts it unless it runs or is done.
    fn begin(&self, job: Job, file: JobFile, threads: usize) -> Result<RunReport, TrainingError> {
        // Held to the end, so that two callers at once begin one job.
        let mut thread = self.lock_thread();
        self.check(&job)?;
        let run = self.lock().get(&job.name).cloned();
        let run = match run {
            Some(run) => run,
            None => self.create(job, file)?,
        };
        run.stopped.store(false, Ordering::Relaxed);
        if !run.state().is_under_way() && run.state() != RunState::Done {
            run.keep(RunState::Preparing, None)?;
            *thread = Some(start(Arc::clone(&run), threads));
        }
        Ok(run.report())
    }

    fn create(&self, job: Job, file: JobFile) -> Result<Arc<Run>, TrainingError> {
        let folder = RunFolder(self.folder.join(&job.name));
        folder.create()?;
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
        let live = Live { file, step, steps: 0, parameters: 0, vocab: 0, points, versions };
        Self {
            name: job.name.clone(),
            job,
            folder,
            serving: Arc::clone(serving),
            stopped: AtomicBool::new(false),
            halted: AtomicBool::new(false),
            live: Mutex::new(live),
        }
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
    fn begun(&self, course: &Course, points: Vec<RunPoint>) {
        let mut live = self.live();
        (live.step, live.steps) = (course.done(), course.steps());
        (live.parameters, live.vocab) = (course.parameters() as u64, course.vocab());
        live.points = points;
        drop(live);
        self.enter(RunState::Running, None);
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

    fn report(&self) -> RunReport {
        let live = self.live();
        let served = self.serving.of(&self.name);
        let last = |value: fn(&RunPoint) -> Option<f64>| live.points.iter().rev().find_map(value);
        let tokens_per_second = last(|point| point.tokens_per_second).unwrap_or(0.0);
        let steps_left = live.steps.saturating_sub(live.step);
        let tokens_left = steps_left.saturating_mul(self.job.tokens_per_step());
        let runs = live.file.state == RunState::Running && tokens_per_second > 0.0;
        RunReport {
            name: self.name.clone(),
            state: live.file.state,
            reason: live.file.reason.clone(),
            submitted_at: live.file.submitted_at,
            step: live.step,
            steps: live.steps,
            tokens: live.step * self.job.tokens_per_step(),
            loss: last(|point| point.loss),
            validation_loss: last(|point| point.validation_loss),
            tokens_per_second,
            left_ms: runs.then(|| (tokens_left as f64 / tokens_per_second * 1e3) as u64),
            bytes_sent: 0,
            bytes_received: 0,
            parameters: live.parameters,
            vocab: live.vocab,
            data: self.job.data.sources.iter().map(|s| s.path().display().to_string()).collect(),
            versions: live.versions.clone(),
            serving: served.map(|served| served.step),
            served_before: served.and_then(|served| served.before),
        }
    }
}

fn start(run: Arc<Run>, threads: usize) -> JoinHandle<()> {
    let kernels = Kernels::detect(ThreadPool::new(threads_to_train(threads)));
    let thread = thread::Builder::new().name("training".into());
    thread.spawn(move || drive::drive(&run, kernels)).expect("the system has threads")
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
        let survey = Survey::of(&job)?;
        let (needed, free) = (memory(&job, &survey), free_memory());
        if needed > free {
            return Err(TrainingError::Memory { needed, free });
        }
        shared.training.begin(job, file, shared.settings.pool.threads())
    });
    begun.await.expect("reading a job's data does not panic")
}

fn names_another_model(models: &Models, name: &str) -> bool {
    models.find(|known| known.name == name).is_some()
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
    let threads = shared.settings.pool.threads();
    let estimated = spawn_blocking(move || {
        let survey = Survey::of(&job)?;
        let steps = survey.steps(&job);
        let tokens = steps.saturating_mul(job.tokens_per_step());
        let parameters = Parameters::new(&job.model(survey.vocab)).len() as u64;
        let memory_free_bytes = free_memory();
        let memory_bytes = memory(&job, &survey);
        if memory_bytes > memory_free_bytes {
            return Err(TrainingError::Memory { needed: memory_bytes, free: memory_free_bytes });
        }
        let kernels = Kernels::detect(ThreadPool::new(threads_to_train(threads)));
        let mut trial = Trial::new(&job, survey.vocab, kernels)?;
        // The first step also makes room.
        trial.step()?;
        let tokens_per_second = pace(&mut trial)?;
        Ok(EstimateReport {
            parameters,
            vocab: survey.vocab,
            steps,
            tokens,
            memory_bytes,
            memory_free_bytes,
            tokens_per_second,
            total_ms: (tokens as f64 / tokens_per_second * 1e3) as u64,
            // Weights and two moments, and versions of weights: those kept, the served one, one being made.
            disk_bytes: parameters * 4 * (3 + 7),
            bytes_per_day: 0,
            credits: Credits(0),
        })
    });
    estimated.await.expect("a trial does not panic")
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
    Ok(run.report())
}

/// A version that was not served since the start need not rest.
fn unknown_is_fine(error: crate::api::AdminError) -> Result<(), crate::api::AdminError> {
    if matches!(error, crate::api::AdminError::NoModel { .. }) { Ok(()) } else { Err(error) }
}
