//! Functions of one number, written so that the compiler can evaluate many at once.

#![allow(clippy::needless_range_loop, reason = "indices run over lanes of several arrays at once")]

/// eˣ within 2 units in the last place; 0 far below, infinite far above, NaN for NaN.
///
/// Cephes' `expf`: `x = n ln 2 + r` with `|r| ≤ ln 2 / 2`, a polynomial for `eʳ`, and `2ⁿ` put into the
/// exponent. No branch and no call, and the same bits on every machine, unlike [`f32::exp`]. No check of a
/// cast or of an integer's range either: one would keep the compiler from evaluating many at once.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// Beyond these the result is 0 or infinite; inside, `2ⁿ` is made of two normal factors.
    const LOWEST: f32 = -104.0;
    const HIGHEST: f32 = 89.0;
    /// Adding and subtracting 1.5 · 2²³ rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts, so that `n · LN_2_HIGH` is exact.
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = -2.121_944_4e-4;

    let clamped = x.clamp(LOWEST, HIGHEST);
    let rounded = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = (clamped - n * LN_2_HIGH) - n * LN_2_LOW;
    let mut series = 1.987_569_1e-4;
    series = series * r + 1.398_2e-3;
    series = series * r + 8.333_452e-3;
    series = series * r + 4.166_579_6e-2;
    series = series * r + 1.666_666_5e-1;
    series = series * r + 0.5;
    let power = (series * r * r + r) + 1.0;
    // Two factors, because 2ⁿ alone may lie outside the normal numbers when the product does not.
    // The bits of `rounded` end in those of `n`; of a NaN they make some factors, and `power` stays a NaN.
    let n = rounded.to_bits().wrapping_sub(ROUND.to_bits()).cast_signed();
    let half = n >> 1;
    power * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// 2ⁿ for `-126 ≤ n ≤ 127`.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(n.wrapping_add(127).cast_unsigned() << 23)
}

/// tanh x within 3 units in the last place; NaN for NaN. As [`exp`]: no branch, the same bits everywhere.
///
/// Cephes' `tanhf`: an odd polynomial near 0, where the other form would cancel; elsewhere
/// `1 - 2 / (e²ˣ + 1)`.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    const SMALL: f32 = 0.625;
    let size = x.abs();
    let square = x * x;
    let mut series = -5.704_988_7e-3;
    series = series * square + 2.063_909e-2;
    series = series * square - 5.373_971_5e-2;
    series = series * square + 1.333_144_2e-1;
    series = series * square - 3.333_328e-1;
    let near = series * square * x + x;
    let far = (1.0 - 2.0 / (exp(2.0 * size) + 1.0)).copysign(x);
    if size < SMALL { near } else { far }
}

/// How many partial sums a reduction keeps; as many as the widest register holds.
pub(super) const LANES: usize = 16;

/// `Σ a[i] · b[i]` in a fixed order: [`LANES`] partial sums, added up pairwise.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    let (a_chunks, a_tail) = a.as_chunks::<LANES>();
    let (b_chunks, b_tail) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    for (sum, (a, b)) in sums.iter_mut().zip(a_tail.iter().zip(b_tail)) {
        *sum += a * b;
    }
    add_up(sums)
}

/// The sum of the partial sums, pairwise: halves are added until one is left.
#[inline(always)]
pub(super) fn add_up(mut sums: [f32; LANES]) -> f32 {
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst = 0.0_f64;
        for step in -870_000..880_000 {
            let x = step as f32 * 1e-4;
            let exact = f64::from(x).exp();
            let unit = f64::from(f32::EPSILON) * exact;
            worst = worst.max((f64::from(exp(x)) - exact).abs() / unit);
        }
        assert!(worst < 2.0, "{worst}");
    }

    #[test]
    fn exp_at_its_ends() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-200.0), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(200.0), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn tanh_is_within_three_units_in_the_last_place() {
        for step in -200_000..200_000 {
            let x = step as f32 * 1e-4;
            let exact = f64::from(x).tanh();
            let error = (f64::from(tanh(x)) - exact).abs();
            assert!(error <= 3.0 * f64::from(f32::EPSILON) * exact.abs(), "{x}: {error}");
        }
        assert_eq!(tanh(f32::INFINITY), 1.0);
        assert_eq!(tanh(f32::NEG_INFINITY), -1.0);
        assert!(tanh(f32::NAN).is_nan());
    }

    #[test]
    fn dot_sums_every_product_once() {
        for length in 0..70 {
            let a: Vec<f32> = (0..length).map(|i| i as f32).collect();
            let expected: f32 = a.iter().map(|v| v * v).sum();
            assert_eq!(dot(&a, &a), expected);
        }
    }
}
