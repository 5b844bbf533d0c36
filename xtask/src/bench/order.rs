//! Order by several members: Talka's council beside commonware's simplex, with the same ledger, links and disk.
//!
//! The program is in `simplex/`, a workspace of its own, which takes minutes to build the first time.

use crate::cargo::cargo;
use anyhow::{Context, Result, ensure};

/// `cargo xtask bench order`. Prints the program's table, or its JSON object.
///
/// # Errors
/// If it does not build, or one of the two stands still.
pub fn run(rounds: usize, json: bool) -> Result<()> {
    let rounds = rounds.to_string();
    let mut arguments = vec!["run", "--release", "--quiet"];
    arguments.extend(["--manifest-path", "simplex/Cargo.toml", "--", "--rounds", &rounds]);
    if json {
        arguments.push("--json");
    }
    let status = cargo(&arguments).status().context("cannot run cargo")?;
    ensure!(status.success(), "the comparison failed");
    Ok(())
}
