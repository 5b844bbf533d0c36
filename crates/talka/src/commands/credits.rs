//! `talka credits`: who earned and who spent, and why each line of this member's account is there.

mod explain;

use crate::{
    cli::CreditsArgs,
    client::Client,
    exit::Exit,
    output::{self, Table},
    quantity::{self, signed_gft},
};
use anyhow::Result;
use serde::Serialize;
use talka_node::api::{CreditsReport, EntryReport};

/// Entries that are looked through at a time for those of one member.
const LOOK: u64 = 400;

/// What programs get.
#[derive(Debug, Serialize)]
struct Document {
    #[serde(flatten)]
    report: CreditsReport,
    lines: Vec<EntryReport>,
}

pub async fn run(args: CreditsArgs) -> Result<Exit> {
    let client = Client::find(&args.at)?;
    let report = client.credits().await?;
    let lines = lines(&client, &report.member.to_string(), args.last).await?;
    if args.at.json {
        output::json(&Document { report, lines })?;
        return Ok(Exit::Done);
    }
    let CreditsReport { balance, reserved, held, economy, .. } = &report;
    output::line(format!(
        "balance {balance}, reserved {reserved}, held {held}, economy {economy}"
    ))?;
    if let Some((credits, from)) = report.expiring {
        let left_ms = from.since_ms(quantity::now());
        output::line(format!("{credits} unused expire from {} on", quantity::show_ms(left_ms)))?;
    }
    members(&report).print()?;
    if !lines.is_empty() {
        output::line("")?;
        account(&report, &lines).print()?;
    }
    Ok(Exit::Done)
}

fn members(report: &CreditsReport) -> Table<7> {
    let mut table =
        Table::new(["NAME", "MEMBER", "BALANCE", "GRANTED", "EARNED", "SPENT", "GFLOP"]);
    for member in &report.members {
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
    table
}

fn account(report: &CreditsReport, lines: &[EntryReport]) -> Table<4> {
    let mut table = Table::new(["HEIGHT", "WHAT", "CHANGE", "WHY"]);
    let member = report.member.to_string();
    for entry in lines {
        table.row([
            entry.height.to_string(),
            entry.kind.clone(),
            signed_gft(change(entry, &member, "spendable")),
            explain::why(entry),
        ]);
        let held = change(entry, &member, "held");
        if held != 0 {
            let why = "what common work earned, before it can be spent".into();
            table.row([String::new(), "held".into(), signed_gft(held), why]);
        }
        for session in explain::sessions(entry, report.member) {
            table.row([String::new(), "session".into(), String::new(), session]);
        }
    }
    table
}

/// What an entry did to a bucket of `member`.
fn change(entry: &EntryReport, member: &str, bucket: &str) -> i64 {
    let of = entry.postings.iter().filter(|posting| posting.account == member);
    let of = of.filter(|posting| posting.bucket.as_deref() == Some(bucket));
    of.map(|posting| posting.change).sum()
}

/// The last entries, at most `last`, that moved credits of `member`, the earliest first.
async fn lines(client: &Client, member: &str, last: usize) -> Result<Vec<EntryReport>> {
    let mut end = client.status().await?.ledger_height;
    let mut lines = Vec::new();
    while lines.len() < last && end > 0 {
        let from = end.saturating_sub(LOOK);
        let page = client.ledger(from).await?;
        let concerns = |entry: &EntryReport| {
            entry.height < end && entry.postings.iter().any(|posting| posting.account == member)
        };
        lines.extend(page.into_iter().rev().filter(concerns));
        end = from;
    }
    lines.truncate(last);
    lines.reverse();
    Ok(lines)
}
