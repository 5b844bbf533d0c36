//! Quantised products on matrix units: many rows of activations.
//!
//! A panel is unpacked once to bytes and f32 scales, then meets all rows, sixteen at a time. A tile of
//! sums covers one sub-block; scales are applied to it in registers, in the order of
//! [`super`]. While one group of tiles is scaled, the next is already being summed.

use super::super::super::amx::{self, Config, Sums, TILE};
use super::super::super::blocks::{CHUNK, CHUNK_CODES, Kind, with_kind};
use super::super::super::matrix::PANEL_ROWS;
use super::super::super::memory::Scratch;
use super::super::super::pool::{SharedSlice, ThreadPool};
use super::{Work, vnni};
use std::arch::x86_64::*;
use std::cell::Cell;
use std::ops::Range;

/// Rows from which this is the best body. Unpacking a panel costs as much as multiplying some rows: measured
/// on 8 rows, products without matrix units compute 200 GFLOP/s and this 150, on 64 rows this 400.
pub(super) const ROWS_MIN: usize = 13;

/// Sub-blocks that one tile program sums.
///
/// Sums are written while those of the group before are read. Two groups fill a page: were there more, a
/// read would lie as far into its page as a write under way, and wait for it.
const GROUP: usize = 2;

thread_local! {
    /// Activations in the order of tiles.
    static TILED: Cell<Tiled> = const { Cell::new(Tiled::new()) };
    /// One panel, unpacked.
    static UNPACKED: Cell<Unpacked> = const { Cell::new(Unpacked::new()) };
}

/// [`Activations`](super::Activations) by blocks of sixteen rows. Rows that are not there are zero.
#[derive(Default)]
struct Tiled {
    /// `[blocks, K / sub, 16, sub]`, and room for a group beyond the end.
    codes: Scratch,
    /// `[blocks, K / 32, 16]`
    scales: Scratch,
    /// `[blocks, K / sub, 16]`: sums of codes times the offset of the weights.
    offsets: Scratch,
    /// `[blocks, K / sub, 16]`
    scaled_sums: Scratch,
}

impl Tiled {
    const fn new() -> Self {
        Self {
            codes: Scratch::new(),
            scales: Scratch::new(),
            offsets: Scratch::new(),
            scaled_sums: Scratch::new(),
        }
    }
}

/// The same, borrowed: of all blocks, or of one.
#[derive(Clone, Copy)]
struct View<'a> {
    codes: &'a [i8],
    scales: &'a [f32],
    offsets: &'a [i32],
    scaled_sums: &'a [f32],
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
    let mut tiled = TILED.take();
    let view = arrange(pool, work, &mut tiled);
    let (product, panel_bytes) = (work.product, work.blocks.panel_bytes());
    product.spread(pool, work.blocks.count, panel_bytes, &|range| {
        // SAFETY: `spread` gives disjoint ranges; `Kernels::new` made sure of the instruction set.
        with_kind!(work.blocks.encoding, K => unsafe { of_kind::<K>(work, view, range) });
    });
    TILED.set(tiled);
}

/// Brings the activations into the order of tiles.
fn arrange<'a>(pool: &ThreadPool, work: &Work<'_>, tiled: &'a mut Tiled) -> View<'a> {
    let (t, k) = (work.product.t, work.product.k);
    let scheme = work.blocks.scheme;
    let (units, chunks, blocks) = (k / scheme.sub, k / CHUNK, t.div_ceil(TILE));
    // A program may read a group of tiles beyond the end.
    let codes = tiled.codes.take(blocks * TILE * k + GROUP * TILE * CHUNK);
    let scales = tiled.scales.take(blocks * TILE * chunks);
    let offsets = tiled.offsets.take(blocks * TILE * units);
    let scaled_sums = tiled.scaled_sums.take(blocks * TILE * units);
    let shared = (
        SharedSlice::new(codes),
        SharedSlice::new(scales),
        SharedSlice::new(offsets),
        SharedSlice::new(scaled_sums),
    );
    let from = work.activations;
    pool.run(blocks, &|block| {
        // SAFETY: blocks are disjoint and each is visited once.
        let (codes, scales, offsets, scaled_sums) = unsafe {
            (
                shared.0.slice(block * TILE * k, TILE * k),
                shared.1.slice(block * TILE * chunks, TILE * chunks),
                shared.2.slice(block * TILE * units, TILE * units),
                shared.3.slice(block * TILE * units, TILE * units),
            )
        };
        let first = block * TILE;
        arrange_rows(&from.codes[first * k..t * k], k, scheme.sub, codes);
        arrange_rows(&from.scales[first * chunks..t * chunks], chunks, 1, scales);
        arrange_rows(&from.sums[first * units..t * units], units, 1, offsets);
        offsets.iter_mut().for_each(|sum| *sum *= scheme.offset);
        arrange_rows(&from.scaled_sums[first * units..t * units], units, 1, scaled_sums);
    });
    View { codes, scales, offsets, scaled_sums }
}

/// Rows of a block `[16, width]` by pieces, `[width / piece, 16, piece]`.
fn arrange_rows<T: Copy + Default>(rows: &[T], width: usize, piece: usize, out: &mut [T]) {
    for n in 0..TILE {
        let row = rows.get(n * width..(n + 1) * width);
        for (index, tile) in out.chunks_exact_mut(TILE * piece).enumerate() {
            let out = &mut tile[n * piece..(n + 1) * piece];
            match row {
                Some(row) => out.copy_from_slice(&row[index * piece..(index + 1) * piece]),
                None => out.fill(T::default()),
            }
        }
    }
}

/// # Safety
/// Matrix units and AVX-512 with VNNI must be available; nobody else may touch these columns.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c")]
unsafe fn of_kind<K: Kind>(work: &Work<'_>, view: View<'_>, range: Range<usize>) {
    let t = work.product.t;
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
                let view = view.block::<K>(block, work.product.k);
                let out = block_of::<K>(&unpacked, view);
                for (row, out) in out.into_iter().enumerate().take(t - block * TILE) {
                    let mut sums = [0.0; PANEL_ROWS];
                    _mm512_storeu_ps(sums.as_mut_ptr(), out);
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

impl View<'_> {
    /// Block `index` alone; codes go on beyond its end.
    #[inline(always)]
    fn block<K: Kind>(&self, index: usize, k: usize) -> Self {
        let (units, chunks) = (k / const { K::SCHEME }.sub, k / CHUNK);
        let units = index * TILE * units..(index + 1) * TILE * units;
        Self {
            codes: &self.codes[index * TILE * k..],
            scales: &self.scales[index * TILE * chunks..(index + 1) * TILE * chunks],
            offsets: &self.offsets[units.clone()],
            scaled_sums: &self.scaled_sums[units],
        }
    }
}

/// The products of the rows of a block with an unpacked panel.
///
/// # Safety
/// As for [`of_kind`]; a [`Config`] must be alive.
#[inline(always)]
unsafe fn block_of<K: Kind>(panel: &Unpacked, view: View<'_>) -> [__m512; TILE] {
    let scheme = const { K::SCHEME };
    let units = view.offsets.len() / TILE;
    let unit_bytes = CHUNK_CODES / (CHUNK / scheme.sub);
    // SAFETY: tiles beyond the last group are readable; the caller's promises.
    unsafe {
        let mut out = [_mm512_setzero_ps(); TILE];
        let mut sums = [GroupSums::default(); 2];
        let tiles = view.codes.as_ptr().cast::<u8>();
        let codes = panel.codes.as_ptr().cast::<u8>();
        let groups = units.div_ceil(GROUP);
        amx::bytes_2(tiles, codes, scheme.sub, &mut sums[0]);
        for group in 0..groups {
            if group + 1 < groups {
                let at = (group + 1) * GROUP * unit_bytes;
                let next = &mut sums[(group + 1) % 2];
                amx::bytes_2(tiles.add(at), codes.add(at), scheme.sub, next);
            }
            for unit in group * GROUP..units.min((group + 1) * GROUP) {
                scale::<K>(panel, &sums[group % 2][unit % GROUP], view, unit, &mut out);
            }
        }
        out
    }
}

/// Adds sub-block `unit`, whose integers are in `sums`, to the rows in `out`.
///
/// # Safety
/// As for [`block_of`].
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "indices run over lanes of several arrays at once")]
unsafe fn scale<K: Kind>(
    panel: &Unpacked,
    sums: &Sums<i32>,
    view: View<'_>,
    unit: usize,
    out: &mut [__m512; TILE],
) {
    let scheme = const { K::SCHEME };
    // SAFETY: the caller's promises.
    unsafe {
        let scale = *panel.scales.get_unchecked(unit);
        let min = *panel.mins.get_unchecked(unit);
        let x_scales = view.scales.as_ptr().add(unit / (CHUNK / scheme.sub) * TILE);
        let offsets = view.offsets.as_ptr().add(unit * TILE);
        let scaled_sums = view.scaled_sums.as_ptr().add(unit * TILE);
        for r in 0..TILE {
            let mut sum = _mm512_load_si512(sums.0[r].as_ptr().cast());
            if scheme.offset != 0 {
                sum = _mm512_sub_epi32(sum, _mm512_set1_epi32(*offsets.add(r)));
            }
            let product = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale);
            out[r] = _mm512_fmadd_ps(product, _mm512_set1_ps(*x_scales.add(r)), out[r]);
            if scheme.has_min {
                out[r] = _mm512_fnmadd_ps(min, _mm512_set1_ps(*scaled_sums.add(r)), out[r]);
            }
        }
    }
}
