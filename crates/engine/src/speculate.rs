//! Guessing ahead: several tokens are checked in one pass through the layers.
//!
//! A pass over a few rows costs little more than over one where reading weights, or the way to other
//! nodes, is what takes time. So somebody guesses the next tokens, the model computes logits after
//! each, and the [`Chooser`] draws as ever: as long as it draws what was guessed, the
//! next row counts as well. Answers follow the same distribution as without guesses, and at
//! temperature 0, or with looked-up guesses, they are the same tokens ([`crate::Sampler::verify`]).
//!
//! Decides how many tokens to guess ([`Speculation`], a pure rule that turns itself off where it does
//! not pay) and what they are: [`LookUp`] finds them in what was said before (Saxena's prompt
//! lookup), a [`Drafter`] asks a smaller model with the same vocabulary (Leviathan et al. 2023).

use crate::{
    choose::Chooser,
    error::StageError,
    generate::Pipeline,
    sample::{Guess, Sampler},
    stage::{LogitsWanted, StageOutput},
};

/// Most guesses of one pass.
pub const GUESSES_MAX: usize = 16;

/// What one more row costs, as a part of a pass over one row, before passes were timed. Between 0.05
/// (1.2 B parameters, two threads) and 0.4 (2.6 M) on one machine, and the less the longer the way.
const ROW_COST: f64 = 0.2;
/// Bounds of what is measured. With the highest, guesses that are nearly always right still pay, so that one
/// slow pass does not end all guessing.
const ROW_COST_MIN: f64 = 0.01;
const ROW_COST_MAX: f64 = 0.6;

/// How much the newest time counts against all before.
const NEWEST_TIME: f64 = 0.2;

/// How much the newest guess counts against all before: the rule forgets half in about 14 guesses.
const NEWEST: f64 = 0.05;

/// How often a guess is accepted before anybody knows.
const ACCEPTED_AT_FIRST: f64 = 0.5;

/// Passes without a drafter's guesses before it is tried again.
const PASSES_OFF: u32 = 64;

/// How long passes take: averages of recent ones, in seconds.
#[derive(Debug, Clone, Default)]
struct Pace {
    /// A pass over one row, with the way to other nodes and back.
    one_row: Option<f64>,
    /// What each further row adds.
    more: Option<f64>,
}

impl Pace {
    fn record(&mut self, guesses: usize, took: f64) {
        let average = |old: &mut Option<f64>, new: f64| {
            *old = Some(old.map_or(new, |old| old + NEWEST_TIME * (new - old)));
        };
        match self.one_row {
            _ if guesses == 0 => average(&mut self.one_row, took),
            Some(one_row) => average(&mut self.more, (took - one_row).max(0.0) / guesses as f64),
            None => {}
        }
    }

    /// What one more row costs, as a part of a pass over one row.
    fn row_cost(&self) -> f64 {
        match (self.one_row, self.more) {
            (Some(one_row), Some(more)) if one_row > 0.0 => {
                (more / one_row).clamp(ROW_COST_MIN, ROW_COST_MAX)
            }
            _ => ROW_COST,
        }
    }
}

/// How many tokens to guess: from how often guesses were right, and what they cost.
#[derive(Debug, Clone)]
pub struct Speculation {
    /// Estimated chance that a guess after a right one is right.
    accepted: f64,
    /// Cost of one guess on top of its row, as a part of a pass on one machine.
    guess_cost: f64,
    /// Passes since guesses were last wanted.
    off: u32,
    pace: Pace,
}

impl Speculation {
    /// A rule for guesses that each cost `guess_cost` passes over one row on one machine: 0 for looking
    /// up.
    pub fn new(guess_cost: f64) -> Self {
        Self { accepted: ACCEPTED_AT_FIRST, guess_cost, off: 0, pace: Pace::default() }
    }

    /// Takes in that a pass with `guesses` took so many seconds, from the head and back.
    pub fn took(&mut self, guesses: usize, seconds: f64) {
        self.pace.record(guesses, seconds);
    }

    /// How many guesses pay best now, at most [`GUESSES_MAX`]; 0 is off.
    ///
    /// With chance `a` for each, `k` guesses give `1 + a + … + a^k` tokens for `1 + k × cost` passes.
    pub fn guesses(&self) -> usize {
        // Where the way takes most of the time, rows and guesses are a smaller part of it.
        let row = self.pace.row_cost();
        let cost = row + self.guess_cost * row / ROW_COST;
        let (mut best, mut tokens, mut chance) = ((0, 1.0), 1.0, 1.0);
        for guesses in 1..=GUESSES_MAX {
            chance *= self.accepted;
            tokens += chance;
            let gain = tokens / (1.0 + guesses as f64 * cost);
            if gain > best.1 {
                best = (guesses, gain);
            }
        }
        best.0
    }

    /// Takes in that of `guessed` tokens the first `right` were what came. Also counts for guesses
    /// that no pass was spent on.
    pub fn record(&mut self, guessed: usize, right: usize) {
        for at in 0..guessed.min(right + 1) {
            let seen = if at < right { 1.0 } else { 0.0 };
            self.accepted += NEWEST * (seen - self.accepted);
        }
    }

    /// Counts a pass without guesses, where guesses themselves cost too much to go on making them:
    /// after some time they are tried again.
    fn rest(&mut self) {
        self.off += 1;
        if self.off >= PASSES_OFF {
            *self = Self { pace: self.pace.clone(), ..Self::new(self.guess_cost) };
        }
    }
}

/// Shortest and longest run of tokens that is looked for. One token alone says little.
const RUN_MIN: usize = 2;
const RUN_MAX: usize = 4;

/// Tokens that are searched at most: beyond, the newest count. Bounds the work per pass.
const SEARCHED_MAX: usize = 8_192;

/// Guesses that what was said before is said again.
#[derive(Debug, Clone)]
pub struct LookUp {
    rule: Speculation,
    /// What was last guessed and not computed, to see whether it would have paid.
    idle: Vec<u32>,
}

impl Default for LookUp {
    fn default() -> Self {
        Self { rule: Speculation::new(0.0), idle: Vec::new() }
    }
}

impl LookUp {
    /// What may follow `said` (prompt and answer, all but the guesses), at most `most` tokens; none
    /// where it does not pay.
    pub fn guess(&mut self, said: &[u32], most: usize) -> Vec<Guess> {
        self.watch(said);
        let wanted = self.rule.guesses();
        let found = follows(said, wanted.clamp(1, GUESSES_MAX));
        if wanted == 0 {
            // Looking costs nothing: so it is known when guesses would pay again.
            self.idle = found.first().map(|token| vec![*token]).unwrap_or_default();
            return Vec::new();
        }
        let guess = |token: &u32| Guess { token: *token, drawn_from: None };
        found.iter().take(most).map(guess).collect()
    }

    /// Takes in how a guess went.
    pub fn record(&mut self, guessed: usize, right: usize) {
        self.rule.record(guessed, right);
    }

    /// Compares the guess that was not used with what came.
    fn watch(&mut self, said: &[u32]) {
        if let (Some(guess), Some(came)) = (self.idle.pop(), said.last()) {
            self.rule.record(1, usize::from(guess == *came));
        }
    }
}

/// What followed, the last time, the longest run that `said` ends with: at most `most` tokens.
fn follows(said: &[u32], most: usize) -> &[u32] {
    let said = &said[said.len().saturating_sub(SEARCHED_MAX)..];
    for length in (RUN_MIN..=RUN_MAX).rev() {
        let Some(start) = said.len().checked_sub(length).filter(|start| *start > 0) else {
            continue;
        };
        let run = &said[start..];
        // Not the run itself: it ends where nothing follows yet.
        let mut before = said[..said.len() - 1].windows(length);
        if let Some(at) = before.rposition(|window| window == run) {
            let next = &said[at + length..];
            return &next[..next.len().min(most)];
        }
    }
    &[]
}

/// A smaller model with the same vocabulary that guesses what a bigger one will say.
#[derive(Debug)]
pub struct Drafter {
    pipeline: Pipeline,
    /// The tokens that the pipeline's cache holds.
    held: Vec<u32>,
    rule: Speculation,
}

impl Drafter {
    /// Drafts with `pipeline`, one of whose tokens costs `guess_cost` of the bigger model's.
    pub fn new(pipeline: Pipeline, guess_cost: f64) -> Self {
        Self { pipeline, held: Vec::new(), rule: Speculation::new(guess_cost) }
    }

    /// What may follow `said`, at most `most` tokens, drawn by `sampler`; none where it does not pay
    /// or the model's context is full.
    ///
    /// # Errors
    /// [`StageError`] if the draft model refuses: its vocabulary is another one.
    pub fn guess(
        &mut self,
        said: &[u32],
        mut sampler: Sampler,
        most: usize,
    ) -> Result<Vec<Guess>, StageError> {
        let wanted = self.rule.guesses().min(most);
        let room = (self.pipeline.positions_max() as usize).saturating_sub(said.len());
        if self.rule.guesses() == 0 {
            self.rule.rest();
        }
        let mut guesses = Vec::new();
        if wanted == 0 || wanted > room || said.is_empty() {
            return Ok(guesses);
        }
        let mut input = self.catch_up(said);
        while guesses.len() < wanted {
            let output = self.pipeline.run(&input, LogitsWanted::Last)?;
            self.held.extend(&input);
            let StageOutput::Logits(mut logits) = output else {
                unreachable!("a whole model asked for logits returns them")
            };
            let guess = sampler.guess(&mut logits);
            input = vec![guess.token];
            guesses.push(guess);
        }
        Ok(guesses)
    }

    /// Takes in how a guess went.
    pub fn record(&mut self, guessed: usize, right: usize) {
        self.rule.record(guessed, right);
    }

    /// Forgets what was guessed wrongly; returns what of `said` is still to be run, at least its
    /// last token.
    fn catch_up(&mut self, said: &[u32]) -> Vec<u32> {
        let common = self.held.iter().zip(said).take_while(|(a, b)| a == b).count();
        let common = common.min(said.len() - 1);
        self.held.truncate(common);
        self.pipeline.truncate(common as u32);
        said[common..].to_vec()
    }
}

/// Whoever guesses for an answer.
#[derive(Debug)]
pub enum Guesser {
    /// Nobody.
    None,
    /// What was said before.
    LookUp(LookUp),
    /// A smaller model.
    Drafter(Box<Drafter>),
}

impl Guesser {
    /// What may follow `said` (prompt and answer), at most `most` tokens, all of which the grammar of
    /// `chooser` allows.
    ///
    /// # Errors
    /// [`StageError`] if a draft model refuses.
    pub fn guess(
        &mut self,
        said: &[u32],
        chooser: &mut Chooser,
        most: usize,
    ) -> Result<Vec<Guess>, StageError> {
        let mut guesses = match self {
            Self::None => Vec::new(),
            Self::LookUp(look_up) => look_up.guess(said, most),
            Self::Drafter(drafter) => drafter.guess(said, chooser.guessing(), most)?,
        };
        chooser.keep_allowed(&mut guesses);
        Ok(guesses)
    }

    /// Takes in that a pass with `guesses` took so many seconds: where it is long, more guesses pay.
    pub fn took(&mut self, guesses: usize, seconds: f64) {
        match self {
            Self::None => {}
            Self::LookUp(look_up) => look_up.rule.took(guesses, seconds),
            Self::Drafter(drafter) => drafter.rule.took(guesses, seconds),
        }
    }

    /// Takes in that of `guessed` tokens the first `right` were chosen.
    pub fn record(&mut self, guessed: usize, right: usize) {
        match self {
            Self::None => {}
            Self::LookUp(look_up) => look_up.record(guessed, right),
            Self::Drafter(drafter) => drafter.record(guessed, right),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_said_before_is_guessed_again() {
        let check = |said: &[u32], most: usize, expected: &[u32]| {
            assert_eq!(follows(said, most), expected, "{said:?}");
        };
        check(&[1, 2, 3, 4, 1, 2], 8, &[3, 4, 1, 2]);
        check(&[1, 2, 3, 4, 1, 2], 1, &[3]);
        // The longest run counts, then the newest.
        check(&[9, 1, 2, 5, 8, 1, 2, 6, 9, 1, 2], 1, &[5]);
        check(&[1, 2, 5, 1, 2, 6, 1, 2], 1, &[6]);
        check(&[7, 7, 7, 7], 3, &[7]);
        check(&[1, 2, 3], 8, &[]);
        check(&[1, 1], 8, &[]);
        check(&[], 8, &[]);
    }

    #[test]
    fn the_rule_guesses_more_the_more_is_right_and_stops_when_nothing_is() {
        let mut rule = Speculation::new(0.0);
        assert!(rule.guesses() > 0, "it begins hopefully");
        for _ in 0..100 {
            rule.record(4, 4);
        }
        assert_eq!(rule.guesses(), GUESSES_MAX);
        for _ in 0..100 {
            rule.record(4, 0);
        }
        assert_eq!(rule.guesses(), 0);
        // A guess that costs as much as it saves is never made.
        let mut dear = Speculation::new(1.0);
        dear.record(100, 100);
        assert_eq!(dear.guesses(), 0);
    }

    #[test]
    fn the_longer_the_way_the_more_is_guessed() {
        let guesses = |way_s: f64| {
            let mut rule = Speculation::new(0.0);
            (0..20).for_each(|_| rule.record(4, 2));
            for _ in 0..20 {
                rule.took(0, way_s + 0.010);
                rule.took(4, way_s + 0.010 + 4.0 * 0.003);
            }
            rule.guesses()
        };
        assert!(guesses(0.0) < guesses(0.020));
        assert!(guesses(0.020) < guesses(0.200));
        // One slow pass is no reason to stop for good.
        let mut rule = Speculation::new(0.0);
        rule.took(0, 0.010);
        rule.took(1, 9.0);
        (0..100).for_each(|_| rule.record(1, 1));
        assert!(rule.guesses() > 0);
    }

    #[test]
    fn a_look_up_that_is_off_comes_back_when_it_would_pay() {
        let mut look_up = LookUp::default();
        for _ in 0..100 {
            look_up.record(4, 0);
        }
        let mut said: Vec<u32> = vec![1, 2, 3];
        assert!(look_up.guess(&said, 8).is_empty());
        let mut passes = 0;
        while look_up.guess(&said, 8).is_empty() {
            said.push(said[said.len() - 3]);
            passes += 1;
            assert!(passes < 200, "it never comes back");
        }
        assert!(passes > 5, "one lucky guess is not enough");
    }

    #[test]
    fn a_drafter_that_is_off_is_tried_again() {
        let mut rule = Speculation::new(0.1);
        (0..100).for_each(|_| rule.record(1, 0));
        (0..PASSES_OFF).for_each(|_| rule.rest());
        assert!(rule.guesses() > 0);
    }

    proptest! {
        /// A guess always is what followed its run somewhere before.
        #[test]
        fn guesses_are_quotations(said in prop::collection::vec(0_u32..4, 0..60), most in 0_usize..9) {
            let found = follows(&said, most);
            prop_assert!(found.len() <= most);
            if let Some(first) = found.first() {
                let mut quoted = said[said.len() - RUN_MIN..].to_vec();
                quoted.push(*first);
                prop_assert!(said.windows(RUN_MIN + 1).any(|window| window == quoted));
            }
        }

        #[test]
        fn the_estimate_stays_a_chance(outcomes in prop::collection::vec((0_usize..9, 0_usize..9), 0..200)) {
            let mut rule = Speculation::new(0.0);
            for (guessed, right) in outcomes {
                rule.record(guessed, right.min(guessed));
                prop_assert!((0.0..=1.0).contains(&rule.accepted));
                prop_assert!(rule.guesses() <= GUESSES_MAX);
            }
        }
    }
}
