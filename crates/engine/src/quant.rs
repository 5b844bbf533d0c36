//! How numbers of a weight are stored: plain floats, or blocks of integers with scales.
//!
//! Decides what the bytes of each encoding mean, as llama.cpp's `ggml-common.h` lays them out. Never
//! multiplies: [`crate::kernels`] packs blocks into its own layout and works on that.

use half::{bf16, f16};
use std::fmt;
use talka_base::Precision;

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

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bf16 => write!(f, "BF16"),
            other => write!(f, "{other:?}"),
        }
    }
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

    /// Whether a block is integers with scales, rather than one float.
    pub const fn is_quantised(self) -> bool {
        self.block_numbers() > 1
    }

    /// What the economy calls it.
    pub fn precision(self) -> Precision {
        match self {
            Self::F32 => Precision::F32,
            Self::F16 => Precision::F16,
            Self::Bf16 => Precision::Bf16,
            _ => Precision::Int8,
        }
    }

    /// Bits of a code.
    pub(crate) const fn code_bits(self) -> usize {
        match self {
            Self::Q8_0 => 8,
            Self::Q6_K => 6,
            Self::Q5_0 | Self::Q5_1 | Self::Q5_K => 5,
            Self::Q3_K => 3,
            Self::Q2_K => 2,
            _ => 4,
        }
    }

    /// Numbers that share a sub-scale, or the scale if there are none.
    pub(crate) const fn sub_block(self) -> usize {
        match self {
            Self::Q2_K | Self::Q3_K | Self::Q6_K => 16,
            _ => 32,
        }
    }

    /// What is subtracted from a code.
    pub(crate) const fn offset(self) -> i32 {
        match self {
            Self::Q8_0 => 128,
            Self::Q6_K => 32,
            Self::Q5_0 => 16,
            Self::Q4_0 => 8,
            Self::Q3_K => 4,
            _ => 0,
        }
    }

    /// Whether sub-blocks have minima.
    pub(crate) const fn has_min(self) -> bool {
        matches!(self, Self::Q4_1 | Self::Q5_1 | Self::Q2_K | Self::Q4_K | Self::Q5_K)
    }
}

mod blocks;
mod quantise;

pub(crate) use blocks::Block;
pub(crate) use quantise::quantise;

/// Whether every number, or every scale of a block, of `bytes` is finite.
pub(crate) fn is_finite(encoding: Encoding, bytes: &[u8]) -> bool {
    // All bits of the exponent set: infinite, or no number.
    let halves = |bytes: &[u8], exponent: u16| {
        let is = |b: &[u8; 2]| u16::from_le_bytes(*b) & exponent != exponent;
        bytes.as_chunks().0.iter().fold(true, |all, b| all & is(b))
    };
    let of_blocks = |places: &[usize]| {
        let is = |block: &[u8]| places.iter().all(|at| halves(&block[*at..at + 2], F16_EXPONENT));
        bytes.chunks_exact(encoding.block_bytes()).all(is)
    };
    const F16_EXPONENT: u16 = 0x7c00;
    match encoding {
        Encoding::F32 => {
            let is = |b: &[u8; 4]| u32::from_le_bytes(*b) & 0x7f80_0000 != 0x7f80_0000;
            bytes.as_chunks().0.iter().fold(true, |all, b| all & is(b))
        }
        Encoding::F16 => halves(bytes, F16_EXPONENT),
        Encoding::Bf16 => halves(bytes, 0x7f80),
        Encoding::Q8_0 | Encoding::Q4_0 | Encoding::Q5_0 => of_blocks(&[0]),
        Encoding::Q4_1 | Encoding::Q5_1 | Encoding::Q4_K | Encoding::Q5_K => of_blocks(&[0, 2]),
        Encoding::Q2_K => of_blocks(&[80, 82]),
        Encoding::Q3_K => of_blocks(&[108]),
        Encoding::Q6_K => of_blocks(&[208]),
    }
}

/// Widens `bytes`, whole blocks of `encoding`, to as many numbers.
///
/// # Panics
/// If `bytes` are not the blocks of `out.len()` numbers.
pub fn widen(encoding: Encoding, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(encoding.bytes_of(out.len()), Some(bytes.len()), "bytes for {} numbers", out.len());
    fn each<const N: usize>(bytes: &[u8], out: &mut [f32], read: fn([u8; N]) -> f32) {
        for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
            *out = read(*bytes);
        }
    }
    match encoding {
        Encoding::F32 => each(bytes, out, f32::from_le_bytes),
        Encoding::F16 => each(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
        Encoding::Bf16 => each(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
        _ => {
            let mut block = Block::default();
            let blocks = bytes.chunks_exact(encoding.block_bytes());
            for (out, bytes) in out.chunks_exact_mut(encoding.block_numbers()).zip(blocks) {
                block.read(encoding, bytes);
                block.widen(encoding, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    /// `fixtures/quant` holds random blocks and what the `gguf` package of llama.cpp's authors makes of
    /// them.
    #[test]
    fn blocks_mean_what_llama_cpp_says() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/quant");
        for encoding in Encoding::ALL.into_iter().filter(|encoding| encoding.is_quantised()) {
            let read =
                |kind| fs::read(folder.join(format!("{encoding:?}.{kind}"))).expect("a fixture");
            let (blocks, numbers) = (read("blocks"), read("f32"));
            let expected: Vec<f32> =
                numbers.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            let mut found = vec![0.0; expected.len()];
            widen(encoding, &blocks, &mut found);
            for (found, expected) in found.iter().zip(&expected) {
                let error = (found - expected).abs();
                assert!(
                    error <= 1e-6 * expected.abs().max(0.1),
                    "{encoding:?}: {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn bytes_are_counted_in_whole_blocks() {
        assert_eq!(Encoding::Q4_K.bytes_of(512), Some(288));
        assert_eq!(Encoding::Q4_K.bytes_of(100), None);
        assert_eq!(Encoding::Bf16.bytes_of(3), Some(6));
    }
}
