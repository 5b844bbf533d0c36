//! Shares what an answer costs among those who worked for it, to the last µGFT.
//!
//! In proportion to FLOPs × hardware multiplier × reliability. The factors only divide what the payer spends, so unlike in the
//! system that they come from, no multiplier creates credits.

use crate::{book::Earnings, standing::Standing};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};
use talka_base::{Credits, Factor, Flops, MemberId, NodeId, Precision, Tick};

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
    /// Its hardware multiplier...
    pub multiplier: Factor,
    /// ...and its reliability, as they were then.
    pub reliability: Factor,
}

impl Part {
    /// What `flops` by a node of this standing count for, at the ledger's time `at`.
    pub(crate) fn new(node: NodeId, flops: Flops, standing: &Standing, at: Tick) -> Self {
        let (multiplier, reliability) = (standing.multiplier(at), standing.reliability());
        Self { node, flops, multiplier, reliability }
    }

    /// FLOPs times both factors: never more than 2^94.
    pub fn weighted(&self) -> u128 {
        let [multiplier, reliability] =
            [self.multiplier, self.reliability].map(|f| u128::from(f.0));
        u128::from(self.flops.0) * multiplier * reliability
    }
}

/// What a member's nodes did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Work {
    flops: Flops,
    /// The sum of [`Part::weighted`].
    weighted: u128,
}

impl Work {
    /// Never overflows: a settlement has far fewer than 2^34 receipts.
    pub fn add(&mut self, part: &Part) {
        self.flops += part.flops;
        self.weighted += part.weighted();
    }
}

/// Shares `cost`: rounded down, then one µGFT more for those with the largest remainders, the lowest member id first among
/// equals. The shares sum to `cost`, unless there is no work: then there are none.
pub(crate) fn share_out(cost: Credits, work: &BTreeMap<MemberId, Work>) -> Earnings {
    let weights = work.iter().map(|(&member, work)| (member, work.weighted)).collect();
    let shares = in_proportion(cost, &weights);
    shares.into_iter().map(|(member, share)| (member, (share, work[&member].flops))).collect()
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

    /// Multiplier and reliability of a node that counts once, and of one that counts most.
    const ONCE: (u32, u32) = (10_000, 10_000);
    const MOST: (u32, u32) = (80_000, 10_000);

    type Parts<'a> = &'a [(u64, (u32, u32))];

    fn part(flops: u64, (multiplier, reliability): (u32, u32)) -> Part {
        let (multiplier, reliability) = (Factor(multiplier), Factor(reliability));
        Part { node: NodeId([0; 32]), flops: Flops(flops), multiplier, reliability }
    }

    fn works(parts: Parts<'_>) -> BTreeMap<MemberId, Work> {
        let mut works = BTreeMap::<_, Work>::new();
        for (i, &(flops, standing)) in (0..).zip(parts) {
            works.entry(MemberId([i; 32])).or_default().add(&part(flops, standing));
        }
        works
    }

    fn standing() -> impl Strategy<Value = (u32, u32)> {
        (500u32..=80_000, 5_000u32..=10_000)
    }

    fn shares(cost: u64, parts: Parts<'_>) -> Vec<u64> {
        share_out(Credits(cost), &works(parts)).values().map(|(share, _)| share.0).collect()
    }

    fn check(cost: u64, flops: &[u64], expected: &[u64]) {
        let parts: Vec<_> = flops.iter().map(|&flops| (flops, ONCE)).collect();
        assert_eq!(shares(cost, &parts), expected);
    }

    #[test]
    fn shares_follow_work_and_remainders_go_to_the_largest_then_to_the_lowest_id() {
        check(100, &[1, 1], &[50, 50]);
        check(101, &[1, 1], &[51, 50]);
        check(100, &[1, 2], &[33, 67]);
        check(10, &[1, 1, 1], &[4, 3, 3]);
        check(1, &[1, 5, 5], &[0, 1, 0]);
        check(0, &[7, 9], &[0, 0]);
        check(u64::MAX, &[u64::MAX], &[u64::MAX]);
        check(7, &[u64::MAX, u64::MAX], &[4, 3]);
    }

    #[test]
    fn faster_hardware_and_reliable_nodes_get_more_of_the_same() {
        // Multiplier 1.325 and reliability 0.98 against 1 and 1: 1.2985 parts to one.
        assert_eq!(shares(22_985, &[(10, (13_250, 9_800)), (10, ONCE)]), [12_985, 10_000]);
        assert_eq!(shares(900, &[(1, MOST), (1, ONCE)]), [800, 100]);
        assert_eq!(shares(100, &[(3, (500, 5_000))]), [100], "alone, standing changes nothing");
        assert_eq!(
            shares(u64::MAX, &[(u64::MAX, MOST), (u64::MAX, MOST)]),
            [1 << 63, (1 << 63) - 1]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn shares_sum_to_the_cost_and_are_within_one_of_proportion(
            cost in 0u64..1 << 40,
            parts in proptest::collection::vec((1u64..1 << 50, standing()), 1..40),
        ) {
            let total: u128 = parts.iter().map(|&(flops, s)| part(flops, s).weighted()).sum();
            let found = shares(cost, &parts);
            prop_assert_eq!(found.iter().sum::<u64>(), cost);
            for (&share, &(flops, standing)) in found.iter().zip(&parts) {
                let floor = u128::from(cost) * part(flops, standing).weighted() / total;
                prop_assert!((floor..=floor + 1).contains(&u128::from(share)));
            }
        }

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
        fn any_work_is_shared_whole(
            cost: u64, parts in proptest::collection::vec((1u64.., standing()), 1..40),
        ) {
            let sum: u128 = shares(cost, &parts).iter().map(|&share| u128::from(share)).sum();
            prop_assert_eq!(sum, u128::from(cost));
        }
    }
}
