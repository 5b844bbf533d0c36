//! What the benchmark of a machine found.

use serde::{Deserialize, Serialize};
use talka_base::{DeviceKind, HardwareId};

/// What is measured next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenchStep {
    /// For people.
    pub what: String,
    /// Steps that are over.
    pub done: u32,
    /// All of them.
    pub steps: u32,
}

/// A machine, what it does in a second, and what that counts for. Whatever GPUs do changes none of it: the engine computes
/// on processors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HardwareReport {
    /// What did the work.
    pub kind: DeviceKind,
    /// The processor's name.
    pub cpu: String,
    /// Its logical cores.
    pub cores: u32,
    /// Threads that computed.
    pub threads: usize,
    /// The widest instructions that kernels use here.
    pub instructions: String,
    /// Memory of the machine, in bytes.
    pub memory_bytes: u64,
    /// GPUs that were found.
    pub gpus: Vec<GpuReport>,
    /// Equal for equal parts: it tells a changed machine.
    pub fingerprint: HardwareId,
    /// Products of matrices with many rows, by how the weights are held.
    pub products: Vec<ProductReport>,
    /// Floating-point operations a second in products with bf16 weights.
    pub matmul: ScoreReport,
    /// Bytes of memory read in a second.
    pub memory: ScoreReport,
    /// Nanoseconds for a batch of eight tokens through a layer of 16.8 million bf16 weights.
    pub latency: ScoreReport,
    /// Where the machine stands between nothing and one, within what its kind may reach; 0.05 for a processor of which
    /// something could not be measured.
    pub index: f64,
    /// The class at that index.
    pub class: String,
    /// What its work is weighted with when an answer is shared out.
    pub multiplier: f64,
    /// From 1 to 6, the most demanding work first; an estimate that nothing follows from.
    pub tier: u8,
    /// What that tier is for.
    pub tier_work: String,
    /// From 1 to 5, the fastest first: how long that layer takes.
    pub speed: u8,
}

/// Something measured and the scale that it stands on: logarithms from `least`, which scores 0, to `most`, which scores 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ScoreReport {
    /// What was measured; 0 if it could not be.
    pub value: u64,
    /// What scores nothing.
    pub least: u64,
    /// What scores one.
    pub most: u64,
    /// From 0 to 1.
    pub score: Option<f64>,
}

/// Products with weights held in one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProductReport {
    /// Such as `bf16`.
    pub precision: String,
    /// Operations a second, of floating point where the numbers have one; nothing without the memory to try, or if a GPU failed.
    pub flops_per_second: Option<u64>,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuReport {
    /// As its driver names it, or the system where no driver does.
    pub name: String,
    /// Kinds of work and how well a published table says that it does them; empty if it is not in there.
    pub published: Vec<(String, String)>,
    /// What it does in a second, and what that would count for.
    pub measured: Option<GpuRating>,
    /// Why it, or a part of it, was not measured.
    pub lacks: Vec<String>,
}

/// What a GPU does, and what a node would count for whose work it did. No node's does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuRating {
    /// Its kind, and so its scales.
    pub kind: DeviceKind,
    /// Products of square matrices, by what the numbers are.
    pub products: Vec<ProductReport>,
    /// The precision whose products count: the faster one of f16 and f32.
    pub counts: String,
    /// Its operations a second in these.
    pub matmul: ScoreReport,
    /// Bytes of its memory read in a second.
    pub memory: ScoreReport,
    /// Nanoseconds for the batch that a processor is given, from asking until it is known to be done.
    pub latency: ScoreReport,
    /// Where it stands within what its kind may reach.
    pub index: f64,
    /// The class at that index.
    pub class: String,
    /// What the work would be weighted with.
    pub multiplier: f64,
}

/// A GPU that was tried, as whoever can measure one tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuFinding {
    /// As its driver names it.
    pub name: String,
    /// What it is.
    pub kind: DeviceKind,
    /// The PCI numbers of its maker and of itself.
    pub pci: [u32; 2],
    /// Operations a second by precision, such as `f16`.
    pub products: Vec<ProductReport>,
    /// Bytes read in a second; 0 if that was not measured.
    pub memory_bytes: u64,
    /// Nanoseconds for a batch; 0 if that was not measured.
    pub batch_ns: u64,
    /// What could not be measured, and why.
    pub lacks: Vec<String>,
}
