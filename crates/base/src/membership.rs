//! The paper that makes a node part of a network.

use crate::{
    codec::Encoded,
    id::{MemberId, NetworkId, NodeId},
    units::Tick,
};
use serde::{Deserialize, Serialize};

/// The longest name a node may carry, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// "This node belongs to this member of this network", signed by the node that invited it.
///
/// Worth something only when `invited_by` is the signer and itself a node of the network: the
/// chain ends at the founder, whose own membership is the founding entry of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The network joined.
    pub network: NetworkId,
    /// The node that joined.
    pub node: NodeId,
    /// Whose account pays and earns for the node.
    pub member: MemberId,
    /// What people call the node; at most [`NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// The node that signs this.
    pub invited_by: NodeId,
    /// When it was signed, by the inviter's clock.
    pub issued_at: Tick,
}

impl Encoded for Membership {
    const NAME: &'static str = "membership";
    const SIZE_MAX: usize = 512;
}
