//! Shapes of messages, the order of events, and how each end is told.

use super::*;
use crate::answering::{hear, told};
use crate::test_generation::{
    REQUEST, called, generation, generation_of, provenance, summary, text,
};
use futures_util::StreamExt;
use talka_node::api::{GenerateError, GenerateEvent};

fn stopped(stop: &str) -> Summary {
    Summary { stop: Some(stop.into()), ..summary(FinishReason::Stop) }
}

async fn whole(summary: Summary) -> Value {
    whole_of(vec![text("Hello "), text("you"), GenerateEvent::Done(summary)]).await
}

async fn whole_of(events: Vec<GenerateEvent>) -> Value {
    let generation = generation_of(events).await;
    let voice = Voice::new(&generation);
    let (pieces, summary) = hear(generation).await.expect("complete");
    voice.whole(pieces, &summary)
}

/// An answer that says something, calls two functions, and fails at the second one's arguments.
fn calling() -> Vec<GenerateEvent> {
    let parts =
        [called(0, Some("roll"), "{\"dice\""), called(0, None, ":6}"), called(1, Some("now"), "{")];
    let done = GenerateEvent::Done(summary(FinishReason::ToolCalls));
    [text("So:")].into_iter().chain(parts.map(GenerateEvent::Piece)).chain([done]).collect()
}

async fn said(events: Vec<GenerateEvent>) -> Vec<Said> {
    let generation = generation_of(events).await;
    let voice = Voice::new(&generation);
    told(voice, generation).collect().await
}

#[tokio::test]
async fn a_whole_answer_is_a_message_with_one_block() {
    assert_eq!(
        whole(summary(FinishReason::Stop)).await,
        json!({
            "id": format!("msg_{REQUEST}"), "type": "message", "role": "assistant", "model": "bard",
            "content": [{"type": "text", "text": "Hello you"}],
            "stop_reason": "end_turn", "stop_sequence": null,
            "usage": {"input_tokens": 3, "output_tokens": 2},
            "talka": provenance(),
        })
    );
}

#[tokio::test]
async fn each_end_has_its_reason() {
    for (summary, reason, stop) in [
        (summary(FinishReason::Length), "max_tokens", None),
        (summary(FinishReason::Filtered), "refusal", None),
        (stopped("\n\n"), "stop_sequence", Some("\n\n")),
    ] {
        let message = whole(summary).await;
        assert_eq!(message["stop_reason"], reason);
        assert_eq!(message["stop_sequence"], json!(stop));
    }
}

#[tokio::test]
async fn a_stream_opens_speaks_and_closes_what_it_opened() {
    let counted = Piece { text: "!".into(), generated: 2, ..Piece::default() };
    let events = vec![text("Hi"), GenerateEvent::Piece(counted), GenerateEvent::Done(stopped("x"))];
    let message = json!({
        "id": format!("msg_{REQUEST}"), "type": "message", "role": "assistant", "model": "bard",
        "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": {"input_tokens": 3, "output_tokens": 0},
    });
    let expected = [
        json!({"type": "message_start", "message": message}),
        json!({"type": "ping"}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}),
        json!({
            "type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "!"},
            "talka": {"tokens": 2},
        }),
        json!({"type": "content_block_stop", "index": 0}),
        json!({
            "type": "message_delta", "delta": {"stop_reason": "stop_sequence", "stop_sequence": "x"},
            "usage": {"input_tokens": 3, "output_tokens": 2}, "talka": provenance(),
        }),
        json!({"type": "message_stop"}),
    ];
    let found = said(events).await;
    assert!(found.iter().all(|said| said.data["type"] == said.name));
    let found: Vec<_> = found.into_iter().map(|said| said.data).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn calls_are_blocks_of_their_own() {
    let id = |number: u32| format!("toolu_{REQUEST}_{number}");
    let message = whole_of(calling()).await;
    assert_eq!(message["stop_reason"], "tool_use");
    assert_eq!(
        message["content"],
        json!([
            {"type": "text", "text": "So:"},
            {"type": "tool_use", "id": id(0), "name": "roll", "input": {"dice": 6}},
            {"type": "tool_use", "id": id(1), "name": "now", "input": {"INVALID_JSON": "{"}},
        ])
    );

    let events: Vec<_> = said(calling()).await.into_iter().map(|said| said.data).collect();
    let start = |at: usize, block: Value| json!({"type": "content_block_start", "index": at, "content_block": block});
    let begun = |number, name: &str| json!({"type": "tool_use", "id": id(number), "name": name, "input": {}});
    let more = |at: usize, json: &str| {
        let delta = json!({"type": "input_json_delta", "partial_json": json});
        json!({"type": "content_block_delta", "index": at, "delta": delta})
    };
    let stop = |at: usize| json!({"type": "content_block_stop", "index": at});
    let expected = [
        stop(0),
        start(1, begun(0, "roll")),
        more(1, "{\"dice\""),
        more(1, ":6}"),
        stop(1),
        start(2, begun(1, "now")),
        more(2, "{"),
        stop(2),
    ];
    assert_eq!(events[4..events.len() - 2], expected);
}

#[tokio::test]
async fn a_broken_stream_ends_with_an_error() {
    let lost = GenerateEvent::Failed(GenerateError::TakenOver);
    let last = said(vec![text("a"), lost]).await.pop().expect("an event");
    assert_eq!((last.name, &last.data["error"]["type"]), ("error", &json!("conflict_error")));
    assert_eq!(last.data["request_id"], REQUEST);
    let last = said(vec![text("a")]).await.pop().expect("an event");
    assert_eq!(last.data["talka"]["code"], "interrupted");
}

/// Goal: whoever goes away stops paying. Method: drop the stream midway and watch the generation.
#[tokio::test]
async fn dropping_a_stream_drops_its_generation() {
    let (sender, generation) = generation();
    let voice = Voice::new(&generation);
    let mut events = Box::pin(told(voice, generation));
    sender.send(text("a")).await.expect("room");
    assert_eq!(events.next().await.map(|said| said.name), Some("message_start"));
    assert!(!sender.is_closed());
    drop(events);
    assert!(sender.is_closed());
}
