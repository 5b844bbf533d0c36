//! `talka invite`: the invitation alone on standard output, so that it can be piped, or in a file.

use crate::{cli::InviteArgs, client::Client, exit::Exit, files, output, quantity};
use anyhow::Result;
use talka_node::api::InviteOptions;

pub async fn run(args: InviteArgs) -> Result<Exit> {
    let client = Client::find(&args.at)?;
    let valid_ms = u64::try_from(args.valid.as_millis())?;
    let report = client.invite(InviteOptions { reusable: args.reusable, valid_ms }).await?;
    if let Some(path) = &args.out {
        files::write_invitation(path, &report.invite)?;
    }
    if args.at.json {
        output::json(&report)?;
        return Ok(Exit::Done);
    }
    if args.out.is_none() {
        output::line(&report.invite)?;
    }
    let uses = if report.reusable { "any number of nodes" } else { "one node" };
    eprintln!(
        "For {uses}, valid for {}. On the other computer: talka join INVITE",
        quantity::show_ms(valid_ms)
    );
    Ok(Exit::Done)
}
