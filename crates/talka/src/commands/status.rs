//! `talka status`: the node at a glance.

use crate::{cli::NodeAt, client::Client, exit::Exit, output};
use anyhow::Result;

pub async fn run(at: NodeAt) -> Result<Exit> {
    let status = Client::find(&at)?.status().await?;
    if at.json {
        output::json(&status)?;
        return Ok(Exit::Done);
    }
    let lines = [
        ("node", format!("{} {}", status.name, status.node)),
        ("version", status.version),
        ("member", status.member.to_string()),
        ("network", format!("{} {}", status.network_name, status.network)),
        ("founder", status.founder.to_string()),
        ("nodes", format!("{} of {} answer", status.nodes_alive, status.nodes_known)),
        ("requests", format!("{} running here", status.requests_running)),
        ("sessions", format!("{} held by stages here", status.sessions_held)),
        ("balance", status.balance.to_string()),
        ("ledger", format!("{} entries", status.ledger_height)),
    ];
    for (name, value) in lines {
        output::line(format!("{name:<10}{value}"))?;
    }
    for model in &status.models {
        let state = if model.complete { "complete" } else { "incomplete" };
        output::line(format!("{:<10}{} ({state})", "model", model.name))?;
    }
    Ok(Exit::Done)
}
