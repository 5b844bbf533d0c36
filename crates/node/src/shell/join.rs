//! Joining a network: the guest's side and the host's.
//!
//! The guest dials the inviter, shows the invitation's secret and gets a signed membership; the
//! founder has opened its account by then. It takes over the whole ledger before it counts itself
//! in: what the invitation names is the hash of the founding, so a wrong ledger is found out.

use super::{
    Shared,
    desk::Desk,
    links, now,
    orders::{describe, order},
    snapshots::{Incoming, Told},
};
use crate::{
    api::AdminError,
    core::invites::InviteBook,
    store::StoreError,
    wire::{Admission, Control, JoinRequest, Refusal, SnapshotPart},
};
use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};
use talka_base::{Membership, NetworkId, NodeId, Signed, encode};
use talka_ledger::{
    Block, Entry, Event, Ledger, LedgerError,
    note::SignedNote,
    order::{BATCH_BYTES_MAX, FinalityError, Newcomer, naming},
};
use talka_net::{Invite, Lane, LinkReceiver, LinkSender};
use tokio::time::timeout;

/// Key of the invitations this node gave.
const INVITES_KEY: &str = "invites";

/// The other side answers within this time, or the join fails.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(15);

/// Entries of one message at most, and their bytes.
const PAGE_ENTRIES: usize = 512;
const PAGE_BYTES: usize = 1 << 20;

/// More entries than any block has: none has fewer bytes than its signature.
const BLOCK_ENTRIES_MAX: u64 = BATCH_BYTES_MAX as u64 / 64;

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
    while let Ok(Ok(wanted)) = timeout(ANSWER_TIME_MAX, links::next_control(receiver)).await {
        let answer = match wanted {
            Control::EntriesWanted { from } => page(shared, from),
            Control::SnapshotWanted { from } => part(shared, from),
            Control::BlockWanted(height) => Control::Block(block(shared, height)),
            _ => break,
        };
        if sender.send(Lane::Control, answer.to_bytes()).await.is_err() {
            break;
        }
    }
}

/// The text of the signed block that holds the entry at `height`; empty if there is none.
fn block(shared: &Shared, height: u64) -> String {
    let found = shared.store.checkpoint_of(&shared.desk().network(), height);
    let found = found.unwrap_or_else(|error| {
        tracing::error!(%error, "cannot read the ledger's blocks");
        None
    });
    found.map(|(_, note)| note.to_string()).unwrap_or_default()
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
pub(crate) fn page(shared: &Shared, from: u64) -> Control {
    let network = shared.desk().network();
    let entries = match shared.store.entries_from(&network, from, PAGE_ENTRIES) {
        Ok(entries) => entries,
        Err(StoreError::Pruned { first, .. }) => return Control::Pruned { first },
        Err(error) => {
            tracing::error!(%error, "cannot read the ledger");
            Vec::new()
        }
    };
    let mut bytes = 0;
    let fits = |entry: &Signed<Entry>| {
        bytes += encode(entry).len();
        bytes <= PAGE_BYTES
    };
    Control::Entries(entries.into_iter().take_while(fits).collect())
}

/// Records of the snapshot from `from` on, as many as fit one message.
fn part(shared: &Shared, from: u64) -> Control {
    match shared.desk().snapshot_part(from) {
        Ok(Some(part)) => Control::SnapshotPart(Box::new(part)),
        Ok(None) => Control::Refused { reason: "there is no snapshot here".into() },
        Err(error) => {
            tracing::error!(%error, "cannot read the snapshot");
            Control::Refused { reason: "the snapshot cannot be read here".into() }
        }
    }
}

/// What a guest brings home.
pub(crate) struct Joined {
    pub(crate) membership: Signed<Membership>,
    pub(crate) ledger: Told,
    /// Blocks that show witnesses to have agreed, where there are any.
    pub(crate) notes: Vec<SignedNote>,
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
    let mut host = Host { sender: &sender, receiver: &mut receiver };
    let fetched = host.ledger(admission.ledger_height).await;
    let (told, notes, ledger) = fetched.map_err(|reason| match reason {
        NotFetched::Link(reason) => unreachable(reason),
        NotFetched::Wrong(reason) => AdminError::Ledger { reason },
    })?;
    sender.close("joined");
    if ledger.network() != invite.network {
        return Err(refused("the inviter sent the ledger of another network".into()));
    }
    let mut peers = admission.peers;
    peers.push((inviter, invite.addresses.clone()));
    Ok(Joined { membership: admission.membership, ledger: told, notes, peers })
}

/// Why the inviter's ledger is not here.
enum NotFetched {
    /// It did not come.
    Link(String),
    /// It came, and is wrong.
    Wrong(String),
}

/// An error with what it came from.
pub(crate) fn whole(error: &FinalityError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// The heights of the entries whose blocks show that witnesses agreed: those that name witnesses, and the last one; none
/// where there are no witnesses.
fn witnessed_heights(entries: &[Signed<Entry>]) -> Vec<u64> {
    let mut heights = naming(entries);
    if !heights.is_empty() {
        heights.push(entries.len() as u64 - 1);
    }
    heights
}

/// The stored blocks that show witnesses to have agreed to `entries`.
pub(crate) fn needed_notes(
    desk: &Desk,
    entries: &[Signed<Entry>],
) -> Result<Vec<SignedNote>, StoreError> {
    let of = |height| desk.store.checkpoint_of(&desk.network(), height);
    let found = witnessed_heights(entries).into_iter().map(of);
    found.filter_map(|found| found.map(|found| found.map(|(_, note)| note)).transpose()).collect()
}

/// The ledger of these entries, each executed. Where it names witnesses, these blocks have to show that they agreed.
pub(crate) fn checked(
    entries: &[Signed<Entry>],
    notes: &[SignedNote],
) -> Result<Ledger, FinalityError> {
    let [founding, others @ ..] = entries else {
        return Err(FinalityError::Entry { height: 0, source: LedgerError::Empty });
    };
    let mut newcomer = Newcomer::begin(founding, notes.iter().cloned())?;
    others.iter().try_for_each(|entry| newcomer.take(entry))?;
    newcomer.end()
}

/// The inviter, asked for the network's ledger.
struct Host<'a> {
    sender: &'a LinkSender,
    receiver: &'a mut LinkReceiver,
}

impl Host<'_> {
    /// Asks for a ledger of `size` entries, from its snapshot on where the inviter removed what was before, and for the
    /// blocks that show witnesses to have agreed. What comes is checked.
    async fn ledger(&mut self, size: u64) -> Result<(Told, Vec<SignedNote>, Ledger), NotFetched> {
        let (mut entries, mut notes) = (Vec::new(), Vec::new());
        let whole_ledger = self.entries(&mut entries, size).await.map_err(NotFetched::Link)?;
        if !whole_ledger {
            let (told, ledger) = self.snapshot(entries.remove(0)).await?;
            return Ok((told, notes, ledger));
        }
        self.blocks(&mut entries, &mut notes).await.map_err(NotFetched::Link)?;
        let ledger = checked(&entries, &notes).map_err(|error| NotFetched::Wrong(whole(&error)))?;
        Ok((Told::Entries(entries), notes, ledger))
    }

    /// Asks for the snapshot of the ledger that `founding` began.
    async fn snapshot(&mut self, founding: Signed<Entry>) -> Result<(Told, Ledger), NotFetched> {
        let first = self.part(0).await?;
        let mut incoming = Incoming::begin(founding, first).map_err(NotFetched::Wrong)?;
        while let Some(from) = incoming.wanted() {
            incoming.take(self.part(from).await?).map_err(NotFetched::Wrong)?;
        }
        incoming.finish().map_err(NotFetched::Wrong)
    }

    async fn part(&mut self, from: u64) -> Result<SnapshotPart, NotFetched> {
        let wanted = Control::SnapshotWanted { from };
        let answer = exchange(self.sender, self.receiver, &wanted).await;
        match answer.map_err(NotFetched::Link)? {
            Control::SnapshotPart(part) if !part.records.is_empty() => Ok(*part),
            Control::Refused { reason } => Err(NotFetched::Link(reason)),
            _ => Err(NotFetched::Link("it did not send its whole snapshot".into())),
        }
    }

    /// Asks for entries until there are `count`. Says whether it has them: nothing but the founding may be left.
    async fn entries(
        &mut self,
        entries: &mut Vec<Signed<Entry>>,
        count: u64,
    ) -> Result<bool, String> {
        while (entries.len() as u64) < count {
            let wanted = Control::EntriesWanted { from: entries.len() as u64 };
            match exchange(self.sender, self.receiver, &wanted).await? {
                Control::Entries(page) if !page.is_empty() => entries.extend(page),
                Control::Pruned { .. } if entries.len() == 1 => return Ok(false),
                _ => return Err("it did not send the whole ledger".into()),
            }
        }
        Ok(true)
    }

    /// Asks for the blocks that name witnesses, and for the last one; none where the ledger has no witnesses.
    async fn blocks(
        &mut self,
        entries: &mut Vec<Signed<Entry>>,
        notes: &mut Vec<SignedNote>,
    ) -> Result<(), String> {
        for height in witnessed_heights(entries) {
            let answer =
                exchange(self.sender, self.receiver, &Control::BlockWanted(height)).await?;
            let Control::Block(text) = answer else {
                return Err("it did not send a block of the ledger".into());
            };
            // Without it, or with a wrong one, the ledger is not believed.
            let Ok(note) = SignedNote::parse(text.as_bytes()) else { continue };
            let block = note.text().parse::<Block>().map_err(|error| error.to_string())?;
            notes.push(note);
            // It may have come since.
            self.entries(entries, block.size.min(height.saturating_add(BLOCK_ENTRIES_MAX))).await?;
        }
        Ok(())
    }
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
