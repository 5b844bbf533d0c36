//! Log-probabilities in OpenAI's two shapes: objects in chats and responses, columns under `/v1/completions`.
//!
//! Decides how a token is shown: by its text, or where its bytes are no text of their own and the
//! shape has no room for bytes, as `bytes:\\xE2\\x82`, as OpenAI does. An impossible token has
//! -9999, since JSON knows no infinity.

use serde_json::{Map, Value, json};
use talka_node::api::TokenReport;

const IMPOSSIBLE: f32 = -9999.0;

/// `/v1/chat/completions`: one object per token.
pub fn chat(tokens: &[TokenReport]) -> Value {
    json!({"content": objects(tokens), "refusal": null})
}

/// `/v1/responses`: the same objects.
pub fn objects(tokens: &[TokenReport]) -> Value {
    let one = |text: &str, bytes: &Option<Vec<u8>>, logprob| json!({"token": text, "logprob": number(logprob), "bytes": bytes});
    let objects = tokens.iter().map(|token| {
        let mut shown = one(&token.text, &token.bytes, token.logprob.unwrap_or(0.0));
        let top = token.top.iter().map(|other| one(&other.text, &other.bytes, other.logprob));
        shown["top_logprobs"] = top.collect();
        shown
    });
    objects.collect()
}

/// `/v1/completions`: one array per property. `offset` is where the first token starts in the
/// choice's text, in characters, and is moved past the last.
pub fn text(tokens: &[TokenReport], offset: &mut usize) -> Value {
    let mut offsets = Vec::with_capacity(tokens.len());
    for token in tokens {
        offsets.push(*offset);
        // A special token is no part of the text.
        *offset += token.bytes.as_ref().map_or(0, |_| token.text.chars().count());
    }
    let names = tokens.iter().map(|token| name(&token.text, token.bytes.as_deref()));
    let logprobs = tokens.iter().map(|token| token.logprob.map(number));
    json!({
        "tokens": names.collect::<Value>(),
        "token_logprobs": logprobs.collect::<Vec<_>>(),
        "top_logprobs": tokens.iter().map(alternatives).collect::<Value>(),
        "text_offset": offsets,
    })
}

/// The likeliest tokens by name, and the chosen one if it is not among them.
fn alternatives(token: &TokenReport) -> Value {
    let Some(logprob) = token.logprob else { return Value::Null };
    let mut found = Map::new();
    for other in &token.top {
        let name = name(&other.text, other.bytes.as_deref());
        // Of two with one name the likelier counts.
        found.entry(name).or_insert_with(|| number(other.logprob).into());
    }
    let own = name(&token.text, token.bytes.as_deref());
    found.entry(own).or_insert_with(|| number(logprob).into());
    Value::Object(found)
}

fn name(text: &str, bytes: Option<&[u8]>) -> String {
    match bytes {
        Some(bytes) if std::str::from_utf8(bytes).is_err() => {
            let hex = bytes.iter().map(|byte| format!("\\x{byte:02X}"));
            format!("bytes:{}", hex.collect::<String>())
        }
        _ => text.to_owned(),
    }
}

fn number(logprob: f32) -> f32 {
    logprob.max(IMPOSSIBLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use talka_node::api::Alternative;

    fn token(bytes: &[u8], logprob: Option<f32>, top: &[(&[u8], f32)]) -> TokenReport {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let alternative = |(bytes, logprob): &(&[u8], f32)| Alternative {
            text: text(bytes),
            bytes: Some(bytes.to_vec()),
            logprob: *logprob,
        };
        TokenReport {
            token: 7,
            text: text(bytes),
            bytes: Some(bytes.to_vec()),
            logprob,
            top: top.iter().map(alternative).collect(),
        }
    }

    #[test]
    fn a_chat_shows_each_token_with_its_bytes() {
        let tokens = [token(b"Hi", Some(-0.5), &[(b"Hi", -0.5), (&[0xE2], f32::NEG_INFINITY)])];
        assert_eq!(
            chat(&tokens),
            json!({"refusal": null, "content": [{
                "token": "Hi", "logprob": -0.5, "bytes": [72, 105],
                "top_logprobs": [
                    {"token": "Hi", "logprob": -0.5, "bytes": [72, 105]},
                    {"token": "\u{FFFD}", "logprob": -9999.0, "bytes": [226]},
                ],
            }]})
        );
    }

    #[test]
    fn a_text_shows_columns_and_where_each_token_starts() {
        let special = TokenReport { bytes: None, ..token(b"<s>", None, &[]) };
        let tokens = [
            special,
            token("né".as_bytes(), Some(-1.0), &[(b"a", -0.5)]),
            token(&[0xE2], Some(-0.25), &[(&[0xE2], -0.25)]),
        ];
        let mut offset = 10;
        assert_eq!(
            text(&tokens, &mut offset),
            json!({
                "tokens": ["<s>", "né", "bytes:\\xE2"],
                "token_logprobs": [null, -1.0, -0.25],
                "top_logprobs": [null, {"a": -0.5, "né": -1.0}, {"bytes:\\xE2": -0.25}],
                "text_offset": [10, 10, 12],
            })
        );
        assert_eq!(offset, 13);
    }
}
