//! The engine of commonware's simplex, with what it asks of an application passed on to an [`orderer`](crate::orderer).

use crate::{
    Input, drive,
    net::{Channel, Net},
    orderer::{Orderer, name},
    store::{Counts, Disk, Store},
    town::{Reports, Timing},
};
use commonware_actor::{Feedback, Unreliable};
use commonware_codec::DecodeExt;
use commonware_consensus::{
    Automaton, CertifiableAutomaton, Relay, Reporter,
    simplex::{
        Config, Engine, Floor, ForwardPolicy, Plan, SkipBudget, SkipPolicy,
        elector::RoundRobin,
        scheme::ed25519::Scheme,
        types::{Activity, Context},
    },
    types::{Epoch, Round, TermLength, ViewDelta},
};
use commonware_cryptography::{
    ed25519::{PrivateKey, PublicKey},
    sha256::Digest,
};
use commonware_p2p::{
    BlockedSubscription, Blocker, CheckedSender, LimitedSender, Message, Recipients,
};
use commonware_parallel::Sequential;
use commonware_runtime::{
    IoBuf, IoBufs, Metrics, Runner as _, Supervisor,
    buffer::paged::{CacheRef, page_size},
    tokio::{Config as RuntimeConfig, Runner},
};
use commonware_utils::{
    NZDuration, NZUsize,
    channel::{mpsc, oneshot, ring},
    ordered::Set,
};
use std::{
    convert::Infallible,
    fmt, io,
    num::NonZeroUsize,
    path::Path,
    sync::Arc,
    sync::mpsc as std_mpsc,
    thread,
    time::{Duration, SystemTime},
};
use talka_base::{Keypair, NodeId, TreeHash};
use talka_ledger::order::Chain;

/// The engine's channels: votes, certificates, and what is asked for.
const CHANNELS: [Channel; 3] = [1, 2, 3];
/// Messages that wait within the engine before it lets go of some.
const MAILBOX: NonZeroUsize = NZUsize!(1024);
const NAMESPACE: &[u8] = b"talka order";

/// What the engine asks of the application, or tells it.
pub enum Asked {
    /// This member leads, after the block `parent`.
    Propose {
        /// The block before.
        parent: TreeHash,
        /// Takes the next one; the parent again if nothing is to be ordered.
        answer: oneshot::Sender<Digest>,
    },
    /// Whether a leader's block is right.
    Verify {
        /// The block before.
        parent: TreeHash,
        /// The block.
        block: TreeHash,
        /// Stays open while nobody knows.
        answer: oneshot::Sender<bool>,
    },
    /// Whether a block that a quorum voted for is kept here.
    Certify {
        /// The block.
        block: TreeHash,
        /// Stays open while it is not.
        answer: oneshot::Sender<bool>,
    },
    /// The others need the block.
    Relay {
        /// The block.
        block: TreeHash,
    },
    /// This block and all before are final.
    Finalized(TreeHash),
}

/// How simplex calls a block.
pub(crate) fn payload(block: TreeHash) -> Digest {
    Digest(block.0)
}

fn block(payload: Digest) -> TreeHash {
    TreeHash(payload.0)
}

/// Passes on what the engine asks.
#[derive(Clone)]
struct Mouth(std_mpsc::Sender<Input>);

impl Mouth {
    fn say(&self, asked: Asked) -> Feedback {
        match self.0.send(Input::Asked(asked)) {
            Ok(()) => Feedback::Ok,
            Err(_) => Feedback::Closed,
        }
    }

    fn ask<T>(&self, asked: impl FnOnce(oneshot::Sender<T>) -> Asked) -> oneshot::Receiver<T> {
        let (answer, answered) = oneshot::channel();
        self.say(asked(answer));
        answered
    }
}

impl Automaton for Mouth {
    type Context = Context<Digest, PublicKey>;
    type Digest = Digest;

    async fn propose(&mut self, context: Self::Context) -> oneshot::Receiver<Digest> {
        self.ask(|answer| Asked::Propose { parent: block(context.parent.1), answer })
    }

    async fn verify(&mut self, context: Self::Context, payload: Digest) -> oneshot::Receiver<bool> {
        let (parent, block) = (block(context.parent.1), block(payload));
        self.ask(|answer| Asked::Verify { parent, block, answer })
    }
}

impl CertifiableAutomaton for Mouth {
    async fn certify(&mut self, _: Round, payload: Digest) -> oneshot::Receiver<bool> {
        self.ask(|answer| Asked::Certify { block: block(payload), answer })
    }
}

impl Relay for Mouth {
    type Digest = Digest;
    type Plan = Plan<PublicKey>;
    type PublicKey = PublicKey;

    fn broadcast(&mut self, payload: Digest, _: Self::Plan) -> Feedback {
        self.say(Asked::Relay { block: block(payload) })
    }
}

impl Reporter for Mouth {
    type Activity = Activity<Scheme, Digest>;

    fn report(&mut self, activity: Self::Activity) -> Feedback {
        match activity {
            Activity::Finalization(finalization) => {
                self.say(Asked::Finalized(block(finalization.proposal.payload)))
            }
            _ => Feedback::Ok,
        }
    }
}

/// A member's end of one channel.
#[derive(Clone)]
struct Line {
    net: Net,
    me: NodeId,
    others: Arc<[PublicKey]>,
    channel: Channel,
}

/// A message's receivers are known.
struct Addressed<'a>(&'a Line, Vec<PublicKey>);

impl LimitedSender for Line {
    type Checked<'a> = Addressed<'a>;
    type PublicKey = PublicKey;

    fn check(&mut self, to: Recipients<PublicKey>) -> Result<Addressed<'_>, SystemTime> {
        let to = match to {
            Recipients::All => self.others.to_vec(),
            Recipients::Some(some) => some,
            Recipients::One(one) => vec![one],
        };
        Ok(Addressed(self, to))
    }
}

impl CheckedSender for Addressed<'_> {
    type PublicKey = PublicKey;

    fn recipients(&self) -> Vec<PublicKey> {
        self.1.clone()
    }

    fn send(self, message: impl Into<IoBufs> + Send, _: bool) -> Unreliable<Feedback> {
        let bytes = message.into().coalesce();
        for to in &self.1 {
            self.0.net.send(self.0.me, node(to), self.0.channel, bytes.as_ref().to_vec());
        }
        Unreliable::new(Feedback::Ok)
    }
}

/// What arrives on one channel.
struct Arrivals(mpsc::UnboundedReceiver<(NodeId, Vec<u8>)>);

impl fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Arrivals")
    }
}

impl commonware_p2p::Receiver for Arrivals {
    type Error = Infallible;
    type PublicKey = PublicKey;

    async fn recv(&mut self) -> Result<Message<PublicKey>, Infallible> {
        match self.0.recv().await {
            Some((from, bytes)) => Ok((public(from), IoBuf::from(bytes))),
            // Another took this member's place on the net.
            None => std::future::pending().await,
        }
    }

    fn capacity(&self) -> NonZeroUsize {
        MAILBOX
    }
}

/// Members of one town are not blocked: what would be is said.
#[derive(Clone)]
struct Gate;

impl Blocker for Gate {
    type PublicKey = PublicKey;

    fn block(&mut self, peer: PublicKey) -> Feedback {
        eprintln!("simplex would block {peer}");
        Feedback::Ok
    }

    fn blocked(&mut self) -> BlockedSubscription<PublicKey> {
        ring::channel(NZUsize!(1)).1
    }
}

fn node(key: &PublicKey) -> NodeId {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(key.as_ref());
    NodeId(bytes)
}

fn public(node: NodeId) -> PublicKey {
    PublicKey::decode(IoBuf::from(node.0.to_vec())).expect("a member's key")
}

fn open(net: &Net, me: NodeId, others: &Arc<[PublicKey]>, channel: Channel) -> (Line, Arrivals) {
    let (sender, receiver) = mpsc::unbounded_channel();
    // It may be about to die.
    net.open(me, channel, move |from, bytes| drop(sender.send((from, bytes))));
    (Line { net: net.clone(), me, others: Arc::clone(others), channel }, Arrivals(receiver))
}

type Setup = Config<Scheme, RoundRobin, Gate, Digest, Mouth, Mouth, Mouth, Sequential>;

fn config(keys: &Keypair, genesis: &Chain, timing: Timing, mouth: Mouth) -> Setup {
    let members = genesis.ledger().witnesses().nodes().map(public);
    let secret = PrivateKey::decode(IoBuf::from(keys.secret().to_vec())).expect("32 bytes");
    let elector = match TermLength::new(timing.term) {
        TermLength::ONE => RoundRobin::default(),
        // Of several blocks under way, those within two of the last notarized one are voted for.
        term => RoundRobin::default().with_term(term, timing.patience * 2, ViewDelta::new(2)),
    };
    let scheme = Scheme::signer(NAMESPACE, Set::from_iter_dedup(members), secret);
    Config {
        scheme: scheme.expect("a member's key"),
        elector,
        blocker: Gate,
        automaton: mouth.clone(),
        relay: mouth.clone(),
        reporter: mouth,
        track_historical_votes: false,
        strategy: Sequential,
        partition: "order".into(),
        mailbox_size: MAILBOX,
        epoch: Epoch::new(0),
        floor: Floor::Genesis(payload(name(genesis))),
        replay_buffer: NZUsize!(1 << 20),
        write_buffer: NZUsize!(1 << 16),
        page_cache: CacheRef::new(page_size(4096), NZUsize!(64)),
        leader_timeout: timing.patience,
        certification_timeout: timing.patience * 3 / 2,
        timeout_retry: timing.patience,
        view_retention: ViewDelta::new(64),
        skip: SkipPolicy::Enabled {
            timeout: timing.patience * 2,
            budget: SkipBudget::Participants,
        },
        fetch_timeout: NZDuration!(Duration::from_secs(1)),
        fetch_retry_delay: Duration::from_millis(100),
        // Orderers ask for what they miss.
        forward: ForwardPolicy::Disabled,
    }
}

/// What is asked of a running engine.
enum Call {
    Disk(std_mpsc::Sender<Disk>),
    Stop,
}

/// The threads of one member.
pub(crate) struct Running {
    inputs: std_mpsc::Sender<Input>,
    calls: mpsc::UnboundedSender<Call>,
    counts: Arc<Counts>,
    orderer: thread::JoinHandle<io::Result<()>>,
    engine: thread::JoinHandle<()>,
}

impl Running {
    /// Starts a member that keeps its things in `folder`.
    pub fn start(
        (keys, genesis): (Keypair, Chain),
        folder: &Path,
        timing: Timing,
        net: &Net,
        reports: Reports,
    ) -> anyhow::Result<Self> {
        let me = NodeId(keys.public());
        let counts = Arc::new(Counts::default());
        let (store, kept) = Store::open(&folder.join("orderer"), Arc::clone(&counts))?;
        let parts = (net.clone(), store, reports);
        let mut orderer = Orderer::new(keys.clone(), genesis.clone(), timing.hold, parts);
        orderer.recall(kept)?;
        let (inputs, received) = std_mpsc::channel();
        let messages = inputs.clone();
        net.open(me, crate::orderer::CHANNEL, move |from, bytes| {
            drop(messages.send(Input::Message(from, bytes)));
        });
        let orderer = thread::spawn(move || drive(&mut orderer, &received));
        let others: Arc<[PublicKey]> =
            genesis.ledger().witnesses().nodes().filter(|&node| node != me).map(public).collect();
        let [votes, certificates, asked] = CHANNELS.map(|channel| open(net, me, &others, channel));
        let config = config(&keys, &genesis, timing, Mouth(inputs.clone()));
        let runtime = RuntimeConfig::new().with_storage_directory(folder.join("engine"));
        let (calls, mut called) = mpsc::unbounded_channel();
        let engine = thread::spawn(move || {
            Runner::new(runtime).start(|context| async move {
                let engine = Engine::new(context.child("engine"), config);
                let _running = engine.start(votes, certificates, asked);
                while let Some(Call::Disk(answer)) = called.recv().await {
                    let _ = answer.send(written(&context.encode()));
                }
            });
        });
        Ok(Self { inputs, calls, counts, orderer, engine })
    }

    pub const fn inputs(&self) -> &std_mpsc::Sender<Input> {
        &self.inputs
    }

    /// What the engine's journal and the orderer wrote.
    pub fn disk(&self) -> Disk {
        let (answer, answered) = std_mpsc::channel();
        self.calls.send(Call::Disk(answer)).expect("the engine runs");
        let (own, journal) = (self.counts.read(), answered.recv().expect("the engine answers"));
        Disk { syncs: own.syncs + journal.syncs, bytes: own.bytes + journal.bytes }
    }

    pub fn stop(self) -> anyhow::Result<()> {
        drop(self.calls.send(Call::Stop));
        drop(self.inputs.send(Input::Stop));
        self.engine.join().map_err(|_| anyhow::anyhow!("the engine panicked"))?;
        let orderer = self.orderer.join().map_err(|_| anyhow::anyhow!("the orderer panicked"))?;
        Ok(orderer?)
    }
}

/// What the runtime's metrics say was written.
fn written(metrics: &str) -> Disk {
    let total = |name: &str| {
        let values = metrics.lines().filter_map(|line| {
            let (metric, value) = line.rsplit_once(' ')?;
            metric.contains(name).then(|| value.parse::<u64>().ok())?
        });
        values.sum()
    };
    Disk { syncs: total("storage_syncs"), bytes: total("storage_write_bytes") }
}
