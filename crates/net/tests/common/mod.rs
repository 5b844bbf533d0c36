//! What the tests of real endpoints share.

#![allow(dead_code, reason = "each test binary uses its own part")]

use bytes::Bytes;
use std::time::Duration;
use talka_base::{Keypair, NodeId};
use talka_net::{BindOptions, Endpoint, Link};

/// Fails a test that hangs. Generous: no test asserts how long anything takes.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("ready within a minute")
}

pub fn node_id(secret: u8) -> NodeId {
    NodeId(Keypair::from_secret(&[secret; 32]).public())
}

/// An endpoint on loopback whose key is made of `secret`.
pub async fn endpoint(secret: u8) -> Endpoint {
    let keypair = Keypair::from_secret(&[secret; 32]);
    Endpoint::bind(BindOptions::loopback(keypair)).await.expect("loopback can be bound")
}

/// The two ends of a link that `from` dials to `to`.
pub async fn linked(from: &Endpoint, to: &Endpoint) -> (Link, Link) {
    let addresses = to.addresses();
    let (dialled, accepted) =
        within(async { tokio::join!(from.connect(to.node_id(), &addresses), to.accept()) }).await;
    (dialled.expect("reachable"), accepted.expect("endpoint open"))
}

/// `length` bytes that differ with `seed` and position.
pub fn bytes_of(seed: u32, length: usize) -> Bytes {
    (0..length).map(|at| (seed as usize + at * 31) as u8).collect()
}
