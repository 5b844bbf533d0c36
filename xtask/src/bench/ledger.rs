//! How fast the ledger is, and whether its rules hold in long runs.
//!
//! First the numbers of the examples of `talka-ledger`, then its property tests with many more cases than a usual
//! run tries: sequences of events, double spending over a hundred gateways, lanes, and worlds in which everything goes
//! wrong with the order of entries. Last, a real node under load that is killed every two seconds.

use crate::cargo::cargo;
use anyhow::{Context, Result, ensure};

/// Vouchers that one epoch settles.
const VOUCHERS: &str = "1000000";
/// Cases of each property.
const CASES: &str = "100000";
/// Worlds of each kind in which nodes order entries.
const SEEDS: &str = "1000";
/// Seconds for which a node is killed again and again.
const KILL_SECONDS: &str = "600";
/// The test that does it.
const KILLS: &str = "crash::nothing_acknowledged_is_lost_when_the_node_is_killed";

/// `cargo xtask bench ledger`.
///
/// # Errors
/// If something does not build, or a property does not hold.
pub fn run() -> Result<()> {
    step(&["run", "--quiet", "--package", "talka-ledger", "--example", "payment", VOUCHERS])?;
    let tests = ["conservation", "lanes", "order"].map(|test| ["--test", test]);
    step(&[["test", "--package", "talka-ledger"].as_slice(), &tests.concat()].concat())?;
    step(&[
        "test",
        "--package",
        "talka",
        "--test",
        "process",
        "--",
        "--exact",
        KILLS,
        "--nocapture",
    ])
}

fn step(arguments: &[&str]) -> Result<()> {
    let status = cargo(arguments)
        .env("TALKA_CASES", CASES)
        .env("TALKA_SEEDS", SEEDS)
        .env("TALKA_KILL_SECONDS", KILL_SECONDS)
        .status()
        .context("running cargo")?;
    ensure!(status.success(), "cargo {} failed", arguments.join(" "));
    Ok(())
}
