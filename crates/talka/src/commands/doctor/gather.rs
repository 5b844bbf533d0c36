//! Looks at this computer and asks its node. Decides nothing about what it finds.

use super::facts::{DataDir, Facts, HubFact, Kept, NodeFact, Running};
use crate::{
    cli::{HTTP_DEFAULT, NodeAt},
    client::{Client, ClientError},
    exit::Exit,
    files,
    hub::{is_offline, open},
    model_ref::Located,
};
use anyhow::Result;
use std::{
    fs, io,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use sysinfo::System;
use talka_hub::{HubError, Store};
use talka_node::ModelError;

/// A hub across the world answers in well under a second.
const HUB_PATIENCE: Duration = Duration::from_secs(2);

/// # Errors
/// Only if what was typed names no place to look.
pub async fn gather(at: &NodeAt) -> Result<Facts> {
    let path = files::data_dir(at.data_dir.as_deref())?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Facts {
        now_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        disk_free: talka_hub::free_bytes(&path),
        memory: memory(),
        models: kept(&path),
        hub: hub().await,
        udp: told(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map(drop)),
        node: node(at).await?,
        data_dir: data_dir(path),
    })
}

fn told(tried: io::Result<()>) -> Result<(), String> {
    tried.map_err(|error| error.to_string())
}

fn data_dir(path: PathBuf) -> DataDir {
    let existing = nearest(&path);
    let probe = existing.join(format!(".talka-doctor-{}", std::process::id()));
    let writable = told(fs::write(&probe, b"probe").and_then(|()| fs::remove_file(&probe)));
    DataDir { path, existing, writable }
}

fn memory() -> Option<(u64, u64)> {
    let mut system = System::new().ok()?;
    system.refresh_memory();
    Some((system.available_memory(), system.total_memory()))
}

/// Fetched models, each opened as a node would open it, which reads its headers.
fn kept(data_dir: &Path) -> Result<Kept, String> {
    let store = Store::new(data_dir);
    let all = store.list().map_err(|error| error.to_string())?;
    let mut kept = Kept { root: store.root().to_owned(), ..Kept::default() };
    for found in &all {
        kept.bytes += found.bytes;
        kept.count += found.models.len();
        if found.models.is_empty() {
            kept.unfinished.push(found.reference.to_string());
        }
        for model in &found.models {
            let reference = model.reference(&found.reference);
            // A file that is no model by itself is whole if it is there.
            let Ok(located) = Located::pulled(&reference, model.clone()) else { continue };
            if let Err(error) = talka_node::profile(located.source) {
                let list =
                    if is_unsupported(&error) { &mut kept.unsupported } else { &mut kept.broken };
                list.push((reference.to_string(), error.to_string()));
            }
        }
    }
    Ok(kept)
}

/// Whether the files are sound, and only this version cannot run them.
fn is_unsupported(error: &ModelError) -> bool {
    use ModelError::{Config, Template, TensorType, Tokenizer};
    matches!(error, Config(_) | Tokenizer(_) | Template(_) | TensorType { .. })
}

async fn hub() -> HubFact {
    if is_offline() {
        return HubFact::Forbidden;
    }
    let hub = match open() {
        Ok(hub) => hub,
        Err(error) => return HubFact::Misnamed(error.to_string()),
    };
    match hub.reach(HUB_PATIENCE).await {
        Ok(()) => HubFact::Answers(hub.host()),
        Err(HubError::Unreachable { host, reason }) => {
            HubFact::Silent(format!("cannot reach {host}: {reason}"))
        }
        Err(other) => HubFact::Silent(other.to_string()),
    }
}

/// Everything that only a running node can tell.
async fn node(at: &NodeAt) -> Result<NodeFact> {
    let client = match Client::find(at) {
        Ok(client) => client,
        Err(error) if Exit::of(&error) == Exit::NoRoute => {
            return Ok(absent(error.to_string(), HTTP_DEFAULT));
        }
        Err(error) => return Err(error),
    };
    Ok(match ask(&client).await {
        Ok(running) => NodeFact::Runs(Box::new(running)),
        Err(error) if error.exit() == Exit::NoRoute => {
            absent(format!("none answers at {}", client.address()), client.address())
        }
        Err(error) => NodeFact::Refuses(error.to_string()),
    })
}

async fn ask(client: &Client) -> Result<Running, ClientError> {
    Ok(Running {
        address: client.address().to_owned(),
        status: client.status().await?,
        peers: client.peers().await?,
        order: client.ledger_order().await?,
        ledger: client.ledger_verify().await.map_err(|error| error.to_string()),
    })
}

fn absent(why: String, address: &str) -> NodeFact {
    let free = told(TcpListener::bind(address).map(drop));
    NodeFact::Absent { why, address: address.to_owned(), free }
}

/// `path`, or its nearest ancestor that exists.
fn nearest(path: &Path) -> PathBuf {
    let existing = path.ancestors().find(|ancestor| ancestor.is_dir());
    existing.filter(|found| !found.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}
