//! `talka ledger`: shows, checks and exports what the network agreed on.

use crate::{
    cli::{LEDGER_SHOWN, LedgerAction, LedgerArgs},
    client::Client,
    exit::Exit,
    output::{self, Table},
};
use anyhow::Result;
use talka_node::api::{EntryReport, PostingReport, VerifyReport};

pub async fn run(args: LedgerArgs) -> Result<Exit> {
    let client = Client::find(&args.at)?;
    let json = args.at.json;
    match args.action.unwrap_or(LedgerAction::Show { last: LEDGER_SHOWN }) {
        LedgerAction::Show { last } => show(&client, last, json).await?,
        LedgerAction::Verify => verify(&client, json).await?,
        LedgerAction::Export => export(&client, json).await?,
        LedgerAction::Proof { height } => proof(&client, height, json).await?,
    }
    Ok(Exit::Done)
}

async fn show(client: &Client, last: u64, json: bool) -> Result<()> {
    let height = client.status().await?.ledger_height;
    let entries = from(client, height.saturating_sub(last)).await?;
    if json {
        return Ok(output::json(&entries)?);
    }
    let mut table = Table::new(["HEIGHT", "KIND", "REQUEST", "POSTINGS"]);
    for entry in entries {
        let postings = entry
            .postings
            .iter()
            .map(|posting| format!("{} {}", short(posting), signed_gft(posting.change)));
        table.row([
            entry.height.to_string(),
            entry.kind,
            entry.request.map(|request| request.short()).unwrap_or_default(),
            postings.collect::<Vec<_>>().join(", "),
        ]);
    }
    Ok(table.print()?)
}

async fn verify(client: &Client, json: bool) -> Result<()> {
    let report = client.ledger_verify().await?;
    if json {
        return Ok(output::json(&report)?);
    }
    let VerifyReport { entries, signatures, postings, members, .. } = &report;
    output::line(format!(
        "verified {entries} entries: {signatures} signatures hold, {postings} postings derived \
         anew and equal, {members} members"
    ))?;
    output::line(format!(
        "minted {}, balances {}, reserved {}",
        report.minted, report.balances, report.reserved
    ))?;
    output::line(format!("head  {}\nstate {}", report.head, report.state))?;
    Ok(())
}

async fn export(client: &Client, json: bool) -> Result<()> {
    if json {
        return Ok(output::json(&from(client, 0).await?)?);
    }
    let mut next = 0;
    loop {
        let page = client.ledger(next).await?;
        let Some(last) = page.last() else { return Ok(()) };
        next = last.height + 1;
        for entry in &page {
            output::line(serde_json::to_string(entry)?)?;
        }
    }
}

async fn proof(client: &Client, height: u64, json: bool) -> Result<()> {
    let proof = client.ledger_proof(height).await?;
    if json {
        return Ok(output::json(&proof)?);
    }
    output::line(format!("height  {}", proof.height))?;
    output::line(format!("hash    {}", proof.hash))?;
    output::line(format!("founder {}", proof.founder))?;
    output::line(format!("signed  {}", proof.signed_entry))?;
    for later in proof.later {
        output::line(format!("later   {later}"))?;
    }
    Ok(())
}

/// Every entry from `height` on.
async fn from(client: &Client, height: u64) -> Result<Vec<EntryReport>> {
    let mut entries = Vec::new();
    let mut next = height;
    loop {
        let page = client.ledger(next).await?;
        let Some(last) = page.last() else { return Ok(entries) };
        next = last.height + 1;
        entries.extend(page);
    }
}

/// An account with its id cut to what tells a few apart, and the bucket where it is not the usual one.
fn short(posting: &PostingReport) -> String {
    const SHOWN: usize = 10;
    let account: String = posting.account.chars().take(SHOWN).collect();
    match posting.bucket.as_deref() {
        None | Some("spendable") => account,
        Some(bucket) => format!("{account} {bucket}"),
    }
}

/// A signed number of µGFT, in GFT.
fn signed_gft(micro: i64) -> String {
    let sign = if micro < 0 { '-' } else { '+' };
    let size = micro.unsigned_abs();
    format!("{sign}{}.{:06}", size / 1_000_000, size % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_keep_their_sign_and_all_six_decimals() {
        let shown = [0, -1, 2_500_000, i64::MIN].map(signed_gft);
        assert_eq!(shown, ["+0.000000", "-0.000001", "+2.500000", "-9223372036854.775808"]);
    }
}
