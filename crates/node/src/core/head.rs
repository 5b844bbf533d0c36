//! One request as its head sees it: tokens out, logits in, text to the caller.
//!
//! A machine without I/O. It sends the prompt in chunks, chooses tokens from each set of logits, and
//! says when the answer is complete. It never knows which nodes compute: the shell maps its steps
//! onto a route, and tells it nothing but logits.
//!
//! Steps may hold guesses ([`talka_engine::speculate`]): tokens that are likely to come, sent along
//! with the last one chosen. What was guessed wrongly is taken back by the next step, which starts at
//! a lower position. A prompt whose own log-probabilities are wanted goes step by step, so that never
//! more than one step's logits wait here.

use crate::{
    api::{FinishReason, Piece, TokenReport},
    core::{faults::Fault, resume::Chosen},
    wire::{GUESSES_MAX, LOGIT_BYTES_MAX, Wanted},
};
use talka_engine::{
    Choice, ChoiceEnd, Chooser, GrammarError, Guess, Guesser, LogitsWanted, Model, Parsed,
    TextStream, TokenLogProbs, ToolParser,
};

/// Positions of a prompt that travel together: the next stage begins when the first of them are through,
/// and no fewer use a stage's matrix units well.
const CHUNK_ROWS: usize = 256;
/// Bytes of hidden state in one frame at most: far from the limit of its lane.
const CHUNK_BYTES: usize = 4 << 20;

const _: () = assert!(talka_engine::speculate::GUESSES_MAX <= GUESSES_MAX as usize);

/// Rows of hidden states `[_, width]` in one step at most.
pub fn chunk_rows(width: u32) -> usize {
    (CHUNK_BYTES / (4 * width as usize)).clamp(1, CHUNK_ROWS)
}

/// A piece of the sequence to be run through all layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Counts the steps of the session from 0.
    pub number: u64,
    /// Absolute position of the first token.
    pub position: u32,
    /// The tokens.
    pub tokens: Vec<u32>,
    /// What is wanted back.
    pub wants: Wanted,
}

/// What comes of a set of logits.
#[derive(Debug, PartialEq)]
pub enum Progress {
    /// More of the answer (perhaps nothing to show yet), and the next step.
    Next {
        /// What to hand to the caller; may be empty.
        piece: Piece,
        /// What to run.
        step: Step,
    },
    /// The rest of the answer and the end.
    Finished {
        /// What to hand to the caller; may be empty.
        piece: Piece,
        /// Why it ended.
        reason: FinishReason,
    },
}

/// Why an answer is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum HeadError {
    /// An answer to another step.
    #[error("an answer to step {found}, expected step {expected}")]
    WrongStep { expected: u64, found: u64 },
    /// An answer nobody waits for.
    #[error("an answer to step {found}, which asks for none")]
    Unasked { found: u64 },
    /// Not as many numbers as were asked for.
    #[error("{found} numbers, expected {expected}")]
    WrongWidth { expected: usize, found: usize },
    /// A stage computed nonsense.
    #[error("the answer holds a value that is not a number")]
    NotANumber,
    /// The caller's grammar leads nowhere. No stage is to blame.
    #[error(transparent)]
    Grammar(#[from] GrammarError),
}

impl HeadError {
    /// What the stage that answered did; nothing, if it is not to blame.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::WrongStep { .. } | Self::Unasked { .. } => Some(Fault::Position),
            Self::WrongWidth { .. } => Some(Fault::Shape),
            Self::NotANumber => Some(Fault::NotANumber),
            Self::Grammar(_) => None,
        }
    }
}

/// What was chosen before already ends the answer as it is asked for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedBefore;

/// What a head is to do.
#[derive(Debug)]
pub struct Task {
    /// The model.
    pub model: Model,
    /// At least one token.
    pub prompt: Vec<u32>,
    /// Chooses the answer's tokens.
    pub chooser: Chooser,
    /// Guesses them ahead.
    pub guesser: Guesser,
    /// Turns them into what the caller sees.
    pub text: TextStream,
    /// Tells its calls from its text, if it may call functions.
    pub calls: Option<ToolParser>,
    /// Most tokens to choose; none at all only with `prompt_logprobs`.
    pub max_new_tokens: u32,
    /// Report log-probabilities of the prompt's tokens too, with this many alternatives.
    pub prompt_logprobs: Option<u8>,
    /// Tokens of the answer that the caller has from before: nothing is said of them again.
    pub seen: u32,
}

/// The state of one generation.
#[derive(Debug)]
pub struct Head {
    task: Task,
    /// Prompt and answer so far.
    said: Vec<u32>,
    /// What the open step guessed to follow its first token.
    guesses: Vec<Guess>,
    /// How many sets of logits the open step's answer has.
    rows: usize,
    /// Tokens of a prompt that is scored, sent so far.
    scored: usize,
    next_step: u64,
    /// Steps that are not answered yet.
    open: Vec<Step>,
}

impl Head {
    /// A generation.
    pub fn new(task: Task) -> Self {
        let said = task.prompt.clone();
        Self { task, said, guesses: Vec::new(), rows: 1, scored: 0, next_step: 0, open: Vec::new() }
    }

    /// Tokens chosen so far.
    pub fn generated(&self) -> u32 {
        (self.said.len() - self.task.prompt.len()) as u32
    }

    /// Takes in what was chosen for this answer before; gives what the caller lacks of it. Only before the
    /// start.
    ///
    /// # Errors
    /// [`EndedBefore`] if the answer would be over by then.
    pub fn replay(&mut self, chosen: &[Chosen]) -> Result<Piece, EndedBefore> {
        let mut missed = Piece::default();
        for Chosen { tokens, draws } in chosen {
            let mut piece = Piece::default();
            for token in tokens {
                let choice = self.task.chooser.replay(*token).map_err(|_| EndedBefore)?;
                if self.take(choice, &mut piece).is_some() {
                    return Err(EndedBefore);
                }
            }
            self.task.chooser.set_draws(*draws);
            let Piece { text, calls, generated, .. } = self.told(piece);
            missed.add(Parsed { text, calls });
            missed.generated = generated;
        }
        Ok(missed)
    }

    /// The stop string that ended the answer, if one did.
    pub fn stopped_by(&self) -> Option<&str> {
        self.task.text.stopped_by()
    }

    /// What was chosen after the first `before` tokens.
    pub fn chosen_after(&self, before: u32) -> Chosen {
        let start = self.task.prompt.len() + before as usize;
        Chosen { tokens: self.said[start..].to_vec(), draws: self.task.chooser.draws() }
    }

    /// `piece` counted, or nothing if the caller has it.
    fn told(&self, piece: Piece) -> Piece {
        let generated = self.generated();
        if generated > self.task.seen {
            Piece { generated, ..piece }
        } else {
            Piece { generated, ..Piece::default() }
        }
    }

    /// The first steps: all that was said, with logits after the last token, or the first part of a prompt
    /// that is scored.
    pub fn start(&mut self) -> Vec<Step> {
        if self.scores_prompt() {
            return vec![self.score()];
        }
        let rows = self.chunk_rows();
        let count = self.said.len().div_ceil(rows);
        let chunks = self.said.chunks(rows).enumerate().map(|(i, tokens)| Step {
            number: i as u64,
            position: (i * rows) as u32,
            tokens: tokens.to_vec(),
            wants: Wanted::Logits(match i + 1 == count {
                true => LogitsWanted::Last,
                false => LogitsWanted::None,
            }),
        });
        self.open = chunks.collect();
        self.next_step = count as u64;
        self.open.clone()
    }

    /// What has to be run again where stages lost it: the steps that are not answered, and the tokens before
    /// them.
    pub fn unanswered(&self) -> (&[u32], &[Step]) {
        let held = self.open.first().map_or(0, |step| step.position as usize);
        (&self.said[..held], &self.open)
    }

    /// Takes in how long the open step took, from its sending to its answer.
    pub fn took(&mut self, seconds: f64) {
        // A prompt's says nothing about tokens'.
        if self.generated() > 0 {
            self.task.guesser.took(self.guesses.len(), seconds);
        }
    }

    /// Chooses tokens from the answer to the open step: `[1, V]`, or `[T, V]` if it asked for all.
    ///
    /// # Errors
    /// [`HeadError`] if the logits are not that answer, and then the stage that sent them is to
    /// blame; or if the grammar leads nowhere.
    pub fn logits(&mut self, step: u64, logits: &mut [f32]) -> Result<Progress, HeadError> {
        self.check(step, logits)?;
        let mut piece = Piece::default();
        let mut logits = logits;
        if self.scores_prompt() {
            self.report_prompt(logits, &mut piece);
            if self.scored < self.task.prompt.len() {
                return Ok(Progress::Next { piece, step: self.score() });
            }
            if self.task.max_new_tokens == 0 {
                return Ok(Progress::Finished { piece, reason: FinishReason::Length });
            }
            let last = logits.len() - self.vocab();
            logits = &mut logits[last..];
        }
        let choices = self.task.chooser.choose_run(logits, &self.guesses)?;
        let guessed = std::mem::take(&mut self.guesses).len();
        self.task.guesser.record(guessed, choices.len() - 1);
        for choice in choices {
            if let Some(reason) = self.take(choice, &mut piece) {
                return Ok(Progress::Finished { piece: self.told(piece), reason });
            }
        }
        Ok(Progress::Next { piece: self.told(piece), step: self.next() })
    }

    /// Whether the prompt's own log-probabilities are still wanted.
    fn scores_prompt(&self) -> bool {
        self.generated() == 0 && self.task.prompt_logprobs.is_some()
    }

    /// Adds a token to the answer; the reason if it was the last.
    fn take(&mut self, choice: Choice, piece: &mut Piece) -> Option<FinishReason> {
        let Choice { token, logprobs, end } = choice;
        self.said.push(token);
        if end == Some(ChoiceEnd::Token) {
            return Some(self.finish(FinishReason::Stop, piece));
        }
        let tokenizer = self.task.model.tokenizer();
        piece.tokens.extend(logprobs.map(|report| TokenReport::of(tokenizer, &report)));
        let delta = self.task.text.push(token);
        self.say(delta.text, piece);
        if delta.stopped {
            return Some(self.finish(FinishReason::Stop, piece));
        }
        let reason = match end {
            Some(_) => FinishReason::Stop,
            None if self.generated() == self.task.max_new_tokens => FinishReason::Length,
            None => return None,
        };
        Some(self.finish(reason, piece))
    }

    /// Adds more of the answer to `piece`, its calls apart from its text.
    fn say(&mut self, text: String, piece: &mut Piece) {
        match &mut self.task.calls {
            Some(calls) => piece.add(calls.push(&text)),
            None => piece.text += &text,
        }
    }

    /// Adds what was held back, at an end for `reason`; gives the reason that callers are told.
    fn finish(&mut self, reason: FinishReason, piece: &mut Piece) -> FinishReason {
        let rest = self.task.text.finish();
        self.say(rest, piece);
        let Some(calls) = &mut self.task.calls else { return reason };
        piece.add(calls.finish());
        match reason {
            FinishReason::Stop if calls.calls() > 0 => FinishReason::ToolCalls,
            reason => reason,
        }
    }

    /// The step that feeds back the last token, with guesses after it.
    fn next(&mut self) -> Step {
        let left = self.task.max_new_tokens - self.generated() - 1;
        // A step ends where the caller's part does, so that nothing of it is said again.
        let left = match self.task.seen.saturating_sub(self.generated()) {
            0 => left,
            seen => left.min(seen - 1),
        };
        let most = (left as usize).min(self.logit_rows() - 1);
        // Guesses save time; without them the answer is the same.
        let guesses = self.task.guesser.guess(&self.said, &mut self.task.chooser, most);
        self.guesses = guesses.unwrap_or_default();
        let position = self.said.len() - 1;
        let mut tokens = self.said[position..].to_vec();
        tokens.extend(self.guesses.iter().map(|guess| guess.token));
        let wants = if tokens.len() > 1 { LogitsWanted::All } else { LogitsWanted::Last };
        self.step(position, tokens, wants)
    }

    /// The next part of a prompt that is scored.
    fn score(&mut self) -> Step {
        let start = self.scored;
        let rows = self.chunk_rows().min(self.logit_rows());
        self.scored = self.task.prompt.len().min(start + rows);
        let tokens = self.task.prompt[start..self.scored].to_vec();
        self.step(start, tokens, LogitsWanted::All)
    }

    fn step(&mut self, position: usize, tokens: Vec<u32>, wants: LogitsWanted) -> Step {
        let number = self.next_step;
        self.next_step += 1;
        self.rows = if wants == LogitsWanted::All { tokens.len() } else { 1 };
        let wants = Wanted::Logits(wants);
        let step = Step { number, position: position as u32, tokens, wants };
        self.open = vec![step.clone()];
        step
    }

    /// Adds to `piece` how likely the prompt's tokens are that follow the open step's. The first
    /// token of all follows nothing.
    fn report_prompt(&self, logits: &[f32], piece: &mut Piece) {
        let Some(top) = self.task.prompt_logprobs else { return };
        let (prompt, tokenizer) = (&self.task.prompt, self.task.model.tokenizer());
        let start = self.scored - self.rows;
        if start == 0 {
            piece.tokens.push(TokenReport::unscored(tokenizer, prompt[0]));
        }
        let rows = logits.chunks_exact(self.vocab()).zip(&prompt[start + 1..]);
        piece.tokens.extend(rows.map(|(row, token)| {
            TokenReport::of(tokenizer, &TokenLogProbs::of(row, *token, usize::from(top)))
        }));
    }

    /// Tokens of a prompt in one step.
    fn chunk_rows(&self) -> usize {
        chunk_rows(self.task.model.shape().hidden)
    }

    /// Rows whose logits one answer may hold.
    fn logit_rows(&self) -> usize {
        (LOGIT_BYTES_MAX / (4 * self.vocab())).max(1)
    }

    fn vocab(&self) -> usize {
        self.task.model.shape().vocab as usize
    }

    fn check(&self, step: u64, logits: &[f32]) -> Result<(), HeadError> {
        let expected = self.next_step - 1;
        if step != expected {
            return Err(HeadError::WrongStep { expected, found: step });
        }
        let expected = self.rows * self.vocab();
        if logits.len() != expected {
            return Err(HeadError::WrongWidth { expected, found: logits.len() });
        }
        if logits.iter().any(|x| x.is_nan()) {
            return Err(HeadError::NotANumber);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use talka_engine::{ChoiceRules, LookUp, ModelSource, SamplingParams, ToolFormat};

    fn bard() -> Model {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/models/bard");
        Model::open(ModelSource::Folder(folder.into())).expect("the bundled model opens")
    }

    fn task(prompt: Vec<u32>, stop: &[&str], max_new_tokens: u32) -> Task {
        let model = bard();
        let stop = stop.iter().map(ToString::to_string).collect();
        let text = TextStream::new(model.tokenizer().clone(), stop);
        let rules = ChoiceRules { sampling: SamplingParams::greedy(), ..ChoiceRules::default() };
        let chooser = Chooser::new(rules, &prompt, model.eos_ids(), None);
        let guesser = Guesser::None;
        let (calls, prompt_logprobs, seen) = (None, None, 0);
        Task { model, prompt, chooser, guesser, text, calls, max_new_tokens, prompt_logprobs, seen }
    }

    fn head(prompt: Vec<u32>, stop: &[&str], max_new_tokens: u32) -> Head {
        Head::new(task(prompt, stop, max_new_tokens))
    }

    /// Logits whose greatest is `token`'s.
    fn favour(token: u32) -> Vec<f32> {
        let mut logits = vec![0.0; 1024];
        logits[token as usize] = 1.0;
        logits
    }

    fn encode(text: &str) -> Vec<u32> {
        bard().tokenizer().encode(text, false).expect("bard spells any text")
    }

    #[test]
    fn a_long_prompt_goes_in_pieces_and_asks_for_logits_once() {
        let rows = CHUNK_ROWS;
        let steps = head(vec![7; 2 * rows + 3], &[], 5).start();
        let shape: Vec<_> = steps
            .iter()
            .map(|s| (s.number, s.position as usize, s.tokens.len(), s.wants))
            .collect();
        let [none, last] = [LogitsWanted::None, LogitsWanted::Last].map(Wanted::Logits);
        let expected = [(0, 0, rows, none), (1, rows, rows, none), (2, 2 * rows, 3, last)];
        assert_eq!(shape, expected);
    }

    #[test]
    fn each_token_is_fed_back_at_the_next_position_until_the_length_is_reached() {
        let mut head = head(vec![5, 6, 7], &[], 3);
        assert_eq!(head.start().len(), 1);
        for (number, position) in [(1, 3), (2, 4)] {
            let progress = head.logits(number - 1, &mut favour(40)).expect("the open step");
            let Progress::Next { step, .. } = progress else { panic!("ended: {progress:?}") };
            let wants = Wanted::Logits(LogitsWanted::Last);
            let expected = Step { number, position, tokens: vec![40], wants };
            assert_eq!(step, expected);
        }
        let last = head.logits(2, &mut favour(40)).expect("the open step");
        assert!(matches!(last, Progress::Finished { reason: FinishReason::Length, .. }));
        assert_eq!(head.generated(), 3);
    }

    #[test]
    fn the_end_token_ends_the_answer_and_is_not_shown() {
        let mut head = head(vec![5], &[], 9);
        head.start();
        let last = head.logits(0, &mut favour(0)).expect("the open step");
        let piece = Piece { generated: 1, ..Piece::default() };
        let expected = Progress::Finished { piece, reason: FinishReason::Stop };
        assert_eq!(last, expected);
    }

    #[test]
    fn a_stop_string_ends_the_answer_before_it() {
        let tokens = encode("one two three");
        let mut head = head(vec![5], &["o th"], 99);
        head.start();
        let mut shown = String::new();
        for (number, token) in (0..).zip(&tokens) {
            match head.logits(number, &mut favour(*token)).expect("the open step") {
                Progress::Next { piece, .. } => shown += &piece.text,
                Progress::Finished { piece, reason } => {
                    shown += &piece.text;
                    assert_eq!((shown.as_str(), reason), ("one tw", FinishReason::Stop));
                    assert_eq!(head.stopped_by(), Some("o th"));
                    return;
                }
            }
        }
        panic!("the stop string was not seen in {shown:?}");
    }

    /// Goal: right guesses count, wrong ones are taken back. Method: a prompt that repeats itself and
    /// logits that go on as it did, but for the last row.
    #[test]
    fn guesses_that_were_right_count_and_the_rest_is_taken_back() {
        let prompt = vec![40, 41, 42, 43, 44, 40];
        let mut look_up = LookUp::default();
        (0..20).for_each(|_| look_up.record(4, 4));
        let guesser = Guesser::LookUp(look_up);
        let mut head = Head::new(Task { guesser, ..task(prompt, &[], 9) });
        head.start();
        let progress = head.logits(0, &mut favour(41)).expect("the open step");
        let Progress::Next { step, .. } = progress else { panic!("ended: {progress:?}") };
        assert_eq!((step.position, step.wants), (6, Wanted::Logits(LogitsWanted::All)));
        assert_eq!(step.tokens[..3], [41, 42, 43], "what followed 40, 41 before");

        let mut rows = [42, 50].map(favour).concat();
        rows.resize(step.tokens.len() * 1024, 0.0);
        let progress = head.logits(1, &mut rows).expect("the open step");
        let Progress::Next { step, .. } = progress else { panic!("ended: {progress:?}") };
        // 42 was right; 50 came instead of 43, whose position is used again.
        assert_eq!((step.position, step.tokens[0], head.generated()), (8, 50, 3));
        let few = head.logits(2, &mut [0.0; 1024 / 2]);
        assert!(matches!(few, Err(HeadError::WrongWidth { .. })));
    }

    #[test]
    fn a_prompt_is_scored_in_steps_whose_logits_are_bounded() {
        let rows = LOGIT_BYTES_MAX / (4 * 1024);
        let length = rows.min(CHUNK_ROWS) + 2;
        let prompt: Vec<u32> = (0..length as u32).map(|i| i % 7 + 5).collect();
        let mut head = Head::new(Task { prompt_logprobs: Some(1), ..task(prompt.clone(), &[], 0) });
        let first = head.start().remove(0);
        assert_eq!((first.position, first.wants), (0, Wanted::Logits(LogitsWanted::All)));
        assert_eq!(first.tokens.len(), length - 2);
        let mut logits = favour(6).repeat(length - 2);
        let progress = head.logits(0, &mut logits).expect("the open step");
        let Progress::Next { piece, step } = progress else { panic!("ended") };
        assert_eq!((step.position as usize, step.tokens.len()), (length - 2, 2));
        assert_eq!(piece.tokens.len(), length - 1, "the first, and one for each row");
        assert_eq!(piece.tokens[0].logprob, None);
        assert_eq!(piece.tokens[1].token, 6);
        assert_eq!(piece.tokens[1].logprob, Some(piece.tokens[1].top[0].logprob));

        let last = head.logits(1, &mut favour(6).repeat(2)).expect("the open step");
        let Progress::Finished { piece, reason } = last else { panic!("goes on") };
        assert_eq!((piece.tokens.len(), reason), (1, FinishReason::Length));
        assert_eq!(head.generated(), 0);
    }

    /// What a head says of an answer of `tokens`, after what is replayed: text, and what it chose in each step
    /// but the last.
    fn answer(head: &mut Head, tokens: &[u32]) -> (String, Vec<Chosen>) {
        let (mut said, mut chosen) = (String::new(), Vec::new());
        let mut steps = head.start();
        for token in &tokens[head.generated() as usize..] {
            let before = head.generated();
            let number = steps.last().expect("a step").number;
            match head.logits(number, &mut favour(*token)).expect("the open step") {
                Progress::Next { piece, step } => {
                    said += &piece.text;
                    chosen.push(head.chosen_after(before));
                    steps = vec![step];
                }
                Progress::Finished { piece, .. } => {
                    said += &piece.text;
                    break;
                }
            }
        }
        (said, chosen)
    }

    #[test]
    fn an_answer_that_is_gone_on_with_says_what_was_missed_and_no_more() {
        let tokens = encode("one two three four");
        let task = || task(vec![5, 6], &["e fo"], tokens.len() as u32);
        let (whole, chosen) = answer(&mut Head::new(task()), &tokens);
        assert_eq!(whole, "one two thre");
        // A caller may have seen all that is kept, less, or (after a power failure) more.
        for kept in 0..=chosen.len() {
            for seen in 0..=chosen.len() {
                let before = answer(&mut Head::new(task()), &tokens[..seen]).0;
                let mut head = Head::new(Task { seen: seen as u32, ..task() });
                let missed = head.replay(&chosen[..kept]).expect("it goes on");
                assert_eq!(head.generated() as usize, kept);
                let (rest, _) = answer(&mut head, &tokens);
                assert_eq!(before + &missed.text + &rest, whole, "{kept} kept, {seen} seen");
            }
        }
    }

    #[test]
    fn draws_go_on_where_they_stood() {
        let sampling = SamplingParams { seed: 3, ..SamplingParams::default() };
        let rules = ChoiceRules { sampling, ..ChoiceRules::default() };
        let task = || {
            let task = task(vec![5], &[], 40);
            let chooser = Chooser::new(rules.clone(), &task.prompt, task.model.eos_ids(), None);
            Task { chooser, ..task }
        };
        let draw = |head: &mut Head, steps: u64| {
            let first = head.start().last().expect("a step").number;
            let mut chosen = Vec::new();
            for number in first..first + steps {
                let before = head.generated();
                head.logits(number, &mut vec![0.0; 1024]).expect("the open step");
                chosen.push(head.chosen_after(before));
            }
            chosen
        };
        let whole = draw(&mut Head::new(task()), 12);
        let mut head = Head::new(task());
        head.replay(&whole[..5]).expect("it goes on");
        assert_eq!(draw(&mut head, 7), whole[5..]);
    }

    /// Goal: a call comes as one, to whoever hears all of it and to whoever goes on in its midst. Method: the
    /// logits say it token by token; then a second head takes over after each token.
    #[test]
    fn an_answer_that_calls_says_so() {
        let calling = |seen| {
            let parser = ToolParser::new(ToolFormat::Generic, vec!["add".into()]);
            Task { calls: Some(parser), seen, ..task(vec![5], &[], 99) }
        };
        let mut tokens = encode(r#" {"name": "add", "arguments": {"a": [1, 2]}}"#);
        tokens.push(0);
        let say = |head: &mut Head, from: usize, all: &mut Parsed| {
            let first = head.start().len() as u64 - 1;
            for (number, token) in (first..).zip(&tokens[from..]) {
                match head.logits(number, &mut favour(*token)).expect("the open step") {
                    Progress::Next { piece, .. } => {
                        all.extend(Parsed { text: piece.text, calls: piece.calls });
                    }
                    Progress::Finished { piece, reason } => {
                        all.extend(Parsed { text: piece.text, calls: piece.calls });
                        assert_eq!(reason, FinishReason::ToolCalls);
                    }
                }
            }
        };
        let mut whole = Parsed::default();
        say(&mut Head::new(calling(0)), 0, &mut whole);
        assert_eq!((whole.text.as_str(), whole.calls.len()), ("", 1));
        assert_eq!(whole.calls[0].arguments, r#"{"a": [1, 2]}"#);
        for told in 1..tokens.len() {
            let chosen = Chosen { tokens: tokens[..told].to_vec(), draws: 0 };
            let mut head = Head::new(calling(0));
            let Piece { text, calls, .. } = head.replay(&[chosen]).expect("it goes on");
            let mut both = Parsed { text, calls };
            say(&mut head, told, &mut both);
            assert_eq!(both, whole, "after {told} tokens");
        }
    }

    #[test]
    fn what_was_complete_is_not_gone_on_with() {
        let chosen = Chosen { tokens: encode("one two"), draws: 0 };
        let mut head = Head::new(task(vec![5], &["two"], 99));
        assert_eq!(head.replay(&[chosen]), Err(EndedBefore));
    }

    #[test]
    fn logits_that_do_not_answer_the_open_step_are_refused() {
        let mut head = head(vec![5], &[], 9);
        head.start();
        let late = head.logits(7, &mut favour(1));
        assert_eq!(late, Err(HeadError::WrongStep { expected: 0, found: 7 }));
        let short = head.logits(0, &mut [0.0; 3]);
        assert_eq!(short, Err(HeadError::WrongWidth { expected: 1024, found: 3 }));
        let nonsense = head.logits(0, &mut vec![f32::NAN; 1024]);
        assert_eq!(nonsense, Err(HeadError::NotANumber));
        assert_eq!(head.generated(), 0);
    }
}
