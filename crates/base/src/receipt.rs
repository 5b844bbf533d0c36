//! What a stage signs when a session closes.

use crate::{
    codec::Encoded,
    id::{ModelId, NetworkId, NodeId, RequestId},
    model::ModelShape,
    span::LayerSpan,
    units::Flops,
};
use serde::{Deserialize, Serialize};

/// "For this request I ran these layers over this many positions", signed by the stage's node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Where the work was done, so that it cannot be cashed elsewhere.
    pub network: NetworkId,
    /// The request worked for.
    pub request: RequestId,
    /// The node that worked.
    pub node: NodeId,
    /// The model.
    pub model: ModelId,
    /// The layers run.
    pub span: LayerSpan,
    /// Positions `0..positions` were computed.
    pub positions: u32,
    /// For how many of them logits were computed (zero unless the span ends the model).
    pub logits: u32,
}

impl Receipt {
    /// The work that this receipt claims, by the model's shape.
    pub fn flops(&self, shape: &ModelShape) -> Flops {
        shape.flops(self.span, 0..self.positions, self.logits)
    }
}

impl Encoded for Receipt {
    const NAME: &'static str = "receipt";
    const SIZE_MAX: usize = 256;
}
