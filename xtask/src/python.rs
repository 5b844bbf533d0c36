//! Python packages for checks with programs that nobody here wrote, each set in an environment of its own.

use crate::cargo::{succeeds, tool};
use std::path::{Path, PathBuf};

/// The Python of the environment `name` below `folder`, with exactly `packages` and what they need; set up if it is not
/// there yet. Else why there is none.
///
/// # Errors
/// What is missing, for people: python3 with venv, or a way to PyPI.
pub fn environment(folder: &Path, name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let place = folder.join(name);
    let python = place.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    // Names the packages that are there: others make another environment of it.
    let mark = place.join("packages");
    let wanted = packages.join("\n");
    if std::fs::read_to_string(&mark).is_ok_and(|found| found == wanted) && works(&python) {
        return Ok(python);
    }
    let mut create = tool(Path::new("python3"));
    create.args(["-m", "venv", "--clear"]).arg(&place);
    let mut install = tool(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages);
    let done = [create, install]
        .iter_mut()
        .all(|command| command.status().is_ok_and(|status| status.success()));
    if !done || std::fs::write(&mark, wanted).is_err() {
        let packages = packages.join(" ");
        return Err(format!(
            "{packages} cannot be had: python3 with venv and a way to PyPI are needed"
        ));
    }
    Ok(python)
}

fn works(python: &Path) -> bool {
    let mut command = tool(python);
    command.arg("--version");
    succeeds(command)
}
