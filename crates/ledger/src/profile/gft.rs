//! The economy of system 001 as published: earned = FLOPs × multiplier × reliability, minted; spent = the model's FLOPs
//! per token × tokens × precision, burned.
//!
//! The two do not balance: a node of multiplier 8 that serves in 8 bits earns 32 times what its work costs the
//! payer, so whoever pays himself grows rich. A founder who chooses this profile chooses that; the default does not
//! (its contradiction O10). One thing is corrected: FLOPs follow from the model's shape, for earning and
//! spending alike, and not from a table (O9), so that the estimate bounds the charge.

use super::{Contribution, Job, Payout, Rating};
use std::collections::BTreeMap;
use talka_base::{Credits, Flops};

/// What work earns, in µGFT, rounded down.
pub fn earned(work: Flops, rating: Rating) -> Credits {
    rating.credits(work)
}

pub(super) fn payout(cost: Credits, stages: &[Contribution]) -> Payout {
    let mut by_member = BTreeMap::<_, Credits>::new();
    let mut minted = Credits::ZERO;
    for stage in stages {
        // No account holds more than 2^63 µGFT, so no payout is more than that in all.
        let room = Credits(i64::MAX as u64 - minted.0);
        let earned = earned(stage.work, stage.rating).min(room);
        by_member.entry(stage.member).or_default().0 += earned.0;
        minted.0 += earned.0;
    }
    Payout { minted, burned: cost, earned: by_member, ..Payout::default() }
}

pub(super) fn worth(job: Job, rating: Rating) -> Credits {
    match job {
        Job::Audit { work } | Job::Training { work, .. } => earned(work, rating),
        Job::Availability { .. } | Job::Inference { .. } => Credits::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::contribution, *};
    use crate::{Policy, price};
    use talka_base::{Factor, Precision};

    /// Section N1 of the published systems: issuance.
    #[test]
    fn issuance_has_the_published_values() {
        for (giga_flops_hundredths, multiplier, reliability, expected_micro) in [
            (1325, 13_250, 10_000, 17_556_250),
            (1000, 10_000, 5_000, 5_000_000),
            (1000, 80_000, 10_000, 80_000_000),
        ] {
            let rating =
                Rating { multiplier: Factor(multiplier), reliability: Factor(reliability) };
            let work = Flops(giga_flops_hundredths * 10_000_000);
            assert_eq!(earned(work, rating), Credits(expected_micro));
        }
    }

    /// Section N1: redemption. The model's FLOPs per token are the system's table here, ours come from the shape.
    #[test]
    fn redemption_has_the_published_values() {
        for (giga_flops_hundredths, tokens, precision, expected_micro) in [
            (45, 10, Precision::Int8, 1_125_000),
            (50, 100, Precision::F16, 25_000_000),
            (50, 256, Precision::F16, 64_000_000),
            (400, 256, Precision::F16, 512_000_000),
            (50, 20, Precision::F32, 10_000_000),
        ] {
            let work = Flops(giga_flops_hundredths * 10_000_000 * tokens);
            assert_eq!(price(work, precision, &Policy::default()), Credits(expected_micro));
        }
    }

    #[test]
    fn what_is_spent_burns_and_what_is_earned_is_minted() {
        let stages = [contribution(1, 10_000, (80_000, 10_000)), contribution(1, 999, (1, 10_000))];
        let payout = payout(Credits(7), &stages);
        assert_eq!((payout.minted, payout.burned), (Credits(80), Credits(7)));
    }
}
