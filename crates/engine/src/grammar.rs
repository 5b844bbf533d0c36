//! Answers in a form that the caller prescribes: JSON, JSON by a schema, a regular expression, a
//! grammar.
//!
//! Decides which tokens may come next, by the llguidance crate, which parses what the answer may be
//! byte by byte along a trie of the vocabulary. A grammar that it refuses is refused with its reason.
//! Work and memory are bounded by its limits, each token's as well; a grammar beyond them ends with
//! an error, not with an answer that does not follow it. Never draws: it masks logits.
//!
//! Departs from llguidance in one default: between two parts of JSON stands one space or nothing, as
//! Outlines has it, so that a weak model cannot fill an answer with blank lines. A schema that wants
//! more says so in llguidance's own words: `"x-guidance": {"whitespace_pattern": "[ \\n]+"}`.

use crate::{model::Model, tokenizer::Tokenizer};
use llguidance::{
    Matcher, ParserFactory,
    api::{ParserLimits, TopLevelGrammar},
    toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie},
};
use serde_json::{Value, json};
use std::{fmt, sync::Arc};

/// The longest grammar, in bytes of text. Published JSON schemas stay far below.
pub const GRAMMAR_BYTES_MAX: usize = 1 << 20;
/// The longest reason, in bytes: llguidance may quote the whole grammar.
const REASON_BYTES_MAX: usize = 500;

/// What an answer must look like.
#[derive(Debug, Clone, PartialEq)]
pub enum Grammar {
    /// Any JSON object.
    JsonObject,
    /// JSON that a schema describes (draft 2020-12 and older; `$ref` within the schema only).
    JsonSchema(Value),
    /// Text that a regular expression matches as a whole, in Rust's syntax without look-around.
    Regex(String),
    /// Text of a context-free grammar in llguidance's variant of Lark.
    Lark(String),
}

/// Why a grammar cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the grammar is refused: {reason}")]
pub struct GrammarError {
    /// llguidance's reason.
    pub reason: String,
}

/// Compiles grammars for one model. Making one sorts the vocabulary, so keep it.
pub struct GrammarCompiler {
    factory: ParserFactory,
}

/// How far an answer has followed its grammar.
pub struct GrammarState {
    matcher: Matcher,
}

impl GrammarCompiler {
    /// For the vocabulary of `model`.
    ///
    /// # Errors
    /// [`GrammarError`] if llguidance cannot use that vocabulary.
    pub fn new(model: &Model) -> Result<Self, GrammarError> {
        Self::of(model.tokenizer(), model.shape().vocab, model.eos_ids())
    }

    /// For a vocabulary of `vocab` tokens, of which `ends` end an answer.
    pub(crate) fn of(
        tokenizer: &Tokenizer,
        vocab: u32,
        ends: &[u32],
    ) -> Result<Self, GrammarError> {
        // Special tokens are marked by a byte that no text has: no grammar spells them.
        let word = |id| match tokenizer.token_bytes(id) {
            [] => Vec::new(),
            name if tokenizer.is_special(id) => [&[TokTrie::SPECIAL_TOKEN_MARKER], name].concat(),
            bytes => bytes.to_vec(),
        };
        let mut words: Vec<Vec<u8>> = (0..vocab).map(word).collect();
        let mut ends: Vec<u32> = ends.iter().copied().filter(|end| *end < vocab).collect();
        if ends.is_empty() {
            // A model without an end gets one that it cannot say, behind its vocabulary.
            ends.push(vocab);
            words.push([&[TokTrie::SPECIAL_TOKEN_MARKER], &b"<end>"[..]].concat());
        }
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, ends[0]), &words);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie.with_eos_tokens(&ends)));
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &slices);
        let mut factory = factory.map_err(|error| refusal(&error.to_string()))?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits { verbose_errors: false, ..ParserLimits::default() };
        Ok(Self { factory })
    }

    /// A state at the beginning of an answer.
    ///
    /// # Errors
    /// [`GrammarError`] with llguidance's reason.
    pub fn compile(&self, grammar: &Grammar) -> Result<GrammarState, GrammarError> {
        let size = match grammar {
            Grammar::JsonObject => 0,
            Grammar::JsonSchema(schema) => schema.to_string().len(),
            Grammar::Regex(text) | Grammar::Lark(text) => text.len(),
        };
        if size > GRAMMAR_BYTES_MAX {
            let reason = format!("it has {size} bytes, expected at most {GRAMMAR_BYTES_MAX}");
            return Err(GrammarError { reason });
        }
        let grammar = match grammar {
            Grammar::JsonObject => schema_grammar(json!({"type": "object"})),
            Grammar::JsonSchema(schema) => schema_grammar(schema.clone()),
            Grammar::Regex(regex) => TopLevelGrammar::from_regex(regex),
            Grammar::Lark(lark) => TopLevelGrammar::from_lark(lark.clone()),
        };
        let matcher = Matcher::new(self.factory.create_parser(grammar));
        match matcher.get_error() {
            Some(reason) => Err(refusal(&reason)),
            None => Ok(GrammarState { matcher }),
        }
    }
}

fn schema_grammar(schema: Value) -> TopLevelGrammar {
    TopLevelGrammar::from_json_schema(with_few_blanks(schema))
}

/// The same schema with few blanks, unless it says itself how it wants them.
pub(crate) fn with_few_blanks(mut schema: Value) -> Value {
    if let Some(fields) = schema.as_object_mut() {
        fields.entry("x-guidance").or_insert_with(|| json!({"whitespace_pattern": " "}));
    }
    schema
}

/// The first part of llguidance's words: what follows is its state, for its own developers.
fn refusal(reason: &str) -> GrammarError {
    let reason = reason.split("\n<").next().unwrap_or_default().trim();
    GrammarError { reason: reason[..reason.floor_char_boundary(REASON_BYTES_MAX)].to_owned() }
}

impl GrammarState {
    /// Sets the logits `[V]` of all tokens that may not come next to -∞. A token that ends an answer
    /// may come where the answer is complete.
    ///
    /// # Errors
    /// [`GrammarError`] if the grammar takes more work than its limits allow.
    pub fn mask(&mut self, logits: &mut [f32]) -> Result<(), GrammarError> {
        let allowed = self.matcher.compute_mask_or_eos();
        let allowed = allowed.map_err(|error| refusal(&error.to_string()))?;
        let mut is_possible = false;
        for (token, logit) in logits.iter_mut().enumerate() {
            if token < allowed.len() && allowed.get(token) {
                is_possible |= *logit > f32::NEG_INFINITY;
            } else {
                *logit = f32::NEG_INFINITY;
            }
        }
        if is_possible {
            return Ok(());
        }
        Err(GrammarError { reason: "no token of this model continues the answer".into() })
    }

    /// Goes on by a token that [`Self::mask`] allowed. Returns whether the answer is complete and
    /// nothing may follow.
    ///
    /// # Errors
    /// [`GrammarError`] for any other token, or if the grammar takes too much work.
    pub fn accept(&mut self, token: u32) -> Result<bool, GrammarError> {
        let taken = self.matcher.consume_token(token);
        taken.map_err(|error| refusal(&error.to_string()))?;
        Ok(self.matcher.is_stopped())
    }

    /// How many of `tokens` may follow each other from here on.
    pub fn allows(&mut self, tokens: &[u32]) -> usize {
        self.matcher.validate_tokens(tokens).unwrap_or(0)
    }
}

impl fmt::Debug for GrammarCompiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrammarCompiler").finish_non_exhaustive()
    }
}

impl fmt::Debug for GrammarState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrammarState").field("stopped", &self.matcher.is_stopped()).finish()
    }
}
