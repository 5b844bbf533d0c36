//! `out = left · right` of packed factors, on matrix units, as pairs of bf16, or on registers of f32.
//!
//! Each output is one chain of multiply-adds over rising inputs; tiles of 32 inputs are summed in the order that the
//! matrix unit has, and pairs in that of their instruction. Work is cut by outputs alone, so the number of threads does not show.

#[cfg(target_arch = "x86_64")]
use super::super::amx::{self, Config, Sums, TILE, TILE_BYTES};
use super::super::isa::Isa;
use super::super::pool::{SharedSlice, ThreadPool};
use super::Number;
#[cfg(target_arch = "x86_64")]
use super::pack::{DEPTH, TILE_NUMBERS};
use super::pack::{Form, Packed, STRIP};
use std::ops::Range;
#[cfg(target_arch = "x86_64")]
use std::{
    arch::x86_64::{
        __m256, __m512, __m512bh, __m512i, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps,
        _mm256_setzero_ps, _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_epi16, _mm512_loadu_ps,
        _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    },
    mem::transmute,
};

/// Left strips that one job takes: their tiles stay near while right strips pass by.
const JOB_STRIPS: usize = 8;

/// Right strips that one job takes.
const JOB_COLUMNS: usize = 16;

/// Where results go: `[rows, cols]` from `start` on, with rows `stride` apart.
pub(super) struct Out<N> {
    pub numbers: SharedSlice<N>,
    pub start: usize,
    pub stride: usize,
    /// Whether they are added to what is there.
    pub adds: bool,
    /// What each is multiplied with.
    pub scale: f32,
}

impl<N> Out<N> {
    /// All of `numbers`, `stride` to a row, each result put there as it is.
    pub fn new(numbers: &mut [N], stride: usize) -> Self {
        Self { numbers: SharedSlice::new(numbers), start: 0, stride, adds: false, scale: 1.0 }
    }
}

impl<N> Clone for Out<N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<N> Copy for Out<N> {}

/// The results of one product.
struct Target<N> {
    out: Out<N>,
    rows: usize,
    cols: usize,
}

impl<N: Number> Target<N> {
    /// Writes sums for `row` and the columns from `col` on.
    ///
    /// # Safety
    /// Nobody else may touch these elements meanwhile.
    #[inline(always)]
    unsafe fn write(&self, row: usize, col: usize, sums: &[f32; STRIP]) {
        if row >= self.rows || col >= self.cols {
            return;
        }
        let count = STRIP.min(self.cols - col);
        // SAFETY: the caller's promise.
        let out =
            unsafe { self.out.numbers.slice(self.out.start + row * self.out.stride + col, count) };
        if let Ok(out) = <&mut [N; STRIP]>::try_from(&mut *out) {
            for n in 0..STRIP {
                let before = if self.out.adds { out[n].wide() } else { 0.0 };
                out[n] = N::narrow(before + sums[n] * self.out.scale);
            }
        } else {
            for (out, sum) in out.iter_mut().zip(sums) {
                let before = if self.out.adds { out.wide() } else { 0.0 };
                *out = N::narrow(before + sum * self.out.scale);
            }
        }
    }
}

/// The right factor may be deeper than the left one: what is beyond the left one's depth counts as nothing, but has to be
/// finite.
///
/// # Panics
/// If the right factor is less deep, or there is no room for the results.
///
/// # Safety
/// What `out` was made of lives on, and nobody else may touch the results' places meanwhile.
pub(super) unsafe fn run<N: Number>(
    isa: Isa,
    pool: Option<&ThreadPool>,
    form: Form,
    out: Out<N>,
    left: &Packed,
    right: &Packed,
) {
    assert!(left.inner <= right.inner, "the factors go together");
    let target = Target { out, rows: left.outer, cols: right.outer };
    let target = &target;
    let grid = [left.strips().div_ceil(JOB_STRIPS), right.strips().div_ceil(JOB_COLUMNS)];
    let job = |job: usize| {
        let part =
            |at: usize, per_job: usize, all: usize| at * per_job..all.min((at + 1) * per_job);
        let strips = part(job % grid[0], JOB_STRIPS, left.strips());
        let columns = part(job / grid[0], JOB_COLUMNS, right.strips());
        // SAFETY: jobs have different outputs; `Kernels::new` made sure of the instruction set, and tiles are
        // packed for matrix units and for sets that have pairs.
        unsafe {
            match form {
                #[cfg(target_arch = "x86_64")]
                Form::Tiles if isa == Isa::Amx => {
                    matrix_units(target, left, right, strips, columns);
                }
                #[cfg(target_arch = "x86_64")]
                Form::Tiles => pairs(target, left, right, strips, columns),
                #[cfg(not(target_arch = "x86_64"))]
                Form::Tiles => unreachable!("nothing else takes tiles"),
                Form::Wide => match isa {
                    Isa::Portable => wide(target, left, right, strips, columns),
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => wide_avx2(target, left, right, strips, columns),
                    #[cfg(target_arch = "x86_64")]
                    _ => wide_avx512(target, left, right, strips, columns),
                    #[cfg(not(target_arch = "x86_64"))]
                    _ => wide(target, left, right, strips, columns),
                },
            }
        }
    };
    match pool {
        Some(pool) if grid[0] * grid[1] > 1 => pool.run(grid[0] * grid[1], &job),
        _ => (0..grid[0] * grid[1]).for_each(job),
    }
}

/// # Safety
/// AMX and AVX-512 must be available, no configuration of tiles alive; nobody else may touch these outputs.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn matrix_units<N: Number>(
    target: &Target<N>,
    left: &Packed,
    right: &Packed,
    strips: Range<usize>,
    columns: Range<usize>,
) {
    let steps = left.strip_numbers(Form::Tiles) / TILE_NUMBERS;
    let tiles = |packed: &Packed, strip: usize| -> *const u8 {
        let length = packed.strip_numbers(Form::Tiles);
        packed.tiles[strip * length..][..length].as_ptr().cast()
    };
    // SAFETY: the caller's promises; the tiles are there. A strip beyond the end is taken as the one before it, and
    // its sums are dropped.
    unsafe {
        let _config = Config::new(TILE, TILE_BYTES / TILE);
        let mut sums = [Sums::default(); 4];
        for column in columns.clone().step_by(2) {
            let twin = (column + 1).min(columns.end - 1);
            for strip in strips.clone().step_by(2) {
                let next = (strip + 1).min(strips.end - 1);
                let a = [tiles(left, strip), tiles(left, next)];
                let b = [tiles(right, column), tiles(right, twin)];
                amx::bf16_2x2(a, b, steps, a[0], true, &mut sums);
                for (index, sums) in sums.iter().enumerate() {
                    let (strip, column) = (strip + index / 2, column + index % 2);
                    if strip < strips.end && column < columns.end {
                        for (row, sums) in sums.0.iter().enumerate() {
                            target.write(strip * STRIP + row, column * STRIP, sums);
                        }
                    }
                }
            }
        }
    }
}

/// Rows of a left strip whose sums are in registers at once, but with AVX2.
const ROWS: usize = 8;

/// The same with AVX2, which has half as many registers of half the width.
#[cfg(target_arch = "x86_64")]
const ROWS_AVX2: usize = 4;

/// The sums of `R` rows with `C` strips of columns.
type Block<const R: usize, const C: usize> = [[[f32; STRIP]; C]; R];

/// Writes all blocks of some strips and columns; `sums` of a strip, the first row in it and columns.
///
/// # Safety
/// Nobody else may touch these outputs.
#[inline(always)]
unsafe fn blocks<N: Number, const R: usize, const C: usize>(
    target: &Target<N>,
    strips: Range<usize>,
    columns: Range<usize>,
    sums: impl Fn(usize, usize, [usize; C]) -> Block<R, C>,
) {
    for column in columns.clone().step_by(C) {
        // A strip beyond the end is taken as the last one, and its sums are dropped.
        let mut twins = [columns.end - 1; C];
        for (twin, column) in twins.iter_mut().zip(column..columns.end) {
            *twin = column;
        }
        for strip in strips.clone() {
            for start in (0..STRIP).step_by(R) {
                for (row, sums) in sums(strip, start, twins).iter().enumerate() {
                    for (c, sums) in sums.iter().enumerate() {
                        if column + c < columns.end {
                            let row = strip * STRIP + start + row;
                            // SAFETY: the caller's promise.
                            unsafe { target.write(row, (column + c) * STRIP, sums) };
                        }
                    }
                }
            }
        }
    }
}

/// Sixteen numbers for each input.
#[inline(always)]
fn numbers_of(packed: &Packed, strip: usize) -> &[[f32; STRIP]] {
    let length = packed.strip_numbers(Form::Wide);
    packed.wide[strip * length..][..length].as_chunks().0
}

/// # Safety
/// Nobody else may touch these outputs.
unsafe fn wide<N: Number>(
    target: &Target<N>,
    left: &Packed,
    right: &Packed,
    strips: Range<usize>,
    columns: Range<usize>,
) {
    let sums = |strip, start, [column]: [usize; 1]| {
        sums_portable(numbers_of(left, strip), start, numbers_of(right, column))
    };
    // SAFETY: the caller's promise.
    unsafe { blocks(target, strips, columns, sums) }
}

/// # Safety
/// AVX2 and FMA must be available; as [`wide`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn wide_avx2<N: Number>(
    target: &Target<N>,
    left: &Packed,
    right: &Packed,
    strips: Range<usize>,
    columns: Range<usize>,
) {
    let sums = |strip, start, [column]: [usize; 1]| {
        sums_avx2(numbers_of(left, strip), start, numbers_of(right, column))
    };
    // SAFETY: the caller's promise.
    unsafe { blocks(target, strips, columns, sums) }
}

/// # Safety
/// AVX-512 must be available; as [`wide`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn wide_avx512<N: Number>(
    target: &Target<N>,
    left: &Packed,
    right: &Packed,
    strips: Range<usize>,
    columns: Range<usize>,
) {
    let sums = |strip, start, [b, c]: [usize; 2]| {
        sums_avx512(numbers_of(left, strip), start, [numbers_of(right, b), numbers_of(right, c)])
    };
    // SAFETY: the caller's promise.
    unsafe { blocks(target, strips, columns, sums) }
}

/// `R` rows from `start` on.
#[inline(always)]
fn rows_of<T, const R: usize>(rows: &[T], start: usize) -> &[T; R] {
    rows[start..].first_chunk().expect("a strip has sixteen")
}

fn sums_portable(left: &[[f32; STRIP]], start: usize, right: &[[f32; STRIP]]) -> Block<ROWS, 1> {
    let mut sums = [[[0.0_f32; STRIP]; 1]; ROWS];
    for (a, b) in left.iter().zip(right) {
        for (a, [sums]) in rows_of::<f32, ROWS>(a, start).iter().zip(&mut sums) {
            for n in 0..STRIP {
                sums[n] = a.mul_add(b[n], sums[n]);
            }
        }
    }
    sums
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn sums_avx2(left: &[[f32; STRIP]], start: usize, right: &[[f32; STRIP]]) -> Block<ROWS_AVX2, 1> {
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS_AVX2];
    for (a, b) in left.iter().zip(right) {
        // SAFETY: there are sixteen numbers.
        let b = unsafe { [_mm256_loadu_ps(b.as_ptr()), _mm256_loadu_ps(b[8..].as_ptr())] };
        for (a, sums) in rows_of::<f32, ROWS_AVX2>(a, start).iter().zip(&mut sums) {
            let a = _mm256_set1_ps(*a);
            for (sums, b) in sums.iter_mut().zip(b) {
                *sums = _mm256_fmadd_ps(a, b, *sums);
            }
        }
    }
    // SAFETY: two registers are sixteen numbers.
    unsafe { transmute::<[[__m256; 2]; ROWS_AVX2], Block<ROWS_AVX2, 1>>(sums) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn sums_avx512(left: &[[f32; STRIP]], start: usize, right: [&[[f32; STRIP]]; 2]) -> Block<ROWS, 2> {
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    for ((a, b), c) in left.iter().zip(right[0]).zip(right[1]) {
        // SAFETY: there are sixteen numbers.
        let b = unsafe { [_mm512_loadu_ps(b.as_ptr()), _mm512_loadu_ps(c.as_ptr())] };
        for (a, sums) in rows_of::<f32, ROWS>(a, start).iter().zip(&mut sums) {
            let a = _mm512_set1_ps(*a);
            for (sums, b) in sums.iter_mut().zip(b) {
                *sums = _mm512_fmadd_ps(a, b, *sums);
            }
        }
    }
    // SAFETY: a register is sixteen numbers.
    unsafe { transmute::<[[__m512; 2]; ROWS], Block<ROWS, 2>>(sums) }
}

/// Tiles as pairs of bf16 numbers.
///
/// # Safety
/// AVX-512 with bf16 must be available; as [`wide`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn pairs<N: Number>(
    target: &Target<N>,
    left: &Packed,
    right: &Packed,
    strips: Range<usize>,
    columns: Range<usize>,
) {
    let sums = |strip, start, [b, c]: [usize; 2]| {
        sums_of_pairs(tiles_of(left, strip), start, [tiles_of(right, b), tiles_of(right, c)])
    };
    // SAFETY: the caller's promise.
    unsafe { blocks(target, strips, columns, sums) }
}

/// The tiles of a strip.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn tiles_of(packed: &Packed, strip: usize) -> &[Tile] {
    let length = packed.strip_numbers(Form::Tiles);
    packed.tiles[strip * length..][..length].as_chunks().0
}

/// Bits of the bf16 numbers of a tile.
#[cfg(target_arch = "x86_64")]
type Tile = [u16; TILE_NUMBERS];

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn sums_of_pairs(left: &[Tile], start: usize, right: [&[Tile]; 2]) -> Block<ROWS, 2> {
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    for ((left, b), c) in left.iter().zip(right[0]).zip(right[1]) {
        // A left line is 16 pairs of one row, a right one a pair for each of 16 columns.
        let [b, c] = [b, c].map(|tile| tile.as_chunks::<DEPTH>().0);
        let lines = rows_of::<[u16; DEPTH], ROWS>(left.as_chunks().0, start);
        for (pair, (b, c)) in b.iter().zip(c).enumerate() {
            let b = [halves(b), halves(c)];
            for (line, sums) in lines.iter().zip(&mut sums) {
                let [low, high] = [line[2 * pair % DEPTH], line[(2 * pair + 1) % DEPTH]];
                let a = _mm512_set1_epi32(i32::from(low) | i32::from(high) << 16);
                // SAFETY: both are 64 bytes, and any bits are bf16 numbers.
                let a = unsafe { transmute::<__m512i, __m512bh>(a) };
                for (sums, b) in sums.iter_mut().zip(b) {
                    *sums = _mm512_dpbf16_ps(*sums, a, b);
                }
            }
        }
    }
    // SAFETY: a register is sixteen numbers.
    unsafe { transmute::<[[__m512; 2]; ROWS], Block<ROWS, 2>>(sums) }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn halves(line: &[u16; DEPTH]) -> __m512bh {
    // SAFETY: the line is 64 bytes long; any bits are bf16 numbers.
    unsafe { transmute::<__m512i, __m512bh>(_mm512_loadu_epi16(line.as_ptr().cast::<i16>())) }
}
