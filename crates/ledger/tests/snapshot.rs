//! Goal: a ledger comes back from its records alone, and from no others.

mod common;

use common::{FOUNDER, World, block};
use talka_ledger::{Ledger, SnapshotError, StateRecord, common_work::Purse};

/// A village with a request held, one paid, a node rated and one removed.
fn world() -> World {
    let mut world = World::village();
    for event in [
        world.reserves(1, 2, 2, 10, 20),
        world.settles(1, 2, &[(FOUNDER, (0, 2)), (3, (2, 6))], (25, 15)),
        world.reserves(2, 2, 2, 10, 20),
        world.rates(2, World::measured(5_000, 1)),
        world.removes(3, FOUNDER),
    ] {
        world.record(event).expect("valid");
    }
    world
}

#[test]
fn a_ledger_comes_back_from_its_records() {
    let world = world();
    let records: Vec<StateRecord> = world.ledger.records().collect();
    let ledger = Ledger::restore(records.clone(), &block(&world.ledger)).expect("restores");
    assert_eq!(ledger.records().collect::<Vec<_>>(), records);
    assert_eq!(ledger.head_hash(), world.ledger.head_hash());
    assert_eq!(ledger.height(), world.ledger.height());
}

#[test]
fn no_record_can_be_missing_altered_or_put_first() {
    let world = world();
    let (records, block): (Vec<_>, _) = (world.ledger.records().collect(), block(&world.ledger));
    for missing in 0..records.len() {
        // A book without epochs and one that never heard of them are the same.
        let nothing = [StateRecord::Epochs(0, None), StateRecord::Purse(Purse::default())];
        if nothing.contains(&records[missing]) {
            continue;
        }
        let mut some = records.clone();
        some.remove(missing);
        Ledger::restore(some, &block).expect_err("a record is missing");
    }
    for (place, record) in records.iter().enumerate() {
        let StateRecord::Balance(account, amount) = record else { continue };
        let mut richer = records.clone();
        richer[place] = StateRecord::Balance(*account, talka_base::Amount(amount.0 + 1));
        let error = Ledger::restore(richer, &block).expect_err("a balance is another");
        assert!(matches!(error, SnapshotError::Root { .. }), "{error}");
    }
    let again = records.iter().cloned().chain([records[0].clone()]);
    assert!(matches!(Ledger::restore(again, &block), Err(SnapshotError::Again { .. })));
    let backwards = records.iter().rev().cloned();
    assert!(matches!(Ledger::restore(backwards, &block), Err(SnapshotError::Beginning { .. })));
}

#[test]
fn records_of_another_height_are_not_the_block_s() {
    let world = world();
    let before =
        Ledger::replay(world.entries[..world.entries.len() - 1].to_vec()).expect("replays");
    let error = Ledger::restore(before.records(), &block(&world.ledger)).expect_err("older");
    assert!(matches!(error, SnapshotError::Size { .. }), "{error}");
    let other = World::with_policy(talka_ledger::Policy {
        grant: talka_base::Credits(7),
        ..Default::default()
    });
    let error =
        Ledger::restore(other.ledger.records(), &block(&world.ledger)).expect_err("another");
    assert!(matches!(error, SnapshotError::Network { .. }), "{error}");
}
