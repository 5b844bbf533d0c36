//! `talka join`: with the node that runs for the data directory, else by starting one here; or, with `--dry-run`, not
//! at all.

mod forecast;

use super::up;
use crate::{
    cli::{JoinArgs, NodeArgs, UpArgs},
    client::{Client, ClientError},
    exit::Exit,
    files, output,
};
use anyhow::Result;

pub async fn run(args: JoinArgs) -> Result<Exit> {
    let JoinArgs { invite, dry_run, node } = args;
    let invite = files::invitation(invite)?;
    if dry_run {
        return forecast::run(invite, &node).await;
    }
    let Some(client) = running(&node).await? else {
        return up::run(UpArgs { node, join: Some(invite) }).await;
    };
    let report = client.join(&invite).await?;
    if node.json {
        output::json(&report)?;
    } else {
        output::line(format!(
            "joined network={} invited_by={}",
            report.network_name, report.invited_by
        ))?;
    }
    Ok(Exit::Done)
}

/// The node that uses the data directory, if it answers.
///
/// The directory decides, not `--http`: a node of another directory is somebody else's, and two
/// nodes cannot share one.
async fn running(node: &NodeArgs) -> Result<Option<Client>> {
    let data_dir = files::data_dir(node.data_dir.as_deref())?;
    let Some(kept) = files::read_http(&data_dir)? else { return Ok(None) };
    let client = Client::kept(&kept, files::api_key(&node.key)?)?;
    match client.status().await {
        Ok(_) => Ok(Some(client)),
        // What an ended node left; whoever listens there now is not ours.
        Err(ClientError::NoNode { .. } | ClientError::NotANode { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
