//! Whether an event may happen now, and what it moves. Reads the book, never changes it.

use crate::{
    book::{Book, Cap, Change, Closing, Mark, OpenReservation},
    claim, common_work,
    entry::{Account, Event, Founding, Posting, ReleaseReason},
    epoch,
    error::LedgerError,
    forward, govern, keys, lots,
    order::{turns, witnesses},
    price::quote,
    profile::Payout,
    removal,
    request::{Cancellation, REQUEST_SIGNED_MS_MAX, Reservation},
    settle, stake, standing,
};
use std::collections::BTreeMap;
use talka_base::{
    Amount, Credits, MemberId, Membership, NetworkId, NodeId, RequestId, Signed, Tick,
};

/// What an allowed event does.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub postings: Vec<Posting>,
    pub change: Change,
}

/// Decides about `event` as the next entry, at the ledger's time `at`.
pub(crate) fn judge(book: &Book, at: Tick, event: &Event) -> Result<Outcome, LedgerError> {
    event.check_bounds()?;
    check_founding_comes_first(book, event)?;
    govern::check_nothing_waits(book, at, event)?;
    let outcome = match event {
        Event::Founded(founding) => found(founding),
        Event::Joined { membership } => join(book, at, membership),
        Event::Reserved { reservation } => reserve(book, at, event, reservation),
        Event::Settled { settlement } => settle::judge(book, at, event, settlement),
        Event::Released { request, reason } => release(book, at, event, *request, reason),
        Event::Claimed { voucher } => claim::judge(book, at, event, voucher),
        Event::Epoch(closed) => epoch::judge(book, at, event, closed, &[]),
        Event::EpochCounted(counted) => {
            epoch::judge(book, at, event, &counted.epoch, &counted.tasks)
        }
        Event::Forwarded { forwarding } => forward::hold(book, at, event, forwarding),
        Event::Delivered { delivery } => forward::pay(book, at, event, delivery),
        Event::Appointed { appointment } => witnesses::judge(book, appointment),
        Event::Removed { removal } => removal::judge(book, removal),
        Event::Rated { rating } => standing::rate(book, at, event, rating),
        Event::Judged { judgement } => standing::judge(book, at, event, judgement),
        Event::Expired { member } => lots::judge(book, at, *member),
        Event::Freed { member } => common_work::judge_freed(book, at, *member),
        Event::Staked { order } => stake::judge(book, at, order),
        Event::KeysChanged { order } => keys::judge(book, at, order),
        Event::Rewarded { report } => common_work::judge(book, at, report),
        Event::Proposed { proposal } => govern::propose(book, at, proposal),
        Event::Voted { vote } => govern::vote(book, at, vote),
        Event::Decided { proposal } => govern::decide(book, at, *proposal),
        Event::OrderChanged { change } => turns::judge(book, change),
    }?;
    check_sums(book, &outcome.postings)?;
    Ok(outcome)
}

fn check_founding_comes_first(book: &Book, event: &Event) -> Result<(), LedgerError> {
    let (height, found) = (book.entries, event.kind());
    match (height, event) {
        (0, Event::Founded(_)) => Ok(()),
        (0, _) => Err(LedgerError::Founding { height, expected: "founded", found }),
        (_, Event::Founded(_)) => {
            Err(LedgerError::Founding { height, expected: "an event of the network", found })
        }
        _ => Ok(()),
    }
}

fn found(founding: &Founding) -> Result<Outcome, LedgerError> {
    founding.policy.check()?;
    let (node, grant) = (founding.founder, founding.policy.grant);
    open_account(node, node.into(), founding.founder_name.clone(), grant)
}

fn open_account(
    node: NodeId,
    member: MemberId,
    name: String,
    granted: Credits,
) -> Result<Outcome, LedgerError> {
    let postings = Postings::default()
        .minus(Account::Mint, granted)?
        .plus(Account::spendable(member), granted)?
        .finish();
    Ok(Outcome { postings, change: Change::Join { node, member, name, granted } })
}

fn join(book: &Book, at: Tick, membership: &Signed<Membership>) -> Result<Outcome, LedgerError> {
    let inviter = membership.claimed_value().invited_by;
    let paper = membership.verify_by(&inviter.0)?;
    check_network(book, "membership", paper.network)?;
    let inviting = acting_member(book, at, inviter)?;
    let &Membership { node, member, .. } = paper;
    if let Some(removed) = book.removed.get(&node) {
        return Err(LedgerError::Removed { node, height: removed.height });
    }
    if let Some(known) = book.nodes.get(&node) {
        return Err(if known.member == member {
            LedgerError::Duplicate { height: known.joined_height }
        } else {
            LedgerError::NodeTaken { node, member: known.member }
        });
    }
    if book.members.contains_key(&member) {
        if inviting != member {
            return Err(LedgerError::ForeignMember { node, member, inviter });
        }
        let (name, granted) = (paper.name.clone(), Credits::ZERO);
        let change = Change::Join { node, member, name, granted };
        return Ok(Outcome { postings: Vec::new(), change });
    }
    if member != MemberId::from(node) {
        return Err(LedgerError::ForeignMember { node, member, inviter });
    }
    open_account(node, member, paper.name.clone(), book.policy.grant)
}

fn reserve(
    book: &Book,
    at: Tick,
    event: &Event,
    reservation: &Signed<Reservation>,
) -> Result<Outcome, LedgerError> {
    let request = reservation.claimed_value().request;
    let mark = new_request(book, at, event, request, reservation.claimed_value().at)?;
    let paper = reservation.verify_by(&reservation.claimed_value().head.0)?;
    check_network(book, "reservation", paper.network)?;
    let owner = acting_member(book, at, paper.head)?;
    check_field("reservation", "payer", owner, paper.payer)?;
    if book.assembly.forbidden.contains_key(&paper.model) {
        return Err(LedgerError::Forbidden { model: paper.model });
    }
    paper.shape.validate()?;
    if paper.prompt_tokens == 0 {
        return Err(LedgerError::NoPrompt { request, prompt_tokens: 0 });
    }
    let cap = quote(&paper.shape, paper.prompt_tokens, paper.max_new_tokens, &book.policy);
    let postings = Postings::default()
        .minus(Account::spendable(paper.payer), cap)?
        .plus(Account::reserved(paper.payer), cap)?
        .finish();
    let (height, claims) = (book.entries, BTreeMap::new());
    let open = OpenReservation { reservation: paper.clone(), cap, claims, height, at };
    Ok(Outcome { postings, change: Change::Reserve { open: Box::new(open), mark } })
}

/// The mark of the event that would begin `request`, which nobody used before. A paper of which the ledger could have forgotten that it
/// was used is refused.
pub(crate) fn new_request(
    book: &Book,
    at: Tick,
    event: &Event,
    request: RequestId,
    signed_at: Tick,
) -> Result<Mark, LedgerError> {
    let mark = Mark { height: book.entries, at, event: event.id() };
    let Some(history) = book.requests.get(&request) else {
        let apart_ms = at.since_ms(signed_at).max(signed_at.since_ms(at));
        return if apart_ms > REQUEST_SIGNED_MS_MAX {
            let [minutes, max] = [apart_ms, REQUEST_SIGNED_MS_MAX].map(|ms| ms / 60_000);
            Err(LedgerError::RequestDated { request, minutes, max })
        } else {
            Ok(mark)
        };
    };
    let height = history.reserved.height;
    Err(if history.reserved.event == mark.event {
        LedgerError::Duplicate { height }
    } else {
        LedgerError::RequestReused { request, height }
    })
}

fn release(
    book: &Book,
    at: Tick,
    event: &Event,
    request: RequestId,
    reason: &ReleaseReason,
) -> Result<Outcome, LedgerError> {
    let (cap, mark) = cap_for(book, at, event, request)?;
    match reason {
        ReleaseReason::Cancelled(cancellation) => {
            check_cancelled(book, request, cap.payer, cancellation)?;
        }
        ReleaseReason::Expired => {
            let from = expires_at(book, &cap);
            if at < from {
                return Err(LedgerError::NotExpired { request, from, now: at });
            }
        }
    }
    let signed = matches!(reason, ReleaseReason::Cancelled(_));
    let closing = match book.open.get(&request) {
        Some(open) => settle::by_vouchers(book, open, settle::claimed(open), signed),
        None => Closing::nothing(signed),
    };
    let postings = closing_postings(cap, &closing)?;
    Ok(Outcome { postings, change: Change::Release { request, mark, closing } })
}

/// What was set aside pays whoever earned, and the rest returns.
pub(crate) fn closing_postings(cap: Cap, closing: &Closing) -> Result<Vec<Posting>, LedgerError> {
    let rest = cap.credits.checked_sub(closing.cost).expect("no request costs more than its cap");
    let postings = Postings::default()
        .minus(Account::reserved(cap.payer), cap.credits)?
        .plus(Account::spendable(cap.payer), rest)?;
    Ok(postings.payout(&closing.payout)?.finish())
}

/// From when on what is set aside may be released as expired.
pub(crate) fn expires_at(book: &Book, cap: &Cap) -> Tick {
    cap.at.plus_ms(book.policy.reservation_ms_max)
}

fn check_cancelled(
    book: &Book,
    request: RequestId,
    payer: MemberId,
    cancellation: &Signed<Cancellation>,
) -> Result<(), LedgerError> {
    let paper = cancellation.verify_by(&cancellation.claimed_value().node.0)?;
    check_network(book, "cancellation", paper.network)?;
    check_field("cancellation", "request", request, paper.request)?;
    let owner = member_of(book, paper.node)?;
    check_field("cancellation", "payer", payer, owner)
}

/// What is set aside for the request that `event` wants to close, and the mark it would leave.
pub(crate) fn cap_for(
    book: &Book,
    at: Tick,
    event: &Event,
    request: RequestId,
) -> Result<(Cap, Mark), LedgerError> {
    let mark = Mark { height: book.entries, at, event: event.id() };
    if let Some(cap) = book.cap(&request) {
        return Ok((cap, mark));
    }
    Err(match book.requests.get(&request).and_then(|history| history.closed) {
        Some(closed) if closed.event == mark.event => {
            LedgerError::Duplicate { height: closed.height }
        }
        _ => book.unknown_or_closed(request),
    })
}

pub(crate) fn member_of(book: &Book, node: NodeId) -> Result<MemberId, LedgerError> {
    book.nodes.get(&node).map(|record| record.member).ok_or(LedgerError::NotAMember { node })
}

/// The member for which `node` may act at `at`: ask for something, promise something, decide something.
pub(crate) fn acting_member(book: &Book, at: Tick, node: NodeId) -> Result<MemberId, LedgerError> {
    let member = member_of(book, node)?;
    if !book.members[&member].keys.may_act(&node, at) {
        return Err(LedgerError::NotDelegated { node, member });
    }
    if book.assembly.suspended.contains_key(&member) {
        return Err(LedgerError::Suspended { member });
    }
    Ok(member)
}

pub(crate) fn check_network(
    book: &Book,
    what: &'static str,
    found: NetworkId,
) -> Result<(), LedgerError> {
    check_field(what, "network", book.network, found)
}

pub(crate) fn check_field<T: PartialEq + ToString>(
    what: &'static str,
    field: &'static str,
    expected: T,
    found: T,
) -> Result<(), LedgerError> {
    if expected == found {
        return Ok(());
    }
    let (expected, found) = (expected.to_string(), found.to_string());
    Err(LedgerError::Mismatch { what, field, expected, found })
}

/// Postings sum to zero, no sum overflows, and only the mint goes below zero.
fn check_sums(book: &Book, postings: &[Posting]) -> Result<(), LedgerError> {
    let total: i128 = postings.iter().map(|p| i128::from(p.amount.0)).sum();
    assert_eq!(total, 0, "every event moves credits from account to account: {postings:?}");
    let mut changes = BTreeMap::<Account, i128>::new();
    for posting in postings {
        *changes.entry(posting.account).or_default() += i128::from(posting.amount.0);
    }
    for (account, change) in changes {
        let held = book.balance(account).0;
        let after = i64::try_from(i128::from(held) + change)
            .map_err(|_| LedgerError::Overflow { account })?;
        if after < 0 && account != Account::Mint {
            let [held, needed] = [held.unsigned_abs().into(), change.unsigned_abs()]
                .map(|x: u128| Credits(u64::try_from(x).unwrap_or(u64::MAX)));
            return Err(LedgerError::Insufficient { account, held, needed });
        }
    }
    Ok(())
}

/// Postings in the order in which they explain themselves; movements of nothing are left out.
#[derive(Default)]
pub(crate) struct Postings(Vec<Posting>);

impl Postings {
    pub fn plus(self, account: Account, credits: Credits) -> Result<Self, LedgerError> {
        self.add(account, Amount::plus(credits))
    }

    pub fn minus(self, account: Account, credits: Credits) -> Result<Self, LedgerError> {
        self.add(account, Amount::minus(credits))
    }

    /// What a profile makes of a cost.
    pub fn payout(mut self, payout: &Payout) -> Result<Self, LedgerError> {
        self = self
            .minus(Account::Mint, payout.minted)?
            .plus(Account::Burn, payout.burned)?
            .plus(Account::Treasury, payout.treasury)?;
        for (&member, &share) in &payout.earned {
            self = self.plus(Account::spendable(member), share)?;
        }
        Ok(self)
    }

    fn add(mut self, account: Account, amount: Option<Amount>) -> Result<Self, LedgerError> {
        let amount = amount.ok_or(LedgerError::Overflow { account })?;
        if amount != Amount(0) {
            self.0.push(Posting { account, amount });
        }
        Ok(self)
    }

    pub fn finish(self) -> Vec<Posting> {
        self.0
    }
}
