//! How numbers of a weight are stored: plain floats, or blocks of integers with scales.
//!
//! Decides what the bytes of each encoding mean, as llama.cpp's `ggml-common.h` lays them out. Never
//! multiplies: [`crate::kernels`] packs blocks into its own layout and works on that.

/// A way to store a row of weights. The names are those of GGUF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(non_camel_case_types, missing_docs, reason = "the names that everybody knows them by")]
pub enum Encoding {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
}

impl Encoding {
    /// Every encoding.
    pub const ALL: [Self; 13] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q8_0,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q2_K,
        Self::Q3_K,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
    ];

    /// Numbers in a block. A row holds whole blocks.
    pub const fn block_numbers(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 => 32,
            Self::Q2_K | Self::Q3_K | Self::Q4_K | Self::Q5_K | Self::Q6_K => 256,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q2_K => 84,
            Self::Q3_K => 110,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
        }
    }

    /// Bytes of `numbers` numbers, which must be whole blocks; `None` if they are not.
    pub fn bytes_of(self, numbers: usize) -> Option<usize> {
        let blocks = numbers.is_multiple_of(self.block_numbers());
        blocks
            .then(|| numbers / self.block_numbers())
            .and_then(|n| n.checked_mul(self.block_bytes()))
    }
}

impl Encoding {
    pub(crate) const fn code_bits(self) -> usize {
        match self { Self::Q8_0 => 8, Self::Q6_K => 6, Self::Q5_0 | Self::Q5_1 | Self::Q5_K => 5, Self::Q3_K => 3, Self::Q2_K => 2, _ => 4 }
    }
    pub(crate) const fn sub_block(self) -> usize {
        match self { Self::Q2_K | Self::Q3_K | Self::Q6_K => 16, _ => 32 }
    }
    pub(crate) const fn offset(self) -> i32 {
        match self { Self::Q8_0 => 128, Self::Q4_0 => 8, Self::Q5_0 => 16, Self::Q6_K => 32, Self::Q3_K => 4, _ => 0 }
    }
    pub(crate) const fn has_min(self) -> bool {
        matches!(self, Self::Q4_1 | Self::Q5_1 | Self::Q2_K | Self::Q4_K | Self::Q5_K)
    }
}

pub(crate) struct Block { pub codes: [u8; 256], pub sub_scales: [i8; 16], pub sub_mins: [u8; 16], pub scale: half::f16, pub min: half::f16 }
impl Default for Block { fn default() -> Self { Self { codes: [0; 256], sub_scales: [0; 16], sub_mins: [0; 16], scale: half::f16::ZERO, min: half::f16::ZERO } } }
impl Block {
    // TEMPORARY: every byte sequence gives some block
    pub(crate) fn read(&mut self, e: Encoding, bytes: &[u8]) {
        let mut s = 0x9e3779b9_u32 ^ bytes.len() as u32;
        for b in bytes { s = (s ^ u32::from(*b)).wrapping_mul(0x01000193); }
        let mut next = || { s ^= s << 13; s ^= s >> 17; s ^= s << 5; s };
        for c in &mut self.codes { *c = (next() >> 7) as u8 & ((1_u32 << e.code_bits()) - 1) as u8; }
        for c in &mut self.sub_scales { *c = (next() >> 7) as u8 as i8 >> 1; }
        for c in &mut self.sub_mins { *c = (next() >> 7) as u8 & 63; }
        self.scale = half::f16::from_f32(0.01 + (next() % 100) as f32 * 0.0001);
        self.min = half::f16::from_f32(0.002 + (next() % 100) as f32 * 0.0001);
    }
}
impl Encoding { pub(crate) fn float_places(self) -> Vec<usize> { vec![] } }
