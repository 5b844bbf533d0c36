//! What other nodes did that no sound node does, counted by node and kind.
//!
//! Decides nothing: a count is for people, and for whoever places layers. It is kept in bounded memory, and
//! only as long as this process runs: a node that was mended starts anew when its neighbours do. A few late
//! answers are the mark of a bad link, hundreds of broken frames that of a broken or hostile program.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use talka_base::NodeId;

/// Nodes counted one by one. Strangers beyond are counted together: keys cost nothing to make.
const NODES_MAX: usize = 1_024;

/// What a node did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// It broke the framing: another version, a frame beyond every limit, a lane that ends in a frame.
    Frame,
    /// It sent a frame whose content is no message.
    Message,
    /// Rows or logits of another number or width than was agreed.
    Shape,
    /// A step at a position where the session does not stand.
    Position,
    /// Values that are no numbers.
    NotANumber,
    /// A message for a session in which it has no part.
    Session,
    /// An answer after another stage had taken its place.
    Late,
    /// An answer that it had given already.
    Twice,
    /// It says that it serves layers which the model lacks.
    Layers,
    /// It sent a wrong piece of a model, or said what a model is and could not show it.
    Piece,
    /// It fell silent, or its link broke without a word.
    Silence,
    /// Two processes show its key.
    Key,
    /// A voucher that is for another session, breaks with the one before, or is not signed.
    Voucher,
    /// A block that the founder did not sign, or does not follow, or evidence that proves nothing.
    Order,
    /// An update of a training job that is none, claims of work that cannot be, or a decision that does not follow.
    Training,
}

impl Fault {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Frame => "frame",
            Self::Message => "message",
            Self::Shape => "shape",
            Self::Position => "position",
            Self::NotANumber => "not a number",
            Self::Session => "session",
            Self::Late => "late",
            Self::Twice => "twice",
            Self::Layers => "layers",
            Self::Piece => "piece",
            Self::Silence => "silence",
            Self::Key => "key",
            Self::Voucher => "voucher",
            Self::Order => "order",
            Self::Training => "training",
        }
    }
}

/// How often which fault was seen.
pub type Counts = BTreeMap<Fault, u64>;

/// Everybody's faults.
#[derive(Debug, Default)]
pub struct Faults {
    nodes: BTreeMap<NodeId, Counts>,
    others: Counts,
}

impl Faults {
    /// Counts a fault of `node`, and says how often it was seen now.
    pub fn blame(&mut self, node: NodeId, fault: Fault) -> u64 {
        let has_room = self.nodes.len() < NODES_MAX || self.nodes.contains_key(&node);
        let counts = if has_room { self.nodes.entry(node).or_default() } else { &mut self.others };
        let count = counts.entry(fault).or_default();
        *count = count.saturating_add(1);
        *count
    }

    /// The faults of `node`.
    pub fn of(&self, node: &NodeId) -> Counts {
        self.nodes.get(node).cloned().unwrap_or_default()
    }

    /// The faults of all nodes that `is_meant` does not name, together.
    pub fn of_all_but(&self, is_meant: impl Fn(&NodeId) -> bool) -> Counts {
        let mut sums = self.others.clone();
        let left = self.nodes.iter().filter(|(node, _)| !is_meant(node));
        for (fault, count) in left.flat_map(|(_, counts)| counts) {
            let sum = sums.entry(*fault).or_default();
            *sum = sum.saturating_add(*count);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: usize) -> NodeId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_le_bytes());
        NodeId(id)
    }

    #[test]
    fn faults_are_counted_by_node_and_kind() {
        let mut faults = Faults::default();
        for fault in [Fault::Late, Fault::Shape, Fault::Late] {
            faults.blame(node(1), fault);
        }
        assert_eq!(faults.of(&node(1)), Counts::from([(Fault::Shape, 1), (Fault::Late, 2)]));
        assert_eq!(faults.of(&node(2)), Counts::new());
        assert_eq!(faults.of_all_but(|id| *id == node(1)), Counts::new());
        assert_eq!(faults.of_all_but(|_| false)[&Fault::Late], 2);
    }

    #[test]
    fn strangers_without_end_take_no_memory() {
        let mut faults = Faults::default();
        for number in 0..3 * NODES_MAX {
            faults.blame(node(number), Fault::Frame);
        }
        assert_eq!(faults.nodes.len(), NODES_MAX);
        assert_eq!(faults.of_all_but(|_| false)[&Fault::Frame], 3 * NODES_MAX as u64);
        // Those who are known are still counted.
        faults.blame(node(0), Fault::Frame);
        assert_eq!(faults.of(&node(0))[&Fault::Frame], 2);
    }
}
