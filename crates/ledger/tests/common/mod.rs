//! A small network for tests: nodes with keys, and papers as nodes would sign them.
#![allow(dead_code, reason = "each test file uses a part")]

use talka_base::{
    Blame, Credits, DeviceKind, Factor, HardwareId, Keypair, LayerSpan, MemberId, Membership,
    ModelId, ModelShape, NetworkId, NodeId, Precision, ProposalId, Receipt, RequestId, Scores,
    Signed, Tick, TreeHash, VoucherHash,
};
use talka_ledger::{
    Block, Bucket, Cancellation, Delivery, Entry, Event, Forwarding, Founding, Ledger, LedgerError,
    Policy, ReleaseReason, Removal, Reservation, Settlement, Tariff, Voucher,
    common_work::CommonWork,
    govern::{Action, Choice, Proposal, Vote},
    keys::{KeyChange, KeyOrder},
    order::{Appointment, OrderChange},
    profile::Task,
    stake::{StakeChange, StakeOrder},
    standing::{Finding, Judgement, Measured, Rating},
    tlog::CompactRange,
};

pub const MODEL: ModelId = ModelId([0xAA; 32]);
pub const FOUNDER: u8 = 1;

pub const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A node and the layers that it ran.
pub type Cut = (u8, (u32, u32));

pub fn keys(node: u8) -> Keypair {
    Keypair::from_secret(&[node; 32])
}

pub fn node(node: u8) -> NodeId {
    NodeId(keys(node).public())
}

pub fn member(first_node: u8) -> MemberId {
    node(first_node).into()
}

pub fn request(number: u8) -> RequestId {
    RequestId([number; 16])
}

pub fn shape() -> ModelShape {
    ModelShape {
        layers: 6,
        hidden: 192,
        heads: 6,
        kv_heads: 3,
        head_dim: 32,
        ffn: 512,
        vocab: 1024,
        context: 256,
        precision: Precision::Bf16,
    }
}

pub fn founding() -> Founding {
    Founding {
        name: "village".into(),
        founder: node(FOUNDER),
        founder_name: "barn".into(),
        policy: Policy::default(),
        nonce: [9; 16],
    }
}

/// How many random cases a property is tried on: `TALKA_CASES` in a long run, as `cargo xtask bench ledger`
/// makes one.
pub fn cases(default: u32) -> u32 {
    let wanted = std::env::var("TALKA_CASES").ok();
    wanted.map_or(default, |number| number.parse().expect("TALKA_CASES is a number"))
}

/// A block about `ledger`. The roots over its log are none: what restores a state does not ask for them.
pub fn block(ledger: &Ledger) -> Block {
    let mut log = CompactRange::default();
    (0..=ledger.height()).for_each(|_| log.append(TreeHash([0; 32]), |_, _| ()));
    Block::close(ledger, &log, &log, 0)
}

/// A ledger, and every entry that it took.
#[derive(Clone)]
pub struct World {
    pub ledger: Ledger,
    pub entries: Vec<Signed<Entry>>,
    pub now: Tick,
}

impl World {
    pub fn new() -> Self {
        Self::with_policy(Policy::default())
    }

    pub fn with_policy(policy: Policy) -> Self {
        let now = Tick(1_000_000);
        let founding = Founding { policy, ..founding() };
        let (ledger, entry) = Ledger::found(&keys(FOUNDER), founding, now).expect("founds");
        Self { ledger, entries: vec![entry], now }
    }

    /// Nodes 2 and 3 joined as members of their own; node 4 is a second node of member 2.
    pub fn village() -> Self {
        Self::village_with(Policy::default())
    }

    /// The same under another policy.
    pub fn village_with(policy: Policy) -> Self {
        let mut world = Self::with_policy(policy);
        for event in [world.joins(2, 2, FOUNDER), world.joins(3, 3, FOUNDER)] {
            world.record(event).expect("joins");
        }
        world.record(world.joins(4, 2, 2)).expect("joins");
        world
    }

    pub fn network(&self) -> NetworkId {
        self.ledger.network()
    }

    /// Proposes and applies `event`, as the founder does.
    pub fn record(&mut self, event: Event) -> Result<(), LedgerError> {
        self.record_by(FOUNDER, event)
    }

    /// The same, as another node does.
    pub fn record_by(&mut self, orderer: u8, event: Event) -> Result<(), LedgerError> {
        let entry = self.ledger.propose(&keys(orderer), self.now, event)?;
        self.ledger.apply(&entry)?;
        self.entries.push(entry);
        Ok(())
    }

    pub fn appoints(&self, witnesses: &[u8]) -> Event {
        let mut witnesses: Vec<NodeId> = witnesses.iter().map(|&who| node(who)).collect();
        witnesses.sort();
        let appointment = Appointment { network: self.network(), witnesses };
        Event::Appointed { appointment: keys(FOUNDER).sign(appointment) }
    }

    /// The founder has the witnesses order by turns, or orders again.
    pub fn changes_order(&self, number: u64, by_turns: bool) -> Event {
        let change = OrderChange { network: self.network(), number, by_turns };
        Event::OrderChanged { change: keys(FOUNDER).sign(change) }
    }

    pub fn balance(&self, first_node: u8) -> Credits {
        self.ledger.balance(&member(first_node)).expect("is a member")
    }

    /// What is set aside for open requests.
    pub fn reserved(&self, first_node: u8) -> Credits {
        self.ledger.bucket(&member(first_node), Bucket::Reserved)
    }

    pub fn joins(&self, joining: u8, owner: u8, inviter: u8) -> Event {
        Event::Joined { membership: keys(inviter).sign(self.membership(joining, owner, inviter)) }
    }

    pub fn membership(&self, joining: u8, owner: u8, inviter: u8) -> Membership {
        Membership {
            network: self.network(),
            node: node(joining),
            member: member(owner),
            name: format!("node {joining}"),
            invited_by: node(inviter),
            issued_at: self.now,
        }
    }

    pub fn removes(&self, leaving: u8, by: u8) -> Event {
        let removal = Removal { network: self.network(), node: node(leaving), by: node(by) };
        Event::Removed { removal: keys(by).sign(removal) }
    }

    pub fn reserves(&self, id: u8, head: u8, payer: u8, prompt: u32, new: u32) -> Event {
        let reservation = self.reservation(id, head, payer, prompt, new);
        Event::Reserved { reservation: keys(head).sign(reservation) }
    }

    pub fn reservation(&self, id: u8, head: u8, payer: u8, prompt: u32, new: u32) -> Reservation {
        Reservation {
            network: self.network(),
            request: request(id),
            payer: member(payer),
            head: node(head),
            model: MODEL,
            shape: shape(),
            prompt_tokens: prompt,
            max_new_tokens: new,
            at: self.now,
        }
    }

    pub fn receipt(&self, id: u8, worker: u8, layers: (u32, u32), used: (u32, u32)) -> Receipt {
        let ends_model = layers.1 == shape().layers;
        Receipt {
            network: self.network(),
            request: request(id),
            lane: layers.0 as u16,
            from: 0,
            node: node(worker),
            model: MODEL,
            span: LayerSpan::new(layers.0, layers.1).expect("not empty"),
            positions: used.0,
            logits: if ends_model { used.1 } else { 0 },
        }
    }

    /// `used`: positions and logits.
    pub fn settlement(&self, id: u8, stages: &[Cut], used: (u32, u32)) -> Settlement {
        let receipts = stages
            .iter()
            .map(|&(worker, layers)| keys(worker).sign(self.receipt(id, worker, layers, used)))
            .collect();
        let (positions, logits) = used;
        let (network, request, vouchers) = (self.network(), request(id), Vec::new());
        Settlement { network, request, positions, logits, receipts, vouchers }
    }

    pub fn settles(&self, id: u8, head: u8, stages: &[Cut], used: (u32, u32)) -> Event {
        Event::Settled { settlement: keys(head).sign(self.settlement(id, stages, used)) }
    }

    /// At twice the network's price.
    pub fn forwards(&self, id: u8, head: u8, payer: u8, prompt: u32, new: u32) -> Event {
        let forwarding = self.forwarding(id, head, payer, prompt, new);
        Event::Forwarded { forwarding: keys(head).sign(forwarding) }
    }

    pub fn forwarding(&self, id: u8, head: u8, payer: u8, prompt: u32, new: u32) -> Forwarding {
        Forwarding {
            network: self.network(),
            request: request(id),
            payer: member(payer),
            head: node(head),
            tariff: Tariff::Multiple { shape: shape(), per_mille: 2_000 },
            prompt_tokens: prompt,
            max_new_tokens: new,
            at: self.now,
        }
    }

    /// `used`: tokens of prompt and answer.
    pub fn delivers(&self, id: u8, head: u8, used: (u32, u32)) -> Event {
        let (prompt_tokens, new_tokens) = used;
        let network = self.network();
        let delivery = Delivery { network, request: request(id), prompt_tokens, new_tokens };
        Event::Delivered { delivery: keys(head).sign(delivery) }
    }

    /// A voucher of `head` for a lane of `worker`.
    pub fn voucher(&self, id: u8, head: u8, lane: u16, worker: u8, amount: u64) -> Signed<Voucher> {
        keys(head).sign(Voucher {
            network: self.network(),
            session: request(id),
            lane,
            worker: node(worker),
            seq: 1,
            amount: Credits(amount),
            tokens_in: 10,
            tokens_out: 5,
            model: MODEL,
            route_root: [0; 32],
            commitment_root: [0; 32],
            previous: VoucherHash([0; 32]),
        })
    }

    pub fn claims(&self, id: u8, head: u8, lane: u16, worker: u8, amount: u64) -> Event {
        Event::Claimed { voucher: self.voucher(id, head, lane, worker, amount) }
    }

    pub fn cancels(&self, id: u8, by: u8) -> Event {
        let cancellation =
            Cancellation { network: self.network(), request: request(id), node: node(by) };
        let reason = ReleaseReason::Cancelled(keys(by).sign(cancellation));
        Event::Released { request: request(id), reason }
    }

    pub fn expires(&self, id: u8) -> Event {
        Event::Released { request: request(id), reason: ReleaseReason::Expired }
    }

    /// A discrete GPU of this index, made of parts of this number, measured so.
    pub fn measured(index: u32, hardware: u8) -> Measured {
        let score = Some(Factor(index));
        let scores = Scores { matmul: score, memory: score, latency: score };
        Measured { kind: DeviceKind::DiscreteGpu, scores, hardware: HardwareId([hardware; 32]) }
    }

    pub fn rating(&self, of: u8, measured: Measured) -> Rating {
        let number = self.ledger.standing(&node(of)).ratings();
        Rating { network: self.network(), node: node(of), number, measured }
    }

    pub fn rates(&self, of: u8, measured: Measured) -> Event {
        Event::Rated { rating: keys(of).sign(self.rating(of, measured)) }
    }

    pub fn judgement(&self, of: u8, by: u8, finding: Finding) -> Judgement {
        let number = self.ledger.standing(&node(of)).judgements();
        Judgement { network: self.network(), judge: node(by), node: node(of), number, finding }
    }

    pub fn judges(&self, of: u8, by: u8, finding: Finding) -> Event {
        Event::Judged { judgement: keys(by).sign(self.judgement(of, by, finding)) }
    }

    pub fn locks(&self, by: u8, serial: u64, credits: Credits, days: u16) -> Event {
        self.stakes(by, serial, StakeChange::Lock { credits, days })
    }

    pub fn stakes(&self, by: u8, serial: u64, change: StakeChange) -> Event {
        let order = StakeOrder { network: self.network(), by: node(by), serial, change };
        Event::Staked { order: keys(by).sign(order) }
    }

    pub fn staked(&self, first_node: u8) -> Credits {
        self.ledger.bucket(&member(first_node), Bucket::Stake)
    }

    /// What common work earned it, and cannot be spent yet.
    pub fn held(&self, first_node: u8) -> Credits {
        self.ledger.bucket(&member(first_node), Bucket::Held)
    }

    /// An order about the keys of the member whose first node is `owner`, signed by key `by`.
    pub fn changes_keys(&self, owner: u8, by: u8, serial: u64, change: KeyChange) -> Event {
        let order = KeyOrder { network: self.network(), member: member(owner), serial, change };
        Event::KeysChanged { order: keys(by).sign(order) }
    }

    pub fn proposes(&self, by: u8, is_emergency: bool, action: Action) -> Event {
        Event::Proposed { proposal: keys(by).sign(self.proposal(by, is_emergency, action)) }
    }

    pub fn proposal(&self, by: u8, is_emergency: bool, action: Action) -> Proposal {
        Proposal {
            network: self.network(),
            by: node(by),
            title: "Let us do this".into(),
            is_emergency,
            action,
            at: self.now,
        }
    }

    pub fn votes(&self, by: u8, proposal: ProposalId, choice: Choice) -> Event {
        let vote = Vote { network: self.network(), by: node(by), proposal, choice };
        Event::Voted { vote: keys(by).sign(vote) }
    }

    pub fn rewards(&self, serial: u64, tasks: Vec<(NodeId, Task)>) -> Event {
        let report = CommonWork { network: self.network(), serial, tasks };
        Event::Rewarded { report: keys(FOUNDER).sign(report) }
    }

    pub fn wait_days(&mut self, days: u64) {
        self.now = self.now.plus_ms(days * DAY_MS);
    }

    /// The sum over all accounts.
    pub fn total(&self) -> i128 {
        self.ledger.accounts().map(|(_, amount)| i128::from(amount.0)).sum()
    }
}

/// `event` is refused with `expected`, and nothing changed.
pub fn refused(world: &mut World, event: Event, expected: &LedgerError) {
    let before = world.ledger.clone();
    assert_eq!(world.record(event).as_ref(), Err(expected));
    assert_eq!(world.ledger, before);
}

/// As [`refused`], where only the kind of error matters.
pub fn refused_as(world: &mut World, event: Event, expected: impl Fn(&LedgerError) -> bool) {
    let before = world.ledger.clone();
    let error = world.record(event).expect_err("is refused");
    assert!(expected(&error), "{error:?}");
    assert_eq!(error.blame(), Blame::Peer, "{error:?}");
    assert_eq!(world.ledger, before);
}

pub fn is_mismatch(field: &'static str) -> impl Fn(&LedgerError) -> bool {
    move |e| matches!(e, LedgerError::Mismatch { field: found, .. } if *found == field)
}

pub fn is_signature(e: &LedgerError) -> bool {
    matches!(e, LedgerError::Signature(_))
}
