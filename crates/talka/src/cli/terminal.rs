//! Flags of the commands for people at a terminal: what is watched, and what is set up once.

use super::NodeAt;
use crate::quantity;
use clap::{Args, Subcommand};
use clap_complete::Shell;
use std::{path::PathBuf, time::Duration};

#[derive(Debug, Args)]
pub struct TopArgs {
    /// How often the node is asked, and with --json over what time rates are taken
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = quantity::duration)]
    pub interval: Duration,
    #[command(flatten)]
    pub at: NodeAt,
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Which shell
    pub shell: Shell,
}

#[derive(Debug, Args)]
pub struct ManArgs {
    /// Folder to write a page of each command to; it is made if it is missing [default: print the first page]
    pub dir: Option<PathBuf>,
    /// Print the paths written as one JSON document
    #[arg(long, requires = "dir")]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ServiceArgs {
    #[command(subcommand)]
    pub action: ServiceAction,
    /// Print one JSON document
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum ServiceAction {
    /// Writes the service, starts it now and at every login
    #[command(after_help = "Example: talka service install -- --model bard --threads 4")]
    Install {
        /// Only print the unit: write nothing, start nothing
        #[arg(long)]
        print: bool,
        /// Only write the unit: start nothing
        #[arg(long, conflicts_with = "print")]
        no_start: bool,
        /// Flags of `talka up` for the node, after `--`; relative paths are taken from this folder
        #[arg(last = true, value_name = "FLAGS", allow_hyphen_values = true)]
        flags: Vec<String>,
    },
    /// Stops the service and removes it; the data directory stays
    #[command(after_help = "Example: talka service uninstall")]
    Uninstall,
    /// Says whether the service is installed and runs; fails if it does not
    #[command(after_help = "Example: talka service status --json")]
    Status,
}
