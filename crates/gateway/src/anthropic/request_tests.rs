//! What is honoured, what is refused, and that refusals name their field.

use super::*;
use serde_json::json;
use talka_node::api::{Fallback, Prompt, ToolChoice};

/// A smallest request with `extra` put over it.
fn body(extra: Value) -> Fields {
    let mut body = json!({
        "model": "bard", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}],
    });
    body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    Fields::parse(body.to_string().as_bytes()).expect("an object")
}

fn refused(extra: Value, code: &str, param: &str) {
    let error = message(body(extra)).expect_err(param);
    assert_eq!((error.row().code, error.param()), (code, Some(param)), "{error}");
    assert_eq!(error.row().status.as_u16(), 400);
}

fn said(role: &str, content: &str) -> ChatMessage {
    ChatMessage::new(role, content)
}

#[test]
fn a_smallest_request_gets_the_documented_defaults() {
    let Asked { request, is_streamed, .. } = message(body(json!({}))).expect("valid");
    assert!(!is_streamed);
    assert_eq!(request.prompt, Prompt::Chat(vec![said("user", "hi")]));
    assert_eq!((request.max_tokens, request.grammar), (Some(9), None));
    assert_eq!((request.sampling.temperature, request.sampling.top_p), (1.0, 1.0));
    let again = message(body(json!({}))).expect("valid").request;
    assert_ne!(request.sampling.seed, again.sampling.seed);
}

#[test]
fn every_honoured_parameter_arrives() {
    let asked = message(body(json!({
        "temperature": 0, "top_p": 0.5, "top_k": 40, "stop_sequences": ["a", "b"], "stream": true,
        "metadata": {"user_id": "u"}, "service_tier": "standard_only", "thinking": {"type": "disabled"},
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
        "tools": [{"name": "x", "input_schema": {}}], "tool_choice": {"type": "any"},
        "talka": {"upstream": "groq"},
    })))
    .expect("valid");
    assert!(asked.is_streamed);
    let request = asked.request;
    assert_eq!((request.sampling.temperature, request.sampling.top_p), (0.0, 0.5));
    assert_eq!((request.sampling.top_k, request.stop), (40, vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(request.grammar, Some(Grammar::JsonSchema(json!({"type": "object"}))));
    assert_eq!(request.fallback, Fallback::Only("groq".into()));
    assert_eq!(request.tools.map(|wish| wish.choice), Some(ToolChoice::Required));
    assert_eq!(asked.form.as_deref(), Some("output_config.format"));
}

#[test]
fn what_is_refused_of_a_form_is_named_by_what_asked_for_it() {
    let form = |extra: Value| message(body(extra)).expect("valid").form;
    assert_eq!(form(json!({})), None);
    let tools = json!([{"name": "x", "input_schema": {}}]);
    assert_eq!(form(json!({"tools": tools})).as_deref(), Some("tools"));
    let none = json!({"tools": tools, "tool_choice": {"type": "none"}});
    assert_eq!(form(none), None);
}

#[test]
fn what_would_change_the_answer_is_refused_and_its_default_accepted() {
    for (name, value) in [
        ("thinking", json!({"type": "enabled", "budget_tokens": 1024})),
        ("mcp_servers", json!([{}])),
        ("container", json!("c")),
        ("speed", json!("fast")),
    ] {
        refused(json!({name: value}), "unsupported_parameter", name);
    }
    for (name, harmless, _) in UNSUPPORTED {
        for json in harmless.iter().chain([&"null"]) {
            let value: Value = serde_json::from_str(json).expect("the table holds JSON");
            assert!(message(body(json!({name: value}))).is_ok(), "{name} {json}");
        }
    }
    let effort = json!({"output_config": {"effort": "max"}});
    refused(effort, "unsupported_parameter", "output_config.effort");
}

#[test]
fn wrong_values_are_named() {
    for (extra, param) in [
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"temperature": 1.5}), "temperature"),
        (json!({"top_k": -1}), "top_k"),
        (json!({"stop_sequences": [""]}), "stop_sequences"),
        (json!({"stop_sequences": vec!["a"; 17]}), "stop_sequences"),
        (json!({"metadata": {"user_id": 5}}), "metadata.user_id"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"output_config": {"format": {"type": "xml"}}}), "output_config.format.type"),
    ] {
        refused(extra, "invalid_value", param);
    }
    for name in ["model", "max_tokens", "messages"] {
        refused(json!({name: null}), "missing_required_parameter", name);
    }
    refused(json!({"seed": 5}), "unknown_parameter", "seed");
    refused(json!({"metadata": {"x": 1}}), "unknown_parameter", "metadata.x");
}

#[test]
fn counting_reads_the_same_conversation() {
    let count = |extra: Value| {
        let mut body = json!({"model": "bard", "messages": [{"role": "user", "content": "hi"}]});
        body.as_object_mut()
            .expect("an object")
            .extend(extra.as_object().expect("an object").clone());
        count_tokens(Fields::parse(body.to_string().as_bytes()).expect("an object"))
    };
    let tools = json!([{"name": "look", "input_schema": {}}]);
    let (model, messages, told) = count(json!({"system": "x", "tools": tools})).expect("valid");
    assert_eq!((model.as_str(), messages), ("bard", vec![said("system", "x"), said("user", "hi")]));
    assert_eq!(told[0].name, "look");
    assert_eq!(count(json!({"max_tokens": 5})).expect_err("no answer").param(), Some("max_tokens"));
    let nameless = count(json!({"tools": [{}]})).expect_err("no name");
    assert_eq!(nameless.param(), Some("tools[0].name"));
}
