//! Peers that break the rules, played by a bare QUIC endpoint.

#![allow(missing_docs, reason = "a test binary")]

mod common;

use common::{endpoint, linked, node_id, within};
use iroh::{
    EndpointAddr, PublicKey, SecretKey, TransportAddr,
    endpoint::{Connection, ConnectionError, RecvStream, SendStream, presets},
};
use std::time::Duration;
use talka_base::Blame;
use talka_net::{
    Endpoint, FrameError, Lane, LinkError,
    endpoint::ALPN,
    frame::{FRAME_VERSION, header},
};

/// A peer without our code.
async fn bare(secret: u8) -> iroh::Endpoint {
    iroh::Endpoint::builder(presets::Minimal)
        .secret_key(SecretKey::from_bytes(&[secret; 32]))
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")
        .expect("an address")
        .bind()
        .await
        .expect("loopback can be bound")
}

fn target(to: &Endpoint) -> EndpointAddr {
    let key = PublicKey::from_bytes(&to.node_id().0).expect("a key");
    EndpointAddr::from_parts(key, to.addresses().into_iter().map(TransportAddr::Ip))
}

async fn dial(from: &iroh::Endpoint, to: &Endpoint) -> Connection {
    within(from.connect(target(to), ALPN)).await.expect("reachable")
}

async fn open_lane(connection: &Connection, tag: u8) -> (SendStream, RecvStream) {
    let (mut send, receive) = within(connection.open_bi()).await.expect("two are allowed");
    within(send.write_all(&[tag])).await.expect("sent");
    (send, receive)
}

/// What Talka told the bare peer when it closed.
async fn reason(connection: &Connection) -> String {
    match within(connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => {
            String::from_utf8(close.reason.to_vec()).expect("text")
        }
        other => panic!("expected to be told a reason, found {other}"),
    }
}

/// Bytes on `lane` end the link with `expected`, the peer is to blame and is told so.
async fn check_bytes(lane: Lane, bytes: &[u8], finish: bool, expected: FrameError) {
    let (mallory, bob) = (bare(9).await, endpoint(2).await);
    let connection = dial(&mallory, &bob).await;
    let mut lanes = Vec::new();
    for lane in Lane::ALL {
        lanes.push(open_lane(&connection, lane.tag()).await);
    }
    let (send, _) = &mut lanes[lane as usize];
    within(send.write_all(bytes)).await.expect("sent");
    if finish {
        send.finish().expect("open");
    }
    let (sender, mut receiver) = within(bob.accept()).await.expect("open").split();
    let error = within(receiver.recv()).await.expect_err("the framing is broken");
    assert_eq!(error, LinkError::Frame { peer: node_id(9), source: expected });
    assert_eq!(error.blame(), Blame::Peer);
    assert!(reason(&connection).await.ends_with(&expected.to_string()));
    assert!(matches!(within(sender.closed()).await, LinkError::ClosedByUs { .. }));
    mallory.close().await;
    bob.close().await;
}

#[tokio::test]
async fn garbage_ends_the_link() {
    let lane = Lane::Control;
    let expected = FrameError::Version { lane, expected: FRAME_VERSION, found: b'G' };
    check_bytes(lane, b"GET / HTTP/1.1\r\n", false, expected).await;
}

#[tokio::test]
async fn an_oversized_frame_ends_the_link_before_it_is_sent() {
    for lane in Lane::ALL {
        let max = lane.payload_bytes_max();
        let expected = FrameError::Oversized { lane, found: max as u64 + 1, max };
        let [a, b, c, d] = (max as u32 + 1).to_le_bytes();
        check_bytes(lane, &[FRAME_VERSION, a, b, c, d], false, expected).await;
    }
}

#[tokio::test]
async fn a_lane_that_ends_inside_a_frame_ends_the_link() {
    let lane = Lane::Activations;
    let expected = FrameError::Truncated { lane, expected: 1005, found: 7 };
    let announced = header(lane, 1000).expect("short enough");
    check_bytes(lane, &[&announced[..], &[1, 2]].concat(), true, expected).await;
}

#[tokio::test]
async fn a_lane_that_is_reset_ends_the_link() {
    let (mallory, bob) = (bare(9).await, endpoint(2).await);
    let connection = dial(&mallory, &bob).await;
    let _control = open_lane(&connection, Lane::Control.tag()).await;
    let (mut send, _receive) = open_lane(&connection, Lane::Activations.tag()).await;
    let (_sender, mut receiver) = within(bob.accept()).await.expect("open").split();
    send.reset(7_u8.into()).expect("open");
    let error = within(receiver.recv()).await.expect_err("the lane is gone");
    let lane = Lane::Activations;
    assert_eq!(error, LinkError::Abandoned { peer: node_id(9), lane });
    assert!(reason(&connection).await.ends_with("abandoned the activations lane"));
    mallory.close().await;
    bob.close().await;
}

#[tokio::test]
async fn wrong_lanes_are_refused_with_a_reason() {
    for tags in [[b'c', b'c'], [b'x', b'a']] {
        let (mallory, bob) = (bare(9).await, endpoint(2).await);
        let connection = dial(&mallory, &bob).await;
        for tag in tags {
            // The second may find the connection closed already.
            if let Ok((mut send, _)) = within(connection.open_bi()).await {
                let _ = within(send.write_all(&[tag])).await;
            }
        }
        let reason = reason(&connection).await;
        assert!(reason.ends_with("expected each of 99 and 97 once"), "{reason}");
        mallory.close().await;
        bob.close().await;
    }
}

#[tokio::test]
async fn another_protocol_gets_no_link() {
    let (mallory, bob) = (bare(9).await, endpoint(2).await);
    let error = within(mallory.connect(target(&bob), b"other/1")).await;
    assert!(error.is_err());
    mallory.close().await;
    bob.close().await;
}

/// Goal: diallers that never finish delay nobody.
/// Method: forty connections that open no lane, past the number that need not prove their
/// address; then an honest dialler must get through while all of them still hang.
#[tokio::test]
async fn diallers_that_never_finish_delay_nobody() {
    let (mallory, bob, alice) = (bare(9).await, endpoint(2).await, endpoint(1).await);
    let mut hanging = Vec::new();
    for _ in 0..40 {
        hanging.push(dial(&mallory, &bob).await);
    }
    let (dialled, accepted) = linked(&alice, &bob).await;
    assert_eq!(accepted.peer(), alice.node_id());
    assert_eq!(dialled.peer(), bob.node_id());
    assert!(hanging.iter().all(|connection| connection.close_reason().is_none()));
    // And in the end they are shown the door.
    for connection in &hanging {
        tokio::time::timeout(Duration::from_secs(60), connection.closed()).await.expect("closed");
    }
    mallory.close().await;
    bob.close().await;
    alice.close().await;
}
