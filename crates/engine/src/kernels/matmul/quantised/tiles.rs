//! Quantised products on matrix units: many rows of activations.
//!
//! A panel is unpacked once to bytes and f32 scales, then meets all rows, sixteen at a time. A tile of
//! sums covers one sub-block; scales are applied to it in registers, in the order of
//! [`super`]. While one group of tiles is scaled, the next is already being summed.

use super::super::super::amx::{self, Config, Sums, TILE};
use super::super::super::blocks::{CHUNK, CHUNK_CODES, Kind, with_kind};
use super::super::super::matrix::PANEL_ROWS;
use super::super::super::pool::{SharedSlice, ThreadPool};
use super::{Work, vnni};
use std::arch::x86_64::*;
use std::cell::Cell;
use std::ops::Range;

/// Sub-blocks that one tile program sums.
const GROUP: usize = 4;

thread_local! {
    /// Activations in the order of tiles.
    static TILES: Cell<Vec<i8>> = const { Cell::new(Vec::new()) };
    /// One panel, unpacked.
    static UNPACKED: Cell<Unpacked> = const { Cell::new(Unpacked::new()) };
}

/// A panel as tiles take it.
#[derive(Default)]
struct Unpacked {
    /// `[K / 4, 16, 4]` codes, and room for a group beyond the end.
    codes: Vec<__m512i>,
    /// `[sub-blocks]` of sixteen.
    scales: Vec<__m512>,
    /// The same, where the encoding has minima.
    mins: Vec<__m512>,
}

impl Unpacked {
    const fn new() -> Self {
        Self { codes: Vec::new(), scales: Vec::new(), mins: Vec::new() }
    }
}

/// The sums of a group of sub-blocks.
type GroupSums = [Sums<i32>; GROUP];

pub(super) fn run(pool: &ThreadPool, work: &Work<'_>) {
    let (t, k) = (work.product.t, work.product.k);
    let sub = work.blocks.scheme.sub;
    let mut tiles = TILES.take();
    let block_bytes = TILE * k;
    let blocks = t.div_ceil(TILE);
    // A program may read a group of tiles beyond the end.
    tiles.resize(blocks * block_bytes + GROUP * TILE * CHUNK, 0);
    let shared = SharedSlice::new(&mut tiles);
    pool.run(blocks, &|block| {
        // SAFETY: blocks are disjoint and each is visited once.
        let out = unsafe { shared.slice(block * block_bytes, block_bytes) };
        arrange(&work.activations.codes[block * block_bytes..t * k], k, sub, out);
    });
    let (product, panel_bytes) = (work.product, work.blocks.panel_bytes());
    product.spread(pool, work.blocks.count, panel_bytes, &|range| {
        // SAFETY: `spread` gives disjoint ranges; `Kernels::new` made sure of the instruction set.
        with_kind!(work.blocks.encoding, K => unsafe { of_kind::<K>(work, &tiles, range) });
    });
    TILES.set(tiles);
}

/// Rows of a block `[16, K]` in the order of tiles, `[K / sub, 16, sub]`; rows that are not there are zero.
fn arrange(rows: &[i8], k: usize, sub: usize, out: &mut [i8]) {
    for n in 0..TILE {
        let row = rows.get(n * k..(n + 1) * k);
        for (unit, tile) in out.chunks_exact_mut(TILE * sub).enumerate() {
            let out = &mut tile[n * sub..(n + 1) * sub];
            match row {
                Some(row) => out.copy_from_slice(&row[unit * sub..(unit + 1) * sub]),
                None => out.fill(0),
            }
        }
    }
}

/// # Safety
/// Matrix units and AVX-512 with VNNI must be available; nobody else may touch these columns.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c")]
unsafe fn of_kind<K: Kind>(work: &Work<'_>, tiles: &[i8], range: Range<usize>) {
    let (t, k) = (work.product.t, work.product.k);
    let mut unpacked = UNPACKED.take();
    // SAFETY: the caller's promises.
    unsafe {
        let _config = Config::new(t.min(TILE), const { K::SCHEME }.sub);
        for panel in range.clone() {
            unpack::<K>(work, panel, &mut unpacked);
            for block in 0..t.div_ceil(TILE) {
                if block == 0 && panel + 1 < range.end {
                    fetch(work.blocks.panel(panel + 1).codes);
                }
                let tiles = tiles[block * TILE * k..].as_ptr();
                let out = block_of::<K>(work, &unpacked, tiles, block * TILE);
                for row in 0..TILE.min(t - block * TILE) {
                    let mut sums = [0.0; PANEL_ROWS];
                    _mm512_storeu_ps(sums.as_mut_ptr(), out[row]);
                    work.product.write(block * TILE + row, panel, &sums);
                }
            }
        }
    }
    UNPACKED.set(unpacked);
}

/// Starts to bring `bytes` nearer.
#[inline(always)]
fn fetch(bytes: &[u8]) {
    for line in bytes.chunks(64) {
        // SAFETY: a prefetch changes nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
}

/// # Safety
/// As for [`of_kind`].
#[inline(always)]
unsafe fn unpack<K: Kind>(work: &Work<'_>, index: usize, out: &mut Unpacked) {
    let scheme = const { K::SCHEME };
    let panel = work.blocks.panel(index);
    let (chunks, units) = (work.product.k / CHUNK, work.product.k / scheme.sub);
    // SAFETY: every chunk and sub-block named is there; the vectors have room.
    unsafe {
        let zero = _mm512_setzero_ps();
        out.codes.resize(chunks * 8 + GROUP * 8, _mm512_setzero_si512());
        out.scales.resize(units, zero);
        out.mins.resize(units, zero);
        for chunk in 0..chunks {
            let codes = vnni::unpack::<K>(panel.codes.as_ptr().add(chunk * scheme.chunk_bytes()));
            out.codes.as_mut_ptr().add(chunk * 8).cast::<[__m512i; 8]>().write(codes);
        }
        for unit in 0..units {
            let (scale, min) = vnni::scales::<K>(&panel, unit);
            *out.scales.get_unchecked_mut(unit) = scale;
            if scheme.has_min {
                *out.mins.get_unchecked_mut(unit) = min;
            }
        }
    }
}

/// The products of the sixteen rows from `row` on, in tiles at `tiles`, with an unpacked panel.
///
/// # Safety
/// As for [`of_kind`]; a [`Config`] must be alive.
#[inline(always)]
unsafe fn block_of<K: Kind>(
    work: &Work<'_>,
    panel: &Unpacked,
    tiles: *const i8,
    row: usize,
) -> [__m512; TILE] {
    let scheme = const { K::SCHEME };
    let units = work.product.k / scheme.sub;
    let unit_bytes = CHUNK_CODES / (CHUNK / scheme.sub);
    let rows = TILE.min(work.product.t - row);
    // SAFETY: tiles beyond the last group are readable; the caller's promises.
    unsafe {
        let mut out = [_mm512_setzero_ps(); TILE];
        let mut sums: [GroupSums; 2] = [[[[0; TILE]; TILE]; GROUP]; 2];
        let codes = panel.codes.as_ptr().cast::<u8>();
        let groups = units.div_ceil(GROUP);
        amx::bytes_4(tiles.cast(), codes, scheme.sub, &mut sums[0]);
        for group in 0..groups {
            if group + 1 < groups {
                let at = (group + 1) * GROUP * unit_bytes;
                let next = &mut sums[(group + 1) % 2];
                amx::bytes_4(tiles.add(at).cast(), codes.add(at), scheme.sub, next);
            }
            let first = group * GROUP;
            let ready = &sums[group % 2];
            if units - first >= GROUP {
                scale::<K, GROUP>(work, panel, ready, first, row, rows, &mut out);
            } else {
                for unit in first..units {
                    // One at a time from the place where it lies.
                    let ready = &ready[unit - first..];
                    scale::<K, 1>(work, panel, ready, unit, row, rows, &mut out);
                }
            }
        }
        out
    }
}

/// Adds `U` sub-blocks from `unit` on, whose integers are in `sums`, to the rows in `out`.
///
/// # Safety
/// As for [`block_of`].
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn scale<K: Kind, const U: usize>(
    work: &Work<'_>,
    panel: &Unpacked,
    sums: &[Sums<i32>],
    unit: usize,
    row: usize,
    rows: usize,
    out: &mut [__m512; TILE],
) {
    let scheme = const { K::SCHEME };
    let per_chunk = CHUNK / scheme.sub;
    let (chunks, units) = (work.product.k / CHUNK, work.product.k / scheme.sub);
    let activations = work.activations;
    // SAFETY: the caller's promises.
    unsafe {
        for r in 0..rows {
            let mut total = out[r];
            let at = (row + r) * units + unit;
            for u in 0..U {
                let mut sum = _mm512_loadu_si512(sums.get_unchecked(u)[r].as_ptr().cast());
                if scheme.offset != 0 {
                    let sums = _mm512_set1_epi32(*activations.sums.get_unchecked(at + u));
                    let offset = _mm512_set1_epi32(scheme.offset);
                    // Offsets are powers of two, which the compiler turns into a shift.
                    sum = _mm512_sub_epi32(sum, _mm512_mullo_epi32(sums, offset));
                }
                let product =
                    _mm512_mul_ps(_mm512_cvtepi32_ps(sum), *panel.scales.get_unchecked(unit + u));
                let chunk = (row + r) * chunks + (unit + u) / per_chunk;
                let x_scale = _mm512_set1_ps(*activations.scales.get_unchecked(chunk));
                total = _mm512_fmadd_ps(product, x_scale, total);
                if scheme.has_min {
                    let sum = _mm512_set1_ps(*activations.scaled_sums.get_unchecked(at + u));
                    total = _mm512_fnmadd_ps(*panel.mins.get_unchecked(unit + u), sum, total);
                }
            }
            out[r] = total;
        }
    }
}
