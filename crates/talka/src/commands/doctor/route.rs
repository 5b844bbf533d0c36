//! `talka doctor route`: which way a request would go now, and why not another.

use crate::{
    cli::NodeAt,
    client::Client,
    exit::Exit,
    output::{self, Table},
    quantity::show_us,
};
use anyhow::Result;
use talka_node::api::RouteReport;

pub async fn run(at: &NodeAt, model: &str) -> Result<Exit> {
    let report = Client::find(at)?.route(model).await?;
    if at.json {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    Ok(if report.missing.is_none() { Exit::Done } else { Exit::NoRoute })
}

fn print(report: &RouteReport) -> Result<()> {
    let model = &report.model;
    match (&report.token_us, &report.missing) {
        (Some(us), _) => {
            let hops = report.hops.iter().map(|hop| format!("{} {}", hop.name, hop.span));
            let hops = hops.collect::<Vec<_>>().join(" > ");
            output::line(format!("{model}: {hops}, {} a token", show_us(*us)))?;
        }
        (None, Some(gap)) => output::line(format!(
            "{model}: no route, nobody serves layers {gap} of {}; add a node or more --memory",
            report.layers
        ))?,
        (None, None) => output::line(format!("{model}: no route"))?,
    }
    let mut table = Table::new(["NODE", "LAYERS", "A LAYER", "LOAD", "AWAY", "THROUGH IT", "WHY"]);
    for stage in &report.considered {
        table.row([
            stage.name.clone(),
            stage.span.to_string(),
            show_us(stage.layer_us.into()),
            stage.load.to_string(),
            show_us(stage.from_head_us.into()),
            stage.through_us.map(show_us).unwrap_or_default(),
            stage.why.clone(),
        ]);
    }
    table.print()?;
    for node in &report.closed {
        output::line(format!("{} gives no work to others: {}", node.name, node.why))?;
    }
    Ok(())
}
