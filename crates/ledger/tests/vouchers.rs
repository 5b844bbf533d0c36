//! Vouchers on the ledger: claims while a session is open, proofs after it, and epochs of many sessions.

mod common;

use common::{Cut, FOUNDER, World, keys, member, node, request, shape};
use talka_base::{Blame, Credits, NodeId, Signed, TreeHash, encode};
use talka_ledger::{
    Block, Claim, Collector, CountedEpoch, Epoch, Event, LedgerError, PaperProof, PaperProofError,
    Policy, Proof,
    epoch::{self, Paper},
    quote, tlog, verify,
};

const STAGES: [Cut; 2] = [(FOUNDER, (0, 2)), (3, (2, 6))];

/// Request 1 of node 2 is open: 10 prompt tokens, at most 20 new ones. Also its cap.
fn reserved() -> (World, u64) {
    let mut world = World::village();
    world.record(world.reserves(1, 2, 2, 10, 20)).expect("reserves");
    (world, quote(&shape(), 10, 20, &Policy::default()).0)
}

fn grant() -> u64 {
    Policy::default().grant.0
}

fn refused(world: &mut World, event: Event) -> LedgerError {
    let before = world.ledger.clone();
    let error = world.record(event).expect_err("is refused");
    assert_eq!(world.ledger, before);
    error
}

/// Goal: a payer who vanishes pays what it signed for, and gets the rest. Method: stages claim, the
/// reservation expires.
#[test]
fn claims_of_an_open_session_are_paid_when_it_expires() {
    let (mut world, cap) = reserved();
    for event in [
        world.claims(1, 2, 0, 3, cap / 8),
        world.claims(1, 2, 1, FOUNDER, cap / 4),
        world.claims(1, 2, 0, 3, cap / 2),
    ] {
        world.record(event).expect("claims");
    }
    assert_eq!(world.entries.last().expect("entry").claimed_value().postings, []);
    world.now = world.now.plus_ms(Policy::default().reservation_ms_max);
    world.record(world.expires(1)).expect("expires");
    assert_eq!(world.balance(3).0, grant() + cap / 2);
    assert_eq!(world.balance(FOUNDER).0, grant() + cap / 4);
    assert_eq!(world.balance(2).0, grant() - cap / 2 - cap / 4);
    assert_eq!((world.reserved(2), world.total()), (Credits::ZERO, 0));
    let payer = world.ledger.member(&member(2)).expect("member");
    assert_eq!((payer.requests, payer.spent.0), (0, cap / 2 + cap / 4));
}

#[test]
fn a_claim_is_a_higher_voucher_of_the_sessions_head_within_its_cap() {
    let (mut world, cap) = reserved();
    let first = world.claims(1, 2, 0, 3, 100);
    world.record(first.clone()).expect("claims");
    let height = world.ledger.height();
    assert_eq!(refused(&mut world, first), LedgerError::Duplicate { height });
    let claim = world.claims(1, 2, 0, 3, 99);
    let error = refused(&mut world, claim);
    assert!(matches!(error, LedgerError::NothingOwed { .. }), "{error:?}");
    assert_eq!(error.blame(), Blame::Nobody);
    for (event, expected) in [
        (world.claims(1, 3, 0, 3, 200), "not its head"),
        (world.claims(1, 2, 0, FOUNDER, 200), "another worker's lane"),
        (world.claims(1, 2, 1, 9, 200), "not a member"),
        (world.claims(1, 2, 1, 3, cap - 99), "beyond the cap with the other lane"),
        (world.claims(1, 2, 1, 3, u64::MAX), "beyond all credits"),
    ] {
        assert_eq!(refused(&mut world, event).blame(), Blame::Peer, "{expected}");
    }
    let event = world.claims(9, 2, 0, 3, 1);
    let error = refused(&mut world, event);
    assert!(matches!(error, LedgerError::UnknownRequest { .. }), "{error:?}");
    world.record(world.claims(1, 2, 1, 3, cap - 100)).expect("all of the cap");
}

/// Node 4 ran the last layers over 12 positions and was lost; node 3 took its place.
fn mended(world: &World, vouched: u64) -> Event {
    let mut settlement = world.settlement(1, &STAGES, (25, 15));
    let mut receipt = settlement.receipts[1].claimed_value().clone();
    (receipt.lane, receipt.from) = (7, 12);
    settlement.receipts[1] = keys(3).sign(receipt);
    settlement.vouchers = vec![world.voucher(1, 2, 2, 4, vouched)];
    Event::Settled { settlement: keys(2).sign(settlement) }
}

#[test]
fn a_lost_stage_is_paid_by_its_voucher_and_the_others_by_work_and_nobody_twice() {
    let (mut world, _) = reserved();
    let mut whole = world.clone();
    whole.record(whole.settles(1, 2, &STAGES, (25, 15))).expect("settles");
    let cost = |world: &World| world.ledger.member(&member(2)).expect("member").spent;
    world.record(mended(&world, 1_000)).expect("settles");
    assert_eq!(cost(&world), cost(&whole), "the payer pays the same");
    let earned = |world: &World, m| world.ledger.member(&member(m)).expect("member").earned.0;
    assert_eq!(earned(&world, 2), 1_000);
    assert!(earned(&world, 3) < earned(&whole, 3));
    assert_eq!(earned(&world, 2) + earned(&world, 3) + earned(&world, FOUNDER), cost(&whole).0);
}

#[test]
fn a_settlement_names_each_lane_once_and_stays_within_the_cap() {
    let (mut world, cap) = reserved();
    let event = mended(&world, cap + 1);
    assert!(matches!(refused(&mut world, event), LedgerError::BeyondCap { .. }));
    let mut settlement = world.settlement(1, &STAGES, (25, 15));
    settlement.receipts[1] = {
        let receipt = settlement.receipts[1].claimed_value().clone();
        keys(3).sign(talka_base::Receipt { lane: 0, ..receipt })
    };
    let event = Event::Settled { settlement: keys(2).sign(settlement.clone()) };
    assert!(matches!(refused(&mut world, event), LedgerError::LaneOrder { .. }));
    settlement = world.settlement(1, &STAGES, (25, 15));
    settlement.vouchers = [8, 7].map(|lane| world.voucher(1, 2, lane, 3, 5)).to_vec();
    let event = Event::Settled { settlement: keys(2).sign(settlement.clone()) };
    assert!(matches!(refused(&mut world, event), LedgerError::LaneOrder { lane: 7, after: 8 }));
    settlement.receipts.clear();
    settlement.vouchers.truncate(1);
    let event = Event::Settled { settlement: keys(2).sign(settlement.clone()) };
    assert!(matches!(refused(&mut world, event), LedgerError::BeyondReservation { .. }));
    (settlement.positions, settlement.logits) = (0, 0);
    let event = Event::Settled { settlement: keys(2).sign(settlement) };
    world.record(event).expect("vouchers alone");
    assert_eq!(world.balance(3).0, grant() + 5);
}

#[test]
fn a_withheld_voucher_is_paid_once_and_only_for_a_while() {
    let (mut world, cap) = reserved();
    world.record(world.cancels(1, 2)).expect("cancels");
    let mut late = world.clone();
    let proof = world.claims(1, 2, 0, 3, 700);
    world.record(proof.clone()).expect("a proof");
    assert_eq!(world.balance(3).0, grant() + 700);
    assert_eq!(world.balance(2).0, grant() - 700);
    let height = world.ledger.height();
    assert_eq!(refused(&mut world, proof), LedgerError::Duplicate { height });
    let again = world.claims(1, 2, 0, 3, 701);
    assert!(matches!(refused(&mut world, again), LedgerError::LaneClosed { .. }));
    // No more than the cap, whatever was signed.
    world.record(world.claims(1, 2, 1, FOUNDER, 10 * cap)).expect("another lane");
    assert_eq!(world.balance(FOUNDER).0, grant() + cap - 700);

    late.now = late.now.plus_ms(Policy::default().reservation_ms_max);
    late.record(late.joins(5, 5, FOUNDER)).expect("time goes on");
    let claim = late.claims(1, 2, 0, 3, 700);
    assert!(matches!(refused(&mut late, claim), LedgerError::Closed { .. }));
}

#[test]
fn who_signed_a_receipt_claims_no_more_and_a_lane_that_was_paid_less_does() {
    let (mut world, _) = reserved();
    world.record(mended(&world, 1_000)).expect("settles");
    let event = world.claims(1, 2, 7, 3, 1 << 40);
    assert!(matches!(refused(&mut world, event), LedgerError::LaneClosed { .. }));
    let event = world.claims(1, 2, 2, 4, 1_000);
    assert!(matches!(refused(&mut world, event), LedgerError::NothingOwed { .. }));
    let before = world.ledger.member(&member(2)).expect("member").earned;
    world.record(world.claims(1, 2, 2, 4, 1_200)).expect("a proof");
    let after = world.ledger.member(&member(2)).expect("member").earned;
    assert_eq!(after.0 - before.0, 200);
}

/// Four open sessions: the head settles the first two, the third expires with a voucher, the fourth stays.
fn collected() -> (World, Collector) {
    let mut world = World::village();
    for id in 1..=3 {
        world.record(world.reserves(id, 2, 2, 10, 20)).expect("reserves");
    }
    world.now = world.now.plus_ms(Policy::default().reservation_ms_max);
    world.record(world.reserves(4, 2, 2, 10, 20)).expect("reserves");
    let mut collector = Collector::default();
    for event in [world.settles(2, 2, &STAGES, (25, 15)), mended(&world, 1_000)] {
        let Event::Settled { settlement } = event else { unreachable!() };
        collector.settle(&world.ledger, settlement).expect("good");
    }
    for (id, amount) in [(3, 500), (3, 900), (4, 100)] {
        collector.voucher(&world.ledger, world.voucher(id, 2, 0, 3, amount)).expect("good");
    }
    (world, collector)
}

fn close(world: &World, collector: &Collector) -> (CountedEpoch, Vec<Paper>) {
    let closed = collector.close(&world.ledger, world.now).expect("papers are good");
    let closed = closed.expect("sessions ended");
    (closed.epoch, closed.papers)
}

#[test]
fn an_epoch_pays_what_its_sessions_would_have_been_paid_one_by_one() {
    let (mut world, mut collector) = collected();
    let mut single = world.clone();
    for event in [
        single.settles(2, 2, &STAGES, (25, 15)),
        mended(&single, 1_000),
        single.claims(3, 2, 0, 3, 900),
        single.expires(3),
    ] {
        single.record(event).expect("valid");
    }
    let (epoch, papers) = close(&world, &collector);
    let Epoch { number, papers: count, ref sessions, evidence, .. } = epoch.epoch;
    assert_eq!((number, count, sessions.len()), (1, 3, 3));
    let shares = epoch::check(&world.ledger, world.now, &epoch, &papers);
    assert_eq!(shares.expect("follows from its papers").len(), 2);
    // Node 3 signed a receipt of each; the founder of one, where node 4 was lost.
    assert_eq!(epoch.tasks.iter().map(|(_, count)| count).sum::<u32>(), 4);
    let event = Event::EpochCounted(epoch.clone());
    world.record(event.clone()).expect("closes");
    let entry = world.entries.last().expect("entry").claimed_value();
    assert_eq!((entry.author, entry.evidence), (node(FOUNDER), evidence));
    for id in [FOUNDER, 2, 3, 4] {
        assert_eq!(world.ledger.standing(&node(id)), single.ledger.standing(&node(id)));
    }
    assert_eq!(
        world.ledger.accounts().collect::<Vec<_>>(),
        single.ledger.accounts().collect::<Vec<_>>()
    );
    shown_one_by_one(&world, &papers);
    let members =
        |world: &World| world.ledger.members().map(|(_, m)| m.clone()).collect::<Vec<_>>();
    assert_eq!(members(&world), members(&single));

    let height = world.ledger.height();
    assert_eq!(refused(&mut world, event), LedgerError::Duplicate { height });
    collector.forget(&world.ledger);
    assert_eq!(collector.close(&world.ledger, world.now), Ok(None), "the fourth is open");
    let report = verify(world.entries.clone()).expect("replays");
    assert_eq!(report.balances_total.0, 0);
    // A lane's voucher counts after an epoch as after any end.
    let event = world.claims(3, 2, 0, 3, 900);
    assert!(matches!(refused(&mut world, event), LedgerError::NothingOwed { .. }));
    world.record(world.claims(3, 2, 0, 3, 950)).expect("withheld");
}

/// Each paper of the last entry, an epoch, is proved by itself, and nothing else is.
fn shown_one_by_one(world: &World, papers: &[Paper]) {
    let leaves: Vec<TreeHash> =
        world.entries.iter().map(|entry| tlog::leaf_hash(&encode(entry))).collect();
    let mut log = tlog::CompactRange::default();
    leaves.iter().for_each(|leaf| log.append(*leaf, |_, _| ()));
    let block = Block::close(&world.ledger, &log, &log, 1);
    let index = leaves.len() as u64 - 1;
    let claim = Claim::Entry(Box::new(world.entries.last().expect("an entry").clone()));
    let (path, checkpoint) = (tlog::path_among(&leaves, index), block.sign(&keys(FOUNDER)));
    let entry = Proof { claim, index, path, checkpoint };
    for (place, paper) in (0..).zip(papers) {
        let proof = PaperProof::of(papers, place, entry.clone()).expect("a paper");
        let read = PaperProof::parse(proof.to_string().as_bytes()).expect("reads");
        assert_eq!((&read, &read.paper), (&proof, paper));
        assert_eq!(read.verify(&block), Ok(()));
        let other = PaperProof { index: (place + 1) % papers.len() as u64, ..proof.clone() };
        assert!(matches!(other.verify(&block), Err(PaperProofError::Path(_))));
    }
    assert_eq!(PaperProof::of(papers, papers.len() as u64, entry.clone()), None);
    let claim = Claim::Entry(Box::new(world.entries[0].clone()));
    let none = PaperProof::of(papers, 0, Proof { claim, ..entry }).expect("a paper");
    assert_eq!(none.verify(&block), Err(PaperProofError::NoEpoch));
}

#[test]
fn an_epoch_that_is_wrong_is_refused() {
    let (mut world, collector) = collected();
    let (epoch, papers) = close(&world, &collector);
    let counted = epoch.clone();
    let changes: [fn(&mut Epoch); 12] = [
        |e| e.number = 2,
        |e| e.sessions.clear(),
        |e| e.sessions.swap(0, 1),
        |e| e.sessions[1] = e.sessions[0].clone(),
        |e| e.sessions[0].request = request(9),
        |e| e.sessions[0].cost.0 += 1,
        |e| e.sessions[0].cost = Credits(u64::MAX),
        |e| e.sessions[0].lanes.reverse(),
        |e| e.sessions[2].lanes[0].1 = Some(Credits(u64::MAX)),
        |e| e.earned.reverse(),
        |e| e.earned[0].1.0 -= 1,
        |e| e.earned[0].0 = member(9),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut wrong = epoch.clone();
        change(&mut wrong.epoch);
        let event = Event::EpochCounted(wrong);
        assert_eq!(refused(&mut world, event).blame(), Blame::Peer, "{number}");
    }
    type Miscount = fn(&mut Vec<(NodeId, u32)>);
    let miscounts: [Miscount; 4] = [
        |tasks| tasks.reverse(),
        |tasks| tasks[0].1 = 0,
        |tasks| tasks[0].1 = 3,
        |tasks| tasks[0].0 = node(9),
    ];
    for (number, miscount) in miscounts.into_iter().enumerate() {
        let mut wrong = counted.clone();
        miscount(&mut wrong.tasks);
        let refused = world.record(Event::EpochCounted(wrong));
        assert!(refused.is_err(), "{number}");
    }
    // What only the papers can tell.
    let check = |epoch: &CountedEpoch, papers: &[Paper]| {
        epoch::check(&world.ledger, world.now, epoch, papers)
    };
    let moved: [fn(&mut CountedEpoch); 5] = [
        |e| e.epoch.sessions[0].cost.0 -= 1,
        |e| e.epoch.sessions[2].lanes[0].1 = Some(Credits(901)),
        |e| e.epoch.papers += 1,
        |e| e.epoch.evidence.0[0] ^= 1,
        |e| e.tasks[0].1 = 1,
    ];
    for change in moved {
        let mut wrong = epoch.clone();
        change(&mut wrong);
        check(&wrong, &papers).expect_err("not what the papers give");
    }
    check(&epoch, &papers[1..]).expect_err("a paper is missing");
    check(&epoch, &[]).expect_err("all are");
    assert!(check(&epoch, &papers).is_ok());
}

#[test]
fn papers_are_verified_when_they_come() {
    let (world, collector) = collected();
    let mut other = collector.clone();
    let forged = world.voucher(3, 3, 0, 3, 5_000);
    other.voucher(&world.ledger, forged.clone()).expect_err("not by the head");
    other.verified(&world.ledger, forged).expect_err("not even by its name");
    let settlement = keys(3).sign(world.settlement(1, &STAGES, (25, 15)));
    other.settle(&world.ledger, settlement).expect_err("not by the head");
    let cap = quote(&shape(), 10, 20, &Policy::default()).0;
    other.voucher(&world.ledger, world.voucher(3, 2, 1, 3, cap)).expect_err("beyond the cap");
    assert_eq!(close(&world, &other), close(&world, &collector));
    let papers: Vec<Signed<_>> = [1, 2].map(|lane| world.voucher(4, 2, lane, 3, 9)).to_vec();
    assert!(papers.into_iter().all(|paper| other.verified(&world.ledger, paper).is_ok()));
}

#[test]
fn a_session_of_which_no_paper_was_good_is_in_no_epoch() {
    let mut world = World::village();
    world.record(world.reserves(4, 2, 2, 10, 20)).expect("reserves");
    let mut collector = Collector::default();
    let voucher = world.voucher(4, 2, 0, 3, u64::from(u32::MAX));
    let refused = collector.voucher(&world.ledger, voucher).expect_err("beyond the cap");
    assert!(matches!(refused, LedgerError::BeyondCap { .. }), "{refused}");
    world.now = world.now.plus_ms(world.ledger.policy().reservation_ms_max);
    assert_eq!(collector.close(&world.ledger, world.now), Ok(None));
}

/// Goal: a session of which nobody brings a paper ends in an epoch by what stages claimed, and only when it expired.
#[test]
fn an_expired_session_without_papers_is_paid_by_its_claims() {
    let mut world = World::village();
    for id in 1..=2 {
        world.record(world.reserves(id, 2, 2, 10, 20)).expect("reserves");
    }
    world.record(world.claims(1, 2, 0, 3, 700)).expect("noted");
    let mut collector = Collector::default();
    for id in 1..=2 {
        collector.expire(&world.ledger, request(id)).expect("open");
    }
    collector.expire(&world.ledger, request(3)).expect_err("never heard of");
    assert_eq!(collector.close(&world.ledger, world.now), Ok(None), "nothing expired");
    world.now = world.now.plus_ms(world.ledger.policy().reservation_ms_max);
    let before = world.ledger.balance(&member(3)).expect("a member").0;
    let (epoch, papers) = close(&world, &collector);
    assert!(papers.is_empty() && epoch.tasks.is_empty());
    assert_eq!(epoch::check(&world.ledger, world.now, &epoch, &papers), Ok(Vec::new()));
    world.record(Event::EpochCounted(epoch)).expect("closes");
    assert_eq!(world.ledger.balance(&member(3)).expect("a member").0 - before, 700);
    assert_eq!(world.ledger.reservations().count(), 0);
}
