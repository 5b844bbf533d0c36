//! Quantised products with AVX-512 dot products of bytes: a few rows of activations.

use super::super::super::blocks::{CHUNK, Kind, Panel, with_kind};
use super::super::super::matrix::PANEL_ROWS;
use super::super::{Group, STREAMS};
use super::Work;
use std::arch::x86_64::*;
use std::ops::Range;

/// Rows of activations that share a reading of the weights.
const ROWS_MAX: usize = 4;

/// How far ahead codes are fetched, in bytes.
const AHEAD: usize = 4096;

/// # Safety
/// AVX-512 with VNNI must be available; nobody else may touch these columns of the output.
pub(super) unsafe fn run(work: &Work<'_>, range: Range<usize>) {
    // SAFETY: the caller's promises.
    with_kind!(work.blocks.encoding, K => unsafe { of_kind::<K>(work, range) })
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c")]
unsafe fn of_kind<K: Kind>(work: &Work<'_>, range: Range<usize>) {
    let mut row = 0;
    while row < work.product.t {
        // SAFETY: the caller's promises.
        row += unsafe {
            match work.product.t - row {
                1 => rows::<K, 1, STREAMS>(work, range.clone(), row),
                2 | 3 => rows::<K, 2, STREAMS>(work, range.clone(), row),
                _ => rows::<K, ROWS_MAX, 2>(work, range.clone(), row),
            }
        };
    }
}

/// `T` rows from `row` on with the panels of `range`, `P` of them side by side; returns `T`.
#[inline(always)]
unsafe fn rows<K: Kind, const T: usize, const P: usize>(
    work: &Work<'_>,
    range: Range<usize>,
    row: usize,
) -> usize {
    let run = range.len().div_ceil(P);
    for at in range.start..range.start + run {
        // SAFETY: the caller's promises.
        unsafe { group_of::<K, T, P>(work, Group { at, run, end: range.end }, row) };
    }
    T
}

#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "indices run over lanes of several arrays at once")]
unsafe fn group_of<K: Kind, const T: usize, const P: usize>(
    work: &Work<'_>,
    group: Group,
    row: usize,
) {
    let scheme = const { K::SCHEME };
    let (k, units) = (work.product.k, work.product.k / scheme.sub);
    let subs = CHUNK / scheme.sub;
    let quads = scheme.sub / 4;
    let mut panels = [work.blocks.panel(group.panel(0)); P];
    for p in 0..P {
        panels[p] = work.blocks.panel(group.panel(p));
    }
    let activations = work.activations;
    let panel_bytes = work.blocks.panel_bytes();
    // SAFETY: every chunk and row named is there; the caller has the instructions.
    unsafe {
        let mut out = [[_mm512_setzero_ps(); P]; T];
        for chunk in 0..k / CHUNK {
            for p in 0..P {
                let planes = panels[p].codes.as_ptr().add(chunk * scheme.chunk_bytes());
                for line in 0..scheme.chunk_bytes() / 64 {
                    _mm_prefetch::<_MM_HINT_T0>(planes.wrapping_add(AHEAD + line * 64).cast());
                }
                // Scales end a panel: those of the next are a whole panel away.
                let ahead = chunk * CHUNK * scheme.scale_bytes() / scheme.block;
                let ahead = panels[p].scales.as_ptr().wrapping_add(ahead + panel_bytes);
                _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                let codes = unpack::<K>(planes);
                for sub in 0..subs {
                    let unit = chunk * subs + sub;
                    let (scale, min) = scales::<K>(&panels[p], unit);
                    for t in 0..T {
                        let x = activations.codes.as_ptr().add((row + t) * k + chunk * CHUNK);
                        let at = (row + t) * units + unit;
                        let start = if scheme.offset == 0 {
                            _mm512_setzero_si512()
                        } else {
                            _mm512_set1_epi32(*activations.starts.get_unchecked(at))
                        };
                        let mut sums = [start, _mm512_setzero_si512()];
                        for quad in sub * quads..(sub + 1) * quads {
                            let x = _mm512_set1_epi32(x.cast::<i32>().add(quad).read_unaligned());
                            sums[quad % 2] = _mm512_dpbusd_epi32(sums[quad % 2], codes[quad], x);
                        }
                        let sum = _mm512_cvtepi32_ps(_mm512_add_epi32(sums[0], sums[1]));
                        let x_scale =
                            activations.scales.get_unchecked((row + t) * (k / CHUNK) + chunk);
                        let product = _mm512_mul_ps(sum, scale);
                        out[t][p] = _mm512_fmadd_ps(product, _mm512_set1_ps(*x_scale), out[t][p]);
                        if scheme.has_min {
                            let sum = _mm512_set1_ps(*activations.scaled_sums.get_unchecked(at));
                            out[t][p] = _mm512_fnmadd_ps(min, sum, out[t][p]);
                        }
                    }
                }
            }
        }
        for p in 0..P {
            if !group.has(p) {
                break;
            }
            for t in 0..T {
                let mut sums = [0.0; PANEL_ROWS];
                _mm512_storeu_ps(sums.as_mut_ptr(), out[t][p]);
                work.product.write(row + t, group.panel(p), &sums);
            }
        }
    }
}

/// Scale and minimum of each row for sub-block `unit` of a panel.
///
/// # Safety
/// AVX-512 must be available and the sub-block there.
#[inline(always)]
pub(super) unsafe fn scales<K: Kind>(panel: &Panel<'_>, unit: usize) -> (__m512, __m512) {
    let scheme = const { K::SCHEME };
    let per_block = scheme.block / scheme.sub;
    // SAFETY: reads the scales of the block of `unit`, laid out as `Blocks` says.
    unsafe {
        let block = panel.scales.as_ptr().add(unit / per_block * scheme.scale_bytes());
        let float = |at: usize| -> *const __m256i { block.add(at * 2 * PANEL_ROWS).cast() };
        let mut scale = _mm512_cvtph_ps(_mm256_loadu_si256(float(0)));
        let mut min = _mm512_setzero_ps();
        if scheme.has_min {
            min = _mm512_cvtph_ps(_mm256_loadu_si256(float(1)));
        }
        if scheme.block > CHUNK {
            let floats = (1 + scheme.has_min as usize) * 2 * PANEL_ROWS;
            let integers = block.add(floats + unit % per_block * PANEL_ROWS);
            let factor = _mm512_cvtepi8_epi32(_mm_loadu_si128(integers.cast()));
            scale = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(factor));
            if scheme.has_min {
                let integers = integers.add(per_block * PANEL_ROWS);
                let factor = _mm512_cvtepu8_epi32(_mm_loadu_si128(integers.cast()));
                min = _mm512_mul_ps(min, _mm512_cvtepi32_ps(factor));
            }
        }
        (scale, min)
    }
}

/// The codes of a chunk, four inputs of sixteen rows in each register.
///
/// # Safety
/// AVX-512 BW must be available and the chunk's planes there.
#[inline(always)]
pub(super) unsafe fn unpack<K: Kind>(planes: *const u8) -> [__m512i; 8] {
    // SAFETY: reads the planes of a chunk, laid out as `super::blocks` says.
    unsafe {
        let load = planes.cast::<__m512i>();
        let zero = _mm512_setzero_si512();
        match const { K::SCHEME }.bits {
            8 => {
                let mut codes = [zero; 8];
                for (i, codes) in codes.iter_mut().enumerate() {
                    *codes = _mm512_loadu_si512(load.add(i));
                }
                codes
            }
            4 => nibbles(load),
            5 => add_bits(nibbles(load), planes.add(256), 16),
            6 => {
                let mut codes = nibbles(load);
                let [a, b] = [_mm512_loadu_si512(load.add(4)), _mm512_loadu_si512(load.add(5))];
                let mask = _mm512_set1_epi8(0x30);
                let parts = [
                    _mm512_slli_epi16::<4>(a),
                    _mm512_slli_epi16::<4>(b),
                    _mm512_slli_epi16::<2>(a),
                    _mm512_slli_epi16::<2>(b),
                    a,
                    b,
                    _mm512_srli_epi16::<2>(a),
                    _mm512_srli_epi16::<2>(b),
                ];
                for (codes, part) in codes.iter_mut().zip(parts) {
                    *codes = _mm512_or_si512(*codes, _mm512_and_si512(part, mask));
                }
                codes
            }
            2 => crumbs(load),
            _ => add_bits(crumbs(load), planes.add(128), 4),
        }
    }
}

#[inline(always)]
unsafe fn nibbles(plane: *const __m512i) -> [__m512i; 8] {
    // SAFETY: the caller's promises.
    unsafe {
        let mask = _mm512_set1_epi8(15);
        let mut codes = [_mm512_setzero_si512(); 8];
        for i in 0..4 {
            let both = _mm512_loadu_si512(plane.add(i));
            codes[i] = _mm512_and_si512(both, mask);
            codes[i + 4] = _mm512_and_si512(_mm512_srli_epi16::<4>(both), mask);
        }
        codes
    }
}

#[inline(always)]
unsafe fn crumbs(plane: *const __m512i) -> [__m512i; 8] {
    // SAFETY: the caller's promises.
    unsafe {
        let mask = _mm512_set1_epi8(3);
        let mut codes = [_mm512_setzero_si512(); 8];
        for i in 0..2 {
            let all = _mm512_loadu_si512(plane.add(i));
            codes[i] = _mm512_and_si512(all, mask);
            codes[i + 2] = _mm512_and_si512(_mm512_srli_epi16::<2>(all), mask);
            codes[i + 4] = _mm512_and_si512(_mm512_srli_epi16::<4>(all), mask);
            codes[i + 6] = _mm512_and_si512(_mm512_srli_epi16::<6>(all), mask);
        }
        codes
    }
}

/// Adds `value` to the codes whose bit is set.
#[inline(always)]
unsafe fn add_bits(mut codes: [__m512i; 8], plane: *const u8, value: i8) -> [__m512i; 8] {
    // SAFETY: the caller's promises.
    unsafe {
        for (i, codes) in codes.iter_mut().enumerate() {
            let mask = plane.cast::<u64>().add(i).read_unaligned();
            *codes = _mm512_mask_add_epi8(*codes, mask, *codes, _mm512_set1_epi8(value));
        }
        codes
    }
}
