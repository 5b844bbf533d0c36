//! How often something came to how much, in steps that are chosen beforehand.
//!
//! Decides nothing and keeps no single value: a histogram is as large as its bounds are many, however much is
//! added. Whole numbers only; what a unit is, its user says.

/// Counts of values between bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    /// Upper bounds, which are included, rising.
    bounds: &'static [u64],
    /// One for each bound, and one for what is above all of them.
    counts: Vec<u64>,
    sum: u64,
}

impl Histogram {
    /// An empty one with these upper bounds.
    ///
    /// # Panics
    /// If the bounds do not rise.
    pub fn new(bounds: &'static [u64]) -> Self {
        assert!(bounds.is_sorted_by(|a, b| a < b), "bounds rise");
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0 }
    }

    /// Counts `value`.
    pub fn add(&mut self, value: u64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        self.counts[place] = self.counts[place].saturating_add(1);
        self.sum = self.sum.saturating_add(value);
    }

    /// Each bound with how many values are at most that.
    pub fn up_to(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut sum = 0_u64;
        self.bounds.iter().zip(&self.counts).map(move |(bound, count)| {
            sum = sum.saturating_add(*count);
            (*bound, sum)
        })
    }

    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// All values together.
    pub fn sum(&self) -> u64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bound_is_included() {
        let mut histogram = Histogram::new(&[1, 10]);
        for value in [0, 1, 2, 10, 11] {
            histogram.add(value);
        }
        assert_eq!(histogram.up_to().collect::<Vec<_>>(), [(1, 2), (10, 4)]);
        assert_eq!((histogram.count(), histogram.sum()), (5, 24));
    }

    #[test]
    fn a_sum_that_is_full_stays_full() {
        let mut histogram = Histogram::new(&[1]);
        histogram.add(u64::MAX);
        histogram.add(7);
        assert_eq!((histogram.count(), histogram.sum()), (2, u64::MAX));
    }

    proptest! {
        #[test]
        fn each_value_is_counted_once_at_its_place(values in prop::collection::vec(0_u64..2_000, 0..200)) {
            let mut histogram = Histogram::new(&[5, 50, 500]);
            values.iter().for_each(|value| histogram.add(*value));
            for (bound, count) in histogram.up_to() {
                let expected = values.iter().filter(|value| **value <= bound).count();
                prop_assert_eq!(count, expected as u64);
            }
            prop_assert_eq!(histogram.count(), values.len() as u64);
            prop_assert_eq!(histogram.sum(), values.iter().sum::<u64>());
        }
    }
}
