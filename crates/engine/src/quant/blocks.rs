//! One block of each quantised encoding, brought to a common form.
//!
//! Every encoding says the same with other bits:
//!
//! ```text
//! number[i] = scale · sub_scale[i / sub] · (code[i] − offset) − min · sub_min[i / sub]
//! ```
//!
//! `sub` and `offset` belong to the encoding, the rest to the block. The layouts are those of llama.cpp's
//! `ggml-common.h`; codes come out in the order of the numbers.

use super::Encoding;
use half::f16;

/// A block in the common form.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    /// As many as the encoding has in a block.
    pub codes: [u8; 256],
    /// One per sub-block; 1 where the encoding has none.
    pub sub_scales: [i8; 16],
    /// One per sub-block; 1 where the encoding has none.
    pub sub_mins: [u8; 16],
    pub scale: f16,
    /// Zero where the encoding has none.
    pub min: f16,
}

impl Default for Block {
    fn default() -> Self {
        Self {
            codes: [0; 256],
            sub_scales: [1; 16],
            sub_mins: [1; 16],
            scale: f16::ZERO,
            min: f16::ZERO,
        }
    }
}

impl Block {
    /// Reads a block of `encoding`, which must be a quantised one.
    ///
    /// # Panics
    /// If `bytes` are fewer than the block has.
    #[inline]
    pub fn read(&mut self, encoding: Encoding, bytes: &[u8]) {
        match encoding {
            Encoding::Q8_0 => {
                self.scale = float(bytes, 0);
                // Two's complement plus 128.
                each(&mut self.codes[..32], &bytes[2..], |byte| byte ^ 0x80);
            }
            Encoding::Q4_0 => {
                self.scale = float(bytes, 0);
                self.nibbles(0, 32, &bytes[2..18]);
            }
            Encoding::Q4_1 => {
                self.scale = float(bytes, 0);
                self.min = -float(bytes, 2);
                self.nibbles(0, 32, &bytes[4..20]);
            }
            Encoding::Q5_0 => {
                self.scale = float(bytes, 0);
                self.nibbles(0, 32, &bytes[6..22]);
                self.fifth_bits(&bytes[2..6]);
            }
            Encoding::Q5_1 => {
                self.scale = float(bytes, 0);
                self.min = -float(bytes, 2);
                self.nibbles(0, 32, &bytes[8..24]);
                self.fifth_bits(&bytes[4..8]);
            }
            Encoding::Q2_K => self.q2_k(bytes),
            Encoding::Q3_K => self.q3_k(bytes),
            Encoding::Q4_K => {
                self.scales_of_six_bits(bytes);
                self.nibbles_of_64(&bytes[16..144]);
            }
            Encoding::Q5_K => {
                self.scales_of_six_bits(bytes);
                self.nibbles_of_64(&bytes[48..176]);
                for (sub, codes) in self.codes.chunks_exact_mut(32).enumerate() {
                    for (code, byte) in codes.iter_mut().zip(&bytes[16..48]) {
                        *code |= (byte >> sub & 1) << 4;
                    }
                }
            }
            Encoding::Q6_K => self.q6_k(bytes),
            Encoding::F32 | Encoding::F16 | Encoding::Bf16 => {
                unreachable!("floats do not come in blocks")
            }
        }
    }

    /// The numbers that the block stands for.
    pub fn widen(&self, encoding: Encoding, out: &mut [f32]) {
        let (scale, min) = (self.scale.to_f32(), self.min.to_f32());
        for (sub, out) in out.chunks_mut(encoding.sub_block()).enumerate() {
            let codes = &self.codes[sub * encoding.sub_block()..];
            let scale = scale * f32::from(self.sub_scales[sub]);
            let min = min * f32::from(self.sub_mins[sub]);
            for (out, code) in out.iter_mut().zip(codes) {
                *out = scale * (i32::from(*code) - encoding.offset()) as f32 - min;
            }
        }
    }

    /// Codes from `start` on: the low nibbles of `bytes`, then the high ones, `count` in all.
    fn nibbles(&mut self, start: usize, count: usize, bytes: &[u8]) {
        let (low, high) = self.codes[start..start + count].split_at_mut(count / 2);
        each(low, bytes, |byte| byte & 15);
        each(high, bytes, |byte| byte >> 4);
    }

    /// Every 32 bytes hold 64 codes.
    fn nibbles_of_64(&mut self, bytes: &[u8]) {
        for (part, bytes) in bytes.chunks_exact(32).enumerate() {
            self.nibbles(part * 64, 64, bytes);
        }
    }

    /// Bit `i` of `bits`, a little-endian number, is the highest of code `i`.
    fn fifth_bits(&mut self, bits: &[u8]) {
        for (i, code) in self.codes[..32].iter_mut().enumerate() {
            *code |= (bits[i / 8] >> (i % 8) & 1) << 4;
        }
    }

    /// Scale, minimum and the twelve bytes in which Q4_K and Q5_K keep eight sub-scales and sub-minima of
    /// six bits each.
    fn scales_of_six_bits(&mut self, bytes: &[u8]) {
        self.scale = float(bytes, 0);
        self.min = float(bytes, 2);
        let packed = &bytes[4..16];
        for sub in 0..4 {
            self.sub_scales[sub] = (packed[sub] & 63).cast_signed();
            self.sub_mins[sub] = packed[sub + 4] & 63;
            // The upper two bits of the first four bytes of each kind belong to the later ones.
            let high = packed[sub + 8];
            self.sub_scales[sub + 4] = (high & 15 | packed[sub] >> 6 << 4).cast_signed();
            self.sub_mins[sub + 4] = high >> 4 | packed[sub + 4] >> 6 << 4;
        }
    }

    /// 16 bytes of sub-scales and sub-minima of four bits, 64 of codes, scale and minimum.
    fn q2_k(&mut self, bytes: &[u8]) {
        for (sub, byte) in bytes[..16].iter().enumerate() {
            self.sub_scales[sub] = (byte & 15).cast_signed();
            self.sub_mins[sub] = byte >> 4;
        }
        self.crumbs(&bytes[16..80]);
        self.scale = float(bytes, 80);
        self.min = float(bytes, 82);
    }

    /// 32 bytes of highest bits, 64 of lower ones, twelve of sub-scales of six bits, the scale.
    fn q3_k(&mut self, bytes: &[u8]) {
        self.crumbs(&bytes[32..96]);
        for (part, codes) in self.codes.chunks_exact_mut(32).enumerate() {
            for (code, byte) in codes.iter_mut().zip(&bytes[..32]) {
                *code |= (byte >> part & 1) << 2;
            }
        }
        let packed = &bytes[96..108];
        for sub in 0..16 {
            // Low nibbles in the first eight bytes, pairs of high bits in the last four.
            let low = packed[sub % 8] >> (sub / 8 * 4) & 15;
            let high = packed[8 + sub % 4] >> (sub / 4 * 2) & 3;
            self.sub_scales[sub] = (low | high << 4).cast_signed() - 32;
        }
        self.scale = float(bytes, 108);
    }

    /// Every 32 bytes hold 128 codes of two bits.
    fn crumbs(&mut self, bytes: &[u8]) {
        for (codes, bytes) in self.codes.chunks_exact_mut(128).zip(bytes.chunks_exact(32)) {
            for (part, codes) in codes.chunks_exact_mut(32).enumerate() {
                each(codes, bytes, |byte| byte >> (part * 2) & 3);
            }
        }
    }

    /// 128 bytes of low nibbles, 64 of pairs of high bits, 16 sub-scales, the scale.
    fn q6_k(&mut self, bytes: &[u8]) {
        let halves = bytes[..128].chunks_exact(64).zip(bytes[128..192].chunks_exact(32));
        for (codes, (low, high)) in self.codes.chunks_exact_mut(128).zip(halves) {
            for (part, codes) in codes.chunks_exact_mut(32).enumerate() {
                let low = &low[part % 2 * 32..];
                for ((code, low), high) in codes.iter_mut().zip(low).zip(high) {
                    *code = low >> (part / 2 * 4) & 15 | (high >> (part * 2) & 3) << 4;
                }
            }
        }
        for (scale, byte) in self.sub_scales.iter_mut().zip(&bytes[192..208]) {
            *scale = byte.cast_signed();
        }
        self.scale = float(bytes, 208);
    }
}

fn float(bytes: &[u8], at: usize) -> f16 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn each(codes: &mut [u8], bytes: &[u8], read: impl Fn(u8) -> u8) {
    for (code, byte) in codes.iter_mut().zip(bytes) {
        *code = read(*byte);
    }
}
