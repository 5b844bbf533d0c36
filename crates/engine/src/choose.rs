//! One token of an answer from one row of logits, with everything that a request may say about it.
//!
//! Decides in which order the rules act: grammar and least length forbid tokens, then the
//! [`Sampler`] draws, then it is seen whether the answer ends. The same for a whole generation in
//! one process and for a node that gets its logits from others. Never decides which rows are
//! computed, and knows no text.

use crate::{
    grammar::{GrammarError, GrammarState},
    logprobs::TokenLogProbs,
    sample::{Guess, Sampler, SamplingParams},
};

/// What a request says about its tokens.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ChoiceRules {
    /// How to draw.
    pub sampling: SamplingParams,
    /// No token of end before this many others.
    pub min_tokens: u32,
    /// Tokens of end are tokens like others.
    pub ignore_end: bool,
    /// Report log-probabilities, with this many alternatives.
    pub logprobs: Option<u8>,
}

/// A token of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The token.
    pub token: u32,
    /// How likely it was, if the rules ask.
    pub logprobs: Option<TokenLogProbs>,
    /// Whether the answer is complete, and how.
    pub end: Option<ChoiceEnd>,
}

/// How a choice completes an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChoiceEnd {
    /// The token says so and is not part of the answer.
    Token,
    /// The token is the last that the grammar allows.
    Grammar,
}

/// The state of one answer's choices.
#[derive(Debug)]
pub struct Chooser {
    sampler: Sampler,
    grammar: Option<GrammarState>,
    ends: Vec<u32>,
    /// Choices that are still to come before an end may.
    before_end: u32,
    ignore_end: bool,
    logprobs: Option<u8>,
}

impl Chooser {
    /// For an answer to `prompt` by a model whose tokens of end are `ends`. A grammar overrules
    /// `min_tokens` and `ignore_end` where nothing else may follow.
    pub fn new(
        rules: ChoiceRules,
        prompt: &[u32],
        ends: &[u32],
        grammar: Option<GrammarState>,
    ) -> Self {
        Self {
            sampler: Sampler::new(rules.sampling, prompt),
            grammar,
            ends: ends.to_vec(),
            before_end: rules.min_tokens,
            ignore_end: rules.ignore_end,
            logprobs: rules.logprobs,
        }
    }

    /// Whether the draws are the likeliest tokens.
    pub fn is_greedy(&self) -> bool {
        self.sampler.is_greedy()
    }

    /// A sampler to guess this answer's next tokens with.
    pub fn guessing(&mut self) -> Sampler {
        self.sampler.fork()
    }

    /// Leaves of `guesses` those that the grammar allows one after the other.
    pub fn keep_allowed(&mut self, guesses: &mut Vec<Guess>) {
        if let Some(grammar) = &mut self.grammar {
            let tokens: Vec<u32> = guesses.iter().map(|guess| guess.token).collect();
            guesses.truncate(grammar.allows(&tokens));
        }
    }

    /// Chooses from `logits` `[V]`, which it overwrites. `guess` is what somebody thought would come
    /// here; see [`Sampler::verify`].
    ///
    /// # Errors
    /// [`GrammarError`] if the grammar cannot be followed any further.
    pub fn choose(
        &mut self,
        logits: &mut [f32],
        guess: Option<&Guess>,
    ) -> Result<Choice, GrammarError> {
        let raw = self.logprobs.map(|top| (logits.to_vec(), top));
        if self.before_end > 0 {
            self.before_end -= 1;
            self.forbid_end(logits);
        }
        if let Some(grammar) = &mut self.grammar {
            grammar.mask(logits)?;
        }
        let token = match guess {
            Some(guess) => self.sampler.verify(logits, guess),
            None => self.sampler.sample(logits),
        };
        let logprobs = raw.map(|(raw, top)| TokenLogProbs::of(&raw, token, usize::from(top)));
        Ok(Choice { token, logprobs, end: self.end(token)? })
    }

    /// Chooses after a token and `guesses` that may follow it: `logits` `[1 + guesses, V]`. Ends with
    /// the first choice that completes the answer or is not what was guessed.
    ///
    /// # Errors
    /// As [`Self::choose`].
    pub fn choose_run(
        &mut self,
        logits: &mut [f32],
        guesses: &[Guess],
    ) -> Result<Vec<Choice>, GrammarError> {
        let vocab = logits.len() / (1 + guesses.len());
        let mut choices = Vec::with_capacity(1 + guesses.len());
        for (at, row) in logits.chunks_exact_mut(vocab.max(1)).enumerate() {
            let guess = guesses.get(at);
            let choice = self.choose(row, guess)?;
            let goes_on = choice.end.is_none() && guess.is_some_and(|g| g.token == choice.token);
            choices.push(choice);
            if !goes_on {
                break;
            }
        }
        Ok(choices)
    }

    /// Takes in a token that was chosen for this answer before, as if it were chosen now.
    ///
    /// # Errors
    /// [`GrammarError`] if the grammar does not allow it.
    pub fn replay(&mut self, token: u32) -> Result<Choice, GrammarError> {
        self.before_end = self.before_end.saturating_sub(1);
        self.sampler.record(token);
        Ok(Choice { token, logprobs: None, end: self.end(token)? })
    }

    /// Where the draws stand.
    pub fn draws(&self) -> u64 {
        self.sampler.draws()
    }

    /// Goes on with the draws where another chooser stood.
    pub fn set_draws(&mut self, draws: u64) {
        self.sampler.set_draws(draws);
    }

    fn forbid_end(&self, logits: &mut [f32]) {
        for end in &self.ends {
            if let Some(logit) = logits.get_mut(*end as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    /// Whether `token` completes the answer; takes it into the grammar if not.
    fn end(&mut self, token: u32) -> Result<Option<ChoiceEnd>, GrammarError> {
        let is_end = self.ends.contains(&token);
        // Where a grammar allows a token of end, nothing else is left to say.
        if is_end && (!self.ignore_end || self.grammar.is_some()) {
            return Ok(Some(ChoiceEnd::Token));
        }
        let Some(grammar) = &mut self.grammar else { return Ok(None) };
        Ok(grammar.accept(token)?.then_some(ChoiceEnd::Grammar))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chooser(rules: ChoiceRules) -> Chooser {
        let sampling = SamplingParams { temperature: 0.0, ..rules.sampling };
        Chooser::new(ChoiceRules { sampling, ..rules }, &[1], &[0], None)
    }

    fn choose(chooser: &mut Chooser, mut logits: [f32; 4]) -> Choice {
        chooser.choose(&mut logits, None).expect("no grammar, no error")
    }

    #[test]
    fn an_end_ends_unless_it_comes_too_early_or_is_ignored() {
        let likes_end = [3.0, 1.0, 2.0, 0.0];
        let choice = choose(&mut chooser(ChoiceRules::default()), likes_end);
        assert_eq!((choice.token, choice.end), (0, Some(ChoiceEnd::Token)));

        let mut longer = chooser(ChoiceRules { min_tokens: 2, ..ChoiceRules::default() });
        let ends = [(); 3].map(|()| choose(&mut longer, likes_end)).map(|c| (c.token, c.end));
        assert_eq!(ends, [(2, None), (2, None), (0, Some(ChoiceEnd::Token))]);

        let mut endless = chooser(ChoiceRules { ignore_end: true, ..ChoiceRules::default() });
        let choice = choose(&mut endless, likes_end);
        assert_eq!((choice.token, choice.end), (0, None));
    }

    #[test]
    fn log_probabilities_are_of_the_logits_as_they_came() {
        let mut rules = ChoiceRules { logprobs: Some(2), min_tokens: 1, ..ChoiceRules::default() };
        rules.sampling.logit_bias = vec![(3, 50.0)];
        let logits = [3.0, 1.0, 2.0, 0.0];
        let choice = choose(&mut chooser(rules), logits);
        assert_eq!(choice.token, 3);
        assert_eq!(choice.logprobs, Some(TokenLogProbs::of(&logits, 3, 2)));
    }
}
