//! A rogue as the head, or as a stage before the node's.

use crate::{
    common::{LAYERS, node, span, wait_for},
    rogue::{Linked, Rogue, blamed, count, step},
};
use talka_base::{Credits, RequestId, VoucherHash};
use talka_ledger::{
    Policy, Voucher,
    lane::{due, exposure_max},
};
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

/// Waits for the hidden states of so many steps.
async fn hear_steps(linked: &mut Linked, count: u32) {
    let mut heard = 0;
    while heard < count {
        match linked.hear_flow().await {
            Flow::Step(_) => heard += 1,
            Flow::Failed { reason, .. } => panic!("{reason}"),
            _ => {}
        }
    }
}

/// Goal: a head that does not sign gets no more work than the limit, and what it did sign is claimed when it vanishes.
/// Method: 200 steps at once and one voucher; the stage's receipt says how far it went.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_works_unpaid_up_to_its_limit_and_claims_what_was_signed_for() {
    let dir = tempfile::tempdir().expect("a folder");
    let node = node(dir.path(), span(0, 2)).await;
    let rogue = Rogue::join(&node, 81).await;
    let mut linked = rogue.link(&[], 1).await;
    let session = RequestId([1; 16]);
    let ticket = rogue.ticket_for(&mut linked, session, 240).await;
    let route = [(node.id(), span(0, 2)), (rogue.id(), span(2, LAYERS))];
    linked.flow(Flow::Open { leg: FIRST, open: rogue.open(ticket, &route) }).await;
    for position in 0..200 {
        linked.flow(step(session, FIRST, position, Payload::Tokens(vec![5]))).await;
    }
    let policy = Policy::default();
    let due = |positions| due(&rogue.shape, span(0, 2), 0, positions, 0, &policy).0;
    let exposure_max = exposure_max(&rogue.shape, span(0, 2), 10, 250, &policy).0;
    // It stops after the first step that passes the limit.
    let stops = |signed| (0..=200).find(|&positions| due(positions) > signed + exposure_max);
    let first = stops(0).expect("the limit is within the answer");
    hear_steps(&mut linked, first).await;
    let signed = due(20);
    let second = stops(signed).expect("and the next one too");
    let voucher = Voucher {
        network: rogue.network(),
        session,
        lane: FIRST.lane(),
        worker: node.id(),
        seq: 1,
        amount: Credits(signed),
        tokens_in: 10,
        tokens_out: 10,
        model: rogue.model,
        route_root: [0; 32],
        commitment_root: [0; 32],
        previous: VoucherHash([0; 32]),
    };
    let forged = Voucher { worker: rogue.id(), ..voucher.clone() };
    linked.flow(Flow::Voucher(rogue.keys.sign(forged))).await;
    blamed(&node, rogue.id(), Fault::Voucher, 0).await;
    linked.flow(Flow::Voucher(rogue.keys.sign(voucher))).await;
    hear_steps(&mut linked, second - first).await;
    linked.flow(Flow::Close { leg: FIRST, session }).await;
    let positions = loop {
        if let Flow::Receipt(receipt) = linked.hear_flow().await {
            break receipt.claimed_value().positions;
        }
    };
    assert_eq!(positions, second);
    drop(linked);
    let claimed = async || {
        let entries = node.api().ledger(0, 100).await.expect("entries");
        entries.into_iter().find(|entry| entry.kind == "claimed")
    };
    let entry = wait_for("the claim", claimed).await;
    assert_eq!(entry.request, Some(session));
    node.shutdown().await;
}
