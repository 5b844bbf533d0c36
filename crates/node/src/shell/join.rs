//! Joining a network: the guest's side and the host's.
//!
//! The guest dials the inviter, shows the invitation's secret and gets a signed membership; the
//! founder has opened its account by then. It takes over the whole ledger before it counts itself
//! in: what the invitation names is the hash of the founding, so a wrong ledger is found out.

use super::{
    Shared, links, now,
    orders::{describe, order},
};
use crate::{
    api::AdminError,
    core::invites::InviteBook,
    wire::{Admission, Control, JoinRequest, Refusal},
};
use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};
use talka_base::{Membership, NetworkId, NodeId, Signed, encode};
use talka_ledger::{Entry, Event, Ledger};
use talka_net::{Invite, Lane, LinkReceiver, LinkSender};
use tokio::time::timeout;

/// Key of the invitations this node gave.
const INVITES_KEY: &str = "invites";

/// The other side answers within this time, or the join fails.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(15);

/// Entries of one message at most, and their bytes.
const PAGE_ENTRIES: usize = 512;
const PAGE_BYTES: usize = 1 << 20;

/// The invitations this node gave.
pub(crate) fn invites(shared: &Shared) -> Result<InviteBook, AdminError> {
    let bytes = shared.store.get(INVITES_KEY)?;
    let book = bytes.map(|bytes| talka_base::decode(&bytes)).transpose();
    book.map(Option::unwrap_or_default)
        .map_err(|error| AdminError::Invite { reason: format!("the stored invitations: {error}") })
}

/// Remembers them.
pub(crate) fn keep_invites(shared: &Shared, book: &InviteBook) -> Result<(), AdminError> {
    Ok(shared.store.put(INVITES_KEY, &encode(book))?)
}

/// Lets a guest in, or tells it why not; then sends it the ledger as it asks for it.
pub(crate) async fn host(
    shared: &Arc<Shared>,
    guest: NodeId,
    request: JoinRequest,
    sender: &LinkSender,
    receiver: &mut LinkReceiver,
) {
    match admit(shared, guest, request).await {
        Ok(admission) => {
            let _ = sender.send(Lane::Control, Control::Admitted(admission).to_bytes()).await;
        }
        Err(reason) => {
            tracing::warn!(guest = %guest.short(), reason, "refused to let a node in");
            return links::refuse(sender, &reason).await;
        }
    }
    while let Ok(Ok(Control::EntriesWanted { from })) =
        timeout(ANSWER_TIME_MAX, links::next_control(receiver)).await
    {
        let page = page(shared, from);
        if sender.send(Lane::Control, Control::Entries(page).to_bytes()).await.is_err() {
            break;
        }
    }
}

async fn admit(
    shared: &Arc<Shared>,
    guest: NodeId,
    request: JoinRequest,
) -> Result<Admission, String> {
    let desk = shared.desk();
    let network = desk.network();
    check_network(network, request.network)?;
    redeem(shared, guest, &request.secret)?;
    let membership = shared.keys.sign(Membership {
        network,
        node: guest,
        member: guest.into(),
        name: request.name,
        invited_by: shared.me,
        issued_at: now(),
    });
    // A guest whose first try was cut short is in the ledger already.
    if !desk.read(|ledger| ledger.is_member_node(&guest)) {
        let event = Event::Joined { membership: membership.clone() };
        match order(shared, event).await {
            Ok(_) | Err(Refusal::Duplicate { .. }) => {}
            Err(refusal) => return Err(describe(&refusal)),
        }
    }
    tracing::info!(guest = %guest.short(), "let a node in");
    let peers = shared.view.borrow().introductions.clone();
    Ok(Admission { membership, ledger_height: shared.desk().entries_held(), peers })
}

/// # Errors
/// If an invitation is not for the network `mine`.
pub(super) fn check_network(mine: NetworkId, invited: NetworkId) -> Result<(), String> {
    if mine == invited {
        return Ok(());
    }
    let (mine, yours) = (mine.short(), invited.short());
    Err(format!("wrong network: the invitation is for {yours}, this node is in {mine}"))
}

fn redeem(shared: &Shared, guest: NodeId, secret: &[u8; 32]) -> Result<(), String> {
    // Two guests at once must not both use a one-time invitation.
    let _turn = shared.invites.lock().unwrap_or_else(PoisonError::into_inner);
    let mut book = invites(shared).map_err(|error| error.to_string())?;
    book.redeem(secret, guest, now()).map_err(|error| error.to_string())?;
    keep_invites(shared, &book).map_err(|error| error.to_string())
}

/// Stored entries from `from` on, as many as fit one message.
pub(crate) fn page(shared: &Shared, from: u64) -> Vec<Signed<Entry>> {
    let network = shared.desk().network();
    let entries = shared.store.entries_from(&network, from, PAGE_ENTRIES).unwrap_or_else(|error| {
        tracing::error!(%error, "cannot read the ledger");
        Vec::new()
    });
    let mut bytes = 0;
    let fits = |entry: &Signed<Entry>| {
        bytes += encode(entry).len();
        bytes <= PAGE_BYTES
    };
    entries.into_iter().take_while(fits).collect()
}

/// What a guest brings home.
pub(crate) struct Joined {
    pub(crate) membership: Signed<Membership>,
    pub(crate) entries: Vec<Signed<Entry>>,
    pub(crate) peers: Vec<(NodeId, Vec<std::net::SocketAddr>)>,
}

/// Asks the inviter to be let in and fetches the network's ledger. Changes nothing here.
pub(crate) async fn ask(
    endpoint: &talka_net::Endpoint,
    name: &str,
    invite: &Invite,
) -> Result<Joined, AdminError> {
    let inviter = invite.inviter;
    let unreachable = |reason: String| AdminError::Unreachable { inviter, reason };
    let refused = |reason: String| AdminError::Invite { reason };
    let link = endpoint.connect(inviter, &invite.addresses).await;
    let (sender, mut receiver) = link.map_err(|e| unreachable(e.to_string()))?.split();
    let request = Control::Join(JoinRequest {
        network: invite.network,
        secret: invite.secret.0,
        name: name.to_owned(),
    });
    let answer = exchange(&sender, &mut receiver, &request).await.map_err(unreachable)?;
    let admission = match answer {
        Control::Admitted(admission) => admission,
        Control::Refused { reason } => return Err(refused(reason)),
        _ => return Err(unreachable("it answered with something else".into())),
    };
    let mut entries: Vec<Signed<Entry>> = Vec::new();
    while (entries.len() as u64) < admission.ledger_height {
        let wanted = Control::EntriesWanted { from: entries.len() as u64 };
        match exchange(&sender, &mut receiver, &wanted).await.map_err(unreachable)? {
            Control::Entries(page) if !page.is_empty() => entries.extend(page),
            _ => return Err(unreachable("it did not send the whole ledger".into())),
        }
    }
    sender.close("joined");
    let ledger = Ledger::replay(entries.iter().cloned())
        .map_err(|e| AdminError::Ledger { reason: format!("{e}: {}", e.source) })?;
    if ledger.network() != invite.network {
        return Err(refused("the inviter sent the ledger of another network".into()));
    }
    let mut peers = admission.peers;
    peers.push((inviter, invite.addresses.clone()));
    Ok(Joined { membership: admission.membership, entries, peers })
}

/// One question and its answer.
///
/// # Errors
/// Why there is none.
pub(super) async fn exchange(
    sender: &LinkSender,
    receiver: &mut LinkReceiver,
    message: &Control,
) -> Result<Control, String> {
    sender.send(Lane::Control, message.to_bytes()).await.map_err(|e| e.to_string())?;
    match timeout(ANSWER_TIME_MAX, links::next_control(receiver)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err("it closed the link".into()),
        Err(_) => Err("it did not answer in time".into()),
    }
}
