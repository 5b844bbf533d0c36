//! One node with the bundled model.

use crate::{
    harness::{Said, cannot_start, finish, folder, talka, up, wait_for},
    models::{bard, golden},
};
use serde_json::{Value, json};

/// Goal: what the first two minutes with Talka show. Method: the bundled model, greedy, against
/// continuations that another implementation computed; command line, plain and streamed HTTP.
#[test]
fn every_way_to_ask_gives_the_same_greedy_answer() {
    let place = folder();
    let node = up(&place.path().join("data"), &[]);
    let models = node.get("/v1/models").done();
    assert_eq!(models["data"][0]["id"], "bard");

    for golden in golden(&bard()) {
        let expected = golden.continuation();
        let args = ["run", "--temperature", "0", "--max-tokens", &golden.tokens(), &golden.prompt];
        assert_eq!(node.cli(&args).done(), expected);

        let body = json!({
            "model": "bard", "prompt": golden.prompt, "temperature": 0,
            "max_tokens": golden.greedy_ids.len(),
        });
        let answer = node.post("/v1/completions", &body).done();
        assert_eq!(answer["choices"][0]["text"], expected);
        assert_eq!(answer["choices"][0]["finish_reason"], "length");
        assert_eq!(answer["usage"]["prompt_tokens"], golden.prompt_ids.len());
        assert_eq!(answer["usage"]["completion_tokens"], golden.greedy_ids.len());

        let streamed = node.stream("/v1/completions", &body, |_| {});
        assert_eq!((streamed.text.as_str(), streamed.done), (expected, true));
        assert_eq!(streamed.finish.as_deref(), Some("length"));

        let mut tokens = body.clone();
        tokens["prompt"] = json!(golden.prompt_ids);
        let answer = node.post("/v1/completions", &tokens).done();
        assert_eq!(answer["choices"][0]["text"], expected);
    }
}

#[test]
fn an_answer_ends_before_a_stop_string_and_says_so() {
    let place = folder();
    let node = up(&place.path().join("data"), &[]);
    let golden = &golden(&bard())[0];
    // Crosses token borders: no token of the model is as long.
    let stop: String = golden.continuation().chars().skip(3).take(14).collect();
    let expected = golden.continuation().split(&stop).next().expect("some text");
    let body = json!({
        "model": "bard", "prompt": golden.prompt, "temperature": 0, "stop": [stop, "never"],
        "max_tokens": golden.greedy_ids.len(),
    });
    let answer = node.post("/v1/completions", &body).done();
    assert_eq!(answer["choices"][0]["text"], expected);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let streamed = node.stream("/v1/completions", &body, |_| {});
    assert_eq!((streamed.text.as_str(), streamed.finish.as_deref()), (expected, Some("stop")));
}

#[test]
fn a_conversation_is_the_same_over_http_and_on_pipes() {
    let place = folder();
    let node = up(&place.path().join("data"), &[]);
    let answer = |messages: Value| {
        let body = json!({
            "model": "bard", "messages": messages, "temperature": 0, "max_tokens": 12,
        });
        let whole = node.post("/v1/chat/completions", &body).done();
        let message = &whole["choices"][0]["message"];
        assert_eq!(message["role"], "assistant");
        let text = message["content"].as_str().expect("text").to_owned();
        assert_eq!(node.stream("/v1/chat/completions", &body, |_| {}).text, text);
        text
    };
    let user = |text: &str| json!({ "role": "user", "content": text });
    let first = answer(json!([user("Speak, ghost.")]));
    let said = json!({ "role": "assistant", "content": first });
    let second = answer(json!([user("Speak, ghost."), said, user("Once more.")]));

    let args = ["chat", "--temperature", "0", "--max-tokens", "12"];
    let input = "Speak, ghost.\n\nOnce more.\n/exit\nnot asked\n";
    assert_eq!(node.cli_with_input(&args, input).done(), format!("{first}\n{second}\n"));
    let document = node.cli_with_input(&[&args[..], &["--json"]].concat(), input).json();
    assert_eq!(document["messages"][3]["content"], second.as_str());
}

/// Goal: a chat never ends because it grew. Method: more turns than a context of 256 tokens holds.
#[test]
fn a_conversation_that_outgrows_the_context_goes_on() {
    let place = folder();
    let node = up(&place.path().join("data"), &[]);
    let input = "Speak, ghost, and tell me all of thy sad story.\n".repeat(8);
    let said = node.cli_with_input(&["chat", "--temperature", "0", "--max-tokens", "48"], &input);
    assert!(said.stderr.contains("oldest turn is left out"), "{said:#?}");
    said.done();
}

/// The founder chooses how work is paid: with tokens but without balances, or with a part burned.
#[test]
fn a_network_without_tokens_counts_work_and_one_that_burns_loses_credits() {
    let place = folder();
    for (economy, expected) in [("tokenless", json!(0)), ("neuro", json!(5))] {
        let node = up(&place.path().join(economy), &["--economy", economy]);
        node.cli(&["run", "--max-tokens", "3", "ROMEO:"]).done();
        let credits = node.cli(&["credits", "--json"]).json();
        let member = &credits["members"][0];
        assert_eq!(credits["economy"], economy);
        assert!(member["flops"].as_u64().is_some_and(|flops| flops > 0), "{member}");
        let lost = |name: &str| member[name].as_u64().expect("a sum");
        assert_eq!(json!(lost("granted") - lost("balance")), expected, "{member}");
        node.cli(&["ledger", "verify"]).done();
    }
    let dir = place.path().join("gold");
    cannot_start(&["up"], &dir, &["--economy", "gold"]).refused(2, &["gold", "coop"]);
}

#[test]
fn every_report_is_one_json_document() {
    let place = folder();
    let node = up(&place.path().join("data"), &["--name", "kitchen"]);
    let report = |args: &[&str]| node.cli(&[args, &["--json"]].concat()).json();

    let answer = report(&["run", "--max-tokens", "3", "--seed", "7", "ROMEO:"]);
    assert_eq!(answer["usage"]["completion_tokens"], 3);
    let again = report(&["run", "--max-tokens", "3", "--seed", "7", "ROMEO:"]);
    assert_eq!(answer["choices"], again["choices"], "the same seed");
    let cost = answer["talka"]["cost_micro_gft"].as_u64().expect("a cost");

    let status = report(&["status"]);
    assert_eq!((&status["node"], &status["name"]), (&json!(node.id), &json!("kitchen")));
    assert_eq!(status["network_name"], node.network.as_str());
    assert_eq!(report(&["peers"])[0]["this"], true);
    assert_eq!(report(&["models"]), report(&["models", "list"]));
    assert_eq!(report(&["models", "show", "bard"])["complete"], true);
    assert!(report(&["invite"])["invite"].is_string());

    let credits = report(&["credits"]);
    let member = &credits["members"][0];
    // Alone, a member pays itself.
    assert_eq!((&member["spent"], &member["earned"]), (&json!(2 * cost), &json!(2 * cost)));
    assert_eq!((&member["balance"], &credits["reserved"]), (&member["granted"], &json!(0)));

    let verified = report(&["ledger", "verify"]);
    let entries = report(&["ledger", "export"]);
    let entries = entries.as_array().expect("an array");
    assert_eq!(verified["entries"], entries.len());
    assert_eq!(verified["head"], entries.last().expect("an entry")["hash"]);
    assert_eq!(node.ledger(), *entries, "one a line");
    assert_eq!(report(&["ledger", "show", "--last", "1"])[0], entries[entries.len() - 1]);
    assert_eq!(report(&["ledger", "proof", "0"])["hash"], entries[0]["hash"]);

    let bench = report(&["bench", "model", "--prompt", "8", "--tokens", "64"]);
    assert!(bench["decode_tokens_per_s"].as_f64().expect("a rate") > 0.0, "{bench}");
    let findings = report(&["doctor"]);
    let checks = findings.as_array().expect("an array");
    assert_eq!(checks.len(), 13, "{findings}");
    assert!(checks.iter().all(|finding| finding["grade"] != "failed"), "{findings}");
}

#[test]
fn every_report_is_readable_too() {
    let place = folder();
    let node = up(&place.path().join("data"), &["--name", "kitchen"]);
    node.cli(&["run", "--max-tokens", "2", "ROMEO:"]).done();
    for (args, word) in [
        (&["status"][..], "kitchen"),
        (&["peers"], "this node"),
        (&["models"], "complete"),
        (&["models", "show", "bard"], "0..6"),
        (&["credits"], "kitchen (this)"),
        (&["ledger"], "settled"),
        (&["ledger", "verify"], "signatures hold"),
        (&["ledger", "proof", "1"], "c2sp.org/tlog-proof@v1"),
        (&["ledger", "checkpoint"], "talka/"),
        (&["doctor"], "answers at"),
    ] {
        let stdout = node.cli(args).done();
        assert!(stdout.contains(word), "{word:?} is missing from {args:?}:\n{stdout}");
        assert!(!stdout.contains('\x1b'), "colours belong on terminals:\n{stdout}");
    }
}

#[test]
fn a_node_asked_to_end_ends_cleanly_and_keeps_its_identity() {
    let place = folder();
    let dir = place.path().join("data");
    let node = up(&dir, &[]);
    let (id, network) = (node.id.clone(), node.network.clone());
    node.cli(&["run", "--max-tokens", "2", "ROMEO:"]).done();
    let entries = node.ledger();
    #[cfg(unix)]
    {
        assert_eq!(node.terminate(), Some(0));
        assert!(!dir.join("http").exists(), "the address is gone with the node");
        let asked = |args: &[&str]| {
            let mut command = talka(args);
            command.arg("--data-dir").arg(&dir);
            finish(&mut command, "")
        };
        asked(&["status"]).refused(4, &["no node runs", "talka up"]);
        let Said { code, stdout, .. } = asked(&["doctor"]);
        assert_eq!(code, 0, "{stdout}");
        assert!(stdout.contains("talka up"), "{stdout}");
    }
    #[cfg(not(unix))]
    drop(node);
    let node = up(&dir, &[]);
    assert_eq!((&node.id, &node.network), (&id, &network));
    assert_eq!(node.ledger(), entries);
}

/// Goal: the benchmark needs no node and says how its numbers lead to a multiplier. Method: both forms of its output.
#[test]
fn hardware_is_measured_without_a_node() {
    let text = finish(&mut talka(&["bench", "hardware", "--threads", "2"]), "").done();
    for words in ["2 threads", "products q4_k", "batch of 8", "class ", "tier ", "fingerprint "] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let report = finish(&mut talka(&["bench", "hardware", "--threads", "2", "--json"]), "").json();
    for part in ["matmul", "memory", "latency"] {
        let score = report[part]["score"].as_f64().expect("a score");
        assert!((0.0..=1.0).contains(&score), "{part}: {report}");
    }
    assert_eq!((&report["kind"], &report["class"]), (&json!("cpu"), &json!("cpu_only")));
    let multiplier = report["multiplier"].as_f64().expect("a multiplier");
    assert!((0.1..0.5).contains(&multiplier), "{report}");
}

/// Goal: GPUs are measured and rated within their own kind, and the machine is rated as without them. Method: a driver that
/// computes on processors, taken for a GPU.
#[cfg(feature = "gpu")]
#[test]
fn gpus_are_measured_and_change_no_rating() {
    let words = ["bench", "hardware", "--threads", "2", "--software-gpus"];
    let report = finish(talka(&words).arg("--json"), "").json();
    assert_eq!((&report["kind"], &report["class"]), (&json!("cpu"), &json!("cpu_only")));
    let gpus = report["gpus"].as_array().expect("GPUs");
    let Some(gpu) = gpus.iter().find(|gpu| !gpu["measured"].is_null()) else {
        let lacks: Vec<_> = gpus.iter().map(|gpu| &gpu["lacks"]).collect();
        eprintln!(
            "SKIPPED: no driver for Vulkan or Metal; `cargo xtask test` installs Mesa's: {lacks:?}"
        );
        return;
    };
    let rating = &gpu["measured"];
    assert_eq!(gpu["lacks"], json!([]));
    let counts = rating["products"].as_array().expect("products").iter();
    let rates: Vec<_> = counts.map(|product| product["flops_per_second"].as_u64()).collect();
    assert!(rates.len() >= 2 && rates.iter().all(Option::is_some), "{gpu}");
    for part in ["matmul", "memory", "latency"] {
        assert!(rating[part]["score"].is_f64(), "{part}: {gpu}");
    }
    assert!(rating["multiplier"].as_f64().is_some_and(|times| times > 0.0), "{gpu}");

    let text = finish(&mut talka(&words), "").done();
    let name = gpu["name"].as_str().expect("a name");
    for words in [name, "products f32", "work would count", "Nodes are rated by their processor"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

/// Goal: what a node's work counts for is on record, and shown where work was paid. Method: one answer after the node
/// rated itself.
#[test]
fn a_node_rates_itself_and_its_account_explains_an_answer() {
    let place = folder();
    let node = up(&place.path().join("data"), &[]);
    let rated = wait_for("a rating", || {
        let peers = node.cli(&["peers", "--json"]).json();
        Some(peers[0]["standing"].clone()).filter(|standing| standing["class"] == "cpu_only")
    });
    let entries = node.ledger();
    assert_eq!(entries[1]["kind"], "rated", "{entries:?}");
    assert_eq!(entries.iter().filter(|entry| entry["kind"] == "rated").count(), 1, "told once");

    node.cli(&["run", "--temperature", "0", "--max-tokens", "5", "ROMEO:"]).done();
    let text = node.cli(&["credits"]).done();
    let line = text.lines().find(|line| line.contains("settled")).expect("an answer");
    let multiplier = rated["multiplier"].as_f64().expect("a multiplier");
    let shown = format!("multiplier {multiplier}, reliability 1");
    for words in ["tokens × ", "FLOP × bf16 0.5; ", " 0..6, 100.0 %, ", &shown] {
        assert!(line.contains(words), "{words}: {line}");
    }
    assert!(text.contains("the most it can cost: "), "{text}");
}
