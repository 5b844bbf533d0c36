//! Goal: where a market makes the price of tokens, it follows from the entries alone, step by step as published, and nobody
//! makes it alone. Method: one economy, one rule at a time; every history is replayed, and restored from its middle.

mod common;

use common::{FOUNDER, World, member};
use talka_base::Credits;
use talka_ledger::{
    Event, Ledger, Policy, Profile,
    govern::{Action, Choice},
    profile::neuro::{Market, Neuro},
};

const MINUTE_MS: u64 = 60_000;

fn policy(market: Market) -> Policy {
    Policy::of(Profile::Neuro(Neuro { market, ..Neuro::default() }))
}

fn market(world: &World) -> Market {
    match world.ledger.policy().profile {
        Profile::Neuro(neuro) => neuro.market,
        _ => panic!("another economy"),
    }
}

fn price(world: &World) -> u64 {
    market(world).price_nano
}

/// So many minutes pass, and then something that asks for nothing.
fn wait(world: &mut World, minutes: u64) {
    world.now = world.now.plus_ms(minutes * MINUTE_MS);
    let hardware = 1 + world.ledger.height() as u8;
    world.record(world.rates(FOUNDER, World::measured(5_000, hardware))).expect("rates");
}

fn check_replay(world: &World) {
    assert_eq!(Ledger::replay(world.entries.clone()).expect("replays"), world.ledger);
    let restored = Ledger::restore(world.ledger.records(), &common::block(&world.ledger));
    assert_eq!(restored.expect("is its state").policy(), world.ledger.policy());
}

/// The published average: from 0.0001 with a minute's supply waiting to 0.00016 and 0.000208, and without to 0.0001864.
#[test]
fn the_price_follows_what_is_open_by_the_ledgers_time() {
    let mut world = World::village_with(policy(Market::default()));
    world.record(world.reserves(1, 2, 2, 20_000, 40_000)).expect("reserves");
    assert_eq!(price(&world), 100_000, "no minute is over");
    let mut seen = Vec::new();
    for _ in 0..2 {
        wait(&mut world, 1);
        seen.push(price(&world));
    }
    world.record(world.cancels(1, 2)).expect("cancels");
    wait(&mut world, 1);
    seen.push(price(&world));
    assert_eq!(seen, [160_000, 208_000, 186_400]);

    // Many minutes at once are as many one after the other.
    let mut one_by_one = world.clone();
    (0..10).for_each(|_| wait(&mut one_by_one, 1));
    wait(&mut world, 10);
    assert_eq!(price(&world), price(&one_by_one));
    wait(&mut world, 10_000);
    assert_eq!(price(&world), 100_000, "it comes back to the base");
    check_replay(&world);
}

#[test]
fn one_payer_counts_for_a_minute_of_supply_at_most() {
    let mut world = World::village_with(policy(Market::default()));
    for id in 1..=4 {
        world.record(world.reserves(id, 2, 2, 1_000_000, 1_000_000)).expect("reserves");
    }
    let mut other = world.clone();
    wait(&mut world, 1);
    assert_eq!(price(&world), 160_000, "as if 60,000 tokens waited");
    other.record(other.reserves(9, 3, 3, 30_000, 30_000)).expect("reserves");
    wait(&mut other, 1);
    assert_eq!(price(&other), 260_000, "0.8 + 0.2 · (1 + 2)²");
    check_replay(&other);
}

/// Goal: head and stages agree on what is due whatever the market does meanwhile.
#[test]
fn a_session_costs_what_it_would_have_cost_when_it_began() {
    let still = Market { step_ms: 0, ..Market::default() };
    let [moving, still] = [Market::default(), still].map(|market| {
        let mut world = World::village_with(policy(market));
        world.record(world.reserves(1, 2, 2, 10_000, 20_000)).expect("reserves");
        world.record(world.reserves(2, 3, 3, 50_000, 20_000)).expect("reserves");
        wait(&mut world, 7);
        world.record(world.settles(1, 2, &[(3, (0, 6))], (25_000, 15_000))).expect("settles");
        check_replay(&world);
        world
    });
    assert!(price(&moving) > 200_000, "{}", price(&moving));
    assert_eq!(price(&still), 100_000, "it moves by decisions only");
    let spent = |world: &World| world.ledger.member(&member(2)).expect("a member").spent;
    // 25,000 tokens at a millionth of a GFT, and the burn.
    assert_eq!([spent(&moving), spent(&still)], [Credits(26_250); 2]);
    let entry = moving
        .entries
        .iter()
        .rev()
        .find(|entry| matches!(entry.claimed_value().event, Event::Reserved { .. }));
    let terms = entry.expect("reserved").claimed_value().terms(moving.ledger.policy());
    assert_eq!(terms.profile.per_million_tokens(), Some(Credits::from_gft(1)));
}

#[test]
fn a_decision_sets_the_price_and_the_market_goes_on_from_there() {
    let mut world = World::village_with(policy(Market::default()));
    let set = policy(Market { price_nano: 1_000_000, ..Market::default() });
    let action = Action::Parameters(Box::new(set));
    let id = world.proposal(2, true, action.clone()).id();
    world.record(world.proposes(2, true, action)).expect("proposes");
    world.record(world.votes(2, id, Choice::Yes)).expect("votes");
    world.wait_days(3);
    world.record(Event::Decided { proposal: id }).expect("enacts");
    assert_eq!(price(&world), 1_000_000);
    wait(&mut world, 1);
    assert_eq!(price(&world), 820_000);
    check_replay(&world);
}
