//! Shares of many draws, parameter by parameter, with guesses and without.

use super::*;
use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};
use std::f32::consts::LN_2;

/// Logits of tokens with probabilities 1/2, 1/4, 1/8, 1/8, in a mixed order of ids.
const LOGITS: [f32; 4] = [-3.0 * LN_2, -LN_2, -3.0 * LN_2, -2.0 * LN_2];

/// Shares of the tokens in many draws.
fn shares(params: &SamplingParams, logits: &[f32]) -> Vec<f64> {
    const DRAWS: u32 = 20_000;
    let mut counts = vec![0_u32; logits.len()];
    let mut rng = Rng::new(7);
    for _ in 0..DRAWS {
        let params = SamplingParams { seed: rng.next_u64(), ..params.clone() };
        let token = Sampler::new(params, &[]).sample(&mut logits.to_vec());
        counts[token as usize] += 1;
    }
    counts.iter().map(|n| f64::from(*n) / f64::from(DRAWS)).collect()
}

/// Three standard deviations of a share of 1/2 in 20,000 draws are 0.011.
fn check(params: SamplingParams, expected: [f64; 4]) {
    let found = shares(&params, &LOGITS);
    for (found, expected) in found.iter().zip(expected) {
        let exact = expected == 0.0 || expected == 1.0;
        let close = (found - expected).abs() < if exact { 1e-9 } else { 0.015 };
        assert!(close, "{params:?}: found {found}, expected {expected}");
    }
}

fn with(change: impl FnOnce(&mut SamplingParams)) -> SamplingParams {
    let mut params = SamplingParams::default();
    change(&mut params);
    params
}

#[test]
fn draws_follow_the_distribution_and_temperature_flattens_it() {
    check(with(|_| ()), [0.125, 0.5, 0.125, 0.25]);
    // Weights are probabilities to the power of 1/2: √(1, 2, 1, 4)... normalised.
    let weights = [0.125_f64, 0.5, 0.125, 0.25].map(f64::sqrt);
    let total: f64 = weights.iter().sum();
    check(with(|p| p.temperature = 2.0), weights.map(|w| w / total));
    check(with(|p| p.temperature = 0.0), [0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn filters_keep_what_they_say_at_their_borders() {
    let (one, two) = ([0.0, 1.0, 0.0, 0.0], [0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0]);
    let three = [1.0 / 7.0, 4.0 / 7.0, 0.0, 2.0 / 7.0];
    let all = [0.125, 0.5, 0.125, 0.25];
    for (k, expected) in [(1, one), (2, two), (3, three), (4, all), (9, all)] {
        check(with(|p| p.top_k = k), expected);
    }
    // Of equals the lower id stays.
    for (p, expected) in
        [(0.0, one), (0.49, one), (0.51, two), (0.74, two), (0.76, three), (1.0, all)]
    {
        check(with(|params| params.top_p = p), expected);
    }
    for (p, expected) in [(1.0, one), (0.51, one), (0.49, two), (0.26, two), (0.24, all)] {
        check(with(|params| params.min_p = p), expected);
    }
    // top-p sees only what top-k left: 1/2 of 3/4 is two thirds.
    check(with(|p| (p.top_k, p.top_p) = (2, 0.66)), one);
}

#[test]
fn penalties_change_the_logits_they_say() {
    let sample = |params: SamplingParams, prompt: &[u32]| {
        let mut sampler = Sampler::new(SamplingParams { temperature: 0.0, ..params }, prompt);
        sampler.record(1);
        sampler.record(1);
        let mut logits = [4.0, 3.0, -1.0, 2.0];
        (sampler.sample(&mut logits), logits)
    };
    let repetition = with(|p| p.repetition_penalty = 2.0);
    assert_eq!(sample(repetition, &[0, 2, 99]), (0, [2.0, 1.5, -2.0, 2.0]));
    let frequency = with(|p| p.frequency_penalty = 0.5);
    assert_eq!(sample(frequency, &[0]), (0, [4.0, 2.0, -1.0, 2.0]));
    let presence = with(|p| p.presence_penalty = -1.5);
    assert_eq!(sample(presence, &[0]), (1, [4.0, 4.5, -1.0, 2.0]));
}

#[test]
fn a_bias_outweighs_penalties_and_unknown_tokens_do_nothing() {
    let sample = |bias: Vec<(u32, f32)>| {
        let params = SamplingParams { logit_bias: bias, ..SamplingParams::greedy() };
        let penalised = SamplingParams { presence_penalty: 2.0, ..params };
        Sampler::new(penalised, &[1]).sample(&mut [4.0, 3.0, -1.0])
    };
    assert_eq!(sample(vec![]), 0);
    assert_eq!(sample(vec![(2, 100.0)]), 2);
    assert_eq!(sample(vec![(0, -100.0)]), 1);
    assert_eq!(sample(vec![(2, 3.0), (2, 3.0)]), 2, "both count");
    assert_eq!(sample(vec![(99, 100.0)]), 0);
    let banned = |p: &mut SamplingParams| p.logit_bias = vec![(1, -100.0)];
    check(with(banned), [0.25, 0.0, 0.25, 0.5]);
}

/// Goal: guesses, good or bad, never change what is drawn. Method: shares of many draws with
/// guesses from quite another distribution, filters on and off, against shares without guesses.
#[test]
fn a_guess_never_changes_the_distribution() {
    const DRAWS: u32 = 20_000;
    let guessing: [f32; 4] = [2.0, 0.0, -1.0, 1.0];
    for params in [with(|_| ()), with(|p| (p.top_k, p.temperature) = (3, 1.5))] {
        let expected = shares(&params, &LOGITS);
        let (mut counts, mut accepted) = ([0_u32; 4], 0);
        let mut rng = Rng::new(11);
        for _ in 0..DRAWS {
            let params = SamplingParams { seed: rng.next_u64(), ..params.clone() };
            let mut sampler = Sampler::new(params, &[]);
            let guess = sampler.fork().guess(&mut guessing.clone());
            let token = sampler.verify(&mut LOGITS.clone(), &guess);
            counts[token as usize] += 1;
            accepted += u32::from(token == guess.token);
        }
        for (count, expected) in counts.iter().zip(expected) {
            let found = f64::from(*count) / f64::from(DRAWS);
            // Two shares, each with three standard deviations of 0.011.
            assert!((found - expected).abs() < 0.02, "{params:?}: {counts:?} {expected}");
        }
        // The overlap of the two distributions is what guessing can gain.
        assert!((DRAWS / 4..DRAWS * 3 / 4).contains(&accepted), "{accepted} accepted");
    }
}

#[test]
fn a_guess_that_was_looked_up_changes_no_draw() {
    for seed in 0..200 {
        let params = with(|p| p.seed = seed);
        let plain = Sampler::new(params.clone(), &[]).sample(&mut LOGITS.clone());
        for token in 0..4 {
            let guess = Guess { token, drawn_from: None };
            let mut sampler = Sampler::new(params.clone(), &[]);
            assert_eq!(sampler.verify(&mut LOGITS.clone(), &guess), plain);
        }
    }
}

#[test]
fn greedy_takes_the_lowest_of_equals_and_survives_strange_logits() {
    let greedy =
        |logits: &[f32]| Sampler::new(SamplingParams::greedy(), &[]).sample(&mut logits.to_vec());
    assert_eq!(greedy(&[1.0, 3.0, 3.0]), 1);
    assert_eq!(greedy(&[f32::NAN, -1.0, f32::NAN]), 1);
    assert_eq!(greedy(&[f32::NAN; 3]), 0);
    let draw =
        |logits: &[f32]| Sampler::new(SamplingParams::default(), &[]).sample(&mut logits.to_vec());
    assert_eq!(draw(&[f32::NAN; 3]), 0);
    assert_eq!(draw(&[0.0, f32::INFINITY, f32::NAN]), 1);
    assert!(draw(&[f32::NEG_INFINITY; 3]) < 3);
}

#[test]
fn a_field_out_of_range_is_named() {
    let error = with(|p| p.temperature = 2.5).validate().expect_err("too hot");
    assert_eq!(error.to_string(), "temperature is 2.5, expected 0 to 2");
    assert!(with(|p| p.top_p = f32::NAN).validate().is_err());
    assert!(with(|p| p.repetition_penalty = 0.0).validate().is_err());
    let biased = with(|p| p.logit_bias = vec![(3, 5.0), (4, -101.0)]).validate();
    assert_eq!(
        biased.expect_err("too far").to_string(),
        "logit_bias is -101, expected -100 to 100"
    );
    assert!(SamplingParams::default().validate().is_ok());
    assert!(SamplingParams::greedy().validate().is_ok());
}

proptest! {
    /// Whatever the logits, a seed fixes the draws, and top-k 1 or top-p 0 is greedy.
    #[test]
    fn draws_repeat_with_their_seed(
        logits in prop::collection::vec(-30.0_f32..30.0, 1..200),
        seed: u64,
        temperature in 0.1_f32..2.0,
        top_k in 0_u32..20,
        top_p in 0.0_f32..=1.0,
        min_p in 0.0_f32..=1.0,
    ) {
        let params = SamplingParams { temperature, top_k, top_p, min_p, seed, ..Default::default() };
        let draws = |params: &SamplingParams| {
            let mut sampler = Sampler::new(params.clone(), &[]);
            [(); 8].map(|()| sampler.sample(&mut logits.clone()))
        };
        let tokens = draws(&params);
        prop_assert_eq!(tokens, draws(&params));
        prop_assert!(tokens.iter().all(|t| (*t as usize) < logits.len()));
        let greedy = draws(&SamplingParams::greedy());
        prop_assert_eq!(draws(&SamplingParams { top_k: 1, ..params.clone() }), greedy);
        prop_assert_eq!(draws(&SamplingParams { top_p: 0.0, ..params }), greedy);
    }
}
