//! llama.cpp with half of a model's layers in another process, over its RPC back end.
//!
//! The layers before the cut stay with the one who asks, those behind it and the head are remote: so llama.cpp
//! places them itself. One thread on each side. Between them stands a TCP relay, which makes their link as
//! slow as ours.

use super::{
    network::first_line,
    peer,
    swarm::{GENERATED, PROMPT},
};
use crate::cargo::{succeeds, tool};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const SCRIPT: &str = include_str!("rpc.py");
/// Starting takes a Python a second; nobody waits for one that hangs.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// Both halves of one model, and the link between them; killed when dropped.
pub struct Halves {
    server: Child,
    relay: Child,
    asking: Command,
}

impl Drop for Halves {
    fn drop(&mut self) {
        for process in [&mut self.server, &mut self.relay] {
            // One that ended by itself needs no killing.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// `python`, if its llama.cpp can leave layers to others; else what to do.
pub fn supported(python: PathBuf) -> Result<PathBuf, String> {
    let mut check = tool(&python);
    check.args(["-c", SCRIPT, "check"]);
    if succeeds(check) {
        return Ok(python);
    }
    let by_hand = peer::by_hand(&python);
    Err(format!("{} has one without it; to build it anew: {by_hand}", python.display()))
}

impl Halves {
    /// The last `layers` of the file `gguf` in a process that takes `delay_ms` to reach and as much to answer,
    /// by the program `relay`.
    ///
    /// # Errors
    /// If one of the processes does not start.
    pub fn start(
        python: &Path,
        gguf: &Path,
        layers: u64,
        (relay, delay_ms): (&Path, f64),
    ) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut serve = tool(python);
        serve.args(["-c", SCRIPT, "serve", &address.port().to_string()]);
        let server = serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut relay = tool(relay);
        relay.args(["tcp", &address.to_string(), &delay_ms.to_string()]);
        let relay = relay.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut halves = Self { server, relay, asking: tool(python) };
        await_listener(address)?;
        let endpoint = first_line(&mut halves.relay)?;
        halves.asking.args(["-c", SCRIPT]).arg(gguf).arg(layers.to_string());
        halves.asking.args([PROMPT, GENERATED].map(|number| number.to_string()));
        halves.asking.arg(endpoint.trim());
        Ok(halves)
    }

    /// How fast one answer is decoded. Loads the model anew, which takes seconds on a slow link and is not
    /// measured.
    ///
    /// # Errors
    /// If llama.cpp does not run, with what it said.
    pub fn tokens_per_s(&mut self) -> Result<f64> {
        let output = self.asking.output().context("cannot run Python")?;
        let problem = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "llama.cpp failed:\n{problem}");
        let report: Value = serde_json::from_slice(&output.stdout).context("from rpc.py")?;
        report["decode_tokens_per_s"].as_f64().context("rpc.py reports no decode_tokens_per_s")
    }
}

fn await_listener(address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + START_TIME_MAX;
    while TcpStream::connect(address).is_err() {
        ensure!(Instant::now() < deadline, "the RPC server of llama.cpp does not start");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
