//! Clients that nobody here wrote: OpenAI's for Python and for Node, Anthropic's for Python.
//!
//! Installs them for the tests in `crates/talka/tests/process/clients.rs`, in the versions that `clients` pins: those
//! of Python into an environment of their own, those of Node beside their test. Without the network only what is
//! installed already serves.

use crate::{
    apt,
    cargo::{root, succeeds, tool},
    python::Packages,
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
    let python = with_packages(|packages| packages.installed()).ok().flatten();
    let node = has_node_client().then(|| (NODE, "node".into()));
    python.map(|python| (PYTHON, python)).into_iter().chain(node).collect()
}

/// Installs what is missing, and says what still is.
pub fn install() -> Result<(), String> {
    let mut missing = Vec::new();
    if let Err(error) = with_packages(|packages| packages.install()) {
        missing.push(error.to_string());
    }
    if !has_node_client() && !install_node_client() {
        missing.push("node, npm and a way to its registry are needed for OpenAI's client".into());
    }
    if missing.is_empty() { Ok(()) } else { Err(missing.join("; ")) }
}

/// The packages that `clients/requirements.txt` names.
fn with_packages<T>(of: impl FnOnce(&Packages<'_>) -> Result<T>) -> Result<T> {
    let list = fs::read_to_string(folder().join("requirements.txt"))?;
    let lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    of(&Packages { name: "clients", packages: &lines.collect::<Vec<_>>() })
}

fn install_node_client() -> bool {
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

fn with(program: &str, arguments: &[&str]) -> Command {
    let mut command = tool(Path::new(program));
    command.args(arguments);
    command
}
