//! The co-operative's economy, Talka's default: compute for compute.
//!
//! What a payer spends is shared among the stages in proportion to FLOPs × hardware multiplier × reliability. So paying
//! creates nothing: the answer to system 001's contradiction between what work issues and what spending takes (O10
//! of its list: the multiplier is a weight, never a mint).

use super::{Contribution, Job, Payout, Rating, saturate, share_by};
use serde::{Deserialize, Serialize};
use talka_base::Credits;

/// The constants of this profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coop {
    /// What an hour of being there is worth at multiplier 1 and reliability 1, within the epoch's budget.
    pub hour: Credits,
}

impl Default for Coop {
    /// An hour is worth a hundred GFLOP: little beside an hour of work (a laptop core does tens of thousands of
    /// GFLOP in it), so that being there never pays better than working.
    fn default() -> Self {
        Self { hour: Credits::from_gft(100) }
    }
}

pub(super) fn payout(cost: Credits, stages: &[Contribution]) -> Payout {
    let earned = share_by(cost, stages, |stage| stage.rating.weighs(stage.work));
    Payout { earned, ..Payout::default() }
}

impl Coop {
    pub(super) fn worth(&self, job: Job, rating: Rating) -> Credits {
        match job {
            Job::Availability { seconds } => {
                let micro = u128::from(self.hour.0) * u128::from(seconds) / 3600;
                Credits(rating.reliability.floor_of(saturate(micro).0))
            }
            Job::Audit { work } | Job::Training { work, .. } => rating.credits(work),
            // Whoever asked paid for it.
            Job::Inference { .. } => Credits::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::contribution, *};
    use talka_base::{Factor, Flops, MemberId};

    #[test]
    fn shares_follow_work_times_multiplier_times_reliability() {
        // 37.5 % of the layers at 1.325 × 0.98 beside 62.5 % at 1 × 1: weights 48.69375 and 62.5.
        let stages =
            [contribution(1, 375, (13_250, 9_800)), contribution(2, 625, (10_000, 10_000))];
        let payout = payout(Credits(1_000_000), &stages);
        let share = |member| payout.earned[&MemberId([member; 32])].0;
        assert_eq!((share(1), share(2)), (437_918, 562_082));
        assert_eq!((payout.minted, payout.burned), (Credits::ZERO, Credits::ZERO));
    }

    #[test]
    fn two_stages_of_one_member_count_together() {
        let one = |member| contribution(member, 1, (10_000, 10_000));
        let payout = payout(Credits(90), &[one(1), one(2), one(1)]);
        assert_eq!(payout.earned.into_values().collect::<Vec<_>>(), [Credits(60), Credits(30)]);
    }

    #[test]
    fn common_work_is_worth_its_flops_and_being_there_its_hours() {
        let coop = Coop::default();
        let rating = Rating { multiplier: Factor(20_000), reliability: Factor(9_000) };
        let audit = Job::Audit { work: Flops(1_000_000_000) };
        assert_eq!(coop.worth(audit, rating), Credits(1_800_000));
        let there = Job::Availability { seconds: 1800 };
        assert_eq!(coop.worth(there, rating), Credits::from_gft(45));
        assert_eq!(coop.worth(Job::Inference { tokens: 9 }, rating), Credits::ZERO);
    }
}
