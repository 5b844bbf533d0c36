//! How an operation on slices of numbers becomes one that burn's autodiff knows.

use burn_autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_backend::tensor::FloatTensor;
use burn_dispatch::backends::{Autodiff, Flex};
use burn_dispatch::{BackendTensor, DispatchTensor, DispatchTensorKind};
use burn_flex::FlexTensor;
use burn_tensor::Tensor;
use std::sync::{Arc, Mutex};

/// An operation of `K` tensors with its own way back.
pub(crate) trait Apply<const K: usize>:
    Clone + std::fmt::Debug + Send + Sync + 'static
{
    /// What the way back needs.
    type Tape: std::fmt::Debug + Send + 'static;

    /// The result and the tape.
    fn forward(&self, inputs: [FlexTensor; K]) -> (FlexTensor, Self::Tape);

    /// The gradients of all inputs from that of the result.
    fn backward(&self, tape: Self::Tape, gradient: FlexTensor) -> [FlexTensor; K];

    /// Runs it on tensors of burn's CPU back end that may or may not want gradients.
    fn apply<const D: usize>(self, inputs: [DispatchTensor; K]) -> Tensor<D> {
        let autodiff = inputs[0].autodiff;
        let (numbers, nodes): (Vec<_>, Vec<_>) =
            inputs.map(|input| tracked(input).into_parts()).into_iter().unzip();
        let numbers = <[FlexTensor; K]>::try_from(numbers).expect("as many as went in");
        let nodes = nodes.try_into().expect("as many as went in");
        let (out, tape) = self.forward(numbers.map(|numbers| numbers.to_contiguous()));
        let out =
            match Step(self.clone()).prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
                OpsKind::Tracked(step) => step.finish(Arc::new(Mutex::new(Some(tape))), out),
                OpsKind::UnTracked(step) => step.finish(out),
            };
        let kind = DispatchTensorKind::Flex(BackendTensor::Autodiff(out));
        let kind = DispatchTensorKind::Autodiff(Box::new(kind));
        Tensor::from_dispatch(DispatchTensor { kind, autodiff })
    }
}

/// The tensor inside.
fn tracked(tensor: DispatchTensor) -> FloatTensor<Autodiff<Flex>> {
    let DispatchTensorKind::Autodiff(inner) = tensor.kind else {
        unreachable!("a trainer's tensors are made on an autodiff device");
    };
    match *inner {
        DispatchTensorKind::Flex(tensor) => tensor.autodiff(),
        DispatchTensorKind::Autodiff(_) => unreachable!("autodiff is not nested"),
    }
}

/// The way back of an operation.
#[derive(Debug)]
struct Step<Op>(Op);

impl<const K: usize, Op: Apply<K>> Backward<Flex, K> for Step<Op> {
    /// Taken once; burn wants a state that can be cloned.
    type State = Arc<Mutex<Option<Op::Tape>>>;

    fn backward(
        self,
        ops: Ops<Self::State, K>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let tape = ops.state.lock().ok().and_then(|mut tape| tape.take());
        let tape = tape.expect("a step goes back once");
        let found = self.0.backward(tape, gradient.to_contiguous());
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let Some(parent) = parent {
                gradients.register::<Flex>(parent.id, gradient);
            }
        }
    }
}
