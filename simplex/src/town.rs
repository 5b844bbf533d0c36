//! A ledger whose members all witness and may order, and members that do.

use crate::{
    Input,
    council::{CHANNEL, Seat},
    drive,
    net::Net,
    now, simplex,
    store::{Counts, Disk, Store},
};
use anyhow::{Context as _, Result};
use std::{
    io,
    num::NonZeroU32,
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};
use talka_base::{
    Credits, Keypair, Membership, ModelId, ModelShape, NodeId, Precision, RequestId, Signed,
};
use talka_ledger::{
    Entry, Event, Founding, Ledger, LedgerError, Policy, Reservation,
    order::{Appointment, Batch, Chain, OrderChange},
};

/// Who orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ours: [`talka_ledger::order::Council`].
    Council,
    /// commonware's simplex.
    Simplex,
}

/// Views that have one leader with simplex, unless told otherwise.
pub const TERM: NonZeroU32 = NonZeroU32::new(1000).expect("not zero");

/// How long members of simplex wait. The council's times are fixed.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// A leader that says nothing for so long is passed over.
    pub patience: Duration,
    /// A leader waits so long for something to order: shorter than the patience by the longest way.
    pub hold: Duration,
    /// So many views have one leader.
    pub term: NonZeroU32,
}

impl Timing {
    /// Leaders wait half of the patience, so that ways may take the other half.
    pub fn new(patience: Duration, term: NonZeroU32) -> Self {
        Self { patience, hold: patience / 2, term }
    }
}

impl Default for Timing {
    /// The council's patience, and leaders that stay, as the council's do.
    fn default() -> Self {
        Self::new(Duration::from_secs(2), TERM)
    }
}

/// What a member says that it did.
#[derive(Debug)]
pub struct Report {
    /// The member's place in the town.
    pub place: usize,
    /// When.
    pub at: Instant,
    /// What.
    pub what: What,
}

/// What was done.
#[derive(Debug)]
pub enum What {
    /// It offers blocks now.
    Leads,
    /// No other block can take this one's place; it lacks cosignatures.
    Decided(Batch),
    /// It has all cosignatures that clients ask for.
    Final(Batch),
    /// The event is not recorded.
    Refused(Box<Event>, LedgerError),
}

/// Where a member's reports go.
#[derive(Clone)]
pub(crate) struct Reports {
    place: usize,
    to: mpsc::Sender<Report>,
}

impl Reports {
    pub fn tell(&self, what: What) {
        // Whoever listened may have left.
        drop(self.to.send(Report { place: self.place, at: Instant::now(), what }));
    }
}

/// Members, of whom the first founded the ledger.
pub struct Town {
    keys: Vec<Keypair>,
    /// As members begin.
    pub genesis: Chain,
}

impl Town {
    /// A town of so many members: 4, 7, 10 and so on.
    ///
    /// # Errors
    /// [`LedgerError`] for other numbers.
    pub fn new(members: u8) -> Result<Self, LedgerError> {
        let keys: Vec<Keypair> =
            (1..=members).map(|secret| Keypair::from_secret(&[secret; 32])).collect();
        let founder = &keys[0];
        // The most that a policy may say.
        let policy = Policy { grant: Credits(i64::MAX as u64 / 100_000), ..Policy::default() };
        let founding = Founding {
            name: "town".into(),
            founder: id(founder),
            founder_name: "barn".into(),
            policy,
            nonce: [0; 16],
        };
        let at = now();
        let (mut ledger, founding) = Ledger::found(founder, founding, at)?;
        let network = ledger.network();
        let mut events: Vec<Event> = keys[1..]
            .iter()
            .map(|joining| {
                let membership = Membership {
                    network,
                    node: id(joining),
                    member: id(joining).into(),
                    name: id(joining).short().to_string(),
                    invited_by: id(founder),
                    issued_at: at,
                };
                Event::Joined { membership: founder.sign(membership) }
            })
            .collect();
        let mut witnesses: Vec<NodeId> = keys.iter().map(id).collect();
        witnesses.sort();
        let appointment = founder.sign(Appointment { network, witnesses });
        let change = founder.sign(OrderChange { network, number: 1, by_turns: true });
        events.extend([Event::Appointed { appointment }, Event::OrderChanged { change }]);
        let mut entries: Vec<Signed<Entry>> = Vec::new();
        for event in events {
            let entry = ledger.propose(founder, at, event)?;
            ledger.apply(&entry)?;
            entries.push(entry);
        }
        let genesis = Chain::found(&founding)?.extend(&entries)?;
        Ok(Self { keys, genesis })
    }

    /// Its members.
    pub fn size(&self) -> usize {
        self.keys.len()
    }

    /// The member at a place.
    pub fn node(&self, place: usize) -> NodeId {
        id(&self.keys[place])
    }

    /// A request of the member at a place reserves credits. Each number is another request.
    pub fn reserves(&self, place: usize, number: u64) -> Event {
        let mut request = [0; 16];
        request[..8].copy_from_slice(&number.to_be_bytes());
        let keys = &self.keys[place];
        Event::Reserved {
            reservation: keys.sign(Reservation {
                network: self.genesis.ledger().network(),
                request: RequestId(request),
                payer: id(keys).into(),
                head: id(keys),
                model: ModelId([7; 32]),
                shape: shape(),
                prompt_tokens: 512,
                max_new_tokens: 512,
                at: now(),
            }),
        }
    }

    /// Starts the member at a place, with what it kept in `folder` if it died before.
    ///
    /// # Errors
    /// If the disk fails, or what was kept there is another ledger's.
    pub fn start(
        &self,
        kind: Kind,
        place: usize,
        folder: &Path,
        timing: Timing,
        net: &Net,
        to: &mpsc::Sender<Report>,
    ) -> Result<Member> {
        let (keys, genesis) = (self.keys[place].clone(), self.genesis.clone());
        let me = id(&keys);
        let folder = folder.join(place.to_string());
        std::fs::create_dir_all(&folder).context("no folder for a member")?;
        let reports = Reports { place, to: to.clone() };
        let running = match kind {
            Kind::Council => {
                let counts = Arc::new(Counts::default());
                let (store, kept) = Store::open(&folder.join("council"), Arc::clone(&counts))?;
                let mut seat = Seat::new(keys, genesis, kept, (net.clone(), store, reports))?;
                let (inputs, received) = mpsc::channel();
                let messages = inputs.clone();
                net.open(me, CHANNEL, move |from, bytes| {
                    drop(messages.send(Input::Message(from, bytes)));
                });
                let thread = thread::spawn(move || drive(&mut seat, &received));
                Running::Council { inputs, counts, thread }
            }
            Kind::Simplex => {
                let member = (keys, genesis);
                Running::Simplex(simplex::Running::start(member, &folder, timing, net, reports)?)
            }
        };
        Ok(Member { node: me, net: net.clone(), running })
    }
}

/// A running member.
pub struct Member {
    node: NodeId,
    net: Net,
    running: Running,
}

enum Running {
    Council {
        inputs: mpsc::Sender<Input>,
        counts: Arc<Counts>,
        thread: thread::JoinHandle<io::Result<()>>,
    },
    Simplex(simplex::Running),
}

impl Member {
    fn inputs(&self) -> &mpsc::Sender<Input> {
        match &self.running {
            Running::Council { inputs, .. } => inputs,
            Running::Simplex(running) => running.inputs(),
        }
    }

    /// Has an event recorded.
    ///
    /// # Errors
    /// If the member died by itself.
    pub fn submit(&self, event: Event) -> Result<()> {
        self.inputs().send(Input::Submit(Box::new(event))).ok().context("the member is dead")
    }

    /// Its ledger, as far as it is final.
    ///
    /// # Errors
    /// If the member died by itself.
    pub fn chain(&self) -> Result<Chain> {
        let (answer, answered) = mpsc::channel();
        self.inputs().send(Input::Show(answer)).ok().context("the member is dead")?;
        answered.recv().context("the member is dead")
    }

    /// What it wrote to disk since it was started.
    pub fn disk(&self) -> Disk {
        match &self.running {
            Running::Council { counts, .. } => counts.read(),
            Running::Simplex(running) => running.disk(),
        }
    }

    /// It dies: nothing that was not on disk remains.
    ///
    /// # Errors
    /// If it died before, of the disk or a panic.
    pub fn kill(self) -> Result<()> {
        self.net.close(self.node);
        match self.running {
            Running::Council { inputs, thread, .. } => {
                drop(inputs.send(Input::Stop));
                Ok(thread.join().ok().context("the council panicked")??)
            }
            Running::Simplex(running) => running.stop(),
        }
    }
}

fn id(keys: &Keypair) -> NodeId {
    NodeId(keys.public())
}

fn shape() -> ModelShape {
    ModelShape {
        layers: 16,
        hidden: 2048,
        heads: 32,
        kv_heads: 8,
        head_dim: 64,
        ffn: 8192,
        vocab: 128_256,
        context: 8192,
        precision: Precision::Bf16,
    }
}
