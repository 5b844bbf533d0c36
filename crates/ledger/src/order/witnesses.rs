//! Witnesses: nodes whose cosignatures make a block final.

use crate::{
    block::Block,
    book::{Book, Change},
    entry::Event,
    error::LedgerError,
    govern::Action,
    note::{KeyKind, NoteKey, NoteSignature, SignedNote},
    rules::{Outcome, check_network, member_of},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use talka_base::{Encoded, Keypair, NetworkId, NodeId, Signed};

/// The most witnesses: f = 21 of them may be dishonest.
pub const WITNESSES_MAX: usize = 64;

/// "From now on these nodes witness", signed by the founder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appointment {
    /// The network whose ledger this is for.
    pub network: NetworkId,
    /// 3f+1 nodes, in ascending order, of as many members.
    pub witnesses: Vec<NodeId>,
}

impl Appointment {
    pub(crate) fn check_bounds(&self) -> Result<(), LedgerError> {
        check_count(&self.witnesses)
    }
}

/// However they are named, there are no more than this.
pub(crate) fn check_count(witnesses: &[NodeId]) -> Result<(), LedgerError> {
    if witnesses.len() > WITNESSES_MAX {
        return Err(LedgerError::Witnesses { expected: "64 of them at most" });
    }
    Ok(())
}

impl Encoded for Appointment {
    const NAME: &'static str = "appointment of witnesses";
    const SIZE_MAX: usize = 64 + WITNESSES_MAX * 32;
}

/// The witnesses of a ledger: none (solo) or 3f+1 of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witnesses(BTreeSet<NodeId>);

impl FromIterator<NodeId> for Witnesses {
    /// Whoever somebody believes to witness: only [`Ledger::witnesses`](crate::Ledger::witnesses) knows.
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> Self {
        Self(nodes.into_iter().collect())
    }
}

impl Witnesses {
    /// Whether one signature, the sequencer's, is enough.
    pub fn is_solo(&self) -> bool {
        self.0.is_empty()
    }

    /// The nodes, in ascending order.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.0.iter().copied()
    }

    /// Whether this node is one of them.
    pub fn contains(&self, node: &NodeId) -> bool {
        self.0.contains(node)
    }

    /// Cosignatures that make a block final: 2f+1 of 3f+1, or none.
    pub fn quorum(&self) -> usize {
        self.0.len() - self.0.len() / 3
    }

    /// The witnesses whose cosignatures of `note` hold.
    pub fn cosigned(&self, note: &SignedNote) -> BTreeSet<NodeId> {
        self.nodes().filter(|&node| note.verify(&Self::key(node)).is_ok()).collect()
    }

    /// Whether these nodes are a quorum.
    pub fn are_enough(&self, cosigned: &BTreeSet<NodeId>) -> bool {
        self.0.intersection(cosigned).count() >= self.quorum()
    }

    /// The key with which a node cosigns.
    pub fn key(node: NodeId) -> NoteKey {
        let name = format!("talka/{}", node.short());
        NoteKey::new(&name, KeyKind::Cosignature, node.0).expect("a plain name")
    }

    /// A witness's signature of a block, at `seconds` since 1970.
    pub fn cosign(block: &Block, keys: &Keypair, seconds: u64) -> NoteSignature {
        let key = Self::key(NodeId(keys.public()));
        NoteSignature::cosign(&block.to_string(), key.name(), keys, seconds).expect("a plain text")
    }
}

/// Decides whether the founder may name these witnesses.
pub(crate) fn judge(
    book: &Book,
    appointment: &Signed<Appointment>,
) -> Result<Outcome, LedgerError> {
    let paper = appointment.verify_by(&book.founder.0)?;
    check_network(book, "appointment", paper.network)?;
    let witnesses = check(book, &paper.witnesses)?;
    Ok(Outcome { postings: Vec::new(), change: Change::Appoint(witnesses) })
}

/// Whether an entry with this event, as the next one, names witnesses.
pub(crate) fn are_named_by(book: &Book, event: &Event) -> bool {
    match event {
        Event::Appointed { .. } => true,
        Event::Decided { proposal } => {
            let ballot = book.assembly.ballots.get(proposal);
            ballot.is_some_and(|ballot| match &ballot.proposal.action {
                Action::Witnesses { witnesses } => {
                    ballot.is_approved() && check(book, witnesses).is_ok()
                }
                _ => false,
            })
        }
        _ => false,
    }
}

/// These nodes as witnesses, if they may be, whoever names them.
pub(crate) fn check(book: &Book, named: &[NodeId]) -> Result<Witnesses, LedgerError> {
    let witnesses: BTreeSet<NodeId> = named.iter().copied().collect();
    // Whoever leads could show an old appointment again.
    if book.turns.by_turns {
        let expected = "the founder to order: while witnesses order by turns they stay the same";
        return Err(LedgerError::Witnesses { expected });
    }
    let refuse = |expected| Err(LedgerError::Witnesses { expected });
    if !named.is_sorted() || witnesses.len() != named.len() {
        return refuse("each once, in ascending order");
    }
    if witnesses.len() % 3 != 1 {
        return refuse("3f+1 of them: 1, 4, 7 and so on up to 64");
    }
    if witnesses == book.witnesses.0 {
        return Err(LedgerError::Duplicate { height: book.appointed });
    }
    let members = witnesses.iter().map(|&node| member_of(book, node));
    if members.collect::<Result<BTreeSet<_>, _>>()?.len() < witnesses.len() {
        return refuse("one node for each member");
    }
    // A change that kept fewer could hand the ledger to others in one entry.
    if book.witnesses.0.intersection(&witnesses).count() < book.witnesses.quorum() {
        return refuse("at least a quorum of those before");
    }
    Ok(Witnesses(witnesses))
}
