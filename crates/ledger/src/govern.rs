//! How members decide together: what may be proposed, by when, and when votes suffice.
//!
//! A proposal is reviewed, voted on, and, if approved, enacted after a delay in which whoever disagrees can leave. Approval is
//! yes / (yes + no); who abstains counts for the quorum only (system 003's code, not its guide, which contradicts it: O12).
//! Everything follows from the ledger: the rules are those of the day of the proposal, the electorate is that day's,
//! votes are cast once and stand. Nobody is paid for proposing or voting, and nothing is escrowed: a member has one open
//! proposal at a time.

mod rules;

pub(crate) use rules::{check_nothing_waits, decide, propose, vote};

use crate::{
    entry::check_text,
    error::LedgerError,
    map::Map,
    order::{WITNESSES_MAX, check_count},
    policy::Policy,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use talka_base::{
    Credits, Encoded, Factor, MemberId, ModelId, NetworkId, NodeId, ProposalId, Tick, encode,
};

/// How members of a network decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GovernanceRules {
    /// What a vote weighs.
    pub votes: Votes,
    /// Of yes and no, how much must be yes.
    pub approval: Factor,
    /// Of the electorate, how much must vote.
    pub quorum: Factor,
    /// When, ordinarily.
    pub ordinary: Times,
    /// When in an emergency.
    pub emergency: Times,
    /// Whether the members may name witnesses. The founder may in any case.
    pub appoints: bool,
}

/// What a vote weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Votes {
    /// One for each member.
    PerMember,
    /// What the member has staked until voting ends or longer.
    ByStake,
}

/// How long each stage of a proposal takes, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// Before voting begins.
    pub review_ms: u64,
    /// For voting.
    pub voting_ms: u64,
    /// From the end of voting until it is enacted.
    pub delay_ms: u64,
}

const HOUR_MS: u64 = 60 * 60 * 1000;
const WEEK_MS: u64 = 7 * 24 * HOUR_MS;

impl Default for GovernanceRules {
    /// System 003's: two thirds nearly, a fifth, a week for each stage; two days' vote in an emergency.
    fn default() -> Self {
        Self {
            votes: Votes::PerMember,
            approval: Factor(6_600),
            quorum: Factor(2_000),
            ordinary: Times { review_ms: WEEK_MS, voting_ms: WEEK_MS, delay_ms: WEEK_MS },
            emergency: Times { review_ms: 0, voting_ms: 48 * HOUR_MS, delay_ms: HOUR_MS },
            appoints: false,
        }
    }
}

/// The longest title of a proposal, in bytes.
pub const TITLE_BYTES_MAX: usize = 256;

/// "Let us do this", signed by a node of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// The network whose ledger this is for.
    pub network: NetworkId,
    /// The node that signs.
    pub by: NodeId,
    /// What people read; 1 to [`TITLE_BYTES_MAX`] bytes.
    pub title: String,
    /// Whether it goes by the shorter times.
    pub is_emergency: bool,
    /// What is done if it is approved.
    pub action: Action,
    /// When the node signed, by its clock. Also tells two proposals of the same action apart.
    pub at: Tick,
}

/// What a network can decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Other rules of money.
    Parameters(Box<Policy>),
    /// Whether requests for a model are taken.
    Model {
        /// The model.
        model: ModelId,
        /// Whether they are; all models are allowed until they are not.
        is_allowed: bool,
    },
    /// Whether a member may act. One that is suspended keeps its credits and is paid for work, but asks for
    /// nothing, stakes nothing, invites nobody and does not vote.
    Member {
        /// The member.
        member: MemberId,
        /// Whether it may not.
        is_suspended: bool,
    },
    /// A member loses of its stake and held earnings, and no more than those.
    Slash {
        /// The member.
        member: MemberId,
        /// What it loses at most.
        penalty: Credits,
        /// Who reported it, if somebody is to have the reporter's part.
        reporter: Option<MemberId>,
    },
    /// These nodes witness from now on, in place of those before, where the rules let members decide that. If it cannot be
    /// any more when it is due, it is rejected.
    Witnesses {
        /// 3f+1 nodes, in ascending order, of as many members.
        witnesses: Vec<NodeId>,
    },
}

impl Action {
    /// One word for people and JSON.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Parameters(_) => "parameters",
            Self::Model { .. } => "model",
            Self::Member { .. } => "member",
            Self::Slash { .. } => "slash",
            Self::Witnesses { .. } => "witnesses",
        }
    }
}

impl Proposal {
    /// Titles are shown in terminals and pages, so they hold nothing that moves a cursor. Whatever else is inside has
    /// a bounded size.
    ///
    /// # Errors
    /// [`LedgerError::Name`], [`LedgerError::Witnesses`] if there are too many.
    pub fn check_bounds(&self) -> Result<(), LedgerError> {
        check_text("proposal", &self.title, TITLE_BYTES_MAX)?;
        match &self.action {
            Action::Witnesses { witnesses } => check_count(witnesses),
            _ => Ok(()),
        }
    }

    /// The BLAKE3 digest of the proposal's encoding.
    pub fn id(&self) -> ProposalId {
        ProposalId(blake3::hash(&encode(self)).into())
    }
}

impl Encoded for Proposal {
    const NAME: &'static str = "proposal";
    const VERSION: u8 = 3;
    const SIZE_MAX: usize = 1024 + WITNESSES_MAX * 32;
}

/// "I am for, against, or neither", signed by a node of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The network whose ledger this is for.
    pub network: NetworkId,
    /// The node that signs.
    pub by: NodeId,
    /// What is voted on.
    pub proposal: ProposalId,
    /// How.
    pub choice: Choice,
}

impl Encoded for Vote {
    const NAME: &'static str = "vote";
    const SIZE_MAX: usize = 160;
}

/// How a member votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// For it.
    Yes,
    /// Against it.
    No,
    /// Neither; counts for the quorum.
    Abstain,
}

/// A proposal, the rules that it goes by, and the votes so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ballot {
    /// What is proposed.
    pub proposal: Proposal,
    /// By whom.
    pub member: MemberId,
    /// The entry that recorded it.
    pub height: u64,
    /// When that was: its times count from here.
    pub at: Tick,
    /// The rules of that day.
    pub rules: GovernanceRules,
    /// All votes that could have been cast that day.
    pub electorate: u64,
    /// Who voted how, and with what weight.
    pub votes: BTreeMap<MemberId, (Choice, u64)>,
    /// How it ended, and the entry that says so.
    pub decided: Option<(Outcome, u64)>,
}

/// What the members decided, and what they are deciding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Assembly {
    /// Every proposal ever made.
    pub ballots: Map<ProposalId, Ballot>,
    /// Those not yet decided, by when that is due.
    pub waiting: BTreeSet<(Tick, ProposalId)>,
    /// Models that no request is taken for.
    pub forbidden: Map<ModelId, ()>,
    /// Members that may not act.
    pub suspended: Map<MemberId, ()>,
}

/// How votes stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// For.
    pub yes: u64,
    /// Against.
    pub no: u64,
    /// Neither.
    pub abstain: u64,
}

/// How a proposal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Approved, and done.
    Enacted,
    /// Too few votes, or too few for it.
    Rejected,
}

/// Where a proposal stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// People read it.
    Review,
    /// Members vote.
    Voting,
    /// Approved, and enacted after the delay.
    Approved,
    /// Rejected, and closed after the delay.
    Rejected,
    /// Done.
    Enacted,
}

impl Tally {
    /// Whether `rules` approve what so many of `electorate` voted for.
    pub fn is_approved(self, electorate: u64, rules: &GovernanceRules) -> bool {
        let [yes, no, abstain, all] = [self.yes, self.no, self.abstain, electorate].map(u128::from);
        let reaches = |part: u128, whole: u128, least: Factor| {
            part * u128::from(Factor::SCALE) >= whole * u128::from(least.0)
        };
        let has_quorum = reaches(yes + no + abstain, all, rules.quorum);
        yes > 0 && has_quorum && reaches(yes, yes + no, rules.approval)
    }
}

impl Ballot {
    fn times(&self) -> Times {
        if self.proposal.is_emergency { self.rules.emergency } else { self.rules.ordinary }
    }

    /// When voting begins.
    pub fn voting_from(&self) -> Tick {
        self.at.plus_ms(self.times().review_ms)
    }

    /// When voting ends: from here on no vote counts.
    pub fn voting_until(&self) -> Tick {
        self.voting_from().plus_ms(self.times().voting_ms)
    }

    /// When it is enacted or closed: the first entry from here on does that.
    pub fn decided_at(&self) -> Tick {
        self.voting_until().plus_ms(self.times().delay_ms)
    }

    /// How votes stand.
    pub fn tally(&self) -> Tally {
        self.votes.values().fold(Tally::default(), |mut tally, &(choice, weight)| {
            let sum = match choice {
                Choice::Yes => &mut tally.yes,
                Choice::No => &mut tally.no,
                Choice::Abstain => &mut tally.abstain,
            };
            *sum = sum.saturating_add(weight);
            tally
        })
    }

    /// Whether it would be approved if voting ended now.
    pub fn is_approved(&self) -> bool {
        self.tally().is_approved(self.electorate, &self.rules)
    }

    /// Where it stands at `now`.
    pub fn stage(&self, now: Tick) -> Stage {
        match self.decided {
            Some((Outcome::Enacted, _)) => Stage::Enacted,
            Some((Outcome::Rejected, _)) => Stage::Rejected,
            None if now < self.voting_from() => Stage::Review,
            None if now < self.voting_until() => Stage::Voting,
            None if self.is_approved() => Stage::Approved,
            None => Stage::Rejected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn approved(yes: u64, no: u64, abstain: u64, electorate: u64) -> bool {
        Tally { yes, no, abstain }.is_approved(electorate, &GovernanceRules::default())
    }

    /// Section N2: participation 0.30 and approval 0.75 suffice, though its guide says 50 % (O12).
    #[test]
    fn the_published_tally_is_approved() {
        assert!(approved(150_000, 50_000, 100_000, 1_000_000));
    }

    #[test]
    fn approval_and_quorum_are_reached_at_their_bounds() {
        assert!(approved(66, 34, 0, 500));
        assert!(!approved(65, 35, 0, 500));
        assert!(approved(66, 34, 0, 100));
        assert!(!approved(66, 33, 0, 500), "99 of 500 are no quorum");
        assert!(approved(66, 33, 1, 500), "who abstains makes the quorum");
        assert!(!approved(0, 0, 500, 500), "nobody is for it");
        assert!(approved(u64::MAX, 0, u64::MAX, u64::MAX));
    }

    fn ballot(is_emergency: bool, votes: &[(u8, Choice)]) -> Ballot {
        let votes = votes.iter().map(|&(member, choice)| (MemberId([member; 32]), (choice, 1)));
        let proposal = Proposal {
            network: NetworkId([1; 32]),
            by: NodeId([2; 32]),
            title: "Forbid a model".into(),
            is_emergency,
            action: Action::Model { model: ModelId([3; 32]), is_allowed: false },
            at: Tick(0),
        };
        Ballot {
            proposal,
            member: MemberId([2; 32]),
            height: 7,
            at: Tick(1000),
            rules: GovernanceRules::default(),
            electorate: 3,
            votes: votes.collect(),
            decided: None,
        }
    }

    #[test]
    fn stages_follow_each_other_by_the_times_of_the_kind() {
        let ballot_yes = ballot(false, &[(1, Choice::Yes)]);
        let at = |ms: u64| ballot_yes.stage(Tick(1000 + ms));
        assert_eq!(at(WEEK_MS - 1), Stage::Review);
        assert_eq!(at(WEEK_MS), Stage::Voting);
        assert_eq!(at(2 * WEEK_MS - 1), Stage::Voting);
        assert_eq!(at(2 * WEEK_MS), Stage::Approved);
        assert_eq!(ballot_yes.decided_at(), Tick(1000 + 3 * WEEK_MS));

        let quick = ballot(true, &[(1, Choice::No), (2, Choice::Yes)]);
        assert_eq!(quick.stage(Tick(1000)), Stage::Voting);
        assert_eq!(quick.stage(Tick(1000 + 48 * HOUR_MS)), Stage::Rejected);
        assert_eq!(quick.decided_at(), Tick(1000 + 49 * HOUR_MS));
        let decided = Ballot { decided: Some((Outcome::Enacted, 9)), ..quick };
        assert_eq!(decided.stage(Tick(0)), Stage::Enacted);
    }

    proptest! {
        #[test]
        fn another_yes_never_hurts_and_another_no_never_helps(
            yes in 0u64..1000, no in 0u64..1000, abstain in 0u64..1000, electorate in 0u64..9000,
        ) {
            if approved(yes, no, abstain, electorate) {
                prop_assert!(approved(yes + 1, no, abstain, electorate));
            } else if approved(yes, no + 1, abstain, electorate) {
                // A no may make the quorum, as every vote does.
                prop_assert!(!approved(yes, no, abstain, electorate));
                let votes = u128::from(yes + no + abstain);
                prop_assert!(votes * 5 < u128::from(electorate));
            }
        }
    }
}
