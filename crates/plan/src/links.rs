//! How far nodes are from each other, in microseconds one way.
//!
//! Both ends of a link measure it; the greater word counts, for both pay for the slower direction. Between
//! nodes that never measured, [`UNKNOWN_LINK_US`] is assumed.

use std::collections::BTreeMap;
use talka_base::NodeId;

/// One way between two nodes of which nothing is known: half of 50 ms, two homes of one continent.
pub const UNKNOWN_LINK_US: u32 = 25_000;

/// One-way times between pairs of nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links {
    known: BTreeMap<(NodeId, NodeId), u32>,
    unknown_us: u32,
}

impl Default for Links {
    fn default() -> Self {
        Self::uniform(UNKNOWN_LINK_US)
    }
}

impl Links {
    /// Every pair is `us` apart until it is [told](Self::tell) otherwise.
    pub fn uniform(us: u32) -> Self {
        Self { known: BTreeMap::new(), unknown_us: us }
    }

    /// One end of the link between `a` and `b` says that a frame takes `us` one way.
    pub fn tell(&mut self, a: NodeId, b: NodeId, us: u32) {
        let told = self.known.entry((a.min(b), a.max(b))).or_insert(us);
        *told = us.max(*told);
    }

    /// One way between `a` and `b`, in microseconds; nothing from a node to itself.
    pub fn one_way_us(&self, a: NodeId, b: NodeId) -> u32 {
        if a == b {
            return 0;
        }
        self.known.get(&(a.min(b), a.max(b))).copied().unwrap_or(self.unknown_us)
    }

    /// As [`Self::one_way_us`], if it was told.
    pub fn measured_us(&self, a: NodeId, b: NodeId) -> Option<u32> {
        self.known.get(&(a.min(b), a.max(b))).copied()
    }

    /// Whether all pairs are equally far.
    pub fn is_uniform(&self) -> bool {
        self.known.values().all(|us| *us == self.unknown_us)
    }

    /// The pairs that were told of, the lower id first.
    pub(crate) fn known(&self) -> impl Iterator<Item = (NodeId, NodeId, u32)> + '_ {
        self.known.iter().map(|((a, b), us)| (*a, *b, *us))
    }

    pub(crate) fn unknown_us(&self) -> u32 {
        self.unknown_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greater_word_of_both_ends_counts() {
        let node = |n| NodeId([n; 32]);
        let mut links = Links::uniform(9);
        assert!(links.is_uniform());
        links.tell(node(2), node(1), 5);
        links.tell(node(1), node(2), 7);
        links.tell(node(2), node(1), 6);
        assert!(!links.is_uniform());
        let one_way = |a, b| links.one_way_us(node(a), node(b));
        assert_eq!([one_way(1, 2), one_way(2, 1), one_way(1, 3), one_way(2, 2)], [7, 7, 9, 0]);
        assert_eq!(links.measured_us(node(2), node(1)), Some(7));
        assert_eq!(links.measured_us(node(1), node(3)), None);
    }
}
