//! Where a node that is left over helps most: a copy of the stage that has the fewest.

use std::cmp::Reverse;
use talka_base::{LayerSpan, NodeId};

/// How many nodes are to serve each layer, and where stages begin and end.
#[derive(Debug)]
pub(super) struct Copies {
    counts: Vec<u32>,
    cuts: Vec<u32>,
}

impl Copies {
    /// Of `spans`, over `layers` layers.
    pub(super) fn of(layers: u32, spans: &[(NodeId, LayerSpan)]) -> Self {
        let mut cuts: Vec<_> = spans.iter().flat_map(|(_, s)| [s.start(), s.end()]).collect();
        cuts.extend([0, layers]);
        cuts.retain(|cut| *cut <= layers);
        cuts.sort_unstable();
        cuts.dedup();
        let mut copies = Self { counts: vec![0; layers as usize], cuts };
        spans.iter().for_each(|(_, span)| copies.count(*span));
        copies
    }

    fn count(&mut self, span: LayerSpan) {
        let end = span.layers().end.min(self.counts.len() as u32);
        self.counts[span.start().min(end) as usize..end as usize].iter_mut().for_each(|n| *n += 1);
    }

    fn fewest(&self, span: LayerSpan) -> u32 {
        let counts = &self.counts[span.start() as usize..span.end() as usize];
        counts.iter().copied().min().unwrap_or(0)
    }

    /// One more copy, of at most `room` layers, for a node that serves `served`. Among equals it keeps what it has.
    pub(super) fn add(&mut self, room: u32, served: &[LayerSpan]) -> Option<LayerSpan> {
        let changes = self.counts.windows(2).enumerate().filter(|(_, pair)| pair[0] != pair[1]);
        let mut starts: Vec<u32> = changes.map(|(at, _)| at as u32 + 1).collect();
        starts.extend(&self.cuts);
        let piece = |start: &u32| {
            let end = *self.cuts.iter().find(|cut| *cut > start)?;
            LayerSpan::new(*start, end.min(start.saturating_add(room))).ok()
        };
        let key = |span: &LayerSpan| {
            (self.fewest(*span), !served.contains(span), Reverse(span.len()), span.start())
        };
        let layers = self.counts.len() as u32;
        let fits = |span: &LayerSpan| span.len() <= room && span.end() <= layers;
        let held = served.iter().copied().filter(fits);
        let chosen = starts.iter().filter_map(piece).chain(held).min_by_key(key)?;
        self.count(chosen);
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stage_with_the_fewest_copies_is_next() {
        let span = |a, b| LayerSpan::new(a, b).expect("test span");
        let node = NodeId([1; 32]);
        let mut copies =
            Copies::of(8, &[(node, span(0, 3)), (node, span(3, 8)), (node, span(0, 3))]);
        assert_eq!(copies.add(9, &[]), Some(span(3, 8)));
        assert_eq!(copies.add(4, &[span(3, 7)]), Some(span(3, 7)));
        assert_eq!(copies.add(4, &[span(3, 7)]), Some(span(0, 3)), "3..7 has three");
        assert_eq!(copies.add(4, &[]), Some(span(7, 8)), "the last layer has two");
        assert_eq!(copies.add(4, &[span(0, 3)]), Some(span(0, 3)), "it stays among equals");
        assert_eq!(copies.add(0, &[]), None);
    }
}
