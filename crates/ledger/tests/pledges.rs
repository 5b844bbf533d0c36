//! Goal: credits that are staked, earned in common or left unused go where the rules say, and nowhere else.
//! Method: a small village, one rule at a time.

mod common;

use common::{DAY_MS, FOUNDER, World, member, node};
use talka_base::{Credits, Flops, Tick};
use talka_ledger::{
    Account, Event, LedgerError, Policy,
    profile::{Job, Task, neuro::Role},
    stake::StakeChange,
};

const fn gft(gft: u64) -> Credits {
    Credits::from_gft(gft)
}

fn grant() -> Credits {
    Policy::default().grant
}

#[test]
fn a_stake_is_locked_and_more_extends_it_to_the_later_date() {
    let mut world = World::village();
    world.record(world.locks(2, 1, gft(100), 30)).expect("locks");
    assert_eq!((world.staked(2), world.balance(2).0), (gft(100), grant().0 - gft(100).0));
    let until = |world: &World| world.ledger.member(&member(2)).expect("a member").stake.until;
    let thirty = world.now.plus_ms(30 * DAY_MS);
    assert_eq!(until(&world), thirty);
    world.wait_days(20);
    // By its second node, and shorter than what is locked already.
    world.record(world.locks(4, 2, gft(50), 1)).expect("locks");
    assert_eq!((world.staked(2), until(&world)), (gft(150), thirty));

    let unlocks = |world: &World| world.stakes(2, 3, StakeChange::Unlock { credits: gft(150) });
    let now = world.now;
    assert_eq!(
        world.record(unlocks(&world)),
        Err(LedgerError::Locked { member: member(2), until: thirty, now })
    );
    world.wait_days(10);
    world.record(unlocks(&world)).expect("unlocks");
    assert_eq!((world.staked(2), world.balance(2)), (Credits::ZERO, grant()));
}

#[test]
fn a_stake_keeps_within_its_bounds_and_an_order_works_once() {
    let mut world = World::village();
    for (credits, days) in
        [(Credits(999_999), 30), (gft(10_000_001), 30), (gft(1), 0), (gft(1), 366)]
    {
        let refused = world.record(world.locks(2, 1, credits, days));
        assert!(matches!(refused, Err(LedgerError::Stake { .. })), "{credits} for {days} days");
    }
    let all = world.record(world.locks(2, 1, gft(100_001), 30));
    assert!(matches!(all, Err(LedgerError::Insufficient { .. })));
    let order = world.locks(2, 1, gft(1), 30);
    world.record(order.clone()).expect("locks");
    assert_eq!(world.record(order), Err(LedgerError::Serial { expected: 2, found: 1 }));
    let stranger = world.locks(9, 1, gft(1), 30);
    assert_eq!(world.record(stranger), Err(LedgerError::NotAMember { node: node(9) }));
}

fn expires(first_node: u8) -> talka_ledger::Event {
    Event::Expired { member: member(first_node) }
}

#[test]
fn credits_expire_after_a_year_and_members_are_warned() {
    let mut world = World::village();
    // Spent credits are the oldest ones; what is earned is young.
    world.record(world.reserves(1, 2, 2, 10, 20)).expect("reserves");
    world.wait_days(200);
    world.record(world.settles(1, 2, &[(FOUNDER, (0, 2)), (3, (2, 6))], (25, 15))).expect("pays");
    let earned = world.ledger.member(&member(3)).expect("a member").earned;
    let left = world.balance(2);

    world.wait_days(74);
    assert_eq!(world.ledger.expiring_soon(&member(2), world.now), None);
    world.wait_days(1);
    let year = Tick(365 * DAY_MS);
    assert_eq!(world.ledger.expiring_soon(&member(2), world.now), Some((left, year)));
    let nothing = Err(LedgerError::NothingExpires { member: member(2) });
    world.wait_days(89);
    assert_eq!(world.record(expires(2)), nothing);
    world.wait_days(1);
    assert_eq!(world.ledger.expiring_now(world.now).len(), 3);
    world.record(expires(2)).expect("expires");
    assert_eq!(world.balance(2), Credits::ZERO);
    assert_eq!(world.record(expires(2)), nothing);
    world.record(expires(3)).expect("expires");
    assert_eq!(world.balance(3), earned, "that came 200 days later");
    let burned = world.ledger.account(Account::Burn).0;
    assert_eq!(u64::try_from(burned), Ok(left.0 + grant().0));
    assert_eq!(world.total(), 0);
}

#[test]
fn neither_a_reservation_nor_a_stake_makes_credits_younger() {
    let mut world = World::village();
    world.record(world.locks(2, 1, gft(40_000), 365)).expect("locks");
    world.wait_days(364);
    world.record(world.reserves(1, 2, 2, 10, 20)).expect("reserves");
    let reserved = world.reserved(2);
    world.wait_days(1);
    world.record(expires(2)).expect("what is spendable expires");
    assert_eq!((world.balance(2), world.staked(2)), (Credits::ZERO, gft(40_000)));
    world.record(world.cancels(1, 2)).expect("cancels");
    world.record(world.stakes(2, 2, StakeChange::Unlock { credits: gft(40_000) })).expect("ends");
    assert_eq!(world.balance(2).0, gft(40_000).0 + reserved.0);
    world.record(expires(2)).expect("the rest expires");
    assert_eq!(world.balance(2), Credits::ZERO);
}

#[test]
fn credits_last_for_ever_where_the_policy_says_so() {
    let mut world = World::with_policy(Policy { expiry: None, ..Policy::default() });
    world.wait_days(10_000);
    assert_eq!(world.ledger.expiring_now(world.now), []);
    assert!(matches!(world.record(expires(FOUNDER)), Err(LedgerError::NothingExpires { .. })));
}

fn audited(first_node: u8, giga_flops: u64) -> (talka_base::NodeId, Task) {
    let job = Job::Audit { work: Flops(giga_flops * 1_000_000_000) };
    (node(first_node), Task { job, role: Role::default(), replicas: None })
}

#[test]
fn common_work_is_paid_at_its_worth_within_the_days_budget() {
    let mut world = World::village();
    world
        .record(world.rewards(1, vec![audited(2, 100), audited(4, 50), audited(3, 50)]))
        .expect("1");
    // Nodes 2 and 4 are one member's.
    assert_eq!((world.held(2), world.held(3)), (gft(150), gft(50)));

    // The day's budget has 999,800 left; three times as much was done.
    world.record(world.rewards(2, vec![audited(2, 2_000_000), audited(3, 999_400)])).expect("2");
    let minted = |world: &World| [2, 3].map(|n| world.held(n)).into_iter().sum::<Credits>();
    assert_eq!(minted(&world), Policy::default().day_budget);
    world.record(world.rewards(3, vec![audited(2, 1)])).expect("nothing is left");
    assert_eq!(minted(&world), Policy::default().day_budget);

    world.wait_days(1);
    let before = world.held(3);
    world.record(world.rewards(4, vec![audited(3, 1)])).expect("another day");
    assert_eq!(world.held(3).0 - before.0, gft(1).0);
    assert_eq!((world.balance(2), world.balance(3)), (grant(), grant()), "none of it is free");
    assert_eq!(world.total(), 0);
}

fn freed(first_node: u8) -> Event {
    Event::Freed { member: member(first_node) }
}

#[test]
fn what_common_work_earned_can_be_spent_once_it_was_held_for_long_enough() {
    let mut world = World::village();
    world.record(world.rewards(1, vec![audited(2, 100)])).expect("1");
    world.wait_days(2);
    world.record(world.rewards(2, vec![audited(2, 10)])).expect("2");
    let nothing = Err(LedgerError::NothingFreed { member: member(2) });
    assert_eq!(world.record(freed(2)), nothing, "the first was held for two days");

    world.wait_days(1);
    assert_eq!(world.ledger.freed_now(world.now), [member(2)]);
    world.record(freed(2)).expect("three days");
    assert_eq!((world.balance(2).0 - grant().0, world.held(2)), (gft(100).0, gft(10)));
    assert_eq!(world.record(freed(2)), nothing, "once");
    assert_eq!(world.ledger.freed_now(world.now), []);
}

#[test]
fn common_work_is_paid_at_once_where_the_policy_says_so() {
    let policy = Policy { held_days: 0, ..Policy::default() };
    let mut world = World::village_with(policy);
    world.record(world.rewards(1, vec![audited(2, 100)])).expect("1");
    assert_eq!((world.balance(2).0 - grant().0, world.held(2)), (gft(100).0, Credits::ZERO));
}

#[test]
fn only_the_sequencer_reports_common_work_and_each_report_counts_once() {
    let mut world = World::village();
    let report = world.rewards(1, vec![audited(2, 1)]);
    world.record(report.clone()).expect("counts");
    assert!(matches!(world.record(report), Err(LedgerError::Mismatch { field: "serial", .. })));
    let stranger = world.rewards(2, vec![audited(9, 1)]);
    assert_eq!(world.record(stranger), Err(LedgerError::NotAMember { node: node(9) }));
    let empty = world.rewards(2, Vec::new());
    assert!(matches!(world.record(empty), Err(LedgerError::TaskCount { found: 0, .. })));
    let tasks = vec![audited(2, 1); 513];
    let flood = world.rewards(2, tasks);
    assert!(matches!(world.record(flood), Err(LedgerError::TaskCount { found: 513, .. })));
    let network = world.network();
    let work =
        talka_ledger::common_work::CommonWork { network, serial: 2, tasks: vec![audited(2, 1)] };
    let report = common::keys(2).sign(work);
    let by_member = world.record(Event::Rewarded { report });
    assert!(matches!(by_member, Err(LedgerError::Signature(_))));
}

#[test]
fn a_full_report_of_common_work_fits_an_entry() {
    let mut world = World::village();
    let job = Job::Training {
        work: Flops(u64::MAX),
        batches: u32::MAX,
        layers: u32::MAX,
        stale_seconds: Some(u32::MAX),
    };
    let task = Task { job, role: Role::default(), replicas: Some(u32::MAX) };
    world.record(world.rewards(1, vec![(node(2), task); 512])).expect("fits");
    talka_base::encode(world.entries.last().expect("recorded"));
}
