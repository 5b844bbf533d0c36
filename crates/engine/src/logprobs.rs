//! Log-probabilities of tokens, as the model gave them.
//!
//! Decides which distribution is reported: the softmax of the logits before bias, grammar, penalties,
//! temperature and filters, as OpenAI and vLLM do. So a token that a filter or a bias brought about
//! may have a very low one, and at temperature 0 without any of them the chosen token is the first of
//! its alternatives. Natural logarithms; sums in f64, in the order of ids.

/// A token's log-probability and its best alternatives.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogProbs {
    /// The token.
    pub token: u32,
    /// Natural logarithm of its probability, at most 0; -∞ for what is impossible.
    pub logprob: f32,
    /// The likeliest tokens, likelier first, the lower id first among equals. May hold `token`.
    pub top: Vec<(u32, f32)>,
}

impl TokenLogProbs {
    /// Of `token` under `logits` `[V]`, with the `top` likeliest.
    ///
    /// NaN counts as impossible. A token beyond the vocabulary is impossible.
    pub fn of(logits: &[f32], token: u32, top: usize) -> Self {
        let number = |logit: f32| if logit.is_nan() { f32::NEG_INFINITY } else { logit };
        let max = logits.iter().copied().map(number).fold(f32::NEG_INFINITY, f32::max);
        let share = |logit: &f32| f64::from(number(*logit) - max).exp();
        let total: f64 = logits.iter().map(share).sum();
        let logprob = |logit: f32| match number(logit) {
            // One that is infinite leaves nothing to the others.
            logit if max.is_infinite() => {
                if logit == max {
                    0.0
                } else {
                    f32::NEG_INFINITY
                }
            }
            logit => (f64::from(logit - max) - total.ln()).min(0.0) as f32,
        };
        let logprob_of = |token: u32| {
            let logit = logits.get(token as usize);
            logit.map_or(f32::NEG_INFINITY, |logit| logprob(*logit))
        };
        let top = likeliest(logits, top).into_iter();
        Self {
            token,
            logprob: logprob_of(token),
            top: top.map(|token| (token, logprob_of(token))).collect(),
        }
    }
}

/// The ids of the `count` largest numbers, larger first, the lower id first among equals.
fn likeliest(logits: &[f32], count: usize) -> Vec<u32> {
    let count = count.min(logits.len());
    if count == 0 {
        return Vec::new();
    }
    let key = |id: &u32| {
        let logit = logits[*id as usize];
        if logit.is_nan() { f32::NEG_INFINITY } else { logit }
    };
    let order = |a: &u32, b: &u32| key(b).total_cmp(&key(a)).then(a.cmp(b));
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    ids.select_nth_unstable_by(count - 1, order);
    ids.truncate(count);
    ids.sort_unstable_by(order);
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_probabilities_have_known_logarithms() {
        let logits = [0.125_f32, 0.5, 0.125, 0.25].map(f32::ln);
        let found = TokenLogProbs::of(&logits, 3, 3);
        let expected = [(1, 0.5_f32.ln()), (3, 0.25_f32.ln()), (0, 0.125_f32.ln())];
        assert!((found.logprob - 0.25_f32.ln()).abs() < 1e-6);
        for ((token, logprob), (id, expected)) in found.top.iter().zip(expected) {
            assert_eq!(*token, id);
            assert!((logprob - expected).abs() < 1e-6, "{logprob} {expected}");
        }
    }

    #[test]
    fn strange_logits_give_no_strange_numbers() {
        let check = |logits: &[f32], token: u32, expected: f32| {
            let found = TokenLogProbs::of(logits, token, 2);
            assert_eq!(found.logprob, expected, "{logits:?}");
            assert!(found.top.iter().all(|(_, p)| *p <= 0.0), "{found:?}");
        };
        check(&[f32::INFINITY, 1.0], 0, 0.0);
        check(&[f32::INFINITY, 1.0], 1, f32::NEG_INFINITY);
        check(&[f32::NAN, 1.0], 0, f32::NEG_INFINITY);
        check(&[f32::NAN, 1.0], 1, 0.0);
        check(&[1.0], 9, f32::NEG_INFINITY);
        check(&[f32::NAN; 3], 0, 0.0);
        check(&[], 0, f32::NEG_INFINITY);
    }

    proptest! {
        /// All alternatives together have probability 1, in falling order, and adding a constant to
        /// all logits changes nothing.
        #[test]
        fn probabilities_sum_to_one_in_falling_order(
            logits in prop::collection::vec(-20.0_f32..20.0, 1..100), shift in -50.0_f32..50.0,
        ) {
            let found = TokenLogProbs::of(&logits, 0, logits.len());
            let sum: f64 = found.top.iter().map(|(_, p)| f64::from(*p).exp()).sum();
            prop_assert!((sum - 1.0).abs() < 1e-4);
            prop_assert!(found.top.windows(2).all(|pair| pair[0].1 >= pair[1].1));
            let moved: Vec<f32> = logits.iter().map(|x| x + shift).collect();
            let moved = TokenLogProbs::of(&moved, 0, 1);
            prop_assert!((moved.logprob - found.logprob).abs() < 1e-3);
        }
    }
}
