//! The benchmark of a machine: what it measures and how it tells it.

mod gpus;

pub(crate) use gpus::rate as rate_gpus;

use super::{
    gauge::{self, Effort},
    machine::{self, Machine},
};
use crate::api::{BenchStep, GpuReport, HardwareReport, ProductReport, ScoreReport, decimal};
use talka_base::{DeviceKind, Factor, Scores};
use talka_engine::{
    kernels::{Kernels, ThreadPool},
    quant::Encoding,
};
use talka_ledger::standing::Measured;
use talka_plan::hardware::{Rates, Scale, Speed, Tier, gpu, scores};

/// Precisions of weights that are tried; scores go by bf16, which most models are stored in.
const PRECISIONS: [Encoding; 5] =
    [Encoding::F32, Encoding::F16, Encoding::Bf16, Encoding::Q8_0, Encoding::Q4_K];

/// What a node measures when it starts.
pub(crate) fn glance(kernels: &Kernels) -> Rates {
    rates(kernels, Effort::GLANCE, gauge::flops_per_second(kernels, Encoding::Bf16, Effort::GLANCE))
}

fn rates(kernels: &Kernels, effort: Effort, matmul_flops: Option<f64>) -> Rates {
    let batch = gauge::batch_time(kernels, effort);
    Rates {
        matmul_flops: matmul_flops.unwrap_or(0.0) as u64,
        memory_bytes: gauge::bytes_per_second(kernels.pool(), effort) as u64,
        batch_ns: batch.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
    }
}

/// What the ledger is told of a machine with these rates.
pub(crate) fn measured(machine: &Machine, rates: &Rates) -> Measured {
    let kind = machine.kind;
    Measured { kind, scores: scores(kind, rates), hardware: machine.hardware.id() }
}

/// Measures this machine with so many threads, one for each processor if nothing is said, and says before each step what comes.
pub(crate) fn run(threads: Option<usize>, mut next: impl FnMut(BenchStep)) -> HardwareReport {
    let threads = threads.unwrap_or_else(machine::processors);
    let kernels = Kernels::detect(ThreadPool::new(threads));
    let steps = PRECISIONS.len() as u32 + 1;
    let mut products = Vec::with_capacity(PRECISIONS.len());
    for (done, encoding) in (0..).zip(PRECISIONS) {
        next(BenchStep { what: format!("products in {encoding}"), done, steps });
        let flops = gauge::flops_per_second(&kernels, encoding, Effort::BENCH);
        products.push((encoding, flops));
    }
    next(BenchStep { what: "memory and a batch".into(), done: steps - 1, steps });
    let in_bf16 = products.iter().find(|(encoding, _)| *encoding == Encoding::Bf16);
    let rates = rates(&kernels, Effort::BENCH, in_bf16.and_then(|(_, flops)| *flops));
    let products = products.into_iter().map(|(encoding, flops)| ProductReport {
        precision: encoding.to_string().to_lowercase(),
        flops_per_second: flops.map(|flops| flops as u64),
    });
    report(&machine::look(), &kernels, products.collect(), &rates)
}

fn report(
    machine: &Machine,
    kernels: &Kernels,
    products: Vec<ProductReport>,
    rates: &Rates,
) -> HardwareReport {
    let measured = measured(machine, rates);
    let multiplier = measured.multiplier();
    let [matmul, memory, latency] = score_reports(machine.kind, rates, &measured.scores);
    let tier = Tier::of(multiplier, machine.memory_bytes);
    HardwareReport {
        kind: machine.kind,
        cpu: machine.hardware.cpu().into(),
        cores: machine.hardware.cores(),
        threads: kernels.pool().threads(),
        instructions: format!("{:?}", kernels.isa()).to_lowercase(),
        memory_bytes: machine.memory_bytes,
        gpus: machine.hardware.gpus().iter().map(|name| gpu_report(name)).collect(),
        fingerprint: machine.hardware.id(),
        products,
        matmul,
        memory,
        latency,
        index: decimal(measured.index()),
        class: measured.class().name().into(),
        multiplier: decimal(multiplier),
        tier: tier.number(),
        tier_work: tier.work().into(),
        speed: Speed::of(rates.batch_ns / 1_000).number(),
    }
}

/// What was measured, its scales and its scores: products, memory, batch.
fn score_reports(kind: DeviceKind, rates: &Rates, scores: &Scores) -> [ScoreReport; 3] {
    let Scale { least, most } = Scale::of(kind);
    let score = |score: Option<Factor>, value: fn(&Rates) -> u64| ScoreReport {
        value: value(rates),
        least: value(&least),
        most: value(&most),
        score: score.map(decimal),
    };
    [
        score(scores.matmul, |rates| rates.matmul_flops),
        score(scores.memory, |rates| rates.memory_bytes),
        score(scores.latency, |rates| rates.batch_ns),
    ]
}

/// A GPU that is only named.
fn gpu_report(name: &str) -> GpuReport {
    let ratings = gpu(name).into_iter().flat_map(|row| row.ratings());
    let published = ratings.map(|(work, rating)| (work.into(), rating.name().into())).collect();
    let lacks = vec!["this program was built without what measures GPUs".into()];
    GpuReport { name: name.into(), published, measured: None, lacks }
}

#[cfg(test)]
mod tests {
    use super::*;
    use talka_base::Hardware;

    #[test]
    fn a_report_says_what_follows_from_what_was_measured() {
        let gpus = ["NVIDIA GeForce RTX 4070 Ti".into()];
        let hardware = Hardware::new("a processor", 8, &gpus, "linux", "x86_64");
        let machine = Machine { hardware, kind: DeviceKind::Cpu, memory_bytes: 32 << 30 };
        let rates = Rates {
            matmul_flops: 200_000_000_000,
            memory_bytes: 300_000_000_000,
            batch_ns: 20_000_000,
        };
        let kernels = Kernels::detect(ThreadPool::new(1));
        let report = report(&machine, &kernels, Vec::new(), &rates);
        // Half way from 10 GFLOP/s to 4 TFLOP/s, all the memory, the slowest batch: 0.25 + 0.3 + 0.
        let scores = [&report.matmul, &report.memory, &report.latency].map(|part| part.score);
        assert_eq!(scores, [Some(0.5), Some(1.0), Some(0.0)]);
        // 0.55 of the band of processors, which is 0.0500 to 0.1499.
        assert_eq!((report.index, report.class.as_str()), (0.1049, "cpu_only"));
        assert_eq!(report.multiplier, 0.3196);
        assert_eq!((report.tier, report.speed), (6, 2));
        let [gpu] = &report.gpus[..] else { panic!("one GPU") };
        assert_eq!(gpu.published[0], ("models below 3 B".into(), "excellent".into()));

        let unmeasured = Rates { batch_ns: 0, ..rates };
        let report = super::report(&machine, &kernels, Vec::new(), &unmeasured);
        assert_eq!((report.latency.score, report.index), (None, 0.05));
    }
}
