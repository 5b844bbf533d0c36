//! `cargo xtask web`: builds the dashboard, holds the committed bundle to its source, and tries the page in a browser.
//!
//! Needs Node and npm, which nothing else here does: that is why the bundle is committed. The libraries are those of
//! `web/package-lock.json`, to the byte, so the same source gives the same bundle on every machine. The browser is the
//! one of the system: none is downloaded.

use crate::{
    apt,
    cargo::{root, talka},
    npm::{self, Lack, npm, step},
};
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

/// Where the bundle is committed, from the root.
const PAGE: &str = "crates/gateway/page";

/// Browsers that tests drive, by their programs' names; the first is Debian's package, too.
const BROWSERS: [&str; 4] =
    ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// No browser to try the page in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Chromium is not installed, nor could it be")]
pub struct NoBrowser;

/// Why the page cannot be built on this machine, if it cannot. Installs what can be installed.
pub fn lack() -> Option<Lack> {
    npm::lack(&folder())
}

fn folder() -> PathBuf {
    root().join("web")
}

/// The browser of this machine, which is installed if it is missing and that can be done.
///
/// # Errors
/// [`NoBrowser`].
pub fn browser() -> Result<PathBuf, NoBrowser> {
    let found = || {
        let paths = env::var_os("PATH")?;
        let folders = env::split_paths(&paths).collect::<Vec<_>>();
        let places = BROWSERS.iter().flat_map(|name| folders.iter().map(move |f| f.join(name)));
        places.into_iter().find(|path| path.is_file())
    };
    found().or_else(|| apt::install(&BROWSERS[..1]).then(found).flatten()).ok_or(NoBrowser)
}

/// Tries the page in `browser` with real nodes; or, with `shots`, draws the pictures in docs/dashboard anew.
///
/// # Errors
/// If a step fails.
pub fn try_in(browser: &Path, shots: bool) -> Result<()> {
    npm::install(&folder())?;
    let mut tests = npm(&folder(), &["run", if shots { "shots" } else { "e2e" }]);
    tests.env("TALKA_BIN", talka()?).env("TALKA_CHROMIUM", browser);
    step("the tests in the browser", tests)
}

/// `cargo xtask web`: builds and compares, or writes; with `shots` draws pictures instead.
///
/// # Errors
/// As [`run`] and [`try_in`], and if something is missing here.
pub fn command(write: bool, shots: bool) -> Result<()> {
    if let Some(lack) = lack() {
        bail!("{lack}");
    }
    if shots { try_in(&browser()?, true) } else { run(write) }
}

/// Checks types, tests, builds, and compares with the committed bundle; or, with `write`, puts the new one in its place.
///
/// # Errors
/// If a step fails, or the bundle is not what the source gives.
pub fn run(write: bool) -> Result<()> {
    npm::install(&folder())?;
    step("npm run check", npm(&folder(), &["run", "check"]))?;
    step("npm test", npm(&folder(), &["test"]))?;
    let built = root().join("target/page");
    let mut build = npm(&folder(), &["run", "build"]);
    build.env("TALKA_WEB_OUT", &built);
    step("npm run build", build)?;
    let (fresh, committed) = (files(&built)?, files(&root().join(PAGE))?);
    let different = different(&committed, &fresh);
    match different.as_slice() {
        [] => println!("{PAGE} is what web gives"),
        _ if write => {
            replace(&root().join(PAGE), &fresh)?;
            println!("written to {PAGE}: {}", different.join(", "));
        }
        _ => bail!(
            "{PAGE} is not what web gives: {}; run `cargo xtask web --write` and commit it",
            different.join(", ")
        ),
    }
    Ok(())
}

/// The files of a folder without folders, by name.
fn files(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok((name, bytes))
    };
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    entries.map(|entry| read(entry?.path())).collect()
}

/// What must change for `committed` to be `fresh`.
fn different(
    committed: &BTreeMap<String, Vec<u8>>,
    fresh: &BTreeMap<String, Vec<u8>>,
) -> Vec<String> {
    let gone = committed.keys().filter(|name| !fresh.contains_key(*name));
    let gone = gone.map(|name| format!("{name} is too much"));
    let new = fresh.iter().filter_map(|(name, bytes)| match committed.get(name) {
        None => Some(format!("{name} is missing")),
        Some(old) if old != bytes => Some(format!("{name} differs")),
        Some(_) => None,
    });
    gone.chain(new).collect()
}

fn replace(folder: &Path, fresh: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    fs::create_dir_all(folder)?;
    for (name, bytes) in fresh {
        fs::write(folder.join(name), bytes).with_context(|| format!("cannot write {name}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(files: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
    }

    #[test]
    fn every_difference_is_named() {
        let committed = bundle(&[("a", "1"), ("b", "1"), ("c", "1")]);
        assert!(different(&committed, &committed).is_empty());
        let fresh = bundle(&[("a", "1"), ("b", "2"), ("d", "1")]);
        let expected = ["c is too much", "b differs", "d is missing"];
        assert_eq!(different(&committed, &fresh), expected);
    }
}
