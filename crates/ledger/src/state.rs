//! The ledger's state as a list of records, so that one of them can be proved.
//!
//! A record says one thing that the entries amount to. Records stand in the order of [`StateRecord`]'s kinds,
//! within a kind in the order of their keys; the RFC 6962 tree over their encodings has the *state root* as
//! its root. Two ledgers with one state root are equal.

use crate::{
    book::{Book, ClosedSession, History, Mark, Member, NodeRecord, OpenReservation},
    common_work::Purse,
    entry::Account,
    forward::OpenForwarding,
    govern::{Assembly, Ballot},
    lots::Lots,
    order::Witnesses,
    policy::Policy,
    removal::RemovedNode,
    standing::Standing,
    tlog,
};
use serde::{Deserialize, Serialize};
use talka_base::{
    Amount, Encoded, EntryHash, MemberId, ModelId, NetworkId, NodeId, ProposalId, RequestId, Tick,
    TreeHash, encode,
};

/// One thing that the entries amount to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateRecord {
    /// Which ledger this is, and how far it has come. Always the first record.
    Chain {
        /// The network.
        network: NetworkId,
        /// What people call it.
        name: String,
        /// The node that orders its entries.
        founder: NodeId,
        /// Number of entries.
        entries: u64,
        /// The hash of the last one.
        head: EntryHash,
        /// The time of the last one.
        at: Tick,
    },
    /// The parameters in force.
    Policy(Policy),
    /// What an account holds.
    Balance(Account, Amount),
    /// A member.
    Member(MemberId, Member),
    /// A node of a member.
    Node(NodeId, NodeRecord),
    /// A request with credits held for it.
    Open(OpenReservation),
    /// One whose answer comes from outside the network.
    Forwarded(OpenForwarding),
    /// What became of a request, so that its id works once.
    Request(RequestId, History),
    /// Who witnesses, and the entry that named them; no record if nobody does.
    Witnesses(Witnesses, u64),
    /// A node that was removed, and whose key never comes back.
    Removed(NodeId, RemovedNode),
    /// What a node's work counts for.
    Standing(NodeId, Standing),
    /// A session whose end, at that time, can still be disputed.
    Closed(Tick, RequestId, ClosedSession),
    /// How many epochs were closed, and where the last one stands.
    Epochs(u64, Option<Mark>),
    /// When a member's credits came.
    Lots(MemberId, Lots),
    /// A proposal and its votes.
    Ballot(ProposalId, Ballot),
    /// A model that no request is taken for.
    Forbidden(ModelId),
    /// A member that may not act.
    Suspended(MemberId),
    /// What was paid for common work. Always the last record.
    Purse(Purse),
}

impl Encoded for StateRecord {
    const NAME: &'static str = "state record";
    const VERSION: u8 = 2;
    /// A member with half a million nodes.
    const SIZE_MAX: usize = 16 << 20;
}

/// The records of `book`, in order.
pub(crate) fn records(book: &Book) -> impl Iterator<Item = StateRecord> {
    // Named one by one: whoever adds to the book has to add a record.
    let Book {
        network,
        name,
        founder,
        policy,
        entries,
        head,
        at,
        balances,
        members,
        nodes,
        witnesses,
        appointed,
        removed,
        open,
        forwarded,
        requests,
        closed,
        epochs,
        last_epoch,
        standings,
        breakdowns: _,
        lots,
        assembly,
        purse,
    } = book;
    // Which proposals wait follows from the ballots.
    let Assembly { ballots, waiting: _, forbidden, suspended } = assembly;
    let chain = StateRecord::Chain {
        network: *network,
        name: name.clone(),
        founder: *founder,
        entries: *entries,
        head: *head,
        at: *at,
    };
    let witnesses =
        (!witnesses.is_solo()).then(|| StateRecord::Witnesses(witnesses.clone(), *appointed));
    [chain, StateRecord::Policy(policy.clone())]
        .into_iter()
        .chain(balances.iter().map(|(&account, &amount)| StateRecord::Balance(account, amount)))
        .chain(members.iter().map(|(&id, member)| StateRecord::Member(id, member.clone())))
        .chain(nodes.iter().map(|(&id, node)| StateRecord::Node(id, node.clone())))
        .chain(open.values().map(|open| StateRecord::Open(open.clone())))
        .chain(forwarded.values().map(|open| StateRecord::Forwarded(open.clone())))
        .chain(requests.iter().map(|(&id, history)| StateRecord::Request(id, *history)))
        .chain(witnesses)
        .chain(removed.iter().map(|(&id, &removed)| StateRecord::Removed(id, removed)))
        .chain(standings.iter().map(|(&id, standing)| StateRecord::Standing(id, standing.clone())))
        .chain(closed.iter().map(closed_record))
        .chain([StateRecord::Epochs(*epochs, *last_epoch)])
        .chain(lots.iter().map(|(&id, lots)| StateRecord::Lots(id, lots.clone())))
        .chain(ballots.iter().map(|(&id, ballot)| StateRecord::Ballot(id, ballot.clone())))
        .chain(forbidden.iter().map(|&model| StateRecord::Forbidden(model)))
        .chain(suspended.iter().map(|&member| StateRecord::Suspended(member)))
        .chain([StateRecord::Purse(*purse)])
}

fn closed_record((&(at, id), closed): (&(Tick, RequestId), &ClosedSession)) -> StateRecord {
    StateRecord::Closed(at, id, closed.clone())
}

/// The leaf of a record in the state's tree.
pub(crate) fn leaf(record: &StateRecord) -> TreeHash {
    tlog::leaf_hash(&encode(record))
}

/// The hash of parameters, as blocks name them: that of their record.
pub(crate) fn parameters_hash(policy: &Policy) -> TreeHash {
    leaf(&StateRecord::Policy(policy.clone()))
}
