//! The step that all members take together: from the anchor that they shared to the next one.
//!
//! DiLoCo (Douillard et al. 2023): what members learned, the anchor minus their weights, is averaged to one gradient g, and a step of
//! SGD with Nesterov momentum goes along it: v ← μ v + g, anchor ← anchor - η (g + μ v). Always from the shared anchor,
//! never from a member's own weights, from where members would drift apart. η = 1 and μ = 0 is averaging, and with one member
//! and [`crate::Compressor::Plain32`] its own weights, to the bit.
//!
//! All members take this step for themselves, from the same bytes, and have to come to the same bits. So it is done in f64,
//! rounded once to f32, with parts in the order in which they are given; nothing in it depends on the machine.

use crate::robust::{MergeError, Merger, Part, Rule};
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
}

/// Why bytes are no [`Shared`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum SharedError {
    /// Neither weights alone nor weights and momentum.
    #[error("a checkpoint of {found} bytes, expected {expected} or twice its values")]
    Size { expected: usize, found: usize },
    /// Another version.
    #[error("a checkpoint of version {found}, expected {expected}: update the older side")]
    Version { expected: u8, found: u8 },
    /// NaN or infinity.
    #[error("a checkpoint whose value {position} is not finite")]
    NotFinite { position: usize },
}

/// Raised whenever the encoding of [`Shared`] changes.
const VERSION: u8 = 1;

impl Shared {
    /// Before the first round.
    pub const fn new(anchor: Vec<f32>) -> Self {
        Self { anchor, velocity: Vec::new() }
    }

    /// The weights from which all begin the next round.
    pub fn anchor(&self) -> &[f32] {
        &self.anchor
    }

    /// The momentum; empty while there never was any.
    pub fn velocity(&self) -> &[f32] {
        &self.velocity
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
        *self = next;
        Ok(())
    }

    /// What a member that joins is given: version, then weights and momentum as f32, little-endian.
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + 4 * (self.anchor.len() + self.velocity.len()));
        bytes.push(VERSION);
        bytes
            .extend(self.anchor.iter().chain(&self.velocity).flat_map(|value| value.to_le_bytes()));
        bytes
    }

    /// Reads what [`Shared::write`] wrote for a model of `len` values.
    ///
    /// # Errors
    /// [`SharedError`] says what was expected and found. Allocates no more than the bytes have.
    pub fn read(len: usize, bytes: &[u8]) -> Result<Self, SharedError> {
        let (expected, found) = (1 + 4 * len, bytes.len());
        if found != expected && found != expected + 4 * len {
            return Err(SharedError::Size { expected, found });
        }
        if bytes[0] != VERSION {
            return Err(SharedError::Version { expected: VERSION, found: bytes[0] });
        }
        let values = bytes[1..].as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk));
        let mut anchor: Vec<f32> = values.collect();
        if let Some(position) = anchor.iter().position(|value| !value.is_finite()) {
            return Err(SharedError::NotFinite { position });
        }
        let velocity = anchor.split_off(len);
        Ok(Self { anchor, velocity })
    }

    /// The BLAKE3 digest of what [`Shared::write`] writes: equal for all members after each round.
    pub fn hash(&self) -> WeightsHash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[VERSION]);
        for values in [&self.anchor, &self.velocity] {
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

/// What a member goes on with when the merged weights come after it trained on: a mixture, of which `own` is its own weights' part
/// (Streaming DiLoCo; 0 takes the merged ones as they are).
pub fn adopt(weights: &mut [f32], merged: &[f32], own: f32) {
    for (weight, merged) in weights.iter_mut().zip(merged) {
        *weight = if own == 0.0 { *merged } else { own * *weight + (1.0 - own) * merged };
    }
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
        for _ in 0..2 {
            let bytes = shared.write();
            assert_eq!(Shared::read(2, &bytes), Ok(shared.clone()));
            assert_eq!(shared.hash().0, *blake3::hash(&bytes).as_bytes());
            let (expected, found) = (9, bytes.len() - 1);
            assert_eq!(Shared::read(2, &bytes[1..]), Err(SharedError::Size { expected, found }));
            learned(&mut shared, Outer::NESTEROV, &[&[0.125, 0.0]]);
        }
        let other = [2, 0, 0, 0, 0];
        assert_eq!(Shared::read(1, &other), Err(SharedError::Version { expected: 1, found: 2 }));
        let infinite = [1, 0, 0, 128, 127];
        assert_eq!(Shared::read(1, &infinite), Err(SharedError::NotFinite { position: 0 }));
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

    const PINNED: &str = "c13c04c469e81b04df58239f430052e078ee85b431a597e3b374756f1ec8126c";

    #[test]
    fn weights_that_come_late_are_mixed_in() {
        let mut weights = [1.0, 2.0];
        adopt(&mut weights, &[3.0, 4.0], 0.5);
        assert_eq!(weights, [2.0, 3.0]);
        adopt(&mut weights, &[0.1, 0.7], 0.0);
        assert_eq!(weights, [0.1, 0.7]);
    }

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
