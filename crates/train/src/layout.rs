//! Where each tensor lies in the flat vector that updates and merging work on.

/// The tensors of a model in the order in which their values follow each other; each row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    tensors: Vec<Tensor>,
    len: usize,
}

/// One tensor of a [`Layout`]: a matrix, or a vector as a matrix of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tensor {
    /// Position of its first value.
    pub start: usize,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns: the dimension in which neighbours lie side by side.
    pub columns: usize,
}

impl Tensor {
    /// How many values it has.
    pub const fn len(&self) -> usize {
        self.rows * self.columns
    }

    /// Whether it has no value.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Layout {
    /// Tensors of these rows and columns, one after the other.
    ///
    /// # Panics
    /// If there are more values than memory can address: a model like that was never loaded.
    pub fn new(shapes: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let mut len = 0usize;
        let place = |(rows, columns): (usize, usize)| {
            let start = len;
            let values = rows.checked_mul(columns).and_then(|values| len.checked_add(values));
            len = values.expect("a model fits memory");
            Tensor { start, rows, columns }
        };
        let tensors = shapes.into_iter().map(place).collect();
        Self { tensors, len }
    }

    /// The tensors, in order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// How many values there are in all.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no value.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}
