//! `talka bench hardware`: how fast this computer is, and what its work counts for when answers are shared out.

use crate::{
    cli::BenchHardwareArgs,
    exit::Exit,
    output::{self, Table},
    progress::Steps,
    quantity::{Size, per_second, show_us},
};
use anyhow::{Context, Result};
use talka_node::api::{GpuReport, HardwareReport, ScoreReport};

pub async fn run(args: BenchHardwareArgs, as_json: bool) -> Result<Exit> {
    let threads = args.threads.map(usize::from);
    let measured = tokio::task::spawn_blocking(move || {
        let steps = Steps::new(as_json);
        talka_node::bench_hardware(threads, |step| steps.show(&step))
    });
    let report = measured.await.context("the benchmark broke off")?;
    if as_json {
        output::json(&report)?;
        return Ok(Exit::Done);
    }
    for line in machine(&report) {
        output::line(output::shown(&line))?;
    }
    output::line("")?;
    table(&report).print()?;
    output::line("")?;
    for line in standing(&report) {
        output::line(line)?;
    }
    Ok(Exit::Done)
}

/// What it is.
fn machine(report: &HardwareReport) -> Vec<String> {
    let HardwareReport { cpu, cores, threads, instructions, .. } = report;
    let cpu = if cpu.is_empty() { "a processor without a name" } else { cpu };
    let memory = Size(report.memory_bytes);
    let mut lines = vec![format!(
        "{cpu}, {cores} processors, {threads} threads computed, {instructions}, {memory} of memory"
    )];
    lines.extend(report.gpus.iter().flat_map(gpu));
    lines
}

fn gpu(gpu: &GpuReport) -> Vec<String> {
    let name = &gpu.name;
    let mut lines =
        vec![format!("{name}: found and not measured, since models run on processors here")];
    if !gpu.published.is_empty() {
        let ratings = gpu.published.iter().map(|(work, rating)| format!("{work} {rating}"));
        lines.push(format!("  a published table says: {}", ratings.collect::<Vec<_>>().join(", ")));
    }
    lines
}

fn table(report: &HardwareReport) -> Table<4> {
    let mut table = Table::new(["WHAT", "MEASURED", "SCALE FROM 0 TO 1", "SCORE"]);
    let [flops, bytes, batch] = [
        |n| per_second(n, "FLOP"),
        |n| per_second(n, "B"),
        |ns: u64| if ns == 0 { String::new() } else { show_us(ns / 1_000) },
    ];
    for product in &report.products {
        let what = format!("products {}", product.precision);
        let found = product.flops_per_second.map(flops).unwrap_or_default();
        let [scale, score] = match product.precision.as_str() {
            "bf16" => scale(&report.matmul, flops),
            _ => Default::default(),
        };
        table.row([what, found, scale, score]);
    }
    for (what, part, show) in
        [("memory", &report.memory, bytes), ("batch of 8", &report.latency, batch)]
    {
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
