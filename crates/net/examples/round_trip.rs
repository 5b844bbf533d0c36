//! Measures how long a 16 KiB frame takes to another endpoint of this process and back.
//!
//! `cargo run --release -p talka-net --example round_trip`

use bytes::Bytes;
use std::{
    error::Error,
    time::{Duration, Instant},
};
use talka_base::Keypair;
use talka_net::{BindOptions, Endpoint, Lane};

const FRAME_BYTES: usize = 16 * 1024;
const WARM_UP: usize = 200;
const ROUND_TRIPS: usize = 2_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let bind = |secret| Endpoint::bind(BindOptions::loopback(Keypair::from_secret(&[secret; 32])));
    let (alice, bob) = (bind(1).await?, bind(2).await?);
    let addresses = bob.addresses();
    let (dialled, accepted) = tokio::join!(alice.connect(bob.node_id(), &addresses), bob.accept());
    let (sender, mut receiver) = dialled?.split();
    let (echo_sender, mut echo_receiver) = accepted.ok_or("the endpoint closed")?.split();
    tokio::spawn(async move {
        while let Ok((lane, payload)) = echo_receiver.recv().await {
            if echo_sender.send(lane, payload).await.is_err() {
                break;
            }
        }
    });

    let payload = Bytes::from(vec![7; FRAME_BYTES]);
    let mut times = Vec::with_capacity(ROUND_TRIPS);
    for round_trip in 0..WARM_UP + ROUND_TRIPS {
        let start = Instant::now();
        sender.send(Lane::Activations, payload.clone()).await?;
        receiver.recv().await?;
        if round_trip >= WARM_UP {
            times.push(start.elapsed());
        }
    }
    times.sort();
    let at = |percent: usize| times[times.len() * percent / 100];
    let mean = times.iter().sum::<Duration>() / u32::try_from(times.len())?;
    println!(
        "{FRAME_BYTES} byte frames, {ROUND_TRIPS} round trips: \
         median {:?}, 90 % within {:?}, 99 % within {:?}, mean {mean:?}",
        at(50),
        at(90),
        at(99),
    );
    alice.close().await;
    bob.close().await;
    Ok(())
}
