//! `talka models pull`: a model from the hub to this computer.

use crate::{cli::NodeAt, exit::Exit, hub::Access, output, quantity::Size};
use anyhow::Result;
use serde_json::json;
use talka_hub::HubRef;

pub async fn run(at: &NodeAt, access: &Access, reference: HubRef) -> Result<Exit> {
    let pulled = access.pull(&reference).await?;
    if at.json {
        output::json(&json!({
            "ref": reference.to_string(), "name": pulled.name, "commit": pulled.commit,
            "path": pulled.path, "bytes": pulled.bytes,
        }))?;
        return Ok(Exit::Done);
    }
    let (size, path) = (Size(pulled.bytes), pulled.path.display());
    output::line(format!("{reference} is here: {size} in {path}"))?;
    output::line(format!("serve it: talka up --model {reference}"))?;
    Ok(Exit::Done)
}
