//! The rules of money that a founder chooses: the economy, the grant, the prices, how long credits last, how decisions are
//! made. Part of the founding entry, so that every replay uses the same ones; changed later only by governance.

use crate::{
    error::LedgerError,
    govern::GovernanceRules,
    profile::{Profile, coop::Coop},
    stake::StakeRules,
};
use serde::{Deserialize, Serialize};
use talka_base::{Credits, Factor, Precision};

/// The one version of [`Policy`]'s meaning that this program knows.
pub const POLICY_VERSION: u16 = 4;

/// What a new member is granted: in bf16 about a hundred million tokens of a model of 1 M
/// parameters, eighty thousand of one of 1.24 B. Enough to try a network, little enough to have to work.
pub const GRANT_DEFAULT: Credits = Credits::from_gft(100_000);

/// How long a request may hold its reservation before anyone's credits are freed again.
///
/// A full 4,096-token answer at 5 tokens/s takes 14 minutes.
pub const RESERVATION_MS_MAX_DEFAULT: u64 = 15 * 60 * 1000;

/// What a day of common work may mint at most: ten grants.
pub const DAY_BUDGET_DEFAULT: Credits = Credits::from_gft(1_000_000);

/// For how long what common work earned is held: audits of it have that long, and its pledge is worth a few days' work.
pub const HELD_DAYS_DEFAULT: u16 = 3;

/// The policy of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Always [`POLICY_VERSION`]: another version would mean other rules.
    pub version: u16,
    /// The economy, with its constants.
    pub profile: Profile,
    /// Credits minted for each new member, once.
    pub grant: Credits,
    /// Credits minted at most for the common work of one day, UTC by the ledger's time.
    pub day_budget: Credits,
    /// What common work earned can be spent this many days after the day on which it came; until then it vouches for the
    /// work like a stake.
    pub held_days: u16,
    /// A reservation older than this may be released by the sequencer, in milliseconds.
    pub reservation_ms_max: u64,
    /// How much a FLOP costs at each precision.
    pub precision_per_mille: PrecisionFactors,
    /// How long credits last; for ever without.
    pub expiry: Option<Expiry>,
    /// What may be staked.
    pub stake: StakeRules,
    /// How members decide.
    pub governance: GovernanceRules,
}

/// How long credits last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiry {
    /// Credits expire this many days after the day on which they came.
    pub days: u16,
    /// Members are warned this many days before.
    pub warning_days: u16,
}

/// A year, and a quarter's warning: what system 001 declares (and has no job for).
pub const EXPIRY_DEFAULT: Expiry = Expiry { days: 365, warning_days: 90 };

/// Thousandths of the price at full precision, per precision. Zero makes a network where work is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrecisionFactors {
    /// For [`Precision::F32`].
    pub full: u32,
    /// For [`Precision::F16`].
    pub half: u32,
    /// For [`Precision::Bf16`].
    pub brain: u32,
    /// For [`Precision::Int8`].
    pub byte: u32,
}

impl PrecisionFactors {
    /// The factor of `precision`, in thousandths.
    pub const fn of(&self, precision: Precision) -> u32 {
        match precision {
            Precision::F32 => self.full,
            Precision::F16 => self.half,
            Precision::Bf16 => self.brain,
            Precision::Int8 => self.byte,
        }
    }
}

impl Default for PrecisionFactors {
    fn default() -> Self {
        Self { full: 1000, half: 500, brain: 500, byte: 250 }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            version: POLICY_VERSION,
            profile: Profile::Coop(Coop::default()),
            grant: GRANT_DEFAULT,
            day_budget: DAY_BUDGET_DEFAULT,
            held_days: HELD_DAYS_DEFAULT,
            reservation_ms_max: RESERVATION_MS_MAX_DEFAULT,
            precision_per_mille: PrecisionFactors::default(),
            expiry: Some(EXPIRY_DEFAULT),
            stake: StakeRules::default(),
            governance: GovernanceRules::default(),
        }
    }
}

impl Policy {
    /// The default policy under another economy. Only where credits count is anything granted or minted.
    pub fn of(profile: Profile) -> Self {
        let policy = Self { profile, ..Self::default() };
        match profile {
            Profile::Tokenless => {
                let none = Credits::ZERO;
                Self { grant: none, day_budget: none, expiry: None, ..policy }
            }
            _ => policy,
        }
    }

    /// These rules for a session that reserved `cap` for so many `tokens`; see [`Profile::locked`].
    #[must_use]
    pub fn locked(&self, cap: Credits, tokens: u64) -> Self {
        Self { profile: self.profile.locked(cap, tokens), ..self.clone() }
    }

    /// Refuses a policy that this program does not know or that no network could live by. Checked at the founding and
    /// before a proposal that would enact it is taken.
    ///
    /// # Errors
    /// [`LedgerError::PolicyVersion`] or [`LedgerError::PolicyField`], which names the field.
    pub fn check(&self) -> Result<(), LedgerError> {
        let (expected, found) = (POLICY_VERSION, self.version);
        if found != expected {
            return Err(LedgerError::PolicyVersion { expected, found });
        }
        let (stake, rules) = (&self.stake, &self.governance);
        let (one, half) = (u64::from(Factor::SCALE), u64::from(Factor::SCALE) / 2);
        let (days, warning) =
            self.expiry.map_or((1, 0), |expiry| (expiry.days.into(), expiry.warning_days.into()));
        let [ordinary, emergency] = [&rules.ordinary, &rules.emergency];
        let step_ms = match &self.profile {
            Profile::Neuro(neuro) => neuro.market.step_ms,
            Profile::Coop(_) | Profile::Gft | Profile::Fei(_) | Profile::Tokenless => 0,
        };
        for (field, found, min, max) in [
            ("profile.market.step_ms", step_ms, 0, TIME_MS_MAX),
            ("grant", self.grant.0, 0, SUM_MAX),
            ("day_budget", self.day_budget.0, 0, SUM_MAX),
            ("held_days", self.held_days.into(), 0, HELD_DAYS_MAX),
            ("reservation_ms_max", self.reservation_ms_max, 1, TIME_MS_MAX),
            ("expiry.days", days, 1, 36_500),
            ("expiry.warning_days", warning, 0, days),
            ("stake.least", stake.least.0, 1, stake.most.0),
            ("stake.most", stake.most.0, 1, SUM_MAX),
            ("stake.lock_days_min", stake.lock_days_min.into(), 0, stake.lock_days_max.into()),
            ("stake.lock_days_max", stake.lock_days_max.into(), 0, 3_650),
            ("stake.reporter", stake.reporter.0.into(), 0, half),
            ("governance.approval", rules.approval.0.into(), half + 1, one),
            ("governance.quorum", rules.quorum.0.into(), 1, one),
            ("governance.ordinary.review_ms", ordinary.review_ms, 0, TIME_MS_MAX),
            ("governance.ordinary.voting_ms", ordinary.voting_ms, 1, TIME_MS_MAX),
            ("governance.ordinary.delay_ms", ordinary.delay_ms, 0, TIME_MS_MAX),
            ("governance.emergency.review_ms", emergency.review_ms, 0, TIME_MS_MAX),
            ("governance.emergency.voting_ms", emergency.voting_ms, 1, TIME_MS_MAX),
            ("governance.emergency.delay_ms", emergency.delay_ms, 0, TIME_MS_MAX),
        ] {
            if !(min..=max).contains(&found) {
                return Err(LedgerError::PolicyField { field, found, min, max });
            }
        }
        Ok(())
    }
}

/// A sum that leaves room for a hundred thousand of its kind below 2^63 µGFT.
const SUM_MAX: u64 = i64::MAX as u64 / 100_000;

/// Whoever works is paid within a quarter.
const HELD_DAYS_MAX: u64 = 90;

/// A year: nothing that a rule waits for takes longer.
const TIME_MS_MAX: u64 = 365 * 24 * 60 * 60 * 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::PROFILE_NAMES;

    #[test]
    fn every_named_profile_makes_a_valid_policy() {
        for name in PROFILE_NAMES {
            let policy = Policy::of(Profile::named(name).expect("known"));
            assert_eq!(policy.check(), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_policy_that_no_network_could_live_by_names_its_field() {
        let mut policy = Policy::default();
        policy.governance.approval = Factor(5_000);
        let error = policy.check().expect_err("half is no majority");
        assert_eq!(
            error.to_string(),
            "policy has governance.approval 5000, expected 5001 to 10000"
        );
        let policy = Policy { version: 1, ..Policy::default() };
        assert!(matches!(policy.check(), Err(LedgerError::PolicyVersion { .. })));
    }
}
