//! Python packages for checks with programs that nobody here wrote, each set in an environment of its own.

use crate::{
    apt,
    cargo::{succeeds, target_folder, tool},
};
use anyhow::{Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A set of packages, in an environment of its own.
pub struct Packages<'a> {
    /// Of the environment.
    pub name: &'a str,
    /// With their versions, and all that they need or pip will choose that.
    pub packages: &'a [&'a str],
}

impl Packages<'_> {
    /// The Python of the environment, if it holds exactly these packages.
    ///
    /// # Errors
    /// If cargo does not say where it builds.
    pub fn installed(&self) -> Result<Option<PathBuf>> {
        let place = self.place()?;
        let python = python_in(&place);
        let is_current = fs::read_to_string(mark(&place)).is_ok_and(|found| found == self.wanted());
        Ok((is_current && works(&python)).then_some(python))
    }

    /// The Python of the environment, which is set up if it is not there yet.
    ///
    /// # Errors
    /// What is missing, for people: python3 with venv, or a way to PyPI.
    pub fn install(&self) -> Result<PathBuf> {
        if let Some(python) = self.installed()? {
            return Ok(python);
        }
        let place = self.place()?;
        let create = || {
            let mut create = tool(Path::new("python3"));
            create.args(["-m", "venv", "--clear"]).arg(&place);
            succeeds(create)
        };
        let is_made = create() || (apt::install(&["python3", "python3-venv"]) && create());
        let python = python_in(&place);
        let mut install = tool(&python);
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        let is_done = is_made && install.args(self.packages).status()?.success();
        let names = self.packages.join(", ");
        ensure!(is_done, "{names} cannot be had: python3 with venv and a way to PyPI are needed");
        fs::write(mark(&place), self.wanted())?;
        Ok(python)
    }

    fn place(&self) -> Result<PathBuf> {
        Ok(target_folder()?.join("python").join(self.name))
    }

    fn wanted(&self) -> String {
        self.packages.join("\n")
    }
}

/// Names the packages that are there: others make another environment of it.
fn mark(place: &Path) -> PathBuf {
    place.join("packages")
}

fn python_in(place: &Path) -> PathBuf {
    place.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" })
}

fn works(python: &Path) -> bool {
    let mut command = tool(python);
    command.arg("--version");
    succeeds(command)
}
