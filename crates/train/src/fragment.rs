//! A model in parts that are exchanged one after the other, so that the exchange of one goes on while all are trained
//! (Streaming DiLoCo, Douillard et al. 2025).
//!
//! Round r exchanges fragment r modulo their number; the others go on from each member's own weights. Traffic falls by the number
//! of fragments, or rounds may be as much shorter.

use crate::{Layout, Parameters};
use std::ops::Range;

/// Which values of a flat vector are exchanged together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragments(Vec<Fragment>);

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// Its own tensors, as they follow each other in its own flat vector.
    pub layout: Layout,
    ranges: Vec<Range<usize>>,
}

impl Fragments {
    /// `count` fragments of a model that has at least as many layers.
    pub fn of(parameters: &Parameters, count: usize) -> Self {
        Self::strided(&parameters.layout(), &parameters.layers(), count)
    }

    /// `count` fragments, of which layer n belongs to n modulo `count`: neighbours, which lean on each other most, are never all away at
    /// once. `layers` says for each tensor its layer; those of none, embedding and head, go where least is.
    ///
    /// # Panics
    /// If `count` is zero or `layers` are not as many as tensors.
    fn strided(layout: &Layout, layers: &[Option<usize>], count: usize) -> Self {
        assert!(count > 0, "a model has one fragment at least");
        assert_eq!(layers.len(), layout.tensors().len(), "each tensor has its layer");
        let mut sizes = vec![0; count];
        let mut homes: Vec<Option<usize>> =
            layers.iter().map(|layer| layer.map(|n| n % count)).collect();
        for (home, tensor) in homes.iter().zip(layout.tensors()) {
            home.iter().for_each(|&home| sizes[home] += tensor.len());
        }
        for (home, tensor) in
            homes.iter_mut().zip(layout.tensors()).filter(|(home, _)| home.is_none())
        {
            let least = (0..count).min_by_key(|&n| sizes[n]).expect("one at least");
            sizes[least] += tensor.len();
            *home = Some(least);
        }
        let fragment = |number: usize| {
            let own =
                layout.tensors().iter().zip(&homes).filter(|(_, home)| **home == Some(number));
            let tensors: Vec<_> = own.map(|(tensor, _)| *tensor).collect();
            Fragment {
                layout: Layout::new(tensors.iter().map(|tensor| (tensor.rows, tensor.columns))),
                ranges: tensors
                    .iter()
                    .map(|tensor| tensor.start..tensor.start + tensor.len())
                    .collect(),
            }
        };
        Self((0..count).map(fragment).collect())
    }

    /// How many there are.
    pub const fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// The number of the one that a round exchanges.
    pub const fn number(&self, round: u64) -> usize {
        (round % self.count()) as usize
    }

    /// The one that a round exchanges.
    pub fn of_round(&self, round: u64) -> &Fragment {
        &self.0[self.number(round)]
    }
}

impl Fragment {
    /// Its values out of the whole model's.
    pub fn gather(&self, whole: &[f32]) -> Vec<f32> {
        self.ranges.iter().flat_map(|range| &whole[range.clone()]).copied().collect()
    }

    /// Its values out of one whole model's into another's.
    pub fn copy(&self, from: &[f32], to: &mut [f32]) {
        for range in &self.ranges {
            to[range.clone()].copy_from_slice(&from[range.clone()]);
        }
    }

    /// Puts its values back into the whole model's.
    ///
    /// # Panics
    /// If there are not as many as the fragment has.
    pub fn scatter(&self, mut own: &[f32], whole: &mut [f32]) {
        assert_eq!(own.len(), self.layout.len(), "values of this fragment");
        for range in &self.ranges {
            let (values, rest) = own.split_at(range.len());
            whole[range.clone()].copy_from_slice(values);
            own = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_one_fragment_and_neighbours_are_apart() {
        let layout = Layout::new([(10, 4), (4, 4), (1, 4), (4, 4), (4, 4), (1, 4)]);
        let layers = [None, Some(0), Some(0), Some(1), Some(2), None];
        let fragments = Fragments::strided(&layout, &layers, 2);
        let sizes: Vec<usize> =
            (0..2).map(|round| fragments.of_round(round).layout.len()).collect();
        assert_eq!(sizes, [40, 56]);
        let values: Vec<f32> = (0..layout.len()).map(|n| n as f32).collect();
        let mut back = vec![-1.0; layout.len()];
        for round in 4..6 {
            let fragment = fragments.of_round(round);
            fragment.scatter(&fragment.gather(&values), &mut back);
        }
        assert_eq!(back, values);
        fragments.of_round(0).copy(&vec![0.0; layout.len()], &mut back);
        assert_eq!(fragments.of_round(0).gather(&back), vec![0.0; 40]);
        assert_eq!(fragments.of_round(1).gather(&back), fragments.of_round(1).gather(&values));
    }
}
