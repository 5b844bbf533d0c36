//! Muon (Jordan et al. 2024): the sum of gradients of a matrix, made nearly orthogonal by five Newton-Schulz steps.
//!
//! The steps' coefficients are the published ones; they bring singular values near 1, not to it. The result is scaled
//! by 0.2 √max(rows, cols), so that its entries are as large as AdamW's and one learning rate and decay serve both
//! (Liu et al. 2025). Unlike the original, products are not in bf16.

use crate::real::Real;
use burn_tensor::{Device, Tensor, TensorData};

/// a, b, c of the polynomial a x + b x³ + c x⁵.
const COEFFICIENTS: [f64; 3] = [3.4445, -4.775, 2.0315];
const STEPS: usize = 5;
/// Root mean square of an AdamW step in units of its learning rate, as measured by Liu et al.
const ADAMW_SIZE: f64 = 0.2;

/// One step for a matrix.
pub(super) struct Step<'a, R> {
    pub momentum: f64,
    pub rate: f64,
    /// Share of each weight that goes.
    pub decay: f64,
    pub gradient: &'a [R],
    /// What gradients are multiplied with first.
    pub scale: f64,
}

pub(super) fn update<R: Real>(
    weights: &mut [R],
    sum: &mut [R],
    shape: [usize; 2],
    step: Step<'_, R>,
) {
    let [momentum, scale] = [step.momentum, step.scale].map(R::from_f64);
    let mut ahead = Vec::with_capacity(sum.len());
    for (sum, gradient) in sum.iter_mut().zip(step.gradient) {
        let gradient = *gradient * scale;
        *sum = *sum * momentum + gradient;
        ahead.push(gradient + *sum * momentum);
    }
    let direction = orthogonal(ahead, shape);
    let size = step.rate * ADAMW_SIZE * (shape[0].max(shape[1]) as f64).sqrt();
    let [stay, size] = [1.0 - step.decay, size].map(R::from_f64);
    for (weight, direction) in weights.iter_mut().zip(direction) {
        *weight = *weight * stay - size * direction;
    }
}

/// The matrix `[rows, cols]` with singular values near 1 that has the singular vectors of `matrix`.
fn orthogonal<R: Real>(matrix: Vec<R>, shape: [usize; 2]) -> Vec<R> {
    let norm = matrix.iter().map(|x| x.to_f64() * x.to_f64()).sum::<f64>().sqrt();
    if norm == 0.0 {
        return matrix;
    }
    let data = TensorData::new(matrix, shape);
    let mut x = Tensor::<2>::from_data(data, (&Device::flex(), R::DTYPE)) / (norm + 1e-7);
    // The product with itself is taken on the shorter side.
    let is_tall = shape[0] > shape[1];
    if is_tall {
        x = x.transpose();
    }
    let [a, b, c] = COEFFICIENTS;
    for _ in 0..STEPS {
        let square = x.clone().matmul(x.clone().transpose());
        let factor = square.clone() * b + square.clone().matmul(square) * c;
        x = x.clone() * a + factor.matmul(x);
    }
    if is_tall {
        x = x.transpose();
    }
    x.into_data().as_slice().expect("as wide as what went in").to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use talka_base::rng::Rng;

    #[test]
    fn singular_values_come_near_one() {
        for shape in [[6, 6], [4, 9], [9, 4]] {
            let mut rng = Rng::new(3);
            let numbers: Vec<f64> =
                (0..shape[0] * shape[1]).map(|_| rng.below(2001) as f64 / 1000.0 - 1.0).collect();
            let result = orthogonal(numbers, shape);
            let short = shape[0].min(shape[1]);
            // The squares of the singular values are the eigenvalues of the product; their sum is its trace.
            let trace = result.iter().map(|x| x * x).sum::<f64>() / short as f64;
            assert!((0.5..1.3).contains(&trace), "{shape:?}: {trace}");
        }
        assert_eq!(orthogonal(vec![0.0_f32; 4], [2, 2]), vec![0.0; 4]);
    }
}
