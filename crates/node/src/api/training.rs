//! Training jobs of this node, for people and programs.

use super::{AdminError, Api};
use crate::shell::training;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use talka_base::{Credits, JobId, NodeId, Tick, WeightsHash};
pub use talka_train::{JobError, JobFile, JobFormat};

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Its data are read and cut into tokens.
    Preparing,
    /// It is trained.
    Running,
    /// Its owner stopped it, or its deadline came. The same job goes on where it was.
    Stopped,
    /// All its steps are done.
    Done,
    /// It broke off.
    Failed,
}

impl RunState {
    /// Whether work goes on.
    pub const fn is_under_way(self) -> bool {
        matches!(self, Self::Preparing | Self::Running)
    }
}

/// A job at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// What it is called.
    pub name: String,
    /// How it stands.
    pub state: RunState,
    /// Why it broke off or ended early.
    pub reason: Option<String>,
    /// When it was handed in.
    pub submitted_at: Tick,
    /// Steps done.
    pub step: u64,
    /// All steps; 0 until the data were read.
    pub steps: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// The last loss in training, in nats a token.
    pub loss: Option<f64>,
    /// The last loss on what was kept back.
    pub validation_loss: Option<f64>,
    /// Tokens trained a second, lately.
    pub tokens_per_second: f64,
    /// Milliseconds until the end at this pace.
    pub left_ms: Option<u64>,
    /// Sent to other members; nothing where one node trains alone.
    pub bytes_sent: u64,
    /// Received from other members.
    pub bytes_received: u64,
    /// How it stands among its members, where several train it.
    pub together: Option<TogetherReport>,
    /// Weights of the model; 0 until the data were read.
    pub parameters: u64,
    /// Tokens of its vocabulary.
    pub vocab: u32,
    /// The files it learns from.
    pub data: Vec<String>,
    /// Models that can be served, the latest first.
    pub versions: Vec<VersionReport>,
    /// The version that requests for [`RunReport::name`] get.
    pub serving: Option<u64>,
    /// The version that they got before.
    pub served_before: Option<u64>,
}

/// How a job that several members train stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TogetherReport {
    /// The job's id.
    pub job: JobId,
    /// The last round that was decided.
    pub round: u64,
    /// All rounds.
    pub rounds: u64,
    /// Nobody trains with fewer members.
    pub members_min: u16,
    /// Everybody who has a seat or contributed.
    pub members: Vec<TraineeReport>,
}

impl TogetherReport {
    /// Tokens of all members whose work was merged.
    pub fn tokens(&self) -> u64 {
        self.members.iter().map(|member| member.tokens).sum()
    }
}

/// A member of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TraineeReport {
    /// Its node.
    pub node: NodeId,
    /// What people call it.
    pub name: String,
    /// Whether it takes part in the round under way.
    pub is_seated: bool,
    /// Whether it leads.
    pub is_leader: bool,
    /// Tokens that it trained on, in updates that were merged.
    pub tokens: u64,
    /// The last round that it told of.
    pub round: u64,
    /// Its mean loss in that round, in nats a token.
    pub loss: Option<f64>,
    /// Tokens it trained a second in that round.
    pub tokens_per_second: f64,
}

/// How a member's part of a round went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberPoint {
    /// Its node.
    pub node: NodeId,
    /// The round.
    pub round: u64,
    /// Its mean loss, in nats a token.
    pub loss: f64,
    /// Tokens it trained a second.
    pub tokens_per_second: f64,
}

/// What was decided on a round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundReport {
    /// Which round.
    pub round: u64,
    /// When this node heard of it.
    pub at: Tick,
    /// The digest of the weights, and the momentum, that all members hold after it.
    pub weights: WeightsHash,
    /// Whose updates were merged.
    pub parts: Vec<RoundShare>,
}

/// An update that was merged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundShare {
    /// Whose.
    pub node: NodeId,
    /// Samples it was learned from.
    pub samples: u64,
}

/// A job that others train, and that this node may join.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenJobReport {
    /// What it is called.
    pub name: String,
    /// Its id.
    pub job: JobId,
    /// Who submitted it.
    pub founder: NodeId,
    /// All rounds.
    pub rounds: u64,
    /// Nobody trains with fewer members.
    pub members_min: u16,
    /// Nodes that take part now.
    pub nodes: Vec<NodeId>,
    /// Whether this node does.
    pub joined: bool,
}

/// The model as it was after a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionReport {
    /// After which step.
    pub step: u64,
    /// What requests call it while it is served.
    pub model: String,
    /// When it was made.
    pub made_at: Tick,
    /// The loss in training then.
    pub loss: Option<f64>,
    /// The loss on what was kept back, if that was looked at then.
    pub validation_loss: Option<f64>,
    /// The BLAKE3 digest of the weights.
    pub weights: String,
}

/// What was seen after a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunPoint {
    /// After so many steps.
    pub step: u64,
    /// When.
    pub at: Tick,
    /// The mean loss of the steps since the point before, in nats a token.
    pub loss: Option<f64>,
    /// The loss on what was kept back.
    pub validation_loss: Option<f64>,
    /// Tokens trained a second since the point before.
    pub tokens_per_second: Option<f64>,
}

/// All that is known of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunDetail {
    /// The job at a glance.
    pub run: RunReport,
    /// As it was handed in.
    pub job: JobFile,
    /// Its course, from the first step on.
    pub points: Vec<RunPoint>,
    /// Its rounds, where several members train it.
    pub rounds: Vec<RoundReport>,
    /// How each member's part of each round went.
    pub member_points: Vec<MemberPoint>,
}

/// What a job would take and bring on this machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EstimateReport {
    /// Weights of the model.
    pub parameters: u64,
    /// Tokens of its vocabulary, at most.
    pub vocab: u32,
    /// Steps of the job; about, where tokens are yet to be made.
    pub steps: u64,
    /// Tokens to train on.
    pub tokens: u64,
    /// Memory that training takes, about.
    pub memory_bytes: u64,
    /// Memory that is free now.
    pub memory_free_bytes: u64,
    /// Tokens trained a second, by steps that were tried just now.
    pub tokens_per_second: f64,
    /// How long all steps take at this pace.
    pub total_ms: u64,
    /// Disk for the checkpoint and the versions that are kept.
    pub disk_bytes: u64,
    /// Bytes over the network in a day: nothing where one node trains alone.
    pub bytes_per_day: u64,
    /// What it earns: nothing where a member trains for itself.
    pub credits: Credits,
}

/// Why a training call failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum TrainingError {
    /// The job file is wrong.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The data cannot be used, or the job's own files.
    #[error(transparent)]
    Course(#[from] talka_train::CourseError),
    /// It would not fit.
    #[error(
        "training takes about {needed} bytes of memory, {free} are free; a smaller batch_size, rows_at_once or \
         recompute = true need less"
    )]
    Memory { needed: u64, free: u64 },
    /// One job at a time.
    #[error(
        "{running} is trained now, and a node trains one job at a time: wait for its end, or stop it"
    )]
    Busy { running: String },
    /// Another job has the name.
    #[error("another job is called {name} here: choose another task_id")]
    Differs { name: String },
    /// No such job.
    #[error("no job is called {found:?} here, expected one of: {}", known.join(", "))]
    NoRun { found: String, known: Vec<String> },
    /// It is not trained now.
    #[error("{name} is not trained now")]
    NotRunning { name: String },
    /// Nobody trains such a job.
    #[error("nobody trains a job called {found:?} now, expected one of: {}", known.join(", "))]
    NoOpenJob { found: String, known: Vec<String> },
    /// Two jobs have the name.
    #[error("more than one job is called {name}: join by its id, such as {} or {}", jobs[0], jobs[1])]
    Ambiguous { name: String, jobs: [JobId; 2] },
    /// What the job is did not come.
    #[error("none of the nodes that train {name} tells what it is: try again later")]
    NoRecipe { name: String },
    /// Its thread failed.
    #[error("{reason}")]
    Broken { reason: String },
    /// No such version.
    #[error("{name} has no version of step {found}, expected one of: {known:?}")]
    NoVersion { name: String, found: u64, known: Vec<u64> },
    /// Nothing to go back to.
    #[error("no other version of {name} was served before")]
    NothingBefore { name: String },
    /// The name means another model.
    #[error("another model is called {name} on this node: train under another task_id")]
    Named { name: String },
    /// The model cannot be served.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A record of the job cannot be written or read.
    #[error(transparent)]
    File(#[from] talka_train::files::FileError),
}

impl Api {
    /// All jobs of this node, the latest first.
    pub fn training(&self) -> Vec<RunReport> {
        self.shared.training.reports(&training::names(&self.shared))
    }

    /// One job.
    ///
    /// # Errors
    /// [`TrainingError::NoRun`].
    pub fn training_run(&self, name: &str) -> Result<RunDetail, TrainingError> {
        self.shared.training.detail(name, &training::names(&self.shared))
    }

    /// Begins the job that `document` describes, or goes on with it where it stopped. Its data are read first.
    ///
    /// # Errors
    /// [`TrainingError`]; nothing was begun.
    pub async fn train(&self, document: Value) -> Result<RunReport, TrainingError> {
        training::submit(&self.shared, document).await
    }

    /// Jobs that members train together now, as far as this node heard.
    pub fn training_open(&self) -> Vec<OpenJobReport> {
        self.shared.training.open_jobs()
    }

    /// What it would take to join the job that others train and that is called `name`, or has this id. Some steps are tried.
    ///
    /// # Errors
    /// [`TrainingError`].
    pub async fn train_join_estimate(&self, name: &str) -> Result<EstimateReport, TrainingError> {
        training::estimate_join(&self.shared, name).await
    }

    /// Takes part in the job that others train and that is called `name`, or has this id. What it learns from is fetched from them.
    ///
    /// # Errors
    /// [`TrainingError`]; nothing was begun.
    pub async fn train_join(&self, name: &str) -> Result<RunReport, TrainingError> {
        training::join(&self.shared, name).await
    }

    /// What the job that `document` describes would take on this machine. Some steps are tried.
    ///
    /// # Errors
    /// [`TrainingError`].
    pub async fn train_estimate(&self, document: Value) -> Result<EstimateReport, TrainingError> {
        training::estimate(&self.shared, document).await
    }

    /// Stops a job after the step under way; what it reached is kept.
    ///
    /// # Errors
    /// [`TrainingError::NoRun`] or [`TrainingError::NotRunning`].
    pub fn train_stop(&self, name: &str) -> Result<RunReport, TrainingError> {
        self.shared.training.stop(name, &training::names(&self.shared))
    }

    /// Serves the version of `step`, the latest if none is named, to whoever asks for the job's name, also after a
    /// restart.
    ///
    /// # Errors
    /// [`TrainingError`] if there is no such version, or it cannot be served; what was served before still is.
    pub async fn train_promote(
        &self,
        name: &str,
        step: Option<u64>,
    ) -> Result<RunReport, TrainingError> {
        training::promote(self, &self.shared, name, step).await
    }

    /// Serves the version again that was served before the one that is served now.
    ///
    /// # Errors
    /// [`TrainingError::NothingBefore`], or as [`Api::train_promote`].
    pub async fn train_roll_back(&self, name: &str) -> Result<RunReport, TrainingError> {
        let before = self.shared.training.served_before(name)?;
        self.train_promote(name, Some(before)).await
    }
}
