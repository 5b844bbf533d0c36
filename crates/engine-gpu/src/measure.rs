//! Rates: how fast a GPU does what a node's processor is measured by.
//!
//! Times are taken here, from handing work over until it is known to be done. So much is handed over at once that this costs
//! little, but for the batch, where it is a part of what a caller would wait for. The median counts: a GPU that is asked
//! again has raised its clock, and one that works for long lowers it.

use crate::{
    GpuError, Precision, check,
    device::{Device, Step},
    kernel::{self, BATCH_COLUMNS, BATCH_ROWS, MEMORY_STEP, TILE},
};
use std::time::{Duration, Instant};
use wgpu::{Buffer, ComputePipeline};

/// What is handed over at once: a thousand times what handing over takes, and far from what systems take for a hang.
const SUBMISSION: Duration = Duration::from_millis(40);
const SUBMISSION_TIMES_MAX: f64 = 1_000.0;

/// The smallest product whose speed is measured; the others are doubled sides of it.
const SIDE_MIN: usize = 256;
/// Less memory than this is not worth measuring: caches hold it.
const MEMORY_BYTES_MIN: u64 = 16 << 20;
/// As many workgroups as every GPU takes in one direction.
const GROUPS_MAX: u64 = 65_535;

/// The matrices of a layer, outputs and inputs: those that a node's processor takes its batch through.
pub(crate) const LAYER: [[usize; 2]; 7] = [
    [1_024, 1_024],
    [1_024, 1_024],
    [1_024, 1_024],
    [1_024, 1_024],
    [4_096, 1_024],
    [4_096, 1_024],
    [1_024, 4_096],
];
/// Where the input and the output of each of them lie: two rows of narrow ones and a wide one, so that each product needs
/// what came before it, and the second of the wide ones waits for the first.
const LAYER_PLACES: [[usize; 2]; 7] = [[0, 1], [1, 0], [0, 1], [1, 0], [0, 2], [0, 2], [2, 1]];
/// The widths of these three.
const PLACES: [usize; 3] = [1_024, 1_024, 4_096];

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// How long each part is measured, at least three times.
    pub time: Duration,
    /// The longest side of matrices; slow GPUs get smaller ones.
    pub side_max: usize,
    /// Memory that is read, in bytes, if there is so much.
    pub memory_bytes_max: u64,
}

impl Effort {
    /// What somebody who asks for numbers takes: some seconds, matrices and memory beyond all caches.
    pub const BENCH: Self =
        Self { time: Duration::from_millis(700), side_max: 4_096, memory_bytes_max: 512 << 20 };
    /// What tests take, on drivers that compute on processors.
    pub const GLANCE: Self =
        Self { time: Duration::ZERO, side_max: SIDE_MIN, memory_bytes_max: MEMORY_BYTES_MIN };
}

/// What a GPU does; what could not be measured says why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rates {
    /// Products of square matrices, in each precision that it has.
    pub products: Vec<ProductRate>,
    /// Bytes of memory read in a second.
    pub memory_bytes: Result<u64, GpuError>,
    /// How long a batch of eight tokens takes through a layer of 16.8 million bf16 weights.
    pub batch: Result<Duration, GpuError>,
}

/// Products in one precision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductRate {
    /// What the numbers are.
    pub precision: Precision,
    /// Operations a second; a multiplication and an addition are two.
    pub operations: Result<u64, GpuError>,
}

/// Measures all that there is.
///
/// # Errors
/// The first [`GpuError`] if nothing at all could be measured.
pub(crate) fn rates(
    device: &Device,
    precisions: &[Precision],
    effort: Effort,
) -> Result<Rates, GpuError> {
    let products = precisions.iter().map(|&precision| ProductRate {
        precision,
        operations: product_rate(device, precision, effort),
    });
    let rates = Rates {
        products: products.collect(),
        memory_bytes: memory_rate(device, effort),
        batch: batch_time(device, effort),
    };
    let is_nothing = rates.products.iter().all(|product| product.operations.is_err())
        && rates.memory_bytes.is_err();
    match &rates.batch {
        Err(last) if is_nothing => {
            let first = rates.products.iter().find_map(|product| product.operations.as_ref().err());
            Err(first.unwrap_or(last).clone())
        }
        _ => Ok(rates),
    }
}

/// The typical time of `steps`, of which one round took `once`.
fn typical(
    device: &Device,
    steps: &[Step],
    once: Duration,
    effort: Effort,
) -> Result<Duration, GpuError> {
    let times = SUBMISSION.div_duration_f64(once).clamp(1.0, SUBMISSION_TIMES_MAX) as u32;
    let runs = repeated(effort, || Ok(device.run(steps, times)? / times))?;
    Ok(median(runs))
}

/// At least three runs, for as long as `effort` says.
fn repeated(
    effort: Effort,
    mut run: impl FnMut() -> Result<Duration, GpuError>,
) -> Result<Vec<Duration>, GpuError> {
    let begun = Instant::now();
    let mut runs = Vec::new();
    while runs.len() < 3 || begun.elapsed() < effort.time {
        runs.push(run()?);
    }
    Ok(runs)
}

/// Of an even number the later one of the two in the middle.
fn median(mut runs: Vec<Duration>) -> Duration {
    runs.sort_unstable();
    runs.get(runs.len() / 2).copied().unwrap_or_default()
}

fn per_second(amount: f64, time: Duration) -> u64 {
    (amount / time.as_secs_f64().max(1e-9)) as u64
}

/// A product of two matrices that are there.
pub(crate) struct Product {
    step: [Step; 1],
    out: Buffer,
}

impl Product {
    /// Of `[m, k]` and `[n, k]`, by a kernel made of [`kernel::product`] in the same precision.
    pub(crate) fn new(
        device: &Device,
        kernel: &ComputePipeline,
        precision: Precision,
        [m, n, k]: [usize; 3],
    ) -> Result<Self, GpuError> {
        let [rows, columns] = [m, n].map(|side| side as u32);
        // Four numbers are a vector, or four times four where they are bytes.
        let numbers = if precision == Precision::Int8 { 16 } else { 4 };
        let vectors = check::width(precision, k) / numbers;
        let size = device.numbers([rows, columns, vectors as u32, 0])?;
        let a = device.upload(&check::matrix(precision, 1, [m, k]))?;
        let b = device.upload(&check::matrix(precision, 2, [n, k]))?;
        let out = device.buffer((m * n * size_of::<f32>()) as u64)?;
        let groups = [columns.div_ceil(TILE), rows.div_ceil(TILE)];
        Ok(Self { step: [device.step(kernel, &[&size, &a, &b, &out], groups)?], out })
    }

    pub(crate) fn run(&self, device: &Device) -> Result<Duration, GpuError> {
        device.run(&self.step, 1)
    }

    /// `[m, n]`, four bytes each.
    pub(crate) fn read(&self, device: &Device) -> Result<Vec<u8>, GpuError> {
        device.read(&self.out)
    }
}

fn product_rate(device: &Device, precision: Precision, effort: Effort) -> Result<u64, GpuError> {
    let kernel = device.kernel(&kernel::product(precision), "main")?;
    check::product(device, &kernel, precision)?;
    let warmed = |side: usize| {
        let product = Product::new(device, &kernel, precision, [side; 3])?;
        product.run(device)?;
        Ok((product.run(device)?, product))
    };
    let mut side = SIDE_MIN;
    let (mut once, mut product) = warmed(side)?;
    // A product of twice the side is eight times the work.
    while side * 2 <= effort.side_max && once * 8 <= SUBMISSION {
        match warmed(side * 2) {
            Err(GpuError::OutOfMemory) => break,
            larger => (once, product) = larger?,
        }
        side *= 2;
    }
    let time = typical(device, &product.step, once, effort)?;
    Ok(per_second(2.0 * (side as f64).powi(3), time))
}

fn memory_rate(device: &Device, effort: Effort) -> Result<u64, GpuError> {
    let text = kernel::memory();
    let [fill, sum] = [device.kernel(&text, "fill")?, device.kernel(&text, "sum")?];
    let most = device.buffer_bytes_max().min(GROUPS_MAX * MEMORY_STEP);
    let mut groups = effort.memory_bytes_max.min(most) / MEMORY_STEP;
    loop {
        match memory_read(device, [&fill, &sum], groups as u32, effort) {
            Err(GpuError::OutOfMemory) if groups * MEMORY_STEP / 2 >= MEMORY_BYTES_MIN => {
                groups /= 2;
            }
            time => return Ok(per_second((groups * MEMORY_STEP) as f64, time?)),
        }
    }
}

/// The time in which so many workgroups read all of their memory.
fn memory_read(
    device: &Device,
    [fill, sum]: [&ComputePipeline; 2],
    groups: u32,
    effort: Effort,
) -> Result<Duration, GpuError> {
    let memory = device.buffer(u64::from(groups) * MEMORY_STEP)?;
    let sums = device.buffer(u64::from(groups) * 4)?;
    device.run(&[device.step(fill, &[&memory], [groups, 1])?], 1)?;
    let step = [device.step(sum, &[&memory, &sums], [groups, 1])?];
    device.run(&step, 1)?;
    let once = device.run(&step, 1)?;
    check::memory(groups, &device.read(&sums)?)?;
    typical(device, &step, once, effort)
}

/// One product of a batch: x `[8, k]` f32 with weights `[n, k]` bf16.
pub(crate) fn batch_step(
    device: &Device,
    kernel: &ComputePipeline,
    seed: u64,
    [n, k]: [usize; 2],
    [x, out]: [&Buffer; 2],
) -> Result<Step, GpuError> {
    let columns = n as u32;
    let pieces = k.div_ceil(check::BATCH_STEP) as u32;
    let size = device.numbers([BATCH_ROWS as u32, columns, pieces, 0])?;
    let weights = device.upload(&check::weights(seed, [n, k]))?;
    device.step(kernel, &[&size, x, &weights, out], [columns.div_ceil(BATCH_COLUMNS), 1])
}

/// A layer and a batch for it; its output is the last one of the places.
pub(crate) fn layer(device: &Device) -> Result<(Vec<Step>, Buffer), GpuError> {
    let kernel = device.kernel(&kernel::rows(), "main")?;
    check::batch(device, &kernel)?;
    let bytes = |width: usize| (BATCH_ROWS * width * size_of::<f32>()) as u64;
    let first = device.upload(&check::batch_rows(PLACES[0]))?;
    let places = [first, device.buffer(bytes(PLACES[1]))?, device.buffer(bytes(PLACES[2]))?];
    let steps = (1..).zip(LAYER).zip(LAYER_PLACES).map(|((seed, shape), [from, to])| {
        batch_step(device, &kernel, seed, shape, [&places[from], &places[to]])
    });
    let steps = steps.collect::<Result<_, _>>()?;
    let [_, last, _] = places;
    Ok((steps, last))
}

fn batch_time(device: &Device, effort: Effort) -> Result<Duration, GpuError> {
    let (steps, _) = layer(device)?;
    device.run(&steps, 1)?;
    Ok(median(repeated(effort, || device.run(&steps, 1))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::software;

    #[test]
    fn the_middle_counts() {
        let ms = |runs: &[u64]| runs.iter().map(|&ms| Duration::from_millis(ms)).collect();
        assert_eq!(median(ms(&[9, 1, 2])), Duration::from_millis(2));
        assert_eq!(median(ms(&[9, 1, 2, 3])), Duration::from_millis(3));
        assert_eq!(median(ms(&[])), Duration::ZERO);
        assert_eq!(per_second(6.0, Duration::from_millis(500)), 12);
    }

    #[test]
    fn a_layer_fits_its_places_and_is_what_scores_are_made_for() {
        for ([outputs, inputs], [from, to]) in LAYER.into_iter().zip(LAYER_PLACES) {
            assert_eq!([inputs, outputs], [PLACES[from], PLACES[to]]);
        }
        let weights: usize = LAYER.iter().map(|[outputs, inputs]| outputs * inputs).sum();
        assert_eq!(weights, 16_777_216);
    }

    #[test]
    fn everything_is_measured_where_a_driver_is() {
        let Some(gpu) = software() else { return };
        let rates = gpu.measure(Effort::GLANCE).expect("rates");
        let measured: Vec<_> = rates.products.iter().map(|product| product.precision).collect();
        assert_eq!(measured, gpu.precisions);
        for ProductRate { precision, operations } in &rates.products {
            assert!(operations.as_ref().is_ok_and(|&rate| rate > 0), "{precision}: {operations:?}");
        }
        assert!(rates.memory_bytes.as_ref().is_ok_and(|&rate| rate > 0), "{rates:?}");
        assert!(rates.batch.as_ref().is_ok_and(|time| !time.is_zero()), "{rates:?}");
    }
}
