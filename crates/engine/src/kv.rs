//! Keys and values of sequences: what a stage remembers between calls.
//!
//! A cache is a table of pages for each layer. Pages come from a [`PagePool`], may be shared with other
//! caches, and are copied before a shared one is written. A layer with a window gives back the pages
//! that no later row can see.

mod pool;
mod prefix;
#[cfg(test)]
mod tests;

use crate::{
    error::StageError,
    kernels::{AttentionRule, AttentionSequence, CacheElement, Kernels, PAGE_POSITIONS, PageShape},
    lora::{Adapted, Adapter},
};
use pool::{PooledPage, Reservation};
use prefix::{EntryId, Parent, Root};
use std::{fmt, ops::Range, sync::Arc};
use talka_base::LayerSpan;

pub use pool::PagePool;

/// How far a cache may be truncated at a time where layers have windows: they keep what positions that
/// far back see. Several times what speculation takes back.
pub const TRUNCATE_POSITIONS_MAX: u32 = 64;

/// What a cache is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheOptions {
    /// Most positions; the model's context if that is less.
    pub positions_max: u32,
    /// What numbers are stored as. By default f32 where the weights are or the model is small, else f16.
    pub element: Option<CacheElement>,
    /// Share the pages of equal prefixes with caches of the same number and adapter.
    /// Takes effect where the cache covers a whole causal model and the pool is the same.
    pub share_prefixes: Option<u64>,
}

/// The positions of one sequence that some layers have seen.
///
/// Made by [`Stage::new_cache`](crate::Stage::new_cache) or
/// [`Stage::new_cache_in`](crate::Stage::new_cache_in).
#[derive(Debug)]
pub struct KvCache {
    span: LayerSpan,
    shape: PageShape,
    positions_max: usize,
    len: usize,
    layers: Vec<LayerPages>,
    sharing: Option<Sharing>,
    adapter: Option<Adapter>,
    pool: PagePool,
    /// Given back after the pages.
    _reservation: Reservation,
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

/// What a stage knows of a cache that it makes.
#[derive(Debug, Clone)]
pub(crate) struct CachePlan {
    pub span: LayerSpan,
    pub shape: PageShape,
    pub positions_max: u32,
    /// Most rows of one pass.
    pub rows_max: usize,
    /// For each layer, how many positions a row sees.
    pub windows: Vec<Option<usize>>,
    /// The stage's number and the namespace, if prefixes are shared.
    pub prefixes: Option<(u64, u64)>,
}

impl CachePlan {
    /// The most that the cache will ever take.
    pub fn bytes_max(&self) -> u64 {
        let whole = (self.positions_max as usize).div_ceil(PAGE_POSITIONS);
        let pages = |window: &Option<usize>| match window {
            None => whole,
            Some(window) => {
                let kept = window + TRUNCATE_POSITIONS_MAX as usize + self.rows_max;
                whole.min(kept.div_ceil(PAGE_POSITIONS) + 1)
            }
        };
        self.windows.iter().map(pages).sum::<usize>() as u64 * self.shape.bytes() as u64
    }
}

/// The pages of one layer, page `i` for positions `i · PAGE_POSITIONS` on.
#[derive(Debug)]
struct LayerPages {
    window: Option<usize>,
    /// Absent before the window.
    pages: Vec<Option<Arc<PooledPage>>>,
}

/// How a cache takes part in sharing.
#[derive(Debug)]
struct Sharing {
    root: Root,
    /// The entries of its first pages.
    chain: Vec<EntryId>,
    /// Its tokens.
    tokens: Vec<u32>,
}

impl Sharing {
    fn parent(&self) -> Parent {
        self.chain.last().map_or(Parent::Root(self.root), |id| Parent::Entry(*id))
    }

    /// The tokens of the page after the chain, once they are all there.
    fn next_page(&self) -> Option<Range<usize>> {
        let start = self.chain.len() * PAGE_POSITIONS;
        let end = start + PAGE_POSITIONS;
        (end <= self.tokens.len()).then_some(start..end)
    }
}

impl KvCache {
    /// # Errors
    /// [`StageError::NoMemory`] if the pool cannot promise what the cache may need.
    pub(crate) fn new(pool: &PagePool, plan: CachePlan) -> Result<Self, StageError> {
        let reservation = pool.reserve(plan.bytes_max())?;
        let layer = |window| LayerPages { window, pages: Vec::new() };
        let root =
            |(stage, namespace)| Root { stage, namespace, adapter: 0, element: plan.shape.element };
        let sharing = plan.prefixes.map(root);
        Ok(Self {
            span: plan.span,
            shape: plan.shape,
            positions_max: plan.positions_max as usize,
            len: 0,
            layers: plan.windows.into_iter().map(layer).collect(),
            sharing: sharing.map(|root| Sharing { root, chain: Vec::new(), tokens: Vec::new() }),
            adapter: None,
            pool: pool.clone(),
            _reservation: reservation,
        })
    }

    /// The layers it belongs to.
    pub fn span(&self) -> LayerSpan {
        self.span
    }

    /// Runs the sequence with `adapter`, of the stage's model, from its first position on.
    ///
    /// # Errors
    /// [`StageError::AdapterTooLate`] if the cache holds positions already: they were computed
    /// otherwise.
    pub fn set_adapter(&mut self, adapter: Option<Adapter>) -> Result<(), StageError> {
        if !self.is_empty() {
            return Err(StageError::AdapterTooLate { len: self.len() });
        }
        if let Some(sharing) = &mut self.sharing {
            sharing.root.adapter = adapter.as_ref().map_or(0, Adapter::number);
        }
        self.adapter = adapter;
        Ok(())
    }

    /// The adapter that the sequence is run with.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref()
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

    /// Pages it holds now, those it shares included.
    pub fn pages(&self) -> usize {
        self.layers.iter().flat_map(|layer| &layer.pages).flatten().count()
    }

    /// Forgets all positions from `len` on. Does nothing if there are none.
    ///
    /// Where layers have windows, more than [`TRUNCATE_POSITIONS_MAX`] positions can be forgotten only
    /// back to the start: anything between, and the next run is refused.
    pub fn truncate(&mut self, len: u32) {
        self.len = self.len.min(len as usize);
        let kept = self.len.div_ceil(PAGE_POSITIONS);
        for layer in &mut self.layers {
            layer.pages.truncate(kept);
        }
        if let Some(sharing) = &mut self.sharing {
            sharing.tokens.truncate(self.len);
            sharing.chain.truncate(self.len / PAGE_POSITIONS);
        }
    }

    /// Takes over the positions of the longest prefix of `tokens`, which follow what the cache holds,
    /// that another cache of the pool has computed, but never the last of them: something is left to
    /// run. Returns how many; 0 where prefixes are not shared. Whole pages only.
    pub fn adopt(&mut self, tokens: &[u32]) -> usize {
        let Some(sharing) = &mut self.sharing else { return 0 };
        if self.len != sharing.chain.len() * PAGE_POSITIONS {
            return 0;
        }
        let room = (self.positions_max - self.len).min(tokens.len().saturating_sub(1));
        let mut prefixes = self.pool.prefixes();
        let before = self.len;
        for tokens in tokens[..room].chunks_exact(PAGE_POSITIONS) {
            let Some((id, pages)) = prefixes.find(sharing.parent(), tokens) else { break };
            for (layer, page) in self.layers.iter_mut().zip(pages) {
                layer.pages.push(Some(Arc::clone(page)));
            }
            sharing.chain.push(id);
            sharing.tokens.extend_from_slice(tokens);
            self.len += PAGE_POSITIONS;
        }
        prefixes.touch(&sharing.chain);
        drop(prefixes);
        self.release();
        self.len - before
    }

    /// What one position takes in `layers` layers, in bytes, where no window ends.
    pub(crate) fn position_bytes(layers: u32, shape: &PageShape) -> u64 {
        u64::from(layers) * (shape.bytes() / PAGE_POSITIONS) as u64
    }

    /// To compare with what a stage needs.
    pub(crate) fn layout(&self) -> CacheLayout {
        let PageShape { kv_heads, head_dim, .. } = self.shape;
        CacheLayout { layers: self.layers.len(), kv_heads, head_dim }
    }

    /// Whether `rows` more positions can be run.
    pub(crate) fn check_room(&self, rows: usize) -> Result<(), StageError> {
        if rows > self.positions_max - self.len {
            let (len, max) = (self.len(), self.positions_max());
            return Err(StageError::CacheFull { len, new: rows, max });
        }
        let lost = |layer: &LayerPages| {
            let first = layer.window.map_or(0, |window| (self.len + 1).saturating_sub(window));
            layer.pages.iter().skip(first / PAGE_POSITIONS).any(Option::is_none)
        };
        if self.layers.iter().any(lost) {
            return Err(StageError::PositionsGone { len: self.len() });
        }
        Ok(())
    }

    /// Makes sure of a page of its own for each of the next `rows` positions in every layer.
    fn make_room(&mut self, rows: usize) {
        let first = self.len / PAGE_POSITIONS;
        let end = (self.len + rows).div_ceil(PAGE_POSITIONS);
        for layer in &mut self.layers {
            if let Some(Some(page)) = layer.pages.get_mut(first)
                && Arc::get_mut(page).is_none()
            {
                *page = self.pool.copy(page);
            }
            while layer.pages.len() < end {
                layer.pages.push(Some(self.pool.take(self.shape)));
            }
        }
    }

    /// Adds to one layer (counted from the span's start) the keys and values of the next positions:
    /// `[T, kv_heads, head_dim]` each. They count only after [`Self::advance`].
    fn write(&mut self, layer: usize, keys: &[f32], values: &[f32]) {
        let width = self.shape.kv_heads * self.shape.head_dim;
        let end = self.len + keys.len() / width;
        let mut position = self.len;
        while position < end {
            let (page, at) = (position / PAGE_POSITIONS, position % PAGE_POSITIONS);
            let rows = (PAGE_POSITIONS - at).min(end - position);
            let range = (position - self.len) * width..(position - self.len + rows) * width;
            let page = self.layers[layer].pages[page].as_mut().and_then(Arc::get_mut);
            let page = page.expect("room was made before the layers ran").page_mut();
            page.write(at, &keys[range.clone()], &values[range]);
            position += rows;
        }
    }

    fn advance(&mut self, rows: usize, tokens: Option<&[u32]>) {
        self.len += rows;
        assert!(self.len <= self.positions_max, "room was checked before the layers ran");
        self.publish(tokens);
        self.release();
    }

    /// Offers full pages to caches with the same prefix, and takes theirs where they were first.
    fn publish(&mut self, tokens: Option<&[u32]>) {
        let Some(sharing) = &mut self.sharing else { return };
        let Some(tokens) = tokens else {
            self.sharing = None;
            return;
        };
        sharing.tokens.extend_from_slice(tokens);
        let mut prefixes = self.pool.prefixes();
        let before = sharing.chain.len();
        while let Some(range) = sharing.next_page() {
            let page = range.start / PAGE_POSITIONS;
            let (parent, tokens) = (sharing.parent(), &sharing.tokens[range]);
            if let Some((id, pages)) = prefixes.find(parent, tokens) {
                for (layer, theirs) in self.layers.iter_mut().zip(pages) {
                    layer.pages[page] = Some(Arc::clone(theirs));
                }
                sharing.chain.push(id);
                continue;
            }
            let pages = self.layers.iter().map(|layer| layer.pages[page].clone()).collect();
            let Some(pages) = pages else { break };
            let Some(id) = prefixes.insert(sharing.root, parent, tokens, pages) else { break };
            sharing.chain.push(id);
        }
        if sharing.chain.len() > before {
            prefixes.touch(&sharing.chain);
        }
    }

    /// Gives back pages that no later row sees.
    fn release(&mut self) {
        for layer in &mut self.layers {
            let Some(window) = layer.window else { continue };
            let kept = window + TRUNCATE_POSITIONS_MAX as usize;
            let gone = (self.len + 1).saturating_sub(kept) / PAGE_POSITIONS;
            // Those before were given back earlier.
            let behind = layer.pages.iter_mut().take(gone).rev();
            behind.take_while(|page| page.is_some()).for_each(|page| *page = None);
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
    /// Their tokens, where the span starts the model.
    tokens: Option<&'a [u32]>,
}

impl<'a> Batch<'a> {
    /// No sequence yet.
    pub fn new() -> Self {
        Self { sequences: Vec::new(), rows: 0 }
    }

    /// Adds `rows` new positions that follow those in `cache`, whose room was checked, with their
    /// tokens where the span starts the model.
    pub fn push(&mut self, cache: &'a mut KvCache, rows: usize, tokens: Option<&'a [u32]>) {
        cache.make_room(rows);
        self.sequences.push(Sequence { cache, rows: self.rows..self.rows + rows, tokens });
        self.rows += rows;
    }

    /// How many rows all sequences have.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Fills `adapted` with the rows that have adapters.
    pub fn adapted(&self, adapted: &mut Adapted) {
        adapted.clear();
        for Sequence { cache, rows, .. } in &self.sequences {
            if let Some(adapter) = &cache.adapter {
                adapted.push(rows.clone(), adapter);
            }
        }
    }

    /// The position of each row in its sequence.
    pub fn positions(&self) -> impl Iterator<Item = u32> {
        self.sequences.iter().flat_map(|s| (s.cache.len()..).take(s.rows.len()))
    }

    /// Adds keys and values `[T, kv_heads, head_dim]` of all rows to layer `layer` (counted from the
    /// span's start) of each cache. They count only after [`Self::advance`].
    pub fn write(&mut self, layer: usize, keys: &[f32], values: &[f32]) {
        for Sequence { cache, rows, .. } in &mut self.sequences {
            let width = cache.shape.kv_heads * cache.shape.head_dim;
            let range = rows.start * width..rows.end * width;
            cache.write(layer, &keys[range.clone()], &values[range]);
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
        // Sequences whose caches store alike go together.
        for group in self.sequences.chunk_by(|a, b| a.cache.shape == b.cache.shape) {
            let Some(shape) = group.first().map(|sequence| sequence.cache.shape) else { return };
            let width = heads * shape.head_dim;
            let rows = group[0].rows.start * width..group[group.len() - 1].rows.end * width;
            let sequences: Vec<_> =
                group.iter().map(|sequence| sequence.attention(layer)).collect();
            kernels.attention(&mut out[rows.clone()], &q[rows], heads, shape, &sequences, rule);
        }
    }

    /// Makes the new positions count.
    pub fn advance(self) {
        for Sequence { cache, rows, tokens } in self.sequences {
            cache.advance(rows.len(), tokens);
        }
    }
}

impl Sequence<'_> {
    fn attention(&self, layer: usize) -> AttentionSequence<'_> {
        let pages = &self.cache.layers[layer].pages;
        AttentionSequence {
            pages: pages.iter().map(|page| page.as_ref().map(|page| &***page)).collect(),
            start: self.cache.len,
            rows: self.rows.len(),
        }
    }
}
