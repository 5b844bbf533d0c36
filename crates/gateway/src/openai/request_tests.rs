//! What is honoured, what is refused, and that refusals name their field.

use super::*;
use crate::asking::BIASES_MAX;
use serde_json::json;
use talka_node::api::{ChatMessage, Fallback, Grammar, ToolChoice};

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

/// The only request of a call.
fn one(mut call: Call) -> GenerateRequest {
    assert_eq!(call.requests.len(), 1);
    call.requests.remove(0)
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
    assert_eq!((call.requests.len(), call.per_prompt), (1, 1));
    let GenerateRequest { model, prompt, max_tokens, sampling, stop, .. } = one(call);
    assert_eq!((model.as_str(), max_tokens, stop), ("bard", None, vec![]));
    assert_eq!(prompt, Prompt::Chat(vec![ChatMessage::new("user", "hi")]));
    assert_eq!((sampling.temperature, sampling.top_p), (1.0, 1.0));
    let again = one(chat_with(json!({})).expect("valid")).sampling;
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
    let request = one(call);
    assert_eq!(request.max_tokens, Some(7));
    assert_eq!(request.stop, ["a", "b"]);
    let found = request.sampling;
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
        ("functions", json!([{}])),
        ("function_call", json!({"name": "x"})),
        ("modalities", json!(["text", "audio"])),
        ("audio", json!({"voice": "x"})),
        ("reasoning_effort", json!("high")),
    ] {
        refused(chat_with(json!({name: value})), "unsupported_parameter", name);
    }
    refused(chat_with(json!({"echo": true})), "unsupported_parameter", "echo");
    let tools = ("tools", json!([{"type": "function", "function": {"name": "x"}}]));
    for (name, value) in [("suffix", json!("x")), ("best_of", json!(2)), tools] {
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
fn prompts_are_texts_or_token_ids_one_or_several() {
    let read = |value: Value| text_with(json!({"prompt": value}));
    let prompts = |value: Value| -> Vec<Prompt> {
        read(value).expect("valid").requests.into_iter().map(|request| request.prompt).collect()
    };
    let text = |text: &str| Prompt::Text(text.into());
    assert_eq!(prompts(json!("x")), [text("x")]);
    assert_eq!(prompts(json!(["x"])), [text("x")]);
    assert_eq!(prompts(json!(["x", "y"])), [text("x"), text("y")]);
    assert_eq!(prompts(json!([1, 2])), [Prompt::Tokens(vec![1, 2])]);
    assert_eq!(
        prompts(json!([[1, 2], [3]])),
        [1..3, 3..4].map(|ids| Prompt::Tokens(ids.collect()))
    );
    assert_eq!(prompts(json!([])), [Prompt::Tokens(vec![])]);
    for wrong in
        [json!(5), json!({}), json!([1, "x"]), json!([-1]), json!([1.5]), json!([[1, "x"]])]
    {
        refused(text_with(json!({"prompt": wrong})), "invalid_value", "prompt");
    }
    refused(read(json!(vec!["x"; CHOICES_MAX + 1])), "invalid_value", "prompt");
    let missing = super::text(fields(&json!({"model": "bard"})));
    refused(missing, "missing_required_parameter", "prompt");
    let missing = super::text(fields(&json!({"prompt": "x"})));
    refused(missing, "missing_required_parameter", "model");
}

#[test]
fn choices_differ_in_their_seed_alone() {
    let body = json!({"prompt": ["x", "y"], "n": 2, "seed": 40, "echo": true});
    let call = text_with(body).expect("valid");
    assert_eq!(call.per_prompt, 2);
    let found: Vec<_> =
        call.requests.iter().map(|r| (&r.prompt, r.sampling.seed, r.echo)).collect();
    let [x, y] = ["x", "y"].map(|text| Prompt::Text(text.into()));
    assert_eq!(found, [(&x, 40, true), (&x, 41, true), (&y, 40, true), (&y, 41, true)]);
    for n in [0, CHOICES_MAX + 1] {
        refused(chat_with(json!({"n": n})), "invalid_value", "n");
    }
    refused(text_with(json!({"prompt": ["x", "y"], "n": CHOICES_MAX})), "invalid_value", "n");
}

#[test]
fn log_probabilities_are_asked_for_in_two_ways() {
    let chat = |body: Value| chat_with(body).map(|call| one(call).logprobs);
    assert_eq!(chat(json!({"logprobs": true})).expect("valid"), Some(0));
    assert_eq!(chat(json!({"logprobs": true, "top_logprobs": 20})).expect("valid"), Some(20));
    assert_eq!(chat(json!({"logprobs": false, "top_logprobs": 0})).expect("valid"), None);
    refused(chat_with(json!({"top_logprobs": 3})), "invalid_value", "top_logprobs");
    let many = json!({"logprobs": true, "top_logprobs": 21});
    refused(chat_with(many), "invalid_value", "top_logprobs");
    refused(chat_with(json!({"logprobs": 5})), "invalid_value", "logprobs");

    let text = |body: Value| text_with(body).map(|call| one(call).logprobs);
    assert_eq!(text(json!({"logprobs": 0})).expect("valid"), Some(0));
    assert_eq!(text(json!({"logprobs": 5})).expect("valid"), Some(5));
    assert_eq!(text(json!({"logprobs": false})).expect("valid"), None);
    refused(text_with(json!({"logprobs": 6})), "invalid_value", "logprobs");
    refused(text_with(json!({"logprobs": true})), "invalid_value", "logprobs");
    // A prompt may be scored without an answer.
    let scoring = json!({"logprobs": 1, "echo": true, "max_tokens": 0});
    assert_eq!(one(text_with(scoring).expect("valid")).max_tokens, Some(0));
    refused(text_with(json!({"echo": true, "max_tokens": 0})), "invalid_value", "max_tokens");
}

#[test]
fn biases_are_bounded_and_named_by_token() {
    let bias = |value: Value| chat_with(json!({"logit_bias": value}));
    let found = one(bias(json!({"50": -100, "7": 2.5})).expect("valid")).sampling.logit_bias;
    assert_eq!(found, [(50, -100.0), (7, 2.5)]);
    refused(bias(json!([])), "invalid_value", "logit_bias");
    refused(bias(json!({"7": 101})), "invalid_value", "logit_bias.\"7\"");
    refused(bias(json!({"word": 1})), "invalid_value", "logit_bias.\"word\"");
    let many: serde_json::Map<_, _> =
        (0..=BIASES_MAX).map(|id| (id.to_string(), json!(1))).collect();
    refused(bias(Value::Object(many)), "invalid_value", "logit_bias");
}

#[test]
fn a_form_travels_with_the_field_that_asks_for_it() {
    let call = chat_with(json!({"guided_regex": "a+", "min_tokens": 2, "ignore_eos": true}));
    let call = call.expect("valid");
    assert_eq!(call.form.as_deref(), Some("guided_regex"));
    let request = one(call);
    assert_eq!(request.grammar, Some(Grammar::Regex("a+".into())));
    assert_eq!((request.min_tokens, request.ignore_end), (2, true));
}

#[test]
fn functions_travel_with_the_form_of_other_answers() {
    let tools = json!([{"type": "function", "function": {"name": "x"}}]);
    let call = chat_with(json!({"tools": tools, "tool_choice": "required"})).expect("valid");
    // A schema that cannot be followed is one of theirs.
    assert_eq!(call.form.as_deref(), Some("tools"));
    let wish = one(call).tools.expect("functions");
    assert_eq!((wish.tools.len(), wish.choice), (1, ToolChoice::Required));
    let format = json!({"type": "json_object"});
    let both = chat_with(json!({"tools": tools, "response_format": format})).expect("valid");
    let both = one(both);
    assert_eq!((both.grammar, both.tools.is_some()), (Some(Grammar::JsonObject), true));
    let regex = json!({"tools": tools, "guided_regex": "a"});
    refused(chat_with(regex), "invalid_value", "guided_regex");
}

#[test]
fn an_upstream_is_asked_for_or_forbidden_in_talkas_own_object() {
    let found = |talka: Value| one(chat_with(json!({ "talka": talka })).expect("valid")).fallback;
    assert_eq!(found(json!(null)), Fallback::Allowed);
    assert_eq!(found(json!({})), Fallback::Allowed);
    assert_eq!(found(json!({"fallback": "allow"})), Fallback::Allowed);
    assert_eq!(found(json!({"fallback": "never"})), Fallback::Never);
    assert_eq!(found(json!({"upstream": "groq"})), Fallback::Only("groq".into()));
    for (talka, param) in [
        (json!([]), "talka"),
        (json!({"upstream": 7}), "talka.upstream"),
        (json!({"fallback": "maybe"}), "talka.fallback"),
        (json!({"upstream": "groq", "fallback": "never"}), "talka.fallback"),
    ] {
        refused(chat_with(json!({ "talka": talka })), "invalid_value", param);
    }
    refused(chat_with(json!({"talka": {"up": 1}})), "unknown_parameter", "talka.up");
}

#[test]
fn an_answer_is_gone_on_with_by_its_id() {
    let id = "000102030405060708090a0b0c0d0e0f";
    let found = |resume: Value| {
        one(chat_with(json!({"talka": {"resume": resume}})).expect("valid")).resume.expect("one")
    };
    for prefix in ["", "cmpl-", "chatcmpl-", "resp_", "msg_"] {
        let answer = format!("{prefix}{id}");
        let resume = found(json!({"answer": answer, "tokens": 7}));
        assert_eq!((resume.request.to_string().as_str(), resume.seen), (id, 7));
    }
    assert_eq!(found(json!({"answer": id})).seen, 0);
    for (resume, code, param) in [
        (json!("x"), "invalid_value", "talka.resume"),
        (json!({}), "missing_required_parameter", "talka.resume.answer"),
        (json!({"answer": "cmpl-12"}), "invalid_value", "talka.resume.answer"),
        (json!({"answer": id, "tokens": -1}), "invalid_value", "talka.resume.tokens"),
        (json!({"answer": id, "after": 1}), "unknown_parameter", "talka.resume.after"),
    ] {
        refused(chat_with(json!({"talka": {"resume": resume}})), code, param);
    }
    let several = json!({"n": 2, "talka": {"resume": {"answer": id}}});
    refused(chat_with(several), "invalid_value", "n");
}
