//! Answers of the Messages API, whole or as named events.
//!
//! An answer is a message with one block of text. A stream opens the message and the block, sends pieces,
//! closes what it opened and ends with `message_stop`, or, if it broke off, with `error` and nothing after it.
//! Silence is filled with `ping`. Where an upstream met a stop string nobody says which: then the reason is
//! `end_turn`.

use crate::{
    answering::{Own, Provenance, Said, Teller, Told},
    error::ApiError,
};
use serde_json::{Value, json};
use talka_node::api::{FinishReason, Generation, Piece, Summary};

/// One message.
#[derive(Debug)]
pub struct Voice {
    request: String,
    model: String,
    prompt_tokens: u32,
}

impl Voice {
    /// The voice of `generation`.
    pub fn new(generation: &Generation) -> Self {
        Self {
            request: generation.request.to_string(),
            model: generation.model.clone(),
            prompt_tokens: generation.prompt_tokens,
        }
    }

    /// The message before it ends.
    fn message(&self, content: Value) -> Value {
        json!({
            "id": format!("msg_{}", self.request), "type": "message", "role": "assistant",
            "model": self.model, "content": content, "stop_reason": null, "stop_sequence": null,
            "usage": {"input_tokens": self.prompt_tokens, "output_tokens": 0},
        })
    }
}

impl Teller for Voice {
    fn whole(self, told: Told) -> Value {
        let mut message = self.message(json!([{"type": "text", "text": told.text}]));
        message["stop_reason"] = json!(stop_reason(&told.summary));
        message["stop_sequence"] = json!(told.summary.stop);
        message["usage"] = usage(&told.summary);
        message["talka"] = Provenance::of_one(&told.summary);
        message
    }

    fn opening(&mut self) -> Vec<Said> {
        let block = json!({"type": "text", "text": ""});
        vec![
            say("message_start", json!({"message": self.message(json!([]))})),
            say("content_block_start", json!({"index": 0, "content_block": block})),
            ping(),
        ]
    }

    fn piece(&mut self, piece: Piece) -> Vec<Said> {
        let delta = json!({"type": "text_delta", "text": piece.text});
        let mut data = json!({"index": 0, "delta": delta});
        if let Some(own) = Own::part(&piece) {
            data["talka"] = json!(own);
        }
        vec![say("content_block_delta", data)]
    }

    fn end(&mut self, summary: &Summary) -> Vec<Said> {
        let delta = json!({"stop_reason": stop_reason(summary), "stop_sequence": summary.stop});
        let talka = Provenance::of_one(summary);
        let last = json!({"delta": delta, "usage": usage(summary), "talka": talka});
        vec![
            say("content_block_stop", json!({"index": 0})),
            say("message_delta", last),
            say("message_stop", json!({})),
        ]
    }

    fn broken(&mut self, error: &ApiError) -> Vec<Said> {
        vec![say("error", error.anthropic_document(Some(&self.request)))]
    }

    fn idle() -> Option<Said> {
        Some(ping())
    }
}

fn say(name: &'static str, mut data: Value) -> Said {
    data["type"] = json!(name);
    Said { name, data }
}

fn ping() -> Said {
    say("ping", json!({}))
}

fn stop_reason(summary: &Summary) -> &'static str {
    match summary.finish {
        _ if summary.stop.is_some() => "stop_sequence",
        FinishReason::Stop => "end_turn",
        FinishReason::ToolCalls => "tool_use",
        FinishReason::Length => "max_tokens",
        FinishReason::Filtered => "refusal",
    }
}

fn usage(summary: &Summary) -> Value {
    json!({"input_tokens": summary.prompt_tokens, "output_tokens": summary.completion_tokens})
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
