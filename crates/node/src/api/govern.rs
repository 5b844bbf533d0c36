//! What the members decide together: proposals told, made and voted on.

use super::{AdminError, Api};
use crate::shell::{
    now,
    orders::{describe, order},
};
use serde::{Deserialize, Serialize};
use talka_base::{MemberId, ProposalId, Tick};
use talka_ledger::{
    Event, Policy,
    govern::{Ballot, Proposal, Tally, Vote},
};

pub use talka_ledger::{
    Policy as LedgerPolicy,
    govern::{Action, Choice, Stage},
};

/// A proposal for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposalReport {
    /// Which one.
    pub id: ProposalId,
    /// What it says of itself.
    pub title: String,
    /// Whose it is.
    pub member: MemberId,
    /// The name of that member.
    pub member_name: String,
    /// Whether it goes by the shorter times.
    pub is_emergency: bool,
    /// What is done if it is approved.
    pub action: Action,
    /// Where it stands.
    pub stage: Stage,
    /// Whether it is approved, or would be if voting ended now.
    pub is_approved: bool,
    /// How votes stand.
    pub votes: Tally,
    /// All votes that there are.
    pub electorate: u64,
    /// When voting begins.
    pub voting_from: Tick,
    /// When voting ends.
    pub voting_until: Tick,
    /// When it is enacted, or was.
    pub decided_at: Tick,
    /// How this node's member voted.
    pub voted: Option<Choice>,
}

/// A proposal to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposalOrder {
    /// What people read.
    pub title: String,
    /// Whether it goes by the shorter times.
    pub is_emergency: bool,
    /// What is to be done.
    pub action: Action,
}

impl Api {
    /// The rules of money in force.
    pub async fn policy(&self) -> Policy {
        self.shared.desk().read(|ledger| ledger.policy().clone())
    }

    /// Every proposal, the latest first.
    pub async fn proposals(&self) -> Vec<ProposalReport> {
        let (member, now) = (self.shared.member(), now());
        self.shared.desk().read(|ledger| {
            let name_of =
                |id: &MemberId| ledger.member(id).map_or_else(|| id.short(), |m| m.name.clone());
            let report = |(id, ballot): (ProposalId, &Ballot)| ProposalReport {
                id,
                title: ballot.proposal.title.clone(),
                member: ballot.member,
                member_name: name_of(&ballot.member),
                is_emergency: ballot.proposal.is_emergency,
                action: ballot.proposal.action.clone(),
                stage: ballot.stage(now),
                is_approved: ballot.is_approved(),
                votes: ballot.tally(),
                electorate: ballot.electorate,
                voting_from: ballot.voting_from(),
                voting_until: ballot.voting_until(),
                decided_at: ballot.decided_at(),
                voted: ballot.votes.get(&member).map(|(choice, _)| *choice),
            };
            let mut ballots: Vec<_> = ledger.ballots().collect();
            ballots.sort_by_key(|(_, ballot)| std::cmp::Reverse(ballot.height));
            ballots.into_iter().map(report).collect()
        })
    }

    /// Proposes something in the name of this node's member.
    ///
    /// # Errors
    /// [`AdminError::Order`] if the ledger does not take it.
    pub async fn propose(&self, wanted: ProposalOrder) -> Result<ProposalReport, AdminError> {
        let ProposalOrder { title, is_emergency, action } = wanted;
        let (network, by, at) = (self.shared.desk().network(), self.shared.me, now());
        let proposal = Proposal { network, by, title, is_emergency, action, at };
        proposal.check_bounds().map_err(|e| AdminError::Order { reason: e.to_string() })?;
        let id = proposal.id();
        let proposal = self.shared.keys.sign(proposal);
        self.order(Event::Proposed { proposal }).await?;
        self.proposal(id).await
    }

    /// Votes on a proposal in the name of this node's member.
    ///
    /// # Errors
    /// [`AdminError::Order`] if the ledger does not take it.
    pub async fn vote(
        &self,
        proposal: ProposalId,
        choice: Choice,
    ) -> Result<ProposalReport, AdminError> {
        let (network, by) = (self.shared.desk().network(), self.shared.me);
        let vote = self.shared.keys.sign(Vote { network, by, proposal, choice });
        self.order(Event::Voted { vote }).await?;
        self.proposal(proposal).await
    }

    /// Has the ledger take `event`.
    pub(super) async fn order(&self, event: Event) -> Result<(), AdminError> {
        let refused = |refusal| AdminError::Order { reason: describe(&refusal) };
        order(&self.shared, event).await.map(|_| ()).map_err(refused)
    }

    async fn proposal(&self, id: ProposalId) -> Result<ProposalReport, AdminError> {
        let found = self.proposals().await.into_iter().find(|report| report.id == id);
        let late = || "the founder recorded it; this node hears of it in a moment".to_owned();
        found.ok_or_else(|| AdminError::Order { reason: late() })
    }
}
