//! Turns receipts into payment: who did which work, what it costs, how it is shared.
//!
//! The cost follows from the layers and positions that the stages and the head agree on. It is
//! shared in proportion to FLOPs, to the last µGFT. Whether the work was done well is not asked
//! here: that is an audit's question.

use crate::{
    book::{Book, Change, Earnings, OpenReservation},
    entry::{Account, Event},
    error::LedgerError,
    price::price,
    removal::worker_of,
    request::Settlement,
    rules::{Outcome, Postings, cap_for, check_field, check_network},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};
use talka_base::{Credits, Flops, LayerSpan, MemberId, Receipt, Signed};

/// Decides about a settlement: what was reserved pays the stages, and the rest returns to the payer.
pub(crate) fn judge(
    book: &Book,
    event: &Event,
    settlement: &Signed<Settlement>,
) -> Result<Outcome, LedgerError> {
    let request = settlement.claimed_value().request;
    let (_, mark) = cap_for(book, event, request)?;
    let open =
        book.open.get(&request).ok_or(LedgerError::OtherPaper { request, found: "settled" })?;
    let paper = settlement.verify_by(&open.reservation.head.0)?;
    check_network(book, "settlement", paper.network)?;
    check_reserved(open, paper)?;
    let work = work_by_member(book, open, paper)?;

    let shape = &open.reservation.shape;
    let used = shape.flops(shape.span(), 0..paper.positions, paper.logits);
    let cost = price(used, shape.precision, &book.policy);
    let rest = open.cap.checked_sub(cost).expect("work within the reservation costs no more");
    let earned = share_out(cost, &work);

    let payer = open.reservation.payer;
    let mut postings = Postings::default()
        .minus(Account::reserved(payer), open.cap)?
        .plus(Account::spendable(payer), rest)?;
    for (&member, &(share, _)) in &earned {
        postings = postings.plus(Account::spendable(member), share)?;
    }
    let change = Change::Settle { request, mark, payer, cost, earned };
    Ok(Outcome { postings: postings.finish(), change })
}

/// The work lies within what was reserved. The bounds are those of [`quote`](crate::quote).
fn check_reserved(open: &OpenReservation, paper: &Settlement) -> Result<(), LedgerError> {
    let reserved = &open.reservation;
    let positions_max = reserved.prompt_tokens.saturating_add(reserved.max_new_tokens);
    for (field, found, min, max) in [
        ("positions", paper.positions, 1, positions_max),
        ("logits", paper.logits, 0, reserved.max_new_tokens),
    ] {
        if !(min..=max).contains(&found) {
            return Err(LedgerError::BeyondReservation { field, found, min, max });
        }
    }
    Ok(())
}

/// Checks every receipt, that they hold each layer once, and sums their work by member.
fn work_by_member(
    book: &Book,
    open: &OpenReservation,
    paper: &Settlement,
) -> Result<BTreeMap<MemberId, Flops>, LedgerError> {
    let shape = &open.reservation.shape;
    let mut work = BTreeMap::<MemberId, Flops>::new();
    let mut next_layer = 0;
    for signed in &paper.receipts {
        let receipt = signed.verify_by(&signed.claimed_value().node.0)?;
        check_receipt(book, open, paper, receipt)?;
        check_follows(next_layer, receipt.span, shape.layers)?;
        next_layer = receipt.span.end();
        let member = worker_of(book, receipt.node, open.height)?;
        *work.entry(member).or_default() += receipt.flops(shape);
    }
    if next_layer != shape.layers {
        return Err(LedgerError::Coverage { expected: next_layer, found: shape.layers });
    }
    Ok(work)
}

fn check_receipt(
    book: &Book,
    open: &OpenReservation,
    paper: &Settlement,
    receipt: &Receipt,
) -> Result<(), LedgerError> {
    let reserved = &open.reservation;
    let ends_model = receipt.span.end() == reserved.shape.layers;
    let logits = if ends_model { paper.logits } else { 0 };
    check_network(book, "receipt", receipt.network)?;
    check_field("receipt", "request", reserved.request, receipt.request)?;
    check_field("receipt", "model", reserved.model, receipt.model)?;
    check_field("receipt", "positions", paper.positions, receipt.positions)?;
    check_field("receipt", "logits", logits, receipt.logits)
}

fn check_follows(expected: u32, span: LayerSpan, layers: u32) -> Result<(), LedgerError> {
    if span.start() != expected {
        return Err(LedgerError::Coverage { expected, found: span.start() });
    }
    if span.end() > layers {
        return Err(LedgerError::Coverage { expected: layers, found: span.end() });
    }
    Ok(())
}

/// Shares `cost` in proportion to work: rounded down, then one µGFT more for those with the
/// largest remainders, the lowest member id first among equals. The shares sum to `cost`.
fn share_out(cost: Credits, work: &BTreeMap<MemberId, Flops>) -> Earnings {
    let total: u128 = work.values().map(|flops| u128::from(flops.0)).sum();
    assert!(total > 0, "every settled position is work");
    let mut remainders = BTreeSet::new();
    let mut left = cost.0;
    let mut shares = BTreeMap::new();
    for (&member, &flops) in work {
        let product = u128::from(cost.0) * u128::from(flops.0);
        let share = u64::try_from(product / total).expect("a part is not more than the whole");
        remainders.insert((Reverse(product % total), member));
        shares.insert(member, (Credits(share), flops));
        left -= share;
    }
    for (_, member) in remainders.into_iter().take(left as usize) {
        let (share, _) = shares.get_mut(&member).expect("every worker has a share");
        share.0 += 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(cost: u64, work: &[u64], expected: &[u64]) {
        let work = (0..).zip(work).map(|(i, &flops)| (MemberId([i; 32]), Flops(flops))).collect();
        let shares: Vec<u64> =
            share_out(Credits(cost), &work).values().map(|(share, _)| share.0).collect();
        assert_eq!(shares, expected);
    }

    #[test]
    fn shares_follow_work_and_remainders_go_to_the_largest_then_to_the_lowest_id() {
        check(100, &[1, 1], &[50, 50]);
        check(101, &[1, 1], &[51, 50]);
        check(100, &[1, 2], &[33, 67]);
        check(10, &[1, 1, 1], &[4, 3, 3]);
        check(1, &[1, 5, 5], &[0, 1, 0]);
        check(0, &[7, 9], &[0, 0]);
        check(u64::MAX, &[u64::MAX], &[u64::MAX]);
        check(7, &[u64::MAX, u64::MAX], &[4, 3]);
    }

    proptest! {
        #[test]
        fn shares_sum_to_the_cost_and_are_within_one_of_proportion(
            cost: u64, work in proptest::collection::vec(1u64.., 1..40),
        ) {
            let work: BTreeMap<_, _> =
                (0..).zip(work).map(|(i, flops)| (MemberId([i; 32]), Flops(flops))).collect();
            let total: u128 = work.values().map(|flops| u128::from(flops.0)).sum();
            let shares = share_out(Credits(cost), &work);
            let sum: u128 = shares.values().map(|(share, _)| u128::from(share.0)).sum();
            prop_assert_eq!(sum, u128::from(cost));
            for (share, flops) in shares.values() {
                let floor = u128::from(cost) * u128::from(flops.0) / total;
                prop_assert!((floor..=floor + 1).contains(&u128::from(share.0)));
            }
        }
    }
}
