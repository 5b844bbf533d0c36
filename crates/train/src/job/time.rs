//! Times as people write them in job files.

/// Days of the months of a year that is no leap year.
const MONTH_DAYS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// Milliseconds from 1970 to a time in UTC as ISO 8601 writes it, `2027-01-31T18:00:00Z`, with or without its seconds;
/// nothing if it is none, or before 1970.
pub fn parse_utc_ms(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let [year, month, day] = numbers(date, '-', &[4, 2, 2])?.try_into().ok()?;
    let clock = if time.len() == 5 { format!("{time}:00") } else { time.to_owned() };
    let [hour, minute, second] = numbers(&clock, ':', &[2, 2, 2])?.try_into().ok()?;
    if year < 1970 || !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let days_of =
        |month: u64| MONTH_DAYS[month as usize - 1] + u64::from(month == 2 && is_leap(year));
    if !(1..=days_of(month)).contains(&day) {
        return None;
    }
    let years: u64 = (1970..year).map(|year| 365 + u64::from(is_leap(year))).sum();
    let days = years + (1..month).map(days_of).sum::<u64>() + day - 1;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000)
}

/// Numbers of so many digits, with `between` between them.
fn numbers(text: &str, between: char, digits: &[usize]) -> Option<Vec<u64>> {
    let parts: Vec<&str> = text.split(between).collect();
    let fits = |(part, digits): (&&str, &usize)| {
        part.len() == *digits && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    if parts.len() != digits.len() || !parts.iter().zip(digits).all(fits) {
        return None;
    }
    parts.into_iter().map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_other_programs() {
        // Of `date -u -d TIME +%s`.
        let check = |text: &str, seconds: u64| {
            assert_eq!(parse_utc_ms(text), Some(seconds * 1000), "{text}")
        };
        check("1970-01-01T00:00:00Z", 0);
        check("2000-02-29T12:30:15Z", 951_827_415);
        check("2026-12-31T23:59Z", 1_798_761_540);
        check("2100-03-01T00:00:00Z", 4_107_542_400);
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "Z",
            "T",
            "2026-12-01",
            "2026-12-01T10:00:00",
            "2026-13-01T10:00:00Z",
            "2026-02-29T10:00:00Z",
            "2026-12-01T24:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-12-0١T10:00:00Z",
            "2026-12-01 10:00:00Z",
            "99999-12-01T10:00:00Z",
            "2026-12-01T10:00:00+01:00",
        ] {
            assert_eq!(parse_utc_ms(text), None, "{text}");
        }
    }
}
