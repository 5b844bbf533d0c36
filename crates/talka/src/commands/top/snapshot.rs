//! What one look at a node found, and what two of them tell of the time between.

use crate::client::{Client, ClientError};
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};
use talka_node::api::{CreditsReport, PeerReport, Status};

/// A node's own reports, asked for at once.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// By the clock of this computer.
    pub at_ms: u64,
    pub status: Status,
    pub peers: Vec<PeerReport>,
    pub credits: CreditsReport,
}

/// How fast things went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Tokens of answers that the node chose, a second.
    pub tokens_per_s: f64,
    /// Part of the time in which stages of the node computed, 0 to 1.
    pub busy: f64,
    /// Work that the ledger paid for in the whole network, in floating-point operations a second.
    pub flops_per_s: f64,
    /// What the node's member earned, in µGFT a second.
    pub earned_per_s: f64,
    /// What it spent.
    pub spent_per_s: f64,
}

/// Asks the node.
pub async fn look(client: &Client) -> Result<Snapshot, ClientError> {
    let (status, peers, credits) =
        tokio::try_join!(client.status(), client.peers(), client.credits())?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    Ok(Snapshot { at_ms, status, peers, credits })
}

/// What went on between two looks; nothing if the node was started again meanwhile, joined another network, or no time
/// went by.
pub fn rates(before: &Snapshot, after: &Snapshot) -> Option<Rates> {
    let (old, new) = (&before.status, &after.status);
    let same = old.started_at == new.started_at && old.network == new.network;
    let ms = after.at_ms.saturating_sub(before.at_ms);
    if !same || ms == 0 {
        return None;
    }
    let a_second = |old: u64, new: u64| new.saturating_sub(old) as f64 * 1000.0 / ms as f64;
    let (old_member, new_member) = (own(before), own(after));
    Some(Rates {
        tokens_per_s: a_second(old.tokens_chosen, new.tokens_chosen),
        busy: (a_second(old.busy_ms, new.busy_ms) / 1000.0).min(1.0),
        flops_per_s: a_second(work(before), work(after)),
        earned_per_s: a_second(old_member.0, new_member.0),
        spent_per_s: a_second(old_member.1, new_member.1),
    })
}

fn work(look: &Snapshot) -> u64 {
    look.credits.members.iter().fold(0, |sum, member| sum.saturating_add(member.flops.0))
}

/// What the node's member earned and spent since the network was founded.
fn own(look: &Snapshot) -> (u64, u64) {
    let member = look.credits.members.iter().find(|m| m.member == look.credits.member);
    member.map_or((0, 0), |member| (member.earned.0, member.spent.0))
}
