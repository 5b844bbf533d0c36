//! Child processes: the cargo that called us, in the repository root, as if a person had typed it.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The repository root: the parent of this crate's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the root").into()
}

/// The cargo that runs us, with these arguments.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = tool(&env::var_os("CARGO").map_or("cargo".into(), PathBuf::from));
    command.args(arguments);
    command
}

/// `program`, run in the repository root.
///
/// `cargo run` describes the package it runs in the environment. Build scripts that watch those
/// variables (ring's does) would be built again at every change between `cargo` typed by hand and
/// `cargo xtask`, so they are taken out.
pub fn tool(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}

/// [`tool`] by its name on the path, with `arguments`.
pub fn with(program: &str, arguments: &[&str]) -> Command {
    let mut command = tool(Path::new(program));
    command.args(arguments);
    command
}

/// Whether the command exists and succeeds. Its output is not shown.
pub fn succeeds(mut command: Command) -> bool {
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    silent.status().is_ok_and(|status| status.success())
}

/// Where cargo puts what it builds.
///
/// # Errors
/// If cargo cannot be asked.
pub fn target_folder() -> Result<PathBuf> {
    let output = cargo(&["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let folder = metadata["target_directory"].as_str().context("cargo names no target folder")?;
    Ok(folder.into())
}

/// The program `talka` as tests run it.
///
/// Built with them: alone, its libraries would have other features, and all be built once more.
///
/// # Errors
/// If it does not build.
pub fn talka() -> Result<PathBuf> {
    let built = cargo(&["test", "--workspace", "--no-run", "--quiet"]).status();
    ensure!(built.context("cannot run cargo")?.success(), "Talka does not build");
    Ok(target_folder()?.join("debug").join(format!("talka{}", env::consts::EXE_SUFFIX)))
}
