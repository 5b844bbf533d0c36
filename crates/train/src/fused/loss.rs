//! The two ends: from tokens to the first hidden state, and from the last one to the loss.

use super::glue::Apply;
use super::halves::{matrix, tensor};
use super::{Fused, Number, zeros};
use burn_backend::TensorMetadata;
use burn_flex::FlexTensor;
use std::marker::PhantomData;
use std::sync::Arc;
use talka_engine::kernels::{Packed, View};

/// Rows of the embedding, as f32.
#[derive(Debug, Clone)]
pub(super) struct Embedding<N> {
    /// What the embedding is held in.
    pub held: PhantomData<N>,
    pub tokens: Arc<[u32]>,
    pub rows: usize,
}

impl<N: Number> Apply<1> for Embedding<N> {
    /// The shape of the embedding.
    type Tape = [usize; 2];

    fn forward(&self, [embedding]: [FlexTensor; 1]) -> (FlexTensor, Self::Tape) {
        let shape @ [_, width] = embedding.shape().dims();
        let numbers = N::of(&embedding);
        let mut out = Vec::with_capacity(self.tokens.len() * width);
        for token in self.tokens.iter() {
            let row = &numbers[*token as usize * width..][..width];
            out.extend(row.iter().map(|number| number.wide()));
        }
        (tensor(out, [self.rows, self.tokens.len() / self.rows, width]), shape)
    }

    fn backward(
        &self,
        shape @ [vocab, width]: Self::Tape,
        gradient: FlexTensor,
    ) -> [FlexTensor; 1] {
        let mut to_embedding = zeros::<f32>(vocab * width);
        let gradients = gradient.storage::<f32>().chunks_exact(width);
        for (token, gradient) in self.tokens.iter().zip(gradients) {
            let row = &mut to_embedding[*token as usize * width..][..width];
            row.iter_mut().zip(gradient).for_each(|(to, more)| *to += more);
        }
        [tensor(to_embedding, shape)]
    }
}

/// Logits that exist at once; more positions go one part after the other.
const LOGITS_MAX: usize = 4 << 20;

/// `scale · Σ -log softmax(rms_norm(x) · headᵀ)[target]`, of `x`, the norm's weights and the head. The gradients are found on
/// the way forth, so that logits never exist all at once.
#[derive(Debug, Clone)]
pub(super) struct Head<N> {
    pub fused: Fused<N>,
    pub targets: Arc<[u32]>,
    pub scale: f32,
    pub wants_gradients: bool,
}

impl<N: Number> Apply<3> for Head<N> {
    /// The gradients of the inputs, but for what comes from above.
    type Tape = Option<[FlexTensor; 3]>;

    fn forward(&self, [x, norm, head]: [FlexTensor; 3]) -> (FlexTensor, Self::Tape) {
        let kernels = self.fused.kernels();
        let [vocab, width] = head.shape().dims();
        let (mut normed, mut scales) =
            (zeros::<N>(self.targets.len() * width), zeros(self.targets.len()));
        let (numbers, weights) = (x.storage(), norm.storage());
        let epsilon = self.fused.0.norm_epsilon;
        kernels.rms_norm_forward(&mut normed, &mut scales, numbers, weights, epsilon);
        let (loss, found) = self.parts(&normed, &head, vocab, width);
        let tape = found.map(|(to_normed, to_head)| {
            let (mut to_x, mut to_norm) = (zeros(to_normed.len()), zeros(width));
            kernels.rms_norm_backward(
                &mut to_x,
                &mut to_norm,
                &to_normed,
                numbers,
                &scales,
                weights,
            );
            [tensor(to_x, x.shape()), tensor(to_norm, norm.shape()), tensor(to_head, head.shape())]
        });
        (tensor(vec![loss as f32], [1]), tape)
    }

    fn backward(&self, tape: Self::Tape, gradient: FlexTensor) -> [FlexTensor; 3] {
        let factor = gradient.storage::<f32>()[0];
        let found = tape.expect("whoever goes back wanted gradients");
        found.map(|mut found| {
            if factor != 1.0 {
                found.storage_mut::<f32>().iter_mut().for_each(|x| *x *= factor);
            }
            found
        })
    }
}

/// The gradients of the hidden states and of the head.
type Ways = (Vec<f32>, Vec<f32>);

impl<N: Number> Head<N> {
    /// The loss, and the gradients of the normed hidden states and of the head.
    fn parts(
        &self,
        normed: &[N],
        head: &FlexTensor,
        vocab: usize,
        width: usize,
    ) -> (f64, Option<Ways>) {
        let kernels = self.fused.kernels();
        let at_once = (LOGITS_MAX / vocab).max(1);
        let [left, right, across] = &mut *self.fused.packed();
        let mut back = Packed::default();
        kernels.pack_right(across, matrix::<N>(head).t(), N::FACTORS);
        let mut found = None;
        if self.wants_gradients {
            kernels.pack_right(&mut back, matrix::<N>(head), N::FACTORS);
            found = Some((zeros::<f32>(normed.len()), zeros::<f32>(vocab * width)));
        }
        let mut logits = Vec::new();
        let mut loss = 0.0;
        for (part, targets) in self.targets.chunks(at_once).enumerate() {
            let places = part * at_once * width..(part * at_once + targets.len()) * width;
            let normed = View::new(&normed[places.clone()], targets.len(), width);
            kernels.pack_left(left, normed, N::FACTORS);
            logits.resize(targets.len() * vocab, 0.0);
            kernels.product(&mut logits, left, across, N::FACTORS, false);
            loss += kernels.cross_entropy(&mut logits, targets, self.scale);
            if let Some((to_normed, to_head)) = &mut found {
                let pulled = View::new(&logits, targets.len(), vocab);
                kernels.pack_left(left, pulled, N::FACTORS);
                kernels.product(&mut to_normed[places], left, &back, N::FACTORS, false);
                kernels.pack_left(left, pulled.t(), N::FACTORS);
                self.fused.times(to_head, left, (right, normed), part > 0);
            }
        }
        (loss, found)
    }
}
