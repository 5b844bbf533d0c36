//! One module per command. Each prints its own answer and returns how it ended.

mod bench;
mod chat;
mod completions;
mod credits;
mod doctor;
mod govern;
mod invite;
mod join;
mod keys;
mod ledger;
mod login;
mod man;
mod member;
mod models;
mod peers;
mod requests;
mod run;
mod service;
mod status;
mod top;
mod train;
mod up;

use crate::{cli::Command, exit::Exit};

/// Runs `command` to its end.
///
/// # Errors
/// Whatever kept it from its end; [`Exit::of`] gives the exit code.
pub async fn run(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Up(args) => up::run(args).await,
        Command::Run(args) => run::run(args).await,
        Command::Chat(args) => chat::run(args).await,
        Command::Invite(args) => invite::run(args).await,
        Command::Join(args) => join::run(args).await,
        Command::Models(args) => models::run(args).await,
        Command::Peers(args) => peers::run(args).await,
        Command::Status(at) => status::run(at).await,
        Command::Credits(args) => credits::run(args).await,
        Command::Govern(args) => govern::run(args).await,
        Command::Member(args) => member::run(args).await,
        Command::Keys(args) => keys::run(args).await,
        Command::Ledger(args) => ledger::run(args).await,
        Command::Login(at) => login::run(at).await,
        Command::Bench(args) => bench::run(args).await,
        Command::Doctor(args) => doctor::run(args).await,
        Command::Top(args) => top::run(args).await,
        Command::Train(args) => train::run(args).await,
        Command::Service(args) => service::run(args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}
