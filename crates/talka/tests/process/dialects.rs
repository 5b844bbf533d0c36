//! The Responses API and Anthropic Messages: the same answers in other words.

use crate::{
    harness::{Node, folder, join, up, up_with_key, wait_for},
    models::{bard, golden, room_for},
};
use serde_json::{Value, json};

const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages";

/// `body` with `extra` put over it.
fn with(body: &Value, extra: &Value) -> Value {
    let mut body = body.clone();
    for (name, value) in extra.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

/// The same greedy question in three dialects.
struct Question {
    chat: Value,
    response: Value,
    message: Value,
}

impl Question {
    fn new(text: &str, tokens: usize) -> Self {
        let said = json!([{"role": "user", "content": text}]);
        let common = json!({"model": "bard", "temperature": 0});
        Self {
            chat: with(&common, &json!({"messages": said, "max_tokens": tokens})),
            response: with(&common, &json!({"input": text, "max_output_tokens": tokens})),
            message: with(&common, &json!({"messages": said, "max_tokens": tokens})),
        }
    }
}

fn response_text(response: &Value) -> &str {
    response["output"][0]["content"][0]["text"].as_str().expect("text")
}

fn message_text(message: &Value) -> &str {
    message["content"][0]["text"].as_str().expect("text")
}

/// The texts of all events `name`, in order.
fn joined(events: &[(String, Value)], name: &str, text: impl Fn(&Value) -> &Value) -> String {
    let of = events.iter().filter(|(found, _)| found == name);
    of.map(|(_, data)| text(data).as_str().expect("text")).collect()
}

/// Goal: each dialect says what a chat says, whole and streamed, counts the same tokens, and says who computed
/// it. Method: a greedy answer at `node` in all of them.
fn check(node: &Node, stages: usize) {
    let question = Question::new("Speak, ghost.", 24);
    let chat = node.post("/v1/chat/completions", &question.chat).done();
    check_responses(node, &question.response, &chat, stages);
    check_messages(node, &question.message, &chat, stages);
}

/// What a chat said, and the tokens of its question and its answer.
fn told(chat: &Value) -> (&str, &Value, &Value) {
    let text = chat["choices"][0]["message"]["content"].as_str().expect("text");
    (text, &chat["usage"]["prompt_tokens"], &chat["usage"]["completion_tokens"])
}

fn check_responses(node: &Node, question: &Value, chat: &Value, stages: usize) {
    let (expected, input, output) = told(chat);
    let reply = node.post(RESPONSES, question);
    let id = format!("resp_{}", reply.request);
    let response = reply.done();
    assert_eq!((response_text(&response), &response["id"]), (expected, &json!(id)));
    assert_eq!(response["status"], "incomplete");
    assert_eq!(response["incomplete_details"]["reason"], "max_output_tokens");
    assert_eq!(
        (&response["usage"]["input_tokens"], &response["usage"]["output_tokens"]),
        (input, output)
    );
    for part in ["route", "receipts"] {
        assert_eq!(response["talka"][part].as_array().map(Vec::len), Some(stages), "{response}");
    }

    let events = node.events(RESPONSES, question);
    let text = joined(&events, "response.output_text.delta", |data| &data["delta"]);
    assert_eq!(text, expected);
    let numbers: Vec<_> = events.iter().map(|(_, data)| data["sequence_number"].as_u64()).collect();
    assert_eq!(numbers, (0..numbers.len() as u64).map(Some).collect::<Vec<_>>());
    let (last, data) = events.last().expect("an event");
    assert_eq!(
        (last.as_str(), response_text(&data["response"])),
        ("response.incomplete", expected)
    );
}

fn check_messages(node: &Node, question: &Value, chat: &Value, stages: usize) {
    let (expected, input, output) = told(chat);
    let reply = node.post(MESSAGES, question);
    let id = format!("msg_{}", reply.request);
    let message = reply.done();
    assert_eq!((message_text(&message), &message["id"]), (expected, &json!(id)));
    assert_eq!(
        (&message["stop_reason"], &message["stop_sequence"]),
        (&json!("max_tokens"), &Value::Null)
    );
    assert_eq!(message["usage"], json!({"input_tokens": input, "output_tokens": output}));
    assert_eq!(message["talka"]["route"].as_array().map(Vec::len), Some(stages), "{message}");

    let events = node.events(MESSAGES, question);
    let text = joined(&events, "content_block_delta", |data| &data["delta"]["text"]);
    assert_eq!(text, expected);
    let names: Vec<_> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..3], ["message_start", "ping", "content_block_start"]);
    assert_eq!(names[names.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
}

#[test]
fn every_dialect_gives_the_same_answer() {
    let place = folder();
    check(&up(&place.path().join("data"), &[]), 1);
}

#[test]
fn every_dialect_gives_the_same_answer_over_two_nodes() {
    let place = folder();
    let [memory, cache] = room_for("bard", 2);
    let flags = ["--model", "bard", &memory, &cache];
    let founder = up(&place.path().join("a"), &flags);
    let other = join(&founder.invite(&[]), &place.path().join("b"), &flags);
    for node in [&founder, &other] {
        wait_for("a model cut over two nodes", || {
            let model = &node.get("/api/models").done()[0];
            let stages = model["coverage"].as_array().map(Vec::len);
            (model["complete"] == true && stages == Some(2)).then_some(())
        });
        check(node, 2);
    }
}

#[test]
fn a_stop_string_is_named_where_the_dialect_has_a_word_for_it() {
    let place = folder();
    let node = up(&place.path().join("data"), &[]);
    let question = Question::new("Speak, ghost.", 24);
    let whole = node.post(MESSAGES, &question.message).done();
    // The second word of the answer: it crosses no border that the caller knows of.
    let stop = message_text(&whole).split_whitespace().nth(1).expect("two words");
    let expected = message_text(&whole).split(stop).next().expect("a beginning");

    let asked = with(&question.message, &json!({"stop_sequences": ["never said", stop]}));
    let message = node.post(MESSAGES, &asked).done();
    assert_eq!(message_text(&message), expected);
    assert_eq!(
        (&message["stop_reason"], &message["stop_sequence"]),
        (&json!("stop_sequence"), &json!(stop))
    );
    let events = node.events(MESSAGES, &asked);
    let (_, end) = events.iter().find(|(name, _)| name == "message_delta").expect("an end");
    assert_eq!(end["delta"], json!({"stop_reason": "stop_sequence", "stop_sequence": stop}));

    let asked = with(&question.response, &json!({"stop": stop}));
    let response = node.post(RESPONSES, &asked).done();
    assert_eq!((response_text(&response), &response["status"]), (expected, &json!("completed")));
}

#[test]
fn forms_log_probabilities_and_counts_work_in_each_dialect() {
    let place = folder();
    let node = up(&place.path().join("data"), &[]);
    let question = Question::new("Speak, ghost.", 60);
    let schema = json!({
        "type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"],
        "additionalProperties": false,
    });
    let format =
        json!({"type": "json_schema", "name": "verdict", "schema": schema, "strict": true});
    let asked = with(&question.response, &json!({"text": {"format": format}}));
    let response = node.post(RESPONSES, &asked).done();
    let found: Value = serde_json::from_str(response_text(&response)).expect("JSON");
    assert!(found["yes"].is_boolean(), "{found}");
    assert_eq!(response["text"]["format"], format);
    let format = json!({"format": {"type": "json_schema", "schema": schema}});
    let message = node.post(MESSAGES, &with(&question.message, &json!({"output_config": format})));
    assert_eq!(message_text(&message.done()), response_text(&response));

    let scored = json!({
        "include": ["message.output_text.logprobs"], "top_logprobs": 2, "max_output_tokens": 3,
    });
    let response = node.post(RESPONSES, &with(&question.response, &scored)).done();
    let logprobs = &response["output"][0]["content"][0]["logprobs"];
    assert_eq!(logprobs.as_array().map(Vec::len), Some(3), "{response}");
    assert_eq!(logprobs[0]["top_logprobs"].as_array().map(Vec::len), Some(2));

    let counted = json!({"model": "bard", "input": "Speak, ghost."});
    let count = node.post("/v1/responses/input_tokens", &counted).done();
    assert_eq!(count["input_tokens"], response["usage"]["input_tokens"]);
    let counted = json!({"model": "bard", "messages": question.message["messages"]});
    let count = node.post("/v1/messages/count_tokens", &counted).done();
    assert_eq!(count, json!({"input_tokens": response["usage"]["input_tokens"]}));
}

/// Goal: an answer of one dialect can be had again by its id. Method: asked for from its beginning, after its end.
#[test]
fn an_answer_is_gone_on_with_in_each_dialect() {
    let place = folder();
    let node = up(&place.path().join("data"), &[]);
    let question = Question::new("Speak, ghost.", 24);
    for (path, body) in [(RESPONSES, &question.response), (MESSAGES, &question.message)] {
        let first = node.post(path, body).done();
        let resume = json!({"talka": {"resume": {"answer": first["id"], "tokens": 0}}});
        let again = node.post(path, &with(body, &resume)).done();
        for field in ["id", "output", "content"] {
            assert_eq!(again[field], first[field], "{path}");
        }
    }
}

#[test]
fn refusals_are_worded_in_the_dialect_called() {
    let place = folder();
    let node = up(&place.path().join("data"), &[]);
    let question = Question::new("Speak, ghost.", 2);
    let hosted = json!({"tools": [{"type": "web_search"}]});
    let respond = |extra: Value| node.post(RESPONSES, &with(&question.response, &extra));
    respond(hosted).refused(400, "unsupported_parameter", &["tools[0].type"]);
    respond(json!({"model": "gpt-9"})).refused(404, "model_not_found", &["gpt-9", "bard"]);
    let earlier = json!({"previous_response_id": "resp_1"});
    respond(earlier).refused(400, "unsupported_parameter", &["previous_response_id", "stored"]);
    node.get("/v1/responses/resp_1").refused(404, "response_not_kept", &["resp_1"]);

    let refused = |extra: Value, status: u16, kind: &str, code: &str| {
        let reply = node.post(MESSAGES, &with(&question.message, &extra));
        let (error, talka) = (&reply.body["error"], &reply.body["talka"]);
        assert_eq!((reply.status, error["type"].as_str()), (status, Some(kind)), "{reply:#?}");
        assert_eq!(talka["code"], code, "{reply:#?}");
        assert_eq!(
            (&reply.body["type"], &reply.body["request_id"]),
            (&json!("error"), &json!(reply.request))
        );
    };
    let hosted = json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]});
    refused(hosted, 400, "invalid_request_error", "unsupported_parameter");
    refused(
        json!({"max_tokens": null}),
        400,
        "invalid_request_error",
        "missing_required_parameter",
    );
    refused(json!({"model": "gpt-9"}), 404, "not_found_error", "model_not_found");
    let long = json!({"system": "word ".repeat(600)});
    refused(long, 400, "invalid_request_error", "context_length_exceeded");
}

/// Goal: a function is called and its result told in each dialect as in a chat. Method: a call that must be made, by a
/// model that knows nothing of functions, whole and streamed; then the same conversation with the result.
#[test]
fn a_function_is_called_in_each_dialect() {
    let place = folder();
    let node = up(&place.path().join("data"), &[]);
    let schema = json!({
        "properties": {"dice": {"enum": [6, 20]}}, "required": ["dice"], "additionalProperties": false,
    });
    let question = Question::new("Roll.", 64);

    let tool = json!({"type": "function", "name": "roll", "parameters": schema});
    let must = json!({"tools": [tool], "tool_choice": "required", "parallel_tool_calls": false});
    let asked = with(&question.response, &must);
    let response = node.post(RESPONSES, &asked).done();
    let call = &response["output"][0];
    assert_eq!((&call["type"], &call["name"]), (&json!("function_call"), &json!("roll")));
    let dice: Value =
        serde_json::from_str(call["arguments"].as_str().expect("text")).expect("JSON");
    assert!([6, 20].map(|sides| json!({"dice": sides})).contains(&dice), "{response}");
    let events = node.events(RESPONSES, &asked);
    let streamed = joined(&events, "response.function_call_arguments.delta", |data| &data["delta"]);
    assert_eq!(json!(streamed), call["arguments"]);
    let output = json!({"type": "function_call_output", "call_id": call["call_id"], "output": "5"});
    let on = json!({
        "input": [{"role": "user", "content": "Roll."}, call, output], "tools": [tool],
        "tool_choice": "none", "max_output_tokens": 16,
    });
    let after =
        response_text(&node.post(RESPONSES, &with(&question.response, &on)).done()).to_owned();

    let tool = json!({"name": "roll", "input_schema": schema});
    let must = json!({
        "tools": [tool], "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
    });
    let asked = with(&question.message, &must);
    let message = node.post(MESSAGES, &asked).done();
    let block = &message["content"][0];
    assert_eq!((&message["stop_reason"], &block["type"]), (&json!("tool_use"), &json!("tool_use")));
    assert_eq!((&block["name"], &block["input"]), (&json!("roll"), &dice));
    let events = node.events(MESSAGES, &asked);
    let streamed = joined(&events, "content_block_delta", |data| &data["delta"]["partial_json"]);
    assert_eq!(serde_json::from_str::<Value>(&streamed).expect("JSON"), dice);
    let result = json!({"type": "tool_result", "tool_use_id": block["id"], "content": "5"});
    let on = json!({
        "messages": [
            {"role": "user", "content": "Roll."}, {"role": "assistant", "content": [block]},
            {"role": "user", "content": [result]},
        ],
        "tools": [tool], "tool_choice": {"type": "none"}, "max_tokens": 16,
    });
    assert_eq!(message_text(&node.post(MESSAGES, &with(&question.message, &on)).done()), after);

    let counted = json!({
        "model": "bard", "messages": question.message["messages"], "tools": [tool],
    });
    let count = node.post("/v1/messages/count_tokens", &counted).done();
    assert_eq!(count["input_tokens"], message["usage"]["input_tokens"]);
}

/// Another network's node answers, and the answer says so in each dialect.
#[test]
fn an_upstream_answers_in_each_dialect() {
    const KEY: &str = "sk-nobody-may-see-this";
    let place = folder();
    let far = up_with_key(&place.path().join("far"), KEY);
    let key = place.path().join("key");
    std::fs::write(&key, KEY).expect("written");
    let upstream = format!("far={}/v1,key-file={}", far.http, key.display());
    let near = up(&place.path().join("near"), &["--upstream", &upstream]);
    let golden = &golden(&bard())[0];
    let question = Question::new(&golden.prompt, 8);
    let own = json!({"talka": {"upstream": "far"}});
    for (path, body) in [(RESPONSES, &question.response), (MESSAGES, &question.message)] {
        let at_home = near.post(path, body).done();
        let reply = near.post(path, &with(body, &own));
        assert_eq!(reply.upstream.as_deref(), Some("far"));
        let answer = reply.done();
        assert_eq!(answer["talka"]["upstream"], "far");
        assert_eq!(answer["content"], at_home["content"]);
        let text = |answer: &Value| answer["output"][0]["content"][0]["text"].clone();
        assert_eq!(text(&answer), text(&at_home));
    }
}
