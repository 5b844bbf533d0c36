//! What the facts mean, and what to do about each. Pure: the same facts give the same findings.
//!
//! A failure is what keeps Talka from working, or will soon; a note is what a person may well want so. That no node
//! runs is a note: it is how every machine starts.

use super::facts::{DataDir, Facts, HubFact, Kept, NodeFact, Running};
use crate::quantity::{Size, show_ms};
use serde::Serialize;
use std::net::{IpAddr, SocketAddr};
use talka_node::api::{OrderReport, PeerReport, VerifyReport};

/// Below this a ledger may not fit for long: a year of a busy network takes about as much.
const DISK_FREE_MIN: Size = Size(1 << 30);

/// Below this not even a small model leaves the system room to breathe.
const MEMORY_FREE_MIN: Size = Size(512 << 20);

/// Clocks so far apart are worth a word: computers that ask for the time differ by milliseconds, and what is seen of
/// another one's clock is late by its way here.
const CLOCK_NOTE_MS: u64 = 2_000;

/// Clocks so far apart break things: fresh invitations are refused as expired or not, credits come back too early.
const CLOCK_FAILS_MS: u64 = 60_000;

/// Before this there was no Talka: the first of January 2026.
const CLOCK_MIN_MS: u64 = 1_767_225_600_000;

const CLOCK_ADVICE: &str =
    "have the clock set by the network, such as with timedatectl set-ntp true";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    Ok,
    Note,
    Failed,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: &'static str,
    pub grade: Grade,
    pub found: String,
    /// What to do; nothing if all is well.
    pub advice: Option<String>,
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

/// One finding for each thing looked at.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![
        data_dir(&facts.data_dir),
        disk(facts),
        memory(facts.memory),
        models(&facts.models),
        hub(&facts.hub),
    ];
    match &facts.node {
        NodeFact::Absent { why, address, free } => {
            findings.push(Finding::note("node", why, "talka up"));
            findings.push(ports(address, free, &facts.udp));
            findings.push(time(facts.now_ms, &[]));
        }
        NodeFact::Refuses(reason) => {
            let advice = "check --http and the API key, or look at the node's log";
            findings.push(Finding::failed("node", reason, advice));
            findings.push(time(facts.now_ms, &[]));
        }
        NodeFact::Runs(running) => {
            findings.push(node(running));
            findings.push(ports_in_use(running));
            findings.push(time(facts.now_ms, &running.peers));
            findings.push(reach(&running.status.addresses));
            findings.push(peers(running));
            findings.push(coverage(running));
            findings.push(ledger(&running.ledger));
            findings.push(order(&running.order));
        }
    }
    findings
}

fn data_dir(dir: &DataDir) -> Finding {
    const CHECK: &str = "data dir";
    let place = dir.path.display();
    match &dir.writable {
        Ok(()) if dir.existing == dir.path => Finding::ok(CHECK, format!("{place} is writable")),
        Ok(()) => Finding::ok(CHECK, format!("{place} does not exist yet and can be made")),
        Err(reason) => Finding::failed(
            CHECK,
            format!("{} is not writable: {reason}", dir.existing.display()),
            "change its owner or mode, or choose another place with --data-dir",
        ),
    }
}

fn disk(facts: &Facts) -> Finding {
    const CHECK: &str = "disk";
    let place = facts.data_dir.existing.display();
    let Some(free) = facts.disk_free.map(Size) else {
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

fn memory(memory: Option<(u64, u64)>) -> Finding {
    const CHECK: &str = "memory";
    let Some((free, total)) = memory else {
        let found = "the system does not say what is available";
        return Finding::note(CHECK, found, format!("see for yourself that {MEMORY_FREE_MIN} is"));
    };
    let found = format!("{} of {} available", Size(free), Size(total));
    if free >= MEMORY_FREE_MIN.0 {
        return Finding::ok(CHECK, found);
    }
    let advice = format!("close other programs, expected {MEMORY_FREE_MIN} or more");
    Finding::failed(CHECK, found, advice)
}

fn models(models: &Result<Kept, String>) -> Finding {
    const CHECK: &str = "models";
    let kept = match models {
        Ok(kept) => kept,
        Err(reason) => {
            let advice = "mend the folder, or move it away: everything in it can be fetched again";
            return Finding::failed(CHECK, reason, advice);
        }
    };
    let Kept { root, count, bytes, unfinished, broken, unsupported } = kept;
    let found = format!("{count} fetched, {}, in {}", Size(*bytes), root.display());
    if let Some((reference, reason)) = broken.first() {
        let found = format!("{found}; {reference} cannot be opened: {reason}");
        let advice = format!("talka models rm {reference}, then talka models pull {reference}");
        return Finding::failed(CHECK, found, advice);
    }
    if let Some(reference) = unfinished.first() {
        let found = format!("{found}; {reference} is not complete");
        let advice = format!("talka models pull {reference}, or talka models rm {reference}");
        return Finding::note(CHECK, found, advice);
    }
    match unsupported.first() {
        None => Finding::ok(CHECK, found),
        Some((reference, reason)) => {
            let found = format!("{found}; {reference} cannot be served: {reason}");
            Finding::note(CHECK, found, format!("talka models rm {reference}, or a newer talka"))
        }
    }
}

/// Nothing but fetching needs the hub, so that its absence is worth a note.
fn hub(hub: &HubFact) -> Finding {
    const CHECK: &str = "hub";
    match hub {
        HubFact::Forbidden => Finding::ok(CHECK, "not asked: HF_HUB_OFFLINE forbids it"),
        HubFact::Misnamed(reason) => Finding::failed(CHECK, reason, "mend HF_ENDPOINT or HF_TOKEN"),
        HubFact::Answers(host) => Finding::ok(CHECK, format!("{host} answers")),
        HubFact::Silent(reason) => {
            let advice = "only fetching hf: models needs it; check the network and HF_ENDPOINT";
            Finding::note(CHECK, reason, advice)
        }
    }
}

fn node(running: &Running) -> Finding {
    const CHECK: &str = "node";
    let status = &running.status;
    let found = format!("{} answers at {}", status.name, running.address);
    match &status.closed {
        None => Finding::ok(CHECK, found),
        Some(why) => {
            let found = format!("{found}; it gives no work to others: {why}");
            Finding::note(CHECK, found, "nothing, if --hours or --when-idle is meant so")
        }
    }
}

/// Where no node runs: whether one could listen.
fn ports(address: &str, free: &Result<(), String>, udp: &Result<(), String>) -> Finding {
    const CHECK: &str = "ports";
    match (free, udp) {
        (Ok(()), Ok(())) => Finding::ok(CHECK, format!("{address} and UDP are free for a node")),
        (Err(reason), _) => Finding::failed(
            CHECK,
            format!("{address} cannot be used: {reason}"),
            "stop the program that holds it, or choose another address with talka up --http",
        ),
        (_, Err(reason)) => Finding::failed(
            CHECK,
            format!("no UDP port can be opened: {reason}"),
            "let talka open UDP ports: nodes reach each other by nothing else",
        ),
    }
}

/// Where a running node listens.
fn ports_in_use(running: &Running) -> Finding {
    let mut ports: Vec<_> = running.status.addresses.iter().map(SocketAddr::port).collect();
    ports.sort_unstable();
    ports.dedup();
    let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
    let found = format!("{} for callers, UDP {} for nodes", running.address, ports.join(", "));
    Finding::ok("ports", found)
}

/// Compares clocks. Where most of the others differ, it is this one that is wrong.
fn time(now_ms: u64, peers: &[PeerReport]) -> Finding {
    const CHECK: &str = "time";
    if now_ms < CLOCK_MIN_MS {
        return Finding::failed(CHECK, "the clock says a time before Talka was made", CLOCK_ADVICE);
    }
    let known: Vec<_> = peers
        .iter()
        .filter(|peer| peer.alive && !peer.this)
        .filter_map(|peer| Some((peer.name.as_str(), peer.clock_ms?)))
        .collect();
    let off = |limit: u64| known.iter().filter(move |(_, ms)| ms.unsigned_abs() >= limit);
    let worst = known.iter().map(|(_, ms)| ms.unsigned_abs()).max();
    let Some(worst) = worst else {
        return Finding::ok(CHECK, "no other node to compare the clock with");
    };
    if worst < CLOCK_NOTE_MS {
        let count = known.len();
        return Finding::ok(CHECK, format!("the clock agrees with those of {count} other nodes"));
    }
    let count = off(CLOCK_NOTE_MS).count();
    let found = if count * 2 > known.len() {
        format!("the clock is up to {} off those of {count} other nodes", show_ms(worst))
    } else {
        let names: Vec<_> = off(CLOCK_NOTE_MS).map(|(name, _)| *name).collect();
        format!("clocks are up to {} off this one: {}", show_ms(worst), names.join(", "))
    };
    let weigh = if worst >= CLOCK_FAILS_MS { Finding::failed } else { Finding::note };
    weigh(CHECK, found, CLOCK_ADVICE)
}

/// How far other nodes may be and still reach this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Computer,
    House,
    World,
}

fn reach(addresses: &[SocketAddr]) -> Finding {
    const CHECK: &str = "nat";
    let widest = addresses.iter().map(|address| reach_of(address.ip())).max();
    let of = |reach| {
        let such = addresses.iter().filter(move |address| reach_of(address.ip()) == reach);
        such.map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
    };
    match widest {
        None => Finding::failed(
            CHECK,
            "the node has no address to tell others",
            "see whether this computer is on a network, or name an address with --announce",
        ),
        Some(Reach::Computer) => Finding::note(
            CHECK,
            format!("only nodes on this computer reach this one, at {}", of(Reach::Computer)),
            "connect it to a network, or start it without --p2p of this computer alone",
        ),
        Some(Reach::House) => Finding::note(
            CHECK,
            format!("only nodes in the local network reach this one, at {}", of(Reach::House)),
            "for others forward a UDP port of the router to it and name that with --announce, or let the \
             router do so by UPnP or PCP",
        ),
        Some(Reach::World) => {
            Finding::ok(CHECK, format!("others may reach this one at {}", of(Reach::World)))
        }
    }
}

/// Private, shared (RFC 6598) and link-local addresses lead nowhere beyond their network.
fn reach_of(address: IpAddr) -> Reach {
    let (is_loopback, is_local) = match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let is_shared = a == 100 && (64..128).contains(&b);
            let is_local =
                v4.is_private() || v4.is_link_local() || is_shared || v4.is_unspecified();
            (v4.is_loopback(), is_local)
        }
        IpAddr::V6(v6) => {
            let is_local =
                v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_unspecified();
            (v6.is_loopback(), is_local)
        }
    };
    match (is_loopback, is_local) {
        (true, _) => Reach::Computer,
        (_, true) => Reach::House,
        _ => Reach::World,
    }
}

fn peers(running: &Running) -> Finding {
    const CHECK: &str = "peers";
    let peers = &running.peers;
    let silent: Vec<_> = peers.iter().filter(|peer| !peer.this && !peer.alive).collect();
    let found = format!("{} of {} nodes answer", peers.len() - silent.len(), peers.len());
    let founder = silent.iter().find(|peer| peer.node == running.status.founder);
    // Where witnesses order by turns, the founder is one of them at most.
    if let Some(founder) = founder.filter(|_| !running.order.by_turns) {
        return Finding::failed(
            CHECK,
            format!("{found}; the founder {} does not, so that nothing can be paid", founder.name),
            format!("start {} again, or see whether it reaches this network", founder.name),
        );
    }
    if !silent.is_empty() {
        let names: Vec<_> = silent.iter().map(|peer| peer.name.as_str()).collect();
        let advice = format!("see whether these run and reach this network: {}", names.join(", "));
        return Finding::note(CHECK, found, advice);
    }
    let wrong: Vec<_> = peers.iter().filter(|peer| !peer.faults.is_empty()).collect();
    match wrong.as_slice() {
        [] => Finding::ok(CHECK, found),
        wrong => {
            let names: Vec<_> = wrong.iter().map(|peer| peer.name.as_str()).collect();
            let found =
                format!("{found}; something was wrong with what these sent: {}", names.join(", "));
            Finding::note(CHECK, found, "talka peers says what; see whether they run this version")
        }
    }
}

fn coverage(running: &Running) -> Finding {
    const CHECK: &str = "layers";
    let models = &running.status.models;
    match models.iter().find(|model| !model.complete && model.share_bytes != Some(0)) {
        None => Finding::ok(CHECK, format!("all of {} models can be served", models.len())),
        Some(model) => Finding::note(
            CHECK,
            format!("nobody serves all layers of {}", model.name),
            format!("add a node or more --memory: talka doctor route {}", model.name),
        ),
    }
}

fn ledger(verified: &Result<VerifyReport, String>) -> Finding {
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

fn order(order: &OrderReport) -> Finding {
    const CHECK: &str = "finality";
    if let Some(reason) = &order.halted {
        let advice = "pay nothing more in this network before its members know what happened";
        return Finding::failed(CHECK, reason, advice);
    }
    let (all, linked) =
        (order.witnesses.len(), order.witnesses.iter().filter(|witness| witness.linked).count());
    if all == 0 {
        return Finding::ok(CHECK, "none: the founder's signature makes entries final");
    }
    let found = format!("{linked} of {all} are linked, {} have to cosign", order.quorum);
    let gone = order.witnesses.iter().filter(|witness| !witness.linked);
    let names: Vec<_> = gone.map(|witness| witness.name.as_str()).collect();
    let advice = format!("see whether these run and reach this network: {}", names.join(", "));
    match linked {
        _ if linked == all => Finding::ok(CHECK, found),
        _ if linked >= order.quorum => Finding::note(CHECK, found, advice),
        _ => Finding::failed(CHECK, format!("{found}: nothing becomes final"), advice),
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
