//! The bytes that each token stands for, read off the tokenizer's decoder.
//!
//! Three spellings are known: byte-level BPE (a printable letter per byte, as GPT-2 chose them),
//! sentencepiece with byte fallback (`▁` for a blank, `<0x0A>` for a byte), and plain text. A token
//! stands for the same bytes wherever it is; that some decoders strip the first blank of a text is
//! [`crate::TextStream`]'s business.

use serde_json::Value;

/// How a decoder spells bytes.
#[derive(Debug, Default)]
struct Spelling {
    byte_level: bool,
    byte_fallback: bool,
    /// Text of a token, and what it stands for.
    replaced: Vec<(String, String)>,
}

/// Bytes of the tokens `0..`, empty for ids that are no token.
pub(crate) fn token_bytes(tokenizer: &tokenizers::Tokenizer) -> Vec<Vec<u8>> {
    let mut spelling = Spelling::default();
    // A decoder's fields are private to its crate; what it serialises to is its published format.
    if let Some(decoder) = tokenizer.get_decoder() {
        spelling.read(&serde_json::to_value(decoder).unwrap_or_default());
    }
    let added = tokenizer.get_added_tokens_decoder();
    let vocab = tokenizer.get_vocab(true);
    let count = vocab.values().max().map_or(0, |id| *id as usize + 1);
    let mut bytes = vec![Vec::new(); count];
    for (text, id) in vocab {
        bytes[id as usize] =
            if added.contains_key(&id) { text.into_bytes() } else { spelling.bytes(&text) };
    }
    bytes
}

impl Spelling {
    /// Takes in a decoder and those inside it.
    fn read(&mut self, decoder: &Value) {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        match decoder["type"].as_str() {
            Some("ByteLevel") => self.byte_level = true,
            Some("ByteFallback") => self.byte_fallback = true,
            Some("Metaspace") => {
                self.replaced.extend(text(&decoder["replacement"]).map(|from| (from, " ".into())));
            }
            Some("Replace") => {
                let pattern = text(&decoder["pattern"]["String"]);
                self.replaced.extend(pattern.zip(text(&decoder["content"])));
            }
            Some("Sequence") => {
                let inner = decoder["decoders"].as_array();
                inner.into_iter().flatten().for_each(|decoder| self.read(decoder));
            }
            _ => {}
        }
    }

    fn bytes(&self, token: &str) -> Vec<u8> {
        if self.byte_level {
            let bytes: Option<Vec<u8>> = token.chars().map(byte_of).collect();
            // A token with other letters cannot come of bytes: its text is all there is to show.
            return bytes.unwrap_or_else(|| token.as_bytes().to_vec());
        }
        if self.byte_fallback
            && let Some(byte) = fallback_byte(token)
        {
            return vec![byte];
        }
        let replace = |text: String, (from, to): &(String, String)| text.replace(from, to);
        self.replaced.iter().fold(token.to_owned(), replace).into_bytes()
    }
}

/// The byte of `<0x0A>`.
fn fallback_byte(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (hex.len() == 2).then(|| u8::from_str_radix(hex, 16).ok()).flatten()
}

/// The byte that a letter of byte-level BPE stands for: itself if it prints, else the letters from
/// U+0100 on stand for the bytes that do not, in order.
fn byte_of(letter: char) -> Option<u8> {
    let prints = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    match u32::from(letter) {
        code @ 0..=0xFF => Some(code as u8).filter(|byte| prints(*byte)),
        code => (0..=u8::MAX).filter(|byte| !prints(*byte)).nth(code as usize - 0x100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bytes_of(decoder: Value, vocab: Value) -> Vec<Vec<u8>> {
        let file = json!({
            "added_tokens": [{"id": 0, "content": "<s>", "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true}],
            "decoder": decoder,
            "model": {"type": "BPE", "vocab": vocab, "merges": []},
        });
        let bytes = file.to_string().into_bytes();
        token_bytes(&tokenizers::Tokenizer::from_bytes(bytes).expect("a tokenizer"))
    }

    #[test]
    fn every_byte_has_one_letter() {
        let letters: Vec<char> = (0..0x200).filter_map(char::from_u32).collect();
        let mut bytes: Vec<u8> = letters.into_iter().filter_map(byte_of).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=u8::MAX).collect::<Vec<_>>());
        assert_eq!(
            (byte_of('Ġ'), byte_of('Ċ'), byte_of('a')),
            (Some(b' '), Some(b'\n'), Some(b'a'))
        );
        assert_eq!(byte_of('€'), None);
    }

    #[test]
    fn tokens_stand_for_bytes_as_their_decoder_spells_them() {
        let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false,
            "trim_offsets": true, "use_regex": true});
        let found = bytes_of(byte_level, json!({"<s>": 0, "Ġa": 1, "Ã": 2, "Ċ": 4}));
        let expected: [&[u8]; 5] = [b"<s>", b" a", &[0xC3], b"", b"\n"];
        assert_eq!(found, expected);

        let pieces = json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
        let found = bytes_of(pieces, json!({"<s>": 0, "▁a▁": 1, "<0xC3>": 2, "<0xZZ>": 3, "Ġ": 4}));
        let expected: [&[u8]; 5] = [b"<s>", b" a ", &[0xC3], b"<0xZZ>", "Ġ".as_bytes()];
        assert_eq!(found, expected);

        let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always",
            "split": true});
        assert_eq!(bytes_of(metaspace, json!({"<s>": 0, "▁é": 1}))[1], " é".as_bytes());
        assert_eq!(bytes_of(Value::Null, json!({"<s>": 0, "<0xC3>": 1}))[1], b"<0xC3>");
    }
}
