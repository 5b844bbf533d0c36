//! `cargo xtask fuzz`: bytes that nobody would write, into every decoder of files and messages.
//!
//! Runs the targets of `fuzz/` through cargo-fuzz, one after the other, from the seeds in `fixtures/fuzz` and
//! what earlier runs left in `fuzz/corpus`. Stops at the first target that crashes, hangs or takes too much
//! memory; the input that did it stays in `fuzz/artifacts`.

use crate::cargo::{root, succeeds, tool};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A program of `fuzz/fuzz_targets`.
struct Target {
    name: &'static str,
    /// What it needs of `fuzz/Cargo.toml`.
    features: &'static [&'static str],
    /// Folders of inputs to start from, and a list of words, if there are such.
    seeds: &'static [&'static str],
    words: Option<&'static str>,
    /// A folder of inputs written in hexadecimal.
    hex: Option<&'static str>,
    /// The longest input that is tried: a little above the largest seed, as every byte costs time.
    bytes_max: u32,
}

const TARGETS: [Target; 7] = [
    Target {
        name: "gguf",
        features: &[],
        seeds: &["fixtures/fuzz/gguf"],
        words: Some("fixtures/fuzz/gguf.dict"),
        hex: None,
        bytes_max: 1 << 15,
    },
    Target {
        name: "safetensors",
        features: &[],
        seeds: &["fixtures/fuzz/safetensors"],
        words: None,
        hex: None,
        bytes_max: 1 << 15,
    },
    Target {
        name: "settings",
        features: &[],
        seeds: &["fixtures/fuzz/settings"],
        words: None,
        hex: None,
        bytes_max: 1 << 13,
    },
    Target {
        name: "ledger",
        features: &[],
        seeds: &[],
        words: None,
        hex: Some("crates/ledger/golden"),
        bytes_max: 1 << 13,
    },
    Target {
        name: "log",
        features: &[],
        seeds: &["crates/ledger/golden"],
        words: None,
        hex: None,
        bytes_max: 1 << 13,
    },
    Target {
        name: "training",
        features: &["training"],
        seeds: &[],
        words: None,
        hex: Some("crates/train/golden"),
        bytes_max: 1 << 13,
    },
    Target {
        name: "wire",
        features: &["network"],
        seeds: &[],
        words: None,
        hex: None,
        bytes_max: 1 << 13,
    },
];

/// One input may take so long: no model of the seeds' size needs a second, even with sanitizers.
const INPUT_SECONDS_MAX: u32 = 20;
/// An input of some kilobytes that needs more than this is a fault. The sanitizer itself takes a part.
const MEMORY_MB_MAX: u32 = 2048;

/// Runs `name`, or every target, for `minutes` each.
///
/// # Errors
/// If there is no such target, a tool is missing (with how to get it), or a target found something.
pub fn run(name: Option<&str>, minutes: u32) -> Result<()> {
    let chosen: Vec<&Target> =
        TARGETS.iter().filter(|target| name.is_none_or(|name| name == target.name)).collect();
    if chosen.is_empty() {
        let names = TARGETS.map(|target| target.name).join(", ");
        bail!("no target {:?}, expected one of {names}", name.unwrap_or_default());
    }
    require_tools()?;
    for target in chosen {
        println!("\n=== {} for {minutes} min", target.name);
        fs::create_dir_all(corpus(target)).context("no folder for the corpus")?;
        if let Some(folder) = target.hex {
            unpack(&root().join(folder), &corpus(target))?;
        }
        let status = command(target, minutes).status().context("cargo did not start")?;
        if !status.success() {
            bail!(
                "{} found something: the input is in fuzz/artifacts/{}. Mend it, with a test of that \
                 input; the command to run it again stands above",
                target.name,
                target.name
            );
        }
    }
    Ok(())
}

fn require_tools() -> Result<()> {
    let nightly = |arguments: &[&str]| {
        let mut command = cargo_nightly();
        command.args(arguments);
        succeeds(command)
    };
    if !nightly(&["--version"]) {
        bail!("fuzzing needs the nightly compiler: run `rustup toolchain install nightly`");
    }
    if !nightly(&["fuzz", "--version"]) {
        bail!("fuzzing needs cargo-fuzz: run `cargo install cargo-fuzz --locked`");
    }
    Ok(())
}

/// Rustup's cargo, which knows toolchains by name; the one that runs us may not.
fn cargo_nightly() -> Command {
    let mut command = tool(Path::new("cargo"));
    command.env_remove("CARGO").arg("+nightly");
    command
}

fn corpus(target: &Target) -> PathBuf {
    root().join("fuzz/corpus").join(target.name)
}

/// Writes the bytes of every `.hex` file of `from` into `to`.
fn unpack(from: &Path, to: &Path) -> Result<()> {
    let cannot = || format!("cannot read {}", from.display());
    for entry in fs::read_dir(from).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        if path.extension().is_none_or(|extension| extension != "hex") {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(cannot)?;
        let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
        let bytes: Vec<u8> =
            digits.as_chunks().0.iter().map(|[high, low]| (high << 4 | low) as u8).collect();
        let name = path.file_stem().expect("it has an extension");
        fs::write(to.join(name), bytes).context("cannot write a seed")?;
    }
    Ok(())
}

fn command(target: &Target, minutes: u32) -> Command {
    let mut command = cargo_nightly();
    command.args(["fuzz", "run", "--fuzz-dir", "fuzz"]);
    if !target.features.is_empty() {
        command.arg("--features").arg(target.features.join(","));
    }
    // What is new goes to the first folder; the others are only read.
    command.arg(target.name).arg(corpus(target)).args(target.seeds);
    command.arg("--");
    command.arg(format!("-max_total_time={}", minutes.saturating_mul(60)));
    command.args([format!("-max_len={}", target.bytes_max), "-len_control=0".into()]);
    command.arg(format!("-timeout={INPUT_SECONDS_MAX}"));
    // Nothing here leaks by design, and a search of all memory after every input costs most of the time.
    command.arg("-detect_leaks=0");
    command.arg(format!("-rss_limit_mb={MEMORY_MB_MAX}"));
    if let Some(words) = target.words {
        command.arg(format!("-dict={words}"));
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_a_program_and_its_seeds_are_there() {
        let programs = root().join("fuzz/fuzz_targets");
        let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).expect("a manifest");
        for target in &TARGETS {
            assert!(programs.join(format!("{}.rs", target.name)).is_file(), "{}", target.name);
            assert!(manifest.contains(&format!("name = \"{}\"", target.name)), "{}", target.name);
            for path in target.seeds.iter().chain(&target.words).chain(&target.hex) {
                assert!(root().join(path).exists(), "{path}");
            }
        }
        assert_eq!(fs::read_dir(programs).expect("a folder").count(), TARGETS.len());
    }

    #[test]
    fn a_target_that_is_none_is_refused_with_the_names() {
        let error = run(Some("tar"), 1).expect_err("no such target").to_string();
        assert_eq!(
            error,
            "no target \"tar\", expected one of gguf, safetensors, settings, ledger, log, training, wire"
        );
    }
}
