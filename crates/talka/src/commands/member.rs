//! `talka member`: the stake of this node's member, and which keys act for it.
//!
//! A root key is a file that belongs on a stick or on a computer that is never online. It is read where this command
//! runs and never sent.

use crate::{
    cli::{MemberAction, MemberArgs, Signing},
    client::Client,
    exit::Exit,
    files,
    output::{self, Table},
    quantity,
};
use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use std::{fs, path::Path, time::Duration};
use talka_node::{
    api::{ActingNode, KeyChange, KeysOrder, OwnMember, RootOrder},
    base::{Keypair, MemberId, NodeId, Signed, Tick, hex},
};

pub async fn run(args: MemberArgs) -> Result<Exit> {
    let json = args.at.json;
    let action = match args.action.unwrap_or(MemberAction::Show) {
        MemberAction::Key { file } => return made(&file, json),
        MemberAction::Sign { order, root } => {
            let order: RootOrder = document(&order, "an order to sign")?;
            output::json(&root_key(&root)?.sign(order))?;
            return Ok(Exit::Done);
        }
        action => action,
    };
    let client = Client::find(&args.at)?;
    match action {
        MemberAction::Stake { credits, days } => {
            show(&client.lock_stake(credits, days).await?, json)?;
        }
        MemberAction::Unstake { credits } => show(&client.unlock_stake(credits).await?, json)?,
        MemberAction::Root { key, by } => root(&client, key, &by, json).await?,
        MemberAction::Delegate { node, valid, by } => {
            delegate(&client, node, valid, &by, json).await?;
        }
        MemberAction::Revoke { node, by } => {
            change(&client, KeyChange::Revoke { node }, &by, json).await?;
        }
        MemberAction::Submit { order } => {
            let signed: Signed<RootOrder> = document(&order, "a signed order")?;
            show(&client.change_keys(&KeysOrder::Order(signed)).await?, json)?;
        }
        MemberAction::Show | MemberAction::Key { .. } | MemberAction::Sign { .. } => {
            show(&client.member().await?, json)?;
        }
    }
    Ok(Exit::Done)
}

/// A fresh root key in `file`.
fn made(file: &Path, json: bool) -> Result<Exit> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).context("the operating system gives no random bytes")?;
    files::write_secret(file, &hex::show(&secret))?;
    let key = MemberId(Keypair::from_secret(&secret).public());
    if json {
        output::json(&serde_json::json!({ "key": key }))?;
    } else {
        output::line(key.to_string())?;
        eprintln!("Keep {} away from computers that are online.", file.display());
    }
    Ok(Exit::Done)
}

/// The first root is this node's word; a later one that of the root before it.
async fn root(client: &Client, key: MemberId, by: &Signing, json: bool) -> Result<()> {
    if client.member().await?.root.is_none() {
        return show(&client.change_keys(&KeysOrder::Root(key)).await?, json);
    }
    change(client, KeyChange::Root { key }, by, json).await
}

async fn delegate(
    client: &Client,
    node: Option<NodeId>,
    valid: Duration,
    by: &Signing,
    json: bool,
) -> Result<()> {
    let node = match node {
        Some(node) => node,
        None => client.status().await?.node,
    };
    let expires_at = quantity::now().plus_ms(u64::try_from(valid.as_millis())?);
    change(client, KeyChange::Delegate { node, expires_at }, by, json).await
}

/// Has the root sign `change` and passes it on; without the root's file, prints what it is to sign.
async fn change(client: &Client, change: KeyChange, by: &Signing, json: bool) -> Result<()> {
    let OwnMember { network, member, next_key_order: serial, .. } = client.member().await?;
    let order = RootOrder { network, member, serial, change };
    let Some(file) = &by.root else {
        output::json(&order)?;
        eprintln!(
            "Not done yet: have it signed by `talka member sign`, then `talka member submit` it."
        );
        return Ok(());
    };
    let signed = root_key(file)?.sign(order);
    show(&client.change_keys(&KeysOrder::Order(signed)).await?, json)
}

fn root_key(file: &Path) -> Result<Keypair> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let secret = hex::parse(text.trim())
        .map_err(|_| anyhow::anyhow!("{} holds no root key", file.display()))?;
    Ok(Keypair::from_secret(&secret))
}

fn document<T: DeserializeOwned>(file: &Path, what: &str) -> Result<T> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    serde_json::from_str(&text).with_context(|| format!("{} is not {what}", file.display()))
}

fn show(report: &OwnMember, json: bool) -> Result<()> {
    if json {
        return Ok(output::json(report)?);
    }
    let now = quantity::now();
    let OwnMember { name, member, staked, stake_multiplier_millionths: stake, .. } = report;
    let suspended = if report.is_suspended { ", suspended by the members" } else { "" };
    output::line(format!("{name} ({member}){suspended}"))?;
    let locked = report.locked_until.map_or_else(String::new, |until| {
        format!(", locked for {}", quantity::show_ms(until.since_ms(now)))
    });
    let (whole, part) = (stake / 1_000_000, stake % 1_000_000);
    output::line(format!("stake {staked}, multiplier {whole}.{part:06}{locked}"))?;
    match report.root {
        Some(root) => output::line(format!("root key {root}"))?,
        None => output::line("no root key: each of its nodes acts for it")?,
    }
    let mut table = Table::new(["NODE", "NAME", "ACTS"]);
    for node in &report.nodes {
        table.row([node.node.short(), node.name.clone(), acts(node, now)]);
    }
    Ok(table.print()?)
}

fn acts(node: &ActingNode, now: Tick) -> String {
    match (node.may_act, node.until) {
        (true, Some(until)) => format!("for {} still", quantity::show_ms(until.since_ms(now))),
        (true, None) => "yes".into(),
        (false, Some(_)) => "no longer".into(),
        (false, None) => "no".into(),
    }
}
