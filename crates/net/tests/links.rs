//! Links between real endpoints on the loopback interface.

#![allow(missing_docs, reason = "a test binary")]

mod common;

use bytes::Bytes;
use common::{bytes_of, endpoint, linked, node_id, within};
use std::{net::SocketAddr, sync::mpsc, thread};
use talka_base::{Blame, Keypair, NodeId};
use talka_net::{BindError, BindOptions, ConnectError, Endpoint, Lane, LinkError, SendError};

#[tokio::test]
async fn both_sides_know_each_others_proven_id() {
    let (alice, bob) = (endpoint(1).await, endpoint(2).await);
    assert_eq!(alice.node_id(), node_id(1));
    let (dialled, accepted) = linked(&alice, &bob).await;
    assert_eq!(dialled.peer(), bob.node_id());
    assert_eq!(accepted.peer(), alice.node_id());
    alice.close().await;
    bob.close().await;
}

#[tokio::test]
async fn both_lanes_carry_many_frames_in_order_both_ways() {
    const FRAMES: u32 = 1000;
    let length_of = |number: u32| number as usize * 37 % 3000;
    let (alice, bob) = (endpoint(1).await, endpoint(2).await);
    let (dialled, accepted) = linked(&alice, &bob).await;
    let mut receivers = Vec::new();
    let mut senders = Vec::new();
    for link in [dialled, accepted] {
        let (sender, receiver) = link.split();
        receivers.push(receiver);
        for lane in Lane::ALL {
            let sender = sender.clone();
            senders.push(tokio::spawn(async move {
                for number in 0..FRAMES {
                    let payload = bytes_of(number, length_of(number));
                    sender.send(lane, payload).await.expect("the link lives");
                }
            }));
        }
    }
    // All receivers live to the end: dropping one closes its link.
    for receiver in &mut receivers {
        let mut next = [0, 0];
        while next != [FRAMES, FRAMES] {
            let (lane, payload) = within(receiver.recv()).await.expect("the link lives");
            let number = &mut next[lane as usize];
            assert_eq!(payload, bytes_of(*number, length_of(*number)), "{lane}");
            *number += 1;
        }
    }
    for sender in senders {
        within(sender).await.expect("everything was sent");
    }
    // Two lanes carried all of it each way, and no more than a few tenths of that beside.
    let carried = 2 * (0..FRAMES).map(|number| length_of(number) as u64).sum::<u64>();
    for (sent, received) in [alice.socket_bytes(), bob.socket_bytes()] {
        assert!(sent >= carried && received >= carried, "{sent} {received} {carried}");
        assert!(received < carried * 3 / 2, "{received} {carried}");
    }
    alice.close().await;
    bob.close().await;
}

/// Goal: what must not wait does not wait behind megabytes.
/// Method: queue 60 MiB of activations, then one control frame; it must overtake some of them.
#[tokio::test]
async fn control_overtakes_large_activations() {
    let (alice, bob) = (endpoint(1).await, endpoint(2).await);
    let (dialled, accepted) = linked(&alice, &bob).await;
    let (sender, _keep) = dialled.split();
    let (_keep_too, mut receiver) = accepted.split();
    let large = Bytes::from(vec![7; 20 * 1024 * 1024]);
    for _ in 0..3 {
        sender.try_send(Lane::Activations, large.clone()).expect("room in the queue");
    }
    sender.try_send(Lane::Control, Bytes::from_static(b"now")).expect("room in the queue");
    let mut lanes = Vec::new();
    for _ in 0..4 {
        let (lane, payload) = within(receiver.recv()).await.expect("the link lives");
        match lane {
            Lane::Control => assert_eq!(payload, &b"now"[..]),
            Lane::Activations => assert!(payload == large, "megabytes arrive unchanged"),
        }
        lanes.push(lane);
    }
    assert_ne!(lanes.last(), Some(&Lane::Control), "{lanes:?}");
    alice.close().await;
    bob.close().await;
}

/// Goal: a receiver that does not read activations in time still gets control frames at once, and
/// the sender is held back instead of filling memory.
/// Method: send activations until the queue is full and stays so, then a control frame.
#[tokio::test]
async fn a_full_activations_lane_does_not_block_control() {
    let (alice, bob) = (endpoint(1).await, endpoint(2).await);
    let (dialled, accepted) = linked(&alice, &bob).await;
    let (sender, _keep) = dialled.split();
    let (_keep_too, mut receiver) = accepted.split();
    let large = Bytes::from(vec![7; 16 * 1024 * 1024]);
    let sender_too = sender.clone();
    let flood = tokio::spawn(async move {
        while sender_too.send(Lane::Activations, large.clone()).await.is_ok() {}
    });
    while !matches!(
        sender.try_send(Lane::Activations, Bytes::new()),
        Err(SendError::Full { lane: Lane::Activations, .. })
    ) {
        tokio::task::yield_now().await;
    }
    within(sender.send(Lane::Control, Bytes::from_static(b"now"))).await.expect("has room");
    loop {
        let (lane, payload) = within(receiver.recv()).await.expect("the link lives");
        if lane == Lane::Control {
            assert_eq!(payload, &b"now"[..]);
            break;
        }
    }
    sender.close("enough");
    within(flood).await.expect("ends with the link");
    alice.close().await;
    bob.close().await;
}

#[tokio::test]
async fn the_reason_for_a_close_arrives() {
    let (alice, bob) = (endpoint(1).await, endpoint(2).await);
    let (dialled, accepted) = linked(&alice, &bob).await;
    let (sender, mut receiver) = dialled.split();
    accepted.close("wrong network");
    let peer = bob.node_id();
    let expected = LinkError::ClosedByPeer { peer, reason: "wrong network".into() };
    assert_eq!(within(receiver.recv()).await, Err(expected.clone()));
    assert_eq!(within(receiver.recv()).await, Err(expected.clone()), "it stays so");
    assert_eq!(within(sender.closed()).await, expected);
    assert_eq!(expected.blame(), Blame::Nobody);
    // The lane's writer notices in its own time; from then on nothing is taken.
    while sender.try_send(Lane::Control, Bytes::new()).is_ok() {
        tokio::task::yield_now().await;
    }
    let refused = within(sender.send(Lane::Control, Bytes::new())).await;
    assert_eq!(refused, Err(SendError::Closed(expected)));

    let (_, mut receiver) = accepted.split();
    let expected = LinkError::ClosedByUs { peer: alice.node_id(), reason: "wrong network".into() };
    assert_eq!(within(receiver.recv()).await, Err(expected));
    alice.close().await;
    bob.close().await;
}

#[tokio::test]
async fn dropped_senders_still_send_and_dropped_receivers_close() {
    let (alice, bob) = (endpoint(1).await, endpoint(2).await);
    let (dialled, accepted) = linked(&alice, &bob).await;
    let (sender, receiver) = dialled.split();
    let (_keep, mut other) = accepted.split();
    sender.send(Lane::Activations, Bytes::from_static(b"last")).await.expect("has room");
    drop(sender);
    let last = within(other.recv()).await;
    assert_eq!(last, Ok((Lane::Activations, Bytes::from_static(b"last"))));
    assert_eq!(within(other.recv()).await, Err(LinkError::Finished { peer: alice.node_id() }));
    drop(receiver);
    let error = within(_keep.closed()).await;
    assert_eq!(error.to_string().split(": ").nth(1), Some("this link is no longer listened to"));
    alice.close().await;
    bob.close().await;
}

#[tokio::test]
async fn closing_an_endpoint_ends_its_links_and_its_accepting() {
    let (alice, bob) = (endpoint(1).await, endpoint(2).await);
    let (dialled, _accepted) = linked(&alice, &bob).await;
    let (_, mut receiver) = dialled.split();
    bob.close().await;
    let error = within(receiver.recv()).await.expect_err("the other endpoint is gone");
    assert!(matches!(error, LinkError::ClosedByPeer { .. }), "{error:?}");
    assert!(within(bob.accept()).await.is_none());
    alice.close().await;
}

/// Goal: a node that is killed, not closed, is noticed.
/// Method: the peer lives in a runtime of its own that stops being driven: on the wire that is a
/// machine without power. Its sockets stay open, so nothing else could give it away.
#[tokio::test]
async fn a_peer_that_falls_silent_is_noticed() {
    let alice = endpoint(1).await;
    let (ready, bobs) = tokio::sync::oneshot::channel();
    let (finish, finished) = mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let state = runtime.block_on(async {
            let bob = endpoint(2).await;
            ready.send(bob.addresses()).expect("the test waits");
            let link = within(bob.accept()).await.expect("alice dials");
            let (sender, mut receiver) = link.split();
            let heard = within(receiver.recv()).await.expect("alice speaks");
            (bob, sender, receiver, heard)
        });
        let _ = finished.recv();
        drop((state, runtime));
    });
    let addresses = within(bobs).await.expect("bob lives");
    let link = alice.connect(node_id(2), &addresses).await.expect("bob accepts");
    let (sender, mut receiver) = link.split();
    sender.send(Lane::Control, Bytes::from_static(b"die")).await.expect("bob lives");
    let error = within(receiver.recv()).await.expect_err("bob is dead");
    assert_eq!(error, LinkError::Silent { peer: node_id(2) });
    drop(finish);
    thread.join().expect("bob's thread ends");
    alice.close().await;
}

/// `connect` from node 1 fails as `expected` says.
async fn check_connect(
    peer: NodeId,
    addresses: &[SocketAddr],
    expected: impl Fn(&ConnectError) -> bool,
) {
    let alice = endpoint(1).await;
    let error = within(alice.connect(peer, addresses)).await.expect_err("no such node");
    assert!(expected(&error), "{error:?}");
    alice.close().await;
}

#[tokio::test]
async fn a_node_that_cannot_be_reached_is_an_error_that_says_why() {
    let nowhere = [SocketAddr::from(([127, 0, 0, 1], 9))];
    let no_key = NodeId([2; 32]);
    check_connect(no_key, &nowhere, |e| matches!(e, ConnectError::NotAKey { .. })).await;
    check_connect(node_id(1), &nowhere, |e| matches!(e, ConnectError::Myself { .. })).await;
    check_connect(node_id(2), &[], |e| matches!(e, ConnectError::NoAddress { .. })).await;
    check_connect(node_id(2), &nowhere, |e| matches!(e, ConnectError::Unreachable { .. })).await;
}

#[tokio::test]
async fn another_key_at_the_address_is_refused() {
    let bob = endpoint(2).await;
    check_connect(node_id(3), &bob.addresses(), |error| {
        matches!(error, ConnectError::Handshake { .. })
    })
    .await;
    bob.close().await;
}

/// Goal: a node that comes back elsewhere is reached, whatever was known of it before.
/// Method: restart it on another port, twice, and dial with dead addresses beside the new one.
#[tokio::test]
async fn a_restarted_node_is_reached_at_its_new_address() {
    let alice = endpoint(1).await;
    let mut known = vec![SocketAddr::from(([127, 0, 0, 1], 9))];
    for _ in 0..3 {
        let bob = endpoint(2).await;
        known.extend(bob.addresses());
        let (dialled, accepted) =
            within(async { tokio::join!(alice.connect(bob.node_id(), &known), bob.accept()) })
                .await;
        let (sender, _keep) = dialled.expect("one address is alive").split();
        let (_keep_too, mut receiver) = accepted.expect("endpoint open").split();
        sender.send(Lane::Control, Bytes::from_static(b"hello")).await.expect("has room");
        let heard = within(receiver.recv()).await;
        assert_eq!(heard, Ok((Lane::Control, Bytes::from_static(b"hello"))));
        bob.close().await;
    }
    alice.close().await;
}

#[tokio::test]
async fn what_is_too_long_for_a_lane_is_not_queued() {
    let (alice, bob) = (endpoint(1).await, endpoint(2).await);
    let (dialled, _accepted) = linked(&alice, &bob).await;
    let (sender, _receiver) = dialled.split();
    let long = Bytes::from(vec![0; Lane::Control.payload_bytes_max() + 1]);
    let refused = sender.send(Lane::Control, long.clone()).await;
    assert!(matches!(refused, Err(SendError::Oversized(_))), "{refused:?}");
    let refused = sender.try_send(Lane::Control, long);
    assert!(matches!(refused, Err(SendError::Oversized(_))), "{refused:?}");
    alice.close().await;
    bob.close().await;
}

#[tokio::test]
async fn endpoints_that_listen_everywhere_find_each_other() {
    let everywhere = |secret| BindOptions {
        port_mapping: false,
        ..BindOptions::everywhere(Keypair::from_secret(&[secret; 32]), 0)
    };
    let alice = Endpoint::bind(everywhere(1)).await.expect("bound");
    let bob = Endpoint::bind(everywhere(2)).await.expect("bound");
    let addresses = bob.addresses();
    assert!((1..=8).contains(&addresses.len()), "{addresses:?}");
    assert!(addresses.iter().all(|a| a.port() != 0 && !a.ip().is_unspecified()), "{addresses:?}");
    linked(&alice, &bob).await;
    alice.close().await;
    bob.close().await;
}

#[tokio::test]
async fn a_taken_port_and_impossible_addresses_are_named() {
    let bob = endpoint(2).await;
    let taken = bob.addresses();
    let bind = |addresses: Vec<SocketAddr>| {
        let options = BindOptions::loopback(Keypair::from_secret(&[1; 32]));
        Endpoint::bind(BindOptions { addresses, ..options })
    };
    let error = bind(taken.clone()).await.expect_err("the port is taken");
    assert!(matches!(&error, BindError::Socket { addresses, .. } if *addresses == taken));
    assert!(error.to_string().contains(&taken[0].to_string()), "{error}");
    let error = bind(vec![]).await.expect_err("nowhere to listen");
    assert!(matches!(error, BindError::NoAddress), "{error:?}");
    let two = vec![SocketAddr::from(([127, 0, 0, 1], 0)); 2];
    let error = bind(two).await.expect_err("two of one family");
    assert!(matches!(error, BindError::Addresses { .. }), "{error:?}");
    bob.close().await;
}
