//! Every body against the definition, over shapes with odd tails.

use half::{bf16, f16};
use proptest::prelude::*;

use super::super::testing::{bits, each_kernels, numbers};
use super::super::{Elements, Isa, Kernels, Matrix, dot_tolerance};

/// The same numbers in every stored type, rounded to each.
struct Weights {
    f32: Vec<f32>,
    f16: Vec<f16>,
    bf16: Vec<bf16>,
}

impl Weights {
    fn new(seed: u64, length: usize) -> Self {
        let f32 = numbers(seed, length);
        let f16 = f32.iter().map(|&v| f16::from_f32(v)).collect();
        let bf16 = f32.iter().map(|&v| bf16::from_f32(v)).collect();
        Self { f32, f16, bf16 }
    }

    fn all(&self) -> [Elements<'_>; 3] {
        [Elements::F32(&self.f32), Elements::F16(&self.f16), Elements::Bf16(&self.bf16)]
    }
}

fn product(kernels: &Kernels, x: &[f32], w: &Matrix<'_>) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.len() / w.cols * w.rows];
    kernels.matmul(&mut out, x, w);
    out
}

/// Each output within tolerance of the exact one; each row the same bits when computed alone and
/// on another number of threads.
fn check(t: usize, n: usize, k: usize) {
    let x = numbers(7, t * k);
    let weights = Weights::new(8, n * k);
    for elements in weights.all() {
        let w = Matrix::new(n, k, elements).expect("the shape fits");
        let mut wide = vec![0.0; n * k];
        elements.widen_into(0, &mut wide);
        let mut seen: Vec<(Isa, Vec<u32>)> = Vec::new();
        each_kernels(|kernels| {
            let out = product(kernels, &x, &w);
            match seen.iter().find(|(isa, _)| *isa == kernels.isa()) {
                Some((isa, on_one_thread)) => assert_eq!(&bits(&out), on_one_thread, "{isa:?}"),
                None => seen.push((kernels.isa(), bits(&out))),
            }
            for (index, &found) in out.iter().enumerate() {
                let (x, w) = (&x[index / n * k..][..k], &wide[index % n * k..][..k]);
                let terms = || x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                let exact: f64 = terms().sum();
                let magnitude: f64 = terms().map(f64::abs).sum();
                let tolerance = dot_tolerance(kernels.isa(), k, magnitude as f32);
                assert!(
                    (f64::from(found) - exact).abs() <= f64::from(tolerance),
                    "{:?} {t}x{n}x{k} at {index}: {found} {exact}",
                    kernels.isa()
                );
            }
            for (x, row) in x.chunks_exact(k).zip(out.chunks_exact(n)) {
                assert_eq!(bits(&product(kernels, x, &w)), bits(row), "{:?}", kernels.isa());
            }
            let mut sum = out.clone();
            kernels.matmul_add(&mut sum, &x, &w);
            let doubled: Vec<f32> = out.iter().map(|v| v + v).collect();
            assert_eq!(bits(&sum), bits(&doubled));
        });
    }
}

#[test]
fn products_agree_at_every_small_shape() {
    for k in [1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 47, 48, 63, 64, 65] {
        for (t, n) in [(1, 1), (1, 9), (2, 3), (3, 8), (5, 5), (7, 4), (13, 17)] {
            check(t, n, k);
        }
    }
}

#[test]
fn products_agree_when_cut_over_threads_and_panels() {
    check(1, 1_000, 576);
    check(2, 259, 1_031);
    check(31, 131, 260);
    check(65, 67, 96);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn products_agree_at_random_shapes(t in 1_usize..20, n in 1_usize..70, k in 1_usize..150) {
        check(t, n, k);
    }
}

#[test]
#[should_panic(expected = "an output of 1 x 2")]
fn a_wrong_output_shape_is_refused() {
    let w = Matrix::new(2, 2, Elements::F32(&[0.0; 4])).expect("the shape fits");
    each_kernels(|kernels| kernels.matmul(&mut [0.0; 3], &[0.0; 2], &w));
}
