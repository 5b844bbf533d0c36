//! When a node is there for others: hours of the week in its own time zone, and how much of them it promises.
//!
//! Pure: the shell says what time it is. Hours may cross midnight and the end of the week. What an owner needs the machine
//! for comes before any promise; that is the node's affair, and shows here only as time that it was away.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use talka_base::{Factor, Tick};

const DAY_MINUTES: u16 = 24 * 60;
const WEEK_MINUTES: u16 = 7 * DAY_MINUTES;
const MINUTE_MS: u64 = 60_000;
const WEEK_MS: u64 = WEEK_MINUTES as u64 * MINUTE_MS;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// What else days are called.
const GROUPS: [(&str, &str); 2] = [("weekdays", "mon-fri"), ("weekend", "sat-sun")];

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

    /// The minute of the week at `at`, where clocks are so many minutes ahead of UTC, or behind if negative.
    pub fn at(at: Tick, utc_offset_minutes: i16) -> Self {
        let minutes = i128::from(at.0 / MINUTE_MS) + i128::from(utc_offset_minutes);
        // 1970 began on a Thursday.
        let minute = (minutes + 3 * i128::from(DAY_MINUTES)).rem_euclid(WEEK_MINUTES.into());
        Self(u16::try_from(minute).expect("less than a week"))
    }

    /// Minutes from this to `other`, which comes next in this week or the following one.
    pub fn until(self, other: Self) -> u16 {
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
    #[error("{found:?} names no days, expected such as sat, mon-fri or weekend, of {}", DAYS.join(" "))]
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

    /// When they begin.
    pub fn starts(&self) -> impl Iterator<Item = WeekMinute> + '_ {
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
    let group = GROUPS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    let text = group.map_or(text, |(_, days)| days);
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

/// When a node is there, and how much of that it promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// How far clocks there are ahead of UTC, in minutes.
    pub utc_offset_minutes: i16,
    /// Only then; always, if there are none.
    pub hours: Vec<Hours>,
    /// The part of its hours that it promises to be there; 0.85 is what the FEI network asked for.
    pub commitment: Factor,
}

impl Schedule {
    /// Whether the node is to be there at `at`.
    pub fn contains(&self, at: Tick) -> bool {
        let minute = WeekMinute::at(at, self.utc_offset_minutes);
        self.hours.is_empty() || self.hours.iter().any(|hours| hours.contain(minute))
    }
}

/// How much of a week's schedule a node kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Week {
    /// The time that it was to be there, in milliseconds.
    pub scheduled_ms: u64,
    /// The part of that in which it was.
    pub kept_ms: u64,
}

/// Counts how a node keeps its schedule, week by week, as whoever looks at it now and then sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attendance {
    began: Tick,
    looked: Tick,
    week: Week,
}

impl Attendance {
    /// Nothing was seen before `now`.
    pub const fn new(now: Tick) -> Self {
        Self { began: now, looked: now, week: Week { scheduled_ms: 0, kept_ms: 0 } }
    }

    /// Since the last look the node was there or not. A week once one is over.
    pub fn look(&mut self, schedule: &Schedule, now: Tick, is_there: bool) -> Option<Week> {
        let passed = now.since_ms(self.looked);
        if schedule.contains(self.looked) {
            self.week.scheduled_ms += passed;
            self.week.kept_ms += if is_there { passed } else { 0 };
        }
        self.looked = self.looked.max(now);
        if now.since_ms(self.began) < WEEK_MS {
            return None;
        }
        let week = self.week;
        *self = Self::new(now);
        Some(week)
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
        check("weekdays 18:00-08:00", &["fri 18:00", "sat 07:00"], &["sat 18:00", "sun 20:00"]);
        check("Weekend 00:00-24:00", &["sat 00:00", "sun 23:59"], &["fri 23:59", "mon 00:00"]);
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

    #[test]
    fn minutes_of_the_week_follow_the_time_zone() {
        // Saturday, 21 November 2026, 19:52:40 UTC.
        let now = Tick(1_795_290_760_000);
        for (offset, expected) in [
            (0, "sat 19:52"),
            (120, "sat 21:52"),
            (330, "sun 01:22"),
            (-720, "sat 07:52"),
            (840, "sun 09:52"),
        ] {
            assert_eq!(WeekMinute::at(now, offset), at(expected), "{offset}");
        }
        assert_eq!(WeekMinute::at(Tick(0), 0), at("thu 00:00"));
        assert_eq!(WeekMinute::at(Tick(0), -1), at("wed 23:59"));
    }

    /// The FEI network's example: Europe's evenings and nights, and whole weekends.
    fn schedule() -> Schedule {
        let hours = ["weekdays 18:00-08:00", "weekend 00:00-24:00"];
        let hours = hours.map(|text| text.parse().expect("test hours")).to_vec();
        Schedule { utc_offset_minutes: 120, hours, commitment: Factor(8_500) }
    }

    #[test]
    fn a_week_ends_with_what_was_kept_of_it() {
        let hour = 60 * MINUTE_MS;
        let start = Tick(1_795_290_000_000);
        let mut attendance = Attendance::new(start);
        let mut weeks = Vec::new();
        for passed in 1..=7 * 24 {
            let is_there = passed > 24;
            weeks.extend(attendance.look(&schedule(), start.plus_ms(passed * hour), is_there));
        }
        // Two days of 24 hours and five nights of fourteen, of which the last lies in the weekend for eight. The node
        // was away for the first day, from Saturday to Sunday.
        let [Week { scheduled_ms, kept_ms }] = weeks[..] else { panic!("one week: {weeks:?}") };
        assert_eq!((scheduled_ms / hour, kept_ms / hour), (48 + 5 * 14 - 8, 48 + 5 * 14 - 8 - 24));
        assert_eq!(attendance, Attendance::new(start.plus_ms(7 * 24 * hour)));
    }

    proptest! {
        #[test]
        fn a_week_holds_as_many_minutes_as_days_and_hours_say(
            first in 0..7_usize, length in 0..7_usize, start in 0..1_440_u16, minutes in 1..=1_440_u16,
        ) {
            let days = std::array::from_fn(|day| (day + 7 - first) % 7 <= length);
            let hours = Hours { days, start, minutes };
            let open = (0..WEEK_MINUTES).filter(|minute| hours.contain(WeekMinute(*minute))).count();
            prop_assert_eq!(open, (length + 1) * usize::from(minutes));
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
