//! What joining a network would come to.

use super::StageReport;
use serde::{Deserialize, Serialize};
use talka_base::{Credits, LayerSpan, NetworkId, NodeId};

/// What a node would find and bring. Times and sizes of this node and of the way to the inviter are measured; what
/// other nodes are like is their own word; the rest follows from that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForecastReport {
    /// The network of the invitation.
    pub network: NetworkId,
    /// What the invitation calls it.
    pub network_name: String,
    /// The node that gave the invitation and answered.
    pub inviter: NodeId,
    /// What people call it.
    pub inviter_name: String,
    /// Measured microseconds to it and back.
    pub round_trip_us: u32,
    /// Nodes of the network that answer now, the inviter included.
    pub nodes: usize,
    /// Live nodes that the inviter left out of its answer: more than fit.
    pub nodes_left_out: u32,
    /// Memory that this node would offer for weights, in bytes.
    pub memory_bytes: u64,
    /// Measured bytes of memory that all its threads together read in a second.
    pub read_bytes_per_s: u64,
    /// What it would do for each of its models.
    pub models: Vec<ModelForecastReport>,
}

/// One model. All speeds are for one answer at a time on nodes that do nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelForecastReport {
    /// What requests would call it here.
    pub model: String,
    /// Its number of layers.
    pub layers: u32,
    /// Microseconds for one token through one layer on this node.
    pub layer_us: u32,
    /// Whether a layer was run to know that; else it is the time that reading its bytes takes.
    pub layer_measured: bool,
    /// What this node would hold.
    pub serves: Vec<LayerSpan>,
    /// Weights of that, in bytes.
    pub bytes: u64,
    /// Layers that nobody could hold.
    pub missing: Vec<LayerSpan>,
    /// An answer on this node alone, if all layers fit.
    pub alone: Option<WayReport>,
    /// An answer for callers of this node, over the network with it; absent without a route.
    pub together: Option<WayReport>,
    /// An answer for callers of the inviter without this node; absent without a route.
    pub before: Option<WayReport>,
    /// The same with this node.
    pub after: Option<WayReport>,
    /// What this node would earn in an hour of answers for callers of the inviter, one after the other.
    pub credits_per_hour: Credits,
}

/// How an answer would go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WayReport {
    /// The stages, in order.
    pub hops: Vec<StageReport>,
    /// Estimated microseconds for one token.
    pub token_us: u64,
    /// The same as tokens per second.
    pub tokens_per_s: f64,
    /// Bytes over this node's links for one token at temperature 0, both directions.
    pub link_bytes: u64,
}
