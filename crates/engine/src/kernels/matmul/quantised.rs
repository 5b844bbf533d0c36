//! Products with quantised weights.
//!
//! Each row of activations is quantised to bytes in chunks of 32 with one scale each
//! ([`Activations`]). For each output, from zero and over rising sub-blocks of 16 or 32 inputs:
//!
//! ```text
//! sum  = Σ (code − offset) · activation            an integer
//! out += (sum · weight scale) · activation scale    one multiplication, one fused multiply-add
//! out -= weight min · (Σ activation · scale)        fused, where the encoding has minima
//! ```
//!
//! Integers are exact and the floats come in one order, so every instruction set, thread count and
//! company gives the same bits. llama.cpp quantises activations alike, K-quants in blocks of 256.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod tiles;
#[cfg(target_arch = "x86_64")]
mod vnni;

use super::super::blocks::{Blocks, CHUNK, CHUNK_CODES, unpack};
use super::super::isa::{Isa, compiled_for};
use super::super::matrix::PANEL_ROWS;
use super::super::pool::{SharedSlice, ThreadPool};
use super::{INLINE_MAX, Product};
use std::cell::Cell;
use std::ops::Range;

thread_local! {
    /// Where activations are quantised; kept, because a fresh one would be faulted in each time.
    static ACTIVATIONS: Cell<Activations> = const { Cell::new(Activations::new()) };
}

/// Rows of activations as bytes.
#[derive(Default)]
struct Activations {
    /// `[T, K]`
    codes: Vec<i8>,
    /// `[T, K / 32]`: an activation is its code times the scale of its chunk.
    scales: Vec<f32>,
    /// `[T, K / sub]`: the sum of the codes of each sub-block.
    sums: Vec<i32>,
    /// `[T, K / sub]`: the same times the scale.
    scaled_sums: Vec<f32>,
}

impl Activations {
    const fn new() -> Self {
        Self { codes: Vec::new(), scales: Vec::new(), sums: Vec::new(), scaled_sums: Vec::new() }
    }

    fn quantise(&mut self, isa: Isa, pool: &ThreadPool, product: &Product<'_>, sub: usize) {
        let (t, k) = (product.t, product.k);
        self.codes.resize(t * k, 0);
        self.scales.resize(t * k / CHUNK, 0.0);
        self.sums.resize(t * k / sub, 0);
        self.scaled_sums.resize(t * k / sub, 0.0);
        let codes = SharedSlice::new(&mut self.codes);
        let scales = SharedSlice::new(&mut self.scales);
        let sums = SharedSlice::new(&mut self.sums);
        let scaled_sums = SharedSlice::new(&mut self.scaled_sums);
        let row = |row: usize| {
            let x = &product.x[row * k..][..k];
            // SAFETY: rows are disjoint and each is visited once.
            let (codes, scales, sums, scaled) = unsafe {
                (
                    codes.slice(row * k, k),
                    scales.slice(row * k / CHUNK, k / CHUNK),
                    sums.slice(row * k / sub, k / sub),
                    scaled_sums.slice(row * k / sub, k / sub),
                )
            };
            compiled_for!(
                isa,
                quantise_row(
                    x: &[f32],
                    sub: usize,
                    codes: &mut [i8],
                    scales: &mut [f32],
                    sums: &mut [i32],
                    scaled: &mut [f32],
                )
            );
        };
        if t * k <= INLINE_MAX {
            (0..t).for_each(row);
        } else {
            pool.run(t, &row);
        }
    }
}

#[inline(always)]
fn quantise_row(
    x: &[f32],
    sub: usize,
    codes: &mut [i8],
    scales: &mut [f32],
    sums: &mut [i32],
    scaled_sums: &mut [f32],
) {
    let per_chunk = CHUNK / sub;
    for (chunk, (x, codes)) in x.chunks_exact(CHUNK).zip(codes.chunks_exact_mut(CHUNK)).enumerate()
    {
        let scale = quantise_chunk(x, codes);
        scales[chunk] = scale;
        for (index, codes) in codes.chunks_exact(sub).enumerate() {
            let sum: i32 = codes.iter().map(|code| i32::from(*code)).sum();
            sums[chunk * per_chunk + index] = sum;
            scaled_sums[chunk * per_chunk + index] = sum as f32 * scale;
        }
    }
}

/// The bytes nearest to `x / scale`, of two the even one; returns the scale, which makes the largest 127.
#[inline(always)]
fn quantise_chunk(x: &[f32], codes: &mut [i8]) -> f32 {
    /// Adding it leaves no room for a fraction below 2²².
    const WHOLE: f32 = 12_582_912.0;
    let mut largest = [0.0_f32; 8];
    let mut poison = [0.0_f32; 8];
    for x in x.as_chunks::<8>().0 {
        for lane in 0..8 {
            largest[lane] = largest[lane].max(x[lane].abs());
            // Zero, unless `x` is infinite or no number: then the whole chunk is no number.
            poison[lane] += x[lane] * 0.0;
        }
    }
    let largest = largest.iter().fold(0.0_f32, |a, b| a.max(*b));
    let poison: f32 = poison.iter().sum();
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    for (code, x) in codes.iter_mut().zip(x) {
        *code = ((x * inverse + WHOLE) - WHOLE) as i32 as i8;
    }
    largest / 127.0 + poison
}

pub(super) fn run(isa: Isa, pool: &ThreadPool, product: Product<'_>, blocks: &Blocks) {
    let mut activations = ACTIVATIONS.take();
    activations.quantise(isa, pool, &product, blocks.scheme.sub);
    let work = Work { product, blocks, activations: &activations };
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Amx if product.t >= tiles::ROWS_MIN => tiles::run(pool, &work),
        _ => product.spread(pool, blocks.count, blocks.panel_bytes(), &|range| {
            // SAFETY: `spread` gives disjoint ranges; `Kernels::new` made sure of the instruction set.
            unsafe {
                match isa {
                    Isa::Portable => portable(&work, range),
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 | Isa::Avx512 => avx2::run(&work, range),
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512Vnni | Isa::Amx => vnni::run(&work, range),
                    #[cfg(not(target_arch = "x86_64"))]
                    _ => portable(&work, range),
                }
            }
        }),
    }
    ACTIVATIONS.set(activations);
}

/// One product, its activations quantised.
struct Work<'a> {
    product: Product<'a>,
    blocks: &'a Blocks,
    activations: &'a Activations,
}

/// What a product means.
///
/// # Safety
/// Nobody else may touch these columns of the output meanwhile.
unsafe fn portable(work: &Work<'_>, range: Range<usize>) {
    let (scheme, k) = (work.blocks.scheme, work.product.k);
    let mut codes = [0; CHUNK_CODES];
    for index in range {
        let panel = work.blocks.panel(index);
        for row in 0..work.product.t {
            let mut out = [0.0_f32; PANEL_ROWS];
            for chunk in 0..k / CHUNK {
                unpack(scheme.bits, &panel.codes[chunk * scheme.chunk_bytes()..], &mut codes);
                let activations = &work.activations.codes[row * k + chunk * CHUNK..][..CHUNK];
                let scale = work.activations.scales[row * (k / CHUNK) + chunk];
                for (sub, part) in activations.chunks_exact(scheme.sub).enumerate() {
                    let at = chunk * CHUNK + sub * scheme.sub;
                    let (scales, mins) = panel.scales(scheme, at);
                    let unit = (row * k + at) / scheme.sub;
                    for n in 0..PANEL_ROWS {
                        let mut sum = -scheme.offset * work.activations.sums[unit];
                        for (i, activation) in part.iter().enumerate() {
                            let i = sub * scheme.sub + i;
                            let code = codes[i / 4 * 64 + n * 4 + i % 4];
                            sum += i32::from(code) * i32::from(*activation);
                        }
                        out[n] = (sum as f32 * scales[n]).mul_add(scale, out[n]);
                        if scheme.has_min {
                            let sum = work.activations.scaled_sums[unit];
                            out[n] = (-mins[n]).mul_add(sum, out[n]);
                        }
                    }
                }
            }
            // SAFETY: the caller's promise.
            unsafe { work.product.write(row, index, &out) };
        }
    }
}
