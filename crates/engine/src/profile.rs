//! What a model is and what running it takes, told from its headers alone.
//!
//! For people who choose a model and for programs that ask what fits. Counts and adds; no weight is
//! read. Norm weights are a thousandth of a layer and counted with it.

use crate::{
    arch::{Architecture, LayerPart as P, Part},
    formats::TensorTable,
    weight::{Measure, measure},
};
use serde::Serialize;
use std::collections::BTreeMap;
use talka_base::{Flops, LayerSpan, ModelId, ModelShape};

/// A model's measures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelProfile {
    /// What it is, whatever its folder is called.
    pub id: ModelId,
    /// The family's name, as `model_type` has it.
    pub family: String,
    /// Its dimensions.
    pub shape: ModelShape,
    /// Numbers in all tensors that a run of all layers needs, each counted once.
    pub parameters: u64,
    /// Of those, the ones that one token's way through the model uses.
    pub parameters_active: u64,
    /// Work for the first token, logits included.
    pub flops_first: Flops,
    /// Work for the token that fills the context, logits included.
    pub flops_last: Flops,
    /// Bytes of each layer's weights as they are stored.
    pub layer_bytes: Vec<u64>,
    /// Bytes of the embedding's matrix.
    pub embedding_bytes: u64,
    /// Bytes of the head's matrix; 0 if it is the embedding's.
    pub head_bytes: u64,
    /// Bytes of all weights.
    pub weight_bytes: u64,
    /// What one position of one sequence takes in the key-value cache of all layers.
    pub kv_bytes_per_position: u64,
    /// Bytes of weights by the type they are stored in.
    pub encodings: BTreeMap<String, u64>,
    /// How the tokenizer cuts text: `BPE`, `Unigram`, `WordPiece` or `WordLevel`.
    pub tokenizer: String,
    /// Whether the model brings a chat template of its own.
    pub chat_template: bool,
}

/// What the tensors of a model amount to.
#[derive(Debug, Default)]
pub(crate) struct Weights {
    pub parameters: u64,
    pub parameters_active: u64,
    pub layer_bytes: Vec<u64>,
    pub embedding_bytes: u64,
    pub head_bytes: u64,
    pub weight_bytes: u64,
    pub encodings: BTreeMap<String, u64>,
}

impl Weights {
    /// Adds up every tensor that `architecture` needs of `table`. Missing ones count as nothing.
    pub fn of(architecture: &Architecture, table: &TensorTable) -> Self {
        let shape = &architecture.shape;
        let mut sum = Self { layer_bytes: vec![0; shape.layers as usize], ..Self::default() };
        for part in architecture.parts(shape.span()) {
            let Some(Measure { bytes, numbers, encoding }) = measure(table, architecture, part)
            else {
                continue;
            };
            sum.parameters = sum.parameters.saturating_add(numbers);
            sum.weight_bytes += bytes;
            *sum.encodings.entry(encoding.to_string()).or_default() += bytes;
            // Of its experts a token meets a few.
            let active = match (part, architecture.feed_forward.experts) {
                (
                    Part::Layer(_, P::ExpertGate(e) | P::ExpertUp(e) | P::ExpertDown(e)),
                    Some(experts),
                ) if e >= experts.used => 0,
                _ => numbers,
            };
            sum.parameters_active = sum.parameters_active.saturating_add(active);
            match part {
                Part::Layer(layer, _) => sum.layer_bytes[layer as usize] += bytes,
                Part::Head => sum.head_bytes += bytes,
                Part::Embedding
                | Part::Positions
                | Part::Types
                | Part::InputNorm
                | Part::InputNormBias => sum.embedding_bytes += bytes,
                Part::FinalNorm | Part::FinalNormBias => {}
            }
        }
        sum
    }
}

/// Work for the token at `position`, logits included.
pub(crate) fn flops_at(shape: &ModelShape, position: u32) -> Flops {
    let span: LayerSpan = shape.span();
    shape.flops(span, position..position.saturating_add(1), 1)
}
