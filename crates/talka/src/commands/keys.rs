//! `talka keys`: who may call the node, and how much.

use crate::{
    cli::{KeysAction, KeysAddArgs, KeysArgs, NodeAt},
    client::Client,
    exit::Exit,
    output::{self, Table},
    quantity,
};
use anyhow::Result;
use talka_node::{
    api::{KeyLimits, KeyOrder, KeyReport, Scope},
    base::Tick,
};

pub async fn run(args: KeysArgs) -> Result<Exit> {
    let client = Client::find(&args.at)?;
    match args.action.unwrap_or(KeysAction::List) {
        KeysAction::List => list(&client, &args.at).await,
        KeysAction::Add(order) => add(&client, &args.at, order).await,
        KeysAction::Rm { key } => {
            let removed = client.remove_key(&key).await?;
            if args.at.json {
                output::json(&removed)?;
            } else {
                output::line(format!("removed {} ({})", removed.name, removed.id))?;
            }
            Ok(Exit::Done)
        }
    }
}

async fn add(client: &Client, at: &NodeAt, args: KeysAddArgs) -> Result<Exit> {
    let scopes = if args.scopes.is_empty() { vec![Scope::Infer] } else { args.scopes };
    let order = KeyOrder {
        name: args.name,
        scopes,
        limits: KeyLimits {
            budget: args.budget,
            requests_per_minute: args.requests_per_minute,
            concurrent: args.concurrent,
        },
        valid_ms: args.expires.map(|time| u64::try_from(time.as_millis())).transpose()?,
    };
    let made = client.add_key(&order).await?;
    if at.json {
        output::json(&made)?;
        return Ok(Exit::Done);
    }
    output::line(made.secret.reveal())?;
    eprintln!("This is shown only now: the node keeps no more than its hash.");
    Ok(Exit::Done)
}

async fn list(client: &Client, at: &NodeAt) -> Result<Exit> {
    let keys = client.keys().await?;
    if at.json {
        output::json(&keys)?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new([
        "NAME", "ID", "SCOPES", "SPENT", "HELD", "BUDGET", "A MINUTE", "AT ONCE", "RUNNING",
        "EXPIRES",
    ]);
    let now = quantity::now();
    for key in &keys {
        table.row(row(key, now));
    }
    table.print()?;
    Ok(Exit::Done)
}

fn row(key: &KeyReport, now: Tick) -> [String; 10] {
    let shown = |limit: Option<u32>| limit.map(|limit| limit.to_string()).unwrap_or_default();
    let expires = key.expires_at.map(|at| match at.since_ms(now) {
        0 => "expired".to_owned(),
        left_ms => format!("in {}", quantity::show_ms(left_ms)),
    });
    let scopes: Vec<String> = key.scopes.iter().map(Scope::to_string).collect();
    [
        key.name.clone(),
        key.id.to_string(),
        scopes.join(", "),
        key.spent.to_string(),
        key.held.to_string(),
        key.limits.budget.map(|budget| budget.to_string()).unwrap_or_default(),
        shown(key.limits.requests_per_minute),
        shown(key.limits.concurrent),
        key.running.to_string(),
        expires.unwrap_or_default(),
    ]
}
