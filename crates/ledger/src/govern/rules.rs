//! Whether a proposal, a vote or a decision may be recorded now, and what it changes.

use super::{Action, Ballot, Outcome as Decision, Proposal, Vote, Votes};
use crate::{
    book::{Book, Change},
    entry::{Account, Bucket, Event},
    error::LedgerError,
    order::witnesses,
    rules::{Outcome, acting_member, check_network},
    stake,
};
use std::collections::BTreeMap;
use talka_base::{MemberId, ProposalId, Signed, Tick};

/// What is due comes first: the ledger goes on only after a proposal whose time has come is decided, so that a
/// sequencer cannot put off what the members decided.
pub(crate) fn check_nothing_waits(book: &Book, at: Tick, event: &Event) -> Result<(), LedgerError> {
    let Some(&(since, proposal)) = book.assembly.waiting.first() else { return Ok(()) };
    match event {
        Event::Decided { proposal: decided } if *decided == proposal => Ok(()),
        _ if at >= since => Err(LedgerError::Undecided { proposal, since }),
        _ => Ok(()),
    }
}

/// Decides about a proposal. A member has one at a time that is not decided.
pub(crate) fn propose(
    book: &Book,
    at: Tick,
    proposal: &Signed<Proposal>,
) -> Result<Outcome, LedgerError> {
    let paper = proposal.verify_by(&proposal.claimed_value().by.0)?;
    check_network(book, "proposal", paper.network)?;
    let member = acting_member(book, at, paper.by)?;
    let id = paper.id();
    if let Some(known) = book.assembly.ballots.get(&id) {
        return Err(LedgerError::Duplicate { height: known.height });
    }
    let waiting = book.assembly.waiting.iter().map(|(_, id)| id);
    if let Some(open) = waiting.into_iter().find(|id| book.assembly.ballots[id].member == member) {
        return Err(LedgerError::OpenProposal { member, proposal: *open });
    }
    check_action(book, &paper.action)?;
    let rules = book.policy.governance;
    let electorate = electorate(book, rules.votes);
    if electorate == 0 {
        return Err(LedgerError::NoVote { member });
    }
    let (proposal, votes) = (paper.clone(), BTreeMap::new());
    let height = book.entries;
    let ballot = Ballot { proposal, member, height, at, rules, electorate, votes, decided: None };
    Ok(Outcome { postings: Vec::new(), change: Change::Propose { id, ballot: Box::new(ballot) } })
}

fn check_action(book: &Book, action: &Action) -> Result<(), LedgerError> {
    let known = |member: &MemberId| match book.members.contains_key(member) {
        true => Ok(()),
        false => Err(LedgerError::UnknownMember { member: *member }),
    };
    match action {
        Action::Parameters(policy) => policy.check(),
        Action::Model { .. } => Ok(()),
        Action::Member { member, .. } => known(member),
        Action::Slash { member, reporter, .. } => {
            known(member)?;
            reporter.as_ref().map_or(Ok(()), known)
        }
        Action::Witnesses { .. } if !book.policy.governance.appoints => {
            let expected = "the founder to name them: the rules of this network leave it to it";
            Err(LedgerError::Witnesses { expected })
        }
        Action::Witnesses { witnesses } => witnesses::check(book, witnesses).map(|_| ()),
    }
}

/// All votes that can be cast on a proposal that is made now.
fn electorate(book: &Book, votes: Votes) -> u64 {
    match votes {
        Votes::PerMember => {
            let voters = book.members.keys().filter(|id| !book.assembly.suspended.contains_key(id));
            voters.count() as u64
        }
        Votes::ByStake => {
            let stakes = book.members.keys().map(|&id| Account::Member(id, Bucket::Stake));
            stakes.map(|stake| book.credits(stake).0).sum()
        }
    }
}

/// Decides about a vote: one for each member, and it stands.
pub(crate) fn vote(book: &Book, at: Tick, vote: &Signed<Vote>) -> Result<Outcome, LedgerError> {
    let paper = vote.verify_by(&vote.claimed_value().by.0)?;
    check_network(book, "vote", paper.network)?;
    let member = acting_member(book, at, paper.by)?;
    let proposal = paper.proposal;
    let ballot = book.assembly.ballots.get(&proposal);
    let ballot = ballot.ok_or(LedgerError::UnknownProposal { proposal })?;
    let (from, until) = (ballot.voting_from(), ballot.voting_until());
    if at < from || at >= until {
        return Err(LedgerError::NotVoting { proposal, from, until, now: at });
    }
    if ballot.votes.contains_key(&member) {
        return Err(LedgerError::Voted { member, proposal });
    }
    let weight = weight(book, ballot, member);
    if weight == 0 {
        return Err(LedgerError::NoVote { member });
    }
    let change = Change::Vote { proposal, member, choice: paper.choice, weight };
    Ok(Outcome { postings: Vec::new(), change })
}

/// What a member's vote weighs. Who came after the proposal has none: it is not of the electorate.
fn weight(book: &Book, ballot: &Ballot, member: MemberId) -> u64 {
    let account = &book.members[&member];
    match ballot.rules.votes {
        _ if account.joined_height > ballot.height => 0,
        Votes::PerMember => 1,
        Votes::ByStake if account.stake.until < ballot.voting_until() => 0,
        Votes::ByStake => book.credits(Account::Member(member, Bucket::Stake)).0,
    }
}

/// Decides a proposal whose time has come, and does what was approved.
pub(crate) fn decide(book: &Book, at: Tick, proposal: ProposalId) -> Result<Outcome, LedgerError> {
    let ballot = book.assembly.ballots.get(&proposal);
    let ballot = ballot.ok_or(LedgerError::UnknownProposal { proposal })?;
    if let Some((_, height)) = ballot.decided {
        return Err(LedgerError::Duplicate { height });
    }
    let from = ballot.decided_at();
    if at < from {
        return Err(LedgerError::NotDecided { proposal, from, now: at });
    }
    let (outcome, postings) = match (ballot.is_approved(), &ballot.proposal.action) {
        (false, _) => (Decision::Rejected, Vec::new()),
        (true, Action::Slash { member, penalty, reporter }) => {
            let postings = stake::penalty(book, *member, *penalty, *reporter)?;
            (Decision::Enacted, postings.finish())
        }
        // One of them may have left since, or the founder named others.
        (true, Action::Witnesses { witnesses }) if witnesses::check(book, witnesses).is_err() => {
            (Decision::Rejected, Vec::new())
        }
        (true, _) => (Decision::Enacted, Vec::new()),
    };
    Ok(Outcome { postings, change: Change::Decide { proposal, outcome } })
}
