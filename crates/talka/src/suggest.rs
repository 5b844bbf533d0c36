//! What to serve when nobody said what: models that fit this computer, from a short list.
//!
//! Decides only by size. A suggestion is never fetched without being asked for: a download of
//! gigabytes is nobody's default.

use talka_hub::{HubRef, Kept, Pulled};
use talka_node::MemoryShare;

/// Positions that a conversation should have room for: some pages of text.
const POSITIONS: u64 = 4096;

/// A model worth having.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suggestion {
    /// Where it is.
    pub reference: &'static str,
    /// Its weights, about, in bytes.
    pub weight_bytes: u64,
    /// What one position takes in its caches, in bytes, f16.
    pub kv_bytes_per_position: u64,
}

const fn suggest(reference: &'static str, megabytes: u64, layers: u64, kv: u64) -> Suggestion {
    Suggestion {
        reference,
        weight_bytes: megabytes * 1_000_000,
        kv_bytes_per_position: 2 * 2 * layers * kv,
    }
}

/// Instruction-tuned models under Apache 2.0, from their authors, smallest first: the reference, its
/// weights in MB, its layers, and the width of its keys (heads times head width).
const SUGGESTIONS: [Suggestion; 8] = [
    suggest("hf:HuggingFaceTB/SmolLM2-135M-Instruct", 269, 30, 3 * 64),
    suggest("hf:HuggingFaceTB/SmolLM2-360M-Instruct", 724, 32, 5 * 64),
    suggest("hf:Qwen/Qwen3-1.7B-GGUF:Q8_0", 1_834, 28, 8 * 128),
    suggest("hf:Qwen/Qwen3-4B-GGUF:Q4_K_M", 2_497, 36, 8 * 128),
    suggest("hf:Qwen/Qwen3-8B-GGUF:Q4_K_M", 5_027, 36, 8 * 128),
    suggest("hf:Qwen/Qwen3-14B-GGUF:Q4_K_M", 9_002, 40, 8 * 128),
    suggest("hf:Qwen/Qwen3-30B-A3B-GGUF:Q4_K_M", 18_557, 48, 4 * 128),
    suggest("hf:Qwen/Qwen3-32B-GGUF:Q4_K_M", 19_762, 64, 8 * 128),
];

/// The largest suggestion that `memory` holds, a conversation included.
pub fn largest(memory: MemoryShare) -> Option<Suggestion> {
    let fits = |s: &&Suggestion| {
        s.weight_bytes <= memory.weights && s.kv_bytes_per_position * POSITIONS <= memory.caches
    };
    SUGGESTIONS.iter().rev().find(fits).copied()
}

/// The models in the store that `memory` holds, largest first, each with a reference to it.
pub fn kept(kept: &[Kept], memory: MemoryShare) -> Vec<(HubRef, &Pulled)> {
    let models = kept
        .iter()
        .flat_map(|kept| kept.models.iter().map(|model| (model.reference(&kept.reference), model)));
    let mut fitting: Vec<_> = models.filter(|(_, model)| model.bytes <= memory.weights).collect();
    // Of two revisions of one model the one with a name comes first: it is the newer one.
    fitting.sort_by_key(|(reference, model)| {
        (std::cmp::Reverse(model.bytes), reference.revision_chosen().is_some())
    });
    fitting
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suggestion_can_be_typed_and_the_list_is_ordered() {
        for suggestion in SUGGESTIONS {
            assert!(suggestion.reference.parse::<HubRef>().is_ok(), "{suggestion:?}");
        }
        assert!(SUGGESTIONS.is_sorted_by_key(|suggestion| suggestion.weight_bytes));
    }

    #[test]
    fn the_largest_that_fits_is_suggested() {
        let of = |gib: u64| largest(MemoryShare::of(Some(gib << 30), None)).map(|s| s.reference);
        assert_eq!(largest(MemoryShare::of(Some(100 << 20), None)), None);
        assert_eq!(of(1), Some("hf:HuggingFaceTB/SmolLM2-360M-Instruct"));
        assert_eq!(of(8), Some("hf:Qwen/Qwen3-8B-GGUF:Q4_K_M"));
        assert_eq!(of(1000), Some("hf:Qwen/Qwen3-32B-GGUF:Q4_K_M"));
    }
}
