//! Goal: what members decide is done, when its time has come, by the ledger itself; and nothing else is.
//! Method: three members, default times, one rule at a time; every history is replayed at the end.

mod common;

use common::{DAY_MS, FOUNDER, MODEL, World, member, node};
use talka_base::{Credits, Factor, Flops, ProposalId};
use talka_ledger::{
    Account, Event, Ledger, LedgerError, Policy, Profile,
    govern::{Action, Choice, GovernanceRules, Outcome, Stage, Votes},
    profile::{Job, Task, neuro::Role},
    quote,
};

/// Proposes `action` by member 2 and waits until voting begins.
fn proposed(world: &mut World, action: Action) -> ProposalId {
    let id = world.proposal(2, false, action.clone()).id();
    world.record(world.proposes(2, false, action)).expect("proposes");
    assert_eq!(stage(world, id), Stage::Review);
    world.wait_days(7);
    assert_eq!(stage(world, id), Stage::Voting);
    id
}

fn stage(world: &World, id: ProposalId) -> Stage {
    world.ledger.ballot(&id).expect("proposed").stage(world.now)
}

fn vote(world: &mut World, id: ProposalId, votes: &[(u8, Choice)]) {
    for &(by, choice) in votes {
        world.record(world.votes(by, id, choice)).expect("votes");
    }
}

fn forbid() -> Action {
    Action::Model { model: MODEL, is_allowed: false }
}

fn check_replay(world: &World) {
    let replayed = Ledger::replay(world.entries.clone()).expect("replays");
    assert_eq!(replayed, world.ledger);
    assert_eq!(world.total(), 0);
}

#[test]
fn approved_parameters_apply_after_the_entry_that_enacts_them_and_not_before() {
    let mut world = World::village();
    let doubled = |policy: &Policy| {
        let mut policy = policy.clone();
        policy.precision_per_mille.brain *= 2;
        policy
    };
    let policy = doubled(world.ledger.policy());
    let id = proposed(&mut world, Action::Parameters(Box::new(policy.clone())));
    vote(&mut world, id, &[(2, Choice::Yes), (3, Choice::Yes)]);
    world.wait_days(7);
    assert_eq!(stage(&world, id), Stage::Approved);
    world.record(world.reserves(1, 2, 2, 10, 20)).expect("at the old price");
    let old = world.reserved(2);

    world.wait_days(7);
    assert_eq!(world.ledger.undecided(world.now), Some(id));
    let since = world.ledger.ballot(&id).expect("proposed").decided_at();
    assert_eq!(
        world.record(world.reserves(2, 2, 2, 10, 20)),
        Err(LedgerError::Undecided { proposal: id, since }),
        "what is due comes first"
    );
    world.record(Event::Decided { proposal: id }).expect("enacts");
    assert_eq!((stage(&world, id), world.ledger.policy()), (Stage::Enacted, &policy));
    world.record(world.reserves(2, 2, 2, 10, 20)).expect("at the new price");
    let new = quote(&common::shape(), 10, 20, &policy);
    assert_eq!((world.reserved(2).0, new > old), (old.0 + new.0, true));
    // What was reserved at the old price never costs more than that.
    world.record(world.settles(1, 2, &[(3, (0, 6))], (30, 20))).expect("settles");
    assert_eq!(world.reserved(2), new);
    assert_eq!(world.ledger.member(&member(2)).expect("a member").spent, old);
    check_replay(&world);
}

#[test]
fn another_profile_can_be_decided_on() {
    let mut world = World::village();
    let profile = Profile::named("tokenless").expect("known");
    let policy = Policy { profile, ..world.ledger.policy().clone() };
    let id = proposed(&mut world, Action::Parameters(Box::new(policy)));
    vote(&mut world, id, &[(FOUNDER, Choice::Yes), (3, Choice::Abstain)]);
    world.wait_days(14);
    world.record(Event::Decided { proposal: id }).expect("enacts");
    world.record(world.reserves(1, 2, 2, 10, 20)).expect("costs nothing");
    assert_eq!(world.reserved(2), Credits::ZERO);
    check_replay(&world);
}

#[test]
fn a_forbidden_model_is_not_served_until_it_is_allowed_again() {
    let mut world = World::village();
    let id = proposed(&mut world, forbid());
    vote(&mut world, id, &[(2, Choice::Yes), (3, Choice::Yes), (FOUNDER, Choice::No)]);
    world.wait_days(14);
    world.record(Event::Decided { proposal: id }).expect("enacts");
    assert!(!world.ledger.is_allowed(&MODEL));
    let refused = world.record(world.reserves(1, 2, 2, 10, 20));
    assert_eq!(refused, Err(LedgerError::Forbidden { model: MODEL }));
    let allow = Action::Model { model: MODEL, is_allowed: true };
    let id = proposed(&mut world, allow);
    vote(&mut world, id, &[(2, Choice::Yes)]);
    world.wait_days(14);
    world.record(Event::Decided { proposal: id }).expect("enacts");
    world.record(world.reserves(1, 2, 2, 10, 20)).expect("served");
    check_replay(&world);
}

#[test]
fn too_few_votes_or_too_few_for_it_change_nothing() {
    for votes in [&[][..], &[(2, Choice::Yes), (3, Choice::No)], &[(3, Choice::Abstain)]] {
        let mut world = World::village();
        let id = proposed(&mut world, forbid());
        vote(&mut world, id, votes);
        world.wait_days(7);
        assert_eq!(stage(&world, id), Stage::Rejected);
        world.wait_days(7);
        world.record(Event::Decided { proposal: id }).expect("closes");
        let decided = world.ledger.ballot(&id).expect("proposed").decided;
        assert_eq!(decided.map(|(outcome, _)| outcome), Some(Outcome::Rejected));
        assert!(world.ledger.is_allowed(&MODEL));
        let again = world.record(Event::Decided { proposal: id });
        assert!(matches!(again, Err(LedgerError::Duplicate { .. })));
        check_replay(&world);
    }
}

#[test]
fn a_member_votes_once_in_its_time_by_any_of_its_nodes_and_only_if_it_was_there() {
    let mut world = World::village();
    world.record(world.proposes(2, false, forbid())).expect("proposes");
    let id = world.proposal(2, false, forbid()).id();
    let early = world.record(world.votes(3, id, Choice::Yes));
    assert!(matches!(early, Err(LedgerError::NotVoting { .. })));
    world.record(world.joins(5, 5, FOUNDER)).expect("joins");
    world.wait_days(7);
    let late = world.record(world.votes(5, id, Choice::Yes));
    assert_eq!(late, Err(LedgerError::NoVote { member: member(5) }), "of another electorate");
    world.record(world.votes(4, id, Choice::Yes)).expect("the second node of member 2");
    assert_eq!(
        world.record(world.votes(2, id, Choice::No)),
        Err(LedgerError::Voted { member: member(2), proposal: id })
    );
    let unknown = ProposalId([0; 32]);
    assert_eq!(
        world.record(world.votes(2, unknown, Choice::Yes)),
        Err(LedgerError::UnknownProposal { proposal: unknown })
    );
    world.wait_days(7);
    let over = world.record(world.votes(3, id, Choice::Yes));
    assert!(matches!(over, Err(LedgerError::NotVoting { .. })));
    check_replay(&world);
}

#[test]
fn a_member_has_one_open_proposal_and_nonsense_is_not_voted_on() {
    let mut world = World::village();
    world.record(world.proposes(2, false, forbid())).expect("proposes");
    let again = world.record(world.proposes(2, false, forbid()));
    assert!(matches!(again, Err(LedgerError::Duplicate { .. })));
    world.now = world.now.plus_ms(1);
    let second = world.record(world.proposes(4, false, forbid()));
    assert!(matches!(second, Err(LedgerError::OpenProposal { .. })), "by the same member");
    let mut policy = Policy::default();
    policy.governance.quorum = Factor::ZERO;
    let nonsense = world.record(world.proposes(3, false, Action::Parameters(Box::new(policy))));
    assert!(matches!(nonsense, Err(LedgerError::PolicyField { .. })));
    let nobody = Action::Member { member: member(9), is_suspended: true };
    let refused = world.record(world.proposes(3, false, nobody));
    assert_eq!(refused, Err(LedgerError::UnknownMember { member: member(9) }));
    let mut proposal = world.proposal(3, false, forbid());
    proposal.title = "two\nlines".into();
    let proposal = common::keys(3).sign(proposal);
    assert!(matches!(world.record(Event::Proposed { proposal }), Err(LedgerError::Name { .. })));
}

#[test]
fn an_emergency_takes_two_days_and_a_suspended_member_may_not_act() {
    let mut world = World::village();
    let suspend = Action::Member { member: member(3), is_suspended: true };
    world.record(world.proposes(2, true, suspend.clone())).expect("proposes");
    let id = world.proposal(2, true, suspend).id();
    vote(&mut world, id, &[(2, Choice::Yes), (FOUNDER, Choice::Yes), (3, Choice::No)]);
    world.now = world.now.plus_ms(2 * DAY_MS + 3_600_000);
    world.record(Event::Decided { proposal: id }).expect("enacts");
    assert!(world.ledger.is_suspended(&member(3)));
    let suspended = Err(LedgerError::Suspended { member: member(3) });
    assert_eq!(world.record(world.reserves(1, 3, 3, 10, 20)), suspended);
    assert_eq!(world.record(world.proposes(3, false, forbid())), suspended);
    assert_eq!(world.record(world.joins(6, 6, 3)), suspended);
    // It is still paid for work.
    world.record(world.reserves(2, 2, 2, 10, 20)).expect("reserves");
    world.record(world.settles(2, 2, &[(3, (0, 6))], (25, 15))).expect("settles");
    assert!(world.balance(3) > Policy::default().grant);
    check_replay(&world);
}

#[test]
fn a_decided_penalty_takes_no_more_than_the_stake_and_pays_the_reporter_half() {
    let mut world = World::village();
    world.record(world.locks(3, 1, Credits::from_gft(8), 365)).expect("locks");
    let (before, reporter) = (world.balance(3), Some(member(2)));
    let penalty = Credits::from_gft(10);
    let id = proposed(&mut world, Action::Slash { member: member(3), penalty, reporter });
    vote(&mut world, id, &[(2, Choice::Yes), (FOUNDER, Choice::Yes)]);
    world.wait_days(14);
    world.record(Event::Decided { proposal: id }).expect("enacts");
    assert_eq!((world.staked(3), world.balance(3)), (Credits::ZERO, before));
    assert_eq!(world.balance(2).0 - Policy::default().grant.0, 4_000_000);
    assert_eq!(world.ledger.account(Account::Burn).0, 4_000_000);
    check_replay(&world);
}

#[test]
fn a_decided_penalty_takes_held_earnings_after_the_stake_and_nothing_that_can_be_spent() {
    let mut world = World::village();
    world.record(world.locks(3, 1, Credits::from_gft(8), 365)).expect("locks");
    let penalty = Credits::from_gft(10);
    let id = proposed(&mut world, Action::Slash { member: member(3), penalty, reporter: None });
    vote(&mut world, id, &[(2, Choice::Yes), (FOUNDER, Choice::Yes)]);
    world.wait_days(12);
    let job = Job::Audit { work: Flops(5_000_000_000) };
    let work = Task { job, role: Role::default(), replicas: None };
    world.record(world.rewards(1, vec![(node(3), work)])).expect("works");
    world.wait_days(2);
    let before = world.balance(3);
    world.record(Event::Decided { proposal: id }).expect("enacts");
    assert_eq!((world.staked(3), world.held(3)), (Credits::ZERO, Credits::from_gft(3)));
    assert_eq!(world.balance(3), before);
    assert_eq!(world.ledger.account(Account::Burn).0, 10_000_000);
    world.wait_days(1);
    world.record(Event::Freed { member: member(3) }).expect("the rest can be spent");
    assert_eq!(world.balance(3).0 - before.0, 3_000_000);
    check_replay(&world);
}

#[test]
fn votes_by_stake_weigh_what_is_locked_until_voting_ends() {
    let governance = GovernanceRules { votes: Votes::ByStake, ..GovernanceRules::default() };
    let mut world = World::with_policy(Policy { governance, ..Policy::default() });
    for event in [world.joins(2, 2, FOUNDER), world.joins(3, 3, FOUNDER)] {
        world.record(event).expect("joins");
    }
    let nobody = world.record(world.proposes(2, false, forbid()));
    assert_eq!(nobody, Err(LedgerError::NoVote { member: member(2) }), "nothing is staked");
    for (by, gft, days) in [(FOUNDER, 100, 30), (2, 30, 30), (3, 900, 10)] {
        world.record(world.locks(by, 1, Credits::from_gft(gft), days)).expect("locks");
    }
    let id = proposed(&mut world, forbid());
    let short = world.record(world.votes(3, id, Choice::No));
    assert_eq!(short, Err(LedgerError::NoVote { member: member(3) }), "locked for too short");
    vote(&mut world, id, &[(FOUNDER, Choice::Yes), (2, Choice::No)]);
    let ballot = world.ledger.ballot(&id).expect("proposed");
    assert_eq!(ballot.electorate, Credits::from_gft(1030).0);
    assert_eq!((ballot.tally().yes, ballot.tally().no), (100_000_000, 30_000_000));
    assert!(!ballot.is_approved(), "130 of 1030 are no quorum");
    check_replay(&world);
}

#[test]
fn nothing_is_decided_before_its_time() {
    let mut world = World::village();
    let id = proposed(&mut world, forbid());
    let refused = world.record(Event::Decided { proposal: id });
    assert!(matches!(refused, Err(LedgerError::NotDecided { .. })));
    let unknown = ProposalId([0; 32]);
    let refused = world.record(Event::Decided { proposal: unknown });
    assert_eq!(refused, Err(LedgerError::UnknownProposal { proposal: unknown }));
}

/// Six members, and rules that let them name witnesses.
fn town() -> World {
    let governance = GovernanceRules { appoints: true, ..GovernanceRules::default() };
    let mut world = World::village_with(Policy { governance, ..Policy::default() });
    for who in [5, 6, 7] {
        world.record(world.joins(who, who, FOUNDER)).expect("joins");
    }
    world
}

fn witness(nodes: &[u8]) -> Action {
    let mut witnesses: Vec<_> = nodes.iter().map(|&who| node(who)).collect();
    witnesses.sort();
    Action::Witnesses { witnesses }
}

#[test]
fn members_name_witnesses_where_the_rules_let_them() {
    let mut world = World::village();
    world.record(world.joins(5, 5, FOUNDER)).expect("joins");
    let refused = world.record(world.proposes(2, false, witness(&[FOUNDER, 2, 3, 5])));
    assert!(matches!(refused, Err(LedgerError::Witnesses { .. })), "{refused:?}");

    let mut world = town();
    for wrong in [&[][..], &[2, 3], &[2, 4, 3, 5], &[2, 3, 5, 5]] {
        let refused = world.record(world.proposes(2, false, witness(wrong)));
        assert!(matches!(refused, Err(LedgerError::Witnesses { .. })), "{wrong:?}: {refused:?}");
    }
    let stranger = world.record(world.proposes(2, false, witness(&[2, 3, 5, 9])));
    assert_eq!(stranger, Err(LedgerError::NotAMember { node: node(9) }));
    let id = proposed(&mut world, witness(&[FOUNDER, 2, 3, 5]));
    vote(&mut world, id, &[(2, Choice::Yes), (3, Choice::Yes), (FOUNDER, Choice::No)]);
    world.wait_days(14);
    let decided = Event::Decided { proposal: id };
    assert!(world.ledger.names_witnesses(&decided));
    world.record(decided.clone()).expect("enacts");
    assert_eq!(stage(&world, id), Stage::Enacted);
    assert_eq!(
        (world.ledger.witnesses().quorum(), world.ledger.appointed_at()),
        (3, world.ledger.height())
    );
    assert!(world.ledger.witnesses().contains(&node(5)));
    assert!(!world.ledger.names_witnesses(&decided), "it stands already");

    // Others after them keep a quorum, as where the founder names them.
    let refused = world.record(world.proposes(2, false, witness(&[FOUNDER, 2, 6, 7])));
    assert!(matches!(refused, Err(LedgerError::Witnesses { .. })), "{refused:?}");
    let id = proposed(&mut world, witness(&[FOUNDER, 2, 3, 6]));
    vote(&mut world, id, &[(5, Choice::Yes), (7, Choice::Yes)]);
    world.wait_days(14);
    world.record(Event::Decided { proposal: id }).expect("enacts");
    assert!(
        world.ledger.witnesses().contains(&node(6)) && !world.ledger.witnesses().contains(&node(5))
    );
    check_replay(&world);
}

#[test]
fn witnesses_that_cannot_be_any_more_are_rejected_and_the_ledger_goes_on() {
    let mut world = town();
    let id = proposed(&mut world, witness(&[FOUNDER, 2, 3, 5]));
    vote(&mut world, id, &[(2, Choice::Yes), (3, Choice::Yes)]);
    world.record(world.removes(5, FOUNDER)).expect("leaves");
    world.wait_days(14);
    let decided = Event::Decided { proposal: id };
    assert!(!world.ledger.names_witnesses(&decided));
    world.record(decided).expect("closes");
    assert_eq!(stage(&world, id), Stage::Rejected);
    assert!(world.ledger.witnesses().is_solo());
    // Where they order by turns they stay the same.
    world.record(world.appoints(&[FOUNDER, 2, 3, 6])).expect("the founder may");
    let id = proposed(&mut world, witness(&[FOUNDER, 2, 3, 7]));
    vote(&mut world, id, &[(2, Choice::Yes), (3, Choice::Yes)]);
    world.record(world.changes_order(1, true)).expect("changes");
    world.wait_days(7);
    assert_eq!(stage(&world, id), Stage::Approved);
    world.wait_days(7);
    world.record(Event::Decided { proposal: id }).expect("closes");
    assert_eq!(stage(&world, id), Stage::Rejected);
    assert!(world.ledger.witnesses().contains(&node(6)));
    check_replay(&world);
}
