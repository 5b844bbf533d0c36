//! `cargo xtask bench`: how fast the engine is on this machine, beside llama.cpp, and what cutting a model
//! over nodes costs ([`swarm`]), beside what it costs there ([`rpc`]); what callers cost is [`gateway`]'s, what
//! the ledger takes [`ledger`]'s, who orders it is [`order`]'s, and training beside PyTorch is [`training`]'s.
//!
//! Both run the same GGUF files of random weights, on the same number of threads, in turns, so that a busy
//! neighbour hits both; medians are compared. Random weights because speed does not depend on them, and nothing
//! must be downloaded.
//!
//! llama.cpp comes as the Python package `llama-cpp-python`, compiled on this machine for this
//! machine. Where that fails our own numbers are printed and the missing peer is named.

mod files;
mod gateway;
mod ledger;
mod network;
mod order;
mod peer;
mod rpc;
mod shape;
mod swarm;
mod training;

use crate::cargo::{cargo, target_folder, tool};
use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use serde_json::Value;
use shape::{SHAPES, Shape};
use std::{
    env::consts::EXE_SUFFIX,
    path::{Path, PathBuf},
    process::Command,
};

/// Positions of the prompt; the usual size of a batch in llama.cpp.
const PROMPT: usize = 512;
/// Tokens decoded after it: seconds of work, long enough to average over.
const GENERATED: usize = 64;

/// Measures speed.
#[derive(Parser)]
#[command(name = "cargo xtask bench", no_binary_name = true)]
#[command(after_help = "Example: cargo xtask bench engine --shape 135m")]
struct Arguments {
    /// What to measure; the engine, if absent
    measurement: Option<Measurement>,
    /// Only this shape (135m, 1240m); takes 0.6 and 5 GB of disk under target/bench
    #[arg(long)]
    shape: Option<String>,
    /// Threads for each engine
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Runs of each engine, in turns
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only rows whose name has this in it. `swarm`: loopback, together, prefill, slow-2-20 (stages, ms), rpc-20; `training`:
    /// speed, recipe, average, liars, churn, long-2, long-8, reference
    #[arg(long, value_name = "PART")]
    only: Option<String>,
    /// A Python that has llama-cpp-python (for training: torch and transformers), instead of one set up below target
    #[arg(long, value_name = "PYTHON")]
    peer: Option<PathBuf>,
    /// Do not compare with llama.cpp
    #[arg(long)]
    no_peer: bool,
    /// `order`: print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Measurement {
    /// Prefill and decoding of whole models on the CPU
    Engine,
    /// Decoding of the 135 M model cut over nodes, and over slow links
    Swarm,
    /// What the way over HTTP adds, and what many, vanished and slow callers do; needs wrk
    Gateway,
    /// Vouchers, epochs and finality of the ledger, and its properties in millions of cases
    Ledger,
    /// The ledger ordered by turns, and by commonware's simplex; builds `simplex/`
    Order,
    /// Steps of training beside PyTorch's, nanoGPT's recipe for a CPU, and members that train together
    Training,
}

/// Runs the measurement that the arguments name.
///
/// # Errors
/// If the arguments are wrong, the engine does not build or run, or the disk is full. A missing peer
/// is no error.
pub fn run(arguments: &[String]) -> Result<()> {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(message) => message.exit(),
    };
    ensure!(arguments.rounds > 0, "expected at least one round");
    match arguments.measurement.unwrap_or(Measurement::Engine) {
        Measurement::Engine => engine(&arguments),
        Measurement::Swarm => swarm::run(&arguments),
        Measurement::Gateway => gateway::run(),
        Measurement::Ledger => ledger::run(),
        Measurement::Order => order::run(arguments.rounds, arguments.json),
        Measurement::Training => {
            let (peer, only) = (arguments.peer.as_deref(), arguments.only.as_deref());
            training::run(arguments.threads, arguments.rounds, peer, only)
        }
    }
}

fn engine(arguments: &Arguments) -> Result<()> {
    let shapes = chosen(arguments.shape.as_deref())?;
    let target = target_folder()?;
    let folder = target.join("bench");
    build_engine()?;
    let peer = peer(arguments, &folder);
    let ours = target.join(format!("release/examples/throughput{EXE_SUFFIX}"));
    for shape in shapes {
        let files = files::written(&folder, shape)?;
        let mut table = Table::new(shape, arguments.threads);
        for encoding in ENCODINGS {
            let Some(gguf) = encoded(&files, encoding, &peer)? else { continue };
            let mut engines = vec![Engine::new("talka", our_command(&ours, &gguf, arguments))];
            if let Ok(python) = &peer {
                let command = peer::command(python, &gguf, arguments.threads);
                engines.push(Engine::new("llama.cpp", command));
            }
            measure(encoding, &mut engines, arguments.rounds)?;
            table.add(encoding, &engines)?;
        }
        table.print();
    }
    if let Err(why) = peer {
        println!("\nno comparison with llama.cpp, and no file quantised by it: {why}");
    }
    Ok(())
}

/// The Python that has llama.cpp; else why there is none.
fn peer(arguments: &Arguments, folder: &Path) -> Result<PathBuf, String> {
    match (arguments.no_peer, &arguments.peer) {
        (true, _) => Err("not asked for".into()),
        (false, Some(python)) => peer::given(python),
        (false, None) => peer::built(folder),
    }
}

/// The encodings measured, by llama.cpp's names.
const ENCODINGS: [&str; 3] = ["bf16", "q8_0", "q4_k_m"];

/// The file of a shape in `encoding`: what llama.cpp makes of the bf16 one. `None` without llama.cpp.
fn encoded(
    files: &files::Files,
    encoding: &str,
    peer: &Result<PathBuf, String>,
) -> Result<Option<PathBuf>> {
    if encoding == "bf16" {
        return Ok(Some(files.gguf.clone()));
    }
    let path = files.folder.join(format!("model-{encoding}.gguf"));
    if path.exists() {
        return Ok(Some(path));
    }
    let Ok(python) = peer else { return Ok(None) };
    eprintln!("writing {}", path.display());
    // Complete or absent: an interrupted run leaves the other name behind.
    let partial = files.folder.join(format!("model-{encoding}.partial"));
    let status = peer::quantise(python, &files.gguf, &partial, encoding).status();
    ensure!(status.context("cannot run Python")?.success(), "llama.cpp cannot write {encoding}");
    std::fs::rename(&partial, &path).context("cannot rename the finished file")?;
    Ok(Some(path))
}

fn chosen(name: Option<&str>) -> Result<Vec<&'static Shape>> {
    let chosen: Vec<_> = SHAPES.iter().filter(|s| name.is_none_or(|n| n == s.name)).collect();
    if chosen.is_empty() {
        let known: Vec<_> = SHAPES.iter().map(|shape| shape.name).collect();
        bail!("no shape is called {}, expected one of {}", name.unwrap_or(""), known.join(", "));
    }
    Ok(chosen)
}

fn build_engine() -> Result<()> {
    let arguments = ["build", "--release", "--package", "talka-engine", "--example", "throughput"];
    let status = cargo(&arguments).status().context("cannot run cargo")?;
    ensure!(status.success(), "the engine does not build");
    Ok(())
}

fn our_command(program: &Path, gguf: &Path, arguments: &Arguments) -> Command {
    let mut command = tool(program);
    command.arg(gguf);
    command.args([arguments.threads, PROMPT, GENERATED].map(|number| number.to_string()));
    command
}

/// One of those compared, and what its runs printed.
struct Engine {
    name: &'static str,
    command: Command,
    reports: Vec<Value>,
}

impl Engine {
    fn new(name: &'static str, command: Command) -> Self {
        Self { name, command, reports: Vec::new() }
    }

    fn run_once(&mut self) -> Result<()> {
        let name = self.name;
        let output = self.command.output().with_context(|| format!("cannot run {name}"))?;
        if !output.status.success() {
            bail!("{name} failed:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().last().with_context(|| format!("{name} printed nothing"))?;
        self.reports.push(serde_json::from_str(line).with_context(|| format!("{name}: {line}"))?);
        Ok(())
    }

    /// The median of a number over all runs.
    fn median(&self, field: &str) -> Result<f64> {
        let numbers: Option<Vec<f64>> = self.reports.iter().map(|r| r[field].as_f64()).collect();
        let numbers = numbers.with_context(|| format!("{} reports no {field}", self.name))?;
        median(numbers).with_context(|| format!("{} never ran", self.name))
    }
}

fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let upper = *numbers.get(numbers.len() / 2)?;
    let lower = numbers[(numbers.len() - 1) / 2];
    Some((lower + upper) / 2.0)
}

/// Runs each engine `rounds` times, in turns.
fn measure(encoding: &str, engines: &mut [Engine], rounds: usize) -> Result<()> {
    for round in 1..=rounds {
        for engine in engines.iter_mut() {
            eprintln!("{encoding}, round {round} of {rounds}: {}", engine.name);
            engine.run_once()?;
        }
    }
    Ok(())
}

/// What is measured of both engines: the field of their reports, and its name in the table.
const SPEEDS: [(&str, &str); 3] = [
    ("decode_tokens_per_s", "decode, 1 sequence"),
    ("prefill_tokens_per_s", "prefill 512"),
    ("decode_together_tokens_per_s", "decode, 8 together"),
];

/// The results of one shape.
struct Table {
    title: String,
    rows: Vec<String>,
    notes: Vec<String>,
}

impl Table {
    fn new(shape: &Shape, threads: usize) -> Self {
        let title = format!("{} parameters, {threads} threads, tokens/s, medians", shape.name);
        Self { title, rows: Vec::new(), notes: Vec::new() }
    }

    fn add(&mut self, encoding: &str, engines: &[Engine]) -> Result<()> {
        let ours = &engines[0];
        for (field, name) in SPEEDS {
            let mut row = format!("{encoding:<8} {name:<20}");
            for engine in engines {
                row += &format!(" {:>12.1}", engine.median(field)?);
            }
            if let [ours, peer] = engines {
                row += &format!(" {:>8.2}", ours.median(field)? / peer.median(field)?);
            }
            self.rows.push(row);
        }
        let bandwidth = ours.median("memory_bytes_per_s")?;
        let used = ours.median("bytes_per_token")? * ours.median("decode_tokens_per_s")?;
        self.notes.push(format!(
            "{encoding}: decoding reads weights at {:.1} GB/s, {:.2} of the {:.1} measured; beside a \
             busy process it keeps {:.2} of its fair share; first token {:.2} s after the start; \
             resident {:.0} MB, of which weights and cache {:.0}",
            used / 1e9,
            used / bandwidth,
            bandwidth / 1e9,
            ours.median("fair_share_kept")?,
            ours.median("first_token_s")?,
            ours.median("resident_bytes")? / 1e6,
            ours.median("weight_and_cache_bytes")? / 1e6,
        ));
        Ok(())
    }

    fn print(&self) {
        println!("\n{}", self.title);
        println!("{:<29} {:>12} {:>12} {:>8}", "", "talka", "llama.cpp", "ratio");
        self.rows.iter().chain(&self.notes).for_each(|line| println!("{line}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }

    #[test]
    fn a_shape_is_chosen_by_name() {
        assert_eq!(chosen(None).expect("all").len(), SHAPES.len());
        assert_eq!(chosen(Some("135m")).expect("one").len(), 1);
        let error = chosen(Some("7b")).map(|_| ()).expect_err("unknown");
        assert_eq!(error.to_string(), "no shape is called 7b, expected one of 135m, 1240m");
    }

    #[test]
    fn the_peer_alone_may_be_left_out() {
        let words = ["engine", "--no-peer", "--rounds", "1"];
        let arguments = Arguments::try_parse_from(words).expect("valid");
        assert!(arguments.no_peer && arguments.rounds == 1 && arguments.threads == 2);
        assert!(Arguments::try_parse_from(["warp"]).is_err());
    }
}
