//! `cargo xtask layering`: holds the code to the crate table of ARCHITECTURE.md.
//!
//! What the compiler cannot forbid stands here: which crate may use which ([`edges`]), which words a
//! crate may not say ([`words`]), and how long a file may be. Reads manifests and sources only; never
//! changes a file. Unlike a lint it sees code behind `cfg` of other machines, and macros unexpanded.

mod edges;
mod source;
mod table;
mod words;

use crate::cargo::root;
use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Compares and reports.
///
/// # Errors
/// If anything departs from ARCHITECTURE.md; each departure is printed.
pub fn run() -> Result<()> {
    let faults = faults(&root())?;
    for fault in &faults {
        println!("{fault}");
    }
    match faults.len() {
        0 => {
            println!("the code keeps to ARCHITECTURE.md");
            Ok(())
        }
        n => {
            bail!("{n} departures from ARCHITECTURE.md: mend the code, or the table with a reason")
        }
    }
}

/// Every departure, as a line that says what was expected and found.
fn faults(root: &Path) -> Result<Vec<String>> {
    let rows = table::read(&text(&root.join("ARCHITECTURE.md"))?)?;
    let mut faults = edges::faults(&rows, &edges::manifests()?);
    for path in rust_files(root)? {
        let name = path.strip_prefix(root).unwrap_or(&path);
        let name = name.to_string_lossy().replace('\\', "/");
        faults.extend(words::faults(&name, &text(&path)?));
    }
    let strict = ["base", "ledger"].map(|name| root.join("crates").join(name).join("clippy.toml"));
    if text(&strict[0])? != text(&strict[1])? {
        faults.push(format!("{} and {} differ", strict[0].display(), strict[1].display()));
    }
    Ok(faults)
}

fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Every `.rs` file of our crates, in a fixed order.
fn rust_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![root.join("crates"), root.join("xtask")];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder)
            .with_context(|| format!("cannot list {}", folder.display()))?
            .collect::<Result<Vec<_>, _>>()?;
        for path in entries.into_iter().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_keeps_to_the_architecture() {
        let faults = faults(&root()).expect("the repository can be read");
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}
