//! `talka credits`: who earned and who spent.

use crate::{
    cli::NodeAt,
    client::Client,
    exit::Exit,
    output::{self, Table},
};
use anyhow::Result;

pub async fn run(at: NodeAt) -> Result<Exit> {
    let report = Client::find(&at)?.credits().await?;
    if at.json {
        output::json(&report)?;
        return Ok(Exit::Done);
    }
    output::line(format!("balance {}, reserved {}", report.balance, report.reserved))?;
    let mut table =
        Table::new(["NAME", "MEMBER", "BALANCE", "GRANTED", "EARNED", "SPENT", "GFLOP"]);
    for member in report.members {
        let this = if member.member == report.member { " (this)" } else { "" };
        table.row([
            format!("{}{this}", member.name),
            member.member.short(),
            member.balance.to_string(),
            member.granted.to_string(),
            member.earned.to_string(),
            member.spent.to_string(),
            format!("{}.{:03}", member.flops.0 / 1_000_000_000, member.flops.0 / 1_000_000 % 1000),
        ]);
    }
    table.print()?;
    Ok(Exit::Done)
}
