//! What happens to members while a run goes on, from a seed.

use talka_base::rng::Rng;

/// What a member does in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Trains one step in so many that others do, and is merged.
    Trains {
        /// 1 for a usual machine.
        slower: u64,
    },
    /// Trains; nobody hears of it in time, nor does it hear of the others until the next round.
    CutOff,
    /// Is not there. What it had in memory is gone.
    Dead,
}

/// Of ten members so many die in ten rounds.
const DEATHS_IN_TEN: u64 = 3;
/// Rounds that a dead member stays away.
const AWAY: u64 = 2;
/// Once in so many rounds a link breaks for a round.
const CUTS_EVERY: u64 = 10;

/// The fates of all members in all rounds.
pub struct Fates(Option<Disturbed>);

struct Disturbed {
    members: usize,
    seed: u64,
    /// Before this round the last quarter of the members has not joined.
    joined_at: u64,
}

impl Fates {
    /// Nothing ever happens.
    pub fn quiet() -> Self {
        Self(None)
    }

    /// The last quarter of the members joins after a tenth of the rounds, the first one is five times slower, the others
    /// die and are cut off.
    pub fn disturbed(members: usize, rounds: u64, seed: u64) -> Self {
        Self(Some(Disturbed { members, seed, joined_at: rounds / 10 }))
    }

    /// What `member` does in `round`, both from 0. The first member is always there, so that somebody is.
    pub fn of(&self, member: usize, round: u64) -> Fate {
        let Some(fates) = &self.0 else { return Fate::Trains { slower: 1 } };
        if member == 0 {
            return Fate::Trains { slower: 5 };
        }
        let is_late = 4 * member >= 3 * fates.members;
        if is_late && round < fates.joined_at {
            return Fate::Dead;
        }
        if (round.saturating_sub(AWAY - 1)..=round).any(|round| fates.dies(member, round)) {
            return Fate::Dead;
        }
        let mut rng = fates.rng(member, round, 1);
        if rng.below(CUTS_EVERY) == 0 { Fate::CutOff } else { Fate::Trains { slower: 1 } }
    }
}

impl Disturbed {
    fn rng(&self, member: usize, round: u64, what: u64) -> Rng {
        let keys = [self.seed, member as u64, round, what];
        Rng::new(keys.into_iter().fold(0x5eed, |hash, key| Rng::new(hash ^ key).next_u64()))
    }

    /// Whether it is killed in `round`: in ten rounds at most once.
    fn dies(&self, member: usize, round: u64) -> bool {
        let ten = round / 10;
        let mut rng = self.rng(0, ten, 2);
        // Of the members but the first, which never dies, so many more of the others.
        let others = self.members as u64 - 1;
        let deaths = (DEATHS_IN_TEN * self.members as u64).div_ceil(10).min(others);
        let mut order: Vec<u64> = (1..=others).collect();
        for at in 0..deaths as usize {
            let with = at + rng.below((order.len() - at) as u64) as usize;
            order.swap(at, with);
        }
        let dying = order[..deaths as usize].contains(&(member as u64));
        dying && round % 10 == self.rng(member, ten, 3).below(10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_of_ten_die_in_ten_rounds_and_come_back() {
        let fates = Fates::disturbed(10, 100, 7);
        let disturbed = fates.0.as_ref().expect("disturbed");
        for ten in 0..10 {
            let rounds = || 10 * ten..10 * ten + 10;
            let deaths = (0..10)
                .map(|member| rounds().filter(|round| disturbed.dies(member, *round)).count());
            assert_eq!(deaths.sum::<usize>(), 3);
        }
        for member in 1..10 {
            assert!((20..100).any(|round| fates.of(member, round) == Fate::Trains { slower: 1 }));
        }
        assert_eq!(fates.of(9, 9), Fate::Dead);
        assert!((0..100).all(|round| fates.of(0, round) == Fate::Trains { slower: 5 }));
        assert_eq!(Fates::quiet().of(3, 5), Fate::Trains { slower: 1 });
    }
}
