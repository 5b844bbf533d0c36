//! Picks a chain of stages for one request.
//!
//! The chain with the fewest hops: from each layer reached, the span that reaches furthest. Every
//! hop moves strictly forward, so loops and dead ends cannot occur. Unlike the
//! greedy cover of imece, overlapping spans are cut to fit instead of being judged incomplete.

use talka_base::{LayerSpan, NodeId};

/// One stage of a route: the node, and which of its layers this route uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// The node.
    pub node: NodeId,
    /// Layers to run there.
    pub span: LayerSpan,
}

/// A route over `0..layers`: from each layer reached, the span that reaches furthest.
///
/// # Errors
/// The first gap.
pub fn find_route(
    layers: u32,
    served: &[(NodeId, LayerSpan)],
    local: NodeId,
) -> Result<Vec<Hop>, LayerSpan> {
    cover(LayerSpan::new(0, layers).expect("a model has layers"), served, local)
}

/// `route` with each hop that is not served any more covered by others. Hops that are stay as they are:
/// their stages know the session.
///
/// # Errors
/// The first gap.
pub fn mend_route(
    route: &[Hop],
    served: &[(NodeId, LayerSpan)],
    local: NodeId,
) -> Result<Vec<Hop>, LayerSpan> {
    let mut hops = Vec::with_capacity(route.len());
    for hop in route {
        if served.iter().any(|(node, span)| *node == hop.node && span.contains(hop.span)) {
            hops.push(*hop);
        } else {
            hops.extend(cover(hop.span, served, local)?);
        }
    }
    Ok(hops)
}

/// Hops over `wanted` from what live nodes serve, or the run of layers nobody serves.
///
/// Among spans that reach equally far, `local` wins, as it costs no hop; then the lowest id.
fn cover(
    wanted: LayerSpan,
    served: &[(NodeId, LayerSpan)],
    local: NodeId,
) -> Result<Vec<Hop>, LayerSpan> {
    let layers = wanted.end();
    let mut hops = Vec::new();
    let mut reached = wanted.start();
    while reached < layers {
        let best = served.iter().filter(|(_, span)| span.contains_layer(reached)).max_by_key(
            |(node, span)| (span.end().min(layers), *node == local, std::cmp::Reverse(*node)),
        );
        let Some((node, span)) = best else {
            let next = served.iter().map(|(_, span)| span.start()).filter(|s| *s > reached).min();
            let end = next.unwrap_or(layers).min(layers);
            return Err(LayerSpan::new(reached, end).expect("a gap ends after it starts"));
        };
        let end = span.end().min(layers);
        let span = LayerSpan::new(reached, end).expect("the span holds the layer reached");
        hops.push(Hop { node: *node, span });
        reached = end;
    }
    Ok(hops)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(served: &[(u8, u32, u32)], expected: Result<&[(u8, &str)], &str>) {
        let served: Vec<_> = served
            .iter()
            .map(|&(id, a, b)| (NodeId([id; 32]), LayerSpan::new(a, b).expect("test span")))
            .collect();
        let found = find_route(8, &served, NodeId([9; 32]));
        let found = found
            .map(|hops| hops.iter().map(|h| (h.node.0[0], h.span.to_string())).collect::<Vec<_>>());
        let expected = expected
            .map(|hops| {
                hops.iter().map(|(id, span)| (*id, (*span).to_string())).collect::<Vec<_>>()
            })
            .map_err(|gap| gap.parse().expect("test span"));
        assert_eq!(found, expected);
    }

    #[test]
    fn fewest_hops_local_first_overlaps_cut() {
        check(&[(1, 0, 8)], Ok(&[(1, "0..8")]));
        check(&[(1, 0, 8), (9, 0, 8)], Ok(&[(9, "0..8")]));
        check(&[(1, 0, 5), (2, 4, 8)], Ok(&[(1, "0..5"), (2, "5..8")]));
        check(&[(1, 0, 2), (2, 0, 4), (3, 2, 6), (4, 4, 8)], Ok(&[(2, "0..4"), (4, "4..8")]));
        check(&[(2, 0, 8), (1, 0, 8)], Ok(&[(1, "0..8")]));
    }

    #[test]
    fn the_first_gap_is_named() {
        check(&[], Err("0..8"));
        check(&[(1, 0, 3), (2, 5, 8)], Err("3..5"));
        check(&[(1, 0, 7)], Err("7..8"));
    }

    #[test]
    fn a_route_is_mended_where_it_is_broken_only() {
        let span = |a, b| LayerSpan::new(a, b).expect("test span");
        let hop = |id, a, b| Hop { node: NodeId([id; 32]), span: span(a, b) };
        let served = |spans: &[(u8, u32, u32)]| -> Vec<_> {
            spans.iter().map(|&(id, a, b)| (NodeId([id; 32]), span(a, b))).collect()
        };
        let route = [hop(1, 0, 2), hop(2, 2, 4), hop(3, 4, 6)];
        let local = NodeId([9; 32]);
        let now = served(&[(1, 0, 2), (1, 0, 3), (3, 4, 6), (3, 3, 6), (4, 0, 6)]);
        let expected = [hop(1, 0, 2), hop(4, 2, 4), hop(3, 4, 6)];
        assert_eq!(mend_route(&route, &now, local), Ok(expected.to_vec()));
        let expected = [hop(1, 0, 2), hop(1, 2, 3), hop(3, 3, 4), hop(3, 4, 6)];
        assert_eq!(mend_route(&route, &now[..4], local), Ok(expected.to_vec()));
        assert_eq!(mend_route(&route, &now[..3], local), Err(span(3, 4)));
        assert_eq!(mend_route(&route, &[], local), Err(span(0, 2)));
    }

    proptest! {
        #[test]
        fn a_route_covers_in_order_with_spans_that_are_served(
            served in proptest::collection::vec((0_u8..5, 0_u32..12, 1_u32..12), 0..12),
        ) {
            let served: Vec<_> = served.into_iter()
                .map(|(id, a, n)| (NodeId([id; 32]), LayerSpan::new(a, a + n).expect("test span")))
                .collect();
            let covered = crate::uncovered(12, served.iter().map(|(_, span)| *span));
            match find_route(12, &served, NodeId([0; 32])) {
                Ok(hops) => {
                    prop_assert!(covered.is_empty());
                    let mut at = 0;
                    for hop in hops {
                        prop_assert_eq!(hop.span.start(), at);
                        prop_assert!(served.iter().any(|(n, s)| *n == hop.node && s.contains(hop.span)));
                        at = hop.span.end();
                    }
                    prop_assert_eq!(at, 12);
                }
                Err(gap) => prop_assert_eq!(covered.first(), Some(&gap)),
            }
        }
    }
}
