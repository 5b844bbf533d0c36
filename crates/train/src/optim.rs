//! From gradients to new weights: AdamW and Muon, on the flat row of weights.
//!
//! Decides the update and keeps the moments, which are f32 where weights are. Never computes a gradient and knows no
//! schedule: the rate of a step is handed in. AdamW rounds as PyTorch's does, operation by operation.

mod muon;

use crate::config::OptimiserConfig;
use crate::parameters::{Parameter, Parameters, Role};
use crate::real::Real;
use serde::{Deserialize, Serialize};
use talka_engine::kernels::{self, Kernels};

/// What an optimiser remembers between steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moments<R> {
    /// Updates so far; the moments grow from zero over the first ones.
    pub updates: u64,
    /// Per weight, in order: the mean gradient; for Muon's matrices the sum.
    pub first: Vec<R>,
    /// Per weight of AdamW's tensors, in order: the mean squared gradient. Muon's matrices have none.
    pub second: Vec<R>,
}

/// The optimiser of one model.
#[derive(Debug)]
pub(crate) struct Optimiser<R> {
    config: OptimiserConfig,
    moments: Moments<R>,
}

/// Which update a tensor gets.
fn is_muons(config: &OptimiserConfig, tensor: &Parameter) -> bool {
    matches!(config, OptimiserConfig::Muon(_)) && tensor.role == Role::Matrix
}

/// How many numbers `first` and `second` of [`Moments`] have.
pub(crate) fn moment_lengths(config: &OptimiserConfig, parameters: &Parameters) -> [usize; 2] {
    let adamws = parameters.tensors().iter().filter(|tensor| !is_muons(config, tensor));
    [parameters.len(), adamws.map(|tensor| tensor.range.len()).sum()]
}

impl<R: Real> Optimiser<R> {
    pub fn new(config: OptimiserConfig, parameters: &Parameters) -> Self {
        let [first, second] = moment_lengths(&config, parameters);
        let zero = R::from_f64(0.0);
        let moments = Moments { updates: 0, first: vec![zero; first], second: vec![zero; second] };
        Self { config, moments }
    }

    pub fn moments(&self) -> &Moments<R> {
        &self.moments
    }

    /// `moments` must have this optimiser's lengths.
    pub fn set_moments(&mut self, moments: Moments<R>) {
        self.moments = moments;
    }

    pub fn reset(&mut self) {
        self.moments.updates = 0;
        self.moments.first.fill(R::from_f64(0.0));
        self.moments.second.fill(R::from_f64(0.0));
    }

    /// Changes `weights` by one step. `gradients` are one slice per tensor, each times `scale`; `factor` is the
    /// schedule's.
    pub fn update(
        &mut self,
        parameters: &Parameters,
        weights: &mut [R],
        gradients: &[&[R]],
        scale: f64,
        factor: f64,
        kernels: &Kernels,
    ) {
        self.moments.updates += 1;
        let adamw = self.config.adamw().clone();
        let rate = adamw.learning_rate * factor;
        let mut second = self.moments.second.as_mut_slice();
        for (tensor, gradient) in parameters.tensors().iter().zip(gradients) {
            let weights = &mut weights[tensor.range.clone()];
            let first = &mut self.moments.first[tensor.range.clone()];
            let decays = tensor.role != Role::Norm || adamw.decay_norms;
            let decay = if decays { rate * adamw.weight_decay } else { 0.0 };
            if let (OptimiserConfig::Muon(muon), Role::Matrix) = (&self.config, tensor.role) {
                let momentum = muon.momentum;
                let step = muon::Step { momentum, rate, decay, gradient, scale };
                muon::update(weights, first, [tensor.rows, tensor.cols], step);
                continue;
            }
            let (here, rest) = std::mem::take(&mut second).split_at_mut(weights.len());
            second = rest;
            let step = AdamStep {
                beta1: adamw.beta1,
                beta2: adamw.beta2,
                epsilon: adamw.epsilon,
                step_size: rate / (1.0 - power(adamw.beta1, self.moments.updates)),
                root_correction: (1.0 - power(adamw.beta2, self.moments.updates)).sqrt(),
                decay,
                scale,
            };
            step.run(weights, gradient, first, here, kernels);
        }
    }
}

/// `base` to the power of `exponent`, for any number of steps.
fn power(base: f64, exponent: u64) -> f64 {
    base.powf(exponent as f64)
}

/// One step of AdamW for a tensor.
struct AdamStep {
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    /// The learning rate over what the first moment lacks.
    step_size: f64,
    /// The root of what the second moment lacks.
    root_correction: f64,
    /// Share of each weight that goes.
    decay: f64,
    /// What gradients are multiplied with first.
    scale: f64,
}

impl AdamStep {
    fn run<R: Real>(
        &self,
        weights: &mut [R],
        gradient: &[R],
        first: &mut [R],
        second: &mut [R],
        kernels: &Kernels,
    ) {
        if let Some(gradient) = R::as_f32(gradient) {
            let [weights, first, second] = [weights, first, second]
                .map(|numbers| R::as_f32_mut(numbers).expect("as wide as the gradient"));
            return kernels.adamw(weights, [first, second], gradient, self.narrow());
        }
        let keep1 = R::from_f64(1.0 - self.beta1);
        let [beta2, keep2] = [self.beta2, 1.0 - self.beta2].map(R::from_f64);
        let [epsilon, correction, size] =
            [self.epsilon, self.root_correction, self.step_size].map(R::from_f64);
        let [stay, scale] = [1.0 - self.decay, self.scale].map(R::from_f64);
        let moments = first.iter_mut().zip(second);
        for ((weight, gradient), (first, second)) in weights.iter_mut().zip(gradient).zip(moments) {
            let gradient = *gradient * scale;
            *first += keep1 * (gradient - *first);
            *second = *second * beta2 + keep2 * gradient * gradient;
            let root = second.root() / correction + epsilon;
            *weight = *weight * stay - size * *first / root;
        }
    }

    fn narrow(&self) -> kernels::AdamStep {
        kernels::AdamStep {
            keep1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            keep2: (1.0 - self.beta2) as f32,
            epsilon: self.epsilon as f32,
            size: self.step_size as f32,
            root_correction: self.root_correction as f32,
            stay: (1.0 - self.decay) as f32,
            scale: self.scale as f32,
        }
    }
}
