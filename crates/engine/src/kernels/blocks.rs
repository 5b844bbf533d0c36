//! Panels of quantised weights: integer codes in bit planes, and their scales.
//!
//! Decides where each bit of a code lies ([`CHUNK`]) and holds scales as they are stored. All encodings
//! share one form, `scale · sub-scale · (code − offset) − min · sub-min` ([`crate::quant`]), so the
//! kernels know widths of codes and kinds of scales, not encodings.

use super::matrix::{MatrixError, PANEL_ROWS, allocate, each_panel, panel_rows};
use super::memory::Buffer;
use super::pool::ThreadPool;
use crate::quant::{Block, Encoding};
use half::f16;

/// Evaluates `$body` with the type `$kind` standing for `$encoding`, which is a quantised one.
macro_rules! with_kind {
    ($encoding:expr, $kind:ident => $body:expr) => {{
        use $crate::kernels::blocks::kinds;
        use $crate::quant::Encoding;
        match $encoding {
            Encoding::Q8_0 => {
                type $kind = kinds::Q8_0;
                $body
            }
            Encoding::Q4_0 => {
                type $kind = kinds::Q4_0;
                $body
            }
            Encoding::Q4_1 => {
                type $kind = kinds::Q4_1;
                $body
            }
            Encoding::Q5_0 => {
                type $kind = kinds::Q5_0;
                $body
            }
            Encoding::Q5_1 => {
                type $kind = kinds::Q5_1;
                $body
            }
            Encoding::Q2_K => {
                type $kind = kinds::Q2_K;
                $body
            }
            Encoding::Q3_K => {
                type $kind = kinds::Q3_K;
                $body
            }
            Encoding::Q4_K => {
                type $kind = kinds::Q4_K;
                $body
            }
            Encoding::Q5_K => {
                type $kind = kinds::Q5_K;
                $body
            }
            Encoding::Q6_K => {
                type $kind = kinds::Q6_K;
                $body
            }
            Encoding::F32 | Encoding::F16 | Encoding::Bf16 => {
                unreachable!("floats are not held in blocks")
            }
        }
    }};
}
pub(super) use with_kind;

/// Inputs that share one scale of the activations, and one chunk of codes.
pub(super) const CHUNK: usize = 32;

/// Codes of a chunk: inputs by fours, for each of them the rows of a panel, four codes a row. The order in
/// which dot products of bytes and matrix units take them.
pub(super) const CHUNK_CODES: usize = CHUNK * PANEL_ROWS;

/// Bytes of the plane of low nibbles of a chunk, if codes have four to six bits.
const NIBBLES: usize = CHUNK_CODES / 2;
/// Bytes of a plane of two bits of each code of a chunk.
const CRUMBS: usize = CHUNK_CODES / 4;
/// Codes that lie side by side in a register.
const VECTOR: usize = 64;

/// Where the scale of input `i` comes from, and what is subtracted from codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scheme {
    /// Bits of a code.
    pub bits: usize,
    /// Codes of a row that share a scale: 16 or 32.
    pub sub: usize,
    /// Subtracted from each code.
    pub offset: i32,
    /// Whether sub-blocks have minima.
    pub has_min: bool,
    /// Inputs that share a scale and a minimum, which integers of the sub-blocks multiply.
    pub block: usize,
}

impl Scheme {
    pub const fn of(encoding: Encoding) -> Self {
        Self {
            bits: encoding.code_bits(),
            sub: encoding.sub_block(),
            offset: encoding.offset(),
            has_min: encoding.has_min(),
            block: encoding.block_numbers(),
        }
    }

    /// Bytes of the codes of a chunk.
    pub const fn chunk_bytes(self) -> usize {
        CHUNK_CODES * self.bits / 8
    }

    /// Bytes of the scales of a block of a panel.
    pub const fn scale_bytes(self) -> usize {
        let kinds = 1 + self.has_min as usize;
        let integers = if self.block > CHUNK { self.block / self.sub } else { 0 };
        kinds * PANEL_ROWS * (size_of::<f16>() + integers)
    }
}

/// Panels of quantised rows.
///
/// A panel is the codes of its chunks, then the scales of its blocks. Those of a block are
/// `[16]` f16 scales, then, where the encoding has them, `[16]` f16 minima, `[sub-blocks, 16]` i8
/// sub-scales and `[sub-blocks, 16]` u8 sub-minima.
#[derive(Debug)]
pub(super) struct Blocks {
    buffer: Buffer,
    pub scheme: Scheme,
    pub encoding: Encoding,
    pub count: usize,
    cols: usize,
}

/// The two parts of a panel.
#[derive(Clone, Copy)]
pub(super) struct Panel<'a> {
    /// [`Scheme::chunk_bytes`] for each chunk.
    pub codes: &'a [u8],
    /// [`Scheme::scale_bytes`] for each block.
    pub scales: &'a [u8],
}

impl Blocks {
    pub fn pack(
        pool: &ThreadPool,
        encoding: Encoding,
        [rows, cols]: [usize; 2],
        bytes: &[u8],
    ) -> Result<Self, MatrixError> {
        let scheme = Scheme::of(encoding);
        let count = rows.div_ceil(PANEL_ROWS);
        let code_bytes = cols / CHUNK * scheme.chunk_bytes();
        let panel_bytes = code_bytes + cols / scheme.block * scheme.scale_bytes();
        // Panels start on a cache line.
        let panel_bytes = panel_bytes.next_multiple_of(VECTOR);
        let mut buffer = allocate(count * panel_bytes)?;
        let row_bytes = bytes.len() / rows;
        each_panel(pool, buffer.as_mut(), panel_bytes, &|panel, out| {
            let rows = panel_rows(panel, rows);
            let rows = &bytes[rows.start * row_bytes..rows.end * row_bytes];
            let (codes, scales) = out.split_at_mut(code_bytes);
            with_kind!(encoding, K => pack_panel::<K>(rows, row_bytes, codes, scales));
        });
        Ok(Self { buffer, scheme, encoding, count, cols })
    }

    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes of one panel.
    pub fn panel_bytes(&self) -> usize {
        self.buffer.len() / self.count
    }

    #[inline(always)]
    pub fn panel(&self, index: usize) -> Panel<'_> {
        let bytes = &self.buffer[index * self.panel_bytes()..][..self.panel_bytes()];
        let (codes, scales) = bytes.split_at(self.cols / CHUNK * self.scheme.chunk_bytes());
        Panel { codes, scales }
    }

    pub fn row_into(&self, row: usize, out: &mut [f32]) {
        let (panel, n) = (self.panel(row / PANEL_ROWS), row % PANEL_ROWS);
        let scheme = self.scheme;
        let mut codes = [0; CHUNK_CODES];
        for (chunk, out) in out.chunks_exact_mut(CHUNK).enumerate() {
            unpack(scheme.bits, &panel.codes[chunk * scheme.chunk_bytes()..], &mut codes);
            for (sub, out) in out.chunks_exact_mut(scheme.sub).enumerate() {
                let (scales, mins) = panel.scales(scheme, chunk * CHUNK + sub * scheme.sub);
                for (i, out) in out.iter_mut().enumerate() {
                    let k = sub * scheme.sub + i;
                    let code = i32::from(codes[k / 4 * VECTOR + n * 4 + k % 4]) - scheme.offset;
                    *out = scales[n] * code as f32 - mins[n];
                }
            }
        }
    }
}

impl Panel<'_> {
    /// Scale and minimum of each row for the sub-block of input `k`.
    #[inline(always)]
    pub fn scales(&self, scheme: Scheme, k: usize) -> ([f32; PANEL_ROWS], [f32; PANEL_ROWS]) {
        let kinds = 1 + usize::from(scheme.has_min);
        let block = &self.scales[k / scheme.block * scheme.scale_bytes()..][..scheme.scale_bytes()];
        let (floats, integers) = block.split_at(kinds * PANEL_ROWS * size_of::<f16>());
        let (floats, _) = floats.as_chunks::<2>();
        let widen = |bytes: [u8; 2]| f16::from_le_bytes(bytes).to_f32();
        let (mut scales, mut mins) = ([0.0; PANEL_ROWS], [0.0; PANEL_ROWS]);
        for n in 0..PANEL_ROWS {
            scales[n] = widen(floats[n]);
            if scheme.has_min {
                mins[n] = widen(floats[PANEL_ROWS + n]);
            }
        }
        if !integers.is_empty() {
            let sub = k % scheme.block / scheme.sub;
            let second = scheme.block / scheme.sub * PANEL_ROWS;
            for n in 0..PANEL_ROWS {
                scales[n] *= f32::from(integers[sub * PANEL_ROWS + n].cast_signed());
                if scheme.has_min {
                    mins[n] *= f32::from(integers[second + sub * PANEL_ROWS + n]);
                }
            }
        }
        (scales, mins)
    }
}

/// Packs rows of blocks into the two parts of a panel, which are zero.
fn pack_panel<K: Kind>(rows: &[u8], row_bytes: usize, codes: &mut [u8], scales: &mut [u8]) {
    /// Inputs of each row that are packed before those of the next, so that what is written stays in the
    /// nearest cache.
    const TOGETHER: usize = 256;
    let scheme = const { K::SCHEME };
    let blocks = TOGETHER / scheme.block;
    let code_bytes = scheme.block / CHUNK * scheme.chunk_bytes();
    let parts = codes.chunks_mut(blocks * code_bytes);
    let parts = parts.zip(scales.chunks_mut(blocks * scheme.scale_bytes()));
    let mut block = Block::default();
    for (part, (codes, scales)) in parts.enumerate() {
        for (n, row) in rows.chunks_exact(row_bytes).enumerate() {
            let row = &row[part * blocks * const { K::ENCODING.block_bytes() }..];
            let places = codes.chunks_exact_mut(code_bytes);
            let places = places.zip(scales.chunks_exact_mut(scheme.scale_bytes()));
            for (bytes, (codes, scales)) in
                row.chunks_exact(const { K::ENCODING.block_bytes() }).zip(places)
            {
                block.read(K::ENCODING, bytes);
                put_scales(scheme, &block, n, scales);
                let planes = codes.chunks_exact_mut(scheme.chunk_bytes());
                for (codes, planes) in block.codes.as_chunks::<CHUNK>().0.iter().zip(planes) {
                    put_codes(scheme.bits, codes, n, planes);
                }
            }
        }
    }
}

#[inline(always)]
fn put_scales(scheme: Scheme, block: &Block, n: usize, out: &mut [u8]) {
    let kinds = 1 + usize::from(scheme.has_min);
    let (floats, integers) = out[..scheme.scale_bytes()].split_at_mut(kinds * PANEL_ROWS * 2);
    let (floats, _) = floats.as_chunks_mut::<2>();
    floats[n] = block.scale.to_le_bytes();
    if scheme.has_min {
        floats[PANEL_ROWS + n] = block.min.to_le_bytes();
    }
    if !integers.is_empty() {
        let subs = scheme.block / scheme.sub;
        for sub in 0..subs {
            integers[sub * PANEL_ROWS + n] = block.sub_scales[sub].cast_unsigned();
            if scheme.has_min {
                integers[(subs + sub) * PANEL_ROWS + n] = block.sub_mins[sub];
            }
        }
    }
}

/// Adds the codes of row `n` to the planes of a chunk, which are zero where they go.
#[inline(always)]
fn put_codes(bits: usize, codes: &[u8; CHUNK], n: usize, planes: &mut [u8]) {
    // Four inputs of a row lie side by side and move as one.
    let mut quads = [0; CHUNK / 4];
    for (quad, codes) in quads.iter_mut().zip(codes.as_chunks::<4>().0) {
        *quad = u32::from_le_bytes(*codes);
    }
    match bits {
        8 => put::<8>(planes, quads, n),
        4 => put::<4>(planes, quads, n),
        5 | 6 => {
            let (low, high) = planes.split_at_mut(NIBBLES);
            put::<4>(low, quads.map(|quad| quad & 0x0f0f_0f0f), n);
            let rest = quads.map(|quad| quad >> 4 & 0x0303_0303);
            if bits == 5 { put_bits(high, rest, n) } else { put::<2>(high, rest, n) }
        }
        2 => put::<2>(planes, quads, n),
        _ => {
            let (low, high) = planes.split_at_mut(CRUMBS);
            put::<2>(low, quads.map(|quad| quad & 0x0303_0303), n);
            put_bits(high, quads.map(|quad| quad >> 2 & 0x0101_0101), n);
        }
    }
}

/// Writes codes of `BITS` bits of row `n`: a plane takes as many registers, the codes of the others lie
/// above those of the first.
#[inline(always)]
fn put<const BITS: usize>(plane: &mut [u8], quads: [u32; CHUNK / 4], n: usize) {
    let (places, _) = plane.as_chunks_mut::<4>();
    for vector in 0..BITS {
        let parts = (vector..quads.len()).step_by(BITS).enumerate();
        let bits = parts.fold(0, |bits, (part, at)| bits | quads[at] << (part * BITS));
        places[vector * PANEL_ROWS + n] = bits.to_le_bytes();
    }
}

/// Writes one bit of each code of row `n`: a mask of a register has a bit for each byte.
#[inline(always)]
fn put_bits(plane: &mut [u8], quads: [u32; CHUNK / 4], n: usize) {
    for (vector, quad) in quads.into_iter().enumerate() {
        let four = quad | quad >> 7 | quad >> 14 | quad >> 21;
        plane[vector * VECTOR / 8 + n / 2] |= (four as u8 & 15) << (n % 2 * 4);
    }
}

/// The codes of a chunk, in the order of [`CHUNK_CODES`].
#[inline(always)]
pub(super) fn unpack(bits: usize, planes: &[u8], out: &mut [u8; CHUNK_CODES]) {
    match bits {
        8 => out.copy_from_slice(&planes[..CHUNK_CODES]),
        4..=6 => {
            take::<4>(&planes[..NIBBLES], out);
            match bits {
                5 => add_bits::<4>(&planes[NIBBLES..], out),
                6 => add_crumbs(&planes[NIBBLES..], out),
                _ => {}
            }
        }
        _ => {
            take::<2>(&planes[..CRUMBS], out);
            if bits == 3 {
                add_bits::<2>(&planes[CRUMBS..], out);
            }
        }
    }
}

#[inline(always)]
fn take<const BITS: usize>(plane: &[u8], out: &mut [u8; CHUNK_CODES]) {
    for (part, out) in out.chunks_exact_mut(BITS * VECTOR).enumerate() {
        for (out, byte) in out.iter_mut().zip(plane) {
            *out = byte >> (part * BITS) & ((1 << BITS) - 1);
        }
    }
}

#[inline(always)]
fn add_crumbs(plane: &[u8], out: &mut [u8; CHUNK_CODES]) {
    for (part, out) in out.chunks_exact_mut(2 * VECTOR).enumerate() {
        for (out, byte) in out.iter_mut().zip(plane) {
            *out |= (byte >> (part * 2) & 3) << 4;
        }
    }
}

#[inline(always)]
fn add_bits<const SHIFT: usize>(plane: &[u8], out: &mut [u8; CHUNK_CODES]) {
    for (out, byte) in out.chunks_exact_mut(8).zip(plane) {
        for (bit, out) in out.iter_mut().enumerate() {
            *out |= (byte >> bit & 1) << SHIFT;
        }
    }
}

/// A [`Scheme`] that the compiler knows.
pub(super) trait Kind {
    const ENCODING: Encoding;
    const SCHEME: Scheme;
}

/// One type for each quantised encoding.
#[allow(non_camel_case_types, reason = "the names that everybody knows them by")]
pub(super) mod kinds {
    use super::{Encoding, Kind, Scheme};

    macro_rules! kinds {
        ($($name:ident)*) => {$(
            pub(in super::super) struct $name;
            impl Kind for $name {
                const ENCODING: Encoding = Encoding::$name;
                const SCHEME: Scheme = Scheme::of(Encoding::$name);
            }
        )*};
    }
    kinds!(Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K Q4_K Q5_K Q6_K);
}
