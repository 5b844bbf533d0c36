//! Goal: once a member has a root key, only what it delegates to acts for the member; work is paid all the same.
//! Method: member 2 with nodes 2 and 4; key 7 is its root, never a node.

mod common;

use common::{DAY_MS, FOUNDER, World, keys, member, node};
use talka_base::{Credits, MemberId, Tick};
use talka_ledger::{Event, Ledger, LedgerError, keys::KeyChange, keys::KeyOrder};

const ROOT: u8 = 7;

fn root(key: u8) -> KeyChange {
    KeyChange::Root { key: MemberId(keys(key).public()) }
}

fn rooted() -> World {
    let mut world = World::village();
    world.record(world.changes_keys(2, 2, 1, root(ROOT))).expect("the first root");
    world
}

fn delegate(world: &World, to: u8, days: u64) -> KeyChange {
    KeyChange::Delegate { node: node(to), expires_at: world.now.plus_ms(days * DAY_MS) }
}

#[test]
fn a_device_acts_while_it_is_delegated_to_and_works_all_the_time() {
    let mut world = rooted();
    let refused = Err(LedgerError::NotDelegated { node: node(2), member: member(2) });
    assert_eq!(world.record(world.reserves(1, 2, 2, 10, 20)), refused);
    assert_eq!(world.record(world.forwards(1, 2, 2, 10, 20)), refused);
    assert_eq!(world.record(world.locks(2, 1, Credits::from_gft(1), 30)), refused);
    assert_eq!(world.record(world.joins(5, 2, 2)), refused);
    world.record(world.reserves(2, 3, 3, 10, 20)).expect("another member asks");
    world.record(world.settles(2, 3, &[(2, (0, 6))], (25, 15))).expect("and pays for work");

    world.record(world.changes_keys(2, ROOT, 2, delegate(&world, 2, 30))).expect("delegates");
    world.record(world.reserves(1, 2, 2, 10, 20)).expect("acts");
    assert_eq!(
        world.record(world.reserves(3, 4, 2, 10, 20)),
        Err(LedgerError::NotDelegated { node: node(4), member: member(2) }),
        "the other device was given nothing"
    );
    world.wait_days(30);
    assert_eq!(world.record(world.reserves(3, 2, 2, 10, 20)), refused, "it expired");
    // What it asked for before is still paid.
    world.record(world.settles(1, 2, &[(3, (0, 6))], (25, 15))).expect("settles");
    let replayed = Ledger::replay(world.entries.clone()).expect("replays");
    assert_eq!(replayed, world.ledger);
}

#[test]
fn a_revoked_device_acts_no_more_and_a_rotated_root_neither() {
    let mut world = rooted();
    world.record(world.changes_keys(2, ROOT, 2, delegate(&world, 2, 30))).expect("delegates");
    let revoke = KeyChange::Revoke { node: node(2) };
    world.record(world.changes_keys(2, ROOT, 3, revoke)).expect("revokes");
    let refused = world.record(world.reserves(1, 2, 2, 10, 20));
    assert!(matches!(refused, Err(LedgerError::NotDelegated { .. })));

    world.record(world.changes_keys(2, ROOT, 4, root(8))).expect("rotates");
    let by_old = world.record(world.changes_keys(2, ROOT, 5, delegate(&world, 2, 30)));
    assert!(matches!(by_old, Err(LedgerError::Signature(_))));
    world.record(world.changes_keys(2, 8, 5, delegate(&world, 2, 30))).expect("by the new root");
    world.record(world.reserves(1, 2, 2, 10, 20)).expect("acts");
}

#[test]
fn orders_are_for_this_network_and_these_nodes() {
    let mut world = rooted();
    let stranger = world.changes_keys(2, ROOT, 2, delegate(&world, 3, 30));
    assert_eq!(world.record(stranger), Err(LedgerError::NotAMember { node: node(3) }));
    let unknown = world.changes_keys(9, 9, 1, root(ROOT));
    assert_eq!(world.record(unknown), Err(LedgerError::UnknownMember { member: member(9) }));
    let other = KeyOrder {
        network: talka_base::NetworkId([0; 32]),
        member: member(2),
        serial: 2,
        change: KeyChange::Delegate { node: node(2), expires_at: Tick(u64::MAX) },
    };
    let order = keys(ROOT).sign(KeyOrder { change: root(8), ..other });
    let foreign = world.record(Event::KeysChanged { order });
    assert!(matches!(foreign, Err(LedgerError::Mismatch { field: "network", .. })));
    assert_eq!(world.ledger.member_of(&node(FOUNDER)), Some(member(FOUNDER)));
}
