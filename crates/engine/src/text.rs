//! Tokens to text as they come: whole characters only, up to the first stop string.
//!
//! Decides when text is certain enough to show. A token may end within a character, so its bytes
//! wait for the rest; text that may turn out to be the start of a stop string waits until it does or
//! cannot. What is emitted never depends on where token borders fall, and is never taken back. Special
//! tokens are no text, but for those that a reader of the answer asks for.

use crate::tokenizer::Tokenizer;

/// Tokens that may wait for a character to be completed. A character has at most 4 bytes and a
/// token at least 1, so more means that the model emitted bytes that are no UTF-8 (or U+FFFD
/// itself, which looks the same). From then on all but the last, which may still be completed, are
/// shown as U+FFFD.
const WAITING_MAX: usize = 8;

/// Turns the tokens of one answer into pieces of text.
#[derive(Debug, Clone)]
pub struct TextStream {
    tokenizer: Tokenizer,
    /// The last tokens shown, whose text the next depends on (a space between words, say), and all
    /// tokens not shown yet.
    window: Vec<u32>,
    /// How many tokens of `window` are shown.
    tokens_shown: usize,
    /// How many bytes of the text of `window` are shown.
    bytes_shown: usize,
    /// Special tokens that are shown by their names.
    special: Vec<u32>,
    stops: StopStrings,
}

/// What a token added to the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextDelta {
    /// Text that is now certain; often empty.
    pub text: String,
    /// A stop string was found. It is not in any text, nor is anything after it.
    pub stopped: bool,
}

impl TextStream {
    /// For an answer that starts a text of its own (after a chat template). Empty stop strings are
    /// ignored.
    pub fn new(tokenizer: Tokenizer, stop: Vec<String>) -> Self {
        let stops = StopStrings::new(stop);
        let (window, special) = (Vec::new(), Vec::new());
        Self { tokenizer, window, tokens_shown: 0, bytes_shown: 0, special, stops }
    }

    /// The same, with the names of these special tokens in the text.
    pub fn showing(self, special: Vec<u32>) -> Self {
        Self { special, ..self }
    }

    /// For an answer that continues `prompt`. Some tokenizers show a word's leading space only
    /// after another word; so this and not [`Self::new`] gives text to put after the prompt's.
    pub fn continuing(tokenizer: Tokenizer, prompt: &[u32], stop: Vec<String>) -> Self {
        let mut stream = Self::new(tokenizer, stop);
        let prompt: Vec<_> =
            prompt.iter().copied().filter(|t| !stream.tokenizer.is_special(*t)).collect();
        // The shortest end of the prompt that starts with a whole character.
        for start in (prompt.len().saturating_sub(WAITING_MAX)..prompt.len()).rev() {
            let text = stream.decode(&prompt[start..]);
            if !text.starts_with(char::REPLACEMENT_CHARACTER) {
                stream.window = prompt[start..].to_vec();
                (stream.tokens_shown, stream.bytes_shown) = (stream.window.len(), text.len());
                break;
            }
        }
        stream
    }

    /// Adds a token. After a stop string was found nothing more is emitted.
    pub fn push(&mut self, token: u32) -> TextDelta {
        if self.special.contains(&token) {
            let name = String::from_utf8_lossy(self.tokenizer.token_bytes(token)).into_owned();
            let text = self.rest() + &name;
            return self.stops.push(&text);
        }
        if !self.tokenizer.is_special(token) {
            self.window.push(token);
        }
        let text = self.whole_characters();
        self.stops.push(&text)
    }

    /// What was still waiting, when no token follows: the start of a stop string that did not come,
    /// or a broken character as U+FFFD.
    pub fn finish(&mut self) -> String {
        let rest = self.rest();
        let TextDelta { text, stopped } = self.stops.push(&rest);
        if stopped { text } else { text + &self.stops.finish() }
    }

    /// What no stop string holds back, but a character that is not complete. What follows is a text of its own.
    fn rest(&mut self) -> String {
        let text = self.decode(&self.window);
        let rest = text.get(self.bytes_shown..).unwrap_or_default().to_owned();
        self.window.clear();
        (self.tokens_shown, self.bytes_shown) = (0, 0);
        rest
    }

    /// The stop string that was found, if one was.
    pub fn stopped_by(&self) -> Option<&str> {
        self.stops.found.map(|at| self.stops.stops[at].as_str())
    }

    /// Text of waiting tokens that no later token can change.
    fn whole_characters(&mut self) -> String {
        let text = self.decode(&self.window);
        let whole = text.strip_suffix(char::REPLACEMENT_CHARACTER);
        let waiting = self.window.len() - self.tokens_shown;
        if whole.is_some() && waiting <= WAITING_MAX {
            return String::new();
        }
        let certain = whole.unwrap_or(&text);
        let Some(new) = certain.get(self.bytes_shown..).filter(|new| !new.is_empty()) else {
            return String::new();
        };
        if whole.is_some() {
            self.bytes_shown = certain.len();
        } else {
            // The tokens just shown are context enough for the next.
            self.window.drain(..self.tokens_shown);
            self.tokens_shown = self.window.len();
            self.bytes_shown = self.decode(&self.window).len();
        }
        new.to_owned()
    }

    /// A decoder that fails on its own model's tokens has no text for them.
    fn decode(&self, tokens: &[u32]) -> String {
        self.tokenizer.decode(tokens).unwrap_or_default()
    }
}

/// Looks for stop strings in text that comes in pieces.
#[derive(Debug, Clone)]
struct StopStrings {
    stops: Vec<String>,
    /// Text not emitted: it may be the start of a stop string.
    held: String,
    /// Which of `stops` was found.
    found: Option<usize>,
}

impl StopStrings {
    fn new(mut stops: Vec<String>) -> Self {
        stops.retain(|stop| !stop.is_empty());
        Self { stops, held: String::new(), found: None }
    }

    fn push(&mut self, text: &str) -> TextDelta {
        if self.found.is_some() {
            return TextDelta { text: String::new(), stopped: true };
        }
        self.held.push_str(text);
        if let Some((start, stop)) = self.find() {
            self.found = Some(stop);
            self.held.truncate(start);
            return TextDelta { text: std::mem::take(&mut self.held), stopped: true };
        }
        let kept = self.held.split_off(self.held.len() - self.undecided());
        TextDelta { text: std::mem::replace(&mut self.held, kept), stopped: false }
    }

    fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where the stop string starts that is complete first, and which it is; of those complete at once,
    /// the longest. Which one is complete first does not depend on how the text was cut.
    fn find(&self) -> Option<(usize, usize)> {
        let places = self.stops.iter().enumerate().filter_map(|(at, stop)| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start, at))
        });
        places.min().map(|(_, start, at)| (start, at))
    }

    /// Bytes at the end of `held` that may start a stop string.
    fn undecided(&self) -> usize {
        let starts = |stop: &str| {
            let ends = stop.char_indices().map(|(end, _)| end).skip(1);
            ends.filter(|end| self.held.ends_with(&stop[..*end])).max().unwrap_or(0)
        };
        self.stops.iter().map(|stop| starts(stop)).max().unwrap_or(0)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_tokenizer() -> Tokenizer {
        bytes_and(&["<end>"])
    }

    /// A tokenizer of single bytes: a token per byte, so that every border is within reach. The
    /// first 256 ids are the byte tokens of byte-level BPE; from 256 on `special` tokens follow.
    pub(crate) fn bytes_and(special: &[&str]) -> Tokenizer {
        let letters = byte_letters();
        let vocab: serde_json::Map<_, _> =
            letters.iter().enumerate().map(|(id, c)| (c.to_string(), id.into())).collect();
        let added = special.iter().zip(256..).map(|(name, id)| {
            serde_json::json!({"id": id, "content": name, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true})
        });
        let file = serde_json::json!({
            "added_tokens": added.collect::<Vec<_>>(),
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false,
                "trim_offsets": true, "use_regex": false},
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                "use_regex": false},
            "model": {"type": "BPE", "vocab": vocab, "merges": []},
        });
        let vocab = 256 + special.len() as u32;
        Tokenizer::from_bytes(file.to_string().as_bytes(), vocab).expect("a tokenizer")
    }

    /// GPT-2's printable stand-in for each byte.
    fn byte_letters() -> [char; 256] {
        let printable = |b: u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
        let mut next = 256;
        std::array::from_fn(|byte| {
            let code = if printable(byte as u32) {
                byte as u32
            } else {
                next += 1;
                next - 1
            };
            char::from_u32(code).expect("a letter")
        })
    }

    /// The text as it streams, piece by piece, and whether it stopped.
    fn stream(tokens: &[u32], stop: &[&str]) -> (Vec<String>, bool) {
        let stop = stop.iter().map(|s| (*s).to_owned()).collect();
        let mut stream = TextStream::new(bytes_tokenizer(), stop);
        let deltas: Vec<_> = tokens.iter().map(|t| stream.push(*t)).collect();
        let stopped = deltas.last().is_some_and(|d| d.stopped);
        let rest = stream.finish();
        (deltas.into_iter().map(|d| d.text).chain([rest]).collect(), stopped)
    }

    fn tokens(text: &str) -> Vec<u32> {
        text.bytes().map(u32::from).collect()
    }

    #[test]
    fn characters_come_whole_and_special_tokens_not_at_all() {
        let mut ids = tokens("aé");
        ids.insert(2, 256); // within the bytes of é
        ids.push(256);
        let (pieces, stopped) = stream(&ids, &[]);
        assert_eq!((pieces.join("|").as_str(), stopped), ("a|||é||", false));
    }

    #[test]
    fn special_tokens_are_shown_where_they_are_asked_for() {
        let tokenizer = bytes_and(&["<end>", "[CALL]"]);
        let shown = |stop: &[&str]| {
            let stop = stop.iter().map(|s| (*s).to_owned()).collect();
            let mut stream = TextStream::new(tokenizer.clone(), stop).showing(vec![257]);
            // A character that is cut short ends where the mark begins.
            let text = [tokens("a"), vec![0xC3, 257], tokens(" b"), vec![256]].concat();
            let text: String = text.iter().map(|token| stream.push(*token).text).collect();
            text + &stream.finish()
        };
        assert_eq!(shown(&[]), "a\u{FFFD}[CALL] b");
        assert_eq!(shown(&["ALL] "]), "a\u{FFFD}[C");
    }

    #[test]
    fn a_stop_string_is_found_across_tokens_and_not_shown() {
        let check = |text: &str, stop: &[&str], expected: &str, expected_stop: bool| {
            let (pieces, stopped) = stream(&tokens(text), stop);
            assert_eq!((pieces.concat().as_str(), stopped), (expected, expected_stop), "{text:?}");
        };
        check("one\n\ntwo", &["\n\n"], "one", true);
        check("one\ntwo\n", &["\n\n"], "one\ntwo\n", false);
        check("aaab", &["aab"], "a", true);
        check("héé!", &["éé"], "h", true);
        check("xabcd", &["abcd", "bc"], "xa", true); // "bc" is complete first
        check("xabc", &["bc", "abc"], "x", true); // both at once: the longer
        check("text", &[""], "text", false);
    }

    #[test]
    fn the_stop_string_that_was_found_is_told() {
        let check = |text: &str, stop: &[&str], expected: Option<&str>| {
            let stop = stop.iter().map(|s| (*s).to_owned()).collect();
            let mut stream = TextStream::new(bytes_tokenizer(), stop);
            for token in tokens(text) {
                stream.push(token);
            }
            stream.finish();
            assert_eq!(stream.stopped_by(), expected, "{text:?}");
        };
        check("xabcd", &["", "abcd", "bc"], Some("bc"));
        check("xabc", &["bc", "abc"], Some("abc"));
        check("xab", &["abc"], None);
    }

    #[test]
    fn bytes_that_are_no_text_become_replacement_characters() {
        let mut ids = vec![0xE2, 0x82]; // two thirds of a euro sign
        ids.extend(tokens("x"));
        assert_eq!(stream(&ids, &[]).0.concat(), "\u{FFFD}x");
        assert_eq!(stream(&ids[..2], &[]).0.concat(), "\u{FFFD}");
        let many = [0xFF_u32; 40];
        let (pieces, _) = stream(&many, &[]);
        assert_eq!(pieces.concat(), "\u{FFFD}".repeat(40));
        assert!(!pieces[10].is_empty(), "they do not wait for ever");
    }

    #[test]
    fn a_continuation_is_text_to_put_after_the_prompt() {
        // Two sentencepiece words; the decoder strips the space before the first of a text.
        let file = serde_json::json!({
            "added_tokens": [],
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "vocab": {"▁one": 0, "▁two": 1, "<0xC3>": 2, "<0xA9>": 3},
                "merges": [], "byte_fallback": true},
        });
        let tokenizer = Tokenizer::from_bytes(file.to_string().as_bytes(), 4).expect("tokenizer");
        let own = TextStream::new(tokenizer.clone(), vec![]).push(1).text;
        let mut after = TextStream::continuing(tokenizer.clone(), &[0], vec![]);
        let continued = after.push(1).text;
        assert_eq!((own.as_str(), continued.as_str()), ("two", " two"));
        // The prompt's end is no border of characters for a decoder of byte tokens.
        let mut after = TextStream::continuing(tokenizer, &[0, 2, 3], vec![]);
        let pieces = [2, 3, 1].map(|t| after.push(t).text);
        assert_eq!(pieces, ["", "é", " two"]);
    }

    proptest! {
        /// Whatever the text and the stop strings, the stream gives the text up to the first stop
        /// string that is complete, and every piece is part of it.
        #[test]
        fn pieces_make_the_text_up_to_the_stop(
            text in "([ab]|\\PC|[é€🙂\u{FFFD}]){0,40}",
            stops in prop::collection::vec("[abé]{1,4}", 0..3),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let (pieces, stopped) = stream(&tokens(&text), &stops);
            let ends = text.char_indices().map(|(i, c)| i + c.len_utf8());
            let cut = ends.into_iter().find_map(|end| {
                let seen = &text[..end];
                let longest = stops.iter().filter(|s| seen.ends_with(**s)).map(|s| s.len()).max();
                longest.map(|stop| end - stop)
            });
            prop_assert_eq!(pieces.concat(), &text[..cut.unwrap_or(text.len())]);
            prop_assert_eq!(stopped, cut.is_some());
        }
    }
}
