//! Whether this node gives work to others now: by the hours that its owner set, and by whether the owner needs the
//! machine.
//!
//! Pure: the shell says what time of the week it is there and what the machine does. A node that is closed offers no
//! layers. It hands those it serves over, and after [`GRACE_MS`] it works for its own callers alone, even where nobody
//! else can take the layers: the owner comes first.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use talka_base::Tick;

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

const DAY_MINUTES: u16 = 24 * 60;
const WEEK_MINUTES: u16 = 7 * DAY_MINUTES;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A minute of the week by the clock on the wall, from Monday at midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct WeekMinute(u16);

impl WeekMinute {
    /// `hour` and `minute` of a day counted from Monday, 0; each is taken within its bounds.
    pub fn new(day: u32, hour: u32, minute: u32) -> Self {
        let minutes = (day % 7 * 24 + hour % 24) * 60 + minute % 60;
        Self(u16::try_from(minutes).expect("a week has few minutes"))
    }

    /// Minutes from this to `other`, which comes next in this week or the following one.
    fn until(self, other: Self) -> u16 {
        (other.0 + WEEK_MINUTES - self.0) % WEEK_MINUTES
    }
}

impl TryFrom<u16> for WeekMinute {
    type Error = HoursError;

    fn try_from(minute: u16) -> Result<Self, HoursError> {
        if minute < WEEK_MINUTES { Ok(Self(minute)) } else { Err(HoursError::Minute { minute }) }
    }
}

impl From<WeekMinute> for u16 {
    fn from(minute: WeekMinute) -> Self {
        minute.0
    }
}

impl fmt::Display for WeekMinute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (day, minute) = (self.0 / DAY_MINUTES, self.0 % DAY_MINUTES);
        write!(f, "{} {:02}:{:02}", DAYS[usize::from(day)], minute / 60, minute % 60)
    }
}

/// Hours of some days of the week, half open, such as `22:00-07:00` or `mon-fri 18:00-08:00`.
///
/// They begin on the days named and may end on the day after. Where they end when they begin, they last a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    days: [bool; 7],
    /// Of the day.
    start: u16,
    minutes: u16,
}

/// Why a text names no hours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum HoursError {
    /// Not two times of day.
    #[error("{found:?} names no hours, expected such as 22:00-07:00 or mon-fri 18:00-08:00")]
    Times { found: String },
    /// Not a day, or a run of days.
    #[error("{found:?} names no days, expected such as sat or mon-fri, of {}", DAYS.join(" "))]
    Days { found: String },
    /// Beyond the end of a week.
    #[error("minute {minute} of a week, expected less than {WEEK_MINUTES}")]
    Minute { minute: u16 },
}

impl Hours {
    /// Whether `now` is one of them.
    pub fn contain(&self, now: WeekMinute) -> bool {
        self.starts().any(|start| start.until(now) < self.minutes)
    }

    fn starts(&self) -> impl Iterator<Item = WeekMinute> + '_ {
        let days = (0_u16..).zip(self.days).filter(|(_, is_meant)| *is_meant);
        days.map(|(day, _)| WeekMinute(day * DAY_MINUTES + self.start))
    }
}

impl fmt::Display for Hours {
    /// As it is read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let begins = |day: &usize| self.days[*day] && !self.days[(*day + 6) % 7];
        if let Some(first) = (0..7).find(begins) {
            let length = (1..7).take_while(|day| self.days[(first + day) % 7]).count();
            match length {
                0 => write!(f, "{} ", DAYS[first])?,
                _ => write!(f, "{}-{} ", DAYS[first], DAYS[(first + length) % 7])?,
            }
        }
        let end = (self.start + self.minutes) % DAY_MINUTES;
        let [start, end] = [self.start, end].map(|minute| (minute / 60, minute % 60));
        write!(f, "{:02}:{:02}-{:02}:{:02}", start.0, start.1, end.0, end.1)
    }
}

impl FromStr for Hours {
    type Err = HoursError;

    fn from_str(text: &str) -> Result<Self, HoursError> {
        let wrong = || HoursError::Times { found: text.into() };
        let (days, times) = match text.trim().rsplit_once(char::is_whitespace) {
            Some((days, times)) => (read_days(days.trim())?, times),
            None => ([true; 7], text.trim()),
        };
        let (start, end) = times.split_once('-').ok_or_else(wrong)?;
        let (start, end) = (read_time(start).ok_or_else(wrong)?, read_time(end).ok_or_else(wrong)?);
        // 24:00 is the end of a day, and no time to begin.
        if start == DAY_MINUTES {
            return Err(wrong());
        }
        let minutes = (end + DAY_MINUTES - start) % DAY_MINUTES;
        Ok(Self { days, start, minutes: if minutes == 0 { DAY_MINUTES } else { minutes } })
    }
}

fn read_days(text: &str) -> Result<[bool; 7], HoursError> {
    let wrong = || HoursError::Days { found: text.into() };
    let number = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first).ok_or_else(wrong)?, number(last).ok_or_else(wrong)?);
    let length = (last + 7 - first) % 7;
    Ok(std::array::from_fn(|day| (day + 7 - first) % 7 <= length))
}

/// Minutes of the day.
fn read_time(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let is_plain = |part: &str| part.len() <= 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_plain(hour) || minute.len() != 2 || !is_plain(minute) {
        return None;
    }
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    let minutes = hour * 60 + minute;
    (minute < 60 && minutes <= DAY_MINUTES).then_some(minutes)
}

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

    fn at(text: &str) -> WeekMinute {
        let (day, time) = text.split_once(' ').expect("a day and a time");
        let day = DAYS.iter().position(|name| *name == day).expect("a day") as u16;
        WeekMinute(day * DAY_MINUTES + read_time(time).expect("a time"))
    }

    fn check(hours: &str, open: &[&str], closed: &[&str]) {
        let parsed: Hours = hours.parse().expect("test hours");
        for minute in open {
            assert!(parsed.contain(at(minute)), "{hours}: {minute}");
        }
        for minute in closed {
            assert!(!parsed.contain(at(minute)), "{hours}: {minute}");
        }
    }

    #[test]
    fn hours_cross_midnight_and_the_end_of_the_week() {
        check("9:00-17:30", &["mon 09:00", "sun 17:29"], &["mon 08:59", "wed 17:30"]);
        check("22:00-07:00", &["sun 23:00", "mon 00:00", "mon 06:59"], &["mon 07:00", "tue 21:59"]);
        check(
            "mon-fri 18:00-08:00",
            &["mon 18:00", "tue 07:59", "fri 20:00", "sat 07:00"],
            &["mon 07:00", "sat 18:00", "sun 20:00"],
        );
        check("sun 22:00-07:00", &["sun 22:00", "mon 06:59"], &["mon 22:00", "sun 06:00"]);
        check("SAT-mon 00:00-24:00", &["sat 00:00", "mon 23:59"], &["tue 00:00", "fri 23:59"]);
        check("wed 12:00-12:00", &["wed 12:00", "thu 11:59"], &["wed 11:59", "thu 12:00"]);
    }

    #[test]
    fn what_is_no_hours_is_refused_with_an_example() {
        for text in ["", "9-17", "9:00", "25:00-7:00", "9:60-10:00", "24:00-8:00", "+9:00-10:00"] {
            let error = text.parse::<Hours>().expect_err(text).to_string();
            assert!(error.contains("22:00-07:00"), "{text}: {error}");
        }
        let error = "mon-fry 9:00-17:00".parse::<Hours>().expect_err("no day").to_string();
        assert!(error.contains("mon-fry") && error.contains("sat"), "{error}");
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
        let nothing = Activity { minute: WeekMinute(0), typed_ms_ago: None, others_permille: None };
        let mut owner = Owner::new(opening, Tick(0), nothing);
        assert!(!owner.look(Tick(1_000), nothing));
    }

    proptest! {
        /// A week holds as many open minutes as the days and the hours say, and a closed node opens when it says.
        #[test]
        fn a_week_is_counted_right(first in 0..7_usize, length in 0..7_usize, start in 0..1_440_u16, minutes in 1..=1_440_u16) {
            let days = std::array::from_fn(|day| (day + 7 - first) % 7 <= length);
            let hours = Hours { days, start, minutes };
            let open = (0..WEEK_MINUTES).filter(|minute| hours.contain(WeekMinute(*minute))).count();
            prop_assert_eq!(open, (length + 1) * usize::from(minutes));
            let owner = Owner { opening: Opening { hours: vec![hours], when_idle: false }, ..Owner::default() };
            for minute in (0..WEEK_MINUTES).step_by(97).map(WeekMinute) {
                if let Some(Closed::Until(opens)) = owner.out_of_hours(minute) {
                    prop_assert!(hours.contain(opens));
                    let before = (0..minute.until(opens)).map(|n| WeekMinute((minute.0 + n) % WEEK_MINUTES));
                    for closed in before {
                        prop_assert!(!hours.contain(closed));
                    }
                } else {
                    prop_assert!(hours.contain(minute));
                }
            }
        }

        #[test]
        fn hours_are_told_as_they_are_read(first in 0..7_usize, length in 0..7_usize, start in 0..1_440_u16, minutes in 1..=1_440_u16) {
            let days = std::array::from_fn(|day| (day + 7 - first) % 7 <= length);
            let hours = Hours { days, start, minutes };
            prop_assert_eq!(hours.to_string().parse(), Ok(hours));
        }

        #[test]
        fn arbitrary_hours_never_panic(text: String) {
            let _ = text.parse::<Hours>();
        }
    }
}
