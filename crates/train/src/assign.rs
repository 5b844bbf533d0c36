//! Which samples a member trains on: the same answer on every machine, from the job's seed and agreed numbers alone.
//!
//! Samples stand in an endless *stream*: one order of all samples after the other, each another permutation ([`sample`]). A round
//! takes the next stretch of the stream, and its seats deal the places out among each other in turn, as cards
//! ([`Assignment`]). What a member did not reach stays untrained in this epoch and is counted as such, so that whatever a
//! member sends, and however late, no place of the stream is ever trained on twice.
//!
//! Integers only. Unlike random draws with replacement, which published small runs use, an epoch shows each sample once.

/// What one member trains on in one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assignment {
    /// The first place of the stream that belongs to the round.
    pub base: u64,
    /// How many seats share the round.
    pub seats: u64,
    /// Which of them this is, from 0.
    pub seat: u64,
    /// How many places each seat has.
    pub quota: u64,
}

impl Assignment {
    /// The place of the stream that is this seat's `index`th; nothing from the quota on.
    pub const fn place(&self, index: u64) -> Option<u64> {
        if index < self.quota { Some(self.base + index * self.seats + self.seat) } else { None }
    }

    /// The first place of the next round.
    pub const fn end(&self) -> u64 {
        self.base.saturating_add(self.seats.saturating_mul(self.quota))
    }
}

/// The sample at a place of the stream over `samples` samples.
///
/// # Panics
/// If there is no sample.
pub fn sample(seed: u64, samples: u64, place: u64) -> u64 {
    assert!(samples > 0, "data without samples is refused before a job starts");
    permute(seed, place / samples, samples, place % samples)
}

/// Rounds of the Feistel network: four suffice for a pseudo-random permutation (Luby and Rackoff 1988).
const FEISTEL_ROUNDS: u64 = 4;

/// A permutation of `0..samples` for each epoch: a Feistel network over the next even number of bits, walked until it is
/// back in range, which takes less than four steps in the mean.
fn permute(seed: u64, epoch: u64, samples: u64, index: u64) -> u64 {
    let half_bits = (u64::BITS - (samples - 1).leading_zeros()).div_ceil(2).max(1);
    let mask = (1u64 << half_bits) - 1;
    let mut at = index;
    loop {
        let (mut left, mut right) = (at >> half_bits, at & mask);
        for round in 0..FEISTEL_ROUNDS {
            let mixed = left ^ (mix(seed, epoch, round, right) & mask);
            (left, right) = (right, mixed);
        }
        at = left << half_bits | right;
        if at < samples {
            return at;
        }
    }
}

/// A number that depends on all four, evenly.
fn mix(seed: u64, epoch: u64, round: u64, half: u64) -> u64 {
    let keys = [seed, epoch, round, half];
    keys.into_iter().fold(0, |hash, key| talka_base::rng::Rng::new(hash ^ key).next_u64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn samples_stay_where_they_are() {
        // Pinned: members of all versions have to draw the same.
        let found: Vec<u64> = (0..12).map(|place| sample(7, 10, place)).collect();
        assert_eq!(found, PINNED);
        assert_eq!(sample(7, 1, 5), 0);
    }

    const PINNED: [u64; 12] = [4, 0, 3, 2, 7, 8, 5, 1, 6, 9, 3, 2];

    proptest! {
        #[test]
        fn an_epoch_shows_every_sample_once(seed: u64, samples in 1u64..2000, epoch in 0u64..1_000_000) {
            let places = (0..samples).map(|index| sample(seed, samples, epoch * samples + index));
            let seen: BTreeSet<u64> = places.collect();
            prop_assert_eq!(seen.len() as u64, samples);
            prop_assert!(seen.iter().all(|&sample| sample < samples));
        }

        #[test]
        fn seats_share_a_round_without_gap_or_overlap(base in 0u64..1 << 40, seats in 1u64..20, quota in 0u64..50) {
            let mut seen = BTreeSet::new();
            for seat in 0..seats {
                let assignment = Assignment { base, seats, seat, quota };
                prop_assert_eq!(assignment.place(quota), None);
                for index in 0..quota {
                    prop_assert!(seen.insert(assignment.place(index).expect("within the quota")));
                }
                prop_assert_eq!(assignment.end(), base + seats * quota);
            }
            prop_assert!(seen.iter().copied().eq(base..base + seats * quota));
        }
    }
}
