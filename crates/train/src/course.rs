//! One machine's course through a job: from files of text to a model that can be served, step by step.
//!
//! Decides what a step trains on, what is kept so that a course goes on after a crash as if nothing had been, and what a
//! version of the model consists of. A checkpoint has weights, moments and the place in the data; the tokenizer is kept
//! when it is made. What follows from the job and its data is not kept but checked: a course whose data changed is refused.
//! Reads no clock and never decides when a checkpoint is due: whoever drives it does.

use crate::{
    Batch, Checkpoint, CheckpointError, FileError, Job, Parameters, RecipeError, SharedError,
    StepReport, TextTokenizer, TrainConfig, TrainError, Trainer, UpdateError, WeightsError,
    average,
    data::{DataError, tokenize},
    job::TokenizerPlan,
    material::{self, Material},
};
use std::path::{Path, PathBuf};
use talka_base::rng::Rng;
use talka_engine::kernels::Kernels;

/// Rows of a trial: enough to keep matrix units busy, and soon over.
const TRIAL_ROWS_MAX: u32 = 2;

const CHECKPOINT: &str = "checkpoint";

/// Why a course does not begin or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum CourseError {
    /// A data file is missing, empty or not what was said.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A file of the job's own cannot be written or read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The last checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A step failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The model's files cannot be written.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// What another member said of the job makes no sense.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// An update of this member's own cannot be read, or is none.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// The shared state cannot be read.
    #[error(transparent)]
    Shared(#[from] SharedError),
    /// A thing that was here is gone.
    #[error("{what} of round {round} is gone from the job's folder")]
    Gone { what: &'static str, round: u64 },
    /// The checkpoint is not of this job with these data.
    #[error(
        "{what} changed since the job began, so that it cannot go on: put them back, or train under another task_id"
    )]
    Changed { what: &'static str },
}

/// What a look at a job's data tells, before anything is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survey {
    /// Text, in bytes.
    pub data_bytes: u64,
    /// Tokens of the vocabulary; for one that is yet to be made the most that it will have.
    pub vocab: u32,
    /// Tokens of the data; for a vocabulary that is yet to be made about so many.
    pub tokens: u64,
}

impl Survey {
    /// Reads the job's data and finds whatever is wrong with them.
    ///
    /// # Errors
    /// [`CourseError::Data`] names the file and the reason.
    pub fn of(job: &Job) -> Result<Self, CourseError> {
        let documents = material::documents(&job.data.sources)?;
        let data_bytes = documents.iter().map(|text| text.len() as u64).sum();
        let tokenizer = match &job.tokenizer {
            // English text has about four bytes a token at 32,000 entries, and fewer at fewer.
            TokenizerPlan::Bpe { size } => {
                return Ok(Self { data_bytes, vocab: *size, tokens: data_bytes / 3 });
            }
            TokenizerPlan::Characters => TextTokenizer::characters(material::texts(&documents)),
            TokenizerPlan::File(path) => material::read_tokenizer(path)?,
        };
        let split = tokenize(&documents, &tokenizer, job.data.validation_split)?;
        let tokens = (split.train.len() + split.validation.len()) as u64;
        Ok(Self { data_bytes, vocab: tokenizer.vocab(), tokens })
    }

    /// Steps of the job, as far as they are known by now.
    pub fn steps(&self, job: &Job) -> u64 {
        let train = self.tokens as f64 * (1.0 - job.data.validation_split);
        job.amount.steps(job.batch, job.tokens_per_step(), train as u64 / u64::from(job.length))
    }
}

/// A few steps on nothing, to see how long one takes.
#[derive(Debug)]
pub struct Trial {
    trainer: Trainer,
    batch: Batch,
}

impl Trial {
    /// With new weights.
    ///
    /// # Errors
    /// The model is none.
    pub fn new(job: &Job, vocab: u32, kernels: Kernels) -> Result<Self, CourseError> {
        let config = job.train_config(vocab, 1);
        let rows = job.batch.min(TRIAL_ROWS_MAX) as usize;
        let mut rng = Rng::new(job.seed);
        let tokens = (0..rows * (job.length as usize + 1)).map(|_| rng.below(vocab.into()) as u32);
        let batch = Batch { tokens: tokens.collect(), rows };
        Ok(Self { trainer: begin(config, job.seed, kernels)?, batch })
    }

    /// One step; says how many tokens it trained.
    ///
    /// # Errors
    /// The step failed.
    pub fn step(&mut self) -> Result<usize, CourseError> {
        Ok(self.trainer.step(&self.batch)?.tokens)
    }
}

/// A job under way on this machine.
#[derive(Debug)]
pub struct Course {
    folder: PathBuf,
    steps: u64,
    batch: usize,
    length: usize,
    material: Material,
    validation: Vec<Batch>,
    trainer: Trainer,
    /// Over how many steps versions are the mean of the weights, and that mean; empty while there is none.
    average_steps: u64,
    mean: Vec<f32>,
}

impl Course {
    /// Begins `job` in `folder`, or goes on from the checkpoint that is there.
    ///
    /// # Errors
    /// [`CourseError`] says what is wrong with data, files or checkpoint.
    pub fn open(job: &Job, folder: &Path, kernels: Kernels) -> Result<Self, CourseError> {
        let material = Material::read(job, folder)?;
        let (batch, length) = (job.batch as usize, job.length as usize);
        let steps = material.steps(job)?;
        let validation = material.validation(job)?;
        let config = job.train_config(material.tokenizer.vocab(), steps);
        let path = folder.join(CHECKPOINT);
        let (trainer, mean) = if path.exists() {
            let mut checkpoint = Checkpoint::read(&path)?;
            let averages = checkpoint.steps > 0 && job.average_steps > 0;
            if checkpoint.config != config || checkpoint.mean.is_empty() == averages {
                return Err(CourseError::Changed { what: "the job's settings" });
            }
            if checkpoint.data_seed != material.data_seed {
                return Err(CourseError::Changed { what: "the data" });
            }
            let mean = std::mem::take(&mut checkpoint.mean);
            (checkpoint.resume(kernels)?, mean)
        } else {
            (begin(config, job.seed, kernels)?, Vec::new())
        };
        let (folder, average_steps) = (folder.to_owned(), job.average_steps);
        Ok(Self {
            folder,
            steps,
            batch,
            length,
            material,
            validation,
            trainer,
            average_steps,
            mean,
        })
    }

    /// All steps of the job.
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// Steps that are done.
    pub fn done(&self) -> u64 {
        self.trainer.steps()
    }

    /// Tokens of the vocabulary.
    pub fn vocab(&self) -> u32 {
        self.material.tokenizer.vocab()
    }

    /// Tokens to learn from.
    pub const fn train_tokens(&self) -> usize {
        self.material.tokens.train.len()
    }

    /// Weights of the model.
    pub fn parameters(&self) -> usize {
        self.trainer.weights().len()
    }

    /// The next step.
    ///
    /// # Errors
    /// Training has diverged; nothing has changed then.
    pub fn step(&mut self) -> Result<StepReport, CourseError> {
        let windows = self.material.windows(self.length)?;
        let batch = windows.batch(self.position(), self.batch);
        let before = self.done();
        let report = self.trainer.step(&batch)?;
        if self.average_steps > 0 {
            let times = (1, self.average_steps);
            average::add(&mut self.mean, self.trainer.weights(), before, times);
        }
        Ok(report)
    }

    /// What a version consists of.
    fn served(&self) -> &[f32] {
        if self.mean.is_empty() { self.trainer.weights() } else { &self.mean }
    }

    /// The next window of the data.
    fn position(&self) -> u64 {
        self.done() * self.batch as u64
    }

    /// The mean loss of what a version would be now over the validation data, if any were kept back.
    ///
    /// # Errors
    /// The model cannot be run.
    pub fn validate(&self) -> Result<Option<f64>, CourseError> {
        if self.validation.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.trainer.evaluate_at(self.served(), &self.validation)?))
    }

    /// Makes what was reached durable: from here the course goes on after a crash.
    ///
    /// # Errors
    /// It cannot be written; the checkpoint before is still there.
    pub fn keep(&self) -> Result<(), CourseError> {
        let checkpoint = Checkpoint::of(&self.trainer, self.material.data_seed, self.position());
        let checkpoint = Checkpoint { mean: self.mean.clone(), ..checkpoint };
        Ok(checkpoint.write(&self.folder.join(CHECKPOINT))?)
    }

    /// Writes the model as it is into `folder`, which is there, in the layout that is served.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn publish(&self, folder: &Path) -> Result<(), CourseError> {
        self.material.publish(&self.trainer.config().model, self.served(), folder)
    }

    /// The BLAKE3 digest of what a version would be now, in hexadecimal: equal courses have equal ones.
    pub fn weights_hash(&self) -> String {
        material::hash_of(self.served())
    }
}

fn begin(config: TrainConfig, seed: u64, kernels: Kernels) -> Result<Trainer, TrainError> {
    let weights = Parameters::new(&config.model).initial_weights(seed);
    Trainer::new(config, weights, kernels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{JobFile, data::TextSource};
    use serde_json::json;
    use talka_engine::kernels::ThreadPool;

    const TEXT: &str =
        "To be, or not to be, that is the question: whether 'tis nobler in the mind to suffer. ";

    /// A job on a file of so many repetitions of [`TEXT`].
    fn job(folder: &Path, kind: &str, repetitions: usize) -> Job {
        let text = folder.join("text.txt");
        std::fs::write(&text, TEXT.repeat(repetitions)).expect("written");
        let file = json!({
            "task_id": "tiny",
            "model_specification": {"hidden": 16, "layers": 1, "heads": 2, "ffn": 32, "context": 8},
            "tokenizer": if kind == "bpe" { json!({"size": 300}) } else { json!({"kind": kind}) },
            "training_config": {"steps": 8, "batch_size": 2, "learning_rate": 0.01},
            "data_requirements": {"files": [text]},
        });
        Job::try_from(JobFile::from_value(file).expect("a job file")).expect("a job")
    }

    fn open(job: &Job, folder: &Path) -> Result<Course, CourseError> {
        Course::open(job, folder, Kernels::detect(ThreadPool::new(1)))
    }

    fn run(course: &mut Course, until: u64) {
        while course.done() < until {
            course.step().expect("a step");
        }
    }

    /// Goal: a crash costs what came after the last checkpoint and changes nothing.
    #[test]
    fn a_course_goes_on_from_its_checkpoint_to_the_same_weights() {
        for (kind, average_steps) in [("characters", 0), ("bpe", 0), ("characters", 4)] {
            let [whole, cut] = [(), ()].map(|()| tempfile::tempdir().expect("a folder"));
            let mut job = job(whole.path(), kind, 20);
            job.average_steps = average_steps;
            let mut course = open(&job, whole.path()).expect("begins");
            let before = course.validate().expect("a loss").expect("validation data");
            run(&mut course, 8);
            assert!(course.validate().expect("a loss").expect("validation data") < before);

            let mut first = open(&job, cut.path()).expect("begins");
            run(&mut first, 3);
            first.keep().expect("kept");
            run(&mut first, 5);
            drop(first);
            let mut second = open(&job, cut.path()).expect("goes on");
            assert_eq!(second.done(), 3);
            run(&mut second, 8);
            assert_eq!(second.weights_hash(), course.weights_hash(), "{kind}");
        }
    }

    #[test]
    fn changed_data_and_settings_are_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = job(folder.path(), "characters", 20);
        let mut course = open(&first, folder.path()).expect("begins");
        run(&mut course, 1);
        course.keep().expect("kept");
        let longer = job(folder.path(), "characters", 21);
        let error = open(&longer, folder.path()).expect_err("other data");
        assert!(error.to_string().starts_with("the data changed"), "{error}");
        let mut faster = job(folder.path(), "characters", 20);
        faster.warmup = 5;
        let mut averaged = job(folder.path(), "characters", 20);
        averaged.average_steps = 4;
        for other in [faster, averaged] {
            let error = open(&other, folder.path()).expect_err("other settings");
            assert!(error.to_string().starts_with("the job's settings changed"), "{error}");
        }
    }

    #[test]
    fn a_version_is_a_model_that_can_be_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let course = open(&job(folder.path(), "bpe", 20), folder.path()).expect("begins");
        let version = folder.path().join("version");
        std::fs::create_dir(&version).expect("made");
        course.publish(&version).expect("written");
        let source = talka_engine::ModelSource::Folder(version.clone());
        let model = talka_engine::Model::open(source).expect("a model");
        assert_eq!(model.shape().vocab, course.vocab());
        let (_, weights) = crate::read_model(&version).expect("weights");
        assert_eq!(weights.len(), course.parameters());

        let mut halved = job(folder.path(), "bpe", 20);
        halved.width = crate::WeightWidth::Bf16;
        let course = open(&halved, folder.path()).expect("begins");
        course.publish(&version).expect("written");
        let (_, rounded) = crate::read_model(&version).expect("weights");
        let near = |(found, exact): (&f32, &f32)| (found - exact).abs() <= exact.abs() / 256.0;
        assert!(rounded.iter().zip(&weights).all(near) && rounded != weights);
    }

    #[test]
    fn a_survey_names_what_is_wrong_and_counts_what_is_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut job = job(folder.path(), "characters", 20);
        let survey = Survey::of(&job).expect("good data");
        assert_eq!(
            (survey.data_bytes, survey.tokens),
            (20 * TEXT.len() as u64, 20 * TEXT.len() as u64)
        );
        assert_eq!(survey.steps(&job), 8);
        let mut trial =
            Trial::new(&job, survey.vocab, Kernels::detect(ThreadPool::new(1))).expect("a model");
        assert_eq!(trial.step().expect("a step"), 16);
        job.data.sources = vec![TextSource::Text { path: folder.path().join("missing") }];
        let message = Survey::of(&job).expect_err("no file").to_string();
        assert!(message.contains("missing cannot be read"), "{message}");
    }
}
