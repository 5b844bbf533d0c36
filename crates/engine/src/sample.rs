//! Draws the next token from logits.
//!
//! Decides what the sampling parameters mean. The order is that of transformers: repetition
//! penalty, frequency and presence penalties, logit bias, temperature, top-k, top-p, min-p, each over
//! what the one before left. The bias comes after the penalties so that 100 all but forces a token
//! and -100 all but bans it whatever they do. A token whose logit is -∞ (a grammar's mask) is never
//! drawn. Deterministic: same parameters, prompt, logits and seed, same tokens.
//!
//! Also judges tokens that somebody guessed ([`Sampler::verify`]): what is drawn follows the same
//! distribution as without the guess (Leviathan, Kalman, Matias 2023). A guess that was not drawn
//! from a distribution changes not even the draw.
//!
//! The repetition penalty (CTRL, Keskar et al. 2019) sees prompt and answer, as in transformers; the
//! frequency and presence penalties (OpenAI) see the answer only, as in vLLM.

use std::collections::HashMap;
use talka_base::rng::Rng;

/// How to draw. [`Default`] is OpenAI's: temperature 1 and nothing else.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// 0 (always the likeliest token) to 2.
    pub temperature: f32,
    /// Draw from this many of the likeliest tokens; 0 is off.
    pub top_k: u32,
    /// Draw from the fewest likeliest tokens that together have this probability, 0 to 1; 1 is off.
    pub top_p: f32,
    /// Draw from tokens with at least this share of the likeliest one's probability, 0 to 1.
    pub min_p: f32,
    /// Divides (negative: multiplies) logits of tokens seen so far, above 0 to 10; 1 is off.
    pub repetition_penalty: f32,
    /// Lowers a token's logit by this for each time it was generated, -2 to 2.
    pub frequency_penalty: f32,
    /// Lowers a token's logit by this once it was generated, -2 to 2.
    pub presence_penalty: f32,
    /// Added to the logits of these tokens, -100 to 100. Of one listed twice both count.
    pub logit_bias: Vec<(u32, f32)>,
    /// Fixes the draws.
    pub seed: u64,
}

/// A parameter outside its range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{field} is {found}, expected {expected}")]
pub struct SamplingError {
    /// The field at fault, as named in [`SamplingParams`].
    pub field: &'static str,
    /// Its value.
    pub found: f32,
    /// Its range.
    pub expected: &'static str,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

impl SamplingParams {
    /// Always the likeliest token; the lowest id of equals.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// # Errors
    /// [`SamplingError`] names the first field out of range. NaN is out of every range.
    pub fn validate(&self) -> Result<(), SamplingError> {
        let penalty = -2.0..=2.0;
        let fields = [
            ("temperature", self.temperature, 0.0..=2.0, "0 to 2"),
            ("top_p", self.top_p, 0.0..=1.0, "0 to 1"),
            ("min_p", self.min_p, 0.0..=1.0, "0 to 1"),
            (
                "repetition_penalty",
                self.repetition_penalty,
                f32::MIN_POSITIVE..=10.0,
                "above 0, at most 10",
            ),
            ("frequency_penalty", self.frequency_penalty, penalty.clone(), "-2 to 2"),
            ("presence_penalty", self.presence_penalty, penalty, "-2 to 2"),
        ];
        for (field, found, range, expected) in fields {
            if !range.contains(&found) {
                return Err(SamplingError { field, found, expected });
            }
        }
        match self.logit_bias.iter().find(|(_, bias)| !(-100.0..=100.0).contains(bias)) {
            Some(&(_, found)) => {
                Err(SamplingError { field: "logit_bias", found, expected: "-100 to 100" })
            }
            None => Ok(()),
        }
    }
}

/// The state of one generation's draws.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: SamplingParams,
    rng: Rng,
    /// Tokens of prompt and answer, and how often each is in the answer.
    seen: HashMap<u32, u32>,
}

/// A token that somebody thinks will come next.
#[derive(Debug, Clone)]
pub struct Guess {
    /// The token.
    pub token: u32,
    /// What it was drawn from; absent if it was not drawn but looked up.
    pub drawn_from: Option<Distribution>,
}

/// Tokens that may be drawn, with their weights.
#[derive(Debug, Clone)]
pub struct Distribution {
    candidates: Vec<Candidate>,
    /// Of all weights.
    total: f64,
}

/// A token that may still be drawn.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    token: u32,
    /// Its probability times a factor common to all.
    weight: f64,
}

impl Distribution {
    fn new(candidates: Vec<Candidate>) -> Self {
        let total = candidates.iter().map(|c| c.weight).sum();
        Self { candidates, total }
    }

    /// The token at `uniform`, 0 to 1, of the whole weight; `None` if nothing has any.
    fn pick(&self, uniform: f64) -> Option<u32> {
        let mut left = uniform * self.total;
        for candidate in &self.candidates {
            left -= candidate.weight;
            if left < 0.0 {
                return Some(candidate.token);
            }
        }
        // Rounding may leave a crumb.
        self.candidates.last().map(|c| c.token)
    }

    /// The share of `token`, 0 to 1.
    fn probability(&self, token: u32) -> f64 {
        let found = self.candidates.iter().find(|c| c.token == token);
        found.map_or(0.0, |c| c.weight / self.total)
    }

    /// What is left of it where `other` has less: what to draw from once a guess from `other` was
    /// refused.
    fn beyond(&self, other: &Self) -> Self {
        let others: HashMap<u32, f64> =
            other.candidates.iter().map(|c| (c.token, c.weight / other.total)).collect();
        let left = |c: &Candidate| {
            let weight = c.weight / self.total - others.get(&c.token).copied().unwrap_or(0.0);
            (weight > 0.0).then_some(Candidate { token: c.token, weight })
        };
        Self::new(self.candidates.iter().filter_map(left).collect())
    }
}

impl Sampler {
    /// For an answer to `prompt`. Validate `params` first: values out of range give strange draws.
    pub fn new(params: SamplingParams, prompt: &[u32]) -> Self {
        let rng = Rng::new(params.seed);
        Self { params, rng, seen: prompt.iter().map(|token| (*token, 0)).collect() }
    }

    /// Whether it always takes the likeliest token.
    pub fn is_greedy(&self) -> bool {
        self.params.temperature == 0.0
    }

    /// Draws from `logits` `[V]`, which it overwrites with penalised ones, and remembers the draw.
    ///
    /// NaN counts as impossible. With nothing possible the draw is token 0.
    pub fn sample(&mut self, logits: &mut [f32]) -> u32 {
        self.adjust(logits);
        let token = self.draw(logits);
        self.record(token);
        token
    }

    /// As [`Self::sample`], with a guess: the token drawn is the guess's if that is accepted, and
    /// never if it is refused.
    ///
    /// The draws follow the distribution of [`Self::sample`]. For a guess that was not drawn they
    /// are even the same ones, and so they are at temperature 0.
    pub fn verify(&mut self, logits: &mut [f32], guess: &Guess) -> u32 {
        let Some(drawn_from) = guess.drawn_from.as_ref().filter(|_| !self.is_greedy()) else {
            return self.sample(logits);
        };
        self.adjust(logits);
        // Both drawn at once, so that the number of draws never depends on the logits.
        let [chance, place] = [(); 2].map(|()| self.uniform());
        let likeliest = likeliest(logits);
        let own = self.distribution(logits, likeliest);
        let (wanted, given) = (own.probability(guess.token), drawn_from.probability(guess.token));
        let token = if chance * given < wanted {
            guess.token
        } else {
            let left = own.beyond(drawn_from);
            left.pick(place).or_else(|| own.pick(place)).unwrap_or(likeliest)
        };
        self.record(token);
        token
    }

    /// Draws from `logits` `[V]` as [`Self::sample`] does, for another sampler to judge.
    pub fn guess(&mut self, logits: &mut [f32]) -> Guess {
        self.adjust(logits);
        let likeliest = likeliest(logits);
        let (token, drawn_from) = if self.is_greedy() {
            (likeliest, None)
        } else {
            let uniform = self.uniform();
            let distribution = self.distribution(logits, likeliest);
            (distribution.pick(uniform).unwrap_or(likeliest), Some(distribution))
        };
        self.record(token);
        Guess { token, drawn_from }
    }

    /// A sampler with the same parameters that has seen the same tokens and draws on its own: for
    /// guessing ahead.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        let rng = Rng::new(self.rng.next_u64());
        Self { params: self.params.clone(), rng, seen: self.seen.clone() }
    }

    /// Remembers a token of the answer that came from elsewhere (a replayed generation).
    pub fn record(&mut self, token: u32) {
        *self.seen.entry(token).or_default() += 1;
    }

    /// Where its draws stand.
    pub fn draws(&self) -> u64 {
        self.rng.state()
    }

    /// Goes on with the draws where another sampler stood.
    pub fn set_draws(&mut self, draws: u64) {
        self.rng = Rng::new(draws);
    }

    /// Penalties, then bias.
    fn adjust(&self, logits: &mut [f32]) {
        let SamplingParams { repetition_penalty, frequency_penalty, presence_penalty, .. } =
            self.params;
        for (&token, &count) in &self.seen {
            let Some(logit) = logits.get_mut(token as usize) else { continue };
            if *logit > 0.0 {
                *logit /= repetition_penalty;
            } else {
                *logit *= repetition_penalty;
            }
            if count > 0 {
                *logit -= frequency_penalty * count as f32 + presence_penalty;
            }
        }
        for &(token, bias) in &self.params.logit_bias {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit += bias;
            }
        }
    }

    fn draw(&mut self, logits: &[f32]) -> u32 {
        let likeliest = likeliest(logits);
        if self.is_greedy() {
            return likeliest;
        }
        // Drawn first, so that the number of draws per token never depends on the logits.
        let uniform = self.uniform();
        self.distribution(logits, likeliest).pick(uniform).unwrap_or(likeliest)
    }

    /// 0 to below 1.
    fn uniform(&mut self) -> f64 {
        (self.rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// What temperature and filters leave of adjusted logits.
    fn distribution(&self, logits: &[f32], likeliest: u32) -> Distribution {
        let mut candidates = weigh(logits, likeliest, self.params.temperature);
        keep_top_k(&mut candidates, self.params.top_k as usize);
        keep_top_p(&mut candidates, f64::from(self.params.top_p));
        let least = f64::from(self.params.min_p); // the likeliest weighs 1
        candidates.retain(|c| c.weight >= least);
        Distribution::new(candidates)
    }
}

/// The lowest id among the largest logits; 0 if all are NaN.
fn likeliest(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, &logit) in logits.iter().enumerate() {
        if logit > best.1 {
            best = (token, logit);
        }
    }
    best.0 as u32
}

/// Softmax numerators, with the likeliest token's at 1, in the order of ids.
fn weigh(logits: &[f32], likeliest: u32, temperature: f32) -> Vec<Candidate> {
    let Some(&max) = logits.get(likeliest as usize) else { return Vec::new() };
    let weigh = |(token, &logit): (usize, &f32)| {
        let weight = (f64::from(logit - max) / f64::from(temperature)).exp();
        // An infinite logit less itself is no number, and yet certain.
        let weight = if logit == max && !max.is_nan() { 1.0 } else { weight };
        Candidate { token: token as u32, weight }
    };
    logits.iter().enumerate().map(weigh).filter(|c| c.weight > 0.0).collect()
}

/// Likelier first; lower id first among equals.
fn by_weight(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.weight.total_cmp(&a.weight).then(a.token.cmp(&b.token))
}

fn keep_top_k(candidates: &mut Vec<Candidate>, k: usize) {
    if k > 0 && k < candidates.len() {
        candidates.select_nth_unstable_by(k - 1, by_weight);
        candidates.truncate(k);
        candidates.sort_unstable_by(by_weight);
    }
}

/// Keeps the shortest run of likeliest tokens that reaches `p`, at least one.
fn keep_top_p(candidates: &mut Vec<Candidate>, p: f64) {
    if p >= 1.0 || candidates.is_empty() {
        return;
    }
    let total: f64 = candidates.iter().map(|c| c.weight).sum();
    // Tokens below this share sum to less than 1 - p, so the run ends before them: leave them out of
    // the sort, which else dominates with large vocabularies.
    let least = total * (1.0 - p) / candidates.len() as f64;
    candidates.retain(|c| c.weight >= least);
    candidates.sort_unstable_by(by_weight);
    let mut sum = 0.0;
    let reached = candidates.iter().position(|c| {
        sum += c.weight;
        sum >= p * total
    });
    candidates.truncate(reached.map_or(candidates.len(), |last| last + 1));
}

#[cfg(test)]
mod tests;
