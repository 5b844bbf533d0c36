//! How a node's standing enters the ledger, and what it changes there.

mod common;

use common::{
    FOUNDER, World, is_mismatch, is_signature, keys, member, node, refused, refused_as, request,
};
use talka_base::{Factor, NetworkId, RequestId, Scores};
use talka_ledger::{
    Event, Ledger, LedgerError,
    standing::{Finding, HARDWARE_CHANGES_MAX, Halt, MULTIPLIER_MIN, RATED_AGAIN_MS_MIN},
};

const HOUR_MS: u64 = 3_600_000;

fn multiplier(world: &World, of: u8) -> Factor {
    world.ledger.standing(&node(of)).multiplier(world.now)
}

#[test]
fn a_rating_counts_after_its_quarantine_and_moves_no_credits() {
    let mut world = World::village();
    assert_eq!(multiplier(&world, 2), Factor::ONE);
    world.record(world.rates(2, World::measured(5_500, 1))).expect("rated");
    assert_eq!(world.entries.last().expect("an entry").claimed_value().postings, vec![]);
    assert_eq!((multiplier(&world, 2), world.total()), (Factor::ONE, 0));
    world.now = world.now.plus_ms(24 * HOUR_MS);
    assert_eq!(multiplier(&world, 2), Factor(20_000));
    let replayed = Ledger::replay(world.entries.clone()).expect("replays");
    assert_eq!(replayed.state_root(), world.ledger.state_root());
}

#[test]
fn a_rating_is_signed_by_its_node_and_counts_once() {
    let mut world = World::village();
    let measured = World::measured(4_000, 1);
    let event = world.rates(6, measured);
    refused(&mut world, event, &LedgerError::NotAMember { node: node(6) });
    let rating = keys(3).sign(world.rating(2, measured));
    refused_as(&mut world, Event::Rated { rating }, is_signature);
    let mut foreign = world.rating(2, measured);
    foreign.network = NetworkId([0; 32]);
    let rating = keys(2).sign(foreign);
    refused_as(&mut world, Event::Rated { rating }, is_mismatch("network"));
    let mut beyond = measured;
    beyond.scores = Scores { matmul: Some(Factor(10_001)), ..beyond.scores };
    let event = world.rates(2, beyond);
    let (found, max) = (Factor(10_001), Factor::ONE);
    refused(&mut world, event, &LedgerError::Score { node: node(2), found, max });

    let first = world.rates(2, measured);
    world.record(first.clone()).expect("rated");
    let height = world.ledger.height();
    refused(&mut world, first.clone(), &LedgerError::Duplicate { height });
    let (at, other) = (world.now, World::measured(4_100, 1));
    let early = world.rates(2, other);
    let until = at.plus_ms(RATED_AGAIN_MS_MIN);
    refused(&mut world, early, &LedgerError::RatedLately { node: node(2), until, now: at });
    world.record(world.rates(2, World::measured(4_000, 2))).expect("other hardware may at once");
    world.now = at.plus_ms(2 * RATED_AGAIN_MS_MIN);
    world.record(world.rates(2, other)).expect("rated again");
    refused_as(&mut world, first, is_mismatch("number"));
}

#[test]
fn a_third_change_of_hardware_halts_until_the_judge_clears_it() {
    let mut world = World::village();
    for hardware in 0..=HARDWARE_CHANGES_MAX as u8 {
        world.record(world.rates(2, World::measured(3_500, hardware))).expect("rated");
    }
    assert_eq!(world.ledger.standing(&node(2)).halt(), Some(Halt::Review));
    assert_eq!(multiplier(&world, 2), MULTIPLIER_MIN);

    let by_itself = world.judges(2, 2, Finding::Cleared);
    refused_as(&mut world, by_itself, is_mismatch("judge"));
    let judgement = keys(3).sign(world.judgement(2, FOUNDER, Finding::Cleared));
    let forged = Event::Judged { judgement };
    refused_as(&mut world, forged, is_signature);
    let clears = world.judges(2, FOUNDER, Finding::Cleared);
    world.record(clears.clone()).expect("cleared");
    assert_eq!(multiplier(&world, 2), Factor::ONE);
    let height = world.ledger.height();
    refused(&mut world, clears, &LedgerError::Duplicate { height });
    let again = world.judges(2, FOUNDER, Finding::Cleared);
    refused(&mut world, again, &LedgerError::NotHalted { node: node(2) });
}

#[test]
fn failures_and_audits_of_known_requests_lower_reliability() {
    let mut world = World::village();
    let nobody = Finding::Failed { request: RequestId([9; 16]) };
    let event = world.judges(3, FOUNDER, nobody);
    refused(&mut world, event, &LedgerError::UnknownRequest { request: RequestId([9; 16]) });
    world.record(world.reserves(1, 2, 2, 10, 20)).expect("reserves");
    let audited = |passed| Finding::Audited { request: request(1), passed };
    for _ in 0..10 {
        let failed = Finding::Failed { request: request(1) };
        world.record(world.judges(3, FOUNDER, failed)).expect("judged");
    }
    let standing = world.ledger.standing(&node(3));
    assert_eq!((standing.reliability(), standing.halt()), (Factor(5_000), Some(Halt::Suspended)));
    world.record(world.judges(3, FOUNDER, audited(false))).expect("judged");
    world.record(world.judges(3, FOUNDER, audited(true))).expect("judged");
    let standing = world.ledger.standing(&node(3));
    assert_eq!(standing.record().consistency(), Factor(8_400));
    assert_eq!(
        (standing.multiplier(world.now), standing.reliability()),
        (MULTIPLIER_MIN, Factor(5_000))
    );
}

/// What node 3 and the founder earn on an answer for member 2, each with half of the layers of the middle.
fn earned(world: &mut World, id: u8) -> (u64, u64) {
    let earned =
        |world: &World, of| world.ledger.member(&member(of)).expect("is a member").earned.0;
    let before = [3, FOUNDER].map(|of| earned(world, of));
    world.record(world.reserves(id, 2, 2, 10, 20)).expect("reserves");
    // All layers but the last two, which node 2 runs itself with the logits: they are its own.
    let stages = [(3, (0, 2)), (FOUNDER, (2, 4)), (2, (4, 6))];
    world.record(world.settles(id, 2, &stages, (25, 15))).expect("settles");
    (earned(world, 3) - before[0], earned(world, FOUNDER) - before[1])
}

#[test]
fn an_answer_is_shared_by_work_times_multiplier_times_reliability() {
    let mut world = World::village();
    let (other, founder) = earned(&mut world, 1);
    assert!(other.abs_diff(founder) <= 1, "equal work, nobody rated: {other} and {founder}");
    // Twice as fast, in a day.
    world.record(world.rates(3, World::measured(5_500, 1))).expect("rated");
    let (other, founder) = earned(&mut world, 2);
    assert!(other.abs_diff(founder) <= 1, "still in quarantine");
    world.now = world.now.plus_ms(24 * HOUR_MS);
    let (other, founder) = earned(&mut world, 3);
    assert!(other.abs_diff(2 * founder) <= 2, "{other} and {founder}");
    assert_eq!(world.total(), 0);

    // Three tasks of three completed for another member; then one audit fails: 2/3 · 0.8 of them count.
    let standing = world.ledger.standing(&node(3));
    assert_eq!((standing.record().completed(), standing.record().assigned()), (3, 3));
    let failed = Finding::Audited { request: request(3), passed: false };
    world.record(world.judges(3, FOUNDER, failed)).expect("judged");
    assert_eq!(world.ledger.standing(&node(3)).reliability(), Factor(7_667));
    let (other, founder) = earned(&mut world, 4);
    // That was its fourth task, and had not counted yet.
    let expected = u128::from(founder) * 2 * 7_667 / 10_000;
    assert!(u128::from(other).abs_diff(expected) <= 2, "{other}, expected {expected}");
    let breakdown =
        world.ledger.breakdown(world.ledger.height(), &request(4)).expect("just settled");
    let [part, second, third] = &breakdown.parts[..] else { panic!("three receipts") };
    assert_eq!(
        (part.node, part.rating.multiplier, part.rating.reliability),
        (node(3), Factor(20_000), Factor(7_667))
    );
    assert_eq!(part.flops.0 + second.flops.0 + third.flops.0, breakdown.flops.0);
    assert_eq!(world.total(), 0);
}

#[test]
fn work_for_its_own_member_says_nothing_of_a_node() {
    let mut world = World::village();
    world.record(world.reserves(1, 2, 2, 10, 20)).expect("reserves");
    world.record(world.settles(1, 2, &[(4, (0, 3)), (3, (3, 6))], (25, 15))).expect("settles");
    let tasks = |of| world.ledger.standing(&node(of)).record().assigned();
    assert_eq!((tasks(2), tasks(3), tasks(4)), (0, 1, 0));
}
