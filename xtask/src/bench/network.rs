//! Nodes of one co-operative as real processes on this computer, each behind a relay that makes its link slow.

use super::shape::Shape;
use crate::cargo::tool;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    env::consts::EXE_SUFFIX,
    fs,
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Nobody waits longer for a network to come up.
const START_TIME_MAX: Duration = Duration::from_secs(60);
/// Behind a relay nodes listen here, and not where relays are: so they know what came through one.
const BEHIND_RELAY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// What nodes are made of.
pub struct World {
    /// The folder of `talka` and `talka-relay`.
    pub programs: PathBuf,
    /// What they serve, and its folder.
    pub shape: &'static Shape,
    pub model: PathBuf,
    /// Where they keep their data.
    pub place: PathBuf,
}

/// A link, each way.
#[derive(Clone, Copy)]
pub struct Line {
    pub delay_ms: f64,
    pub bytes_per_s: Option<u64>,
}

impl Line {
    /// Half of `round_trip_ms` each way, of any rate.
    pub fn of(round_trip_ms: u32) -> Self {
        Self { delay_ms: f64::from(round_trip_ms) / 2.0, bytes_per_s: None }
    }
}

/// Nodes that serve one model; killed when dropped.
pub struct Network {
    processes: Vec<Child>,
    talka: PathBuf,
    /// Their data directories, the founder's first.
    pub nodes: Vec<PathBuf>,
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

impl Network {
    /// What `talka ARGUMENTS --json` says of node `n`.
    ///
    /// # Errors
    /// If it fails, with what it printed.
    pub fn ask(&self, n: usize, arguments: &[&str]) -> Result<Value> {
        let mut command = tool(&self.talka);
        command.args(arguments).arg("--json").arg("--data-dir").arg(&self.nodes[n]);
        let output = command.output().context("cannot run talka")?;
        let problem = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "talka {} failed: {problem}", arguments.join(" "));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Waits until all layers are served.
    fn wait(&self) -> Result<()> {
        let deadline = Instant::now() + START_TIME_MAX;
        while self.ask(0, &["status"])?["models"][0]["complete"] != true {
            ensure!(Instant::now() < deadline, "no complete model on {} nodes", self.nodes.len());
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl World {
    /// So many nodes with equal shares of the layers; all links are like `line`, if any.
    ///
    /// # Errors
    /// If a node does not start, or the model is not complete in time.
    pub fn start(&self, stages: u32, threads: usize, line: Option<Line>) -> Result<Network> {
        let place = self.place.join(format!("{stages}-{threads}-{}", line.is_some()));
        if place.exists() {
            fs::remove_dir_all(&place)?;
        }
        let (processes, nodes) = (Vec::new(), Vec::new());
        let mut network = Network { processes, nodes, talka: self.program("talka") };
        let mut invite: Option<String> = None;
        for stage in 0..stages {
            let mut command = tool(&network.talka);
            match &invite {
                None => command.args(["up", "--grant", "1000000"]),
                Some(invite) => command.args(["join", invite]),
            };
            let data_dir = place.join(stage.to_string());
            command.arg("--data-dir").arg(&data_dir);
            command.args(["--json", "--http", "127.0.0.1:0", "--threads", &threads.to_string()]);
            self.share(&mut command, stage, stages)?;
            self.link(&mut command, line, &mut network)?;
            let mut node = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
            let ready = first_line(&mut node)?;
            network.processes.push(node);
            network.nodes.push(data_dir);
            ensure!(ready.contains("http"), "a node did not start: {ready}");
            if invite.is_none() {
                let given = network.ask(0, &["invite", "--reusable"])?;
                invite = given["invite"].as_str().map(String::from);
            }
        }
        network.wait()?;
        Ok(network)
    }

    fn share(&self, command: &mut Command, stage: u32, stages: u32) -> Result<()> {
        let layers = u32::try_from(self.shape.layers)?;
        let (from, to) = (stage * layers / stages, (stage + 1) * layers / stages);
        command.arg("--model").arg(&self.model);
        command.args(["--layers", &format!("{}={from}..{to}", self.shape.name)]);
        Ok(())
    }

    fn link(&self, command: &mut Command, line: Option<Line>, network: &mut Network) -> Result<()> {
        let host = if line.is_some() { BEHIND_RELAY } else { Ipv4Addr::LOCALHOST };
        let address = UdpSocket::bind((IpAddr::from(host), 0))?.local_addr()?.to_string();
        command.args(["--p2p", &address]);
        let Some(Line { delay_ms, bytes_per_s }) = line else { return Ok(()) };
        let mut relay = tool(&self.program("talka-relay"));
        relay.args([address, delay_ms.to_string()]).args(bytes_per_s.map(|rate| rate.to_string()));
        let mut relay = relay.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let announced = first_line(&mut relay);
        network.processes.push(relay);
        command.args(["--announce", announced?.trim()]);
        Ok(())
    }

    /// The path of one of our programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(format!("{name}{EXE_SUFFIX}"))
    }
}

/// The first line that `process` prints.
///
/// # Errors
/// If its output is not piped here.
pub fn first_line(process: &mut Child) -> Result<String> {
    let output = process.stdout.as_mut().context("its output is not read")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    Ok(line)
}
