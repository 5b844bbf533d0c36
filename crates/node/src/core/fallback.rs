//! Which upstreams answer a request that the network cannot, or that asks for one; and what is asked.
//!
//! An upstream is a service outside the network. It is asked for a model that it was set up for by name; one
//! that was set up for no model is asked for those that this node knows, by the same name. So a
//! misspelt name leaves this computer only where the request itself names the upstream.

use crate::api::{Fallback, GenerateRequest, Grammar, Prompt};
use talka_base::{Credits, ModelShape};
use talka_ledger::Tariff;
use talka_upstream::{Form, Message, Question, Wording};

/// Most tokens of an answer where the request names no number and the model's context is not known.
pub const ANSWER_TOKENS_DEFAULT: u32 = 2_048;

/// Bytes of text that are counted as a token where the model's tokenizer is not here: vocabularies have
/// between three and five in most languages.
const TOKEN_BYTES: usize = 3;

/// Tokens that a chat template puts around a message, where it is not here.
const MESSAGE_TOKENS: usize = 4;

/// A model of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamModel {
    /// What requests call it.
    pub local: String,
    /// What the upstream calls it.
    pub remote: String,
}

/// What an upstream's answers cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamPrice {
    /// Where the model's shape is known: thousandths of the network's price, more than 1,000.
    pub multiple_per_mille: u32,
    /// Elsewhere: credits for a thousand tokens, of prompt and answer alike.
    pub per_thousand: Credits,
}

impl Default for UpstreamPrice {
    /// Twice the network's price; and where that is not known, what it is for a dense model of 8 billion
    /// parameters in bf16: 16 GFLOP a token, half a credit for each at that precision, twice.
    fn default() -> Self {
        Self { multiple_per_mille: 2_000, per_thousand: Credits::from_gft(16_000) }
    }
}

impl UpstreamPrice {
    /// The tariff for a model of `shape`, if that is known.
    pub fn tariff(&self, shape: Option<ModelShape>) -> Tariff {
        match shape {
            Some(shape) => Tariff::Multiple { shape, per_mille: self.multiple_per_mille },
            None => Tariff::Tokens { per_thousand: self.per_thousand },
        }
    }
}

/// An upstream, as far as choosing one needs to know it.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// What requests call it.
    pub name: &'a str,
    /// Its models; none if it is asked for what this node knows.
    pub models: &'a [UpstreamModel],
    /// Whether it failed a moment ago.
    pub ailing: bool,
}

/// The upstreams to ask for `model`, in order, each by its place in `offers` and with its own name for
/// the model: as they were set up, those that failed lately last. `is_known` if this node has the model.
pub fn candidates(
    offers: &[Offer<'_>],
    wish: &Fallback,
    model: &str,
    is_known: bool,
) -> Vec<(usize, String)> {
    let is_wanted = |offer: &Offer<'_>| match wish {
        Fallback::Allowed => true,
        Fallback::Never => false,
        Fallback::Only(name) => offer.name == name,
    };
    let is_named = matches!(wish, Fallback::Only(_));
    let mut found: Vec<_> = offers
        .iter()
        .enumerate()
        .filter(|(_, offer)| is_wanted(offer))
        .filter_map(|(at, offer)| {
            let own = offer.models.iter().find(|own| own.local == model);
            let any = offer.models.is_empty() && (is_known || is_named);
            let remote = own.map(|own| own.remote.clone()).or(any.then(|| model.to_owned()))?;
            Some((at, remote))
        })
        .collect();
    found.sort_by_key(|(at, _)| offers[*at].ailing);
    found
}

/// The first thing that `request` wants and the API of upstreams has no words for.
pub fn unspeakable(request: &GenerateRequest) -> Option<&'static str> {
    let sampling = &request.sampling;
    let wants = [
        (sampling.top_k != 0, "top_k"),
        (sampling.min_p != 0.0, "min_p"),
        (sampling.repetition_penalty != 1.0, "repetition_penalty"),
        (request.min_tokens != 0, "min_tokens"),
        (request.ignore_end, "ignore_eos"),
        (request.logprobs.is_some(), "logprobs"),
        (request.echo, "echo"),
        (request.tools.is_some(), "tools"),
        (holds_calls(&request.prompt), "tool_calls"),
        (matches!(request.grammar, Some(Grammar::Regex(_))), "a regular expression"),
        (matches!(request.grammar, Some(Grammar::Lark(_))), "a grammar"),
    ];
    wants.into_iter().find_map(|(wanted, name)| wanted.then_some(name))
}

/// Whether a conversation holds calls of functions.
fn holds_calls(prompt: &Prompt) -> bool {
    let Prompt::Chat(messages) = prompt else { return false };
    messages.iter().any(|message| !message.tool_calls.is_empty() || message.role == "tool")
}

/// `request` in the words of an upstream that calls its model `remote`. `text` is what a prompt of token ids
/// says, if the vocabulary is known here. What is [`unspeakable`] is left out.
pub fn question(
    request: &GenerateRequest,
    remote: &str,
    text: Option<&str>,
    max_tokens: u32,
) -> Question {
    let wording = match (&request.prompt, text) {
        (Prompt::Chat(messages), _) => {
            let message = |m: &crate::api::ChatMessage| Message {
                role: m.role.clone(),
                content: m.content.clone(),
            };
            Wording::Chat(messages.iter().map(message).collect())
        }
        (Prompt::Text(text), _) => Wording::Text(text.clone()),
        (Prompt::Tokens(_), Some(text)) => Wording::Text(text.to_owned()),
        (Prompt::Tokens(ids), None) => Wording::Tokens(ids.clone()),
    };
    let form = match &request.grammar {
        Some(Grammar::JsonObject) => Some(Form::Object),
        Some(Grammar::JsonSchema(schema)) => Some(Form::Schema(schema.clone())),
        Some(Grammar::Regex(_) | Grammar::Lark(_)) | None => None,
    };
    let sampling = &request.sampling;
    Question {
        model: remote.to_owned(),
        wording,
        max_tokens,
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        frequency_penalty: sampling.frequency_penalty,
        presence_penalty: sampling.presence_penalty,
        logit_bias: sampling.logit_bias.clone(),
        seed: sampling.seed as u32,
        stop: request.stop.clone(),
        form,
    }
}

/// Tokens of a prompt whose tokenizer is not here: one for every three bytes of text, rounded up, and
/// four for each message. At least one.
pub fn prompt_estimate(prompt: &Prompt) -> u32 {
    let tokens = match prompt {
        Prompt::Text(text) => text.len().div_ceil(TOKEN_BYTES),
        Prompt::Tokens(ids) => ids.len(),
        Prompt::Chat(messages) => {
            let one = |m: &crate::api::ChatMessage| {
                MESSAGE_TOKENS + m.content.len().div_ceil(TOKEN_BYTES)
            };
            messages.iter().map(one).sum()
        }
    };
    u32::try_from(tokens).unwrap_or(u32::MAX).max(1)
}

/// Tokens of `bytes` bytes of an answer, by the same measure.
pub fn answer_estimate(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(TOKEN_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ChatMessage, SamplingParams, ToolChoice, ToolUse};

    fn model(local: &str, remote: &str) -> UpstreamModel {
        UpstreamModel { local: local.into(), remote: remote.into() }
    }

    fn check(wish: Fallback, name: &str, is_known: bool, expected: &[(usize, &str)]) {
        let groq = [model("small", "llama-8b"), model("bard", "big-bard")];
        let offers = [
            Offer { name: "groq", models: &groq, ailing: false },
            Offer { name: "home", models: &[], ailing: false },
        ];
        let expected: Vec<_> =
            expected.iter().map(|(at, remote)| (*at, (*remote).to_owned())).collect();
        assert_eq!(candidates(&offers, &wish, name, is_known), expected, "{wish:?} {name}");
    }

    #[test]
    fn upstreams_are_asked_for_their_own_models_and_for_those_known_here() {
        check(Fallback::Allowed, "small", false, &[(0, "llama-8b")]);
        check(Fallback::Allowed, "bard", true, &[(0, "big-bard"), (1, "bard")]);
        check(Fallback::Allowed, "tiny", true, &[(1, "tiny")]);
        check(Fallback::Allowed, "misspelt", false, &[]);
        check(Fallback::Never, "bard", true, &[]);
        check(Fallback::Only("home".into()), "misspelt", false, &[(1, "misspelt")]);
        check(Fallback::Only("groq".into()), "misspelt", false, &[]);
        check(Fallback::Only("groq".into()), "bard", true, &[(0, "big-bard")]);
        check(Fallback::Only("nobody".into()), "bard", true, &[]);
    }

    #[test]
    fn who_failed_lately_is_asked_last() {
        let offer = |name, ailing| Offer { name, models: &[], ailing };
        let offers = [offer("a", true), offer("b", false), offer("c", true), offer("d", false)];
        let found = candidates(&offers, &Fallback::Allowed, "m", true);
        assert_eq!(found.into_iter().map(|(at, _)| at).collect::<Vec<_>>(), [1, 3, 0, 2]);
    }

    fn request() -> GenerateRequest {
        GenerateRequest {
            model: "m".into(),
            prompt: Prompt::Tokens(vec![1, 2, 3]),
            max_tokens: None,
            sampling: SamplingParams {
                temperature: 0.5,
                seed: 7 << 40 | 9,
                ..SamplingParams::default()
            },
            stop: vec!["x".into()],
            min_tokens: 0,
            ignore_end: false,
            logprobs: None,
            echo: false,
            grammar: Some(Grammar::JsonObject),
            tools: None,
            guesses: true,
            fallback: Fallback::Allowed,
            resume: None,
        }
    }

    #[test]
    fn what_cannot_be_said_is_found_and_the_rest_is_said() {
        let plain = request();
        assert_eq!(unspeakable(&plain), None);
        let asked = question(&plain, "remote", None, 5);
        assert_eq!((asked.model.as_str(), asked.max_tokens, asked.seed), ("remote", 5, 9));
        assert_eq!((asked.temperature, asked.stop.len()), (0.5, 1));
        assert_eq!(
            (asked.wording, asked.form),
            (Wording::Tokens(vec![1, 2, 3]), Some(Form::Object))
        );
        assert_eq!(question(&plain, "r", Some("abc"), 5).wording, Wording::Text("abc".into()));

        let grammar = Some(Grammar::Regex("a".into()));
        let tools = ToolUse { tools: Vec::new(), choice: ToolChoice::Auto, parallel: true };
        let result = Prompt::Chat(vec![ChatMessage::new("tool", "5")]);
        for (request, expected) in [
            (GenerateRequest { tools: Some(tools), ..request() }, "tools"),
            (GenerateRequest { prompt: result, ..request() }, "tool_calls"),
            (GenerateRequest { echo: true, ..request() }, "echo"),
            (GenerateRequest { logprobs: Some(0), ..request() }, "logprobs"),
            (GenerateRequest { min_tokens: 1, ..request() }, "min_tokens"),
            (GenerateRequest { ignore_end: true, ..request() }, "ignore_eos"),
            (GenerateRequest { grammar, ..request() }, "a regular expression"),
        ] {
            assert_eq!(unspeakable(&request), Some(expected));
        }
        for (field, change) in [
            ("top_k", (|s| s.top_k = 1) as fn(&mut SamplingParams)),
            ("min_p", |s| s.min_p = 0.1),
            ("repetition_penalty", |s| s.repetition_penalty = 1.1),
        ] {
            let mut request = request();
            change(&mut request.sampling);
            assert_eq!(unspeakable(&request), Some(field));
        }
    }

    #[test]
    fn estimates_count_bytes_and_messages() {
        assert_eq!(prompt_estimate(&Prompt::Text(String::new())), 1);
        assert_eq!(prompt_estimate(&Prompt::Text("abcd".into())), 2);
        assert_eq!(prompt_estimate(&Prompt::Tokens(vec![0; 7])), 7);
        let message = ChatMessage::new("user", "abc");
        assert_eq!(prompt_estimate(&Prompt::Chat(vec![message.clone(), message])), 10);
        assert_eq!((answer_estimate(0), answer_estimate(10)), (0, 4));
    }
}
