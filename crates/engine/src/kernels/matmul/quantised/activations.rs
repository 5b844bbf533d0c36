//! Activations as bytes: chunks of 32 with one scale each, chosen so that the largest becomes 127.
//!
//! Decides the order they lie in: rows come in blocks, row by row for bodies that take one after the
//! other, by sixteen for matrix units. One pass reads the activations and writes all that products need.

use super::super::super::blocks::{CHUNK, Scheme};
use super::super::super::isa::{Isa, compiled_for};
use super::super::super::memory::Scratch;
use super::super::super::pool::{SharedSlice, ThreadPool};
use super::super::{INLINE_MAX, Product};

/// Memory for [`Activations`], kept because fresh memory would be faulted in each time.
#[derive(Default)]
pub(super) struct Room {
    codes: Scratch,
    scales: Scratch,
    starts: Scratch,
    scaled_sums: Scratch,
}

/// Rows of activations as bytes, in blocks of `B` rows: `T` of them, those beyond the last row are zero.
#[derive(Clone, Copy)]
pub(super) struct Activations<'a> {
    /// `[T / B, K / sub, B, sub]`, and [`SPARE`] beyond the end.
    pub codes: &'a [i8],
    /// `[T / B, K / 32, B]`: an activation is its code times the scale of its chunk.
    pub scales: &'a [f32],
    /// `[T / B, K / sub, B]`: minus the sum of the codes of a sub-block, times the offset of the weights.
    pub starts: &'a [i32],
    /// `[T / B, K / sub, B]`: the sum of the codes of a sub-block, times their scale.
    pub scaled_sums: &'a [f32],
}

/// Bytes that may be read beyond the end of the codes, a few tiles.
pub(super) const SPARE: usize = 2048;

/// The same for one block, to be written.
struct Block<'a> {
    codes: &'a mut [i8],
    scales: &'a mut [f32],
    starts: &'a mut [i32],
    scaled_sums: &'a mut [f32],
}

/// Where a row goes, and what the weights want to know of it.
#[derive(Clone, Copy)]
struct Place {
    /// Rows of a block.
    rows: usize,
    /// Which of them.
    row: usize,
    sub: usize,
    offset: i32,
    /// Whether anybody needs the sums of codes.
    is_summed: bool,
}

/// A chunk as bytes.
struct Chunk {
    codes: [i8; CHUNK],
    scale: f32,
    /// The sum of the codes of each half.
    sums: [i32; 2],
}

impl Room {
    pub const fn new() -> Self {
        Self {
            codes: Scratch::new(),
            scales: Scratch::new(),
            starts: Scratch::new(),
            scaled_sums: Scratch::new(),
        }
    }

    /// Quantises the activations of `product` in blocks of `rows` rows.
    pub fn quantise(
        &mut self,
        isa: Isa,
        pool: &ThreadPool,
        product: &Product<'_>,
        scheme: Scheme,
        rows: usize,
    ) -> Activations<'_> {
        let (t, k) = (product.t, product.k);
        let blocks = t.div_ceil(rows);
        let (codes, chunks, units) = (rows * k, rows * k / CHUNK, rows * k / scheme.sub);
        let all = Block {
            codes: self.codes.take(blocks * codes + SPARE),
            scales: self.scales.take(blocks * chunks),
            starts: self.starts.take(blocks * units),
            scaled_sums: self.scaled_sums.take(blocks * units),
        };
        let shared = (
            SharedSlice::new(all.codes),
            SharedSlice::new(all.scales),
            SharedSlice::new(all.starts),
            SharedSlice::new(all.scaled_sums),
        );
        let quantise = |index: usize| {
            // SAFETY: blocks are disjoint and each is visited once.
            let mut block = unsafe {
                Block {
                    codes: shared.0.slice(index * codes, codes),
                    scales: shared.1.slice(index * chunks, chunks),
                    starts: shared.2.slice(index * units, units),
                    scaled_sums: shared.3.slice(index * units, units),
                }
            };
            let x = &product.x[index * codes..product.x.len().min((index + 1) * codes)];
            if x.len() < codes {
                block.clear();
            }
            for (row, x) in x.chunks_exact(k).enumerate() {
                let is_summed = scheme.has_min || rows == 1;
                let place = Place { rows, row, sub: scheme.sub, offset: scheme.offset, is_summed };
                quantise_row(isa, x, place, &mut block);
            }
        };
        if t * k <= INLINE_MAX {
            (0..blocks).for_each(quantise);
        } else {
            pool.run(blocks, &quantise);
        }
        Activations {
            codes: all.codes,
            scales: all.scales,
            starts: all.starts,
            scaled_sums: all.scaled_sums,
        }
    }
}

impl Block<'_> {
    fn clear(&mut self) {
        self.codes.fill(0);
        self.scales.fill(0.0);
        self.starts.fill(0);
        self.scaled_sums.fill(0.0);
    }
}

fn quantise_row(isa: Isa, x: &[f32], place: Place, out: &mut Block<'_>) {
    #[cfg(target_arch = "x86_64")]
    if !matches!(isa, Isa::Portable | Isa::Avx2) {
        // SAFETY: `Kernels::new` refuses an instruction set that the processor lacks.
        return unsafe { avx512::row(x, place, out) };
    }
    compiled_for!(isa, plain_row(x: &[f32], place: Place, out: &mut Block<'_>));
}

#[inline(always)]
fn plain_row(x: &[f32], place: Place, out: &mut Block<'_>) {
    each_chunk(x, place, out, plain_chunk);
}

#[inline(always)]
fn each_chunk(x: &[f32], place: Place, out: &mut Block<'_>, of: impl Fn(&[f32; CHUNK]) -> Chunk) {
    for (index, x) in x.as_chunks().0.iter().enumerate() {
        let chunk = of(x);
        out.scales[index * place.rows + place.row] = chunk.scale;
        if place.sub == CHUNK {
            out.put::<CHUNK>(
                place,
                index,
                chunk.scale,
                &chunk.codes,
                chunk.sums[0] + chunk.sums[1],
            );
        } else {
            for (half, codes) in chunk.codes.as_chunks().0.iter().enumerate() {
                let unit = 2 * index + half;
                out.put::<{ CHUNK / 2 }>(place, unit, chunk.scale, codes, chunk.sums[half]);
            }
        }
    }
}

impl Block<'_> {
    /// Writes sub-block `unit` of a row.
    #[inline(always)]
    fn put<const SUB: usize>(
        &mut self,
        place: Place,
        unit: usize,
        scale: f32,
        codes: &[i8; SUB],
        sum: i32,
    ) {
        let at = unit * place.rows + place.row;
        self.codes.as_chunks_mut().0[at] = *codes;
        if !place.is_summed {
            return;
        }
        self.starts[at] = place.offset.wrapping_mul(-sum);
        self.scaled_sums[at] = sum as f32 * scale;
    }
}

/// Adding it to a number below 2²² leaves no room for a fraction, and the bits end in those of the
/// nearest whole number, of two the even one.
const WHOLE: f32 = 12_582_912.0;

/// The scale of a chunk and its inverse, of the largest magnitude there. Where that is infinite or no
/// number, neither is the scale.
#[inline(always)]
fn scales(largest: f32) -> [f32; 2] {
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    [if largest.is_finite() { largest / 127.0 } else { f32::NAN }, inverse]
}

#[inline(always)]
fn plain_chunk(x: &[f32; CHUNK]) -> Chunk {
    // Magnitudes are ordered as their bits are.
    let largest = x.iter().fold(0, |largest: u32, x| largest.max(x.abs().to_bits()));
    let [scale, inverse] = scales(f32::from_bits(largest));
    let codes = x.map(|x| (x * inverse + WHOLE).to_bits() as i8);
    let sum = |codes: &[i8]| codes.iter().map(|code| i32::from(*code)).sum();
    let (first, second) = codes.split_at(CHUNK / 2);
    Chunk { codes, scale, sums: [sum(first), sum(second)] }
}

/// The same in registers. The compiler would take a chunk for each lane, and spend its time on bringing
/// numbers there.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{Block, CHUNK, Chunk, Place, WHOLE, each_chunk, scales};
    use std::arch::x86_64::*;

    /// # Safety
    /// AVX-512 must be available.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub unsafe fn row(x: &[f32], place: Place, out: &mut Block<'_>) {
        // SAFETY: the caller's promise.
        each_chunk(x, place, out, |x| unsafe { chunk(x) });
    }

    #[inline(always)]
    unsafe fn chunk(x: &[f32; CHUNK]) -> Chunk {
        // SAFETY: reads the two halves of the chunk and writes those of its codes.
        unsafe {
            let halves = [_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(16))];
            let [first, second] = halves.map(|x| _mm512_castps_si512(_mm512_abs_ps(x)));
            let largest = _mm512_reduce_max_epu32(_mm512_max_epu32(first, second));
            let [scale, inverse] = scales(f32::from_bits(largest));
            let mut codes = [0; CHUNK];
            let mut sums = [0; 2];
            for (half, x) in halves.into_iter().enumerate() {
                // Not fused: the product is rounded before, as everywhere.
                let whole =
                    _mm512_add_ps(_mm512_mul_ps(x, _mm512_set1_ps(inverse)), _mm512_set1_ps(WHOLE));
                let bytes = _mm512_cvtepi32_epi8(_mm512_castps_si512(whole));
                _mm_storeu_si128(codes.as_mut_ptr().add(half * 16).cast(), bytes);
                sums[half] = _mm512_reduce_add_epi32(_mm512_cvtepi8_epi32(bytes));
            }
            Chunk { codes, scale, sums }
        }
    }
}
