//! llama.cpp, as a Python package compiled on this machine.

use super::{GENERATED, PROMPT};
use crate::cargo::{succeeds, tool};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Fixed, so that a ratio means the same next month.
const PACKAGE: &str = "llama-cpp-python==0.3.36";
/// For this machine, and able to leave layers to another process.
const CMAKE_ARGS: &str = "-DGGML_NATIVE=ON -DGGML_RPC=ON";
/// Compiled here, and not what was compiled before with other arguments.
const INSTALL: [&str; 7] = [
    "-m",
    "pip",
    "install",
    "--no-cache-dir",
    "--force-reinstall",
    "--no-binary",
    "llama-cpp-python",
];
const SCRIPT: &str = include_str!("peer.py");

/// `python`, if it has the package; else why not.
pub fn given(python: &Path) -> Result<PathBuf, String> {
    if has_package(python) {
        return Ok(python.into());
    }
    Err(format!("{} cannot import llama_cpp; expected a Python with {PACKAGE}", python.display()))
}

/// The Python below `bench`, set up if it is not there yet; else why not.
pub fn built(bench: &Path) -> Result<PathBuf, String> {
    let environment = bench.join("llama-cpp");
    let python = environment.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    if has_package(&python) {
        return Ok(python);
    }
    eprintln!(
        "building {PACKAGE} for this machine, which takes up to half an hour; --no-peer skips it"
    );
    let mut create = tool(Path::new("python3"));
    create.args(["-m", "venv"]).arg(&environment);
    let mut install = tool(&python);
    install.args(INSTALL).arg(PACKAGE).env("CMAKE_ARGS", CMAKE_ARGS);
    let done = [create, install]
        .iter_mut()
        .all(|command| command.status().is_ok_and(|status| status.success()));
    if done && has_package(&python) {
        return Ok(python);
    }
    Err(format!(
        "{PACKAGE} could not be built (see above). It needs python3 with venv, a C++ compiler and \
         access to PyPI. To use another Python: {}; then add --peer python3",
        by_hand(Path::new("python3"))
    ))
}

/// What to type to have the package in `python`.
pub fn by_hand(python: &Path) -> String {
    format!("CMAKE_ARGS=\"{CMAKE_ARGS}\" {} {} {PACKAGE}", python.display(), INSTALL.join(" "))
}

fn has_package(python: &Path) -> bool {
    let mut command = tool(python);
    command.args(["-c", "import llama_cpp"]);
    succeeds(command)
}

/// Writes `from` to `to` in another encoding.
pub fn quantise(python: &Path, from: &Path, to: &Path, encoding: &str) -> Command {
    let mut command = tool(python);
    command.args(["-c", SCRIPT, "quantise"]).args([from, to]).arg(encoding);
    command
}

/// One run of llama.cpp on the file `gguf`.
pub fn command(python: &Path, gguf: &Path, threads: usize) -> Command {
    let mut command = tool(python);
    command.args(["-c", SCRIPT]).arg(gguf);
    command.args([threads, PROMPT, GENERATED].map(|number| number.to_string()));
    command
}
