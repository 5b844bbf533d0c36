//! How fast the ledger is, and whether its rules hold in long runs.
//!
//! First the numbers of the examples of `talka-ledger`, then its property tests with many more cases than a usual
//! run tries: sequences of events, double spending over a hundred gateways, lanes.

use crate::cargo::cargo;
use anyhow::{Context, Result, ensure};

/// Vouchers that one epoch settles.
const VOUCHERS: &str = "1000000";
/// Cases of each property, and hundreds of attempts to spend twice: a million of them.
const CASES: &str = "10000";

/// `cargo xtask bench ledger`.
///
/// # Errors
/// If something does not build, or a property does not hold.
pub fn run() -> Result<()> {
    step(&["run", "--quiet", "--package", "talka-ledger", "--example", "payment", VOUCHERS])?;
    step(&["test", "--package", "talka-ledger", "--test", "conservation", "--test", "lanes"])
}

fn step(arguments: &[&str]) -> Result<()> {
    let status = cargo(arguments).env("TALKA_CASES", CASES).status().context("running cargo")?;
    ensure!(status.success(), "cargo {} failed", arguments.join(" "));
    Ok(())
}
