//! One request as its head sees it: tokens out, logits in, text to the caller.
//!
//! A machine without I/O. It sends the prompt in chunks, draws one token from each set of logits,
//! and says when the answer is complete. It never knows which nodes compute: the shell maps its
//! steps onto a route, and tells it nothing but logits.

use crate::api::FinishReason;
use talka_engine::{LogitsWanted, Model, Sampler, SamplingParams, TextStream};

/// Bytes of hidden state in one frame at most: a long prompt travels in pieces, so that stages
/// overlap and no frame nears the limit of its lane.
const CHUNK_BYTES: usize = 4 << 20;

/// A piece of the sequence to be run through all layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Counts the steps of the session from 0.
    pub number: u64,
    /// Absolute position of the first token.
    pub position: u32,
    /// The tokens.
    pub tokens: Vec<u32>,
    /// After which tokens logits are wanted back.
    pub wants: LogitsWanted,
}

/// What comes of a set of logits.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// More text (perhaps none yet), and the next step.
    Next {
        /// Text to hand to the caller; may be empty.
        text: String,
        /// What to run.
        step: Step,
    },
    /// The rest of the text and the end.
    Finished {
        /// Text to hand to the caller; may be empty.
        text: String,
        /// Why it ended.
        reason: FinishReason,
    },
}

/// Logits that do not answer the open step.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum HeadError {
    /// An answer to another step.
    #[error("logits for step {found}, expected step {expected}")]
    WrongStep { expected: u64, found: u64 },
    /// Not one row over the vocabulary.
    #[error("{found} logits, expected {expected}")]
    WrongWidth { expected: usize, found: usize },
    /// A stage computed nonsense.
    #[error("the logits hold a value that is not a number")]
    NotANumber,
}

/// The state of one generation.
#[derive(Debug)]
pub struct Head {
    model: Model,
    sampler: Sampler,
    text: TextStream,
    prompt: Vec<u32>,
    max_new_tokens: u32,
    generated: u32,
    next_step: u64,
}

impl Head {
    /// A generation of at most `max_new_tokens` after `prompt`, which has at least one token; `text`
    /// turns tokens into what the caller sees.
    pub fn new(
        model: Model,
        prompt: Vec<u32>,
        sampling: SamplingParams,
        text: TextStream,
        max_new_tokens: u32,
    ) -> Self {
        let sampler = Sampler::new(sampling, &prompt);
        Self { model, sampler, text, prompt, max_new_tokens, generated: 0, next_step: 0 }
    }

    /// Tokens drawn so far.
    pub fn generated(&self) -> u32 {
        self.generated
    }

    /// Positions run through the layers once the open step is answered: the last token drawn is
    /// never fed back.
    pub fn positions(&self) -> u32 {
        self.prompt.len() as u32 + self.generated.saturating_sub(1)
    }

    /// The steps that run the prompt: logits are wanted after the last one only.
    pub fn start(&mut self) -> Vec<Step> {
        let rows = (CHUNK_BYTES / (4 * self.model.shape().hidden as usize)).max(1);
        let count = self.prompt.len().div_ceil(rows);
        let chunks = self.prompt.chunks(rows).enumerate().map(|(i, tokens)| Step {
            number: i as u64,
            position: (i * rows) as u32,
            tokens: tokens.to_vec(),
            wants: if i + 1 == count { LogitsWanted::Last } else { LogitsWanted::None },
        });
        self.next_step = count as u64;
        chunks.collect()
    }

    /// Draws a token from the answer to the open step.
    ///
    /// # Errors
    /// [`HeadError`] if the logits are not that answer; the stage that sent them is to blame.
    pub fn logits(&mut self, step: u64, logits: &mut [f32]) -> Result<Progress, HeadError> {
        self.check(step, logits)?;
        let token = self.sampler.sample(logits);
        self.generated += 1;
        if self.model.eos_ids().contains(&token) {
            let text = self.text.finish();
            return Ok(Progress::Finished { text, reason: FinishReason::Stop });
        }
        let delta = self.text.push(token);
        let mut text = delta.text;
        if delta.stopped {
            return Ok(Progress::Finished { text, reason: FinishReason::Stop });
        }
        if self.generated == self.max_new_tokens {
            text += &self.text.finish();
            return Ok(Progress::Finished { text, reason: FinishReason::Length });
        }
        let number = self.next_step;
        self.next_step += 1;
        let position = self.positions();
        let step = Step { number, position, tokens: vec![token], wants: LogitsWanted::Last };
        Ok(Progress::Next { text, step })
    }

    fn check(&self, step: u64, logits: &[f32]) -> Result<(), HeadError> {
        let expected = self.next_step - 1;
        if step != expected {
            return Err(HeadError::WrongStep { expected, found: step });
        }
        let expected = self.model.shape().vocab as usize;
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
    use talka_engine::ModelSource;

    fn bard() -> Model {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/models/bard");
        Model::open(ModelSource::Folder(folder.into())).expect("the bundled model opens")
    }

    fn head(prompt: Vec<u32>, stop: &[&str], max_new_tokens: u32) -> Head {
        let model = bard();
        let stop = stop.iter().map(ToString::to_string).collect();
        let text = TextStream::new(model.tokenizer().clone(), stop);
        let greedy = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
        Head::new(model, prompt, greedy, text, max_new_tokens)
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
        let rows = CHUNK_BYTES / (4 * 192);
        let steps = head(vec![7; 2 * rows + 3], &[], 5).start();
        let shape: Vec<_> = steps
            .iter()
            .map(|s| (s.number, s.position as usize, s.tokens.len(), s.wants))
            .collect();
        let [none, last] = [LogitsWanted::None, LogitsWanted::Last];
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
            let expected = Step { number, position, tokens: vec![40], wants: LogitsWanted::Last };
            assert_eq!(step, expected);
        }
        let last = head.logits(2, &mut favour(40)).expect("the open step");
        assert!(matches!(last, Progress::Finished { reason: FinishReason::Length, .. }));
        assert_eq!((head.generated(), head.positions()), (3, 5));
    }

    #[test]
    fn the_end_token_ends_the_answer_and_is_not_shown() {
        let mut head = head(vec![5], &[], 9);
        head.start();
        let last = head.logits(0, &mut favour(0)).expect("the open step");
        let expected = Progress::Finished { text: String::new(), reason: FinishReason::Stop };
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
                Progress::Next { text, .. } => shown += &text,
                Progress::Finished { text, reason } => {
                    shown += &text;
                    assert_eq!((shown.as_str(), reason), ("one tw", FinishReason::Stop));
                    return;
                }
            }
        }
        panic!("the stop string was not seen in {shown:?}");
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
