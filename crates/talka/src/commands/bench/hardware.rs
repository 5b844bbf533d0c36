//! `talka bench hardware`: how fast this computer and its GPUs are, and what its work counts for when answers are shared out.

use crate::{
    cli::BenchHardwareArgs,
    exit::Exit,
    output::{self, Table},
    progress::Steps,
    quantity::{Size, per_second, show_us},
};
use anyhow::{Context, Result};
use talka_node::api::{GpuRating, GpuReport, HardwareReport, ProductReport, ScoreReport};

/// The precision whose products count for a processor: what most models are stored in.
const COUNTS: &str = "bf16";

pub async fn run(args: BenchHardwareArgs, as_json: bool) -> Result<Exit> {
    let measured = tokio::task::spawn_blocking(move || measure(&args, as_json));
    let report = measured.await.context("the benchmark broke off")?;
    if as_json {
        output::json(&report)?;
        return Ok(Exit::Done);
    }
    output::line(output::shown(&machine(&report)))?;
    output::line("")?;
    let HardwareReport { products, matmul, memory, latency, .. } = &report;
    table(products, COUNTS, [matmul, memory, latency]).print()?;
    output::line("")?;
    for line in standing(&report) {
        output::line(line)?;
    }
    for gpu in &report.gpus {
        output::line("")?;
        show_gpu(gpu)?;
    }
    if !report.gpus.is_empty() {
        output::line("")?;
        output::line(OF_GPUS)?;
    }
    Ok(Exit::Done)
}

/// What people would else expect of them.
const OF_GPUS: &str = "Nodes are rated by their processor, since models run on processors alone: no GPU changes what work counts for here.";

fn measure(args: &BenchHardwareArgs, as_json: bool) -> HardwareReport {
    let steps = Steps::new(as_json);
    let threads = args.threads.map(usize::from);
    let report = talka_node::bench_hardware(threads, |step| steps.show(&step));
    #[cfg(feature = "gpu")]
    let report = {
        let mut report = report;
        let which = match args.software_gpus {
            true => talka_engine_gpu::Which::SoftwareToo,
            false => talka_engine_gpu::Which::Hardware,
        };
        let found = super::gpus::find(which, |step| steps.show(&step));
        talka_node::rate_gpus(&mut report, found);
        report
    };
    report
}

/// What it is.
fn machine(report: &HardwareReport) -> String {
    let HardwareReport { cpu, cores, threads, instructions, .. } = report;
    let cpu = if cpu.is_empty() { "a processor without a name" } else { cpu };
    let memory = Size(report.memory_bytes);
    format!(
        "{cpu}, {cores} processors, {threads} threads computed, {instructions}, {memory} of memory"
    )
}

/// What it is, what it does, and what that would count for.
fn show_gpu(gpu: &GpuReport) -> Result<()> {
    let GpuReport { name, published, measured, lacks } = gpu;
    let kind = measured.as_ref().map(|rating| format!(" ({})", rating.kind)).unwrap_or_default();
    output::line(output::shown(&format!("{name}{kind}")))?;
    if !published.is_empty() {
        let ratings = published.iter().map(|(work, rating)| format!("{work} {rating}"));
        let ratings = ratings.collect::<Vec<_>>().join(", ");
        output::line(format!("  a published table says: {ratings}"))?;
    }
    for lack in lacks {
        output::line(output::shown(&format!("  not measured: {lack}")))?;
    }
    let Some(rating) = measured else { return Ok(()) };
    let GpuRating { products, counts, matmul, memory, latency, index, class, multiplier, .. } =
        rating;
    output::line("")?;
    table(products, counts, [matmul, memory, latency]).print()?;
    output::line("")?;
    let would = format!("index {index:.4}, class {class}: work would count {multiplier:.4} times");
    output::line(would)?;
    Ok(())
}

/// What was measured; the score of products stands beside those in the precision that `counts`.
fn table(
    products: &[ProductReport],
    counts: &str,
    [matmul, memory, latency]: [&ScoreReport; 3],
) -> Table<4> {
    let mut table = Table::new(["WHAT", "MEASURED", "SCALE FROM 0 TO 1", "SCORE"]);
    let [bytes, batch] = [
        |n| per_second(n, "B"),
        |ns: u64| if ns == 0 { String::new() } else { show_us(ns / 1_000) },
    ];
    for ProductReport { precision, flops_per_second } in products {
        // Integers are no floating-point numbers.
        let unit = if precision == "int8" { "OP" } else { "FLOP" };
        let found = flops_per_second.map(|n| per_second(n, unit)).unwrap_or_default();
        let [scale, score] = match precision == counts {
            true => scale(matmul, |n| per_second(n, "FLOP")),
            false => Default::default(),
        };
        table.row([format!("products {precision}"), found, scale, score]);
    }
    for (what, part, show) in [("memory", memory, bytes), ("batch of 8", latency, batch)] {
        let [scale, score] = scale(part, show);
        table.row([what.into(), show(part.value), scale, score]);
    }
    table
}

fn scale(part: &ScoreReport, show: fn(u64) -> String) -> [String; 2] {
    let score = part.score.map_or("not measured".into(), |score| format!("{score:.4}"));
    [format!("{} to {}", show(part.least), show(part.most)), score]
}

/// What follows.
fn standing(report: &HardwareReport) -> [String; 3] {
    let HardwareReport { index, class, multiplier, tier, tier_work, speed, fingerprint, .. } =
        report;
    [
        format!("index {index:.4}, class {class}: work counts {multiplier:.4} times"),
        format!("tier {tier} of 6 ({tier_work}), speed {speed} of 5"),
        format!("fingerprint {fingerprint}"),
    ]
}
