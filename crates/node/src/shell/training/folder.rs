//! A job's folder: what is there of it after a restart.
//!
//! ```text
//! run.json        the job as it was handed in, and how it stands
//! record.jsonl    a line for each point of its course
//! checkpoint      of `train::Course`, as is tokenizer.json
//! terms           of a job that several train, and what is there of it only:
//! depot/          what members give each other
//! own             what `train::Member` keeps for itself
//! records         what this node's part in the rounds made durable
//! paid            the last round that this node, as the ledger's founder, paid for
//! rounds.jsonl    a line for each round that was decided
//! members.jsonl   a line for each member and round
//! versions/STEP/  a model that can be served, and version.json
//! ```

use super::wages::Paid;
use crate::api::{MemberPoint, RoundReport, RunPoint, RunState, VersionReport};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};
use talka_base::{Tick, decode, encode};
use talka_train::{
    Depot, JobFile,
    files::{self, FileError},
    round::Terms,
};

/// Versions that are kept, beside those that are served.
const VERSIONS_KEPT: usize = 5;

const RUN: &str = "run.json";
const RECORD: &str = "record.jsonl";
const TERMS: &str = "terms";
const PAID: &str = "paid";
const ROUNDS: &str = "rounds.jsonl";
const MEMBERS: &str = "members.jsonl";
const VERSION: &str = "version.json";

/// What `run.json` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct RunFile {
    pub(super) job: JobFile,
    pub(super) state: RunState,
    pub(super) reason: Option<String>,
    pub(super) submitted_at: Tick,
}

/// Where a job keeps its files.
#[derive(Debug, Clone)]
pub(super) struct RunFolder(pub(super) PathBuf);

impl RunFolder {
    /// Makes the folder, if need be.
    pub(super) fn create(&self) -> Result<(), FileError> {
        make(&self.versions())
    }

    fn versions(&self) -> PathBuf {
        self.0.join("versions")
    }

    /// What members give each other.
    pub(super) fn depot(&self) -> Result<Arc<Depot>, FileError> {
        Ok(Arc::new(Depot::open(&self.0.join("depot"))?))
    }

    /// On what the members of the job agree; nothing before that is known.
    pub(super) fn terms(&self) -> Option<Terms> {
        let bytes = fs::read(self.0.join(TERMS)).ok()?;
        decode(&bytes).ok()
    }

    pub(super) fn keep_terms(&self, terms: &Terms) -> Result<(), FileError> {
        files::write(&self.0.join(TERMS), &encode(terms))
    }

    /// What was paid; nothing if this node never paid for this job.
    pub(super) fn paid(&self) -> Option<Paid> {
        read(&self.0.join(PAID))
    }

    pub(super) fn keep_paid(&self, paid: Paid) -> Result<(), FileError> {
        files::write(&self.0.join(PAID), &json(&paid))
    }

    pub(super) fn rounds(&self) -> Vec<RoundReport> {
        lines(&self.0.join(ROUNDS))
    }

    pub(super) fn add_round(&self, round: &RoundReport) -> Result<(), FileError> {
        add(&self.0.join(ROUNDS), round)
    }

    pub(super) fn member_points(&self) -> Vec<MemberPoint> {
        lines(&self.0.join(MEMBERS))
    }

    pub(super) fn add_member_point(&self, point: &MemberPoint) -> Result<(), FileError> {
        add(&self.0.join(MEMBERS), point)
    }

    /// Where the model of a version lies.
    pub(super) fn version(&self, step: u64) -> PathBuf {
        self.versions().join(step.to_string())
    }

    pub(super) fn keep_run(&self, run: &RunFile) -> Result<(), FileError> {
        files::write(&self.0.join(RUN), &json(run))
    }

    /// Nothing if there is no such file or none that this version understands.
    pub(super) fn run(&self) -> Option<RunFile> {
        read(&self.0.join(RUN))
    }

    /// The points of the course up to `step`; later ones are forgotten, since they will come again.
    pub(super) fn points_until(&self, step: u64) -> Result<Vec<RunPoint>, FileError> {
        let mut points = self.points();
        points.retain(|point| point.step <= step);
        let lines: Vec<u8> = points.iter().flat_map(line).collect();
        files::write(&self.0.join(RECORD), &lines)?;
        Ok(points)
    }

    /// All points that were written. A crash may have cut the last line.
    pub(super) fn points(&self) -> Vec<RunPoint> {
        lines(&self.0.join(RECORD))
    }

    /// The record, to add to.
    pub(super) fn record(&self) -> Result<Record, FileError> {
        let path = self.0.join(RECORD);
        Ok(Record { file: open(&path)?, path })
    }

    /// Makes a version with the files that `publish` puts into the folder it is given. It is there whole or not at all.
    pub(super) fn add_version<E: From<FileError>>(
        &self,
        version: &VersionReport,
        publish: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let (path, unfinished) = (self.version(version.step), self.versions().join("unfinished"));
        if path.exists() {
            return Ok(());
        }
        remove(&unfinished)?;
        make(&unfinished)?;
        publish(&unfinished)?;
        files::write(&unfinished.join(VERSION), &json(version))?;
        let moved = fs::rename(&unfinished, &path);
        Ok(moved.map_err(|source| FileError::writing(&path, source))?)
    }

    /// Removes all but the latest versions and those of `served`.
    pub(super) fn forget_versions(&self, served: &[u64]) -> Result<(), FileError> {
        let old = self.all_versions().into_iter().skip(VERSIONS_KEPT);
        for version in old.filter(|version| !served.contains(&version.step)) {
            remove(&self.version(version.step))?;
        }
        Ok(())
    }

    /// All versions, the latest first.
    pub(super) fn all_versions(&self) -> Vec<VersionReport> {
        let folders = fs::read_dir(self.versions()).into_iter().flatten().flatten();
        let mut all: Vec<VersionReport> = folders
            .filter(|folder| {
                folder.file_name().to_str().is_some_and(|name| name.parse::<u64>().is_ok())
            })
            .filter_map(|folder| read(&folder.path().join(VERSION)))
            .collect();
        all.sort_by_key(|version| std::cmp::Reverse(version.step));
        all
    }
}

/// A record that is added to.
pub(super) struct Record {
    file: File,
    path: PathBuf,
}

impl Record {
    pub(super) fn add(&mut self, point: &RunPoint) -> Result<(), FileError> {
        self.told(|file| file.write_all(&line(point)))
    }

    /// Waits until the disk has all of it.
    pub(super) fn sync(&mut self) -> Result<(), FileError> {
        self.told(|file| file.sync_data())
    }

    fn told(&mut self, work: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), FileError> {
        work(&mut self.file).map_err(|source| FileError::writing(&self.path, source))
    }
}

/// Reads a document; nothing if it is not there or not what is expected.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = fs::read(path).ok()?;
    let read = serde_json::from_slice(&bytes);
    read.inspect_err(|error| tracing::warn!(path = %path.display(), %error, "not understood")).ok()
}

pub(super) fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec_pretty(value).expect("plain fields")
}

/// The lines of a record. A crash may have cut the last one.
fn lines<T: DeserializeOwned>(path: &Path) -> Vec<T> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn open(path: &Path) -> Result<File, FileError> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|source| FileError::writing(path, source))
}

/// Adds a line to a record that is for people.
fn add(path: &Path, value: &impl Serialize) -> Result<(), FileError> {
    let mut file = open(path)?;
    file.write_all(&line(value)).map_err(|source| FileError::writing(path, source))
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("plain fields");
    line.push(b'\n');
    line
}

fn make(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).map_err(|source| FileError::writing(path, source))
}

fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(FileError::writing(path, source))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(step: u64) -> RunPoint {
        let at = Tick(step);
        RunPoint { step, at, loss: Some(1.5), validation_loss: None, tokens_per_second: None }
    }

    #[test]
    fn a_record_outlives_a_crash_in_the_middle_of_a_line() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = RunFolder(place.path().into());
        let mut record = folder.record().expect("opened");
        (1..=4).for_each(|step| record.add(&point(step)).expect("written"));
        record.file.write_all(b"{\"step\":5,").expect("written");
        assert_eq!(folder.points(), (1..=4).map(point).collect::<Vec<_>>());
        // It goes on from the checkpoint of step 2.
        assert_eq!(folder.points_until(2).expect("cut"), [point(1), point(2)]);
        folder.record().expect("opened").add(&point(3)).expect("written");
        assert_eq!(folder.points(), (1..=3).map(point).collect::<Vec<_>>());
    }

    #[test]
    fn versions_are_whole_and_few() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = RunFolder(place.path().into());
        folder.create().expect("made");
        for step in 1..=9 {
            let version = VersionReport {
                step,
                model: "m".into(),
                made_at: Tick(0),
                loss: None,
                validation_loss: None,
                weights: String::new(),
            };
            let cut =
                |_: &Path| Err(FileError::writing(Path::new("x"), io::ErrorKind::Other.into()));
            folder.add_version(&version, cut).expect_err("a full disk");
            let done = |path: &Path| files::write(&path.join("model"), b"weights");
            folder.add_version(&version, done).expect("made");
        }
        folder.forget_versions(&[2]).expect("removed");
        let steps: Vec<_> = folder.all_versions().iter().map(|version| version.step).collect();
        assert_eq!(steps, [9, 8, 7, 6, 5, 2]);
    }
}
