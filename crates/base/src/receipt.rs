//! What a stage signs when a session closes.

use crate::{
    codec::Encoded,
    id::{ModelId, NetworkId, NodeId, RequestId},
    model::ModelShape,
    span::LayerSpan,
    units::Flops,
};
use serde::{Deserialize, Serialize};

/// "For this request I ran these layers over these positions", signed by the stage's node.
///
/// Whoever signs it asks for no more than its part of the settlement: vouchers for the same lane are void.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Where the work was done, so that it cannot be cashed elsewhere.
    pub network: NetworkId,
    /// The request worked for.
    pub request: RequestId,
    /// Which stage of the session it was: each that is opened anew has another number.
    pub lane: u16,
    /// The node that worked.
    pub node: NodeId,
    /// The model.
    pub model: ModelId,
    /// The layers run.
    pub span: LayerSpan,
    /// Positions `from..positions` were computed, and are to be paid. Those before were computed by a stage that
    /// is lost, and again by this one for nothing.
    pub from: u32,
    /// Where they end.
    pub positions: u32,
    /// For how many of them logits were computed (zero unless the span ends the model).
    pub logits: u32,
}

impl Receipt {
    /// The work that this receipt claims, by the model's shape.
    pub fn flops(&self, shape: &ModelShape) -> Flops {
        shape.flops(self.span, self.from..self.positions, self.logits)
    }
}

impl Encoded for Receipt {
    const NAME: &'static str = "receipt";
    const VERSION: u8 = 2;
    const SIZE_MAX: usize = 256;
}
