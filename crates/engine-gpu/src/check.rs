//! What a processor makes of the same numbers.
//!
//! Numbers are small multiples of a power of two, so that every sum is exact in every precision and in every order, and
//! results are equal or wrong.

use crate::{
    GpuError, Precision,
    device::Device,
    kernel::{BATCH_ROWS, MEMORY_STEP, PRODUCT_STEP},
    measure::{Product, batch_step},
};
use half::{bf16, f16};
use wgpu::ComputePipeline;

/// Weights of a batch that a thread takes at once: its rows are a multiple of that.
pub(crate) const BATCH_STEP: usize = 8;

/// Sizes that no tile divides: m, n, k.
const ODD: [usize; 3] = [131, 197, 75];

/// The number at `index` of matrix `seed`, from -8 to 8.
pub(crate) fn number(seed: u64, index: usize) -> i8 {
    // The mixing of splitmix64.
    let mut bits = (index as u64).wrapping_add(seed << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((bits >> 40) % 17) as i8 - 8
}

/// A matrix `[rows, columns]` of such numbers, its rows filled up with nothing to `width`.
fn numbers(seed: u64, [rows, columns]: [usize; 2], width: usize) -> impl Iterator<Item = i8> {
    (0..rows * width).map(move |at| {
        let (row, column) = (at / width, at % width);
        if column < columns { number(seed, row * columns + column) } else { 0 }
    })
}

/// What stands for a number where there are fractions.
fn eighths(number: i8) -> f32 {
    f32::from(number) / 8.0
}

/// Bytes of a matrix `[rows, columns]` for a product in this precision.
pub(crate) fn matrix(precision: Precision, seed: u64, shape: [usize; 2]) -> Vec<u8> {
    let numbers = numbers(seed, shape, width(precision, shape[1]));
    match precision {
        Precision::F32 => numbers.flat_map(|n| eighths(n).to_le_bytes()).collect(),
        Precision::F16 => numbers.flat_map(|n| f16::from_f32(eighths(n)).to_le_bytes()).collect(),
        Precision::Int8 => numbers.map(i8::cast_unsigned).collect(),
    }
}

/// Numbers in a row of `columns`, filled up. Elements are numbers, and four of them where they are bytes.
pub(crate) fn width(precision: Precision, columns: usize) -> usize {
    let step = if precision == Precision::Int8 { 4 * PRODUCT_STEP } else { PRODUCT_STEP };
    columns.next_multiple_of(step)
}

/// Bytes of weights `[rows, columns]` bf16 for a batch.
pub(crate) fn weights(seed: u64, shape: [usize; 2]) -> Vec<u8> {
    let numbers = numbers(seed, shape, shape[1].next_multiple_of(BATCH_STEP));
    numbers.flat_map(|n| bf16::from_f32(eighths(n)).to_le_bytes()).collect()
}

/// Bytes of a batch `[8, columns]` f32.
pub(crate) fn batch_rows(columns: usize) -> Vec<u8> {
    let numbers = numbers(0, [BATCH_ROWS, columns], columns.next_multiple_of(BATCH_STEP));
    numbers.flat_map(|n| eighths(n).to_le_bytes()).collect()
}

/// Words of four bytes.
fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks().0.iter().copied().map(u32::from_le_bytes)
}

/// Sum of the products of two rows of matrices `[.., k]`.
fn dot(k: usize, [a, row]: [u64; 2], [b, column]: [u64; 2]) -> i32 {
    let at = |seed, row: u64, i| i32::from(number(seed, row as usize * k + i));
    (0..k).map(|i| at(a, row, i) * at(b, column, i)).sum()
}

/// Compares `found`, `[m, n]`, with the product of matrices `a` and `b`.
fn compare(
    what: &str,
    found: impl Iterator<Item = f64>,
    [a, b]: [u64; 2],
    [m, n, k]: [usize; 3],
    unit: f64,
) -> Result<(), GpuError> {
    for (at, found) in found.take(m * n).enumerate() {
        let (row, column) = (at / n, at % n);
        let expected = f64::from(dot(k, [a, row as u64], [b, column as u64])) * unit;
        if found != expected {
            return Err(GpuError::Wrong {
                what: format!("product {m} × {n} × {k} in {what} at {row}, {column}"),
                found: found.to_string(),
                expected: expected.to_string(),
            });
        }
    }
    Ok(())
}

/// Compares a product of odd sizes with a processor's.
pub(crate) fn product(
    device: &Device,
    kernel: &ComputePipeline,
    precision: Precision,
) -> Result<(), GpuError> {
    let product = Product::new(device, kernel, precision, ODD)?;
    product.run(device)?;
    let bytes = product.read(device)?;
    let found = words(&bytes);
    let (what, seeds) = (precision.to_string(), [1, 2]);
    match precision {
        Precision::Int8 => {
            let found = found.map(|word| f64::from(word.cast_signed()));
            compare(&what, found, seeds, ODD, 1.0)
        }
        Precision::F32 | Precision::F16 => {
            let found = found.map(|word| f64::from(f32::from_bits(word)));
            compare(&what, found, seeds, ODD, 1.0 / 64.0)
        }
    }
}

/// Compares a batch through a matrix of odd sizes with a processor's.
pub(crate) fn batch(device: &Device, kernel: &ComputePipeline) -> Result<(), GpuError> {
    let [_, n, k] = ODD;
    let x = device.upload(&batch_rows(k))?;
    let out = device.buffer((BATCH_ROWS * n * size_of::<f32>()) as u64)?;
    device.run(&[batch_step(device, kernel, 1, [n, k], [&x, &out])?], 1)?;
    let bytes = device.read(&out)?;
    let found = words(&bytes).map(|word| f64::from(f32::from_bits(word)));
    compare("bf16", found, [0, 1], [BATCH_ROWS, n, k], 1.0 / 64.0)
}

/// Compares what so many workgroups found in memory with what was written there.
pub(crate) fn memory(groups: u32, sums: &[u8]) -> Result<(), GpuError> {
    let found = words(sums).fold(0, u32::wrapping_add);
    let numbers = u128::from(groups) * u128::from(MEMORY_STEP / 4);
    // Every word is its own number times a constant.
    let expected = (numbers * (numbers - 1) / 2) as u32;
    let expected = expected.wrapping_mul(2_654_435_761);
    if found == expected {
        return Ok(());
    }
    Err(GpuError::Wrong {
        what: format!("the sum of {groups} parts of memory"),
        found: found.to_string(),
        expected: expected.to_string(),
    })
}

/// A driver that computes on processors, or a GPU; says loudly if there is none.
#[cfg(test)]
pub(crate) fn software() -> Option<crate::Gpu> {
    let found = crate::list(crate::Which::SoftwareToo).expect("drivers that answer");
    let found = found.into_iter().next();
    if found.is_none() {
        eprintln!("SKIPPED: no driver for Vulkan or Metal; `cargo xtask test` installs Mesa's");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kernel,
        measure::{LAYER, layer},
    };

    #[test]
    fn numbers_are_small_and_all_of_them_come() {
        let mut seen: Vec<_> = (0..1_000).map(|at| number(1, at)).collect();
        assert_ne!(seen, (0..1_000).map(|at| number(2, at)).collect::<Vec<_>>());
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, (-8..=8).collect::<Vec<_>>());
    }

    #[test]
    fn rows_are_filled_up_with_nothing() {
        let bytes = matrix(Precision::Int8, 1, [2, 75]);
        assert_eq!(bytes.len(), 2 * 128);
        assert!(bytes[75..128].iter().all(|&byte| byte == 0));
        assert_eq!(bytes[128].cast_signed(), number(1, 75));
        let bytes = matrix(Precision::F16, 1, [3, 16]);
        assert_eq!(bytes.len(), 3 * 16 * 2);
        assert_eq!(
            f16::from_le_bytes([bytes[2], bytes[3]]).to_f32() * 8.0,
            f32::from(number(1, 1))
        );
    }

    #[test]
    fn products_of_odd_sizes_are_those_of_a_processor() {
        let Some(gpu) = software() else { return };
        let device = gpu.open().expect("a device");
        for &precision in &gpu.precisions {
            let kernel = device.kernel(&kernel::product(precision), "main").expect("a kernel");
            assert_eq!(product(&device, &kernel, precision), Ok(()), "{precision}");
        }
        let missing = Precision::ALL.into_iter().filter(|one| !gpu.precisions.contains(one));
        for precision in missing {
            eprintln!("SKIPPED: {} makes no products in {precision}", gpu.name);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        // The product of two rows of four, and the same with an error in it.
        let right = [dot(4, [1, 0], [2, 0]), dot(4, [1, 0], [2, 1])].map(f64::from);
        let check = |found: [f64; 2]| compare("int8", found.into_iter(), [1, 2], [1, 2, 4], 1.0);
        assert_eq!(check(right), Ok(()));
        let error = check([right[0], right[1] + 1.0]).expect_err("wrong");
        let text = format!(
            "it computes wrongly: product 1 × 2 × 4 in int8 at 0, 1 gave {}, expected {}",
            right[1] + 1.0,
            right[1]
        );
        assert_eq!(error.to_string(), text);
        assert!(matches!(memory(1, &[0; 4]), Err(GpuError::Wrong { .. })));
    }

    /// Goal: the steps of a layer follow each other. Method: the same in f64, where the sums of a GPU differ by rounding.
    #[test]
    fn a_batch_goes_through_a_layer_as_on_a_processor() {
        let Some(gpu) = software() else { return };
        let device = gpu.open().expect("a device");
        let (steps, last) = layer(&device).expect("a layer");
        device.run(&steps, 1).expect("a batch");
        let bytes = device.read(&last).expect("its output");
        let found: Vec<_> = words(&bytes).map(|word| f64::from(f32::from_bits(word))).collect();

        let values = |seed, shape: [usize; 2]| -> Vec<f64> {
            numbers(seed, shape, shape[1]).map(|n| f64::from(eighths(n))).collect()
        };
        let mut rows = values(0, [BATCH_ROWS, 1_024]);
        for (seed, [outputs, inputs]) in (1..).zip(LAYER) {
            // Of the two wide products the later one counts, on the same input.
            if seed == 5 {
                continue;
            }
            let weights = values(seed, [outputs, inputs]);
            let products = rows.chunks(inputs).flat_map(|row| {
                let sum = |w: &[f64]| row.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
                weights.chunks(inputs).map(sum).collect::<Vec<_>>()
            });
            rows = products.collect();
        }
        let most = rows.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
        assert!(most > 1e6 && most.is_finite(), "{most}");
        assert_eq!(found.len(), rows.len());
        for (found, expected) in found.iter().zip(&rows) {
            assert!((found - expected).abs() <= most * 1e-5, "{found}, expected {expected}");
        }
    }
}
