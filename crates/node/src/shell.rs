//! The world around [`core`](crate::core): clock, entropy, sockets, files, threads. No policy.
//!
//! `hub` is the task that owns the core and performs its effects; `links` opens and reads links;
//! `stages` is the thread that computes; `admission` lets requests in; `answer` and `embed` run one request from prompt
//! to bill, over sessions (`session`); `count` only measures a prompt; `routes` finds ways for sessions; `resume`
//! keeps answers that may be gone on with; `fetch` brings weights from other nodes, or from a hub, and gives them;
//! `upstream` asks services outside the network; `probe` asks whether a node is there; `meter` knows how fast this
//! one is, `gauge` measures it, `bench` tells what that counts for, `machine` what it is made of, `rating` has the ledger
//! know; `underway` tells how far a load is; `events` carries answers to their callers and `tally` counts them;
//! `forecast` says what joining would come to; `models` knows what requests may ask for; `keys` lets callers in;
//! `settings` keeps what the owner may change while the node runs; `training` runs jobs and serves what they made;
//! `desk` keeps the ledger, `orders` adds to it, `snapshots` lets it begin in the middle.
//! They meet in [`Shared`].

pub(crate) mod admission;
pub(crate) mod answer;
pub(crate) mod bench;
mod blocks;
mod common_work;
pub(crate) mod count;
pub(crate) mod desk;
pub(crate) mod embed;
pub mod events;
pub(crate) mod fetch;
pub(crate) mod forecast;
pub(crate) mod gauge;
pub(crate) mod hub;
pub(crate) mod join;
pub(crate) mod keys;
pub(crate) mod links;
pub(crate) mod machine;
pub(crate) mod meter;
pub(crate) mod models;
pub(crate) mod open;
pub(crate) mod ordering;
pub(crate) mod orders;
mod owner;
pub(crate) mod probe;
pub(crate) mod rating;
pub(crate) mod resume;
pub(crate) mod routes;
pub(crate) mod session;
pub(crate) mod settings;
pub(crate) mod snapshots;
pub(crate) mod stages;
pub(crate) mod tally;
pub(crate) mod till;
pub(crate) mod training;
pub(crate) mod underway;
pub(crate) mod upstream;

use crate::{
    config::{NodeConfig, StartError},
    core::{
        faults::{Fault, Faults},
        recent::Recent,
        reputations::Reputations,
    },
    wire::{Control, Flow, Payload, Step},
};
use admission::Places;
pub(crate) use admission::{Admission, Patience};
use desk::Desk;
pub use fetch::FetchError;
use hub::{HubInput, View};
use links::Links;
use models::Models;
use session::HeadEvent;
use stages::{Job, StageThread};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{SystemTime, UNIX_EPOCH},
};
use talka_base::{Keypair, MemberId, NodeId, RequestId, Tick};
use talka_engine::PagePool;
use talka_net::Endpoint;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

/// Most requests that a node answers at once as their head, however many its owner asks for.
pub const REQUESTS_MAX: usize = 1_024;

/// Requests and sessions that are over and still known: as many as may run at once.
pub(crate) const SESSIONS_REMEMBERED: usize = REQUESTS_MAX;

/// Messages to the hub that may wait.
const HUB_QUEUE: usize = 1_024;

/// What all parts of the shell share.
pub(crate) struct Shared {
    pub(crate) me: NodeId,
    pub(crate) keys: Keypair,
    pub(crate) name: String,
    pub(crate) started_at: Tick,
    pub(crate) models: Models,
    /// Asked where the network cannot answer, in this order.
    pub(crate) upstreams: Vec<upstream::Upstream>,
    pub(crate) store: Arc<crate::store::Store>,
    /// Of callers.
    pub(crate) callers: keys::Keys,
    /// Replaced when the node joins another network.
    desk: RwLock<Arc<Desk>>,
    pub(crate) endpoint: Endpoint,
    pub(crate) links: Links,
    pub(crate) hub: mpsc::Sender<HubInput>,
    /// What has to do with the order of entries, once there are witnesses.
    pub(crate) ordering: mpsc::Sender<ordering::OrderInput>,
    pub(crate) view: watch::Receiver<View>,
    pub(crate) stages: StageThread,
    /// The memory of all sequences' caches, those of draft models included.
    pub(crate) pages: PagePool,
    /// Requests of this head that wait for logits and receipts.
    inboxes: Mutex<Inboxes>,
    /// Events sent to the founder that wait for its answer.
    pub(crate) submissions: Mutex<HashMap<u64, oneshot::Sender<desk::OrderResult>>>,
    /// Settlements that wait to be recorded here.
    pub(crate) till: till::Till,
    /// Held while the stored invitations are read and written.
    pub(crate) invites: Mutex<()>,
    pub(crate) probes: probe::Probes,
    pub(crate) meter: meter::Meter,
    pub(crate) rating: rating::OwnRating,
    pub(crate) tally: Arc<tally::Tally>,
    pub(crate) decisions: routes::Decisions,
    /// What the owner set, and may set anew.
    pub(crate) settings: settings::Settings,
    /// Stages that hold weights differently may make one route.
    pub(crate) mixes_precision: bool,
    pub(crate) answers: resume::Answers,
    pub(crate) places: Places,
    /// Tells this process from others with the same key.
    pub(crate) instance: u64,
    pub(crate) faults: Mutex<Faults>,
    pub(crate) reputations: Mutex<Reputations>,
    /// Where outlines are kept that took reading all weights.
    pub(crate) outlines: std::path::PathBuf,
    /// Links that fetch from this node.
    pub(crate) takers: Semaphore,
    pub(crate) training: training::Training,
}

/// A node that has a part in a session. One that was started anew has none: it would take what is meant for
/// the process before it for a fault of the sender.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Party {
    node: NodeId,
    /// The number that its process drew; any will do, if it had no link.
    process: Option<u64>,
}

/// Where answers to requests of this head go.
#[derive(Default)]
pub(crate) struct Inboxes {
    open: HashMap<RequestId, mpsc::UnboundedSender<HeadEvent>>,
    /// Requests that are over, for which something may still come in.
    closed: Recent<RequestId, SESSIONS_REMEMBERED>,
}

impl Shared {
    pub(crate) fn desk(&self) -> Arc<Desk> {
        self.desk.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn replace_desk(&self, desk: Desk) {
        *self.desk.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(desk);
    }

    /// This node's first words on a link.
    pub(crate) fn hello(&self) -> Control {
        Control::Hello(links::own_hello(&self.store, &self.desk(), self.instance))
    }

    /// What it takes to fetch from another node.
    pub(crate) fn caller(&self) -> fetch::Caller {
        fetch::Caller::new(&self.endpoint, self.desk(), &self.store, self.instance)
    }

    /// A node is its own member for now; see `base::Membership`.
    pub(crate) fn member(&self) -> MemberId {
        MemberId::from(self.me)
    }

    /// Whether something sent to `node` now would leave this one.
    pub(crate) fn reaches(&self, node: NodeId) -> bool {
        node == self.me || self.links.is_open(node)
    }

    /// How many of `nodes` something sent now would reach.
    pub(crate) fn reached(&self, nodes: impl IntoIterator<Item = NodeId>) -> usize {
        nodes.into_iter().filter(|&node| self.reaches(node)).count()
    }

    /// Counts what `node` did wrong. Logged less and less often, so that nobody can fill a disk.
    pub(crate) fn blame(&self, node: NodeId, fault: Fault) {
        let count = self.lock_faults().blame(node, fault);
        if count.is_power_of_two() {
            tracing::warn!(node = %node.short(), ?fault, count, "a fault of another node");
        }
    }

    pub(crate) fn lock_reputations(&self) -> MutexGuard<'_, Reputations> {
        self.reputations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `node` as it is now, for messages that mean nothing to a process started in its place.
    pub(crate) fn party(&self, node: NodeId) -> Party {
        Party { node, process: self.links.process(node) }
    }

    /// Sends `flow` to `to`, which may be this very node.
    pub(crate) fn deliver(&self, to: NodeId, flow: Flow) {
        self.deliver_to(Party { node: to, process: None }, flow);
    }

    /// As [`Shared::deliver`], but nobody gets it if another process has taken the place of that one.
    pub(crate) fn deliver_to(&self, to: Party, flow: Flow) {
        if to.node == self.me {
            self.receive(to.node, flow);
        } else {
            self.links.send_flow(to, &flow);
        }
    }

    /// Takes in what `from` sent on the activations lane: work goes to the stages, answers to the
    /// request that waits for them.
    pub(crate) fn receive(&self, from: NodeId, flow: Flow) {
        let (session, event) = match flow {
            Flow::Step(Step { session, leg, number, payload: Payload::Answer(answer), .. }) => {
                (session, HeadEvent::Answer { from, attempt: leg.attempt, step: number, answer })
            }
            Flow::Receipt(receipt) => {
                (receipt.claimed_value().request, HeadEvent::Receipt { from, receipt })
            }
            Flow::Failed { session, leg, reason } => {
                (session, HeadEvent::Failed { from, leg, reason })
            }
            work => return self.stages.send(Job::Flow { from, flow: work }),
        };
        let inboxes = self.lock_inboxes();
        if let Some(inbox) = inboxes.open.get(&session) {
            let _ = inbox.send(event);
        } else if !inboxes.closed.has(&session) {
            // One that nobody waits for any more is late, not wrong.
            drop(inboxes);
            self.blame(from, Fault::Session);
        }
    }

    /// Tells stages and waiting requests that `peer` is gone.
    pub(crate) fn peer_gone(&self, peer: NodeId) {
        self.stages.send(Job::PeerGone(peer));
        for inbox in self.lock_inboxes().open.values() {
            let _ = inbox.send(HeadEvent::NodeLost(peer));
        }
    }

    pub(crate) fn open_inbox(&self, request: RequestId) -> mpsc::UnboundedReceiver<HeadEvent> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.lock_inboxes().open.insert(request, sender);
        receiver
    }

    pub(crate) fn close_inbox(&self, request: RequestId) {
        let mut inboxes = self.lock_inboxes();
        inboxes.open.remove(&request);
        inboxes.closed.add(request);
    }

    fn lock_inboxes(&self) -> MutexGuard<'_, Inboxes> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends new ledger entries to everybody linked.
    pub(crate) fn publish(&self, entries: Vec<talka_base::Signed<talka_ledger::Entry>>) {
        self.links.broadcast(&Control::Entries(entries));
    }
}

/// A running node.
pub struct Node {
    shared: Arc<Shared>,
    hub: tokio::task::JoinHandle<()>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Node {
    /// Opens the data directory, the models and the network, and starts to serve.
    ///
    /// # Errors
    /// [`StartError`]; nothing keeps running.
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        let (shared, hub, inputs) = open::open(config).await?;
        let accepting = tokio::spawn(links::accept_all(Arc::clone(&shared)));
        tokio::spawn(hub::remember_peers(Arc::clone(&shared)));
        let hub = tokio::spawn(hub::run(Arc::clone(&shared), hub, inputs));
        Ok(Self { shared, hub, accepting })
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.shared.me
    }

    /// The handle for front ends.
    pub fn api(&self) -> crate::api::Api {
        crate::api::Api::new(Arc::clone(&self.shared))
    }

    /// Tells the others and stops.
    pub async fn shutdown(self) {
        self.accepting.abort();
        self.hub.abort();
        self.shared.links.close_all("the node is stopping");
        self.shared.endpoint.close().await;
        self.shared.stages.stop();
        let shared = self.shared;
        let halted = tokio::task::spawn_blocking(move || shared.training.halt());
        halted.await.expect("halting does not panic");
    }
}

/// Now, by this machine's clock.
pub(crate) fn now() -> Tick {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Tick(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Random bytes from the operating system.
///
/// # Panics
/// If it has none: no key or id could be trusted.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}
