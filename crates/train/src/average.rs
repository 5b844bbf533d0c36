//! The mean of the weights over the latest steps, which does better than those of any one step (Polyak and Juditsky 1992; LAWA,
//! Kaddour 2022).
//!
//! It is what a version consists of, where a job asks for it, and never what is trained on from. Every machine comes to the same
//! bits: one product and two sums of f32 for each weight.

/// A running mean over about the last `over` steps, of weights that are seen each `between` steps. Until so many were seen all
/// count the same; after that older ones count less and less. `before`: how often weights were seen already.
///
/// # Panics
/// If there are not as many weights as before.
pub(crate) fn add(mean: &mut Vec<f32>, weights: &[f32], before: u64, (between, over): (u64, u64)) {
    if mean.is_empty() {
        return mean.extend(weights);
    }
    assert_eq!(mean.len(), weights.len(), "a model keeps its size");
    let even = 1.0 / (before as f64 + 1.0);
    let part = even.max((between as f64 / over as f64).min(1.0)) as f32;
    for (mean, weight) in mean.iter_mut().zip(weights) {
        *mean += part * (weight - *mean);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_count_the_same_at_first_and_older_ones_less_later() {
        let mut mean = Vec::new();
        for (before, expected) in [1.0, 1.5, 2.0, 2.5].into_iter().enumerate() {
            add(&mut mean, &[before as f32 + 1.0], before as u64, (25, 100));
            assert_eq!(mean, [expected]);
        }
        add(&mut mean, &[6.5], 4, (25, 100));
        assert_eq!(mean, [3.5]);
        // Over less than lies between two: the last ones.
        add(&mut mean, &[9.0], 5, (25, 10));
        assert_eq!(mean, [9.0]);
    }
}
