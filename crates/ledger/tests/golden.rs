//! The encodings that every node must share, pinned byte by byte.
//!
//! A difference here means that old ledgers no longer read. If that is wanted, raise the type's
//! `VERSION` and run the tests with `TALKA_BLESS=1`; the changed files are then reviewed.

mod common;

use common::{DAY_MS, FOUNDER, World, founding, keys, member, node, request};
use std::{fs, path::PathBuf};
use talka_base::{Credits, Encoded, Flops, MemberId, Tick, decode, encode, hex};
use talka_ledger::{
    Collector, Entry, Event, Forwarding, Policy, Profile, StateRecord, Tariff,
    epoch::Paper,
    govern::{Action, Choice},
    keys::KeyChange,
    order::{
        Ballot, Effect, Input, Message, Offer, Order, Promise, Record, Sequencer, Stage, Witnesses,
        digest,
    },
    profile::{Job, Task, neuro::Role},
    standing::Finding,
};

fn check<T: Encoded + PartialEq + std::fmt::Debug>(name: &str, value: &T) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("golden/{name}.hex"));
    let found = encode(value);
    if std::env::var_os("TALKA_BLESS").is_some() {
        fs::write(&path, hex::show(&found) + "\n").expect("golden file written");
    }
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(hex::show(&found), text.trim(), "encoding of {name} changed");
    assert_eq!(decode::<T>(&found).as_ref(), Ok(value));
}

/// One entry of every kind, in the order of a ledger.
fn world() -> World {
    let mut world = World::village();
    let stages = [(FOUNDER, (0, 2)), (3, (2, 6))];
    for event in [
        world.reserves(1, 2, 2, 10, 20),
        world.settles(1, 2, &stages, (25, 15)),
        world.reserves(2, 4, 2, 10, 20),
        world.cancels(2, 2),
        world.reserves(3, 3, 3, 1, 0),
    ] {
        world.record(event).expect("valid");
    }
    world.now = world.now.plus_ms(world.ledger.policy().reservation_ms_max);
    world.record(world.expires(3)).expect("expired");
    for event in
        [world.forwards(4, 2, 2, 10, 20), world.delivers(4, 2, (9, 15)), world.removes(4, 2)]
    {
        world.record(event).expect("valid");
    }
    let failed = Finding::Audited { request: request(1), passed: false };
    for event in [
        world.rates(3, World::measured(4_150, 1)),
        world.judges(3, FOUNDER, failed),
        world.reserves(5, 2, 2, 10, 20),
        world.claims(5, 2, 1, 3, 700),
    ] {
        world.record(event).expect("valid");
    }
    let Event::Settled { settlement } = world.settles(5, 2, &stages, (25, 15)) else {
        unreachable!("it settles")
    };
    let mut collector = Collector::default();
    collector.settle(&world.ledger, settlement).expect("good");
    let closed = collector.close(&world.ledger, world.now).expect("good").expect("one ended");
    world.record(Event::Epoch(closed.epoch.epoch)).expect("valid");
    decide(&mut world);
    world
}

fn audited() -> Task {
    let role = Role { embedding: true, head: false, training: true };
    Task { job: Job::Audit { work: Flops(5_000_000) }, role, replicas: Some(3) }
}

/// Stakes, keys, common work, a decision, and what a year leaves.
fn decide(world: &mut World) {
    let root = KeyChange::Root { key: MemberId(keys(7).public()) };
    let expires_at = world.now.plus_ms(DAY_MS);
    let action = Action::Parameters(Box::new(Policy::of(Profile::named("neuro").expect("known"))));
    let proposal = world.proposal(2, true, action.clone()).id();
    for event in [
        world.locks(3, 1, Credits::from_gft(5), 30),
        world.changes_keys(3, 3, 1, root),
        world.changes_keys(3, 7, 2, KeyChange::Delegate { node: node(3), expires_at }),
        world.rewards(1, vec![(node(2), audited())]),
        world.proposes(2, true, action),
        world.votes(2, proposal, Choice::Yes),
    ] {
        world.record(event).expect("valid");
    }
    world.wait_days(3);
    world.record(Event::Decided { proposal }).expect("valid");
    world.wait_days(365);
    world.record(Event::Freed { member: member(2) }).expect("valid");
    world.record(Event::Expired { member: member(2) }).expect("valid");
}

#[test]
fn entries_of_every_kind_keep_their_encoding() {
    let names = [
        "entry-founded",
        "entry-joined-member",
        "entry-joined-member-2",
        "entry-joined-node",
        "entry-reserved",
        "entry-settled",
        "entry-reserved-2",
        "entry-released-cancelled",
        "entry-reserved-3",
        "entry-released-expired",
        "entry-forwarded",
        "entry-delivered",
        "entry-removed",
        "entry-rated",
        "entry-judged",
        "entry-reserved-4",
        "entry-claimed",
        "entry-epoch",
        "entry-staked",
        "entry-keys-changed-root",
        "entry-keys-changed-delegate",
        "entry-rewarded",
        "entry-proposed",
        "entry-voted",
        "entry-decided",
        "entry-freed",
        "entry-expired",
    ];
    let world = world();
    assert_eq!(names.len(), world.entries.len());
    for (name, entry) in names.into_iter().zip(&world.entries) {
        check(name, entry);
    }
    let is_held = |record: &StateRecord| matches!(record, StateRecord::Held(..));
    let mut village = World::village();
    village.record(village.rewards(1, vec![(node(2), audited())])).expect("valid");
    check("record-held", &village.ledger.records().find(is_held).expect("it is held"));
}

#[test]
fn an_epoch_that_counts_tasks_keeps_its_encoding() {
    let mut world = World::village();
    world.record(world.reserves(1, 2, 2, 10, 20)).expect("reserves");
    let stages = [(FOUNDER, (0, 2)), (3, (2, 6))];
    let Event::Settled { settlement } = world.settles(1, 2, &stages, (25, 15)) else {
        unreachable!("it settles")
    };
    let mut collector = Collector::default();
    collector.settle(&world.ledger, settlement).expect("good");
    let closed = collector.close(&world.ledger, world.now).expect("good").expect("one ended");
    world.record(Event::EpochCounted(closed.epoch)).expect("valid");
    check("entry-epoch-counted", world.entries.last().expect("recorded"));
}

#[test]
fn papers_keep_their_encoding() {
    let world = World::village();
    check("founding", &founding());
    check("voucher", &world.voucher(1, 2, 1, 3, 700));
    check("paper", &Paper::Voucher(world.voucher(1, 2, 1, 3, 700)));
    check("reservation", &keys(2).sign(world.reservation(1, 2, 2, 10, 20)));
    check("settlement", &world.settlement(1, &[(FOUNDER, (0, 2)), (3, (2, 6))], (25, 15)));
}

#[test]
fn a_tariff_by_tokens_keeps_its_encoding() {
    let tariff = Tariff::Tokens { per_thousand: Credits(7_000_000) };
    let forwarding = Forwarding { tariff, ..World::village().forwarding(1, 2, 2, 10, 20) };
    check("forwarding-tokens", &keys(2).sign(forwarding));
}

#[test]
fn hashes_of_network_head_and_state_keep_their_values() {
    let world = world();
    let ledger = &world.ledger;
    let last: &Entry = world.entries.last().expect("has entries").claimed_value();
    assert_eq!(ledger.head_hash(), last.hash());
    assert_eq!(ledger.network(), founding().network_id());
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/hashes.txt");
    let found = format!(
        "network {}\nhead {}\nstate {}\n",
        ledger.network(),
        ledger.head_hash(),
        ledger.state_root()
    );
    if std::env::var_os("TALKA_BLESS").is_some() {
        fs::write(&path, &found).expect("golden file written");
    }
    assert_eq!(found, fs::read_to_string(&path).expect("golden file"));
}

#[test]
fn an_appointment_keeps_its_encoding() {
    let mut world = World::village();
    world.record(world.appoints(&[2])).expect("valid");
    check("entry-appointed", world.entries.last().expect("recorded"));
}

#[test]
fn a_change_of_order_keeps_its_encoding() {
    let mut world = World::village();
    world.record(world.joins(5, 5, 2)).expect("joins");
    world.record(world.appoints(&[FOUNDER, 2, 3, 5])).expect("valid");
    world.record(world.changes_order(1, true)).expect("valid");
    check("entry-order-changed", world.entries.last().expect("recorded"));
    check("record-turns", &world.ledger.records().last().expect("the last one"));
}

#[test]
fn what_nodes_say_and_keep_of_order_keeps_its_encoding() {
    let founding = World::new().entries.remove(0);
    let mut sequencer = Sequencer::recover(keys(FOUNDER), &founding, []).expect("founds");
    let event = Box::new(World::new().joins(2, 2, FOUNDER));
    let mut effects = Vec::new();
    sequencer.step(Tick(1_000_000), Input::Submit(event), &mut effects);
    sequencer.step(Tick(1_000_000), Input::Close, &mut effects);
    let Effect::Persist(record) = &effects[0] else { panic!("{effects:?}") };
    check("order-record-signed", record);
    let vote =
        Witnesses::cosign(sequencer.chain().block().expect("known"), &keys(2), 1_700_000_000);
    check("order-message-vote", &Message::Vote(1, vote));

    let block = digest(sequencer.chain().block().expect("known"));
    let (network, stage) = (World::new().network(), Stage::Prepare);
    let ballot = keys(2).sign(Ballot { network, number: 1, turn: 7, stage, block });
    check("order-message-ballot", &Message::Ballot(Box::new(ballot.clone())));
    let offer = Offer { number: 1, turn: 7, entries: vec![founding], prepared: vec![ballot] };
    check("order-message-offer", &Message::Offer(Box::new(offer.clone())));
    let held = Some(Box::new(offer.clone()));
    check("order-message-leave", &Message::Leave { turn: 8, held });
    let promise = Promise { number: 1, turn: 8, prepared: Some(block), held: Some(offer) };
    check("order-record-promised", &Record::Promised(Box::new(promise)));
}
