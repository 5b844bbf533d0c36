//! `talka man`: manual pages, made from the same definitions that read the command line.
//!
//! Departs from what `clap_mangen` makes by itself in three places: the example has a heading of its own, each page
//! names the others, and the first one says what exit codes and environment variables mean.

use crate::{
    cli::{Cli, ManArgs},
    env,
    exit::Exit,
    output,
};
use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};
use std::{fs, path::Path};

/// What the exit codes of [`Exit`] mean to whoever reads them.
const EXITS: [(Exit, &str); 5] = [
    (Exit::Done, "It did what was asked."),
    (Exit::Failed, "It could not."),
    (Exit::Usage, "It was asked for something that it does not understand."),
    (Exit::Refused, "It was not allowed to: credits, a key, an invitation."),
    (Exit::NoRoute, "No node answers, or no nodes cover the model."),
];

/// What the variables of [`mod@env`] are for.
const VARIABLES: [(&str, &str); 9] = [
    (env::DATA_DIR, "Stands for --data-dir."),
    (env::API_KEY, "The key itself, instead of a file named by --api-key-file."),
    (env::LOG, "What is logged, such as debug, or info,talka_net=trace."),
    (env::NO_COLOR, "Any value but the empty one turns colours off."),
    (env::HF_ENDPOINT, "Address of the hub that models come from."),
    (env::HF_TOKEN, "The token that tells the hub who asks."),
    (env::HF_TOKEN_PATH, "The file that holds the token."),
    (env::HF_HOME, "The folder of the hub's own tools, where the token lies."),
    (env::HF_HUB_OFFLINE, "Stands for --offline."),
];

pub fn run(args: &ManArgs) -> Result<Exit> {
    let pages = pages()?;
    let Some(dir) = &args.dir else {
        output::text_now(&pages[0].text)?;
        return Ok(Exit::Done);
    };
    fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
    let paths = pages.iter().map(|page| page.write(dir)).collect::<Result<Vec<_>>>()?;
    if args.json {
        output::json(&paths)?;
    } else {
        output::line(format!("{} pages are in {}", paths.len(), dir.display()))?;
    }
    Ok(Exit::Done)
}

/// One manual page.
struct Page {
    file: String,
    text: String,
}

impl Page {
    fn write(&self, dir: &Path) -> Result<String> {
        let path = dir.join(&self.file);
        fs::write(&path, &self.text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path.display().to_string())
    }
}

/// The page of `talka`, then those of its commands.
fn pages() -> Result<Vec<Page>> {
    let mut first = Cli::command().disable_help_subcommand(true);
    first.build();
    let mut pages = vec![page(&first, &ends_and_variables())?];
    let mut commands: Vec<_> = first.get_subcommands().collect();
    while let Some(command) = commands.pop() {
        pages.push(page(command, "")?);
        commands.extend(command.get_subcommands());
    }
    pages[1..].sort_by(|a, b| a.file.cmp(&b.file));
    Ok(pages)
}

fn page(command: &Command, more: &str) -> Result<Page> {
    let man = Man::new(command.clone()).manual("Talka");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    if command.get_arguments().next().is_some() {
        man.render_options_section(&mut text)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let mut text = String::from_utf8(text)?;
    text += &example(command);
    text += more;
    Ok(Page { file: man.get_filename(), text })
}

fn example(command: &Command) -> String {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let mut roff = Roff::new();
    roff.control("SH", ["EXAMPLE"]);
    roff.text([roman(help.trim_start_matches("Example: "))]);
    roff.render()
}

/// What only the first page says.
fn ends_and_variables() -> String {
    let mut roff = Roff::new();
    let mut listed = |heading: &str, items: &mut dyn Iterator<Item = (String, &str)>| {
        roff.control("SH", [heading]);
        for (name, meaning) in items {
            roff.control("TP", []);
            roff.text([bold(name)]);
            roff.text([roman(meaning)]);
        }
    };
    listed(
        "EXIT STATUS",
        &mut EXITS.into_iter().map(|(exit, text)| ((exit as u8).to_string(), text)),
    );
    listed("ENVIRONMENT", &mut VARIABLES.into_iter().map(|(name, text)| (name.to_owned(), text)));
    roff.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a page for each command, which says all that its help says. Method: the definitions are walked.
    #[test]
    fn every_command_has_a_page_with_its_flags_and_example() {
        let pages = pages().expect("pages");
        let text = |name: &str| {
            let found = pages.iter().find(|page| page.file == format!("{name}.1"));
            found.unwrap_or_else(|| panic!("no page of {name}")).text.replace("\\-", "-")
        };
        let mut first = Cli::command().disable_help_subcommand(true);
        first.build();
        let (mut commands, mut count) = (vec![&first], 0);
        while let Some(command) = commands.pop() {
            let page = text(command.get_display_name().unwrap_or(command.get_name()));
            for flag in command.get_arguments().filter_map(|argument| argument.get_long()) {
                assert!(page.contains(&format!("--{flag}")), "{flag}: {page}");
            }
            assert!(page.contains(".SH EXAMPLE\n"), "{page}");
            commands.extend(command.get_subcommands());
            count += 1;
        }
        assert_eq!(count, pages.len());
        let first = text("talka");
        assert!(first.contains("No node answers") && first.contains("NO_COLOR"), "{first}");
        assert!(!text("talka-models-pull").contains("EXIT STATUS"));
    }
}
