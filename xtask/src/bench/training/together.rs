//! Members that train together: what they come to, for how many bytes, and whether that is what must be reached.
//!
//! The recipe is that of `../shared/reference/small_runs.py`: characters, 4 layers of 128, context 64, 12 rows of each member.
//! Long runs are in bf16, which costs half the time and changes losses by less than a thousandth.

use super::{TEXT, answer};
use crate::cargo::tool;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The program that others' losses are compared with; not part of the repository.
const REFERENCE: &str = "../shared/reference/small_runs.py";
/// What it drew for others to train on.
const DRAW: &str = include_str!("draw.py");
/// Has its model in f64, from the same first weights: how far rounding alone takes it.
const EXACT: &str = "import runpy, sys, transformers; new = transformers.LlamaForCausalLM; \
                     transformers.LlamaForCausalLM = lambda config: new(config).double(); \
                     sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])";
/// A loss may differ from the reference's by so much of it.
const REFERENCE_SHARE: f64 = 0.005;

/// What a run must come to.
enum Must {
    /// Nothing: others are measured against it.
    Free,
    AtMost(f64),
    /// At most so many times the loss of another run.
    Times(f64, &'static str),
    /// At least so many times the loss of another run: what is to be seen failing.
    Fails(f64, &'static str),
}
use Must::{AtMost, Fails, Free, Times};

/// A run, by the words of the example `swarm`.
struct Case {
    name: &'static str,
    words: &'static str,
    must: Must,
}

const fn case(name: &'static str, words: &'static str, must: Must) -> Case {
    Case { name, words, must }
}

/// In the order in which they are run; whoever is compared with stands before.
const CASES: [Case; 19] = [
    case("average-2", "members=2", AtMost(1.93)),
    case("average-8", "members=8", AtMost(1.87)),
    case("honest-6", "members=6 precision=bf16", Free),
    case("liars-flip", "members=8 liars=2 lie=flip centre=krum clip precision=bf16", HONEST),
    case("liars-hundred", "members=8 liars=2 lie=hundred centre=krum clip precision=bf16", HONEST),
    case("liars-nan", "members=8 liars=2 lie=nan centre=krum clip precision=bf16", HONEST),
    case("liars-stale", "members=8 liars=2 lie=stale centre=krum clip precision=bf16", HONEST),
    case("liars-flip-mean", "members=8 liars=2 lie=flip precision=bf16", FAILS),
    case("liars-hundred-mean", "members=8 liars=2 lie=hundred precision=bf16", FAILS),
    case("quiet-8", "members=8 precision=bf16", Free),
    case("churn-8", "members=8 churn precision=bf16", Times(1.01, "quiet-8")),
    case("long-2-data-parallel", "members=2 steps=4000 synchronous precision=bf16", Free),
    case("long-2-average", "members=2 steps=4000 precision=bf16", LONG_2),
    case("long-2-top64", "members=2 steps=4000 compressor=sparse precision=bf16", DENSE_2),
    case(
        "long-2-dense4",
        "members=2 steps=4000 every=100 compressor=dense4 precision=bf16",
        LONG_2,
    ),
    case("long-8-data-parallel", "members=8 steps=4000 synchronous precision=bf16", Free),
    case("long-8-average", "members=8 steps=4000 precision=bf16", LONG_8),
    case("long-8-top64", "members=8 steps=4000 compressor=sparse precision=bf16", DENSE_8),
    case("long-8-top192", "members=8 steps=4000 compressor=sparse top=192 precision=bf16", DENSE_8),
];
const HONEST: Must = Times(1.01, "honest-6");
/// Twice what may be lost with a rule that holds.
const FAILS: Must = Fails(1.02, "honest-6");
const LONG_2: Must = Times(1.02, "long-2-data-parallel");
/// What a thousand times fewer bytes may cost.
const DENSE_2: Must = Times(1.02, "long-2-average");
const DENSE_8: Must = Times(1.02, "long-8-average");
const LONG_8: Must = Times(1.05, "long-8-data-parallel");

/// What the reference is compared in: its words and ours.
const REFERENCES: [[&str; 3]; 3] = [
    ["average", "--outer-lr 1 --momentum 0", "rate=1 momentum=0"],
    ["nesterov", "--outer-lr 0.7 --momentum 0.9", "rate=0.7 momentum=0.9"],
    ["top64", "--top 64", "rate=1 momentum=0 compressor=sparse cut=tensors"],
];

/// Prints the tables of the cases that have `only` in their names.
///
/// # Errors
/// If a program does not run, or a case does not come to what it must.
pub fn run(ours: &Path, threads: usize, python: Option<&Path>, only: Option<&str>) -> Result<()> {
    if !Path::new(TEXT).exists() {
        println!("\nLEFT OUT: members that train together, for {TEXT} is not there");
        return Ok(());
    }
    let missed = [cases(ours, threads, only)?, references(ours, threads, python, only)?].concat();
    ensure!(missed.is_empty(), "missed: {}", missed.join(", "));
    Ok(())
}

fn is_wanted(name: &str, only: Option<&str>) -> bool {
    only.is_none_or(|part| name.contains(part))
}

/// Names of the cases that missed what they must reach.
fn cases(ours: &Path, threads: usize, only: Option<&str>) -> Result<Vec<String>> {
    let wanted: Vec<&Case> = CASES.iter().filter(|case| is_wanted(case.name, only)).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let is_base = |case: &Case| {
        wanted.iter().any(
            |wanted| matches!(wanted.must, Times(_, base) | Fails(_, base) if base == case.name),
        )
    };
    println!("\n| case | validation loss | must be | bytes of a member | times fewer | bits | s |");
    println!("|---|---|---|---|---|---|---|");
    let (mut losses, mut missed) = (BTreeMap::new(), Vec::new());
    for case in CASES.iter().filter(|case| is_wanted(case.name, only) || is_base(case)) {
        let report = swarm(ours, threads, &format!("text={TEXT}"), case.words)?;
        // A run that diverged has none, and fails whatever it must reach.
        let loss = report["validation_loss"].as_f64().unwrap_or(f64::INFINITY);
        let base = |name| losses.get(name).copied().with_context(|| format!("{name} comes later"));
        // What others are only compared with need not reach anything.
        let must = if is_wanted(case.name, only) { &case.must } else { &Free };
        let (must, is_reached) = match *must {
            Free => ("".into(), true),
            AtMost(most) => (format!("<= {most}"), loss <= most),
            Times(times, name) => {
                let most = times * base(name)?;
                (format!("<= {most:.4}, {times} of {name}"), loss <= most)
            }
            Fails(times, name) => {
                let least = times * base(name)?;
                (format!("> {least:.4}, {times} of {name}"), loss > least)
            }
        };
        losses.insert(case.name, loss);
        if !is_reached {
            missed.push(case.name.to_owned());
        }
        let number = |field: &str| report[field].as_f64().unwrap_or(f64::NAN);
        println!(
            "| {} | {loss:.4} | {must} | {:.0} | {:.0} | {:.4} | {:.0} |",
            case.name,
            number("bytes_of_a_member"),
            number("fewer_than_data_parallel"),
            number("bits_a_parameter"),
            number("seconds")
        );
    }
    Ok(missed)
}

/// The same batches and first weights in PyTorch.
fn references(
    ours: &Path,
    threads: usize,
    python: Option<&Path>,
    only: Option<&str>,
) -> Result<Vec<String>> {
    let names = REFERENCES.iter().map(|[name, ..]| format!("reference-{name}"));
    let wanted: Vec<_> = names.zip(REFERENCES).filter(|(name, _)| is_wanted(name, only)).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let Some(python) = python.filter(|_| Path::new(REFERENCE).exists()) else {
        println!("\nLEFT OUT: the comparison with {REFERENCE}, which needs that file and PyTorch");
        return Ok(Vec::new());
    };
    let folder = drawn(python)?;
    println!(
        "\n| 2 members, 20 rounds of 25 steps | PyTorch in f64 | PyTorch | talka | apart | may be |"
    );
    println!("|---|---|---|---|---|---|");
    let mut missed = Vec::new();
    for (name, [_, theirs, words]) in wanted {
        let exact = reference(tool(python).args(["-c", EXACT]), theirs)?;
        let expected = reference(&mut tool(python), theirs)?;
        let report = swarm(ours, threads, &format!("given={}", folder.display()), words)?;
        let found = report["validation_loss"].as_f64().unwrap_or(f64::INFINITY);
        let apart = (found - expected).abs() / expected;
        println!(
            "| {name} | {exact:.4} | {expected:.4} | {found:.4} | {apart:.4} | {REFERENCE_SHARE} |"
        );
        if apart > REFERENCE_SHARE {
            missed.push(name);
        }
    }
    Ok(missed)
}

/// The loss that `python` comes to with the reference's program.
fn reference(python: &mut Command, words: &str) -> Result<f64> {
    python.args([REFERENCE, TEXT, "--members", "2", "--steps", "500", "--every", "25"]);
    let output = python.args(words.split(' ')).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let loss = said.trim().rsplit(' ').next().and_then(|loss| loss.parse().ok());
    loss.with_context(|| format!("{REFERENCE} said {said}"))
}

/// A folder with what the reference draws for two members and 500 steps.
fn drawn(python: &Path) -> Result<PathBuf> {
    let folder = crate::cargo::target_folder()?.join("bench/training");
    fs::create_dir_all(&folder)?;
    let mut draw = tool(python);
    draw.args(["-c", DRAW, TEXT]).arg(&folder).args(["2", "500"]);
    ensure!(draw.status()?.success(), "the reference's batches could not be drawn");
    Ok(folder)
}

fn swarm(ours: &Path, threads: usize, material: &str, words: &str) -> Result<Value> {
    let mut command = Command::new(ours);
    command.arg(material).args(words.split(' '));
    answer(command.args([format!("threads={threads}"), "curve=0".into()]))
}
