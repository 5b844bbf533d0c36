//! Shapes of answers, framing of streams, and cancelling.

use super::*;
use crate::test_generation::{
    REQUEST, generation, generation_of, provenance, scored, summary, text,
};
use axum::body::to_bytes;
use serde_json::{Value, json};
use talka_node::api::GenerateError;

async fn said(surface: Surface, usage: bool, events: Vec<GenerateEvent>) -> Vec<Value> {
    let generation = generation_of(events).await;
    let voice = Voice::new(surface, &generation, 1, 7);
    let options = StreamOptions { include_usage: usage };
    let data: Vec<String> = chunks(voice, vec![generation], options).collect().await;
    data.iter()
        .map(|text| {
            if text == "[DONE]" { json!("[DONE]") } else { serde_json::from_str(text).expect(text) }
        })
        .collect()
}

#[tokio::test]
async fn a_whole_chat_answer_has_the_openai_shape() {
    let done = GenerateEvent::Done(summary(FinishReason::Stop));
    let generation = generation_of(vec![text("Hello "), text("you"), done]).await;
    let voice = Voice::new(Surface::Chat, &generation, 1, 7);
    assert_eq!(
        whole(&voice, vec![generation]).await.expect("complete").0,
        json!({
            "id": format!("chatcmpl-{REQUEST}"), "object": "chat.completion", "created": 7,
            "model": "bard",
            "choices": [{
                "index": 0, "logprobs": null, "finish_reason": "stop",
                "message": {"role": "assistant", "content": "Hello you", "refusal": null},
            }],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
            "talka": provenance(),
        })
    );
}

#[tokio::test]
async fn a_whole_text_answer_has_the_openai_shape() {
    let done = GenerateEvent::Done(summary(FinishReason::Length));
    let generation = generation_of(vec![text("be"), done]).await;
    let voice = Voice::new(Surface::Text, &generation, 1, 7);
    let answer = whole(&voice, vec![generation]).await.expect("complete").0;
    assert_eq!(answer["id"], format!("cmpl-{REQUEST}"));
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(
        answer["choices"],
        json!([{"index": 0, "text": "be", "logprobs": null, "finish_reason": "length"}])
    );
}

#[tokio::test]
async fn a_chat_stream_names_its_speaker_then_speaks_then_ends() {
    let done = GenerateEvent::Done(summary(FinishReason::Stop));
    let chunks = said(Surface::Chat, false, vec![text("Hi"), done]).await;
    let choice = |delta: Value, finish: Value| json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]);
    assert_eq!(chunks.len(), 4);
    assert_eq!(
        chunks[0]["choices"],
        choice(json!({"role": "assistant", "content": ""}), Value::Null)
    );
    assert_eq!(chunks[1]["choices"], choice(json!({"content": "Hi"}), Value::Null));
    assert_eq!(chunks[2]["choices"], choice(json!({}), json!("stop")));
    assert_eq!(chunks[2]["talka"], provenance());
    assert_eq!(chunks[3], "[DONE]");
    for chunk in &chunks[..3] {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(chunk["id"], format!("chatcmpl-{REQUEST}"));
        assert!(chunk.get("usage").is_none() && chunk.get("system_fingerprint").is_none());
    }
}

#[tokio::test]
async fn usage_comes_last_and_is_null_until_then() {
    for surface in [Surface::Chat, Surface::Text] {
        let done = GenerateEvent::Done(summary(FinishReason::Length));
        let chunks = said(surface, true, vec![text("a"), done]).await;
        let (end, chunks) = chunks.split_last().expect("an end");
        let (usage, chunks) = chunks.split_last().expect("a usage");
        assert_eq!(end, "[DONE]");
        assert_eq!(usage["choices"], json!([]));
        let expected = json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5});
        assert_eq!(usage["usage"], expected);
        assert_eq!(usage["talka"], provenance());
        assert!(chunks.iter().all(|chunk| chunk.get("usage") == Some(&Value::Null)));
        let finish = &chunks.last().expect("a finish")["choices"][0]["finish_reason"];
        assert_eq!(finish, "length");
    }
}

#[tokio::test]
async fn a_broken_stream_ends_with_an_error_and_no_done() {
    let span = serde_json::from_value(json!([0, 4])).expect("a span");
    let lost = GenerateError::StageLost { name: "attic".into(), span, reason: "no answer".into() };
    let chunks = said(Surface::Text, true, vec![text("a"), GenerateEvent::Failed(lost)]).await;
    assert_eq!(chunks.len(), 2);
    assert_eq!(chunks[1]["error"]["code"], "stage_lost");

    let chunks = said(Surface::Chat, false, vec![text("a")]).await;
    assert_eq!(chunks.last().expect("an error")["error"]["code"], "interrupted");
}

#[tokio::test]
async fn a_broken_whole_answer_is_an_error() {
    let (sender, generation) = generation();
    sender.send(text("part")).await.expect("room");
    drop(sender);
    let voice = Voice::new(Surface::Chat, &generation, 1, 7);
    let error = whole(&voice, vec![generation]).await.expect_err("no end");
    assert!(matches!(error, ApiError::Interrupted));
}

#[tokio::test]
async fn events_are_framed_as_server_sent_events_whatever_the_text() {
    let done = GenerateEvent::Done(summary(FinishReason::Stop));
    let generation = generation_of(vec![text("one\r\n\ndata: two\u{2028}"), done]).await;
    let voice = Voice::new(Surface::Text, &generation, 1, 7);
    let response = stream(voice, vec![generation], StreamOptions::default());
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    let body = String::from_utf8(body.to_vec()).expect("UTF-8");
    let frames: Vec<&str> = body.split_terminator("\n\n").collect();
    assert_eq!(frames.len(), 3, "{body}");
    let first = frames[0].strip_prefix("data: ").expect("data");
    let first: Value = serde_json::from_str(first).expect("one line of JSON");
    assert_eq!(first["choices"][0]["text"], "one\r\n\ndata: two\u{2028}");
    assert_eq!(frames[2], "data: [DONE]");
}

/// Goal: whoever goes away stops paying. Method: drop the stream midway and watch the generation.
#[tokio::test]
async fn dropping_a_stream_drops_its_generation() {
    let (sender, generation) = generation();
    let voice = Voice::new(Surface::Text, &generation, 1, 7);
    let mut stream = Box::pin(chunks(voice, vec![generation], StreamOptions::default()));
    sender.send(text("a")).await.expect("room");
    assert!(stream.next().await.is_some());
    assert!(!sender.is_closed());
    drop(stream);
    assert!(sender.is_closed());
}

#[tokio::test]
async fn several_choices_share_one_answer_and_its_usage() {
    let mut generations = Vec::new();
    for word in ["a", "b", "c", "d"] {
        let done = GenerateEvent::Done(summary(FinishReason::Length));
        generations.push(generation_of(vec![text(word), done]).await);
    }
    // Two prompts with two choices each.
    let voice = Voice::new(Surface::Text, &generations[0], 2, 7);
    let answer = whole(&voice, generations).await.expect("complete").0;
    let choices = answer["choices"].as_array().expect("choices");
    let said: Vec<_> = choices.iter().map(|c| (c["index"].as_u64(), c["text"].as_str())).collect();
    let expected = ["a", "b", "c", "d"].map(Some);
    assert_eq!(said, (0..).map(Some).zip(expected).collect::<Vec<_>>());
    let usage = json!({"prompt_tokens": 6, "completion_tokens": 8, "total_tokens": 14});
    assert_eq!(answer["usage"], usage);
    assert_eq!(answer["talka"]["cost_micro_gft"], 6000);
    assert_eq!(answer["talka"]["requests"].as_array().map(Vec::len), Some(4));
}

#[tokio::test]
async fn streamed_choices_keep_their_index_and_end_together() {
    let mut generations = Vec::new();
    for word in ["a", "b"] {
        let done = GenerateEvent::Done(summary(FinishReason::Stop));
        generations.push(generation_of(vec![scored(word, -0.5), scored("é!", -1.0), done]).await);
    }
    let voice = Voice::new(Surface::Text, &generations[0], 2, 7);
    let options = StreamOptions { include_usage: true };
    let data: Vec<String> = chunks(voice, generations, options).collect().await;
    let (end, rest) = data.split_last().expect("an end");
    assert_eq!(end, "[DONE]");
    let mut chunks: Vec<Value> =
        rest.iter().map(|text| serde_json::from_str(text).expect(text)).collect();
    let usage = chunks.pop().expect("a usage");
    let expected = json!({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7});
    assert_eq!(usage["usage"], expected);
    for (index, word) in [(0, "a"), (1, "b")] {
        let of = |chunk: &&Value| chunk["choices"][0]["index"] == index;
        let own: Vec<_> = chunks.iter().filter(of).map(|chunk| &chunk["choices"][0]).collect();
        assert_eq!(own.len(), 3, "{own:?}");
        assert_eq!(own[0]["text"], word);
        assert_eq!(own[0]["logprobs"]["text_offset"], json!([0]));
        assert_eq!(own[1]["logprobs"]["text_offset"], json!([1]));
        assert_eq!(own[1]["logprobs"]["token_logprobs"], json!([-1.0]));
        assert_eq!((&own[2]["finish_reason"], &own[2]["logprobs"]), (&json!("stop"), &Value::Null));
    }
}

/// One choice that breaks off takes the others with it.
#[tokio::test]
async fn a_broken_choice_breaks_the_answer() {
    let (sender, waiting) = generation();
    let broken = generation_of(vec![GenerateEvent::Failed(GenerateError::EmptyPrompt)]).await;
    let voice = Voice::new(Surface::Chat, &waiting, 2, 7);
    let error = whole(&voice, vec![waiting, broken]).await.expect_err("broken");
    assert_eq!(error.row().code, "empty_prompt");
    assert!(sender.is_closed(), "the other is cancelled");
}

#[tokio::test]
async fn a_chat_reports_log_probabilities_beside_its_message() {
    let done = GenerateEvent::Done(summary(FinishReason::Stop));
    let generation = generation_of(vec![scored("Hi", -0.5), done]).await;
    let voice = Voice::new(Surface::Chat, &generation, 1, 7);
    let answer = whole(&voice, vec![generation]).await.expect("complete").0;
    let shown = &answer["choices"][0]["logprobs"]["content"][0];
    assert_eq!(shown["token"], "Hi");
    assert_eq!((&shown["logprob"], &shown["bytes"]), (&json!(-0.5), &json!([72, 105])));
}

#[tokio::test]
async fn an_answer_from_outside_says_so() {
    let from_outside = || {
        let upstream = Some("groq".to_owned());
        GenerateEvent::Done(Summary { upstream, ..summary(FinishReason::Filtered) })
    };
    let generation = generation_of(vec![text("hi"), from_outside()]).await;
    let voice = Voice::new(Surface::Chat, &generation, 1, 7);
    let (answer, upstream) = whole(&voice, vec![generation]).await.expect("complete");
    assert_eq!(
        (answer["talka"]["upstream"].as_str(), upstream.as_deref()),
        (Some("groq"), Some("groq"))
    );
    assert_eq!(answer["choices"][0]["finish_reason"], "content_filter");

    for usage in [false, true] {
        let events = said(Surface::Text, usage, vec![text("hi"), from_outside()]).await;
        assert_eq!(events[0].get("talka"), None);
        assert_eq!(events[events.len() - 2]["talka"]["upstream"], "groq", "{usage}");
    }
}

#[tokio::test]
async fn a_stream_says_how_far_it_is_unless_it_has_several_choices() {
    let counted =
        |generated| GenerateEvent::Piece(Piece { text: "a".into(), generated, ..Piece::default() });
    let done = || GenerateEvent::Done(summary(FinishReason::Stop));
    let chunks = said(Surface::Text, false, vec![text("prompt"), counted(2), done()]).await;
    assert_eq!(chunks[0].get("talka"), None);
    assert_eq!(chunks[1]["talka"], json!({"tokens": 2}));

    let two = [generation_of(vec![counted(1)]).await, generation_of(vec![counted(1)]).await];
    let voice = Voice::new(Surface::Text, &two[0], 2, 7);
    let said: Vec<_> = super::chunks(voice, two.into(), StreamOptions::default()).collect().await;
    assert!(!said[0].contains("talka"), "{said:?}");
}

/// Some text, a call in three parts, and another one.
fn calling() -> Vec<GenerateEvent> {
    let part = |index, name: Option<&str>, arguments: &str| {
        let (name, arguments) = (name.map(str::to_owned), arguments.into());
        let calls = vec![CallPart { index, name, arguments }];
        GenerateEvent::Piece(Piece { calls, generated: 5, ..Piece::default() })
    };
    let done = GenerateEvent::Done(summary(FinishReason::ToolCalls));
    vec![
        part(0, Some("add"), "{"),
        part(0, None, "\"a\": 1"),
        part(0, None, "}"),
        part(1, Some("now"), "{}"),
        done,
    ]
}

#[tokio::test]
async fn a_whole_answer_shows_its_calls() {
    let call = |index: u32, name: &str, arguments: &str| {
        json!({"id": format!("call_{REQUEST}_0_{index}"), "type": "function",
            "function": {"name": name, "arguments": arguments}})
    };
    let calls = json!([call(0, "add", "{\"a\": 1}"), call(1, "now", "{}")]);
    for content in [Value::Null, json!("So")] {
        let said = content.as_str().map(text);
        let generation = generation_of(said.into_iter().chain(calling()).collect()).await;
        let voice = Voice::new(Surface::Chat, &generation, 1, 7);
        let answer = whole(&voice, vec![generation]).await.expect("complete").0;
        let choice = &answer["choices"][0];
        assert_eq!(choice["finish_reason"], "tool_calls");
        let expected = json!({"role": "assistant", "content": content, "refusal": null,
            "tool_calls": calls});
        assert_eq!(choice["message"], expected);
    }
}

#[tokio::test]
async fn calls_stream_part_by_part() {
    let chunks = said(Surface::Chat, false, calling()).await;
    let id = |index: u32| format!("call_{REQUEST}_0_{index}");
    let begun = |index: u32, name: &str, arguments: &str| {
        json!({"tool_calls": [{"index": index, "id": id(index), "type": "function",
            "function": {"name": name, "arguments": arguments}}]})
    };
    let more = |arguments: &str| json!({"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]});
    let expected =
        [begun(0, "add", "{"), more("\"a\": 1"), more("}"), begun(1, "now", "{}"), json!({})];
    let deltas: Vec<_> =
        chunks[1..6].iter().map(|chunk| chunk["choices"][0]["delta"].clone()).collect();
    assert_eq!(deltas, expected);
    assert_eq!(chunks[5]["choices"][0]["finish_reason"], "tool_calls");
}
