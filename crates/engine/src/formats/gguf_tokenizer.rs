//! The tokenizer in a GGUF file, spelt as the `tokenizer.json` that means the same.
//!
//! Three kinds: byte-level BPE (`gpt2`), sentencepiece BPE by scores (`llama`), and word pieces (`bert`).
//! What cuts text before BPE is [`super::gguf_cuts`]'s.

use super::{
    gguf::{GgufError, Value},
    gguf_cuts::{PreTokenizer, byte_level_step},
    gguf_model::Metadata,
};
use serde_json::{Map, Value as Json, json};
use std::collections::HashMap;

const TOKENS: &str = "tokenizer.ggml.tokens";

/// What llama.cpp says of a token.
const NORMAL: f64 = 1.0;
const UNKNOWN: f64 = 2.0;
const CONTROL: f64 = 3.0;
const USER_DEFINED: f64 = 4.0;

/// The contents of a `tokenizer.json`.
pub(super) fn read(metadata: &Metadata) -> Result<Vec<u8>, GgufError> {
    const MODEL: &str = "tokenizer.ggml.model";
    let json = match metadata.text(MODEL)? {
        Some("gpt2") => byte_level(metadata)?,
        Some("llama") => sentencepiece(metadata)?,
        Some("bert") => word_pieces(metadata)?,
        // A file without words is good for measuring.
        None | Some("no_vocab" | "none") => json!({
            "version": "1.0",
            "model": { "type": "WordLevel", "vocab": { "<unk>": 0 }, "unk_token": "<unk>" },
        }),
        Some(_) => return Err(metadata.wrong(MODEL, "one of gpt2, llama, bert, no_vocab")),
    };
    Ok(json.to_string().into_bytes())
}

/// The ids that end an answer: of the text, of a turn, of a message.
pub(super) fn eos_ids(metadata: &Metadata) -> Result<Vec<u32>, GgufError> {
    let mut ids = Vec::new();
    for name in ["eos", "eot", "eom"] {
        if let Some(id) = metadata.unsigned(&format!("tokenizer.ggml.{name}_token_id"))? {
            ids.extend(u32::try_from(id));
        }
    }
    Ok(ids)
}

/// What a `tokenizer_config.json` would tell the chat template.
pub(super) fn config(metadata: &Metadata) -> Result<Map<String, Json>, GgufError> {
    let mut config = Map::new();
    if let Some(template) = metadata.text("tokenizer.chat_template")? {
        config.insert("chat_template".into(), template.into());
    }
    let tokens = metadata.texts(TOKENS)?.unwrap_or_default();
    for name in ["bos", "eos", "unknown", "padding"] {
        let id = metadata.unsigned(&format!("tokenizer.ggml.{name}_token_id"))?;
        let token = id.and_then(|id| tokens.get(usize::try_from(id).ok()?));
        if let Some(token) = token {
            let field = match name {
                "unknown" => "unk_token".into(),
                "padding" => "pad_token".into(),
                name => format!("{name}_token"),
            };
            config.insert(field, (*token).into());
        }
    }
    if let Some(adds) = metadata.bool("tokenizer.ggml.add_bos_token")? {
        config.insert("add_bos_token".into(), adds.into());
    }
    Ok(config)
}

/// Tokens with their kinds.
struct Vocabulary<'a> {
    tokens: Vec<&'a str>,
    kinds: Vec<f64>,
}

impl<'a> Vocabulary<'a> {
    fn read(metadata: &'a Metadata) -> Result<Self, GgufError> {
        let missing = || GgufError::Missing { key: TOKENS.into(), expected: "a list of texts" };
        let tokens = metadata.texts(TOKENS)?.ok_or_else(missing)?;
        let kinds = metadata.numbers("tokenizer.ggml.token_type")?;
        let mut kinds = kinds.unwrap_or_default();
        kinds.resize(tokens.len(), NORMAL);
        Ok(Self { tokens, kinds })
    }

    fn ids(&self) -> Map<String, Json> {
        let pairs = self.tokens.iter().enumerate();
        pairs.map(|(id, token)| ((*token).to_owned(), json!(id))).collect()
    }

    /// Tokens that are found in a text before it is cut.
    fn added(&self) -> Vec<Json> {
        let kinds = self.tokens.iter().zip(&self.kinds).enumerate();
        let added = kinds.filter(|(_, (_, kind))| [CONTROL, USER_DEFINED, UNKNOWN].contains(kind));
        added
            .map(|(id, (token, kind))| {
                json!({
                    "id": id, "content": token, "special": *kind != USER_DEFINED,
                    "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                })
            })
            .collect()
    }

    fn token(&self, id: Option<u64>) -> Option<(&'a str, u64)> {
        let id = id?;
        Some((*self.tokens.get(usize::try_from(id).ok()?)?, id))
    }
}

/// What is put around a text: a token of beginning, of end.
fn template(
    metadata: &Metadata,
    vocabulary: &Vocabulary<'_>,
    [begin, end]: [bool; 2],
    [begin_key, end_key]: [&str; 2],
) -> Result<Json, GgufError> {
    let token = |key: &str, wanted: bool| {
        let id = metadata.unsigned(&format!("tokenizer.ggml.{key}_token_id"))?;
        Ok::<_, GgufError>(vocabulary.token(id).filter(|_| wanted))
    };
    let (begin, end) = (token(begin_key, begin)?, token(end_key, end)?);
    if begin.is_none() && end.is_none() {
        return Ok(Json::Null);
    }
    let special = |(token, _): (&str, u64)| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let around = |sequence: &str| -> Vec<Json> {
        let text = json!({"Sequence": {"id": sequence, "type_id": 0}});
        begin.map(special).into_iter().chain([text]).chain(end.map(special)).collect()
    };
    let mut tokens = Map::new();
    for (token, id) in begin.into_iter().chain(end) {
        tokens.insert(token.into(), json!({"id": token, "ids": [id], "tokens": [token]}));
    }
    let pair: Vec<Json> = around("A").into_iter().chain(around("B")).collect();
    Ok(json!({
        "type": "TemplateProcessing", "single": around("A"), "pair": pair,
        "special_tokens": tokens,
    }))
}

fn flags(metadata: &Metadata, defaults: [bool; 2]) -> Result<[bool; 2], GgufError> {
    Ok([
        metadata.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(defaults[0]),
        metadata.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(defaults[1]),
    ])
}

fn byte_level(metadata: &Metadata) -> Result<Json, GgufError> {
    const MERGES: &str = "tokenizer.ggml.merges";
    let vocabulary = Vocabulary::read(metadata)?;
    let missing = || GgufError::Missing { key: MERGES.into(), expected: "a list of merges" };
    let merges = metadata.texts(MERGES)?.ok_or_else(missing)?;
    let pre = metadata.text("tokenizer.ggml.pre")?;
    let pre = PreTokenizer::find(pre, metadata.text("general.architecture")?)?;
    let flags = flags(metadata, [pre.begins, false])?;
    let template = template(metadata, &vocabulary, flags, ["bos", "eos"])?;
    Ok(json!({
        "version": "1.0",
        "added_tokens": vocabulary.added(),
        "normalizer": if pre.composes { json!({"type": "NFC"}) } else { Json::Null },
        "pre_tokenizer": pre.json(),
        "post_processor": template,
        "decoder": byte_level_step(false),
        "model": {
            "type": "BPE", "vocab": vocabulary.ids(), "merges": merges,
            "ignore_merges": pre.whole_words, "byte_fallback": false, "fuse_unk": false,
        },
    }))
}

/// Sentencepiece merges the pair with the best score; a list of merges in that order does the same.
fn sentencepiece(metadata: &Metadata) -> Result<Json, GgufError> {
    const SPACE: &str = "\u{2581}";
    let vocabulary = Vocabulary::read(metadata)?;
    let scores = metadata.numbers("tokenizer.ggml.scores")?.unwrap_or_default();
    let prefix = metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let unknown = metadata.unsigned("tokenizer.ggml.unknown_token_id")?;
    let unknown = vocabulary.token(unknown).map_or("<unk>", |(token, _)| token);
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let mut normalizers = vec![replace];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": SPACE}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let template =
        template(metadata, &vocabulary, flags(metadata, [true, false])?, ["bos", "eos"])?;
    Ok(json!({
        "version": "1.0",
        "added_tokens": vocabulary.added(),
        "normalizer": { "type": "Sequence", "normalizers": normalizers },
        "pre_tokenizer": null,
        "post_processor": template,
        "decoder": { "type": "Sequence", "decoders": decoders },
        "model": {
            "type": "BPE", "vocab": vocabulary.ids(), "merges": merges(&vocabulary, &scores),
            "unk_token": unknown, "byte_fallback": true, "fuse_unk": true,
        },
    }))
}

/// Every way to make a token of two others, best token first.
fn merges(vocabulary: &Vocabulary<'_>, scores: &[f64]) -> Vec<[String; 2]> {
    /// Longer tokens have no merges that matter, and quadratic time is for nobody.
    const TOKEN_BYTES_MAX: usize = 256;
    let ids: HashMap<&str, usize> =
        vocabulary.tokens.iter().enumerate().map(|(id, token)| (*token, id)).collect();
    let score = |id: usize| scores.get(id).copied().unwrap_or(0.0);
    let mut merges = Vec::new();
    for (id, token) in vocabulary.tokens.iter().enumerate() {
        if vocabulary.kinds[id] != NORMAL || token.len() > TOKEN_BYTES_MAX {
            continue;
        }
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(&left_id), Some(&right_id)) = (ids.get(left), ids.get(right)) {
                merges.push((id, [left_id, right_id], [left.to_owned(), right.to_owned()]));
            }
        }
    }
    merges
        .sort_by(|a, b| score(b.0).total_cmp(&score(a.0)).then(a.0.cmp(&b.0)).then(a.1.cmp(&b.1)));
    merges.into_iter().map(|(_, _, pair)| pair).collect()
}

/// llama.cpp marks beginnings of words; BERT marks what is none.
fn word_pieces(metadata: &Metadata) -> Result<Json, GgufError> {
    let vocabulary = Vocabulary::read(metadata)?;
    let spelt: Vec<String> = vocabulary
        .tokens
        .iter()
        .zip(&vocabulary.kinds)
        .map(|(token, kind)| match token.strip_prefix('\u{2581}') {
            Some(word) => word.to_owned(),
            None if *kind == NORMAL => format!("##{token}"),
            None => (*token).to_owned(),
        })
        .collect();
    let ids: Map<String, Json> =
        spelt.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
    let (begin, end) = match metadata.get("tokenizer.ggml.bos_token_id") {
        Some(Value::Unsigned(_)) => ("bos", "eos"),
        _ => ("cls", "seperator"),
    };
    let template = template(metadata, &vocabulary, [true, true], [begin, end])?;
    let unknown = metadata.unsigned("tokenizer.ggml.unknown_token_id")?;
    let unknown = vocabulary.token(unknown).map_or("[UNK]", |(token, _)| token);
    Ok(json!({
        "version": "1.0",
        "added_tokens": vocabulary.added(),
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": template,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "vocab": ids, "unk_token": unknown,
            "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
        },
    }))
}
