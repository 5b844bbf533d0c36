//! Parts of the model as single operations with their own way back, on the CPU's kernels.
//!
//! Three operations make a model: the half of a block with the attention, the half with the feed-forward, and the end
//! with the loss; and one for the embedding. What burn's autodiff sees is these four. They mean what [`crate::ops`]
//! says, and are compared with it. `N` is what is kept between products: f32, or bf16, to which factors are rounded
//! then. The residual stream, sums and all gradients of weights are f32.

mod glue;
mod halves;
mod loss;

use crate::config::ModelConfig;
use crate::ops::{Heads, angle};
use burn_flex::FlexTensor;
use burn_tensor::{Element, Tensor};
pub(crate) use glue::Apply;
use halves::{AttentionHalf, FfnHalf};
use loss::{Embedding, Head};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use talka_engine::kernels::{
    AttentionShape, Factors, Kernels, Number as KernelNumber, Packed, View,
};

/// What is kept between products.
pub(crate) trait Number: KernelNumber + Element + std::fmt::Debug {
    /// What factors are rounded to.
    const FACTORS: Factors;
    /// The numbers of a tensor that holds such.
    fn of(tensor: &FlexTensor) -> &[Self];
}

impl Number for f32 {
    const FACTORS: Factors = Factors::F32;

    fn of(tensor: &FlexTensor) -> &[Self] {
        tensor.storage()
    }
}

impl Number for half::bf16 {
    const FACTORS: Factors = Factors::Bf16;

    fn of(tensor: &FlexTensor) -> &[Self] {
        tensor.storage()
    }
}

/// The operations of one model.
#[derive(Debug, Clone)]
pub(crate) struct Fused<N>(Arc<Shared>, PhantomData<N>);

#[derive(Debug)]
struct Shared {
    kernels: Kernels,
    heads: Heads,
    norm_epsilon: f32,
    /// `[context, head_dim / 2]`.
    cos: Vec<f32>,
    /// As `cos`.
    sin: Vec<f32>,
    /// Where factors are packed; only one product runs at a time.
    packed: Mutex<[Packed; 3]>,
}

impl<N: Number> Fused<N> {
    pub fn new(config: &ModelConfig, heads: Heads, kernels: Kernels) -> Self {
        let half = heads.dim / 2;
        let angles: Vec<f64> = (0..config.context as usize)
            .flat_map(|position| (0..half).map(move |at| f64::from(angle(position, at, heads))))
            .collect();
        let shared = Shared {
            kernels,
            heads,
            norm_epsilon: config.norm_epsilon as f32,
            cos: angles.iter().map(|angle| angle.cos() as f32).collect(),
            sin: angles.iter().map(|angle| angle.sin() as f32).collect(),
            packed: Mutex::default(),
        };
        Self(Arc::new(shared), PhantomData)
    }

    /// As [`crate::model::Model::embed`].
    pub fn embed(&self, embedding: Tensor<2>, tokens: &[u32], rows: usize) -> Tensor<3> {
        let op = Embedding::<N> { held: PhantomData, tokens: tokens.into(), rows };
        op.apply([embedding.into_dispatch()])
    }

    /// As [`crate::model::Model::block`].
    pub fn block(&self, x: Tensor<3>, weights: &[Tensor<2>]) -> Tensor<3> {
        let [q, k, v, o, gate, up, down, before_attention, before_ffn] =
            std::array::from_fn(|at| weights[at].clone().into_dispatch());
        let x: Tensor<3> = AttentionHalf { fused: self.clone() }.apply([
            x.into_dispatch(),
            before_attention,
            q,
            k,
            v,
            o,
        ]);
        FfnHalf { fused: self.clone() }.apply([x.into_dispatch(), before_ffn, gate, up, down])
    }

    /// As [`crate::model::Model::loss`].
    pub fn loss(
        &self,
        x: Tensor<3>,
        norm: Tensor<2>,
        head: Tensor<2>,
        targets: &[u32],
        scale: f64,
    ) -> Tensor<1> {
        let wants_gradients = x.is_tracked();
        let op = Head {
            fused: self.clone(),
            targets: targets.into(),
            scale: scale as f32,
            wants_gradients,
        };
        op.apply([x.into_dispatch(), norm.into_dispatch(), head.into_dispatch()])
    }

    fn kernels(&self) -> &Kernels {
        &self.0.kernels
    }

    fn packed(&self) -> MutexGuard<'_, [Packed; 3]> {
        // Only memory to write to: nothing in it can be half done.
        self.0.packed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shape(&self, rows: usize, length: usize) -> AttentionShape {
        let Heads { query, kv, dim, .. } = self.0.heads;
        AttentionShape { rows, length, heads: query, kv_heads: kv, head_dim: dim }
    }

    fn angles(&self, length: usize) -> [&[f32]; 2] {
        let count = length * self.0.heads.dim / 2;
        [&self.0.cos[..count], &self.0.sin[..count]]
    }

    /// `out = left`, packed before, `· right`, or added to it.
    fn times<M: Number, O: KernelNumber>(
        &self,
        out: &mut [O],
        left: &Packed,
        (spare, right): (&mut Packed, View<'_, M>),
        adds: bool,
    ) {
        self.kernels().pack_right(spare, right, N::FACTORS);
        self.kernels().product(out, left, spare, N::FACTORS, adds);
    }
}

/// As many numbers, all zero.
fn zeros<M: KernelNumber>(length: usize) -> Vec<M> {
    vec![M::default(); length]
}
