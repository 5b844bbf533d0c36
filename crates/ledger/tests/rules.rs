//! What the ledger takes, what it moves, and what it refuses: each refusal changes nothing.

mod common;

use common::{
    Cut, FOUNDER, World, founding, is_mismatch, is_signature, keys, member, node, refused,
    refused_as, request, shape,
};
use talka_base::{
    Amount, Blame, Credits, Flops, LayerSpan, ModelId, ModelShape, NetworkId, SignatureError,
    Signed, Tick, decode, encode,
};
use talka_ledger::{
    Account, Entry, Event, Forwarding, Founding, Ledger, LedgerError, Policy, RECEIPTS_MAX,
    REQUEST_SIGNED_MS_MAX, Reservation, Settlement, StateRecord, Tariff, price, quote, verify,
};

const STAGES: [Cut; 2] = [(FOUNDER, (0, 2)), (3, (2, 6))];

/// Request 1 of node 2 is open: 10 prompt tokens, at most 20 new ones.
fn reserved() -> World {
    let mut world = World::village();
    world.record(world.reserves(1, 2, 2, 10, 20)).expect("reserves");
    world
}

#[test]
fn a_founding_grants_its_founder_and_is_bound_to_its_keys_and_policy() {
    let world = World::new();
    let grant = Policy::default().grant;
    assert_eq!(world.balance(FOUNDER), grant);
    assert_eq!(world.ledger.account(Account::Mint), Amount::minus(grant).expect("fits"));
    assert_eq!((world.ledger.height(), world.total()), (0, 0));
    assert_eq!(world.ledger.member_of(&node(FOUNDER)), Some(member(FOUNDER)));

    let found = |founding, by| Ledger::found(&keys(by), founding, Tick(0)).map(|_| ());
    assert_eq!(
        found(founding(), 2),
        Err(LedgerError::NotSequencer { expected: node(FOUNDER), found: node(2) })
    );
    let policy = Policy { version: 1, ..Policy::default() };
    assert_eq!(
        found(Founding { policy, ..founding() }, FOUNDER),
        Err(LedgerError::PolicyVersion { expected: 4, found: 1 })
    );
    let policy = Policy { grant: Credits(u64::MAX), ..Policy::default() };
    assert!(matches!(
        found(Founding { policy, ..founding() }, FOUNDER),
        Err(LedgerError::PolicyField { field: "grant", .. })
    ));
    for name in ["", "two\nlines", &"x".repeat(65), &"x".repeat(1 << 20)] {
        let founding = Founding { name: name.into(), ..founding() };
        assert!(matches!(found(founding, FOUNDER), Err(LedgerError::Name { .. })));
    }
    let other = Founding { nonce: [0; 16], ..founding() };
    assert_ne!(other.network_id(), founding().network_id());
}

#[test]
fn a_new_member_gets_the_grant_once_and_its_second_node_none() {
    let mut world = World::village();
    let grant = Policy::default().grant;
    assert_eq!((world.balance(2), world.balance(3)), (grant, grant));
    assert_eq!(world.ledger.account(Account::Mint), Amount(-3 * grant.0 as i64));
    assert_eq!(world.ledger.member_of(&node(4)), Some(member(2)));
    assert_eq!(world.entries[3].claimed_value().postings, vec![]);
    let again = world.joins(2, 2, 3);
    refused(&mut world, again, &LedgerError::Duplicate { height: 1 });
}

#[test]
fn a_membership_counts_only_from_a_member_and_for_an_account_of_its_own() {
    let mut world = World::village();
    let event = world.joins(6, 6, 5);
    refused(&mut world, event, &LedgerError::NotAMember { node: node(5) });
    let event = world.joins(4, 4, 2);
    refused(&mut world, event, &LedgerError::NodeTaken { node: node(4), member: member(2) });
    for owner in [3, 6] {
        let (node, member, inviter) = (node(5), member(owner), node(2));
        let event = world.joins(5, owner, 2);
        refused(&mut world, event, &LedgerError::ForeignMember { node, member, inviter });
    }
    let membership = keys(3).sign(world.membership(5, 5, 2));
    refused_as(&mut world, Event::Joined { membership }, is_signature);
    let mut foreign = world.membership(5, 5, 2);
    foreign.network = NetworkId([0; 32]);
    let membership = keys(2).sign(foreign);
    refused_as(&mut world, Event::Joined { membership }, is_mismatch("network"));
    let mut loud = world.membership(5, 5, 2);
    loud.name = "\x1b[2J".into();
    let membership = keys(2).sign(loud);
    refused_as(&mut world, Event::Joined { membership }, |e| matches!(e, LedgerError::Name { .. }));
}

#[test]
fn a_reservation_holds_the_quote_and_a_settlement_pays_by_work_and_returns_the_rest() {
    let mut world = reserved();
    let (policy, grant) = (Policy::default(), Policy::default().grant);
    let held = quote(&shape(), 10, 20, &policy);
    assert_eq!(world.ledger.reservation(&request(1)).map(|open| open.cap), Some(held));
    assert_eq!(world.reserved(2), held);
    assert_eq!(world.balance(2), Credits(grant.0 - held.0));
    assert_eq!(world.ledger.account(Account::reserved(member(2))), Amount(held.0 as i64));

    world.record(world.settles(1, 2, &STAGES, (25, 15))).expect("settles");
    let flops = |layers: (u32, u32), logits| {
        shape().flops(LayerSpan::new(layers.0, layers.1).expect("span"), 0..25, logits)
    };
    let (first, last) = (flops((0, 2), 0), flops((2, 6), 15));
    let cost = price(Flops(first.0 + last.0), shape().precision, &policy);
    assert!(cost < held);
    let ledger = &world.ledger;
    let earned = |m| ledger.member(&member(m)).expect("member").earned;
    assert_eq!(earned(FOUNDER).0 + earned(3).0, cost.0);
    let exact = u128::from(cost.0) * u128::from(first.0) / u128::from(first.0 + last.0);
    assert!((exact..=exact + 1).contains(&u128::from(earned(FOUNDER).0)));
    assert_eq!(world.balance(2), Credits(grant.0 - cost.0));
    assert_eq!(world.balance(3), Credits(grant.0 + earned(3).0));
    assert_eq!(ledger.account(Account::reserved(member(2))), Amount(0));
    let payer = ledger.member(&member(2)).expect("member");
    assert_eq!((payer.spent, payer.requests), (cost, 1));
    assert_eq!(ledger.member(&member(3)).expect("member").work, last);
    assert_eq!((ledger.reservation(&request(1)), world.total()), (None, 0));
}

#[test]
fn a_payer_who_does_all_the_work_nets_nothing() {
    let mut world = reserved();
    world.record(world.settles(1, 2, &[(4, (0, 6))], (30, 20))).expect("settles");
    assert_eq!(world.balance(2), Policy::default().grant);
    let payer = world.ledger.member(&member(2)).expect("member");
    assert_eq!(payer.spent, payer.earned);
    assert_eq!(payer.spent, quote(&shape(), 10, 20, &Policy::default()));
}

#[test]
fn a_repeated_paper_is_recognised_and_another_under_its_name_refused() {
    let mut world = World::village();
    let reserve = world.reserves(1, 2, 2, 10, 20);
    world.record(reserve.clone()).expect("reserves");
    refused(&mut world, reserve.clone(), &LedgerError::Duplicate { height: 4 });
    let other = world.reserves(1, 2, 2, 10, 21);
    let reused = LedgerError::RequestReused { request: request(1), height: 4 };
    refused(&mut world, other, &reused);

    let settle = world.settles(1, 2, &STAGES, (25, 15));
    world.record(settle.clone()).expect("settles");
    refused(&mut world, settle, &LedgerError::Duplicate { height: 5 });
    refused(&mut world, reserve, &LedgerError::Duplicate { height: 4 });
    let closed = LedgerError::Closed { request: request(1), height: 5 };
    let events = [world.settles(1, 2, &STAGES, (24, 15)), world.cancels(1, 2), world.expires(1)];
    for event in events {
        refused(&mut world, event, &closed);
    }
}

#[test]
fn a_request_is_forgotten_once_none_of_its_papers_can_be_used() {
    let mut world = World::village();
    let reserve = world.reserves(1, 2, 2, 10, 20);
    let settle = world.settles(1, 2, &STAGES, (25, 15));
    world.record(reserve.clone()).expect("reserves");
    world.record(settle.clone()).expect("settles");
    let is_kept = |world: &World| {
        world.ledger.records().any(|record| matches!(record, StateRecord::Request(..)))
    };
    world.now = world.now.plus_ms(2 * REQUEST_SIGNED_MS_MAX - 1);
    world.record(world.joins(5, 5, 2)).expect("joins");
    assert!(is_kept(&world));
    refused(&mut world, reserve.clone(), &LedgerError::Duplicate { height: 4 });

    world.now = world.now.plus_ms(1);
    world.record(world.joins(6, 6, 2)).expect("joins");
    assert!(!is_kept(&world));
    assert!(world.ledger.is_over(&request(1), 4), "a stage works for no old ticket");
    let dated = LedgerError::RequestDated { request: request(1), minutes: 1440, max: 720 };
    refused(&mut world, reserve, &dated);
    refused(&mut world, settle, &LedgerError::UnknownRequest { request: request(1) });
    let replayed = Ledger::replay(world.entries.clone()).expect("replays");
    assert_eq!(replayed, world.ledger);
}

#[test]
fn a_request_of_another_day_is_refused_whichever_clock_is_wrong() {
    let mut world = World::village();
    let (early, start) = (world.reserves(1, 2, 2, 10, 20), world.now);
    for (at, apart) in [(0, 0), (REQUEST_SIGNED_MS_MAX, 0), (REQUEST_SIGNED_MS_MAX + 60_000, 721)] {
        world.now = start.plus_ms(at);
        let taken = world.ledger.would_take(world.now, &early);
        let max = 720;
        let dated = LedgerError::RequestDated { request: request(1), minutes: apart, max };
        assert_eq!(taken, if apart == 0 { Ok(()) } else { Err(dated) });
    }
    let late = world.forwards(1, 2, 2, 10, 20);
    let taken = world.ledger.would_take(start, &late);
    assert!(matches!(taken, Err(LedgerError::RequestDated { .. })), "{taken:?}");
    assert_eq!(LedgerError::UnknownRequest { request: request(1) }.blame(), Blame::Nobody);
}

#[test]
fn who_cannot_afford_a_request_is_refused_with_what_is_held_and_needed() {
    let mut policy = Policy::default();
    policy.grant = quote(&shape(), 10, 20, &policy);
    let mut world = World::with_policy(policy.clone());
    let (held, needed) = (policy.grant, quote(&shape(), 10, 21, &policy));
    let event = world.reserves(1, FOUNDER, FOUNDER, 10, 21);
    let account = Account::spendable(member(FOUNDER));
    let error = LedgerError::Insufficient { account, held, needed };
    refused(&mut world, event, &error);
    assert_eq!(error.blame(), Blame::Nobody);
    world.record(world.reserves(1, FOUNDER, FOUNDER, 10, 20)).expect("just enough");
    assert_eq!(world.balance(FOUNDER), Credits::ZERO);
}

#[test]
fn a_reservation_is_signed_by_a_node_of_the_payer_and_makes_sense() {
    let mut world = World::village();
    let mut check =
        |change: fn(&mut Reservation), by: u8, expected: &dyn Fn(&LedgerError) -> bool| {
            let mut reservation = world.reservation(1, 2, 2, 10, 20);
            change(&mut reservation);
            let reservation = keys(by).sign(reservation);
            refused_as(&mut world, Event::Reserved { reservation }, expected);
        };
    check(|_| (), 3, &is_signature);
    check(|r| r.payer = member(3), 2, &is_mismatch("payer"));
    check(|r| r.network = NetworkId([0; 32]), 2, &is_mismatch("network"));
    check(|r| r.head = node(5), 5, &|e| matches!(e, LedgerError::NotAMember { .. }));
    check(|r| r.prompt_tokens = 0, 2, &|e| matches!(e, LedgerError::NoPrompt { .. }));
    check(|r| r.shape.heads = 0, 2, &|e| matches!(e, LedgerError::Shape(_)));
    world.record(world.reserves(1, 4, 2, 10, 20)).expect("any node of the payer may be head");
}

#[test]
fn the_largest_numbers_are_refused_without_overflow() {
    let mut world = World::village();
    let d = 1 << 24;
    let mut reservation = world.reservation(1, 2, 2, u32::MAX, u32::MAX);
    reservation.shape = ModelShape {
        layers: 1 << 12,
        hidden: d,
        heads: d,
        kv_heads: d,
        head_dim: d,
        ffn: d,
        vocab: d,
        context: d,
        precision: shape().precision,
    };
    let reservation = keys(2).sign(reservation);
    let before = world.ledger.clone();
    let error = world.record(Event::Reserved { reservation }).expect_err("beyond any purse");
    assert!(matches!(error, LedgerError::Insufficient { .. }), "{error}");
    assert_eq!(world.ledger, before);
}

#[test]
fn a_settlement_stays_within_its_reservation() {
    let mut world = reserved();
    let beyond = |field, found, min, max| LedgerError::BeyondReservation { field, found, min, max };
    for (used, error) in [
        ((31, 20), beyond("positions", 31, 1, 30)),
        ((0, 0), beyond("positions", 0, 1, 30)),
        ((30, 21), beyond("logits", 21, 0, 20)),
    ] {
        let event = world.settles(1, 2, &STAGES, used);
        refused(&mut world, event, &error);
    }
    let event = world.settles(1, 4, &STAGES, (25, 15));
    refused_as(&mut world, event, is_signature);
    let event = world.settles(2, 2, &STAGES, (25, 15));
    refused(&mut world, event, &LedgerError::UnknownRequest { request: request(2) });
}

#[test]
fn receipts_cover_every_layer_once_in_order() {
    let mut world = reserved();
    let cases: [(&[Cut], (u32, u32)); 6] = [
        (&[(3, (0, 5))], (5, 6)),
        (&[(3, (1, 6))], (0, 1)),
        (&[(3, (0, 7))], (6, 7)),
        (&[(1, (0, 3)), (3, (2, 6))], (3, 2)),
        (&[(1, (0, 2)), (3, (3, 6))], (2, 3)),
        (&[(3, (2, 6)), (1, (0, 2))], (0, 2)),
    ];
    for (stages, (expected, found)) in cases {
        let event = world.settles(1, 2, stages, (25, 0));
        refused(&mut world, event, &LedgerError::Coverage { expected, found });
    }
    let none = world.settles(1, 2, &[], (25, 0));
    let count = LedgerError::Count { what: "receipts", found: 0, min: 1, max: RECEIPTS_MAX };
    refused(&mut world, none, &count);
}

#[test]
fn a_flood_of_receipts_is_refused_before_any_is_verified() {
    let mut world = reserved();
    let mut settlement = world.settlement(1, &[(3, (0, 6))], (25, 15));
    settlement.receipts = vec![settlement.receipts[0].clone(); RECEIPTS_MAX + 1];
    let settlement = keys(2).sign(settlement);
    refused_as(&mut world, Event::Settled { settlement }, |e| {
        matches!(e, LedgerError::Count { what: "receipts", .. })
    });
}

#[test]
fn every_receipt_is_of_this_request_and_signed_by_a_member_node() {
    type Change = fn(&mut talka_base::Receipt);
    let mut world = reserved();
    let mut check = |change: Change, by: u8, expected: &dyn Fn(&LedgerError) -> bool| {
        let mut settlement: Settlement = world.settlement(1, &STAGES, (25, 15));
        let mut receipt = settlement.receipts[1].claimed_value().clone();
        change(&mut receipt);
        settlement.receipts[1] = keys(by).sign(receipt);
        let settlement = keys(2).sign(settlement);
        refused_as(&mut world, Event::Settled { settlement }, expected);
    };
    check(|_| (), 2, &is_signature);
    check(|r| r.network = NetworkId([0; 32]), 3, &is_mismatch("network"));
    check(|r| r.request = request(9), 3, &is_mismatch("request"));
    check(|r| r.model = ModelId([0; 32]), 3, &is_mismatch("model"));
    check(|r| r.positions = 24, 3, &is_mismatch("positions"));
    check(|r| r.logits = 14, 3, &is_mismatch("logits"));
    check(|r| r.node = node(7), 7, &|e| matches!(e, LedgerError::NotAMember { .. }));
}

#[test]
fn a_released_reservation_returns_whole() {
    let mut world = reserved();
    let event = world.cancels(1, 3);
    refused_as(&mut world, event, is_mismatch("payer"));
    let Event::Released { reason, .. } = world.cancels(9, 2) else { unreachable!() };
    refused_as(&mut world, Event::Released { request: request(1), reason }, is_mismatch("request"));

    let cancel = world.cancels(1, 4);
    world.record(cancel.clone()).expect("another node of the payer may cancel");
    assert_eq!(world.balance(2), Policy::default().grant);
    refused(&mut world, cancel, &LedgerError::Duplicate { height: 5 });
    let event = world.settles(1, 2, &STAGES, (25, 15));
    refused(&mut world, event, &LedgerError::Closed { request: request(1), height: 5 });
}

#[test]
fn a_reservation_expires_by_the_ledgers_time_and_not_before() {
    let mut world = reserved();
    let from = world.now.plus_ms(Policy::default().reservation_ms_max);
    world.now = Tick(from.0 - 1);
    assert_eq!(world.ledger.expired(world.now), vec![]);
    let event = world.expires(1);
    let early = LedgerError::NotExpired { request: request(1), from, now: world.now };
    refused(&mut world, event.clone(), &early);

    world.now = from;
    assert_eq!(world.ledger.expired(from), vec![request(1)]);
    world.record(event.clone()).expect("expired");
    assert_eq!((world.balance(2), world.total()), (Policy::default().grant, 0));
    refused(&mut world, event, &LedgerError::Duplicate { height: 5 });
}

#[test]
fn entries_follow_each_other_and_only_the_founder_orders_them() {
    let world = reserved();
    let event = world.cancels(1, 2);
    let good = world.ledger.propose(&keys(FOUNDER), world.now, event.clone()).expect("proposes");
    let check = |change: fn(&mut Entry), by: u8, expected: &dyn Fn(&LedgerError) -> bool| {
        let mut entry = good.claimed_value().clone();
        change(&mut entry);
        let mut ledger = world.ledger.clone();
        let error = ledger.apply(&keys(by).sign(entry)).expect_err("is refused");
        assert!(expected(&error), "{error}");
        assert_eq!(ledger, world.ledger);
    };
    check(|_| (), 2, &|e| matches!(e, LedgerError::Signature(SignatureError::WrongSigner { .. })));
    check(|e| e.height += 1, FOUNDER, &|e| matches!(e, LedgerError::Height { .. }));
    check(|e| e.previous.0[0] ^= 1, FOUNDER, &|e| matches!(e, LedgerError::Previous { .. }));
    check(|e| e.at = Tick(0), FOUNDER, &|e| matches!(e, LedgerError::Backwards { .. }));
    check(|e| e.postings[1].amount.0 += 1, FOUNDER, &|e| {
        matches!(e, LedgerError::Postings { index: 1, .. })
    });
    check(|e| e.postings.clear(), FOUNDER, &|e| {
        matches!(e, LedgerError::Postings { index: 0, found: None, .. })
    });
    check(|e| e.event_id.0[0] ^= 1, FOUNDER, &is_mismatch("event id"));
    check(|e| e.author = node(3), FOUNDER, &is_mismatch("author"));
    check(|e| e.evidence.0[0] ^= 1, FOUNDER, &is_mismatch("evidence"));
    check(|e| e.event = Event::Founded(founding()), FOUNDER, &|e| {
        matches!(e, LedgerError::Founding { .. })
    });
    assert!(matches!(
        world.ledger.propose(&keys(2), world.now, event),
        Err(LedgerError::NotSequencer { .. })
    ));
}

#[test]
fn a_clock_that_steps_back_does_not_stop_the_ledger() {
    let mut world = reserved();
    let before = world.ledger.at();
    world.now = Tick(5);
    world.record(world.cancels(1, 2)).expect("recorded at the time of the entry before");
    assert_eq!(world.ledger.at(), before);
}

#[test]
fn a_replay_begins_with_a_founding() {
    let world = reserved();
    let error = Ledger::replay([]).expect_err("nothing there");
    assert_eq!((error.height, error.source), (0, LedgerError::Empty));
    let error = Ledger::replay(world.entries[1..].to_vec()).expect_err("no founding");
    assert!(matches!(error.source, LedgerError::Founding { height: 0, .. }));
    let mut gap = world.entries.clone();
    gap.remove(2);
    let error = Ledger::replay(gap).expect_err("one is missing");
    assert_eq!((error.height, error.source), (2, LedgerError::Height { expected: 2, found: 3 }));
}

#[test]
fn a_report_counts_what_was_checked() {
    let mut world = reserved();
    world.record(world.settles(1, 2, &STAGES, (25, 15))).expect("settles");
    world.record(world.reserves(2, 2, 2, 1, 1)).expect("reserves");
    let report = verify(world.entries.clone()).expect("verifies");
    assert_eq!((report.entries, report.members), (7, 3));
    // Seven entries, three memberships, two reservations, one settlement with two receipts.
    assert_eq!(report.signatures, 7 + 3 + 2 + 3);
    let postings = world.entries.iter().map(|e| e.claimed_value().postings.len() as u64);
    assert_eq!(report.postings, postings.sum::<u64>());
    assert_eq!(report.minted, Credits(3 * Policy::default().grant.0));
    assert_eq!(report.balances_total, Amount(0));
    assert_eq!(report.reserved, quote(&shape(), 1, 1, &Policy::default()));
    assert_eq!(report.head, world.ledger.head_hash());
    assert_eq!(report.state_root, world.ledger.state_root());
}

#[test]
fn a_full_settlement_fits_an_entry() {
    let mut world = World::new();
    for id in 2..=250 {
        world.record(world.joins(id, id, FOUNDER)).expect("joins");
    }
    let layers = RECEIPTS_MAX as u32;
    let mut reservation = world.reservation(1, 2, 2, 1000, 1000);
    reservation.shape.layers = layers;
    let reservation = keys(2).sign(reservation);
    world.record(Event::Reserved { reservation }).expect("reserves");
    let stages: Vec<_> =
        (0..layers).map(|layer| ((layer % 250 + 1) as u8, (layer, layer + 1))).collect();
    world.record(world.settles(1, 2, &stages, (2000, 0))).expect("settles");
    let entry = world.entries.last().expect("entry");
    assert_eq!(decode::<Signed<Entry>>(&encode(entry)).as_ref(), Ok(entry));
    assert_eq!(world.total(), 0);
}

/// Request 1 of node 4, which belongs to member 2, is forwarded: 10 prompt tokens, at most 20 new ones.
fn forwarded() -> World {
    let mut world = World::village();
    world.record(world.forwards(1, 4, 2, 10, 20)).expect("forwards");
    world
}

#[test]
fn an_answer_from_outside_is_held_at_its_tariff_and_pays_the_member_that_fetched_it() {
    let mut world = forwarded();
    let grant = Policy::default().grant.0;
    let held = 2 * quote(&shape(), 10, 20, world.ledger.policy()).0;
    assert_eq!((world.balance(2).0, world.reserved(2).0), (grant - held, held));

    world.record(world.delivers(1, 4, (9, 15))).expect("delivers");
    let cost = Credits(2 * quote(&shape(), 9, 15, world.ledger.policy()).0);
    let account = world.ledger.member(&member(2)).expect("a member");
    assert_eq!((account.spent, account.earned, account.work), (cost, cost, Flops(0)));
    assert_eq!((account.requests, world.balance(2).0), (1, grant));
    assert_eq!((world.reserved(2).0, world.total()), (0, 0));
    assert_eq!(world.ledger.account(Account::reserved(member(2))), Amount(0));
    assert!(world.ledger.is_closed(&request(1)));
    let entry = world.entries.last().expect("an entry").claimed_value();
    assert_eq!((entry.event.kind(), entry.postings.len()), ("delivered", 3));
}

#[test]
fn an_answer_that_did_not_come_costs_nothing() {
    let mut world = forwarded();
    world.record(world.cancels(1, 2)).expect("another node of the member may");
    let mut other = forwarded();
    other.now = other.now.plus_ms(Policy::default().reservation_ms_max);
    assert_eq!(other.ledger.expired(other.now), [request(1)]);
    other.record(other.expires(1)).expect("expired");
    for world in [world, other] {
        assert_eq!(world.balance(2), Policy::default().grant);
        assert_eq!(world.ledger.member(&member(2)).expect("a member").spent, Credits(0));
    }
}

#[test]
fn a_forwarding_that_is_wrong_is_refused() {
    let mut world = World::village();
    let sign = |forwarding| Event::Forwarded { forwarding: keys(2).sign(forwarding) };
    let with =
        |world: &World, tariff| sign(Forwarding { tariff, ..world.forwarding(1, 2, 2, 10, 20) });
    for per_mille in [0, 999, 1_000] {
        let event = with(&world, Tariff::Multiple { shape: shape(), per_mille });
        refused_as(&mut world, event, |e| matches!(e, LedgerError::TariffTooLow { .. }));
    }
    let shapeless = ModelShape { layers: 0, ..shape() };
    let event = with(&world, Tariff::Multiple { shape: shapeless, per_mille: 2_000 });
    refused_as(&mut world, event, |e| matches!(e, LedgerError::Shape(_)));
    let event = with(&world, Tariff::Tokens { per_thousand: Credits(1 << 62) });
    let error = world.record(event).expect_err("beyond any purse");
    assert!(matches!(error, LedgerError::Insufficient { .. }), "{error:?}");

    let event = sign(world.forwarding(1, 2, 2, 0, 20));
    refused_as(&mut world, event, |e| matches!(e, LedgerError::NoPrompt { .. }));
    let event = world.forwards(1, 2, 3, 10, 20);
    refused_as(&mut world, event, is_mismatch("payer"));
    let event = world.forwards(1, 9, 2, 10, 20);
    refused_as(&mut world, event, |e| matches!(e, LedgerError::NotAMember { .. }));
    let event = sign(world.forwarding(1, 3, 3, 10, 20));
    refused_as(&mut world, event, is_signature);
    let abroad = Forwarding { network: NetworkId([7; 32]), ..world.forwarding(1, 2, 2, 10, 20) };
    refused_as(&mut world, sign(abroad), is_mismatch("network"));
}

#[test]
fn a_delivery_stays_within_what_was_forwarded_and_counts_once() {
    let mut world = forwarded();
    for used in [(0, 5), (11, 5), (10, 21)] {
        let event = world.delivers(1, 4, used);
        refused_as(&mut world, event, |e| matches!(e, LedgerError::BeyondReservation { .. }));
    }
    let event = world.delivers(1, 2, (10, 5));
    refused_as(&mut world, event, is_signature);
    let event = world.delivers(2, 4, (10, 5));
    refused(&mut world, event, &LedgerError::UnknownRequest { request: request(2) });

    let delivery = world.delivers(1, 4, (10, 20));
    world.record(delivery.clone()).expect("all that was promised");
    let height = world.ledger.height();
    refused(&mut world, delivery, &LedgerError::Duplicate { height });
    let event = world.delivers(1, 4, (10, 19));
    refused(&mut world, event, &LedgerError::Closed { request: request(1), height });
    let event = world.forwards(1, 4, 2, 10, 20);
    refused(&mut world, event, &LedgerError::Duplicate { height: height - 1 });
    let event = world.reserves(1, 2, 2, 10, 20);
    refused_as(&mut world, event, |e| matches!(e, LedgerError::RequestReused { .. }));
}

#[test]
fn work_and_answers_from_outside_are_not_paid_by_each_others_papers() {
    let mut world = reserved();
    let event = world.delivers(1, 2, (10, 5));
    refused_as(&mut world, event, |e| matches!(e, LedgerError::OtherPaper { .. }));
    let mut world = forwarded();
    let event = world.settles(1, 4, &STAGES, (25, 15));
    refused_as(&mut world, event, |e| matches!(e, LedgerError::OtherPaper { .. }));
}
