//! Quantised products on matrix units: a few rows of activations, such as sequences decoded together.
//!
//! Memory is what this should wait for, so weights are read once, two panels side by side, and unpacked on
//! the way: while one chunk is scaled, the next is being summed and the one after it unpacked.

use super::super::super::amx::{self, Config, Sums, TILE};
use super::super::super::blocks::{CHUNK, CHUNK_CODES, Kind, Panel, with_kind};
use super::super::super::pool::ThreadPool;
use super::super::Group;
use super::{Work, tiles, vnni};
use std::arch::x86_64::*;
use std::ops::Range;

/// Rows at most, and rows of a block: with two panels their sums take half of the registers.
pub(super) const ROWS: usize = TILE / 2;

/// Rows from which this is the best body: it takes as long for one as for eight, dot products of bytes take
/// as long for four.
pub(super) const ROWS_MIN: usize = 4;

/// Panels side by side.
const PANELS: usize = 2;

/// The codes of a chunk of each panel as signed bytes.
type Codes = [Signed; PANELS];

struct Signed([__m512i; 8]);

impl Default for Signed {
    fn default() -> Self {
        // SAFETY: zeros are numbers.
        unsafe { std::mem::zeroed() }
    }
}

pub(super) fn run(pool: &ThreadPool, work: &Work<'_>) {
    work.product.spread(pool, work.blocks.count, work.blocks.panel_bytes(), &|range| {
        // SAFETY: `spread` gives disjoint ranges; `Kernels::new` made sure of the instruction set.
        with_kind!(work.blocks.encoding, K => unsafe { of_kind::<K>(work, range) });
    });
}

/// # Safety
/// Matrix units and AVX-512 with VNNI must be available; nobody else may touch these columns.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c")]
unsafe fn of_kind<K: Kind>(work: &Work<'_>, range: Range<usize>) {
    let run = range.len().div_ceil(PANELS);
    let mut room = Room::default();
    // SAFETY: the caller's promises.
    unsafe {
        let _config = Config::new(ROWS, const { K::SCHEME }.sub);
        for at in range.start..range.start + run {
            let group = Group { at, run, end: range.end };
            let panels = [0, 1].map(|p| work.blocks.panel(group.panel(p)));
            let pair = Pair { work, panels, panel_bytes: work.blocks.panel_bytes() };
            let out = pair.multiply::<K>(&mut room);
            for (p, out) in out.iter().enumerate().filter(|(p, _)| group.has(*p)) {
                tiles::write(work, 0, group.panel(p), out);
            }
        }
    }
}

/// Memory that serves one pair of panels after the other.
#[derive(Default)]
struct Room {
    /// Codes of an even chunk, and of an odd one.
    codes: [Codes; 2],
    /// Sums of a chunk's sub-blocks.
    sums: [[Sums<i32>; 2]; PANELS],
}

/// Two panels.
struct Pair<'a> {
    work: &'a Work<'a>,
    panels: [Panel<'a>; PANELS],
    panel_bytes: usize,
}

impl Pair<'_> {
    /// The products of all rows with both.
    ///
    /// # Safety
    /// As for [`of_kind`]; a [`Config`] must be alive.
    #[inline(always)]
    unsafe fn multiply<K: Kind>(&self, room: &mut Room) -> [[__m512; ROWS]; PANELS] {
        let chunks = self.work.product.k / CHUNK;
        // SAFETY: the caller's promises; a tile of activations beyond the end is readable.
        unsafe {
            let mut first = [_mm512_setzero_ps(); ROWS];
            let mut second = first;
            for (chunk, codes) in room.codes.iter_mut().enumerate() {
                for (panel, codes) in self.panels.iter().zip(codes) {
                    codes.0 = tiles::signed::<K>(panel, chunk.min(chunks - 1));
                }
            }
            sum::<K, 0>(self.work, &room.codes[0][0], 0);
            sum::<K, 1>(self.work, &room.codes[0][1], 0);
            for chunk in 0..chunks {
                self.step::<K, 0>(chunk, room, &mut first);
                self.step::<K, 1>(chunk, room, &mut second);
            }
            [first, second]
        }
    }

    /// Adds a chunk of panel `P`, which has been summed, to `out`; starts to sum the next and unpacks the one
    /// after that.
    ///
    /// # Safety
    /// As for [`Pair::multiply`].
    #[inline(always)]
    unsafe fn step<K: Kind, const P: usize>(
        &self,
        chunk: usize,
        room: &mut Room,
        out: &mut [__m512; ROWS],
    ) {
        let last = self.work.product.k / CHUNK - 1;
        let (panel, sums) = (&self.panels[P], &mut room.sums[P]);
        self.fetch::<K>(panel, chunk);
        // SAFETY: the caller's promises.
        unsafe {
            room.codes[chunk % 2][P].0 = tiles::signed::<K>(panel, last.min(chunk + 2));
            store::<K, P>(sums);
            sum::<K, P>(self.work, &room.codes[(chunk + 1) % 2][P], chunk + 1);
            scale::<K>(self.work, panel, sums, chunk, out);
        }
    }

    /// Starts to bring nearer a part of the panel after this one, as great as the part of this that `chunk` is.
    ///
    /// Two parts in fact, half a panel apart: with two panels these make four runs through memory, see
    /// [`super::super::STREAMS`].
    #[inline(always)]
    fn fetch<K: Kind>(&self, panel: &Panel<'_>, chunk: usize) {
        let scheme = const { K::SCHEME };
        let bytes = scheme.chunk_bytes() + CHUNK * scheme.scale_bytes() / scheme.block;
        let start = panel.codes.as_ptr().wrapping_add(self.panel_bytes + chunk * bytes / 2);
        for line in (0..bytes / 2).step_by(64) {
            for run in [start, start.wrapping_add(self.panel_bytes / 2)] {
                // SAFETY: a prefetch changes nothing, and there need not be anything to fetch.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(run.wrapping_add(line).cast()) };
            }
        }
    }
}

/// Starts to sum a chunk of panel `P` in tile registers `2P` and, for a second sub-block, `2P + 1`.
///
/// # Safety
/// As for [`Pair::multiply`].
#[inline(always)]
unsafe fn sum<K: Kind, const P: usize>(work: &Work<'_>, codes: &Signed, chunk: usize) {
    let sub = const { K::SCHEME }.sub;
    let a = work.activations.codes.as_ptr().cast::<u8>().wrapping_add(chunk * CHUNK * ROWS);
    let b = codes.0.as_ptr().cast::<u8>();
    // SAFETY: the caller's promises.
    unsafe {
        match P {
            0 => amx::multiply_bytes::<0>((a, b), sub),
            _ => amx::multiply_bytes::<2>((a, b), sub),
        }
        if sub < CHUNK {
            let second = (a.wrapping_add(sub * ROWS), b.wrapping_add(CHUNK_CODES / 2));
            match P {
                0 => amx::multiply_bytes::<1>(second, sub),
                _ => amx::multiply_bytes::<3>(second, sub),
            }
        }
    }
}

/// Writes what [`sum`] summed.
///
/// # Safety
/// As for [`Pair::multiply`].
#[inline(always)]
unsafe fn store<K: Kind, const P: usize>([first, second]: &mut [Sums<i32>; 2]) {
    let halves = const { K::SCHEME }.sub < CHUNK;
    // SAFETY: the caller's promises.
    unsafe {
        match P {
            0 => amx::store::<0>(first),
            _ => amx::store::<2>(first),
        }
        match P {
            _ if !halves => {}
            0 => amx::store::<1>(second),
            _ => amx::store::<3>(second),
        }
    }
}

/// Adds the sub-blocks of a chunk to the rows in `out`.
///
/// # Safety
/// As for [`Pair::multiply`].
#[inline(always)]
unsafe fn scale<K: Kind>(
    work: &Work<'_>,
    panel: &Panel<'_>,
    sums: &[Sums<i32>; 2],
    chunk: usize,
    out: &mut [__m512; ROWS],
) {
    let scheme = const { K::SCHEME };
    let subs = CHUNK / scheme.sub;
    // SAFETY: the caller's promises.
    unsafe {
        let x_scales = work.activations.scales.as_ptr().add(chunk * ROWS);
        for (sub, sums) in sums.iter().enumerate().take(subs) {
            let unit = chunk * subs + sub;
            let scaled_sums = work.activations.scaled_sums.as_ptr().add(unit * ROWS);
            let scales = vnni::scales::<K>(panel, unit);
            tiles::scale::<K, ROWS>(sums, scales, x_scales, scaled_sums, out);
        }
    }
}
