//! Routes by hand, against every possible one on small cases, and what must hold for any.

use super::*;
use crate::Links;
use proptest::prelude::*;

const HEAD: NodeId = NodeId([9; 32]);

fn stage(id: u8, start: u32, end: u32) -> Served {
    let span = LayerSpan::new(start, end).expect("test span");
    Served { node: NodeId([id; 32]), span, layer_us: 100, load: 0 }
}

fn show(hops: &[Hop]) -> String {
    let hop = |hop: &Hop| format!("{}:{}", hop.node.0[0], hop.span);
    hops.iter().map(hop).collect::<Vec<_>>().join(" ")
}

/// `expected` as `1:0..5 2:5..8`, or the gap.
#[track_caller]
fn check(served: &[Served], expected: Result<&str, &str>) {
    let links = Links::uniform(5_000);
    let found = Choices::new(served.to_vec(), &links, HEAD).route(8);
    let found = found.map(|route| show(&route.hops)).map_err(|gap| gap.to_string());
    assert_eq!(found.as_deref().map_err(String::as_str), expected);
}

#[test]
fn fewest_hops_local_first_overlaps_cut() {
    check(&[stage(1, 0, 8)], Ok("1:0..8"));
    check(&[stage(1, 0, 8), stage(9, 0, 8)], Ok("9:0..8"));
    check(&[stage(1, 0, 5), stage(2, 4, 8)], Ok("1:0..5 2:5..8"));
    let stages = [stage(1, 0, 2), stage(2, 0, 4), stage(3, 2, 6), stage(4, 4, 8)];
    check(&stages, Ok("2:0..4 4:4..8"));
    check(&[stage(2, 0, 8), stage(1, 0, 8)], Ok("1:0..8"));
}

#[test]
fn the_least_time_wins() {
    let slow = |stage: Served, layer_us| Served { layer_us, ..stage };
    // 8 layers here at 3 ms, or there and back in 10 ms at 1 ms.
    check(&[slow(stage(9, 0, 8), 3_000), slow(stage(1, 0, 8), 1_000)], Ok("1:0..8"));
    check(&[slow(stage(9, 0, 8), 2_000), slow(stage(1, 0, 8), 1_000)], Ok("9:0..8"));
    let busy = |stage: Served| Served { load: 200, ..stage };
    check(&[busy(stage(1, 0, 8)), stage(2, 0, 8)], Ok("2:0..8"));
    // The slow one takes part as little as it can.
    let stages = [slow(stage(1, 0, 6), 900), slow(stage(2, 2, 8), 100)];
    check(&stages, Ok("1:0..2 2:2..8"));
}

#[test]
fn the_first_gap_is_named() {
    check(&[], Err("0..8"));
    check(&[stage(1, 0, 3), stage(2, 5, 8)], Err("3..5"));
    check(&[stage(1, 0, 7)], Err("7..8"));
}

#[test]
fn a_route_is_mended_where_it_is_broken_only() {
    let links = Links::default();
    let span = |a, b| LayerSpan::new(a, b).expect("test span");
    let hop = |id, a, b| Hop { node: NodeId([id; 32]), span: span(a, b) };
    let route = [hop(1, 0, 2), hop(2, 2, 4), hop(3, 4, 6)];
    let mended = |served: &[Served]| {
        let choices = Choices::new(served.to_vec(), &links, HEAD);
        choices.mend(&route).map(|hops| show(&hops)).map_err(|gap| gap.to_string())
    };
    let now = [stage(1, 0, 2), stage(1, 0, 3), stage(3, 4, 6), stage(3, 3, 6), stage(4, 0, 6)];
    assert_eq!(mended(&now).as_deref(), Ok("1:0..2 1:2..3 3:3..4 3:4..6"), "near what stays");
    let far = [now[0], now[2], now[4]];
    assert_eq!(mended(&far).as_deref(), Ok("1:0..2 4:2..4 3:4..6"));
    assert_eq!(mended(&now[1..3]).unwrap_err(), "3..4");
    assert_eq!(mended(&[now[2], now[4]]).as_deref(), Ok("4:0..4 3:4..6"), "lost hops are one run");
    assert_eq!(mended(&[]).unwrap_err(), "0..6");
}

#[test]
fn every_stage_is_explained_in_numbers() {
    let mut links = Links::uniform(5_000);
    links.tell(HEAD, NodeId([2; 32]), 40_000);
    let served =
        vec![stage(1, 0, 4), stage(2, 4, 8), stage(3, 4, 8), stage(4, 4, 8), stage(1, 9, 12)];
    let considered = Choices::new(served, &links, HEAD).explain(8);
    let told: Vec<_> =
        considered.iter().map(|c| (c.stage.node.0[0], c.through_us, c.why.to_string())).collect();
    let expected = [
        (1, Some(17_800), "chosen for layers 0..4"),
        (3, Some(17_800), "chosen for layers 4..8"),
        (4, Some(17_800), "as good; fewer hops or the lower id decided"),
        (2, Some(23_800), "a token through it takes 6.00 ms longer"),
    ];
    assert_eq!(told, expected.map(|(id, us, why)| (id, us, why.to_owned())));
    let links = Links::default();
    let alone = Choices::new(vec![stage(1, 0, 4)], &links, HEAD).explain(8);
    assert_eq!(alone[0].why.to_string(), "no route: nobody serves layers 4..8");
}

/// The least time of all routes, layer by layer; for each stage of those that use it.
fn all_routes(served: &[Served], ways: Ways<'_>, layers: u32) -> (Option<u64>, Vec<Option<u64>>) {
    struct Search<'a> {
        served: &'a [Served],
        ways: Ways<'a>,
        layers: u32,
        least: Option<u64>,
        through: Vec<Option<u64>>,
    }
    impl Search<'_> {
        fn go(&mut self, us: u64, used: &mut Vec<usize>) {
            let node = |stage: usize| self.served[stage].node;
            let at = used.last().map_or(HEAD, |stage| node(*stage));
            let layer = used.len() as u32;
            if layer == self.layers {
                let us = us + u64::from(self.ways.links().one_way_us(at, HEAD));
                let least = |old: &mut Option<u64>| *old = Some(old.map_or(us, |old| old.min(us)));
                least(&mut self.least);
                used.iter().for_each(|stage| least(&mut self.through[*stage]));
                return;
            }
            for (number, stage) in self.served.iter().enumerate() {
                if !stage.span.contains_layer(layer) {
                    continue;
                }
                let stays = used.last() == Some(&number);
                let is_first = used.is_empty();
                let way = if is_first { self.ways.links().carrying(0) } else { self.ways };
                let way = u64::from(way.us(at, stage.node)) + STAGE_US;
                let us = us + stage.us(1) + if stays { 0 } else { way };
                used.push(number);
                self.go(us, used);
                used.pop();
            }
        }
    }
    let through = vec![None; served.len()];
    let mut search = Search { served, ways, layers, least: None, through };
    search.go(0, &mut Vec::new());
    (search.least, search.through)
}

prop_compose! {
    fn stages()(stages in prop::collection::vec((0_u8..5, 0_u32..6, 1_u32..6, 0_u32..9_000, 0_u32..3), 0..6)) -> Vec<Served> {
        let stage = |(id, at, len, layer_us, load)| Served { layer_us, load, ..stage(id, at, at + len) };
        stages.into_iter().map(stage).collect()
    }
}

prop_compose! {
    fn links()(told in prop::collection::vec((0_u8..10, 0_u8..10, 0_u32..90_000, 1_u32..9_000), 0..20)) -> Links {
        let mut links = Links::default();
        for (a, b, us, kib) in told {
            links.tell(NodeId([a; 32]), NodeId([b; 32]), us);
            links.tell_throughput(NodeId([b; 32]), NodeId([9 - a; 32]), kib);
        }
        links
    }
}

proptest! {
    #[test]
    fn no_route_is_faster_and_explanations_agree(mut served in stages(), links in links()) {
        served.sort_unstable();
        served.dedup();
        let ways = links.carrying(8_192);
        let choices = Choices::new(served.clone(), ways, HEAD);
        let (least, through) = all_routes(&served, ways, 6);
        let route = choices.route(6).ok();
        prop_assert_eq!(route.as_ref().map(|route| route.us), least);
        prop_assert!(route.is_none_or(|route| choices.price_us(&route.hops) <= route.us));
        if least.is_some() {
            for considered in choices.explain(6) {
                let at = served.iter().position(|stage| *stage == considered.stage).expect("one of them");
                prop_assert_eq!(considered.through_us, through[at]);
            }
        }
    }

    #[test]
    fn a_route_covers_in_order_with_spans_that_are_served(served in stages(), links in links()) {
        let covered = crate::uncovered(6, served.iter().map(|stage| stage.span));
        match Choices::new(served.clone(), &links, HEAD).route(6) {
            Ok(route) => {
                prop_assert!(covered.is_empty());
                let mut at = 0;
                for hop in route.hops {
                    prop_assert_eq!(hop.span.start(), at);
                    prop_assert!(served.iter().any(|s| s.node == hop.node && s.span.contains(hop.span)));
                    at = hop.span.end();
                }
                prop_assert_eq!(at, 6);
            }
            Err(gap) => prop_assert_eq!(covered.first(), Some(&gap)),
        }
    }
}
