//! A rogue that breaks frames and messages.

use crate::{
    common::{node, span, wait_for},
    rogue::{Rogue, blamed},
};
use iroh::{
    EndpointAddr, PublicKey, SecretKey, TransportAddr,
    endpoint::{Connection, presets},
};
use talka_net::{Lane, endpoint::ALPN, frame};
use talka_node::{Node, api::Fault};

/// A connection without our code, with the keys of a member or of a stranger.
async fn bare(node: &Node, rogue: &Rogue, secret: [u8; 32]) -> (iroh::Endpoint, Connection) {
    let endpoint = iroh::Endpoint::builder(presets::Minimal)
        .secret_key(SecretKey::from_bytes(&secret))
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")
        .expect("an address")
        .bind()
        .await
        .expect("loopback can be bound");
    let key = PublicKey::from_bytes(&node.id().0).expect("a key");
    let addresses = rogue.invite.addresses.iter().copied().map(TransportAddr::Ip);
    let target = EndpointAddr::from_parts(key, addresses);
    let connection = endpoint.connect(target, ALPN).await.expect("reachable");
    (endpoint, connection)
}

/// Greets on bare lanes, then writes `bytes` to one of them.
async fn write(connection: &Connection, hello: Option<Vec<u8>>, lane: Lane, bytes: &[u8]) {
    for opened in Lane::ALL {
        let (mut send, receive) = connection.open_bi().await.expect("two are allowed");
        send.write_all(&[opened.tag()]).await.expect("sent");
        if let Some(hello) = hello.as_ref().filter(|_| opened == Lane::Control) {
            let header = frame::header(opened, hello.len()).expect("short");
            send.write_all(&header).await.expect("sent");
            send.write_all(hello).await.expect("sent");
        }
        if opened == lane {
            send.write_all(bytes).await.expect("sent");
        }
        // They are part of the connection, which the test holds.
        std::mem::forget((send, receive));
    }
    connection.closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_none_are_blamed_on_members_and_strangers() {
    let dir = tempfile::tempdir().expect("a folder");
    let node = node(dir.path(), span(0, 2)).await;
    let rogue = Rogue::join(&node, 81).await;
    let version = [&[frame::FRAME_VERSION + 1][..], &[4, 0, 0, 0], b"oops"].concat();
    let tenfold = u32::try_from(10 * Lane::Activations.payload_bytes_max()).expect("fits");
    let oversized = [&[frame::FRAME_VERSION][..], &tenfold.to_le_bytes()].concat();
    for (count, (lane, bytes)) in
        [(Lane::Control, &version), (Lane::Activations, &version), (Lane::Activations, &oversized)]
            .into_iter()
            .enumerate()
    {
        let (_endpoint, connection) = bare(&node, &rogue, [81; 32]).await;
        let hello = rogue.hello(count as u64).to_bytes().to_vec();
        write(&connection, Some(hello), lane, bytes).await;
        blamed(&node, rogue.id(), Fault::Frame, count as u64).await;
    }
    // A stranger is not in the list of nodes, so all of them are counted together.
    let (_endpoint, connection) = bare(&node, &rogue, [82; 32]).await;
    write(&connection, None, Lane::Control, &version).await;
    let strangers =
        async || node.api().status().await.faults_of_strangers.get(&Fault::Frame).copied();
    assert_eq!(wait_for("a stranger's fault", strangers).await, 1);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_none_are_blamed() {
    let dir = tempfile::tempdir().expect("a folder");
    let node = node(dir.path(), span(0, 2)).await;
    let rogue = Rogue::join(&node, 83).await;
    let wrong: [(Lane, &'static [u8]); 4] = [
        (Lane::Control, b"\xff\xff\xff nonsense"),
        (Lane::Control, b""),
        (Lane::Activations, b"\x09\x00\x00"),
        (Lane::Activations, b"\x01\x00\x00 no activation"),
    ];
    for (before, (lane, bytes)) in wrong.into_iter().enumerate() {
        let linked = rogue.link(&[], before as u64).await;
        linked.raw(lane, bytes).await;
        blamed(&node, rogue.id(), Fault::Message, before as u64).await;
    }
    node.shutdown().await;
}
