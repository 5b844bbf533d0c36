//! Placements by hand, against every possible one on small cases, and what must hold for any.

use super::*;
use crate::Links;
use proptest::prelude::*;

/// Memory is counted in layers here.
fn candidate(id: u8, room: u64, layer_us: u32) -> Candidate {
    let node = NodeId([id; 32]);
    Candidate { node, memory_bytes: room * 10, layer_us, pinned: None, serves: vec![] }
}

fn span(text: &str) -> LayerSpan {
    text.parse().expect("test span")
}

fn pinned(id: u8, at: &str) -> Candidate {
    Candidate { pinned: Some(span(at)), ..candidate(id, 0, 1) }
}

fn serving(id: u8, room: u64, layer_us: u32, served: &str) -> Candidate {
    let serves = served.split_whitespace().map(span).collect();
    Candidate { serves, ..candidate(id, room, layer_us) }
}

/// `expected` as `1:0..4 2:4..6`, in any order; `missing` as `4..6`.
#[track_caller]
fn check(layers: u32, nodes: &[Candidate], goal: Goal, expected: &str, missing: &str) {
    let placement = place(layers, 10, nodes, &Links::uniform(5_000), goal);
    let show = |(node, span): &(NodeId, LayerSpan)| format!("{}:{span}", node.0[0]);
    let mut found: Vec<_> = placement.spans.iter().map(show).collect();
    found.sort();
    assert_eq!(found.join(" "), expected);
    let found: Vec<_> = placement.missing.iter().map(ToString::to_string).collect();
    assert_eq!(found.join(" "), missing);
}

#[test]
fn who_holds_the_whole_model_runs_it_alone_and_the_others_copy_it() {
    let nodes = [3, 1, 2].map(|id| candidate(id, 6, 100));
    check(6, &nodes, Goal::Interactive, "1:0..6 2:0..6 3:0..6", "");
    // The slow one has room for all of it, the fast ones form a chain beside it.
    let nodes = [candidate(1, 6, 90_000), candidate(2, 4, 100), candidate(3, 3, 100)];
    check(6, &nodes, Goal::Interactive, "1:0..6 2:0..3 3:3..6", "");
    check(6, &[], Goal::Interactive, "", "0..6");
}

#[test]
fn a_chain_takes_the_fastest_as_far_as_they_hold() {
    let nodes = [candidate(1, 4, 900), candidate(2, 4, 100), candidate(3, 3, 100)];
    check(6, &nodes, Goal::Interactive, "1:0..3 2:0..3 3:3..6", "");
    // A third hop costs more than the slower node.
    let nodes =
        [candidate(1, 3, 1_000), candidate(2, 3, 100), candidate(3, 2, 100), candidate(4, 1, 100)];
    check(6, &nodes, Goal::Interactive, "1:0..3 2:3..6 3:0..2 4:2..3", "");
}

#[test]
fn for_throughput_shares_follow_speed() {
    let nodes = [candidate(1, 5, 100), candidate(2, 5, 200), candidate(3, 5, 300)];
    check(6, &nodes, Goal::Throughput, "1:0..4 2:4..6 3:0..4", "");
    // Copies of the whole answer as many tokens.
    let nodes = [1, 2, 3].map(|id| candidate(id, 6, 100));
    check(6, &nodes, Goal::Throughput, "1:0..6 2:0..6 3:0..6", "");
    // One of four holds it: alone it would answer a quarter of what all do.
    let nodes =
        [candidate(1, 8, 100), candidate(2, 2, 100), candidate(3, 2, 100), candidate(4, 2, 100)];
    check(8, &nodes, Goal::Throughput, "1:0..2 2:2..4 3:4..6 4:6..8", "");
}

#[test]
fn pinned_spans_stay_and_the_rest_fills_the_gaps() {
    let nodes = [candidate(1, 9, 100), pinned(2, "2..4"), candidate(3, 9, 100)];
    check(6, &nodes, Goal::Interactive, "1:0..2 1:4..6 2:2..4 3:0..6", "");
    let nodes = [candidate(1, 2, 100), pinned(2, "2..4"), candidate(3, 2, 100)];
    check(6, &nodes, Goal::Interactive, "1:0..2 2:2..4 3:4..6", "");
    let nodes = [pinned(1, "0..4"), candidate(2, 9, 100), candidate(3, 1, 100)];
    check(4, &nodes, Goal::Interactive, "1:0..4 2:0..4 3:0..1", "");
}

#[test]
fn whoever_is_left_copies_the_stage_with_the_fewest_copies() {
    let nodes: Vec<_> = (1..=5).map(|id| candidate(id, 3, 100)).collect();
    check(6, &nodes, Goal::Interactive, "1:0..3 2:3..6 3:0..3 4:3..6 5:0..3", "");
}

#[test]
fn what_nobody_can_complete_moves_nothing() {
    let nodes = [candidate(1, 2, 100), serving(2, 2, 100, "4..6")];
    check(8, &nodes, Goal::Interactive, "1:0..2 2:4..6", "2..4 6..8");
    check(5, &[candidate(1, 2, 100), candidate(2, 0, 100)], Goal::Interactive, "1:0..2", "2..5");
}

#[test]
fn layers_move_for_a_real_gain_only() {
    let fresh =
        |layer_us| [serving(1, 9, layer_us, "0..6"), candidate(2, 5, 100), candidate(3, 5, 100)];
    check(6, &fresh(100), Goal::Interactive, "1:0..6 2:0..3 3:3..6", "");
    // The dead node's layers go to the newcomer; nobody else moves.
    let nodes = [serving(1, 2, 100, "4..6"), serving(3, 2, 100, "0..2"), candidate(2, 2, 100)];
    check(6, &nodes, Goal::Interactive, "1:4..6 2:2..4 3:0..2", "");
    // A millisecond of 17 is not worth it, four and a half are.
    let nodes = |layer_us| {
        [serving(1, 5, 1_000, "0..5"), serving(2, 5, 1_000, "5..10"), candidate(3, 5, layer_us)]
    };
    check(10, &nodes(800), Goal::Interactive, "1:0..5 2:5..10 3:0..5", "");
    check(10, &nodes(100), Goal::Interactive, "1:0..5 2:5..10 3:5..10", "");
    let nodes =
        [serving(1, 5, 10_000, "0..5"), serving(2, 5, 10_000, "5..10"), candidate(3, 9, 1_000)];
    check(10, &nodes, Goal::Interactive, "1:0..1 2:5..10 3:1..10", "");
}

#[test]
fn a_chain_stays_at_one_place_before_it_goes_to_another() {
    let nodes: Vec<_> = (1..=6).map(|id| candidate(id, 2, 100)).collect();
    let mut links = Links::uniform(50_000);
    for (a, b) in [(1, 4), (4, 6), (1, 6), (2, 3), (3, 5), (2, 5)] {
        links.tell(NodeId([a; 32]), NodeId([b; 32]), 500);
    }
    let placement = place(6, 10, &nodes, &links, Goal::Interactive);
    let chain: Vec<_> = placement.spans[..3].iter().map(|(node, _)| node.0[0]).collect();
    assert_eq!(chain, [2, 3, 5]);
    let other: Vec<_> = placement.spans[3..].iter().map(|(node, _)| node.0[0]).collect();
    assert_eq!(other, [1, 4, 6]);
}

/// The cheapest of all ways to share `width` places, all links `hop_us`: order makes no difference.
fn cheapest(members: &[Member], width: u32, hop_us: u64) -> Option<u64> {
    let Some((member, others)) = members.split_last() else {
        return (width == 0).then_some(0);
    };
    let shares = 0..=member.room.min(width);
    let cost = |share: u32| {
        let others = cheapest(others, width - share, hop_us)?;
        let own = MOVED_US * (STAGE_US + hop_us + member.layer_us * u64::from(share));
        Some(others + if share > 0 { own } else { 0 })
    };
    shares.filter_map(cost).min()
}
const MOVED_US: u64 = chain::MOVED;

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let spans = prop::collection::vec((0_u32..12, 1_u32..12), 0..3);
    let node = (0_u64..9, 1_u32..2_000, prop::option::weighted(0.2, (0_u32..12, 1_u32..12)), spans);
    prop::collection::vec(node, 0..8).prop_map(|nodes| {
        let span =
            |(start, len): (u32, u32)| LayerSpan::new(start, start + len).expect("not empty");
        let node =
            |(id, (room, layer_us, pinned, serves)): (usize, (u64, u32, Option<_>, Vec<_>))| {
                Candidate {
                    pinned: pinned.map(span),
                    serves: serves.into_iter().map(span).collect(),
                    ..candidate(id as u8 + 1, room, layer_us)
                }
            };
        nodes.into_iter().enumerate().map(node).collect()
    })
}

fn links() -> impl Strategy<Value = Links> {
    prop::collection::vec((1_u8..9, 1_u8..9, 0_u32..90_000), 0..20).prop_map(|told| {
        let mut links = Links::default();
        told.into_iter().for_each(|(a, b, us)| links.tell(NodeId([a; 32]), NodeId([b; 32]), us));
        links
    })
}

fn goal() -> impl Strategy<Value = Goal> {
    prop_oneof![Just(Goal::Interactive), Just(Goal::Throughput)]
}

proptest! {
    #[test]
    fn with_equal_links_no_chain_is_cheaper(
        nodes in prop::collection::vec((0_u64..6, 1_u32..5_000), 0..5),
        layers in 1_u32..9,
        hop_us in 0_u32..20_000,
    ) {
        let nodes: Vec<_> = nodes.into_iter().enumerate()
            .map(|(id, (room, us))| candidate(id as u8, room, us)).collect();
        let open = Open::new(uncovered(layers, []));
        let members: Vec<_> = nodes.iter().map(|c| Member::new(c, c.memory_bytes as u32 / 10, &open)).collect();
        let found = best_chain(&members, layers, Links::uniform(hop_us).carrying(0)).map(|chain| chain.cost);
        // The first stage has no hop before it.
        let hop = chain::MOVED * u64::from(hop_us);
        prop_assert_eq!(found, cheapest(&members, layers, hop_us.into()).map(|cost| cost - hop));
    }

    #[test]
    fn no_pipeline_has_a_faster_slowest_stage(
        nodes in prop::collection::vec((0_u64..6, 1_u32..50), 0..5), layers in 1_u32..9,
    ) {
        fn slowest(nodes: &[(u64, u32)], width: u32) -> Option<u64> {
            let Some(((room, us), others)) = nodes.split_last() else { return (width == 0).then_some(0) };
            let shares = 0..=(*room as u32).min(width);
            shares.filter_map(|n| Some(slowest(others, width - n)?.max(u64::from(n * us)))).min()
        }
        let open = Open::new(uncovered(layers, []));
        let members: Vec<_> = nodes.iter()
            .map(|(room, us)| Member::new(&candidate(1, *room, *us), *room as u32, &open)).collect();
        prop_assert_eq!(stage_us_min(&members, layers), slowest(&nodes, layers));
    }

    #[test]
    fn everything_is_covered_or_named_missing_and_nobody_is_overloaded(
        layers in 1_u32..12, nodes in candidates(), links in links(), goal in goal(),
    ) {
        let placement = place(layers, 10, &nodes, &links, goal);
        let covered = placement.spans.iter().map(|(_, span)| *span);
        prop_assert_eq!(uncovered(layers, covered.clone().chain(placement.missing.clone())), vec![]);
        prop_assert!(placement.missing.iter().all(|gap| covered.clone().all(|s| s.intersection(*gap).is_none())));
        let open: u32 = uncovered(layers, nodes.iter().filter_map(|c| c.pinned)).iter().map(|gap| gap.len()).sum();
        let room: u64 = nodes.iter().filter(|c| c.pinned.is_none()).map(|c| c.memory_bytes / 10).sum();
        prop_assert_eq!(placement.missing.is_empty(), room >= u64::from(open));
        for node in &nodes {
            let spans: Vec<_> = placement.of(node.node).collect();
            match node.pinned {
                Some(pinned) => prop_assert_eq!(spans, vec![pinned]),
                None => {
                    let taken: u64 = spans.iter().map(|span| u64::from(span.len())).sum();
                    prop_assert!(taken * 10 <= node.memory_bytes);
                    prop_assert!(spans.iter().all(|span| span.end() <= layers));
                }
            }
        }
    }

    /// Whoever has what was placed and gave back the rest is placed there again, after a few rounds at most, and
    /// the order in which nodes are known makes no difference.
    #[test]
    fn placements_come_to_rest(
        layers in 1_u32..12, mut nodes in candidates(), links in links(), goal in goal(), turn in 0_usize..8,
    ) {
        let mut last = Placement::default();
        for round in 0..6 {
            let turned = turn % nodes.len().max(1);
            nodes.rotate_left(turned);
            let mut placement = place(layers, 10, &nodes, &links, goal);
            placement.spans.sort();
            for node in &mut nodes {
                node.serves = placement.of(node.node).collect();
            }
            if round >= 4 {
                prop_assert_eq!(&placement, &last, "round {}", round);
            }
            last = placement;
        }
    }
}

/// Goal: a network as large as any we foresee is placed by the thousand pieces without a slip.
#[test]
fn a_thousand_nodes_are_placed() {
    let nodes: Vec<_> = (0..1_000_u32)
        .map(|n| {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&n.to_be_bytes());
            Candidate { node: NodeId(id), ..candidate(0, u64::from(1 + n % 13), 200 + n * 7 % 900) }
        })
        .collect();
    let mut links = Links::default();
    for pair in nodes.windows(5) {
        links.tell(pair[0].node, pair[4].node, 700);
    }
    for goal in [Goal::Interactive, Goal::Throughput] {
        let placement = place(80, 10, &nodes, &links, goal);
        assert_eq!(placement.missing, []);
        assert!(placement.spans.len() >= nodes.len(), "everybody has a part");
    }
}
