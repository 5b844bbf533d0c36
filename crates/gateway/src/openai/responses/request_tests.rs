//! What is honoured, what is refused, and that refusals name their field.

use super::*;
use talka_node::api::{Fallback, Prompt, ToolChoice};

/// A smallest request with `extra` put over it.
fn body(extra: Value) -> Fields {
    let mut body = json!({"model": "bard", "input": "hi"});
    body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    Fields::parse(body.to_string().as_bytes()).expect("an object")
}

fn read(extra: Value) -> (GenerateRequest, Settings) {
    let (asked, settings) = response(body(extra)).expect("valid");
    (asked.request, settings)
}

fn refused(extra: Value, code: &str, param: &str) {
    let error = response(body(extra)).expect_err(param);
    assert_eq!((error.row().code, error.param()), (code, Some(param)), "{error}");
    assert_eq!(error.row().status.as_u16(), 400);
}

fn said(role: &str, content: &str) -> ChatMessage {
    ChatMessage::new(role, content)
}

#[test]
fn a_smallest_request_gets_openai_defaults() {
    let (request, settings) = read(json!({}));
    assert_eq!(request.prompt, Prompt::Chat(vec![said("user", "hi")]));
    assert_eq!((request.max_tokens, request.logprobs, request.grammar), (None, None, None));
    assert_eq!((request.sampling.temperature, request.sampling.top_p), (1.0, 1.0));
    assert_eq!(
        settings,
        json!({
            "background": false, "instructions": null, "max_output_tokens": null, "max_tool_calls": null,
            "metadata": {}, "parallel_tool_calls": true, "previous_response_id": null,
            "reasoning": {"effort": null, "summary": null}, "service_tier": "default", "store": false,
            "temperature": 1.0, "text": {"format": {"type": "text"}, "verbosity": "medium"},
            "tool_choice": "auto", "tools": [], "top_logprobs": 0, "top_p": 1.0, "truncation": "disabled",
        })
    );
    assert_ne!(request.sampling.seed, read(json!({})).0.sampling.seed);
}

#[test]
fn every_honoured_parameter_arrives_and_is_repeated() {
    let format = json!({"type": "json_schema", "name": "x", "schema": {"type": "object"}});
    let tools = json!([{"type": "function", "name": "look"}]);
    let (request, settings) = read(json!({
        "instructions": "be brief", "max_output_tokens": 7, "temperature": 0.7, "top_p": 0.9, "seed": 5,
        "stop": ["a"], "top_logprobs": 3, "include": [LOGPROBS, "reasoning.encrypted_content"],
        "metadata": {"job": "7"}, "text": {"format": format, "verbosity": "medium"}, "store": false,
        "parallel_tool_calls": false, "tools": tools, "tool_choice": "required", "talka": {"fallback": "never", "guesses": false},
    }));
    let messages = vec![said("system", "be brief"), said("user", "hi")];
    assert_eq!(request.prompt, Prompt::Chat(messages));
    assert_eq!((request.max_tokens, request.logprobs), (Some(7), Some(3)));
    assert_eq!((request.sampling.temperature, request.sampling.seed), (0.7, 5));
    assert_eq!(request.stop, ["a"]);
    assert_eq!(request.grammar, Some(Grammar::JsonSchema(json!({"type": "object"}))));
    assert_eq!((request.fallback, request.guesses), (Fallback::Never, false));
    assert_eq!(request.tools.map(|wish| wish.choice), Some(ToolChoice::Required));
    for (name, value) in [
        ("instructions", json!("be brief")),
        ("max_output_tokens", json!(7)),
        ("temperature", json!(0.7)),
        ("top_p", json!(0.9)),
        ("top_logprobs", json!(3)),
        ("metadata", json!({"job": "7"})),
        ("parallel_tool_calls", json!(false)),
        ("tools", tools),
        ("tool_choice", json!("required")),
    ] {
        assert_eq!(settings[name], value, "{name}");
    }
    assert_eq!(settings["text"]["format"], format);
}

#[test]
fn what_would_change_the_answer_is_refused_and_its_default_accepted() {
    for (name, value) in [
        ("store", json!(true)),
        ("background", json!(true)),
        ("previous_response_id", json!("resp_1")),
        ("conversation", json!("conv_1")),
        ("truncation", json!("auto")),
        ("prompt", json!({"id": "pmpt_1"})),
    ] {
        refused(json!({name: value}), "unsupported_parameter", name);
    }
    for (name, harmless, _) in UNSUPPORTED {
        for json in harmless.iter().chain([&"null"]) {
            let value: Value = serde_json::from_str(json).expect("the table holds JSON");
            assert!(response(body(json!({name: value}))).is_ok(), "{name} {json}");
        }
    }
    let high = json!({"reasoning": {"effort": "high"}});
    refused(high, "unsupported_parameter", "reasoning.effort");
    read(json!({"reasoning": {"effort": "none", "summary": null}}));
    refused(json!({"text": {"verbosity": "low"}}), "unsupported_parameter", "text.verbosity");
    let padded = json!({"stream": true, "stream_options": {"include_obfuscation": true}});
    refused(padded, "unsupported_parameter", "stream_options.include_obfuscation");
    let labels = json!({"user": "u", "service_tier": "flex", "prompt_cache_key": "k"});
    assert!(response(body(labels)).is_ok());
}

#[test]
fn wrong_values_are_named() {
    for (extra, param) in [
        (json!({"max_output_tokens": 0}), "max_output_tokens"),
        (json!({"temperature": 2.5}), "temperature"),
        (json!({"include": ["everything"]}), "include[0]"),
        (json!({"top_logprobs": 2}), "top_logprobs"),
        (json!({"top_logprobs": 21, "include": [LOGPROBS]}), "top_logprobs"),
        (json!({"metadata": {"a": 1}}), "metadata"),
        (json!({"metadata": {"a": "x".repeat(513)}}), "metadata"),
        (json!({"text": {"format": {"type": "xml"}}}), "text.format.type"),
        (json!({"stream_options": {}}), "stream_options"),
        (json!({"instructions": 5}), "instructions"),
    ] {
        refused(extra, "invalid_value", param);
    }
    refused(json!({"messages": []}), "unknown_parameter", "messages");
    refused(json!({"text": {"x": 1}}), "unknown_parameter", "text.x");
    refused(json!({"model": null}), "missing_required_parameter", "model");
    refused(json!({"input": null}), "missing_required_parameter", "input");
}

#[test]
fn counting_reads_the_same_input() {
    let tools = json!([{"type": "function", "name": "look"}]);
    let asked = body(json!({"instructions": "x", "tools": tools}));
    let (model, messages, told) = input_tokens(asked).expect("valid");
    assert_eq!((model.as_str(), messages), ("bard", vec![said("system", "x"), said("user", "hi")]));
    assert_eq!(told[0].name, "look");
    let error = input_tokens(body(json!({"temperature": 1}))).expect_err("no such parameter");
    assert_eq!(error.row().code, "unknown_parameter");
    let error = input_tokens(body(json!({"personality": "friendly"}))).expect_err("not here");
    assert_eq!(error.param(), Some("personality"));
}
