//! `talka status`: the node at a glance.

use crate::{
    cli::NodeAt,
    client::Client,
    exit::Exit,
    output,
    quantity::{per_second, show_ms, show_us},
};
use anyhow::Result;
use std::time::{SystemTime, UNIX_EPOCH};
use talka_node::api::UpstreamReport;

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
        (
            "requests",
            format!(
                "{} running here, {} waiting, {} tokens since the start",
                status.requests_running, status.requests_waiting, status.tokens_chosen
            ),
        ),
        ("sessions", format!("{} held by stages here", status.sessions_held)),
        ("others", status.closed.unwrap_or_else(|| "may give work to this node".into())),
        (
            "speed",
            format!(
                "{} in products, {} of weights read",
                per_second(status.flops_per_second, "FLOP"),
                per_second(status.memory_bytes_per_second, "B")
            ),
        ),
        ("balance", status.balance.to_string()),
        ("ledger", format!("{} entries", status.ledger_height)),
    ];
    for (name, value) in lines {
        output::line(format!("{name:<10}{value}"))?;
    }
    for model in &status.models {
        let state = if model.complete { "complete" } else { "incomplete" };
        output::line(format!("{:<10}{} ({state})", "model", model.name))?;
        for stage in &model.coverage {
            output::line(format!("{:<12}{} on {}", "", stage.span, stage.name))?;
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    for route in &status.routes {
        let hops = route.hops.iter().map(|hop| format!("{} {}", hop.name, hop.span));
        let ago = show_ms(u64::try_from(now).unwrap_or_default().saturating_sub(route.at.0));
        output::line(format!(
            "{:<10}{ago} ago, {}: {}, {} a token; {}",
            "route",
            route.model,
            hops.collect::<Vec<_>>().join(" > "),
            show_us(route.token_us),
            route.why
        ))?;
    }
    if !status.faults_of_strangers.is_empty() {
        output::line(format!(
            "{:<10}{}",
            "strangers",
            output::faults(&status.faults_of_strangers)
        ))?;
    }
    for upstream in &status.upstreams {
        output::line(format!("{:<10}{}", "upstream", described(upstream)))?;
    }
    Ok(Exit::Done)
}

fn described(upstream: &UpstreamReport) -> String {
    let UpstreamReport { name, address, asked, failed, .. } = upstream;
    let models = match upstream.models.as_slice() {
        [] => "models known here".into(),
        models => models.join(", "),
    };
    let key = if upstream.has_key { "with a key" } else { "without a key" };
    let counts = format!("{asked} asked, {failed} failed");
    let last = upstream.last_failure.as_ref().map(|reason| format!(" (last: {reason})"));
    format!("{name} {address} ({models}; {key}): {counts}{}", last.unwrap_or_default())
}
