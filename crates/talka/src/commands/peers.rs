//! `talka peers`: the nodes of the network.

use crate::{
    cli::{PeersAction, PeersArgs},
    client::Client,
    exit::Exit,
    output::{self, Table},
    quantity::{self, Size, per_second, show_us},
};
use anyhow::{Result, bail};
use talka_node::{
    api::{PeerReport, StandingReport},
    base::NodeId,
};

pub async fn run(args: PeersArgs) -> Result<Exit> {
    let client = Client::find(&args.at)?;
    let mut peers = client.peers().await?;
    if let Some(PeersAction::Clear { node }) = &args.action {
        peers = client.clear(named(&peers, node)?).await?;
    }
    if args.at.json {
        output::json(&peers)?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new([
        "NAME",
        "NODE",
        "STATE",
        "MEMORY",
        "LOAD",
        "THERE AND BACK",
        "THROUGHPUT",
        "PRODUCTS",
        "WEIGHTS READ",
        "SERVES",
        "CLASS",
        "WORK COUNTS",
        "REPUTATION",
        "FAULTS",
    ]);
    for peer in peers {
        let speed = |model: &String| {
            let found = peer.layer_us.iter().find(|(name, _)| name == model);
            found
                .map(|(_, us)| format!(" at {} a layer", show_us((*us).into())))
                .unwrap_or_default()
        };
        let serves =
            peer.serves.iter().map(|(model, span)| format!("{model} {span}{}", speed(model)));
        table.row([
            peer.name.clone(),
            peer.node.short(),
            state(&peer),
            Size(peer.memory_bytes).to_string(),
            peer.load.to_string(),
            peer.round_trip_us.map(|us| show_us(us.into())).unwrap_or_default(),
            peer.link_bytes_per_second.map(|rate| per_second(rate, "B")).unwrap_or_default(),
            per_second(peer.flops_per_second, "FLOP"),
            per_second(peer.memory_bytes_per_second, "B"),
            serves.collect::<Vec<_>>().join(", "),
            peer.standing.class.clone().unwrap_or_else(|| "not rated".into()),
            counts(&peer.standing),
            format!("{:.1}", peer.reputation_thousandths as f64 / 1_000.0),
            output::faults(&peer.faults),
        ]);
    }
    table.print()?;
    Ok(Exit::Done)
}

/// The one node of this name, or whose id begins so.
/// The node that somebody means by a name, or the beginning of an id.
pub fn named(peers: &[PeerReport], text: &str) -> Result<NodeId> {
    let is_meant = |peer: &&PeerReport| {
        peer.name == text || (text.len() >= 4 && peer.node.to_string().starts_with(text))
    };
    let found: Vec<NodeId> = peers.iter().filter(is_meant).map(|peer| peer.node).collect();
    match found[..] {
        [node] => Ok(node),
        [] => bail!("no node is called {text:?}, expected a name or an id of `talka peers`"),
        _ => bail!("{} nodes are called {text:?}: say which by its id", found.len()),
    }
}

/// Multiplier times reliability, and what is the matter with it.
fn counts(standing: &StandingReport) -> String {
    let StandingReport { multiplier, reliability, .. } = standing;
    let note = match (&standing.halted, standing.quarantined_until) {
        (Some(why), _) => format!(" ({why})"),
        (None, Some(_)) => " (quarantine)".into(),
        (None, None) => String::new(),
    };
    format!("{multiplier:.4} × {reliability:.4}{note}")
}

fn state(peer: &PeerReport) -> String {
    let closed = peer.closed.as_ref().filter(|_| peer.alive);
    let closed = closed.map(|why| format!(", {why}")).unwrap_or_default();
    match (peer.this, peer.alive, peer.silent_ms) {
        (true, ..) => format!("this node{closed}"),
        (_, true, _) => format!("alive{closed}"),
        (.., Some(ms)) => format!("silent for {}", quantity::show_ms(ms)),
        (.., None) => "never heard".into(),
    }
}
