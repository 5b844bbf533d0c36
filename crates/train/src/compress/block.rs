//! How the values of a model are cut into blocks.

use crate::Layout;

/// Values of a full block: what 12 bits can number, and 64 times 64.
pub const BLOCK_LEN: usize = 4096;
/// Rows and columns of a full tile.
const TILE: usize = 64;

/// Which values are a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Runs of 4,096 in the order in which they lie, whatever tensor they are of. Only the last may be shorter.
    Flat,
    /// The same, begun anew with each tensor.
    Tensors,
    /// Tiles of 64 × 64 of each matrix, so that a block has few rows and columns; tensors of one row as with
    /// [`Cut::Tensors`].
    Tiles,
}

/// Some of a model's values, in the order of `0..len`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    start: usize,
    /// Values that lie side by side.
    width: usize,
    /// From one such row to the next.
    stride: usize,
    /// How many values it has: 1 to [`BLOCK_LEN`].
    pub len: usize,
}

impl Block {
    const fn run(start: usize, len: usize) -> Self {
        Self { start, width: len, stride: len, len }
    }

    /// Where value `index` of the block lies.
    pub const fn position(&self, index: usize) -> usize {
        self.start + index / self.width * self.stride + index % self.width
    }

    /// How many of its values are sent when `top` of a full one are: its share, rounded up.
    pub fn kept(&self, top: u16) -> usize {
        (usize::from(top) * self.len).div_ceil(BLOCK_LEN).min(self.len)
    }

    /// Bits that number its values.
    pub const fn index_bits(&self) -> u32 {
        usize::BITS - (self.len - 1).leading_zeros()
    }
}

impl Cut {
    /// In encodings.
    pub const fn number(self) -> u8 {
        match self {
            Self::Flat => 0,
            Self::Tensors => 1,
            Self::Tiles => 2,
        }
    }

    /// All blocks, which hold every value once.
    pub fn blocks(self, layout: &Layout) -> impl Iterator<Item = Block> {
        let whole = (self == Self::Flat).then(|| runs(0, layout.len()));
        let tensors = (self != Self::Flat).then(|| layout.tensors()).into_iter().flatten();
        let parts = tensors.flat_map(move |tensor| {
            let tiled = self == Self::Tiles && tensor.rows > 1;
            let run = (!tiled).then(|| runs(tensor.start, tensor.len()));
            let tiles = tiled.then(|| tiles(tensor.start, tensor.rows, tensor.columns));
            run.into_iter().flatten().chain(tiles.into_iter().flatten())
        });
        whole.into_iter().flatten().chain(parts)
    }
}

fn runs(start: usize, len: usize) -> impl Iterator<Item = Block> {
    (0..len).step_by(BLOCK_LEN).map(move |at| Block::run(start + at, BLOCK_LEN.min(len - at)))
}

fn tiles(start: usize, rows: usize, columns: usize) -> impl Iterator<Item = Block> {
    (0..rows).step_by(TILE).flat_map(move |row| {
        (0..columns).step_by(TILE).map(move |column| {
            let (height, width) = (TILE.min(rows - row), TILE.min(columns - column));
            let start = start + row * columns + column;
            Block { start, width, stride: columns, len: height * width }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_value_is_in_one_block(
            shapes in proptest::collection::vec((1usize..150, 1usize..150), 0..4),
        ) {
            let layout = Layout::new(shapes);
            for cut in [Cut::Flat, Cut::Tensors, Cut::Tiles] {
                let mut seen = vec![0; layout.len()];
                for block in cut.blocks(&layout) {
                    prop_assert!((1..=BLOCK_LEN).contains(&block.len));
                    prop_assert!(block.len <= 1 << block.index_bits());
                    (0..block.len).for_each(|index| seen[block.position(index)] += 1);
                }
                prop_assert!(seen.iter().all(|&times| times == 1), "{:?}", cut);
            }
        }
    }

    #[test]
    fn short_blocks_send_their_share() {
        for (len, kept) in [(4096, 64), (4095, 64), (2048, 32), (65, 2), (64, 1), (1, 1)] {
            assert_eq!(Block::run(0, len).kept(64), kept, "{len}");
        }
        assert_eq!(Block::run(0, 2).kept(u16::MAX), 2);
        assert_eq!(Block::run(0, 4096).index_bits(), 12);
        assert_eq!(Block::run(0, 1).index_bits(), 0);
    }
}
