//! Steps of training on one machine.
//!
//! Decides the course of a step: gradients of a batch, in as many pieces as the configuration says, shortened to the
//! clip's norm, then one update. Holds weights and moments; knows no file and no other machine. The same weights,
//! moments and batches give the same bits on one machine, with any number of threads.

use crate::config::{ConfigError, TrainConfig};
use crate::gradients::Gradients;
use crate::model::Model;
use crate::ops::Ops;
use crate::optim::{Moments, Optimiser, moment_lengths};
use crate::parameters::{Parameter, Parameters, Role, TENSORS_PER_BLOCK};
use crate::real::Real;
use burn_tensor::{DType, Tensor, TensorData};
use half::bf16;
use talka_base::rng::Rng;
use talka_engine::kernels::Kernels;

/// Rows of tokens of one length; each position but the last is asked for the next token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Row by row, `length + 1` tokens each.
    pub tokens: Vec<u32>,
    /// How many rows.
    pub rows: usize,
}

impl Batch {
    /// Positions of a row that are trained.
    fn length(&self) -> usize {
        (self.tokens.len() / self.rows.max(1)).saturating_sub(1)
    }

    /// Some of the rows: what goes in and what should come out.
    fn part(&self, from: usize, rows: usize) -> Part {
        let length = self.length();
        let rows = self.tokens.chunks_exact(length + 1).skip(from).take(rows);
        let mut part = Part { inputs: Vec::new(), targets: Vec::new(), rows: rows.len() };
        for row in rows {
            part.inputs.extend_from_slice(&row[..length]);
            part.targets.extend_from_slice(&row[1..]);
        }
        part
    }
}

/// Rows that go through the model at once.
struct Part {
    /// `[B, T]`.
    inputs: Vec<u32>,
    /// `[B, T]`.
    targets: Vec<u32>,
    rows: usize,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Mean `-log p` over the batch's positions, before the update.
    pub loss: f64,
    /// Positions trained.
    pub tokens: usize,
    /// Norm of all gradients together, before it was clipped.
    pub grad_norm: f64,
    /// The learning rate of the update.
    pub learning_rate: f64,
}

/// Why a step or a start was refused. Nothing has changed then.
#[derive(Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in the messages")]
pub enum TrainError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{found} numbers given as {what}, this model has {expected}")]
    Length { what: &'static str, expected: usize, found: usize },
    #[error("a batch of {tokens} tokens in {rows} rows, expected rows of 2 to {} tokens", context + 1)]
    Batch { tokens: usize, rows: usize, context: usize },
    #[error("a batch has token {found}, the model's vocabulary ends before {vocab}")]
    Token { found: u32, vocab: u32 },
    #[error(
        "the loss of step {step} is {loss}, its gradients' norm {norm}: training has diverged; a lower learning rate, \
         a longer warm-up or clipping may help"
    )]
    Diverged { step: u64, loss: f64, norm: f64 },
}

/// A model in training: weights, moments, and the number of the next step.
#[derive(Debug)]
pub struct Trainer<R: Real = f32> {
    config: TrainConfig,
    parameters: Parameters,
    model: Model,
    kernels: Kernels,
    weights: Vec<R>,
    optimiser: Optimiser<R>,
    steps: u64,
    /// What chance follows from, beside the step.
    luck: u64,
}

impl<R: Real> Trainer<R> {
    /// A model that starts from `weights`, in the order of [`Parameters`]; see [`Parameters::initial_weights`].
    ///
    /// # Errors
    /// The configuration makes no sense, or has another number of weights.
    pub fn new(config: TrainConfig, weights: Vec<R>, kernels: Kernels) -> Result<Self, TrainError> {
        config.validate()?;
        let parameters = Parameters::new(&config.model);
        length("weights", parameters.len(), weights.len())?;
        let optimiser = Optimiser::new(config.optimiser.clone(), &parameters);
        let ops = Ops::cpu(R::DTYPE);
        let model = if R::as_f32(&weights).is_some() {
            Model::fused(config.model.clone(), ops, config.precision, kernels.clone())
        } else {
            Model::new(config.model.clone(), ops)
        };
        Ok(Self { config, parameters, model, kernels, weights, optimiser, steps: 0, luck: 0 })
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// Where each tensor lies in the weights.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// All weights, in the order of [`Parameters`].
    pub fn weights(&self) -> &[R] {
        &self.weights
    }

    /// Puts other weights in place of these. Moments and the number of the step stay.
    ///
    /// # Errors
    /// There are more or fewer than the model has.
    pub fn set_weights(&mut self, weights: &[R]) -> Result<(), TrainError> {
        length("weights", self.weights.len(), weights.len())?;
        self.weights.copy_from_slice(weights);
        Ok(())
    }

    /// What the optimiser remembers.
    pub fn moments(&self) -> &Moments<R> {
        self.optimiser.moments()
    }

    /// Goes on from what an optimiser of the same settings remembered.
    ///
    /// # Errors
    /// There are more or fewer moments than the model needs.
    pub fn set_moments(&mut self, moments: Moments<R>) -> Result<(), TrainError> {
        let [first, second] = moment_lengths(&self.config.optimiser, &self.parameters);
        length("first moments", first, moments.first.len())?;
        length("second moments", second, moments.second.len())?;
        self.optimiser.set_moments(moments);
        Ok(())
    }

    /// Forgets the moments.
    pub fn reset_moments(&mut self) {
        self.optimiser.reset();
    }

    /// Steps done: the number of the next one, by which the schedule goes.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Goes on at another step of the schedule.
    pub fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }

    /// Has what dropout leaves out follow from `luck` and the step: members with another one leave out other values.
    pub fn set_luck(&mut self, luck: u64) {
        self.luck = luck;
    }

    /// One step on `batch`.
    ///
    /// # Errors
    /// The batch does not fit the model, or its loss or gradients are no numbers; nothing has changed then.
    pub fn step(&mut self, batch: &Batch) -> Result<StepReport, TrainError> {
        self.check(batch)?;
        let tokens = batch.rows * batch.length();
        let (loss, gradients) = self.gradients(batch);
        let grad_norm = gradients.norm(&self.kernels);
        if !(loss.is_finite() && grad_norm.is_finite()) {
            return Err(TrainError::Diverged { step: self.steps, loss, norm: grad_norm });
        }
        // The small number is PyTorch's.
        let clip = self.config.clip.map_or(1.0, |clip| (clip / (grad_norm + 1e-6)).min(1.0));
        let factor = self.config.schedule.factor(self.steps);
        self.optimiser.update(
            &self.parameters,
            &mut self.weights,
            &gradients.slices(),
            clip,
            factor,
            &self.kernels,
        );
        self.steps += 1;
        let learning_rate = self.config.optimiser.adamw().learning_rate * factor;
        Ok(StepReport { loss, tokens, grad_norm, learning_rate })
    }

    /// The mean loss over all positions of `batches`; 0 if there are none. Changes nothing.
    ///
    /// # Errors
    /// A batch does not fit the model.
    pub fn evaluate<'a>(
        &self,
        batches: impl IntoIterator<Item = &'a Batch>,
    ) -> Result<f64, TrainError> {
        self.evaluate_at(&self.weights, batches)
    }

    /// As [`Self::evaluate`], at other weights.
    ///
    /// # Errors
    /// There are more or fewer weights than the model has, or a batch does not fit it.
    pub fn evaluate_at<'a>(
        &self,
        weights: &[R],
        batches: impl IntoIterator<Item = &'a Batch>,
    ) -> Result<f64, TrainError> {
        length("weights", self.weights.len(), weights.len())?;
        let tensors = self.tensors(weights, false, self.model.is_narrow());
        let (mut sum, mut positions) = (0.0, 0);
        for batch in batches {
            self.check(batch)?;
            positions += batch.rows * batch.length();
            for part in self.parts(batch) {
                let last = self.through_blocks(&self.model, &part, &tensors, None);
                sum += scalar::<R>(self.loss(last, &tensors, &part.targets, 1.0));
            }
        }
        Ok(sum / f64::max(1.0, positions as f64))
    }

    /// The logits `[B, T, V]` after each of `tokens` `[B, T]`, in the width of the weights.
    ///
    /// # Errors
    /// The tokens do not fit the model.
    pub fn logits(&self, tokens: &[u32], rows: usize) -> Result<Vec<R>, TrainError> {
        self.check_rows(tokens, rows, 0)?;
        let tensors = self.tensors(&self.weights, false, false);
        let part = Part { inputs: tokens.to_vec(), targets: Vec::new(), rows };
        let model = self.model.plain();
        let last = self.through_blocks(&model, &part, &tensors, None);
        let [norm, head] = self.ends(&tensors);
        let logits = model.logits(last, norm, head).into_data();
        Ok(logits.as_slice().expect("as wide as the weights").to_vec())
    }

    /// The loss of `batch` and the gradient of each weight, in the order of [`Parameters`], not clipped. Changes nothing.
    ///
    /// # Errors
    /// The batch does not fit the model.
    pub fn loss_and_gradients(&self, batch: &Batch) -> Result<(f64, Vec<R>), TrainError> {
        self.check(batch)?;
        let (loss, gradients) = self.gradients(batch);
        Ok((loss, gradients.slices().concat()))
    }

    fn check(&self, batch: &Batch) -> Result<(), TrainError> {
        self.check_rows(&batch.tokens, batch.rows, 1)
    }

    /// Rows have at least one position and at most those of the context, and `more` tokens.
    fn check_rows(&self, tokens: &[u32], rows: usize, more: usize) -> Result<(), TrainError> {
        let context = self.config.model.context as usize;
        let per_row = tokens.len().checked_div(rows).unwrap_or(0);
        if !(1 + more..=context + more).contains(&per_row) || per_row * rows != tokens.len() {
            return Err(TrainError::Batch { tokens: tokens.len(), rows, context });
        }
        let vocab = self.config.model.vocab;
        match tokens.iter().find(|token| **token >= vocab) {
            Some(&found) => Err(TrainError::Token { found, vocab }),
            None => Ok(()),
        }
    }

    fn parts(&self, batch: &Batch) -> impl Iterator<Item = Part> {
        let rows = self.config.rows_at_once.unwrap_or(batch.rows);
        (0..batch.rows).step_by(rows).map(move |from| batch.part(from, rows))
    }

    fn gradients(&self, batch: &Batch) -> (f64, Gradients<R>) {
        let scale = 1.0 / (batch.rows * batch.length()) as f64;
        let tensors = self.tensors(&self.weights, true, self.model.is_narrow());
        let mut gradients = Gradients::new();
        let mut loss = 0.0;
        for (number, part) in self.parts(batch).enumerate() {
            let part = (&part, self.chance(number));
            loss += if self.config.recompute {
                self.add_block_by_block(part, &tensors, scale, &mut gradients)
            } else {
                self.add_at_once(part, &tensors, scale, &mut gradients)
            };
        }
        (loss, gradients)
    }

    /// What is left out of a part of the batch in this step; nothing without dropout.
    fn chance(&self, part: usize) -> Option<Chance> {
        let keep = (self.config.dropout > 0.0).then_some(1.0 - self.config.dropout)?;
        let keys = [self.luck, self.steps, part as u64];
        let seed = keys.into_iter().fold(0, |seed, key| Rng::new(seed ^ key).next_u64());
        Some(Chance { keep, seed })
    }

    /// Adds the gradients of a part to `gradients`; returns its loss.
    fn add_at_once(
        &self,
        (part, chance): (&Part, Option<Chance>),
        tensors: &[Tensor<2>],
        scale: f64,
        gradients: &mut Gradients<R>,
    ) -> f64 {
        let last = self.through_blocks(&self.model, part, tensors, chance);
        let loss = self.loss(last, tensors, &part.targets, scale);
        let mut found = loss.backward();
        for (index, tensor) in tensors.iter().enumerate() {
            gradients.add(index, tensor.grad_remove(&mut found));
        }
        scalar::<R>(loss)
    }

    /// As [`Self::add_at_once`], but of the blocks only what enters each is kept.
    fn add_block_by_block(
        &self,
        (part, chance): (&Part, Option<Chance>),
        tensors: &[Tensor<2>],
        scale: f64,
        gradients: &mut Gradients<R>,
    ) -> f64 {
        let blocks = self.config.model.layers as usize;
        let constants: Vec<_> = tensors.iter().map(|tensor| tensor.clone().detach()).collect();
        let mut entries = vec![self.model.embed(constants[0].clone(), &part.inputs, part.rows)];
        for block in 0..blocks {
            let next = through(&self.model, entries[block].clone(), &constants, block, chance);
            entries.push(next);
        }
        let mut take = |found: &mut burn_tensor::Gradients, range: std::ops::Range<usize>| {
            for index in range {
                gradients.add(index, tensors[index].grad_remove(found));
            }
        };
        let last = entries.pop().expect("one per block and one").detach().require_grad();
        let loss = self.loss(last.clone(), tensors, &part.targets, scale);
        let mut found = loss.backward();
        // The embedding's part as the head is taken here, its own at the end.
        take(&mut found, 0..1);
        take(&mut found, 1 + blocks * TENSORS_PER_BLOCK..tensors.len());
        let mut upstream = last.grad_remove(&mut found).expect("the loss depends on it");
        for block in (0..blocks).rev() {
            let entry = entries.pop().expect("one per block and one").detach().require_grad();
            let out = through(&self.model, entry.clone(), tensors, block, chance);
            let mut found = pulled(out, upstream).backward();
            take(&mut found, 1 + block * TENSORS_PER_BLOCK..1 + (block + 1) * TENSORS_PER_BLOCK);
            upstream = entry.grad_remove(&mut found).expect("the block depends on it");
        }
        let embedded = self.model.embed(tensors[0].clone(), &part.inputs, part.rows);
        take(&mut pulled(embedded, upstream).backward(), 0..1);
        scalar::<R>(loss)
    }

    /// From tokens to what leaves the last block.
    fn through_blocks(
        &self,
        model: &Model,
        part: &Part,
        tensors: &[Tensor<2>],
        chance: Option<Chance>,
    ) -> Tensor<3> {
        let mut x = model.embed(tensors[0].clone(), &part.inputs, part.rows);
        for block in 0..self.config.model.layers as usize {
            x = through(model, x, tensors, block, chance);
        }
        x
    }

    fn loss(&self, x: Tensor<3>, tensors: &[Tensor<2>], targets: &[u32], scale: f64) -> Tensor<1> {
        let [norm, head] = self.ends(tensors);
        self.model.loss(x, norm, head, targets, scale)
    }

    /// The last norm and the head.
    fn ends(&self, tensors: &[Tensor<2>]) -> [Tensor<2>; 2] {
        let norm = 1 + self.config.model.layers as usize * TENSORS_PER_BLOCK;
        let head = if self.config.model.tied { 0 } else { norm + 1 };
        [tensors[norm].clone(), tensors[head].clone()]
    }

    /// The weights as tensors, whose gradients are `wanted` or not; matrices `narrow`, in bf16, or as they are.
    fn tensors(&self, weights: &[R], wanted: bool, narrow: bool) -> Vec<Tensor<2>> {
        let device = self.model.ops().device();
        let tensor = |tensor: &Parameter| {
            let numbers = &weights[tensor.range.clone()];
            let shape = [tensor.rows, tensor.cols];
            let tensor = match R::as_f32(numbers) {
                Some(numbers) if narrow && tensor.role != Role::Norm => {
                    let mut halves = vec![bf16::ZERO; numbers.len()];
                    self.kernels.narrow(&mut halves, numbers);
                    Tensor::from_data(TensorData::new(halves, shape), (device, DType::BF16))
                }
                _ => {
                    Tensor::from_data(TensorData::new(numbers.to_vec(), shape), (device, R::DTYPE))
                }
            };
            if wanted { tensor.require_grad() } else { tensor }
        };
        self.parameters.tensors().iter().map(tensor).collect()
    }
}

fn length(what: &'static str, expected: usize, found: usize) -> Result<(), TrainError> {
    if expected == found { Ok(()) } else { Err(TrainError::Length { what, expected, found }) }
}

/// By what dropout leaves out values.
#[derive(Debug, Clone, Copy)]
struct Chance {
    /// The part that stays.
    keep: f64,
    seed: u64,
}

impl Chance {
    /// What the values that a block adds are multiplied by: 0, or what makes up for those left out.
    fn factors(self, block: usize, shape: [usize; 3], like: &Tensor<3>) -> Tensor<3> {
        let mut rng = Rng::new(self.seed ^ block as u64);
        let bar = (self.keep * 65_536.0) as u64;
        let kept = (1.0 / self.keep) as f32;
        let mut factors = Vec::with_capacity(shape.iter().product());
        while factors.len() < factors.capacity() {
            let bits = rng.next_u64();
            let left = factors.capacity() - factors.len();
            let four = (0..4).map(|at| if bits >> (16 * at) & 0xffff < bar { kept } else { 0.0 });
            factors.extend(four.take(left));
        }
        Tensor::from_data(TensorData::new(factors, shape), (&like.device(), like.dtype()))
    }
}

/// From what enters a block to what leaves it.
fn through(
    model: &Model,
    x: Tensor<3>,
    tensors: &[Tensor<2>],
    block: usize,
    chance: Option<Chance>,
) -> Tensor<3> {
    let out = model.block(x.clone(), block_of(tensors, block));
    let Some(chance) = chance else { return out };
    let factors = chance.factors(block, x.dims(), &x);
    x.clone() + (out - x) * factors
}

fn block_of(tensors: &[Tensor<2>], block: usize) -> &[Tensor<2>] {
    &tensors[1 + block * TENSORS_PER_BLOCK..][..TENSORS_PER_BLOCK]
}

/// A number whose gradient to `out` is `upstream`.
fn pulled(out: Tensor<3>, upstream: Tensor<3>) -> Tensor<1> {
    (out * Tensor::from_inner(upstream)).sum()
}

fn scalar<R: Real>(tensor: Tensor<1>) -> f64 {
    tensor.into_data().as_slice::<R>().expect("as wide as the weights")[0].to_f64()
}
