//! Which logits travel to a head: all of a large vocabulary are hundreds of kilobytes a token, and often the
//! few greatest decide.
//!
//! Exact, or not at all: a head asks for few only where nothing else can be chosen. The rest count as
//! impossible with it.

use crate::wire::{BEST_MAX, Best, LOGIT_BYTES_MAX};
use talka_engine::ChoiceRules;

/// What a head that chooses by `rules` needs of each row; `None` is all of it. `ends` are the tokens that end
/// an answer, which may be forbidden.
pub fn needed(rules: &ChoiceRules, ends: &[u32]) -> Option<Best> {
    let sampling = &rules.sampling;
    let is_plain = rules.logprobs.is_none()
        && sampling.repetition_penalty == 1.0
        && sampling.frequency_penalty == 0.0
        && sampling.presence_penalty == 0.0;
    let likeliest = match (sampling.temperature == 0.0, sampling.top_k) {
        (true, _) => 1,
        (false, 0) => return None,
        (false, top_k) => top_k as usize,
    };
    let also: Vec<u32> = sampling.logit_bias.iter().map(|(token, _)| *token).collect();
    // Whatever is forbidden or moved down among the likeliest, as many of the others are there.
    let count = likeliest.saturating_add(ends.len() + also.len());
    let fits = count.saturating_add(also.len()) <= BEST_MAX;
    (is_plain && fits).then_some(Best { count: count as u32, also })
}

/// What travels of `row` `[V]`: tokens and their logits, the likeliest first, then those wanted beside. A row
/// that holds what is no number begins with it.
pub fn pick(row: &[f32], best: &Best) -> Vec<(u32, f32)> {
    let count = (best.count as usize).min(row.len());
    let mut picks: Vec<(u32, f32)> = Vec::with_capacity(count + best.also.len() + 1);
    for (token, &logit) in row.iter().enumerate() {
        if picks.len() == count {
            match picks.last() {
                Some((_, least)) if logit > *least => picks.pop(),
                _ => continue,
            };
        }
        // Of equal ones the first stays ahead, as where all are looked at.
        let at = picks.partition_point(|(_, other)| *other >= logit);
        picks.insert(at, (token as u32, logit));
    }
    picks.extend(best.also.iter().map(|&token| (token, row[token as usize])));
    if row.iter().any(|logit| logit.is_nan()) {
        picks[0].1 = f32::NAN;
    }
    picks
}

/// Rows `[T, V]` of which only `picks` are possible, `per_row` of each. `None` if a token is not one of the
/// `vocab`, the last row is not whole, or they are more rows than a stage answers at once.
pub fn spread(picks: &[(u32, f32)], per_row: usize, vocab: usize) -> Option<Vec<f32>> {
    let rows = picks.chunks_exact(per_row);
    let rows_max = (LOGIT_BYTES_MAX / (size_of::<f32>() * vocab)).max(1);
    if !rows.remainder().is_empty() || rows.len() > rows_max {
        return None;
    }
    let mut logits = vec![f32::NEG_INFINITY; rows.len() * vocab];
    for (picks, row) in rows.zip(logits.chunks_exact_mut(vocab)) {
        for (token, logit) in picks {
            *row.get_mut(*token as usize)? = *logit;
        }
    }
    Some(logits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use talka_engine::{Chooser, SamplingParams};

    fn rules(sampling: SamplingParams) -> ChoiceRules {
        ChoiceRules { sampling, ..ChoiceRules::default() }
    }

    #[test]
    fn few_are_needed_only_where_nothing_else_can_be_chosen() {
        let of = |sampling| needed(&rules(sampling), &[2]);
        let greedy = SamplingParams::greedy();
        assert_eq!(of(greedy.clone()), Some(Best { count: 2, also: vec![] }));
        assert_eq!(of(SamplingParams::default()), None, "any token can be drawn");
        let drawn = SamplingParams { top_k: 40, ..SamplingParams::default() };
        assert_eq!(of(drawn.clone()), Some(Best { count: 41, also: vec![] }));
        assert_eq!(of(SamplingParams { top_k: u32::MAX, ..drawn }), None);
        let biased = SamplingParams { logit_bias: vec![(7, -3.0)], ..greedy.clone() };
        assert_eq!(of(biased), Some(Best { count: 3, also: vec![7] }));
        let penalised = SamplingParams { frequency_penalty: 0.5, ..greedy.clone() };
        assert_eq!(of(penalised), None);
        let scored = ChoiceRules { logprobs: Some(0), ..rules(greedy) };
        assert_eq!(needed(&scored, &[]), None);
    }

    #[test]
    fn the_likeliest_come_first_and_nonsense_is_passed_on() {
        let best = Best { count: 3, also: vec![0] };
        let row = [0.5, 2.0, -1.0, 2.0, 1.0];
        assert_eq!(pick(&row, &best), [(1, 2.0), (3, 2.0), (4, 1.0), (0, 0.5)]);
        assert!(pick(&[1.0, f32::NAN], &best)[0].1.is_nan());
        assert_eq!(spread(&[(9, 1.0)], 1, 9), None);
        assert_eq!(spread(&[(0, 1.0), (1, 2.0), (0, 3.0)], 2, 4), None);
        // Small on the way, too much in memory.
        assert_eq!(spread(&[(0, 1.0); 1 << 16], 1, 1_000), None);
    }

    proptest! {
        /// Goal: an answer does not depend on how much travels. Method: both ways with the same seed.
        #[test]
        fn few_choose_as_all_do(
            row in prop::collection::vec(-4.0_f32..4.0, 12),
            (top_k, seed) in (0_u32..5, any::<u64>()),
            bias in prop::collection::vec((0_u32..12, -5.0_f32..5.0), 0..4),
            ignore_end: bool,
        ) {
            let temperature = if top_k == 0 { 0.0 } else { 0.8 };
            let logit_bias = bias;
            let sampling =
                SamplingParams { temperature, top_k, logit_bias, seed, ..SamplingParams::default() };
            let rules = ChoiceRules { ignore_end, ..rules(sampling) };
            let best = needed(&rules, &[3]).expect("few are enough");
            let picks = pick(&row, &best);
            let few = spread(&picks, picks.len(), row.len()).expect("tokens of the vocabulary");
            let choose = |mut logits: Vec<f32>| {
                let mut chooser = Chooser::new(rules.clone(), &[1], &[3], None);
                chooser.choose_run(&mut logits, &[]).expect("no grammar")[0].token
            };
            prop_assert_eq!(choose(few), choose(row));
        }
    }
}
