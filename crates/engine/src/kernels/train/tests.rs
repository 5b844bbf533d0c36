//! Every operation against its definition, written anew in f64 and plain loops, over odd shapes.

use super::super::testing::{bits, each_kernels, numbers};
use super::super::{Isa, Kernels};
use super::{AdamStep, AttentionShape, AttentionTape, Factors, Packed, View};
use half::bf16;

fn wide(numbers: &[f32]) -> Vec<f64> {
    numbers.iter().map(|x| f64::from(*x)).collect()
}

/// Rounded as factors are.
fn rounded(numbers: &[f32], factors: Factors) -> Vec<f64> {
    match factors {
        Factors::F32 => wide(numbers),
        Factors::Bf16 => numbers.iter().map(|x| bf16::from_f32(*x).to_f64()).collect(),
    }
}

/// Differences stay below `tolerance` of the largest expected number.
fn close(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(1e-30_f64, |most, x| most.max(x.abs()));
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let far = (f64::from(*found) - expected).abs() / largest;
        assert!(far <= tolerance, "{what}, {at}: {found} for {expected}");
    }
}

/// `[m, k] · [k, n]`.
fn naive(a: &[f64], b: &[f64], [m, k, n]: [usize; 3]) -> Vec<f64> {
    let mut out = vec![0.0; m * n];
    for row in 0..m {
        for at in 0..k {
            for col in 0..n {
                out[row * n + col] += a[row * k + at] * b[at * n + col];
            }
        }
    }
    out
}

fn transposed<T: Copy>(numbers: &[T], cols: usize) -> Vec<T> {
    (0..cols).flat_map(|col| numbers[col..].iter().step_by(cols).copied()).collect()
}

const SHAPES: [[usize; 3]; 7] = [
    [1, 1, 1],
    [16, 32, 16],
    [33, 65, 17],
    [5, 200, 70],
    [130, 31, 300],
    [64, 64, 64],
    [17, 96, 1],
];

#[test]
fn products_of_matrices_and_their_transposes() {
    each_kernels(|kernels| {
        for (seed, shape @ [m, k, n]) in SHAPES.into_iter().enumerate() {
            let (a, b) = (numbers(seed as u64, m * k), numbers(99 + seed as u64, k * n));
            let (a_t, b_t) = (transposed(&a, k), transposed(&b, n));
            for factors in [Factors::F32, Factors::Bf16] {
                let expected = naive(&rounded(&a, factors), &rounded(&b, factors), shape);
                let lefts = [View::new(&a, m, k), View::new(&a_t, k, m).t()];
                let rights = [View::new(&b, k, n), View::new(&b_t, n, k).t()];
                for (left, right) in lefts.into_iter().zip(rights).chain([(lefts[0], rights[1])]) {
                    let [mut l, mut r] = <[Packed; 2]>::default();
                    kernels.pack_left(&mut l, left, factors);
                    kernels.pack_right(&mut r, right, factors);
                    let mut out = vec![0.5; m * n];
                    kernels.product(&mut out, &l, &r, factors, false);
                    close(&out, &expected, 1e-6, "product");
                    kernels.product(&mut out, &l, &r, factors, true);
                    let doubled: Vec<f64> = expected.iter().map(|x| 2.0 * x).collect();
                    close(&out, &doubled, 1e-6, "added");
                }
            }
        }
    });
}

#[test]
fn a_product_in_bf16_is_the_rounded_one() {
    each_kernels(|kernels| {
        let (a, b) = (numbers(1, 20 * 40), numbers(2, 40 * 30));
        let [mut l, mut r] = <[Packed; 2]>::default();
        kernels.pack_left(&mut l, View::new(&a, 20, 40), Factors::Bf16);
        kernels.pack_right(&mut r, View::new(&b, 40, 30), Factors::Bf16);
        let (mut out, mut narrow) = (vec![0.0; 600], vec![bf16::ZERO; 600]);
        kernels.product(&mut out, &l, &r, Factors::Bf16, false);
        kernels.product(&mut narrow, &l, &r, Factors::Bf16, false);
        let expected: Vec<bf16> = out.iter().map(|x| bf16::from_f32(*x)).collect();
        assert_eq!(narrow, expected);
    });
}

#[test]
fn products_agree_to_the_bit_but_on_matrix_units_and_as_pairs() {
    let (a, b) = (numbers(1, 37 * 75), numbers(2, 75 * 50));
    let mut seen: Option<Vec<u32>> = None;
    each_kernels(|kernels| {
        if kernels.isa() == Isa::Amx || kernels.isa().has_pairs() {
            return;
        }
        let [mut l, mut r] = <[Packed; 2]>::default();
        kernels.pack_left(&mut l, View::new(&a, 37, 75), Factors::Bf16);
        kernels.pack_right(&mut r, View::new(&b, 75, 50), Factors::Bf16);
        let mut out = vec![0.0; 37 * 50];
        kernels.product(&mut out, &l, &r, Factors::Bf16, false);
        assert_eq!(*seen.get_or_insert_with(|| bits(&out)), bits(&out), "{:?}", kernels.isa());
    });
}

#[test]
fn norms_forth_and_back() {
    const EPSILON: f32 = 1e-5;
    each_kernels(|kernels| {
        for (rows, width) in [(1, 7), (70, 48), (130, 33)] {
            let (x, weight) = (numbers(1, rows * width), numbers(2, width));
            let gradient = numbers(3, rows * width);
            let (mut out, mut scales) = (vec![0.0_f32; rows * width], vec![0.0; rows]);
            kernels.rms_norm_forward(&mut out, &mut scales, &x, &weight, EPSILON);
            let (mut to_x, mut to_weight) = (vec![0.25; rows * width], vec![9.0; width]);
            kernels.rms_norm_backward(&mut to_x, &mut to_weight, &gradient, &x, &scales, &weight);
            let (mut normed, mut back) = (vec![0.0; rows * width], vec![0.0; rows * width]);
            let mut back_weight = vec![0.0; width];
            for row in 0..rows {
                let at = |col: usize| row * width + col;
                let x: Vec<f64> = wide(&x[at(0)..at(width)]);
                let mean = x.iter().map(|x| x * x).sum::<f64>() / width as f64;
                let scale = 1.0 / (mean + f64::from(EPSILON)).sqrt();
                let pulled = |col: usize| f64::from(gradient[at(col)]) * f64::from(weight[col]);
                let common = (0..width).map(|col| pulled(col) * x[col]).sum::<f64>();
                for col in 0..width {
                    normed[at(col)] = x[col] * scale * f64::from(weight[col]);
                    back[at(col)] =
                        0.25 + scale * pulled(col) - x[col] * scale.powi(3) * common / width as f64;
                    back_weight[col] += f64::from(gradient[at(col)]) * x[col] * scale;
                }
            }
            close(&out, &normed, 1e-6, "norm");
            close(&to_x, &back, 1e-5, "norm back");
            close(&to_weight, &back_weight, 1e-5, "weights back");
        }
    });
}

#[test]
fn gates_forth_and_back() {
    each_kernels(|kernels| {
        let length = 40_001;
        let (gate, up, gradient) = (numbers(1, length), numbers(2, length), numbers(3, length));
        let mut out = vec![0.0; length];
        kernels.swiglu_forward(&mut out, &gate, &up);
        let (mut to_gate, mut to_up) = (gate.clone(), up.clone());
        kernels.swiglu_backward(&mut to_gate, &mut to_up, &gradient);
        let (gate, up, gradient) = (wide(&gate), wide(&up), wide(&gradient));
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let silu = |x: f64| x * sigmoid(x);
        let each = |f: &dyn Fn(usize) -> f64| (0..length).map(f).collect::<Vec<f64>>();
        close(&out, &each(&|i| silu(gate[i]) * up[i]), 1e-6, "gate");
        let slope = |x: f64| sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x)));
        close(&to_gate, &each(&|i| gradient[i] * up[i] * slope(gate[i])), 1e-6, "gate back");
        close(&to_up, &each(&|i| gradient[i] * silu(gate[i])), 1e-6, "up back");
    });
}

#[test]
fn heads_turn_and_turn_back() {
    each_kernels(|kernels| {
        let (heads, dim, positions, rows) = (3, 6, 5, 2);
        let x = numbers(1, rows * positions * heads * dim);
        let angles = numbers(2, positions * dim / 2);
        let [cos, sin] = [f32::cos, f32::sin].map(|f| angles.iter().map(|a| f(*a)).collect());
        let angles: [&Vec<f32>; 2] = [&cos, &sin];
        let angles = angles.map(Vec::as_slice);
        let mut turned = x.clone();
        kernels.rotate(&mut turned, heads, dim, angles, false);
        let mut expected = x.clone();
        for row in expected.chunks_exact_mut(positions * heads * dim) {
            kernels.rope(row, dim, heads, angles[0], angles[1]);
        }
        close(&turned, &wide(&expected), 1e-6, "turned");
        kernels.rotate(&mut turned, heads, dim, angles, true);
        close(&turned, &wide(&x), 1e-6, "turned back");
    });
}

/// Attention and its way back, one query at a time.
fn naive_attention(
    [q, k, v]: [&[f64]; 3],
    gradient: &[f64],
    shape: AttentionShape,
) -> [Vec<f64>; 4] {
    let AttentionShape { rows, length, heads, kv_heads, head_dim } = shape;
    let [mut out, mut to_q] = [vec![0.0; q.len()], vec![0.0; q.len()]];
    let [mut to_k, mut to_v] = [vec![0.0; k.len()], vec![0.0; k.len()]];
    let scale = 1.0 / (head_dim as f64).sqrt();
    for row in 0..rows {
        for head in 0..heads {
            let query = |at: usize| ((row * length + at) * heads + head) * head_dim;
            let kv_head = head / (heads / kv_heads);
            let key = |at: usize| ((row * length + at) * kv_heads + kv_head) * head_dim;
            for at in 0..length {
                let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                let here = &q[query(at)..][..head_dim];
                let score = |other| dot(here, &k[key(other)..][..head_dim]) * scale;
                let powers: Vec<f64> = (0..=at).map(|other| score(other).exp()).collect();
                let sum: f64 = powers.iter().sum();
                let weights: Vec<f64> = powers.iter().map(|power| power / sum).collect();
                let pull = &gradient[query(at)..][..head_dim];
                let pulled: Vec<f64> =
                    (0..=at).map(|other| dot(pull, &v[key(other)..][..head_dim])).collect();
                let common = dot(&weights, &pulled);
                for other in 0..=at {
                    let to_score = weights[other] * (pulled[other] - common) * scale;
                    for d in 0..head_dim {
                        out[query(at) + d] += weights[other] * v[key(other) + d];
                        to_v[key(other) + d] += weights[other] * pull[d];
                        to_q[query(at) + d] += to_score * k[key(other) + d];
                        to_k[key(other) + d] += to_score * here[d];
                    }
                }
            }
        }
    }
    [out, to_q, to_k, to_v]
}

fn check_attention(kernels: &Kernels, shape: AttentionShape, factors: Factors, tolerance: f64) {
    let positions = shape.rows * shape.length;
    let [query, kv] = [shape.heads, shape.kv_heads].map(|heads| positions * heads * shape.head_dim);
    let (q, k, v) = (numbers(1, query), numbers(2, kv), numbers(3, kv));
    let gradient = numbers(4, query);
    let mut tape = AttentionTape::default();
    let mut out = vec![0.0; query];
    kernels.attention_forward(&mut out, &mut tape, [&q, &k, &v], shape, factors);
    let [mut to_q, mut to_k, mut to_v] = [vec![9.0; query], vec![9.0; kv], vec![9.0; kv]];
    kernels.attention_backward(
        [&mut to_q, &mut to_k, &mut to_v],
        &gradient,
        &tape,
        [&q, &k, &v],
        shape,
        factors,
    );
    let [wide_q, wide_k, wide_v] = [&q, &k, &v].map(|numbers| wide(numbers));
    let expected = naive_attention([&wide_q, &wide_k, &wide_v], &wide(&gradient), shape);
    for (found, (expected, what)) in
        [&out, &to_q, &to_k, &to_v].into_iter().zip(expected.iter().zip(["out", "q", "k", "v"]))
    {
        close(found, expected, tolerance, &format!("{shape:?} {factors:?} {what}"));
    }
}

#[test]
fn attention_forth_and_back() {
    each_kernels(|kernels| {
        for (rows, length, heads, kv_heads, head_dim) in
            [(1, 1, 1, 1, 2), (2, 37, 4, 2, 12), (1, 150, 3, 1, 16), (3, 64, 4, 4, 32)]
        {
            let shape = AttentionShape { rows, length, heads, kv_heads, head_dim };
            check_attention(kernels, shape, Factors::F32, 1e-5);
            check_attention(kernels, shape, Factors::Bf16, 2e-2);
        }
    });
}

#[test]
fn losses_and_their_gradients() {
    each_kernels(|kernels| {
        for (rows, vocab) in [(1, 2), (5, 100), (3, 1000)] {
            let mut logits: Vec<f32> =
                numbers(1, rows * vocab).into_iter().map(|x| 5.0 * x).collect();
            let targets: Vec<u32> = (0..rows).map(|row| (row * 7 % vocab) as u32).collect();
            let before = wide(&logits);
            let found = kernels.cross_entropy(&mut logits, &targets, 0.5);
            let mut expected = vec![0.0; rows * vocab];
            let mut loss = 0.0;
            for row in 0..rows {
                let powers = before[row * vocab..][..vocab].iter().map(|x| x.exp());
                let sum: f64 = powers.clone().sum();
                for (at, power) in powers.enumerate() {
                    expected[row * vocab + at] = 0.5 * power / sum;
                }
                let target = row * vocab + targets[row] as usize;
                expected[target] -= 0.5;
                loss += 0.5 * (sum.ln() - before[target]);
            }
            assert!((found - loss).abs() < 1e-5 * loss, "{found} for {loss}");
            close(&logits, &expected, 1e-6, "gradient");
        }
    });
}

#[test]
fn steps_of_adamw_are_those_of_the_formula() {
    let step = AdamStep {
        keep1: 0.1,
        beta2: 0.95,
        keep2: 0.05,
        epsilon: 1e-8,
        size: 0.01,
        root_correction: 0.5,
        stay: 0.99,
        scale: 0.5,
    };
    each_kernels(|kernels| {
        let length = 20_003;
        let mut weights = numbers(1, length);
        let (mut first, gradient) = (numbers(2, length), numbers(3, length));
        let mut second: Vec<f32> = numbers(4, length).into_iter().map(f32::abs).collect();
        let before = [wide(&weights), wide(&first), wide(&second)];
        kernels.adamw(&mut weights, [&mut first, &mut second], &gradient, step);
        let expected: Vec<f64> = (0..length)
            .map(|i| {
                let gradient = f64::from(gradient[i]) * 0.5;
                let first = before[1][i] + f64::from(step.keep1) * (gradient - before[1][i]);
                let second = before[2][i] * 0.95 + 0.05 * gradient * gradient;
                before[0][i] * 0.99 - 0.01 * first / (second.sqrt() / 0.5 + 1e-8)
            })
            .collect();
        close(&weights, &expected, 1e-5, "weights");
        let sum: f64 = wide(&gradient).iter().map(|x| x * x).sum();
        assert!((kernels.sum_of_squares(&gradient) - sum).abs() < 1e-5 * sum);
    });
}
