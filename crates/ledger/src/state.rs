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
    order::{Turns, Witnesses},
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
        /// The node that founded it.
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
    /// What was paid for common work.
    Purse(Purse),
    /// Who may order; no record before the first change, as long as the founder alone may. Always the last one.
    Turns(Turns),
}

impl StateRecord {
    /// What it is about, for messages.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Chain { .. } => "chain",
            Self::Policy(_) => "policy",
            Self::Balance(..) => "balance",
            Self::Member(..) => "member",
            Self::Node(..) => "node",
            Self::Open(_) => "open request",
            Self::Forwarded(_) => "forwarded request",
            Self::Request(..) => "request",
            Self::Witnesses(..) => "witnesses",
            Self::Removed(..) => "removed node",
            Self::Standing(..) => "standing",
            Self::Closed(..) => "closed session",
            Self::Epochs(..) => "epochs",
            Self::Lots(..) => "lots",
            Self::Ballot(..) => "ballot",
            Self::Forbidden(_) => "forbidden model",
            Self::Suspended(_) => "suspended member",
            Self::Purse(_) => "purse",
            Self::Turns(_) => "turns",
        }
    }
}

impl Encoded for StateRecord {
    const NAME: &'static str = "state record";
    const VERSION: u8 = 3;
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
        turns,
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
    let turns = (turns.changes > 0).then_some(StateRecord::Turns(*turns));
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
        .chain(turns)
}

fn closed_record((&(at, id), closed): (&(Tick, RequestId), &ClosedSession)) -> StateRecord {
    StateRecord::Closed(at, id, closed.clone())
}

/// Puts a record into the book that it is of: what [`records`] does, backwards.
///
/// # Errors
/// The kind of a record that only opens a book.
pub(crate) fn enter(book: &mut Book, record: StateRecord) -> Result<(), &'static str> {
    let kind = record.kind();
    match record {
        StateRecord::Chain { .. } | StateRecord::Policy(_) => return Err(kind),
        StateRecord::Balance(account, amount) => drop(book.balances.insert(account, amount)),
        StateRecord::Member(id, member) => drop(book.members.insert(id, member)),
        StateRecord::Node(id, node) => drop(book.nodes.insert(id, node)),
        StateRecord::Open(open) => drop(book.open.insert(open.reservation.request, open)),
        StateRecord::Forwarded(open) => {
            book.forwarded.insert(open.forwarding.request, open);
        }
        StateRecord::Request(id, history) => drop(book.requests.insert(id, history)),
        StateRecord::Witnesses(witnesses, appointed) => {
            (book.witnesses, book.appointed) = (witnesses, appointed);
        }
        StateRecord::Removed(id, removed) => drop(book.removed.insert(id, removed)),
        StateRecord::Standing(id, standing) => drop(book.standings.insert(id, standing)),
        StateRecord::Closed(at, id, closed) => drop(book.closed.insert((at, id), closed)),
        StateRecord::Epochs(epochs, last) => (book.epochs, book.last_epoch) = (epochs, last),
        StateRecord::Lots(id, lots) => drop(book.lots.insert(id, lots)),
        StateRecord::Ballot(id, ballot) => {
            if ballot.decided.is_none() {
                book.assembly.waiting.insert((ballot.decided_at(), id));
            }
            book.assembly.ballots.insert(id, ballot);
        }
        StateRecord::Forbidden(model) => drop(book.assembly.forbidden.insert(model)),
        StateRecord::Suspended(member) => drop(book.assembly.suspended.insert(member)),
        StateRecord::Purse(purse) => book.purse = purse,
        StateRecord::Turns(turns) => book.turns = turns,
    }
    Ok(())
}

/// The leaf of a record in the state's tree.
pub(crate) fn leaf(record: &StateRecord) -> TreeHash {
    tlog::leaf_hash(&encode(record))
}

/// The hash of parameters, as blocks name them: that of their record.
pub(crate) fn parameters_hash(policy: &Policy) -> TreeHash {
    leaf(&StateRecord::Policy(policy.clone()))
}
