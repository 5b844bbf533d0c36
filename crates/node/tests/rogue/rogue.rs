//! A member of a node's network that keeps to the rules as far as a test wants.

use crate::common::{PATIENCE, wait_for};
use bytes::Bytes;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use talka_base::{
    Keypair, LayerSpan, MemberId, ModelId, ModelShape, NetworkId, NodeId, RequestId, Signed, Tick,
};
use talka_ledger::{Entry, Event, Reservation};
use talka_net::{BindOptions, Endpoint, Invite, Lane, LinkReceiver, LinkSender, WireType};
use talka_node::{
    Node,
    api::{Fault, InviteOptions},
    wire::{
        Admission, Control, Flow, Grade, Heartbeat, Hello, JoinRequest, Leg, Machine, Offer, Open,
        Payload, RouteHop, Step, Wanted,
    },
};
use tokio::time::{sleep, timeout};

fn now() -> Tick {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    Tick(since.as_millis().try_into().expect("a clock before the year 584,000,000"))
}

/// How often `node` saw `fault` of `peer`.
pub async fn count(node: &Node, peer: NodeId, fault: Fault) -> u64 {
    let peers = node.api().peers().await;
    let report = peers.iter().find(|report| report.node == peer);
    report.and_then(|report| report.faults.get(&fault)).copied().unwrap_or_default()
}

/// Waits until `node` blames `peer` for `fault` more often than `before`; the node is well then.
pub async fn blamed(node: &Node, peer: NodeId, fault: Fault, before: u64) {
    let question = async || (count(node, peer, fault).await > before).then_some(());
    wait_for(&format!("{fault:?} to be counted"), question).await;
    assert_eq!(node.api().status().await.node, node.id());
}

/// A member that is not linked.
pub struct Rogue {
    pub keys: Keypair,
    pub invite: Invite,
    pub model: ModelId,
    pub shape: ModelShape,
    endpoint: Endpoint,
    admission: Admission,
}

/// A member that is linked. Answers pings and sends heartbeats while it is listened to.
pub struct Linked {
    pub sender: LinkSender,
    pub receiver: LinkReceiver,
}

impl Rogue {
    pub async fn join(node: &Node, seed: u8) -> Self {
        let options = InviteOptions { reusable: true, valid_ms: 600_000 };
        let invite = node.api().invite(options).await.expect("an invitation").invite;
        let invite: Invite = invite.parse().expect("an invitation");
        let keys = Keypair::from_secret(&[seed; 32]);
        let endpoint = Endpoint::bind(BindOptions::loopback(keys.clone())).await.expect("a port");
        let link = endpoint.connect(invite.inviter, &invite.addresses).await.expect("a link");
        let (sender, mut receiver) = link.split();
        let (network, secret) = (invite.network, invite.secret.0);
        let request = Control::Join(JoinRequest { network, secret, name: "rogue".into() });
        sender.send(Lane::Control, request.to_bytes()).await.expect("sent");
        let (_, bytes) = receiver.recv().await.expect("an answer");
        let Ok(Control::Admitted(admission)) = Control::from_bytes(&bytes) else {
            panic!("not let in")
        };
        sender.close("joined");
        let report = node.api().models().await.remove(0);
        Self { keys, invite, model: report.id, shape: report.shape, endpoint, admission }
    }

    pub fn id(&self) -> NodeId {
        NodeId(self.keys.public())
    }

    pub fn network(&self) -> NetworkId {
        self.invite.network
    }

    pub fn hello(&self, instance: u64) -> Control {
        let membership = Some(self.admission.membership.clone());
        Control::Hello(Hello { network: self.network(), membership, instance })
    }

    /// Links as a process of number `instance`, and says that it serves `serves`.
    pub async fn link(&self, serves: &[LayerSpan], instance: u64) -> Linked {
        let link = self.endpoint.connect(self.invite.inviter, &self.invite.addresses).await;
        let (sender, mut receiver) = link.expect("a link").split();
        sender.send(Lane::Control, self.hello(instance).to_bytes()).await.expect("sent");
        let (_, bytes) = receiver.recv().await.expect("an answer");
        assert!(matches!(Control::from_bytes(&bytes), Ok(Control::Hello(_))));
        let beat = self.heartbeat(serves).to_bytes();
        let lives = sender.clone();
        tokio::spawn(async move {
            while lives.send(Lane::Control, beat.clone()).await.is_ok() {
                sleep(Duration::from_millis(300)).await;
            }
        });
        Linked { sender, receiver }
    }

    fn heartbeat(&self, serves: &[LayerSpan]) -> Control {
        let offer = Offer {
            model: self.model,
            pinned: serves.first().copied(),
            memory_bytes: 1 << 30,
            grade: Grade::Stored,
            could_bytes: 0,
            layer_us: 50,
            serves: serves.to_vec(),
            adapters: Vec::new(),
        };
        Control::Heartbeat(Heartbeat {
            name: "rogue".into(),
            at: Tick(0),
            memory_bytes: 1 << 30,
            addresses: Vec::new(),
            ledger_height: 0,
            load: 0,
            is_busy: false,
            asked: Vec::new(),
            round_trips_us: Vec::new(),
            throughputs_kib: Vec::new(),
            machine: Machine::default(),
            closed: None,
            offers: vec![offer],
            peers: Vec::new(),
        })
    }

    /// The founder's entry that holds credits for a request of this node.
    pub async fn ticket(&self, linked: &mut Linked, request: RequestId) -> Signed<Entry> {
        self.ticket_for(linked, request, 10).await
    }

    /// The same for so many new tokens.
    pub async fn ticket_for(
        &self,
        linked: &mut Linked,
        request: RequestId,
        max_new_tokens: u32,
    ) -> Signed<Entry> {
        let reservation = Reservation {
            network: self.network(),
            request,
            payer: MemberId::from(self.id()),
            head: self.id(),
            model: self.model,
            shape: self.shape,
            prompt_tokens: 10,
            max_new_tokens,
            at: now(),
        };
        let event = Box::new(Event::Reserved { reservation: self.keys.sign(reservation) });
        linked.tell(Control::Submit { id: 1, event }).await;
        loop {
            if let Heard::Control(Control::Ordered { result, .. }) = linked.hear().await {
                return *result.expect("enough credits");
            }
        }
    }

    /// What opens a session over `route`, of which this node is the head.
    pub fn open(&self, ticket: Signed<Entry>, route: &[(NodeId, LayerSpan)]) -> Box<Open> {
        let Event::Reserved { reservation } = &ticket.claimed_value().event else {
            panic!("no reservation")
        };
        let reserved = reservation.claimed_value();
        let hop = |&(node, span): &(NodeId, LayerSpan)| RouteHop { node, span, fresh: true };
        Box::new(Open {
            session: reserved.request,
            head: self.id(),
            model: self.model,
            adapter: None,
            route: route.iter().map(hop).collect(),
            held: 0,
            positions_max: reserved.prompt_tokens + reserved.max_new_tokens,
            frames: WireType::F32,
            best: None,
            ticket,
            finality: None,
        })
    }
}

/// What a node said.
pub enum Heard {
    Control(Control),
    Flow(Flow),
}

impl Linked {
    pub async fn tell(&self, message: Control) {
        self.sender.send(Lane::Control, message.to_bytes()).await.expect("the link is open");
    }

    pub async fn flow(&self, flow: Flow) {
        self.sender.send(Lane::Activations, flow.to_bytes()).await.expect("the link is open");
    }

    pub async fn raw(&self, lane: Lane, bytes: &'static [u8]) {
        self.sender.send(lane, Bytes::from_static(bytes)).await.expect("the link is open");
    }

    /// The next message that is no ping.
    pub async fn hear(&mut self) -> Heard {
        loop {
            let message = timeout(PATIENCE, self.receiver.recv()).await.expect("gave up listening");
            let (lane, bytes) = message.expect("the link is open");
            match lane {
                Lane::Activations => return Heard::Flow(Flow::from_bytes(bytes).expect("a flow")),
                Lane::Control => match Control::from_bytes(&bytes).expect("a message") {
                    Control::Ping(id) => self.tell(Control::Pong(id)).await,
                    other => return Heard::Control(other),
                },
            }
        }
    }

    /// The next message about sessions.
    pub async fn hear_flow(&mut self) -> Flow {
        loop {
            if let Heard::Flow(flow) = self.hear().await {
                return flow;
            }
        }
    }
}

/// A step of a session.
pub fn step(session: RequestId, leg: Leg, position: u32, payload: Payload) -> Flow {
    let wants = Wanted::Logits(talka_engine::LogitsWanted::Last);
    Flow::Step(Step { session, leg, number: 0, position, wants, payload })
}
