//! From floats to blocks, for models that are loaded smaller than they are stored.
//!
//! Q8_0 rounds to the nearest. Q4_K searches, for each sub-block, the scale and minimum with the least
//! weighted squared error: a few spacings are tried, and for each the codes it leads to are fitted by
//! linear regression. Large numbers weigh more, as they do in products.

use super::Encoding;
use half::f16;

/// Quantises `numbers`, whole blocks, to `encoding`: Q8_0 or Q4_K.
///
/// # Panics
/// If `encoding` is another, or `numbers` are no whole blocks.
pub(crate) fn quantise(encoding: Encoding, numbers: &[f32]) -> Vec<u8> {
    let blocks = numbers.chunks_exact(encoding.block_numbers());
    assert!(blocks.remainder().is_empty(), "{} numbers are no whole blocks", numbers.len());
    let mut out = Vec::with_capacity(blocks.len() * encoding.block_bytes());
    for block in blocks {
        match encoding {
            Encoding::Q8_0 => q8_0(block, &mut out),
            Encoding::Q4_K => q4_k(block, &mut out),
            other => unreachable!("nothing is quantised to {other}"),
        }
    }
    out
}

fn q8_0(numbers: &[f32], out: &mut Vec<u8>) {
    let largest = numbers.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
    let scale = f16::from_f32(largest / 127.0);
    let inverse = inverse(scale.to_f32());
    out.extend(scale.to_le_bytes());
    // The cast saturates: a scale that was rounded down may ask for 128.
    out.extend(numbers.iter().map(|x| ((x * inverse).round() as i8).cast_unsigned()));
}

fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}

/// Numbers of a sub-block.
const SUB: usize = 32;

fn q4_k(numbers: &[f32], out: &mut Vec<u8>) {
    let mut fits = [(0.0_f32, 0.0_f32); 8];
    for (fit, sub) in fits.iter_mut().zip(numbers.chunks_exact(SUB)) {
        *fit = fit_sub_block(sub);
    }
    let largest = |of: fn(&(f32, f32)) -> f32| fits.iter().map(of).fold(0.0_f32, f32::max);
    let scale = f16::from_f32(largest(|fit| fit.0) / 63.0);
    let min = f16::from_f32(largest(|fit| fit.1) / 63.0);
    let six_bits = |x: f32, unit: f16| (x * inverse(unit.to_f32())).round().clamp(0.0, 63.0) as u8;
    let scales = fits.map(|fit| six_bits(fit.0, scale));
    let mins = fits.map(|fit| six_bits(fit.1, min));
    out.extend(scale.to_le_bytes());
    out.extend(min.to_le_bytes());
    out.extend(pack_six_bits(scales, mins));
    let mut codes = [0_u8; 256];
    for (sub, (codes, numbers)) in
        codes.chunks_exact_mut(SUB).zip(numbers.chunks_exact(SUB)).enumerate()
    {
        let step = scale.to_f32() * f32::from(scales[sub]);
        let min = min.to_f32() * f32::from(mins[sub]);
        let inverse = inverse(step);
        for (code, x) in codes.iter_mut().zip(numbers) {
            *code = ((x + min) * inverse).round().clamp(0.0, 15.0) as u8;
        }
    }
    for pair in codes.chunks_exact(2 * SUB) {
        let (low, high) = pair.split_at(SUB);
        out.extend(low.iter().zip(high).map(|(low, high)| low | high << 4));
    }
}

/// Scale and (negated) minimum of a sub-block, neither below zero.
fn fit_sub_block(numbers: &[f32]) -> (f32, f32) {
    /// Spacings tried around the one that covers all numbers.
    const TRIES: usize = 21;
    const TOP: f32 = 15.0;
    let smallest = numbers.iter().fold(0.0_f32, |min, x| min.min(*x));
    let largest = numbers.iter().fold(f32::NEG_INFINITY, |max, x| max.max(*x));
    if largest <= smallest {
        return (0.0, -smallest);
    }
    let mean_square = numbers.iter().map(|x| x * x).sum::<f32>() / numbers.len() as f32;
    let base = mean_square.sqrt();
    let weight = |x: f32| base + x.abs();
    let error = |(scale, min): (f32, f32)| -> f32 {
        let inverse = inverse(scale);
        let off = |x: &f32| {
            let code = ((x + min) * inverse).round().clamp(0.0, TOP);
            let off = scale * code - min - x;
            weight(*x) * off * off
        };
        numbers.iter().map(off).sum()
    };
    let mut best = ((largest - smallest) / TOP, -smallest);
    let mut least = error(best);
    for attempt in 0..TRIES {
        let spacing = (largest - smallest) / (TOP - 1.0 + 0.1 * attempt as f32);
        let fit = regress(numbers, smallest, spacing, weight);
        let found = error(fit);
        if found < least {
            (best, least) = (fit, found);
        }
    }
    best
}

/// The line through the codes that `spacing` leads to which is nearest to the numbers.
fn regress(
    numbers: &[f32],
    smallest: f32,
    spacing: f32,
    weight: impl Fn(f32) -> f32,
) -> (f32, f32) {
    let [mut w, mut wc, mut wcc, mut wx, mut wxc] = [0.0_f32; 5];
    for &x in numbers {
        let code = ((x - smallest) / spacing).round().clamp(0.0, 15.0);
        let weight = weight(x);
        w += weight;
        wc += weight * code;
        wcc += weight * code * code;
        wx += weight * x;
        wxc += weight * x * code;
    }
    let determinant = w * wcc - wc * wc;
    if determinant <= 0.0 {
        return (spacing, -smallest);
    }
    let scale = (w * wxc - wx * wc) / determinant;
    let min = (wc * wxc - wcc * wx) / determinant;
    // A minimum above zero cannot be stored: then the line goes through the origin.
    if min < 0.0 { (if wcc > 0.0 { wxc / wcc } else { 0.0 }, 0.0) } else { (scale.max(0.0), min) }
}

/// The twelve bytes that [`super::Block`] reads.
fn pack_six_bits(scales: [u8; 8], mins: [u8; 8]) -> [u8; 12] {
    let mut packed = [0; 12];
    for sub in 0..4 {
        packed[sub] = scales[sub] | scales[sub + 4] >> 4 << 6;
        packed[sub + 4] = mins[sub] | mins[sub + 4] >> 4 << 6;
        packed[sub + 8] = scales[sub + 4] & 15 | mins[sub + 4] << 4;
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::super::widen;
    use super::*;
    use proptest::prelude::*;
    use talka_base::rng::Rng;

    /// Sums of uniform numbers: nearly Gaussian, with deviation one.
    fn gaussian(count: usize) -> Vec<f32> {
        let mut rng = Rng::new(11);
        let mut uniform = || (rng.next_u64() >> 40) as f32 / (1_u64 << 24) as f32 - 0.5;
        (0..count).map(|_| (0..12).map(|_| uniform()).sum()).collect()
    }

    fn back(encoding: Encoding, numbers: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; numbers.len()];
        widen(encoding, &quantise(encoding, numbers), &mut out);
        out
    }

    /// Root mean square error, of numbers with deviation one.
    fn error(encoding: Encoding) -> f32 {
        let numbers = gaussian(256 * 64);
        let squares = numbers.iter().zip(back(encoding, &numbers)).map(|(a, b)| (a - b) * (a - b));
        (squares.sum::<f32>() / numbers.len() as f32).sqrt()
    }

    #[test]
    fn errors_are_those_of_the_best_known_quantisers() {
        // llama.cpp leaves 0.0055 and 0.076 on such numbers.
        assert!(error(Encoding::Q8_0) < 0.0056, "{}", error(Encoding::Q8_0));
        assert!(error(Encoding::Q4_K) < 0.077, "{}", error(Encoding::Q4_K));
    }

    proptest! {
        #[test]
        fn any_numbers_come_back_near(
            numbers in prop::collection::vec(-1e3_f32..1e3, 256),
            scale in -6_i32..3,
        ) {
            let numbers: Vec<f32> = numbers.iter().map(|x| x * 10_f32.powi(scale)).collect();
            let largest = numbers.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
            // Q4_K has fifteen steps, at most from the largest below zero to the largest above: nothing is off by more than one.
            for (encoding, share) in [(Encoding::Q8_0, 0.005), (Encoding::Q4_K, 2.0 / 15.0)] {
                for (x, found) in numbers.iter().zip(back(encoding, &numbers)) {
                    prop_assert!((x - found).abs() <= share * largest + 1e-7, "{encoding}: {x} {found}");
                }
            }
        }
    }

    #[test]
    fn nothing_and_equal_numbers_are_kept() {
        for encoding in [Encoding::Q8_0, Encoding::Q4_K] {
            assert_eq!(back(encoding, &[0.0; 256]), [0.0; 256]);
            for found in back(encoding, &[-0.5; 256]) {
                assert!((found + 0.5).abs() < 1e-2, "{encoding}: {found}");
            }
        }
    }
}
