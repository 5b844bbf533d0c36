//! Who may remove which node, and what stays.

mod common;

use common::{FOUNDER, World, keys, member, node, refused};
use talka_base::Blame;
use talka_ledger::{Event, Ledger, LedgerError, Removal};

fn removed(leaving: u8, by: u8) -> World {
    let mut world = World::village();
    world.record(world.removes(leaving, by)).expect("is allowed");
    world
}

#[test]
fn the_founder_removes_any_node_and_a_member_its_own() {
    for (leaving, by) in [(3, FOUNDER), (4, FOUNDER), (4, 2), (2, 4), (3, 3)] {
        let world = removed(leaving, by);
        assert!(!world.ledger.is_member_node(&node(leaving)));
        let height = world.ledger.height();
        assert_eq!(world.ledger.removed(&node(leaving)).map(|r| r.height), Some(height));
        assert_eq!(world.total(), 0);
        let replayed = Ledger::replay(world.entries).expect("replays");
        assert_eq!(replayed.state_root(), world.ledger.state_root());
    }
    let mut world = World::village();
    let foreign = LedgerError::ForeignNode { node: node(3), by: node(2) };
    let event = world.removes(3, 2);
    refused(&mut world, event, &foreign);
    let stays = LedgerError::FounderStays { founder: node(FOUNDER) };
    let event = world.removes(FOUNDER, FOUNDER);
    refused(&mut world, event, &stays);
    let stranger = LedgerError::NotAMember { node: node(9) };
    let event = world.removes(9, FOUNDER);
    refused(&mut world, event, &stranger);
    assert_eq!(foreign.blame(), Blame::Peer);

    let paper = Removal { network: world.network(), node: node(3), by: node(FOUNDER) };
    let forged = keys(2).sign(paper);
    assert!(matches!(
        world.record(Event::Removed { removal: forged }),
        Err(LedgerError::Signature(_))
    ));
}

#[test]
fn the_account_stays_and_the_key_never_comes_back() {
    let mut world = removed(3, FOUNDER);
    let grant = world.ledger.policy().grant;
    assert_eq!(world.balance(3), grant);
    let height = world.ledger.height();
    let again = LedgerError::Removed { node: node(3), height };
    let event = world.joins(3, 3, FOUNDER);
    refused(&mut world, event, &again);
    let event = world.removes(3, FOUNDER);
    refused(&mut world, event, &LedgerError::Duplicate { height });
    // It asks for nothing, and signs for no work of requests that began later.
    let outsider = LedgerError::NotAMember { node: node(3) };
    let event = world.reserves(1, 3, 3, 10, 20);
    refused(&mut world, event, &outsider);
    world.record(world.reserves(2, 2, 2, 10, 20)).expect("reserves");
    let late = world.settles(2, 2, &[(FOUNDER, (0, 2)), (3, (2, 6))], (25, 15));
    refused(&mut world, late, &outsider);
}

#[test]
fn work_on_a_request_that_was_open_is_still_paid() {
    let mut world = World::village();
    world.record(world.reserves(1, 2, 2, 10, 20)).expect("reserves");
    world.record(world.removes(3, FOUNDER)).expect("removes");
    let before = world.balance(3);
    let settled = world.settles(1, 2, &[(FOUNDER, (0, 2)), (3, (2, 6))], (25, 15));
    world.record(settled).expect("settles");
    assert!(world.balance(3) > before);
    assert!(world.ledger.member(&member(3)).expect("has an account").nodes.is_empty());
}
