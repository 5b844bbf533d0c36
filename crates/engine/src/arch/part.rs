//! The tensors of a transformer, by what they are for.

/// A tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// `[V, D]`: token to hidden state.
    Embedding,
    /// `[positions, D]`
    Positions,
    /// `[types, D]`
    Types,
    /// `[D]`: the norm of the embeddings.
    InputNorm,
    /// `[D]`
    InputNormBias,
    /// A tensor of the layer of that number.
    Layer(u32, LayerPart),
    /// `[D]`: the norm after the last layer.
    FinalNorm,
    /// `[D]`
    FinalNormBias,
    /// `[V, D]`: hidden state to logits.
    Head,
}

/// A tensor of one layer. Matrices are `[N, K]`: output features by input features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LayerPart {
    /// Of attention's input, or of its sum with the input, by the placement of norms.
    AttentionNorm,
    AttentionNormBias,
    Query,
    QueryBias,
    QueryNorm,
    Key,
    KeyBias,
    KeyNorm,
    Value,
    ValueBias,
    AttentionOutput,
    AttentionOutputBias,
    AttentionOutputNorm,
    FfnNorm,
    FfnNormBias,
    Gate,
    GateBias,
    Up,
    UpBias,
    Down,
    DownBias,
    FfnOutputNorm,
    /// `[experts, D]`: how much each expert is wanted.
    Router,
    ExpertGate(u32),
    ExpertUp(u32),
    ExpertDown(u32),
}

impl LayerPart {
    /// The matrices that every row goes through.
    pub const LINEAR: [Self; 7] = [
        Self::Query,
        Self::Key,
        Self::Value,
        Self::AttentionOutput,
        Self::Gate,
        Self::Up,
        Self::Down,
    ];
}
