//! What `run` and `chat` ask of a node.

use crate::{cli::SamplingArgs, client::Picked};
use serde_json::{Map, Value, json};

/// Continues a text.
pub const COMPLETIONS: &str = "/v1/completions";

/// Answers a conversation.
pub const CHAT_COMPLETIONS: &str = "/v1/chat/completions";

/// The part of a request's body that both share; what is not chosen is left to the node.
pub fn body(picked: &Picked, sampling: &SamplingArgs) -> Value {
    let fields = [
        ("model", Some(json!(picked.name))),
        ("max_tokens", picked.answer_tokens(sampling.max_tokens).map(Value::from)),
        ("temperature", sampling.temperature.map(Value::from)),
        ("seed", sampling.seed.map(Value::from)),
    ];
    let chosen = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(chosen.collect::<Map<_, _>>())
}
