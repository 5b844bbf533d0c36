//! Text to token ids and back, by the model's own `tokenizer.json`.
//!
//! A thin wrapper of the `tokenizers` crate: decides only that a tokenizer must fit its model's
//! vocabulary, and that nothing is ever truncated or padded behind the caller's back. For text that
//! comes token by token use [`crate::TextStream`].

use crate::token_bytes::token_bytes;
use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
};

/// Why a tokenizer is not usable, or did not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in the messages")]
pub enum TokenizerError {
    /// The file is none.
    #[error("tokenizer.json does not parse: {source}")]
    Parse { source: Box<dyn std::error::Error + Send + Sync> },
    /// The tokenizer belongs to another model.
    #[error(
        "tokenizer.json has token {token:?} with id {found}, expected ids below vocab_size = \
         {vocab} of config.json; the two files belong to different models"
    )]
    Vocabulary { token: String, found: u32, vocab: u32 },
    /// The tokenizer gave up on a text.
    #[error("tokenizer.json cannot encode this text: {source}")]
    Encode { source: Box<dyn std::error::Error + Send + Sync> },
    /// The tokenizer gave up on ids.
    #[error("tokenizer.json cannot decode these ids: {source}")]
    Decode { source: Box<dyn std::error::Error + Send + Sync> },
}

/// A model's tokenizer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tokenizer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tokenizer: tokenizers::Tokenizer,
    special: HashSet<u32>,
    /// Made when first asked for: most requests do not.
    bytes: OnceLock<Vec<Vec<u8>>>,
}

impl Tokenizer {
    /// Reads the contents of a `tokenizer.json` for a model of `vocab` tokens.
    ///
    /// A smaller tokenizer is fine: checkpoints pad their vocabulary to a round number.
    ///
    /// # Errors
    /// [`TokenizerError::Parse`], or [`TokenizerError::Vocabulary`] naming the largest id, or one that
    /// is put around every text, if the model does not know it.
    pub fn from_bytes(bytes: &[u8], vocab: u32) -> Result<Self, TokenizerError> {
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|source| TokenizerError::Parse { source })?;
        tokenizer
            .with_truncation(None)
            .map_err(|source| TokenizerError::Parse { source })?
            .with_padding(None);
        let largest = tokenizer.get_vocab(true).into_iter().max_by_key(|(_, id)| *id);
        if let Some((token, found)) = largest.filter(|(_, id)| *id >= vocab) {
            return Err(TokenizerError::Vocabulary { token, found, vocab });
        }
        // What is put around a text has ids of its own.
        let around = tokenizer.encode_fast("", true);
        let around = around.map_err(|source| TokenizerError::Encode { source })?;
        let pairs = around.get_tokens().iter().zip(around.get_ids());
        if let Some((token, id)) = pairs.into_iter().find(|(_, id)| **id >= vocab) {
            let (token, found) = (token.clone(), *id);
            return Err(TokenizerError::Vocabulary { token, found, vocab });
        }
        let added = tokenizer.get_added_tokens_decoder().into_iter();
        let special = added.filter(|(_, token)| token.special).map(|(id, _)| id).collect();
        Ok(Self(Arc::new(Inner { tokenizer, special, bytes: OnceLock::new() })))
    }

    /// How it cuts text: `BPE`, `Unigram`, `WordPiece` or `WordLevel`.
    pub fn kind(&self) -> &'static str {
        use tokenizers::ModelWrapper;
        match self.0.tokenizer.get_model() {
            ModelWrapper::BPE(_) => "BPE",
            ModelWrapper::WordPiece(_) => "WordPiece",
            ModelWrapper::WordLevel(_) => "WordLevel",
            ModelWrapper::Unigram(_) => "Unigram",
        }
    }

    /// The ids of `text`. `add_special_tokens` adds what the tokenizer puts around a text (a token
    /// of beginning, usually); a rendered chat template already holds them.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] if the tokenizer has no way to spell the text.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.0.tokenizer.encode_fast(text, add_special_tokens);
        let encoding = encoding.map_err(|source| TokenizerError::Encode { source })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids of `text` with special tokens around it, at most `max` in all: what does not fit is cut
    /// off the end of the text, and the special tokens stay.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_at_most(&self, text: &str, max: usize) -> Result<Vec<u32>, TokenizerError> {
        use tokenizers::{PostProcessor, TruncationDirection};
        let fail = |source| TokenizerError::Encode { source };
        let tokenizer = &self.0.tokenizer;
        let mut encoding = tokenizer.encode_fast(text, false).map_err(fail)?;
        let around = tokenizer.get_post_processor().map_or(0, |around| around.added_tokens(false));
        encoding.truncate(max.saturating_sub(around), 0, TruncationDirection::Right);
        let encoding = tokenizer.post_process(encoding, None, true).map_err(fail)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `ids`, without special tokens. Ids that are no token vanish; bytes that are no
    /// UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`TokenizerError::Decode`] if the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        let text = self.0.tokenizer.decode(ids, true);
        text.map_err(|source| TokenizerError::Decode { source })
    }

    /// The bytes that token `id` stands for, which need not be whole characters; of a special token
    /// its name. Empty for an id that is no token.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        let bytes = self.0.bytes.get_or_init(|| token_bytes(&self.0.tokenizer));
        bytes.get(id as usize).map_or(&[], Vec::as_slice)
    }

    /// Whether every token of both stands for the same bytes.
    pub fn spells_as(&self, other: &Self) -> bool {
        let bytes = |of: &Self| of.0.bytes.get_or_init(|| token_bytes(&of.0.tokenizer)).clone();
        self.0.special == other.0.special && bytes(self) == bytes(other)
    }

    /// The special token of this name.
    pub fn special_id(&self, name: &str) -> Option<u32> {
        self.0.tokenizer.token_to_id(name).filter(|id| self.is_special(*id))
    }

    /// Whether `id` is a special token (beginning, end, turn marker): never part of the text.
    pub fn is_special(&self, id: u32) -> bool {
        self.0.special.contains(&id)
    }
}
