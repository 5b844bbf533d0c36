//! The economy of system 003: tokens have a price that follows demand, a part of spending is burned, and rewards for
//! common work grow with stake, role, reputation and scarcity.
//!
//! Its generations of constants differ by three orders of magnitude (its contradiction O13); they are two sets of parameters
//! here. [`Neuro::default`] is the latest (`neuro`), [`Neuro::seed`] the published whitepaper's (`neuro-2025`), whose
//! reward is R = (0.1·T/60 + 0.9·tokens/10^6)·(1 + 0.1·stake/1000). In both the stake's multiplier ends at two.
//! 5 % is burned, as its code does (O14). What payers pay is shared by FLOPs: the pools of 15, 70 and 15 % overlap there.
//! Credits do not transfer (O26), so the burn concerns payments only. Prices are per million tokens.

use super::{Contribution, Job, Payout, Rating, Task, Worker, saturate, share_by};
use crate::stake;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use talka_base::{Credits, Factor, Tick, fixed::MILLION};

/// The constants of this profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neuro {
    /// What a million tokens cost while nobody waits.
    pub per_million_tokens: Credits,
    /// The least that a request costs.
    pub least: Credits,
    /// Burned on top of what is paid to workers.
    pub burn: Factor,
    /// What moves the price of tokens.
    pub market: Market,
    /// For a minute of being there.
    pub per_minute: Credits,
    /// For a million tokens answered, minted beside what payers pay.
    pub minted_per_million_tokens: Credits,
    /// For a batch of training.
    pub per_batch: Credits,
    /// For a batch outside the common rounds, before its age counts.
    pub per_stale_batch: Credits,
    /// Whether a batch is paid once for each layer trained.
    pub is_per_layer: bool,
    /// How stake multiplies rewards.
    pub stake: StakeBonus,
    /// What roles add.
    pub bonus: Bonus,
}

/// How stake multiplies rewards; at most by two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StakeBonus {
    /// 1 + 0.1 × stake / 1000 GFT.
    Linear,
    /// [`stake::multiplier_millionths`].
    Logarithmic,
}

/// Parts of a reward that are added for what a node holds and is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bonus {
    /// For the embedding.
    pub embedding: Factor,
    /// For the head that turns hidden states into logits.
    pub head: Factor,
    /// For training.
    pub training: Factor,
    /// For a reputation of one; less in proportion.
    pub reputation: Factor,
}

/// What a node held and did while it earned a reward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// It held the embedding.
    pub embedding: bool,
    /// It held the head.
    pub head: bool,
    /// It trained.
    pub training: bool,
}

impl Default for Neuro {
    fn default() -> Self {
        Self {
            per_million_tokens: Credits::from_gft(1),
            least: Credits(100),
            burn: Factor(500),
            market: Market::default(),
            per_minute: Credits(100),
            minted_per_million_tokens: Credits::ZERO,
            per_batch: Credits(500),
            per_stale_batch: Credits(300),
            is_per_layer: true,
            stake: StakeBonus::Logarithmic,
            bonus: Bonus {
                embedding: Factor(2_000),
                head: Factor(3_000),
                training: Factor(1_000),
                reputation: Factor(1_000),
            },
        }
    }
}

/// What a payer is charged for tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// For the workers.
    pub paid: Credits,
    /// On top of it.
    pub burned: Credits,
}

impl Charge {
    /// What the payer pays in all.
    pub fn total(self) -> Credits {
        Credits(self.paid.0.saturating_add(self.burned.0))
    }
}

impl Neuro {
    /// The constants of the published whitepaper.
    pub fn seed() -> Self {
        let nothing = Factor::ZERO;
        Self {
            per_minute: Credits(100_000),
            minted_per_million_tokens: Credits(900_000),
            per_batch: Credits(1_000),
            per_stale_batch: Credits(1_000),
            is_per_layer: false,
            stake: StakeBonus::Linear,
            bonus: Bonus {
                embedding: nothing,
                head: nothing,
                training: nothing,
                reputation: nothing,
            },
            ..Self::default()
        }
    }

    /// The charge for `tokens` at the market's price, at least the least one; the burn is rounded down.
    pub fn charge(&self, tokens: u64) -> Charge {
        let base = u128::from(tokens) * u128::from(self.per_million_tokens.0);
        let at_base = u64::try_from(base.div_ceil(MILLION.into())).unwrap_or(u64::MAX);
        let paid = self.market.scale(at_base).max(self.least);
        Charge { paid, burned: Credits(self.burn.floor_of(paid.0)) }
    }

    /// These constants for a session that reserved `cap` for so many `tokens`: until it ends a token costs what it did
    /// then, wherever the market goes. All of them come to `cap`.
    pub(super) fn locked(&self, cap: Credits, tokens: u64) -> Self {
        let paid = cap.0 - self.burned_of(cap).0;
        let market = Market { base_nano: tokens.max(1), price_nano: paid, ..self.market };
        Self { per_million_tokens: Credits(MILLION), market, ..*self }
    }

    /// The part of a cost that is burned.
    fn burned_of(&self, cost: Credits) -> Credits {
        let burn = u128::from(self.burn.0);
        saturate(u128::from(cost.0) * burn / (u128::from(Factor::SCALE) + burn))
    }

    /// What the tokens from the first to the second of `positions` add to the charge.
    pub(super) fn charge_between(&self, positions: Range<u32>) -> Credits {
        let total = |tokens: u32| match tokens {
            0 => 0,
            _ => self.charge(tokens.into()).total().0,
        };
        Credits(total(positions.end).saturating_sub(total(positions.start)))
    }

    /// What of `cost` is burned; the rest goes to the workers by their work. Of a whole [`Charge`], exactly its parts.
    pub(super) fn payout(&self, cost: Credits, stages: &[Contribution]) -> Payout {
        let burned = self.burned_of(cost);
        let paid = Credits(cost.0 - burned.0);
        let earned = share_by(paid, stages, |stage| stage.work.0.into());
        Payout { burned, earned, ..Payout::default() }
    }

    /// The reward for common work: what the job is worth, times what the worker is.
    pub(super) fn worth(&self, task: &Task, worker: &Worker) -> Credits {
        let base = saturate(self.base(task.job));
        let factors = [
            self.role_factor(task.role),
            Factor::SCALE + self.reputation_bonus(worker.rating),
            task.replicas.map_or(Factor::SCALE, |held| scarcity(held, worker.nodes).0),
        ];
        let scale = u128::from(Factor::SCALE);
        let staked = u128::from(base.0) * u128::from(self.stake_millionths(worker.stake));
        let [role, reputation, scarcity] = factors.map(u128::from);
        // 64 bits of base, 21 of stake, and at most 3 × 14: below 2^128.
        saturate(
            staked * role * reputation / (scale * scale) * scarcity / scale / u128::from(MILLION),
        )
    }

    fn base(&self, job: Job) -> u128 {
        match job {
            Job::Availability { seconds } => {
                u128::from(self.per_minute.0) * u128::from(seconds) / 60
            }
            Job::Inference { tokens } => {
                let rate = u128::from(self.minted_per_million_tokens.0);
                rate * u128::from(tokens) / u128::from(MILLION)
            }
            Job::Training { batches, layers, stale_seconds, .. } => {
                let layers = if self.is_per_layer { layers } else { 1 };
                let times = u128::from(batches) * u128::from(layers);
                let (rate, fresh) = match stale_seconds {
                    None => (self.per_batch, Factor::ONE),
                    Some(age) => (self.per_stale_batch, freshness(age)),
                };
                u128::from(fresh.floor_of(saturate(u128::from(rate.0) * times).0))
            }
            // Validators are paid from fees there; here by FLOPs only where a profile counts FLOPs.
            Job::Audit { .. } => 0,
        }
    }

    fn role_factor(&self, role: Role) -> u32 {
        let Bonus { embedding, head, training, .. } = self.bonus;
        [(role.embedding, embedding), (role.head, head), (role.training, training)]
            .into_iter()
            .filter(|(has, _)| *has)
            .map(|(_, bonus)| bonus.0.min(Factor::SCALE))
            .sum::<u32>()
            + Factor::SCALE
    }

    /// In proportion to the score that the reliability of 0.5 + 0.5 × score tells.
    fn reputation_bonus(&self, rating: Rating) -> u32 {
        let score = (2 * rating.reliability.min(Factor::ONE).0).saturating_sub(Factor::SCALE);
        score * self.bonus.reputation.0.min(Factor::SCALE) / Factor::SCALE
    }

    fn stake_millionths(&self, staked: Credits) -> u64 {
        match self.stake {
            StakeBonus::Linear => (MILLION + staked.0 / 10_000).min(2 * MILLION),
            StakeBonus::Logarithmic => stake::multiplier_millionths(staked),
        }
    }
}

/// What is left of a contribution's worth at this age: all within an hour, then 0.7 for a day, 0.5 for a week, 0.3.
pub fn freshness(age_seconds: u32) -> Factor {
    Factor(match age_seconds {
        ..3_600 => 10_000,
        3_600..86_400 => 7_000,
        86_400..604_800 => 5_000,
        604_800.. => 3_000,
    })
}

/// The multiplier for holding what few hold: 1 + 0.5 × (target − replicas) / target, where the target is a tenth of the
/// nodes and at least three; rounded down, never below one.
pub fn scarcity(replicas: u32, nodes: u32) -> Factor {
    let target = (nodes / 10).max(3);
    let missing = u64::from(target.saturating_sub(replicas));
    let bonus = missing * u64::from(Factor::SCALE / 2) / u64::from(target);
    Factor(Factor::SCALE + u32::try_from(bonus).expect("at most a half"))
}

/// What a validator has to stake, in whole GFT, by how many validators there are.
pub fn validator_stake(validators: u32) -> Credits {
    Credits::from_gft(match validators {
        0..=2 => 0,
        3..=10 => 100,
        11..=50 => 250,
        51..=200 => 500,
        201..=1000 => 1000,
        1001.. => 2500,
    })
}

/// The price of tokens as it follows utilisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Market {
    /// The price while nobody waits, in units of 10^-9.
    pub base_nano: u64,
    /// The price now, in units of 10^-9.
    pub price_nano: u64,
    /// How many tokens the network generates in a second; at least one, at most [`SUPPLY_MAX`].
    pub supply: u32,
    /// How much of the old price each step keeps.
    pub keeps: Factor,
    /// How much of the ledger's time one step takes, in milliseconds; 0 where the price moves by decisions only.
    pub step_ms: u64,
}

/// The most tokens per second that count as supply.
pub const SUPPLY_MAX: u32 = 50_000;

impl Default for Market {
    fn default() -> Self {
        let (base_nano, step_ms) = (100_000, 60_000);
        Self { base_nano, price_nano: base_nano, supply: 1_000, keeps: Factor(8_000), step_ms }
    }
}

impl Market {
    /// The price that `pending` tokens ask for: base × (1 + u)², where u is what they would take of a minute of supply.
    /// Rounded down, in units of 10^-9.
    pub fn target_nano(&self, pending: u32) -> u64 {
        let minute = u128::from(self.minute());
        let loaded = minute + u128::from(pending);
        // Below 2^33, squared, times 2^60.
        let squared = loaded * loaded;
        let target = u128::from(self.base_nano.min(1 << 60)) * squared / (minute * minute);
        u64::try_from(target).unwrap_or(u64::MAX)
    }

    /// Tokens that the network generates in a minute.
    pub(crate) fn minute(&self) -> u64 {
        60 * u64::from(self.supply.clamp(1, SUPPLY_MAX))
    }

    /// How many steps end after `from`, up to `to`.
    pub(crate) fn steps(&self, from: Tick, to: Tick) -> u64 {
        let ended = |at: Tick| at.0.checked_div(self.step_ms).unwrap_or(0);
        ended(to).saturating_sub(ended(from))
    }

    /// The market so many steps later, if as much waits all the while.
    #[must_use]
    pub(crate) fn after(mut self, steps: u64, pending: u32) -> Self {
        for _ in 0..steps {
            let next = self.step(pending);
            if next == self {
                break;
            }
            self = next;
        }
        self
    }

    /// The market one step later: keeps 0.8 of the price and takes 0.2 of the target; rounded down.
    #[must_use]
    pub fn step(self, pending: u32) -> Self {
        let keeps = self.keeps.min(Factor::ONE);
        let takes = Factor(Factor::SCALE - keeps.0);
        let parts = u128::from(self.price_nano) * u128::from(keeps.0)
            + u128::from(self.target_nano(pending)) * u128::from(takes.0);
        let price = u64::try_from(parts / u128::from(Factor::SCALE)).unwrap_or(u64::MAX);
        Self { price_nano: price, ..self }
    }

    /// A price at the base, at the market's price; rounded up.
    fn scale(&self, at_base: u64) -> Credits {
        let product = u128::from(at_base) * u128::from(self.price_nano);
        saturate(product.div_ceil(u128::from(self.base_nano.max(1))))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::contribution, *};
    use talka_base::Flops;

    fn worker(stake: u64) -> Worker {
        Worker { rating: Rating::default(), stake: Credits::from_gft(stake), nodes: 100 }
    }

    fn task(job: Job, role: Role) -> Task {
        Task { job, role, replicas: None }
    }

    const PLAIN: Role = Role { embedding: false, head: false, training: false };

    /// Section N2: the published reward R(T, tokens, stake), linear in stake up to two.
    #[test]
    fn the_seed_reward_has_the_published_values() {
        for (seconds, tokens, stake, expected_micro) in [
            (60, 0, 0, 100_000),
            (3600, 0, 0, 6_000_000),
            (60, 1_000_000, 0, 1_000_000),
            (60, 1_000_000, 1_000, 1_100_000),
            (3600, 2_500_000, 5_000, 12_375_000),
            (86_400, 0, 0, 144_000_000),
            (86_400, 0, 10_000, 288_000_000),
            (86_400, 0, 20_000, 288_000_000),
        ] {
            let worth = |job| Neuro::seed().worth(&task(job, PLAIN), &worker(stake)).0;
            let reward = worth(Job::Availability { seconds }) + worth(Job::Inference { tokens });
            assert_eq!(reward, expected_micro, "{seconds} s, {tokens} tokens, {stake} staked");
        }
    }

    fn training(stale_seconds: Option<u32>) -> Job {
        Job::Training { work: Flops(0), batches: 60, layers: 10, stale_seconds }
    }

    /// Section N2: training, asynchronous training, and the whole reward of the latest generation.
    #[test]
    fn training_rewards_have_the_published_values() {
        let low = Rating { reliability: Factor(5_000), ..Rating::default() };
        let unknown = Worker { rating: low, ..worker(0) };
        let plain = |job| Neuro::default().worth(&task(job, PLAIN), &unknown);
        assert_eq!(plain(training(None)), Credits(300_000));
        assert_eq!(plain(training(Some(7_200))), Credits(126_000));

        let role = Role { embedding: true, head: false, training: true };
        let full = |job| Neuro::default().worth(&task(job, role), &worker(1_000)).0;
        let there = Job::Availability { seconds: 60 };
        assert_eq!(full(there) + full(training(None)), 472_057);
    }

    #[test]
    fn freshness_and_role_bonuses_have_the_published_values() {
        for (age, expected) in
            [(0, 10_000), (1_800, 10_000), (43_200, 7_000), (259_200, 5_000), (1_000_000, 3_000)]
        {
            assert_eq!(freshness(age), Factor(expected), "{age}");
        }
        for (embedding, head, training, expected) in [
            (false, false, false, 10_000),
            (true, false, false, 12_000),
            (false, true, false, 13_000),
            (true, true, true, 16_000),
        ] {
            let role = Role { embedding, head, training };
            assert_eq!(Neuro::default().role_factor(role), expected);
        }
    }

    #[test]
    fn scarcity_and_validator_stakes_have_the_published_values() {
        for (replicas, nodes, expected) in [
            (3, 100, 13_500),
            (10, 100, 10_000),
            (11, 100, 10_000),
            (1, 100, 14_500),
            (0, 100, 15_000),
            (1, 10, 13_333),
        ] {
            assert_eq!(scarcity(replicas, nodes), Factor(expected), "{replicas} of {nodes}");
        }
        for (validators, expected) in [
            (0, 0),
            (2, 0),
            (3, 100),
            (10, 100),
            (11, 250),
            (51, 500),
            (200, 500),
            (201, 1000),
            (1000, 1000),
            (1001, 2500),
        ] {
            assert_eq!(validator_stake(validators), Credits::from_gft(expected), "{validators}");
        }
        let there = Job::Availability { seconds: 60 };
        let rare = Task { replicas: Some(0), ..task(there, PLAIN) };
        assert_eq!(Neuro::seed().worth(&rare, &worker(0)), Credits(150_000));
    }

    /// Section N2: utilisation 0, 0.1, 1, 10 and 100, and the moving average.
    #[test]
    fn the_market_has_the_published_prices() {
        let market = Market::default();
        for (pending, expected) in [
            (0, 100_000),
            (6_000, 121_000),
            (60_000, 400_000),
            (600_000, 12_100_000),
            (6_000_000, 1_020_100_000),
        ] {
            assert_eq!(market.target_nano(pending), expected, "{pending}");
        }
        let once = market.step(60_000);
        let twice = once.step(60_000);
        let prices = [once, twice, twice.step(0)].map(|market| market.price_nano);
        assert_eq!(prices, [160_000, 208_000, 186_400]);
        assert!(market.step(u32::MAX).price_nano > 1_000_000_000_000);
    }

    /// Section N2: a million tokens cost 1.05, of which 0.05 are burned; ten the least.
    #[test]
    fn a_charge_has_the_published_values_and_pays_out_as_charged() {
        let neuro = Neuro::default();
        for (tokens, paid, burned) in [(1_000_000, 1_000_000, 50_000), (10, 100, 5), (119, 119, 5)]
        {
            let charge = neuro.charge(tokens);
            assert_eq!(charge, Charge { paid: Credits(paid), burned: Credits(burned) });
            let payout = neuro.payout(charge.total(), &[contribution(1, 1, (1, 1))]);
            assert_eq!(payout.burned, charge.burned);
        }
        // A transfer of 100 takes 105 there; here the same burn is on payments.
        let hundred = neuro.charge(100_000_000);
        assert_eq!(hundred.total(), Credits::from_gft(105));
    }

    #[test]
    fn steps_are_counted_from_the_beginning_of_time_and_many_at_once_come_to_rest() {
        let market = Market::default();
        let steps = |from, to| market.steps(Tick(from), Tick(to));
        assert_eq!([steps(0, 59_999), steps(59_999, 60_000), steps(60_000, 179_999)], [0, 1, 1]);
        assert_eq!(steps(9, 3), 0);
        assert_eq!(Market { step_ms: 0, ..market }.steps(Tick(0), Tick(u64::MAX)), 0);
        assert_eq!(market.after(2, 60_000).price_nano, 208_000);
        let high = Market { price_nano: u64::MAX, ..market };
        assert_eq!(high.after(u64::MAX, 0), market);
        // Rounding down stops it a little below.
        let low = Market { price_nano: 1, ..market };
        assert_eq!(low.after(u64::MAX, 0).price_nano, 99_996);
    }

    #[test]
    fn a_session_pays_the_price_at_which_it_reserved() {
        for (price_nano, tokens) in [(100_000, 30), (123_457, 4_096), (12_100_000, 4_001)] {
            let market = Market { price_nano, ..Market::default() };
            let neuro = Neuro { market, ..Neuro::default() };
            let cap = neuro.charge(tokens).total();
            let later = Neuro { market: market.after(60, 6_000_000), ..neuro };
            let locked = later.locked(cap, tokens);
            assert_eq!(locked.charge(tokens).total(), cap);
            for used in [1, tokens / 2, tokens - 1] {
                let (expected, found) =
                    (neuro.charge(used).total().0, locked.charge(used).total().0);
                assert!(found.abs_diff(expected) <= 2, "{found} for {used}, expected {expected}");
            }
        }
        let free = Neuro { least: Credits::ZERO, ..Neuro::default() };
        assert_eq!(free.locked(Credits::ZERO, 0).charge(5).total(), Credits::ZERO);
    }

    #[test]
    fn demand_raises_the_charge() {
        let market = Market { price_nano: 160_000, ..Market::default() };
        let neuro = Neuro { market, ..Neuro::default() };
        assert_eq!(neuro.charge(1_000_000).paid, Credits(1_600_000));
    }
}
