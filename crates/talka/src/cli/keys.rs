//! Commands and flags about keys.

use super::NodeAt;
use crate::quantity;
use clap::{Args, Subcommand};
use std::time::Duration;
use talka_node::{api::Scope, base::Credits};

#[derive(Debug, Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    pub action: Option<KeysAction>,
    #[command(flatten)]
    pub at: NodeAt,
}

#[derive(Debug, Subcommand)]
pub enum KeysAction {
    /// Lists the keys that let callers in, and what was spent with each (the default)
    #[command(after_help = "Example: talka keys list")]
    List,
    /// Makes a key and prints it, this once: only its hash is kept
    #[command(
        after_help = "Example: talka keys add bob --budget 5000 --requests-per-minute 30 --expires 30d"
    )]
    Add(KeysAddArgs),
    /// Removes a key; nobody comes in with it any more
    #[command(after_help = "Example: talka keys rm bob")]
    Rm {
        /// Its name or id
        #[arg(value_name = "NAME|ID")]
        key: String,
    },
}

#[derive(Debug, Args)]
pub struct KeysAddArgs {
    /// What you call it
    pub name: String,
    /// What it is good for: infer (asking models, under /v1) or admin (all else); repeatable [default: infer]
    #[arg(long = "scope", value_name = "SCOPE")]
    pub scopes: Vec<Scope>,
    /// What may be spent with it altogether [default: no limit]
    #[arg(long, value_name = "GFT", value_parser = quantity::credits)]
    pub budget: Option<Credits>,
    /// Calls a minute; after a quiet minute all may come at once [default: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub requests_per_minute: Option<u32>,
    /// Calls at once [default: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub concurrent: Option<u32>,
    /// How long it is valid: 90s, 30m, 24h, 30d [default: until it is removed]
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    pub expires: Option<Duration>,
}
