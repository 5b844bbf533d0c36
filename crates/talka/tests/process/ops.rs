//! What whoever runs a node sees of it from outside: health, metrics, logs, traces.

use crate::{
    collector::Collector,
    harness::{Node, cannot_start, folder, join, up, up_with_env, wait_for},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, path::Path};

/// A word that no file of ours and no answer of a small model has.
const MARK: &str = "Zwölfboxkämpfer-Quacksalber-7f3a";

/// Samples by name and labels, as they stand there. Whatever breaks Prometheus' text format fails the test.
#[track_caller]
fn samples(page: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut family = "";
    for line in page.lines() {
        if let Some(head) = line.strip_prefix("# HELP ") {
            family = head.split(' ').next().expect("a name");
        } else if let Some(head) = line.strip_prefix("# TYPE ") {
            let (name, kind) = head.split_once(' ').expect(line);
            assert_eq!(name, family, "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
        } else {
            let (name, value) = line.rsplit_once(' ').expect(line);
            assert!(name.starts_with(family) && !family.is_empty(), "{line} under {family}");
            let value: f64 = value.parse().expect(line);
            assert_eq!(samples.insert(name.to_owned(), value), None, "twice: {line}");
        }
    }
    samples
}

#[track_caller]
fn metrics(node: &Node) -> BTreeMap<String, f64> {
    let (status, _, page) = node.text("/metrics");
    assert_eq!(status, 200, "{page}");
    samples(&page)
}

#[test]
fn metrics_count_what_was_asked_and_said() {
    let dir = folder();
    let node = up(&dir.path().join("node"), &["--model", "bard"]);
    let body = json!({"model": "bard", "prompt": "To be", "max_tokens": 5, "temperature": 0, "ignore_eos": true});
    node.post("/v1/completions", &body).done();
    let streamed = node.stream("/v1/completions", &body, |_| {});
    assert!(streamed.done, "{streamed:?}");
    node.post("/v1/completions", &json!({"model": "none", "prompt": "x"})).refused(
        404,
        "model_not_found",
        &[],
    );
    node.text("/v1/no/such/path");

    let route = "method=\"POST\",route=\"/v1/completions\"";
    // A request is counted when its body is done with, which is just after the caller has it.
    let found = wait_for("both answers to be counted", || {
        let found = metrics(&node);
        let two = format!("talka_http_requests_total{{{route},status=\"200\"}}");
        (found.get(&two) == Some(&2.0)).then_some(found)
    });
    let check = |name: &str, expected: f64| {
        assert_eq!(found.get(name), Some(&expected), "{name}: {found:#?}")
    };
    check(&format!("talka_http_requests_total{{{route},status=\"404\"}}"), 1.0);
    check("talka_http_requests_total{method=\"GET\",route=\"none\",status=\"404\"}", 1.0);
    check("talka_answers_total{end=\"complete\"}", 2.0);
    check("talka_answers_total{end=\"failed\"}", 0.0);
    check("talka_answer_tokens_total", 10.0);
    check("talka_tokens_chosen_total", 10.0);
    check("talka_first_word_seconds_count", 2.0);
    check("talka_answer_tokens_per_second_count", 2.0);
    check("talka_model_complete{model=\"bard\"}", 1.0);
    check("talka_nodes{state=\"alive\"}", 1.0);
    check("talka_requests_running", 0.0);
    assert!(found["talka_prompt_tokens_total"] >= 2.0, "{found:#?}");
    assert!(found["talka_credits_spent_gft_total"] > 0.0, "{found:#?}");
    assert!(found["talka_cache_bytes{state=\"most\"}"] > 0.0, "{found:#?}");
    assert!(found["process_resident_memory_bytes"] > 1e6, "{found:#?}");
    assert!(found["talka_http_request_seconds_sum{route=\"/v1/completions\"}"] > 0.0, "{found:#?}");
}

#[test]
fn health_tells_a_running_node_from_one_that_can_answer() {
    let dir = folder();
    let whole = up(&dir.path().join("whole"), &["--model", "bard"]);
    assert_eq!(whole.get("/health").done(), json!({"status": "ok"}));
    assert_eq!(whole.get("/health/ready").done(), json!({"status": "ok"}));
    let (status, id, _) = whole.text("/health/live");
    assert!(status == 200 && id.starts_with("http-"), "{status} {id}");

    // One that serves some of the layers only, in a network of its own.
    let part = up(&dir.path().join("part"), &["--model", "bard", "--layers", "bard=0..1"]);
    assert_eq!(part.get("/health/live").done(), json!({"status": "ok"}));
    for path in ["/health", "/health/ready"] {
        let reply = part.get(path);
        assert_eq!(
            (reply.status, &reply.body["reasons"][0]["code"]),
            (503, &json!("no_route")),
            "{reply:?}"
        );
    }
}

#[test]
fn a_node_without_its_founder_is_not_ready() {
    let dir = folder();
    let mut founder = up(&dir.path().join("founder"), &["--model", "bard", "--name", "founder"]);
    let guest = join(&founder.invite(&[]), &dir.path().join("guest"), &["--model", "bard"]);
    wait_for("the link", || (guest.get("/health").status == 200).then_some(()));
    let link = "talka_link_round_trip_seconds{node=\"";
    wait_for("the link to be measured", || {
        let found = metrics(&guest);
        found.keys().any(|name| *name == format!("{link}{}\"}}", founder.id)).then_some(())
    });
    founder.kill();
    let reply = wait_for("the founder to be missed", || {
        let reply = guest.get("/health");
        (reply.status == 503).then_some(reply)
    });
    let codes =
        reply.body["reasons"].as_array().expect("reasons").iter().map(|r| r["code"].clone());
    assert!(codes.collect::<Vec<_>>().contains(&json!("ledger_unreachable")), "{reply:?}");
}

/// Goal: nothing of a prompt reaches the log or the disk, at no level.
/// Method: each call is made with a marked prompt, well and badly formed, while everything down to the libraries' own traces
/// is logged; then the mark is looked for in all that the node wrote.
#[test]
fn prompts_are_never_written() {
    let dir = folder();
    let data = dir.path().join("node");
    let service = "outside=http://127.0.0.1:9/v1,model=far";
    let more = ["--model", "bard", "--log", "json", "--upstream", service];
    let node = up_with_env(&data, &more, &[("TALKA_LOG", "trace")]);
    let chat =
        json!({"model": "bard", "max_tokens": 4, "messages": [{"role": "user", "content": MARK}]});
    let text =
        json!({"model": "bard", "max_tokens": 4, "prompt": MARK, "echo": true, "stop": [MARK]});
    node.post("/v1/chat/completions", &chat).done();
    node.post("/v1/completions", &text).done();
    assert!(node.stream("/v1/completions", &text, |_| {}).done);
    let far = json!({"model": "far", "prompt": MARK});
    node.post("/v1/completions", &far).refused(502, "upstream_failed", &[]);
    for wrong in [
        json!({"model": MARK, "prompt": MARK}),
        json!({"model": "bard", "prompt": MARK, "temperature": MARK}),
        json!({"model": "bard", "prompt": MARK, MARK: 1}),
        json!({"model": "bard", "prompt": MARK.repeat(2_000)}),
        json!({"model": "bard", "prompt": MARK, "response_format": {"type": "json_schema", "json_schema":
            {"name": "x", "schema": {"type": "object", "properties": {MARK: {"$ref": MARK}}}}}}),
    ] {
        assert!((400..500).contains(&node.post("/v1/completions", &wrong).status), "{wrong}");
    }
    node.post("/v1/embeddings", &json!({"model": "bard", "input": MARK}));
    node.text(&format!("/v1/models/{MARK}"));

    let log = node.log();
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let of_requests: Vec<&Value> = lines
        .iter()
        .filter(|line| {
            let target = line["target"].as_str().unwrap_or_default();
            target.starts_with("talka_gateway") && line["message"] == "answered"
        })
        .collect();
    assert!(of_requests.len() >= 10, "{} lines", of_requests.len());
    for line in of_requests {
        let id = line["spans"][0]["id"].as_str().expect("a request");
        assert!(id.starts_with("http-"), "{line}");
    }
    let hidden = MARK.replace('ö', "\\u00f6");
    let shown = |bytes: &[u8]| {
        [MARK, &hidden]
            .iter()
            .any(|mark| bytes.windows(mark.len()).any(|part| part == mark.as_bytes()))
    };
    if let Some(line) = log.lines().find(|line| shown(line.as_bytes())) {
        panic!("a prompt is logged: {line}");
    }
    let files = files(&data);
    assert!(files.len() > 2, "{files:?}");
    for file in files {
        assert!(!shown(&fs::read(&file).expect("a file")), "a prompt is in {}", file.display());
    }
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn how_much_is_logged_is_a_flag() {
    let dir = folder();
    let quiet = up(&dir.path().join("quiet"), &["--log-level", "error"]);
    assert_eq!(quiet.log(), "");
    let usual = up(&dir.path().join("usual"), &["--log", "json"]);
    assert!(
        usual.log().lines().all(|line| serde_json::from_str::<Value>(line).is_ok()),
        "{}",
        usual.log()
    );
    assert!(usual.log().contains("\"message\":\"serving\""), "{}", usual.log());
    cannot_start(&["up"], &dir.path().join("odd"), &["--log-level", "loud"])
        .refused(2, &["--log-level"]);
}

/// Goal: the time of an answer is told in one trace, with a stage from each node that computed for it.
/// Method: two nodes that serve a part each, and a collector that both tell.
#[test]
fn an_answer_over_two_nodes_is_one_trace() {
    let (dir, collector) = (folder(), Collector::start());
    let endpoint = collector.endpoint();
    let flags = |layers: &'static str| ["--model", "bard", "--layers", layers, "--otlp", &endpoint];
    let first = up(&dir.path().join("first"), &flags("bard=0..3"));
    let second = join(&first.invite(&[]), &dir.path().join("second"), &flags("bard=3..6"));
    wait_for("a whole model", || (first.get("/health").status == 200).then_some(()));
    let body =
        json!({"model": "bard", "prompt": MARK, "max_tokens": 3, "temperature": 0, "stream": true});
    let streamed = first.stream("/v1/completions", &body, |_| {});
    assert!(streamed.done, "{streamed:?}");
    let trace = streamed.id.trim_start_matches("cmpl-").to_owned();

    let spans = wait_for("the trace to be whole", || {
        let mut spans = collector.spans();
        spans.retain(|span| span["traceId"] == trace.as_str());
        let stages = spans.iter().filter(|span| span["name"] == "stage").count();
        let has = |name: &str| spans.iter().any(|span| span["name"] == name);
        (stages == 2 && has("request")).then_some(spans)
    });
    let named = |name: &str| spans.iter().find(|span| span["name"] == name).expect(name);
    let (request, answer) = (named("request"), named("answer"));
    assert_eq!(request["parentSpanId"], "");
    assert_eq!(answer["parentSpanId"], request["spanId"]);
    assert_eq!(named("route")["parentSpanId"], request["spanId"]);
    let mut processes = Vec::new();
    for stage in spans.iter().filter(|span| span["name"] == "stage") {
        assert_eq!(stage["parentSpanId"], answer["spanId"], "{stage}");
        processes.push(stage["process"].as_str().expect("a process"));
    }
    assert_ne!(processes[0], processes[1]);
    for span in &spans {
        let nanos = |name: &str| span[name].as_str().expect(name).parse::<u64>().expect(name);
        assert!(nanos("startTimeUnixNano") <= nanos("endTimeUnixNano"), "{span}");
    }
    assert!(!collector.text().contains(MARK), "a prompt is told");
    drop(second);
}
