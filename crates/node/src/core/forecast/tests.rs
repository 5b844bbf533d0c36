//! A newcomer to a network of one node, with a model of six layers of 10 bytes.

use super::*;
use talka_plan::{placement::STAGE_US, residency::Policy as Residency};

const NOW: Tick = Tick(1_000);
const MODEL: ModelId = ModelId([9; 32]);
const LAYER_US: u32 = 100;
const ROUND_TRIP_US: u32 = 10_000;

fn id(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn span(start: u32, end: u32) -> LayerSpan {
    LayerSpan::new(start, end).expect("test span")
}

/// The bundled model's.
pub(crate) fn shape() -> ModelShape {
    ModelShape {
        layers: 6,
        hidden: 192,
        heads: 6,
        kv_heads: 3,
        head_dim: 32,
        ffn: 512,
        vocab: 1024,
        context: 256,
        precision: Precision::Bf16,
    }
}

/// A node with room for so many layers.
fn core(n: u8, room: u64, grade: Grade) -> Core {
    let own = OwnModel { grade, layer_us: LAYER_US, ..OwnModel::new(MODEL, "m".into(), 6, 10) };
    Core::new(id(n), format!("n{n}"), room * 10, Residency::Specialised, vec![own])
}

/// What it would be for a newcomer with that room, where one node serves what it has room for.
fn forecast(inviter_room: u32, room: u64, grade: Grade) -> Forecast {
    let mut inviter = core(1, inviter_room.into(), Grade::Stored);
    inviter.step(NOW, super::super::Input::Tick, &mut Vec::new());
    let served = super::super::Input::Loaded { model: MODEL, span: span(0, inviter_room) };
    inviter.step(NOW, served, &mut Vec::new());
    let newcomer = core(2, room, grade).visiting(NOW, inviter.outlook(NOW), (id(1), ROUND_TRIP_US));
    newcomer.forecast(MODEL, &shape(), &Policy::default(), id(1)).expect("it has the model")
}

fn bytes(payload: Payload) -> u64 {
    frame_bytes(payload, &shape())
}

#[test]
fn a_newcomer_completes_what_does_not_fit_one_node() {
    let Forecast { spans, missing, alone, together, before, after, credits_per_hour } =
        forecast(3, 3, Grade::Stored);
    assert_eq!((&spans[..], &missing[..]), (&[span(3, 6)][..], &[][..]));
    assert_eq!((alone, before), (None, None), "neither has room for all");
    let hops = vec![Hop { node: id(1), span: span(0, 3) }, Hop { node: id(2), span: span(3, 6) }];
    // Both ways of one round trip, whoever asks; 5 ms one way is far, so states are rounded.
    let us = 2 * STAGE_US + 6 * u64::from(LAYER_US) + u64::from(ROUND_TRIP_US);
    let dtype = talka_net::WireType::Bf16;
    let state = bytes(Payload::Hidden { width: 192, dtype, values: vec![0.0; 192] });
    assert!((384..500).contains(&state), "{state}");
    let token = bytes(Payload::Tokens(vec![0]));
    let likeliest = bytes(Payload::Answer(Answer::Best { count: 2, picks: vec![(0, 0.0); 2] }));
    let way = |link_bytes| Some(Way { hops: hops.clone(), us, link_bytes });
    assert_eq!(together, way(token + state));
    assert_eq!(after, way(state + likeliest));

    let an_hour = 3_600_000_000 / us;
    let a_token = shape().flops(span(3, 6), 128..129, 1).0;
    let at_least = price(Flops(a_token * an_hour), Precision::Bf16, &Policy::default());
    assert!(credits_per_hour >= at_least, "{credits_per_hour}");
    assert!(credits_per_hour.0 < at_least.0 + at_least.0 / 100, "{credits_per_hour}");
}

#[test]
fn where_all_fits_a_newcomer_is_a_copy_that_callers_elsewhere_do_not_wait_for() {
    let found = forecast(6, 6, Grade::Stored);
    assert_eq!(found.spans, [span(0, 6)]);
    let here = found.together.expect("a route");
    assert_eq!((here.hops[0].node, here.link_bytes), (id(2), 0));
    assert_eq!(found.alone.expect("it fits").us, here.us);
    assert_eq!(found.before, found.after, "the inviter has all it needs");
    assert_eq!(found.credits_per_hour, Credits::ZERO);
}

#[test]
fn a_newcomer_of_another_grade_completes_nothing() {
    let found = forecast(3, 3, Grade::Q8);
    assert_eq!((found.before, found.after, found.together), (None, None, None));
    assert!(!found.missing.is_empty());
    assert_eq!(found.credits_per_hour, Credits::ZERO);
}

#[test]
fn weights_take_as_much_as_their_grade_says() {
    let held = |precision, from, to| held_bytes(3_200, precision, from, to);
    assert_eq!(held(Precision::Bf16, Grade::Stored, Grade::Stored), 3_200);
    assert_eq!(held(Precision::Bf16, Grade::Stored, Grade::Q8), 1_700);
    assert_eq!(held(Precision::F32, Grade::Q4, Grade::Stored), 22_755);
    assert_eq!(held(Precision::Int8, Grade::Stored, Grade::Q8), 3_200);
    assert_eq!(held_bytes(u64::MAX, Precision::F32, Grade::Q4, Grade::Stored), u64::MAX);
}
