//! Packages for Node: folders with a `package-lock.json`, installed as their lock says.

use crate::{
    apt,
    cargo::{succeeds, with},
};
use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};
use std::{fs, path::Path, process::Command};

/// The oldest Node that will do: major and minor number.
const NODE_MIN: (u32, u32) = (20, 19);

/// Why packages cannot be installed on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// Node or npm, or they are too old.
    #[error("Node {}.{} or newer and npm are not installed, nor could they be", NODE_MIN.0, NODE_MIN.1)]
    Npm,
    /// The way to the registry, and the packages are not here.
    #[error("npm reaches no registry, and the packages are not here")]
    Registry,
}

/// Why the packages of `folder` are not here and cannot be installed, if so. Installs Node and npm if that can be done.
pub fn lack(folder: &Path) -> Option<Lack> {
    let ready = || has_node() && succeeds(with("npm", &["--version"]));
    let is_ready = ready() || (apt::install(&["nodejs", "npm"]) && ready());
    if !is_ready {
        return Some(Lack::Npm);
    }
    (!is_installed(folder) && !succeeds(npm(folder, &["ping"]))).then_some(Lack::Registry)
}

/// `npm` in `folder`.
pub fn npm(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = with("npm", arguments);
    command.current_dir(folder);
    command
}

/// Runs `command`, which people know as `name`.
///
/// # Errors
/// If it does not start, or fails.
pub fn step(name: &str, mut command: Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{name} did not start"))?;
    ensure!(status.success(), "{name} failed: see above");
    Ok(())
}

/// Installs the packages of `folder`, if they are not here.
///
/// # Errors
/// If npm fails.
pub fn install(folder: &Path) -> Result<()> {
    if is_installed(folder) {
        return Ok(());
    }
    step("npm ci", npm(folder, &["ci", "--no-audit", "--no-fund"]))
}

/// Whether the packages are here as the lock wants them: npm notes what it installed, in the form of the lock.
pub fn is_installed(folder: &Path) -> bool {
    let packages = |path: &str| {
        let text = fs::read_to_string(folder.join(path)).ok()?;
        let lock: Value = serde_json::from_str(&text).ok()?;
        lock.get("packages")?.as_object().cloned()
    };
    let Some(wanted) = packages("package-lock.json") else { return false };
    let Some(found) = packages("node_modules/.package-lock.json") else { return false };
    agrees(&wanted, &found)
}

/// Whether `found` has every package of `wanted`. Those for other systems are in the lock only.
fn agrees(wanted: &Map<String, Value>, found: &Map<String, Value>) -> bool {
    let needed = |name: &str, package: &Value| {
        !name.is_empty() && package.get("optional") != Some(&Value::Bool(true))
    };
    wanted.iter().filter(|(name, package)| needed(name, package)).all(|(name, package)| {
        found.get(name).is_some_and(|has| has.get("integrity") == package.get("integrity"))
    })
}

fn has_node() -> bool {
    let output = with("node", &["--version"]).output();
    output.is_ok_and(|output| is_new_enough(&String::from_utf8_lossy(&output.stdout)))
}

/// Whether `version`, such as `v20.19.2`, will do.
fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.trim().trim_start_matches('v').split('.').map(str::parse::<u32>);
    matches!((numbers.next(), numbers.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= NODE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_old_node_will_not_do() {
        for version in ["v20.19.0\n", "v22.0.0", "20.20.2"] {
            assert!(is_new_enough(version), "{version}");
        }
        for version in ["v18.19.1", "v20.18.9", "", "node", "v20"] {
            assert!(!is_new_enough(version), "{version}");
        }
    }

    #[test]
    fn packages_are_here_if_what_was_installed_is_what_the_lock_says() {
        let package = |sum: &str| json!({"": {}, "a": {"integrity": sum}, "b": {"optional": true}});
        let same = |wanted: &Value, found: &Value| {
            agrees(wanted.as_object().expect("packages"), found.as_object().expect("packages"))
        };
        assert!(same(&package("1"), &package("1")));
        assert!(!same(&package("1"), &package("0")));
        assert!(!same(&package("1"), &json!({})));
        // One for another system was left out.
        assert!(same(&package("1"), &json!({"a": {"integrity": "1"}})));
    }
}
