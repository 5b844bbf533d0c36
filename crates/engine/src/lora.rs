//! Low-rank adapters (LoRA, Hu et al. 2021) in the layout of the PEFT library, beside the base model's
//! weights and never merged into them: several can be resident, and each sequence of a batch has its
//! own or none.
//!
//! For the rows of sequences with an adapter, a linear map returns `x·Wᵀ + scale · (x·Aᵀ)·Bᵀ`, with `A`
//! `[rank, K]` and `B` `[N, rank]`. `x·Wᵀ` is computed for all rows of the batch together. A row's bits
//! depend on its own inputs and its own adapter alone.
//!
//! Decides what an `adapter_config.json` means and whether an adapter belongs to a model: every tensor
//! must have a place there, of its shape. What changes more than linear maps of layers (biases, DoRA,
//! saved modules, embeddings, experts) is refused by name.

mod read;

use crate::{
    arch::{Architecture, LayerPart},
    config::ConfigError,
    kernels::{Kernels, Matrix, MatrixError},
};
use std::{
    collections::BTreeMap,
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use talka_base::AdapterId;

/// Why an adapter was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in the messages")]
pub enum AdapterError {
    /// The operating system refused.
    #[error("cannot read {file} of the adapter: {source}")]
    Read { file: String, source: std::io::Error },
    /// Not an adapter in PEFT's layout.
    #[error("{place} has no {file}; expected adapter_config.json and adapter_model.safetensors")]
    MissingFile { file: String, place: String },
    /// No published adapter comes near this size.
    #[error("{file} is larger than {max} bytes, the most such a file may have")]
    FileTooLarge { file: String, max: u64 },
    /// The configuration is no JSON object.
    #[error("{file} does not parse: {source}")]
    Json { file: String, source: serde_json::Error },
    /// The configuration is wrong or asks for what is not computed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The header is not one, or does not describe this file.
    #[error("{file} is truncated or no safetensors file: {source}; download it again")]
    Header { file: String, source: safetensors::SafeTensorError },
    /// A tensor that the model has no place for.
    #[error(
        "the adapter changes {tensor}, which is no linear map of a layer of this model: it was made \
         for another base model{base}, or changes what adapters cannot change here"
    )]
    NoPlace { tensor: String, base: String },
    /// One of two matrices.
    #[error("the adapter lacks {tensor}, which belongs to another of its tensors")]
    Missing { tensor: String },
    /// A matrix of another model.
    #[error(
        "the adapter's {tensor} has shape {found:?}, expected {expected:?}: it was made for another \
         base model{base}"
    )]
    Shape { tensor: String, found: Vec<usize>, expected: Vec<usize>, base: String },
    /// A type that no kernel reads.
    #[error("the adapter's {tensor} is stored as {found}, expected F32, F16 or BF16")]
    Type { tensor: String, found: String },
    /// A damaged file.
    #[error("the adapter's {tensor} holds a number that is infinite or none")]
    NotFinite { tensor: String },
    /// A tensor cannot be held.
    #[error("the adapter's {tensor}: {source}")]
    Matrix { tensor: String, source: MatrixError },
    /// It changes nothing.
    #[error("the adapter holds no tensors")]
    Empty,
}

/// A low-rank change of a model's linear maps. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Adapter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Tells it from other adapters of this process; never 0.
    number: u64,
    id: AdapterId,
    name: String,
    warning: Option<String>,
    /// That of the model it was loaded for.
    architecture: Arc<Architecture>,
    /// For each layer.
    layers: Vec<BTreeMap<LayerPart, LowRank>>,
}

/// The change of one linear map.
#[derive(Debug)]
struct LowRank {
    down: Matrix, // A, [rank, K]
    up: Matrix,   // B, [N, rank]
    scale: f32,
}

impl Adapter {
    /// Reads an adapter of the model with `architecture`, called `base`.
    pub(crate) fn open(
        folder: &Path,
        architecture: &Arc<Architecture>,
        base: &str,
        kernels: &Kernels,
    ) -> Result<Self, AdapterError> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let read::Read { id, name, warning, layers } =
            read::read(folder, architecture, base, kernels)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let architecture = Arc::clone(architecture);
        Ok(Self(Arc::new(Inner { number, id, name, warning, architecture, layers })))
    }

    /// The same on every node that has these files.
    pub fn id(&self) -> AdapterId {
        self.0.id
    }

    /// The name of its folder.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Tells it from other adapters of this process; never 0. Caches of equal numbers may share
    /// prefixes.
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// What speaks against it though it fits: it says that it was made for a model of another name.
    pub fn warning(&self) -> Option<&str> {
        self.0.warning.as_deref()
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        let changes = self.0.layers.iter().flat_map(BTreeMap::values);
        changes.map(|change| change.down.bytes() + change.up.bytes()).sum()
    }

    /// Whether it was loaded for the model with this architecture.
    pub(crate) fn belongs_to(&self, architecture: &Arc<Architecture>) -> bool {
        Arc::ptr_eq(&self.0.architecture, architecture)
    }
}

/// Which rows of a batch have which adapter, in the order of the rows, on their way through a layer.
#[derive(Debug, Default)]
pub(crate) struct Adapted {
    rows: Vec<(Range<usize>, Adapter)>,
    layer: usize,
}

impl Adapted {
    pub fn clear(&mut self) {
        self.rows.clear();
    }

    /// The rows come to layer `layer`.
    pub fn set_layer(&mut self, layer: u32) {
        self.layer = layer as usize;
    }

    /// Adds the next rows that have an adapter. Neighbours with the same one are changed together.
    pub fn push(&mut self, rows: Range<usize>, adapter: &Adapter) {
        match self.rows.last_mut() {
            Some((last, same)) if last.end == rows.start && same.number() == adapter.number() => {
                last.end = rows.end;
            }
            _ => self.rows.push((rows, adapter.clone())),
        }
    }

    /// Adds to `out` `[T, N]`, what the layer's linear map `part` makes of `x` `[T, K]`, what the
    /// adapters of the rows change.
    pub fn change(&self, kernels: &Kernels, part: LayerPart, out: &mut [f32], x: &[f32]) {
        for (rows, adapter) in &self.rows {
            let Some(change) = adapter.0.layers[self.layer].get(&part) else { continue };
            let LowRank { down, up, scale } = change;
            let (inputs, outputs) = (down.cols(), up.rows());
            let mut inner = vec![0.0; rows.len() * down.rows()];
            kernels.matmul(&mut inner, &x[rows.start * inputs..rows.end * inputs], down);
            inner.iter_mut().for_each(|x| *x *= scale);
            kernels.matmul_add(&mut out[rows.start * outputs..rows.end * outputs], &inner, up);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kernels::ThreadPool, quant::Encoding};
    use serde_json::json;
    use talka_base::{Precision, rng::Rng};

    fn numbers(seed: u64, length: usize) -> Vec<f32> {
        let mut rng = Rng::new(seed);
        (0..length).map(|_| (rng.next_u64() >> 40) as f32 / (1_u64 << 23) as f32 - 1.0).collect()
    }

    fn matrix(kernels: &Kernels, seed: u64, shape: [usize; 2]) -> Matrix {
        let numbers = numbers(seed, shape[0] * shape[1]);
        let bytes: Vec<u8> = numbers.into_iter().flat_map(f32::to_le_bytes).collect();
        Matrix::pack(kernels.pool(), Encoding::F32, shape, &bytes).expect("a matrix")
    }

    /// An adapter of one linear map `[N, K]` of a model of one layer.
    fn adapter(kernels: &Kernels, number: u64, [n, k]: [usize; 2]) -> Adapter {
        let config = json!({"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2,
            "num_hidden_layers": 1, "intermediate_size": 8, "vocab_size": 8});
        let config = config.as_object().expect("an object");
        let architecture = Architecture::read(config, Precision::F32).expect("a llama");
        let (down, up) = (matrix(kernels, number, [3, k]), matrix(kernels, number + 99, [n, 3]));
        let change = LowRank { down, up, scale: 0.5 };
        Adapter(Arc::new(Inner {
            number,
            id: AdapterId([0; 32]),
            name: String::new(),
            warning: None,
            architecture: Arc::new(architecture),
            layers: vec![BTreeMap::from([(LayerPart::Query, change)])],
        }))
    }

    /// Rows of several adapters, of none, and neighbours of one: each row's bits are those it has alone.
    #[test]
    fn no_row_is_changed_by_its_company() {
        let kernels = Kernels::detect(ThreadPool::new(2));
        let (n, k) = (21, 37);
        let adapters = [adapter(&kernels, 1, [n, k]), adapter(&kernels, 2, [n, k])];
        let rows =
            [(0..3, Some(0)), (3..4, None), (4..9, Some(1)), (9..30, Some(1)), (30..31, Some(0))];
        let (x, base) = (numbers(7, 31 * k), numbers(8, 31 * n));
        let mut together = base.clone();
        let mut adapted = Adapted::default();
        for (rows, adapter) in &rows {
            if let Some(adapter) = adapter {
                adapted.push(rows.clone(), &adapters[*adapter]);
            }
        }
        assert_eq!(adapted.rows.len(), 3, "neighbours are one");
        adapted.change(&kernels, LayerPart::Query, &mut together, &x);
        for (rows, adapter) in rows {
            for row in rows {
                let (x, out) = (&x[row * k..][..k], row * n..(row + 1) * n);
                let mut alone = base[out.clone()].to_vec();
                let mut adapted = Adapted::default();
                if let Some(adapter) = adapter {
                    adapted.push(0..1, &adapters[adapter]);
                }
                adapted.change(&kernels, LayerPart::Query, &mut alone, x);
                assert!(alone == together[out], "row {row}");
            }
        }
        let mut other = base.clone();
        adapted.change(&kernels, LayerPart::Key, &mut other, &x);
        assert!(other == base, "no change of this map");
    }
}
