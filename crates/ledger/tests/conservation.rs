//! Goal: whatever nodes send in whatever order, credits are neither made nor lost.
//! Method: random sequences of valid and invalid events; after each, the sums are checked, and at
//! the end the entries are replayed.

mod common;

use common::{Cut, DAY_MS, FOUNDER, World, cases, keys, member, node, request};
use proptest::prelude::*;
use std::collections::BTreeMap;
use talka_base::{Credits, Flops, Signed, decode, encode};
use talka_ledger::{
    Account, Bucket, Collector, Entry, Event, Ledger, LedgerError, Member, Policy, Profile,
    Reservation, StateRecord,
    epoch::{self, Closed},
    govern::{Action, Choice, Stage},
    profile::{Job, PROFILE_NAMES, Task, neuro::Role},
    quote,
    stake::{StakeChange, StakeRules},
    standing::Finding,
};

/// Something that a node tries; whether it is valid depends on what came before.
#[derive(Debug, Clone)]
enum Step {
    Join { joining: u8, owner: u8, inviter: u8 },
    Reserve { id: u8, head: u8, payer: u8, prompt: u32, new: u32 },
    Settle { id: u8, head: u8, cuts: Vec<(u8, u32)>, used: (u32, u32), from: u32 },
    Forward { id: u8, head: u8, payer: u8, prompt: u32, new: u32 },
    Deliver { id: u8, head: u8, used: (u32, u32) },
    Cancel { id: u8, by: u8 },
    Remove { leaving: u8, by: u8 },
    Claim { id: u8, lane: u16, worker: u8, amount: u64 },
    Epoch { settled: Vec<u8>, vouched: Vec<(u8, u64)> },
    Expire { id: u8 },
    Rate { of: u8, index: u32, hardware: u8 },
    Judge { of: u8, by: u8, finding: Finding },
    Stake { by: u8, credits: u64, days: u16, unlocks: bool },
    Work { by: u8, flops: u64 },
    Propose { by: u8, kind: u8 },
    Vote { by: u8, choice: u8 },
    Lapse { owner: u8 },
    Free { owner: u8 },
    Wait { ms: u64 },
    Repeat { height: usize },
    Forge { height: usize, byte: usize, bit: u8 },
}

/// Nodes 1 to 6; the first is the founder. Few ids, so that events meet.
fn step() -> impl Strategy<Value = Step> {
    let node = || 1u8..=6;
    let id = || 0u8..12;
    prop_oneof![
        2 => (node(), node(), node())
            .prop_map(|(joining, owner, inviter)| Step::Join { joining, owner, inviter }),
        2 => (2u8..=6).prop_map(|n| Step::Join { joining: n, owner: n, inviter: FOUNDER }),
        2 => (id(), node(), node(), 0u32..50, 0u32..50)
            .prop_map(|(id, head, payer, prompt, new)| Step::Reserve { id, head, payer, prompt, new }),
        6 => (id(), node(), 1u32..50, 0u32..50)
            .prop_map(|(id, n, prompt, new)| Step::Reserve { id, head: n, payer: n, prompt, new }),
        12 => (
            (id(), node()),
            proptest::collection::vec((node(), 1u32..=6), 1..4),
            (0u32..60, prop_oneof![3 => 0u32..50, 1 => Just(0)]),
            prop_oneof![2 => Just(0), 1 => 0u32..60],
        )
            .prop_map(|((id, head), cuts, used, from)| Step::Settle { id, head, cuts, used, from }),
        3 => (id(), node(), 0u32..50, 0u32..50)
            .prop_map(|(id, n, prompt, new)| Step::Forward { id, head: n, payer: n, prompt, new }),
        1 => (id(), node(), node())
            .prop_map(|(id, head, payer)| Step::Forward { id, head, payer, prompt: 9, new: 9 }),
        4 => (id(), node(), 0u32..50, 0u32..50)
            .prop_map(|(id, head, prompt, new)| Step::Deliver { id, head, used: (prompt, new) }),
        2 => (id(), node()).prop_map(|(id, by)| Step::Cancel { id, by }),
        // Two of the nodes at most: who was removed never comes back, and the others have work to do.
        1 => (5u8..=6, 1u8..=2).prop_map(|(leaving, by)| Step::Remove { leaving, by }),
        4 => (id(), 0u16..4, node(), 0u64..20_000)
            .prop_map(|(id, lane, worker, amount)| Step::Claim { id, lane, worker, amount }),
        4 => (
            proptest::collection::vec(id(), 0..4),
            proptest::collection::vec((id(), 0u64..20_000), 0..4),
        )
            .prop_map(|(settled, vouched)| Step::Epoch { settled, vouched }),
        1 => id().prop_map(|id| Step::Expire { id }),
        1 => (node(), 0u32..10_002, 0u8..3)
            .prop_map(|(of, index, hardware)| Step::Rate { of, index, hardware }),
        2 => (node(), prop_oneof![6 => Just(FOUNDER), 1 => node()], finding())
            .prop_map(|(of, by, finding)| Step::Judge { of, by, finding }),
        1 => (0u64..100).prop_map(|hours| Step::Wait { ms: hours * 3_600_000 }),
        2 => (node(), 1u64..1 << 20, 0u16..40, any::<bool>())
            .prop_map(|(by, credits, days, unlocks)| Step::Stake { by, credits, days, unlocks }),
        2 => (node(), 0u64..1 << 40).prop_map(|(by, flops)| Step::Work { by, flops }),
        1 => (node(), 0u8..4).prop_map(|(by, kind)| Step::Propose { by, kind }),
        3 => (node(), 0u8..4).prop_map(|(by, choice)| Step::Vote { by, choice }),
        1 => node().prop_map(|owner| Step::Lapse { owner }),
        4 => node().prop_map(|owner| Step::Free { owner }),
        1 => (0u64..1_000_000).prop_map(|ms| Step::Wait { ms }),
        1 => (0u64..DAY_MS * 30).prop_map(|ms| Step::Wait { ms }),
        1 => (0usize..64).prop_map(|height| Step::Repeat { height }),
        1 => (0usize..64, 0usize..4096, 0u8..8)
            .prop_map(|(height, byte, bit)| Step::Forge { height, byte, bit }),
    ]
}

fn finding() -> impl Strategy<Value = Finding> {
    (0u8..12, 0u8..8).prop_map(|(id, kind)| match kind {
        0 => Finding::Cleared,
        1..4 => Finding::Failed { request: request(id) },
        _ => Finding::Audited { request: request(id), passed: kind < 6 },
    })
}

/// The stages that `cuts` makes: each node ends at its layer; half the time they cover the model.
fn stages(cuts: &[(u8, u32)]) -> Vec<Cut> {
    let mut start = 0;
    let mut stages = Vec::new();
    for &(node, end) in cuts {
        if end > start {
            stages.push((node, (start, end)));
            start = end;
        }
    }
    if let Some(last) = stages.last_mut().filter(|_| cuts.len().is_multiple_of(2)) {
        last.1.1 = 6;
    }
    stages
}

/// The head of an open request, so that many papers are valid ones.
fn head_of(world: &World, id: u8) -> Option<u8> {
    let open = world.ledger.reservation(&request(id))?;
    (1..=6).find(|&n| common::node(n) == open.reservation.head)
}

/// The epoch of what these heads settled and these stages brought, as far as it was good.
fn epoch(world: &World, settled: &[u8], vouched: &[(u8, u64)]) -> Option<Event> {
    let mut collector = Collector::default();
    for &id in settled {
        let Some(head) = head_of(world, id) else { continue };
        let Event::Settled { settlement } = world.settles(id, head, &[(3, (0, 6))], (2, 1)) else {
            unreachable!("it settles")
        };
        let _ = collector.settle(&world.ledger, settlement);
    }
    for &(id, amount) in vouched {
        let Some(head) = head_of(world, id) else { continue };
        let _ = collector.voucher(&world.ledger, world.voucher(id, head, 1, FOUNDER, amount));
    }
    let Closed { epoch, papers, .. } = collector.close(&world.ledger, world.now).ok()??;
    epoch::check(&world.ledger, world.now, &epoch, &papers).expect("follows from its papers");
    Some(Event::EpochCounted(epoch))
}

fn event(world: &World, step: &Step) -> Option<Event> {
    match *step {
        Step::Join { joining, owner, inviter } => Some(world.joins(joining, owner, inviter)),
        Step::Reserve { id, head, payer, prompt, new } => {
            Some(world.reserves(id, head, payer, prompt, new))
        }
        Step::Settle { id, head, ref cuts, used, from } => {
            let head = head_of(world, id).unwrap_or(head);
            Some(settles_from(world, id, head, &stages(cuts), used, from))
        }
        Step::Claim { id, lane, worker, amount } => {
            // Of a request that is over, the head is not known any more: half of the members try.
            let head = head_of(world, id).unwrap_or(2);
            Some(world.claims(id, head, lane, worker, amount))
        }
        Step::Epoch { ref settled, ref vouched } => epoch(world, settled, vouched),
        Step::Forward { id, head, payer, prompt, new } => {
            Some(world.forwards(id, head, payer, prompt, new))
        }
        Step::Deliver { id, head, used } => {
            // Half of them by the head that forwarded, so that many are valid ones.
            let open = world.ledger.forwarding(&request(id)).filter(|_| used.0.is_multiple_of(2));
            let is_head = |n: &u8| open.is_some_and(|o| common::node(*n) == o.forwarding.head);
            Some(world.delivers(id, (1..=6).find(is_head).unwrap_or(head), used))
        }
        Step::Cancel { id, by } => Some(world.cancels(id, by)),
        Step::Remove { leaving, by } => Some(world.removes(leaving, by)),
        Step::Expire { id } => Some(world.expires(id)),
        Step::Stake { by, credits, days, unlocks } => {
            let credits = Credits(credits);
            let serial = world.ledger.member(&member(by)).map_or(1, |m| m.stake.serial + 1);
            Some(match unlocks {
                true => world.stakes(by, serial, StakeChange::Unlock { credits }),
                false => world.locks(by, serial, credits, days),
            })
        }
        Step::Work { by, flops } => {
            let job = Job::Audit { work: Flops(flops) };
            let task = Task { job, role: Role::default(), replicas: None };
            Some(world.rewards(world.ledger.next_report(), vec![(common::node(by), task)]))
        }
        Step::Propose { by, kind } => Some(world.proposes(by, kind != 3, action(world, by, kind))),
        Step::Vote { by, choice } => {
            let now = world.now;
            let mut voted = world.ledger.ballots().filter(|(_, b)| b.stage(now) == Stage::Voting);
            let choice = if choice == 0 { Choice::No } else { Choice::Yes };
            voted.next().map(|(id, _)| world.votes(by, id, choice))
        }
        Step::Free { owner } => Some(Event::Freed { member: member(owner) }),
        Step::Lapse { owner } => Some(Event::Expired { member: member(owner) }),
        Step::Repeat { height } => {
            let entry = &world.entries[height % world.entries.len()];
            Some(entry.claimed_value().event.clone())
        }
        Step::Rate { of, index, hardware } => {
            Some(world.rates(of, World::measured(index, hardware)))
        }
        Step::Judge { of, by, finding } => Some(world.judges(of, by, finding)),
        Step::Wait { .. } | Step::Forge { .. } => None,
    }
}

/// All stages took over at a position, as far as that came: some of them did nothing.
fn settles_from(
    world: &World,
    id: u8,
    head: u8,
    stages: &[Cut],
    used: (u32, u32),
    from: u32,
) -> Event {
    let mut settlement = world.settlement(id, stages, used);
    for (receipt, (worker, _)) in settlement.receipts.iter_mut().zip(stages) {
        let mut late = receipt.claimed_value().clone();
        late.from = from.min(late.positions);
        *receipt = keys(*worker).sign(late);
    }
    Event::Settled { settlement: keys(head).sign(settlement) }
}

/// Something to decide: rules, a suspension, or a penalty.
fn action(world: &World, by: u8, kind: u8) -> Action {
    match kind {
        0 => {
            let grant = Credits(world.ledger.policy().grant.0 / 2);
            Action::Parameters(Box::new(Policy { grant, ..world.ledger.policy().clone() }))
        }
        1 => Action::Member { member: member(6), is_suspended: by < 4 },
        _ => {
            let (penalty, reporter) = (Credits(1 << 22), Some(member(FOUNDER)));
            Action::Slash { member: member(by), penalty, reporter }
        }
    }
}

/// Tries `step`; the ledger either takes it as a new entry or stays as it was.
fn attempt(world: &mut World, step: &Step) {
    if let Step::Wait { ms } = step {
        world.now = world.now.plus_ms(*ms);
    }
    if let Step::Forge { height, byte, bit } = *step {
        let mut bytes = encode(&world.entries[height % world.entries.len()]);
        let at = byte % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(entry) = decode::<Signed<Entry>>(&bytes) {
            world.ledger.apply(&entry).expect_err("a forged entry is refused");
        }
    }
    decide_due(world);
    let before = world.ledger.clone();
    let Some(event) = event(world, step) else {
        assert_eq!(world.ledger, before);
        return;
    };
    match world.record(event) {
        Ok(()) => assert_eq!(world.ledger.height(), before.height() + 1),
        Err(_) => assert_eq!(world.ledger, before, "a refused event changes nothing"),
    }
}

/// What is due comes first, as the sequencer does it; says how much that was.
fn decide_due(world: &mut World) -> u32 {
    let mut decided = 0;
    while let Some(proposal) = world.ledger.undecided(world.now) {
        let before = world.ledger.clone();
        world.record(Event::Decided { proposal }).expect("is due");
        check_slash(&before, world);
        decided += 1;
    }
    decided
}

/// A decision takes from a member no more than its stake and held earnings.
fn check_slash(before: &Ledger, world: &World) {
    for (id, _) in before.members() {
        let lost = |bucket| before.bucket(&id, bucket).0 - world.ledger.bucket(&id, bucket).0;
        assert_eq!(
            before.bucket(&id, Bucket::Reserved),
            world.ledger.bucket(&id, Bucket::Reserved)
        );
        let pledged = lost(Bucket::Stake) + lost(Bucket::Held);
        assert!(pledged <= 1 << 22, "{pledged}");
        assert!(world.ledger.balance(&id) >= before.balance(&id), "nothing spendable is taken");
    }
}

/// What holds at every height.
fn check_sums(world: &World) {
    let ledger = &world.ledger;
    assert_eq!(world.total(), 0);
    for (account, amount) in ledger.accounts() {
        assert!(amount.0 >= 0 || account == Account::Mint, "{account} {amount}");
    }
    for (id, _) in ledger.members() {
        let caps = ledger.caps().filter(|(_, payer, _)| *payer == id).map(|(.., cap)| cap);
        assert_eq!(
            ledger.bucket(&id, Bucket::Reserved),
            caps.sum(),
            "open caps are what is reserved"
        );
    }
    let minted = ledger.account(Account::Mint).0.unsigned_abs();
    let [burned, treasury] =
        [Account::Burn, Account::Treasury].map(|account| ledger.account(account).0.unsigned_abs());
    let in_buckets = ledger.accounts().filter(|(a, _)| matches!(a, Account::Member(..)));
    let in_buckets: u64 = in_buckets.map(|(_, amount)| amount.0.unsigned_abs()).sum();
    assert_eq!(in_buckets + treasury, minted - burned);
    let sum_of = |of: fn(&Member) -> Credits| ledger.members().map(|(_, m)| of(m).0).sum::<u64>();
    let (granted, earned, spent) =
        (sum_of(|m| m.granted), sum_of(|m| m.earned), sum_of(|m| m.spent));
    if ledger.policy().profile.name() == "coop" {
        assert_eq!(minted + spent, granted + earned, "only grants and common work create credits");
    }
    let (mut lots, mut held_lots) = (BTreeMap::new(), BTreeMap::new());
    for record in ledger.records() {
        match record {
            StateRecord::Lots(id, of) => drop(lots.insert(id, of.total())),
            StateRecord::Held(id, of) => drop(held_lots.insert(id, of.total())),
            _ => {}
        }
    }
    for (id, _) in ledger.members() {
        let buckets = [Bucket::Spendable, Bucket::Reserved, Bucket::Held, Bucket::Stake];
        let in_all = buckets.map(|bucket| ledger.bucket(&id, bucket)).into_iter().sum();
        for (lots, expected) in [(&lots, in_all), (&held_lots, ledger.bucket(&id, Bucket::Held))] {
            let dated = lots.get(&id).copied().unwrap_or_default();
            assert_eq!(dated, expected, "every credit has a day on which it came");
        }
    }
}

/// A policy under which members run out of credits now and then.
fn poor() -> Policy {
    poor_under("coop")
}

fn poor_under(profile: &str) -> Policy {
    let stake = StakeRules { least: Credits(1), ..StakeRules::default() };
    let rich = Policy { stake, ..Policy::of(Profile::named(profile).expect("known")) };
    Policy { grant: quote(&common::shape(), 60, 60, &rich), ..rich }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(96)))]

    #[test]
    fn no_sequence_of_events_makes_or_loses_credits(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut world = World::with_policy(poor());
        let mut restored = None;
        for (at, step) in steps.iter().enumerate() {
            attempt(&mut world, step);
            check_sums(&world);
            // What it keeps of its hashes is what the replay, which hashes everything anew, comes to.
            let _ = world.ledger.state_root();
            if at == steps.len() / 2 {
                let ledger = Ledger::restore(world.ledger.records(), &common::block(&world.ledger));
                restored = Some((ledger.expect("is its state"), world.entries.len()));
            }
        }
        if let Some((mut ledger, after)) = restored {
            for entry in &world.entries[after..] {
                ledger.apply(entry).expect("goes on as the other does");
            }
            prop_assert_eq!(ledger.state_root(), world.ledger.state_root());
        }
        let replayed = Ledger::replay(world.entries.clone()).expect("replays");
        prop_assert_eq!(replayed.state_root(), world.ledger.state_root());
        prop_assert_eq!(&replayed, &world.ledger);
    }

    #[test]
    fn every_profile_accounts_for_every_credit(
        profile in proptest::sample::select(PROFILE_NAMES.as_slice()),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut world = World::with_policy(poor_under(profile));
        for step in &steps {
            attempt(&mut world, step);
            check_sums(&world);
        }
        let replayed = Ledger::replay(world.entries.clone()).expect("replays");
        prop_assert_eq!(&replayed, &world.ledger);
    }

    #[test]
    fn arbitrary_bytes_are_no_entry(bytes: Vec<u8>) {
        prop_assert!(decode::<Signed<Entry>>(&bytes).is_err());
    }
}

/// The generator reaches what it is meant to reach.
#[test]
fn random_sequences_contain_every_kind_of_event_and_refusal() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let mut seen = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..240 {
        let steps = proptest::collection::vec(step(), 60).new_tree(&mut runner).expect("steps");
        let mut world = World::with_policy(poor());
        for step in steps.current() {
            if let Step::Wait { ms } = step {
                world.now = world.now.plus_ms(ms);
            }
            *seen.entry("decided".into()).or_default() += decide_due(&mut world);
            let Some(event) = event(&world, &step) else { continue };
            let kind = event.kind();
            let outcome = match world.record(event) {
                Ok(()) => kind.into(),
                Err(LedgerError::Insufficient { .. }) => "insufficient".into(),
                Err(LedgerError::Duplicate { .. }) => "duplicate".into(),
                Err(_) => format!("refused {kind}"),
            };
            *seen.entry(outcome).or_default() += 1;
        }
    }
    for expected in [
        "joined",
        "reserved",
        "settled",
        "released",
        "removed",
        "rated",
        "judged",
        "refused rated",
        "insufficient",
        "duplicate",
        "refused settled",
        "claimed",
        "refused claimed",
        "epoch",
        "staked",
        "rewarded",
        "freed",
        "proposed",
        "voted",
        "decided",
    ] {
        assert!(seen.get(expected).is_some_and(|&n| n >= 5), "{expected}: {seen:?}");
    }
}

fn every_kind() -> World {
    let mut world = World::village();
    for event in [
        world.reserves(1, 2, 2, 10, 20),
        world.settles(1, 2, &[(FOUNDER, (0, 2)), (3, (2, 6))], (25, 15)),
        world.reserves(2, 2, 2, 10, 20),
        world.cancels(2, 2),
    ] {
        world.record(event).expect("valid");
    }
    world
}

/// Goal: no bit of a stored ledger can change unnoticed. Method: flip each byte of each entry and
/// apply it in its place; truncate each at every length.
#[test]
fn every_flipped_byte_and_every_truncation_is_noticed() {
    let world = every_kind();
    let mut before: Option<Ledger> = None;
    for entry in &world.entries {
        let bytes = encode(entry);
        for at in 0..bytes.len() {
            assert!(decode::<Signed<Entry>>(&bytes[..at]).is_err());
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            let Ok(forged) = decode::<Signed<Entry>>(&flipped) else { continue };
            let taken = match before.clone() {
                Some(mut ledger) => ledger.apply(&forged),
                None => Ledger::begin(&forged).map(|_| ()),
            };
            assert!(taken.is_err(), "byte {at} of entry {}", entry.claimed_value().height);
        }
        match &mut before {
            Some(ledger) => ledger.apply(entry).expect("follows"),
            None => before = Some(Ledger::begin(entry).expect("founds")),
        }
    }
    assert_eq!(before.expect("replayed"), world.ledger);
}

#[test]
fn two_machines_that_apply_the_same_entries_agree() {
    let world = every_kind();
    let other = Ledger::replay(world.entries.clone()).expect("replays");
    assert_eq!(other.state_root(), world.ledger.state_root());
    let mut later = world.clone();
    later.record(later.joins(5, 5, 3)).expect("joins");
    assert_ne!(later.ledger.state_root(), world.ledger.state_root());
    assert_eq!(later.ledger.balance(&member(5)), Some(Policy::default().grant));
    assert_eq!(keys(5).public(), member(5).0);
}

/// What one of two payers and its stages do about requests of their own: which, and with what numbers.
type Deed = (u8, u8, (u32, u32), u64);

/// Payer 2 has requests 0 to 5 and stages of nodes 1 and 4, payer 3 requests 6 to 11 and stages of nodes 5 and 6.
fn deed(world: &World, payer: u8, (what, request, (prompt, new), amount): Deed) -> Event {
    let (id, [one, other]) = if payer == 2 { (request, [1, 4]) } else { (request + 6, [5, 6]) };
    match what {
        0 => world.reserves(id, payer, payer, prompt, new),
        1..=3 => {
            let cut = prompt % 5 + 1;
            world.settles(id, payer, &[(one, (0, cut)), (other, (cut, 6))], (prompt, new))
        }
        4 => world.cancels(id, payer),
        5 | 6 => world.claims(id, payer, (amount % 3) as u16, one, amount),
        7 => world.forwards(id, payer, payer, prompt, new),
        _ => world.delivers(id, payer, (prompt, new)),
    }
}

/// What both orders have to agree on: everything but at which height it happened.
fn outcome(world: &World) -> impl PartialEq + std::fmt::Debug {
    let ledger = &world.ledger;
    let sums = |(id, m): (_, &Member)| (id, m.spent, m.earned, m.work, m.requests);
    let members: Vec<_> = ledger.members().map(sums).collect();
    (ledger.accounts().collect::<Vec<_>>(), ledger.caps().collect::<Vec<_>>(), members)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(96)))]

    /// Goal: events of different payers about different requests, worked on by different nodes, commute. Method: what each side
    /// does in its own order, mixed in any way, and one after the other.
    #[test]
    fn independent_events_give_the_same_accounts_in_any_order(
        deeds in proptest::collection::vec(
            (any::<bool>(), (0u8..9, 0u8..6, (1u32..40, 0u32..40), 0u64..20_000)), 1..40,
        ),
    ) {
        let mut start = World::village();
        for joining in [5, 6] {
            start.record(start.joins(joining, joining, FOUNDER)).expect("joins");
        }
        for (id, payer) in (0..3).map(|id| (id, 2)).chain((6..9).map(|id| (id, 3))) {
            start.record(start.reserves(id, payer, payer, 30, 30)).expect("reserves");
        }
        let payer = |is_first: bool| if is_first { 2 } else { 3 };
        let (mut mixed, mut apart) = (start.clone(), start);
        let mut taken = Vec::new();
        for &(is_first, what) in &deeds {
            let event = deed(&mixed, payer(is_first), what);
            if mixed.record(event.clone()).is_ok() {
                taken.push((is_first, event));
            }
        }
        for side in [true, false] {
            for (_, event) in taken.iter().filter(|(is_first, _)| *is_first == side) {
                apart.record(event.clone()).expect("valid without the others too");
            }
        }
        prop_assert_eq!(outcome(&mixed), outcome(&apart));
    }
}

/// Goal: credits are spent once, wherever they are spent. Method: a hundred gateways of one member, on as many
/// threads as fit, reserve far more than it has, with fresh papers and with each other's.
#[test]
fn a_hundred_gateways_cannot_spend_one_account_twice() {
    const GATEWAYS: u32 = 100;
    const AFFORDABLE: u64 = 40;
    let attempts = (100 * cases(100)).min(1_000_000);
    let cap = quote(&common::shape(), 10, 20, &Policy::default());
    let policy = Policy { grant: Credits(AFFORDABLE * cap.0 + cap.0 / 2), ..Policy::default() };
    let mut world = World::with_policy(policy);
    for gateway in 2..=GATEWAYS as u8 {
        world.record(world.joins(gateway, FOUNDER, FOUNDER)).expect("joins");
    }
    let paper = |number: u32| {
        let head = (number % GATEWAYS) as u8 + 1;
        let reservation = world.reservation(0, head, FOUNDER, 10, 20);
        // Every third paper is one that another gateway has used already.
        let id = if number.is_multiple_of(3) { number / 2 } else { number };
        let mut request = [0; 16];
        request[..4].copy_from_slice(&id.to_le_bytes());
        let request = talka_base::RequestId(request);
        Event::Reserved { reservation: keys(head).sign(Reservation { request, ..reservation }) }
    };
    let shared = std::sync::Mutex::new((world.ledger.clone(), 0));
    std::thread::scope(|scope| {
        for part in 0..2 {
            let (shared, paper, now) = (&shared, &paper, world.now);
            scope.spawn(move || {
                for number in (0..attempts).filter(|number| number % 2 == part) {
                    let event = paper(number);
                    let mut desk = shared.lock().expect("nobody fails");
                    if let Ok(entry) = desk.0.propose(&keys(FOUNDER), now, event) {
                        desk.0.apply(&entry).expect("applies");
                        desk.1 += 1;
                    }
                }
            });
        }
    });
    let (ledger, taken) = shared.into_inner().expect("nobody fails");
    assert_eq!(taken, AFFORDABLE);
    assert_eq!(ledger.caps().map(|(.., cap)| cap).sum::<Credits>(), Credits(AFFORDABLE * cap.0));
    assert_eq!(ledger.balance(&member(FOUNDER)), Some(Credits(cap.0 / 2)));
    assert_eq!(ledger.member_of(&node(100)), Some(member(FOUNDER)));
}
