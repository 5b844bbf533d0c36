//! What was measured on GPUs, in the report of a machine. It changes nothing of what the machine counts for.

use super::{gpu_report, score_reports};
use crate::{
    api::{GpuFinding, GpuRating, GpuReport, HardwareReport, decimal},
    shell::machine::numbered,
};
use talka_base::Factor;
use talka_ledger::standing::{HardwareClass, index_of_kind, multiplier};
use talka_plan::hardware::{Rates, scores};

/// Why a GPU that the system names was not found again.
const NO_DRIVER: &str = "no driver for Vulkan or Metal shows it";

/// Puts what was `found` beside the GPUs that the system names, or why nothing could be looked for.
pub(crate) fn rate(report: &mut HardwareReport, found: Result<Vec<GpuFinding>, String>) {
    let named = std::mem::take(&mut report.gpus);
    let (found, why) = match found {
        Ok(found) => (found, NO_DRIVER.into()),
        Err(why) => (Vec::new(), why),
    };
    let mut unseen: Vec<_> =
        named.into_iter().map(|gpu| GpuReport { lacks: vec![why.clone()], ..gpu }).collect();
    for finding in found {
        if let Some(at) = unseen.iter().position(|gpu| is_same(&gpu.name, &finding)) {
            unseen.remove(at);
        }
        report.gpus.push(rated(finding));
    }
    report.gpus.extend(unseen);
}

/// Whether the system means this GPU by `name`.
fn is_same(name: &str, finding: &GpuFinding) -> bool {
    let [vendor, device] = finding.pci.map(|number| format!("{number:#06x}"));
    name == finding.name || numbered(&vendor, &device).is_some_and(|number| number == name)
}

fn rated(finding: GpuFinding) -> GpuReport {
    let GpuFinding { name, kind, products, memory_bytes, batch_ns, lacks, .. } = finding;
    let report = GpuReport { lacks, ..gpu_report(&name) };
    let is_measured = products.iter().any(|product| product.flops_per_second.is_some())
        || memory_bytes > 0
        || batch_ns > 0;
    if !is_measured {
        return report;
    }
    // Models with 16 bits would be computed in whichever is faster.
    let floats = products.iter().filter(|product| ["f16", "f32"].contains(&&*product.precision));
    let counting = floats.max_by_key(|product| product.flops_per_second);
    let matmul_flops = counting.and_then(|product| product.flops_per_second).unwrap_or_default();
    let counts = counting.map(|product| product.precision.clone()).unwrap_or_default();
    let rates = Rates { matmul_flops, memory_bytes, batch_ns };
    let scores = scores(kind, &rates);
    let [matmul, memory, latency] = score_reports(kind, &rates, &scores);
    let index: Factor = index_of_kind(kind, talka_ledger::standing::index(&scores));
    let rating = GpuRating {
        kind,
        products,
        counts,
        matmul,
        memory,
        latency,
        index: decimal(index),
        class: HardwareClass::at(index).name().into(),
        multiplier: decimal(multiplier(index)),
    };
    GpuReport { measured: Some(rating), ..report }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::ProductReport, shell::bench::report, shell::machine::Machine};
    use talka_base::{DeviceKind, Hardware};
    use talka_engine::kernels::{Kernels, ThreadPool};

    fn machine(gpus: &[&str]) -> HardwareReport {
        let gpus: Vec<_> = gpus.iter().map(|&gpu| gpu.into()).collect();
        let hardware = Hardware::new("a processor", 8, &gpus, "linux", "x86_64");
        let machine = Machine { hardware, kind: DeviceKind::Cpu, memory_bytes: 32 << 30 };
        let kernels = Kernels::detect(ThreadPool::new(1));
        report(&machine, &kernels, Vec::new(), &Rates::default())
    }

    fn finding(name: &str, pci: [u32; 2], tera: [Option<u64>; 3]) -> GpuFinding {
        let products = ["f32", "f16", "int8"].into_iter().zip(tera);
        let products = products.map(|(precision, tera)| ProductReport {
            precision: precision.into(),
            flops_per_second: tera.map(|tera| tera * 1_000_000_000_000),
        });
        GpuFinding {
            name: name.into(),
            kind: DeviceKind::DiscreteGpu,
            pci,
            products: products.collect(),
            memory_bytes: 1_008_000_000_000,
            batch_ns: 100_000,
            lacks: Vec::new(),
        }
    }

    /// Goal: a measured GPU is rated within its own kind and the machine is rated as without it.
    #[test]
    fn a_measured_gpu_is_rated_and_changes_no_rating_of_its_machine() {
        let before = machine(&["NVIDIA GeForce RTX 4090"]);
        let mut after = before.clone();
        let card =
            finding("NVIDIA GeForce RTX 4090", [0x10de, 0x2684], [Some(50), Some(49), Some(90)]);
        rate(&mut after, Ok(vec![card]));
        let [gpu] = &after.gpus[..] else { panic!("one GPU: {:?}", after.gpus) };
        assert_eq!(gpu.published[0], ("models below 3 B".into(), "excellent".into()));
        let rating = gpu.measured.as_ref().expect("a rating");
        assert_eq!((rating.counts.as_str(), rating.matmul.value), ("f32", 50_000_000_000_000));
        // log(50/3) / log(800/3), log(1008/80) / log(3350/80), log(500/100) / log(500/10).
        let scores = [&rating.matmul, &rating.memory, &rating.latency].map(|part| part.score);
        assert_eq!(scores, [Some(0.5036), Some(0.6784), Some(0.4114)]);
        assert_eq!((rating.index, rating.class.as_str()), (0.5376, "mid_consumer_gpu"));
        assert!((1.0..2.0).contains(&rating.multiplier), "{rating:?}");
        after.gpus = before.gpus.clone();
        assert_eq!(after, before, "nothing else changed");
    }

    #[test]
    fn every_gpu_is_named_once_and_says_what_it_lacks() {
        let number = "AMD GPU 0x744c";
        let mut report = machine(&[number, number, "NVIDIA GPU 0x2684"]);
        let mut broken =
            finding("AMD Radeon RX 7900 XTX (RADV NAVI31)", [0x1002, 0x744c], [None; 3]);
        (broken.memory_bytes, broken.batch_ns) = (0, 0);
        broken.lacks = vec!["it was lost on the way: reset".into()];
        let works = finding("Intel(R) Arc(tm) A770", [0x8086, 0x56a0], [None, Some(20), None]);
        rate(&mut report, Ok(vec![broken, works]));
        let shown: Vec<_> = report
            .gpus
            .iter()
            .map(|gpu| (gpu.name.as_str(), gpu.measured.is_some(), gpu.lacks.join(", ")))
            .collect();
        let lost = "it was lost on the way: reset";
        assert_eq!(
            shown,
            [
                ("AMD Radeon RX 7900 XTX (RADV NAVI31)", false, lost.into()),
                ("Intel(R) Arc(tm) A770", true, String::new()),
                (number, false, NO_DRIVER.into()),
                ("NVIDIA GPU 0x2684", false, NO_DRIVER.into()),
            ]
        );
        rate(&mut report, Err("it gave no answer in 20 s".into()));
        assert!(report.gpus.iter().all(|gpu| gpu.lacks == ["it gave no answer in 20 s"]));
    }

    #[test]
    fn a_gpu_of_which_a_part_failed_has_no_index() {
        let mut part = finding("a card", [0, 0], [None, None, Some(90)]);
        part.lacks = vec!["products f32: its memory is full".into()];
        let rated = rated(part).measured.expect("what was measured");
        assert_eq!((rated.counts.as_str(), rated.matmul.score), ("f16", None));
        assert_eq!((rated.index, rated.memory.score), (0.15, Some(0.6784)));
    }
}
