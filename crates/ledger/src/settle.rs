//! Turns receipts and vouchers into payment: who did which work, what it costs, how it is shared.
//!
//! The cost follows from the layers and positions that the stages and the head agree on. Lanes of stages that were
//! lost are paid first, by their vouchers. What becomes of that and of the rest, the network's
//! [`Profile`](crate::Profile) says. Whether the work was done well is not asked here: that is an audit's question.

use crate::{
    book::{Book, Change, Closing, LaneClaim, LanePaid, OpenReservation},
    claim::{check_cap, check_voucher},
    entry::Event,
    error::LedgerError,
    price::work_for,
    profile::{Contribution, Rating},
    removal::worker_of,
    request::Settlement,
    rules::{Outcome, cap_for, check_field, check_network, closing_postings},
    share::{Breakdown, Part},
    voucher::Voucher,
};
use std::collections::{BTreeMap, BTreeSet};
use talka_base::{Credits, Flops, LayerSpan, MemberId, NodeId, Receipt, Signed, Tick};

/// Decides about a settlement: what was reserved pays the stages, and the rest returns to the payer.
pub(crate) fn judge(
    book: &Book,
    at: Tick,
    event: &Event,
    settlement: &Signed<Settlement>,
) -> Result<Outcome, LedgerError> {
    let request = settlement.claimed_value().request;
    let (cap, mark) = cap_for(book, at, event, request)?;
    let open =
        book.open.get(&request).ok_or(LedgerError::OtherPaper { request, found: "settled" })?;
    let closing = closing(book, open, claimed(open), settlement)?;
    let postings = closing_postings(cap, &closing)?;
    Ok(Outcome { postings, change: Change::Settle { request, mark, closing } })
}

/// How `settlement` ends an open session, of which stages have `brought` vouchers themselves.
pub(crate) fn closing(
    book: &Book,
    open: &OpenReservation,
    brought: Vouched,
    settlement: &Signed<Settlement>,
) -> Result<Closing, LedgerError> {
    let paper = settlement.verify_by(&open.reservation.head.0)?;
    check_network(book, "settlement", paper.network)?;
    check_reserved(open, paper)?;
    let mut closing = by_vouchers(book, open, vouched(book, open, brought, paper)?, true);
    check_cap(paper.request, open.cap, Credits::ZERO, closing.cost)?;
    if paper.receipts.is_empty() {
        return Ok(closing);
    }
    let parts = parts(book, open, paper)?;
    let (policy, shape) = (&book.policy, &open.reservation.shape);
    let profile = policy.profile.locked(open.cap, open.reservation.tokens());
    let cost = profile.charge(shape, paper.positions, paper.logits, policy);
    // Work within the reservation costs no more, unless the members decided on other prices in between.
    let rest = Credits(cost.min(open.cap).0.saturating_sub(closing.cost.0));
    let stages = contributions(book, open, &parts)?;
    // Where every stage began at the end nothing is left to be paid for, and nobody to be paid.
    if stages.iter().any(|stage| stage.work > Flops(0)) {
        closing.pay(rest, policy.profile.payout(rest, &stages));
    }
    for stage in stages {
        *closing.work.entry(stage.member).or_default() += stage.work;
    }
    closing
        .lanes
        .extend(paper.receipts.iter().map(|receipt| (lane_of(receipt), LanePaid::Receipt)));
    let flops = shape.flops(shape.span(), 0..paper.positions, paper.logits);
    let (precision, per_million_tokens) = (shape.precision, profile.per_million_tokens());
    closing.breakdown = Some(Breakdown { flops, precision, per_million_tokens, parts });
    Ok(closing)
}

fn lane_of(receipt: &Signed<Receipt>) -> u16 {
    receipt.claimed_value().lane
}

/// What the head signed for a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owed {
    pub worker: NodeId,
    pub member: MemberId,
    pub amount: Credits,
}

/// The same for each lane.
pub(crate) type Vouched = BTreeMap<u16, Owed>;

/// What stages claimed while the session was open.
pub(crate) fn claimed(open: &OpenReservation) -> Vouched {
    let owed = |&LaneClaim { worker, member, amount, .. }| Owed { worker, member, amount };
    open.claims.iter().map(|(&lane, claim)| (lane, owed(claim))).collect()
}

/// Charges for every lane what its voucher says, and nothing else. Each amount is a payment of its own: what part of it
/// reaches the stage, the profile says.
pub(crate) fn by_vouchers(
    book: &Book,
    open: &OpenReservation,
    vouched: Vouched,
    signed: bool,
) -> Closing {
    let (policy, precision) = (&book.policy, open.reservation.shape.precision);
    let mut closing = Closing::nothing(signed);
    for (lane, Owed { worker, member, amount }) in vouched {
        let rating = Rating::of(&book.standing(&worker), open.at);
        let work = work_for(amount, precision, policy);
        let payout = policy.profile.payout(amount, &[Contribution { member, work, rating }]);
        closing.pay(amount, payout);
        closing.lanes.insert(lane, LanePaid::Voucher(amount));
    }
    closing
}

/// What lanes without a receipt are owed: the higher of what the head and what their stage brought.
fn vouched(
    book: &Book,
    open: &OpenReservation,
    mut vouched: Vouched,
    paper: &Settlement,
) -> Result<Vouched, LedgerError> {
    let reserved = &open.reservation;
    let mut last = None;
    for voucher in &paper.vouchers {
        let voucher = check_voucher(book, voucher, reserved.head, reserved.model)?;
        check_field("voucher", "session", reserved.request, voucher.session)?;
        let lane = voucher.lane;
        if let Some(after) = last.replace(lane).filter(|&after| lane <= after) {
            return Err(LedgerError::LaneOrder { lane, after });
        }
        add(book, open, &mut vouched, voucher)?;
    }
    let mut signed = BTreeSet::new();
    for lane in paper.receipts.iter().map(lane_of) {
        if !signed.insert(lane) {
            return Err(LedgerError::LaneOrder { lane, after: lane });
        }
    }
    vouched.retain(|lane, _| !signed.contains(lane));
    Ok(vouched)
}

/// Takes a verified voucher into account: of two for one lane the higher counts.
pub(crate) fn add(
    book: &Book,
    open: &OpenReservation,
    vouched: &mut Vouched,
    voucher: &Voucher,
) -> Result<(), LedgerError> {
    let &Voucher { worker, amount, .. } = voucher;
    let member = worker_of(book, worker, open.height)?;
    let owed = vouched.entry(voucher.lane).or_insert(Owed { worker, member, amount });
    check_field("voucher", "worker", owed.worker, worker)?;
    owed.amount = owed.amount.max(amount);
    Ok(())
}

/// The work lies within what was reserved. The bounds are those of [`quote`](crate::quote).
fn check_reserved(open: &OpenReservation, paper: &Settlement) -> Result<(), LedgerError> {
    let reserved = &open.reservation;
    let positions_max = reserved.prompt_tokens.saturating_add(reserved.max_new_tokens);
    // Where nobody signed, no work is told.
    let (least, positions_max, logits_max) = match paper.receipts.as_slice() {
        [] => (0, 0, 0),
        _ => (1, positions_max, reserved.max_new_tokens),
    };
    for (field, found, min, max) in [
        ("positions", paper.positions, least, positions_max),
        ("logits", paper.logits, 0, logits_max),
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
        let rating = Rating::of(&book.standing(&receipt.node), open.at);
        parts.push(Part { node: receipt.node, flops: receipt.flops(shape), rating });
    }
    if next_layer != shape.layers {
        return Err(LedgerError::Coverage { expected: next_layer, found: shape.layers });
    }
    Ok(parts)
}

/// The same by member: of a node that was removed since, whose it was.
fn contributions(
    book: &Book,
    open: &OpenReservation,
    parts: &[Part],
) -> Result<Vec<Contribution>, LedgerError> {
    let contribution = |part: &Part| {
        let member = worker_of(book, part.node, open.height)?;
        Ok(Contribution { member, work: part.flops, rating: part.rating })
    };
    parts.iter().map(contribution).collect()
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
    if receipt.from > paper.positions {
        let (found, max) = (receipt.from, paper.positions);
        return Err(LedgerError::BeyondReservation {
            field: "first positions",
            found,
            min: 0,
            max,
        });
    }
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
