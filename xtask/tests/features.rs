//! The page of features names tests that there are: a test that was renamed or removed must not go on proving anything.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All Rust sources under `folder`, one after the other.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text += &read(&path);
        }
    }
    text
}

/// What stands between backticks in the last cell of a row; nothing for other lines.
fn quoted(line: &str) -> Option<Vec<&str>> {
    let cells = line.strip_prefix("| ")?.strip_suffix(" |")?;
    let (_, proof) = cells.rsplit_once(" | ")?;
    (proof != "Proved by").then(|| proof.split('`').skip(1).step_by(2).collect())
}

#[test]
fn every_feature_names_tests_that_there_are() {
    let rust = sources(&root().join("crates"));
    let page = read(&root().join("docs/features.md"));
    let mut rows = 0;
    for line in page.lines() {
        let Some(words) = quoted(line) else { continue };
        let (mut file, mut tests) = (None, 0);
        for word in words {
            if word.contains('/') {
                file = Some(read(&root().join(word)));
                continue;
            }
            let is_there = match &file {
                Some(text) => text.contains(word),
                None => rust.contains(&format!("fn {word}(")),
            };
            assert!(is_there, "no test {word:?}, which docs/features.md names in {line:?}");
            tests += 1;
        }
        assert!(tests > 0, "docs/features.md names no test in {line:?}");
        rows += 1;
    }
    assert!(rows > 10, "docs/features.md has {rows} rows of tests");
}
