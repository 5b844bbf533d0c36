//! Measures what this machine does with the engine's own kernels: products, memory, and the time of one batch.
//!
//! One implementation serves a node that starts, which has a moment, and the benchmark, which has seconds. The fastest
//! round counts: disturbances only ever slow down.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};
use talka_engine::{
    kernels::{Kernels, Matrix, ThreadPool},
    quant::Encoding,
};

/// Memory that is read to learn how fast it is: more than the caches of most machines hold, over in milliseconds.
const PROBE_BYTES: usize = 64 << 20;

/// A product that is made to learn how fast products are, and its rows: over in a tenth of a second on slow machines.
const PRODUCT: [usize; 2] = [1_024, 1_024];
const PRODUCT_ROWS: usize = 64;

/// Rows of a batch, and the matrices of the layer that it goes through, outputs and inputs: those of a small llama.
const BATCH_ROWS: usize = 8;
const LAYER: [[usize; 2]; 7] = [
    [1_024, 1_024],
    [1_024, 1_024],
    [1_024, 1_024],
    [1_024, 1_024],
    [4_096, 1_024],
    [4_096, 1_024],
    [1_024, 4_096],
];

/// How long something is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// At least so many rounds...
    pub(crate) rounds: u32,
    /// ...and so long.
    pub(crate) time: Duration,
}

impl Effort {
    /// What a node that starts takes.
    pub(crate) const GLANCE: Self = Self { rounds: 2, time: Duration::ZERO };
    /// What somebody who asks for numbers takes.
    pub(crate) const BENCH: Self = Self { rounds: 5, time: Duration::from_millis(700) };

    /// The time of the fastest round.
    fn fastest(self, mut round: impl FnMut()) -> Duration {
        let begun = Instant::now();
        let mut fastest = Duration::MAX;
        let mut rounds = 0;
        while rounds < self.rounds || begun.elapsed() < self.time {
            let start = Instant::now();
            round();
            fastest = fastest.min(start.elapsed());
            rounds += 1;
        }
        fastest
    }
}

fn per_second(amount: usize, time: Duration) -> f64 {
    amount as f64 / time.as_secs_f64().max(1e-6)
}

/// Bytes that all threads together read in a second.
pub(crate) fn bytes_per_second(pool: &ThreadPool, effort: Effort) -> f64 {
    let words = vec![1_u64; PROBE_BYTES / size_of::<u64>()];
    let parts: Vec<&[u64]> = words.chunks(words.len().div_ceil(pool.threads())).collect();
    let fastest = effort.fastest(|| {
        pool.run(parts.len(), &|part| {
            black_box(parts[part].iter().copied().fold(0_u64, u64::wrapping_add));
        });
    });
    per_second(PROBE_BYTES, fastest)
}

/// A matrix of small numbers; nothing if it does not fit in memory.
fn matrix(pool: &ThreadPool, encoding: Encoding, shape: [usize; 2]) -> Option<Matrix> {
    let [outputs, inputs] = shape;
    let weights = vec![0x3c_u8; outputs * encoding.bytes_of(inputs)?];
    Matrix::pack(pool, encoding, shape, &weights).ok()
}

/// Floating-point operations a second in a product with weights in `encoding`, all threads together; nothing without the
/// memory for one.
pub(crate) fn flops_per_second(
    kernels: &Kernels,
    encoding: Encoding,
    effort: Effort,
) -> Option<f64> {
    let [outputs, inputs] = PRODUCT;
    let matrix = matrix(kernels.pool(), encoding, PRODUCT)?;
    let rows = vec![0.5; PRODUCT_ROWS * inputs];
    let mut out = vec![0.0; PRODUCT_ROWS * outputs];
    let fastest = effort.fastest(|| {
        kernels.matmul(&mut out, &rows, &matrix);
        black_box(&out);
    });
    Some(per_second(2 * PRODUCT_ROWS * outputs * inputs, fastest))
}

/// How long a batch takes through the products of a layer with bf16 weights; nothing without the memory for one.
pub(crate) fn batch_time(kernels: &Kernels, effort: Effort) -> Option<Duration> {
    let layer = LAYER.map(|shape| matrix(kernels.pool(), Encoding::Bf16, shape));
    let layer: Vec<Matrix> = layer.into_iter().collect::<Option<_>>()?;
    let widest = LAYER.iter().flatten().copied().max().unwrap_or_default();
    let rows = vec![0.5; BATCH_ROWS * widest];
    let mut out = vec![0.0; BATCH_ROWS * widest];
    Some(effort.fastest(|| {
        for matrix in &layer {
            let (outputs, inputs) = (matrix.rows(), matrix.cols());
            kernels.matmul(&mut out[..BATCH_ROWS * outputs], &rows[..BATCH_ROWS * inputs], matrix);
            black_box(&out);
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_precision_and_a_batch_are_measured() {
        let kernels = Kernels::detect(ThreadPool::new(2));
        for encoding in Encoding::ALL {
            let found = flops_per_second(&kernels, encoding, Effort::GLANCE);
            assert!(found.is_some_and(|flops| flops > 0.0), "{encoding}: {found:?}");
        }
        assert!(bytes_per_second(kernels.pool(), Effort::GLANCE) > 0.0);
        assert!(batch_time(&kernels, Effort::GLANCE).is_some_and(|time| !time.is_zero()));
        let weights: usize = LAYER.iter().map(|[outputs, inputs]| outputs * inputs).sum();
        assert_eq!(weights, 16_777_216, "what scores are made for");
    }

    #[test]
    fn as_many_rounds_are_made_as_asked() {
        let mut rounds = 0;
        Effort { rounds: 7, time: Duration::ZERO }.fastest(|| rounds += 1);
        assert_eq!(rounds, 7);
    }
}
