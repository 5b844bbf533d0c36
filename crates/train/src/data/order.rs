//! The order of windows: the stream of [`assign`], cut anew each epoch.

use crate::assign;
use std::ops::Range;
use talka_base::rng::Rng;

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
        let shuffled = assign::sample(self.seed, self.count, position);
        let start = first as usize + shuffled as usize * self.length;
        start..start + self.length + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
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
