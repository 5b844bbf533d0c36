//! The two halves of a block.

use super::glue::Apply;
use super::{Fused, Number, zeros};
use burn_backend::TensorMetadata;
use burn_flex::FlexTensor;
use burn_tensor::TensorData;
use talka_engine::kernels::{AttentionTape, View};

/// A tensor of `numbers`.
pub(super) fn tensor<M: Number>(
    numbers: Vec<M>,
    shape: impl Into<burn_tensor::Shape>,
) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(numbers, shape))
}

/// A matrix of weights as a factor.
pub(super) fn matrix<M: Number>(weights: &FlexTensor) -> View<'_, M> {
    let [rows, cols] = weights.shape().dims();
    View::new(M::of(weights), rows, cols)
}

/// What is kept of a norm, and its result.
#[derive(Debug)]
struct Normed<N> {
    x: FlexTensor,
    weight: FlexTensor,
    scales: Vec<f32>,
    numbers: Vec<N>,
}

impl<N: Number> Normed<N> {
    fn new(fused: &Fused<N>, x: FlexTensor, weight: FlexTensor) -> Self {
        let count = x.shape().num_elements();
        let width = weight.shape().num_elements();
        let (mut numbers, mut scales) = (zeros(count), zeros(count / width));
        fused.kernels().rms_norm_forward(
            &mut numbers,
            &mut scales,
            x.storage(),
            weight.storage(),
            fused.0.norm_epsilon,
        );
        Self { x, weight, scales, numbers }
    }

    fn positions(&self) -> usize {
        self.scales.len()
    }

    fn view(&self) -> View<'_, N> {
        View::new(&self.numbers, self.positions(), self.numbers.len() / self.positions())
    }

    /// Adds the gradient of `x` to `to_x`; returns that of the weight.
    fn backward(&self, fused: &Fused<N>, to_x: &mut [f32], gradient: &[f32]) -> FlexTensor {
        let mut to_weight = zeros(self.weight.shape().num_elements());
        let (x, weight) = (self.x.storage(), self.weight.storage());
        fused.kernels().rms_norm_backward(to_x, &mut to_weight, gradient, x, &self.scales, weight);
        tensor(to_weight, self.weight.shape())
    }
}

/// `normed · wᵀ` for each `w`.
fn linears<N: Number, const K: usize>(
    fused: &Fused<N>,
    normed: &Normed<N>,
    weights: [&FlexTensor; K],
) -> [Vec<N>; K] {
    let [left, right, _] = &mut *fused.packed();
    fused.kernels().pack_left(left, normed.view(), N::FACTORS);
    weights.map(|weight| {
        let weight = matrix::<N>(weight);
        let mut out = zeros(normed.positions() * weight.rows);
        fused.times(&mut out, left, (right, weight.t()), false);
        out
    })
}

/// `x + inside · weightᵀ`.
fn residual<N: Number>(
    fused: &Fused<N>,
    x: &FlexTensor,
    inside: &[N],
    weight: &FlexTensor,
) -> FlexTensor {
    let weight = matrix::<N>(weight);
    let [left, right, _] = &mut *fused.packed();
    let view = View::new(inside, inside.len() / weight.cols, weight.cols);
    fused.kernels().pack_left(left, view, N::FACTORS);
    let mut out = x.storage::<f32>().to_vec();
    fused.times(&mut out, left, (right, weight.t()), true);
    tensor(out, x.shape())
}

/// The way back of [`residual`]: the gradients of `inside` and of `weight` from that of the result.
fn residual_back<N: Number>(
    fused: &Fused<N>,
    gradient: &[f32],
    inside: &[N],
    weight: &FlexTensor,
) -> (Vec<N>, FlexTensor) {
    let shape = weight.shape();
    let weight = matrix::<N>(weight);
    let positions = inside.len() / weight.cols;
    let gradient = View::new(gradient, positions, weight.rows);
    let [left, right, _] = &mut *fused.packed();
    fused.kernels().pack_left(left, gradient, N::FACTORS);
    let mut to_inside = zeros(inside.len());
    fused.times(&mut to_inside, left, (right, weight), false);
    fused.kernels().pack_left(left, gradient.t(), N::FACTORS);
    let mut to_weight = zeros::<f32>(weight.rows * weight.cols);
    let inside = View::new(inside, positions, weight.cols);
    fused.times(&mut to_weight, left, (right, inside), false);
    (to_inside, tensor(to_weight, shape))
}

/// The way back of [`linears`] and of the norm: adds the gradient of `x` to `to_x`; returns those of the norm's weights and
/// of the matrices.
fn linears_back<N: Number, const K: usize>(
    fused: &Fused<N>,
    normed: &Normed<N>,
    to_x: &mut [f32],
    gradients: [&[N]; K],
    weights: [&FlexTensor; K],
) -> (FlexTensor, [FlexTensor; K]) {
    let positions = normed.positions();
    let mut to_normed = zeros::<f32>(normed.numbers.len());
    let mut to_weights = Vec::new();
    {
        let [left, right, inside] = &mut *fused.packed();
        fused.kernels().pack_right(inside, normed.view(), N::FACTORS);
        for (at, (gradient, weight)) in gradients.iter().zip(weights).enumerate() {
            let shape = weight.shape();
            let weight = matrix::<N>(weight);
            let gradient = View::new(gradient, positions, weight.rows);
            fused.kernels().pack_left(left, gradient, N::FACTORS);
            fused.times(&mut to_normed, left, (right, weight), at > 0);
            fused.kernels().pack_left(left, gradient.t(), N::FACTORS);
            let mut to_weight = zeros::<f32>(weight.rows * weight.cols);
            fused.kernels().product(&mut to_weight, left, inside, N::FACTORS, false);
            to_weights.push(tensor(to_weight, shape));
        }
    }
    let to_norm = normed.backward(fused, to_x, &to_normed);
    (to_norm, to_weights.try_into().expect("one for each weight"))
}

/// `x + attention(rms_norm(x))`, of `x`, the norm's weights, and the matrices of queries, keys, values and results.
#[derive(Debug, Clone)]
pub(super) struct AttentionHalf<N> {
    pub fused: Fused<N>,
}

/// What the way back of an attention needs.
#[derive(Debug)]
pub(super) struct AttentionHalfTape<N> {
    normed: Normed<N>,
    weights: [FlexTensor; 4],
    /// Queries, keys and values, the first two rotated.
    heads: [Vec<N>; 3],
    attended: Vec<N>,
    levels: AttentionTape,
}

impl<N: Number> Apply<6> for AttentionHalf<N> {
    type Tape = AttentionHalfTape<N>;

    fn forward(&self, [x, norm, q, k, v, o]: [FlexTensor; 6]) -> (FlexTensor, Self::Tape) {
        let fused = &self.fused;
        let [rows, length, _] = x.shape().dims();
        let normed = Normed::new(fused, x, norm);
        let mut heads = linears(fused, &normed, [&q, &k, &v]);
        self.rotate(&mut heads, length, false);
        let (mut attended, mut levels) = (zeros(heads[0].len()), AttentionTape::default());
        fused.kernels().attention_forward(
            &mut attended,
            &mut levels,
            heads.each_ref().map(Vec::as_slice),
            fused.shape(rows, length),
            N::FACTORS,
        );
        let out = residual(fused, &normed.x, &attended, &o);
        (out, AttentionHalfTape { normed, weights: [q, k, v, o], heads, attended, levels })
    }

    fn backward(&self, tape: Self::Tape, gradient: FlexTensor) -> [FlexTensor; 6] {
        let fused = &self.fused;
        let [rows, length, _] = gradient.shape().dims();
        let [q, k, v, o] = &tape.weights;
        let mut to_x = gradient.storage::<f32>().to_vec();
        let (to_attended, to_o) = residual_back(fused, &to_x, &tape.attended, o);
        let mut to_heads = tape.heads.each_ref().map(|head| zeros(head.len()));
        fused.kernels().attention_backward(
            to_heads.each_mut().map(Vec::as_mut_slice),
            &to_attended,
            &tape.levels,
            tape.heads.each_ref().map(Vec::as_slice),
            fused.shape(rows, length),
            N::FACTORS,
        );
        self.rotate(&mut to_heads, length, true);
        let gradients = to_heads.each_ref().map(Vec::as_slice);
        let (to_norm, [to_q, to_k, to_v]) =
            linears_back(fused, &tape.normed, &mut to_x, gradients, [q, k, v]);
        [tensor(to_x, gradient.shape()), to_norm, to_q, to_k, to_v, to_o]
    }
}

impl<N: Number> AttentionHalf<N> {
    fn rotate(&self, [q, k, _]: &mut [Vec<N>; 3], length: usize, back: bool) {
        let heads = self.fused.0.heads;
        let angles = self.fused.angles(length);
        self.fused.kernels().rotate(q, heads.query, heads.dim, angles, back);
        self.fused.kernels().rotate(k, heads.kv, heads.dim, angles, back);
    }
}

/// `x + down · (silu(gate · n) · (up · n))` with `n = rms_norm(x)`, of `x`, the norm's weights, and the three matrices.
#[derive(Debug, Clone)]
pub(super) struct FfnHalf<N> {
    pub fused: Fused<N>,
}

/// What the way back of a feed-forward needs.
#[derive(Debug)]
pub(super) struct FfnTape<N> {
    normed: Normed<N>,
    weights: [FlexTensor; 3],
    /// What comes of `gate` and `up`.
    inside: [Vec<N>; 2],
}

impl<N: Number> Apply<5> for FfnHalf<N> {
    type Tape = FfnTape<N>;

    fn forward(&self, [x, norm, gate, up, down]: [FlexTensor; 5]) -> (FlexTensor, Self::Tape) {
        let fused = &self.fused;
        let normed = Normed::new(fused, x, norm);
        let inside = linears(fused, &normed, [&gate, &up]);
        let mut gated = zeros(inside[0].len());
        fused.kernels().swiglu_forward(&mut gated, &inside[0], &inside[1]);
        let out = residual(fused, &normed.x, &gated, &down);
        (out, FfnTape { normed, weights: [gate, up, down], inside })
    }

    fn backward(&self, tape: Self::Tape, gradient: FlexTensor) -> [FlexTensor; 5] {
        let fused = &self.fused;
        let FfnTape { normed, weights: [gate, up, down], inside: [mut g, mut u] } = tape;
        let mut to_x = gradient.storage::<f32>().to_vec();
        // Cheaper to compute again than to keep.
        let mut gated = zeros(g.len());
        fused.kernels().swiglu_forward(&mut gated, &g, &u);
        let (to_gated, to_down) = residual_back(fused, &to_x, &gated, &down);
        drop(gated);
        fused.kernels().swiglu_backward(&mut g, &mut u, &to_gated);
        drop(to_gated);
        let (to_norm, [to_gate, to_up]) =
            linears_back(fused, &normed, &mut to_x, [&g, &u], [&gate, &up]);
        [tensor(to_x, gradient.shape()), to_norm, to_gate, to_up, to_down]
    }
}
