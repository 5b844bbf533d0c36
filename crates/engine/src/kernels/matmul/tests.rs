//! Every body against the definition, over shapes with odd tails.

use super::super::testing::{bits, each_kernels, numbers};
use super::super::{Isa, Kernels, Matrix, ThreadPool, dot_tolerance};
use crate::quant::Encoding;
use half::{bf16, f16};
use proptest::prelude::*;

const FLOATS: [Encoding; 3] = [Encoding::F32, Encoding::F16, Encoding::Bf16];

/// `numbers` as they are stored in `encoding`, a float.
fn stored(encoding: Encoding, numbers: &[f32]) -> Vec<u8> {
    let each = numbers.iter();
    match encoding {
        Encoding::F16 => each.flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        Encoding::Bf16 => each.flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        _ => each.flat_map(|v| v.to_le_bytes()).collect(),
    }
}

fn pack(encoding: Encoding, n: usize, k: usize, bytes: &[u8]) -> Matrix {
    Matrix::pack(&ThreadPool::new(1), encoding, [n, k], bytes).expect("the shape fits")
}

/// All rows of `w`, `[N, K]`.
fn widened(w: &Matrix) -> Vec<f32> {
    let mut wide = vec![0.0; w.rows() * w.cols()];
    for (row, out) in wide.chunks_exact_mut(w.cols()).enumerate() {
        w.row_into(row, out);
    }
    wide
}

fn product(kernels: &Kernels, x: &[f32], w: &Matrix) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.len() / w.cols() * w.rows()];
    kernels.matmul(&mut out, x, w);
    out
}

/// Calls `check` with the product on every instruction set, after checking that each row has the same
/// bits when computed alone, and all rows when added to others and on another number of threads.
fn each_product(x: &[f32], w: &Matrix, mut check: impl FnMut(Isa, &[f32])) {
    let (n, k) = (w.rows(), w.cols());
    let mut seen: Vec<(Isa, Vec<u32>)> = Vec::new();
    each_kernels(|kernels| {
        let isa = kernels.isa();
        let out = product(kernels, x, w);
        match seen.iter().find(|(seen, _)| *seen == isa) {
            Some((_, on_one_thread)) => assert_eq!(&bits(&out), on_one_thread, "{isa:?}"),
            None => seen.push((isa, bits(&out))),
        }
        for (row, (x, out)) in x.chunks_exact(k).zip(out.chunks_exact(n)).enumerate() {
            assert_eq!(bits(&product(kernels, x, w)), bits(out), "{isa:?} row {row}");
        }
        let mut sum = out.clone();
        kernels.matmul_add(&mut sum, x, w);
        let doubled: Vec<f32> = out.iter().map(|v| v + v).collect();
        assert_eq!(bits(&sum), bits(&doubled));
        check(isa, &out);
    });
}

/// Floats: within tolerance of the exact product, and the same bits everywhere but on matrix units.
fn check_floats(t: usize, n: usize, k: usize) {
    let x = numbers(7, t * k);
    for encoding in FLOATS {
        let w = pack(encoding, n, k, &stored(encoding, &numbers(8, n * k)));
        let wide = widened(&w);
        let mut portable = Vec::new();
        each_product(&x, &w, |isa, out| {
            for (index, &found) in out.iter().enumerate() {
                let (x, w) = (&x[index / n * k..][..k], &wide[index % n * k..][..k]);
                let terms = || x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                let exact: f64 = terms().sum();
                let magnitude: f64 = terms().map(f64::abs).sum();
                let tolerance = f64::from(dot_tolerance(isa, k, magnitude as f32));
                let error = (f64::from(found) - exact).abs();
                assert!(error <= tolerance, "{isa:?} {t}x{n}x{k} at {index}: {found} {exact}");
            }
            match isa {
                Isa::Portable => portable = bits(out),
                Isa::Amx if encoding == Encoding::Bf16 => {}
                _ => assert_eq!(bits(out), portable, "{isa:?} {encoding:?} {t}x{n}x{k}"),
            }
        });
    }
}

/// Quantised: near the product with the numbers that the blocks stand for, and the same bits everywhere.
fn check_quantised(encoding: Encoding, t: usize, n: usize, k: usize) {
    let x = numbers(7, t * k);
    let bytes: Vec<u8> = random_blocks(encoding, n * k);
    let w = pack(encoding, n, k, &bytes);
    let wide = widened(&w);
    let mut portable = Vec::new();
    each_product(&x, &w, |isa, out| {
        for (index, &found) in out.iter().enumerate() {
            let (x, w) = (&x[index / n * k..][..k], &wide[index % n * k..][..k]);
            let terms = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
            let exact: f64 = terms.sum();
            // Each activation is off by at most half of 1/127 of the largest, which is below 1.
            let bound: f64 = w.iter().map(|w| f64::from(w.abs())).sum::<f64>() * 0.5 / 127.0;
            let error = (f64::from(found) - exact).abs();
            assert!(error <= bound * 1.01, "{isa:?} {encoding:?} at {index}: {found} {exact}");
        }
        if isa == Isa::Portable {
            portable = bits(out);
        }
        assert_eq!(bits(out), portable, "{isa:?} {encoding:?} {t}x{n}x{k}");
    });
}

/// Blocks with random codes and scales that are finite.
fn random_blocks(encoding: Encoding, count: usize) -> Vec<u8> {
    let mut rng = talka_base::rng::Rng::new(9);
    let bytes = encoding.bytes_of(count).expect("whole blocks");
    let mut bytes: Vec<u8> = (0..bytes).map(|_| (rng.next_u64() >> 32) as u8).collect();
    for block in bytes.chunks_exact_mut(encoding.block_bytes()) {
        // Exponents that are neither tiny nor infinite, wherever a block has its floats.
        for at in [1, 3, 81, 83, 109, 209] {
            if let Some(byte) = block.get_mut(at) {
                *byte = 0x20 | *byte & 0x83;
            }
        }
    }
    bytes
}

#[test]
fn floats_agree_at_every_small_shape() {
    for k in [1, 2, 7, 15, 16, 31, 32, 33, 64, 65] {
        for (t, n) in [(1, 1), (1, 65), (2, 17), (3, 8), (5, 35), (7, 4), (13, 64), (17, 33)] {
            check_floats(t, n, k);
        }
    }
}

#[test]
fn floats_agree_when_cut_over_threads_and_panels() {
    check_floats(1, 1_000, 576);
    check_floats(2, 259, 1_031);
    check_floats(31, 131, 260);
    check_floats(65, 67, 96);
}

#[test]
fn quantised_products_have_the_same_bits_everywhere() {
    for encoding in Encoding::ALL.into_iter().filter(|e| e.block_numbers() > 1) {
        let block = encoding.block_numbers();
        for (t, n, blocks) in
            [(1, 1, 1), (1, 70, 3), (2, 17, 2), (3, 80, 1), (4, 65, 5), (5, 33, 1)]
                .into_iter()
                .chain([(8, 48, 3), (9, 33, 37), (17, 20, 2), (40, 16, 1)])
        {
            check_quantised(encoding, t, n, blocks * block);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn floats_agree_at_random_shapes(t in 1_usize..40, n in 1_usize..150, k in 1_usize..150) {
        check_floats(t, n, k);
    }
}

#[test]
#[should_panic(expected = "an output of 1 x 2")]
fn a_wrong_output_shape_is_refused() {
    let w = pack(Encoding::F32, 2, 2, &[0; 16]);
    each_kernels(|kernels| kernels.matmul(&mut [0.0; 3], &[0.0; 2], &w));
}
