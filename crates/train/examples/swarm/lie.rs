//! What a member sends that means harm.

use std::collections::VecDeque;
use talka_train::compress::HEADER_BYTES;

/// Rounds after which a stale update is sent again.
const STALE_ROUNDS: usize = 5;

/// A way to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// The opposite of what was learned.
    Flip,
    /// A hundred times as much.
    Hundred,
    /// No numbers.
    NaN,
    /// What was sent five rounds ago.
    Stale,
}

impl Lie {
    /// By its name in words; the first one if there is none.
    pub fn named(name: &str) -> Result<Self, String> {
        match name {
            "" | "flip" => Ok(Self::Flip),
            "hundred" => Ok(Self::Hundred),
            "nan" => Ok(Self::NaN),
            "stale" => Ok(Self::Stale),
            other => Err(format!("lie={other} is none of flip, hundred, nan, stale")),
        }
    }

    /// Before it is compressed.
    pub fn learned(self, values: &mut [f32]) {
        match self {
            Self::Flip => values.iter_mut().for_each(|value| *value = -*value),
            Self::Hundred => values.iter_mut().for_each(|value| *value *= 100.0),
            Self::NaN | Self::Stale => {}
        }
    }

    /// After it was; `sent` are the bytes of the rounds before.
    pub fn bytes(self, bytes: &mut Vec<u8>, sent: &mut VecDeque<Vec<u8>>) {
        match self {
            Self::Flip | Self::Hundred => {}
            Self::NaN => bytes[HEADER_BYTES..][..4].fill(0xff),
            Self::Stale => {
                sent.push_back(bytes.clone());
                if sent.len() > STALE_ROUNDS {
                    sent.pop_front();
                }
                bytes.clone_from(&sent[0]);
            }
        }
    }
}
