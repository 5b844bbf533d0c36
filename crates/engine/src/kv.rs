//! Keys and values of one sequence: what a stage remembers between calls.

use crate::kernels::{AttentionCache, AttentionRule, Kernels};
use std::{fmt, ops::Range};
use talka_base::{LayerSpan, ModelShape};

/// The positions of one sequence that some layers have seen.
///
/// Memory is taken as positions fill it, up to `2 × kv_heads × head_dim × 4` bytes per position and
/// layer. Made by [`Stage::new_cache`](crate::Stage::new_cache).
#[derive(Debug)]
pub struct KvCache {
    span: LayerSpan,
    kv_heads: usize,
    head_dim: usize,
    positions_max: usize,
    len: usize,
    layers: Vec<LayerCache>,
}

/// What a cache has room for at one position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLayout {
    pub(crate) layers: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
}

impl fmt::Display for CacheLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layers, kv_heads, head_dim } = self;
        write!(f, "{layers} layers of {kv_heads} heads of {head_dim}")
    }
}

/// Keys (rotated) and values of one layer, each `[kv_heads, positions_max, head_dim]`.
#[derive(Debug)]
struct LayerCache {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl KvCache {
    /// Room for `layers` of the layers of `span`.
    pub(crate) fn new(span: LayerSpan, layers: u32, shape: &ModelShape, positions: u32) -> Self {
        let [kv_heads, head_dim, positions_max] =
            [shape.kv_heads, shape.head_dim, positions].map(|n| n as usize);
        let numbers = kv_heads * positions_max * head_dim;
        // Zeroed memory of this size is not touched, hence not taken, before it is written.
        let layer = |_| LayerCache { keys: vec![0.0; numbers], values: vec![0.0; numbers] };
        let layers = (0..layers).map(layer).collect();
        Self { span, kv_heads, head_dim, positions_max, len: 0, layers }
    }

    /// What one position takes in all layers of a model, in bytes.
    pub(crate) fn position_bytes(shape: &ModelShape) -> u64 {
        let numbers = [shape.layers, shape.kv_heads, shape.head_dim].map(u64::from);
        numbers.iter().product::<u64>() * 2 * size_of::<f32>() as u64
    }

    /// The layers it belongs to.
    pub fn span(&self) -> LayerSpan {
        self.span
    }

    /// How many positions it holds.
    pub fn len(&self) -> u32 {
        self.len as u32
    }

    /// Whether it holds no position yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many positions it has room for.
    pub fn positions_max(&self) -> u32 {
        self.positions_max as u32
    }

    /// Forgets all positions from `len` on. Does nothing if there are none.
    pub fn truncate(&mut self, len: u32) {
        self.len = self.len.min(len as usize);
    }

    /// To compare with what a stage needs.
    pub(crate) fn layout(&self) -> CacheLayout {
        let Self { kv_heads, head_dim, .. } = *self;
        CacheLayout { layers: self.layers.len(), kv_heads, head_dim }
    }

    /// Adds to one layer (counted from the span's start) the keys and values of positions `start`
    /// on: `[T, kv_heads, head_dim]` each. They count only after [`Self::advance`].
    fn write(&mut self, layer: usize, start: usize, keys: &[f32], values: &[f32]) {
        let (dim, max) = (self.head_dim, self.positions_max);
        let width = self.kv_heads * dim;
        let cache = &mut self.layers[layer];
        let rows = keys.chunks_exact(width).zip(values.chunks_exact(width));
        for (position, (key_row, value_row)) in (start..).zip(rows) {
            let heads = key_row.chunks_exact(dim).zip(value_row.chunks_exact(dim));
            for (head, (key, value)) in heads.enumerate() {
                let place = (head * max + position) * dim;
                cache.keys[place..place + dim].copy_from_slice(key);
                cache.values[place..place + dim].copy_from_slice(value);
            }
        }
    }

    fn advance(&mut self, positions: usize) {
        self.len += positions;
        assert!(self.len <= self.positions_max, "room was checked before the layers ran");
    }

    fn attention(&self, layer: usize) -> AttentionCache<'_> {
        let LayerCache { keys, values } = &self.layers[layer];
        AttentionCache {
            keys,
            values,
            kv_heads: self.kv_heads,
            positions_max: self.positions_max,
            head_dim: self.head_dim,
        }
    }
}

/// Sequences that go through the layers together: their rows lie one after the other.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    sequences: Vec<Sequence<'a>>,
    rows: usize,
}

#[derive(Debug)]
struct Sequence<'a> {
    cache: &'a mut KvCache,
    /// Of all rows of the batch, those that are new positions of this sequence.
    rows: Range<usize>,
}

impl<'a> Batch<'a> {
    /// No sequence yet.
    pub fn new() -> Self {
        Self { sequences: Vec::new(), rows: 0 }
    }

    /// Adds `rows` new positions that follow those in `cache`.
    pub fn push(&mut self, cache: &'a mut KvCache, rows: usize) {
        self.sequences.push(Sequence { cache, rows: self.rows..self.rows + rows });
        self.rows += rows;
    }

    /// How many rows all sequences have.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The position of each row in its sequence.
    pub fn positions(&self) -> impl Iterator<Item = u32> {
        self.sequences.iter().flat_map(|s| (s.cache.len()..).take(s.rows.len()))
    }

    /// Adds keys and values `[T, kv_heads, head_dim]` of all rows to layer `layer` (counted from the
    /// span's start) of each cache. They count only after [`Self::advance`].
    pub fn write(&mut self, layer: usize, keys: &[f32], values: &[f32]) {
        for Sequence { cache, rows } in &mut self.sequences {
            let width = cache.kv_heads * cache.head_dim;
            let range = rows.start * width..rows.end * width;
            let start = cache.len;
            cache.write(layer, start, &keys[range.clone()], &values[range]);
        }
    }

    /// Attention of all rows, `q` and `out` `[T, heads, head_dim]`, each over its own sequence.
    pub fn attend(
        &self,
        kernels: &Kernels,
        layer: usize,
        out: &mut [f32],
        q: &[f32],
        heads: usize,
        rule: &AttentionRule,
    ) {
        for Sequence { cache, rows } in &self.sequences {
            let width = heads * cache.head_dim;
            let range = rows.start * width..rows.end * width;
            let seen = cache.attention(layer);
            kernels.attention(&mut out[range.clone()], &q[range], seen, heads, cache.len, rule);
        }
    }

    /// Makes the new positions count.
    pub fn advance(self) {
        for Sequence { cache, rows } in self.sequences {
            cache.advance(rows.len());
        }
    }
}
