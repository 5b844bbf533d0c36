//! The thread that trains a job's rounds and merges: one thing after the other, as the rounds ask.

use super::{Run, folder::Record, joint::Heard, record_version};
use crate::{
    api::{RunPoint, RunState, TrainingError},
    shell::now,
    wire::training::Progress,
};
use std::{
    sync::{
        Arc,
        mpsc::{Receiver, TryRecvError},
    },
    time::Instant,
};
use talka_base::{NodeId, WeightsHash};
use talka_train::{
    Member,
    assign::Assignment,
    member::{Begun, Offered},
    round::{Decision, Input, Outcome},
};
use tokio::sync::mpsc;

/// What the rounds ask for.
pub(super) enum Work {
    /// The state of this round, which is here, is the shared one from now on.
    Take(u64, WeightsHash),
    /// The same after a restart: nothing is new about it.
    Restore(u64, WeightsHash),
    /// Train a round until then.
    Train {
        round: u64,
        assignment: Assignment,
        until: Instant,
    },
    Merge(Decision),
    /// Say how much each contribution helped.
    Judge(Decision),
    Settle(u64, Outcome),
}

/// What was seen in the round that is trained.
struct Seen {
    began: Instant,
    /// Not known while it is trained ahead.
    until: Option<Instant>,
    steps: u64,
    tokens: u64,
    loss: f64,
}

impl Seen {
    fn new() -> Self {
        Self { began: Instant::now(), until: None, steps: 0, tokens: 0, loss: 0.0 }
    }
}

pub(super) struct Worker {
    run: Arc<Run>,
    member: Member,
    record: Record,
    me: NodeId,
    rounds: u64,
    to_rounds: mpsc::Sender<Heard>,
    seen: Option<Seen>,
    /// Of the last round that was trained here: its number, loss and tokens a second.
    last: Option<(u64, f64, f64)>,
}

impl Worker {
    pub(super) fn new(
        run: Arc<Run>,
        member: Member,
        record: Record,
        (me, rounds): (NodeId, u64),
        to_rounds: mpsc::Sender<Heard>,
    ) -> Self {
        Self { run, member, record, me, rounds, to_rounds, seen: None, last: None }
    }

    /// Works until nobody asks any more, or something fails, which the rounds are told.
    pub(super) fn all(mut self, asked: &Receiver<Work>) {
        let failed = loop {
            let work = if self.member.next().is_some() {
                match asked.try_recv() {
                    Ok(work) => Some(work),
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Disconnected) => return,
                }
            } else {
                match asked.recv() {
                    Ok(work) => Some(work),
                    Err(_) => return,
                }
            };
            let done = match work {
                Some(work) => self.perform(work),
                None => self.step(),
            };
            if let Err(error) = done {
                break error;
            }
        };
        self.say(Heard::Failed(failed.to_string()));
    }

    fn say(&self, heard: Heard) {
        // Whoever would hear it has ended.
        let _ = self.to_rounds.blocking_send(heard);
    }

    fn perform(&mut self, work: Work) -> Result<(), TrainingError> {
        match work {
            Work::Restore(round, weights) => {
                self.member.take(round, weights)?;
                // The node may have died before it said so.
                if round == self.rounds {
                    self.end(round)?;
                }
            }
            Work::Take(round, weights) => self.take(round, weights)?,
            Work::Train { round, assignment, until } => {
                self.finish()?;
                let seen = match self.member.begin(round, assignment)? {
                    Begun::Done(offered) => {
                        self.seen = None;
                        self.offer(offered);
                        return Ok(());
                    }
                    Begun::Ahead => self.seen.take(),
                    Begun::Anew => None,
                };
                self.seen = Some(Seen { until: Some(until), ..seen.unwrap_or_else(Seen::new) });
            }
            Work::Merge(decision) => {
                let weights = self.member.merge(&decision)?;
                let decision = decision.hash();
                self.say(Heard::Input(Input::Merged { decision, weights }));
            }
            Work::Judge(decision) => {
                let lowered = self.member.judge(&decision)?;
                let millionths = |nats: f64| (nats * 1e6) as i64;
                let lowered = lowered.map(|all| all.into_iter().map(millionths).collect());
                self.say(Heard::Judged(decision, lowered));
            }
            Work::Settle(round, outcome) => self.member.settle(round, outcome)?,
        }
        Ok(())
    }

    /// A step of the round that is trained, or its end; or a step ahead.
    fn step(&mut self) -> Result<(), TrainingError> {
        let round = self.member.next().unwrap_or(1);
        let seen = self.seen.get_or_insert_with(Seen::new);
        let is_over = seen.until.is_some_and(|until| Instant::now() >= until);
        let report = if is_over { None } else { self.member.step()? };
        let Some(report) = report else { return self.finish() };
        seen.steps += 1;
        seen.tokens += report.tokens as u64;
        seen.loss += report.loss;
        self.run.passed(self.member.step_of(round - 1) + seen.steps);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), TrainingError> {
        let Some(offered) = self.member.finish()? else { return Ok(()) };
        if let Some(seen) = self.seen.take().filter(|seen| seen.steps > 0) {
            let loss = seen.loss / seen.steps as f64;
            let tokens_per_second = seen.tokens as f64 / seen.began.elapsed().as_secs_f64();
            self.last = Some((offered.round, loss, tokens_per_second));
            let progress = Progress {
                round: offered.round,
                loss_millionths: (loss * 1e6) as u64,
                tokens_per_second: tokens_per_second as u64,
            };
            self.say(Heard::Progress(self.me, progress));
        }
        self.offer(offered);
        Ok(())
    }

    fn offer(&self, offered: Offered) {
        let Offered { round, samples, update, .. } = offered;
        self.say(Heard::Input(Input::Trained { round, samples, update }));
    }

    fn take(&mut self, round: u64, weights: WeightsHash) -> Result<(), TrainingError> {
        self.finish()?;
        self.member.take(round, weights)?;
        let (step, before) =
            (self.member.step_of(round), self.member.step_of(round.saturating_sub(1)));
        let is_last = round == self.rounds;
        let is_due = |every: u64| is_last || round == 0 || step / every > before / every;
        let validates = is_due(self.run.job.validate_every);
        let validation_loss = if validates { self.member.validate()? } else { None };
        let own = self.last.take_if(|(trained, ..)| *trained == round);
        let point = RunPoint {
            step,
            at: now(),
            loss: own.map(|(_, loss, _)| loss),
            validation_loss,
            tokens_per_second: own.map(|(.., speed)| speed),
        };
        if point.loss.is_some() || point.validation_loss.is_some() {
            self.record.add(&point)?;
            self.run.reached(point);
        }
        if is_last {
            self.end(round)
        } else if round > 0 && is_due(self.run.job.checkpoint_every) {
            self.add_version(round)
        } else {
            Ok(())
        }
    }

    fn add_version(&mut self, round: u64) -> Result<(), TrainingError> {
        self.record.sync()?;
        let (step, weights) = (self.member.step_of(round), self.member.weights_hash());
        record_version(&self.run, step, weights, |folder| self.member.publish(folder))
    }

    fn end(&mut self, round: u64) -> Result<(), TrainingError> {
        self.add_version(round)?;
        self.run.enter(RunState::Done, None);
        Ok(())
    }
}
