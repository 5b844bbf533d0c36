//! The largest values of each block, in two magnitudes.
//!
//! A block that keeps k values: the mean magnitude of the smaller ⌈k/2⌉ of them, that of the others (both f32), then k
//! times a sign (1 is minus) and an index, the smaller half first, each half by ascending index; zero bits to the end
//! of the byte.

use super::{
    UpdateError,
    bits::{BitReader, BitWriter},
    block::{BLOCK_LEN, Block},
};

/// The two magnitudes.
const MAGNITUDES_BYTES: usize = 8;

/// The length of a block.
pub fn bytes(block: &Block, top: u16) -> usize {
    let bits = block.kept(top) * (1 + block.index_bits() as usize);
    MAGNITUDES_BYTES + bits.div_ceil(8)
}

/// How many of `kept` values have the smaller magnitude.
const fn smaller(kept: usize) -> usize {
    kept.div_ceil(2)
}

/// Writes blocks, with room that is used again for each.
#[derive(Default)]
pub struct Writer {
    /// Magnitude and index of each value of the block.
    ranked: Vec<(f32, u16)>,
}

impl Writer {
    /// Appends a block of `values`, all of them finite. Of equal magnitudes the one with the lower index counts as the larger.
    pub fn write(&mut self, block: &Block, top: u16, values: &[f32], out: &mut Vec<u8>) {
        let kept = block.kept(top);
        self.rank(block, kept, values);
        let (larger, smaller) = self.ranked[..kept].split_at_mut(kept - smaller(kept));
        for half in [&mut *smaller, &mut *larger] {
            half.sort_unstable_by_key(|&(_, index)| index);
            out.extend(mean(half).to_le_bytes());
        }
        let mut bits = BitWriter::new(out);
        for &(_, index) in smaller.iter().chain(&*larger) {
            let negative = values[block.position(index.into())] < 0.0;
            bits.write(u32::from(negative) | u32::from(index) << 1, 1 + block.index_bits());
        }
        bits.finish();
    }

    /// Leaves the `kept` largest magnitudes in front, the larger half of them before the smaller one.
    fn rank(&mut self, block: &Block, kept: usize, values: &[f32]) {
        self.ranked.clear();
        let value = |index: usize| (values[block.position(index)].abs(), index as u16);
        self.ranked.extend((0..block.len).map(value));
        let largest_first =
            |a: &(f32, u16), b: &(f32, u16)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if kept < self.ranked.len() && kept > 0 {
            self.ranked.select_nth_unstable_by(kept - 1, largest_first);
        }
        self.ranked[..kept].sort_unstable_by(largest_first);
    }
}

/// In f64, so that no sum of finite values overflows; zero of nothing.
fn mean(values: &[(f32, u16)]) -> f32 {
    let sum: f64 = values.iter().map(|&(magnitude, _)| f64::from(magnitude)).sum();
    if values.is_empty() { 0.0 } else { (sum / values.len() as f64) as f32 }
}

/// The `len` values that `body`, whose length was checked, says.
pub fn read(
    len: usize,
    blocks: impl Iterator<Item = Block>,
    top: u16,
    mut body: &[u8],
) -> Result<Vec<f32>, UpdateError> {
    let mut values = vec![0.0; len];
    for (number, block) in blocks.enumerate() {
        let (bytes, rest) = body.split_at(bytes(&block, top));
        let malformed = |reason| UpdateError::Malformed { block: number, reason };
        read_block(&block, top, bytes, &mut values).map_err(malformed)?;
        body = rest;
    }
    Ok(values)
}

fn read_block(
    block: &Block,
    top: u16,
    bytes: &[u8],
    values: &mut [f32],
) -> Result<(), &'static str> {
    let (magnitudes, body) = bytes.split_at(MAGNITUDES_BYTES);
    let [low, high] = [0, 4].map(|at| {
        f32::from_le_bytes([
            magnitudes[at],
            magnitudes[at + 1],
            magnitudes[at + 2],
            magnitudes[at + 3],
        ])
    });
    let kept = block.kept(top);
    if !(low.is_finite() && high.is_finite() && low.is_sign_positive() && high.is_sign_positive()) {
        return Err("a magnitude is not a finite number of at least zero");
    }
    if if kept > 1 { low > high } else { high != 0.0 } {
        return Err("the magnitudes are out of order");
    }
    let mut seen = [0u64; BLOCK_LEN / 64];
    let mut bits = BitReader::new(body);
    for (count, magnitude) in [(smaller(kept), low), (kept - smaller(kept), high)] {
        let mut next = 0;
        for _ in 0..count {
            let number = bits.read(1 + block.index_bits());
            let index = (number >> 1) as usize;
            if index < next || index >= block.len {
                return Err("an index is out of order or out of the block");
            }
            next = index + 1;
            let (word, bit) = (&mut seen[index / 64], 1 << (index % 64));
            if *word & bit != 0 {
                return Err("an index stands in both halves");
            }
            *word |= bit;
            values[block.position(index)] = if number & 1 == 1 { -magnitude } else { magnitude };
        }
    }
    if bits.rest_is_zero() { Ok(()) } else { Err("bits after the end") }
}
