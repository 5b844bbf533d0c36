//! What a node can tell about itself in numbers, and whether it can answer now.

use super::Api;
use crate::core::readiness::{Facts, obstacles};
pub use crate::core::{histogram::Histogram, readiness::NotReady};

/// What became of the answers of this head since it started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerCounts {
    /// Came to their end.
    pub complete: u64,
    /// Broke off after they had begun.
    pub failed: u64,
    /// Had a caller who left.
    pub left: u64,
    /// Tokens of prompts and texts, of complete answers.
    pub prompt_tokens: u64,
    /// Tokens said, of complete answers.
    pub answer_tokens: u64,
    /// From the request to the first word, in microseconds.
    pub first_word_us: Histogram,
    /// How fast tokens followed the first one, in tokens in a thousand seconds, one for each answer.
    pub tokens_per_1000_s: Histogram,
    /// From a part of an answer that is known to its being handed to the connection, in microseconds. Beside a token's own
    /// time this is what the way to the caller adds; a caller who reads slowly adds to it as well.
    pub handing_on_us: Histogram,
}

/// Memory for caches, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheUse {
    /// What caches may take in all.
    pub most: u64,
    /// What those of answers under way may come to take.
    pub reserved: u64,
    /// What is taken now, with what is kept for prompts that begin alike.
    pub taken: u64,
}

impl Api {
    /// What became of the answers of this head.
    pub fn answer_counts(&self) -> AnswerCounts {
        self.shared.tally.counts()
    }

    /// How much of the memory for caches is in use.
    pub fn cache_use(&self) -> CacheUse {
        let pages = &self.shared.pages;
        CacheUse {
            most: pages.bytes_max(),
            reserved: pages.bytes_reserved(),
            taken: pages.bytes_taken(),
        }
    }

    /// Memory that this process takes, in bytes, if the system says.
    pub fn resident_bytes(&self) -> Option<u64> {
        crate::shell::tally::resident_bytes()
    }

    /// Requests that this node answers at once, at most.
    pub fn requests_max(&self) -> usize {
        self.shared.places.most()
    }

    fn reaches_order(&self) -> bool {
        let ledger = self.shared.desk().ledger();
        if !ledger.turns().by_turns {
            return self.shared.reaches(ledger.founder());
        }
        let witnesses = ledger.witnesses();
        self.shared.reached(witnesses.nodes()) >= witnesses.quorum()
    }

    /// What keeps this node from answering its callers now; nothing, if it can.
    pub fn obstacles(&self) -> Vec<NotReady> {
        let shared = &self.shared;
        obstacles(Facts {
            has_route: !shared.upstreams.is_empty() || self.reports().iter().any(|m| m.complete),
            reaches_order: self.reaches_order(),
            trusts_order: shared.desk().halted().is_none(),
            has_room: shared.places.have_room(),
        })
    }
}
