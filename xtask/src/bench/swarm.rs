//! `cargo xtask bench swarm`: what it costs to cut a model over nodes, and over slow links.
//!
//! Every number stands beside what it could be at best, measured in turns in the same run: the same model whole,
//! what links take at least, or llama.cpp over the same link. Of random text next to nothing can be guessed ahead,
//! of one token again and again all: what lies between is text of people. Where tokens are drawn by chance from
//! the whole vocabulary, all logits travel; else the likeliest do.

use super::{
    Arguments, files, median,
    network::{Line, Network, World},
    peer, rpc,
    shape::SHAPES,
};
use crate::cargo::{cargo, target_folder};
use anyhow::{Context, Result, ensure};
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

/// Positions of each prompt, and tokens decoded behind it.
pub const PROMPT: usize = 16;
pub const GENERATED: usize = 48;
/// Positions of a long prompt.
const PROMPT_LONG: u32 = 2_048;
/// The rate of a slow link: 100 Mbit/s.
const BYTES_PER_S: u64 = 12_500_000;
/// Round trips between nodes, in milliseconds.
const ROUND_TRIPS_MS: [u32; 3] = [20, 50, 100];
/// Those of the comparison with llama.cpp.
const RPC_ROUND_TRIPS_MS: [u32; 2] = [20, 50];
/// Sequences that are answered together.
const TOGETHER: u32 = 8;

/// Builds what is measured, measures, prints the table.
///
/// # Errors
/// If something does not build or run. A missing peer is no error.
pub fn run(arguments: &Arguments) -> Result<()> {
    // In one go: alone, each would be built with other features of what both need.
    let programs = ["build", "--release", "--package", "talka", "--package", "talka-sim"];
    ensure!(cargo(&programs).status()?.success(), "Talka does not build");
    let target = target_folder()?;
    let shape = &SHAPES[0];
    let bench = target.join("bench");
    let files = files::written(&bench, shape)?;
    let python = peer(arguments, &bench).and_then(rpc::supported);
    let world = World {
        programs: target.join("release"),
        shape,
        model: files.folder,
        place: bench.join("swarm"),
    };
    println!("{} parameters, bf16, {} rounds, medians", shape.name, arguments.rounds);
    println!("{:<52} {:>9} {:>9} {:>7}", "", "found", "against", "ratio");
    let rows = Rows { world: &world, arguments };
    let is_wanted = |name: &str| arguments.only.as_ref().is_none_or(|part| name.contains(part));
    if is_wanted("loopback") {
        rows.loopback()?;
    }
    if is_wanted("together") {
        rows.together()?;
    }
    if is_wanted("prefill") {
        rows.prefill()?;
    }
    for stages in 2..=4 {
        for round_trip in ROUND_TRIPS_MS {
            if is_wanted(&format!("slow-{stages}-{round_trip}")) {
                rows.slow(stages, round_trip)?;
            }
        }
    }
    match python {
        Ok(python) => {
            for round_trip in RPC_ROUND_TRIPS_MS {
                if is_wanted(&format!("rpc-{round_trip}")) {
                    rows.against_rpc((&python, &files.gguf), round_trip)?;
                }
            }
        }
        Err(why) => println!("\nno comparison with llama.cpp's RPC back end: {why}"),
    }
    Ok(())
}

fn row(name: &str, found: f64, against: f64) {
    println!("{name:<52} {found:>9.1} {against:>9.1} {:>7.2}", found / against);
}

/// What is asked for.
#[derive(Clone, Copy)]
struct Question {
    prompt: u32,
    tokens: u32,
    text: &'static str,
    guesses: bool,
    together: u32,
}

/// One sequence, nothing guessed.
const PLAIN: Question = Question {
    prompt: PROMPT as u32,
    tokens: GENERATED as u32,
    text: "likeliest",
    guesses: false,
    together: 1,
};
const REPEATING: Question = Question { text: "repeating", guesses: true, ..PLAIN };
const RANDOM: Question = Question { text: "random", ..PLAIN };
const RANDOM_GUESSING: Question = Question { guesses: true, ..RANDOM };

/// Tokens per second, of all sequences together.
struct Speed {
    prefill: f64,
    decode: f64,
}

fn ask(network: &Network, question: Question) -> Result<Speed> {
    let Question { prompt, tokens, together, .. } = question;
    let [prompt, tokens, together] = [prompt, tokens, together].map(|number| number.to_string());
    let mut flags = vec!["bench", "model", "--prompt", &prompt, "--tokens", &tokens];
    flags.extend(["--together", &together, "--text", question.text]);
    flags.extend((!question.guesses).then_some("--no-guesses"));
    let report = network.ask(0, &flags)?;
    let speed = |name| report[name].as_f64().with_context(|| format!("bench reports no {name}"));
    Ok(Speed { prefill: speed("prefill_tokens_per_s")?, decode: speed("decode_tokens_per_s")? })
}

struct Rows<'a> {
    world: &'a World,
    arguments: &'a Arguments,
}

impl Rows<'_> {
    /// The medians of measurements that are made in turns.
    fn in_turns<const N: usize>(
        &self,
        measurements: [&mut dyn FnMut() -> Result<f64>; N],
    ) -> Result<[f64; N]> {
        let mut found: [Vec<f64>; N] = std::array::from_fn(|_| Vec::new());
        let mut measurements = measurements;
        for _ in 0..self.arguments.rounds {
            for (measure, found) in measurements.iter_mut().zip(&mut found) {
                found.push(measure()?);
            }
        }
        Ok(found.map(|numbers| median(numbers).unwrap_or_default()))
    }

    fn loopback(&self) -> Result<()> {
        let threads = self.arguments.threads;
        let whole = self.world.start(1, threads, None)?;
        let cut = self.world.start(2, threads, None)?;
        let [whole, cut] = self.in_turns([&mut || Ok(ask(&whole, PLAIN)?.decode), &mut || {
            Ok(ask(&cut, PLAIN)?.decode)
        }])?;
        row("2 stages, loopback: tokens/s against whole", cut, whole);
        Ok(())
    }

    fn together(&self) -> Result<()> {
        let network = self.world.start(2, 1, None)?;
        let all = Question { together: TOGETHER, tokens: 128, ..PLAIN };
        let [one, all] = self.in_turns([&mut || Ok(ask(&network, PLAIN)?.decode), &mut || {
            Ok(ask(&network, all)?.decode)
        }])?;
        row("8 sessions, 2 one-thread stages: tokens/s against 1", all, one);
        for (stage, busy) in busy(&network)?.into_iter().enumerate() {
            row(&format!("  stage {stage}: seconds computing of seconds"), busy.0, busy.1);
        }
        Ok(())
    }

    /// A long prompt over two one-thread stages and a slow link, against the slower of computing and sending.
    fn prefill(&self) -> Result<()> {
        let line = Line { delay_ms: 1.0, bytes_per_s: Some(BYTES_PER_S) };
        let whole = self.world.start(1, 1, None)?;
        let cut = self.world.start(2, 1, Some(line))?;
        let long = Question { prompt: PROMPT_LONG, tokens: 64, ..PLAIN };
        let [whole, cut] = self.in_turns([&mut || Ok(ask(&whole, long)?.prefill), &mut || {
            Ok(ask(&cut, long)?.prefill)
        }])?;
        let tokens = f64::from(PROMPT_LONG);
        let computing = tokens / whole / 2.0;
        // At least two bytes a number.
        let sending = tokens * (2 * self.world.shape.hidden) as f64 / BYTES_PER_S as f64;
        let least = computing.max(sending);
        row("prefill of 2048, 100 Mbit/s: ms against least", 1e3 * tokens / cut, 1e3 * least);
        Ok(())
    }

    fn slow(&self, stages: u32, round_trip: u32) -> Result<()> {
        let threads = self.arguments.threads;
        let whole = self.world.start(1, threads, None)?;
        let cut = self.world.start(stages, threads, Some(Line::of(round_trip)))?;
        let [whole, plain, repeating, random, guessing] = self.in_turns([
            &mut || Ok(ask(&whole, PLAIN)?.decode),
            &mut || Ok(ask(&cut, PLAIN)?.decode),
            &mut || Ok(ask(&cut, REPEATING)?.decode),
            &mut || Ok(ask(&cut, RANDOM)?.decode),
            &mut || Ok(ask(&cut, RANDOM_GUESSING)?.decode),
        ])?;
        // To each next stage, and from the last one back.
        let least = 1e3 / whole + f64::from(stages * round_trip) / 2.0;
        let name = format!("{stages} stages, round trip {round_trip} ms");
        row(&format!("{name}: ms/token against least"), 1e3 / plain, least);
        row("  guessing, text that repeats: tokens/s", repeating, plain);
        row("  guessing, random text: tokens/s", guessing, random);
        Ok(())
    }

    /// One thread on each side, half of the layers behind the link.
    fn against_rpc(&self, (python, gguf): (&Path, &Path), round_trip: u32) -> Result<()> {
        let line = Line::of(round_trip);
        let network = self.world.start(2, 1, Some(line))?;
        let relay: PathBuf = self.world.program("talka-relay");
        let layers = self.world.shape.layers / 2;
        let mut halves = rpc::Halves::start(python, gguf, layers, (&relay, line.delay_ms))?;
        let [ours, guessing, theirs] = self.in_turns([
            &mut || Ok(ask(&network, PLAIN)?.decode),
            &mut || Ok(ask(&network, REPEATING)?.decode),
            &mut || halves.tokens_per_s(),
        ])?;
        let name = format!("round trip {round_trip} ms, against llama.cpp RPC");
        row(&format!("{name}: tokens/s"), ours, theirs);
        row("  guessing, text that repeats: tokens/s", guessing, theirs);
        Ok(())
    }
}

/// How long each node's stages compute while sequences are decoded together, and how long that takes, in
/// seconds.
fn busy(network: &Network) -> Result<Vec<(f64, f64)>> {
    let computed = |n| {
        let busy = network.ask(n, &["status"])?["busy_ms"].as_f64();
        busy.map(|ms| ms / 1e3).context("status reports no busy_ms")
    };
    let all = || (0..network.nodes.len()).map(computed).collect::<Result<Vec<f64>>>();
    let (before, begun) = (all()?, Instant::now());
    ask(network, Question { together: TOGETHER, tokens: 256, ..PLAIN })?;
    let took = begun.elapsed().as_secs_f64();
    Ok(all()?.into_iter().zip(before).map(|(after, before)| (after - before, took)).collect())
}
