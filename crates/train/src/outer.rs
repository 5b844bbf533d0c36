//! The step that all members take together: from the anchor that they shared to the next one.
//!
//! DiLoCo (Douillard et al. 2023): what members learned, the anchor minus their weights, is averaged to one gradient g, and a step of
//! SGD with Nesterov momentum goes along it: v ← μ v + g, anchor ← anchor - η (g + μ v). Always from the shared anchor,
//! never from a member's own weights, from where members would drift apart. η = 1 and μ = 0 is averaging, and with one member
//! and [`crate::Compressor::Plain32`] its own weights, to the bit.
//!
//! All members take this step for themselves, from the same bytes, and have to come to the same bits. So it is done in f64,
//! rounded once to f32, with parts in the order in which they are given; nothing in it depends on the machine.

use crate::{
    Fragment, average,
    robust::{MergeError, Merger, Part, Rule},
};
use talka_base::WeightsHash;

/// The outer optimiser's settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outer {
    /// η.
    pub rate: f64,
    /// μ, from 0 to below 1.
    pub momentum: f64,
}

impl Outer {
    /// Plain averaging.
    pub const AVERAGE: Self = Self { rate: 1.0, momentum: 0.0 };
    /// DiLoCo's for long runs.
    pub const NESTEROV: Self = Self { rate: 0.7, momentum: 0.9 };
    /// Rounds from which on a run is long.
    pub const LONG_RUN_ROUNDS: u64 = 500;

    /// What suits a run of so many rounds: momentum overshoots until it has seen many times its own horizon of 1 / (1 - μ) rounds, so
    /// short runs average.
    pub const fn for_rounds(rounds: u64) -> Self {
        if rounds < Self::LONG_RUN_ROUNDS { Self::AVERAGE } else { Self::NESTEROV }
    }
}

/// What the values of parts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// The member's weights.
    Weights,
    /// The anchor minus the member's weights, or what compression left of it.
    Learned,
}

/// What every member holds alike between rounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Shared {
    /// The weights from which all begin the next round.
    anchor: Vec<f32>,
    /// The momentum; empty while there never was any.
    velocity: Vec<f32>,
    /// The mean of the weights of the latest rounds; empty where none is kept.
    mean: Vec<f32>,
}

/// Why bytes are no [`Shared`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum SharedError {
    /// Not what its first bytes announce.
    #[error("a checkpoint of {found} bytes, expected {expected}")]
    Size { expected: usize, found: usize },
    /// It announces what there is not.
    #[error("a checkpoint with parts {found:#b}, expected momentum and mean at most")]
    Parts { found: u8 },
    /// Another version.
    #[error("a checkpoint of version {found}, expected {expected}: update the older side")]
    Version { expected: u8, found: u8 },
    /// NaN or infinity.
    #[error("a checkpoint whose value {position} is not finite")]
    NotFinite { position: usize },
}

/// Raised whenever the encoding of [`Shared`] changes.
const VERSION: u8 = 2;
/// Bits that say what follows the weights, in this order.
const VELOCITY: u8 = 1;
const MEAN: u8 = 2;
const HEADER_BYTES: usize = 2;

impl Shared {
    /// Before the first round.
    pub const fn new(anchor: Vec<f32>) -> Self {
        Self { anchor, velocity: Vec::new(), mean: Vec::new() }
    }

    /// The most bytes that [`Shared::write`] writes for a model of `len` values.
    pub const fn bytes_max(len: usize) -> u64 {
        HEADER_BYTES as u64 + 12 * len as u64
    }

    /// The weights from which all begin the next round.
    pub fn anchor(&self) -> &[f32] {
        &self.anchor
    }

    /// The momentum; empty while there never was any.
    pub fn velocity(&self) -> &[f32] {
        &self.velocity
    }

    /// What a version consists of: the mean of the weights, where one is kept.
    pub fn served(&self) -> &[f32] {
        if self.mean.is_empty() { &self.anchor } else { &self.mean }
    }

    /// What is shared of a fragment, without mean.
    pub fn gather(&self, fragment: &Fragment) -> Self {
        let of = |whole: &Vec<f32>| {
            if whole.is_empty() { Vec::new() } else { fragment.gather(whole) }
        };
        Self { anchor: of(&self.anchor), velocity: of(&self.velocity), mean: Vec::new() }
    }

    /// Puts a fragment's weights and momentum back into the whole.
    ///
    /// # Panics
    /// If it is another fragment's.
    pub fn scatter(&mut self, fragment: &Fragment, part: &Self) {
        fragment.scatter(&part.anchor, &mut self.anchor);
        if !part.velocity.is_empty() {
            self.velocity.resize(self.anchor.len(), 0.0);
            fragment.scatter(&part.velocity, &mut self.velocity);
        }
    }

    /// Adds the weights after `round`, which has `steps` steps, to the mean over about the last `over` steps.
    pub fn average(&mut self, round: u64, steps: u64, over: u64) {
        average::add(&mut self.mean, &self.anchor, round.saturating_sub(1), (steps, over));
    }

    /// The step along what `parts` say, in their order.
    ///
    /// # Errors
    /// [`MergeError`]; then nothing was changed.
    pub fn step(
        &mut self,
        outer: Outer,
        rule: Rule,
        said: Said,
        parts: &[Part<'_>],
    ) -> Result<(), MergeError> {
        let weights = said == Said::Weights;
        if let Some((part, found)) = misfit(parts, self.anchor.len()) {
            return Err(MergeError::Size { part, expected: self.anchor.len(), found });
        }
        let merger = Merger::new(rule, parts, weights.then_some(&self.anchor))?;
        let mut next = Self {
            anchor: Vec::with_capacity(self.anchor.len()),
            velocity: Vec::with_capacity(self.velocity.len()),
            mean: Vec::new(),
        };
        let keeps_velocity = outer.momentum > 0.0 || !self.velocity.is_empty();
        let mut points = Vec::with_capacity(parts.len());
        for (at, &anchor) in self.anchor.iter().enumerate() {
            let anchor = f64::from(anchor);
            points.clear();
            points.extend(parts.iter().enumerate().map(|(part, values)| {
                let (value, scale) = (f64::from(values.values[at]), merger.scales[part]);
                // Unclipped weights stay as they are, to the bit.
                let clipped = scale != 1.0;
                let origin = if weights { anchor } else { 0.0 };
                (if clipped { origin + scale * (value - origin) } else { value }, part)
            }));
            let centre = merger.centre(&mut points);
            let (mean, gradient) =
                if weights { (centre, anchor - centre) } else { (anchor - centre, centre) };
            let before = self.velocity.get(at).copied().unwrap_or_default();
            let velocity = outer.momentum * f64::from(before) + gradient;
            // The same as anchor - η (g + μ v), and exactly the mean for η = 1 and μ = 0.
            let ahead = outer.rate * outer.momentum * velocity;
            next.anchor.push((mean + (1.0 - outer.rate) * gradient - ahead) as f32);
            if keeps_velocity {
                next.velocity.push(velocity as f32);
            }
        }
        if !next.anchor.iter().chain(&next.velocity).all(|value| value.is_finite()) {
            return Err(MergeError::Diverged);
        }
        *self = Self { mean: std::mem::take(&mut self.mean), ..next };
        Ok(())
    }

    /// Version and what is there, then the weights and what is there beside them.
    fn header(&self) -> [u8; HEADER_BYTES] {
        let bit = |values: &[f32], bit| if values.is_empty() { 0 } else { bit };
        [VERSION, bit(&self.velocity, VELOCITY) | bit(&self.mean, MEAN)]
    }

    const fn parts(&self) -> [&Vec<f32>; 3] {
        [&self.anchor, &self.velocity, &self.mean]
    }

    /// What a member that joins is given: version, which parts follow, then weights, momentum and mean as f32, little-endian.
    pub fn write(&self) -> Vec<u8> {
        let values: usize = self.parts().iter().map(|part| part.len()).sum();
        let mut bytes = Vec::with_capacity(HEADER_BYTES + 4 * values);
        bytes.extend(self.header());
        bytes.extend(self.parts().into_iter().flatten().flat_map(|value| value.to_le_bytes()));
        bytes
    }

    /// Reads what [`Shared::write`] wrote for a model of `len` values.
    ///
    /// # Errors
    /// [`SharedError`] says what was expected and found. Allocates no more than the bytes have.
    pub fn read(len: usize, bytes: &[u8]) -> Result<Self, SharedError> {
        let found = bytes.len();
        let size = |parts: u32| HEADER_BYTES + 4 * len * (1 + parts as usize);
        let Some(&[version, parts]) = bytes.first_chunk() else {
            return Err(SharedError::Size { expected: size(0), found });
        };
        if version != VERSION {
            return Err(SharedError::Version { expected: VERSION, found: version });
        }
        if parts & !(VELOCITY | MEAN) != 0 {
            return Err(SharedError::Parts { found: parts });
        }
        let expected = size(parts.count_ones());
        if found != expected {
            return Err(SharedError::Size { expected, found });
        }
        let values = bytes[HEADER_BYTES..].as_chunks().0.iter();
        let mut anchor: Vec<f32> = values.map(|chunk| f32::from_le_bytes(*chunk)).collect();
        if let Some(position) = anchor.iter().position(|value| !value.is_finite()) {
            return Err(SharedError::NotFinite { position });
        }
        let mut rest = anchor.split_off(len);
        let mean = rest.split_off(if parts & VELOCITY == 0 { 0 } else { len });
        Ok(Self { anchor, velocity: rest, mean })
    }

    /// The BLAKE3 digest of what [`Shared::write`] writes: equal for all members after each round.
    pub fn hash(&self) -> WeightsHash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.header());
        for values in self.parts() {
            for chunk in values.chunks(HASH_CHUNK) {
                let mut bytes = [0; 4 * HASH_CHUNK];
                for (to, value) in bytes.as_chunks_mut().0.iter_mut().zip(chunk) {
                    *to = value.to_le_bytes();
                }
                hasher.update(&bytes[..4 * chunk.len()]);
            }
        }
        WeightsHash(*hasher.finalize().as_bytes())
    }
}

/// Values that are hashed at once.
const HASH_CHUNK: usize = 1024;

fn misfit(parts: &[Part<'_>], expected: usize) -> Option<(usize, usize)> {
    let lens = parts.iter().map(|part| part.values.len()).enumerate();
    lens.into_iter().find(|&(_, found)| found != expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::robust::Centre;
    use proptest::prelude::*;

    fn learned(shared: &mut Shared, outer: Outer, members: &[&[f32]]) {
        let parts: Vec<_> = members.iter().map(|values| Part { values, tokens: 1 }).collect();
        shared.step(outer, Rule::MEAN, Said::Learned, &parts).expect("merges");
    }

    #[test]
    fn momentum_builds_up_as_published() {
        let mut shared = Shared::new(vec![0.0]);
        for (velocity, moved) in [(1.0, 1.33), (1.9, 3.227), (2.71, 5.6343)] {
            learned(&mut shared, Outer::NESTEROV, &[&[1.0]]);
            assert!((shared.velocity()[0] - velocity).abs() < 1e-6);
            assert!((shared.anchor()[0] + moved).abs() < 1e-6);
        }
    }

    #[test]
    fn sparse_updates_move_only_what_they_say() {
        let mut shared = Shared::new(vec![0.1, 0.2, 0.3]);
        learned(&mut shared, Outer::AVERAGE, &[&[0.0, 0.4, 0.0], &[0.0, 0.0, 0.0], &[0.0; 3]]);
        assert_eq!(shared.anchor()[0], 0.1);
        assert_eq!(shared.anchor()[2], 0.3);
        assert!((shared.anchor()[1] - (0.2 - 0.4 / 3.0)).abs() < 1e-7);
    }

    #[test]
    fn few_rounds_average_and_many_have_momentum() {
        assert_eq!(Outer::for_rounds(20), Outer::AVERAGE);
        assert_eq!(Outer::for_rounds(5000), Outer::NESTEROV);
    }

    #[test]
    fn what_does_not_fit_or_overflows_changes_nothing() {
        let mut shared = Shared::new(vec![1.0, f32::MAX]);
        let before = shared.clone();
        let step = |shared: &mut Shared, values: &[f32]| {
            let parts = [Part { values, tokens: 1 }];
            shared.step(Outer::NESTEROV, Rule::MEAN, Said::Learned, &parts)
        };
        let expected = MergeError::Size { part: 0, expected: 2, found: 1 };
        assert_eq!(step(&mut shared, &[1.0]), Err(expected));
        assert_eq!(step(&mut shared, &[0.0, f32::MIN]), Err(MergeError::Diverged));
        assert_eq!(shared, before);
    }

    #[test]
    fn checkpoints_are_read_as_written_and_nothing_else_is() {
        let mut shared = Shared::new(vec![0.5, -0.25]);
        let mut averaged = shared.clone();
        averaged.average(1, 25, 100);
        for round in 1..=2 {
            for shared in [&shared, &averaged] {
                let bytes = shared.write();
                assert_eq!(Shared::read(2, &bytes), Ok(shared.clone()));
                assert_eq!(shared.hash().0, *blake3::hash(&bytes).as_bytes());
                assert!(bytes.len() as u64 <= Shared::bytes_max(2));
                let (expected, found) = (bytes.len(), bytes.len() - 1);
                let cut = Shared::read(2, &bytes[..found]);
                assert_eq!(cut, Err(SharedError::Size { expected, found }));
            }
            for shared in [&mut shared, &mut averaged] {
                learned(shared, Outer::NESTEROV, &[&[0.125, 0.0]]);
            }
            averaged.average(round, 25, 100);
        }
        assert_eq!((shared.served(), averaged.anchor()), (shared.anchor(), shared.anchor()));
        assert_ne!(averaged.served(), averaged.anchor());
        let [expected, found] = [2, 1];
        let other = [1, 0, 0, 0, 0, 0];
        assert_eq!(Shared::read(1, &other), Err(SharedError::Version { expected, found }));
        assert_eq!(Shared::read(1, &[2, 4]), Err(SharedError::Parts { found: 4 }));
        assert_eq!(Shared::read(1, &[2]), Err(SharedError::Size { expected: 6, found: 1 }));
        let infinite = [2, 0, 0, 0, 128, 127];
        assert_eq!(Shared::read(1, &infinite), Err(SharedError::NotFinite { position: 0 }));
    }

    /// Goal: fragments one after the other come to what the whole comes to.
    #[test]
    fn fragments_take_the_step_of_the_whole() {
        let parameters = crate::Parameters::new(&crate::ModelConfig {
            hidden: 4,
            layers: 3,
            heads: 2,
            kv_heads: 1,
            ffn: 6,
            vocab: 7,
            ..crate::ModelConfig::preset("bootstrap").expect("known")
        });
        let fragments = crate::Fragments::of(&parameters, 3);
        let values: Vec<f32> = (0..parameters.len()).map(|n| (n as f32 * 0.37).fract()).collect();
        let mut whole = Shared::new(values.clone());
        let mut cut = whole.clone();
        for _ in 0..2 {
            learned(&mut whole, Outer::NESTEROV, &[&values]);
            for round in 0..fragments.count() {
                let fragment = fragments.of_round(round);
                let mut part = cut.gather(fragment);
                learned(&mut part, Outer::NESTEROV, &[&fragment.gather(&values)]);
                cut.scatter(fragment, &part);
            }
        }
        assert_eq!(cut, whole);
    }

    #[test]
    fn merged_weights_keep_their_bits() {
        // Pinned: every machine has to come to these.
        let mut shared = Shared::new((0..50).map(|n| (n as f32 * 0.37).fract() - 0.5).collect());
        let members: Vec<Vec<f32>> = (1..6)
            .map(|m| (0..50).map(|n| ((n * m) as f32 * 0.173).fract() * 0.01).collect())
            .collect();
        for centre in [
            Centre::Mean,
            Centre::Trimmed { per_mille: 200 },
            Centre::Median,
            Centre::Krum { liars: 1, kept: 3 },
            Centre::GeometricMedian,
        ] {
            let parts: Vec<_> =
                members.iter().zip(3..).map(|(values, tokens)| Part { values, tokens }).collect();
            let rule = Rule { clip: true, centre };
            shared.step(Outer::NESTEROV, rule, Said::Learned, &parts).expect("merges");
        }
        assert_eq!(shared.hash().to_string(), PINNED);
    }

    const PINNED: &str = "ad2a4aec84462d46394a27bc17224e28dbb6b224750a8e174f07c13d9d33a5a4";

    proptest! {
        #[test]
        fn one_member_alone_gets_its_own_weights(
            pairs in proptest::collection::vec((any::<f32>(), any::<f32>()), 1..40),
        ) {
            let finite = |x: f32| if x.is_finite() { x } else { 0.0 };
            let (anchor, own): (Vec<f32>, Vec<f32>) =
                pairs.into_iter().map(|(a, b)| (finite(a), finite(b))).unzip();
            let mut shared = Shared::new(anchor);
            let parts = [Part { values: &own, tokens: 5 }];
            for clip in [false, true] {
                let rule = Rule { clip, centre: Centre::Mean };
                shared.step(Outer::AVERAGE, rule, Said::Weights, &parts).expect("merges");
                prop_assert_eq!(shared.anchor(), own.as_slice());
            }
        }
    }
}
