//! Goal: the document is enough to come to the same ledger. Method: `replay`, written from docs/ledger-format.md and
//! from nothing else, replays entries of every kind; both have to name the same head and the same state root.

mod common;

use common::{Cut, DAY_MS, FOUNDER, MODEL, World, keys, member, node, request};
use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};
use talka_base::{Credits, Flops, MemberId, encode, hex};
use talka_ledger::{
    Collector, Event, Policy,
    govern::{Action, Choice},
    keys::KeyChange,
    profile::{Job, Task, neuro::Role},
    stake::StakeChange,
};

const STAGES: [Cut; 2] = [(FOUNDER, (0, 2)), (3, (2, 6))];

/// Every kind of event, and every way in which a session ends.
fn world() -> World {
    let mut world = World::village();
    let mended = |world: &World, id| {
        let mut settlement = world.settlement(id, &STAGES, (25, 15));
        let mut receipt = settlement.receipts[1].claimed_value().clone();
        (receipt.lane, receipt.from) = (7, 12);
        settlement.receipts[1] = keys(3).sign(receipt);
        settlement.vouchers = vec![world.voucher(id, 2, 2, 4, 1_000)];
        keys(2).sign(settlement)
    };
    for id in [1, 2, 3, 4, 5, 6, 7, 9] {
        world.record(world.reserves(id, 2, 2, 10, 20)).expect("reserves");
    }
    for event in [
        world.settles(1, 2, &STAGES, (25, 15)),
        world.cancels(2, 4),
        world.claims(2, 2, 1, 3, 800),
        Event::Settled { settlement: mended(&world, 3) },
        world.claims(3, 2, 2, 4, 1_300),
        world.claims(4, 2, 0, 3, 500),
        world.claims(4, 2, 0, 3, 700),
        world.claims(5, 2, 9, FOUNDER, 40),
        world.claims(9, 2, 0, 3, 60),
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
    for (id, worker, amount) in [(5, FOUNDER, 50), (7, 3, 900)] {
        let voucher = world.voucher(id, 2, 9, worker, amount);
        collector.voucher(&world.ledger, voucher).expect("good");
    }
    collector.expire(&world.ledger, request(9)).expect("open");
    let closed = collector.close(&world.ledger, world.now).expect("good").expect("some ended");
    assert_eq!((closed.epoch.epoch.sessions.len(), closed.epoch.tasks.len()), (4, 2));
    let (node_gone, last) = (world.removes(4, 2), world.settles(8, 4, &[(3, (0, 6))], (1, 1)));
    for event in [Event::EpochCounted(closed.epoch), node_gone, last] {
        world.record(event).expect("valid");
    }
    decide(&mut world);
    world
}

/// What members do with their stakes, keys and votes, and what a year leaves of their credits.
fn decide(world: &mut World) {
    let root = KeyChange::Root { key: MemberId(keys(7).public()) };
    let delegate = KeyChange::Delegate { node: node(3), expires_at: world.now.plus_ms(9 * DAY_MS) };
    let task = |job| Task { job, role: Role::default(), replicas: None };
    let tasks = vec![
        (node(2), task(Job::Audit { work: Flops(5_000_000) })),
        (node(3), task(Job::Availability { seconds: 90_000_000 })),
        (node(FOUNDER), task(Job::Availability { seconds: 7 })),
    ];
    for event in [
        world.locks(3, 1, Credits::from_gft(5), 30),
        world.locks(2, 1, Credits::from_gft(3), 2),
        world.changes_keys(3, 3, 1, root),
        world.changes_keys(3, 7, 2, delegate),
        world.rewards(1, tasks.clone()),
        world.rewards(2, tasks[..1].to_vec()),
    ] {
        world.record(event).expect("valid");
    }
    let policy = Policy { grant: Credits(77), ..Policy::default() };
    let slash = Action::Slash {
        member: member(3),
        penalty: Credits::from_gft(4),
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
    while let Some(proposal) = world.ledger.undecided(world.now) {
        world.record(Event::Decided { proposal }).expect("valid");
    }
    let free = world.stakes(2, 2, StakeChange::Unlock { credits: Credits::from_gft(1) });
    let revoke = world.changes_keys(3, 7, 3, KeyChange::Revoke { node: node(3) });
    for event in [free, revoke] {
        world.record(event).expect("valid");
    }
    world.wait_days(363);
    world.record(Event::Expired { member: member(2) }).expect("valid");
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

#[test]
fn a_second_implementation_comes_to_the_same_state() {
    let world = world();
    let lines: Vec<String> = world.entries.iter().map(|entry| hex::show(&encode(entry))).collect();
    let Some(output) = replayed(&lines.join("\n")) else {
        eprintln!(
            "NOT TRIED: python3 is not installed, so nothing replayed the ledger a second time"
        );
        return;
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let (head, state) = (world.ledger.head_hash(), world.ledger.state_root());
    let expected = format!("head {head}\nstate {state}\n");
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);

    // It does check: an entry that is left out is noticed.
    let output =
        replayed(&lines[..5].iter().chain(&lines[6..]).cloned().collect::<Vec<_>>().join("\n"));
    let output = output.expect("it was there before");
    assert!(String::from_utf8_lossy(&output.stderr).contains("entry 5"), "{output:?}");
}
