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

mod activations;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod few;
#[cfg(target_arch = "x86_64")]
mod tiles;
#[cfg(target_arch = "x86_64")]
mod vnni;

use super::super::blocks::{Blocks, CHUNK, CHUNK_CODES, unpack};
use super::super::isa::Isa;
use super::super::matrix::PANEL_ROWS;
use super::super::pool::ThreadPool;
use super::Product;
use activations::{Activations, Room};
use std::cell::Cell;
use std::ops::Range;

thread_local! {
    static ROOM: Cell<Room> = const { Cell::new(Room::new()) };
}

pub(super) fn run(isa: Isa, pool: &ThreadPool, product: Product<'_>, blocks: &Blocks) {
    let mut room = ROOM.take();
    let rows = match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Amx if product.t > few::ROWS => tiles::ROWS,
        #[cfg(target_arch = "x86_64")]
        Isa::Amx if product.t >= few::ROWS_MIN => few::ROWS,
        _ => 1,
    };
    let activations = room.quantise(isa, pool, &product, blocks.scheme, rows);
    let work = Work { product, blocks, activations };
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Amx if rows == tiles::ROWS => tiles::run(pool, &work),
        #[cfg(target_arch = "x86_64")]
        Isa::Amx if rows == few::ROWS => few::run(pool, &work),
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
    ROOM.set(room);
}

/// One product, its activations quantised.
struct Work<'a> {
    product: Product<'a>,
    blocks: &'a Blocks,
    activations: Activations<'a>,
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
                        let mut sum = work.activations.starts[unit];
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
