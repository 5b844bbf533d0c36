//! The order of windows: a shuffle that needs no memory, so that any position is found at once.

use std::ops::Range;
use talka_base::rng::Rng;

/// A permutation of `0..count` by a seed: four Feistel rounds over the next even number of bits, walked until inside.
///
/// A step of a walk stays outside with a chance below 3/4, so walks are short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shuffle {
    count: u64,
    /// Bits of half a number.
    half: u32,
    keys: [u64; 4],
}

impl Shuffle {
    /// # Panics
    /// If there is nothing to shuffle.
    pub fn new(count: u64, seed: u64) -> Self {
        assert!(count > 0, "nothing to shuffle");
        let bits = u64::BITS - (count - 1).leading_zeros();
        let mut rng = Rng::new(seed);
        Self { count, half: bits.div_ceil(2).max(1), keys: std::array::from_fn(|_| rng.next_u64()) }
    }

    /// What comes at `place`.
    ///
    /// # Panics
    /// If `place` is not below the count.
    pub fn at(&self, place: u64) -> u64 {
        assert!(place < self.count, "{place} of {}", self.count);
        let mask = (1_u64 << self.half) - 1;
        let mut found = place;
        loop {
            let (mut left, mut right) = (found >> self.half, found & mask);
            for key in self.keys {
                let mixed = Rng::new(right ^ key).next_u64() & mask;
                (left, right) = (right, left ^ mixed);
            }
            found = left << self.half | right;
            if found < self.count {
                return found;
            }
        }
    }
}

/// Windows of a row of tokens. Each epoch has all windows once, in an order of its own and beginning at another token,
/// so that windows are not cut at the same places again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    length: usize,
    seed: u64,
    /// Windows of an epoch.
    count: u64,
    /// Places where the first window may begin.
    starts: u64,
}

impl Order {
    /// Windows of `length + 1` of `tokens` tokens; `None` if there are too few.
    pub fn new(tokens: usize, length: usize, seed: u64) -> Option<Self> {
        let whole = tokens.checked_sub(1)?.checked_div(length)? as u64;
        let (count, starts) = match whole {
            0 => return None,
            1 => (1, (tokens - length) as u64),
            whole => (whole - 1, length as u64),
        };
        Some(Self { length, seed, count, starts })
    }

    /// Windows of an epoch.
    pub fn per_epoch(&self) -> u64 {
        self.count
    }

    /// The tokens at `position`.
    pub fn window(&self, position: u64) -> Range<usize> {
        let epoch = position / self.count;
        let mut rng = Rng::new(self.seed ^ epoch.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let first = rng.below(self.starts);
        let shuffled = Shuffle::new(self.count, rng.next_u64()).at(position % self.count);
        let start = first as usize + shuffled as usize * self.length;
        start..start + self.length + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_shuffle_has_everything_once(count in 1_u64..300, seed: u64) {
            let shuffle = Shuffle::new(count, seed);
            let seen: BTreeSet<u64> = (0..count).map(|place| shuffle.at(place)).collect();
            prop_assert_eq!(seen.len() as u64, count);
            prop_assert!(seen.iter().all(|at| *at < count));
        }

        #[test]
        fn windows_lie_in_the_text_and_overlap_only_at_their_ends(
            tokens in 2_usize..400, length in 1_usize..30, seed: u64, epoch in 0_u64..5,
        ) {
            prop_assume!(tokens > length);
            let order = Order::new(tokens, length, seed).expect("enough");
            let positions = (0..order.per_epoch()).map(|at| epoch * order.per_epoch() + at);
            let mut starts: Vec<usize> = positions.map(|at| {
                let window = order.window(at);
                assert!(window.end <= tokens && window.len() == length + 1);
                window.start
            }).collect();
            starts.sort_unstable();
            prop_assert!(starts.windows(2).all(|pair| pair[1] - pair[0] == length));
        }
    }

    #[test]
    fn orders_differ_between_seeds_and_epochs() {
        let all = |seed, epoch: u64| -> Vec<usize> {
            let order = Order::new(10_001, 10, seed).expect("enough");
            let first = epoch * order.per_epoch();
            (0..50).map(|at| order.window(first + at).start).collect()
        };
        assert_eq!(all(1, 0), all(1, 0));
        assert_ne!(all(1, 0), all(2, 0));
        assert_ne!(all(1, 0), all(1, 1));
        assert!(Order::new(10, 10, 1).is_none() && Order::new(0, 1, 1).is_none());
        assert!(Order::new(10, 0, 1).is_none());
    }
}
