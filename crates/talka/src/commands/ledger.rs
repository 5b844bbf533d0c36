//! `talka ledger`: shows, checks, proves, exports and keeps what the network agreed on.

mod check;
mod witness;

use crate::{
    cli::{LEDGER_SHOWN, LedgerAction, LedgerArgs, NodeAt, RestoreArgs},
    client::Client,
    exit::Exit,
    files,
    output::{self, Table},
    quantity::{Size, signed_gft},
};
use anyhow::{Context, Result};
use std::{
    fs::{self, File},
    io::BufWriter,
    path::Path,
};
use talka_node::{
    api::{
        BackupReport, EntryReport, PostingReport, PruneReport, RestoreReport, RestoredIdentity,
        VerifyReport, check_backup, restore_backup,
    },
    base::{MemberId, NodeId, RequestId},
};

pub async fn run(args: LedgerArgs) -> Result<Exit> {
    let json = args.at.json;
    let action = args.action.unwrap_or(LedgerAction::Show { last: LEDGER_SHOWN });
    if let LedgerAction::Verify(args) = &action
        && check::run(args, json)?
    {
        return Ok(Exit::Done);
    }
    if let LedgerAction::Restore(RestoreArgs { file, check }) = &action {
        restore(file, *check, &args.at)?;
        return Ok(Exit::Done);
    }
    let client = Client::find(&args.at)?;
    match action {
        LedgerAction::Show { last } => show(&client, last, json).await?,
        LedgerAction::Verify(_) => verify(&client, json).await?,
        LedgerAction::Backup { file } => backup(&client, &file, json).await?,
        LedgerAction::Restore(_) => unreachable!("needs no node, and was done"),
        LedgerAction::Prune { keep_days } => prune(&client, keep_days, json).await?,
        LedgerAction::Export => export(&client, json).await?,
        LedgerAction::Proof { member: Some(member), out, .. } => {
            balance_proof(&client, member, out.as_deref(), json).await?;
        }
        LedgerAction::Proof { height, request, out, .. } => {
            let height = height.context("expected the position of an entry")?;
            proof(&client, (height, request), out.as_deref(), json).await?;
        }
        LedgerAction::Checkpoint { out } => checkpoint(&client, out.as_deref(), json).await?,
        LedgerAction::Consistency { old, out } => {
            consistency(&client, old, out.as_deref(), json).await?;
        }
        LedgerAction::Witness { action } => witness::run(&client, action, json).await?,
        LedgerAction::Evidence { out } => evidence(&client, out.as_deref(), json).await?,
    }
    Ok(Exit::Done)
}

async fn show(client: &Client, last: u64, json: bool) -> Result<()> {
    let height = client.status().await?.ledger_height;
    let entries = from(client, height.saturating_sub(last)).await?;
    if let Some(reason) = client.ledger_order().await?.halted {
        // Beside the entries, which are as they were.
        eprintln!("warning: {reason}");
    }
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
    let VerifyReport { since, entries, signatures, postings, papers, members, .. } = &report;
    if *since > 0 {
        output::line(format!(
            "a snapshot that the founder signed stands for entries 0 to {}",
            since - 1
        ))?;
    }
    output::line(format!(
        "verified {entries} entries: {signatures} signatures hold, {postings} postings derived \
         anew and equal, {members} members"
    ))?;
    if *papers > 0 {
        output::line(format!("{papers} papers of epochs give what their epochs say"))?;
    }
    output::line(format!(
        "minted {}, balances {}, reserved {}",
        report.minted, report.balances, report.reserved
    ))?;
    if report.witnesses > 0 {
        output::line(format!("final: enough of {} witnesses cosigned the end", report.witnesses))?;
    }
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

async fn proof(
    client: &Client,
    (height, request): (u64, Option<RequestId>),
    out: Option<&Path>,
    json: bool,
) -> Result<()> {
    let report = client.ledger_proof(height, request).await?;
    if json {
        keep(out, &report.proof)?;
        return Ok(output::json(&report)?);
    }
    let what = match request {
        Some(request) => format!("request {request} in entry {height}"),
        None => format!("entry {height}"),
    };
    show_proof(&what, &report.proof, report.founder, out)
}

async fn balance_proof(
    client: &Client,
    member: MemberId,
    out: Option<&Path>,
    json: bool,
) -> Result<()> {
    let report = client.balance_proof(member).await?;
    if json {
        keep(out, &report.proof)?;
        return Ok(output::json(&report)?);
    }
    show_proof(&format!("balance {}", report.balance), &report.proof, report.founder, out)
}

/// Prints a proof, or says where it was written and how to check it.
fn show_proof(what: &str, proof: &str, founder: NodeId, out: Option<&Path>) -> Result<()> {
    keep(out, proof)?;
    let Some(file) = out else { return Ok(output::text_now(proof)?) };
    let file = file.display();
    output::line(format!(
        "{file}: {what}; check it with\ntalka ledger verify --proof {file} --founder {founder}"
    ))?;
    Ok(())
}

async fn checkpoint(client: &Client, out: Option<&Path>, json: bool) -> Result<()> {
    let report = client.ledger_checkpoint().await?;
    keep(out, &report.checkpoint)?;
    match out {
        _ if json => output::json(&report)?,
        None => output::text_now(&report.checkpoint)?,
        Some(file) => {
            output::line(format!(
                "{}: block {}, {} entries",
                file.display(),
                report.number,
                report.size
            ))?;
        }
    }
    Ok(())
}

/// Keeps the ledger in `file`, which appears only once all of it is there and was replayed.
async fn backup(client: &Client, file: &Path, json: bool) -> Result<()> {
    let unfinished = file.with_added_extension("part");
    let shown = || format!("cannot write {}", unfinished.display());
    let mut out = BufWriter::new(File::create(&unfinished).with_context(shown)?);
    let bytes = client.ledger_backup(&mut out).await?;
    out.into_inner()
        .map_err(|error| error.into_error())
        .and_then(|f| f.sync_all())
        .with_context(shown)?;
    let report = check_backup(&unfinished)?;
    fs::rename(&unfinished, file).with_context(|| format!("cannot write {}", file.display()))?;
    if json {
        return Ok(output::json(&report)?);
    }
    output::line(format!("{}: {} in {}", file.display(), contents(&report), Size(bytes)))?;
    output::line("keep the node's identity.key as well: it is secret, and no backup holds it")?;
    Ok(())
}

/// Puts a backup into a data directory, or only looks at it.
fn restore(file: &Path, check: bool, at: &NodeAt) -> Result<()> {
    if check {
        let report = check_backup(file)?;
        if at.json {
            return Ok(output::json(&report)?);
        }
        return Ok(output::line(format!("{}: {}", file.display(), contents(&report)))?);
    }
    let data_dir = files::data_dir(at.data_dir.as_deref())?;
    let report = restore_backup(&data_dir, file)?;
    if at.json {
        return Ok(output::json(&report)?);
    }
    let RestoreReport { backup, new_entries, identity } = &report;
    let place = data_dir.display();
    output::line(format!("{place}: {}, {new_entries} new here", contents(backup)))?;
    output::line(match identity {
        RestoredIdentity::Founder => {
            "this directory's key is the founder's: entries that came after this backup must not be \
             lost, so restore the newest one that any member has before you start the node"
        }
        RestoredIdentity::Member => "this directory's key is a member's: start the node",
        RestoredIdentity::MembershipMissing => {
            "this directory's key is a member's, but its membership is among the removed entries: \
             restore from a node that keeps all, or ask to be invited again"
        }
        RestoredIdentity::Stranger => {
            "this directory's key is not in that network: put the identity.key of before in its place, \
             or join by an invitation"
        }
        RestoredIdentity::Missing => {
            "this directory has no key: put the identity.key of before into it, or join by an invitation"
        }
    })?;
    Ok(())
}

fn contents(backup: &BackupReport) -> String {
    let BackupReport { name, entries, blocks, .. } = backup;
    format!("{name:?}, {entries} entries and {blocks} blocks, all replayed")
}

async fn prune(client: &Client, keep_days: u32, json: bool) -> Result<()> {
    let report = client.ledger_prune(keep_days).await?;
    if json {
        return Ok(output::json(&report)?);
    }
    let PruneReport { removed, first, snapshot } = report;
    output::line(format!(
        "removed {removed} entries; the first after the founding is now {first}, a snapshot of the \
         state after {snapshot} stands for those before"
    ))?;
    Ok(())
}

async fn consistency(client: &Client, old: u64, out: Option<&Path>, json: bool) -> Result<()> {
    let report = client.ledger_consistency(old).await?;
    keep(out, &report.proof)?;
    match out {
        _ if json => output::json(&report)?,
        None => output::text_now(&report.proof)?,
        Some(file) => {
            let (file, founder, size) = (file.display(), report.founder, report.size);
            output::line(format!(
                "{file}: {size} entries begin with {old}; check it with\ntalka ledger verify \
                 --consistency {file} --checkpoint OLDER --founder {founder}"
            ))?;
        }
    }
    Ok(())
}

async fn evidence(client: &Client, out: Option<&Path>, json: bool) -> Result<()> {
    let report = client.ledger_evidence().await?;
    keep(out, &report.evidence)?;
    match out {
        _ if json => output::json(&report)?,
        None => output::text_now(&report.evidence)?,
        Some(file) => {
            let (file, accused) = (file.display(), report.accused);
            output::line(format!(
                "{file}: what convicts {accused}; check it with\ntalka ledger verify --evidence \
                 {file} --founder {accused}"
            ))?;
        }
    }
    Ok(())
}

/// Writes `text` into the file `out`, if one is named.
fn keep(out: Option<&Path>, text: &str) -> Result<()> {
    let Some(file) = out else { return Ok(()) };
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
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
