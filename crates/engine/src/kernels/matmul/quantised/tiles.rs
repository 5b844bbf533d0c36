//! Quantised products on matrix units: many rows of activations.
//!
//! A slab of a panel is unpacked once to signed bytes and f32 scales, then meets all rows, a block at a
//! time. A tile of sums covers one sub-block; scales are applied to it in registers, in the order of
//! [`super`]. While one tile is scaled, the next is already being summed.

use super::super::super::amx::{self, Config, Sums, TILE};
use super::super::super::blocks::{CHUNK, Kind, Panel, with_kind};
use super::super::super::matrix::PANEL_ROWS;
use super::super::super::pool::ThreadPool;
use super::{Work, vnni};
use std::arch::x86_64::*;
use std::cell::Cell;
use std::ops::Range;

/// Rows of a block.
pub(super) const ROWS: usize = TILE;

/// Chunks of a panel that are multiplied with all rows before the next. With as many chunks of a block of
/// activations they fit the nearest cache.
const SLAB: usize = 32;

/// Runs through memory that the next slab is fetched in, see [`super::super::STREAMS`].
const FETCHES: usize = 4;

thread_local! {
    static ROOM: Cell<Room> = const { Cell::new(Room { slab: None, sums: Vec::new() }) };
}

/// Memory that a thread keeps between calls.
#[derive(Default)]
struct Room {
    slab: Option<Box<Slab>>,
    /// Sums of each block that wait for the next slab.
    sums: Vec<[__m512; ROWS]>,
}

/// A slab of a panel, unpacked.
struct Slab {
    /// As [`vnni::unpack`] gives them, but signed; tiles beyond the end may be read.
    codes: [[__m512i; 8]; SLAB + 2],
    /// Of each sub-block.
    scales: [__m512; 2 * SLAB],
    /// The same, where the encoding has minima.
    mins: [__m512; 2 * SLAB],
}

pub(super) fn run(pool: &ThreadPool, work: &Work<'_>) {
    let panel_bytes = work.blocks.panel_bytes();
    work.product.spread(pool, work.blocks.count, panel_bytes, &|range| {
        // SAFETY: `spread` gives disjoint ranges; `Kernels::new` made sure of the instruction set.
        with_kind!(work.blocks.encoding, K => unsafe { of_kind::<K>(work, range) });
    });
}

/// # Safety
/// Matrix units and AVX-512 with VNNI must be available; nobody else may touch these columns.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c")]
unsafe fn of_kind<K: Kind>(work: &Work<'_>, range: Range<usize>) {
    let blocks = work.product.t.div_ceil(ROWS);
    let chunks = work.product.k / CHUNK;
    let mut room = ROOM.take();
    // SAFETY: the caller's promises; numbers that are all zero are valid.
    unsafe {
        let zero = [_mm512_setzero_ps(); ROWS];
        let mut sums = [Sums::default(); 2];
        room.sums.resize(blocks, zero);
        let slab = room.slab.get_or_insert_with(|| Box::new(std::mem::zeroed()));
        let _config = Config::new(ROWS, const { K::SCHEME }.sub);
        for index in range {
            let panel = work.blocks.panel(index);
            for start in (0..chunks).step_by(SLAB) {
                let part = start..chunks.min(start + SLAB);
                slab.unpack::<K>(&panel, part.clone());
                for (block, waiting) in room.sums.iter_mut().enumerate() {
                    let mut out = if start == 0 { zero } else { *waiting };
                    if part.end == chunks {
                        let rows = block * ROWS..((block + 1) * ROWS).min(work.product.t);
                        rows.for_each(|row| work.product.fetch(row, index));
                    }
                    let rows = BlockRows::new::<K>(work, block, start);
                    if block == 0 {
                        let next = panel
                            .codes
                            .as_ptr()
                            .wrapping_add(part.end * const { K::SCHEME }.chunk_bytes());
                        slab.multiply::<K, true>(rows, part.len(), next, &mut sums, &mut out);
                    } else {
                        slab.multiply::<K, false>(
                            rows,
                            part.len(),
                            std::ptr::null(),
                            &mut sums,
                            &mut out,
                        );
                    }
                    if part.end == chunks {
                        write(work, block, index, &out);
                    } else {
                        *waiting = out;
                    }
                }
            }
        }
    }
    ROOM.set(room);
}

/// Writes the rows of a block.
///
/// # Safety
/// As for [`of_kind`].
#[inline(always)]
pub(super) unsafe fn write<const R: usize>(
    work: &Work<'_>,
    block: usize,
    panel: usize,
    out: &[__m512; R],
) {
    let first = block * R;
    for (row, out) in out.iter().enumerate().take(work.product.t - first) {
        let mut sums = [0.0; PANEL_ROWS];
        // SAFETY: the caller's promises.
        unsafe {
            _mm512_storeu_ps(sums.as_mut_ptr(), *out);
            work.product.write(first + row, panel, &sums);
        }
    }
}

/// The codes of a chunk, as [`vnni::unpack`] gives them, less the offset.
///
/// # Safety
/// AVX-512 must be available and the chunk there.
#[inline(always)]
pub(super) unsafe fn signed<K: Kind>(panel: &Panel<'_>, chunk: usize) -> [__m512i; 8] {
    let scheme = const { K::SCHEME };
    // SAFETY: the caller's promises.
    unsafe {
        let codes = vnni::unpack::<K>(panel.codes.as_ptr().add(chunk * scheme.chunk_bytes()));
        let offset = _mm512_set1_epi8(scheme.offset as u8 as i8);
        if scheme.offset == 0 { codes } else { codes.map(|codes| _mm512_sub_epi8(codes, offset)) }
    }
}

/// Adds a sub-block, whose integers are in `sums`, to the rows in `out`.
///
/// # Safety
/// AVX-512 must be available; the scales of `R` rows of activations and their sums must be there.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "indices run over lanes of several arrays at once")]
pub(super) unsafe fn scale<K: Kind, const R: usize>(
    sums: &Sums<i32>,
    (scale, min): (__m512, __m512),
    x_scales: *const f32,
    scaled_sums: *const f32,
    out: &mut [__m512; R],
) {
    // SAFETY: the caller's promises.
    unsafe {
        for r in 0..R {
            let sum = _mm512_load_si512(sums.0[r].as_ptr().cast());
            let product = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale);
            out[r] = _mm512_fmadd_ps(product, _mm512_set1_ps(*x_scales.add(r)), out[r]);
            if const { K::SCHEME }.has_min {
                out[r] = _mm512_fnmadd_ps(min, _mm512_set1_ps(*scaled_sums.add(r)), out[r]);
            }
        }
    }
}

/// The activations of a block from some chunk on.
#[derive(Clone, Copy)]
struct BlockRows {
    codes: *const u8,
    scales: *const f32,
    scaled_sums: *const f32,
}

impl BlockRows {
    #[inline(always)]
    fn new<K: Kind>(work: &Work<'_>, block: usize, chunk: usize) -> Self {
        let chunks = block * (work.product.k / CHUNK) + chunk;
        let units = chunks * (CHUNK / const { K::SCHEME }.sub);
        let activations = work.activations;
        Self {
            codes: activations.codes[chunks * ROWS * CHUNK..].as_ptr().cast(),
            scales: activations.scales[chunks * ROWS..].as_ptr(),
            scaled_sums: activations.scaled_sums[units * ROWS..].as_ptr(),
        }
    }
}

impl Slab {
    /// # Safety
    /// As for [`of_kind`]; the chunks must be there, at most [`SLAB`].
    #[inline(always)]
    unsafe fn unpack<K: Kind>(&mut self, panel: &Panel<'_>, chunks: Range<usize>) {
        let scheme = const { K::SCHEME };
        let subs = CHUNK / scheme.sub;
        // SAFETY: the caller's promises.
        unsafe {
            for (at, chunk) in chunks.enumerate() {
                *self.codes.get_unchecked_mut(at) = signed::<K>(panel, chunk);
                for sub in 0..subs {
                    let (scale, min) = vnni::scales::<K>(panel, chunk * subs + sub);
                    *self.scales.get_unchecked_mut(at * subs + sub) = scale;
                    if scheme.has_min {
                        *self.mins.get_unchecked_mut(at * subs + sub) = min;
                    }
                }
            }
        }
    }

    /// Adds the products of a block of rows with the first `chunks` chunks to `out`, and meanwhile fetches as much
    /// from `next` on if `FETCH`.
    ///
    /// # Safety
    /// As for [`of_kind`]; a [`Config`] of a block of rows must be alive.
    #[inline(always)]
    unsafe fn multiply<K: Kind, const FETCH: bool>(
        &self,
        rows: BlockRows,
        chunks: usize,
        next: *const u8,
        sums: &mut [Sums<i32>; 2],
        out: &mut [__m512; ROWS],
    ) {
        let scheme = const { K::SCHEME };
        let units = chunks * (CHUNK / scheme.sub);
        let tile = |unit: usize| {
            let weights = unit * scheme.sub * PANEL_ROWS;
            let codes = self.codes.as_ptr().cast::<u8>();
            (rows.codes.wrapping_add(unit * scheme.sub * ROWS), codes.wrapping_add(weights))
        };
        let fetched = chunks * scheme.chunk_bytes() / FETCHES;
        let step = (2 * scheme.sub * PANEL_ROWS * scheme.bits / 8).div_ceil(FETCHES);
        let [even, odd] = sums;
        // SAFETY: two tiles beyond the end are readable; what is fetched need not be; the caller's promises.
        unsafe {
            amx::multiply_bytes::<0>(tile(0), scheme.sub);
            amx::multiply_bytes::<1>(tile(1), scheme.sub);
            amx::store::<0>(even);
            for unit in (0..units - 1).step_by(2) {
                amx::store::<1>(odd);
                amx::multiply_bytes::<0>(tile(unit + 2), scheme.sub);
                if FETCH {
                    for fetch in 0..FETCHES {
                        for line in (0..step).step_by(64) {
                            let at = fetch * fetched + unit / 2 * step + line;
                            _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(at).cast());
                        }
                    }
                }
                self.scale::<K>(even, rows, unit, out);
                amx::store::<0>(even);
                amx::multiply_bytes::<1>(tile(unit + 3), scheme.sub);
                self.scale::<K>(odd, rows, unit + 1, out);
            }
            if units % 2 == 1 {
                self.scale::<K>(even, rows, units - 1, out);
            }
        }
    }

    /// Adds sub-block `unit`, whose integers are in `sums`, to the rows in `out`.
    ///
    /// # Safety
    /// As for [`Slab::multiply`].
    #[inline(always)]
    unsafe fn scale<K: Kind>(
        &self,
        sums: &Sums<i32>,
        rows: BlockRows,
        unit: usize,
        out: &mut [__m512; ROWS],
    ) {
        let subs = CHUNK / const { K::SCHEME }.sub;
        // SAFETY: the caller's promises.
        unsafe {
            let scales = (*self.scales.get_unchecked(unit), *self.mins.get_unchecked(unit));
            let x_scales = rows.scales.add(unit / subs * ROWS);
            scale::<K, ROWS>(sums, scales, x_scales, rows.scaled_sums.add(unit * ROWS), out);
        }
    }
}
