//! How much memory training takes, reckoned before anything is allocated.

use crate::config::{Precision, TrainConfig};
use crate::optim::moment_lengths;
use crate::parameters::Parameters;

/// Bytes that a trainer holds at its highest point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryNeed {
    /// Weights, and the copy that a step works with.
    pub weights: u64,
    /// What the optimiser remembers.
    pub moments: u64,
    /// The gradients of all weights.
    pub gradients: u64,
    /// What a step keeps for the way back.
    pub activations: u64,
}

impl MemoryNeed {
    /// All of it.
    pub fn total(&self) -> u64 {
        [self.moments, self.gradients, self.activations]
            .into_iter()
            .fold(self.weights, u64::saturating_add)
    }
}

/// Logits that exist at once, and their packed copies, at most.
const LOGITS_BYTES: u64 = 40 << 20;

impl TrainConfig {
    /// What a [`crate::Trainer`] needs for batches of `rows` rows of `length` positions on our kernels. The configuration
    /// must be valid.
    pub fn memory_need(&self, rows: usize, length: usize) -> MemoryNeed {
        let parameters = Parameters::new(&self.model);
        let numbers = parameters.len() as u64;
        let [first, second] = moment_lengths(&self.optimiser, &parameters).map(|n| n as u64);
        let narrow = match self.precision {
            Precision::F32 => 4,
            Precision::Bf16 => 2,
        };
        // Parts of a batch add their gradients to those of the first.
        let parts = self.rows_at_once.is_some_and(|at_once| at_once < rows);
        MemoryNeed {
            weights: numbers * (4 + narrow),
            moments: 4 * (first + second),
            gradients: numbers * 4 * if parts { 2 } else { 1 },
            activations: self.activations(
                self.rows_at_once.unwrap_or(rows).min(rows),
                length,
                narrow,
            ),
        }
    }

    fn activations(&self, rows: usize, length: usize, narrow: u64) -> u64 {
        let model = &self.model;
        let [hidden, ffn] = [model.hidden, model.ffn].map(u64::from);
        let kv = u64::from(model.kv_heads * model.head_dim());
        let positions = (rows * length) as u64;
        // A block keeps its two entries, two norms, queries, keys, values, results, and two of the feed-forward.
        let entries = 2 * hidden * 4;
        let inside = narrow * (4 * hidden + 2 * kv + 2 * ffn);
        let blocks = u64::from(model.layers);
        // On the way back one block's gradients exist beside that.
        let back = narrow * (2 * hidden + 2 * kv + 3 * ffn) + 3 * 4 * hidden;
        let kept = if self.recompute {
            blocks * hidden * 4 + entries + inside
        } else {
            blocks * (entries + inside)
        };
        positions * (kept + back + (narrow + 8) * hidden) + LOGITS_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelConfig;

    #[test]
    fn what_saves_memory_is_reckoned_as_less() {
        let plain = TrainConfig::new(ModelConfig::preset("bootstrap").expect("known"));
        let need = |config: &TrainConfig| config.memory_need(8, 2048);
        let narrow = TrainConfig { precision: Precision::Bf16, ..plain.clone() };
        let again = TrainConfig { recompute: true, ..plain.clone() };
        let one = TrainConfig { rows_at_once: Some(1), ..plain.clone() };
        for less in [&narrow, &again, &one] {
            assert!(need(less).total() < need(&plain).total());
        }
        assert_eq!(need(&plain).moments, 2 * need(&plain).gradients);
    }
}
