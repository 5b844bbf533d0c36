//! What of an answer outlives the head that gave it, so that its caller can go on with it.
//!
//! Decides what is kept: the tokens of each step and where the draws stood after it. Nothing of the prompt is:
//! whoever goes on asks the same again. Never the last step of an answer, so there is always one more to run. After it
//! the same tokens come as without the break, but for sampled ones that a draft model guesses: their draws follow
//! the same distribution.

use serde::{Deserialize, Serialize};
use talka_base::{AdapterId, Encoded, ModelId, RequestId};

/// What a head chose from the answer to one step that was not the last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// The tokens, in order.
    pub tokens: Vec<u32>,
    /// Where the draws stood after them.
    pub draws: u64,
}

impl Encoded for Chosen {
    const NAME: &'static str = "chosen tokens";
    const SIZE_MAX: usize = 4096;
}

/// What an answer answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// [`question`] of the request.
    pub question: [u8; 32],
    /// The request that credits are held for, if it did not end.
    pub session: RequestId,
}

impl Encoded for Begun {
    const NAME: &'static str = "answer begun";
    const SIZE_MAX: usize = 128;
}

/// Names a prompt `[N]` to a model: who sends the same may go on with its answer.
pub fn question(model: ModelId, adapter: Option<AdapterId>, prompt: &[u32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("talka 2026 question of an answer");
    hasher.update(&model.0);
    hasher.update(&adapter.map_or([0; 32], |adapter| adapter.0));
    for token in prompt {
        hasher.update(&token.to_le_bytes());
    }
    hasher.finalize().into()
}

/// The steps of `kept` to go on after. If log-probabilities are `reported`, only those whose pieces the caller
/// has, all with `seen` tokens: what is chosen anew is reported anew.
pub fn usable(mut kept: Vec<Chosen>, seen: u32, reported: bool) -> Vec<Chosen> {
    if reported {
        let mut tokens = 0;
        let had = |step: &Chosen| {
            tokens += step.tokens.len();
            tokens <= seen as usize
        };
        kept.truncate(kept.iter().map(had).take_while(|had| *had).count());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_model_adapter_and_prompt() {
        let model = |byte| ModelId([byte; 32]);
        let asked = question(model(1), None, &[1, 2]);
        assert_eq!(asked, question(model(1), None, &[1, 2]));
        for other in [
            question(model(2), None, &[1, 2]),
            question(model(1), Some(AdapterId([3; 32])), &[1, 2]),
            question(model(1), None, &[1, 2, 3]),
        ] {
            assert_ne!(asked, other);
        }
    }

    #[test]
    fn what_is_reported_goes_on_after_what_the_caller_has() {
        let kept = [2, 1, 3].map(|count| Chosen { tokens: vec![7; count], draws: 0 }).to_vec();
        assert_eq!(usable(kept.clone(), 0, false).len(), 3);
        for (seen, steps) in [(0, 0), (1, 0), (2, 1), (3, 2), (5, 2), (6, 3), (99, 3)] {
            assert_eq!(usable(kept.clone(), seen, true).len(), steps, "{seen} seen");
        }
    }
}
