//! The gradients of all tensors, added up over the parts of a batch.

use crate::real::Real;
use burn_tensor::{Tensor, TensorData};
use std::marker::PhantomData;
use talka_engine::kernels::Kernels;

/// One gradient per tensor of a layout.
pub(crate) struct Gradients<R> {
    tensors: Vec<Option<TensorData>>,
    width: PhantomData<R>,
}

impl<R: Real> Gradients<R> {
    pub fn new() -> Self {
        Self { tensors: Vec::new(), width: PhantomData }
    }

    /// Adds to the gradient of tensor `index`.
    pub fn add(&mut self, index: usize, gradient: Option<Tensor<2>>) {
        let Some(gradient) = gradient else { return };
        if self.tensors.len() <= index {
            self.tensors.resize(index + 1, None);
        }
        let more = gradient.into_data();
        match &mut self.tensors[index] {
            None => self.tensors[index] = Some(more),
            Some(sum) => {
                let sum = sum.as_mut_slice::<R>().expect("as wide as the weights");
                for (sum, more) in sum.iter_mut().zip(numbers(&more)) {
                    *sum += *more;
                }
            }
        }
    }

    /// All of them, in order.
    pub fn slices(&self) -> Vec<&[R]> {
        let all = self.tensors.iter().map(|tensor| tensor.as_ref());
        all.map(|tensor| numbers(tensor.expect("the loss depends on every tensor"))).collect()
    }

    /// The root of the sum of all squares.
    pub fn norm(&self, kernels: &Kernels) -> f64 {
        let squares = |slice: &[R]| match R::as_f32(slice) {
            Some(slice) => kernels.sum_of_squares(slice),
            None => slice.iter().map(|x| x.to_f64() * x.to_f64()).sum(),
        };
        self.slices().into_iter().map(squares).sum::<f64>().sqrt()
    }
}

fn numbers<R: Real>(tensor: &TensorData) -> &[R] {
    tensor.as_slice().expect("as wide as the weights")
}
