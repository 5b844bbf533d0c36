//! Rounds of a run: every member trains, what they learned is sent, and all take the step that follows from it.

use crate::fate::{Fate, Fates};
use crate::lie::Lie;
use crate::material::{LENGTH, Material, ROWS};
use serde_json::{Value, json};
use std::{collections::VecDeque, time::Instant};
use talka_engine::kernels::{Kernels, ThreadPool};
use talka_train::assign::Assignment;
use talka_train::{
    Batch, Compressor, Feedback, Fragments, Outer, Part, Rule, Said, Shared, TrainConfig,
    TrainError, Trainer,
};

/// All that makes a run, but for its material.
pub struct Settings {
    pub members: usize,
    /// Of each member.
    pub steps: u64,
    /// Steps of a round.
    pub every: u64,
    pub seed: u64,
    pub is_synchronous: bool,
    pub compressor: Compressor,
    pub decay: f32,
    pub outer: Outer,
    pub rule: Rule,
    /// Each round exchanges one of so many parts of the model.
    pub fragments: usize,
    /// Steps of a round that are done before what others learned in the one before is here.
    pub ahead: u64,
    pub fates: Fates,
    pub liars: usize,
    pub lie: Lie,
    /// On the way.
    pub looks: u64,
    pub threads: usize,
    pub config: TrainConfig,
}

/// A run under way.
pub struct Run {
    settings: Settings,
    material: Material,
    fragments: Fragments,
    shared: Shared,
    members: Vec<Member>,
    /// Of the stream, the place at which the next round begins.
    base: u64,
    rounds: u64,
    /// Merged ones.
    tokens: u64,
    /// Sent by all.
    bytes: u64,
    refused: usize,
    curve: Vec<(u64, f64)>,
}

struct Member {
    trainer: Trainer,
    /// Of each fragment.
    feedback: Vec<Feedback>,
    /// Its weights at the end of the last round, with what it sent of the fragment exchanged; empty if there was none, or they do not matter.
    own: Vec<f32>,
    sent: VecDeque<Vec<u8>>,
}

/// What a member sent, and what it weighs.
struct Update {
    bytes: Vec<u8>,
    tokens: u64,
}

impl Run {
    pub fn new(settings: Settings, material: Material) -> Result<Self, String> {
        let weights = material.weights(settings.seed);
        let trainer = || {
            let kernels = Kernels::detect(ThreadPool::new(settings.threads));
            Trainer::new(settings.config.clone(), weights.clone(), kernels)
        };
        let fragments = Fragments::of(trainer().map_err(text)?.parameters(), settings.fragments);
        let member = |_| {
            let trainer = trainer().map_err(text)?;
            let feedback = nothing_carried(&fragments, settings.decay);
            Ok(Member { trainer, feedback, own: Vec::new(), sent: VecDeque::new() })
        };
        let count = if settings.is_synchronous { 1 } else { settings.members };
        let members = (0..count).map(member).collect::<Result<_, String>>()?;
        let shared = Shared::new(weights.clone());
        let (base, rounds, tokens, bytes, refused, curve) = (0, 0, 0, 0, 0, Vec::new());
        Ok(Self {
            settings,
            material,
            fragments,
            shared,
            members,
            base,
            rounds,
            tokens,
            bytes,
            refused,
            curve,
        })
    }

    /// Trains as many tokens as all members have steps for.
    pub fn finish(mut self) -> Result<Value, String> {
        let start = Instant::now();
        let mut diverged = None;
        while self.position() < self.settings.steps && diverged.is_none() {
            let steps = self.settings.every.min(self.settings.steps - self.position());
            let done = if self.settings.is_synchronous {
                self.synchronous(steps)
            } else {
                self.round(steps)
            };
            match done {
                Err(Stop::Diverged(error)) => diverged = Some(error.to_string()),
                Err(Stop::Wrong(error)) => return Err(error),
                Ok(()) => self.look()?,
            }
        }
        let loss = match diverged {
            None => Some(self.loss(self.material.validation())?),
            Some(_) => None,
        };
        Ok(self.report(loss, diverged, start.elapsed().as_secs_f64()))
    }

    /// Steps that a member has done by the tokens merged, so that whoever is away holds up the schedule too.
    fn position(&self) -> u64 {
        self.tokens / (self.settings.members * ROWS * LENGTH) as u64
    }

    /// One model on the batches that all members would have had.
    fn synchronous(&mut self, steps: u64) -> Result<(), Stop> {
        let rows = (self.settings.members * ROWS) as u64;
        for _ in 0..steps {
            let places: Vec<u64> = (self.base..self.base + rows).collect();
            let batch = self.material.windows(self.settings.seed, &places)?;
            self.tokens += self.members[0].trainer.step(&batch)?.tokens as u64;
            self.base += rows;
        }
        self.shared = Shared::new(self.members[0].trainer.weights().to_vec());
        self.rounds += 1;
        Ok(())
    }

    fn round(&mut self, steps: u64) -> Result<(), Stop> {
        let mut updates = Vec::new();
        for member in 0..self.members.len() {
            updates.extend(self.update(member, steps)?);
        }
        self.bytes += updates.iter().map(|update| update.bytes.len() as u64).sum::<u64>();
        self.merge(&updates)?;
        self.base += (self.settings.members as u64) * steps * ROWS as u64;
        self.rounds += 1;
        Ok(())
    }

    /// What a member sends in this round, if it does.
    fn update(&mut self, number: usize, steps: u64) -> Result<Option<Update>, Stop> {
        let fate = self.settings.fates.of(number, self.rounds);
        let steps = match fate {
            Fate::Trains { slower } => steps.div_ceil(slower),
            Fate::CutOff => steps,
            Fate::Dead => {
                let member = &mut self.members[number];
                member.trainer.reset_moments();
                member.feedback = nothing_carried(&self.fragments, self.settings.decay);
                member.own.clear();
                return Ok(None);
            }
        };
        let position = self.position();
        let tokens = self.train(number, position, steps)?;
        let member = &mut self.members[number];
        let fragment = self.fragments.of_round(self.rounds);
        let feedback = &mut member.feedback[self.fragments.number(self.rounds)];
        let anchor = fragment.gather(self.shared.anchor());
        let pairs = anchor.iter().zip(fragment.gather(member.trainer.weights()));
        let mut learned: Vec<f32> = pairs.map(|(anchor, own)| anchor - own).collect();
        let lie = (number < self.settings.liars).then_some(self.settings.lie);
        if let Some(lie) = lie {
            lie.learned(&mut learned);
        }
        let compressor = self.settings.compressor;
        let sent = feedback.send(compressor, &fragment.layout, &learned);
        let mut bytes = sent.map_err(text)?;
        if self.settings.ahead > 0 || self.settings.fragments > 1 {
            // As if this member's update alone were merged.
            let sent = compressor.read(&fragment.layout, &bytes).map_err(text)?;
            let merged = anchor.iter().zip(&sent).map(|(anchor, sent)| anchor - sent);
            member.own = member.trainer.weights().to_vec();
            fragment.scatter(&merged.collect::<Vec<_>>(), &mut member.own);
        }
        if fate == Fate::CutOff {
            feedback.take_back(compressor, &fragment.layout, &bytes).map_err(text)?;
            return Ok(None);
        }
        if let Some(lie) = lie {
            lie.bytes(&mut bytes, &mut member.sent);
        }
        Ok(Some(Update { bytes, tokens }))
    }

    /// A member's steps of a round; says on how many tokens.
    fn train(&mut self, number: usize, position: u64, steps: u64) -> Result<u64, Stop> {
        let start = self.start(number);
        let Member { trainer, own, .. } = &mut self.members[number];
        let ahead = if own.is_empty() { 0 } else { self.settings.ahead.min(steps) };
        trainer.set_weights(if ahead > 0 { own } else { &start })?;
        trainer.set_steps(position);
        let mut tokens = 0;
        for step in 0..steps {
            if step == ahead && ahead > 0 {
                let Member { trainer, own, .. } = &mut self.members[number];
                let learned = trainer.weights().iter().zip(own);
                let weights = start.iter().zip(learned);
                let weights: Vec<f32> =
                    weights.map(|(start, (now, from))| start + (now - *from)).collect();
                trainer.set_weights(&weights)?;
            }
            let batch = self.batch(number, position, step, steps)?;
            tokens += self.members[number].trainer.step(&batch)?.tokens as u64;
        }
        Ok(tokens)
    }

    /// What a member goes on from once the round before is merged.
    fn start(&self, number: usize) -> Vec<f32> {
        let own = &self.members[number].own;
        if own.is_empty() || self.rounds == 0 {
            return self.shared.anchor().to_vec();
        }
        let mut start = own.clone();
        self.fragments.of_round(self.rounds - 1).copy(self.shared.anchor(), &mut start);
        start
    }

    /// What a member trains in the round's step.
    fn batch(&self, member: usize, position: u64, step: u64, quota: u64) -> Result<Batch, Stop> {
        let Settings { members, steps, seed, .. } = self.settings;
        if let Some(drawn) = self.material.drawn(member, position + step, steps) {
            return Ok(drawn?);
        }
        let assignment = Assignment {
            base: self.base,
            seats: members as u64,
            seat: member as u64,
            quota: quota * ROWS as u64,
        };
        let first = step * ROWS as u64;
        let places: Vec<u64> =
            (first..first + ROWS as u64).filter_map(|index| assignment.place(index)).collect();
        Ok(self.material.windows(seed, &places)?)
    }

    /// The step that all take, from what can be read of the updates.
    fn merge(&mut self, updates: &[Update]) -> Result<(), Stop> {
        let Settings { compressor, outer, rule, .. } = self.settings;
        let fragment = self.fragments.of_round(self.rounds);
        let read = |update: &Update| {
            compressor
                .read(&fragment.layout, &update.bytes)
                .ok()
                .map(|values| (values, update.tokens))
        };
        let good: Vec<(Vec<f32>, u64)> = updates.iter().filter_map(read).collect();
        self.refused += updates.len() - good.len();
        let parts: Vec<_> =
            good.iter().map(|(values, tokens)| Part { values, tokens: *tokens }).collect();
        let mut part = self.shared.gather(fragment);
        part.step(outer, rule, Said::Learned, &parts).map_err(text)?;
        self.shared.scatter(fragment, &part);
        // Those of liars and of refused updates too: the schedule goes by rounds.
        self.tokens += updates.iter().map(|update| update.tokens).sum::<u64>();
        Ok(())
    }

    /// A look at the loss, when one is due.
    fn look(&mut self) -> Result<(), String> {
        let due = self.curve.len() as u64 + 1;
        if self.settings.looks > 0
            && self.position() * self.settings.looks >= due * self.settings.steps
        {
            let loss = self.loss(self.material.glance())?;
            eprintln!("{} steps: {loss:.4}", self.position());
            self.curve.push((self.position(), loss));
        }
        Ok(())
    }

    fn loss(&self, batches: &[Batch]) -> Result<f64, String> {
        let kernels = Kernels::detect(ThreadPool::new(self.settings.threads));
        let weights = self.shared.anchor().to_vec();
        let trainer = Trainer::new(self.settings.config.clone(), weights, kernels);
        trainer.and_then(|trainer| trainer.evaluate(batches)).map_err(text)
    }

    fn report(&self, loss: Option<f64>, diverged: Option<String>, seconds: f64) -> Value {
        let layout = &self.fragments.of_round(0).layout;
        let update = self.settings.compressor.bytes(layout);
        let sent = self.bytes / self.settings.members as u64;
        let parameters = self.shared.anchor().len();
        let data_parallel = 4 * parameters as u64 * self.position();
        let fewer = data_parallel as f64 / sent as f64;
        json!({
            "validation_loss": loss,
            "diverged": diverged,
            "rounds": self.rounds,
            "tokens": self.tokens,
            "parameters": parameters,
            "update_bytes": update,
            "bits_a_parameter": 8.0 * update as f64 / layout.len() as f64,
            "bytes_of_a_member": sent,
            "fewer_than_data_parallel": fewer.is_finite().then_some(fewer),
            "refused": self.refused,
            "curve": self.curve,
            "weights": self.shared.hash().to_string(),
            "seconds": seconds,
        })
    }
}

fn nothing_carried(fragments: &Fragments, decay: f32) -> Vec<Feedback> {
    let feedback = |round| Feedback::new(fragments.of_round(round).layout.len(), decay);
    (0..fragments.count()).map(feedback).collect()
}

/// Why a run ends before its time.
enum Stop {
    /// A member's training, which is a result.
    Diverged(TrainError),
    /// Anything else, which is none.
    Wrong(String),
}

impl From<TrainError> for Stop {
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::Diverged { .. } => Self::Diverged(error),
            other => Self::Wrong(other.to_string()),
        }
    }
}

impl From<String> for Stop {
    fn from(error: String) -> Self {
        Self::Wrong(error)
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{settings, words::Words};
    use std::path::Path;

    const TEXT: &str = "To be, or not to be, that is the question: whether 'tis nobler to suffer. ";

    /// What a run of these words says, on a text of a few thousand characters.
    fn report(words: &str) -> Value {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("text.txt");
        std::fs::write(&path, TEXT.repeat(100)).expect("written");
        run(&path, words).expect("runs")
    }

    fn run(path: &Path, words: &str) -> Result<Value, String> {
        let words = Words(words.split(' ').map(str::to_owned).collect());
        let material = Material::text(path).map_err(text)?;
        Run::new(settings(&words, &material)?, material)?.finish()
    }

    fn loss(report: &Value) -> f64 {
        report["validation_loss"].as_f64().expect("a number")
    }

    /// Alone there is nobody to merge with: only what subtracting and adding rounds differs.
    #[test]
    fn one_member_trains_as_if_there_were_no_rounds() {
        let rounds = report("members=1 steps=6 every=2 curve=2");
        let straight = report("members=1 steps=6 synchronous");
        let (found, expected) = (loss(&rounds), loss(&straight));
        assert!((found - expected).abs() < 1e-3 * expected, "{found} {expected}");
        assert_eq!(rounds["tokens"], 6 * 12 * 64);
        assert_eq!(rounds["bytes_of_a_member"], 3 * rounds["update_bytes"].as_u64().expect("some"));
        assert_eq!(rounds["curve"].as_array().expect("a row").len(), 2);
    }

    /// Alone, what is trained ahead or in fragments is what would have been trained anyway.
    #[test]
    fn one_member_loses_nothing_by_going_ahead() {
        let expected = loss(&report("members=1 steps=6 synchronous"));
        for words in ["ahead=1", "fragments=2", "ahead=2 fragments=2"] {
            let found = report(&format!("members=1 steps=6 every=2 curve=0 {words}"));
            // What is not exchanged yet is not in the anchor.
            let allowed = if words == "ahead=1" { 1e-3 } else { 0.05 } * expected;
            assert!((loss(&found) - expected).abs() < allowed, "{words}: {found} {expected}");
        }
        assert_ne!(loss(&report("members=2 steps=6 every=2 ahead=1")), expected);
    }

    /// What cannot be read counts for nothing, so the honest ones come to what they come to alone.
    #[test]
    fn no_numbers_are_refused_and_other_lies_are_not() {
        let quiet = "members=3 steps=2 every=1 curve=0";
        let lies = |lie: &str| report(&format!("{quiet} liars=1 lie={lie}"));
        assert_eq!((&lies("nan")["refused"], &lies("nan")["rounds"]), (&2.into(), &2.into()));
        for lie in ["flip", "hundred"] {
            let lied = lies(lie);
            assert_eq!(lied["refused"], 0);
            assert_ne!(lied["weights"], report(quiet)["weights"], "{lie}");
        }
    }

    /// Whoever is away holds up the run, not its amount; and the same seed gives the same run.
    #[test]
    fn a_disturbed_run_trains_as_many_tokens() {
        let disturbed = || report("members=4 steps=4 every=1 curve=0 churn compressor=sparse");
        let once = disturbed();
        assert_eq!(once["weights"], disturbed()["weights"]);
        let tokens = once["tokens"].as_u64().expect("some");
        assert!((4 * 4 * 12 * 64..6 * 4 * 12 * 64).contains(&tokens), "{tokens}");
        assert!(once["rounds"].as_u64().expect("some") > 4);
    }
}
