//! Shares a sum among members in proportion to weights, to the last µGFT, and remembers how for people.

use crate::profile::Rating;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};
use talka_base::{Credits, Flops, MemberId, NodeId, Precision};

/// The settlements whose breakdown is remembered, the latest.
pub const BREAKDOWNS_MAX: usize = 4_096;

/// How a settlement was shared, for people. It follows from entries and is no part of the state: a ledger that did not
/// itself apply the settlement, or long ago, has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breakdown {
    /// The work of all layers, which the payer was charged for.
    pub flops: Flops,
    /// Of the weights.
    pub precision: Precision,
    /// What a million tokens cost, where tokens have a price.
    pub per_million_tokens: Option<Credits>,
    /// What each receipt counted for, in the order of layers.
    pub parts: Vec<Part>,
}

/// What a receipt counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The node.
    pub node: NodeId,
    /// Its work.
    pub flops: Flops,
    /// What the ledger knew of the node then.
    pub rating: Rating,
}

/// Shares `whole` by `weights`, which sum to less than 2^108: rounded down, then one µGFT more for those with the largest
/// remainders, the lowest member id first among equals. The shares sum to `whole`, unless nothing weighs anything: then
/// there are none.
pub(crate) fn in_proportion(
    whole: Credits,
    weights: &BTreeMap<MemberId, u128>,
) -> BTreeMap<MemberId, Credits> {
    let total: u128 = weights.values().sum();
    if total == 0 {
        return BTreeMap::new();
    }
    let mut remainders = BTreeSet::new();
    let mut left = whole.0;
    let mut shares = BTreeMap::new();
    for (&member, &weight) in weights {
        let (share, remainder) = divide(whole.0, weight, total);
        remainders.insert((Reverse(remainder), member));
        shares.insert(member, Credits(share));
        left -= share;
    }
    for (_, member) in remainders.into_iter().take(left as usize) {
        shares.get_mut(&member).expect("every weight has a share").0 += 1;
    }
    shares
}

/// Quotient and remainder of `cost` · `part` / `whole`, for `part` <= `whole` < 2^108.
///
/// The product has more than 128 bits, so it is divided as on paper, 16 bits of `cost` at a time.
pub(crate) fn divide(cost: u64, part: u128, whole: u128) -> (u64, u128) {
    const DIGIT_BITS: u32 = 16;
    let (mut quotient, mut remainder) = (0_u128, 0_u128);
    for shift in (0..u64::BITS).step_by(DIGIT_BITS as usize).rev() {
        let digit = u128::from(cost >> shift & ((1 << DIGIT_BITS) - 1));
        let sum = (remainder << DIGIT_BITS) + digit * part;
        quotient = (quotient << DIGIT_BITS) + sum / whole;
        remainder = sum % whole;
    }
    (u64::try_from(quotient).expect("a part is not more than the whole"), remainder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use talka_base::Factor;

    fn by_member(weights: &[u128]) -> BTreeMap<MemberId, u128> {
        (0..).zip(weights).map(|(i, &weight)| (MemberId([i; 32]), weight)).collect()
    }

    fn check(whole: u64, weights: &[u128], expected: &[u64]) {
        let shares = in_proportion(Credits(whole), &by_member(weights));
        let shares: Vec<u64> = shares.values().map(|share| share.0).collect();
        assert_eq!(shares, expected);
    }

    /// What so many FLOPs weigh, by the multiplier and the reliability in ten-thousandths.
    fn weighs(flops: u64, (multiplier, reliability): (u32, u32)) -> u128 {
        let rating = Rating { multiplier: Factor(multiplier), reliability: Factor(reliability) };
        rating.weighs(Flops(flops))
    }

    #[test]
    fn shares_follow_weights_and_remainders_go_to_the_largest_then_to_the_lowest_id() {
        check(100, &[1, 1], &[50, 50]);
        check(101, &[1, 1], &[51, 50]);
        check(100, &[1, 2], &[33, 67]);
        check(10, &[1, 1, 1], &[4, 3, 3]);
        check(1, &[1, 5, 5], &[0, 1, 0]);
        check(0, &[7, 9], &[0, 0]);
        check(9, &[0, 3], &[0, 9]);
        check(u64::MAX, &[1 << 107], &[u64::MAX]);
        check(7, &[u64::MAX.into(), u64::MAX.into()], &[4, 3]);
    }

    #[test]
    fn faster_hardware_and_reliable_nodes_get_more_of_the_same() {
        const ONCE: (u32, u32) = (10_000, 10_000);
        const MOST: (u32, u32) = (80_000, 10_000);
        // Multiplier 1.325 and reliability 0.98 against 1 and 1: 1.2985 parts to one.
        check(22_985, &[weighs(10, (13_250, 9_800)), weighs(10, ONCE)], &[12_985, 10_000]);
        check(900, &[weighs(1, MOST), weighs(1, ONCE)], &[800, 100]);
        // Alone, standing changes nothing.
        check(100, &[weighs(3, (500, 5_000))], &[100]);
        let most = weighs(u64::MAX, MOST);
        check(u64::MAX, &[most, most], &[1 << 63, (1 << 63) - 1]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn long_division_agrees_with_a_short_one(
            cost: u64, part in 0u128..1 << 64, more in 0u128..1 << 64,
        ) {
            let whole = part + more + 1;
            let product = u128::from(cost) * part;
            let (quotient, remainder) = divide(cost, part, whole);
            prop_assert_eq!((u128::from(quotient), remainder), (product / whole, product % whole));
        }

        #[test]
        fn shares_sum_to_the_whole_and_are_within_one_of_proportion(
            whole: u64, weights in proptest::collection::vec(1u128..1 << 102, 1..40),
        ) {
            let weights = by_member(&weights);
            let total: u128 = weights.values().sum();
            let shares = in_proportion(Credits(whole), &weights);
            let sum: u128 = shares.values().map(|share| u128::from(share.0)).sum();
            prop_assert_eq!(sum, u128::from(whole));
            for (member, share) in &shares {
                let (floor, _) = divide(whole, weights[member], total);
                prop_assert!((floor..=floor.saturating_add(1)).contains(&share.0));
            }
        }
    }
}
