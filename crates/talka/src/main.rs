//! The `talka` program: commands, flags, environment variables and the choice of files.
//!
//! Every decision worth testing lives in another crate; this one turns what a person typed into
//! calls of [`talka_node`] and of a running node's HTTP interface, and their answers into text.

mod bundled;
mod cli;
mod client;
mod commands;
mod env;
mod exit;
mod files;
mod hub;
mod log;
mod model_ref;
mod output;
mod progress;
mod quantity;
mod ranges;
mod shelf;
mod sse;
mod suggest;
mod upstream;

use clap::Parser;
use cli::{Cli, Command};
use exit::Exit;
use std::{ffi::OsString, process::ExitCode};

fn main() -> ExitCode {
    let cli = Cli::parse_from(typed(std::env::args_os().collect()));
    match finish(cli.command) {
        Ok(exit) => exit.into(),
        Err(error) => {
            let exit = Exit::of(&error);
            if exit != Exit::Done {
                eprintln!("error: {}", exit::explain(&error));
            }
            exit.into()
        }
    }
}

/// `talka` alone is `talka up`.
fn typed(mut args: Vec<OsString>) -> Vec<OsString> {
    if args.len() == 1 {
        args.push("up".into());
    }
    args
}

#[tokio::main]
async fn finish(command: Command) -> anyhow::Result<Exit> {
    commands::run(command).await
}
