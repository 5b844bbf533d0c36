//! Speed measurements.

use anyhow::{Result, bail};

/// Runs the measurement that the first argument names.
///
/// # Errors
/// If there is no such measurement.
pub fn run(arguments: &[String]) -> Result<()> {
    bail!("no measurement called {arguments:?}")
}
