//! Prometheus' text format, version 0.0.4: families of samples with labels.
//!
//! Decides how a number and a label are written. Numbers that are counted in small units are written in large ones exactly,
//! without a float in between. Never decides what is told.

use std::fmt::{self, Display, Write};
use talka_node::api::Histogram;

/// What a family's numbers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, until the process ends.
    Counter,
    /// Rises and falls.
    Gauge,
}

/// A whole number of small units as a decimal number of large ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    /// In small units.
    pub count: u64,
    /// A large unit has 10 to the power of this.
    pub digits: u32,
}

impl Decimal {
    /// Of microseconds, in seconds, and of µGFT, in GFT.
    pub fn millionths(count: u64) -> Self {
        Self { count, digits: 6 }
    }

    /// Of milliseconds, in seconds.
    pub fn thousandths(count: u64) -> Self {
        Self { count, digits: 3 }
    }
}

impl Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = 10_u64.pow(self.digits);
        let (whole, rest) = (self.count / unit, self.count % unit);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        let rest = format!("{rest:0width$}", width = self.digits as usize);
        write!(f, "{whole}.{}", rest.trim_end_matches('0'))
    }
}

/// Labels of a sample: name and value.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// A page of families.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// A family of one number without labels.
    pub fn one(&mut self, kind: Kind, name: &str, help: &str, value: impl Display) {
        self.family(kind, name, help).sample(&[], value);
    }

    /// A family, to which samples are added.
    pub fn family<'a>(&'a mut self, kind: Kind, name: &'a str, help: &str) -> Family<'a> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.head(kind, name, help);
        Family { page: self, name }
    }

    /// A family of one histogram, whose values have `digits` digits below the unit of its name.
    pub fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram, digits: u32) {
        self.histograms(name, help, digits).add(&[], histogram);
    }

    /// A family of histograms, whose values have `digits` digits below the unit of its name.
    pub fn histograms<'a>(&'a mut self, name: &'a str, help: &str, digits: u32) -> Histograms<'a> {
        self.head("histogram", name, help);
        Histograms { page: self, name, digits }
    }

    /// All of it.
    pub fn into_text(self) -> String {
        self.0
    }

    fn head(&mut self, kind: &str, name: &str, help: &str) {
        self.0 += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: Labels<'_>, value: impl Display) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            self.0.push(if at == 0 { '{' } else { ',' });
            self.0 += &format!("{label}=\"{}\"", Escaped(text));
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        self.0 += &format!(" {value}\n");
    }
}

/// A family under way.
#[derive(Debug)]
pub struct Family<'a> {
    page: &'a mut Page,
    name: &'a str,
}

impl Family<'_> {
    /// One more sample.
    pub fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        self.page.sample(self.name, labels, value);
    }
}

/// A family of histograms under way.
#[derive(Debug)]
pub struct Histograms<'a> {
    page: &'a mut Page,
    name: &'a str,
    digits: u32,
}

impl Histograms<'_> {
    /// One more histogram.
    pub fn add(&mut self, labels: Labels<'_>, histogram: &Histogram) {
        let (page, digits) = (&mut *self.page, self.digits);
        let large = |count| Decimal { count, digits };
        let bucket = format!("{}_bucket", self.name);
        let mut below = |bound: &str, count: u64| {
            page.sample(&bucket, &[labels, &[("le", bound)]].concat(), count);
        };
        for (bound, count) in histogram.up_to() {
            below(&large(bound).to_string(), count);
        }
        below("+Inf", histogram.count());
        page.sample(&format!("{}_sum", self.name), labels, large(histogram.sum()));
        page.sample(&format!("{}_count", self.name), labels, histogram.count());
    }
}

/// A label's value as it stands between quotes.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| match char {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            other => f.write_char(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_units_are_written_in_large_ones_exactly() {
        let check = |decimal: Decimal, expected: &str| assert_eq!(decimal.to_string(), expected);
        check(Decimal::millionths(0), "0");
        check(Decimal::millionths(1), "0.000001");
        check(Decimal::millionths(2_500_000), "2.5");
        check(Decimal::thousandths(u64::MAX), "18446744073709551.615");
        check(Decimal { count: 7, digits: 0 }, "7");
    }

    #[test]
    fn samples_stand_under_their_family_and_labels_are_escaped() {
        let mut page = Page::default();
        page.one(Kind::Gauge, "up", "Whether.", 1);
        let mut family = page.family(Kind::Counter, "asked_total", "How often.");
        family.sample(&[("who", "a\"b\\c\nd"), ("code", "200")], 3);
        assert_eq!(
            page.into_text(),
            "# HELP up Whether.\n# TYPE up gauge\nup 1\n\
             # HELP asked_total How often.\n# TYPE asked_total counter\n\
             asked_total{who=\"a\\\"b\\\\c\\nd\",code=\"200\"} 3\n"
        );
    }

    #[test]
    fn a_histogram_tells_how_many_are_at_most_each_bound() {
        let mut histogram = Histogram::new(&[1_000, 500_000]);
        for value in [900, 1_000, 2_000, 900_000] {
            histogram.add(value);
        }
        let mut page = Page::default();
        page.histogram("wait_seconds", "Waits.", &histogram, 6);
        assert_eq!(
            page.into_text(),
            "# HELP wait_seconds Waits.\n# TYPE wait_seconds histogram\n\
             wait_seconds_bucket{le=\"0.001\"} 2\nwait_seconds_bucket{le=\"0.5\"} 3\n\
             wait_seconds_bucket{le=\"+Inf\"} 4\nwait_seconds_sum 0.9039\nwait_seconds_count 4\n"
        );
    }
}
