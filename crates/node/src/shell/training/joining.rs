//! Jobs that members train together, as others hear of them and join them.

use super::{
    Run, Training, check_memory,
    folder::RunFolder,
    joint::{Heard, Joint},
    names_another_model,
    notices::Told,
    trial,
};
use crate::{
    api::{EstimateReport, OpenJobReport, RunReport, TogetherReport, TraineeReport, TrainingError},
    shell::{Shared, fetch::things::Wanted},
    wire::training::TrainingMessage,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};
use talka_base::{JobId, NodeId};
use talka_train::{
    CourseError, Job, Recipe, Survey,
    depot::{Hash, Kind},
    recipe::RECIPE_BYTES_MAX,
    round::Terms,
};
use tokio::task::spawn_blocking;

impl Training {
    fn joint_of(&self, job: JobId) -> Option<Arc<Joint>> {
        self.lock().values().find_map(|run| run.joint().clone().filter(|joint| joint.job == job))
    }

    /// Takes what another node says of jobs: so many bytes.
    pub(crate) fn hear(&self, from: NodeId, message: TrainingMessage, bytes: usize) {
        let (job, heard) = match message {
            TrainingMessage::Open(notices) => return self.notices.hear(from, notices),
            TrainingMessage::Round(job, message) => (job, Heard::Message(from, message)),
            TrainingMessage::Progress(job, progress) => (job, Heard::Progress(from, progress)),
        };
        if let Some(joint) = self.joint_of(job) {
            joint.hear(heard, bytes);
        }
    }

    /// A piece of what this node has for the members of a job.
    pub(crate) fn piece(&self, job: JobId, hash: &Hash, piece: u32) -> Option<Vec<u8>> {
        self.joint_of(job)?.piece(hash, piece)
    }

    /// Who trains a job.
    pub(crate) fn sources(&self, job: JobId) -> Vec<NodeId> {
        self.notices.sources(job)
    }

    /// Jobs that others train now.
    pub(crate) fn open_jobs(&self) -> Vec<OpenJobReport> {
        let report = |told: Told| {
            let terms = &told.notice.terms;
            let job = terms.job();
            OpenJobReport {
                job,
                founder: terms.founder,
                rounds: terms.rounds,
                members_min: terms.seats_min,
                nodes: told.nodes(),
                joined: self.joint_of(job).is_some(),
                name: told.notice.name,
            }
        };
        self.notices.all().into_iter().map(report).collect()
    }

    /// The job that somebody trains and that is called so, or has this id.
    fn told(&self, name: &str) -> Result<Told, TrainingError> {
        let all = self.notices.all();
        let is_meant =
            |told: &&Told| told.notice.name == name || told.notice.terms.job().to_string() == name;
        let mut meant = all.iter().filter(is_meant);
        match (meant.next(), meant.next()) {
            (Some(told), None) => Ok(told.clone()),
            (Some(one), Some(other)) => Err(TrainingError::Ambiguous {
                name: name.into(),
                jobs: [one, other].map(|told| told.notice.terms.job()),
            }),
            (None, _) => Err(TrainingError::NoOpenJob {
                found: name.into(),
                known: all.into_iter().map(|told| told.notice.name).collect(),
            }),
        }
    }
}

impl Run {
    /// How the job stands among its members.
    pub(super) fn together(&self, names: &BTreeMap<NodeId, String>) -> Option<TogetherReport> {
        let joint = self.joint().clone()?;
        let standing = joint.standing();
        let mut samples = BTreeMap::<NodeId, u64>::new();
        for part in standing.rounds.iter().flat_map(|round| &round.parts) {
            *samples.entry(part.node).or_default() += part.samples;
        }
        for node in &standing.seats {
            samples.entry(*node).or_default();
        }
        let member = |(node, samples): (NodeId, u64)| {
            let progress = standing.progress.get(&node);
            TraineeReport {
                node,
                name: names.get(&node).cloned().unwrap_or_else(|| node.short()),
                is_seated: standing.seats.contains(&node),
                is_leader: standing.leader == Some(node),
                tokens: samples.saturating_mul(self.job.length.into()),
                round: progress.map_or(0, |progress| progress.round),
                loss: progress.map(|progress| progress.loss_millionths as f64 / 1e6),
                tokens_per_second: progress.map_or(0.0, |p| p.tokens_per_second as f64),
            }
        };
        Some(TogetherReport {
            job: joint.job,
            round: standing.rounds.last().map_or(0, |round| round.round),
            rounds: joint.terms.rounds,
            members_min: joint.terms.seats_min,
            members: samples.into_iter().map(member).collect(),
        })
    }

    /// Bytes that went to other members and came from them since the node started.
    pub(super) fn traffic(&self) -> (u64, u64) {
        let joint = self.joint().clone();
        joint.map_or((0, 0), |joint| {
            (joint.sent.load(Ordering::Relaxed), joint.received.load(Ordering::Relaxed))
        })
    }
}

/// Takes part in a job that others train: fetches what it is, and begins.
pub(crate) async fn join(shared: &Arc<Shared>, name: &str) -> Result<RunReport, TrainingError> {
    let training = &shared.training;
    let told = match training.told(name) {
        // One that was left goes on without anybody telling of it: by its own files.
        Err(TrainingError::NoOpenJob { .. }) if training.find(name).is_ok_and(|r| r.is_joint()) => {
            let run = training.find(name)?;
            let file = run.live().file.job.clone();
            return training.begin(shared, run.job.clone(), file, None);
        }
        told => told?,
    };
    let terms = told.notice.terms.clone();
    let folder = RunFolder(training.folder.join(&told.notice.name));
    if folder.run().is_some() && folder.terms().is_none_or(|kept| kept != terms) {
        return Err(TrainingError::Differs { name: told.notice.name });
    }
    if names_another_model(&shared.models, &told.notice.name) {
        return Err(TrainingError::Named { name: told.notice.name });
    }
    let (recipe, job) = fetch_recipe(shared, &told, &folder).await?;
    training.check(&job)?;
    let shared = Arc::clone(shared);
    let begun = spawn_blocking(move || {
        check_memory(&job, &survey(&recipe))?;
        shared.training.begin(&shared, job, recipe.job, Some(&terms))
    });
    begun.await.expect("beginning a job does not panic")
}

/// What it would take to join a job that others train.
pub(crate) async fn estimate_join(
    shared: &Arc<Shared>,
    name: &str,
) -> Result<EstimateReport, TrainingError> {
    let told = shared.training.told(name)?;
    let folder = RunFolder(shared.training.folder.join(&told.notice.name));
    let (recipe, job) = fetch_recipe(shared, &told, &folder).await?;
    let shared = Arc::clone(shared);
    let estimated = spawn_blocking(move || trial(&shared, &job, &survey(&recipe), recipe.steps));
    estimated.await.expect("a trial does not panic")
}

fn survey(recipe: &Recipe) -> Survey {
    let data_bytes: u64 = recipe.things().iter().map(|thing| thing.bytes).sum();
    Survey { data_bytes, vocab: recipe.vocab, tokens: data_bytes / 2 }
}

async fn fetch_recipe(
    shared: &Arc<Shared>,
    told: &Told,
    folder: &RunFolder,
) -> Result<(Recipe, Job), TrainingError> {
    let terms: &Terms = &told.notice.terms;
    folder.create()?;
    let depot = folder.depot()?;
    let wanted = Wanted {
        job: terms.job(),
        hash: terms.recipe,
        bytes_max: RECIPE_BYTES_MAX,
        kind: Kind::Always,
        depot: Arc::clone(&depot),
    };
    wanted.bring(shared, &told.nodes()).await?;
    let name = told.notice.name.clone();
    let Some(recipe) = depot.read(&terms.recipe)? else {
        return Err(TrainingError::NoRecipe { name });
    };
    let (recipe, job) = Recipe::read(&recipe).map_err(CourseError::from)?;
    if job.name != name {
        // Whoever told of it gave it another name than it has.
        return Err(TrainingError::NoOpenJob { found: name, known: vec![job.name] });
    }
    Ok((recipe, job))
}
