//! Clients that nobody here wrote: OpenAI's for Python and for Node, Anthropic's for Python.
//!
//! Installs them for the tests in `crates/talka/tests/process/clients.rs`, in the versions that `clients` pins: those
//! of Python into an environment of their own, those of Node beside their test. Without the network only what is
//! installed already serves.

use crate::{cargo::root, npm, python::Packages};
use anyhow::Result;
use std::{fs, path::PathBuf};

/// Where the tests look for the Python that has the clients.
const PYTHON: &str = "TALKA_CLIENTS_PYTHON";
/// Where the tests look for Node.
const NODE: &str = "TALKA_CLIENTS_NODE";

/// What tests that run now should be told: the programs of the clients that are installed.
pub fn variables() -> Vec<(&'static str, PathBuf)> {
    let python = with_packages(|packages| packages.installed()).ok().flatten();
    let node = npm::is_installed(&folder()).then(|| (NODE, "node".into()));
    python.map(|python| (PYTHON, python)).into_iter().chain(node).collect()
}

/// Installs what is missing, and says what still is.
pub fn install() -> Result<(), String> {
    let mut missing = Vec::new();
    if let Err(error) = with_packages(|packages| packages.install()) {
        missing.push(error.to_string());
    }
    match npm::lack(&folder()) {
        Some(lack) => missing.push(format!("OpenAI's client for Node: {lack}")),
        None => missing.extend(npm::install(&folder()).err().map(|error| error.to_string())),
    }
    if missing.is_empty() { Ok(()) } else { Err(missing.join("; ")) }
}

/// The packages that `clients/requirements.txt` names.
fn with_packages<T>(of: impl FnOnce(&Packages<'_>) -> Result<T>) -> Result<T> {
    let list = fs::read_to_string(folder().join("requirements.txt"))?;
    let lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    of(&Packages { name: "clients", packages: &lines.collect::<Vec<_>>() })
}

fn folder() -> PathBuf {
    root().join("clients")
}
