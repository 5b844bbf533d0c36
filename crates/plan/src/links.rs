//! How far nodes are from each other, in microseconds one way, and how much goes through between them.
//!
//! Both ends of a link measure it; the worse word counts, for both pay for the slower direction. Between
//! nodes that never measured, [`UNKNOWN_LINK_US`] is assumed, and that frames take no time beside. [`Ways`] says how
//! long frames of one size travel.

use std::collections::BTreeMap;
use talka_base::NodeId;

/// One way between two nodes of which nothing is known: half of 50 ms, two homes of one continent.
pub const UNKNOWN_LINK_US: u32 = 25_000;

/// One-way times between pairs of nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links {
    known: BTreeMap<(NodeId, NodeId), u32>,
    /// KiB a second.
    throughputs: BTreeMap<(NodeId, NodeId), u32>,
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
        Self { known: BTreeMap::new(), throughputs: BTreeMap::new(), unknown_us: us }
    }

    /// One end of the link between `a` and `b` says that a frame takes `us` one way.
    pub fn tell(&mut self, a: NodeId, b: NodeId, us: u32) {
        let told = self.known.entry((a.min(b), a.max(b))).or_insert(us);
        *told = us.max(*told);
    }

    /// One end of the link between `a` and `b` says that `kib` KiB a second go through.
    pub fn tell_throughput(&mut self, a: NodeId, b: NodeId, kib: u32) {
        let told = self.throughputs.entry((a.min(b), a.max(b))).or_insert(kib);
        *told = kib.min(*told);
    }

    /// The ways that frames of `bytes` take.
    pub fn carrying(&self, bytes: u32) -> Ways<'_> {
        Ways { links: self, bytes }
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

    /// KiB a second between `a` and `b`, if it was told.
    pub fn throughput_kib(&self, a: NodeId, b: NodeId) -> Option<u32> {
        self.throughputs.get(&(a.min(b), a.max(b))).copied()
    }
}

/// Links, for frames of one size.
#[derive(Debug, Clone, Copy)]
pub struct Ways<'a> {
    links: &'a Links,
    bytes: u32,
}

/// Links for frames so small that they take no time but the way itself.
impl<'a> From<&'a Links> for Ways<'a> {
    fn from(links: &'a Links) -> Self {
        links.carrying(0)
    }
}

impl<'a> Ways<'a> {
    /// What they lead over.
    pub fn links(self) -> &'a Links {
        self.links
    }

    /// From `a` until all of a frame is at `b`, in microseconds; nothing from a node to itself.
    pub fn us(self, a: NodeId, b: NodeId) -> u32 {
        if a == b {
            return 0;
        }
        let kib = self.links.throughput_kib(a, b);
        let sending_us = kib.map_or(0, |kib| self.sending_us(kib));
        self.links.one_way_us(a, b).saturating_add(sending_us)
    }

    /// Whether all pairs are equally far.
    pub fn is_uniform(self) -> bool {
        let is_alike = |us: &u32| *us == self.links.unknown_us;
        (self.bytes == 0 || self.links.throughputs.is_empty())
            && self.links.known.values().all(is_alike)
    }

    /// The pairs that were told of, the lower id first, with [`Self::us`].
    pub(crate) fn known(self) -> impl Iterator<Item = (NodeId, NodeId, u32)> + 'a {
        let far = self.links.known.keys();
        let known = &self.links.known;
        let narrow = self.links.throughputs.keys().filter(|pair| !known.contains_key(pair));
        far.chain(narrow).map(move |&(a, b)| (a, b, self.us(a, b)))
    }

    pub(crate) fn unknown_us(self) -> u32 {
        self.links.unknown_us
    }

    fn sending_us(self, kib: u32) -> u32 {
        let us = u64::from(self.bytes) * 1_000_000 / (u64::from(kib.max(1)) << 10);
        u32::try_from(us).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greater_word_of_both_ends_counts() {
        let node = |n| NodeId([n; 32]);
        let mut links = Links::uniform(9);
        assert!(links.carrying(0).is_uniform());
        links.tell(node(2), node(1), 5);
        links.tell(node(1), node(2), 7);
        links.tell(node(2), node(1), 6);
        assert!(!links.carrying(0).is_uniform());
        let one_way = |a, b| links.one_way_us(node(a), node(b));
        assert_eq!([one_way(1, 2), one_way(2, 1), one_way(1, 3), one_way(2, 2)], [7, 7, 9, 0]);
        assert_eq!(links.measured_us(node(2), node(1)), Some(7));
        assert_eq!(links.measured_us(node(1), node(3)), None);
    }
    #[test]
    fn frames_take_longer_where_less_goes_through() {
        let node = |n| NodeId([n; 32]);
        let mut links = Links::uniform(9);
        links.tell_throughput(node(1), node(2), 2_000);
        links.tell_throughput(node(2), node(1), 1_000);
        assert!(links.carrying(0).is_uniform());
        assert!(!links.carrying(1_024).is_uniform());
        let us = |bytes, a, b| links.carrying(bytes).us(node(a), node(b));
        assert_eq!(
            [us(0, 1, 2), us(1_024, 2, 1), us(1_024, 1, 3), us(1_024, 2, 2)],
            [9, 1_009, 9, 0]
        );
        assert_eq!(links.carrying(1_024).known().collect::<Vec<_>>(), [(node(1), node(2), 1_009)]);
        links.tell_throughput(node(1), node(3), 0);
        assert_eq!(links.carrying(u32::MAX).us(node(1), node(3)), u32::MAX);
    }
}
