//! A page of a key-value cache: keys and values of one layer at consecutive positions.
//!
//! Keys lie with the position fastest, so that the scores of many positions come out of one register
//! without a sum across its lanes; values lie as they come. Both start on cache lines.

use super::super::math::LANES;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Positions in a page. As many as four of the widest registers hold: a tile of scores.
pub const PAGE_POSITIONS: usize = 64;

/// What the numbers of a cache are stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheElement {
    /// Exact.
    F32,
    /// 11 significant bits. Numbers beyond ±65,504 become that.
    F16,
    /// 8 significant bits and the range of f32.
    Bf16,
}

/// What a page has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageShape {
    /// Heads of keys and of values.
    pub kv_heads: usize,
    /// The width of a head.
    pub head_dim: usize,
    /// What each number is stored as.
    pub element: CacheElement,
}

impl PageShape {
    /// Memory of one page in bytes.
    pub fn bytes(&self) -> usize {
        let size = match self.element {
            CacheElement::F32 => 4,
            CacheElement::F16 | CacheElement::Bf16 => 2,
        };
        self.kv_heads * (self.head_dim + self.value_width()) * PAGE_POSITIONS * size
    }

    /// Numbers from one value to the next: whole registers, so that no kernel has a tail to treat.
    pub(super) fn value_width(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }
}

/// Keys (rotated) and values of one layer at [`PAGE_POSITIONS`] positions.
#[derive(Debug, Clone)]
pub struct Page {
    shape: PageShape,
    numbers: Numbers,
}

#[derive(Debug, Clone)]
enum Numbers {
    F32(Stored<f32>),
    F16(Stored<f16>),
    Bf16(Stored<bf16>),
}

#[derive(Debug, Clone)]
struct Stored<E> {
    /// `[kv_heads, head_dim, PAGE_POSITIONS]`
    keys: Vec<Line<E>>,
    /// `[kv_heads, PAGE_POSITIONS, value_width]`
    values: Vec<Line<E>>,
}

/// Numbers that start on a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line<E>(pub(super) [E; PAGE_POSITIONS]);

/// Lines as the numbers they are.
pub(super) fn numbers<E>(lines: &[Line<E>]) -> &[E] {
    // SAFETY: a line is its array: the size of 64 numbers of 2 or 4 bytes is a multiple of its
    // alignment, so there is no padding.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * PAGE_POSITIONS) }
}

/// Lines as the numbers they are.
pub(super) fn numbers_mut<E>(lines: &mut [Line<E>]) -> &mut [E] {
    let length = lines.len() * PAGE_POSITIONS;
    // SAFETY: as in `numbers`.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), length) }
}

/// A number a page can hold.
pub(super) trait Stores: Copy + Default {
    /// Writes `from` rounded to nearest; lengths are equal.
    fn narrow(to: &mut [Self], from: &[f32]);
    /// Writes `from` exactly; lengths are equal.
    fn widen(to: &mut [f32], from: &[Self]);
}

impl Stores for f32 {
    fn narrow(to: &mut [Self], from: &[f32]) {
        to.copy_from_slice(from);
    }

    fn widen(to: &mut [f32], from: &[Self]) {
        to.copy_from_slice(from);
    }
}

impl Stores for f16 {
    fn narrow(to: &mut [Self], from: &[f32]) {
        to.convert_from_f32_slice(from);
        // An infinite key or value would turn the whole sequence into NaN.
        for (to, from) in to.iter_mut().zip(from) {
            if to.is_infinite() {
                *to = if *from < 0.0 { f16::MIN } else { f16::MAX };
            }
        }
    }

    fn widen(to: &mut [f32], from: &[Self]) {
        from.convert_to_f32_slice(to);
    }
}

impl Stores for bf16 {
    fn narrow(to: &mut [Self], from: &[f32]) {
        to.convert_from_f32_slice(from);
    }

    fn widen(to: &mut [f32], from: &[Self]) {
        from.convert_to_f32_slice(to);
    }
}

/// One head of a page.
pub(super) struct Head<'a, E> {
    /// `[head_dim, PAGE_POSITIONS]`
    pub keys: &'a [E],
    /// `[PAGE_POSITIONS, value_width]`
    pub values: &'a [E],
}

/// One head of a page, whatever it is stored as.
pub(super) enum AnyHead<'a> {
    F32(Head<'a, f32>),
    F16(Head<'a, f16>),
    Bf16(Head<'a, bf16>),
}

impl Page {
    /// A page of zeros.
    pub fn new(shape: PageShape) -> Self {
        let numbers = match shape.element {
            CacheElement::F32 => Numbers::F32(Stored::new(&shape)),
            CacheElement::F16 => Numbers::F16(Stored::new(&shape)),
            CacheElement::Bf16 => Numbers::Bf16(Stored::new(&shape)),
        };
        Self { shape, numbers }
    }

    /// What it has room for.
    pub fn shape(&self) -> PageShape {
        self.shape
    }

    /// Writes `[T, kv_heads, head_dim]` each of `keys` and `values` to the page's positions from `at`
    /// on.
    ///
    /// # Panics
    /// If they are not whole rows, or more than the page has positions left.
    pub fn write(&mut self, at: usize, keys: &[f32], values: &[f32]) {
        let row = self.shape.kv_heads * self.shape.head_dim;
        assert_eq!(keys.len(), values.len(), "as many keys as values");
        assert!(keys.len().is_multiple_of(row), "{} numbers, rows of {row}", keys.len());
        let end = at + keys.len() / row;
        assert!(end <= PAGE_POSITIONS, "positions up to {end} of a page of {PAGE_POSITIONS}");
        match &mut self.numbers {
            Numbers::F32(stored) => stored.write(&self.shape, at, keys, values),
            Numbers::F16(stored) => stored.write(&self.shape, at, keys, values),
            Numbers::Bf16(stored) => stored.write(&self.shape, at, keys, values),
        }
    }

    pub(super) fn head(&self, head: usize) -> AnyHead<'_> {
        match &self.numbers {
            Numbers::F32(stored) => AnyHead::F32(stored.head(&self.shape, head)),
            Numbers::F16(stored) => AnyHead::F16(stored.head(&self.shape, head)),
            Numbers::Bf16(stored) => AnyHead::Bf16(stored.head(&self.shape, head)),
        }
    }
}

impl<E: Stores> Stored<E> {
    fn new(shape: &PageShape) -> Self {
        let line = Line([E::default(); PAGE_POSITIONS]);
        let lines = |width| vec![line; shape.kv_heads * width];
        Self { keys: lines(shape.head_dim), values: lines(shape.value_width()) }
    }

    fn head(&self, shape: &PageShape, head: usize) -> Head<'_, E> {
        let (dim, width) = (shape.head_dim, shape.value_width());
        Head {
            keys: numbers(&self.keys[head * dim..][..dim]),
            values: numbers(&self.values[head * width..][..width]),
        }
    }

    fn write(&mut self, shape: &PageShape, at: usize, keys: &[f32], values: &[f32]) {
        let PageShape { kv_heads, head_dim: dim, .. } = *shape;
        let width = shape.value_width();
        let mut narrow = vec![E::default(); dim];
        let rows = keys.chunks_exact(kv_heads * dim).zip(values.chunks_exact(kv_heads * dim));
        for (position, (key_row, value_row)) in (at..).zip(rows) {
            let heads = key_row.chunks_exact(dim).zip(value_row.chunks_exact(dim));
            for (head, (key, value)) in heads.enumerate() {
                E::narrow(&mut narrow, key);
                let lines = &mut self.keys[head * dim..][..dim];
                for (line, number) in lines.iter_mut().zip(&narrow) {
                    line.0[position] = *number;
                }
                let page = numbers_mut(&mut self.values[head * width..][..width]);
                E::narrow(&mut page[position * width..][..dim], value);
            }
        }
    }
}
