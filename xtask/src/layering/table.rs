//! The crate table of ARCHITECTURE.md.

use anyhow::{Result, bail};
use std::collections::{BTreeMap, BTreeSet};

/// Crate name, without `talka-`, to the crates that it may use directly.
pub type Rows = BTreeMap<String, BTreeSet<String>>;

/// Reads the one table whose header has a `Crate` and a `May use` column. Names stand in backticks.
///
/// # Errors
/// If there is no such table, a row names no crate or one twice, a row may use a crate that has no row,
/// or crates may use each other in a circle.
pub fn read(document: &str) -> Result<Rows> {
    let mut lines = document.lines().map(cells);
    let Some((name_at, uses_at)) = lines.by_ref().find_map(|cells| {
        let at = |title: &str| cells.iter().position(|cell| *cell == title);
        at("Crate").zip(at("May use"))
    }) else {
        bail!("expected a table with the columns `Crate` and `May use`, found none");
    };
    let mut rows = Rows::new();
    for cells in lines.skip(1).take_while(|cells| !cells.is_empty()) {
        let cell = |at: usize| cells.get(at).copied().unwrap_or_default();
        let [name] = backticked(cell(name_at))[..] else {
            bail!("expected one crate in backticks, found {:?}", cell(name_at));
        };
        let uses = backticked(cell(uses_at)).into_iter().map(str::to_owned).collect();
        if rows.insert(name.to_owned(), uses).is_some() {
            bail!("`{name}` has two rows, expected one");
        }
    }
    for (name, uses) in &rows {
        if let Some(unknown) = uses.iter().find(|used| !rows.contains_key(*used)) {
            bail!("`{name}` may use `{unknown}`, which has no row");
        }
        if below(&rows, name).contains(name) {
            bail!("`{name}` may use itself by a detour, expected no circle");
        }
    }
    Ok(rows)
}

/// Everything that `name` may reach, directly or through others.
pub fn below(rows: &Rows, name: &str) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut open = vec![name];
    while let Some(name) = open.pop() {
        for used in rows.get(name).into_iter().flatten() {
            if reached.insert(used.clone()) {
                open.push(used);
            }
        }
    }
    reached
}

/// The cells of a Markdown table line; empty for any other line.
fn cells(line: &str) -> Vec<&str> {
    let inner = line.trim().strip_prefix('|').and_then(|rest| rest.strip_suffix('|'));
    inner.map(|inner| inner.split('|').map(str::trim).collect()).unwrap_or_default()
}

/// What stands between pairs of backticks.
fn backticked(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rows: &str, expected: &str) {
        let document =
            format!("# Title\n\n| Crate | Room | May use |\n|---|---|---|\n{rows}\n\nEnd.");
        let found = match read(&document) {
            Ok(rows) => format!("{rows:?}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn reads_the_table_and_refuses_what_makes_no_order() {
        check("| `a` | x, `y` | nothing of ours |\n| `b` | | `a` |", r#"{"a": {}, "b": {"a"}}"#);
        check("| a | | |", r#"expected one crate in backticks, found "a""#);
        check("| `a` | | |\n| `a` | | |", "`a` has two rows, expected one");
        check("| `a` | | `b` |", "`a` may use `b`, which has no row");
        check(
            "| `a` | | `b` |\n| `b` | | `a` |",
            "`a` may use itself by a detour, expected no circle",
        );
    }

    #[test]
    fn a_document_without_the_table_is_refused() {
        let error = read("| Crate | Room |\n|---|---|").expect_err("no such table");
        assert!(error.to_string().contains("found none"));
    }
}
