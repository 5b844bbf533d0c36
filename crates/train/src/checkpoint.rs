//! All that training needs to go on as if it had never stopped, in one file.
//!
//! A checkpoint is a header in JSON, then weights and moments as little-endian f32, then the BLAKE3 hash of all that. A
//! file that was cut or changed is refused. Nothing but the trainer's state and the place in the data is kept: the order
//! of the data follows from its seed, and no other chance is involved.

use crate::config::TrainConfig;
use crate::files::{self, FileError};
use crate::optim::Moments;
use crate::trainer::{TrainError, Trainer};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::path::{Path, PathBuf};
use talka_engine::kernels::Kernels;

/// First bytes of every checkpoint; the last one is its version.
const MAGIC: [u8; 8] = *b"talka-t\x02";
/// A header is a few hundred bytes.
const HEADER_BYTES_MAX: usize = 1 << 20;
const HASH_BYTES: usize = blake3::OUT_LEN;

/// A moment of training.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// What is trained and how.
    pub config: TrainConfig,
    /// Steps done.
    pub steps: u64,
    /// The next window of the data's order.
    pub data_position: u64,
    /// By which data are shuffled.
    pub data_seed: u64,
    /// In the order of [`crate::Parameters`].
    pub weights: Vec<f32>,
    /// What the optimiser remembers.
    pub moments: Moments<f32>,
    /// The mean of the latest weights; empty where none is kept.
    pub mean: Vec<f32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    config: TrainConfig,
    steps: u64,
    data_position: u64,
    data_seed: u64,
    updates: u64,
    /// Numbers of weights, first and second moments, and of the mean.
    lengths: [u64; 4],
}

/// Why a checkpoint was not read or written, or training does not go on from it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in the messages")]
pub enum CheckpointError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} is no checkpoint of this version of Talka", path.display())]
    Format { path: PathBuf },
    #[error("{} was cut or changed since it was written; take an older one", path.display())]
    Hash { path: PathBuf },
    #[error(transparent)]
    Train(#[from] TrainError),
}

impl Checkpoint {
    /// The state of `trainer`.
    pub fn of(trainer: &Trainer, data_seed: u64, data_position: u64) -> Self {
        Self {
            config: trainer.config().clone(),
            steps: trainer.steps(),
            data_position,
            data_seed,
            weights: trainer.weights().to_vec(),
            moments: trainer.moments().clone(),
            mean: Vec::new(),
        }
    }

    /// A trainer that goes on from here.
    ///
    /// # Errors
    /// Weights or moments do not belong to the configuration.
    pub fn resume(self, kernels: Kernels) -> Result<Trainer, CheckpointError> {
        let mut trainer = Trainer::new(self.config, self.weights, kernels)?;
        trainer.set_moments(self.moments)?;
        trainer.set_steps(self.steps);
        Ok(trainer)
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), CheckpointError> {
        Ok(files::write(path, &self.encode())?)
    }

    fn encode(&self) -> Vec<u8> {
        let moments = &self.moments;
        let parts = [&self.weights[..], &moments.first, &moments.second, &self.mean];
        let header = Header {
            config: self.config.clone(),
            steps: self.steps,
            data_position: self.data_position,
            data_seed: self.data_seed,
            updates: self.moments.updates,
            lengths: parts.map(|part| part.len() as u64),
        };
        seal(&MAGIC, &header, &parts)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It is missing, none of ours, or damaged.
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        let (header, numbers): (Header, _) = unseal(&MAGIC, path)?;
        Self::decode(header, numbers).ok_or_else(|| CheckpointError::Format { path: path.into() })
    }

    fn decode(header: Header, numbers: Vec<f32>) -> Option<Self> {
        let [weights, first, second, mean] = split(numbers, header.lengths)?;
        let moments = Moments { updates: header.updates, first, second };
        Some(Self {
            config: header.config,
            steps: header.steps,
            data_position: header.data_position,
            data_seed: header.data_seed,
            weights,
            moments,
            mean,
        })
    }
}

/// Before the bits of a number in a header.
const BITS: &str = "bits:";

/// Fractions as texts of their bits: readers of JSON may round a decimal number to the neighbour of the one that was written, and
/// then training would not go on to the same bits.
fn exact(value: Value) -> Value {
    each(value, &|value| match value {
        Value::Number(number) if number.is_f64() => {
            let bits = number.as_f64().unwrap_or_default().to_bits();
            Value::String(format!("{BITS}{bits:016x}"))
        }
        other => other,
    })
}

/// The numbers again.
fn plain(value: Value) -> Value {
    let number = |text: &str| {
        let bits = u64::from_str_radix(text.strip_prefix(BITS)?, 16).ok()?;
        Some(Value::Number(serde_json::Number::from_f64(f64::from_bits(bits))?))
    };
    each(value, &|value| match value {
        Value::String(text) => number(&text).unwrap_or(Value::String(text)),
        other => other,
    })
}

/// Changes all values that hold no others.
fn each(value: Value, change: &impl Fn(Value) -> Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (name, each(value, change))).collect()
        }
        Value::Array(items) => items.into_iter().map(|item| each(item, change)).collect(),
        single => change(single),
    }
}

/// A file: `magic`, the header's length (u64) and JSON, numbers, and the BLAKE3 hash of all that; little-endian.
pub(crate) fn seal(magic: &[u8; 8], header: &impl Serialize, parts: &[&[f32]]) -> Vec<u8> {
    let header = exact(serde_json::to_value(header).expect("plain fields")).to_string();
    let mut bytes = magic.to_vec();
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header.as_bytes());
    for part in parts {
        bytes.extend(part.iter().flat_map(|x| x.to_le_bytes()));
    }
    let hash = blake3::hash(&bytes);
    bytes.extend(hash.as_bytes());
    bytes
}

/// Reads what [`seal`] made.
pub(crate) fn unseal<H: DeserializeOwned>(
    magic: &[u8; 8],
    path: &Path,
) -> Result<(H, Vec<f32>), CheckpointError> {
    let bytes = files::read(path)?;
    let format = || CheckpointError::Format { path: path.to_owned() };
    if !bytes.starts_with(magic) {
        return Err(format());
    }
    let body = bytes.len().checked_sub(HASH_BYTES).map(|end| bytes.split_at(end));
    match body {
        Some((body, hash)) if blake3::hash(body).as_bytes() == hash => {
            parts_of(&body[magic.len()..]).ok_or_else(format)
        }
        _ => Err(CheckpointError::Hash { path: path.to_owned() }),
    }
}

fn parts_of<H: DeserializeOwned>(bytes: &[u8]) -> Option<(H, Vec<f32>)> {
    let (length, bytes) = bytes.split_first_chunk()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    if length > HEADER_BYTES_MAX.min(bytes.len()) {
        return None;
    }
    let (header, bytes) = bytes.split_at(length);
    let (numbers, rest) = bytes.as_chunks();
    let numbers = numbers.iter().map(|number| f32::from_le_bytes(*number)).collect();
    let header = plain(serde_json::from_slice(header).ok()?);
    rest.is_empty().then_some((serde_json::from_value(header).ok()?, numbers))
}

/// Numbers cut into parts of these lengths, if that comes out even.
pub(crate) fn split<const N: usize>(numbers: Vec<f32>, lengths: [u64; N]) -> Option<[Vec<f32>; N]> {
    let total = lengths.iter().try_fold(0_u64, |sum, length| sum.checked_add(*length))?;
    if total != numbers.len() as u64 {
        return None;
    }
    let mut numbers = numbers.into_iter();
    Some(lengths.map(|length| numbers.by_ref().take(length as usize).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AdamW, ModelConfig, OptimiserConfig, Schedule};
    use proptest::prelude::*;

    proptest! {
        /// A number that is off by its last bit would be another setting.
        #[test]
        fn settings_are_read_to_the_bit(
            rates in proptest::array::uniform3(1e-9_f64..1.0), clip in proptest::option::of(0.1_f64..9.0),
        ) {
            let [learning_rate, epsilon, last] = rates;
            let model = ModelConfig { norm_epsilon: epsilon, ..ModelConfig::preset("bootstrap").expect("known") };
            let adamw = AdamW { learning_rate, epsilon, ..AdamW::default() };
            let config = TrainConfig {
                optimiser: OptimiserConfig::AdamW(adamw),
                schedule: Schedule::Cosine { warmup: 1, steps: u64::MAX, last },
                clip,
                ..TrainConfig::new(model)
            };
            let moments = Moments { updates: 3, first: vec![0.5], second: vec![] };
            let mean = vec![0.25];
            let kept = Checkpoint { config, steps: 4, data_position: 5, data_seed: u64::MAX, weights: vec![1.0], moments, mean };
            let bytes = kept.encode();
            let body = &bytes[MAGIC.len()..bytes.len() - HASH_BYTES];
            let (header, numbers) = parts_of(body).expect("a checkpoint");
            prop_assert_eq!(Checkpoint::decode(header, numbers), Some(kept));
        }
    }
}
