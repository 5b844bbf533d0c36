//! The ledger's state as a list of records, so that one of them can be proved.
//!
//! A record says one thing that the entries amount to, and has a key: its kind, and whose or what's it is. The tree over the
//! records parts where keys differ first, so its shape follows from the keys alone, and a change of one record changes the way
//! from it to the root and nothing else. Hashes are those of RFC 6962. The tree's root is the *state root*: two ledgers with one
//! are equal.

use crate::{
    book::{Book, ClosedSession, History, Mark, Member, NodeRecord, OpenReservation},
    common_work::Purse,
    entry::Account,
    forward::OpenForwarding,
    govern::{Assembly, Ballot},
    lots::Lots,
    map::{Key, Map, Path},
    order::{Turns, Witnesses},
    policy::Policy,
    proof::PATH_MAX,
    removal::RemovedNode,
    standing::Standing,
    tlog::{self, ProofError},
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
    /// What became of a request, so that its id works once; kept until no paper of it can be used.
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
    /// Who may order; no record before the first change, as long as the founder alone may.
    Turns(Turns),
    /// When a member's held earnings came.
    Held(MemberId, Lots),
}

/// A record that can be proved by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKey {
    /// What an account holds.
    Balance(Account),
    /// Who witnesses.
    Witnesses,
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
            Self::Held(..) => "held earnings",
        }
    }
}

impl Encoded for StateRecord {
    const NAME: &'static str = "state record";
    const VERSION: u8 = 4;
    /// A member with half a million nodes.
    const SIZE_MAX: usize = 16 << 20;
}

/// Records of one kind.
trait Kind<'a> {
    fn count(&self) -> u64;

    fn records(&self) -> Box<dyn Iterator<Item = StateRecord> + 'a>;

    /// The root of their tree; nothing, if there are none.
    fn root(&self) -> Option<TreeHash>;

    /// The record under a key of these bytes, and its way to that root.
    fn prove(&self, key: &[u8]) -> Option<(StateRecord, Path)>;
}

/// One record, or none.
impl<'a> Kind<'a> for Option<StateRecord> {
    fn count(&self) -> u64 {
        u64::from(self.is_some())
    }

    fn records(&self) -> Box<dyn Iterator<Item = StateRecord> + 'a> {
        Box::new(self.clone().into_iter())
    }

    fn root(&self) -> Option<TreeHash> {
        self.as_ref().map(leaf)
    }

    fn prove(&self, key: &[u8]) -> Option<(StateRecord, Path)> {
        key.is_empty().then(|| self.clone())?.map(|record| (record, Path::new()))
    }
}

/// One record for each key of a map.
struct Each<'a, K, V> {
    map: &'a Map<K, V>,
    record: fn(&K, &V) -> StateRecord,
}

impl<'a, K: Key, V: Clone> Kind<'a> for Each<'a, K, V> {
    fn count(&self) -> u64 {
        self.map.len() as u64
    }

    fn records(&self) -> Box<dyn Iterator<Item = StateRecord> + 'a> {
        let Self { map, record } = *self;
        Box::new(map.iter().map(move |(key, value)| record(key, value)))
    }

    fn root(&self) -> Option<TreeHash> {
        self.map.hash(|key, value| leaf(&(self.record)(key, value)))
    }

    fn prove(&self, key: &[u8]) -> Option<(StateRecord, Path)> {
        let (id, value) = self.map.find(key)?;
        let path = self.map.path(key, |key, value| leaf(&(self.record)(key, value)));
        Some(((self.record)(id, value), path))
    }
}

fn each<'a, K: Key, V: Clone>(
    map: &'a Map<K, V>,
    record: fn(&K, &V) -> StateRecord,
) -> Box<dyn Kind<'a> + 'a> {
    Box::new(Each { map, record })
}

/// The kinds of records, in the order of [`StateRecord`]'s.
fn kinds(book: &Book) -> [Box<dyn Kind<'_> + '_>; 20] {
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
        ended: _,
        closed,
        epochs,
        last_epoch,
        standings,
        breakdowns: _,
        lots,
        held,
        assembly,
        purse,
    } = book;
    // Which requests are over follows from them, and which proposals wait from the ballots.
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
    let one = |record: StateRecord| -> Box<dyn Kind<'_>> { Box::new(Some(record)) };
    [
        one(chain),
        one(StateRecord::Policy(policy.clone())),
        each(balances, |&account, &amount| StateRecord::Balance(account, amount)),
        each(members, |&id, member| StateRecord::Member(id, member.clone())),
        each(nodes, |&id, node| StateRecord::Node(id, node.clone())),
        each(open, |_, open| StateRecord::Open(open.clone())),
        each(forwarded, |_, open| StateRecord::Forwarded(open.clone())),
        each(requests, |&id, &history| StateRecord::Request(id, history)),
        Box::new(witnesses),
        each(removed, |&id, &removed| StateRecord::Removed(id, removed)),
        each(standings, |&id, standing| StateRecord::Standing(id, standing.clone())),
        each(closed, |&(at, id), closed| StateRecord::Closed(at, id, closed.clone())),
        one(StateRecord::Epochs(*epochs, *last_epoch)),
        each(lots, |&id, lots| StateRecord::Lots(id, lots.clone())),
        each(ballots, |&id, ballot| StateRecord::Ballot(id, ballot.clone())),
        each(forbidden, |&model, ()| StateRecord::Forbidden(model)),
        each(suspended, |&member, ()| StateRecord::Suspended(member)),
        one(StateRecord::Purse(*purse)),
        Box::new((turns.changes > 0).then_some(StateRecord::Turns(*turns))),
        each(held, |&id, lots| StateRecord::Held(id, lots.clone())),
    ]
}

/// The records of `book`, in order.
pub(crate) fn records(book: &Book) -> impl Iterator<Item = StateRecord> {
    kinds(book).into_iter().flat_map(|kind| kind.records())
}

/// How many records there are, and the root of their tree. Hashes what changed since a copy of the book was last asked.
pub(crate) fn root(book: &Book) -> (u64, TreeHash) {
    let kinds = kinds(book);
    (kinds.iter().map(|kind| kind.count()).sum(), join(&roots(&kinds), None, &mut Path::new()))
}

/// A record, and its way to the state root.
pub(crate) fn prove(book: &Book, which: RecordKey) -> Option<(StateRecord, Path)> {
    let kinds = kinds(book);
    let (kind, key) = match which {
        RecordKey::Balance(account) => (2, account.bytes().to_vec()),
        RecordKey::Witnesses => (8, Vec::new()),
    };
    let (record, mut path) = kinds[usize::from(kind)].prove(&key)?;
    join(&roots(&kinds), Some(kind), &mut path);
    Some((record, path))
}

/// The root of each kind that has records.
fn roots<'a>(kinds: &[Box<dyn Kind<'a> + 'a>]) -> Vec<(u8, TreeHash)> {
    let roots = (0..).zip(kinds).filter_map(|(number, kind)| Some((number, kind.root()?)));
    roots.collect()
}

/// The root over those of kinds, which are the first byte of every key; adds to the path of the kind `of` what leads there.
fn join(kinds: &[(u8, TreeHash)], of: Option<u8>, path: &mut Path) -> TreeHash {
    let [(first, _), .., (last, _)] = kinds else { return kinds[0].1 };
    let bit = 1 << (first ^ last).ilog2();
    let (left, right) = kinds.split_at(kinds.partition_point(|(kind, _)| kind & bit == 0));
    let roots = [join(left, of, path), join(right, of, path)];
    let holds = |kinds: &[(u8, TreeHash)]| kinds.iter().any(|(kind, _)| Some(*kind) == of);
    if holds(left) {
        path.push((false, roots[1]));
    } else if holds(right) {
        path.push((true, roots[0]));
    }
    tlog::node_hash(&roots[0], &roots[1])
}

/// Puts a record into the book that it is of: what [`records`] does, backwards.
///
/// # Errors
/// The kind of a record that only opens a book.
pub(crate) fn enter(book: &mut Book, record: StateRecord) -> Result<(), &'static str> {
    let kind = record.kind();
    match record {
        StateRecord::Chain { .. } | StateRecord::Policy(_) => return Err(kind),
        StateRecord::Balance(account, amount) => book.balances.insert(account, amount),
        StateRecord::Member(id, member) => book.members.insert(id, member),
        StateRecord::Node(id, node) => book.nodes.insert(id, node),
        StateRecord::Open(open) => book.open.insert(open.reservation.request, open),
        StateRecord::Forwarded(open) => book.forwarded.insert(open.forwarding.request, open),
        StateRecord::Request(id, history) => {
            if let Some(closed) = history.closed {
                book.ended.insert((closed.at, id), ());
            }
            book.requests.insert(id, history);
        }
        StateRecord::Witnesses(witnesses, appointed) => {
            (book.witnesses, book.appointed) = (witnesses, appointed);
        }
        StateRecord::Removed(id, removed) => book.removed.insert(id, removed),
        StateRecord::Standing(id, standing) => book.standings.insert(id, standing),
        StateRecord::Closed(at, id, closed) => book.closed.insert((at, id), closed),
        StateRecord::Epochs(epochs, last) => (book.epochs, book.last_epoch) = (epochs, last),
        StateRecord::Lots(id, lots) => book.lots.insert(id, lots),
        StateRecord::Ballot(id, ballot) => {
            if ballot.decided.is_none() {
                book.assembly.waiting.insert((ballot.decided_at(), id));
            }
            book.assembly.ballots.insert(id, ballot);
        }
        StateRecord::Forbidden(model) => book.assembly.forbidden.insert(model, ()),
        StateRecord::Suspended(member) => book.assembly.suspended.insert(member, ()),
        StateRecord::Purse(purse) => book.purse = purse,
        StateRecord::Turns(turns) => book.turns = turns,
        StateRecord::Held(id, lots) => book.held.insert(id, lots),
    }
    Ok(())
}

/// Checks that the state with this `root` holds `record`, to which `path` leads: bit i of `index` says whether the i-th hash of the
/// path stands on the left.
///
/// # Errors
/// [`ProofError`].
pub(crate) fn verify(
    record: &StateRecord,
    index: u64,
    root: TreeHash,
    path: &[TreeHash],
) -> Result<(), ProofError> {
    let hashes = path.len();
    if hashes > PATH_MAX {
        return Err(ProofError::Length { hashes });
    }
    if hashes < PATH_MAX && index >> hashes > 0 {
        return Err(ProofError::Index { index, size: 1 << hashes });
    }
    let climb = |found, (level, beside)| match index >> level & 1 {
        1 => tlog::node_hash(beside, &found),
        _ => tlog::node_hash(&found, beside),
    };
    let found = path.iter().enumerate().fold(leaf(record), climb);
    if found == root { Ok(()) } else { Err(ProofError::Root { expected: root, found }) }
}

/// The leaf of a record in the state's tree.
pub(crate) fn leaf(record: &StateRecord) -> TreeHash {
    tlog::leaf_hash(&encode(record))
}

/// The hash of parameters, as blocks name them: that of their record.
pub(crate) fn parameters_hash(policy: &Policy) -> TreeHash {
    leaf(&StateRecord::Policy(policy.clone()))
}
