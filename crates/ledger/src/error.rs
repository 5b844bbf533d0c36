//! Why the ledger refuses, and who is to blame.

use crate::entry::{Account, Posting};
use talka_base::model::ShapeError;
use talka_base::{
    Blame, Credits, EntryHash, Factor, MemberId, ModelId, NodeId, ProposalId, RequestId,
    SignatureError, Tick,
};

/// An event or entry that the ledger does not take. The ledger is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message names its fields")]
pub enum LedgerError {
    /// A signature inside the event or of the entry itself does not hold.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// A shape that no model has.
    #[error(transparent)]
    Shape(#[from] ShapeError),

    /// The same event was applied before: a retried request may treat this as done.
    #[error("already recorded at height {height}")]
    Duplicate { height: u64 },
    /// The payer cannot afford the request. Becomes HTTP 402.
    #[error("{account} holds {held}, needs {needed}")]
    Insufficient { account: Account, held: Credits, needed: Credits },
    /// More than 2^63 µGFT in one account or movement.
    #[error("{account} cannot hold or move more than 2^63 µGFT")]
    Overflow { account: Account },

    #[error("only {expected} may order entries of this network, this is {found}")]
    NotSequencer { expected: NodeId, found: NodeId },
    #[error("the witnesses order entries of this network by turns, and {found} is none of them")]
    NotWitness { found: NodeId },
    #[error("entry has height {found}, expected {expected}")]
    Height { expected: u64, found: u64 },
    #[error("entry {height} follows {found}, expected {expected}: the history was altered")]
    Previous { height: u64, expected: EntryHash, found: EntryHash },
    #[error("entry is dated {found:?}, the one before {expected:?}")]
    Backwards { expected: Tick, found: Tick },
    #[error("posting {index} is {found:?}, its event gives {expected:?}")]
    Postings { index: usize, expected: Option<Posting>, found: Option<Posting> },

    /// A ledger has exactly one founding, and it comes first.
    #[error("entry {height} is {found:?}, expected {expected}")]
    Founding { height: u64, expected: &'static str, found: &'static str },
    #[error("the ledger has no entries, expected a founding")]
    Empty,
    #[error("policy has version {found}, this program knows {expected}: update it")]
    PolicyVersion { expected: u16, found: u16 },
    /// Values with which no network could live, or no replay could compute.
    #[error("policy has {field} {found}, expected {min} to {max}")]
    PolicyField { field: &'static str, found: u64, min: u64, max: u64 },
    #[error("{what} name {found:?}, expected 1 to {max} bytes without control characters")]
    Name { what: &'static str, found: String, max: usize },

    /// A field of a signed paper is not what the ledger requires.
    #[error("{what} has {field} {found}, expected {expected}")]
    Mismatch { what: &'static str, field: &'static str, expected: String, found: String },
    #[error("node {node} belongs to no member of this network")]
    NotAMember { node: NodeId },
    #[error("node {node} already belongs to member {member}")]
    NodeTaken { node: NodeId, member: MemberId },
    /// A member's account is opened under its first node's own key, and only its own nodes add
    /// others: else an inviter could attach a stranger's node to anybody's account.
    #[error("node {inviter} may not put node {node} on the account of member {member}")]
    ForeignMember { node: NodeId, member: MemberId, inviter: NodeId },

    /// A key that was removed stays so: a new key takes a new invitation.
    #[error("node {node} was removed at height {height}: it needs a new key and a new invitation")]
    Removed { node: NodeId, height: u64 },
    #[error("node {founder} founded this network and orders its ledger: it cannot be removed")]
    FounderStays { founder: NodeId },
    #[error(
        "node {by} may not remove node {node}: only the founder and nodes of its own member may"
    )]
    ForeignNode { node: NodeId, by: NodeId },
    #[error("order has serial {found}, expected {expected}: each is one more than the last")]
    Serial { expected: u64, found: u64 },
    #[error("member {member} has no root key yet: only a root delegates and revokes")]
    NoRoot { member: MemberId },
    #[error(
        "delegation to node {node} expires at {expires_at:?}, expected after {from:?} and by {until:?}"
    )]
    Delegation { node: NodeId, expires_at: Tick, from: Tick, until: Tick },

    #[error("member {member} has no account")]
    UnknownMember { member: MemberId },
    #[error(
        "node {node} may not act for member {member}: its root key delegated nothing to it, or no longer"
    )]
    NotDelegated { node: NodeId, member: MemberId },
    #[error("member {member} is suspended by the members' decision")]
    Suspended { member: MemberId },

    #[error("stake order has {field} {found}, expected {min} to {max}")]
    Stake { field: &'static str, found: u64, min: u64, max: u64 },
    #[error("the stake of member {member} is locked until {until:?}, it is {now:?}")]
    Locked { member: MemberId, until: Tick, now: Tick },
    #[error("no credits of member {member} are to expire")]
    NothingExpires { member: MemberId },
    #[error("nothing that member {member} earned was held for long enough")]
    NothingFreed { member: MemberId },
    #[error("common work has {found} tasks, expected 1 to {max}")]
    TaskCount { found: usize, max: usize },

    #[error("proposal {proposal} was due to be decided at {since:?}, and comes first")]
    Undecided { proposal: ProposalId, since: Tick },
    #[error("proposal {proposal} is decided from {from:?} on, it is {now:?}")]
    NotDecided { proposal: ProposalId, from: Tick, now: Tick },
    #[error("member {member} has an open proposal, {proposal}: one at a time")]
    OpenProposal { member: MemberId, proposal: ProposalId },
    #[error("there is no proposal {proposal}")]
    UnknownProposal { proposal: ProposalId },
    #[error("votes on {proposal} are taken from {from:?} until {until:?}, it is {now:?}")]
    NotVoting { proposal: ProposalId, from: Tick, until: Tick, now: Tick },
    #[error("member {member} voted on {proposal} before: a vote stands")]
    Voted { member: MemberId, proposal: ProposalId },
    #[error("member {member} has no vote: it joined later, or staked nothing until voting ends")]
    NoVote { member: MemberId },
    #[error("the members decided to take no requests for model {model}")]
    Forbidden { model: ModelId },

    #[error("request {request} has {prompt_tokens} prompt tokens, expected at least 1")]
    NoPrompt { request: RequestId, prompt_tokens: u32 },
    #[error(
        "request {request} was signed {minutes} minutes from the ledger's time, expected at most {max}: \
         check this computer's clock"
    )]
    RequestDated { request: RequestId, minutes: u64, max: u64 },
    #[error("request {request} is another one, reserved at height {height}: draw a new id")]
    RequestReused { request: RequestId, height: u64 },
    #[error("request {request} was never reserved")]
    UnknownRequest { request: RequestId },
    #[error("request {request} was settled or released at height {height}")]
    Closed { request: RequestId, height: u64 },
    #[error("request {request} may be released from {from:?} on, it is {now:?}")]
    NotExpired { request: RequestId, from: Tick, now: Tick },

    #[error(
        "request {request} cannot be {found}: what is set aside for it is set aside for the other kind"
    )]
    OtherPaper { request: RequestId, found: &'static str },
    #[error(
        "request {request} is forwarded at {found} thousandths of the network's price, expected more \
         than {above}"
    )]
    TariffTooLow { request: RequestId, found: u32, above: u32 },

    #[error("these nodes cannot witness: expected {expected}")]
    Witnesses { expected: &'static str },
    #[error("{max} events wait to be ordered already: ask again later")]
    Busy { max: usize },

    #[error("node {node} has a score of {found}, expected at most {max}")]
    Score { node: NodeId, found: Factor, max: Factor },
    /// Benchmarks differ from run to run, and each rating is an entry.
    #[error("node {node} was rated, and may be again from {until:?} on, it is {now:?}")]
    RatedLately { node: NodeId, until: Tick, now: Tick },
    #[error("node {node} is neither suspended nor under review: there is nothing to clear")]
    NotHalted { node: NodeId },

    #[error("settlement has {found} {what}, expected {min} to {max}")]
    Count { what: &'static str, found: usize, min: usize, max: usize },
    #[error("{what} {found} comes after {after}: they go up, each once")]
    Order { what: &'static str, found: String, after: String },
    #[error("epoch {epoch} is not what its papers give")]
    OtherPapers { epoch: u64 },
    #[error("lane {lane} comes after lane {after}: lanes go up, each once")]
    LaneOrder { lane: u16, after: u16 },
    #[error("lanes of request {request} come to {found}, its reservation holds {cap}")]
    BeyondCap { request: RequestId, cap: Credits, found: Credits },
    /// The voucher is no higher than what its lane has: brought twice, or overtaken.
    #[error(
        "lane {lane} of request {request} has {paid}, the voucher says {found}: nothing is owed"
    )]
    NothingOwed { request: RequestId, lane: u16, paid: Credits, found: Credits },
    #[error("lane {lane} of request {request} is done with: its stage signed, or proved once")]
    LaneClosed { request: RequestId, lane: u16 },
    #[error("receipts go on at layer {found}, expected {expected}: each layer once, in order")]
    Coverage { expected: u32, found: u32 },
    #[error("{found} {field} are claimed, what is set aside allows {min} to {max}")]
    BeyondReservation { field: &'static str, found: u32, min: u32, max: u32 },
}

impl LedgerError {
    /// `Peer` may cost reputation, `Nobody` is normal life, `Us` stops this machine.
    pub const fn blame(&self) -> Blame {
        match self {
            Self::Duplicate { .. }
            | Self::Insufficient { .. }
            | Self::Overflow { .. }
            | Self::Height { .. }
            | Self::PolicyVersion { .. }
            | Self::Closed { .. }
            | Self::Busy { .. }
            | Self::NothingOwed { .. }
            | Self::NotDelegated { .. }
            | Self::Suspended { .. }
            | Self::Locked { .. }
            | Self::NothingExpires { .. }
            | Self::NothingFreed { .. }
            | Self::Undecided { .. }
            | Self::NotDecided { .. }
            | Self::NotVoting { .. }
            | Self::Forbidden { .. }
            | Self::NotExpired { .. }
            | Self::RequestDated { .. }
            // The ledger forgets.
            | Self::UnknownRequest { .. }
            | Self::Removed { .. }
            | Self::RatedLately { .. } => Blame::Nobody,
            Self::NotSequencer { .. } | Self::Empty => Blame::Us,
            Self::Signature(_)
            | Self::Shape(_)
            | Self::NotWitness { .. }
            | Self::Previous { .. }
            | Self::Backwards { .. }
            | Self::Postings { .. }
            | Self::Founding { .. }
            | Self::PolicyField { .. }
            | Self::Serial { .. }
            | Self::UnknownMember { .. }
            | Self::Stake { .. }
            | Self::TaskCount { .. }
            | Self::OpenProposal { .. }
            | Self::UnknownProposal { .. }
            | Self::Voted { .. }
            | Self::NoVote { .. }
            | Self::NoRoot { .. }
            | Self::Delegation { .. }
            | Self::Name { .. }
            | Self::Mismatch { .. }
            | Self::NotAMember { .. }
            | Self::NodeTaken { .. }
            | Self::ForeignMember { .. }
            | Self::FounderStays { .. }
            | Self::ForeignNode { .. }
            | Self::NoPrompt { .. }
            | Self::RequestReused { .. }
            | Self::OtherPaper { .. }
            | Self::TariffTooLow { .. }
            | Self::Witnesses { .. }
            | Self::Score { .. }
            | Self::NotHalted { .. }
            | Self::Count { .. }
            | Self::LaneOrder { .. }
            | Self::Order { .. }
            | Self::OtherPapers { .. }
            | Self::BeyondCap { .. }
            | Self::LaneClosed { .. }
            | Self::Coverage { .. }
            | Self::BeyondReservation { .. } => Blame::Peer,
        }
    }
}

/// The first entry that does not follow from those before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ledger entry {height} does not follow from those before it")]
pub struct ReplayError {
    /// Its place in the sequence replayed.
    pub height: u64,
    /// What is wrong with it.
    pub source: LedgerError,
}
