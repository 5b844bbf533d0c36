//! What is trained on: characters of a file, or weights and batches that another program drew.

use std::{error::Error, fs, path::Path};
use talka_train::data::{TextSource, TokenSplit, Windows, tokenize, validation_batches};
use talka_train::tokens::TextTokenizer;
use talka_train::{Batch, ModelConfig, Parameters, read_model};

/// Rows of a member's batch, and their positions.
pub const ROWS: usize = 12;
pub const LENGTH: usize = 64;
/// Rows of a validation batch.
const VALIDATION_ROWS: usize = 64;
/// Validation batches that are looked at on the way: a few, since only the last look counts.
const GLANCE: usize = 8;

/// Model, batches and what is kept back to judge by.
pub struct Material {
    model: ModelConfig,
    source: Source,
    validation: Vec<Batch>,
}

enum Source {
    Text {
        tokens: TokenSplit,
    },
    /// Weights, and all batches: member by member, each step by step.
    Given {
        weights: Vec<f32>,
        batches: Vec<u32>,
    },
}

impl Material {
    /// The last tenth is kept back.
    pub fn text(path: &Path) -> Result<Self, Box<dyn Error>> {
        let documents = TextSource::Text { path: path.to_owned() }.documents()?;
        let tokenizer = TextTokenizer::characters(documents.iter().map(String::as_str));
        let tokens = tokenize(&documents, &tokenizer, 0.1)?;
        let validation = validation_batches(&tokens.validation, LENGTH, VALIDATION_ROWS)?;
        let model = ModelConfig {
            hidden: 128,
            layers: 4,
            heads: 4,
            kv_heads: 4,
            ffn: 344,
            vocab: tokenizer.vocab(),
            context: LENGTH as u32,
            tied: true,
            norm_epsilon: 1e-5,
            rope_theta: 1e4,
        };
        Ok(Self { model, source: Source::Text { tokens }, validation })
    }

    /// A model's folder that has `batches` and `validation` too: tokens as u32, little-endian, rows of 65.
    pub fn given(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let (model, weights) = read_model(folder)?;
        let tokens = |name: &str| -> Result<Vec<u32>, std::io::Error> {
            let bytes = fs::read(folder.join(name))?;
            Ok(bytes.as_chunks().0.iter().map(|token| u32::from_le_bytes(*token)).collect())
        };
        let rows = VALIDATION_ROWS * (LENGTH + 1);
        let validation = tokens("validation")?
            .chunks_exact(rows)
            .map(|batch| Batch { tokens: batch.to_vec(), rows: VALIDATION_ROWS })
            .collect();
        let source = Source::Given { weights, batches: tokens("batches")? };
        Ok(Self { model, source, validation })
    }

    pub fn model(&self) -> ModelConfig {
        self.model.clone()
    }

    /// What all begin with.
    pub fn weights(&self, seed: u64) -> Vec<f32> {
        match &self.source {
            Source::Text { .. } => Parameters::new(&self.model).initial_weights(seed),
            Source::Given { weights, .. } => weights.clone(),
        }
    }

    /// The windows at `places` of the job's stream.
    pub fn windows(&self, seed: u64, places: &[u64]) -> Result<Batch, String> {
        let Source::Text { tokens } = &self.source else {
            return Err("what was given has no stream: neither churn nor synchronous".into());
        };
        let windows =
            Windows::new(&tokens.train, LENGTH, seed).map_err(|error| error.to_string())?;
        let rows = places.iter().flat_map(|place| windows.at(*place));
        Ok(Batch { tokens: rows.copied().collect(), rows: places.len() })
    }

    /// The batch that was drawn for a member's step, if batches were.
    pub fn drawn(&self, member: usize, step: u64, steps: u64) -> Option<Result<Batch, String>> {
        let Source::Given { batches, .. } = &self.source else { return None };
        let len = ROWS * (LENGTH + 1);
        let at = (member as u64 * steps + step) as usize * len;
        let tokens = batches.get(at..at + len).map(<[u32]>::to_vec);
        Some(tokens.map(|tokens| Batch { tokens, rows: ROWS }).ok_or("too few batches".into()))
    }

    /// All that was kept back.
    pub fn validation(&self) -> &[Batch] {
        &self.validation
    }

    /// Some of it.
    pub fn glance(&self) -> &[Batch] {
        &self.validation[..GLANCE.min(self.validation.len())]
    }
}
