//! `talka-relay [tcp] TARGET DELAY_MS [BYTES_PER_S]`: a relay in front of the node at the UDP address TARGET,
//! or of the server at the TCP address TARGET. Prints where others reach it, and ends with its standard input.

use std::{error::Error, io, net::SocketAddr, time::Duration};
use talka_sim::{LinkModel, Relay, TcpRelay};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (tcp, arguments) = match arguments.as_slice() {
        [tcp, rest @ ..] if tcp == "tcp" => (true, rest),
        all => (false, all),
    };
    let (target, delay, rate) = match arguments {
        [target, delay] => (target, delay, None),
        [target, delay, rate] => (target, delay, Some(rate.parse()?)),
        _ => return Err("expected [tcp] TARGET DELAY_MS [BYTES_PER_S]".into()),
    };
    let target: SocketAddr = target.parse()?;
    let delay = Duration::from_secs_f64(delay.parse::<f64>()? / 1e3);
    let model = LinkModel { delay, rate, ..LinkModel::default() };
    if tcp {
        let relay = TcpRelay::start(target, model, 1)?;
        run(relay.address())
    } else {
        let relay = Relay::start(target, model, 1)?;
        run(relay.address())
    }
}

/// While the caller's relay is there.
fn run(address: SocketAddr) -> Result<(), Box<dyn Error>> {
    println!("{address}");
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}
