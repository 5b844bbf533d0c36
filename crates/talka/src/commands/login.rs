//! `talka login`: a fresh link that lets a browser in, alone on standard output.

use crate::{cli::NodeAt, client::Client, exit::Exit, output};
use anyhow::Result;
use serde_json::json;

pub async fn run(at: NodeAt) -> Result<Exit> {
    let client = Client::find(&at)?;
    let link = client.login_link().await?;
    let address = format!("{}{}", client.base(), link.path);
    if at.json {
        output::json(&json!({ "link": address, "expires_at": link.expires_at }))?;
    } else {
        output::line(&address)?;
        eprintln!("Open it in a browser: it is good once, for 10 minutes.");
    }
    Ok(Exit::Done)
}
