//! `talka models rm`: frees the disk of a fetched model.
//!
//! A node that serves it goes on: it holds the files open. After its next start it fetches them again.

use crate::{cli::NodeAt, exit::Exit, hub::Access, output, quantity::Size};
use anyhow::Result;
use serde_json::json;
use talka_hub::HubRef;

pub fn run(at: &NodeAt, access: &Access, reference: &HubRef) -> Result<Exit> {
    let bytes = access.store.remove(reference)?;
    if at.json {
        output::json(&json!({ "ref": reference.to_string(), "bytes": bytes }))?;
    } else {
        output::line(format!("removed {reference}: {}", Size(bytes)))?;
    }
    Ok(Exit::Done)
}
