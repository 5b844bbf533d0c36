//! `cargo xtask api`: a running node beside what it says of itself, by programs that nobody here wrote.
//!
//! Schemathesis makes requests of `/openapi.json`, good and bad ones, and compares each answer with it; the reader of
//! Prometheus' own Python client reads `/metrics` after that. Both come from PyPI: without a way there the check is skipped.

use crate::{
    cargo::{talka, target_folder, tool},
    node::Node,
    python::Packages,
};
use anyhow::{Context, Result, bail, ensure};
use std::process::Stdio;

/// Fixed, so that a change of theirs does not fail a change of ours.
const PACKAGES: Packages<'_> =
    Packages { name: "api", packages: &["schemathesis==4.32.5", "prometheus_client==0.26.0"] };

/// What is checked of every answer. Statuses are those that the document names, bodies are as it says, and nothing
/// that is asked is the node's fault. Which bad requests are refused our own tests say: a request that breaks a
/// schema may be a good one of another version.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance,unsupported_method,allow_header_conformance";

/// One: CPython before 3.13 keeps one depth for all threads that read syntax, and two at once fail at it now and then.
const WORKERS: &str = "1";

/// Longest run, in seconds.
const SECONDS: &str = "60";

/// Reads a page of metrics and says how many families it has.
const READ_METRICS: &str = "import sys
from prometheus_client.parser import text_string_to_metric_families as read
print(len(list(read(sys.stdin.read()))))";

/// Calls that change what others run against, or that have no end: asked by tests of their own.
const LEFT_OUT: [&str; 1] = ["/api/live"];

/// Runs the check.
///
/// # Errors
/// What is wrong. `Ok` has the reason if it was skipped.
pub fn run() -> Result<Option<String>> {
    let target = target_folder()?;
    let python = match PACKAGES.install() {
        Ok(python) => python,
        Err(why) => return Ok(Some(why.to_string())),
    };
    // Two threads; many short answers, which should not end for want of credits.
    let flags = ["--model", "bard", "--threads", "2", "--grant", "1000000"];
    let node = Node::start(&talka()?, &target.join("api-node"), &flags)?;
    let document = format!("http://{}/openapi.json", node.http);
    let mut check = tool(&python);
    // It keeps notes where it runs.
    check.current_dir(&target);
    check.args(["-m", "schemathesis.cli", "run", &document, "--checks", CHECKS]);
    check.args(["--max-time", SECONDS, "--max-examples", "20", "--request-timeout", "30"]);
    check.args([
        "--workers",
        WORKERS,
        "--suppress-health-check",
        "all",
        "--warnings",
        "off",
        "--no-color",
    ]);
    for path in LEFT_OUT {
        check.args(["--exclude-path", path]);
    }
    ensure!(check.status()?.success(), "answers are not as /openapi.json says: see above");
    read_metrics(&node, &python)?;
    Ok(None)
}

fn read_metrics(node: &Node, python: &std::path::Path) -> Result<()> {
    let page = node.get("/metrics")?;
    let mut command = tool(python);
    command.args(["-c", READ_METRICS]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut reader = command.spawn()?;
    let mut input = reader.stdin.take().context("its input is piped")?;
    std::io::Write::write_all(&mut input, page.as_bytes())?;
    drop(input);
    let output = reader.wait_with_output()?;
    ensure!(output.status.success(), "/metrics is not in Prometheus' format: see above");
    let families: usize = String::from_utf8(output.stdout)?.trim().parse()?;
    if families < 10 {
        bail!("/metrics has {families} families only");
    }
    println!("/metrics: {families} families");
    Ok(())
}
