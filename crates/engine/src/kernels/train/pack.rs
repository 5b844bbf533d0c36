//! The factors of a training product, brought into the order in which the inner loops read them.
//!
//! A factor is cut into strips of 16 rows (of the left one) or 16 columns (of the right one), and a strip into steps
//! along the inner dimension. bf16 steps are tiles of 32 inputs as matrix units want them: a left tile is `[16, 32]`,
//! a right one `[16 pairs, 16, 2]`. f32 strips are `[inputs, 16]` on both sides. What is beyond the end is zero.

use super::super::isa::{Isa, compiled_for};
use super::super::pool::{SharedSlice, ThreadPool};
use super::Number;
use half::bf16;

/// Rows of a left strip, columns of a right one.
pub(super) const STRIP: usize = 16;
/// Inputs of a bf16 tile.
pub(super) const DEPTH: usize = 32;
/// Numbers of a bf16 tile.
pub(super) const TILE_NUMBERS: usize = STRIP * DEPTH;

/// A matrix in memory, or its transpose.
#[derive(Debug, Clone, Copy)]
pub struct View<'a, N> {
    /// Row by row, `stride` apart.
    pub numbers: &'a [N],
    /// Rows as they lie in memory.
    pub rows: usize,
    /// Numbers of a row.
    pub cols: usize,
    /// From one row to the next; at least `cols`.
    pub stride: usize,
    /// Whether the transpose is meant.
    pub transposed: bool,
}

impl<'a, N> View<'a, N> {
    /// All of `[rows, cols]`.
    ///
    /// # Panics
    /// If there are fewer numbers.
    pub fn new(numbers: &'a [N], rows: usize, cols: usize) -> Self {
        Self::part(numbers, rows, cols, cols)
    }

    /// `[rows, cols]` with rows `stride` apart.
    ///
    /// # Panics
    /// If there are fewer numbers.
    pub fn part(numbers: &'a [N], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(cols <= stride && rows > 0 && cols > 0, "{rows} x {cols}, {stride} apart");
        assert!((rows - 1) * stride + cols <= numbers.len(), "{rows} x {cols} are there");
        Self { numbers, rows, cols, stride, transposed: false }
    }

    /// The transpose.
    #[must_use]
    pub fn t(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// Rows and columns as meant.
    fn shape(&self) -> (usize, usize) {
        if self.transposed { (self.cols, self.rows) } else { (self.rows, self.cols) }
    }
}

/// On which side of a product a factor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// How the numbers of a packed factor are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// bf16 in tiles, for matrix units and instructions that multiply pairs.
    Tiles,
    /// f32, for everything else.
    Wide,
}

/// A packed factor. Its memory is used again by the next one packed into it.
#[derive(Debug, Default)]
pub struct Packed {
    pub(super) tiles: Vec<u16>,
    pub(super) wide: Vec<f32>,
    /// Rows of a left factor, columns of a right one.
    pub(super) outer: usize,
    /// The dimension that is summed over.
    pub(super) inner: usize,
}

impl Packed {
    /// Numbers of one strip.
    pub(super) fn strip_numbers(&self, form: Form) -> usize {
        match form {
            Form::Tiles => self.inner.div_ceil(DEPTH) * TILE_NUMBERS,
            Form::Wide => self.inner * STRIP,
        }
    }

    pub(super) fn strips(&self) -> usize {
        self.outer.div_ceil(STRIP)
    }
}

/// Packs `view` for one side. With `rounds`, numbers are rounded to bf16 in either form.
pub(super) fn pack<N: Number>(
    isa: Isa,
    pool: Option<&ThreadPool>,
    out: &mut Packed,
    view: View<'_, N>,
    side: Side,
    form: Form,
    rounds: bool,
) {
    let (rows, cols) = view.shape();
    // Strips run across the outer dimension: rows of a left factor, columns of a right one.
    let (outer, inner, view) = match side {
        Side::Left => (rows, cols, view),
        Side::Right => (cols, rows, view.t()),
    };
    (out.outer, out.inner) = (outer, inner);
    let (strips, length) = (out.strips(), out.strip_numbers(form));
    match form {
        Form::Tiles => {
            grow(&mut out.tiles, strips * length);
            let shared = SharedSlice::new(&mut out.tiles);
            each(pool, strips, &|strip| {
                // SAFETY: strips are disjoint and each is visited once.
                let out = unsafe { shared.slice(strip * length, length) };
                compiled_for!(isa, tiles<N: Number>(out: &mut [u16], view: View<'_, N>, strip: usize, side: Side));
            });
        }
        Form::Wide => {
            grow(&mut out.wide, strips * length);
            let shared = SharedSlice::new(&mut out.wide);
            each(pool, strips, &|strip| {
                // SAFETY: as above.
                let out = unsafe { shared.slice(strip * length, length) };
                compiled_for!(isa, wide<N: Number>(out: &mut [f32], view: View<'_, N>, strip: usize, rounds: bool));
            });
        }
    }
}

fn grow<T: Copy + Default>(memory: &mut Vec<T>, length: usize) {
    if memory.len() < length {
        memory.resize(length, T::default());
    }
}

fn each(pool: Option<&ThreadPool>, jobs: usize, job: &(dyn Fn(usize) + Sync)) {
    match pool {
        Some(pool) if jobs > 1 => pool.run(jobs, job),
        _ => (0..jobs).for_each(job),
    }
}

/// `[inputs, 16]` of strip `strip` of the rows of `view`.
#[inline(always)]
fn wide<N: Number>(out: &mut [f32], view: View<'_, N>, strip: usize, rounds: bool) {
    let first = strip * STRIP;
    let (rows, _) = view.shape();
    let count = STRIP.min(rows - first);
    let number = |number: N| if rounds { bf16_of(number.wide()) } else { number.wide() };
    if view.transposed {
        for (at, out) in out.chunks_exact_mut(STRIP).enumerate() {
            let from = &view.numbers[at * view.stride + first..][..count];
            for (out, from) in out.iter_mut().zip(from) {
                *out = number(*from);
            }
            out[count..].fill(0.0);
        }
    } else {
        for n in 0..STRIP {
            let places = out[n..].iter_mut().step_by(STRIP);
            if n < count {
                let from = &view.numbers[(first + n) * view.stride..][..view.cols];
                places.zip(from).for_each(|(out, from)| *out = number(*from));
            } else {
                places.for_each(|out| *out = 0.0);
            }
        }
    }
}

/// The nearest bf16 number, of two the even one.
#[inline(always)]
fn bf16_of(number: f32) -> f32 {
    f32::from_bits(u32::from(round(number)) << 16)
}

/// The bits of the bf16 number nearest to `x`, of two the even one; infinities and what is no number stay so.
#[inline(always)]
pub(super) fn round(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let bits = if x.is_nan() { bits >> 16 | 0x40 } else { rounded };
    bits as u16
}

/// The tiles of strip `strip` of the rows of `view`.
#[inline(always)]
fn tiles<N: Number>(out: &mut [u16], view: View<'_, N>, strip: usize, side: Side) {
    let first = strip * STRIP;
    let (rows, inner) = view.shape();
    let count = STRIP.min(rows - first);
    for (step, tile) in out.chunks_exact_mut(TILE_NUMBERS).enumerate() {
        let from = step * DEPTH;
        let depth = DEPTH.min(inner - from);
        if view.transposed {
            // Rows of memory are inputs.
            let mut columns = [[0_u16; STRIP]; DEPTH];
            for (at, column) in columns.iter_mut().enumerate().take(depth) {
                let numbers = &view.numbers[(from + at) * view.stride + first..][..count];
                N::bits(numbers, column);
            }
            let pairs = pairs(&columns);
            match side {
                Side::Right => put(&pairs, tile),
                Side::Left => put(&transpose(&pairs), tile),
            }
        } else {
            let mut lines = [[0_u16; DEPTH]; STRIP];
            for (n, line) in lines.iter_mut().enumerate().take(count) {
                let numbers = &view.numbers[(first + n) * view.stride + from..][..depth];
                N::bits(numbers, line);
            }
            match side {
                Side::Left => tile.copy_from_slice(lines.as_flattened()),
                Side::Right => put(&transpose(&pairs_of_lines(&lines)), tile),
            }
        }
    }
}

/// `[32, 16]` as `[16 pairs, 16]`, each pair in one unit, the first in its lower half.
#[inline(always)]
fn pairs(columns: &[[u16; STRIP]; DEPTH]) -> Units {
    let mut units = [[0_u32; STRIP]; STRIP];
    for (units, pair) in units.iter_mut().zip(columns.as_chunks::<2>().0) {
        for n in 0..STRIP {
            units[n] = u32::from(pair[0][n]) | u32::from(pair[1][n]) << 16;
        }
    }
    units
}

/// `[16, 32]` as `[16, 16 pairs]`.
#[inline(always)]
fn pairs_of_lines(lines: &[[u16; DEPTH]; STRIP]) -> Units {
    let mut units = [[0_u32; STRIP]; STRIP];
    for (units, line) in units.iter_mut().zip(lines) {
        for (unit, pair) in units.iter_mut().zip(line.as_chunks::<2>().0) {
            *unit = u32::from(pair[0]) | u32::from(pair[1]) << 16;
        }
    }
    units
}

/// Sixteen lines of sixteen pairs: a tile.
type Units = [[u32; STRIP]; STRIP];

#[inline(always)]
fn put(units: &Units, tile: &mut [u16]) {
    for (out, unit) in tile.as_chunks_mut::<2>().0.iter_mut().zip(units.as_flattened()) {
        *out = [*unit as u16, (*unit >> 16) as u16];
    }
}

/// Sixteen lines of sixteen, turned.
#[inline(always)]
fn transpose(lines: &Units) -> Units {
    let mut turned = [[0; STRIP]; STRIP];
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has it, as just asked; any bytes are units and units are bytes.
        unsafe {
            let rows = std::slice::from_raw_parts(lines.as_ptr().cast(), size_of::<Units>());
            let out =
                std::slice::from_raw_parts_mut(turned.as_mut_ptr().cast(), size_of::<Units>());
            super::super::matrix::transpose::run(rows, size_of::<[u32; STRIP]>(), out);
        }
        return turned;
    }
    for (n, line) in lines.iter().enumerate() {
        for (turned, unit) in turned.iter_mut().zip(line) {
            turned[n] = *unit;
        }
    }
    turned
}

impl Number for f32 {
    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(number: f32) -> Self {
        number
    }

    #[inline(always)]
    fn bits<const L: usize>(numbers: &[Self], out: &mut [u16; L]) {
        if let Ok(numbers) = <&[Self; L]>::try_from(numbers) {
            for n in 0..L {
                out[n] = round(numbers[n]);
            }
        } else {
            out.iter_mut().zip(numbers).for_each(|(out, number)| *out = round(*number));
        }
    }
}

impl Number for bf16 {
    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn narrow(number: f32) -> Self {
        Self::from_bits(round(number))
    }

    #[inline(always)]
    fn bits<const L: usize>(numbers: &[Self], out: &mut [u16; L]) {
        if let Ok(numbers) = <&[Self; L]>::try_from(numbers) {
            for n in 0..L {
                out[n] = numbers[n].to_bits();
            }
        } else {
            out.iter_mut().zip(numbers).for_each(|(out, number)| *out = number.to_bits());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_lines_are_turned() {
        let lines: Units =
            std::array::from_fn(|n| std::array::from_fn(|at| (n * STRIP + at) as u32));
        let turned = transpose(&lines);
        for n in 0..STRIP {
            for at in 0..STRIP {
                assert_eq!(turned[n][at], lines[at][n]);
            }
        }
    }

    #[test]
    fn rounding_is_that_of_half() {
        for bits in (0..u32::MAX).step_by(65_521) {
            let number = f32::from_bits(bits);
            let expected = bf16::from_f32(number);
            if number.is_nan() {
                assert!(bf16::from_bits(round(number)).is_nan());
            } else {
                assert_eq!(round(number), expected.to_bits(), "{number}");
            }
        }
    }
}
