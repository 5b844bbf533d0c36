//! Which version of each job is served, and which was before; kept over restarts.

use super::{
    folder::{json, read},
    model_name,
};
use crate::config::ModelChoice;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};
use talka_engine::{Model, ModelSource};
use talka_train::files::{self, FileError};

const SERVING: &str = "serving.json";

/// What requests for a job's name get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Served {
    pub(super) step: u64,
    pub(super) before: Option<u64>,
}

/// By the names of jobs.
#[derive(Debug)]
pub(super) struct Serving {
    path: PathBuf,
    all: Mutex<BTreeMap<String, Served>>,
}

impl Serving {
    /// As it is kept in the folder of all jobs.
    pub(super) fn open(folder: &Path) -> Self {
        let path = folder.join(SERVING);
        let all = if path.exists() { read(&path).unwrap_or_default() } else { BTreeMap::new() };
        Self { path, all: Mutex::new(all) }
    }

    pub(super) fn of(&self, job: &str) -> Option<Served> {
        self.lock().get(job).copied()
    }

    /// Steps whose versions must stay.
    pub(super) fn steps(&self, job: &str) -> Vec<u64> {
        let served = self.of(job);
        served
            .into_iter()
            .flat_map(|served| std::iter::once(served.step).chain(served.before))
            .collect()
    }

    /// Makes it durable that `step` is served now. Says which version is neither that one nor the one before.
    pub(super) fn promote(&self, job: &str, step: u64) -> Result<Option<u64>, FileError> {
        let mut all = self.lock();
        let was = all.get(job).copied();
        if was.is_some_and(|was| was.step == step) {
            return Ok(None);
        }
        let served = Served { step, before: was.map(|was| was.step) };
        let mut next = all.clone();
        next.insert(job.into(), served);
        files::write(&self.path, &json(&next))?;
        *all = next;
        Ok(was.and_then(|was| was.before).filter(|before| *before != step))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Served>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The models that jobs' names mean, to be served from the start, and those names. One that cannot be opened any more
/// is left out: the node has others.
pub(in crate::shell) fn promoted(data_dir: &Path) -> Vec<(String, ModelChoice)> {
    let folder = data_dir.join("training");
    let all = Serving::open(&folder).lock().clone();
    let choices = all.into_iter().filter_map(|(job, served)| {
        let source = ModelSource::Folder(folder.join(&job).join("versions").join(served.step.to_string()));
        if let Err(error) = Model::open(source.clone()) {
            tracing::warn!(job, step = served.step, %error, "the version that was served is left out");
            return None;
        }
        let choice = ModelChoice::here(model_name(&job, served.step), source);
        Some((job, choice))
    });
    choices.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_before_is_remembered_and_the_one_before_that_let_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let serving = Serving::open(folder.path());
        assert_eq!(serving.promote("job", 10).expect("kept"), None);
        assert_eq!(serving.promote("job", 10).expect("kept"), None);
        assert_eq!(serving.promote("job", 20).expect("kept"), None);
        assert_eq!(serving.promote("job", 30).expect("kept"), Some(10));
        // Back to the one before: the two change places.
        assert_eq!(serving.promote("job", 20).expect("kept"), None);
        let again = Serving::open(folder.path());
        assert_eq!(again.of("job"), Some(Served { step: 20, before: Some(30) }));
        assert_eq!(again.steps("job"), [20, 30]);
        assert!(again.of("other").is_none());
    }
}
