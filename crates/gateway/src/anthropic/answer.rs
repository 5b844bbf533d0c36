//! Answers of the Messages API, whole or as named events.
//!
//! An answer is a message of blocks, text and calls of functions. A stream opens the message and each block, sends
//! pieces, closes what it opened and ends with `message_stop`, or, if it broke off, with `error` and nothing after
//! it. Silence is filled with `ping`. Where an upstream met a stop string nobody says which: then the reason is
//! `end_turn`. Arguments that are no JSON object, because the length was reached or a model failed, are shown whole
//! as `{"INVALID_JSON": …}`, as Anthropic advises.

use crate::{
    answering::{Own, Provenance, Said, Teller},
    blocks::{Block, Blocks, Step},
    error::ApiError,
};
use serde_json::{Map, Value, json};
use talka_node::api::{FinishReason, Generation, Piece, Summary};

/// One message.
#[derive(Debug)]
pub struct Voice {
    request: String,
    model: String,
    prompt_tokens: u32,
    blocks: Blocks,
}

impl Voice {
    /// The voice of `generation`.
    pub fn new(generation: &Generation) -> Self {
        Self {
            request: generation.request.to_string(),
            model: generation.model.clone(),
            prompt_tokens: generation.prompt_tokens,
            blocks: Blocks::default(),
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

    /// A block; one that just begins is empty.
    fn block(&self, block: &Block, begins: bool) -> Value {
        match block {
            Block::Text { text, .. } => {
                json!({"type": "text", "text": if begins { "" } else { text }})
            }
            Block::Call { number, name, arguments } => {
                let id = format!("toolu_{}_{number}", self.request);
                let input = if begins { json!({}) } else { input(arguments) };
                json!({"type": "tool_use", "id": id, "name": name, "input": input})
            }
        }
    }

    fn step(&self, step: Step) -> Said {
        match step {
            Step::Opens(at) => {
                let block = self.block(&self.blocks.all()[at], true);
                say("content_block_start", json!({"index": at, "content_block": block}))
            }
            Step::Text(at, text, _) => delta(at, json!({"type": "text_delta", "text": text})),
            Step::Arguments(at, more) => {
                delta(at, json!({"type": "input_json_delta", "partial_json": more}))
            }
            Step::Closes(at) => say("content_block_stop", json!({"index": at})),
        }
    }
}

impl Teller for Voice {
    fn whole(self, pieces: Vec<Piece>, summary: &Summary) -> Value {
        let blocks = Blocks::whole(pieces);
        let mut message =
            self.message(blocks.all().iter().map(|block| self.block(block, false)).collect());
        message["stop_reason"] = json!(stop_reason(summary));
        message["stop_sequence"] = json!(summary.stop);
        message["usage"] = usage(summary);
        message["talka"] = Provenance::of_one(summary);
        message
    }

    fn opening(&mut self) -> Vec<Said> {
        vec![say("message_start", json!({"message": self.message(json!([]))})), ping()]
    }

    fn piece(&mut self, piece: Piece) -> Vec<Said> {
        let own = Own::part(&piece);
        let steps = self.blocks.add(piece);
        let mut said: Vec<Said> = steps.into_iter().map(|step| self.step(step)).collect();
        if let (Some(own), Some(last)) = (own, said.last_mut()) {
            last.data["talka"] = json!(own);
        }
        said
    }

    fn end(&mut self, summary: &Summary) -> Vec<Said> {
        let delta = json!({"stop_reason": stop_reason(summary), "stop_sequence": summary.stop});
        let talka = Provenance::of_one(summary);
        let last = json!({"delta": delta, "usage": usage(summary), "talka": talka});
        let steps = self.blocks.end();
        let mut said: Vec<Said> = steps.into_iter().map(|step| self.step(step)).collect();
        said.extend([say("message_delta", last), say("message_stop", json!({}))]);
        said
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

fn delta(at: usize, delta: Value) -> Said {
    say("content_block_delta", json!({"index": at, "delta": delta}))
}

/// What a call is made with.
fn input(arguments: &str) -> Value {
    let object: Option<Map<String, Value>> = serde_json::from_str(arguments).ok();
    object.map_or_else(|| json!({"INVALID_JSON": arguments}), Value::Object)
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
