//! What is honoured, what is refused, and that refusals name their field.

use super::*;
use serde_json::json;

fn fields(body: &Value) -> Fields {
    Fields::parse(body.to_string().as_bytes()).expect("an object")
}

/// A smallest chat request with `extra` put over it.
fn chat_with(extra: Value) -> Result<Call, ApiError> {
    let mut body = json!({"model": "bard", "messages": [{"role": "user", "content": "hi"}]});
    merge(&mut body, extra);
    chat(fields(&body))
}

fn text_with(extra: Value) -> Result<Call, ApiError> {
    let mut body = json!({"model": "bard", "prompt": "hi"});
    merge(&mut body, extra);
    text(fields(&body))
}

fn merge(body: &mut Value, extra: Value) {
    let extra = extra.as_object().expect("an object").clone();
    body.as_object_mut().expect("an object").extend(extra);
}

fn refused(result: Result<Call, ApiError>, code: &str, param: &str) {
    let error = result.expect_err(param);
    assert_eq!((error.row().code, error.param()), (code, Some(param)), "{error}");
    assert_eq!(error.row().status.as_u16(), 400, "{error}");
}

#[test]
fn a_smallest_request_gets_openai_defaults() {
    let call = chat_with(json!({})).expect("valid");
    assert_eq!((call.surface, call.stream), (Surface::Chat, None));
    let GenerateRequest { model, prompt, max_tokens, sampling, stop } = call.request;
    assert_eq!((model.as_str(), max_tokens, stop), ("bard", None, vec![]));
    let message = ChatMessage { role: "user".into(), content: "hi".into() };
    assert_eq!(prompt, Prompt::Chat(vec![message]));
    assert_eq!((sampling.temperature, sampling.top_p), (1.0, 1.0));
    let again = chat_with(json!({})).expect("valid").request.sampling;
    assert_ne!(sampling.seed, again.seed);
}

#[test]
fn every_honoured_parameter_arrives() {
    let call = chat_with(json!({
        "max_completion_tokens": 7, "temperature": 0, "top_p": 0.5, "top_k": 40, "min_p": 0.1,
        "repetition_penalty": 1.1, "frequency_penalty": -2, "presence_penalty": 2, "seed": -1,
        "stop": ["a", "b"], "stream": true, "stream_options": {"include_usage": true},
    }))
    .expect("valid");
    assert_eq!(call.stream, Some(StreamOptions { include_usage: true }));
    assert_eq!(call.request.max_tokens, Some(7));
    assert_eq!(call.request.stop, ["a", "b"]);
    let found = call.request.sampling;
    assert_eq!((found.temperature, found.top_p, found.min_p), (0.0, 0.5, 0.1));
    assert_eq!((found.repetition_penalty, found.seed), (1.1, u64::MAX));
    assert_eq!((found.frequency_penalty, found.presence_penalty), (-2.0, 2.0));
    assert_eq!(found.top_k, 40);
}

#[test]
fn numbers_out_of_range_are_refused_by_name() {
    for (name, value) in [
        ("temperature", json!(2.01)),
        ("temperature", json!(-0.1)),
        ("temperature", json!("1")),
        ("top_p", json!(1.5)),
        ("min_p", json!(-1)),
        ("top_k", json!(-1)),
        ("top_k", json!(1.5)),
        ("repetition_penalty", json!(-1)),
        ("frequency_penalty", json!(2.5)),
        ("presence_penalty", json!(-2.5)),
        ("seed", json!(0.5)),
        ("max_tokens", json!(0)),
        ("max_tokens", json!(-1)),
        ("max_tokens", json!(4_294_967_296_u64)),
        ("max_completion_tokens", json!(0)),
        ("stop", json!(5)),
        ("stop", json!("")),
        ("stop", json!(["a", ""])),
        ("stop", json!(["a", 1])),
        ("stop", json!(vec!["a"; 17])),
        ("stop", json!("a".repeat(1025))),
        ("stream", json!("yes")),
        ("model", json!(5)),
        ("messages", json!([])),
        ("messages", json!("hi")),
    ] {
        refused(chat_with(json!({name: value})), "invalid_value", name);
    }
    refused(
        chat_with(json!({"max_tokens": 4, "max_completion_tokens": 5})),
        "invalid_value",
        "max_completion_tokens",
    );
    assert!(chat_with(json!({"max_tokens": 4, "max_completion_tokens": 4})).is_ok());
    assert!(chat_with(json!({"stop": vec!["a"; 16]})).is_ok());
}

#[test]
fn what_would_change_the_answer_is_refused_and_its_default_accepted() {
    for (name, value) in [
        ("n", json!(2)),
        ("logprobs", json!(true)),
        ("logprobs", json!(5)),
        ("top_logprobs", json!(3)),
        ("logit_bias", json!({"50256": -100})),
        ("tools", json!([{"type": "function"}])),
        ("tool_choice", json!("required")),
        ("functions", json!([{}])),
        ("response_format", json!({"type": "json_object"})),
        ("modalities", json!(["text", "audio"])),
        ("audio", json!({"voice": "x"})),
        ("reasoning_effort", json!("high")),
    ] {
        refused(chat_with(json!({name: value})), "unsupported_parameter", name);
    }
    for (name, value) in [
        ("echo", json!(true)),
        ("suffix", json!("x")),
        ("best_of", json!(2)),
        ("logprobs", json!(0)),
    ] {
        refused(text_with(json!({name: value})), "unsupported_parameter", name);
    }
    for (name, harmless, _) in UNSUPPORTED {
        for json in harmless.iter().chain([&"null"]) {
            let value: Value = serde_json::from_str(json).expect("the table holds JSON");
            assert!(chat_with(json!({name: value})).is_ok(), "{name} {json}");
        }
    }
    let labels =
        json!({"user": "u", "metadata": {"a": "b"}, "store": true, "service_tier": "flex"});
    assert!(chat_with(labels).is_ok());
}

#[test]
fn unknown_fields_are_refused_wherever_they_stand() {
    refused(chat_with(json!({"temprature": 1})), "unknown_parameter", "temprature");
    refused(chat_with(json!({"prompt": "x"})), "unknown_parameter", "prompt");
    refused(text_with(json!({"messages": []})), "unknown_parameter", "messages");
    refused(
        chat_with(json!({"stream": true, "stream_options": {"usage": true}})),
        "unknown_parameter",
        "stream_options.usage",
    );
    refused(
        chat_with(json!({"messages": [{"role": "user", "content": "x", "weight": 1}]})),
        "unknown_parameter",
        "messages[0].weight",
    );
    refused(
        chat_with(json!({"stream_options": {"include_usage": true}})),
        "invalid_value",
        "stream_options",
    );
}

#[test]
fn messages_may_be_parts_and_roles_are_known() {
    let call = chat_with(json!({"messages": [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c", "refusal": null, "annotations": [], "tool_calls": null},
    ]}))
    .expect("valid");
    let message =
        |role: &str, content: &str| ChatMessage { role: role.into(), content: content.into() };
    let expected =
        vec![message("system", "be brief"), message("user", "ab"), message("assistant", "c")];
    assert_eq!(call.request.prompt, Prompt::Chat(expected));

    let one = |value: Value| chat_with(json!({"messages": [value]}));
    let role = json!({"role": "tool", "content": "x"});
    refused(one(role), "invalid_value", "messages[0].role");
    refused(one(json!({"role": "user"})), "missing_required_parameter", "messages[0].content");
    refused(one(json!({"content": "x"})), "missing_required_parameter", "messages[0].role");
    refused(one(json!({"role": "user", "content": 4})), "invalid_value", "messages[0].content");
    refused(one(json!("hi")), "invalid_value", "messages[0]");
    let image = json!({"role": "user", "content": [{"type": "image_url", "image_url": {}}]});
    refused(one(image), "unsupported_parameter", "messages[0].content[0].type");
    let named = json!({"role": "user", "content": "x", "name": "ada"});
    refused(one(named), "unsupported_parameter", "messages[0].name");
    let calls = json!({"role": "assistant", "content": "x", "tool_calls": [{}]});
    refused(one(calls), "unsupported_parameter", "messages[0].tool_calls");
}

#[test]
fn prompts_are_text_or_token_ids_and_never_several() {
    let read = |value: Value| text_with(json!({"prompt": value})).map(|call| call.request.prompt);
    let valid = |value: Value| read(value).expect("valid");
    assert_eq!(valid(json!("x")), Prompt::Text("x".into()));
    assert_eq!(valid(json!(["x"])), Prompt::Text("x".into()));
    assert_eq!(valid(json!([1, 2])), Prompt::Tokens(vec![1, 2]));
    assert_eq!(valid(json!([[1, 2]])), Prompt::Tokens(vec![1, 2]));
    assert_eq!(valid(json!([])), Prompt::Tokens(vec![]));
    for several in [json!(["x", "y"]), json!([[1], [2]])] {
        refused(text_with(json!({"prompt": several})), "unsupported_parameter", "prompt");
    }
    for wrong in
        [json!(5), json!({}), json!([1, "x"]), json!([-1]), json!([1.5]), json!([[1, "x"]])]
    {
        refused(text_with(json!({"prompt": wrong})), "invalid_value", "prompt");
    }
    let missing = text(fields(&json!({"model": "bard"})));
    refused(missing, "missing_required_parameter", "prompt");
    let missing = text(fields(&json!({"prompt": "x"})));
    refused(missing, "missing_required_parameter", "model");
}
