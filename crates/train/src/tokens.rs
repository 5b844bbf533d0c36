//! From text to tokens: tokenizers that are trained here, one per character or byte-level BPE.
//!
//! Both are written as a `tokenizer.json`, so that what serves the model later reads text as training did.

use crate::data::DataError;
use serde_json::json;
use std::collections::BTreeMap;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, TokenizerBuilder};

/// What ends a document: the first token of a BPE vocabulary.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// A tokenizer made for a training text.
#[derive(Debug, Clone)]
pub enum TextTokenizer {
    /// A token per character that the text has, in the order of Unicode.
    Characters(Vec<char>),
    /// Byte-level BPE: any text has tokens.
    Bpe(Box<tokenizers::Tokenizer>),
}

impl TextTokenizer {
    /// One token per character of `texts`.
    pub fn characters<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut seen: Vec<char> = Vec::new();
        for text in texts {
            seen.extend(text.chars());
            seen.sort_unstable();
            seen.dedup();
        }
        Self::Characters(seen)
    }

    /// Byte-level BPE with `vocab` tokens, fewer if the texts have no more pairs: the end of text, the 256 bytes, merges.
    ///
    /// # Errors
    /// The vocabulary has no room for bytes.
    pub fn bpe(texts: &[&str], vocab: u32) -> Result<Self, DataError> {
        const FIXED: u32 = 257;
        if vocab < FIXED {
            return Err(DataError::Vocabulary { found: vocab, least: FIXED });
        }
        let mut trainer = BpeTrainerBuilder::new()
            .show_progress(false)
            .vocab_size(vocab as usize)
            .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let level = ByteLevel::new(false, false, true);
        let mut tokenizer = TokenizerBuilder::new()
            .with_model(BPE::default())
            .with_normalizer(None::<tokenizers::NormalizerWrapper>)
            .with_pre_tokenizer(Some(level))
            .with_post_processor(None::<tokenizers::PostProcessorWrapper>)
            .with_decoder(Some(level))
            .build()
            .map_err(|source| DataError::Tokenizer { source })?;
        tokenizer
            .train(&mut trainer, texts.iter().copied())
            .map_err(|source| DataError::Tokenizer { source })?;
        let json = tokenizer.to_string(false).map_err(|source| DataError::Tokenizer { source })?;
        Self::from_json(&json)
    }

    /// A BPE tokenizer from a `tokenizer.json`.
    ///
    /// # Errors
    /// It is none.
    pub fn from_json(json: &str) -> Result<Self, DataError> {
        let tokenizer = json.parse().map_err(|source| DataError::Tokenizer { source })?;
        Ok(Self::Bpe(Box::new(tokenizer)))
    }

    /// How many tokens there are.
    pub fn vocab(&self) -> u32 {
        let count = match self {
            Self::Characters(characters) => characters.len(),
            Self::Bpe(tokenizer) => tokenizer.get_vocab_size(true),
        };
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// The token that ends a document, where there is one.
    pub fn end(&self) -> Option<u32> {
        match self {
            Self::Characters(_) => None,
            Self::Bpe(tokenizer) => tokenizer.token_to_id(END_OF_TEXT),
        }
    }

    /// The tokens of `text`.
    ///
    /// # Errors
    /// A character that the vocabulary lacks.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        match self {
            Self::Characters(characters) => {
                let token = |found: char| match characters.binary_search(&found) {
                    Ok(at) => Ok(at as u32),
                    Err(_) => Err(DataError::Character { found }),
                };
                text.chars().map(token).collect()
            }
            Self::Bpe(tokenizer) => {
                let encoding = tokenizer.encode_fast(text, false);
                Ok(encoding.map_err(|source| DataError::Tokenizer { source })?.get_ids().to_vec())
            }
        }
    }

    /// As the contents of a `tokenizer.json`.
    ///
    /// # Errors
    /// The library cannot write it.
    pub fn to_json(&self) -> Result<String, DataError> {
        match self {
            Self::Bpe(tokenizer) => {
                tokenizer.to_string(true).map_err(|source| DataError::Tokenizer { source })
            }
            Self::Characters(characters) => {
                let vocab: BTreeMap<String, usize> = characters
                    .iter()
                    .enumerate()
                    .map(|(at, character)| (character.to_string(), at))
                    .collect();
                // Words of one character each; a word that is unknown is none of the vocabulary and left out.
                let json = json!({
                    "version": "1.0",
                    "truncation": null,
                    "padding": null,
                    "added_tokens": [],
                    "normalizer": null,
                    "pre_tokenizer": {
                        "type": "Split",
                        "pattern": { "Regex": "[\\s\\S]" },
                        "behavior": "Isolated",
                        "invert": false
                    },
                    "post_processor": null,
                    "decoder": { "type": "Fuse" },
                    "model": { "type": "BPE", "dropout": null, "unk_token": null,
                        "continuing_subword_prefix": null, "end_of_word_suffix": null,
                        "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                        "vocab": vocab, "merges": [] }
                });
                Ok(json.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Sein oder Nichtsein — das ist hier die Frage.\nOb's edler im Gemüt, die Pfeil' und Schleudern";

    /// Both ways of reading, ours and the one by the file, find the same tokens, which are the text.
    fn check(tokenizer: &TextTokenizer) {
        let json = tokenizer.to_json().expect("written");
        let read: tokenizers::Tokenizer = json.parse().expect("a tokenizer");
        let tokens = tokenizer.encode(TEXT).expect("known");
        assert_eq!(read.encode(TEXT, false).expect("known").get_ids(), tokens);
        assert_eq!(read.decode(&tokens, true).expect("known"), TEXT);
        assert!(tokens.iter().all(|token| *token < tokenizer.vocab()));
    }

    #[test]
    fn a_token_for_each_character() {
        let tokenizer = TextTokenizer::characters([TEXT]);
        check(&tokenizer);
        assert_eq!(tokenizer.encode(TEXT).expect("known").len(), TEXT.chars().count());
        assert!(matches!(tokenizer.encode("ω"), Err(DataError::Character { found: 'ω' })));
    }

    #[test]
    fn bpe_knows_every_byte_and_learns_pairs() {
        let tokenizer = TextTokenizer::bpe(&[TEXT, TEXT], 280).expect("trained");
        check(&tokenizer);
        assert_eq!(tokenizer.vocab(), 280);
        assert_eq!(tokenizer.end(), Some(0));
        assert!(tokenizer.encode(TEXT).expect("known").len() < TEXT.len());
        assert!(tokenizer.encode("ω語").is_ok());
        assert!(matches!(TextTokenizer::bpe(&[TEXT], 256), Err(DataError::Vocabulary { .. })));
    }
}
