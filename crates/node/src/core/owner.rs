//! Whether this node gives work to others now: by the hours that its owner set, and by whether the owner needs the
//! machine.
//!
//! Pure: the shell says what time of the week it is there and what the machine does. A node that is closed offers no
//! layers. It hands those it serves over, and after [`GRACE_MS`] it works for its own callers alone, even where nobody
//! else can take the layers: the owner comes first.

use serde::{Deserialize, Serialize};
use std::fmt;
use talka_base::Tick;
use talka_plan::availability::{Hours, WeekMinute};

/// A node that closes goes on for this long, in milliseconds: others load gigabytes meanwhile.
pub const GRACE_MS: u64 = 60_000;

/// Somebody who typed within this time, in milliseconds, is at the machine. Terminals write it down every 8 s.
const TYPED_MS: u64 = 15_000;
/// Other programs need the machine when they take this part of its processors, in thousandths, on average...
const BUSY_PERMILLE: u32 = 250;
/// ...and leave it when they take less than this...
const QUIET_PERMILLE: u32 = 150;
/// ...over about this time, in milliseconds: longer than a page takes to load.
const AVERAGE_MS: u64 = 15_000;
/// The owner is gone once nothing was seen for this long, in milliseconds. Nobody who reads a page comes back to a
/// busy machine, and layers do not move to and fro.
const GONE_MS: u64 = 5 * 60_000;

/// When a node gives work to others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opening {
    /// Only then; always, if there are none.
    pub hours: Vec<Hours>,
    /// Only while nobody else needs the machine.
    pub when_idle: bool,
}

/// Why a node gives none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Closed {
    /// It is none of its hours before that minute of the week.
    Until(WeekMinute),
    /// Its owner needs the machine.
    OwnerActive,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Until(minute) => write!(f, "closed until {minute}"),
            Self::OwnerActive => f.write_str("closed: owner active"),
        }
    }
}

/// What the shell saw of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activity {
    /// The time there.
    pub minute: WeekMinute,
    /// Milliseconds since anybody typed, if that can be seen.
    pub typed_ms_ago: Option<u64>,
    /// Thousandths of the processors that other programs take, if that can be seen.
    pub others_permille: Option<u32>,
}

/// The decision, as it stands.
#[derive(Debug, Default)]
pub struct Owner {
    opening: Opening,
    others_permille: u64,
    sampled_at: Option<Tick>,
    /// When the owner was last seen.
    seen_at: Option<Tick>,
    is_active: bool,
    closed: Option<(Closed, Tick)>,
}

impl Owner {
    /// A node that opens so, at a start at `now`. What its first look shows holds without grace: nobody relies on it.
    pub fn new(opening: Opening, now: Tick, activity: Activity) -> Self {
        let mut owner = Self { opening, ..Self::default() };
        owner.look(now, activity);
        if let Some((_, grace_ends)) = &mut owner.closed {
            *grace_ends = now;
        }
        owner
    }

    /// When it gives work to others, apart from what is seen.
    pub fn opening(&self) -> &Opening {
        &self.opening
    }

    /// Opens so from now on; the next look says what comes of it.
    pub fn reopen(&mut self, opening: Opening) {
        if !opening.when_idle {
            (self.is_active, self.seen_at, self.sampled_at) = (false, None, None);
        }
        self.opening = opening;
    }

    /// Takes in what the machine does. Whether the node opened or closed, or closed for another reason.
    pub fn look(&mut self, now: Tick, activity: Activity) -> bool {
        if self.opening.when_idle {
            self.watch(now, activity);
        }
        let why = self.out_of_hours(activity.minute);
        let why = why.or_else(|| self.is_active.then_some(Closed::OwnerActive));
        let before = self.closed();
        let grace_ends = self.closed.map_or(now.plus_ms(GRACE_MS), |(_, ends)| ends);
        self.closed = why.map(|why| (why, grace_ends));
        before != why
    }

    /// Why this node gives no work to others, if it does not.
    pub fn closed(&self) -> Option<Closed> {
        self.closed.map(|(why, _)| why)
    }

    /// Whether it is closed and its grace is over.
    pub fn is_shut(&self, now: Tick) -> bool {
        self.closed.is_some_and(|(_, grace_ends)| now >= grace_ends)
    }

    fn out_of_hours(&self, now: WeekMinute) -> Option<Closed> {
        let hours = &self.opening.hours;
        if hours.iter().any(|hours| hours.contain(now)) {
            return None;
        }
        let next = hours.iter().flat_map(Hours::starts).min_by_key(|start| now.until(*start));
        next.map(Closed::Until)
    }

    fn watch(&mut self, now: Tick, activity: Activity) {
        let passed = self.sampled_at.map_or(0, |at| now.since_ms(at)).min(AVERAGE_MS);
        self.sampled_at = Some(now);
        if let Some(others) = activity.others_permille {
            let others = u64::from(others.min(1_000)) * 1_000;
            self.others_permille =
                (self.others_permille * (AVERAGE_MS - passed) + others * passed) / AVERAGE_MS;
        }
        let most = if self.is_active { QUIET_PERMILLE } else { BUSY_PERMILLE };
        let is_typing = activity.typed_ms_ago.is_some_and(|ms| ms < TYPED_MS);
        if is_typing || self.others_permille >= u64::from(most) * 1_000 {
            self.seen_at = Some(now);
        }
        self.is_active = self.seen_at.is_some_and(|at| now.since_ms(at) < GONE_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Such as `tue 07:59`.
    fn at(text: &str) -> WeekMinute {
        let days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
        let (day, time) = text.split_once(' ').expect("a day and a time");
        let (hour, minute) = time.split_once(':').expect("an hour and a minute");
        let day = (0..).zip(days).find(|(_, name)| *name == day).expect("a day").0;
        WeekMinute::new(day, hour.parse().expect("an hour"), minute.parse().expect("a minute"))
    }

    fn seen(minute: &str, typed_ms_ago: u64, others_permille: u32) -> Activity {
        let (typed_ms_ago, others_permille) = (Some(typed_ms_ago), Some(others_permille));
        Activity { minute: at(minute), typed_ms_ago, others_permille }
    }

    const AWAY: u64 = 3_600_000;

    #[test]
    fn hours_close_with_grace_and_say_when_they_open() {
        let hours = ["mon-fri 18:00-08:00", "sat 12:00-14:00"];
        let hours = hours.map(|text| text.parse().expect("test hours")).to_vec();
        let opening = Opening { hours, when_idle: false };
        let mut owner = Owner::new(opening.clone(), Tick(0), seen("tue 07:59", 0, 900));
        assert_eq!(owner.closed(), None);
        assert!(owner.look(Tick(1_000), seen("tue 08:00", 0, 900)));
        let closed = owner.closed().expect("closed");
        assert_eq!(closed.to_string(), "closed until tue 18:00");
        assert!(!owner.is_shut(Tick(GRACE_MS)) && owner.is_shut(Tick(GRACE_MS + 1_000)));
        assert!(!owner.look(Tick(2_000), seen("tue 08:01", 0, 0)));
        owner.look(Tick(3_000), seen("sat 09:00", 0, 0));
        assert_eq!(owner.closed(), Some(Closed::Until(at("sat 12:00"))));
        owner.look(Tick(4_000), seen("sun 09:00", 0, 0));
        assert_eq!(owner.closed(), Some(Closed::Until(at("mon 18:00"))));
        assert!(owner.look(Tick(5_000), seen("mon 18:00", 0, 0)));
        assert!(!owner.is_shut(Tick(u64::MAX)));
        // Who starts out of hours was never relied on.
        assert!(Owner::new(opening, Tick(9), seen("sun 09:00", 0, 0)).is_shut(Tick(9)));
    }

    #[test]
    fn the_owner_comes_first_and_is_gone_only_after_a_while() {
        let opening = Opening { hours: vec![], when_idle: true };
        let mut owner = Owner::new(opening, Tick(0), seen("mon 00:00", AWAY, 0));
        let mut now = Tick(0);
        let mut after = |seconds: u64, typed_ms_ago, others| {
            for _ in 0..seconds {
                now = now.plus_ms(1_000);
                owner.look(now, seen("mon 00:00", typed_ms_ago, others));
            }
            owner.closed()
        };
        let active = Some(Closed::OwnerActive);
        assert_eq!(after(600, AWAY, 100), None, "less than a quarter");
        assert_eq!(after(1, AWAY, 1_000), None, "not for a while");
        assert_eq!(after(30, AWAY, 1_000), active);
        assert_eq!(after(600, AWAY, 200), active, "not quiet enough");
        assert_eq!(after(250, AWAY, 50), active, "not for long enough");
        assert_eq!(after(100, AWAY, 50), None);
        assert_eq!(after(1, 500, 0), active);
        assert_eq!(after(250, AWAY, 0), active);
        assert_eq!(after(60, AWAY, 0), None);
    }

    #[test]
    fn an_owner_who_asks_for_less_or_more_is_heard_at_the_next_look() {
        let mut owner = Owner::new(Opening::default(), Tick(0), seen("sun 09:00", 0, 900));
        let hours = vec!["mon 09:00-10:00".parse().expect("test hours")];
        owner.reopen(Opening { hours, when_idle: true });
        assert_eq!(owner.closed(), None);
        assert!(owner.look(Tick(1_000), seen("mon 09:30", 0, 0)));
        assert_eq!(owner.closed(), Some(Closed::OwnerActive));
        owner.reopen(Opening { when_idle: false, ..owner.opening().clone() });
        assert!(owner.look(Tick(2_000), seen("mon 09:30", 0, 0)));
        assert_eq!(owner.closed(), None);
    }

    #[test]
    fn what_cannot_be_seen_closes_nothing() {
        let opening = Opening { hours: vec![], when_idle: true };
        let nothing =
            Activity { minute: at("mon 00:00"), typed_ms_ago: None, others_permille: None };
        let mut owner = Owner::new(opening, Tick(0), nothing);
        assert!(!owner.look(Tick(1_000), nothing));
    }

    proptest! {
        #[test]
        fn a_closed_node_opens_when_it_says(
            day in 0..7_u32, start in 0..24_u32, end in 0..24_u32, now in 0..7 * 24 * 60_u16,
        ) {
            let days = ["mon", "tue-thu", "wed", "fri-mon", "fri", "sat", "sun"][day as usize];
            let hours: Hours = format!("{days} {start}:30-{end}:15").parse().expect("test hours");
            let opening = Opening { hours: vec![hours], when_idle: false };
            let owner = Owner { opening, ..Owner::default() };
            let minute = |number: u16| WeekMinute::try_from(number % (7 * 24 * 60)).expect("of a week");
            match owner.out_of_hours(minute(now)) {
                None => prop_assert!(hours.contain(minute(now))),
                Some(Closed::OwnerActive) => prop_assert!(false, "hours alone are asked"),
                Some(Closed::Until(opens)) => {
                    prop_assert!(hours.contain(opens));
                    for passed in 0..minute(now).until(opens) {
                        prop_assert!(!hours.contain(minute(now + passed)));
                    }
                }
            }
        }
    }
}
