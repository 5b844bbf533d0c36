//! Answers that call functions.

use crate::{
    harness::{Node, folder, up},
    models::room_for,
    resume::joined,
};
use serde_json::{Value, json};

const PATH: &str = "/v1/chat/completions";

/// A request that may call `roll` or `now`. Bard's context has room for few words.
fn request(extra: Value) -> Value {
    let schema = json!({
        "properties": {"dice": {"enum": [6, 20]}}, "required": ["dice"], "additionalProperties": false,
    });
    let tools = json!([
        {"type": "function", "function": {"name": "roll", "parameters": schema}},
        {"type": "function", "function": {"name": "now"}},
    ]);
    let mut body = json!({
        "model": "bard", "messages": [{"role": "user", "content": "Roll."}], "tools": tools,
        "parallel_tool_calls": false, "temperature": 0, "max_tokens": 64,
    });
    let fields = body.as_object_mut().expect("an object");
    fields.extend(extra.as_object().expect("an object").clone());
    body
}

fn named(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name}})
}

/// The functions that the first choice calls, with their arguments. It says nothing else.
fn calls(answer: &Value) -> Vec<(String, String)> {
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{answer}");
    assert_eq!(choice["message"]["content"], Value::Null, "{answer}");
    let calls = choice["message"]["tool_calls"].as_array().expect("calls");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let call = |call: &Value| {
        assert!(text(&call["id"]).starts_with("call_") && call["type"] == "function", "{call}");
        (text(&call["function"]["name"]), text(&call["function"]["arguments"]))
    };
    calls.iter().map(call).collect()
}

/// Goal: even a model that knows nothing of functions calls one where it must, rightly. Method: each way to force
/// a call, whole and streamed; the calls that were made.
fn check(node: &Node) -> Vec<(String, String)> {
    let mut made = Vec::new();
    for choice in [json!("required"), named("roll"), named("now")] {
        let body = request(json!({"tool_choice": choice}));
        let found = calls(&node.post(PATH, &body).done());
        let [(name, arguments)] = found.as_slice() else { panic!("one call: {found:?}") };
        let arguments: Value = serde_json::from_str(arguments).expect("JSON");
        match name.as_str() {
            "roll" => assert!(arguments == json!({"dice": 6}) || arguments == json!({"dice": 20})),
            _ => assert_eq!((name.as_str(), arguments), ("now", json!({}))),
        }
        let wanted = choice["function"]["name"].as_str();
        assert!(wanted.is_none_or(|wanted| wanted == name), "{found:?}");
        let streamed = node.stream(PATH, &body, |_| ());
        assert_eq!((&streamed.calls, streamed.text.as_str()), (&found, ""), "{streamed:?}");
        assert_eq!((streamed.finish.as_deref(), streamed.done), (Some("tool_calls"), true));
        made.extend(found);
    }
    made
}

#[test]
fn a_function_is_called_where_it_must_be() {
    let place = folder();
    let alone = check(&up(&place.path().join("alone"), &[]));

    let [memory, cache] = room_for("bard", 2);
    let flags = ["--model", "bard", &memory, &cache];
    let founder = up(&place.path().join("founder"), &flags);
    let invite = founder.invite(&[]);
    let second = joined(&founder, &invite, &place.path().join("second"), &flags);
    assert_eq!(check(&second), alone, "over two nodes as over one");
}

#[test]
fn a_conversation_goes_on_after_a_call() {
    let place = folder();
    let node = up(&place.path().join("data"), &[]);
    let answer = node.post(PATH, &request(json!({"tool_choice": named("roll")}))).done();
    let said = &answer["choices"][0]["message"];
    let id = &said["tool_calls"][0]["id"];
    let messages = json!([
        {"role": "user", "content": "Roll."}, said,
        {"role": "tool", "tool_call_id": id, "content": "5"},
    ]);
    let on = request(json!({"messages": messages, "tool_choice": "none"}));
    let answer = node.post(PATH, &on).done();
    // Bard's template shows nothing but what is said: the call, and what came of it.
    let arguments = said["tool_calls"][0]["function"]["arguments"].as_str().expect("text");
    let arguments: Value = serde_json::from_str(arguments).expect("JSON");
    let call =
        format!("{{\"name\": \"roll\", \"arguments\": {{\"dice\": {}}}}}", arguments["dice"]);
    let prompt = format!("Roll.\n{call}\nroll returned: 5\n");
    let same = json!({"model": "bard", "prompt": prompt, "temperature": 0, "max_tokens": 64});
    let same = node.post("/v1/completions", &same).done();
    assert_eq!(answer["choices"][0]["message"]["content"], same["choices"][0]["text"]);

    // Free to call or not, bard speaks; a function that is strict keeps it from calling wrongly only.
    let free = node.post(PATH, &request(json!({}))).done();
    let message = &free["choices"][0]["message"];
    assert!(message.get("tool_calls").is_none() && message["content"].is_string(), "{free}");

    let messages = json!([{"role": "tool", "tool_call_id": "call_x", "content": "5"}]);
    let unasked = node.post(PATH, &request(json!({"messages": messages})));
    unasked.refused(400, "invalid_value", &["messages[0].tool_call_id"]);
    let mut nonsense = request(json!({"tool_choice": "required"}));
    nonsense["tools"][0]["function"]["parameters"] = json!({"properties": {"a": {"type": "no"}}});
    node.post(PATH, &nonsense).refused(400, "invalid_grammar", &["tools"]);
    let mut strict = request(json!({}));
    strict["tools"][0]["function"]["strict"] = true.into();
    assert_eq!(node.post(PATH, &strict).done()["choices"][0]["message"]["role"], "assistant");
}
