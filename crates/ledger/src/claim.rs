//! Vouchers brought to the ledger: by stages whose head does not pay.
//!
//! As long as a session is open, a claim is noted, and paid when the session closes in whatever way. For a while
//! after that, a voucher for more than its lane was paid is the proof, in one piece, that the head held something
//! back: the payer pays what is missing from all that it has, and where its head signed the closing it loses
//! as much again of its stake and held earnings, half to the stage that brought the proof, the rest burned. A
//! stage that signed a receipt has agreed to the settlement and claims nothing.
//!
//! Nothing protects a stage from a head that signs for more than the cap over several lanes: the later claims find
//! the cap used up. The stage's exposure is then all that the payer does not own.

use crate::{
    book::{Book, Change, ClosedSession, LaneClaim, LanePaid, Mark, Penalty},
    entry::{Account, Bucket, Event},
    error::LedgerError,
    policy::Policy,
    removal::worker_of,
    rules::{Outcome, Postings, check_field, check_network},
    voucher::Voucher,
};
use talka_base::{Amount, Credits, MemberId, ModelId, NodeId, RequestId, Signed, Tick};

/// How long after a session's end a withheld voucher can be brought: as long as a session may last.
pub(crate) const fn disputable_until(policy: &Policy, closed_at: Tick) -> Tick {
    closed_at.plus_ms(policy.reservation_ms_max)
}

/// Decides about a voucher brought by a stage.
pub(crate) fn judge(
    book: &Book,
    at: Tick,
    event: &Event,
    voucher: &Signed<Voucher>,
) -> Result<Outcome, LedgerError> {
    let request = voucher.claimed_value().session;
    let mark = Mark { height: book.entries, at, event: event.id() };
    if book.open.contains_key(&request) {
        return note(book, mark, request, voucher);
    }
    match book.closed(&request) {
        Some((key, closed)) => prove(book, mark, (key, closed), voucher),
        None => Err(book.unknown_or_closed(request)),
    }
}

/// The session is open: the claim waits for its end.
fn note(
    book: &Book,
    mark: Mark,
    request: RequestId,
    voucher: &Signed<Voucher>,
) -> Result<Outcome, LedgerError> {
    let open = &book.open[&request];
    let lane = voucher.claimed_value().lane;
    if let Some(known) = open.claims.get(&lane) {
        if known.mark.event == mark.event {
            return Err(LedgerError::Duplicate { height: known.mark.height });
        }
        check_field("voucher", "worker", known.worker, voucher.claimed_value().worker)?;
        check_more(voucher, known.amount)?;
    }
    let paper = check_voucher(book, voucher, open.reservation.head, open.reservation.model)?;
    let others = open.claims.iter().filter(|(other, _)| **other != lane);
    let others = others.map(|(_, claim)| claim.amount).sum();
    check_cap(request, open.cap, others, paper.amount)?;
    let member = worker_of(book, paper.worker, open.height)?;
    let claim = LaneClaim { worker: paper.worker, member, amount: paper.amount, mark };
    Ok(Outcome { postings: Vec::new(), change: Change::Claim { request, lane, claim } })
}

/// The session is closed, and the lane was paid less than `voucher` says.
fn prove(
    book: &Book,
    mark: Mark,
    (key, closed): ((Tick, RequestId), &ClosedSession),
    voucher: &Signed<Voucher>,
) -> Result<Outcome, LedgerError> {
    let (request, lane) = (key.1, voucher.claimed_value().lane);
    let paid = match closed.lanes.get(&lane) {
        Some(LanePaid::Proved(proved)) if proved.event == mark.event => {
            return Err(LedgerError::Duplicate { height: proved.height });
        }
        Some(LanePaid::Proved(_) | LanePaid::Receipt) => {
            return Err(LedgerError::LaneClosed { request, lane });
        }
        Some(LanePaid::Voucher(amount)) => *amount,
        None => Credits::ZERO,
    };
    let paper = check_voucher(book, voucher, closed.head, closed.model)?;
    check_more(voucher, paid)?;
    let owed = Credits(paper.amount.0 - paid.0).min(closed.left);
    let begun = book.requests[&request].reserved.height;
    let worker = worker_of(book, paper.worker, begun)?;
    let (postings, penalty) = penalty(book, closed, worker, owed)?;
    let change = Change::Prove { key, lane, mark, penalty };
    Ok(Outcome { postings, change })
}

/// What is missing comes from everything that the payer has; as much again from stake and held earnings.
fn penalty(
    book: &Book,
    closed: &ClosedSession,
    worker: MemberId,
    owed: Credits,
) -> Result<(Vec<crate::entry::Posting>, Penalty), LedgerError> {
    let payer = closed.payer;
    let mut purses = [Bucket::Spendable, Bucket::Held, Bucket::Stake].map(|bucket| {
        let Amount(has) = book.balance(Account::Member(payer, bucket));
        (bucket, u64::try_from(has).expect("a member's bucket is never below zero"))
    });
    let before = purses;
    let paid = take(&mut purses, owed);
    let fine = if closed.signed { take(&mut purses[1..], owed) } else { Credits::ZERO };
    let reward = Credits(fine.0 / 2);
    let mut postings = Postings::default();
    for ((bucket, had), (_, left)) in before.into_iter().zip(purses) {
        postings = postings.minus(Account::Member(payer, bucket), Credits(had - left))?;
    }
    let gain = Credits(paid.0 + reward.0);
    let postings = postings
        .plus(Account::spendable(worker), gain)?
        .plus(Account::Burn, Credits(fine.0 - reward.0))?
        .finish();
    Ok((postings, Penalty { worker, paid, fine, reward }))
}

/// Takes up to `wanted` from the purses in order, and says how much that was.
fn take(purses: &mut [(Bucket, u64)], wanted: Credits) -> Credits {
    let mut missing = wanted.0;
    for (_, has) in purses {
        let part = missing.min(*has);
        *has -= part;
        missing -= part;
    }
    Credits(wanted.0 - missing)
}

/// The voucher is one of this network, signed by the head, for this model.
pub(crate) fn check_voucher<'a>(
    book: &Book,
    voucher: &'a Signed<Voucher>,
    head: NodeId,
    model: ModelId,
) -> Result<&'a Voucher, LedgerError> {
    let paper = voucher.verify_by(&head.0)?;
    check_verified(book, paper, model)?;
    Ok(paper)
}

/// The same of one whose signature by the head was checked.
pub(crate) fn check_verified(
    book: &Book,
    paper: &Voucher,
    model: ModelId,
) -> Result<(), LedgerError> {
    check_network(book, "voucher", paper.network)?;
    check_field("voucher", "model", model, paper.model)
}

fn check_more(voucher: &Signed<Voucher>, paid: Credits) -> Result<(), LedgerError> {
    let &Voucher { session: request, lane, amount: found, .. } = voucher.claimed_value();
    if found > paid { Ok(()) } else { Err(LedgerError::NothingOwed { request, lane, paid, found }) }
}

/// `amount` and what is claimed beside it stay within what is set aside.
pub(crate) fn check_cap(
    request: RequestId,
    cap: Credits,
    beside: Credits,
    amount: Credits,
) -> Result<(), LedgerError> {
    let found = Credits(beside.0.saturating_add(amount.0));
    if found <= cap { Ok(()) } else { Err(LedgerError::BeyondCap { request, cap, found }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Founding, Posting};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use talka_base::Credits;

    const PAYER: MemberId = MemberId([2; 32]);
    const WORKER: MemberId = MemberId([3; 32]);

    /// A payer with so much to spend, held back and staked.
    fn book(has: [u64; 3]) -> Book {
        let founding = Founding {
            name: "village".into(),
            founder: NodeId([1; 32]),
            founder_name: "barn".into(),
            policy: Policy::default(),
            nonce: [0; 16],
        };
        let mut book = Book::blank(&founding);
        for (bucket, has) in [Bucket::Spendable, Bucket::Held, Bucket::Stake].into_iter().zip(has) {
            let (account, amount) = (Account::Member(PAYER, bucket), Amount(has as i64));
            book.post(Tick(0), &[Posting { account, amount }]);
        }
        book
    }

    fn closed(signed: bool) -> ClosedSession {
        ClosedSession {
            payer: PAYER,
            head: NodeId([2; 32]),
            model: ModelId([0; 32]),
            signed,
            left: Credits(u64::MAX),
            lanes: BTreeMap::new(),
        }
    }

    #[track_caller]
    fn check(has: [u64; 3], signed: bool, owed: u64, expected: [u64; 3]) {
        let (_, penalty) =
            penalty(&book(has), &closed(signed), WORKER, Credits(owed)).expect("adds up");
        let Penalty { paid, fine, reward, .. } = penalty;
        assert_eq!([paid.0, fine.0, reward.0], expected);
    }

    #[test]
    fn what_is_missing_is_paid_from_everything_and_the_fine_from_what_vouches() {
        check([100, 0, 0], true, 70, [70, 0, 0]);
        check([100, 30, 40], true, 70, [70, 70, 35]);
        check([100, 30, 40], true, 80, [80, 70, 35]);
        check([10, 30, 40], true, 60, [60, 20, 10]);
        check([10, 30, 40], true, 90, [80, 0, 0]);
        check([100, 30, 40], false, 70, [70, 0, 0]);
        check([100, 3, 0], true, 3, [3, 3, 1]);
        check([0, 0, 0], true, 3, [0, 0, 0]);
    }

    proptest! {
        #[test]
        fn a_penalty_sums_to_zero_and_takes_no_more_than_there_is(
            has in [0u64..1 << 40, 0u64..1 << 40, 0u64..1 << 40],
            owed in 0u64..1 << 42,
            signed: bool,
        ) {
            let mut book = book(has);
            let (postings, penalty) =
                penalty(&book, &closed(signed), WORKER, Credits(owed)).expect("adds up");
            prop_assert_eq!(postings.iter().map(|posting| posting.amount.0).sum::<i64>(), 0);
            book.post(Tick(0), &postings);
            for bucket in [Bucket::Spendable, Bucket::Held, Bucket::Stake] {
                prop_assert!(book.balance(Account::Member(PAYER, bucket)).0 >= 0);
            }
            prop_assert!(penalty.paid.0 <= owed && penalty.fine.0 <= has[1] + has[2]);
            prop_assert!(2 * penalty.reward.0 <= penalty.fine.0);
        }
    }
}
