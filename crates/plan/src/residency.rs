//! Decides how much of its memory a node gives to each of its models.
//!
//! In: the models, when each was last asked for, and the owner's [`Policy`]. Out: bytes for each; none for a model
//! that has to wait on the disk. Loads nothing and ends no answer: whoever loads and gives back lets answers under way
//! end first, so that for a while there may be one model more in memory than was given room.

use talka_base::{ModelId, Tick};

/// A model that was just loaded stays for this long, in milliseconds, whoever else is asked for: two models that
/// are asked for in turns shall answer something between two swaps, which take up to a minute each.
pub const RESIDENCY_MS_MIN: u64 = 10_000;

/// How a node shares its memory among several models.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Policy {
    /// All models are in memory always, each with its part.
    #[default]
    Specialised,
    /// Whole models, those asked for last.
    Dynamic,
    /// Core models stay, the others swap.
    Mixed,
}

/// A model of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub model: ModelId,
    /// All its weights.
    pub bytes: u64,
    /// It stays in memory under [`Policy::Mixed`].
    pub is_core: bool,
    /// When this node was last asked for it.
    pub wanted_at: Option<Tick>,
    /// Since when it is in memory.
    pub resident_since: Option<Tick>,
}

/// How many models of `model_bytes` each a node holds that keeps `reserve_bytes` for everything else.
pub fn admitted(memory_bytes: u64, reserve_bytes: u64, model_bytes: u64) -> u64 {
    memory_bytes.saturating_sub(reserve_bytes).checked_div(model_bytes).unwrap_or(0)
}

/// Bytes for each of `models`, in their order. Together they are at most `memory_bytes`.
pub fn share(policy: Policy, memory_bytes: u64, now: Tick, models: &[Held]) -> Vec<u64> {
    match policy {
        Policy::Specialised => parts(memory_bytes, models),
        Policy::Dynamic | Policy::Mixed => swap(policy, memory_bytes, now, models),
    }
}

/// Equal parts, but to none more than it needs.
fn parts(memory_bytes: u64, models: &[Held]) -> Vec<u64> {
    let mut smallest_first: Vec<usize> = (0..models.len()).collect();
    smallest_first.sort_by_key(|model| models[*model].bytes);
    let mut shares = vec![0; models.len()];
    let (mut left, mut others) = (memory_bytes, models.len() as u64);
    for model in smallest_first {
        shares[model] = models[model].bytes.min(left / others);
        left -= shares[model];
        others -= 1;
    }
    shares
}

/// Whole models: core ones, those just loaded, then those asked for last. One that is bigger than the node's
/// memory gets what is left, to serve a part of it.
fn swap(policy: Policy, memory_bytes: u64, now: Tick, models: &[Held]) -> Vec<u64> {
    let mut first: Vec<usize> = (0..models.len()).collect();
    first.sort_by_key(|model| {
        let held = &models[*model];
        let is_core = policy == Policy::Mixed && held.is_core;
        let is_new = held.resident_since.is_some_and(|at| now.since_ms(at) < RESIDENCY_MS_MIN);
        let wanted = held.wanted_at.map_or(0, |at| at.0);
        (!is_core, !is_new, std::cmp::Reverse(wanted), held.resident_since.is_none())
    });
    let mut shares = vec![0; models.len()];
    let mut left = memory_bytes;
    for model in first {
        let bytes = models[model].bytes;
        if bytes <= left || bytes > memory_bytes {
            shares[model] = bytes.min(left);
            left -= shares[model];
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn held(bytes: u64) -> Held {
        let model = ModelId([1; 32]);
        Held { model, bytes, is_core: false, wanted_at: None, resident_since: None }
    }

    fn wanted(bytes: u64, at: u64) -> Held {
        Held { wanted_at: Some(Tick(at)), ..held(bytes) }
    }

    /// Models of 17 GB, 3 GB for the system.
    #[test]
    fn as_many_models_as_fit_beside_the_reserve() {
        let admit = [20, 32, 64, 128].map(|memory| admitted(memory, 3, 17));
        assert_eq!(admit, [1, 1, 3, 7]);
        assert_eq!((admitted(2, 3, 17), admitted(9, 3, 0)), (0, 0));
        let models: Vec<_> = (0..9).map(|_| held(17)).collect();
        let whole = |memory: u64| {
            let shares = share(Policy::Dynamic, memory - 3, Tick(0), &models);
            shares.iter().filter(|bytes| **bytes == 17).count()
        };
        assert_eq!([20, 32, 64, 128].map(whole), [1, 1, 3, 7]);
    }

    #[test]
    fn specialised_models_all_have_a_part_and_small_ones_no_more_than_they_need() {
        let shares = share(Policy::Specialised, 30, Tick(0), &[held(40), held(4), held(40)]);
        assert_eq!(shares, [13, 4, 13]);
        assert_eq!(share(Policy::Specialised, 30, Tick(0), &[]), [0; 0]);
    }

    #[test]
    fn the_least_recently_used_model_goes_and_core_models_stay() {
        let now = Tick(100_000);
        let resident = |held: Held| Held { resident_since: Some(Tick(1)), ..held };
        let core = Held { is_core: true, ..resident(wanted(17, 10)) };
        let models = [core, resident(wanted(17, 50)), resident(wanted(17, 40)), wanted(17, 99_000)];
        assert_eq!(share(Policy::Dynamic, 60, now, &models), [0, 17, 17, 17]);
        assert_eq!(share(Policy::Mixed, 60, now, &models), [17, 17, 0, 17]);
        assert_eq!(share(Policy::Dynamic, 70, now, &models), [17, 17, 17, 17]);
        // Just loaded: it has its turn before the next swap.
        let just = Held { resident_since: Some(Tick(95_000)), ..wanted(17, 1) };
        assert_eq!(share(Policy::Dynamic, 20, now, &[just, wanted(17, 99_999)]), [17, 0]);
        assert_eq!(share(Policy::Dynamic, 20, Tick(105_001), &[just, wanted(17, 99_999)]), [0, 17]);
    }

    #[test]
    fn of_a_model_too_big_for_the_node_a_part_is_held() {
        let models = [wanted(100, 2), wanted(10, 1)];
        assert_eq!(share(Policy::Dynamic, 60, Tick(9), &models), [60, 0]);
        let models = [wanted(100, 1), wanted(10, 2)];
        assert_eq!(share(Policy::Dynamic, 60, Tick(9), &models), [50, 10]);
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_it_needs_and_all_together_no_more_than_there_is(
            memory in 0_u64..1_000,
            models in prop::collection::vec((0_u64..400, any::<bool>(), prop::option::of(0_u64..50_000), prop::option::of(0_u64..50_000)), 0..9),
            policy in prop_oneof![Just(Policy::Specialised), Just(Policy::Dynamic), Just(Policy::Mixed)],
        ) {
            let held = |(bytes, is_core, wanted, resident): (u64, bool, Option<u64>, Option<u64>)| Held {
                is_core, wanted_at: wanted.map(Tick), resident_since: resident.map(Tick), ..held(bytes)
            };
            let models: Vec<_> = models.into_iter().map(held).collect();
            let shares = share(policy, memory, Tick(50_000), &models);
            prop_assert!(shares.iter().sum::<u64>() <= memory);
            prop_assert!(shares.iter().zip(&models).all(|(share, held)| *share <= held.bytes));
            // Room for all: all of them.
            if models.iter().map(|held| held.bytes).sum::<u64>() <= memory {
                prop_assert!(shares.iter().zip(&models).all(|(share, held)| *share == held.bytes));
            }
        }
    }
}
