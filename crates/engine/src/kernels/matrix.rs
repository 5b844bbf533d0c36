//! Weights in the order in which the kernels read them.
//!
//! A matrix is cut into panels of [`PANEL_ROWS`] rows. Within a panel the inputs come in order, and
//! for each of them the numbers of all its rows: a register holds one number of every row, a dot
//! product needs no sum across lanes, and a panel is one run through memory. Floats keep their type,
//! quantised blocks their integers and scales ([`super::blocks`]): packing rounds nothing.

use super::blocks::Blocks;
use super::memory::Buffer;
use super::pool::{SharedSlice, ThreadPool};
use crate::quant::Encoding;
use half::{bf16, f16};
use std::ops::Range;

/// Rows of a panel, which is also how many f32 the longest register holds.
pub(super) const PANEL_ROWS: usize = 16;

/// Inputs that one tile of bf16 numbers covers; panels of bf16 are padded to whole tiles.
pub(super) const TILE_COLS: usize = 32;

/// A type that floats are stored in.
pub(super) trait Element: Copy + Send + Sync + 'static {
    /// The same number as an f32.
    fn widen(self) -> f32;
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl Element for f16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

impl Element for bf16 {
    // Unlike `bf16::to_f32` this leaves a signalling NaN as it is, and so has no branch.
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// Weights `[rows, cols]` = `[N, K]`, packed: one row per output feature.
#[derive(Debug)]
pub struct Matrix {
    rows: usize,
    cols: usize,
    encoding: Encoding,
    pub(super) store: Store,
}

#[derive(Debug)]
pub(super) enum Store {
    F32(Panels<f32>),
    F16(Panels<f16>),
    Bf16(Panels<bf16>),
    Blocks(Blocks),
}

/// Why there is no matrix.
#[derive(Debug, thiserror::Error)]
pub enum MatrixError {
    /// The bytes do not fill the shape.
    #[error("a {encoding:?} matrix of {rows} x {cols} was given {found} bytes")]
    Size {
        /// How the bytes are meant.
        encoding: Encoding,
        /// `N` as asked for.
        rows: usize,
        /// `K` as asked for.
        cols: usize,
        /// How many bytes there were.
        found: usize,
    },
    /// The system has no memory left.
    #[error("no memory for {bytes} bytes of weights: {source}")]
    Memory {
        /// How many are needed.
        bytes: usize,
        /// What the system says.
        source: std::io::Error,
    },
}

impl Matrix {
    /// Packs `bytes`, `rows` rows of `cols` numbers each in `encoding`, on all threads of `pool`.
    ///
    /// # Errors
    /// [`MatrixError`] unless there are exactly the bytes that the shape needs, and memory for them.
    pub fn pack(
        pool: &ThreadPool,
        encoding: Encoding,
        [rows, cols]: [usize; 2],
        bytes: &[u8],
    ) -> Result<Self, MatrixError> {
        let row_bytes = encoding.bytes_of(cols);
        if rows == 0
            || cols == 0
            || row_bytes.and_then(|b| b.checked_mul(rows)) != Some(bytes.len())
        {
            return Err(MatrixError::Size { encoding, rows, cols, found: bytes.len() });
        }
        let shape = [rows, cols];
        let store = match encoding {
            Encoding::F32 => Store::F32(Panels::pack::<4>(pool, shape, cols, bytes)?),
            Encoding::F16 => Store::F16(Panels::pack::<2>(pool, shape, cols, bytes)?),
            // Both numbers of a pair of inputs move as one.
            Encoding::Bf16 => {
                let padded = cols.next_multiple_of(TILE_COLS);
                Store::Bf16(Panels::pack::<4>(pool, shape, padded, bytes)?)
            }
            _ => Store::Blocks(Blocks::pack(pool, encoding, shape, bytes)?),
        };
        Ok(Self { rows, cols, encoding, store })
    }

    /// `N`, the output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// `K`, the input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// How the numbers are held.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Bytes of memory it takes.
    pub fn bytes(&self) -> usize {
        match &self.store {
            Store::F32(panels) => panels.buffer.len(),
            Store::F16(panels) => panels.buffer.len(),
            Store::Bf16(panels) => panels.buffer.len(),
            Store::Blocks(blocks) => blocks.bytes(),
        }
    }

    /// Copies row `row` into `out` `[cols]` as f32: the look-up of an embedding.
    ///
    /// # Panics
    /// If `row` is not below `rows` or `out` is not `[cols]`.
    pub fn row_into(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows, "row {row} of a matrix of {} rows", self.rows);
        assert_eq!(out.len(), self.cols, "a row has as many elements as the matrix has columns");
        let (panel, lane) = (row / PANEL_ROWS, row % PANEL_ROWS);
        match &self.store {
            Store::F32(panels) => gather(panels.panel(panel), |k| k * PANEL_ROWS + lane, out),
            Store::F16(panels) => gather(panels.panel(panel), |k| k * PANEL_ROWS + lane, out),
            Store::Bf16(panels) => {
                let place = |k| (k / 2 * PANEL_ROWS + lane) * 2 + k % 2;
                gather(panels.panel(panel), place, out);
            }
            Store::Blocks(blocks) => blocks.row_into(row, out),
        }
    }
}

fn gather<E: Element>(panel: &[E], place: impl Fn(usize) -> usize, out: &mut [f32]) {
    for (k, out) in out.iter_mut().enumerate() {
        *out = panel[place(k)].widen();
    }
}

/// Panels of floats.
///
/// For f32 and f16 a panel is `[padded cols, 16]`; for bf16 it is `[padded cols / 2, 16, 2]`, the order
/// in which matrix units and dot products of pairs take it. Padding is zero.
#[derive(Debug)]
pub(super) struct Panels<E> {
    buffer: Buffer,
    /// Elements of one.
    length: usize,
    /// How many.
    pub count: usize,
    element: std::marker::PhantomData<E>,
}

impl<E: Element> Panels<E> {
    /// `UNIT` bytes of a row stay together.
    fn pack<const UNIT: usize>(
        pool: &ThreadPool,
        [rows, cols]: [usize; 2],
        padded_cols: usize,
        bytes: &[u8],
    ) -> Result<Self, MatrixError> {
        let count = rows.div_ceil(PANEL_ROWS);
        // One more input if they are odd: kernels take them in pairs.
        let length = padded_cols.next_multiple_of(2) * PANEL_ROWS;
        let panel_bytes = length * size_of::<E>();
        let mut buffer = allocate(count * panel_bytes)?;
        let row_bytes = cols * size_of::<E>();
        each_panel(pool, buffer.as_mut(), panel_bytes, &|panel, out| {
            let rows = panel_rows(panel, rows);
            interleave::<UNIT>(
                &bytes[rows.start * row_bytes..rows.end * row_bytes],
                row_bytes,
                out,
            );
        });
        Ok(Self { buffer, length, count, element: std::marker::PhantomData })
    }

    /// Panel `index`, `length` elements.
    #[inline(always)]
    pub fn panel(&self, index: usize) -> &[E] {
        assert!(index < self.count, "panel {index} of {}", self.count);
        // SAFETY: the buffer holds `count · length` elements, any bits are a valid float (`Element` is
        // implemented for floats alone), and it starts on a page. Machines that store numbers in
        // big-endian order are refused in `crate::formats`.
        unsafe {
            let start = self.buffer.as_ptr().cast::<E>().add(index * self.length);
            std::slice::from_raw_parts(start, self.length)
        }
    }
}

/// The rows of panel `index`.
pub(super) fn panel_rows(index: usize, rows: usize) -> Range<usize> {
    index * PANEL_ROWS..rows.min((index + 1) * PANEL_ROWS)
}

pub(super) fn allocate(bytes: usize) -> Result<Buffer, MatrixError> {
    Buffer::zeroed(bytes).map_err(|source| MatrixError::Memory { bytes, source })
}

/// Calls `pack(index, panel)` for each panel of `bytes` bytes of `out`, on all threads.
pub(super) fn each_panel(
    pool: &ThreadPool,
    out: &mut [u8],
    bytes: usize,
    pack: &(dyn Fn(usize, &mut [u8]) + Sync),
) {
    let count = out.len() / bytes;
    let out = SharedSlice::new(out);
    pool.run(count, &|index| {
        // SAFETY: panels are disjoint and each index is visited once.
        pack(index, unsafe { out.slice(index * bytes, bytes) });
    });
}

/// Writes unit `u` of row `n` to unit `u · 16 + n`.
fn interleave<const UNIT: usize>(rows: &[u8], row_bytes: usize, panel: &mut [u8]) {
    /// Bytes of each row taken at once, so that what is written stays in the nearest cache.
    const BLOCK: usize = 256;
    for start in (0..row_bytes).step_by(BLOCK) {
        let end = row_bytes.min(start + BLOCK);
        let out = &mut panel[start * PANEL_ROWS..];
        #[cfg(target_arch = "x86_64")]
        if UNIT == 4 && end == start + BLOCK && transpose::is_possible(rows, row_bytes) {
            for at in (0..BLOCK).step_by(transpose::WIDTH) {
                // SAFETY: it is possible, and sixteen rows have as many bytes after `start + at`.
                unsafe {
                    transpose::run(&rows[start + at..], row_bytes, &mut out[at * PANEL_ROWS..])
                };
            }
            continue;
        }
        for (n, row) in rows.chunks_exact(row_bytes).enumerate() {
            let (units, rest) = row[start..end].as_chunks::<UNIT>();
            let (places, _) = out.as_chunks_mut::<UNIT>();
            for (place, unit) in places[n..].iter_mut().step_by(PANEL_ROWS).zip(units) {
                *place = *unit;
            }
            if !rest.is_empty() {
                places[units.len() * PANEL_ROWS + n][..rest.len()].copy_from_slice(rest);
            }
        }
    }
}

/// Sixteen units of four bytes of sixteen rows at once.
#[cfg(target_arch = "x86_64")]
pub(super) mod transpose {
    use super::PANEL_ROWS;
    use std::arch::x86_64::*;

    /// Bytes of each row.
    pub const WIDTH: usize = 64;

    /// Whether the processor can, and the panel is full.
    #[inline(always)]
    pub fn is_possible(rows: &[u8], row_bytes: usize) -> bool {
        rows.len() == PANEL_ROWS * row_bytes && is_x86_feature_detected!("avx512f")
    }

    /// # Safety
    /// AVX-512 must be available.
    ///
    /// # Panics
    /// If there are fewer than sixteen rows of [`WIDTH`] bytes, or places for them.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn run(rows: &[u8], row_bytes: usize, out: &mut [u8]) {
        assert!(rows.len() >= (PANEL_ROWS - 1) * row_bytes + WIDTH);
        assert!(out.len() >= PANEL_ROWS * WIDTH);
        let mut from = [_mm512_setzero_si512(); PANEL_ROWS];
        for (n, from) in from.iter_mut().enumerate() {
            // SAFETY: the bytes are there, as just checked.
            *from = unsafe { _mm512_loadu_si512(rows.as_ptr().add(n * row_bytes).cast()) };
        }
        // Registers are rows of 4 x 4 squares of units: these are turned first, then the square of squares.
        // Lane `l` of `fours[column][i]` has unit `4 l + column` of rows `4 i` to `4 i + 3`.
        let mut fours = [[_mm512_setzero_si512(); 4]; 4];
        for (i, [a, b, c, d]) in from.as_chunks::<4>().0.iter().copied().enumerate() {
            let low = [_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d)];
            let high = [_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d)];
            fours[0][i] = _mm512_unpacklo_epi64(low[0], low[1]);
            fours[1][i] = _mm512_unpackhi_epi64(low[0], low[1]);
            fours[2][i] = _mm512_unpacklo_epi64(high[0], high[1]);
            fours[3][i] = _mm512_unpackhi_epi64(high[0], high[1]);
        }
        /// Picks lanes 0 and 2 of both, or lanes 1 and 3.
        const EVEN: i32 = 0b10_00_10_00;
        const ODD: i32 = 0b11_01_11_01;
        for (column, [a, b, c, d]) in fours.into_iter().enumerate() {
            let even = [_mm512_shuffle_i32x4::<EVEN>(a, b), _mm512_shuffle_i32x4::<EVEN>(c, d)];
            let odd = [_mm512_shuffle_i32x4::<ODD>(a, b), _mm512_shuffle_i32x4::<ODD>(c, d)];
            let lanes = [
                _mm512_shuffle_i32x4::<EVEN>(even[0], even[1]),
                _mm512_shuffle_i32x4::<EVEN>(odd[0], odd[1]),
                _mm512_shuffle_i32x4::<ODD>(even[0], even[1]),
                _mm512_shuffle_i32x4::<ODD>(odd[0], odd[1]),
            ];
            for (lane, units) in lanes.into_iter().enumerate() {
                let at = (4 * lane + column) * WIDTH;
                // SAFETY: there is room, as checked above.
                unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(at).cast(), units) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(
        encoding: Encoding,
        rows: usize,
        cols: usize,
        bytes: &[u8],
    ) -> Result<Matrix, MatrixError> {
        Matrix::pack(&ThreadPool::new(1), encoding, [rows, cols], bytes)
    }

    #[test]
    fn a_matrix_needs_exactly_its_bytes() {
        assert!(pack(Encoding::F32, 2, 3, &[0; 24]).is_ok());
        for (encoding, rows, cols) in
            [(Encoding::F32, 2, 2), (Encoding::F32, usize::MAX, 3), (Encoding::Q8_0, 1, 24)]
        {
            assert!(matches!(pack(encoding, rows, cols, &[0; 24]), Err(MatrixError::Size { .. })));
        }
        assert!(pack(Encoding::F32, 0, 3, &[]).is_err());
    }

    #[test]
    fn rows_come_back_as_they_were() {
        for (rows, cols) in [(1, 1), (2, 3), (17, 33), (40, 200), (16, 129)] {
            let numbers: Vec<f32> = (0..rows * cols).map(|n| (n % 251) as f32 - 100.0).collect();
            let bytes = |encoding| -> Vec<u8> {
                let f16s = numbers.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes());
                let bf16s = numbers.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes());
                match encoding {
                    Encoding::F32 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
                    Encoding::F16 => f16s.collect(),
                    _ => bf16s.collect(),
                }
            };
            for encoding in [Encoding::F32, Encoding::F16, Encoding::Bf16] {
                let matrix = pack(encoding, rows, cols, &bytes(encoding)).expect("fits");
                let mut row = vec![0.0; cols];
                for (index, expected) in numbers.chunks_exact(cols).enumerate() {
                    matrix.row_into(index, &mut row);
                    assert_eq!(row, expected, "{encoding:?} {rows} x {cols}");
                }
            }
        }
    }

    #[test]
    fn every_bf16_number_widens_as_half_does() {
        for bits in 0..=u16::MAX {
            let number = bf16::from_bits(bits);
            if !number.is_nan() {
                assert_eq!(number.widen().to_bits(), number.to_f32().to_bits());
            }
        }
    }
}
