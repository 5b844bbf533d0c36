//! `cargo xtask web`: builds the dashboard and holds the committed bundle to its source.
//!
//! Needs Node and npm, which nothing else here does: that is why the bundle is committed. The libraries are those of
//! `web/package-lock.json`, to the byte, so the same source gives the same bundle on every machine.

use crate::cargo::{root, succeeds, tool};
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Where the bundle is committed, from the root.
const PAGE: &str = "crates/gateway/page";

/// What keeps the page from being built here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// Node or npm.
    Npm,
    /// The way to the registry, and the libraries are not here.
    Registry,
}

/// Why the page cannot be built on this machine, if it cannot.
pub fn lack() -> Option<Lack> {
    let works = |program: &str, argument: &str| {
        let mut command = tool(Path::new(program));
        command.arg(argument);
        succeeds(command)
    };
    if !works("node", "--version") || !works("npm", "--version") {
        return Some(Lack::Npm);
    }
    (!installed() && !succeeds(npm(&["ping"]))).then_some(Lack::Registry)
}

/// Checks types, builds, and compares with the committed bundle; or, with `write`, puts the new one in its place.
///
/// # Errors
/// If a step fails, or the bundle is not what the source gives.
pub fn run(write: bool) -> Result<()> {
    if lack() == Some(Lack::Npm) {
        bail!("the page needs Node (20.19 or newer) and npm: install them");
    }
    if !installed() {
        step("npm ci", npm(&["ci", "--no-audit", "--no-fund"]))?;
    }
    step("npm run check", npm(&["run", "check"]))?;
    let built = root().join("target/page");
    let mut build = npm(&["run", "build"]);
    build.env("TALKA_WEB_OUT", &built);
    step("npm run build", build)?;
    let (fresh, committed) = (files(&built)?, files(&root().join(PAGE))?);
    let different = different(&committed, &fresh);
    match different.as_slice() {
        [] => println!("{PAGE} is what web gives"),
        _ if write => {
            replace(&root().join(PAGE), &fresh)?;
            println!("written to {PAGE}: {}", different.join(", "));
        }
        _ => bail!(
            "{PAGE} is not what web gives: {}; run `cargo xtask web --write` and commit it",
            different.join(", ")
        ),
    }
    Ok(())
}

fn npm(arguments: &[&str]) -> Command {
    let mut command = tool(Path::new("npm"));
    command.args(arguments).current_dir(root().join("web"));
    command
}

/// Whether the libraries are here as the lock wants them: npm notes what it installed, in the form of the lock.
fn installed() -> bool {
    let packages = |path: &str| {
        let text = fs::read_to_string(root().join("web").join(path)).ok()?;
        let lock: serde_json::Value = serde_json::from_str(&text).ok()?;
        lock.get("packages")?.as_object().cloned()
    };
    let Some(wanted) = packages("package-lock.json") else { return false };
    let Some(found) = packages("node_modules/.package-lock.json") else { return false };
    // Packages for other systems are in the lock only.
    let needed = |name: &str, package: &serde_json::Value| {
        !name.is_empty() && package.get("optional") != Some(&serde_json::Value::Bool(true))
    };
    wanted.iter().filter(|(name, package)| needed(name, package)).all(|(name, package)| {
        found.get(name).is_some_and(|has| has.get("integrity") == package.get("integrity"))
    })
}

fn step(name: &str, mut command: Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{name} did not start"))?;
    if !status.success() {
        bail!("{name} failed: see above");
    }
    Ok(())
}

/// The files of a folder without folders, by name.
fn files(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok((name, bytes))
    };
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    entries.map(|entry| read(entry?.path())).collect()
}

/// What must change for `committed` to be `fresh`.
fn different(
    committed: &BTreeMap<String, Vec<u8>>,
    fresh: &BTreeMap<String, Vec<u8>>,
) -> Vec<String> {
    let gone = committed.keys().filter(|name| !fresh.contains_key(*name));
    let gone = gone.map(|name| format!("{name} is too much"));
    let new = fresh.iter().filter_map(|(name, bytes)| match committed.get(name) {
        None => Some(format!("{name} is missing")),
        Some(old) if old != bytes => Some(format!("{name} differs")),
        Some(_) => None,
    });
    gone.chain(new).collect()
}

fn replace(folder: &Path, fresh: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    fs::create_dir_all(folder)?;
    for (name, bytes) in fresh {
        fs::write(folder.join(name), bytes).with_context(|| format!("cannot write {name}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(files: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
    }

    #[test]
    fn every_difference_is_named() {
        let committed = bundle(&[("a", "1"), ("b", "1"), ("c", "1")]);
        assert!(different(&committed, &committed).is_empty());
        let fresh = bundle(&[("a", "1"), ("b", "2"), ("d", "1")]);
        let expected = ["c is too much", "b differs", "d is missing"];
        assert_eq!(different(&committed, &fresh), expected);
    }
}
