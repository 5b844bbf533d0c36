//! Training on this machine, beside PyTorch: the same model, batch and optimiser, in turns, on as many threads; and nanoGPT's
//! recipe for a CPU; and members that train together.

mod together;

use crate::cargo::{cargo, target_folder, tool};
use crate::python::Packages;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    env::consts::EXE_SUFFIX,
    path::{Path, PathBuf},
    process::Command,
};

/// Fixed, so that a ratio means the same next month.
const PEER: Packages<'_> =
    Packages { name: "torch", packages: &["torch==2.9.1", "transformers==4.57.3", "numpy==2.3.5"] };
const SCRIPT: &str = include_str!("training/speed.py");
/// Steps of one run, after two that warm up.
const STEPS: usize = 6;
/// What the recipe must reach, and in how many steps.
const RECIPE_LOSS: f64 = 1.88;
const RECIPE_STEPS: u64 = 2000;
/// The recipe's text, which is not part of the repository.
const TEXT: &str = "../shared/corpora/tinyshakespeare.txt";

/// Prints the tables; only those that have `only` in their names.
///
/// # Errors
/// If our own programs do not build or run, or a loss misses what it must reach.
pub fn run(threads: usize, rounds: usize, peer: Option<&Path>, only: Option<&str>) -> Result<()> {
    let build = ["build", "--release", "--package", "talka-train"];
    let examples = ["--example", "training", "--example", "swarm"];
    ensure!(
        cargo(&[&build[..], &examples].concat()).status()?.success(),
        "talka-train does not build"
    );
    let example = |name: &str| -> Result<PathBuf> {
        Ok(target_folder()?.join(format!("release/examples/{name}{EXE_SUFFIX}")))
    };
    let ours = example("training")?;
    let python = peer.map_or_else(|| PEER.install(), |python| Ok(PathBuf::from(python)));
    let is_wanted = |name: &str| only.is_none_or(|part| name.contains(part));
    if is_wanted("speed") {
        speed(&ours, python.as_deref().ok(), threads, rounds)?;
    }
    if is_wanted("recipe") {
        recipe(&ours, threads)?;
    }
    if let Err(why) = &python {
        println!("\nno comparison with PyTorch: {why}");
    }
    together::run(&example("swarm")?, threads, python.as_deref().ok(), only)
}

fn speed(ours: &Path, python: Option<&Path>, threads: usize, rounds: usize) -> Result<()> {
    println!(
        "15.7 M weights, batches of 8 x 256, {threads} threads, medians of {rounds} runs in turns\n"
    );
    println!("| precision | talka, tokens/s | PyTorch | ratio | talka, MB at most | PyTorch |");
    println!("|---|---|---|---|---|---|");
    for precision in ["f32", "bf16"] {
        let (mut own, mut others) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let mut command = Command::new(ours);
            own.push(measured(command.arg("speed"), precision, threads)?);
            if let Some(python) = python {
                others.push(measured(tool(python).args(["-c", SCRIPT]), precision, threads)?);
            }
        }
        let [speed, memory] = ["tokens_per_s", "peak_bytes"].map(|field| median(&own, field));
        let [peers, peers_memory] =
            ["tokens_per_s", "peak_bytes"].map(|field| median(&others, field));
        println!(
            "| {precision} | {speed:.0} | {peers:.0} | {:.2} | {:.0} | {:.0} |",
            speed / peers,
            memory / 1e6,
            peers_memory / 1e6
        );
    }
    Ok(())
}

fn measured(command: &mut Command, precision: &str, threads: usize) -> Result<Value> {
    answer(command.args([precision, &threads.to_string(), &STEPS.to_string()]))
}

fn answer(command: &mut Command) -> Result<Value> {
    let output = command.output().with_context(|| format!("{command:?} did not start"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let line = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(line.trim()).with_context(|| format!("{command:?} said {line}"))
}

fn median(runs: &[Value], field: &str) -> f64 {
    let mut numbers: Vec<f64> = runs.iter().filter_map(|run| run[field].as_f64()).collect();
    numbers.sort_unstable_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

/// nanoGPT's recipe for a CPU: characters, 4 layers of 128, context 64, batches of 12.
fn recipe(ours: &Path, threads: usize) -> Result<()> {
    if !Path::new(TEXT).exists() {
        println!("\nLEFT OUT: nanoGPT's recipe, for {TEXT} is not there");
        return Ok(());
    }
    println!("\n| recipe | steps | validation loss | must be at most | steps/s |");
    println!("|---|---|---|---|---|");
    let mut losses = Vec::new();
    for precision in ["f32", "bf16"] {
        let mut command = Command::new(ours);
        command.args(["nanogpt", TEXT, &RECIPE_STEPS.to_string(), precision]);
        let report = answer(command.arg(threads.to_string()))?;
        let loss = report["validation_loss"].as_f64().unwrap_or(f64::NAN);
        let speed = report["steps_per_s"].as_f64().unwrap_or(f64::NAN);
        println!(
            "| nanoGPT, {precision} | {RECIPE_STEPS} | {loss:.4} | {RECIPE_LOSS} | {speed:.1} |"
        );
        losses.push(loss);
    }
    ensure!(losses.iter().all(|loss| *loss <= RECIPE_LOSS), "the recipe's loss was missed");
    Ok(())
}
