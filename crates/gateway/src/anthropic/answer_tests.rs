//! Shapes of messages, the order of events, and how each end is told.

use super::*;
use crate::answering::{listen, told};
use crate::test_generation::{REQUEST, generation, generation_of, provenance, summary, text};
use futures_util::StreamExt;
use talka_node::api::{GenerateError, GenerateEvent};

fn stopped(stop: &str) -> Summary {
    Summary { stop: Some(stop.into()), ..summary(FinishReason::Stop) }
}

async fn whole(summary: Summary) -> Value {
    let done = GenerateEvent::Done(summary);
    let generation = generation_of(vec![text("Hello "), text("you"), done]).await;
    let voice = Voice::new(&generation);
    voice.whole(listen(generation).await.expect("complete"))
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
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "ping"}),
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
