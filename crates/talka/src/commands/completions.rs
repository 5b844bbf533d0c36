//! `talka completions`: a script for a shell, made from the same definitions that read the command line.

use crate::{
    cli::{Cli, CompletionsArgs},
    exit::Exit,
    output,
};
use anyhow::Result;
use clap::CommandFactory;

pub fn run(args: &CompletionsArgs) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "talka", &mut script);
    output::text_now(&String::from_utf8(script)?)?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;
    use clap_complete::Shell;

    /// Goal: no shell is offered a part of the commands only. Method: each script names every command.
    #[test]
    fn every_shell_completes_every_command() {
        let names: Vec<_> =
            Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "talka", &mut script);
            let script = String::from_utf8(script).expect("scripts are text");
            for word in names.iter().map(String::as_str).chain(["data-dir", "max-tokens"]) {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
