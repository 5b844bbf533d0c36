//! `out = left · right` of packed factors, on matrix units or on registers of f32.
//!
//! Each output is one chain of multiply-adds over rising inputs; tiles of 32 inputs are summed in the order that the
//! matrix unit has. Work is cut by outputs alone, so the number of threads does not show.

#[cfg(target_arch = "x86_64")]
use super::super::amx::{self, Config, Sums, TILE, TILE_BYTES};
use super::super::isa::Isa;
use super::super::pool::{SharedSlice, ThreadPool};
use super::Number;
use super::pack::{Form, Packed, STRIP};
use std::ops::Range;

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
        // packed for matrix units alone.
        unsafe {
            match form {
                #[cfg(target_arch = "x86_64")]
                Form::Tiles => matrix_units(target, left, right, strips, columns),
                #[cfg(not(target_arch = "x86_64"))]
                Form::Tiles => unreachable!("only matrix units take tiles"),
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
    let steps = left.strip_numbers(Form::Tiles) / super::pack::TILE_NUMBERS;
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

/// Rows of the left factor whose sums are in registers at once, with one or two strips of columns.
const ROWS: usize = 8;

/// # Safety
/// Nobody else may touch these outputs.
unsafe fn wide<N: Number>(
    target: &Target<N>,
    left: &Packed,
    right: &Packed,
    strips: Range<usize>,
    columns: Range<usize>,
) {
    // SAFETY: the caller's promise.
    unsafe { wide_body::<N, 1>(target, left, right, strips, columns) }
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
    // SAFETY: the caller's promise.
    unsafe { wide_body::<N, 1>(target, left, right, strips, columns) }
}

/// # Safety
/// AVX-512 must be available; as [`wide`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn wide_avx512<N: Number>(
    target: &Target<N>,
    left: &Packed,
    right: &Packed,
    strips: Range<usize>,
    columns: Range<usize>,
) {
    // SAFETY: the caller's promise.
    unsafe { wide_body::<N, 2>(target, left, right, strips, columns) }
}

/// `C` strips of columns at once.
///
/// # Safety
/// As [`wide`].
#[inline(always)]
unsafe fn wide_body<N: Number, const C: usize>(
    target: &Target<N>,
    left: &Packed,
    right: &Packed,
    strips: Range<usize>,
    columns: Range<usize>,
) {
    let [depth, length] = [left, right].map(|packed| packed.strip_numbers(Form::Wide));
    for column in columns.clone().step_by(C) {
        let b: [&[[f32; STRIP]]; C] = std::array::from_fn(|at| {
            let column = (column + at).min(columns.end - 1);
            right.wide[column * length..][..length].as_chunks().0
        });
        for strip in strips.clone() {
            let a = left.wide[strip * depth..][..depth].as_chunks::<STRIP>().0;
            for start in (0..STRIP).step_by(ROWS) {
                let mut sums = [[[0.0_f32; STRIP]; C]; ROWS];
                for (at, a) in a.iter().enumerate() {
                    for row in 0..ROWS {
                        for c in 0..C {
                            for n in 0..STRIP {
                                sums[row][c][n] =
                                    a[start + row].mul_add(b[c][at][n], sums[row][c][n]);
                            }
                        }
                    }
                }
                for (row, sums) in sums.iter().enumerate() {
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
