//! `cargo xtask test`: the one command that says whether a change is good.
//!
//! Every step runs even when an earlier one failed, so one run names everything that is wrong.
//! Dependencies compile twice at most: once checked (clippy and rustdoc share it) and once built (all
//! tests share the dev profile).

use crate::{
    api,
    cargo::{cargo, succeeds, tool},
    clients, layering, vulkan, web,
};
use anyhow::{Context, Result, bail};
use std::{
    fmt::Display,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// How a step ended.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    /// With what to do about it.
    Failed(String),
    /// With what is missing and how to get it.
    Skipped(String),
}

/// One line of the summary.
struct Done {
    name: &'static str,
    outcome: Outcome,
    took: Duration,
}

/// A named check.
type Step = (&'static str, fn() -> Outcome);

/// Runs every step, the quick ones first. `fast` leaves out clippy and the documentation.
///
/// # Errors
/// Names the steps that failed.
pub fn run(fast: bool) -> Result<()> {
    let mut steps: Vec<Step> = vec![
        ("format", format),
        ("layering", layering_step),
        ("spelling", spelling),
        ("licences and advisories", licences),
        ("dashboard", dashboard),
    ];
    if !fast {
        steps.extend([("clippy", clippy as fn() -> Outcome), ("documentation", documentation)]);
    }
    steps.extend([
        ("clients of other makers", client_step as fn() -> Outcome),
        ("a driver for GPUs", gpu_driver),
        ("tests", tests),
        ("documentation tests", doc_tests),
        ("answers beside /openapi.json", api_step),
        ("dashboard in a browser", browser),
    ]);

    let started = Instant::now();
    let done: Vec<Done> = steps.into_iter().map(perform).collect();
    println!("\n{}", summary(&done, started.elapsed()));
    let failed = failed(&done);
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Runs the golden tests with leave to rewrite their files.
///
/// # Errors
/// If a golden test fails even so.
pub fn bless() -> Result<()> {
    let status = cargo(&["test", "--package", "talka-ledger", "--package", "talka-train"])
        .env("TALKA_BLESS", "1")
        .status()
        .context("cargo did not start")?;
    if !status.success() {
        bail!("the golden tests failed: see above");
    }
    println!("golden files written: review them with `git diff -- '*golden*'`");
    Ok(())
}

fn perform((name, step): Step) -> Done {
    println!("\n=== {name}");
    let started = Instant::now();
    let outcome = step();
    let took = started.elapsed();
    println!("=== {}", line(name, &outcome, took));
    Done { name, outcome, took }
}

fn failed(done: &[Done]) -> Vec<&'static str> {
    done.iter().filter(|d| matches!(d.outcome, Outcome::Failed(_))).map(|d| d.name).collect()
}

fn summary(done: &[Done], took: Duration) -> String {
    let mut text = String::from("=== summary\n");
    for Done { name, outcome, took } in done {
        text += &line(name, outcome, *took);
        text.push('\n');
    }
    let verdict = if failed(done).is_empty() { "all passed" } else { "FAILED" };
    text + &format!("{verdict} in {:.1} s", took.as_secs_f32())
}

fn line(name: &str, outcome: &Outcome, took: Duration) -> String {
    let seconds = took.as_secs_f32();
    match outcome {
        Outcome::Passed => format!("{name}: passed in {seconds:.1} s"),
        Outcome::Failed(what) => format!("{name}: FAILED in {seconds:.1} s: {what}"),
        Outcome::Skipped(why) => format!("{name}: skipped: {why}"),
    }
}

fn format() -> Outcome {
    component("rustfmt", "fmt")
        .unwrap_or_else(|| judge(cargo(&["fmt", "--all", "--check"]), "run `cargo fmt --all`"))
}

fn layering_step() -> Outcome {
    told(layering::run())
}

fn spelling() -> Outcome {
    let typos = Path::new("typos");
    if !succeeds(with(tool(typos), &["--version"])) {
        return Outcome::Skipped("not installed, cargo install typos-cli --locked".into());
    }
    judge(tool(typos), "mend the word, or list it in _typos.toml with its reason")
}

fn licences() -> Outcome {
    if !succeeds(cargo(&["deny", "--version"])) {
        return Outcome::Skipped("not installed, cargo install cargo-deny --locked".into());
    }
    let command = cargo(&["deny", "--workspace", "check", "--hide-inclusion-graph"]);
    judge(command, "see deny.toml for what is allowed")
}

fn dashboard() -> Outcome {
    match web::lack() {
        Some(lack) => left_out(&lack, "THE PAGE WAS NOT BUILT, COMPARED OR TESTED"),
        None => told(web::run(false)),
    }
}

fn browser() -> Outcome {
    const UNTRIED: &str = "THE PAGE WAS TRIED IN NO BROWSER";
    match (web::lack(), web::browser()) {
        (None, Ok(browser)) => told(web::try_in(&browser, false)),
        (Some(lack), _) => left_out(&lack, UNTRIED),
        (None, Err(lack)) => left_out(&lack, UNTRIED),
    }
}

fn left_out(lack: &dyn Display, what: &str) -> Outcome {
    let text = format!("{lack}; {what}");
    eprintln!("warning: {text}");
    Outcome::Skipped(text)
}

fn told(done: Result<()>) -> Outcome {
    match done {
        Ok(()) => Outcome::Passed,
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}

fn clippy() -> Outcome {
    component("clippy", "clippy").unwrap_or_else(|| {
        let lint = ["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"];
        judge(cargo(&lint), "mend what clippy names")
    })
}

fn documentation() -> Outcome {
    let mut command = cargo(&["doc", "--workspace", "--no-deps"]);
    command.env("RUSTDOCFLAGS", "--deny warnings");
    judge(command, "mend what rustdoc names")
}

/// Only installs them; the tests are among the others.
fn client_step() -> Outcome {
    match clients::install() {
        Ok(()) => Outcome::Passed,
        Err(missing) => Outcome::Skipped(missing),
    }
}

/// Only sees to it that there is one; the tests are among the others.
fn gpu_driver() -> Outcome {
    match vulkan::driver() {
        Ok(()) => Outcome::Passed,
        Err(lack) => left_out(&lack, "KERNELS FOR GPUS WERE NOT TRIED"),
    }
}

fn tests() -> Outcome {
    let mut tests = if succeeds(cargo(&["nextest", "--version"])) {
        cargo(&["nextest", "run", "--workspace", "--no-fail-fast"])
    } else {
        println!("cargo-nextest is not installed: cargo test serves");
        cargo(&["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"])
    };
    tests.envs(clients::variables());
    judge(tests, "see the failing tests above")
}

fn doc_tests() -> Outcome {
    judge(
        cargo(&["test", "--workspace", "--doc", "--no-fail-fast"]),
        "see the failing examples above",
    )
}

fn api_step() -> Outcome {
    match api::run() {
        Ok(None) => Outcome::Passed,
        Ok(Some(why)) => Outcome::Skipped(why),
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}

/// Makes sure that a component of the toolchain is there. `None` is good news.
///
/// A toolchain of rustup's minimal profile lacks rustfmt and clippy, and a fresh machine may have just
/// that, so we ask rustup for them once.
fn component(name: &str, subcommand: &str) -> Option<Outcome> {
    let works = || succeeds(cargo(&[subcommand, "--version"]));
    if works() {
        return None;
    }
    println!("{name} is not installed: asking rustup for it");
    let added = with(tool(Path::new("rustup")), &["component", "add", name]).status();
    if added.is_ok_and(|status| status.success()) && works() {
        return None;
    }
    Some(Outcome::Failed(format!("{name} is missing: run `rustup component add {name}`")))
}

fn with(mut command: Command, arguments: &[&str]) -> Command {
    command.args(arguments);
    command
}

fn judge(mut command: Command, advice: &str) -> Outcome {
    match command.status() {
        Ok(status) if status.success() => Outcome::Passed,
        Ok(_) => Outcome::Failed(advice.into()),
        Err(error) => Outcome::Failed(format!("{command:?} did not start: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(name: &'static str, outcome: Outcome) -> Done {
        Done { name, outcome, took: Duration::from_millis(1500) }
    }

    #[test]
    fn the_summary_names_what_failed_and_what_was_skipped() {
        let steps = [
            done("format", Outcome::Passed),
            done("spelling", Outcome::Skipped("not installed".into())),
            done("tests", Outcome::Failed("see above".into())),
        ];
        assert_eq!(failed(&steps), ["tests"]);
        assert_eq!(
            summary(&steps, Duration::from_secs(3)),
            "=== summary\nformat: passed in 1.5 s\nspelling: skipped: not installed\n\
             tests: FAILED in 1.5 s: see above\nFAILED in 3.0 s"
        );
    }

    #[test]
    fn a_command_that_fails_or_does_not_exist_fails_its_step() {
        assert_eq!(judge(cargo(&["--version"]), "advice"), Outcome::Passed);
        let wrong = judge(cargo(&["--no-such-flag"]), "advice");
        assert_eq!(wrong, Outcome::Failed("advice".into()));
        let missing = judge(tool(Path::new("talka-no-such-program")), "advice");
        assert!(matches!(missing, Outcome::Failed(text) if text.contains("did not start")));
    }
}
