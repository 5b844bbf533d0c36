//! Which of our crates each manifest names, against the crate table.
//!
//! Ordinary and build dependencies must stand in the `May use` column. A test may also reach what lies
//! further below, but never sideways or upwards, except for [`FOR_TESTS`].

use super::table::{Rows, below};
use crate::cargo::cargo;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeSet;

/// The crate that is there for the tests of others.
const FOR_TESTS: &str = "sim";

/// What a manifest says of our own crates, all without the `talka-` of their packages.
#[derive(Debug, PartialEq, Eq)]
pub struct Manifest {
    name: String,
    uses: BTreeSet<String>,
    tests_use: BTreeSet<String>,
}

/// The manifests of the workspace, as cargo understands them: renamed, target-specific and inherited
/// dependencies included.
///
/// # Errors
/// If cargo cannot read a manifest.
pub fn manifests() -> Result<Vec<Manifest>> {
    let output = cargo(&["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context("cargo metadata did not start")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("cargo metadata without packages")?;
    packages.iter().map(manifest).collect()
}

fn manifest(package: &Value) -> Result<Manifest> {
    let name = package["name"].as_str().context("a package without name")?;
    let mut found =
        Manifest { name: short(name), uses: BTreeSet::new(), tests_use: BTreeSet::new() };
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        if dependency["path"].is_null() {
            continue;
        }
        let used = short(dependency["name"].as_str().context("a dependency without name")?);
        match dependency["kind"].as_str() {
            Some("dev") => found.tests_use.insert(used),
            _ => found.uses.insert(used),
        };
    }
    Ok(found)
}

fn short(package: &str) -> String {
    package.strip_prefix("talka-").unwrap_or(package).to_owned()
}

/// Every difference between the table and the manifests.
pub fn faults(rows: &Rows, manifests: &[Manifest]) -> Vec<String> {
    let mut faults = Vec::new();
    for Manifest { name, uses, tests_use } in manifests {
        let Some(allowed) = rows.get(name) else {
            faults.push(format!("crate `{name}` has no row in ARCHITECTURE.md"));
            continue;
        };
        for used in uses.difference(allowed) {
            faults.push(format!("`{name}` uses `{used}`, allowed: {allowed:?}"));
        }
        for used in tests_use.difference(&below(rows, name)).filter(|used| *used != FOR_TESTS) {
            faults.push(format!("tests of `{name}` use `{used}`, which is not below it"));
        }
    }
    for name in rows.keys().filter(|name| !manifests.iter().any(|m| m.name == **name)) {
        faults.push(format!("ARCHITECTURE.md has a row for `{name}`, which does not exist"));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn check(name: &str, uses: &[&str], tests_use: &[&str], expected: &[&str]) {
        let rows = [("a", &[][..]), ("b", &["a"]), ("c", &["b"])];
        let rows: Rows = rows.map(|(name, uses)| (name.to_owned(), set(uses))).into();
        let manifest =
            |name: &str, uses, tests_use| Manifest { name: name.into(), uses, tests_use };
        let mut manifests: Vec<_> =
            ["a", "b", "c"].map(|name| manifest(name, set(&[]), set(&[]))).into();
        manifests.retain(|other| other.name != name);
        manifests.push(manifest(name, set(uses), set(tests_use)));
        assert_eq!(faults(&rows, &manifests), expected);
    }

    #[test]
    fn edges_outside_the_table_are_named() {
        check("c", &["b"], &["a"], &[]);
        check("c", &["a"], &[], &[r#"`c` uses `a`, allowed: {"b"}"#]);
        check("a", &[], &["b"], &["tests of `a` use `b`, which is not below it"]);
        check("d", &[], &[], &["crate `d` has no row in ARCHITECTURE.md"]);
    }

    #[test]
    fn a_row_without_a_crate_is_named() {
        let rows: Rows = [("a".to_owned(), set(&[]))].into();
        assert_eq!(faults(&rows, &[]), ["ARCHITECTURE.md has a row for `a`, which does not exist"]);
    }

    #[test]
    fn renamed_and_build_dependencies_count_and_foreign_ones_do_not() {
        let package = json!({"name": "talka-node", "dependencies": [
            {"name": "talka-base", "rename": "words", "kind": null, "path": "/x"},
            {"name": "talka-net", "kind": "build", "path": "/x"},
            {"name": "talka-plan", "kind": "dev", "path": "/x"},
            {"name": "serde", "kind": null},
        ]});
        let expected = Manifest {
            name: "node".into(),
            uses: set(&["base", "net"]),
            tests_use: set(&["plan"]),
        };
        assert_eq!(manifest(&package).expect("well formed"), expected);
    }
}
