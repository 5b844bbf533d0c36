//! What developers and continuous integration run: `cargo xtask test` and its parts.
//!
//! Needs a Rust toolchain and a C compiler, nothing else. Tools beyond that (cargo-nextest, cargo-deny,
//! typos, Node and a browser for the dashboard, a driver for GPUs) are used when they are installed and named when they are
//! not; on Debian the last three are installed.

mod api;
mod apt;
mod bench;
mod cargo;
mod clients;
mod fuzz;
mod layering;
mod node;
mod npm;
mod python;
mod test;
mod vulkan;
mod web;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Talka's development tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run every check and test; exit 1 and name what failed
    #[command(after_help = "Example: cargo xtask test --fast")]
    Test {
        /// Leave out clippy and the documentation
        #[arg(long)]
        fast: bool,
    },
    /// Compare a running node's answers with /openapi.json by Schemathesis, which comes from PyPI
    Api,
    /// Compare the code with the crate table and the rules of ARCHITECTURE.md
    Layering,
    /// Rewrite the golden files from the code, to be reviewed like code
    Bless,
    /// Check and build the dashboard and compare it with the committed bundle
    Web {
        /// Put what was built in its place
        #[arg(long)]
        write: bool,
        /// Draw the pictures in docs/dashboard anew instead, with real nodes in a real browser
        #[arg(long, conflicts_with = "write")]
        shots: bool,
    },
    /// Feed wrong bytes to every decoder of files and messages, and stop at the first that fails
    #[command(after_help = "Example: cargo xtask fuzz gguf --minutes 10")]
    Fuzz {
        /// One of fuzz/fuzz_targets; all of them without
        target: Option<String>,
        /// How long each runs
        #[arg(long, default_value_t = 1)]
        minutes: u32,
    },
    /// Measure speed; `cargo xtask bench` alone measures the engine
    #[command(disable_help_flag = true)]
    Bench {
        /// What to measure, then its own arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Test { fast } => test::run(fast),
        Command::Api => api::run().map(|skipped| {
            if let Some(why) = skipped {
                println!("skipped: {why}");
            }
        }),
        Command::Layering => layering::run(),
        Command::Bless => test::bless(),
        Command::Web { write, shots } => web::command(write, shots),
        Command::Fuzz { target, minutes } => fuzz::run(target.as_deref(), minutes),
        Command::Bench { arguments } => bench::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
