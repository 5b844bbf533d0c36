//! What a request may ask for beside text: a form, log-probabilities, several choices.

use crate::{
    harness::{Node, folder, up},
    models::{bard, golden},
    together::three,
};
use serde_json::{Value, json};
use std::thread;

/// A request for bard with `extra` over it.
fn ask(node: &Node, path: &str, extra: Value) -> Value {
    let mut body = json!({ "model": "bard", "max_tokens": 16, "temperature": 0 });
    let fields = body.as_object_mut().expect("an object");
    fields.extend(extra.as_object().expect("an object").clone());
    node.post(path, &body).done()
}

/// Goal: an answer has the form asked for, however it is asked. Method: schema, expression and choice
/// over both surfaces, whole and streamed, each checked by hand.
#[test]
fn an_answer_has_the_form_asked_for() {
    let place = folder();
    let node = up(&place.path().join("data"), &[]);
    let schema = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 10},
            "age": {"type": "integer", "minimum": 0, "maximum": 99},
        },
        "required": ["name", "age"],
        "additionalProperties": false,
    });
    let format = json!({"type": "json_schema",
        "json_schema": {"name": "person", "strict": true, "schema": schema}});
    let messages = json!([{"role": "user", "content": "Who art thou?"}]);
    let chat = json!({"messages": messages, "response_format": format, "max_tokens": 120,
        "temperature": 1, "seed": 3});
    let answer = ask(&node, "/v1/chat/completions", chat.clone());
    let choice = &answer["choices"][0];
    let text = choice["message"]["content"].as_str().expect("text");
    let person: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let name = person["name"].as_str().expect("a name");
    assert!((1..=10).contains(&name.chars().count()), "{person}");
    assert!(person["age"].as_u64().is_some_and(|age| age <= 99), "{person}");
    assert_eq!(person.as_object().map(serde_json::Map::len), Some(2), "{person}");
    assert_eq!(choice["finish_reason"], "stop");
    let mut same = chat;
    same["model"] = "bard".into();
    let streamed = node.stream("/v1/chat/completions", &same, |_| {});
    assert_eq!((streamed.text.as_str(), streamed.done), (text, true));

    let of = |extra: Value| {
        let answer = ask(&node, "/v1/completions", extra);
        answer["choices"][0]["text"].as_str().expect("text").to_owned()
    };
    let date = of(json!({"prompt": "On ", "guided_regex": "[0-9]{4}-[0-9]{2}"}));
    assert_eq!((date.len(), &date[4..5]), (7, "-"), "{date}");
    let answer = of(json!({"prompt": "To be?", "guided_choice": ["aye", "nay"]}));
    assert!(["aye", "nay"].contains(&answer.as_str()), "{answer}");
}

#[test]
fn a_form_that_cannot_be_followed_is_refused_with_its_reason() {
    let place = folder();
    let node = up(&place.path().join("data"), &[]);
    let before = node.ledger();
    let refused = |extra: Value, words: &[&str]| {
        let mut body = json!({ "model": "bard", "prompt": "x", "max_tokens": 4 });
        body.as_object_mut().expect("an object").extend(extra.as_object().expect("one").clone());
        node.post("/v1/completions", &body).refused(400, "invalid_grammar", words);
    };
    refused(json!({"guided_json": {"type": "nonsense"}}), &["guided_json", "nonsense"]);
    refused(json!({"guided_regex": "a("}), &["guided_regex"]);
    let format = json!({"type": "json_schema",
        "json_schema": {"name": "x", "schema": {"$ref": "#/$defs/absent"}}});
    refused(json!({"response_format": format}), &["response_format"]);
    assert_eq!(node.ledger(), before, "nothing was reserved");
}

#[test]
fn log_probabilities_are_those_of_another_implementation() {
    let place = folder();
    let node = up(&place.path().join("data"), &[]);
    for golden in golden(&bard()) {
        // The answer's tokens as they are chosen.
        let asked = json!({"prompt": golden.prompt_ids, "logprobs": 5,
            "max_tokens": golden.greedy_ids.len()});
        let answer = ask(&node, "/v1/completions", asked);
        let found = &answer["choices"][0]["logprobs"];
        check(&found["token_logprobs"], &golden.logprobs);
        for (own, top) in pairs(&found["token_logprobs"], &found["top_logprobs"]) {
            let best = top.as_object().expect("an object").values().filter_map(Value::as_f64);
            let best = best.fold(f64::NEG_INFINITY, f64::max);
            assert!(own.as_f64() == Some(best) && best <= 0.0, "greedy takes the best: {top}");
        }

        // The same tokens as a prompt.
        let all = [golden.prompt_ids.as_slice(), &golden.greedy_ids].concat();
        let asked = json!({"prompt": all, "logprobs": 1, "echo": true, "max_tokens": 0});
        let answer = ask(&node, "/v1/completions", asked);
        let scored = &answer["choices"][0];
        let found = scored["logprobs"]["token_logprobs"].as_array().expect("an array");
        assert_eq!((found.len(), &found[0]), (all.len(), &Value::Null));
        let of_answer = Value::from(found[golden.prompt_ids.len()..].to_vec());
        check(&of_answer, &golden.logprobs);
        let text = format!("{}{}", golden.prompt, golden.continuation());
        assert_eq!(scored["text"], text.as_str());
        assert_eq!(answer["usage"]["completion_tokens"], 0);
    }
    let messages = json!([{"role": "user", "content": "Speak, ghost."}]);
    let asked = json!({"messages": messages, "logprobs": true, "top_logprobs": 3});
    let answer = ask(&node, "/v1/chat/completions", asked);
    let tokens = answer["choices"][0]["logprobs"]["content"].as_array().expect("tokens").clone();
    assert_eq!(tokens.len() as u64, answer["usage"]["completion_tokens"].as_u64().expect("some"));
    for token in tokens {
        let top = token["top_logprobs"].as_array().expect("alternatives");
        let numbers: Vec<f64> = top.iter().filter_map(|t| t["logprob"].as_f64()).collect();
        assert!(numbers.len() == 3 && numbers.is_sorted_by(|a, b| a >= b), "{token}");
        assert_eq!((&top[0]["token"], &top[0]["logprob"]), (&token["token"], &token["logprob"]));
    }
}

/// Numbers close to those expected: the other implementation sums in another order.
fn check(found: &Value, expected: &[f64]) {
    let found = found.as_array().expect("an array");
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let found = found.as_f64().expect("a number");
        assert!((found - expected).abs() < 2e-3, "{found} for {expected}");
    }
}

fn pairs<'a>(a: &'a Value, b: &'a Value) -> impl Iterator<Item = (&'a Value, &'a Value)> {
    let [a, b] = [a, b].map(|value| value.as_array().expect("an array").iter());
    a.zip(b)
}

#[test]
fn several_choices_are_drawn_on_their_own_and_repeat_with_their_seed() {
    let place = folder();
    let node = up(&place.path().join("data"), &[]);
    let asked = json!({"prompt": "ROMEO:\n", "n": 3, "temperature": 1, "seed": 5});
    let answer = ask(&node, "/v1/completions", asked.clone());
    let choices = answer["choices"].as_array().expect("choices");
    assert_eq!(choices.len(), 3);
    for (choice, index) in choices.iter().zip(0..) {
        assert_eq!(choice["index"], index);
        assert_eq!(choice["finish_reason"], "length");
        // Each is what its own seed gives alone.
        let alone = json!({"prompt": "ROMEO:\n", "temperature": 1, "seed": 5 + index});
        let alone = ask(&node, "/v1/completions", alone);
        assert_eq!(alone["choices"][0]["text"], choice["text"]);
    }
    assert_ne!(choices[0]["text"], choices[1]["text"]);
    assert_eq!(answer["usage"]["completion_tokens"], 3 * 16);
    assert_eq!(answer["choices"], ask(&node, "/v1/completions", asked)["choices"]);

    let biased = json!({"prompt": "ROMEO:\n", "logit_bias": {"93": 100}});
    assert_eq!(ask(&node, "/v1/completions", biased)["choices"][0]["text"], "}".repeat(16));
}

/// Goal: neither guessing ahead nor company changes a greedy answer. Method: the continuations of
/// another implementation, eight at a time, and a prompt that invites guesses on one node and on
/// three: the same text, the same work charged.
#[test]
fn guesses_and_company_change_no_greedy_answer() {
    let place = folder();
    let node = up(&place.path().join("data"), &[]);
    let golden = golden(&bard());
    let asked: Vec<_> = golden.iter().cycle().take(8).collect();
    thread::scope(|scope| {
        for golden in asked {
            let (node, length) = (&node, golden.greedy_ids.len());
            scope.spawn(move || {
                let asked = json!({"prompt": golden.prompt, "max_tokens": length});
                let answer = ask(node, "/v1/completions", asked);
                assert_eq!(answer["choices"][0]["text"], golden.continuation());
            });
        }
    });
    let repeated = json!({"prompt": "one two three one two three one two", "max_tokens": 100,
        "ignore_eos": true});
    let alone = ask(&node, "/v1/completions", repeated.clone());
    let place = folder();
    let nodes = three(place.path(), "bard");
    let together = ask(&nodes[1], "/v1/completions", repeated);
    assert_eq!(together["talka"]["route"].as_array().map(Vec::len), Some(3));
    assert_eq!(together["choices"], alone["choices"]);
    assert_eq!(together["talka"]["flops"], alone["talka"]["flops"]);
    assert_ne!(together["talka"]["cost_micro_gft"], 0, "all stages signed the same work");
    assert_eq!(together["talka"]["audit"], "unaudited");
}
