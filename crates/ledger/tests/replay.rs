//! Goal: the documents are enough to come to the same ledger. Method: `replay`, written from docs/ledger-format.md and
//! docs/economy.md and from nothing else, replays entries of every kind under every profile; both have to name the same
//! head and the same state root.

mod common;

use common::{Cut, DAY_MS, FOUNDER, MODEL, World, keys, member, node, request};
use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};
use talka_base::{Credits, Factor, Flops, MemberId, NodeId, Signed, encode, hex};
use talka_ledger::{
    Collector, Event, Policy, Profile, Settlement,
    govern::{Action, Choice, Votes},
    keys::KeyChange,
    profile::{
        Job, PROFILE_NAMES, Task,
        fei::Fei,
        neuro::{Market, Neuro, Role},
    },
    quote,
    stake::StakeChange,
    standing::Finding,
};

const STAGES: [Cut; 2] = [(FOUNDER, (0, 2)), (3, (2, 6))];

/// Every profile as it is published, and two with constants that change something where those do not.
fn policies() -> Vec<(String, Policy)> {
    let named = PROFILE_NAMES.iter().map(|name| {
        let profile = Profile::named(name).expect("known");
        (name.to_string(), Policy { profile, ..Policy::default() })
    });
    let fei = Fei { fee: Credits(7), loyalty: Factor(10_500), ..Fei::default() };
    let market = Market { price_nano: 123_457, ..Market::default() };
    let per_million_tokens = Credits::from_gft(1_000);
    let neuro = Neuro { per_million_tokens, market, ..Neuro::default() };
    let mut other = Policy { profile: Profile::Neuro(neuro), ..Policy::default() };
    other.governance.votes = Votes::ByStake;
    let other = [
        ("fei with a fee".into(), Policy { profile: Profile::Fei(fei), ..Policy::default() }),
        ("neuro by stake at another price".into(), other),
    ];
    named.chain(other).collect()
}

/// What is measured and judged of nodes, so that they count differently.
fn rate(world: &mut World) {
    world.record(world.reserves(40, 2, 2, 10, 20)).expect("reserves");
    for event in [
        world.rates(3, World::measured(5_500, 1)),
        world.rates(FOUNDER, World::measured(1_000, 2)),
        world.judges(3, FOUNDER, Finding::Failed { request: request(40) }),
    ] {
        world.record(event).expect("valid");
    }
    for finding in [true, false] {
        let finding = Finding::Audited { request: request(40), passed: finding };
        world.record(world.judges(3, FOUNDER, finding)).expect("judges");
    }
    for hardware in 1..=4 {
        world.record(world.rates(4, World::measured(9_300, hardware))).expect("other hardware");
    }
    world.record(world.judges(4, FOUNDER, Finding::Cleared)).expect("was under review");
    for _ in 0..10 {
        let failed = Finding::Failed { request: request(40) };
        world.record(world.judges(4, FOUNDER, failed)).expect("judges");
    }
    // Over for node 3, not for node 4.
    world.wait_days(1);
    world.record(world.rates(3, World::measured(7_777, 1))).expect("rates");
    world.record(world.expires(40)).expect("expired");
}

/// Every way in which a session ends.
fn world(policy: Policy) -> World {
    let mut world = World::village_with(policy);
    rate(&mut world);
    let cap = quote(&common::shape(), 10, 20, world.ledger.policy());
    let part = |thousandths: u64| cap.0 * thousandths / 1_000;
    // Without a price nothing is ever owed.
    let owes = cap > Credits::ZERO;
    for id in [1, 2, 3, 4, 5, 6, 7, 10] {
        world.record(world.reserves(id, 2, 2, 10, 20)).expect("reserves");
    }
    let mended = |world: &World, id| -> Signed<Settlement> { mended(world, id, part(200)) };
    world.record(world.settles(1, 2, &STAGES, (25, 15))).expect("settles");
    world.record(world.cancels(2, 4)).expect("cancels");
    if owes {
        world.record(world.claims(2, 2, 1, 3, part(150))).expect("was withheld");
    }
    world.record(Event::Settled { settlement: mended(&world, 3) }).expect("settles");
    if owes {
        for (id, lane, worker, thousandths) in
            [(3, 2, 4, 300), (4, 0, 3, 200), (4, 0, 3, 250), (5, 9, FOUNDER, 50), (10, 0, 3, 60)]
        {
            let claim = world.claims(id, 2, lane, worker, part(thousandths));
            world.record(claim).expect("claims");
        }
    }
    for event in [
        world.forwards(20, 2, 2, 10, 20),
        world.delivers(20, 2, (9, 15)),
        world.forwards(21, 3, 3, 10, 20),
    ] {
        world.record(event).expect("valid");
    }
    world.now = world.now.plus_ms(Policy::default().reservation_ms_max);
    world.record(world.expires(4)).expect("expired");
    world.record(world.reserves(8, 4, 2, 1, 1)).expect("reserves");
    let mut collector = Collector::default();
    collector.settle(&world.ledger, mended(&world, 6)).expect("good");
    for (id, worker, thousandths) in [(5, FOUNDER, 70), (7, 3, 350)] {
        if owes {
            let voucher = world.voucher(id, 2, 9, worker, part(thousandths));
            collector.voucher(&world.ledger, voucher).expect("good");
        }
    }
    collector.expire(&world.ledger, request(10)).expect("open");
    let closed = collector.close(&world.ledger, world.now).expect("good").expect("some ended");
    assert_eq!(closed.epoch.epoch.sessions.len(), if owes { 4 } else { 2 });
    assert!(!closed.epoch.tasks.is_empty());
    world.record(Event::EpochCounted(closed.epoch)).expect("valid");
    world.record(world.removes(4, 2)).expect("valid");
    world.record(world.settles(8, 4, &[(3, (0, 6))], (1, 1))).expect("settles");
    for event in [world.reserves(9, 2, 2, 10, 20), nothing_done(&world, 9)] {
        world.record(event).expect("valid");
    }
    reward(&mut world);
    decide(&mut world);
    world
}

/// A stage took another's place at position 12, and that one's voucher is for so much.
fn mended(world: &World, id: u8, owed: u64) -> Signed<Settlement> {
    let mut settlement = world.settlement(id, &STAGES, (25, 15));
    let mut receipt = settlement.receipts[1].claimed_value().clone();
    (receipt.lane, receipt.from) = (7, 12);
    settlement.receipts[1] = keys(3).sign(receipt);
    settlement.vouchers = vec![world.voucher(id, 2, 2, 4, owed)];
    keys(2).sign(settlement)
}

/// Of a request whose stages all took over at its end.
fn nothing_done(world: &World, id: u8) -> Event {
    let mut settlement = world.settlement(id, &STAGES, (25, 0));
    for (receipt, (worker, _)) in settlement.receipts.iter_mut().zip(STAGES) {
        let mut late = receipt.claimed_value().clone();
        late.from = late.positions;
        *receipt = keys(worker).sign(late);
    }
    Event::Settled { settlement: keys(2).sign(settlement) }
}

/// Common work of every kind, within a day's budget and beyond it.
fn reward(world: &mut World) {
    let plain = |job| Task { job, role: Role::default(), replicas: None };
    let work = Flops(5_000_000);
    let trained = |stale_seconds| Job::Training { work, batches: 60, layers: 10, stale_seconds };
    let role = Role { embedding: true, head: true, training: true };
    let rare = |job| Task { job, role, replicas: Some(1) };
    let reports: [Vec<(NodeId, Task)>; 3] = [
        vec![
            (node(2), plain(Job::Audit { work })),
            (node(3), plain(Job::Availability { seconds: 7_777 })),
            (node(3), rare(trained(Some(90_000)))),
            (node(FOUNDER), rare(trained(None))),
            (node(2), rare(Job::Inference { tokens: 1_234_567 })),
        ],
        vec![
            (node(3), plain(Job::Audit { work: Flops(u64::MAX) })),
            (
                node(2),
                rare(Job::Training { work, batches: u32::MAX, layers: 99, stale_seconds: None }),
            ),
            (node(FOUNDER), plain(Job::Availability { seconds: u32::MAX })),
        ],
        vec![(node(2), plain(Job::Audit { work }))],
    ];
    let lock = world.locks(3, 1, Credits::from_gft(5_005), 30);
    world.record(lock).expect("stakes");
    for (serial, tasks) in (1..).zip(reports) {
        world.record(world.rewards(serial, tasks)).expect("rewards");
    }
    world.wait_days(1);
    let again = vec![(node(3), plain(Job::Availability { seconds: 60 }))];
    world.record(world.rewards(4, again)).expect("another day's budget");
}

/// What members do with their stakes, keys and votes, and what a year leaves of their credits.
fn decide(world: &mut World) {
    let root = KeyChange::Root { key: MemberId(keys(7).public()) };
    let delegate = KeyChange::Delegate { node: node(3), expires_at: world.now.plus_ms(9 * DAY_MS) };
    for event in [
        world.locks(2, 1, Credits::from_gft(3), 3),
        world.locks(FOUNDER, 1, Credits::from_gft(5_000), 4),
        world.changes_keys(3, 3, 1, root),
        world.changes_keys(3, 7, 2, delegate),
    ] {
        world.record(event).expect("valid");
    }
    let policy = Policy { grant: Credits(77), ..world.ledger.policy().clone() };
    // More than its stake.
    let slash = Action::Slash {
        member: member(3),
        penalty: Credits::from_gft(5_010),
        reporter: Some(member(2)),
    };
    let forbid = Action::Model { model: MODEL, is_allowed: false };
    let actions = [(2, Action::Parameters(Box::new(policy))), (3, forbid), (FOUNDER, slash)];
    let proposals = actions.map(|(by, action)| {
        let id = world.proposal(by, true, action.clone()).id();
        world.record(world.proposes(by, true, action)).expect("valid");
        id
    });
    for (by, choice) in [(2, Choice::Yes), (3, Choice::Abstain), (FOUNDER, Choice::Yes)] {
        for proposal in proposals {
            world.record(world.votes(by, proposal, choice)).expect("valid");
        }
    }
    world.wait_days(3);
    let mut decided = 0;
    while let Some(proposal) = world.ledger.undecided(world.now) {
        world.record(Event::Decided { proposal }).expect("valid");
        decided += 1;
    }
    assert_eq!((decided, world.ledger.policy().grant), (3, Credits(77)), "they were enacted");
    let free = world.stakes(2, 2, StakeChange::Unlock { credits: Credits::from_gft(1) });
    let revoke = world.changes_keys(3, 7, 3, KeyChange::Revoke { node: node(3) });
    for event in [free, revoke] {
        world.record(event).expect("valid");
    }
    world.wait_days(363);
    for member in world.ledger.freed_now(world.now) {
        world.record(Event::Freed { member }).expect("valid");
    }
    world.record(Event::Expired { member: member(2) }).expect("valid");
    change_order(world);
}

/// Witnesses are named, order by turns, and the founder orders again.
fn change_order(world: &mut World) {
    world.record(world.joins(5, 5, 2)).expect("joins");
    for event in [world.appoints(&[FOUNDER, 2, 3, 5]), world.changes_order(1, true)] {
        world.record(event).expect("valid");
    }
    world.record_by(5, world.forwards(30, FOUNDER, FOUNDER, 1, 1)).expect("its turn");
    let expired = world.now.plus_ms(Policy::default().reservation_ms_max);
    world.now = expired;
    world.record_by(3, world.expires(30)).expect("its turn");
    world.record_by(2, world.changes_order(2, false)).expect("its turn");
    world.record(world.joins(6, 6, 2)).expect("the founder orders again");
    world.record(world.changes_order(3, true)).expect("valid");
}

/// What `replay` says of these lines; `None` if there is no Python.
fn replayed(lines: &str) -> Option<Output> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/replay");
    let mut child = Command::new("python3")
        .arg("-B")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let mut stdin = child.stdin.take().expect("it was asked for");
    // A script that gives up early does not read all.
    let _ = stdin.write_all(lines.as_bytes());
    drop(stdin);
    Some(child.wait_with_output().expect("it ends"))
}

fn lines(world: &World) -> Vec<String> {
    world.entries.iter().map(|entry| hex::show(&encode(entry))).collect()
}

const NOT_TRIED: &str =
    "NOT TRIED: python3 is not installed, so nothing replayed the ledger a second time";

#[test]
fn a_second_implementation_comes_to_the_same_state_under_every_profile() {
    for (name, policy) in policies() {
        let world = world(policy);
        let Some(output) = replayed(&lines(&world).join("\n")) else {
            eprintln!("{NOT_TRIED}");
            return;
        };
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {errors}");
        let (head, state) = (world.ledger.head_hash(), world.ledger.state_root());
        let expected = format!("head {head}\nstate {state}\n");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{name}");
    }
}

/// It does check: an entry that is left out is noticed.
#[test]
fn a_second_implementation_notices_what_is_left_out() {
    let lines = lines(&world(Policy::default()));
    let some = lines[..5].iter().chain(&lines[6..]).cloned().collect::<Vec<_>>().join("\n");
    let Some(output) = replayed(&some) else {
        eprintln!("{NOT_TRIED}");
        return;
    };
    assert!(String::from_utf8_lossy(&output.stderr).contains("entry 5"), "{output:?}");
}

/// Whoever signs that he did nothing is paid nothing, and the ledger stands.
#[test]
fn what_nobody_worked_for_costs_nothing_under_every_profile() {
    for (name, policy) in policies() {
        let mut world = World::village_with(policy);
        let before = (world.balance(2), world.balance(3), world.total());
        world.record(world.reserves(9, 2, 2, 10, 20)).expect("reserves");
        world.record(nothing_done(&world, 9)).expect("settles");
        assert_eq!((world.balance(2), world.balance(3), world.total()), before, "{name}");
        assert_eq!(world.reserved(2), Credits::ZERO, "{name}");
    }
}
