//! How hidden states travel between the stages of a route.

use talka_base::{ModelShape, Precision};
use talka_net::WireType;
use talka_plan::{Hop, Links};

/// One way to a node that is no neighbour, in microseconds. Nearer ones are on the same local network, where
/// bytes cost next to nothing.
const FAR_US: u32 = 3_000;

/// What a token of a model of this `shape` takes between two stages that are far from each other, in bytes: between
/// near ones more, but there it does not matter.
pub fn far_bytes(shape: &ModelShape) -> u32 {
    shape.hidden.saturating_mul(size_of::<u16>() as u32)
}

/// Over long ways hidden states are rounded to bf16, half the bytes, which is no more than what weights of 16 bits and
/// fewer did to the model already; else a model answers the same however it is cut.
pub fn frame_type(weights: Precision, route: &[Hop], links: &Links) -> WireType {
    let is_far = |hops: &[Hop]| {
        let way_us = links.measured_us(hops[0].node, hops[1].node);
        way_us.is_some_and(|us| us >= FAR_US)
    };
    match weights {
        Precision::F16 | Precision::Bf16 | Precision::Int8 if route.windows(2).any(is_far) => {
            WireType::Bf16
        }
        _ => WireType::F32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use talka_base::{LayerSpan, NodeId};

    #[test]
    fn only_long_ways_between_stages_round_and_only_what_is_rounded_already() {
        let node = |n| NodeId([n; 32]);
        let span = |a, b| LayerSpan::new(a, b).expect("test span");
        let route =
            [Hop { node: node(1), span: span(0, 3) }, Hop { node: node(2), span: span(3, 6) }];
        let mut links = Links::default();
        assert_eq!(frame_type(Precision::Bf16, &route, &links), WireType::F32, "not measured");
        links.tell(node(1), node(2), FAR_US);
        assert_eq!(frame_type(Precision::Bf16, &route, &links), WireType::Bf16);
        assert_eq!(frame_type(Precision::F32, &route, &links), WireType::F32);
        assert_eq!(frame_type(Precision::Bf16, &route[..1], &links), WireType::F32);
    }
}
