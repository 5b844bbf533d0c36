//! `talka ledger witness`: who has to agree before an entry counts.

use crate::{
    cli::WitnessAction,
    client::Client,
    commands::peers::named,
    output::{self, Table},
};
use anyhow::Result;
use talka_node::api::{OrderReport, WitnessReport};

pub async fn run(client: &Client, action: Option<WitnessAction>, json: bool) -> Result<()> {
    let report = match action.unwrap_or(WitnessAction::List) {
        WitnessAction::List => client.ledger_order().await?,
        WitnessAction::Appoint { nodes } => {
            let peers = client.peers().await?;
            let nodes = nodes.iter().map(|node| named(&peers, node)).collect::<Result<Vec<_>>>()?;
            client.appoint(&nodes).await?
        }
        WitnessAction::Lead => client.order_by_turns(true).await?,
        WitnessAction::Follow => client.order_by_turns(false).await?,
    };
    if json {
        return Ok(output::json(&report)?);
    }
    show(&report)
}

fn show(report: &OrderReport) -> Result<()> {
    let OrderReport { founder, by_turns, witnesses, quorum, faulty_max, block, size, halted } =
        report;
    output::line(if witnesses.is_empty() {
        "no witnesses: an entry counts once the founder signed it".to_owned()
    } else {
        format!(
            "an entry counts once {quorum} of {} witnesses cosigned it: {faulty_max} may be dishonest \
             or dead",
            witnesses.len()
        )
    })?;
    output::line(if *by_turns {
        "the witnesses order entries by turns".to_owned()
    } else {
        format!("the founder, {founder}, orders entries")
    })?;
    if let (Some(block), Some(size)) = (block, size) {
        output::line(format!("last checkpoint: block {block}, {size} entries"))?;
    }
    if let Some(reason) = halted {
        output::line(format!("stands still: {reason}"))?;
    }
    if witnesses.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(["NAME", "NODE", "LINKED", "COSIGNED THE LAST"]);
    for WitnessReport { node, name, linked, cosigned } in witnesses {
        let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
        table.row([name.clone(), node.to_string(), yes(*linked), yes(*cosigned)]);
    }
    Ok(table.print()?)
}
