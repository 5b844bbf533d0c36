//! Many sessions settled by one entry.
//!
//! In: settlements and vouchers, each verified when it comes. Out: one [`Epoch`] for all of them, which says what each
//! session costs, how each of its lanes was paid, and what each member earned; its size does not grow with
//! tokens or vouchers. The papers stay outside: the entry's evidence hash is the RFC 6962 root over them, so whoever
//! keeps them can show any single one, and whoever has all of them can [`check`] the epoch to the last µGFT.
//! Every replay checks without them that sessions were open, that none costs more than its cap, and that what is
//! earned is what is spent.
//!
//! What such sessions say of nodes' work counts in their standing as it would one by one: the epoch names for each node how many
//! tasks it completed ([`CountedEpoch`]), so a replay needs no papers for that either.
//!
//! A session is in an epoch if its head settled it, or if its reservation expired: then the highest voucher of each lane
//! is paid.

use crate::{
    book::{Book, Change, Closing, Earnings, LanePaid, Mark, OpenReservation, Work},
    claim::{check_cap, check_verified},
    entry::{Account, Event},
    error::LedgerError,
    ledger::Ledger,
    profile::Payout,
    removal::worker_of,
    request::Settlement,
    rules::{Outcome, Postings, check_field, expires_at},
    settle::{self, Vouched},
    share::Breakdown,
    tlog,
    voucher::Voucher,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use talka_base::{
    Credits, Encoded, EvidenceHash, Flops, MemberId, NodeId, RequestId, Signed, Tick, encode,
};

/// The most sessions of one epoch.
pub const EPOCH_SESSIONS_MAX: usize = 8_192;
/// The most lanes of all its sessions together.
pub const EPOCH_LANES_MAX: usize = 16_384;
/// The most members that earn in one epoch.
pub const EPOCH_MEMBERS_MAX: usize = 4_096;
/// The most nodes whose tasks one epoch counts.
pub const EPOCH_NODES_MAX: usize = 4_096;

/// Sessions that end together. Signed by nobody but whoever orders entries: its papers are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// Counts the epochs of the ledger from 1.
    pub number: u64,
    /// Papers under `evidence`.
    pub papers: u64,
    /// The RFC 6962 root over the encoded [`Paper`]s, session by session; see [`Collector::close`].
    pub evidence: EvidenceHash,
    /// The sessions, in the order of their ids.
    pub sessions: Vec<EpochSession>,
    /// What members earned on all of them and the work they were paid for, in the order of their ids.
    pub earned: Vec<(MemberId, Credits, Flops)>,
    /// What was created, destroyed, and put into the common purse beside.
    pub minted: Credits,
    /// See `minted`.
    pub burned: Credits,
    /// See `minted`.
    pub treasury: Credits,
}

/// An epoch, and what its sessions say of nodes' work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountedEpoch {
    /// The sessions and what they pay.
    pub epoch: Epoch,
    /// How many of these sessions each node completed for another member, in the order of ids: those for which it signed a
    /// receipt. At most [`EPOCH_NODES_MAX`].
    pub tasks: Vec<(NodeId, u32)>,
}

/// How sessions were shared, for people.
pub type Shares = Vec<(RequestId, Breakdown)>;

/// An epoch that may be recorded, with what it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The epoch.
    pub epoch: CountedEpoch,
    /// Its papers, in the order of its evidence.
    pub papers: Vec<Paper>,
    /// How its sessions with receipts were shared.
    pub shares: Shares,
}

/// One session of an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochSession {
    /// The session.
    pub request: RequestId,
    /// What its payer pays; at most what was reserved.
    pub cost: Credits,
    /// Whether its head settled it; otherwise its reservation expired.
    pub settled: bool,
    /// Its lanes, going up: the amount of the voucher that was paid, or nothing where the stage signed a receipt.
    pub lanes: Vec<(u16, Option<Credits>)>,
}

/// The largest encodings: an id, a number, a flag and a length; a lane and a number; an id and two numbers.
const SESSION_BYTES_MAX: usize = 16 + 10 + 1 + 3;
const LANE_BYTES_MAX: usize = 3 + 1 + 10;
const EARNED_BYTES_MAX: usize = 32 + 10 + 10;
const TASKS_BYTES_MAX: usize = 32 + 5;
/// The most bytes of an epoch.
pub(crate) const EPOCH_BYTES_MAX: usize = 96
    + 32
    + EPOCH_NODES_MAX * TASKS_BYTES_MAX
    + EPOCH_SESSIONS_MAX * SESSION_BYTES_MAX
    + EPOCH_LANES_MAX * LANE_BYTES_MAX
    + EPOCH_MEMBERS_MAX * EARNED_BYTES_MAX;
/// The most postings: two for each payer, one for each member that earns, and three of the system.
pub(crate) const EPOCH_POSTINGS_MAX: usize = 2 * EPOCH_SESSIONS_MAX + EPOCH_MEMBERS_MAX + 3;

/// What an epoch rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Paper {
    /// A head settled its session.
    Settlement(Signed<Settlement>),
    /// A stage brought what it is owed.
    Voucher(Signed<Voucher>),
}

impl Paper {
    /// The session that it is about.
    pub const fn session(&self) -> RequestId {
        match self {
            Self::Settlement(settlement) => settlement.claimed_value().request,
            Self::Voucher(voucher) => voucher.claimed_value().session,
        }
    }
}

impl Encoded for Paper {
    const NAME: &'static str = "paper";
    const SIZE_MAX: usize = Settlement::SIZE_MAX + 128;
}

/// The papers of one epoch, as nodes keep them and send them to each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Papers(pub Vec<Paper>);

impl Papers {
    /// Whether these are all papers that `epoch` rests on, in its order.
    pub fn are_of(&self, epoch: &Epoch) -> bool {
        self.0.len() as u64 == epoch.papers && evidence(&self.0) == epoch.evidence
    }
}

impl Encoded for Papers {
    const NAME: &'static str = "papers of an epoch";
    const SIZE_MAX: usize = 3 << 20;
}

impl Epoch {
    pub(crate) fn check_bounds(&self) -> Result<(), LedgerError> {
        let lanes = self.sessions.iter().map(|session| session.lanes.len()).sum();
        for (what, found, min, max) in [
            ("sessions", self.sessions.len(), 1, EPOCH_SESSIONS_MAX),
            ("lanes", lanes, 0, EPOCH_LANES_MAX),
            ("members", self.earned.len(), 0, EPOCH_MEMBERS_MAX),
        ] {
            if !(min..=max).contains(&found) {
                return Err(LedgerError::Count { what, found, min, max });
            }
        }
        Ok(())
    }
}

impl CountedEpoch {
    pub(crate) fn check_bounds(&self) -> Result<(), LedgerError> {
        self.epoch.check_bounds()?;
        let (what, found, min, max) = ("nodes", self.tasks.len(), 0, EPOCH_NODES_MAX);
        if found <= max { Ok(()) } else { Err(LedgerError::Count { what, found, min, max }) }
    }
}

/// Decides about an epoch: its sessions are open, cost no more than their caps, and pay what is earned. `tasks` says what
/// nodes completed.
pub(crate) fn judge(
    book: &Book,
    at: Tick,
    event: &Event,
    epoch: &Epoch,
    tasks: &[(NodeId, u32)],
) -> Result<Outcome, LedgerError> {
    let mark = Mark { height: book.entries, at, event: event.id() };
    if let Some(last) = book.last_epoch.filter(|last| last.event == mark.event) {
        return Err(LedgerError::Duplicate { height: last.height });
    }
    check_field("epoch", "number", book.epochs + 1, epoch.number)?;
    check_ascending("session", epoch.sessions.iter().map(|session| session.request))?;
    check_ascending("member", epoch.earned.iter().map(|(member, ..)| *member))?;
    check_tasks(book, epoch, tasks)?;
    let mut payers = BTreeMap::<MemberId, (Credits, Credits)>::new();
    let mut closings = Vec::with_capacity(epoch.sessions.len());
    for session in &epoch.sessions {
        let (payer, cap) = check_session(book, at, session)?;
        let (reserved, cost) = payers.entry(payer).or_default();
        reserved.0 = reserved.0.saturating_add(cap.0);
        cost.0 = cost.0.saturating_add(session.cost.0);
        closings.push((session.request, session.closing()));
    }
    let payout = check_payout(book, epoch, payers.values().map(|(_, cost)| *cost))?;
    let mut postings = Postings::default();
    for (payer, (reserved, cost)) in payers {
        let rest = reserved.checked_sub(cost).expect("no session costs more than its cap");
        postings = postings.minus(Account::reserved(payer), reserved)?;
        postings = postings.plus(Account::spendable(payer), rest)?;
    }
    let postings = postings.payout(&payout)?.finish();
    let work = epoch.earned.iter().map(|&(member, _, work)| (member, work)).collect();
    let tasks = tasks.to_vec();
    let change = Change::Epoch { mark, closings, earned: payout.earned, work, tasks };
    Ok(Outcome { postings, change })
}

/// Tasks are of nodes of the network, and no node completed more than all that ended.
fn check_tasks(book: &Book, epoch: &Epoch, tasks: &[(NodeId, u32)]) -> Result<(), LedgerError> {
    check_ascending("node", tasks.iter().map(|(node, _)| *node))?;
    let settled = epoch.sessions.iter().filter(|session| session.settled).count();
    for &(node, count) in tasks {
        if !book.nodes.contains_key(&node) {
            return Err(LedgerError::NotAMember { node });
        }
        let found = usize::try_from(count).unwrap_or(usize::MAX);
        if !(1..=settled).contains(&found) {
            let what = "tasks of one node";
            return Err(LedgerError::Count { what, found, min: 1, max: settled });
        }
    }
    Ok(())
}

/// What becomes of all costs: nothing is lost, and the profile allows it. Whether it is what the profile gives, only the
/// papers show.
fn check_payout(
    book: &Book,
    epoch: &Epoch,
    costs: impl Iterator<Item = Credits>,
) -> Result<Payout, LedgerError> {
    let Epoch { minted, burned, treasury, .. } = *epoch;
    let profile = &book.policy.profile;
    if !profile.mints_by_paying() {
        check_field("epoch", "minted", Credits::ZERO, minted)?;
    }
    if profile.pays_all_to_workers() {
        check_field("epoch", "burned", Credits::ZERO, burned)?;
        check_field("epoch", "treasury", Credits::ZERO, treasury)?;
    }
    let mut earned = Earnings::new();
    for &(member, credits, _) in &epoch.earned {
        if !book.members.contains_key(&member) {
            return Err(LedgerError::UnknownMember { member });
        }
        earned.insert(member, credits);
    }
    let sum = |credits: &mut dyn Iterator<Item = Credits>| -> u128 {
        credits.map(|credits| u128::from(credits.0)).sum()
    };
    let came = sum(&mut costs.chain([minted]));
    let went = sum(&mut earned.values().copied().chain([burned, treasury]));
    check_field("epoch", "earnings", came, went)?;
    Ok(Payout { minted, burned, treasury, earned })
}

/// The session's payer and cap, if it may end like this at `at`.
fn check_session(
    book: &Book,
    at: Tick,
    session: &EpochSession,
) -> Result<(MemberId, Credits), LedgerError> {
    let request = session.request;
    let cap = book.cap(&request).filter(|_| book.open.contains_key(&request));
    let cap = cap.ok_or_else(|| book.unknown_or_closed(request))?;
    let from = expires_at(book, &cap);
    if !session.settled && at < from {
        return Err(LedgerError::NotExpired { request, from, now: at });
    }
    for pair in session.lanes.windows(2) {
        let (after, lane) = (pair[0].0, pair[1].0);
        if lane <= after {
            return Err(LedgerError::LaneOrder { lane, after });
        }
    }
    let vouchers: Credits = session.lanes.iter().filter_map(|(_, voucher)| *voucher).sum();
    check_cap(request, cap.credits, Credits::ZERO, session.cost.max(vouchers))?;
    Ok((cap.payer, cap.credits))
}

fn check_ascending<T: Ord + ToString>(
    what: &'static str,
    ids: impl IntoIterator<Item = T>,
) -> Result<(), LedgerError> {
    let mut last: Option<T> = None;
    for id in ids {
        if let Some(after) = last.filter(|last| *last >= id) {
            let (after, found) = (after.to_string(), id.to_string());
            return Err(LedgerError::Order { what, found, after });
        }
        last = Some(id);
    }
    Ok(())
}

impl EpochSession {
    fn of(request: RequestId, closing: &Closing) -> Self {
        let lanes = closing.lanes.iter().map(|(&lane, paid)| match paid {
            LanePaid::Voucher(amount) => (lane, Some(*amount)),
            LanePaid::Receipt | LanePaid::Proved(_) => (lane, None),
        });
        let Closing { cost, signed: settled, .. } = *closing;
        Self { request, cost, settled, lanes: lanes.collect() }
    }

    fn closing(&self) -> Closing {
        let lanes = self.lanes.iter().map(|&(lane, voucher)| match voucher {
            Some(amount) => (lane, LanePaid::Voucher(amount)),
            None => (lane, LanePaid::Receipt),
        });
        let Self { cost, settled: signed, .. } = *self;
        Closing { cost, lanes: lanes.collect(), ..Closing::nothing(signed) }
    }
}

/// The sequencer's desk between two epochs: verifies papers as they come, and keeps those that count.
#[derive(Debug, Clone, Default)]
pub struct Collector {
    sessions: BTreeMap<RequestId, Collected>,
}

#[derive(Debug, Clone, Default)]
struct Collected {
    settlement: Option<Signed<Settlement>>,
    /// The highest of each lane.
    vouchers: BTreeMap<u16, Signed<Voucher>>,
}

impl Collector {
    /// Takes a head's settlement of an open session; of two the first counts.
    ///
    /// # Errors
    /// [`LedgerError`], as for [`Event::Settled`].
    pub fn settle(
        &mut self,
        ledger: &Ledger,
        settlement: Signed<Settlement>,
    ) -> Result<(), LedgerError> {
        let book = ledger.book();
        Event::Settled { settlement: settlement.clone() }.check_bounds()?;
        let request = settlement.claimed_value().request;
        let open = book.open.get(&request).ok_or_else(|| book.unknown_or_closed(request))?;
        settle::closing(book, open, settle::claimed(open), &settlement)?;
        self.sessions.entry(request).or_default().settlement.get_or_insert(settlement);
        Ok(())
    }

    /// Takes a voucher for an open session, if it is higher than the one of its lane.
    ///
    /// # Errors
    /// [`LedgerError`], as for [`Event::Claimed`].
    pub fn voucher(
        &mut self,
        ledger: &Ledger,
        voucher: Signed<Voucher>,
    ) -> Result<(), LedgerError> {
        let book = ledger.book();
        let request = voucher.claimed_value().session;
        let open = book.open.get(&request).ok_or_else(|| book.unknown_or_closed(request))?;
        voucher.verify_by(&open.reservation.head.0)?;
        self.verified(ledger, voucher)
    }

    /// The same of a voucher whose signature the caller has verified, as [`verify_runs`](crate::verify_runs) does for
    /// many at once; the last of a run, then.
    ///
    /// # Errors
    /// As [`Collector::voucher`].
    pub fn verified(
        &mut self,
        ledger: &Ledger,
        voucher: Signed<Voucher>,
    ) -> Result<(), LedgerError> {
        let (book, paper) = (ledger.book(), voucher.claimed_value());
        let (request, lane, found) = (paper.session, paper.lane, paper.amount);
        let open = book.open.get(&request).ok_or_else(|| book.unknown_or_closed(request))?;
        let signer = NodeId(*voucher.claimed_signer());
        check_field("voucher", "signer", open.reservation.head, signer)?;
        check_verified(book, paper, open.reservation.model)?;
        worker_of(book, paper.worker, open.height)?;
        // A session of which nothing was taken yet is none of this epoch.
        let known = self.sessions.get(&request).map(|collected| &collected.vouchers);
        let others = known.into_iter().flatten().filter(|(other, _)| **other != lane);
        let others = others.map(|(_, voucher)| voucher.claimed_value().amount).sum();
        check_cap(request, open.cap, others, found)?;
        if let Some(known) = known.and_then(|vouchers| vouchers.get(&lane)) {
            let known = known.claimed_value();
            check_field("voucher", "worker", known.worker, paper.worker)?;
            if found <= known.amount {
                let paid = known.amount;
                return Err(LedgerError::NothingOwed { request, lane, paid, found });
            }
        }
        self.sessions.entry(request).or_default().vouchers.insert(lane, voucher);
        Ok(())
    }

    /// Has a session end by what the ledger holds of it once it is expired, if nobody brings a paper.
    ///
    /// # Errors
    /// [`LedgerError`] if it is not open, or is a request that was answered from outside.
    pub fn expire(&mut self, ledger: &Ledger, request: RequestId) -> Result<(), LedgerError> {
        let book = ledger.book();
        if !book.open.contains_key(&request) {
            return Err(book.unknown_or_closed(request));
        }
        self.sessions.entry(request).or_default();
        Ok(())
    }

    /// The epoch of all sessions that are settled, or expired by `at`, as many as fit, and the papers under its
    /// evidence hash: session by session in the order of ids, the settlement first, then vouchers by lane. Nothing if
    /// there is no such session. Changes nothing: what an epoch settled is [forgotten](Self::forget) once it
    /// stands.
    ///
    /// # Errors
    /// [`LedgerError`] if a paper that was good when it came is not any more.
    pub fn close(&self, ledger: &Ledger, at: Tick) -> Result<Option<Closed>, LedgerError> {
        let book = ledger.book();
        let (mut sums, mut lanes) = (Sums::default(), 0);
        for (&request, collected) in &self.sessions {
            let Some(open) = book.open.get(&request) else { continue };
            let Some(closing) = collected.closing(book, at, open)? else { continue };
            lanes += closing.lanes.len();
            if sums.sessions.len() == EPOCH_SESSIONS_MAX || lanes > EPOCH_LANES_MAX {
                break;
            }
            sums.papers.extend(collected.papers());
            sums.add(book, open, closing);
        }
        Ok((!sums.sessions.is_empty()).then(|| sums.finish(book.epochs + 1)))
    }

    /// Forgets sessions that are not open any more.
    pub fn forget(&mut self, ledger: &Ledger) {
        self.sessions.retain(|request, _| ledger.book().open.contains_key(request));
    }
}

/// What all sessions of an epoch come to.
#[derive(Default)]
struct Sums {
    sessions: Vec<EpochSession>,
    papers: Vec<Paper>,
    shares: Shares,
    payout: Payout,
    work: Work,
    tasks: BTreeMap<NodeId, u32>,
}

impl Sums {
    fn add(&mut self, book: &Book, open: &OpenReservation, closing: Closing) {
        let request = open.reservation.request;
        self.sessions.push(EpochSession::of(request, &closing));
        self.payout.add(closing.payout);
        for (member, flops) in closing.work {
            *self.work.entry(member).or_default() += flops;
        }
        if let Some(breakdown) = closing.breakdown {
            for node in book.completed_by(open.reservation.payer, &breakdown) {
                *self.tasks.entry(node).or_default() += 1;
            }
            self.shares.push((request, breakdown));
        }
    }

    fn finish(self, number: u64) -> Closed {
        let Self { sessions, papers, shares, payout, work, tasks } = self;
        // Who worked for nothing still worked.
        let members: BTreeSet<_> = payout.earned.keys().chain(work.keys()).copied().collect();
        let of = |member| {
            let credits = payout.earned.get(&member).copied().unwrap_or_default();
            (member, credits, work.get(&member).copied().unwrap_or_default())
        };
        let epoch = Epoch {
            number,
            papers: papers.len() as u64,
            evidence: evidence(&papers),
            sessions,
            earned: members.into_iter().map(of).collect(),
            minted: payout.minted,
            burned: payout.burned,
            treasury: payout.treasury,
        };
        let epoch = CountedEpoch { epoch, tasks: tasks.into_iter().collect() };
        Closed { epoch, papers, shares }
    }
}

impl Collected {
    /// How the session ends at `at`, if it does.
    fn closing(
        &self,
        book: &Book,
        at: Tick,
        open: &OpenReservation,
    ) -> Result<Option<Closing>, LedgerError> {
        let mut vouched: Vouched = settle::claimed(open);
        for voucher in self.vouchers.values() {
            settle::add(book, open, &mut vouched, voucher.claimed_value())?;
        }
        let cap = book.cap(&open.reservation.request).expect("an open session has a cap");
        match &self.settlement {
            Some(settlement) => settle::closing(book, open, vouched, settlement).map(Some),
            None if at < expires_at(book, &cap) => Ok(None),
            None => Ok(Some(settle::by_vouchers(book, open, vouched, false))),
        }
    }

    fn papers(&self) -> impl Iterator<Item = Paper> {
        let settlement = self.settlement.iter().cloned().map(Paper::Settlement);
        settlement.chain(self.vouchers.values().cloned().map(Paper::Voucher))
    }
}

/// The RFC 6962 root over the encodings of `papers`.
pub fn evidence(papers: &[Paper]) -> EvidenceHash {
    EvidenceHash(tlog::root(papers.iter().map(|paper| tlog::leaf_hash(&encode(paper)))).0)
}

/// Whether `epoch` is what `papers` give, on the ledger before it; and how its sessions were shared.
///
/// # Errors
/// [`LedgerError`]: a paper is not good, or the epoch is not theirs.
pub fn check(
    ledger: &Ledger,
    at: Tick,
    epoch: &CountedEpoch,
    papers: &[Paper],
) -> Result<Shares, LedgerError> {
    let mut collector = Collector::default();
    for paper in papers {
        match paper.clone() {
            Paper::Settlement(settlement) => collector.settle(ledger, settlement)?,
            Paper::Voucher(voucher) => collector.voucher(ledger, voucher)?,
        }
    }
    // Nobody brought a paper of those: what stages claimed stands in the ledger.
    for session in epoch.epoch.sessions.iter().filter(|session| !session.settled) {
        collector.expire(ledger, session.request)?;
    }
    let expected = collector.close(ledger, at)?.ok_or(LedgerError::Empty)?;
    check_field("epoch", "evidence", expected.epoch.epoch.evidence, epoch.epoch.evidence)?;
    if expected.epoch == *epoch {
        Ok(expected.shares)
    } else {
        Err(LedgerError::OtherPapers { epoch: epoch.epoch.number })
    }
}
