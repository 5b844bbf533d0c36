//! `cargo xtask web`: builds the dashboard, holds the committed bundle to its source, and tries the page in a browser.
//!
//! Needs Node and npm, which nothing else here does: that is why the bundle is committed. The libraries are those of
//! `web/package-lock.json`, to the byte, so the same source gives the same bundle on every machine. The browser is the
//! one of the system: none is downloaded.

use crate::{
    apt,
    cargo::{root, succeeds, talka, tool},
};
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Where the bundle is committed, from the root.
const PAGE: &str = "crates/gateway/page";

/// The oldest Node that the page's tools run on: major and minor number.
const NODE_MIN: (u32, u32) = (20, 19);

/// Browsers that tests drive, by their programs' names; the first is Debian's package, too.
const BROWSERS: [&str; 4] =
    ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// What keeps the page from being built or tried here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// Node or npm, or they are too old.
    #[error("Node {}.{} or newer and npm are not installed, nor could they be", NODE_MIN.0, NODE_MIN.1)]
    Npm,
    /// The way to the registry, and the libraries are not here.
    #[error("npm reaches no registry, and the libraries are not here")]
    Registry,
    /// A browser.
    #[error("Chromium is not installed, nor could it be")]
    Browser,
}

/// Why the page cannot be built on this machine, if it cannot. Installs what can be installed.
pub fn lack() -> Option<Lack> {
    let ready = || has_node() && succeeds(with("npm", &["--version"]));
    let is_ready = ready() || (apt::install(&["nodejs", "npm"]) && ready());
    if !is_ready {
        return Some(Lack::Npm);
    }
    (!installed() && !succeeds(npm(&["ping"]))).then_some(Lack::Registry)
}

fn has_node() -> bool {
    let output = with("node", &["--version"]).output();
    output.is_ok_and(|output| is_new_enough(&String::from_utf8_lossy(&output.stdout)))
}

/// Whether `version`, such as `v20.19.2`, will do.
fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.trim().trim_start_matches('v').split('.').map(str::parse::<u32>);
    matches!((numbers.next(), numbers.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= NODE_MIN)
}

/// The browser of this machine, which is installed if it is missing and that can be done.
///
/// # Errors
/// [`Lack::Browser`].
pub fn browser() -> Result<PathBuf, Lack> {
    let found = || {
        let paths = env::var_os("PATH")?;
        let folders = env::split_paths(&paths).collect::<Vec<_>>();
        let places = BROWSERS.iter().flat_map(|name| folders.iter().map(move |f| f.join(name)));
        places.into_iter().find(|path| path.is_file())
    };
    found().or_else(|| apt::install(&BROWSERS[..1]).then(found).flatten()).ok_or(Lack::Browser)
}

/// Tries the page in `browser` with real nodes; or, with `shots`, draws the pictures in docs/dashboard anew.
///
/// # Errors
/// If a step fails.
pub fn try_in(browser: &Path, shots: bool) -> Result<()> {
    install_libraries()?;
    let mut tests = npm(&["run", if shots { "shots" } else { "e2e" }]);
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
    install_libraries()?;
    step("npm run check", npm(&["run", "check"]))?;
    step("npm test", npm(&["test"]))?;
    let built = root().join("target/page");
    let mut build = npm(&["run", "build"]);
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

fn with(program: &str, arguments: &[&str]) -> Command {
    let mut command = tool(Path::new(program));
    command.args(arguments);
    command
}

fn npm(arguments: &[&str]) -> Command {
    let mut command = with("npm", arguments);
    command.current_dir(root().join("web"));
    command
}

fn install_libraries() -> Result<()> {
    if installed() { Ok(()) } else { step("npm ci", npm(&["ci", "--no-audit", "--no-fund"])) }
}

/// Whether the libraries are here as the lock wants them: npm notes what it installed, in the form of the lock.
fn installed() -> bool {
    let packages = |path: &str| {
        let text = fs::read_to_string(root().join("web").join(path)).ok()?;
        let lock: serde_json::Value = serde_json::from_str(&text).ok()?;
        lock.get("packages")?.as_object().cloned()
    };
    let Some(wanted) = packages("package-lock.json") else { return false };
    let Some(found) = packages("node_modules/.package-lock.json") else { return false };
    // Packages for other systems are in the lock only.
    let needed = |name: &str, package: &serde_json::Value| {
        !name.is_empty() && package.get("optional") != Some(&serde_json::Value::Bool(true))
    };
    wanted.iter().filter(|(name, package)| needed(name, package)).all(|(name, package)| {
        found.get(name).is_some_and(|has| has.get("integrity") == package.get("integrity"))
    })
}

fn step(name: &str, mut command: Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{name} did not start"))?;
    if !status.success() {
        bail!("{name} failed: see above");
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
    fn an_old_node_will_not_do() {
        for version in ["v20.19.0\n", "v22.0.0", "20.20.2"] {
            assert!(is_new_enough(version), "{version}");
        }
        for version in ["v18.19.1", "v20.18.9", "", "node", "v20"] {
            assert!(!is_new_enough(version), "{version}");
        }
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
