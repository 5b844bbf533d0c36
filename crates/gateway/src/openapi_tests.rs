//! The document beside what it describes.

use super::*;
use crate::{
    admin, anthropic,
    error::ApiError,
    fields::{Fields, taken},
    govern, keys, member, openai, training,
};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Methods by path.
type Routes = BTreeMap<String, BTreeSet<String>>;

const METHODS: [&str; 5] = ["delete", "get", "patch", "post", "put"];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let all = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    all.filter(|path| path.extension().is_some_and(|kind| kind == "rs")).collect()
}

/// The routes that a source adds: of each `.route("PATH", METHODS)` what stands between its parentheses.
fn added(source: &str, routes: &mut Routes) {
    for rest in source.split(".route(").skip(1) {
        let Some((path, rest)) =
            rest.trim_start().strip_prefix('"').and_then(|rest| rest.split_once('"'))
        else {
            continue;
        };
        let mut depth = 1;
        let end = rest.find(|char| {
            depth += match char {
                '(' => 1,
                ')' => -1,
                _ => 0,
            };
            depth == 0
        });
        let handlers = &rest[..end.expect("parentheses close")];
        let words = handlers.split(|char: char| !char.is_ascii_lowercase() && char != '(');
        let called = words.filter_map(|word| word.split_once('(').map(|(name, _)| name));
        let methods = called.filter(|name| METHODS.contains(name)).map(str::to_owned);
        // A path that takes in what follows has a star in the router.
        routes.entry(path.replace("{*", "{")).or_default().extend(methods);
    }
}

#[test]
fn every_route_of_the_sources_is_described_and_no_other() {
    let mut routes = Routes::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in sources(&folder) {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        // The page and what it is made of are no calls.
        if name.ends_with("_tests.rs") || name == "dashboard.rs" {
            continue;
        }
        let source = fs::read_to_string(&path).expect("a source");
        added(source.split("#[cfg(test)]").next().expect("a beginning"), &mut routes);
    }
    assert!(routes.len() > 10, "{routes:?}");
    let document = document();
    let described: Routes = document["paths"]
        .as_object()
        .expect("paths")
        .iter()
        .map(|(path, calls)| {
            (path.clone(), calls.as_object().expect("calls").keys().cloned().collect())
        })
        .collect();
    assert_eq!(described, routes, "left: crates/gateway/openapi, right: the sources");
}

/// The properties of a schema, which may be a reference.
fn properties(document: &Value, schema: &Value) -> BTreeSet<String> {
    let referred = schema["$ref"].as_str().map(|name| name.trim_start_matches('#'));
    let schema = referred.map_or(schema, |name| document.pointer(name).expect("a schema"));
    // What may be absent may be null.
    let schema = schema["anyOf"]
        .as_array()
        .map_or(schema, |ways| ways.iter().find(|way| way["type"] != "null").expect("another way"));
    if schema["$ref"].is_string() {
        return properties(document, schema);
    }
    schema["properties"].as_object().expect("properties").keys().cloned().collect()
}

/// Compares the fields of schema `name`, or of its `part`, with the names that `read` asks for in `body`.
#[track_caller]
fn check<T>(name: &str, part: &str, body: Value, read: impl FnOnce(Fields) -> Result<T, ApiError>) {
    let document = document();
    let mut schema = &document["components"]["schemas"][name];
    if !part.is_empty() {
        schema = &schema["properties"][part];
    }
    let fields = Fields::parse(body.to_string().as_bytes()).expect("an object");
    let asked = taken(|| {
        if let Err(error) = read(fields) {
            panic!("{name}: {error}");
        }
    });
    let prefix = if part.is_empty() { String::new() } else { format!("{part}.") };
    let here = asked.iter().filter_map(|name| name.strip_prefix(&prefix));
    let here: BTreeSet<String> =
        here.filter(|name| !name.contains('.')).map(str::to_owned).collect();
    assert_eq!(properties(&document, schema), here, "{name} {part}; left: described, right: read");
}

#[test]
fn fields_of_requests_are_those_that_are_read() {
    let messages = json!([{"role": "user", "content": "x"}]);
    let chat = json!({"model": "m", "messages": messages});
    check("ChatRequest", "", chat.clone(), openai::request::chat);
    let text = json!({"model": "m", "prompt": "x"});
    check("CompletionRequest", "", text.clone(), openai::request::text);
    let input = json!({"model": "m", "input": "x"});
    check("EmbeddingRequest", "", input.clone(), openai::embeddings::read);
    check("ResponseRequest", "", input.clone(), openai::responses::request::response);
    check("InputTokensRequest", "", input.clone(), openai::responses::request::input_tokens);
    let mut message = chat.clone();
    check("CountTokensRequest", "", message.clone(), anthropic::request::count_tokens);
    message["max_tokens"] = json!(1);
    check("MessageRequest", "", message.clone(), anthropic::request::message);
    check("InviteRequest", "", json!({"valid_ms": 1}), admin::invite_options);
    check("JoinRequest", "", json!({"invite": "x"}), admin::invitation);
    let witnesses = json!({"nodes": ["0f".repeat(32)]});
    check("AppointRequest", "", witnesses, admin::named_nodes);
    check("KeyRequest", "", json!({"name": "x"}), keys::order);
    let model = json!({"model": "00".repeat(32), "is_allowed": true});
    let proposal = json!({"title": "x", "action": {"model": model}});
    check("ProposalRequest", "", proposal, govern::order);
    check("StakeRequest", "", json!({"lock": 1}), member::change);
    check("KeysRequest", "", json!({"root": "00".repeat(32)}), member::order);
    check("VoteRequest", "", json!({"choice": "yes"}), govern::choice);
    check("TrainRequest", "", json!({"job": {}}), training::job);
    check("RunRequest", "", json!({"run": "x"}), training::run);
    check("PromoteRequest", "", json!({"run": "x"}), training::version);

    let with = |body: &Value, name: &str, value: Value| {
        let mut body = body.clone();
        body[name] = value;
        body["stream"] = json!(true);
        body
    };
    let talka = json!({"guesses": true});
    check("ChatRequest", "talka", with(&chat, "talka", talka), openai::request::chat);
    let usage = json!({"include_usage": true});
    check(
        "ChatRequest",
        "stream_options",
        with(&chat, "stream_options", usage),
        openai::request::chat,
    );
    let outputs = with(&text, "structured_outputs", json!({}));
    check("CompletionRequest", "structured_outputs", outputs, openai::request::text);
    for part in ["text", "reasoning", "stream_options"] {
        let body = with(&input, part, json!({}));
        check("ResponseRequest", part, body, openai::responses::request::response);
    }
    for part in ["output_config", "metadata"] {
        let body = with(&message, part, json!({}));
        check("MessageRequest", part, body, anthropic::request::message);
    }
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|inner| references(inner, found));
        }
        Value::Array(items) => items.iter().for_each(|inner| references(inner, found)),
        _ => {}
    }
}

#[test]
fn whatever_is_referred_to_is_there_and_whatever_is_there_is_referred_to() {
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for reference in &found {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
    for place in ["schemas", "responses", "headers"] {
        for name in document["components"][place].as_object().expect("an object").keys() {
            let reference = format!("#/components/{place}/{name}");
            assert!(found.contains(&reference), "nothing refers to {reference}");
        }
    }
}

#[test]
fn each_call_has_a_name_of_its_own() {
    let document = document();
    let paths = document["paths"].as_object().expect("paths");
    let calls = paths.values().flat_map(|calls| calls.as_object().expect("calls").values());
    let names: Vec<&str> =
        calls.map(|call| call["operationId"].as_str().expect("a name")).collect();
    let different: BTreeSet<_> = names.iter().collect();
    assert_eq!(different.len(), names.len(), "{names:?}");
}
