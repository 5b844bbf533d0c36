//! One layer of a decoder: attention and a gated feed-forward, each behind a norm and a residual.

use crate::{
    arch::{Architecture, LayerPart, Part},
    error::ModelError,
    formats::TensorTable,
    kernels::{AttentionRule, Kernels},
    kv::Batch,
    rope::Rope,
    weight::{Weight, load_norm},
};
use talka_base::ModelShape;

/// The weights of one layer. Matrices are `[N, K]`; D is the hidden width, Q and KV the widths of
/// all query and all key heads, F that of the feed-forward.
#[derive(Debug)]
pub(crate) struct Block {
    attention_norm: Vec<f32>, // [D]
    query: Weight,            // [Q, D]
    key: Weight,              // [KV, D]
    value: Weight,            // [KV, D]
    attention_output: Weight, // [D, Q]
    ffn_norm: Vec<f32>,       // [D]
    gate: Weight,             // [F, D]
    up: Weight,               // [F, D]
    down: Weight,             // [D, F]
}

/// Memory reused from call to call. Each is `[T, ...]` of the positions of the current chunk.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// The residual stream, `[T, D]`.
    pub hidden: Vec<f32>,
    /// Its norm, `[T, D]`.
    pub normed: Vec<f32>,
    query: Vec<f32>,    // [T, Q]
    key: Vec<f32>,      // [T, KV]
    value: Vec<f32>,    // [T, KV]
    attended: Vec<f32>, // [T, Q]
    gate: Vec<f32>,     // [T, F]
    up: Vec<f32>,       // [T, F]
    cos: Vec<f32>,      // [T, head_dim / 2]
    sin: Vec<f32>,      // [T, head_dim / 2]
}

impl Scratch {
    /// Makes room for the rows of `batch`, and computes their angles.
    pub fn begin(&mut self, shape: &ModelShape, rope: &Rope, batch: &Batch<'_>) {
        let positions = batch.rows();
        let [hidden, heads, kv_heads, dim, ffn] =
            [shape.hidden, shape.heads, shape.kv_heads, shape.head_dim, shape.ffn]
                .map(|n| n as usize);
        for (buffer, width) in [
            (&mut self.hidden, hidden),
            (&mut self.normed, hidden),
            (&mut self.query, heads * dim),
            (&mut self.key, kv_heads * dim),
            (&mut self.value, kv_heads * dim),
            (&mut self.attended, heads * dim),
            (&mut self.gate, ffn),
            (&mut self.up, ffn),
        ] {
            // Old numbers stay: every operation overwrites its output.
            buffer.resize(positions * width, 0.0);
        }
        rope.tables(batch.positions(), &mut self.cos, &mut self.sin);
    }
}

impl Block {
    /// # Errors
    /// Names the first tensor of the layer that is missing or wrong.
    pub fn load(
        table: &TensorTable,
        architecture: &Architecture,
        layer: u32,
        kernels: &Kernels,
    ) -> Result<Self, ModelError> {
        let norm = |part| load_norm(table, architecture, Part::Layer(layer, part));
        let weight = |part| Weight::load(table, architecture, Part::Layer(layer, part), kernels);
        Ok(Self {
            attention_norm: norm(LayerPart::AttentionNorm)?,
            query: weight(LayerPart::Query)?,
            key: weight(LayerPart::Key)?,
            value: weight(LayerPart::Value)?,
            attention_output: weight(LayerPart::AttentionOutput)?,
            ffn_norm: norm(LayerPart::FfnNorm)?,
            gate: weight(LayerPart::Gate)?,
            up: weight(LayerPart::Up)?,
            down: weight(LayerPart::Down)?,
        })
    }

    /// Advances `scratch.hidden` `[T, D]`, the rows of `batch`, by this layer, and writes their keys
    /// and values to layer `index` of the batch's caches.
    pub fn run(
        &self,
        kernels: &Kernels,
        architecture: &Architecture,
        scratch: &mut Scratch,
        batch: &mut Batch<'_>,
        index: usize,
    ) {
        self.attend(kernels, architecture, scratch, batch, index);
        self.feed_forward(kernels, architecture, scratch);
    }

    fn attend(
        &self,
        kernels: &Kernels,
        architecture: &Architecture,
        s: &mut Scratch,
        batch: &mut Batch<'_>,
        index: usize,
    ) {
        let [heads, kv_heads, dim] = {
            let shape = &architecture.shape;
            [shape.heads, shape.kv_heads, shape.head_dim].map(|n| n as usize)
        };
        kernels.rms_norm(&mut s.normed, &s.hidden, &self.attention_norm, architecture.norm_epsilon);
        kernels.matmul(&mut s.query, &s.normed, self.query.matrix());
        kernels.matmul(&mut s.key, &s.normed, self.key.matrix());
        kernels.matmul(&mut s.value, &s.normed, self.value.matrix());
        kernels.rope(&mut s.query, dim, heads, &s.cos, &s.sin);
        kernels.rope(&mut s.key, dim, kv_heads, &s.cos, &s.sin);
        batch.write(index, &s.key, &s.value);
        let scale = (dim as f32).sqrt().recip();
        let rule = AttentionRule { scale, window: None, softcap: None, causal: true };
        batch.attend(kernels, index, &mut s.attended, &s.query, heads, &rule);
        kernels.matmul_add(&mut s.hidden, &s.attended, self.attention_output.matrix());
    }

    fn feed_forward(&self, kernels: &Kernels, architecture: &Architecture, s: &mut Scratch) {
        kernels.rms_norm(&mut s.normed, &s.hidden, &self.ffn_norm, architecture.norm_epsilon);
        kernels.matmul(&mut s.gate, &s.normed, self.gate.matrix());
        kernels.matmul(&mut s.up, &s.normed, self.up.matrix());
        kernels.silu_mul(&mut s.gate, &s.up);
        kernels.matmul_add(&mut s.hidden, &s.gate, self.down.matrix());
    }
}
