//! The economy of system 000: tiers, quality, specialisation, loyalty and a fee.
//!
//! A reward is base × quality × specialisation × loyalty, less the fee. Quality is 0.5 + 0.5 × score, which is what the
//! ledger keeps as reliability (its contradiction O2), and applies to the gross; the fee comes afterwards (O1). The pool's
//! shares sum to one: 0.95 for workers and 0.05 for validators, not 0.05 on top (O6). Nobody is given coins for coming (O5).
//! The advertised earnings of a tier are estimates there and not even of one order with its own example (O3): here their lower
//! ends are what being there for a day is worth, before the epoch's budget bounds it, and work counts as measured.

use super::{Contribution, FLOPS_PER_MICRO, Job, Payout, Rating, saturate, share_by};
use crate::share::divide;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use talka_base::{Credits, Factor, Flops};

/// The constants of this profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fei {
    /// The part of what payers spend that goes to the common purse, for validators.
    pub validators: Factor,
    /// Taken from each reward for common work.
    pub fee: Credits,
    /// The bonus for work in a node's specialisation: training.
    pub specialisation: Factor,
    /// The bonus for members of long standing.
    pub loyalty: Factor,
    /// What a day of being there is worth, by tier, best first.
    pub tier_day: [Credits; 6],
}

impl Default for Fei {
    /// A level of specialisation brings 15 % there. Loyalty has no published figure and so changes nothing.
    fn default() -> Self {
        Self {
            validators: Factor(500),
            fee: Credits::ZERO,
            specialisation: Factor(11_500),
            loyalty: Factor::ONE,
            tier_day: [
                Credits::from_gft(100),
                Credits::from_gft(40),
                Credits::from_gft(15),
                Credits::from_gft(5),
                Credits::from_gft(2),
                Credits(500_000),
            ],
        }
    }
}

/// The least multiplier of each tier but the last, best first: data centre, prosumer, high and mid consumer, entry.
const TIER_MULTIPLIERS: [Factor; 5] =
    [Factor(80_000), Factor(30_000), Factor(20_000), Factor(10_000), Factor(5_000)];

/// The tier of a node, 0 for the best to 5, by its measured multiplier and not by its name (O4).
pub fn tier(multiplier: Factor) -> usize {
    TIER_MULTIPLIERS.iter().take_while(|&&least| multiplier < least).count()
}

/// The quality factor of a score: 0.5 + 0.5 × score, rounded down.
pub fn quality(score: Factor) -> Factor {
    Factor(Factor::SCALE / 2 + score.min(Factor::ONE).0 / 2)
}

impl Fei {
    /// What a gross reward comes to: each factor in turn rounded down, then the fee.
    pub fn net(&self, gross: Credits, quality: Factor, is_specialised: bool) -> Credits {
        let specialisation = if is_specialised { self.specialisation } else { Factor::ONE };
        let factors = [quality, specialisation, self.loyalty];
        let earned = factors.iter().fold(gross.0, |sum, factor| factor.floor_of(sum));
        Credits(earned.saturating_sub(self.fee.0))
    }

    /// Quality applies to each worker's gross share; what it takes away is burned.
    pub(super) fn payout(&self, cost: Credits, stages: &[Contribution]) -> Payout {
        let treasury = self.validators.min(Factor::ONE).floor_of(cost.0);
        let mut work = BTreeMap::<_, (u128, u128)>::new();
        for stage in stages {
            let (full, kept) = work.entry(stage.member).or_default();
            *full += u128::from(stage.work.0) * u128::from(Factor::SCALE);
            let quality = stage.rating.reliability.min(Factor::ONE);
            *kept += u128::from(stage.work.0) * u128::from(quality.0);
        }
        let mut earned = share_by(Credits(cost.0 - treasury), stages, |stage| stage.work.0.into());
        for (member, share) in &mut earned {
            let (full, kept) = work[member];
            share.0 = if full == 0 { 0 } else { divide(share.0, kept, full).0 };
        }
        let paid: u64 = earned.values().map(|share| share.0).sum();
        let burned = Credits(cost.0 - treasury - paid);
        Payout { treasury: Credits(treasury), burned, earned, ..Payout::default() }
    }

    pub(super) fn worth(&self, job: Job, rating: Rating) -> Credits {
        let micro = |work: Flops| saturate(u128::from(work.0) / FLOPS_PER_MICRO);
        match job {
            Job::Availability { seconds } => {
                let day = self.tier_day[tier(rating.multiplier)];
                let gross = u128::from(day.0) * u128::from(seconds) / 86_400;
                self.net(saturate(gross), rating.reliability, false)
            }
            Job::Audit { work } => self.net(micro(work), rating.reliability, false),
            Job::Training { work, .. } => self.net(micro(work), rating.reliability, true),
            Job::Inference { .. } => Credits::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::contribution, *};
    use talka_base::MemberId;

    /// The monthly example, as corrected (O1): (20 + 30 + 22 + 15) × 0.96 − 2 = 81.52, where it prints 81.56. A
    /// reputation of 0.92 is a quality of 0.96 (O2).
    #[test]
    fn the_monthly_example_comes_to_81_52() {
        let fei = Fei { fee: Credits::from_gft(2), ..Fei::default() };
        assert_eq!(quality(Factor(9_200)), Factor(9_600));
        let gross = Credits::from_gft(20 + 30 + 22 + 15);
        assert_eq!(fei.net(gross, quality(Factor(9_200)), false), Credits(81_520_000));
    }

    #[test]
    fn specialisation_and_loyalty_multiply_and_a_fee_never_makes_a_debt() {
        let fei = Fei { loyalty: Factor(10_500), fee: Credits(1), ..Fei::default() };
        assert_eq!(fei.net(Credits(1_000_000), Factor::ONE, true), Credits(1_207_499));
        assert_eq!(fei.net(Credits(1), Factor::ONE, false), Credits::ZERO);
    }

    #[test]
    fn tiers_follow_the_measured_multiplier() {
        for (multiplier, expected) in [
            (80_000, 0),
            (79_999, 1),
            (30_000, 1),
            (20_000, 2),
            (10_000, 3),
            (5_000, 4),
            (4_999, 5),
            (0, 5),
        ] {
            assert_eq!(tier(Factor(multiplier)), expected, "{multiplier}");
        }
        let day = Job::Availability { seconds: 86_400 };
        let rating = Rating { multiplier: Factor(80_000), reliability: Factor::ONE };
        assert_eq!(Fei::default().worth(day, rating), Credits::from_gft(100));
    }

    #[test]
    fn workers_and_validators_share_one_pool_and_quality_burns_the_rest() {
        let stages = [contribution(1, 1, (80_000, 10_000)), contribution(2, 3, (1, 6_000))];
        let payout = Fei::default().payout(Credits(1_000), &stages);
        assert_eq!(payout.treasury, Credits(50));
        let earned = |member| payout.earned[&MemberId([member; 32])];
        // 950 in quarters: 237.5 each, the half to the lower id.
        assert_eq!((earned(1), earned(2)), (Credits(238), Credits(427)));
        assert_eq!(payout.burned, Credits(1_000 - 50 - 238 - 427));
    }

    /// Section N5: the supply of the conservative path grows by 15, 10, 7, 5, 4 and 3 % a year. The sixth year is
    /// printed as 15,225,189; the printed rates give 15,224,188.98.
    #[test]
    fn the_supply_path_follows_from_its_rates() {
        let mut supply = 10_000_000;
        let path = [11_500, 11_000, 10_700, 10_500, 10_400, 10_300].map(|rate| {
            supply = Factor(rate).floor_of(supply);
            supply
        });
        let expected = [11_500_000, 12_650_000, 13_535_500, 14_212_275, 14_780_766, 15_224_188];
        assert_eq!(path, expected);
    }

    /// Section N5: a month's wallet, and its parts in thousandths.
    #[test]
    fn the_wallet_example_adds_up() {
        let parts = [112_370_000u64, 48_920_000, 14_590_000, 6_530_000];
        let sum = parts.iter().sum::<u64>();
        assert_eq!((sum, sum / 30 / 10_000), (182_410_000, 608));
        let shares = parts.map(|part| (part * 1_000 + sum / 2) / sum);
        assert_eq!(shares, [616, 268, 80, 36]);
    }
}
