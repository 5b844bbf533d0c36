//! Generations whose events a test writes, for the tests of all dialects.

use serde_json::{Value, json};
use talka_node::api::{
    CallPart, EventSender, FinishReason, GenerateEvent, Generation, Piece, Summary, TokenReport,
    event_channel,
};

/// The request's id.
pub const REQUEST: &str = "000102030405060708090a0b0c0d0e0f";

/// How an answer of two tokens ended.
pub fn summary(finish: FinishReason) -> Summary {
    let node = "11".repeat(32);
    let text = json!({
        "request": REQUEST, "finish": "stop", "prompt_tokens": 3, "completion_tokens": 2,
        "cost": 1500, "flops": 77, "route": [{"node": node, "name": "kitchen", "span": [0, 4]}],
        "receipts": [{"node": node, "span": [0, 4], "positions": 5, "flops": 77, "signed": "0100"}],
    });
    Summary { finish, ..serde_json::from_value(text).expect("a summary") }
}

/// A generation whose events the test writes.
pub fn generation() -> (EventSender, Generation) {
    let (sender, events) = event_channel(8);
    let request = serde_json::from_value(json!(REQUEST)).expect("an id");
    (sender, Generation { request, model: "bard".into(), prompt_tokens: 3, upstream: None, events })
}

/// A generation that says `events` and then ends.
pub async fn generation_of(events: Vec<GenerateEvent>) -> Generation {
    let (sender, generation) = generation();
    for event in events {
        sender.send(event).await.expect("room for a few events");
    }
    generation
}

/// A piece.
pub fn text(text: &str) -> GenerateEvent {
    GenerateEvent::Piece(Piece { text: text.into(), ..Piece::default() })
}

/// What [`summary`] says of where the answer came from.
pub fn provenance() -> Value {
    json!({
        "request": REQUEST, "cost_micro_gft": 1500, "flops": 77,
        "route": [{"node": "11".repeat(32), "name": "kitchen", "span": [0, 4]}],
        "receipts": [{"node": "11".repeat(32), "span": [0, 4], "positions": 5, "flops": 77, "signed": "0100"}],
        "audit": "unaudited",
    })
}

/// A piece of one token with its log-probability.
pub fn scored(text: &str, logprob: f32) -> GenerateEvent {
    GenerateEvent::Piece(scored_piece(text, logprob))
}

/// The same, without an event around it.
pub fn scored_piece(text: &str, logprob: f32) -> Piece {
    let bytes = Some(text.as_bytes().to_vec());
    let token =
        TokenReport { token: 1, text: text.into(), bytes, logprob: Some(logprob), top: vec![] };
    Piece { text: text.into(), tokens: vec![token], ..Piece::default() }
}

/// A piece that is a part of call `index`; its first has the function's name.
pub fn called(index: u32, name: Option<&str>, arguments: &str) -> Piece {
    let part = CallPart { index, name: name.map(Into::into), arguments: arguments.into() };
    Piece { calls: vec![part], ..Piece::default() }
}
