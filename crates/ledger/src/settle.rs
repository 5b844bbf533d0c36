//! Turns receipts into payment: who did which work, what it costs, how it is shared.
//!
//! The cost follows from the layers and positions that the stages and the head agree on. It is
//! shared in proportion to FLOPs and standing. Whether the work was done well is not asked
//! here: that is an audit's question.

use crate::{
    book::{Book, Change, OpenReservation},
    entry::{Account, Event},
    error::LedgerError,
    price::price,
    removal::worker_of,
    request::Settlement,
    rules::{Outcome, Postings, cap_for, check_field, check_network},
    share::{Breakdown, Part, Work, share_out},
};
use std::collections::BTreeMap;
use talka_base::{LayerSpan, MemberId, Receipt, Signed};

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
    let parts = parts(book, open, paper)?;

    let shape = &open.reservation.shape;
    let used = shape.flops(shape.span(), 0..paper.positions, paper.logits);
    let cost = price(used, shape.precision, &book.policy);
    let rest = open.cap.checked_sub(cost).expect("work within the reservation costs no more");
    let earned = share_out(cost, &by_member(book, open, &parts)?);

    let payer = open.reservation.payer;
    let mut postings = Postings::default()
        .minus(Account::reserved(payer), open.cap)?
        .plus(Account::spendable(payer), rest)?;
    for (&member, &(share, _)) in &earned {
        postings = postings.plus(Account::spendable(member), share)?;
    }
    let breakdown = Breakdown { flops: used, precision: shape.precision, parts };
    let breakdown = Some(breakdown);
    let change = Change::Settle { request, mark, payer, cost, earned, breakdown };
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

/// Checks every receipt and that they hold each layer once, and says what each counts for.
fn parts(
    book: &Book,
    open: &OpenReservation,
    paper: &Settlement,
) -> Result<Vec<Part>, LedgerError> {
    let shape = &open.reservation.shape;
    let mut parts = Vec::with_capacity(paper.receipts.len());
    let mut next_layer = 0;
    for signed in &paper.receipts {
        let receipt = signed.verify_by(&signed.claimed_value().node.0)?;
        check_receipt(book, open, paper, receipt)?;
        check_follows(next_layer, receipt.span, shape.layers)?;
        next_layer = receipt.span.end();
        // Quarantines are looked at as they were when the work began.
        let standing = book.standing(&receipt.node);
        parts.push(Part::new(receipt.node, receipt.flops(shape), &standing, open.at));
    }
    if next_layer != shape.layers {
        return Err(LedgerError::Coverage { expected: next_layer, found: shape.layers });
    }
    Ok(parts)
}

fn by_member(
    book: &Book,
    open: &OpenReservation,
    parts: &[Part],
) -> Result<BTreeMap<MemberId, Work>, LedgerError> {
    let mut work = BTreeMap::<MemberId, Work>::new();
    for part in parts {
        work.entry(worker_of(book, part.node, open.height)?).or_default().add(part);
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
