//! Quantised products with AVX2.

use super::super::super::blocks::{CHUNK, CHUNK_CODES, Kind, Panel, unpack, with_kind};
use super::super::super::matrix::PANEL_ROWS;
use super::Work;
use std::arch::x86_64::*;
use std::ops::Range;

/// Rows that share the unpacking of a chunk.
const ROWS: usize = 8;

/// # Safety
/// AVX2, FMA and F16C must be available; nobody else may touch these columns of the output.
pub(super) unsafe fn run(work: &Work<'_>, range: Range<usize>) {
    // SAFETY: the caller's promises.
    with_kind!(work.blocks.encoding, K => unsafe { of_kind::<K>(work, range) })
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn of_kind<K: Kind>(work: &Work<'_>, range: Range<usize>) {
    for index in range {
        let panel = work.blocks.panel(index);
        for row in (0..work.product.t).step_by(ROWS) {
            let rows = ROWS.min(work.product.t - row);
            // SAFETY: the caller's promises.
            unsafe {
                let sums = rows_of::<K>(work, panel, row, rows);
                for (r, [low, high]) in sums.iter().enumerate().take(rows) {
                    let mut out = [0.0; PANEL_ROWS];
                    _mm256_storeu_ps(out.as_mut_ptr(), *low);
                    _mm256_storeu_ps(out[8..].as_mut_ptr(), *high);
                    work.product.write(row + r, index, &out);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn rows_of<K: Kind>(
    work: &Work<'_>,
    panel: Panel<'_>,
    row: usize,
    rows: usize,
) -> [[__m256; 2]; ROWS] {
    let scheme = const { K::SCHEME };
    let (k, units) = (work.product.k, work.product.k / scheme.sub);
    let per_chunk = CHUNK / scheme.sub;
    let activations = work.activations;
    let mut codes = [0; CHUNK_CODES];
    // SAFETY: every chunk and row named is there; the caller has the instructions.
    unsafe {
        let mut out = [[_mm256_setzero_ps(); 2]; ROWS];
        for chunk in 0..k / CHUNK {
            unpack(scheme.bits, &panel.codes[chunk * scheme.chunk_bytes()..], &mut codes);
            for sub in 0..per_chunk {
                let unit = chunk * per_chunk + sub;
                for half in 0..2 {
                    let (scale, min) = scales::<K>(panel, unit, half);
                    let codes = codes.as_ptr().add(sub * scheme.sub * PANEL_ROWS + half * 32);
                    for (r, out) in out.iter_mut().enumerate().take(rows) {
                        let x = activations.codes.as_ptr().add((row + r) * k + unit * scheme.sub);
                        let at = (row + r) * units + unit;
                        let sum = dot::<K>(codes, x, *activations.starts.get_unchecked(at));
                        let product = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), scale);
                        let x_scale =
                            *activations.scales.get_unchecked((row + r) * (k / CHUNK) + chunk);
                        let out = &mut out[half];
                        *out = _mm256_fmadd_ps(product, _mm256_set1_ps(x_scale), *out);
                        if scheme.has_min {
                            let sum = *activations.scaled_sums.get_unchecked(at);
                            *out = _mm256_fnmadd_ps(min, _mm256_set1_ps(sum), *out);
                        }
                    }
                }
            }
        }
        out
    }
}

/// The integer sums of eight rows over one sub-block, from `start` on, which takes the offset away.
#[inline(always)]
unsafe fn dot<K: Kind>(codes: *const u8, x: *const i8, start: i32) -> __m256i {
    let scheme = const { K::SCHEME };
    // SAFETY: the caller's promises.
    unsafe {
        let ones = _mm256_set1_epi16(1);
        // Whole bytes are made signed below and have no offset any more.
        let start = if scheme.bits == 8 { 0 } else { start };
        let mut sum = _mm256_set1_epi32(start);
        for quad in 0..scheme.sub / 4 {
            let codes = _mm256_loadu_si256(codes.add(quad * 64).cast());
            let x = _mm256_set1_epi32(x.cast::<i32>().add(quad).read_unaligned());
            // Pairs are summed in 16 bits: two products with codes below 64 fit, with whole bytes only
            // magnitudes up to 128 do, so the sign moves to the activation.
            let pairs = if scheme.bits == 8 {
                let signed = _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
                _mm256_maddubs_epi16(_mm256_abs_epi8(signed), _mm256_sign_epi8(x, signed))
            } else {
                _mm256_maddubs_epi16(codes, x)
            };
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
        }
        sum
    }
}

/// Scale and minimum of eight rows for sub-block `unit` of a panel.
#[inline(always)]
unsafe fn scales<K: Kind>(panel: Panel<'_>, unit: usize, half: usize) -> (__m256, __m256) {
    let scheme = const { K::SCHEME };
    let per_block = scheme.block / scheme.sub;
    // SAFETY: reads the scales of the block of `unit`, laid out as `Blocks` says.
    unsafe {
        let block = panel.scales.as_ptr().add(unit / per_block * scheme.scale_bytes());
        let float = |at: usize| -> *const __m128i { block.add(at * 32 + half * 16).cast() };
        let mut scale = _mm256_cvtph_ps(_mm_loadu_si128(float(0)));
        let mut min = _mm256_setzero_ps();
        if scheme.has_min {
            min = _mm256_cvtph_ps(_mm_loadu_si128(float(1)));
        }
        if scheme.block > CHUNK {
            let floats = (1 + scheme.has_min as usize) * 32;
            let integers = block.add(floats + unit % per_block * PANEL_ROWS + half * 8);
            let factor = _mm256_cvtepi8_epi32(_mm_loadl_epi64(integers.cast()));
            scale = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(factor));
            if scheme.has_min {
                let integers = integers.add(per_block * PANEL_ROWS);
                let factor = _mm256_cvtepu8_epi32(_mm_loadl_epi64(integers.cast()));
                min = _mm256_mul_ps(min, _mm256_cvtepi32_ps(factor));
            }
        }
        (scale, min)
    }
}
