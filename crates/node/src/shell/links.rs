//! Opens, greets and reads links. After the greeting a link belongs to a node of the network.

use super::{Party, Shared, desk::Desk, fetch::give, forecast, hub::HubInput, join, probe};
use crate::{
    core::{faults::Fault, recent::Recent},
    store::Store,
    wire::{Control, Flow, Hello},
};
use bytes::Bytes;
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use talka_base::{Blame, Membership, NodeId, Signed};
use talka_net::{Lane, Link, LinkError, LinkReceiver, LinkSender};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

/// Who links to us must say who it is within this time.
const GREETING_TIME_MAX: Duration = Duration::from_secs(5);

/// What is under way on a link that is replaced arrives within this time.
const REPLACED_TIME: Duration = Duration::from_secs(2);

/// Processes with one key that are told apart: somebody who starts a node anew now and then has few of them.
const PROCESSES_REMEMBERED: usize = 16;

/// What a node is told that was removed.
pub(crate) const REMOVED: &str =
    "this node was removed from the network: another invitation needs another key";

/// Key of this node's own membership in the store.
pub(crate) const MEMBERSHIP_KEY: &str = "membership";

/// Open links by node.
///
/// Messages wait in an unbounded queue in front of each link's bounded ones, so that the compute
/// thread never waits for a slow peer. What can wait is bounded by the sessions admitted, each with
/// one step in flight after its prompt.
#[derive(Default)]
pub(crate) struct Links {
    open: Mutex<HashMap<NodeId, Open>>,
    /// The processes that linked with each node's key, by the numbers that they drew.
    processes: Mutex<HashMap<NodeId, Recent<u64, PROCESSES_REMEMBERED>>>,
}

/// A link that was kept.
struct Kept {
    number: u64,
    /// It takes the place of a link to a process that the node runs no more.
    is_anew: bool,
}

/// Why a link was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unkept {
    /// A better one is open.
    Spare,
    /// Another process with the same key has taken this one's place.
    SameKey,
}

struct Open {
    queue: mpsc::UnboundedSender<(Lane, Bytes)>,
    sender: LinkSender,
    dialled_by: NodeId,
    /// Tells this link from an earlier one to the same node.
    number: u64,
    /// The number that the peer's process drew.
    process: u64,
}

impl Links {
    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `instance` is of a process whose place another one has taken, which is still linked: a process that
    /// was started anew never comes back, so two of them live with one key.
    fn is_double(&self, peer: NodeId, instance: u64) -> bool {
        let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = processes.entry(peer).or_default();
        let is_double =
            seen.has(&instance) && seen.newest() != Some(&instance) && self.is_open(peer);
        if !is_double {
            seen.add(instance);
        }
        is_double
    }

    /// Keeps the new link unless a better one is open. Of two links between the same nodes the one
    /// dialled by the lower id is better; of two dialled by the same node, the newer. One to a process that was
    /// started anew is better than one to the process before it.
    fn insert(
        &self,
        sender: LinkSender,
        dialled_by: NodeId,
        me: NodeId,
        process: u64,
    ) -> Result<Kept, Unkept> {
        let peer = sender.peer();
        if self.is_double(peer, process) {
            sender.close(
                "another node shows your key: stop one of them, or give it a key of its own",
            );
            return Err(Unkept::SameKey);
        }
        let mut links = self.lock();
        if let Some(old) = links.get(&peer) {
            let is_same = old.process == process;
            if is_same && old.dialled_by != dialled_by && old.dialled_by == me.min(peer) {
                sender.close("another link is open");
                return Err(Unkept::Spare);
            }
            // Sessions go on: what was sent on the old link is still read.
            let old = old.sender.clone();
            tokio::spawn(async move {
                sleep(REPLACED_TIME).await;
                old.close("replaced by a newer link");
            });
        }
        let number = links.get(&peer).map_or(0, |old| old.number + 1);
        let (queue, waiting) = mpsc::unbounded_channel();
        tokio::spawn(forward(waiting, sender.clone()));
        let old = links.insert(peer, Open { queue, sender, dialled_by, number, process });
        let is_anew = old.is_some_and(|old| old.process != process);
        Ok(Kept { number, is_anew })
    }

    /// Forgets a link that closed. False if a newer one took its place.
    fn remove(&self, peer: NodeId, number: u64) -> bool {
        let mut links = self.lock();
        let is_current = links.get(&peer).is_some_and(|open| open.number == number);
        if is_current {
            links.remove(&peer);
        }
        is_current
    }

    /// Sends a control message; a peer without a link misses it.
    pub(crate) fn send(&self, to: NodeId, message: &Control) {
        self.queue(Party { node: to, process: None }, Lane::Control, message.to_bytes());
    }

    /// Sends a flow message; the loss of the link is reported by its reader.
    pub(crate) fn send_flow(&self, to: Party, flow: &Flow) {
        self.queue(to, Lane::Activations, flow.to_bytes());
    }

    fn queue(&self, to: Party, lane: Lane, bytes: Bytes) {
        let is_meant = |open: &&Open| to.process.is_none_or(|process| process == open.process);
        if let Some(open) = self.lock().get(&to.node).filter(is_meant) {
            let _ = open.queue.send((lane, bytes));
        }
    }

    /// Sends a control message to everybody.
    pub(crate) fn broadcast(&self, message: &Control) {
        let bytes = message.to_bytes();
        for open in self.lock().values() {
            let _ = open.queue.send((Lane::Control, bytes.clone()));
        }
    }

    /// Microseconds to each linked node and back.
    pub(crate) fn round_trips_us(&self) -> Vec<(NodeId, u32)> {
        let us = |open: &Open| u32::try_from(open.sender.round_trip()?.as_micros()).ok();
        self.lock().iter().filter_map(|(node, open)| Some((*node, us(open)?))).collect()
    }

    /// The number that the process drew to which a link is open.
    pub(crate) fn process(&self, node: NodeId) -> Option<u64> {
        self.lock().get(&node).map(|open| open.process)
    }

    /// How many are open.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Whether a link to `node` is open.
    pub(crate) fn is_open(&self, node: NodeId) -> bool {
        self.lock().contains_key(&node)
    }

    /// Closes the link to `peer`, telling it why.
    pub(crate) fn close(&self, peer: NodeId, reason: &str) {
        if let Some(open) = self.lock().get(&peer) {
            open.sender.close(reason);
        }
    }

    /// Closes all links.
    pub(crate) fn close_all(&self, reason: &str) {
        for open in self.lock().values() {
            open.sender.close(reason);
        }
    }
}

async fn forward(mut waiting: mpsc::UnboundedReceiver<(Lane, Bytes)>, sender: LinkSender) {
    while let Some((lane, bytes)) = waiting.recv().await {
        // The reader reports why the link closed.
        if sender.send(lane, bytes).await.is_err() {
            break;
        }
    }
}

/// Greets whoever connects, each in a task of its own.
pub(crate) async fn accept_all(shared: Arc<Shared>) {
    while let Some(link) = shared.endpoint.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move { welcome(shared, link).await });
    }
}

/// The accepting side of a greeting: a member says hello, or that it comes to fetch; a guest asks to join, or what
/// that would come to.
async fn welcome(shared: Arc<Shared>, link: Link) {
    let peer = link.peer();
    let (sender, mut receiver) = link.split();
    match timeout(GREETING_TIME_MAX, next_control(&mut receiver)).await {
        Ok(Ok(Control::Hello(hello))) => match check(&shared.desk(), peer, &hello) {
            Ok(()) => {
                let _ = sender.send(Lane::Control, shared.hello().to_bytes()).await;
                serve(shared, sender, receiver, peer, hello.instance).await;
            }
            Err(reason) => {
                tracing::debug!(peer = %peer.short(), reason, "refused a node");
                refuse(&sender, &reason).await;
            }
        },
        Ok(Ok(Control::Join(request))) => {
            join::host(&shared, peer, request, &sender, &mut receiver).await;
        }
        Ok(Ok(Control::Look(request))) => forecast::host(&shared, peer, &request, &sender).await,
        Ok(Ok(Control::Fetch(hello))) => match check(&shared.desk(), peer, &hello) {
            Ok(()) => give::serve(&shared, peer, &sender, &mut receiver).await,
            Err(reason) => refuse(&sender, &reason).await,
        },
        Ok(Ok(_)) => refuse(&sender, "expected hello or join as the first message").await,
        Ok(Err(fault)) => fault.into_iter().for_each(|fault| shared.blame(peer, fault)),
        Err(_) => sender.close("no greeting within 5 s"),
    }
}

/// The dialling side of a greeting.
pub(crate) async fn dial(shared: Arc<Shared>, peer: NodeId, addresses: Vec<SocketAddr>) {
    match greet(&shared, peer, &addresses).await {
        Ok((sender, receiver, instance)) => {
            let me = shared.me;
            serve(shared, sender, receiver, me, instance).await;
        }
        Err(reason) => {
            tracing::debug!(peer = %peer.short(), reason, "could not link");
            let _ = shared.hub.send(HubInput::DialFailed { peer }).await;
        }
    }
}

async fn greet(
    shared: &Shared,
    peer: NodeId,
    addresses: &[SocketAddr],
) -> Result<(LinkSender, LinkReceiver, u64), String> {
    let link = shared.endpoint.connect(peer, addresses).await.map_err(|e| e.to_string())?;
    let (sender, mut receiver) = link.split();
    let hello = shared.hello().to_bytes();
    sender.send(Lane::Control, hello).await.map_err(|e| e.to_string())?;
    match timeout(GREETING_TIME_MAX, next_control(&mut receiver)).await {
        Ok(Ok(Control::Hello(hello))) => {
            check(&shared.desk(), peer, &hello).map(|()| (sender, receiver, hello.instance))
        }
        Ok(Ok(Control::Refused { reason })) => Err(reason),
        Ok(_) => Err("the node answered the greeting with something else".into()),
        Err(_) => Err("the node did not answer the greeting".into()),
    }
}

/// First words of the node with this store.
pub(crate) fn own_hello(store: &Store, desk: &Desk, instance: u64) -> Hello {
    let membership = store.get(MEMBERSHIP_KEY).ok().flatten();
    let membership = membership.and_then(|bytes| talka_base::decode(&bytes).ok());
    Hello { network: desk.network(), membership, instance }
}

/// A peer is of our network if our ledger says so, or if one of the nodes there vouches for it: the
/// ledger may still be on its way to us.
pub(crate) fn check(desk: &Desk, peer: NodeId, hello: &Hello) -> Result<(), String> {
    if hello.network != desk.network() {
        return Err(format!(
            "wrong network: this node is in {}, you are in {}",
            desk.network().short(),
            hello.network.short()
        ));
    }
    if desk.read(|ledger| ledger.removed(&peer)).is_some() {
        return Err(REMOVED.into());
    }
    let vouched = |paper: &Signed<Membership>| {
        let inviter = paper.claimed_value().invited_by;
        paper.verify_by(&inviter.0).is_ok_and(|membership| {
            membership.node == peer
                && membership.network == desk.network()
                && desk.read(|ledger| ledger.is_member_node(&inviter))
        })
    };
    let known = desk.read(|ledger| ledger.is_member_node(&peer));
    if known || hello.membership.as_ref().is_some_and(vouched) {
        Ok(())
    } else {
        Err("you are no member of this network: ask a member for an invitation".into())
    }
}

pub(crate) async fn refuse(sender: &LinkSender, reason: &str) {
    let message = Control::Refused { reason: crate::wire::shorten(reason) };
    let _ = sender.send(Lane::Control, message.to_bytes()).await;
    await_end(sender, reason).await;
}

/// The peer closes once it has read the last word; if it does not, we do.
pub(crate) async fn await_end(sender: &LinkSender, reason: &str) {
    let _ = timeout(GREETING_TIME_MAX, sender.closed()).await;
    sender.close(reason);
}

/// The next control message; none once the link is closed or the peer talks nonsense, which is its fault.
pub(crate) async fn next_control(receiver: &mut LinkReceiver) -> Result<Control, Option<Fault>> {
    let (lane, bytes) = receiver.recv().await.map_err(|error| fault_of(&error))?;
    let message = if lane == Lane::Control { Control::from_bytes(&bytes).ok() } else { None };
    message.ok_or(Some(Fault::Message))
}

/// What the peer did whose link ended so.
fn fault_of(error: &LinkError) -> Option<Fault> {
    match (error, error.blame()) {
        (LinkError::Silent { .. }, _) => Some(Fault::Silence),
        (_, Blame::Peer) => Some(Fault::Frame),
        _ => None,
    }
}

/// Reads a greeted link until it closes.
async fn serve(
    shared: Arc<Shared>,
    sender: LinkSender,
    mut receiver: LinkReceiver,
    dialled_by: NodeId,
    instance: u64,
) {
    let peer = sender.peer();
    let Kept { number, is_anew } =
        match shared.links.insert(sender, dialled_by, shared.me, instance) {
            Ok(kept) => kept,
            Err(Unkept::Spare) => return,
            Err(Unkept::SameKey) => return shared.blame(peer, Fault::Key),
        };
    if is_anew {
        // What it held is lost.
        shared.peer_gone(peer);
    }
    if shared.hub.send(HubInput::LinkUp { peer }).await.is_err() {
        return;
    }
    let reason = read(&shared, &mut receiver).await;
    receiver.close(&reason);
    if shared.links.remove(peer, number) {
        shared.peer_gone(peer);
        let _ = shared.hub.send(HubInput::LinkDown { peer, reason }).await;
    }
}

/// Hands on what a peer sends; returns why it ended.
async fn read(shared: &Arc<Shared>, receiver: &mut LinkReceiver) -> String {
    let peer = receiver.peer();
    loop {
        let (lane, bytes) = match receiver.recv().await {
            Ok(message) => message,
            Err(error) => {
                fault_of(&error).into_iter().for_each(|fault| shared.blame(peer, fault));
                return error.to_string();
            }
        };
        if let Some(rate) = receiver.take_throughput() {
            shared.meter.arrived(peer, rate);
        }
        let outcome = match lane {
            Lane::Control => match Control::from_bytes(&bytes) {
                Ok(Control::Ping(id)) => {
                    shared.links.send(peer, &Control::Pong(id));
                    Ok(())
                }
                Ok(Control::Pong(id)) => {
                    shared.probes.answered(peer, id);
                    Ok(())
                }
                // How fast it came was seen already, as of any frame.
                Ok(Control::Bulk(_)) => Ok(()),
                Ok(Control::Training(message)) => {
                    shared.training.hear(peer, message, bytes.len());
                    Ok(())
                }
                Ok(Control::Suspect(node)) => {
                    probe::suspect(shared, node);
                    Ok(())
                }
                Ok(message) => {
                    let message = Box::new(message);
                    if shared.hub.send(HubInput::Control { peer, message }).await.is_err() {
                        return "the node is stopping".into();
                    }
                    Ok(())
                }
                Err(error) => Err(error),
            },
            Lane::Activations => Flow::from_bytes(bytes).map(|flow| shared.receive(peer, flow)),
        };
        if let Err(error) = outcome {
            tracing::debug!(peer = %peer.short(), %error, "a node sent what cannot be read");
            shared.blame(peer, Fault::Message);
            return error.to_string();
        }
    }
}
