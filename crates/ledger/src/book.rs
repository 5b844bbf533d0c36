//! The state that entries fold into: balances, members, nodes, open reservations.
//!
//! Holds no rule: [`rules`](crate::rules) decides what may change, this changes it. Ordered maps
//! only, so that the state has one list of records ([`state`](crate::state)) and one root; those that grow are
//! [`Map`]s, so that a copy of the book costs nothing.

use crate::{
    claim,
    common_work::Purse,
    entry::{Account, Bucket, Founding, Posting},
    error::LedgerError,
    forward::OpenForwarding,
    govern::{Action, Assembly, Ballot, Choice, Outcome as Decision},
    keys::Keyring,
    lots::Lots,
    map::{Key, Map},
    order::{Turns, Witnesses},
    policy::Policy,
    profile::Payout,
    removal::RemovedNode,
    request::{REQUEST_KEPT_MS, Reservation},
    share::{BREAKDOWNS_MAX, Breakdown},
    stake::StakeLock,
    standing::{Finding, Measured, Standing, WINDOW_TASKS},
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use talka_base::{
    Amount, Credits, EntryHash, EventId, Flops, MemberId, ModelId, NetworkId, NodeId, ProposalId,
    RequestId, Tick,
};

/// A person or organisation with an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The name of its first node.
    pub name: String,
    /// Its nodes; any of them may spend. None, once they were removed.
    pub nodes: BTreeSet<NodeId>,
    /// The entry that opened the account.
    pub joined_height: u64,
    /// When that was.
    pub joined_at: Tick,
    /// Credits minted for it.
    pub granted: Credits,
    /// Cost of its settled requests, what its own nodes earned on them included.
    pub spent: Credits,
    /// What its nodes earned.
    pub earned: Credits,
    /// The work that its nodes were paid for.
    pub work: Flops,
    /// Its settled requests.
    pub requests: u64,
    /// What it lost for breaking its word.
    pub fined: Credits,
    /// What it got for proving that others did.
    pub rewarded: Credits,
    /// Its root key, and which nodes may act.
    pub keys: Keyring,
    /// How its stake is locked.
    pub stake: StakeLock,
}

/// A node of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Whose node it is.
    pub member: MemberId,
    /// What people call it.
    pub name: String,
    /// The entry that made it part of the network.
    pub joined_height: u64,
}

/// A reservation not yet settled or released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenReservation {
    /// What the head asked for.
    pub reservation: Reservation,
    /// The credits set aside: no settlement costs more.
    pub cap: Credits,
    /// Vouchers brought by stages, by lane: paid when the session closes.
    pub claims: BTreeMap<u16, LaneClaim>,
    /// The entry that recorded it.
    pub height: u64,
    /// When that was; expiry counts from here.
    pub at: Tick,
}

/// What a stage claims of an open session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneClaim {
    /// Its node.
    pub worker: NodeId,
    /// Whose node it was then.
    pub member: MemberId,
    /// All that its lane has earned, as the head signed.
    pub amount: Credits,
    /// The entry that noted it.
    pub mark: Mark,
}

/// An applied event and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The entry that recorded it.
    pub height: u64,
    /// That entry's time.
    pub at: Tick,
    /// The event, which tells a repetition from another one.
    pub event: EventId,
}

/// What a session that ended paid, as long as that can be disputed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedSession {
    /// Who paid.
    pub payer: MemberId,
    /// Whose vouchers count.
    pub head: NodeId,
    /// The model.
    pub model: ModelId,
    /// The head signed the end, so a higher voucher contradicts it.
    pub signed: bool,
    /// What was reserved and not spent.
    pub left: Credits,
    /// Lanes that were paid; no other was.
    pub lanes: BTreeMap<u16, LanePaid>,
}

/// How a lane was paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LanePaid {
    /// By work: its stage signed a receipt and asks for no more.
    Receipt,
    /// This much, by a voucher.
    Voucher(Credits),
    /// By a voucher that had been withheld.
    Proved(Mark),
}

/// What a withheld voucher moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Penalty {
    pub worker: MemberId,
    /// What was missing, as far as the payer had it.
    pub paid: Credits,
    /// What the payer lost beside it.
    pub fine: Credits,
    /// The part of that which the stage got.
    pub reward: Credits,
}

/// How a session ends: what it costs, what becomes of that, and how each lane was paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closing {
    pub cost: Credits,
    pub payout: Payout,
    /// What stages signed for.
    pub work: Work,
    pub signed: bool,
    pub lanes: BTreeMap<u16, LanePaid>,
    /// Of work that stages signed for.
    pub breakdown: Option<Breakdown>,
}

/// What became of a request. Kept until no paper of it can be used any more: a request id works once, or old papers could
/// be replayed against a payer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// What held credits for it.
    pub reserved: Mark,
    /// What paid or released them.
    pub closed: Option<Mark>,
}

/// Everything that the entries so far amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Book {
    pub network: NetworkId,
    pub name: String,
    pub founder: NodeId,
    pub policy: Policy,
    /// Entries folded so far: the height of the next one.
    pub entries: u64,
    pub head: EntryHash,
    pub at: Tick,
    pub balances: Map<Account, Amount>,
    pub members: Map<MemberId, Member>,
    pub nodes: Map<NodeId, NodeRecord>,
    pub witnesses: Witnesses,
    /// The entry that named them; 0 without any.
    pub appointed: u64,
    pub turns: Turns,
    /// Kept for ever: their keys never come back.
    pub removed: Map<NodeId, RemovedNode>,
    pub open: Map<RequestId, OpenReservation>,
    pub forwarded: Map<RequestId, OpenForwarding>,
    pub requests: Map<RequestId, History>,
    /// Those that are over, by when they ended. Follows from `requests`.
    pub ended: Map<(Tick, RequestId), ()>,
    /// Of nodes of which there is more to say than of a new one.
    pub standings: Map<NodeId, Standing>,
    /// By height and request, of the last settlements. No part of the state.
    pub breakdowns: Map<(u64, RequestId), Breakdown>,
    /// Sessions that ended lately, by when and which.
    pub closed: Map<(Tick, RequestId), ClosedSession>,
    /// Epochs closed so far, and the last of them.
    pub epochs: u64,
    pub last_epoch: Option<Mark>,
    pub lots: Map<MemberId, Lots>,
    /// What of its held earnings came when. Their sum is what the bucket holds.
    pub held: Map<MemberId, Lots>,
    pub assembly: Assembly,
    pub purse: Purse,
}

/// What an event does beside moving credits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Join {
        node: NodeId,
        member: MemberId,
        name: String,
        granted: Credits,
    },
    Reserve {
        open: Box<OpenReservation>,
        mark: Mark,
    },
    Forward {
        open: Box<OpenForwarding>,
        mark: Mark,
    },
    Settle {
        request: RequestId,
        mark: Mark,
        closing: Closing,
    },
    Release {
        request: RequestId,
        mark: Mark,
        closing: Closing,
    },
    Claim {
        request: RequestId,
        lane: u16,
        claim: LaneClaim,
    },
    Epoch {
        mark: Mark,
        closings: Vec<(RequestId, Closing)>,
        earned: Earnings,
        work: Work,
        tasks: Vec<(NodeId, u32)>,
    },
    Prove {
        key: (Tick, RequestId),
        lane: u16,
        mark: Mark,
        penalty: Penalty,
    },
    Rate {
        node: NodeId,
        mark: Mark,
        measured: Measured,
    },
    Judge {
        node: NodeId,
        mark: Mark,
        finding: Finding,
    },
    Appoint(Witnesses),
    Order(Turns),
    Remove {
        node: NodeId,
    },
    Stake {
        member: MemberId,
        lock: StakeLock,
    },
    Keys {
        member: MemberId,
        keys: Keyring,
    },
    Reward {
        purse: Purse,
        shares: Earnings,
    },
    Propose {
        id: ProposalId,
        ballot: Box<Ballot>,
    },
    Vote {
        proposal: ProposalId,
        member: MemberId,
        choice: Choice,
        weight: u64,
    },
    Decide {
        proposal: ProposalId,
        outcome: Decision,
    },
    /// Only credits move.
    Nothing,
}

/// Credits set aside for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cap {
    pub payer: MemberId,
    pub credits: Credits,
    pub at: Tick,
}

/// Credits earned, by member.
pub(crate) type Earnings = BTreeMap<MemberId, Credits>;

/// Work done, by member.
pub(crate) type Work = BTreeMap<MemberId, Flops>;

impl Closing {
    /// Of a request that cost nothing.
    pub fn nothing(signed: bool) -> Self {
        let (work, lanes) = (BTreeMap::new(), BTreeMap::new());
        let payout = Payout::default();
        Self { cost: Credits::ZERO, payout, work, signed, lanes, breakdown: None }
    }

    /// Also costs `cost`, of which this becomes.
    pub fn pay(&mut self, cost: Credits, payout: Payout) {
        self.cost.0 = self.cost.0.saturating_add(cost.0);
        self.payout.add(payout);
    }
}

impl Book {
    /// The book of a network before its founding entry.
    pub fn blank(founding: &Founding) -> Self {
        Self {
            network: founding.network_id(),
            name: founding.name.clone(),
            founder: founding.founder,
            policy: founding.policy.clone(),
            entries: 0,
            head: EntryHash([0; 32]),
            at: Tick(0),
            balances: Map::new(),
            members: Map::new(),
            nodes: Map::new(),
            witnesses: Witnesses::default(),
            appointed: 0,
            turns: Turns::default(),
            removed: Map::new(),
            open: Map::new(),
            forwarded: Map::new(),
            requests: Map::new(),
            ended: Map::new(),
            standings: Map::new(),
            breakdowns: Map::new(),
            closed: Map::new(),
            epochs: 0,
            last_epoch: None,
            lots: Map::new(),
            held: Map::new(),
            assembly: Assembly::default(),
            purse: Purse::default(),
        }
    }

    pub fn balance(&self, account: Account) -> Amount {
        self.balances.get(&account).copied().unwrap_or_default()
    }

    /// What is set aside for a request that is neither paid nor released.
    pub fn cap(&self, request: &RequestId) -> Option<Cap> {
        let work = self.open.get(request);
        let work = work.map(|o| Cap { payer: o.reservation.payer, credits: o.cap, at: o.at });
        work.or_else(|| self.forwarded.get(request).map(OpenForwarding::credits))
    }

    /// Everything that is set aside, by request.
    pub fn caps(&self) -> impl Iterator<Item = (RequestId, Cap)> {
        let requests = self.open.keys().chain(self.forwarded.keys());
        requests.filter_map(|request| Some((*request, self.cap(request)?)))
    }

    /// What a node's work counts for.
    pub fn standing(&self, node: &NodeId) -> Standing {
        self.standings.get(node).cloned().unwrap_or_default()
    }

    /// What an account that never goes below zero holds.
    pub fn credits(&self, account: Account) -> Credits {
        Credits(self.balance(account).0.try_into().expect("only the mint is ever below zero"))
    }

    /// Moves credits at `at`. Whoever calls this has checked every sum.
    ///
    /// What a member has more or less of in all its buckets together came or left, by its [`Lots`]; what of it is held has lots of its
    /// own, of which the first that came is the first to leave.
    pub fn post(&mut self, at: Tick, postings: &[Posting]) {
        let mut changes = BTreeMap::<MemberId, i128>::new();
        for posting in postings {
            if let Account::Member(member, _) = posting.account {
                *changes.entry(member).or_default() += i128::from(posting.amount.0);
            }
        }
        for (member, change) in changes {
            self.lots.get_or_default(member).change(at, change);
        }
        for posting in postings {
            if let Account::Member(member, Bucket::Held) = posting.account {
                self.held.get_or_default(member).change(at, posting.amount.0.into());
            }
            let balance = self.balances.get_or_default(posting.account);
            balance.0 = balance.0.checked_add(posting.amount.0).expect("rules checked the sums");
        }
    }

    /// Performs what the rules allowed, as entry `self.entries` at time `at`.
    pub fn fold(&mut self, at: Tick, change: Change) {
        self.move_prices(at);
        match change {
            Change::Join { node, member, name, granted } => {
                self.join(at, node, member, name, granted);
            }
            Change::Reserve { open, mark } => {
                let request = open.reservation.request;
                self.open.insert(request, *open);
                self.requests.insert(request, History { reserved: mark, closed: None });
            }
            Change::Forward { open, mark } => {
                let request = open.forwarding.request;
                self.forwarded.insert(request, *open);
                self.requests.insert(request, History { reserved: mark, closed: None });
            }
            Change::Settle { request, mark, mut closing } => {
                let breakdown = closing.breakdown.take();
                let payer = self.close(request, mark, closing);
                self.account(payer).requests += 1;
                if let Some(breakdown) = breakdown {
                    self.complete(payer, &breakdown);
                    self.remember(self.entries, request, breakdown);
                }
            }
            Change::Release { request, mark, closing } => {
                self.close(request, mark, closing);
            }
            Change::Epoch { mark, closings, earned, work, tasks } => {
                self.close_epoch(mark, closings);
                self.earn(earned, work);
                for (node, count) in tasks {
                    let standing = self.standings.get_or_default(node);
                    (0..count.min(WINDOW_TASKS)).for_each(|_| standing.task(true));
                }
            }
            Change::Claim { request, lane, claim } => {
                let open = self.open.get_mut(&request).expect("claims are for open sessions");
                open.claims.insert(lane, claim);
            }
            Change::Prove { key, lane, mark, penalty } => self.prove(key, lane, mark, penalty),
            Change::Appoint(witnesses) => {
                (self.witnesses, self.appointed) = (witnesses, self.entries);
            }
            Change::Order(turns) => self.turns = turns,
            Change::Remove { node } => self.remove(node),
            Change::Rate { node, mark, measured } => {
                self.standings.get_or_default(node).enter_rating(mark, measured, at);
            }
            Change::Judge { node, mark, finding } => {
                self.standings.get_or_default(node).enter_judgement(mark, finding);
            }
            Change::Stake { member, lock } => self.account(member).stake = lock,
            Change::Keys { member, keys } => self.account(member).keys = keys,
            Change::Reward { purse, shares } => {
                self.purse = purse;
                self.earn(shares, Work::new());
            }
            Change::Propose { id, ballot } => {
                self.assembly.waiting.insert((ballot.decided_at(), id));
                self.assembly.ballots.insert(id, *ballot);
            }
            Change::Vote { proposal, member, choice, weight } => {
                let ballot = self.assembly.ballots.get_mut(&proposal).expect("voted on");
                ballot.votes.insert(member, (choice, weight));
            }
            Change::Decide { proposal, outcome } => self.decide(proposal, outcome),
            Change::Nothing => {}
        }
        self.forget(at);
    }

    /// Where a market makes prices: what they are after the time since the last entry, in which the same requests were open.
    fn move_prices(&mut self, at: Tick) {
        if self.entries > 0 {
            let profile = &self.policy.profile;
            self.policy.profile = profile.moved(self.at, at, |most| self.waiting(most));
        }
    }

    /// Tokens that open requests may take. Of one payer `most` at most: nobody makes the price alone.
    fn waiting(&self, most: u64) -> u32 {
        let mut tokens = BTreeMap::<MemberId, u64>::new();
        for OpenReservation { reservation, .. } in self.open.values() {
            *tokens.entry(reservation.payer).or_default() += reservation.tokens();
        }
        let sum: u64 = tokens.values().map(|tokens| (*tokens).min(most)).sum();
        u32::try_from(sum).unwrap_or(u32::MAX)
    }

    /// Sessions whose end cannot be disputed any more, and requests of which no paper can be used.
    fn forget(&mut self, at: Tick) {
        let disputable_until = |ended| claim::disputable_until(&self.policy, ended);
        while let Some((ended, _)) = self.closed.first()
            && disputable_until(ended) <= at
        {
            self.closed.pop_first();
        }
        while let Some((ended, request)) = self.ended.first()
            && disputable_until(ended).max(ended.plus_ms(REQUEST_KEPT_MS)) <= at
        {
            self.ended.pop_first();
            self.requests.remove(&request);
        }
    }

    /// A session that ended and can still be disputed.
    pub fn closed(&self, request: &RequestId) -> Option<((Tick, RequestId), &ClosedSession)> {
        let mark = self.requests.get(request)?.closed?;
        let key = (mark.at, *request);
        self.closed.get(&key).map(|closed| (key, closed))
    }

    /// Why nothing can be done about a request that is not open.
    pub fn unknown_or_closed(&self, request: RequestId) -> LedgerError {
        match self.requests.get(&request).and_then(|history| history.closed) {
            Some(closed) => LedgerError::Closed { request, height: closed.height },
            None => LedgerError::UnknownRequest { request },
        }
    }

    fn join(&mut self, at: Tick, node: NodeId, member: MemberId, name: String, granted: Credits) {
        let joined_height = self.entries;
        let account = self.members.get_or_insert_with(member, || Member {
            name: name.clone(),
            nodes: BTreeSet::new(),
            joined_height,
            joined_at: at,
            granted,
            spent: Credits::ZERO,
            earned: Credits::ZERO,
            work: Flops(0),
            requests: 0,
            fined: Credits::ZERO,
            rewarded: Credits::ZERO,
            keys: Keyring::default(),
            stake: StakeLock::default(),
        });
        account.nodes.insert(node);
        self.nodes.insert(node, NodeRecord { member, name, joined_height });
    }

    fn remove(&mut self, node: NodeId) {
        let record = self.nodes.remove(&node).expect("rules checked that it is there");
        self.account(record.member).nodes.remove(&node);
        self.standings.remove(&node);
        self.removed.insert(node, RemovedNode { member: record.member, height: self.entries });
    }

    fn account(&mut self, member: MemberId) -> &mut Member {
        self.members.get_mut(&member).expect("the rules found the member")
    }

    /// A decision takes effect with the entry after the one that records it.
    fn decide(&mut self, proposal: ProposalId, outcome: Decision) {
        let height = self.entries;
        let ballot = self.assembly.ballots.get_mut(&proposal).expect("it was proposed");
        ballot.decided = Some((outcome, height));
        self.assembly.waiting.remove(&(ballot.decided_at(), proposal));
        if outcome == Decision::Rejected {
            return;
        }
        match &ballot.proposal.action {
            Action::Parameters(policy) => self.policy = Policy::clone(policy),
            Action::Model { model, is_allowed } => {
                set(&mut self.assembly.forbidden, *model, !is_allowed);
            }
            Action::Member { member, is_suspended } => {
                set(&mut self.assembly.suspended, *member, *is_suspended);
            }
            // Its postings did it.
            Action::Slash { .. } => {}
            Action::Witnesses { witnesses } => {
                self.witnesses = witnesses.iter().copied().collect();
                self.appointed = height;
            }
        }
    }

    /// Ends the sessions of an epoch, whose stages are paid for all of them together.
    fn close_epoch(&mut self, mark: Mark, closings: Vec<(RequestId, Closing)>) {
        for (request, closing) in closings {
            let settled = closing.signed;
            let payer = self.close(request, mark, closing);
            self.account(payer).requests += u64::from(settled);
        }
        self.epochs += 1;
        self.last_epoch = Some(mark);
    }

    /// Ends a request, and says who paid it.
    fn close(&mut self, request: RequestId, mark: Mark, closing: Closing) -> MemberId {
        let Cap { payer, credits, .. } = self.cap(&request).expect("only open requests end");
        let Closing { cost, payout, work, signed, lanes, .. } = closing;
        if let Some(OpenReservation { reservation, .. }) = self.open.remove(&request) {
            let Reservation { head, model, .. } = reservation;
            let left = credits.checked_sub(cost).expect("no request costs more than its cap");
            let closed = ClosedSession { payer, head, model, signed, left, lanes };
            self.closed.insert((mark.at, request), closed);
        }
        self.forwarded.remove(&request);
        let history = self.requests.get_mut(&request).expect("an open request has a history");
        history.closed = Some(mark);
        self.ended.insert((mark.at, request), ());
        self.spend(payer, cost);
        self.earn(payout.earned, work);
        payer
    }

    fn prove(&mut self, key: (Tick, RequestId), lane: u16, mark: Mark, penalty: Penalty) {
        let closed = self.closed.get_mut(&key).expect("the rules found it");
        closed.left.0 -= penalty.paid.0;
        closed.lanes.insert(lane, LanePaid::Proved(mark));
        let payer = closed.payer;
        self.spend(payer, penalty.paid);
        self.earn(Earnings::from([(penalty.worker, penalty.paid)]), Work::new());
        self.account(payer).fined.0 += penalty.fine.0;
        self.account(penalty.worker).rewarded.0 += penalty.reward.0;
    }

    /// Counts a completed task for each node that had one.
    fn complete(&mut self, payer: MemberId, breakdown: &Breakdown) {
        for node in self.completed_by(payer, breakdown) {
            self.standings.get_or_default(node).task(true);
        }
    }

    /// The nodes that completed a task, but not those of the payer: work for oneself proves nothing.
    pub fn completed_by(&self, payer: MemberId, breakdown: &Breakdown) -> BTreeSet<NodeId> {
        let is_others =
            |node: &NodeId| self.nodes.get(node).is_some_and(|record| record.member != payer);
        breakdown.parts.iter().map(|part| part.node).filter(is_others).collect()
    }

    /// Keeps how a request that the entry at `height` ended was shared.
    pub fn remember(&mut self, height: u64, request: RequestId, breakdown: Breakdown) {
        self.breakdowns.insert((height, request), breakdown);
        if self.breakdowns.len() > BREAKDOWNS_MAX {
            self.breakdowns.pop_first();
        }
    }

    fn spend(&mut self, payer: MemberId, cost: Credits) {
        let account = self.account(payer);
        account.spent = Credits(account.spent.0.saturating_add(cost.0));
    }

    fn earn(&mut self, earned: Earnings, work: Work) {
        for (member, credits) in earned {
            let account = self.account(member);
            account.earned = Credits(account.earned.0.saturating_add(credits.0));
        }
        for (member, work) in work {
            self.account(member).work += work;
        }
    }
}

/// Makes `key` an element of `of`, or makes sure that it is none.
fn set<K: Key>(of: &mut Map<K, ()>, key: K, is_in: bool) {
    if is_in {
        of.insert(key, ());
    } else {
        of.remove(&key);
    }
}
