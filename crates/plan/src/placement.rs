//! Chooses which node runs which layers of one model.
//!
//! In: the nodes that have the model's weights, what memory each offers, which spans are pinned by
//! their owners. Out: spans in proportion to memory, contiguous, so that the network as a whole
//! covers what the pinned spans lack. Every node computes this for itself from what it last heard;
//! equal knowledge gives equal placements, and nodes that disagree for a moment converge with it.

use crate::uncovered;
use talka_base::{LayerSpan, NodeId};

/// A node that could run layers of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: NodeId,
    /// Bytes it offers for weights.
    pub memory_bytes: u64,
    /// The span its owner insists on, if any: it runs that and nothing else.
    pub pinned: Option<LayerSpan>,
}

/// Who should run what, and what nobody can.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// Spans by node; a node may appear more than once, or not at all.
    pub spans: Vec<(NodeId, LayerSpan)>,
    /// Layers for which memory is lacking.
    pub missing: Vec<LayerSpan>,
}

impl Placement {
    /// What `node` should run.
    pub fn of(&self, node: NodeId) -> impl Iterator<Item = LayerSpan> + '_ {
        self.spans.iter().filter(move |(n, _)| *n == node).map(|(_, span)| *span)
    }
}

/// Places a model of `layers` layers of `layer_bytes` each.
///
/// Free nodes share what the pinned ones leave open, in order of id, each in proportion to its
/// memory and never beyond it. Where the pinned ones leave nothing open, the free nodes form a
/// second chain over the whole model, so that either may fail.
pub fn place(layers: u32, layer_bytes: u64, candidates: &[Candidate]) -> Placement {
    let mut spans: Vec<_> =
        candidates.iter().filter_map(|c| c.pinned.map(|span| (c.node, span))).collect();
    let mut free: Vec<_> = candidates.iter().filter(|c| c.pinned.is_none()).collect();
    free.sort_by_key(|c| c.node);

    let gaps = uncovered(layers, spans.iter().map(|(_, span)| *span));
    let is_replica = gaps.is_empty();
    let open = if is_replica { uncovered(layers, []) } else { gaps };

    let wanted = open.iter().map(|gap| gap.len()).sum();
    let mut shares = share(wanted, layer_bytes, &free).into_iter();
    let mut missing = Vec::new();
    let mut current = shares.next();
    for gap in open {
        let mut start = gap.start();
        while start < gap.end() {
            let Some((node, left)) = &mut current else {
                missing.extend(LayerSpan::new(start, gap.end()));
                break;
            };
            let end = gap.end().min(start + *left);
            if let Ok(span) = LayerSpan::new(start, end) {
                spans.push((*node, span));
                *left -= span.len();
                start = end;
            }
            if *left == 0 {
                current = shares.next();
            }
        }
    }
    if is_replica {
        missing.clear();
    }
    Placement { spans, missing }
}

/// How many of `wanted` layers each node takes: in proportion to memory, at most what fits.
fn share(wanted: u32, layer_bytes: u64, free: &[&Candidate]) -> Vec<(NodeId, u32)> {
    let fits =
        |c: &Candidate| u32::try_from(c.memory_bytes / layer_bytes.max(1)).unwrap_or(u32::MAX);
    let mut shares = Vec::with_capacity(free.len());
    let mut left = wanted;
    let mut memory_left: u128 = free.iter().map(|c| u128::from(c.memory_bytes)).sum();
    let mut room_after: u64 = free.iter().map(|c| u64::from(fits(c))).sum();
    for candidate in free {
        room_after -= u64::from(fits(candidate));
        // Rounded to the nearest; the last node takes what is left.
        let memory = u128::from(candidate.memory_bytes);
        let ideal = (u128::from(left) * memory * 2 + memory_left).checked_div(2 * memory_left);
        // Nodes after this one may be too small for the rest: then this one takes more.
        let least = u64::from(left).saturating_sub(room_after).try_into().unwrap_or(u32::MAX);
        let ideal = u32::try_from(ideal.unwrap_or(0)).unwrap_or(u32::MAX);
        let taken = ideal.max(least).min(fits(candidate)).min(left);
        shares.push((candidate.node, taken));
        left -= taken;
        memory_left -= memory;
    }
    shares.retain(|(_, taken)| *taken > 0);
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate(id: u8, memory_bytes: u64, pinned: Option<(u32, u32)>) -> Candidate {
        let pinned = pinned.map(|(a, b)| LayerSpan::new(a, b).expect("test span"));
        Candidate { node: NodeId([id; 32]), memory_bytes, pinned }
    }

    fn check(layers: u32, candidates: &[Candidate], expected: &[(u8, &str)], missing: &[&str]) {
        let placement = place(layers, 10, candidates);
        let spans: Vec<_> =
            placement.spans.iter().map(|(node, span)| (node.0[0], span.to_string())).collect();
        let expected: Vec<_> = expected.iter().map(|(id, span)| (*id, (*span).into())).collect();
        assert_eq!(spans, expected);
        let found: Vec<_> = placement.missing.iter().map(ToString::to_string).collect();
        assert_eq!(found, missing);
    }

    #[test]
    fn equal_nodes_share_equally_in_order_of_id() {
        let nodes = [3, 1, 2].map(|id| candidate(id, 1000, None));
        check(6, &nodes, &[(1, "0..2"), (2, "2..4"), (3, "4..6")], &[]);
        check(5, &nodes, &[(1, "0..2"), (2, "2..4"), (3, "4..5")], &[]);
        check(2, &nodes, &[(1, "0..1"), (2, "1..2")], &[]);
    }

    #[test]
    fn shares_follow_memory_and_never_exceed_it() {
        check(
            8,
            &[candidate(1, 30, None), candidate(2, 90, None)],
            &[(1, "0..2"), (2, "2..8")],
            &[],
        );
        check(
            8,
            &[candidate(1, 30, None), candidate(2, 40, None)],
            &[(1, "0..3"), (2, "3..7")],
            &["7..8"],
        );
        check(8, &[], &[], &["0..8"]);
    }

    #[test]
    fn pinned_spans_stay_and_the_rest_fills_the_gaps() {
        let nodes =
            [candidate(1, 1000, None), candidate(2, 1000, Some((2, 4))), candidate(3, 1000, None)];
        check(6, &nodes, &[(2, "2..4"), (1, "0..2"), (3, "4..6")], &[]);
        let one = [candidate(1, 1000, None), candidate(2, 1000, Some((2, 4)))];
        check(6, &one, &[(2, "2..4"), (1, "0..2"), (1, "4..6")], &[]);
    }

    #[test]
    fn where_nothing_is_open_the_free_nodes_form_a_second_chain() {
        let nodes =
            [candidate(1, 1000, Some((0, 4))), candidate(2, 1000, None), candidate(3, 10, None)];
        check(4, &nodes, &[(1, "0..4"), (2, "0..4")], &[]);
    }

    proptest! {
        #[test]
        fn everything_is_covered_or_named_missing_and_nobody_is_overloaded(
            layers in 1_u32..40,
            nodes in proptest::collection::vec((0_u64..400, any::<Option<(u8, u8)>>()), 0..8),
        ) {
            let candidates: Vec<_> = nodes.iter().enumerate().map(|(i, (memory, pin))| {
                let pinned = pin.and_then(|(a, b)| {
                    LayerSpan::new(u32::from(a) % layers, (u32::from(b) % layers) + 1).ok()
                });
                Candidate { node: NodeId([i as u8; 32]), memory_bytes: *memory, pinned }
            }).collect();
            let placement = place(layers, 10, &candidates);
            let covered = placement.spans.iter().map(|(_, span)| *span);
            prop_assert_eq!(uncovered(layers, covered.chain(placement.missing.clone())), vec![]);
            let room: u64 = candidates.iter().filter(|c| c.pinned.is_none()).map(|c| c.memory_bytes / 10).sum();
            let pinned = candidates.iter().filter_map(|c| c.pinned);
            let open: u64 = uncovered(layers, pinned).iter().map(|gap| u64::from(gap.len())).sum();
            let missing: u64 = placement.missing.iter().map(|gap| u64::from(gap.len())).sum();
            prop_assert_eq!(missing, open.saturating_sub(room));
            for c in candidates.iter().filter(|c| c.pinned.is_none()) {
                let taken: u64 = placement.of(c.node).map(|span| u64::from(span.len())).sum();
                prop_assert!(taken * 10 <= c.memory_bytes);
            }
        }
    }
}
