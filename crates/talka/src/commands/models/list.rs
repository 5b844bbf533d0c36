//! `talka models list`: the network's models, then those on this computer's disk.

use super::{served, served_by, state};
use crate::{
    cli::NodeAt,
    exit::Exit,
    hub::Access,
    output::{self, Table},
    progress,
    quantity::{Size, show_ms},
};
use anyhow::Result;
use serde_json::{Value, json};
use talka_hub::Kept;
use talka_node::api::ModelReport;

pub async fn run(at: &NodeAt, access: &Access) -> Result<Exit> {
    let kept = access.store.list()?;
    let served = match served(at).await? {
        Ok(served) => served,
        // With models on the disk there is something to show without a node.
        Err(error) if kept.is_empty() => return Err(error),
        Err(error) => {
            eprintln!("{error}");
            Vec::new()
        }
    };
    if at.json {
        let served = served.iter().map(serde_json::to_value);
        let disk = kept.iter().flat_map(documents).map(Ok);
        output::json(&served.chain(disk).collect::<Result<Vec<Value>, _>>()?)?;
        return Ok(Exit::Done);
    }
    if !served.is_empty() {
        print_served(&served)?;
    }
    if !kept.is_empty() {
        if !served.is_empty() {
            output::line("")?;
        }
        print_kept(&kept)?;
    }
    Ok(Exit::Done)
}

fn print_served(models: &[ModelReport]) -> Result<()> {
    let mut table =
        Table::new(["NAME", "LAYERS", "WEIGHTS", "CONTEXT", "STATE", "HERE", "SERVED BY"]);
    for model in models {
        table.row([
            model.name.clone(),
            model.shape.layers.to_string(),
            Size(model.weight_bytes).to_string(),
            model.shape.context.to_string(),
            state(model).into(),
            here(model),
            served_by(model).join(", "),
        ]);
        for adapter in &model.adapters {
            let mut row = <[String; 7]>::default();
            row[0] = format!("{}:{adapter}", model.name);
            table.row(row);
        }
    }
    Ok(table.print()?)
}

/// What the node asked holds of it in memory, and how long loading took.
fn here(model: &ModelReport) -> String {
    if let Some(underway) = &model.underway {
        return progress::told(underway);
    }
    let took = model.load_ms.map(|ms| format!(", loads in {}", show_ms(ms))).unwrap_or_default();
    match model.share_bytes {
        None => String::new(),
        Some(0) => format!("on disk{took}"),
        Some(bytes) => format!("{} of memory{took}", Size(bytes)),
    }
}

fn print_kept(kept: &[Kept]) -> Result<()> {
    let mut table = Table::new(["ON DISK", "SIZE", "STATE"]);
    for kept in kept {
        for model in &kept.models {
            let reference = model.reference(&kept.reference).to_string();
            table.row([reference, Size(model.bytes).to_string(), "whole".into()]);
        }
        if kept.models.is_empty() {
            let size = Size(kept.bytes).to_string();
            table.row([kept.reference.to_string(), size, "not complete".into()]);
        }
    }
    Ok(table.print()?)
}

/// What a program learns of a model on the disk: `ref` is how to name it in `--model`.
fn documents(kept: &Kept) -> Vec<Value> {
    if kept.models.is_empty() {
        let reference = kept.reference.to_string();
        return vec![json!({
            "name": kept.reference.repo(), "ref": reference, "on_disk": true, "whole": false,
            "commit": kept.commit, "bytes": kept.bytes,
        })];
    }
    let documents = kept.models.iter().map(|model| {
        json!({
            "name": model.name, "ref": model.reference(&kept.reference).to_string(),
            "on_disk": true, "whole": true, "commit": kept.commit, "bytes": model.bytes,
            "path": model.path,
        })
    });
    documents.collect()
}
