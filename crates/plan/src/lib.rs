//! Local judgement about who should run what: honest nodes may differ here and nothing breaks.
//!
//! Never reads a clock, opens a socket or sees a balance.

pub mod availability;
pub mod grid;
pub mod hardware;
pub mod links;
pub mod placement;
pub mod reputation;
pub mod residency;
pub mod route;

pub use links::{Links, Ways};
pub use placement::{Candidate, Goal, Placement, place};
pub use route::{Choices, Considered, Hop, Route, Served, Why};

use talka_base::LayerSpan;

/// The maximal runs of `0..layers` that none of `spans` covers, in order.
pub fn uncovered(layers: u32, spans: impl IntoIterator<Item = LayerSpan>) -> Vec<LayerSpan> {
    let mut spans: Vec<_> = spans.into_iter().collect();
    spans.sort();
    let mut gaps = Vec::new();
    let mut reached = 0;
    for span in spans {
        gaps.extend(LayerSpan::new(reached, span.start().min(layers)));
        reached = reached.max(span.end());
    }
    gaps.extend(LayerSpan::new(reached, layers));
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spans: &[(u32, u32)], expected: &[(u32, u32)]) {
        let span = |&(a, b): &(u32, u32)| LayerSpan::new(a, b).expect("test span");
        let expected: Vec<_> = expected.iter().map(span).collect();
        assert_eq!(uncovered(8, spans.iter().map(span)), expected, "{spans:?}");
    }

    #[test]
    fn gaps_are_what_no_span_covers() {
        check(&[], &[(0, 8)]);
        check(&[(0, 8)], &[]);
        check(&[(5, 6), (2, 4), (3, 5)], &[(0, 2), (6, 8)]);
        check(&[(0, 20)], &[]);
        check(&[(9, 20)], &[(0, 8)]);
        check(&[(0, 6), (1, 2)], &[(6, 8)]);
    }
}
