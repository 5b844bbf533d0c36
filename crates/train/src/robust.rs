//! What many members say, in one vector, though some of them lie.
//!
//! A [`Rule`] first shortens vectors that are longer than the median to the median's length, if it is told to, and then takes
//! a [`Centre`]. Members weigh by the tokens that they trained on. Whoever sends values that are not finite or not
//! as many as the model has is refused before ([`crate::Compressor::read`]); here that is an error.
//!
//! What each holds against, out of n members of which f lie:
//!
//! | centre | holds while | costs |
//! |---|---|---|
//! | mean | nobody lies; with clipping, a liar moves it by its share at most | nothing |
//! | trimmed mean | at most the trimmed part lies | the ends of each coordinate |
//! | median | 2 f < n | most of what averaging gains |
//! | Krum, kept > 1 | n >= 2 f + 3 | the updates not kept |
//! | geometric median | 2 f < n by weight | little |
//!
//! Trimmed mean and median look at each coordinate alone, so they suit dense updates only: of sparse ones most
//! members say zero in each place, and zero would win everywhere.
//!
//! Arithmetic: f64, sums in the order that is stated, square roots and divisions as IEEE 754 rounds them: the same bits
//! on every machine.

use std::cmp::Ordering;

/// How updates become one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// Whether vectors longer than the median are shortened to it.
    pub clip: bool,
    /// What is taken of them then.
    pub centre: Centre,
}

/// What is taken of several vectors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Centre {
    /// The mean.
    Mean,
    /// Of each coordinate, the mean without this many thousandths of the members at either end: at least one member
    /// once there are three, and never all.
    Trimmed {
        /// Below 500.
        per_mille: u16,
    },
    /// Of each coordinate, the median.
    Median,
    /// The mean of the vectors that are nearest to their nearest neighbours (Blanchard et al. 2017; more than one kept is its
    /// multi-Krum). As many as are left of `liars`, but at least one.
    Krum {
        /// How many members may lie.
        liars: u16,
        /// How many vectors are kept at most; 1 is the classic rule.
        kept: u16,
    },
    /// The point with the least sum of distances to all (Weiszfeld; at most 100 iterations, until weights move by less than a
    /// millionth).
    GeometricMedian,
}

impl Rule {
    /// Trusts everybody.
    pub const MEAN: Self = Self { clip: false, centre: Centre::Mean };
}

/// What one member learned.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// One value for each of the model's.
    pub values: &'a [f32],
    /// Tokens of assigned data that it was learned from: its weight.
    pub tokens: u64,
}

/// Why there is nothing to merge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum MergeError {
    /// No part, or parts without any token.
    #[error("nobody trained on anything, expected one member at least")]
    Nobody,
    /// A part of another model.
    #[error("part {part} has {found} values, expected {expected}")]
    Size { part: usize, expected: usize, found: usize },
    /// NaN or infinity.
    #[error("part {part} holds a value that is not finite: refuse it before merging")]
    NotFinite { part: usize },
    /// Finite updates whose sum no f32 holds: all members leave the weights as they were.
    #[error("the merged weights are not finite: nothing was changed")]
    Diverged,
}

/// A rule made ready for certain parts.
pub(crate) struct Merger {
    /// To multiply each part's distance from the origin by: 1 unless clipped.
    pub scales: Vec<f64>,
    how: How,
}

enum How {
    /// Sums to one.
    Weighted(Vec<f64>),
    /// Members dropped at either end, and the weight of each.
    Trimmed(usize, Vec<f64>),
    Median(Vec<f64>),
}

impl Merger {
    /// `origin` is what distances are measured from: the anchor for parts that are weights, else nothing.
    pub fn new(rule: Rule, parts: &[Part<'_>], origin: Option<&[f32]>) -> Result<Self, MergeError> {
        let shares = shares(parts)?;
        let len = parts[0].values.len();
        for (part, found) in parts.iter().map(|part| part.values.len()).enumerate() {
            if found != len {
                return Err(MergeError::Size { part, expected: len, found });
            }
        }
        let norms = norms(parts, origin)?;
        let scales = if rule.clip { clipped(&norms) } else { vec![1.0; parts.len()] };
        let far = || Distances::new(parts, origin, &scales);
        let how = match rule.centre {
            Centre::Mean => How::Weighted(shares),
            Centre::Trimmed { per_mille } => How::Trimmed(trimmed(parts.len(), per_mille), shares),
            Centre::Median => How::Median(shares),
            Centre::Krum { liars, kept } => {
                How::Weighted(far().krum(liars.into(), kept.into(), &shares))
            }
            Centre::GeometricMedian => How::Weighted(far().weiszfeld(&shares)),
        };
        Ok(Self { scales, how })
    }

    /// The centre of one coordinate of all parts, which are in their order; changes theirs.
    pub fn centre(&self, points: &mut [(f64, usize)]) -> f64 {
        match &self.how {
            How::Weighted(weights) => sum(points.iter().map(|&(x, part)| weights[part] * x)),
            How::Trimmed(cut, shares) => {
                points.sort_by(by_value);
                let kept = &points[*cut..points.len() - cut];
                let weight = sum(kept.iter().map(|&(_, part)| shares[part]));
                sum(kept.iter().map(|&(x, part)| shares[part] / weight * x))
            }
            How::Median(shares) => median(points, shares),
        }
    }
}

/// In order, from the first.
fn sum(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.fold(0.0, |sum, x| sum + x)
}

fn by_value(a: &(f64, usize), b: &(f64, usize)) -> Ordering {
    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
}

/// Each member's part of all tokens.
fn shares(parts: &[Part<'_>]) -> Result<Vec<f64>, MergeError> {
    let total = parts.iter().try_fold(0u64, |sum, part| sum.checked_add(part.tokens));
    let total = total.filter(|&total| total > 0).ok_or(MergeError::Nobody)?;
    Ok(parts.iter().map(|part| part.tokens as f64 / total as f64).collect())
}

/// Members that are dropped at either end.
fn trimmed(members: usize, per_mille: u16) -> usize {
    let share = members * usize::from(per_mille) / 1000;
    share.max(usize::from(members > 2)).min((members - 1) / 2)
}

/// The value at which half of the weight is reached; between two if it is exactly half.
fn median(points: &mut [(f64, usize)], shares: &[f64]) -> f64 {
    points.sort_by(by_value);
    let half = sum(points.iter().map(|&(_, part)| shares[part])) / 2.0;
    let mut below = 0.0;
    for (at, &(x, part)) in points.iter().enumerate() {
        below += shares[part];
        // Equal shares of an even number reach half but for a rounding.
        match points.get(at + 1) {
            Some(&(next, _)) if (below - half).abs() < 1e-9 => return (x + next) / 2.0,
            Some(_) if below < half => {}
            _ => return x,
        }
    }
    0.0
}

/// Terms that are summed side by side, so that machines can do it at once.
const LANES: usize = 8;

/// The sum of `term` over `0..len`: of every eighth index first, then of those eight.
fn sum_by_lanes(len: usize, term: impl Fn(usize) -> f64) -> f64 {
    let mut lanes = [0.0; LANES];
    for start in (0..len).step_by(LANES) {
        for (lane, at) in (start..len.min(start + LANES)).enumerate() {
            lanes[lane] += term(at);
        }
    }
    sum(lanes.into_iter())
}

fn norms(parts: &[Part<'_>], origin: Option<&[f32]>) -> Result<Vec<f64>, MergeError> {
    let norm = |(part, values): (usize, &[f32])| {
        let distance = |at: usize| {
            let x = f64::from(values[at]) - origin.map_or(0.0, |origin| f64::from(origin[at]));
            x * x
        };
        let norm = sum_by_lanes(values.len(), distance).sqrt();
        if norm.is_finite() { Ok(norm) } else { Err(MergeError::NotFinite { part }) }
    };
    parts.iter().map(|part| part.values).enumerate().map(norm).collect()
}

/// Brings longer vectors down to the median length; the lower one of two.
fn clipped(norms: &[f64]) -> Vec<f64> {
    let mut sorted = norms.to_vec();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[(sorted.len() - 1) / 2];
    norms.iter().map(|&norm| if norm > median { median / norm } else { 1.0 }).collect()
}

/// Squares of distances between members.
struct Distances {
    members: usize,
    squares: Vec<f64>,
}

impl Distances {
    fn new(parts: &[Part<'_>], origin: Option<&[f32]>, scales: &[f64]) -> Self {
        let members = parts.len();
        let mut squares = vec![0.0; members * members];
        let value = |part: usize, at: usize| {
            let origin = origin.map_or(0.0, |origin| f64::from(origin[at]));
            (f64::from(parts[part].values[at]) - origin) * scales[part]
        };
        for a in 0..members {
            for b in 0..a {
                let square = |at: usize| {
                    let x = value(a, at) - value(b, at);
                    x * x
                };
                let distance = sum_by_lanes(parts[a].values.len(), square);
                squares[a * members + b] = distance;
                squares[b * members + a] = distance;
            }
        }
        Self { members, squares }
    }

    fn row(&self, member: usize) -> &[f64] {
        &self.squares[member * self.members..][..self.members]
    }

    /// Weights: the shares of those kept. A score is the sum of squares to the n - f - 2 nearest others.
    fn krum(&self, liars: usize, kept: usize, shares: &[f64]) -> Vec<f64> {
        let near = self.members.saturating_sub(liars + 2).max(1);
        let score = |member: usize| {
            let mut others = self.row(member).to_vec();
            others.remove(member);
            others.sort_by(f64::total_cmp);
            (sum(others.into_iter().take(near)), member)
        };
        let mut scores: Vec<_> = (0..self.members).map(score).collect();
        scores.sort_by(by_value);
        scores.truncate(kept.min(self.members.saturating_sub(liars)).max(1));
        let mut weights = vec![0.0; self.members];
        scores.iter().for_each(|&(_, member)| weights[member] = shares[member]);
        normalised(weights, shares)
    }

    /// Weights w of the geometric median: it lies where w_i is as share_i / distance_i. The distance of a member to the weighted
    /// mean follows from those between members: Σ_j w_j d_ij - ½ Σ_jk w_j w_k d_jk.
    fn weiszfeld(&self, shares: &[f64]) -> Vec<f64> {
        const ITERATIONS_MAX: usize = 100;
        const CLOSE: f64 = 1e-6;
        let mut weights = shares.to_vec();
        for _ in 0..ITERATIONS_MAX {
            let to_mean: Vec<f64> = (0..self.members)
                .map(|i| sum(weights.iter().zip(self.row(i)).map(|(w, d)| w * d)))
                .collect();
            let spread = sum(weights.iter().zip(&to_mean).map(|(w, d)| w * d)) / 2.0;
            // A point in the very centre would have all the weight; the bound lets the others have a say.
            let floor = (spread * CLOSE * CLOSE).max(f64::MIN_POSITIVE);
            let pull = |(share, square): (&f64, &f64)| share / (square - spread).max(floor).sqrt();
            let next = normalised(shares.iter().zip(&to_mean).map(pull).collect(), shares);
            let moved =
                next.iter().zip(&weights).fold(0.0f64, |most, (a, b)| most.max((a - b).abs()));
            weights = next;
            if moved < CLOSE {
                break;
            }
        }
        weights
    }
}

/// `weights` brought to a sum of one; `otherwise` if there is no weight at all.
fn normalised(weights: Vec<f64>, otherwise: &[f64]) -> Vec<f64> {
    let total = sum(weights.iter().copied());
    if total > 0.0 && total.is_finite() {
        weights.into_iter().map(|weight| weight / total).collect()
    } else {
        otherwise.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Three honest peers and a liar, from a published design's worked example.
    const PEERS: [[f32; 3]; 4] =
        [[0.1, 0.2, 0.1], [0.12, 0.18, 0.11], [0.09, 0.21, 0.1], [100.0, -100.0, 50.0]];

    fn merged(rule: Rule, parts: &[Part<'_>]) -> Result<Vec<f64>, MergeError> {
        let merger = Merger::new(rule, parts, None)?;
        let point =
            |at: usize, part: usize| f64::from(parts[part].values[at]) * merger.scales[part];
        let centre = |at: usize| {
            let mut points: Vec<_> = (0..parts.len()).map(|part| (point(at, part), part)).collect();
            merger.centre(&mut points)
        };
        Ok((0..parts[0].values.len()).map(centre).collect())
    }

    fn parts<'a>(values: &[&'a [f32]]) -> Vec<Part<'a>> {
        values.iter().map(|values| Part { values, tokens: 7 }).collect()
    }

    fn check(centre: Centre, expected: [f64; 3]) {
        let peers: Vec<&[f32]> = PEERS.iter().map(|peer| peer.as_slice()).collect();
        let found = merged(Rule { clip: false, centre }, &parts(&peers)).expect("merges");
        let near =
            found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-4);
        assert!(near, "{centre:?}: {found:?}, expected {expected:?}");
    }

    #[test]
    fn the_worked_example_comes_out() {
        check(Centre::Mean, [25.0775, -24.8525, 12.5775]);
        check(Centre::Median, [0.11, 0.19, 0.105]);
        check(Centre::Trimmed { per_mille: 100 }, [0.11, 0.19, 0.105]);
        check(Centre::Krum { liars: 1, kept: 3 }, [0.103_333, 0.196_667, 0.103_333]);
        // Of two as near to each other as none else the first.
        check(Centre::Krum { liars: 1, kept: 1 }, [0.1, 0.2, 0.1]);
    }

    #[test]
    fn the_geometric_median_is_where_the_sum_of_distances_is_least() {
        let peers: Vec<&[f32]> = PEERS.iter().map(|peer| peer.as_slice()).collect();
        let rule = Rule { clip: false, centre: Centre::GeometricMedian };
        let found = merged(rule, &parts(&peers)).expect("merges");
        // The true one, by a hundred thousand iterations, is the second peer; a hundred come this near.
        let near =
            found.iter().zip([0.12, 0.18, 0.11]).all(|(found, best)| (found - best).abs() < 0.002);
        assert!(near, "{found:?}");
    }

    #[test]
    fn a_tenth_of_ten_is_one_at_each_end() {
        let cases = [(10, 100, 1), (4, 100, 1), (8, 250, 2), (3, 0, 1), (2, 499, 0), (1, 499, 0)];
        for (members, per_mille, expected) in cases {
            assert_eq!(trimmed(members, per_mille), expected, "{members} at {per_mille}");
        }
    }

    #[test]
    fn clipping_leaves_a_liar_the_length_of_the_others() {
        let values: [&[f32]; 3] = [&[3.0, 4.0], &[4.0, 3.0], &[-600.0, 800.0]];
        let found = merged(Rule { clip: true, centre: Centre::Mean }, &parts(&values));
        let expected = [(3.0 + 4.0 - 3.0) / 3.0, (4.0 + 3.0 + 4.0) / 3.0];
        let found = found.expect("merges");
        assert!(found.iter().zip(expected).all(|(f, e): (&f64, f64)| (f - e).abs() < 1e-12));
    }

    #[test]
    fn members_weigh_by_their_tokens() {
        let parts = [Part { values: &[1.0], tokens: 3 }, Part { values: &[5.0], tokens: 1 }];
        assert_eq!(merged(Rule::MEAN, &parts), Ok(vec![2.0]));
        let heavy = [parts[0], parts[1], Part { values: &[9.0], tokens: 9 }];
        assert_eq!(merged(Rule { clip: false, centre: Centre::Median }, &heavy), Ok(vec![9.0]));
    }

    #[test]
    fn what_cannot_be_merged_is_named() {
        assert_eq!(merged(Rule::MEAN, &[]), Err(MergeError::Nobody));
        let idle = [Part { values: &[1.0], tokens: 0 }];
        assert_eq!(merged(Rule::MEAN, &idle), Err(MergeError::Nobody));
        let short = parts(&[&[1.0, 2.0], &[1.0]]);
        let expected = MergeError::Size { part: 1, expected: 2, found: 1 };
        assert_eq!(merged(Rule::MEAN, &short), Err(expected));
        let diverged = parts(&[&[1.0], &[f32::NAN]]);
        assert_eq!(merged(Rule::MEAN, &diverged), Err(MergeError::NotFinite { part: 1 }));
    }

    proptest! {
        #[test]
        fn no_centre_leaves_the_range_of_the_honest(
            honest in proptest::collection::vec(proptest::collection::vec(-1.0f32..1.0, 3), 5..9),
            lie in proptest::collection::vec(prop_oneof![Just(-1e6f32), Just(1e6)], 3),
        ) {
            let all: Vec<&[f32]> = honest.iter().chain([&lie]).map(Vec::as_slice).collect();
            for centre in [
                Centre::Trimmed { per_mille: 0 },
                Centre::Median,
                Centre::Krum { liars: 1, kept: 4 },
            ] {
                let found = merged(Rule { clip: false, centre }, &parts(&all)).expect("merges");
                prop_assert!(found.iter().all(|x| x.abs() <= 1.0 + 1e-9), "{:?}: {:?}", centre, found);
            }
        }

        #[test]
        fn members_that_agree_are_believed(
            values in proptest::collection::vec(-1.0f32..1.0, 1..20), members in 1usize..6, clip: bool,
        ) {
            let all = vec![values.as_slice(); members];
            for centre in [
                Centre::Mean,
                Centre::Trimmed { per_mille: 200 },
                Centre::Median,
                Centre::Krum { liars: 1, kept: 2 },
                Centre::GeometricMedian,
            ] {
                let found = merged(Rule { clip, centre }, &parts(&all)).expect("merges");
                let near = found.iter().zip(&values).all(|(f, v)| (f - f64::from(*v)).abs() < 1e-9);
                prop_assert!(near, "{:?}: {:?}", centre, found);
            }
        }
    }
}
