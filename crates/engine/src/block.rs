//! One layer of a transformer: attention and a feed-forward, with norms and residual connections where
//! the family puts them.

use crate::{
    arch::{Architecture, Experts, LayerPart, NormKind, Part, Placement, QkNorm},
    error::ModelError,
    formats::TensorTable,
    kernels::Kernels,
    kv::Batch,
    lora::Adapted,
    weight::{Weight, load_vector},
};

/// The weights of one layer. Matrices are `[N, K]`; D is the hidden width, Q and KV the widths of
/// all query and all key heads, F that of the feed-forward.
#[derive(Debug)]
pub(crate) struct Block {
    /// Of attention's input, or of the sum after it.
    attention_norm: Option<NormWeights>, // [D]
    query: Linear,                              // [Q, D]
    key: Linear,                                // [KV, D]
    value: Linear,                              // [KV, D]
    query_norm: Option<Vec<f32>>,               // [head_dim] or [Q]
    key_norm: Option<Vec<f32>>,                 // [head_dim] or [KV]
    attention_output: Linear,                   // [D, Q]
    attention_output_norm: Option<NormWeights>, // [D]
    ffn_norm: Option<NormWeights>,              // [D]
    feed_forward: FeedForward,
    ffn_output_norm: Option<NormWeights>, // [D]
}

/// A matrix and what is added to its products.
#[derive(Debug)]
struct Linear {
    /// What it is to adapters.
    part: LayerPart,
    weight: Weight,         // [N, K]
    bias: Option<Vec<f32>>, // [N]
}

impl Linear {
    /// `out` `[T, N]` is what it makes of `x` `[T, K]`, the rows of the batch.
    fn run(&self, kernels: &Kernels, adapted: &Adapted, out: &mut [f32], x: &[f32]) {
        kernels.matmul(out, x, self.weight.matrix());
        adapted.change(kernels, self.part, out, x);
        if let Some(bias) = &self.bias {
            kernels.add_rows(out, bias);
        }
    }
}

/// The weights of a norm, and what a layer norm adds.
#[derive(Debug)]
pub(crate) struct NormWeights {
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl NormWeights {
    /// # Errors
    /// Names the tensor that is missing or wrong.
    pub fn load(
        table: &TensorTable,
        architecture: &Architecture,
        weight: Part,
        bias: Part,
    ) -> Result<Self, ModelError> {
        let mut loaded = load_vector(table, architecture, weight)?;
        loaded.iter_mut().for_each(|weight| *weight += architecture.norm.offset);
        let bias = (architecture.norm.kind == NormKind::Layer)
            .then(|| load_vector(table, architecture, bias))
            .transpose()?;
        Ok(Self { weight: loaded, bias })
    }

    /// `out` is the norm of the rows of `x`.
    pub fn run(&self, kernels: &Kernels, architecture: &Architecture, out: &mut [f32], x: &[f32]) {
        let epsilon = architecture.norm.epsilon;
        match &self.bias {
            None => kernels.rms_norm(out, x, &self.weight, epsilon),
            Some(bias) => kernels.layer_norm(out, x, &self.weight, bias, epsilon),
        }
    }
}

#[derive(Debug)]
enum FeedForward {
    Dense(Dense),
    Experts { router: Weight, experts: Vec<Dense> },
}

/// Gate, up and down: SwiGLU and its like (Shazeer 2020), or without a gate the original.
#[derive(Debug)]
struct Dense {
    gate: Option<Linear>, // [F, D]
    up: Linear,           // [F, D]
    down: Linear,         // [D, F]
}

/// Memory reused from call to call. Each is `[T, ...]` of the positions of the current chunk.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// The residual stream, `[T, D]`.
    pub hidden: Vec<f32>,
    /// Its norm, `[T, D]`.
    pub normed: Vec<f32>,
    /// What attention or feed-forward returns, `[T, D]`.
    output: Vec<f32>,
    query: Vec<f32>,    // [T, Q]
    key: Vec<f32>,      // [T, KV]
    value: Vec<f32>,    // [T, KV]
    attended: Vec<f32>, // [T, Q]
    inner: Inner,
    /// For each rope the cosines and sines of all positions, `[T, head_dim / 2]`.
    angles: Vec<(Vec<f32>, Vec<f32>)>,
    routing: Routing,
    adapted: Adapted,
}

/// Within a feed-forward.
#[derive(Debug, Default)]
struct Inner {
    gate: Vec<f32>, // [T, F]
    up: Vec<f32>,   // [T, F]
}

/// Which rows go to which expert.
#[derive(Debug, Default)]
struct Routing {
    scores: Vec<f32>, // [T, experts]
    /// For each expert the rows it sees and the weight of what it says of each.
    chosen: Vec<Vec<(usize, f32)>>,
    input: Vec<f32>,  // [rows, D]
    output: Vec<f32>, // [rows, D]
}

impl Scratch {
    /// Makes room for the rows of `batch`, and computes their angles.
    pub fn begin(&mut self, architecture: &Architecture, batch: &Batch<'_>) {
        let positions = batch.rows();
        let shape = &architecture.shape;
        let [hidden, heads, kv_heads, dim] =
            [shape.hidden, shape.heads, shape.kv_heads, shape.head_dim].map(|n| n as usize);
        for (buffer, width) in [
            (&mut self.hidden, hidden),
            (&mut self.normed, hidden),
            (&mut self.output, hidden),
            (&mut self.query, heads * dim),
            (&mut self.key, kv_heads * dim),
            (&mut self.value, kv_heads * dim),
            (&mut self.attended, heads * dim),
        ] {
            // Old numbers stay: every operation overwrites its output.
            buffer.resize(positions * width, 0.0);
        }
        batch.adapted(&mut self.adapted);
        self.angles.resize_with(architecture.ropes.len(), Default::default);
        for (rope, (cos, sin)) in architecture.ropes.iter().zip(&mut self.angles) {
            rope.tables(batch.positions(), cos, sin);
        }
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
        use LayerPart as P;
        let part = |part| Part::Layer(layer, part);
        let weight = |at| Weight::load(table, architecture, part(at), kernels);
        let vector = |at, wanted: bool| {
            wanted.then(|| load_vector(table, architecture, part(at))).transpose()
        };
        let linear = |at, bias, wanted| {
            let (weight, bias) = (weight(at)?, vector(bias, wanted)?);
            Ok::<_, ModelError>(Linear { part: at, weight, bias })
        };
        let norm = |at, bias, wanted: bool| {
            let load = || NormWeights::load(table, architecture, part(at), part(bias));
            wanted.then(load).transpose()
        };
        let (attention, rule) = (&architecture.attention, &architecture.feed_forward);
        let (first, second) =
            (architecture.placement != Placement::After, architecture.has_output_norms());
        let qk = attention.qk_norm.is_some();
        let offset = |norm: Option<Vec<f32>>| {
            norm.map(|norm| norm.iter().map(|w| w + architecture.norm.offset).collect())
        };
        let experts = rule.experts.filter(|_| architecture.layers[layer as usize].experts);
        let feed_forward = match experts {
            Some(Experts { count, .. }) => {
                let expert = |e| {
                    Ok(Dense {
                        gate: Some(linear(P::ExpertGate(e), P::GateBias, false)?),
                        up: linear(P::ExpertUp(e), P::UpBias, false)?,
                        down: linear(P::ExpertDown(e), P::DownBias, false)?,
                    })
                };
                let experts = (0..count).map(expert).collect::<Result<_, ModelError>>()?;
                FeedForward::Experts { router: weight(P::Router)?, experts }
            }
            None => FeedForward::Dense(Dense {
                gate: rule.gated.then(|| linear(P::Gate, P::GateBias, rule.bias)).transpose()?,
                up: linear(P::Up, P::UpBias, rule.bias)?,
                down: linear(P::Down, P::DownBias, rule.bias)?,
            }),
        };
        Ok(Self {
            attention_norm: norm(P::AttentionNorm, P::AttentionNormBias, first)?,
            query: linear(P::Query, P::QueryBias, attention.bias)?,
            key: linear(P::Key, P::KeyBias, attention.bias)?,
            value: linear(P::Value, P::ValueBias, attention.bias)?,
            query_norm: offset(vector(P::QueryNorm, qk)?),
            key_norm: offset(vector(P::KeyNorm, qk)?),
            attention_output: linear(
                P::AttentionOutput,
                P::AttentionOutputBias,
                attention.output_bias,
            )?,
            // Families with these norms have no biases in them.
            attention_output_norm: norm(P::AttentionOutputNorm, P::AttentionNormBias, second)?,
            ffn_norm: norm(P::FfnNorm, P::FfnNormBias, first)?,
            feed_forward,
            ffn_output_norm: norm(P::FfnOutputNorm, P::FfnNormBias, second)?,
        })
    }

    /// Advances `scratch.hidden` `[T, D]`, the rows of `batch`, by this layer, number `layer` of the
    /// model, and writes their keys and values to layer `index` of the batch's caches.
    pub fn run(
        &self,
        kernels: &Kernels,
        architecture: &Architecture,
        s: &mut Scratch,
        batch: &mut Batch<'_>,
        index: usize,
        layer: u32,
    ) {
        s.adapted.set_layer(layer);
        let residual = architecture.placement == Placement::Residual;
        let norms = [
            (&self.attention_norm, &self.attention_output_norm),
            (&self.ffn_norm, &self.ffn_output_norm),
        ];
        for (half, (norm, output_norm)) in norms.into_iter().enumerate() {
            match norm {
                Some(norm) if !residual => {
                    norm.run(kernels, architecture, &mut s.normed, &s.hidden);
                }
                _ => s.normed.copy_from_slice(&s.hidden),
            }
            match half {
                0 => self.attend(kernels, architecture, s, batch, index, layer),
                _ => self.feed_forward.run(kernels, architecture, s),
            }
            if let Some(norm) = output_norm {
                norm.run(kernels, architecture, &mut s.normed, &s.output);
                std::mem::swap(&mut s.normed, &mut s.output);
            }
            kernels.add(&mut s.hidden, &s.output);
            if let (Some(norm), true) = (norm, residual) {
                norm.run(kernels, architecture, &mut s.normed, &s.hidden);
                std::mem::swap(&mut s.normed, &mut s.hidden);
            }
        }
    }

    /// `output` is what attention makes of `normed`.
    fn attend(
        &self,
        kernels: &Kernels,
        architecture: &Architecture,
        s: &mut Scratch,
        batch: &mut Batch<'_>,
        index: usize,
        layer: u32,
    ) {
        let (shape, settings) = (&architecture.shape, &architecture.attention);
        let rule = &architecture.layers[layer as usize];
        let [heads, kv_heads, dim] =
            [shape.heads, shape.kv_heads, shape.head_dim].map(|n| n as usize);
        self.query.run(kernels, &s.adapted, &mut s.query, &s.normed);
        self.key.run(kernels, &s.adapted, &mut s.key, &s.normed);
        self.value.run(kernels, &s.adapted, &mut s.value, &s.normed);
        debug_assert!(
            settings.qk_norm != Some(QkNorm::Heads)
                || self.query_norm.as_ref().is_some_and(|norm| norm.len() == dim)
        );
        for (norm, rows) in [(&self.query_norm, &mut s.query), (&self.key_norm, &mut s.key)] {
            if let Some(norm) = norm {
                kernels.rms_norm_in_place(rows, norm, architecture.norm.epsilon);
            }
        }
        if let Some((cos, sin)) = s.angles.get(rule.rope) {
            kernels.rope(&mut s.query, dim, heads, cos, sin);
            kernels.rope(&mut s.key, dim, kv_heads, cos, sin);
        }
        batch.write(index, &s.key, &s.value);
        let rule = architecture.attention_rule(layer);
        batch.attend(kernels, index, &mut s.attended, &s.query, heads, &rule);
        self.attention_output.run(kernels, &s.adapted, &mut s.output, &s.attended);
    }
}

impl FeedForward {
    /// `output` is what the feed-forward makes of `normed`.
    fn run(&self, kernels: &Kernels, architecture: &Architecture, s: &mut Scratch) {
        match self {
            Self::Dense(dense) => {
                let Scratch { inner, adapted, output, normed, .. } = s;
                dense.run(kernels, architecture, adapted, inner, output, normed);
            }
            Self::Experts { router, experts } => {
                run_experts(kernels, architecture, router, experts, s);
            }
        }
    }
}

impl Dense {
    fn run(
        &self,
        kernels: &Kernels,
        architecture: &Architecture,
        adapted: &Adapted,
        inner: &mut Inner,
        out: &mut [f32],
        x: &[f32],
    ) {
        let rows = x.len() / architecture.shape.hidden as usize;
        let width = self.up.weight.matrix().rows();
        let activation = architecture.feed_forward.activation;
        inner.up.resize(rows * width, 0.0);
        self.up.run(kernels, adapted, &mut inner.up, x);
        let activated = match &self.gate {
            Some(gate) => {
                inner.gate.resize(rows * width, 0.0);
                gate.run(kernels, adapted, &mut inner.gate, x);
                kernels.activate_mul(activation, &mut inner.gate, &inner.up);
                &inner.gate
            }
            None => {
                kernels.activate(activation, &mut inner.up);
                &inner.up
            }
        };
        self.down.run(kernels, adapted, out, activated);
    }
}

/// Each expert sees the rows that chose it, together; what they say is added in the order of experts, so
/// that a row's bits do not depend on its company.
fn run_experts(
    kernels: &Kernels,
    architecture: &Architecture,
    router: &Weight,
    experts: &[Dense],
    s: &mut Scratch,
) {
    let rule = architecture.feed_forward.experts.expect("a layer of experts has their rule");
    let width = architecture.shape.hidden as usize;
    let routing = &mut s.routing;
    routing.scores.resize(s.normed.len() / width * experts.len(), 0.0);
    kernels.matmul(&mut routing.scores, &s.normed, router.matrix());
    routing.choose(&rule);
    s.output.fill(0.0);
    for (expert, rows) in experts.iter().zip(&routing.chosen) {
        if rows.is_empty() {
            continue;
        }
        routing.input.clear();
        for (row, _) in rows {
            routing.input.extend_from_slice(&s.normed[row * width..(row + 1) * width]);
        }
        routing.output.resize(routing.input.len(), 0.0);
        // No adapter changes an expert: these rows are not those of the batch.
        let (input, output) = (&routing.input, &mut routing.output);
        expert.run(kernels, architecture, &s.adapted, &mut s.inner, output, input);
        for ((row, weight), said) in rows.iter().zip(routing.output.chunks_exact(width)) {
            let out = &mut s.output[row * width..(row + 1) * width];
            for (out, said) in out.iter_mut().zip(said) {
                *out += weight * said;
            }
        }
    }
}

impl Routing {
    /// Gives each row to the experts with the largest probabilities; of equals to the first.
    fn choose(&mut self, rule: &Experts) {
        let (count, used) = (rule.count as usize, rule.used as usize);
        self.chosen.resize_with(count, Vec::new);
        self.chosen.iter_mut().for_each(Vec::clear);
        let mut order: Vec<usize> = Vec::with_capacity(count);
        for (row, scores) in self.scores.chunks_exact_mut(count).enumerate() {
            let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            scores.iter_mut().for_each(|score| *score = (*score - largest).exp());
            let total: f32 = scores.iter().sum();
            scores.iter_mut().for_each(|score| *score /= total);
            order.clear();
            order.extend(0..count);
            order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
            let chosen = &order[..used];
            let share: f32 =
                if rule.normalise { chosen.iter().map(|e| scores[*e]).sum() } else { 1.0 };
            for &expert in chosen {
                self.chosen[expert].push((row, scores[expert] / share));
            }
        }
    }
}
