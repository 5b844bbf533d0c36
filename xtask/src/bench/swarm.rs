//! `cargo xtask bench swarm`: what it costs to cut a model over nodes, and over slow links.
//!
//! Real processes on this computer; each node but the first stands behind a relay that makes its link slow.
//! Random tokens are drawn, so that nothing can be guessed ahead. Every number stands beside the same model
//! whole on one node, measured in turns in the same run.

use super::{Arguments, files, median, peer, rpc, shape::SHAPES, target_folder};
use crate::cargo::{cargo, tool};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    env::consts::EXE_SUFFIX,
    fs,
    io::{BufRead, BufReader},
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Positions of each prompt, and tokens decoded behind it.
pub const PROMPT: usize = 16;
pub const GENERATED: usize = 48;
/// Round trips between nodes, in milliseconds.
const ROUND_TRIPS_MS: [u32; 3] = [20, 50, 100];
/// Those of the comparison with llama.cpp.
const RPC_ROUND_TRIPS_MS: [u32; 2] = [20, 50];
/// Sequences that are answered together.
const TOGETHER: u32 = 8;
/// Nobody waits longer for a network to come up.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// Builds what is measured, measures, prints the table.
pub fn run(arguments: &Arguments) -> Result<()> {
    for package in ["talka", "talka-sim"] {
        let status = cargo(&["build", "--release", "--package", package]).status()?;
        ensure!(status.success(), "{package} does not build");
    }
    let target = target_folder()?;
    let shape = &SHAPES[0];
    let bench = target.join("bench");
    let files = files::written(&bench, shape)?;
    let python = peer(arguments, &bench).and_then(rpc::supported);
    let (model, gguf) = (files.folder, files.gguf);
    let place = target.join("bench/swarm");
    let world = World { programs: target.join("release"), model, place };
    println!("{} parameters, bf16, {} rounds, medians", shape.name, arguments.rounds);
    println!("{:<46} {:>9} {:>9} {:>7}", "", "found", "against", "ratio");
    world.loopback(arguments)?;
    world.together(arguments)?;
    for stages in 2..=4 {
        for round_trip in ROUND_TRIPS_MS {
            world.slow(arguments, stages, round_trip)?;
        }
    }
    match python {
        Ok(python) => {
            for round_trip in RPC_ROUND_TRIPS_MS {
                world.against_rpc(arguments, (&python, &gguf), round_trip)?;
            }
        }
        Err(why) => println!("\nno comparison with llama.cpp's RPC back end: {why}"),
    }
    Ok(())
}

struct World {
    programs: PathBuf,
    model: PathBuf,
    place: PathBuf,
}

/// Nodes that serve one model; killed when dropped.
struct Network {
    processes: Vec<Child>,
    founder: PathBuf,
}

impl Drop for Network {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // One that ended by itself needs no killing.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn row(name: &str, found: f64, against: f64) {
    println!("{name:<46} {found:>9.1} {against:>9.1} {:>7.2}", found / against);
}

impl World {
    fn loopback(&self, arguments: &Arguments) -> Result<()> {
        let threads = arguments.threads;
        let (whole, cut) = (self.start(1, threads, None)?, self.start(2, threads, None)?);
        let (whole, cut) = self.in_turns(arguments, [(&whole, 1), (&cut, 1)])?;
        row("2 stages, loopback, tokens/s against whole", cut, whole);
        Ok(())
    }

    fn together(&self, arguments: &Arguments) -> Result<()> {
        let network = self.start(2, 1, None)?;
        let (one, all) = self.in_turns(arguments, [(&network, 1), (&network, TOGETHER)])?;
        let name = format!("{TOGETHER} sessions, 2 one-thread stages, against 1");
        row(&name, all, one);
        Ok(())
    }

    fn slow(&self, arguments: &Arguments, stages: u32, round_trip: u32) -> Result<()> {
        let threads = arguments.threads;
        let whole = self.start(1, threads, None)?;
        let cut = self.start(stages, threads, Some(f64::from(round_trip) / 2.0))?;
        let (whole, cut) = self.in_turns(arguments, [(&whole, 1), (&cut, 1)])?;
        // To each next stage, and from the last one back.
        let least = 1e3 / whole + f64::from(stages * round_trip) / 2.0;
        let name = format!("{stages} stages, round trip {round_trip} ms, ms/token against least");
        row(&name, 1e3 / cut, least);
        Ok(())
    }

    /// One thread on each side, half of the layers behind the link.
    fn against_rpc(
        &self,
        arguments: &Arguments,
        (python, gguf): (&Path, &Path),
        round_trip: u32,
    ) -> Result<()> {
        let delay_ms = f64::from(round_trip) / 2.0;
        let network = self.start(2, 1, Some(delay_ms))?;
        let link = (&*self.relay_program(), delay_ms);
        let mut halves = rpc::Halves::start(python, gguf, SHAPES[0].layers / 2, link)?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..arguments.rounds {
            ours.push(self.tokens_per_s(&network, 1)?);
            theirs.push(halves.tokens_per_s()?);
        }
        let [ours, theirs] = [ours, theirs].map(|numbers| median(numbers).unwrap_or_default());
        let name = format!("round trip {round_trip} ms, tokens/s against llama.cpp RPC");
        row(&name, ours, theirs);
        Ok(())
    }

    /// Medians of tokens/s of two networks, each with so many sequences at once.
    fn in_turns(&self, arguments: &Arguments, both: [(&Network, u32); 2]) -> Result<(f64, f64)> {
        let mut found = [Vec::new(), Vec::new()];
        for _ in 0..arguments.rounds {
            for ((network, together), found) in both.iter().zip(&mut found) {
                found.push(self.tokens_per_s(network, *together)?);
            }
        }
        let [first, second] = found.map(|numbers| median(numbers).unwrap_or_default());
        Ok((first, second))
    }

    fn tokens_per_s(&self, network: &Network, together: u32) -> Result<f64> {
        let [prompt, tokens] = [PROMPT, GENERATED].map(|number| number.to_string());
        let together = together.to_string();
        let flags = ["--prompt", &prompt, "--tokens", &tokens, "--temperature", "1"];
        let flags = [&flags[..], &["--together", &together]].concat();
        let report = self.ask(&network.founder, &[&["bench", "model"], &flags[..]].concat())?;
        report["decode_tokens_per_s"].as_f64().context("bench reports no decode_tokens_per_s")
    }

    /// What `talka ARGUMENTS --json` says of the node in `data_dir`.
    fn ask(&self, data_dir: &Path, arguments: &[&str]) -> Result<Value> {
        let mut command = self.talka();
        command.args(arguments).arg("--json").arg("--data-dir").arg(data_dir);
        let output = command.output().context("cannot run talka")?;
        let problem = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "talka {} failed: {problem}", arguments.join(" "));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn talka(&self) -> Command {
        tool(&self.programs.join(format!("talka{EXE_SUFFIX}")))
    }

    /// Nodes with equal shares of the layers; links to all but the first take `delay_ms` each way.
    fn start(&self, stages: u32, threads: usize, delay_ms: Option<f64>) -> Result<Network> {
        let name = format!("{stages}-{threads}-{}", delay_ms.unwrap_or_default());
        let place = self.place.join(name);
        if place.exists() {
            fs::remove_dir_all(&place)?;
        }
        let mut network = Network { processes: Vec::new(), founder: place.join("0") };
        let mut invite: Option<String> = None;
        let layers = u32::try_from(SHAPES[0].layers)?;
        for stage in 0..stages {
            let (from, to) = (stage * layers / stages, (stage + 1) * layers / stages);
            let mut command = self.talka();
            match &invite {
                None => command.args(["up", "--grant", "1000000"]),
                Some(invite) => command.args(["join", invite]),
            };
            let port = free_port()?;
            command.args([
                "--json",
                "--http",
                "127.0.0.1:0",
                "--p2p",
                &format!("127.0.0.1:{port}"),
            ]);
            command.args(["--threads", &threads.to_string()]);
            command.arg("--model").arg(&self.model);
            command.args(["--layers", &format!("{}={from}..{to}", SHAPES[0].name)]);
            command.arg("--data-dir").arg(place.join(stage.to_string()));
            if let Some(delay_ms) = delay_ms {
                let (relay, address) = self.relay(port, delay_ms)?;
                network.processes.push(relay);
                command.args(["--announce", &address]);
            }
            let mut node = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
            let ready = first_line(&mut node)?;
            network.processes.push(node);
            ensure!(ready.contains("http"), "a node did not start: {ready}");
            if invite.is_none() {
                let given = self.ask(&network.founder, &["invite", "--reusable"])?;
                invite = given["invite"].as_str().map(String::from);
            }
        }
        let deadline = Instant::now() + START_TIME_MAX;
        while self.ask(&network.founder, &["status"])?["models"][0]["complete"] != true {
            ensure!(Instant::now() < deadline, "the model is not served by {stages} nodes");
            thread::sleep(Duration::from_millis(50));
        }
        Ok(network)
    }

    fn relay_program(&self) -> PathBuf {
        self.programs.join(format!("talka-relay{EXE_SUFFIX}"))
    }

    fn relay(&self, port: u16, delay_ms: f64) -> Result<(Child, String)> {
        let mut command = tool(&self.relay_program());
        command.args([format!("127.0.0.1:{port}"), delay_ms.to_string()]);
        let mut relay = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let address = first_line(&mut relay)?;
        Ok((relay, address.trim().to_owned()))
    }
}

/// The first line that `process` prints.
pub fn first_line(process: &mut Child) -> Result<String> {
    let output = process.stdout.as_mut().context("its output is not read")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    Ok(line)
}

fn free_port() -> Result<u16> {
    Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port())
}
