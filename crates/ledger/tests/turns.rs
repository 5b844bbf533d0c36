//! Who may order entries: the founder, or the witnesses by turns.

mod common;

use common::{FOUNDER, World, keys, node};
use talka_base::NetworkId;
use talka_ledger::{Block, Event, Ledger, LedgerError, order::OrderChange};

/// Four members, who witness.
fn town() -> World {
    let mut world = World::village();
    world.record(world.joins(5, 5, 2)).expect("joins");
    world.record(world.appoints(&[FOUNDER, 2, 3, 5])).expect("four of them");
    world
}

#[test]
fn witnesses_order_from_the_next_entry_on() {
    let mut world = town();
    let reserves = |id| world.reserves(id, 2, 2, 1, 1);
    let requests = [1, 2, 3, 4].map(reserves);
    let early = world.clone().record_by(2, requests[0].clone());
    assert_eq!(early, Err(LedgerError::NotSequencer { expected: node(FOUNDER), found: node(2) }));
    world.record(world.changes_order(1, true)).expect("valid");
    for (orderer, event) in [5, FOUNDER, 2].into_iter().zip(requests.clone()) {
        world.record_by(orderer, event).expect("a witness");
        assert_eq!(world.entries.last().expect("recorded").claimed_signer(), &node(orderer).0);
    }
    // Node 4 is member 2's, and no witness.
    let by_other = world.clone().record_by(4, requests[3].clone());
    assert_eq!(by_other, Err(LedgerError::NotWitness { found: node(4) }));
    let again = Ledger::replay(world.entries.clone()).expect("follows");
    assert_eq!(again, world.ledger);
    // What follows from time is the work of whoever ordered it.
    world.now = world.now.plus_ms(world.ledger.policy().reservation_ms_max);
    world.record_by(5, world.expires(1)).expect("a witness");
    assert_eq!(world.entries.last().expect("recorded").claimed_value().author, node(5));
    world.record_by(3, world.changes_order(2, false)).expect("a witness");
    let late = world.clone().record_by(3, requests[3].clone());
    assert_eq!(late, Err(LedgerError::NotSequencer { expected: node(FOUNDER), found: node(3) }));
    world.record(requests[3].clone()).expect("the founder");
}

#[test]
fn an_entry_of_somebody_else_is_not_taken() {
    let mut world = town();
    world.record(world.changes_order(1, true)).expect("valid");
    let event = world.reserves(1, 2, 2, 1, 1);
    let entry = world.ledger.propose(&keys(5), world.now, event).expect("a witness");
    let stolen = keys(4).sign(entry.claimed_value().clone());
    assert!(matches!(world.ledger.apply(&stolen), Err(LedgerError::Signature(_))));
    let renamed = keys(2).sign(entry.claimed_value().clone());
    world.ledger.apply(&renamed).expect("any of them may order what its author signed");
}

#[test]
fn only_the_founder_changes_who_orders_and_no_change_works_twice() {
    let mut world = World::village();
    let few = world.record(world.changes_order(1, true)).expect_err("nobody witnesses");
    assert!(matches!(few, LedgerError::Witnesses { .. }), "{few}");
    world.record(world.appoints(&[2])).expect("one of them");
    let few = world.record(world.changes_order(1, true)).expect_err("one witnesses");
    assert!(matches!(few, LedgerError::Witnesses { .. }), "{few}");

    let mut world = town();
    let network = world.network();
    let by_other = keys(2).sign(OrderChange { network, number: 1, by_turns: true });
    let refused = world.record(Event::OrderChanged { change: by_other });
    assert!(matches!(refused, Err(LedgerError::Signature(_))));
    let foreign = OrderChange { network: NetworkId([9; 32]), number: 1, by_turns: true };
    let refused = world.record(Event::OrderChanged { change: keys(FOUNDER).sign(foreign) });
    assert!(matches!(refused, Err(LedgerError::Mismatch { .. })));
    for (number, by_turns) in [(1, false), (2, true)] {
        let refused = world.record(world.changes_order(number, by_turns)).expect_err("not next");
        assert!(matches!(refused, LedgerError::Mismatch { .. }), "{refused}");
    }
    world.record(world.changes_order(1, true)).expect("valid");
    let height = world.ledger.height();
    world.record_by(2, world.changes_order(2, false)).expect("a witness");
    // Whoever leads later cannot show the first paper again.
    let again = world.record(world.changes_order(1, true));
    assert_eq!(again, Err(LedgerError::Duplicate { height: height + 1 }));
}

#[test]
fn witnesses_stay_the_same_while_they_order() {
    let mut world = town();
    let other = world.appoints(&[FOUNDER, 2, 3, 4]);
    world.record(world.changes_order(1, true)).expect("valid");
    let refused = world.record_by(2, other).expect_err("they order");
    assert!(matches!(refused, LedgerError::Witnesses { .. }), "{refused}");
}

#[test]
fn a_ledger_comes_back_from_its_records_with_those_who_order() {
    let mut world = town();
    world.record(world.changes_order(1, true)).expect("valid");
    let block = common::block(&world.ledger);
    let restored = Ledger::restore(world.ledger.records(), &block).expect("restores");
    assert!(restored.may_order(&node(5)) && !restored.may_order(&node(4)));
    let note = block.sign(&keys(5));
    assert_eq!(Block::open_by(&note, restored.signers()).expect("a witness"), block);
    Block::open_by(&block.sign(&keys(4)), restored.signers()).expect_err("no witness");
    Block::open(&note, node(FOUNDER).0).expect_err("not the founder's");
}
