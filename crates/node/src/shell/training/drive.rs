//! The thread of a job: one step after the other, and between them what is due.

use super::{End, Run, folder::Record, record_version};
use crate::{
    api::{RunPoint, TrainingError},
    shell::now,
};
use std::time::Instant;
use talka_engine::kernels::Kernels;
use talka_train::{Course, Job};

/// Points of a course, about: enough for a curve, and few enough to send.
const POINTS: u64 = 1_000;

/// Trains `run` until its end and says how that was.
pub(super) fn drive(run: &Run, kernels: Kernels) {
    run.ended(begin(run, kernels));
}

fn begin(run: &Run, kernels: Kernels) -> Result<End, TrainingError> {
    let course = Course::open(&run.job, &run.folder.0, kernels)?;
    let points = run.folder.points_until(course.done())?;
    let record = run.folder.record()?;
    let model = (course.parameters(), course.vocab());
    run.begun((course.done(), course.steps()), model, points);
    tracing::info!(job = run.name, step = course.done(), steps = course.steps(), "training");
    Driver { run, job: &run.job, record, course, since: Since::new() }.all()
}

/// What was seen since the last point.
struct Since {
    began: Instant,
    steps: u64,
    tokens: u64,
    loss: f64,
}

impl Since {
    fn new() -> Self {
        Self { began: Instant::now(), steps: 0, tokens: 0, loss: 0.0 }
    }
}

struct Driver<'a> {
    run: &'a Run,
    job: &'a Job,
    record: Record,
    course: Course,
    since: Since,
}

impl Driver<'_> {
    fn all(&mut self) -> Result<End, TrainingError> {
        loop {
            if self.course.done() >= self.course.steps() {
                self.keep()?;
                return Ok(End::Done);
            }
            if let Some(end) = self.run.due_end() {
                self.keep()?;
                return Ok(end);
            }
            let report = self.course.step()?;
            self.since.steps += 1;
            self.since.tokens += report.tokens as u64;
            self.since.loss += report.loss;
            self.look()?;
        }
    }

    /// What is due after a step.
    fn look(&mut self) -> Result<(), TrainingError> {
        let (done, steps) = (self.course.done(), self.course.steps());
        let is_due = |every: u64| done.is_multiple_of(every) || done == steps;
        let validates = is_due(self.job.validate_every);
        if validates || is_due(steps.div_ceil(POINTS)) {
            let seconds = self.since.began.elapsed().as_secs_f64();
            let validation_loss = if validates { self.course.validate()? } else { None };
            let point = RunPoint {
                step: done,
                at: now(),
                loss: Some(self.since.loss / self.since.steps as f64),
                validation_loss,
                tokens_per_second: (seconds > 0.0).then(|| self.since.tokens as f64 / seconds),
            };
            self.record.add(&point)?;
            self.run.reached(point);
            self.since = Since::new();
        } else {
            self.run.passed(done);
        }
        if is_due(self.job.checkpoint_every) {
            self.keep()?;
        }
        Ok(())
    }

    /// Makes all of it durable, and the model as it is a version.
    fn keep(&mut self) -> Result<(), TrainingError> {
        self.record.sync()?;
        if self.course.done() > 0 {
            self.add_version()?;
        }
        Ok(self.course.keep()?)
    }

    fn add_version(&self) -> Result<(), TrainingError> {
        let (step, weights) = (self.course.done(), self.course.weights_hash());
        record_version(self.run, step, weights, |folder| self.course.publish(folder))
    }
}
