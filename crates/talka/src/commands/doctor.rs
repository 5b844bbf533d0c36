//! `talka doctor`: looks for what keeps Talka from working and says what to do about it.
//!
//! Reads and measures; the one file it writes, to see whether it can, it removes again. That no
//! node runs is worth a note, not a failure: it is how every machine starts.

mod route;

use crate::{
    cli::{DoctorAction, DoctorArgs, HTTP_DEFAULT, NodeAt},
    client::Client,
    exit::Exit,
    files,
    hub::{is_offline, open},
    output,
    quantity::Size,
};
use anyhow::Result;
use serde::Serialize;
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};
use sysinfo::System;
use talka_hub::{HubError, Store};
use talka_node::api::{PeerReport, VerifyReport};

/// Below this a ledger may not fit for long: a year of a busy network takes about as much.
const DISK_FREE_MIN: Size = Size(1 << 30);

/// Below this not even a small model leaves the system room to breathe.
const MEMORY_FREE_MIN: Size = Size(512 << 20);

/// A hub across the world answers in well under a second.
const HUB_PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    Ok,
    Note,
    Failed,
}

/// What one check found.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    grade: Grade,
    found: String,
    /// What to do; nothing if all is well.
    advice: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, grade: Grade::Ok, found: found.into(), advice: None }
    }

    fn note(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, grade: Grade::Note, found: found.into(), advice: Some(advice.into()) }
    }

    fn failed(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, grade: Grade::Failed, found: found.into(), advice: Some(advice.into()) }
    }
}

pub async fn run(args: DoctorArgs) -> Result<Exit> {
    match args.action {
        Some(DoctorAction::Route { model }) => route::run(&args.at, &model).await,
        None => look(args.at).await,
    }
}

async fn look(at: NodeAt) -> Result<Exit> {
    let data_dir = files::data_dir(at.data_dir.as_deref())?;
    let mut findings = vec![writable(&data_dir), disk(&data_dir), memory(), models(&data_dir)];
    findings.push(hub().await);
    findings.extend(node(&at).await?);
    if at.json {
        output::json(&findings)?;
    } else {
        findings.iter().try_for_each(print)?;
    }
    let failed = findings.iter().any(|finding| finding.grade == Grade::Failed);
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

fn print(finding: &Finding) -> std::io::Result<()> {
    let grade = match finding.grade {
        Grade::Ok => "ok",
        Grade::Note => "note",
        Grade::Failed => "FAILED",
    };
    output::line(format!("{grade:<7} {:<8} {}", finding.check, finding.found))?;
    match &finding.advice {
        Some(advice) => output::line(format!("{:<16} to do: {advice}", "")),
        None => Ok(()),
    }
}

fn writable(data_dir: &Path) -> Finding {
    const CHECK: &str = "data dir";
    let existing = nearest(data_dir);
    let probe = existing.join(format!(".talka-doctor-{}", std::process::id()));
    let tried = fs::write(&probe, b"probe").and_then(|()| fs::remove_file(&probe));
    let place = data_dir.display();
    match tried {
        Ok(()) if existing == data_dir => Finding::ok(CHECK, format!("{place} is writable")),
        Ok(()) => Finding::ok(CHECK, format!("{place} does not exist yet and can be made")),
        Err(error) => Finding::failed(
            CHECK,
            format!("{} is not writable: {error}", existing.display()),
            "change its owner or mode, or choose another place with --data-dir",
        ),
    }
}

fn disk(data_dir: &Path) -> Finding {
    const CHECK: &str = "disk";
    let place = nearest(data_dir);
    let place = place.display();
    let Some(free) = talka_hub::free_bytes(data_dir).map(Size) else {
        let found = format!("the system does not say what is free at {place}");
        return Finding::note(CHECK, found, "see for yourself that a GiB or more is free");
    };
    let found = format!("{free} free at {place}");
    if free.0 >= DISK_FREE_MIN.0 {
        return Finding::ok(CHECK, found);
    }
    let advice = format!("free some space, expected {DISK_FREE_MIN} or more, or use --data-dir");
    Finding::failed(CHECK, found, advice)
}

fn memory() -> Finding {
    const CHECK: &str = "memory";
    let Ok(mut system) = System::new() else {
        let found = "the system does not say what is available";
        return Finding::note(CHECK, found, format!("see for yourself that {MEMORY_FREE_MIN} is"));
    };
    system.refresh_memory();
    let free = Size(system.available_memory());
    let found = format!("{free} of {} available", Size(system.total_memory()));
    if free.0 >= MEMORY_FREE_MIN.0 {
        return Finding::ok(CHECK, found);
    }
    let advice = format!("close other programs, expected {MEMORY_FREE_MIN} or more");
    Finding::failed(CHECK, found, advice)
}

/// Fetched models, and fetches that did not end.
fn models(data_dir: &Path) -> Finding {
    const CHECK: &str = "models";
    let store = Store::new(data_dir);
    let kept = match store.list() {
        Ok(kept) => kept,
        Err(error) => {
            let advice = "mend the folder, or move it away: everything in it can be fetched again";
            return Finding::failed(CHECK, error.to_string(), advice);
        }
    };
    let count: usize = kept.iter().map(|kept| kept.models.len()).sum();
    let bytes = Size(kept.iter().map(|kept| kept.bytes).sum());
    let found = format!("{count} fetched, {bytes}, in {}", store.root().display());
    match kept.iter().find(|kept| kept.models.is_empty()) {
        None => Finding::ok(CHECK, found),
        Some(part) => {
            let reference = &part.reference;
            let found = format!("{found}; {reference} is not complete");
            let advice = format!("talka models pull {reference}, or talka models rm {reference}");
            Finding::note(CHECK, found, advice)
        }
    }
}

/// Whether models could be fetched. Nothing else needs the hub, so its absence is worth a note.
async fn hub() -> Finding {
    const CHECK: &str = "hub";
    if is_offline() {
        return Finding::ok(CHECK, "not asked: HF_HUB_OFFLINE forbids it");
    }
    let hub = match open() {
        Ok(hub) => hub,
        Err(error) => {
            return Finding::failed(CHECK, error.to_string(), "mend HF_ENDPOINT or HF_TOKEN");
        }
    };
    match hub.reach(HUB_PATIENCE).await {
        Ok(()) => Finding::ok(CHECK, format!("{} answers", hub.host())),
        Err(error) => {
            let found = match error {
                HubError::Unreachable { host, reason } => format!("cannot reach {host}: {reason}"),
                other => other.to_string(),
            };
            let advice = "only fetching hf: models needs it; check the network and HF_ENDPOINT";
            Finding::note(CHECK, found, advice)
        }
    }
}

/// Everything that only a running node can tell.
async fn node(at: &NodeAt) -> Result<Vec<Finding>> {
    const CHECK: &str = "node";
    let client = match Client::find(at) {
        Ok(client) => client,
        Err(error) if Exit::of(&error) == Exit::NoRoute => {
            return Ok(vec![
                Finding::note(CHECK, error.to_string(), "talka up"),
                port(HTTP_DEFAULT),
            ]);
        }
        Err(error) => return Err(error),
    };
    let status = match client.status().await {
        Ok(status) => status,
        Err(error) if error.exit() == Exit::NoRoute => {
            let found = format!("none answers at {}", client.address());
            return Ok(vec![Finding::note(CHECK, found, "talka up"), port(client.address())]);
        }
        Err(error) => {
            let advice = "check --http and the API key, or look at the node's log";
            return Ok(vec![Finding::failed(CHECK, error.to_string(), advice)]);
        }
    };
    let found = format!("{} answers at {}", status.name, client.address());
    Ok(vec![
        Finding::ok(CHECK, found),
        network(&client.peers().await?),
        ledger(client.ledger_verify().await.map_err(|error| error.to_string())),
    ])
}

/// Only asked where no node answers: whether one could listen there.
fn port(address: &str) -> Finding {
    const CHECK: &str = "port";
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok(CHECK, format!("{address} is free for a node")),
        Err(error) => Finding::failed(
            CHECK,
            format!("{address} cannot be used: {error}"),
            "stop the program that holds it, or choose another address with talka up --http",
        ),
    }
}

fn network(peers: &[PeerReport]) -> Finding {
    const CHECK: &str = "network";
    let silent: Vec<_> =
        peers.iter().filter(|peer| !peer.this && !peer.alive).map(|p| p.name.as_str()).collect();
    let found = format!("{} of {} nodes answer", peers.len() - silent.len(), peers.len());
    if silent.is_empty() {
        return Finding::ok(CHECK, found);
    }
    let advice = format!("see whether these run and reach this network: {}", silent.join(", "));
    Finding::note(CHECK, found, advice)
}

fn ledger(verified: Result<VerifyReport, String>) -> Finding {
    const CHECK: &str = "ledger";
    match verified {
        Ok(report) => Finding::ok(CHECK, format!("all {} entries verify", report.entries)),
        Err(reason) => Finding::failed(
            CHECK,
            reason,
            "keep the data directory for inquiry and start with a new --data-dir",
        ),
    }
}

/// `path`, or its nearest ancestor that exists.
fn nearest(path: &Path) -> PathBuf {
    let existing = path.ancestors().find(|ancestor| ancestor.is_dir());
    existing.filter(|found| !found.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}
