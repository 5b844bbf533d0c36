//! Answers of the Responses API, whole or as typed events.
//!
//! An answer is a response whose items are messages, each with one part of text, and calls of functions. A stream
//! names its events, numbers them from 0 and has no `[DONE]`: it ends with `response.completed`,
//! `response.incomplete` (the length was reached, or an upstream held back the rest) or, if it broke off,
//! `response.failed`.

use super::request::Settings;
use crate::{
    answering::{Own, Provenance, Said, Teller},
    blocks::{Block, Blocks, Step},
    error::ApiError,
    openai::logprobs,
};
use serde_json::{Value, json};
use talka_node::api::{FinishReason, Generation, Piece, Summary, TokenReport};

/// One response, as far as it went.
#[derive(Debug)]
pub struct Voice {
    /// What the ids of the response and of its items have in common.
    id: String,
    created: u64,
    model: String,
    settings: Settings,
    /// Events sent so far.
    sequence: u64,
    blocks: Blocks,
}

impl Voice {
    /// The voice of `generation`, begun `created` seconds after 1970, to a request with these settings.
    pub fn new(generation: &Generation, settings: Settings, created: u64) -> Self {
        Self {
            id: generation.request.to_string(),
            created,
            model: generation.model.clone(),
            settings,
            sequence: 0,
            blocks: Blocks::default(),
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

    /// The block at `at` as an item. One that just begins is empty.
    fn item(&self, at: usize, status: &str) -> Value {
        let begins = status == "in_progress";
        let mut item = match &self.blocks.all()[at] {
            Block::Text { text, tokens } => {
                let content = if begins { json!([]) } else { json!([part(text, tokens)]) };
                json!({"type": "message", "role": "assistant", "content": content})
            }
            Block::Call { number, name, arguments } => {
                let arguments = if begins { "" } else { arguments };
                let id = format!("call_{}_{number}", self.id);
                json!({"type": "function_call", "call_id": id, "name": name, "arguments": arguments})
            }
        };
        item["id"] = json!(self.item_id(at));
        item["status"] = json!(status);
        item
    }

    fn item_id(&self, at: usize) -> String {
        let prefix = match &self.blocks.all()[at] {
            Block::Text { .. } => "msg",
            Block::Call { .. } => "fc",
        };
        format!("{prefix}_{}_{at}", self.id)
    }

    /// All items; the last one is in `status`.
    fn output(&self, status: &str) -> Value {
        let count = self.blocks.all().len();
        let status = |at| if at + 1 == count { status } else { "completed" };
        (0..count).map(|at| self.item(at, status(at))).collect()
    }

    /// The response at its end.
    fn complete(&self, summary: &Summary) -> Value {
        let (status, reason) = ending(summary.finish);
        let mut response = self.response(status, self.output(status));
        response["incomplete_details"] = reason.map_or(Value::Null, |r| json!({"reason": r}));
        response["usage"] = usage(summary);
        response["talka"] = Provenance::of_one(summary);
        response
    }

    fn say(&mut self, name: &'static str, mut data: Value) -> Said {
        data["type"] = json!(name);
        data["sequence_number"] = json!(self.sequence);
        self.sequence += 1;
        Said { name, data }
    }

    /// An event about the item at `at`, or the text in it.
    fn say_of(&mut self, at: usize, name: &'static str, mut data: Value) -> Said {
        data["output_index"] = json!(at);
        if data.get("item").is_none() {
            data["item_id"] = json!(self.item_id(at));
        }
        if matches!(self.blocks.all()[at], Block::Text { .. }) && data.get("item").is_none() {
            data["content_index"] = json!(0);
        }
        self.say(name, data)
    }

    /// `status` is that of an item that closes.
    fn step(&mut self, step: Step, status: &str) -> Vec<Said> {
        match step {
            Step::Opens(at) => {
                let item = self.item(at, "in_progress");
                let is_text = matches!(self.blocks.all()[at], Block::Text { .. });
                let added = self.say_of(at, "response.output_item.added", json!({"item": item}));
                let part = is_text.then(|| json!({"part": part("", &[])}));
                let part = part.map(|p| self.say_of(at, "response.content_part.added", p));
                [added].into_iter().chain(part).collect()
            }
            Step::Text(at, text, tokens) => {
                let data = json!({"delta": text, "logprobs": logprobs::objects(&tokens)});
                vec![self.say_of(at, "response.output_text.delta", data)]
            }
            Step::Arguments(at, more) => {
                let data = json!({"delta": more});
                vec![self.say_of(at, "response.function_call_arguments.delta", data)]
            }
            Step::Closes(at) => self.close(at, status),
        }
    }

    fn close(&mut self, at: usize, status: &str) -> Vec<Said> {
        let mut said = match self.blocks.all()[at].clone() {
            Block::Text { text, tokens } => {
                let part = json!({"part": part(&text, &tokens)});
                let text = json!({"text": text, "logprobs": logprobs::objects(&tokens)});
                vec![
                    self.say_of(at, "response.output_text.done", text),
                    self.say_of(at, "response.content_part.done", part),
                ]
            }
            Block::Call { name, arguments, .. } => {
                let data = json!({"name": name, "arguments": arguments});
                vec![self.say_of(at, "response.function_call_arguments.done", data)]
            }
        };
        let item = self.item(at, status);
        said.push(self.say_of(at, "response.output_item.done", json!({"item": item})));
        said
    }

    fn steps(&mut self, steps: Vec<Step>, status: &str) -> Vec<Said> {
        steps.into_iter().flat_map(|step| self.step(step, status)).collect()
    }
}

impl Teller for Voice {
    fn whole(mut self, pieces: Vec<Piece>, summary: &Summary) -> Value {
        self.blocks = Blocks::whole(pieces);
        self.complete(summary)
    }

    fn opening(&mut self) -> Vec<Said> {
        let begun = self.response("in_progress", json!([]));
        vec![
            self.say("response.created", json!({"response": begun.clone()})),
            self.say("response.in_progress", json!({"response": begun})),
        ]
    }

    fn piece(&mut self, piece: Piece) -> Vec<Said> {
        let own = Own::part(&piece);
        let steps = self.blocks.add(piece);
        let mut said = self.steps(steps, "completed");
        if let (Some(own), Some(last)) = (own, said.last_mut()) {
            last.data["talka"] = json!(own);
        }
        said
    }

    fn end(&mut self, summary: &Summary) -> Vec<Said> {
        let (status, reason) = ending(summary.finish);
        let steps = self.blocks.end();
        let mut said = self.steps(steps, status);
        let last = match reason {
            None => "response.completed",
            Some(_) => "response.incomplete",
        };
        let response = self.complete(summary);
        said.push(self.say(last, json!({"response": response})));
        said
    }

    fn broken(&mut self, error: &ApiError) -> Vec<Said> {
        let mut response = self.response("failed", self.output("incomplete"));
        response["error"] = json!({"code": error.row().code, "message": error.to_string()});
        vec![self.say("response.failed", json!({"response": response}))]
    }
}

/// How an end is called, and why it is none.
fn ending(finish: FinishReason) -> (&'static str, Option<&'static str>) {
    match finish {
        FinishReason::Stop | FinishReason::ToolCalls => ("completed", None),
        FinishReason::Length => ("incomplete", Some("max_output_tokens")),
        FinishReason::Filtered => ("incomplete", Some("content_filter")),
    }
}

/// A message's one part.
fn part(text: &str, tokens: &[TokenReport]) -> Value {
    let logprobs = logprobs::objects(tokens);
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs})
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
