//! Nodes that leave, or are sent away.
//!
//! Only the founder removes a node of others; a member may remove its own. It is for good: a paper that let a node in does
//! so once, and the key never again, or whoever holds both could come back at will. The account stays, with all its
//! credits and the work that was done; and what a removed node computed for a request that was open then is still paid.

use crate::{
    book::{Book, Change},
    error::LedgerError,
    rules::{Outcome, check_network, member_of},
};
use serde::{Deserialize, Serialize};
use talka_base::{Encoded, MemberId, NetworkId, NodeId, Signed};

/// "This node is no part of the network any more", signed by a node of the same member, or by the founder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// The network whose ledger this is for.
    pub network: NetworkId,
    /// The node that goes; never the founder, who orders the ledger.
    pub node: NodeId,
    /// The node that signs.
    pub by: NodeId,
}

impl Encoded for Removal {
    const NAME: &'static str = "removal";
    const SIZE_MAX: usize = 128;
}

/// A node that was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedNode {
    /// Whose node it was.
    pub member: MemberId,
    /// The entry that removed it.
    pub height: u64,
}

/// Decides about a removal.
pub(crate) fn judge(book: &Book, removal: &Signed<Removal>) -> Result<Outcome, LedgerError> {
    let by = removal.claimed_value().by;
    let paper = removal.verify_by(&by.0)?;
    check_network(book, "removal", paper.network)?;
    let node = paper.node;
    if let Some(removed) = book.removed.get(&node) {
        return Err(LedgerError::Duplicate { height: removed.height });
    }
    let (signer, owner) = (member_of(book, by)?, member_of(book, node)?);
    if node == book.founder {
        return Err(LedgerError::FounderStays { founder: node });
    }
    if book.witnesses.contains(&node) {
        let expected = "a node that leaves not to be among them: appoint others first";
        return Err(LedgerError::Witnesses { expected });
    }
    if by != book.founder && signer != owner {
        return Err(LedgerError::ForeignNode { node, by });
    }
    Ok(Outcome { postings: Vec::new(), change: Change::Remove { node } })
}

/// The member that is paid for work of `node` on a request held since entry `height`.
pub(crate) fn worker_of(book: &Book, node: NodeId, height: u64) -> Result<MemberId, LedgerError> {
    let removed = book.removed.get(&node).filter(|removed| removed.height > height);
    removed.map_or_else(|| member_of(book, node), |removed| Ok(removed.member))
}
