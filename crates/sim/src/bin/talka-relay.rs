//! `talka-relay TARGET DELAY_MS [BYTES_PER_S]`: a relay in front of the node at the UDP address TARGET. Prints
//! where others reach it, and ends with its standard input.

use std::{error::Error, io, net::SocketAddr, time::Duration};
use talka_sim::{LinkModel, Relay};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (target, delay, rate) = match arguments.as_slice() {
        [target, delay] => (target, delay, None),
        [target, delay, rate] => (target, delay, Some(rate.parse()?)),
        _ => return Err("expected TARGET DELAY_MS [BYTES_PER_S]".into()),
    };
    let target: SocketAddr = target.parse()?;
    let delay = Duration::from_secs_f64(delay.parse::<f64>()? / 1e3);
    let relay = Relay::start(target, LinkModel { delay, rate, ..LinkModel::default() }, 1)?;
    println!("{}", relay.address());
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}
