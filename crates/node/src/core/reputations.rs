//! What this node thinks of others from the parts that they had in its own answers.
//!
//! Kept in bounded memory, as long as this process runs. Decides nothing: it is for people, and for whoever chooses among
//! nodes of equal speed one day. What the network agrees on is in the ledger.

use std::collections::BTreeMap;
use talka_base::NodeId;
use talka_plan::reputation::{Reputation, Seen};

/// Nodes that are thought of. Only those that computed for this node are, so no stranger takes a place.
const NODES_MAX: usize = 1_024;

/// Everybody's reputation here.
#[derive(Debug, Default)]
pub struct Reputations(BTreeMap<NodeId, Reputation>);

impl Reputations {
    /// `node` did that. Where there is no more room, new nodes go unnoticed.
    pub fn saw(&mut self, node: NodeId, seen: Seen) {
        if self.0.len() < NODES_MAX || self.0.contains_key(&node) {
            self.0.entry(node).or_default().take(seen);
        }
    }

    /// Thousandths of a point.
    pub fn of(&self, node: &NodeId) -> i64 {
        self.0.get(node).map_or(0, Reputation::thousandths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_thought_of_one_by_one_and_room_is_bounded() {
        let mut reputations = Reputations::default();
        let task = |completed| Seen::Task { completed, in_time: completed };
        let node = |number: u16| {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&number.to_le_bytes());
            NodeId(id)
        };
        (0..2_000).for_each(|number| reputations.saw(node(number), task(true)));
        reputations.saw(node(7), task(true));
        reputations.saw(node(8), task(false));
        let found = [7, 8, 9, 1_999].map(|number| reputations.of(&node(number)));
        assert_eq!(found, [400, 200, 200, 0]);
    }
}
