//! What work is worth: the economies of the published systems, each with its constants as parameters.
//!
//! A profile decides three things. What a request costs its payer ([`charge`](Profile::charge)); what becomes of that
//! ([`payout`](Profile::payout)): shared among the stages, minted or burned; and what common work that nobody
//! pays for is worth ([`worth`](Profile::worth)), of which the ledger never mints more than the epoch's budget.
//! Everything is a function of its arguments: no profile reads the book.
//!
//! [`Profile::Coop`] is Talka's own: nothing is created by paying. The others follow the systems that they are named
//! after, with the corrections of their contradictions; each file says which.

pub mod coop;
pub mod fei;
pub mod gft;
pub mod neuro;

use crate::{
    policy::Policy,
    price::{price, price_floor},
    share::{divide, in_proportion},
    standing::{MULTIPLIER_MAX, Standing},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, ops::Range};
use talka_base::{Credits, Factor, Flops, LayerSpan, MemberId, ModelShape, Tick, fixed::MILLION};

/// Which economy a network follows, with its constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// What payers spend is what workers earn.
    Coop(coop::Coop),
    /// System 001: work is minted by a formula of its own, spending is burned.
    Gft,
    /// System 000: earnings follow quality, a part goes to validators.
    Fei(fei::Fei),
    /// System 003: tokens have a price, a part of spending is burned, stake raises rewards.
    Neuro(neuro::Neuro),
    /// Receipts and statistics without balances, for a private network.
    Tokenless,
}

/// What a founder may choose, by name.
pub const PROFILE_NAMES: [&str; 6] = ["coop", "gft", "fei", "neuro", "neuro-2025", "tokenless"];

/// What the ledger knows of a node when it pays it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rating {
    /// By its hardware; at most [`MULTIPLIER_MAX`].
    pub multiplier: Factor,
    /// 0.5 + 0.5 × score, so 0.5 to 1.
    pub reliability: Factor,
}

impl Default for Rating {
    /// Until a node is rated it counts as the baseline.
    fn default() -> Self {
        Self { multiplier: Factor::ONE, reliability: Factor::ONE }
    }
}

impl Rating {
    /// What the ledger knows of a node at `at`.
    pub(crate) fn of(standing: &Standing, at: Tick) -> Self {
        Self { multiplier: standing.multiplier(at), reliability: standing.reliability() }
    }

    /// Work times both factors, in units of 10^-8 FLOP: below 2^96, and something wherever there is work.
    pub(crate) fn weighs(self, work: Flops) -> u128 {
        let multiplier = self.multiplier.clamp(Factor(1), MULTIPLIER_MAX);
        let reliability = self.reliability.clamp(Factor(1), Factor::ONE);
        u128::from(work.0) * u128::from(multiplier.0) * u128::from(reliability.0)
    }

    /// Work times both factors at one GFT for 10^9, rounded down.
    pub(crate) fn credits(self, work: Flops) -> Credits {
        saturate(self.weighs(work) / WEIGHT_PER_FLOP / FLOPS_PER_MICRO)
    }
}

/// Units of [`Rating::weighs`] in one FLOP.
const WEIGHT_PER_FLOP: u128 = 100_000_000;

/// FLOPs that one µGFT pays for at factor 1.
pub(crate) const FLOPS_PER_MICRO: u128 = 1_000;

/// What one stage did for a request, and who is to be paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contribution {
    /// Whose node it is.
    pub member: MemberId,
    /// What it computed.
    pub work: Flops,
    /// What the ledger knows of the node.
    pub rating: Rating,
}

/// What becomes of a request's cost: `cost + minted == earned + treasury + burned`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payout {
    /// Created.
    pub minted: Credits,
    /// Destroyed.
    pub burned: Credits,
    /// For the network's common purse.
    pub treasury: Credits,
    /// By member.
    pub earned: BTreeMap<MemberId, Credits>,
}

impl Payout {
    /// Both together. Where that is more than any account can hold, it stays so: no posting can have it.
    pub(crate) fn add(&mut self, other: Self) {
        for (sum, more) in [
            (&mut self.minted, other.minted),
            (&mut self.burned, other.burned),
            (&mut self.treasury, other.treasury),
        ] {
            sum.0 = sum.0.saturating_add(more.0);
        }
        for (member, more) in other.earned {
            let sum = self.earned.entry(member).or_default();
            sum.0 = sum.0.saturating_add(more.0);
        }
    }
}

/// Common work that no request pays for, by kind. Profiles count different things, and nothing for what they do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Job {
    /// To be there to be asked.
    Availability {
        /// For so long.
        seconds: u32,
    },
    /// To recompute what others claim to have done.
    Audit {
        /// By the model's shape.
        work: Flops,
    },
    /// To train the community's model.
    Training {
        /// By the model's shape.
        work: Flops,
        /// Batches run.
        batches: u32,
        /// Layers trained.
        layers: u32,
        /// For a contribution outside the common rounds, how many seconds old it was when it came.
        stale_seconds: Option<u32>,
    },
    /// To answer, where a profile mints for that beside what payers pay.
    Inference {
        /// Of prompts and answers.
        tokens: u64,
    },
}

/// A job that a node did, and as what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// What it did.
    pub job: Job,
    /// What it held while it did.
    pub role: neuro::Role,
    /// How many nodes held the same, if that was counted.
    pub replicas: Option<u32>,
}

/// What the ledger knows of who did a [`Task`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worker {
    /// Of the node.
    pub rating: Rating,
    /// Of its member.
    pub stake: Credits,
    /// Nodes of the network.
    pub nodes: u32,
}

impl Profile {
    /// The profile of this name, with its published constants.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "coop" => Self::Coop(coop::Coop::default()),
            "gft" => Self::Gft,
            "fei" => Self::Fei(fei::Fei::default()),
            "neuro" => Self::Neuro(neuro::Neuro::default()),
            "neuro-2025" => Self::Neuro(neuro::Neuro::seed()),
            "tokenless" => Self::Tokenless,
            _ => return None,
        })
    }

    /// One word for people and JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Coop(_) => "coop",
            Self::Gft => "gft",
            Self::Fei(_) => "fei",
            Self::Neuro(_) => "neuro",
            Self::Tokenless => "tokenless",
        }
    }

    /// This economy for a session that reserved `cap` for so many `tokens`. Where a market moves the price of tokens, the
    /// session's stays.
    #[must_use]
    pub fn locked(&self, cap: Credits, tokens: u64) -> Self {
        match self {
            Self::Neuro(neuro) => Self::Neuro(neuro.locked(cap, tokens)),
            Self::Coop(_) | Self::Gft | Self::Fei(_) | Self::Tokenless => *self,
        }
    }

    /// This economy at `to`, if `pending` is what waited since `from`; of one payer, at most as many tokens as it is told.
    #[must_use]
    pub(crate) fn moved(&self, from: Tick, to: Tick, pending: impl FnOnce(u64) -> u32) -> Self {
        match self {
            Self::Neuro(neuro) => match neuro.market.steps(from, to) {
                0 => *self,
                steps => {
                    let market = neuro.market.after(steps, pending(neuro.market.minute()));
                    Self::Neuro(neuro::Neuro { market, ..*neuro })
                }
            },
            Self::Coop(_) | Self::Gft | Self::Fei(_) | Self::Tokenless => *self,
        }
    }

    /// What running `positions` of `shape`, with logits for `logits` of them, costs the payer. More never costs less.
    pub fn charge(
        &self,
        shape: &ModelShape,
        positions: u32,
        logits: u32,
        policy: &Policy,
    ) -> Credits {
        let work = || shape.flops(shape.span(), 0..positions, logits);
        match self {
            Self::Coop(_) | Self::Gft | Self::Fei(_) => price(work(), shape.precision, policy),
            Self::Neuro(neuro) => neuro.charge(positions.into()).total(),
            Self::Tokenless => Credits::ZERO,
        }
    }

    /// What a stage's part of [`Profile::charge`] is: for running `span` over `positions`, with `logits` of them. Rounded
    /// down, so that all parts together never come to more than the whole.
    pub fn charge_part(
        &self,
        shape: &ModelShape,
        span: LayerSpan,
        positions: Range<u32>,
        logits: u32,
        policy: &Policy,
    ) -> Credits {
        let work = shape.flops(span, positions.clone(), logits);
        match self {
            Self::Coop(_) | Self::Gft | Self::Fei(_) => price_floor(work, shape.precision, policy),
            Self::Neuro(neuro) => {
                let all = shape.flops(shape.span(), positions.clone(), logits);
                let whole = neuro.charge_between(positions);
                if all == Flops(0) {
                    return Credits::ZERO;
                }
                Credits(divide(whole.0, work.0.into(), all.0.into()).0)
            }
            Self::Tokenless => Credits::ZERO,
        }
    }

    /// What a million tokens cost now, where tokens have a price; elsewhere FLOPs have one.
    pub fn per_million_tokens(&self) -> Option<Credits> {
        match self {
            Self::Neuro(neuro) => Some(neuro.charge(MILLION).paid),
            Self::Coop(_) | Self::Gft | Self::Fei(_) => None,
            Self::Tokenless => Some(Credits::ZERO),
        }
    }

    /// What becomes of `cost`, which [`Profile::charge`] gave for the work of `stages`; at least one did some.
    pub fn payout(&self, cost: Credits, stages: &[Contribution]) -> Payout {
        match self {
            Self::Coop(_) => coop::payout(cost, stages),
            Self::Gft => gft::payout(cost, stages),
            Self::Fei(fei) => fei.payout(cost, stages),
            Self::Neuro(neuro) => neuro.payout(cost, stages),
            Self::Tokenless => Payout::default(),
        }
    }

    /// Whether paying for work creates credits.
    pub const fn mints_by_paying(&self) -> bool {
        matches!(self, Self::Gft)
    }

    /// Whether all that payers pay is earned by workers.
    pub const fn pays_all_to_workers(&self) -> bool {
        matches!(self, Self::Coop(_) | Self::Tokenless)
    }

    /// What a task is worth in common work, before the epoch's budget bounds it.
    pub fn worth(&self, task: &Task, worker: &Worker) -> Credits {
        match self {
            Self::Coop(coop) => coop.worth(task.job, worker.rating),
            Self::Gft => gft::worth(task.job, worker.rating),
            Self::Fei(fei) => fei.worth(task.job, worker.rating),
            Self::Neuro(neuro) => neuro.worth(task, worker),
            Self::Tokenless => Credits::ZERO,
        }
    }
}

/// Shares `whole` among the members of `stages` in proportion to `weigh`.
pub(crate) fn share_by(
    whole: Credits,
    stages: &[Contribution],
    weigh: impl Fn(&Contribution) -> u128,
) -> BTreeMap<MemberId, Credits> {
    let mut weights = BTreeMap::new();
    for stage in stages {
        *weights.entry(stage.member).or_default() += weigh(stage);
    }
    in_proportion(whole, &weights)
}

/// As a `u64`, or the most that no account can hold.
pub(crate) fn saturate(micro: u128) -> Credits {
    Credits(u64::try_from(micro).unwrap_or(u64::MAX))
}

#[cfg(test)]
pub(crate) fn contribution(member: u8, work: u64, rating: (u32, u32)) -> Contribution {
    let rating = Rating { multiplier: Factor(rating.0), reliability: Factor(rating.1) };
    let (member, work) = (MemberId([member; 32]), Flops(work));
    Contribution { member, work, rating }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_profile_has_its_name() {
        for name in PROFILE_NAMES {
            let profile = Profile::named(name).expect("known");
            assert_eq!(profile.name(), name.trim_end_matches("-2025"));
        }
        assert_eq!(Profile::named("gold"), None);
    }

    #[test]
    fn without_tokens_nothing_costs_and_nothing_is_earned() {
        let (profile, policy) = (Profile::Tokenless, Policy::default());
        let shape = crate::price::bard();
        assert_eq!(profile.charge(&shape, 100, 50, &policy), Credits::ZERO);
        let payout = profile.payout(Credits::ZERO, &[contribution(1, 5, (10_000, 10_000))]);
        assert_eq!(payout, Payout::default());
    }

    fn stages() -> impl Strategy<Value = Vec<Contribution>> {
        let stage = (0u8..5, 1u64..=u64::MAX, 1u32..=80_000, 5_000u32..=10_000);
        let stage = stage.prop_map(|(member, work, multiplier, reliability)| {
            contribution(member, work, (multiplier, reliability))
        });
        proptest::collection::vec(stage, 1..256)
    }

    proptest! {
        /// Goal: whatever the profile, no credits appear or vanish unsaid.
        #[test]
        fn payouts_account_for_every_credit(cost in 0u64..1 << 62, stages in stages()) {
            for name in PROFILE_NAMES {
                let profile = Profile::named(name).expect("known");
                let cost = if profile == Profile::Tokenless { 0 } else { cost };
                let payout = profile.payout(Credits(cost), &stages);
                let earned: u128 = payout.earned.values().map(|c| u128::from(c.0)).sum();
                let [minted, burned, treasury] =
                    [payout.minted, payout.burned, payout.treasury].map(|c| u128::from(c.0));
                prop_assert_eq!(u128::from(cost) + minted, earned + burned + treasury, "{}", name);
                if name != "gft" {
                    prop_assert_eq!(payout.minted, Credits::ZERO, "only gft mints by paying");
                }
            }
        }
    }
}
