//! A rogue as the head, or as a stage before the node's.

use crate::{
    common::{LAYERS, node, span},
    rogue::{Linked, Rogue, blamed, count, step},
};
use talka_base::RequestId;
use talka_net::WireType;
use talka_node::{
    Node,
    api::Fault,
    wire::{Answer, Flow, Leg, Payload},
};

const WIDTH: u32 = 192;
const FIRST: Leg = Leg { attempt: 0, hop: 0 };
const SECOND: Leg = Leg { attempt: 0, hop: 1 };

/// Opens request `number` on the node, which has `leg` of the route.
async fn open(rogue: &Rogue, linked: &mut Linked, node: &Node, number: u8, leg: Leg) -> RequestId {
    let session = RequestId([number; 16]);
    let ticket = rogue.ticket(linked, session).await;
    let (near, far) = if leg.hop == 0 { (node.id(), rogue.id()) } else { (rogue.id(), node.id()) };
    let open = rogue.open(ticket, &[(near, span(0, 2)), (far, span(2, LAYERS))]);
    linked.flow(Flow::Open { leg, open }).await;
    session
}

/// Sends `payload` in a session of its own, and waits until it is counted and refused.
async fn check(
    rogue: &Rogue,
    linked: &mut Linked,
    node: &Node,
    (number, leg): (u8, Leg),
    (position, payload): (u32, Payload),
    fault: Fault,
) {
    let before = count(node, rogue.id(), fault).await;
    let session = open(rogue, linked, node, number, leg).await;
    linked.flow(step(session, leg, position, payload)).await;
    loop {
        if let Flow::Failed { session: failed, .. } = linked.hear_flow().await {
            assert_eq!(failed, session);
            break;
        }
    }
    blamed(node, rogue.id(), fault, before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_sends_wrong_steps_is_blamed() {
    let dir = tempfile::tempdir().expect("a folder");
    let node = node(dir.path(), span(0, 2)).await;
    let rogue = Rogue::join(&node, 79).await;
    let mut linked = rogue.link(&[], 1).await;
    let tokens = |count| Payload::Tokens(vec![5; count]);
    let hidden =
        Payload::Hidden { width: WIDTH, dtype: WireType::F32, values: vec![0.5; WIDTH as usize] };
    for (number, position, payload, fault) in [
        (1, 7, tokens(2), Fault::Position),
        (2, 0, tokens(200), Fault::Shape),
        (3, 0, hidden, Fault::Shape),
        (4, 0, Payload::Tokens(vec![u32::MAX]), Fault::Shape),
    ] {
        check(&rogue, &mut linked, &node, (number, FIRST), (position, payload), fault).await;
    }

    // An answer to what was never asked, a session that never was, and one without credits.
    let answer = Payload::Answer(Answer::Logits { vocab: 8, values: vec![0.0; 8] });
    linked.flow(step(RequestId([98; 16]), FIRST, 0, answer)).await;
    blamed(&node, rogue.id(), Fault::Session, 0).await;
    linked.flow(step(RequestId([99; 16]), FIRST, 0, tokens(1))).await;
    blamed(&node, rogue.id(), Fault::Session, 1).await;
    let ticket = rogue.ticket(&mut linked, RequestId([50; 16])).await;
    let forged = rogue.keys.sign(ticket.claimed_value().clone());
    let route = [(node.id(), span(0, 2)), (rogue.id(), span(2, LAYERS))];
    linked.flow(Flow::Open { leg: FIRST, open: rogue.open(forged, &route) }).await;
    blamed(&node, rogue.id(), Fault::Session, 2).await;

    // A sound one still works: the node opens the next hop and sends it hidden states.
    let session = open(&rogue, &mut linked, &node, 60, FIRST).await;
    linked.flow(step(session, FIRST, 0, tokens(3))).await;
    loop {
        match linked.hear_flow().await {
            Flow::Step(step) => {
                let Payload::Hidden { width, values, .. } = step.payload else {
                    panic!("no states")
                };
                assert_eq!((step.session, width, values.len()), (session, WIDTH, 3 * 192));
                break;
            }
            Flow::Failed { reason, session: failed, .. } if failed == session => panic!("{reason}"),
            _ => {}
        }
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_hands_on_wrong_states_is_blamed() {
    let dir = tempfile::tempdir().expect("a folder");
    let node = node(dir.path(), span(2, LAYERS)).await;
    let rogue = Rogue::join(&node, 80).await;
    let mut linked = rogue.link(&[span(0, 2)], 1).await;
    let states = |width: u32, rows: usize, value: f32| Payload::Hidden {
        dtype: WireType::F32,
        width,
        values: vec![value; width as usize * rows],
    };
    for (number, payload, fault) in [
        (1, states(WIDTH, 2, f32::NAN), Fault::NotANumber),
        (2, states(WIDTH, 2, f32::INFINITY), Fault::NotANumber),
        (3, states(10 * WIDTH, 2, 0.5), Fault::Shape),
        (4, states(WIDTH, 200, 0.5), Fault::Shape),
        (5, Payload::Tokens(vec![5]), Fault::Shape),
    ] {
        check(&rogue, &mut linked, &node, (number, SECOND), (0, payload), fault).await;
    }
    node.shutdown().await;
}
