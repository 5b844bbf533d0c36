//! `talka service`: a node that systemd starts at login and starts again when it fails.
//!
//! A user unit, never a system one: it needs no root, and the node runs as whoever installed it. What the unit says
//! is decided in `unit`, what the system reports in `manager`; here they are put together. Other systems are refused
//! by name rather than half served.

mod manager;
mod unit;

use crate::{
    cli::{Cli, Command, ServiceAction, ServiceArgs},
    env,
    exit::{Exit, UsageError},
    output,
};
use anyhow::{Context, Result};
use clap::Parser;
use directories::BaseDirs;
use manager::{Manager, UNIT};
use serde_json::json;
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use unit::Unit;

/// What to say where a unit is of no use.
const STARTED_BY_HAND: &str =
    "start the node with `talka up` instead, by whatever starts programs here";

pub fn run(args: ServiceArgs) -> Result<Exit> {
    match args.action {
        ServiceAction::Install { print: true, flags, .. } => {
            let unit = unit(flags)?.to_string();
            if args.json {
                output::json(&json!({ "unit": unit }))?;
            } else {
                output::text_now(&unit)?;
            }
            Ok(Exit::Done)
        }
        ServiceAction::Install { no_start, flags, .. } => install(flags, !no_start, args.json),
        ServiceAction::Uninstall => uninstall(args.json),
        ServiceAction::Status => status(args.json),
    }
}

fn install(flags: Vec<String>, start: bool, as_json: bool) -> Result<Exit> {
    served(std::env::consts::OS)?;
    let (unit, path) = (unit(flags)?, path()?);
    let folder = path.parent().context("a unit lies in a folder")?;
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&path, unit.to_string()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    if start {
        Manager.start().with_context(|| {
            format!("{} is written, but it was not started; {STARTED_BY_HAND}", path.display())
        })?;
    }
    if as_json {
        output::json(&json!({ "path": path, "started": start }))?;
        return Ok(Exit::Done);
    }
    output::line(format!("{} is written", path.display()))?;
    if start {
        output::line("the node runs, and starts at every login: talka service status")?;
        output::line("to have it run before login too: loginctl enable-linger")?;
        output::line(format!("what it logs: journalctl --user -u {UNIT}"))?;
    } else {
        output::line(format!("start it: systemctl --user enable --now {UNIT}"))?;
    }
    Ok(Exit::Done)
}

fn uninstall(as_json: bool) -> Result<Exit> {
    served(std::env::consts::OS)?;
    let path = path()?;
    if !path.exists() {
        return Err(absent(&path).into());
    }
    // One that does not run, or that nobody can ask about, is removed all the same.
    let stopped = Manager.stop();
    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    if let Err(error) = stopped.and_then(|()| Manager.reload()) {
        eprintln!("{error}");
    }
    if as_json {
        output::json(&json!({ "path": path, "removed": true }))?;
    } else {
        output::line(format!("{} is removed; the node's data stays", path.display()))?;
    }
    Ok(Exit::Done)
}

fn status(as_json: bool) -> Result<Exit> {
    served(std::env::consts::OS)?;
    let path = path()?;
    let installed = path.exists();
    let said = |question| if installed { Manager.ask(question) } else { Ok("not-found".into()) };
    let (enabled, active) = (said("is-enabled")?, said("is-active")?);
    if as_json {
        let report =
            json!({ "path": path, "installed": installed, "enabled": enabled, "active": active });
        output::json(&report)?;
    } else if installed {
        output::line(format!("unit      {}", path.display()))?;
        output::line(format!("at login  {enabled}"))?;
        output::line(format!("now       {active}"))?;
    } else {
        output::line(format!("not installed: {} is missing", path.display()))?;
    }
    Ok(if active == "active" { Exit::Done } else { Exit::Failed })
}

fn absent(path: &Path) -> UsageError {
    UsageError(format!("no service is installed: {} is missing", path.display()))
}

/// Systems without systemd are named, with what to do there.
fn served(system: &str) -> Result<(), UsageError> {
    if system == "linux" {
        return Ok(());
    }
    Err(UsageError(format!(
        "talka service knows systemd on Linux only, and this is {system}; {STARTED_BY_HAND}"
    )))
}

/// The unit of a node with `flags`, which must be such as `talka up` takes.
fn unit(flags: Vec<String>) -> Result<Unit> {
    let typed = ["talka", "up"].into_iter().map(String::from).chain(flags.iter().cloned());
    let cli = Cli::try_parse_from(typed).map_err(|error| {
        // The first line says what is wrong; the rest is the usage of another command.
        let said = error.to_string();
        let reason = said.lines().next().unwrap_or_default().trim_start_matches("error: ");
        UsageError(format!("the flags after `--` are not such as `talka up` takes: {reason}"))
    })?;
    if !matches!(cli.command, Command::Up(_)) {
        return Err(UsageError("the flags after `--` are those of `talka up` alone".into()).into());
    }
    let program = std::env::current_exe().context("the system does not say where talka is")?;
    let folder = std::env::current_dir().context("this folder is gone")?;
    Ok(Unit { program, flags, folder })
}

/// Where systemd looks for units of this user.
fn path() -> Result<PathBuf> {
    let configured = env::read(env::XDG_CONFIG_HOME).map(PathBuf::from);
    // The specification says that a relative one counts for nothing.
    let folder = configured
        .filter(|path| path.is_absolute())
        .or_else(|| BaseDirs::new().map(|dirs| dirs.home_dir().join(".config")));
    let folder = folder.ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, "this system names no home directory")
    })?;
    Ok(folder.join("systemd/user").join(UNIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_systems_are_refused_by_name() {
        assert!(served("linux").is_ok());
        for system in ["macos", "windows", "freebsd"] {
            let error = served(system).expect_err(system).to_string();
            assert!(error.contains(system) && error.contains("talka up"), "{error}");
        }
    }

    #[test]
    fn only_flags_that_a_node_takes_become_a_unit() {
        let of = |flags: &[&str]| unit(flags.iter().map(ToString::to_string).collect());
        assert!(of(&["--model", "bard", "--threads", "4"]).is_ok());
        for wrong in [&["--modle", "bard"][..], &["--threads", "0"], &["bard"], &["--help"]] {
            let error = of(wrong).expect_err("wrong").to_string();
            assert!(error.contains("talka up"), "{error}");
        }
    }
}
