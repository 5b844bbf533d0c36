//! How fast the ledger is, and whether its rules hold in long runs.
//!
//! First the numbers of the examples of `talka-ledger`, then its property tests with many more cases than a usual
//! run tries: sequences of events, double spending over a hundred gateways, lanes, and worlds in which everything goes
//! wrong with the order of entries.

use crate::cargo::cargo;
use anyhow::{Context, Result, ensure};

/// Vouchers that one epoch settles.
const VOUCHERS: &str = "1000000";
/// Cases of each property, and hundreds of attempts to spend twice: a million of them.
const CASES: &str = "10000";
/// Worlds of each kind in which nodes order entries.
const SEEDS: &str = "1000";

/// `cargo xtask bench ledger`.
///
/// # Errors
/// If something does not build, or a property does not hold.
pub fn run() -> Result<()> {
    step(&["run", "--quiet", "--package", "talka-ledger", "--example", "payment", VOUCHERS])?;
    let tests = ["conservation", "lanes", "order"].map(|test| ["--test", test]);
    step(&[["test", "--package", "talka-ledger"].as_slice(), &tests.concat()].concat())
}

fn step(arguments: &[&str]) -> Result<()> {
    let status = cargo(arguments)
        .env("TALKA_CASES", CASES)
        .env("TALKA_SEEDS", SEEDS)
        .status()
        .context("running cargo")?;
    ensure!(status.success(), "cargo {} failed", arguments.join(" "));
    Ok(())
}
