//! Goal: the document is enough to come to the same ledger. Method: `replay.py`, written from docs/ledger-format.md and
//! from nothing else, replays entries of every kind; both have to name the same head and the same state root.

mod common;

use common::{Cut, FOUNDER, World, keys};
use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};
use talka_base::{encode, hex};
use talka_ledger::{Collector, Event, Policy};

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
    for id in 1..=7 {
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
    let (epoch, _) = collector.close(&world.ledger, world.now).expect("good").expect("some ended");
    assert_eq!(epoch.sessions.len(), 3);
    for event in
        [Event::Epoch(epoch), world.removes(4, 2), world.settles(8, 4, &[(3, (0, 6))], (1, 1))]
    {
        world.record(event).expect("valid");
    }
    world
}

/// What `replay.py` says of these lines; `None` if there is no Python.
fn replayed(lines: &str) -> Option<Output> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/replay.py");
    let mut child = Command::new("python3")
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
