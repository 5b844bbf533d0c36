//! Answers of the Responses API, whole or as typed events.
//!
//! An answer is a response with one item, a message with one part of text. A stream names its events, numbers
//! them from 0 and has no `[DONE]`: it ends with `response.completed`, `response.incomplete` (the length was
//! reached, or an upstream held back the rest) or, if it broke off, `response.failed`.

use super::request::Settings;
use crate::{
    answering::{Own, Provenance, Said, Teller, Told},
    error::ApiError,
    openai::logprobs,
};
use serde_json::{Value, json};
use talka_node::api::{FinishReason, Generation, Piece, Summary, TokenReport};

/// One response, as far as it went.
#[derive(Debug)]
pub struct Voice {
    /// What the ids of the response and of its item have in common.
    id: String,
    created: u64,
    model: String,
    settings: Settings,
    /// Events sent so far.
    sequence: u64,
    text: String,
    tokens: Vec<TokenReport>,
}

/// Where the text stands.
const FIRST: [(&str, u32); 2] = [("output_index", 0), ("content_index", 0)];

impl Voice {
    /// The voice of `generation`, begun `created` seconds after 1970, to a request with these settings.
    pub fn new(generation: &Generation, settings: Settings, created: u64) -> Self {
        Self {
            id: generation.request.to_string(),
            created,
            model: generation.model.clone(),
            settings,
            sequence: 0,
            text: String::new(),
            tokens: Vec::new(),
        }
    }

    /// The response with `output`, in `status`.
    fn response(&self, status: &str, output: Value) -> Value {
        let mut response = self.settings.clone();
        response["id"] = json!(format!("resp_{}", self.id));
        response["object"] = json!("response");
        response["created_at"] = json!(self.created);
        response["model"] = json!(self.model);
        response["status"] = json!(status);
        response["output"] = output;
        for absent in ["error", "incomplete_details", "usage"] {
            response[absent] = Value::Null;
        }
        response
    }

    fn item_id(&self) -> String {
        format!("msg_{}", self.id)
    }

    fn item(&self, status: &str, content: Value) -> Value {
        let id = self.item_id();
        json!({"type": "message", "id": id, "status": status, "role": "assistant", "content": content})
    }

    /// What was said so far.
    fn part(&self) -> Value {
        let logprobs = logprobs::objects(&self.tokens);
        json!({"type": "output_text", "text": self.text, "annotations": [], "logprobs": logprobs})
    }

    /// The response at its end, and how the end is called.
    fn complete(&self, summary: &Summary) -> (&'static str, Value) {
        let (status, reason) = match summary.finish {
            FinishReason::Stop | FinishReason::ToolCalls => ("completed", None),
            FinishReason::Length => ("incomplete", Some("max_output_tokens")),
            FinishReason::Filtered => ("incomplete", Some("content_filter")),
        };
        let mut response = self.response(status, json!([self.item(status, json!([self.part()]))]));
        response["incomplete_details"] = reason.map_or(Value::Null, |r| json!({"reason": r}));
        response["usage"] = usage(summary);
        response["talka"] = Provenance::of_one(summary);
        (status, response)
    }

    fn say(&mut self, name: &'static str, mut data: Value) -> Said {
        data["type"] = json!(name);
        data["sequence_number"] = json!(self.sequence);
        self.sequence += 1;
        Said { name, data }
    }

    /// An event about the text, with where it stands.
    fn say_of_text(&mut self, name: &'static str, mut data: Value) -> Said {
        data["item_id"] = json!(self.item_id());
        for (field, at) in FIRST {
            data[field] = json!(at);
        }
        self.say(name, data)
    }
}

impl Teller for Voice {
    fn whole(mut self, told: Told) -> Value {
        (self.text, self.tokens) = (told.text, told.tokens);
        self.complete(&told.summary).1
    }

    fn opening(&mut self) -> Vec<Said> {
        let begun = self.response("in_progress", json!([]));
        let item = self.item("in_progress", json!([]));
        let part = self.part();
        vec![
            self.say("response.created", json!({"response": begun.clone()})),
            self.say("response.in_progress", json!({"response": begun})),
            self.say("response.output_item.added", json!({"output_index": 0, "item": item})),
            self.say_of_text("response.content_part.added", json!({"part": part})),
        ]
    }

    fn piece(&mut self, piece: Piece) -> Vec<Said> {
        let mut data = json!({"delta": piece.text, "logprobs": logprobs::objects(&piece.tokens)});
        if let Some(own) = Own::part(&piece) {
            data["talka"] = json!(own);
        }
        self.text += &piece.text;
        self.tokens.extend(piece.tokens);
        vec![self.say_of_text("response.output_text.delta", data)]
    }

    fn end(&mut self, summary: &Summary) -> Vec<Said> {
        let (status, response) = self.complete(summary);
        let logprobs = logprobs::objects(&self.tokens);
        let text = json!({"text": self.text, "logprobs": logprobs});
        let part = self.part();
        let item = self.item(status, json!([part]));
        let last = match status {
            "completed" => "response.completed",
            _ => "response.incomplete",
        };
        vec![
            self.say_of_text("response.output_text.done", text),
            self.say_of_text("response.content_part.done", json!({"part": part})),
            self.say("response.output_item.done", json!({"output_index": 0, "item": item})),
            self.say(last, json!({"response": response})),
        ]
    }

    fn broken(&mut self, error: &ApiError) -> Vec<Said> {
        let item = self.item("incomplete", json!([self.part()]));
        let mut response = self.response("failed", json!([item]));
        response["error"] = json!({"code": error.row().code, "message": error.to_string()});
        vec![self.say("response.failed", json!({"response": response}))]
    }
}

/// Parts of the prompt that were computed before are not told apart: they cost the caller the same.
fn usage(summary: &Summary) -> Value {
    let (input, output) = (summary.prompt_tokens, summary.completion_tokens);
    json!({
        "input_tokens": input, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": output, "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": input.saturating_add(output),
    })
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
