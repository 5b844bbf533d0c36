//! Picks a chain of stages for one request: the one that a token should be through in the least time.
//!
//! The time is estimated: for each stage what its layers take, times one more than the sessions that it has
//! already, and [`STAGE_US`] for handling a frame; for each hop the way there and the time that sending a frame
//! takes; and the way from the head to the first stage and from the last one back, where frames are small. Found
//! by dynamic programming over (layer, stage): every step goes strictly forward, so loops and dead ends cannot
//! occur. Spans that overlap are cut to fit. Among equals the route with fewer stages elsewhere wins, then the one
//! that is cut later, then the lower id.
//!
//! Unlike the placement, a route is one node's own affair: two heads may well choose differently.

mod explain;
mod least;

pub use explain::{Considered, Why};

use crate::{Ways, placement::STAGE_US};
use least::Table;
use talka_base::{LayerSpan, NodeId};

/// One stage of a route: the node, and which of its layers this route uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// The node.
    pub node: NodeId,
    /// Layers to run there.
    pub span: LayerSpan,
}

/// A stage that a route may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Served {
    /// The node.
    pub node: NodeId,
    /// Layers that are ready there.
    pub span: LayerSpan,
    /// Microseconds for one token through one layer, if there is nothing else to do.
    pub layer_us: u32,
    /// Sessions that the node has already.
    pub load: u32,
}

impl Served {
    /// Microseconds for one token through `layers` layers.
    pub fn us(&self, layers: u32) -> u64 {
        let alone = u64::from(layers) * u64::from(self.layer_us);
        alone.saturating_mul(1 + u64::from(self.load))
    }
}

/// A chain of stages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// In order; together they cover the model.
    pub hops: Vec<Hop>,
    /// Estimated microseconds for one token, there and back.
    pub us: u64,
}

/// Everything that a route of one model may be made of.
#[derive(Debug, Clone)]
pub struct Choices<'a> {
    served: Vec<Served>,
    ways: Ways<'a>,
    head: NodeId,
}

impl<'a> Choices<'a> {
    /// `served` by live nodes, for requests of `head`. Frames between stages take the `ways`.
    pub fn new(mut served: Vec<Served>, ways: impl Into<Ways<'a>>, head: NodeId) -> Self {
        served.sort_unstable();
        Self { served, ways: ways.into(), head }
    }

    /// A route over `0..layers`.
    ///
    /// # Errors
    /// The first gap.
    pub fn route(&self, layers: u32) -> Result<Route, LayerSpan> {
        let wanted = LayerSpan::new(0, layers).expect("a model has layers");
        self.cover(wanted, self.head, self.head)
    }

    /// `route` with each run of hops that are not served any more covered by others. Hops that are stay as they
    /// are: their stages know the session.
    ///
    /// # Errors
    /// The first gap.
    pub fn mend(&self, route: &[Hop]) -> Result<Vec<Hop>, LayerSpan> {
        let stands = |hop: &&Hop| {
            self.served.iter().any(|s| s.node == hop.node && s.span.contains(hop.span))
        };
        let mut hops: Vec<Hop> = Vec::with_capacity(route.len());
        let mut at = 0;
        while let Some(hop) = route.get(at) {
            if stands(&hop) {
                hops.push(*hop);
                at += 1;
                continue;
            }
            let kept = route[at..].iter().position(|hop| stands(&hop));
            let next = kept.map_or(route.len(), |kept| at + kept);
            let lost = LayerSpan::new(hop.span.start(), route[next - 1].span.end());
            let from = hops.last().map_or(self.head, |hop| hop.node);
            let to = route.get(next).map_or(self.head, |hop| hop.node);
            hops.extend(self.cover(lost.expect("hops are in order"), from, to)?.hops);
            at = next;
        }
        Ok(hops)
    }

    /// Estimated microseconds for one token along `hops`, as far as their stages are known.
    pub fn price_us(&self, hops: &[Hop]) -> u64 {
        let mut at = self.head;
        let mut us = 0_u64;
        for (number, hop) in hops.iter().enumerate() {
            let serves = |s: &&Served| s.node == hop.node && s.span.contains(hop.span);
            let stages = self.served.iter().filter(serves);
            let stage_us = stages.map(|s| s.us(hop.span.len())).min().unwrap_or(0);
            us =
                us.saturating_add(self.come_us(at, hop.node, number == 0)).saturating_add(stage_us);
            at = hop.node;
        }
        us.saturating_add(self.back_us(at, self.head))
    }

    /// Why each stage has a part in the route over `0..layers` or has none: the best first.
    pub fn explain(&self, layers: u32) -> Vec<Considered> {
        explain::explain(self, layers)
    }

    /// The least time over `wanted`, coming from `from` and going on to `to`.
    fn cover(&self, wanted: LayerSpan, from: NodeId, to: NodeId) -> Result<Route, LayerSpan> {
        let gaps = crate::uncovered(wanted.end(), self.served.iter().map(|stage| stage.span));
        if let Some(gap) = gaps.into_iter().find_map(|gap| gap.intersection(wanted)) {
            return Err(gap);
        }
        Ok(Table::fill(self, wanted, from, least::BEAM).trace(to))
    }

    /// One way of a frame to a stage, and handling it there. What the head sends to the `first` stage is tokens,
    /// which take no time beside the way.
    fn come_us(&self, from: NodeId, to: NodeId, first: bool) -> u64 {
        let way = if first && from == self.head {
            self.ways.links().one_way_us(from, to)
        } else {
            self.ways.us(from, to)
        };
        STAGE_US + u64::from(way)
    }

    /// The way from the last of some stages on: to the head, which gets few logits, or to a stage that stays.
    fn back_us(&self, from: NodeId, to: NodeId) -> u64 {
        let is_head = to == self.head;
        let way =
            if is_head { self.ways.links().one_way_us(from, to) } else { self.ways.us(from, to) };
        way.into()
    }
}

#[cfg(test)]
mod tests;
