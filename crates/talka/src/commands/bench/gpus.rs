//! The GPUs of `talka bench hardware`: what `engine-gpu` measures, in the words of the report.

use std::fmt::Display;
use talka_engine_gpu::{Effort, Gpu, GpuError, Rates, Which, list};
use talka_node::{
    api::{BenchStep, GpuFinding, ProductReport},
    base::DeviceKind,
};

/// Measures every GPU, and says before each what comes.
///
/// # Errors
/// Why none could even be looked for.
pub fn find(which: Which, mut next: impl FnMut(BenchStep)) -> Result<Vec<GpuFinding>, String> {
    next(BenchStep { what: "drivers of GPUs".into(), done: 0, steps: 1 });
    let gpus = list(which).map_err(|error| format!("drivers of GPUs: {error}"))?;
    let steps = gpus.len() as u32;
    let found = (0..).zip(&gpus).map(|(done, gpu)| {
        next(BenchStep { what: gpu.name.clone(), done, steps });
        let effort = if gpu.kind == DeviceKind::Cpu { Effort::GLANCE } else { Effort::BENCH };
        finding(gpu, gpu.measure(effort))
    });
    Ok(found.collect())
}

fn finding(gpu: &Gpu, measured: Result<Rates, GpuError>) -> GpuFinding {
    let (name, kind, pci) = (gpu.name.clone(), gpu.kind, gpu.pci);
    let nothing = GpuFinding {
        name,
        kind,
        pci,
        products: Vec::new(),
        memory_bytes: 0,
        batch_ns: 0,
        lacks: Vec::new(),
    };
    let rates = match measured {
        Ok(rates) => rates,
        Err(error) => return GpuFinding { lacks: vec![error.to_string()], ..nothing },
    };
    let mut lacks = Vec::new();
    let products = rates.products.into_iter().map(|product| {
        let precision = product.precision.to_string();
        let what = format!("products {precision}");
        ProductReport { precision, flops_per_second: kept(&mut lacks, what, product.operations) }
    });
    let products = products.collect();
    let memory_bytes = kept(&mut lacks, "memory", rates.memory_bytes).unwrap_or_default();
    let batch = kept(&mut lacks, "batch of 8", rates.batch).unwrap_or_default();
    let batch_ns = u64::try_from(batch.as_nanos()).unwrap_or(u64::MAX);
    GpuFinding { products, memory_bytes, batch_ns, lacks, ..nothing }
}

/// What was measured; else why not is in `lacks`.
fn kept<T>(
    lacks: &mut Vec<String>,
    what: impl Display,
    measured: Result<T, GpuError>,
) -> Option<T> {
    measured.map_err(|error| lacks.push(format!("{what}: {error}"))).ok()
}
