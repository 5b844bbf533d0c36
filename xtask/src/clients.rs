//! Clients that nobody here wrote: OpenAI's for Python and for Node, Anthropic's for Python.
//!
//! Installs them for the tests in `crates/talka/tests/process/clients.rs`, in the versions that `clients` pins: those
//! of Python into a folder of their own under target, those of Node beside their test. Without the network only what
//! is installed already serves.

use crate::{
    apt,
    cargo::{root, succeeds, target_folder, tool},
};
use anyhow::Result;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Where the tests look for the Python that has the clients.
const PYTHON: &str = "TALKA_CLIENTS_PYTHON";
/// Where the tests look for Node.
const NODE: &str = "TALKA_CLIENTS_NODE";

/// What tests that run now should be told: the programs of the clients that are installed.
pub fn variables() -> Vec<(&'static str, PathBuf)> {
    let python = python_folder().ok().filter(|folder| is_current(folder));
    let python = python.map(|folder| (PYTHON, python_in(&folder)));
    let node = has_node_client().then(|| (NODE, "node".into()));
    python.into_iter().chain(node).collect()
}

/// Installs what is missing, and says what still is.
pub fn install() -> Result<(), String> {
    let mut missing = Vec::new();
    if python().is_err() {
        missing.push("Python's (python3 with venv, and the way to its registry)");
    }
    if !has_node_client() && !node() {
        missing.push("Node's (node, npm, and the way to its registry)");
    }
    if missing.is_empty() { Ok(()) } else { Err(format!("not installed: {}", missing.join(", "))) }
}

fn python() -> Result<()> {
    let folder = python_folder()?;
    if is_current(&folder) {
        return Ok(());
    }
    let make = || {
        let mut venv = with("python3", &["-m", "venv", "--clear"]);
        venv.arg(&folder);
        succeeds(venv)
    };
    let made = make() || (apt::install(&["python3", "python3-venv"]) && make());
    anyhow::ensure!(made, "no venv");
    let mut pip = tool(&python_in(&folder));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    anyhow::ensure!(pip.arg(requirements()).status()?.success(), "no clients");
    fs::copy(requirements(), stamp(&folder))?;
    Ok(())
}

fn node() -> bool {
    let ready = || ["node", "npm"].iter().all(|name| succeeds(with(name, &["--version"])));
    let is_ready = ready() || (apt::install(&["nodejs", "npm"]) && ready());
    let mut npm = with("npm", &["ci", "--no-audit", "--no-fund"]);
    is_ready && npm.current_dir(folder()).status().is_ok_and(|status| status.success())
}

/// Whether Node's client is here as the lock wants it.
fn has_node_client() -> bool {
    let lock = |path: &str| {
        let lock: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(folder().join(path)).ok()?).ok()?;
        lock["packages"]["node_modules/openai"]["version"].as_str().map(str::to_owned)
    };
    let wanted = lock("package-lock.json");
    wanted.is_some() && lock("node_modules/.package-lock.json") == wanted
}

fn folder() -> PathBuf {
    root().join("clients")
}

fn requirements() -> PathBuf {
    folder().join("requirements.txt")
}

fn python_folder() -> Result<PathBuf> {
    Ok(target_folder()?.join("clients"))
}

fn python_in(folder: &Path) -> PathBuf {
    folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" })
}

/// A copy of the list that was installed.
fn stamp(folder: &Path) -> PathBuf {
    folder.join("installed.txt")
}

fn is_current(folder: &Path) -> bool {
    fs::read(stamp(folder))
        .is_ok_and(|installed| fs::read(requirements()).is_ok_and(|wanted| wanted == installed))
}

fn with(program: &str, arguments: &[&str]) -> Command {
    let mut command = tool(Path::new(program));
    command.args(arguments);
    command
}
