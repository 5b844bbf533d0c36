//! What became of the answers of this head, in numbers.
//!
//! Counts since the process started, for people and their instruments; decides nothing. Of a request only sums are kept, so
//! the memory that it takes does not grow.

use crate::{
    api::{AnswerCounts, Summary},
    core::histogram::Histogram,
};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

/// Steps of waits for a first word, in microseconds: from a word that a small model has at once to the patience of
/// a person, and of a program.
const FIRST_WORD_US: &[u64] = &[
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
];

/// Steps of how long an event waits for its caller, in microseconds. Close together around 1 and 10 ms: half of all
/// should be quicker than the one, and 99 of 100 than the other.
const HANDING_ON_US: &[u64] = &[
    10, 25, 50, 100, 250, 500, 750, 1_000, 1_500, 2_500, 5_000, 7_500, 10_000, 25_000, 50_000,
    100_000, 1_000_000, 10_000_000,
];

/// Steps of speeds, in tokens in a thousand seconds: from a model that is too large to a small one.
const SPEEDS: &[u64] =
    &[500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000];

/// The counts of a head.
#[derive(Debug)]
pub(crate) struct Tally(Mutex<AnswerCounts>);

impl Default for Tally {
    fn default() -> Self {
        Self(Mutex::new(AnswerCounts {
            complete: 0,
            failed: 0,
            left: 0,
            prompt_tokens: 0,
            answer_tokens: 0,
            first_word_us: Histogram::new(FIRST_WORD_US),
            tokens_per_1000_s: Histogram::new(SPEEDS),
            handing_on_us: Histogram::new(HANDING_ON_US),
        }))
    }
}

impl Tally {
    /// The counts by now.
    pub(crate) fn counts(&self) -> AnswerCounts {
        self.lock().clone()
    }

    /// An answer's first word came.
    pub(crate) fn began(&self, after: Duration) {
        self.lock().first_word_us.add(micros(after));
    }

    /// A part of an answer was handed on to whoever carries it to its caller.
    pub(crate) fn handed_on(&self, after: Duration) {
        self.lock().handing_on_us.add(micros(after));
    }

    /// An answer came to its end, `told_for` after its first word, if it had one.
    pub(crate) fn completed(&self, summary: &Summary, told_for: Option<Duration>) {
        let mut counts = self.lock();
        counts.complete += 1;
        counts.prompt_tokens += u64::from(summary.prompt_tokens);
        counts.answer_tokens += u64::from(summary.completion_tokens);
        // The first token came with the first word, before the time began.
        let later = u64::from(summary.completion_tokens.saturating_sub(1));
        let nanos = told_for.map_or(0, |told| told.as_nanos()).max(1);
        if later > 0 {
            let speed = u128::from(later) * 1_000_000_000_000 / nanos;
            counts.tokens_per_1000_s.add(u64::try_from(speed).unwrap_or(u64::MAX));
        }
    }

    /// Vectors were made of so many tokens.
    pub(crate) fn embedded(&self, tokens: u64) {
        let mut counts = self.lock();
        counts.complete += 1;
        counts.prompt_tokens += tokens;
    }

    /// An answer broke off.
    pub(crate) fn failed(&self) {
        self.lock().failed += 1;
    }

    /// The caller left before the end.
    pub(crate) fn left(&self) {
        self.lock().left += 1;
    }

    fn lock(&self) -> MutexGuard<'_, AnswerCounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory that this process takes.
pub(crate) fn resident_bytes() -> Option<u64> {
    let own = sysinfo::get_current_pid().ok()?;
    let mut system = System::new().ok()?;
    let memory = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[own]), false, memory);
    system.process(own).map(|process| process.memory())
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
