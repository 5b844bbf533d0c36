//! What somebody invited may ask before joining: what the network has and does, to reckon from it what joining
//! would come to.
//!
//! The question carries the invitation, which it does not use up. The answer is what members tell each other
//! every second, without where they are.

use super::{Control, Grade, Heartbeat, REASON_BYTES_MAX, WireError, at_most};
use serde::{Deserialize, Serialize};
use talka_base::{Encoded as _, ModelId, ModelShape, NetworkId, NodeId};
use talka_ledger::Policy;

/// Models of one answer at most: as many as one node may offer.
pub const MODELS_MAX: usize = super::OFFERS_MAX;

/// Nodes of one answer at most.
const NODES_MAX: usize = super::PEERS_MAX;

/// What nodes say of themselves may take so many bytes of an answer.
///
/// 300 to 500 bytes are usual, so this holds all that a network may have; and it leaves as much for the rest.
pub const NODES_BYTES_MAX: usize = Control::SIZE_MAX / 2;

/// The question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutlookRequest {
    /// The network of the invitation.
    pub network: NetworkId,
    /// The invitation's secret.
    pub secret: [u8; 32],
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outlook {
    /// What work is paid.
    pub policy: Policy,
    /// The models that the asked node has.
    pub models: Vec<ModelOutlook>,
    /// What live nodes say of themselves, the asked one first.
    pub nodes: Vec<(NodeId, Heartbeat)>,
    /// Live nodes for which there was no room.
    pub nodes_left_out: u32,
}

/// What a model is, as far as placing it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelOutlook {
    /// Its digest.
    pub id: ModelId,
    /// What the asked node calls it.
    pub name: String,
    /// Its dimensions.
    pub shape: ModelShape,
    /// All weights as the asked node would hold them, in bytes.
    pub bytes: u64,
    /// How it would hold them.
    pub grade: Grade,
}

impl Outlook {
    /// An answer with as many of `models` and `nodes` as fit.
    pub fn new(
        policy: Policy,
        mut models: Vec<ModelOutlook>,
        nodes: Vec<(NodeId, Heartbeat)>,
    ) -> Self {
        models.truncate(MODELS_MAX);
        let (live, mut bytes) = (nodes.len(), 0);
        let fits = |(_, heartbeat): &(NodeId, Heartbeat)| {
            bytes += size_of::<NodeId>() + Control::Heartbeat(heartbeat.clone()).to_bytes().len();
            bytes <= NODES_BYTES_MAX
        };
        let nodes: Vec<_> = nodes.into_iter().take(NODES_MAX).take_while(fits).collect();
        let nodes_left_out = u32::try_from(live - nodes.len()).unwrap_or(u32::MAX);
        Self { policy, models, nodes, nodes_left_out }
    }

    pub(super) fn check(&self) -> Result<(), WireError> {
        at_most("models", self.models.len(), MODELS_MAX)?;
        at_most("nodes", self.nodes.len(), NODES_MAX)?;
        for model in &self.models {
            at_most("bytes of name", model.name.len(), REASON_BYTES_MAX)?;
            model.shape.validate()?;
        }
        self.nodes.iter().try_for_each(|(_, heartbeat)| heartbeat.check())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::forecast::tests::shape;

    fn model(layers: u32) -> ModelOutlook {
        let shape = ModelShape { layers, ..shape() };
        let (id, name) = (ModelId([7; 32]), "m".into());
        ModelOutlook { id, name, shape, bytes: 1 << 20, grade: Grade::Stored }
    }

    fn node(n: u32) -> (NodeId, Heartbeat) {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_le_bytes());
        let round_trips_us = vec![(NodeId([9; 32]), 50_000); super::super::ROUND_TRIPS_MAX];
        let heartbeat = Heartbeat {
            name: format!("n{n}"),
            at: talka_base::Tick(0),
            memory_bytes: 1 << 34,
            addresses: vec![],
            ledger_height: 5,
            load: 0,
            is_busy: false,
            asked: vec![],
            throughputs_kib: round_trips_us.clone(),
            round_trips_us,
            machine: super::super::Machine::default(),
            closed: None,
            offers: vec![],
            peers: vec![],
        };
        (NodeId(id), heartbeat)
    }

    #[test]
    fn an_answer_fits_one_message_however_large_the_network_is() {
        let outlook =
            |nodes| Outlook::new(Policy::default(), vec![model(6)], (0..nodes).map(node).collect());
        assert_eq!(outlook(3).nodes_left_out, 0);
        let large = outlook(3_000);
        assert_eq!(large.nodes_left_out as usize, 3_000 - large.nodes.len());
        let bytes = Control::Outlook(Box::new(large.clone())).to_bytes();
        assert_eq!(Control::from_bytes(&bytes), Ok(Control::Outlook(Box::new(large))));
    }

    #[test]
    fn a_shape_that_no_model_has_is_the_senders_fault() {
        let outlook = Outlook::new(Policy::default(), vec![model(0)], vec![node(1)]);
        let bytes = Control::Outlook(Box::new(outlook)).to_bytes();
        let error = Control::from_bytes(&bytes).expect_err("no layers");
        assert!(error.to_string().contains("layers 0"), "{error}");
    }
}
