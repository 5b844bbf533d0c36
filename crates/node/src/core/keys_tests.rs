use super::*;
use proptest::prelude::*;

const NOW: Tick = Tick(1_000_000);

fn order(name: &str, limits: KeyLimits) -> KeyOrder {
    KeyOrder { name: name.into(), scopes: vec![Scope::Infer], limits, valid_ms: None }
}

/// A ring with one key, whose secret and id are `n`.
fn ring(n: u8, order: KeyOrder) -> KeyRing {
    let mut ring = KeyRing::default();
    let record = ring.draft(order, KeyId([n; 8]), &[n; 32], NOW).expect("a key");
    ring.add(record);
    ring
}

fn budget(micro: u64) -> KeyLimits {
    KeyLimits { budget: Some(Credits(micro)), ..KeyLimits::default() }
}

#[test]
fn a_key_lets_in_whoever_has_its_secret_for_what_it_is_for() {
    let mut ring = ring(1, order("bob", KeyLimits::default()));
    assert_eq!(ring.enter(&[1; 32], Scope::Infer, NOW), Ok(KeyId([1; 8])));
    assert_eq!(ring.enter(&[2; 32], Scope::Infer, NOW), Err(KeyRefused::Unknown));
    let refused = ring.enter(&[1; 32], Scope::Admin, NOW).expect_err("not an admin's");
    assert!(refused.to_string().contains("\"bob\" lacks the scope admin"), "{refused}");
    assert_eq!(ring.reports()[0].running, 1);
    ring.leave(KeyId([1; 8]));
    assert_eq!(ring.reports()[0].running, 0);
}

#[test]
fn a_key_ends_with_its_time() {
    let mut ring = ring(1, KeyOrder { valid_ms: Some(500), ..order("a", KeyLimits::default()) });
    assert!(ring.enter(&[1; 32], Scope::Infer, NOW.plus_ms(500)).is_ok());
    let late = ring.enter(&[1; 32], Scope::Infer, NOW.plus_ms(60_501));
    assert_eq!(late, Err(KeyRefused::Expired { name: "a".into(), minutes: 1 }));
}

#[test]
fn calls_at_once_and_a_minute_are_bounded_and_refused_ones_do_not_count() {
    let limits =
        KeyLimits { concurrent: Some(2), requests_per_minute: Some(3), ..KeyLimits::default() };
    let mut ring = ring(1, order("a", limits));
    let enter = |ring: &mut KeyRing| ring.enter(&[1; 32], Scope::Infer, NOW);
    assert!(enter(&mut ring).is_ok() && enter(&mut ring).is_ok());
    for _ in 0..5 {
        assert!(matches!(enter(&mut ring), Err(KeyRefused::Concurrent { running: 2, .. })));
    }
    ring.leave(KeyId([1; 8]));
    assert!(enter(&mut ring).is_ok());
    ring.leave(KeyId([1; 8]));
    let refused = enter(&mut ring).expect_err("the fourth of this minute");
    assert_eq!(refused, KeyRefused::Rate { name: "a".into(), per_minute: 3, wait_ms: 20_000 });
}

#[test]
fn a_budget_is_charged_with_what_was_spent_and_bounds_the_most() {
    let (mut ring, id) = (ring(1, order("a", budget(100))), KeyId([1; 8]));
    assert_eq!(ring.hold(id, Credits(60)), Ok(()));
    let refused = ring.hold(id, Credits(41)).expect_err("beyond it");
    let expected = OverBudget { needed: Credits(41), left: Credits(40), budget: Credits(100) };
    assert_eq!(refused, expected);
    assert_eq!(ring.hold(id, Credits(40)), Ok(()));
    let kept = ring.pay(id, Credits(60), Credits(25)).expect("to be kept");
    assert_eq!((kept.spent, ring.reports()[0].held), (Credits(25), Credits(40)));
    ring.release(id, Credits(40));
    // What was spent outlives a restart, what was held does not.
    let mut ring = KeyRing::of([kept]);
    assert!(ring.hold(id, Credits(76)).is_err());
    assert_eq!(ring.hold(id, Credits(75)), Ok(()));
}

#[test]
fn a_removed_key_lets_nobody_in_and_is_not_kept_again() {
    let (mut ring, id) = (ring(1, order("a", budget(100))), KeyId([1; 8]));
    assert!(ring.enter(&[1; 32], Scope::Infer, NOW).is_ok());
    assert_eq!(ring.hold(id, Credits(10)), Ok(()));
    assert_eq!((ring.find("a"), ring.find(&id.to_string())), (Some(id), Some(id)));
    assert_eq!(ring.remove(id).map(|report| report.name), Some("a".into()));
    assert_eq!(ring.pay(id, Credits(10), Credits(5)), None);
    ring.leave(id);
    assert_eq!(ring.enter(&[1; 32], Scope::Infer, NOW), Err(KeyRefused::Unknown));
    assert_eq!((ring.find("a"), ring.reports()), (None, Vec::new()));
}

#[test]
fn orders_that_make_no_sense_are_refused() {
    let ring = ring(1, order("taken", KeyLimits::default()));
    let refused = |order| ring.draft(order, KeyId([2; 8]), &[2; 32], NOW).expect_err("refused");
    let plain = |name: &str| order(name, KeyLimits::default());
    for name in ["", " a", "a\n", "0123456789abcdef", &"x".repeat(65)] {
        assert_eq!(refused(plain(name)), KeyOrderError::Name { found: name.len() });
    }
    assert_eq!(refused(plain("taken")), KeyOrderError::NameTaken { name: "taken".into() });
    assert_eq!(refused(KeyOrder { scopes: Vec::new(), ..plain("b") }), KeyOrderError::NoScope);
    assert_eq!(refused(order("b", budget(0))), KeyOrderError::Zero { limit: "budget" });
    let never = KeyOrder { valid_ms: Some(0), ..plain("b") };
    assert_eq!(refused(never), KeyOrderError::Zero { limit: "valid_ms" });
}

#[test]
fn keys_are_bounded_in_number_and_size() {
    let mut ring = KeyRing::default();
    let limits = KeyLimits {
        budget: Some(Credits(u64::MAX)),
        requests_per_minute: Some(u32::MAX),
        concurrent: Some(u32::MAX),
    };
    for n in 0..KEYS_MAX {
        let mut id = [0; 8];
        id[..4].copy_from_slice(&(n as u32).to_le_bytes());
        let order = KeyOrder {
            name: format!("{n:0>64}"),
            scopes: vec![Scope::Admin, Scope::Infer],
            limits,
            valid_ms: Some(u64::MAX),
        };
        let record = ring.draft(order, KeyId(id), &[0; 32], NOW).expect("room");
        assert_eq!(talka_base::decode(&talka_base::encode(&record)), Ok(record.clone()));
        ring.add(record);
    }
    let one_more = ring.draft(order("x", limits), KeyId([255; 8]), &[0; 32], NOW);
    assert_eq!(one_more, Err(KeyOrderError::Full));
}

/// One thing that may happen to a key.
#[derive(Debug, Clone)]
enum Deed {
    Enter,
    /// The call vanishes with all that was held for it.
    Vanish(usize),
    Hold(usize, u64),
    /// A part of what was held, in per mille.
    Pay(usize, u64),
    Restart,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        Just(Deed::Enter),
        any::<usize>().prop_map(Deed::Vanish),
        (any::<usize>(), 0u64..80).prop_map(|(call, most)| Deed::Hold(call, most)),
        (any::<usize>(), 0u64..=1_000).prop_map(|(call, part)| Deed::Pay(call, part)),
        Just(Deed::Restart),
    ]
}

proptest! {
    /// Goal: no budget is passed and all counts come back. Method: calls enter, hold, pay and vanish in any
    /// order, restarts between; a second book of what is under way is kept beside the ring.
    #[test]
    fn a_budget_is_never_exceeded_and_counts_come_back(
        deeds in proptest::collection::vec(deed(), 0..120),
        budget_micro in 1u64..300,
        most_at_once in 1u32..6,
    ) {
        let limits = KeyLimits { concurrent: Some(most_at_once), ..budget(budget_micro) };
        let (mut ring, id) = (ring(1, order("a", limits)), KeyId([1; 8]));
        let mut calls: Vec<Vec<u64>> = Vec::new();
        let mut kept = None;
        let mut spent = 0;
        for deed in deeds {
            let pick = |n: usize| n.checked_rem(calls.len());
            match deed {
                Deed::Enter => {
                    let entered = ring.enter(&[1; 32], Scope::Infer, NOW).is_ok();
                    prop_assert_eq!(entered, calls.len() < most_at_once as usize);
                    if entered { calls.push(Vec::new()) }
                }
                Deed::Vanish(n) => if let Some(at) = pick(n) {
                    calls.remove(at).into_iter().for_each(|most| ring.release(id, Credits(most)));
                    ring.leave(id);
                },
                Deed::Hold(n, most) => if let Some(at) = pick(n) {
                    let held: u64 = calls.iter().flatten().sum();
                    let is_held = ring.hold(id, Credits(most)).is_ok();
                    prop_assert_eq!(is_held, spent + held + most <= budget_micro);
                    if is_held { calls[at].push(most) }
                },
                Deed::Pay(n, per_mille) => {
                    if let Some(most) = pick(n).and_then(|at| calls[at].pop()) {
                        let cost = most * per_mille / 1_000;
                        kept = ring.pay(id, Credits(most), Credits(cost));
                        spent += cost;
                    }
                }
                Deed::Restart => if let Some(record) = &kept {
                    ring = KeyRing::of([record.clone()]);
                    calls.clear();
                },
            }
            let report = ring.reports().remove(0);
            prop_assert_eq!((report.spent.0, report.running as usize), (spent, calls.len()));
            prop_assert_eq!(report.held.0, calls.iter().flatten().sum::<u64>());
            prop_assert!(report.spent.0 + report.held.0 <= budget_micro);
        }
    }
}
